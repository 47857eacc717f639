//! The text tower: token ids → one vector per prompt.
//!
//! Prompts of any lengths run together as rows one after another: no padding exists, so none is
//! computed. What follows the end token cannot reach it (causal), so it is cut off.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::block::{Block, Extra, Scratch, Spans};
use super::gemm::{Activation, Cpu, Out, gemm};
use super::layer_norm::LayerNorm;
use super::linear::{Format, Linear};
use super::load::Loader;
use crate::backend::source::{batches, until_end};
use crate::backend::{BackendError, Trace, emit};
use crate::model::Config;

/// Token rows that pass the tower together.
const BATCH_ROWS: usize = 512;

pub struct Text {
    width: usize,
    vocab: usize,
    context: usize,
    tokens: Tokens,
    /// context×width
    positions: Vec<f32>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    projection: Linear,
}

/// Token embeddings, vocab×width. They are only read, a row per token: half precision beside int8 layers
/// costs no accuracy and saves a quarter of the tower's memory.
enum Tokens {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Tokens {
    /// Writes token `id` + `position`.
    fn add_to(&self, id: u32, position: &[f32], to: &mut Vec<f32>) {
        let first = id as usize * position.len();
        match self {
            Tokens::F32(tokens) => to.extend(tokens[first..].iter().zip(position).map(|(t, p)| t + p)),
            Tokens::F16(tokens) => {
                to.extend(tokens[first..].iter().zip(position).map(|(t, p)| t.to_f32() + p))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Tokens::F32(tokens) => tokens.len() * 4,
            Tokens::F16(tokens) => tokens.len() * 2,
        }
    }
}

impl Text {
    pub(super) fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
        let (tower, vocab, context) = (&config.text, config.vocab_size, config.context);
        let width = tower.width;
        let embeddings = "text_model.embeddings";
        let tokens = loader.tensor(&format!("{embeddings}.token_embedding.weight"), &[vocab, width])?;
        let tokens = match loader.format {
            Format::F32 => Tokens::F32(tokens),
            Format::Int8 | Format::Int8Fine => {
                let mut halves = vec![f16::ZERO; tokens.len()];
                halves.convert_from_f32_slice(&tokens);
                Tokens::F16(halves)
            }
        };
        Ok(Self {
            width,
            vocab,
            context,
            tokens,
            positions: loader
                .tensor(&format!("{embeddings}.position_embedding.weight"), &[context, width])?,
            blocks: (0..tower.layers)
                .map(|i| Block::load(loader, &format!("text_model.encoder.layers.{i}"), tower))
                .collect::<Result<_, _>>()?,
            norm: loader.norm("text_model.final_layer_norm", width)?,
            projection: {
                loader.format = Format::F32;
                loader.linear("text_projection", config.projection, width, false)?
            },
        })
    }

    /// Each prompt's ids → its E values.
    pub fn forward(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        prompts: &[Vec<u32>],
        trace: &mut Option<Trace>,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let (context, vocab) = (self.context, self.vocab);
        let prompts =
            prompts.iter().map(|ids| until_end(ids, context, vocab)).collect::<Result<Vec<_>, _>>()?;
        let mut features = Vec::with_capacity(prompts.len());
        for batch in batches(&prompts, BATCH_ROWS) {
            self.batch(cpu, scratch, batch, trace, &mut features);
        }
        Ok(features)
    }

    fn batch(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        prompts: &[&[u32]],
        trace: &mut Option<Trace>,
        features: &mut Vec<Vec<f32>>,
    ) {
        let width = self.width;
        let mut starts = vec![0];
        let mut x = Vec::with_capacity(prompts.iter().map(|ids| ids.len()).sum::<usize>() * width);
        for ids in prompts {
            for (id, position) in ids.iter().zip(self.positions.chunks(width)) {
                self.tokens.add_to(*id, position, &mut x);
            }
            starts.push(x.len() / width);
        }
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(cpu, scratch, &mut x, Spans::Starts(&starts), Extra::None, true);
            if trace.is_some() {
                for span in starts.windows(2) {
                    emit(trace, &format!("text_hidden_{i}"), &x[span[0] * width..span[1] * width]);
                }
            }
        }
        let mut ends = Vec::with_capacity(prompts.len() * width);
        for end in &starts[1..] {
            ends.extend_from_slice(&x[(end - 1) * width..end * width]);
        }
        let outs = self.projection.outs;
        let mut out = vec![0.0; prompts.len() * outs];
        self.norm.to_lhs(cpu, &ends, width, prompts.len(), &mut scratch.lhs, &self.projection);
        gemm(cpu, &scratch.lhs, &self.projection, Activation::None, Out::Rows(&mut out));
        for row in out.chunks(outs) {
            emit(trace, "text_features_before_prompts", row);
            features.push(row.to_vec());
        }
    }

    pub fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        blocks + self.projection.bytes() + self.tokens.bytes() + self.positions.len() * 4
    }
}
