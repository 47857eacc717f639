//! `xclipd verify`: golden vectors, stage by stage.
//!
//! The backend runs the file's clip and prompts with its trace on; every stage that both sides have is
//! compared. Key names: tests/golden/README.md. Files of gen_golden.py for any configuration fit: of a
//! stage with many rows they keep some, and the shape says which.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use safetensors::{Dtype, SafeTensors};

use crate::backend::{self, Backend, ClipFeatures, Device, Precision};
use crate::model::{Config, Model, recipe};
use crate::preprocess::Reduced;

/// What a stage is held to.
#[derive(Clone, Copy)]
struct Bound {
    /// Largest absolute difference allowed; infinite where the cosine decides.
    max_abs: f64,
    /// Least cosine allowed; 0 where the difference decides.
    cosine: f64,
}

impl Bound {
    const fn max_abs(max_abs: f64) -> Self {
        Self { max_abs, cosine: 0.0 }
    }

    const fn cosine(cosine: f64) -> Self {
        Self { max_abs: f64::INFINITY, cosine }
    }

    /// Embeddings are the normalised vectors, probabilities and pixels, all of order 1. Features before
    /// normalisation are linear images of hidden states, of the same size and with the same error. `joint`: the
    /// width of embeddings.
    fn of(precision: Precision, stage: &str, joint: usize) -> Self {
        let logits = stage.starts_with("logits");
        let fewer = (512.0 / joint as f64).sqrt().max(1.0);
        let embeddings = stage.contains("_embeds") || stage == "probs" || stage.starts_with("pixel");
        match precision {
            Precision::Auto | Precision::F32 if logits => Self::max_abs(2e-4),
            Precision::Auto | Precision::F32 if embeddings => Self::max_abs(1e-5),
            Precision::Auto | Precision::F32 => Self::max_abs(5e-5),
            // Every stored value of order 1 to 8 is rounded to 11 bits, sums are f32: each layer adds about
            // 3e-4 of a vector's length, in directions of its own. Pixels reach 2.7, where a unit is 2e-3.
            Precision::F16 if logits => Self::max_abs(0.02),
            Precision::F16 if stage == "probs" => Self::max_abs(0.01),
            Precision::F16 if stage.starts_with("pixel") => Self::max_abs(1e-3),
            Precision::F16 if embeddings => Self::cosine(0.9999),
            Precision::F16 => Self::cosine(0.9998),
            // What bytes round off adds up layer by layer to about 0.02 % of a vector's length; a bound on
            // single values would follow the largest of them. A logit that moves by δ while the others
            // move against it moves its probability by δ/2 at most. Errors lie in directions of their own: of
            // the same length, they move a cosine in few dimensions more than in the published models' 512.
            Precision::Int8 if logits => Self::max_abs(0.05 * fewer),
            Precision::Int8 if stage == "probs" => Self::max_abs(0.025 * fewer),
            Precision::Int8 if stage.starts_with("pixel") => Self::max_abs(1e-5),
            Precision::Int8 if embeddings => Self::cosine(0.9998),
            Precision::Int8 => Self::cosine(0.9995),
        }
    }

    /// NaN is past every bound.
    fn holds(&self, found: &Difference) -> bool {
        found.max_abs <= self.max_abs && (self.cosine == 0.0 || found.cosine >= self.cosine)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cosine {
            0.0 => f.pad(&format!("abs {:.1e}", self.max_abs)),
            cosine => f.pad(&format!("cos {cosine}")),
        }
    }
}

/// Opens the model and checks it against the file; false when a stage is past its bound.
pub fn run(
    model: &Model,
    golden: &Path,
    device: Device,
    precision: Precision,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut backend = backend::open(model, device, precision, 0)?.warned();
    check(&mut *backend, &model.config, golden, precision, out)
}

/// Checks a loaded backend against the file; false when a stage is past its bound.
pub fn check(
    backend: &mut dyn Backend,
    config: &Config,
    golden: &Path,
    precision: Precision,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let bytes = std::fs::read(golden).with_context(|| format!("{}", golden.display()))?;
    let golden = SafeTensors::deserialize(&bytes).with_context(|| format!("{}", golden.display()))?;
    check_stages(backend, config, &Golden(golden), precision, out)
}

/// As [`check`], from the file's content.
pub fn check_bytes(
    backend: &mut dyn Backend,
    config: &Config,
    golden: &[u8],
    precision: Precision,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let golden = SafeTensors::deserialize(golden).context("golden vectors")?;
    check_stages(backend, config, &Golden(golden), precision, out)
}

