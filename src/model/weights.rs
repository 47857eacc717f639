//! model.safetensors (single or sharded) and pytorch_model.bin: names, shapes, then values as f32.
//!
//! Opening reads headers only and checks every name, shape, type and extent against the configuration;
//! values are converted, and checked to be finite, when a backend asks for them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use half::{bf16, f16};
use serde::Deserialize;

use super::config::Config;
use super::error::shown;
use super::source::{Content, Folder, is_plain_file_name};
use super::{ModelError, TensorProblem, layout, safetensors_file, torch_bin};

/// Tensors by Hugging Face name; files are mapped, values are converted on demand.
pub struct Weights {
    files: Vec<Content>,
    tensors: BTreeMap<String, Stored>,
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    BF16,
    /// Anything else, by name: fine for a buffer nobody reads, a problem for a weight.
    Other(&'static str),
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::BF16 => 2,
            Element::Other(_) => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Element::F32 => "F32",
            Element::F16 => "F16",
            Element::BF16 => "BF16",
            Element::Other(name) => name,
        }
    }
}

/// Where a tensor lies. Whoever makes one has checked that it lies inside its file.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub file: usize,
    pub element: Element,
    pub shape: Vec<usize>,
    /// Byte offset of the first element in the file.
    pub start: usize,
    /// Elements from one index to the next, per axis; `None` is row-major.
    pub strides: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Weight files in the order they are looked for. An `.index.json` names the shards.
pub(super) const NAMES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

impl Weights {
    /// Finds the folder's weights and checks them against the configuration.
    pub(crate) fn open(folder: &Folder, config: &Config) -> Result<Self, ModelError> {
        for name in NAMES {
            let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
            let mut problems = Vec::new();
            if name.ends_with(".index.json") {
                let Some(content) = folder.read(name)? else { continue };
                weights.add_shards(folder, content, &mut problems)?;
            } else {
                let Some(content) = folder.map(name)? else { continue };
                for name in weights.add(content)? {
                    let problem = "is in the file twice".to_string();
                    problems.push(TensorProblem::Place { name: shown(&name), problem });
                }
            }
            weights.check(config, &mut problems);
            if problems.is_empty() {
                return Ok(weights);
            }
            let mend = weights.mend(&problems);
            return Err(ModelError::Tensors { file: folder.label(name), problems, mend });
        }
        Err(ModelError::Folder {
            model: folder.label(""),
            problem: format!("has no weights; expected one of {}", NAMES.join(", ")),
        })
    }

