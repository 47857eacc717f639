//! Files on disk → checked values: configuration, weights, tokenizer, pre-processing, label sets.
//!
//! Invariant: a [`Model`] that exists is consistent. Every tensor of its configuration is present with
//! its shape, heads divide widths, T and P agree with the position embeddings.

mod clip_bpe;
pub mod config;
pub mod error;
pub mod extra;
pub mod generate;
mod label_entry;
mod label_file;
pub mod labels;
pub mod layout;
mod pickle;
pub mod preprocessor;
pub mod published;
pub mod recipe;
mod safetensors_file;
mod source;
pub mod tokenizer;
mod torch_bin;
pub mod weights;

use crate::preprocess::{Geometry, Rule};
pub use config::{Config, Heads};
pub use error::{ModelError, TensorProblem};
pub use extra::Extra;
pub use generate::generate;
pub use preprocessor::Resize;
pub use source::DEMO;
pub use tokenizer::Tokenizer;
pub use weights::Weights;

use source::Folder;

/// A checkpoint: everything but the loaded numbers.
pub struct Model {
    /// `demo`, or the folder's name.
    pub name: String,
    pub config: Config,
    /// The checkpoint's pre-processing with xclip.json's `resize` applied.
    pub rule: Rule,
    pub tokenizer: Tokenizer,
    pub weights: Weights,
    pub extra: Extra,
    /// Pre-processing as preprocessor_config.json alone says.
    checkpoint_rule: Rule,
    fingerprint: String,
}

impl Model {
    /// `demo` or a folder in the Hugging Face layout. Reads headers, not weights: fast.
    pub fn open(source: &str, heads: Heads) -> Result<Self, ModelError> {
        Self::open_with(source, heads, Tokenizer::open)
    }

    /// As [`Model::open`], but a folder without a tokenizer opens too; prompts are an error then. Golden
    /// vectors bring token ids, so their folders need none.
    pub fn open_for_verify(source: &str, heads: Heads) -> Result<Self, ModelError> {
        Self::open_with(source, heads, Tokenizer::open_if_there)
    }

    fn open_with(
        source: &str,
        heads: Heads,
        tokenizer: fn(&Folder, &Config) -> Result<Tokenizer, ModelError>,
    ) -> Result<Self, ModelError> {
        let folder = Folder::open(source)?;
        let missing =
            |problem: &str| ModelError::Folder { model: source.to_string(), problem: problem.to_string() };

        let content = folder.read("config.json")?.ok_or_else(|| {
            missing(
                "has no config.json; expected a checkpoint in the Hugging Face layout (config.json, \
                     preprocessor_config.json, model.safetensors, tokenizer.json)",
            )
        })?;
        let config = Config::parse(&content.file, &content, heads)?;
        let checkpoint_rule = preprocessor::open(&folder, &config)?;
        let mut extra = match folder.read("xclip.json")? {
            Some(content) => Extra::parse(&content.file, &content, &config)?,
            None => Extra::default_for(&config),
        };
        let tokenizer = tokenizer(&folder, &config)?;
        extra.fit_bundled_background(&tokenizer);

        let weights = Weights::open(&folder, &config)?;
        let rule = extra.resize.apply(checkpoint_rule);
        let fingerprint = fingerprint(&config, &checkpoint_rule, &weights);
        let name = folder.name();
        Ok(Self { name, config, rule, tokenizer, weights, extra, checkpoint_rule, fingerprint })
    }

    /// 16 hex digits: a hash over configuration, pre-processing and each tensor's name, type, shape and
    /// two dozen elements; stable over machines and over safetensors, shards or .bin.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The pre-processing with the spatial part a user chose; `None` is [`Model::rule`].
    pub fn rule_for(&self, resize: Option<Resize>) -> Rule {
        resize.map_or(self.rule, |resize| resize.apply(self.checkpoint_rule))
    }
}

fn fingerprint(config: &Config, rule: &Rule, weights: &Weights) -> String {
    let mut bytes = Vec::new();
    let Config {
        image_size, patch_size, num_frames, vision, mit, text, vocab_size, context, projection, ..
    } = *config;
    let towers = [vision, mit, text].map(|t| [t.width, t.mlp, t.layers, t.heads]);
    let sizes = [image_size, patch_size, num_frames, vocab_size, context, projection];
    let short = match rule.geometry {
        Geometry::ShortestEdge { short } => short as usize,
        Geometry::Stretch => 0,
    };
    let prompts = [config.prompt_layers, config.prompt_heads, rule.size as usize, short];
    for number in towers.as_flattened().iter().chain(&sizes).chain(&prompts) {
        bytes.extend_from_slice(&(*number as u64).to_le_bytes());
    }
    for number in rule.mean.iter().chain(&rule.std) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    weights.sample(&mut |part| bytes.extend_from_slice(part));
    format!("{:016x}", recipe::fnv1a64(&bytes))
}
