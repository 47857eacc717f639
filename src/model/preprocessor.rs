//! preprocessor_config.json → [`Rule`]: which numbers the picture is resized, cropped and normalised with.
//!
//! Published checkpoints were saved by `VideoMAEFeatureExtractor` (sizes as integers or objects, ImageNet
//! mean and std). The class defaults of later versions (0.5) are wrong for them, so mean and std must be
//! in the file.

use serde::Deserialize;

use super::ModelError;
use super::config::Config;
use super::error::shown;
use super::source::Folder;
use crate::preprocess::{Geometry, Rule};

/// Which spatial rule to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// As preprocessor_config.json says.
    #[default]
    Checkpoint,
    /// The paper's evaluation: short side to int(256/224·S), centre crop S.
    Videox,
    /// Both sides to S, aspect ratio ignored: nothing of the picture is cut off.
    Stretch,
}

impl Resize {
    /// The checkpoint's rule with this spatial part.
    pub fn apply(self, rule: Rule) -> Rule {
        let geometry = match self {
            Resize::Checkpoint => rule.geometry,
            // The same f64 arithmetic as the original's Python.
            Resize::Videox => Geometry::ShortestEdge { short: (256.0 / 224.0 * rule.size as f64) as u32 },
            Resize::Stretch => Geometry::Stretch,
        };
        Rule { geometry, ..rule }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(alias = "feature_extractor_type", alias = "video_processor_type")]
    image_processor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

/// `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    One(u32),
    Short { shortest_edge: u32 },
    Both { height: u32, width: u32 },
}

const BILINEAR: u32 = 2;

/// What transformers 5 writes when the whole processor is saved.
#[derive(Deserialize)]
struct Processor {
    #[serde(alias = "video_processor")]
    image_processor: File,
}

/// Finds and reads the folder's rule: preprocessor_config.json, else processor_config.json.
pub(crate) fn open(folder: &Folder, config: &Config) -> Result<Rule, ModelError> {
    let json = |file: &str, source| ModelError::Json { file: file.into(), source };
    if let Some(content) = folder.read("preprocessor_config.json")? {
        let read = serde_json::from_slice(&content).map_err(|error| json(&content.file, error))?;
        return check(&content.file, read, config);
    }
    if let Some(content) = folder.read("processor_config.json")? {
        let read: Processor = serde_json::from_slice(&content).map_err(|error| json(&content.file, error))?;
        return check(&content.file, read.image_processor, config);
    }
    Err(ModelError::Folder {
        model: folder.label(""),
        problem:
            "has no preprocessor_config.json, which says how pictures are resized and normalised: fetch it \
                  from where config.json came"
                .into(),
    })
}

/// All problems are reported at once; `file` names the file in messages.
fn check(file: &str, read: File, config: &Config) -> Result<Rule, ModelError> {
    let mut problems = Vec::new();
    let side = config.image_size as u32;

    for (key, value) in [("do_resize", read.do_resize), ("do_rescale", read.do_rescale)] {
        if value == Some(false) {
            problems.push(format!("{key}: expected true, found false"));
        }
    }
    let video_mae = read.image_processor_type.as_deref().is_none_or(|name| name.starts_with("VideoMAE"));
    match read.resample {
        Some(BILINEAR) => {}
        None if video_mae => {}
        None => problems.push(format!(
            "resample: missing, and `{}` has another default than VideoMAE's 2 (bilinear): write it down",
            shown(read.image_processor_type.as_deref().unwrap_or_default())
        )),
        Some(other) => problems.push(format!(
            "resample: expected 2 (bilinear), the only filter supported and the published checkpoints' own, found {other}{}",
            match other {
                0 => " (nearest)",
                1 => " (lanczos)",
                3 => " (bicubic)",
                _ => "",
            }
        )),
    }
    if let Some(factor) = read.rescale_factor
        && (factor * 255.0 - 1.0).abs() > 1e-6
    {
        problems.push(format!("rescale_factor: expected 1/255, found {factor}"));
    }

    let cropped = read.do_center_crop != Some(false);
    match read.crop_size {
        _ if !cropped => {}
        Some(Size::One(crop) | Size::Short { shortest_edge: crop }) if crop == side => {}
        Some(Size::Both { height, width }) if height == side && width == side => {}
        None if side == 224 => {} // the class default
        None => problems.push(format!("crop_size: missing, expected image_size {side} of config.json")),
        Some(found) => {
            problems.push(format!("crop_size: expected image_size {side} of config.json, found {found}"))
        }
    }
    let geometry = match read.size.unwrap_or(Size::Short { shortest_edge: 224 }) {
        Size::Both { height, width } if height == side && width == side => Geometry::Stretch,
        Size::One(short) | Size::Short { shortest_edge: short } if short >= side && short <= 8 * side => {
            if !cropped {
                problems.push(
                    "do_center_crop: false, but size scales the shortest edge only, so pictures would not be square"
                        .to_string(),
                );
            }
            Geometry::ShortestEdge { short }
        }
        found => {
            problems.push(format!(
                "size: expected a shortest edge of {side} (config.json's image_size) to {}, or both sides {side}, found {found}",
                8 * side
            ));
            Geometry::Stretch
        }
    };

    let (mean, std) = if read.do_normalize == Some(false) {
        ([0.0; 3], [1.0; 3])
    } else {
        for (key, value) in [("image_mean", read.image_mean), ("image_std", read.image_std)] {
            match value {
                None => problems.push(format!(
                    "{key}: missing; it must be written down (published checkpoints: mean [0.485, 0.456, 0.406], std \
                     [0.229, 0.224, 0.225]), the defaults of today's image processors are wrong for them"
                )),
                Some(v) if v.iter().any(|x| !x.is_finite()) => problems.push(format!("{key}: expected finite numbers, found {v:?}")),
                Some(_) => {}
            }
        }
        if let Some(std) = read.image_std
            && std.iter().any(|&x| x < 1e-4)
        {
            problems.push(format!("image_std: expected positive numbers, found {std:?}"));
        }
        (read.image_mean.unwrap_or([0.0; 3]), read.image_std.unwrap_or([1.0; 3]))
    };
    if !problems.is_empty() {
        return Err(ModelError::Settings { file: file.into(), problems });
    }
    Ok(Rule { size: side, geometry, mean, std })
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Size::One(side) => write!(f, "{side}"),
            Size::Short { shortest_edge } => write!(f, "shortest edge {shortest_edge}"),
            Size::Both { height, width } => write!(f, "{height}x{width} (height x width)"),
        }
    }
}