fn check_stages(
    backend: &mut dyn Backend,
    config: &Config,
    golden: &Golden<'_>,
    precision: Precision,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    // Where the CPU took over, not what was asked for.
    let precision =
        if matches!(precision, Precision::Auto | Precision::F16) { backend.precision() } else { precision };
    let ours = forward(backend, config, golden)?;

    writeln!(out, "{}", backend.describe())?;
    writeln!(out, "{:<32} {:>10} {:>10} {:>12} {:>10}", "stage", "max abs", "max rel", "cosine", "bound")?;
    let (mut passed, mut compared, mut absent) = (true, 0, Vec::new());
    for stage in stages(config) {
        let Some((shape, reference)) = golden.numbers(&stage)? else {
            absent.push(stage);
            continue;
        };
        let Some(items) = ours.get(stage.strip_suffix("_f64").unwrap_or(&stage)) else {
            writeln!(out, "{stage:<32} skipped: this backend does not show it")?;
            continue;
        };
        let (ours, reference) = align(&stage, items, &shape, reference)?;
        let (bound, found) =
            (Bound::of(precision, &stage, config.projection), Difference::of(&ours, &reference));
        let ok = bound.holds(&found);
        let Difference { max_abs, max_rel, cosine } = found;
        let verdict = if ok { "ok" } else { "FAIL" };
        writeln!(out, "{stage:<32} {max_abs:>10.2e} {max_rel:>10.2e} {cosine:>12.9} {bound:>10} {verdict}")?;
        passed &= ok;
        compared += 1;
    }
    if !absent.is_empty() {
        writeln!(out, "skipped, not in the file: {}", absent.join(", "))?;
    }
    ensure!(compared > 0, "the file has no stage to compare; expected keys such as `logits_per_video`");
    if let Some((_, reference)) = golden.numbers("logits_per_video")? {
        let logits: Vec<f64> = ours["logits_per_video"].concat().iter().map(|v| *v as f64).collect();
        let (top, expected) = (largest(&logits), largest(&reference));
        let verdict = if top == expected { "ok" } else { "FAIL" };
        writeln!(out, "top label: {top}, expected {expected} {verdict}")?;
        passed &= top == expected;
    }
    Ok(passed)
}

/// Stages in the order of the forward pass.
fn stages(config: &Config) -> Vec<String> {
    let layers = |name: &str, n: usize| (0..n).map(|i| format!("{name}_{i}")).collect::<Vec<_>>();
    let one = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    [
        one(&["pixel_values", "pixel_values_f0_corner", "vision_embed_after_pre_ln"]),
        layers("vision_hidden", config.vision.layers),
        one(&["pooled_cls_post_ln", "frame_features"]),
        layers("mit_hidden", config.mit.layers),
        one(&["mit_pooled", "prompts_visual_ln", "img_features_mean"]),
        layers("text_hidden", config.text.layers),
        one(&["text_features_before_prompts"]),
        layers("prompts_hidden", config.prompt_layers),
        one(&["video_embeds", "text_embeds", "logits_per_video", "probs"]),
        one(&["video_embeds_f64", "text_embeds_f64", "logits_per_video_f64"]),
        one(&["video_embeds_batch2", "logits_per_video_batch2"]),
    ]
    .concat()
}

/// Each stage's items (a frame's, a prompt's or a clip's values), in the order shown.
type Stages = HashMap<String, Vec<Vec<f32>>>;

/// Runs the file's clip and prompts, then both clips of the batch.
fn forward(backend: &mut dyn Backend, config: &Config, golden: &Golden<'_>) -> anyhow::Result<Stages> {
    let (frames, size) = (config.num_frames, config.image_size);
    let pixels = match golden.bytes("frames_u8") {
        Some((shape, bytes)) => {
            ensure!(
                shape == [frames, size, size, 3],
                "`frames_u8`: the model needs shape {:?}, the file has {shape:?}",
                [frames, size, size, 3]
            );
            bytes.to_vec()
        }
        None => recipe::frames_u8(frames, size, size, 2),
    };
    let reduced = Reduced::split(&pixels, size);
    let Some((shape, ids)) = golden.numbers("input_ids")? else {
        bail!("the file has no `input_ids` [K, N]: made by another script?");
    };
    ensure!(shape.len() == 2 && shape[1] >= 1, "`input_ids`: expected shape [K, N], the file has {shape:?}");
    let vocabulary = config.vocab_size;
    if let Some(id) = ids.iter().find(|id| !(0.0..vocabulary as f64).contains(*id)) {
        bail!("`input_ids`: id {id} is not in the model's vocabulary of {vocabulary}");
    }
    let prompts: Vec<Vec<u32>> =
        ids.chunks(shape[1]).map(|ids| ids.iter().map(|id| *id as u32).collect()).collect();

    let seen = Arc::new(Mutex::new(Stages::new()));
    let sink = seen.clone();
    backend.set_trace(Some(Box::new(move |stage, values| {
        // A poisoned lock only means that another stage's push panicked; what is there stays valid.
        let mut seen = sink.lock().unwrap_or_else(|e| e.into_inner());
        seen.entry(stage.to_string()).or_default().push(values.to_vec());
    })));
    let prepared = backend.prepare(&reduced.iter().collect::<Vec<_>>())?;
    let clip = backend.encode(&[&prepared])?;
    let text = backend.encode_text(&prompts)?;
    let logits = backend.compare(&[&clip[0]], &text)?;
    backend.set_trace(None);
    let mut stages = std::mem::take(&mut *seen.lock().unwrap_or_else(|e| e.into_inner()));
    stages.insert("logits_per_video".into(), logits.clone());
    stages.insert("probs".into(), vec![softmax(&logits[0])]);
    if let Some(pixels) = stages.get("pixel_values").and_then(|frames| frames.first()) {
        let corner = (0..3 * 8 * 8).map(|i| pixels[(i / 64 * size + i / 8 % 8) * size + i % 8]).collect();
        stages.insert("pixel_values_f0_corner".into(), vec![corner]);
    }

    let reversed: Vec<_> = prepared.iter().rev().cloned().collect();
    let pair = backend.encode(&[&prepared, &reversed])?;
    let logits = backend.compare(&pair.iter().collect::<Vec<&ClipFeatures>>(), &text)?;
    stages.insert("logits_per_video_batch2".into(), logits);
    let unit = |clip: &ClipFeatures| {
        let norm = clip.video.iter().map(|v| v * v).sum::<f32>().sqrt();
        clip.video.iter().map(|v| v / norm).collect::<Vec<f32>>()
    };
    stages.insert("video_embeds_batch2".into(), pair.iter().map(unit).collect());
    Ok(stages)
}