    /// Row-major values of a tensor as f32 (from f32, f16 or bf16), checked to be finite.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let stored = self.tensors.get(name).ok_or_else(|| ModelError::NoSuchTensor(shown(name)))?;
        let file = &self.files[stored.file];
        let values = stored.values(file);
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(index) => Err(ModelError::NotFinite {
                file: file.file.clone(),
                tensor: name.to_string(),
                index,
                value: values[index],
            }),
        }
    }

    /// Says that the values were read: mapped files need not stay in memory beside their packed copy.
    pub fn release(&self) {
        self.files.iter().for_each(Content::release);
    }

    /// Shape of a tensor, `None` if the checkpoint has none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// What tells two trainings of the same configuration apart, cheaply: per tensor its name, type,
    /// shape, first elements and a few spread to its end. Each of those may be a page of a file not read yet.
    pub(crate) fn sample(&self, feed: &mut dyn FnMut(&[u8])) {
        for (name, stored) in &self.tensors {
            feed(name.as_bytes());
            feed(stored.element.name().as_bytes());
            for axis in &stored.shape {
                feed(&(*axis as u64).to_le_bytes());
            }
            let file = &self.files[stored.file];
            let count = stored.elements();
            let spread = (1..=8).map(|part| count.saturating_sub(1) * part / 8);
            for index in (0..16).chain(spread).filter(|index| *index < count) {
                let start = stored.start_of(index);
                feed(&file[start..start + stored.element.bytes()]);
            }
        }
    }

    /// Takes a file's tensors; returns the names that were there already.
    fn add(&mut self, content: Content) -> Result<Vec<String>, ModelError> {
        let file = self.files.len();
        let found = if content.file.ends_with(".safetensors") {
            safetensors_file::read(&content, file)?
        } else {
            torch_bin::read(&content, file)?
        };
        self.files.push(content);
        let mut twice = Vec::new();
        for (name, stored) in found {
            match self.tensors.entry(name) {
                Entry::Occupied(there) => twice.push(there.key().clone()),
                Entry::Vacant(free) => drop(free.insert(stored)),
            }
        }
        Ok(twice)
    }

    fn add_shards(
        &mut self,
        folder: &Folder,
        index: Content,
        problems: &mut Vec<TensorProblem>,
    ) -> Result<(), ModelError> {
        let read: Index = serde_json::from_slice(&index)
            .map_err(|source| ModelError::Json { file: index.file.clone(), source })?;
        let mut shards: Vec<&String> = read.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in &shards {
            let at_fault = |problem: String| ModelError::Format { file: index.file.clone(), problem };
            if !is_plain_file_name(shard) {
                return Err(at_fault(format!(
                    "names the shard `{}`, expected a plain file name",
                    shown(shard)
                )));
            }
            let Some(content) = folder.map(shard)? else {
                return Err(at_fault(format!(
                    "names the shard `{}`, which is not in the folder: fetch all {} shards",
                    shown(shard),
                    shards.len()
                )));
            };
            for name in self.add(content)? {
                let problem = format!("is in two shards, the second is {}", shown(shard));
                problems.push(TensorProblem::Place { name: shown(&name), problem });
            }
        }
        for (name, shard) in &read.weight_map {
            let Some(stored) = self.tensors.get(name) else { continue }; // reported as missing
            let found = &self.files[stored.file].file;
            if *found != folder.label(shard) {
                let problem = format!("expected in {} as the index says, found in {found}", shown(shard));
                problems.push(TensorProblem::Place { name: shown(name), problem });
            }
        }
        Ok(())
    }

    fn check(&mut self, config: &Config, problems: &mut Vec<TensorProblem>) {
        // Buffers of old transformers versions, not weights.
        self.tensors.retain(|name, _| !name.ends_with(".position_ids"));
        // A scalar that passed through numpy comes back as [1].
        if let Some(scale) = self.tensors.get_mut("logit_scale").filter(|stored| stored.shape == [1]) {
            scale.shape.clear();
            scale.strides = None;
        }
        let mut extra: BTreeMap<&str, &Stored> = self.tensors.iter().map(|(n, s)| (n.as_str(), s)).collect();
        let mut missing = Vec::new();
        for layout::Expected { name, shape } in layout::tensors(config) {
            let Some(stored) = extra.remove(name.as_str()) else {
                missing.push(TensorProblem::Missing { name, expected: shape });
                continue;
            };
            if stored.shape != shape {
                let because = layout::because(&name, config);
                let found = stored.shape.clone();
                problems.push(TensorProblem::Shape { name, expected: shape, found, because });
            } else if let Element::Other(found) = stored.element {
                problems.push(TensorProblem::Type { name, found: found.to_string() });
            }
        }
        // In turns, so that a list cut short shows both when all names are different.
        let mut extra = extra.into_iter().map(|(name, stored)| {
            let (name, found) = (shown(name), stored.shape.clone());
            TensorProblem::Extra { name, found }
        });
        for problem in missing {
            problems.push(problem);
            problems.extend(extra.next());
        }
        problems.extend(extra);
    }

    fn mend(&self, problems: &[TensorProblem]) -> Option<String> {
        let original = ["visual.conv1.weight", "visual.proj"];
        let text = if original.iter().any(|name| self.tensors.contains_key(*name)) {
            "these are the names of the original VideoX code: convert the file with transformers' \
             convert_x_clip_original_pytorch_to_hf.py"
        } else if problems.iter().any(|p| matches!(p, TensorProblem::Type { .. })) {
            "save the weights as float32, float16 or bfloat16"
        } else {
            "the weights and config.json are not of the same checkpoint, or a download is incomplete: fetch both again"
        };
        Some(format!("\n  {text}"))
    }
}

impl Stored {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Byte offset of an element by its row-major index.
    fn start_of(&self, index: usize) -> usize {
        let Some(strides) = &self.strides else { return self.start + index * self.element.bytes() };
        let (mut rest, mut place) = (index, 0);
        for (axis, stride) in self.shape.iter().zip(strides).rev() {
            place += rest % axis * stride;
            rest /= axis;
        }
        self.start + place * self.element.bytes()
    }

    fn values(&self, file: &[u8]) -> Vec<f32> {
        let (n, width) = (self.elements(), self.element.bytes());
        match &self.strides {
            None => {
                let bytes = &file[self.start..self.start + n * width];
                match self.element {
                    Element::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
                    Element::F16 => {
                        bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()
                    }
                    Element::BF16 => {
                        bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()
                    }
                    Element::Other(_) => Vec::new(), // refused by `check`
                }
            }
            Some(_) => {
                let one = |index| {
                    let start = self.start_of(index);
                    Stored { shape: Vec::new(), strides: None, start, ..*self }.values(file)
                };
                (0..n).flat_map(one).collect()
            }
        }
    }
}