/// Our values and the reference's for the same elements.
fn align(
    stage: &str,
    items: &[Vec<f32>],
    shape: &[usize],
    reference: Vec<f64>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let fault = || {
        let ours: Vec<usize> = items.iter().map(Vec::len).collect();
        format!(
            "`{stage}`: the file has shape {shape:?}, the model gives {} items of {ours:?} values",
            items.len()
        )
    };
    let by_rows = ["vision_", "prompts_visual_ln", "text_hidden"].iter().any(|s| stage.starts_with(s));
    if !by_rows {
        let ours: Vec<f64> = items.concat().iter().map(|v| *v as f64).collect();
        ensure!(ours.len() == reference.len(), fault());
        return Ok((ours, reference));
    }
    let &[count, rows, width] = shape else { bail!(fault()) };
    ensure!(count == items.len() && rows > 0 && width > 0, fault());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (item, reference) in items.iter().zip(reference.chunks(rows * width)) {
        ensure!(item.len() % width == 0, fault());
        let have = item.len() / width;
        let pick: Vec<usize> = if stage.starts_with("text_hidden") {
            // Rows after the end token mean nothing and are not computed.
            (0..rows.min(have)).collect()
        } else if rows == have {
            (0..rows).collect()
        } else if stage.starts_with("vision_") && rows == 3 && have > 3 {
            vec![0, 1, have - 1]
        } else if stage == "prompts_visual_ln" && rows < have {
            (0..rows).collect()
        } else {
            bail!(fault())
        };
        for (i, row) in pick.into_iter().enumerate() {
            ours.extend(item[row * width..][..width].iter().map(|v| *v as f64));
            theirs.extend_from_slice(&reference[i * width..][..width]);
        }
    }
    Ok((ours, theirs))
}

struct Difference {
    max_abs: f64,
    /// Over elements of at least a hundredth of the stage's largest magnitude: near 0 it says nothing.
    max_rel: f64,
    cosine: f64,
}

impl Difference {
    fn of(ours: &[f64], reference: &[f64]) -> Self {
        let largest = reference.iter().fold(0f64, |m, v| m.max(v.abs()));
        let (mut max_abs, mut max_rel) = (0f64, 0f64);
        let (mut dot, mut own, mut other) = (0.0, 0.0, 0.0);
        for (a, b) in ours.iter().zip(reference) {
            let d = (a - b).abs();
            // Not f64::max, which would drop a NaN.
            max_abs = if d <= max_abs { max_abs } else { d };
            if b.abs() >= largest / 100.0 && *b != 0.0 {
                let relative = d / b.abs();
                max_rel = if relative <= max_rel { max_rel } else { relative };
            }
            (dot, own, other) = (dot + a * b, own + a * a, other + b * b);
        }
        Difference { max_abs, max_rel, cosine: dot / (own * other).sqrt() }
    }
}

fn largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let weights: Vec<f32> = logits.iter().map(|v| (v - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn bytes(&self, name: &str) -> Option<(Vec<usize>, &[u8])> {
        let view = self.0.tensor(name).ok().filter(|view| view.dtype() == Dtype::U8)?;
        Some((view.shape().to_vec(), view.data()))
    }

    fn numbers(&self, name: &str) -> anyhow::Result<Option<(Vec<usize>, Vec<f64>)>> {
        let Ok(view) = self.0.tensor(name) else { return Ok(None) };
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b) as f64).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => bail!("`{name}`: expected F32, F64 or I64 values, the file has {other:?}"),
        };
        Ok(Some((view.shape().to_vec(), values)))
    }
}
