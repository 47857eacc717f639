//! The cross-frame communication transformer (CCT): frames → patch rows and class rows.
//!
//! Block 0 is exactly frame-only: the class row that feeds its messages is LN(class + position 0) for
//! every frame, and attention over equal tokens returns the value, so all layer-0 messages are one
//! constant, folded here at load. Blocks 1… see messages across the window.

use super::attention::{Attention, Item, Rows};
use super::block::{Block, Extra, Scratch};
use super::buffer::{Buffer, Shared};
use super::gemm::{Activation, Cpu, Lhs, Linear, Out, gemm};
use super::layer_norm::LayerNorm;
use super::load::Loader;
use crate::backend::{BackendError, Trace, emit};
use crate::model::Config;
use crate::preprocess::{Reduced, Rule};

/// Rows of the residual stream that pass a block together: enough to hide the weights' way from
/// memory, few enough that the MLP's hidden rows stay in the cache.
const GROUP_ROWS: usize = 512;

/// Messages of one block: class rows → one row per frame.
struct Messages {
    fc: Linear,
    norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    heads: usize,
}

pub struct Vision {
    size: usize,
    patch: usize,
    width: usize,
    /// L = P + 1
    tokens: usize,
    /// Per channel: u8 → (u8/255 − mean)/std.
    normalised: [[f32; 256]; 3],
    embedding: Linear,
    /// LN(class + position 0)
    class: Vec<f32>,
    /// P×D
    positions: Vec<f32>,
    pre_norm: LayerNorm,
    first: Block,
    /// Key and value of block 0's constant message.
    first_message: (Vec<f32>, Vec<f32>),
    rest: Vec<(Messages, Block)>,
}

impl Vision {
    pub(super) fn load(
        loader: &mut Loader<'_, '_>,
        config: &Config,
        rule: &Rule,
    ) -> Result<Self, BackendError> {
        let (tower, patch, patches) = (&config.vision, config.patch_size, config.patches());
        let width = tower.width;
        let embeddings = "vision_model.embeddings";
        let mut positions =
            loader.tensor(&format!("{embeddings}.position_embedding.weight"), &[patches + 1, width])?;
        let mut class = loader.tensor(&format!("{embeddings}.class_embedding"), &[width])?;
        class.iter_mut().zip(&positions).for_each(|(c, p)| *c += p);
        positions.drain(..width);
        let pre_norm = loader.norm("vision_model.pre_layernorm", width)?;
        let raw = class.clone();
        pre_norm.to_rows(loader.cpu, &raw, width, &mut class);
        let ins = 3 * patch * patch;
        let mut embedding = Linear::new(loader.cpu, ins, width);
        let kernel =
            loader.tensor(&format!("{embeddings}.patch_embedding.weight"), &[width, 3, patch, patch])?;
        embedding.put(loader.cpu, 0, &kernel, 1.0);
        drop(kernel);

        let layer = |i: usize| format!("vision_model.encoder.layers.{i}");
        let first = Block::load(loader, &layer(0), tower)?;
        let message = constant_message(loader, &layer(0), &class)?;
        let first_message = first.key_value(loader.cpu, &message);
        let mut rest = Vec::with_capacity(tower.layers.saturating_sub(1));
        for i in 1..tower.layers {
            rest.push((
                Messages::load(loader, &layer(i), width, tower.heads)?,
                Block::load(loader, &layer(i), tower)?,
            ));
        }
        let normalised =
            std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 / 255.0 - rule.mean[c]) / rule.std[c]));
        let (size, tokens) = (config.image_size, patches + 1);
        Ok(Self {
            size,
            patch,
            width,
            tokens,
            normalised,
            embedding,
            class,
            positions,
            pre_norm,
            first,
            first_message,
            rest,
        })
    }

    /// Rows of one frame's state (L) and their width (D).
    pub fn shape(&self) -> (usize, usize) {
        (self.tokens, self.width)
    }

    fn group(&self) -> usize {
        (GROUP_ROWS / self.tokens).max(1)
    }

    /// Frames [S, S, 3] → each frame's L×D rows after block 0.
    pub fn prepare(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        frames: &[&Reduced],
        trace: &mut Option<Trace>,
    ) -> Vec<Vec<f32>> {
        let mut states = Vec::with_capacity(frames.len());
        for group in frames.chunks(self.group()) {
            if trace.is_some() {
                group.iter().for_each(|frame| emit(trace, "pixel_values", &self.pixel_values(frame)));
            }
            let mut x = self.embed(cpu, scratch, group);
            let frame = self.tokens * self.width;
            x.chunks(frame).for_each(|rows| emit(trace, "vision_embed_after_pre_ln", rows));
            let extra = Extra::Constant(&self.first_message.0, &self.first_message.1);
            self.first.forward(cpu, scratch, &mut x, &vec![self.tokens; group.len()], extra, false);
            for rows in x.chunks(frame) {
                emit(trace, "vision_hidden_0", rows);
                states.push(rows.to_vec());
            }
        }
        states
    }

    /// Normalised pixels as [3, S, S]; for the trace only, the embedding makes them in place.
    fn pixel_values(&self, frame: &Reduced) -> Vec<f32> {
        let table =
            |c: usize| frame.rgb.iter().skip(c).step_by(3).map(move |v| self.normalised[c][*v as usize]);
        (0..3).flat_map(table).collect()
    }

    /// Patch embedding as a product over patch rows, positions, first LayerNorm.
    fn embed(&self, cpu: &Cpu, scratch: &mut Scratch, frames: &[&Reduced]) -> Vec<f32> {
        let (patch, width, side) = (self.patch, self.width, self.size / self.patch);
        let patches = side * side;
        let writer = scratch.lhs.reset(cpu, frames.len() * patches, self.embedding.ins);
        cpu.run_ranges(frames.len() * patches, 4, |range| {
            let mut line = vec![0f32; patch];
            for row in range {
                let (frame, py, px) = (frames[row / patches], row % patches / side, row % side);
                for c in 0..3 {
                    for y in 0..patch {
                        let start = ((py * patch + y) * self.size + px * patch) * 3 + c;
                        let pixels = frame.rgb[start..].iter().step_by(3);
                        line.iter_mut().zip(pixels).for_each(|(to, v)| *to = self.normalised[c][*v as usize]);
                        // SAFETY: each row is written by one task.
                        unsafe { writer.put(row, (c * patch + y) * patch, &line) }
                    }
                }
            }
        });
        let embedded = scratch.qkv.fit(frames.len() * patches * width);
        gemm(cpu, &scratch.lhs, &self.embedding, Activation::None, Out::Rows(embedded));
        let embedded = &*embedded;
        let mut x = vec![0.0; frames.len() * self.tokens * width];
        let to = Shared::new(&mut x);
        cpu.run_ranges(frames.len() * self.tokens, 8, |range| {
            let mut row = vec![0f32; width];
            for i in range {
                let (frame, token) = (i / self.tokens, i % self.tokens);
                // SAFETY: each row is written by one task.
                let to = unsafe { to.part(i * width, width) };
                if token == 0 {
                    to.copy_from_slice(&self.class);
                    continue;
                }
                let from = &embedded[(frame * patches + token - 1) * width..][..width];
                let position = &self.positions[(token - 1) * width..][..width];
                row.iter_mut().zip(from).zip(position).for_each(|((r, f), p)| *r = f + p);
                self.pre_norm.row(cpu, &row, to);
            }
        });
        x
    }

    /// `x`: the T·L rows of a window after block 0, in place through blocks 1….
    pub fn encode(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        x: &mut [f32],
        messages: &mut Buffer,
        trace: &mut Option<Trace>,
    ) {
        let frame = self.tokens * self.width;
        let frames = x.len() / frame;
        let group = self.group();
        for (layer, (message, block)) in self.rest.iter().enumerate() {
            message.forward(cpu, scratch, x, frame, messages.fit(frames * self.width));
            let groups = x.chunks_mut(group * frame).zip(messages.chunks(group * self.width));
            for (rows, messages) in groups {
                let lengths = vec![self.tokens; rows.len() / frame];
                block.forward(cpu, scratch, rows, &lengths, Extra::Rows(messages), false);
            }
            if trace.is_some() {
                x.chunks(frame).for_each(|rows| emit(trace, &format!("vision_hidden_{}", layer + 1), rows));
            }
        }
    }

    pub fn bytes(&self) -> usize {
        let rest: usize =
            self.rest.iter().map(|(m, b)| m.fc.bytes() + m.qkv.bytes() + m.out.bytes() + b.bytes()).sum();
        self.embedding.bytes() + self.first.bytes() + rest + self.positions.len() * 4
    }
}

impl Messages {
    fn load(
        loader: &mut Loader<'_, '_>,
        layer: &str,
        width: usize,
        heads: usize,
    ) -> Result<Self, BackendError> {
        Ok(Self {
            fc: loader.linear(&format!("{layer}.message_fc"), width, width, true)?,
            norm: loader.norm(&format!("{layer}.message_ln"), width)?,
            qkv: loader.qkv(&format!("{layer}.message_attn"), width, heads)?,
            out: loader.linear(&format!("{layer}.message_attn.out_proj"), width, width, true)?,
            heads,
        })
    }

    /// Class rows, `stride` values apart in `x`, → messages [T, D].
    fn forward(&self, cpu: &Cpu, scratch: &mut Scratch, x: &[f32], stride: usize, messages: &mut [f32]) {
        let width = self.norm.width();
        let frames = messages.len() / width;
        let Scratch { lhs, qkv, .. } = scratch;
        lhs.copy_from(cpu, frames, width, x, stride);
        gemm(cpu, lhs, &self.fc, Activation::None, Out::Rows(messages));
        self.norm.to_lines(cpu, messages, width, frames, 0, lhs.reset(cpu, frames, width));
        gemm(cpu, lhs, &self.qkv, Activation::None, Out::Rows(qkv.fit(frames * 3 * width)));
        let part = |i: usize| Rows { values: &qkv[i * width..], stride: 3 * width };
        let items = [Item { queries: (0, frames), keys: (0, frames), extra: None }];
        let attention = Attention {
            q: part(0),
            k: part(1),
            v: part(2),
            items: &items,
            heads: self.heads,
            head: width / self.heads,
            causal: false,
        };
        attention.run(cpu, lhs.reset(cpu, frames, width));
        gemm(cpu, lhs, &self.out, Activation::None, Out::AddTo(messages));
    }
}

/// Block 0's message: fc(class), then + out(v(LN(·))), since its attention sees equal tokens only.
fn constant_message(
    loader: &mut Loader<'_, '_>,
    layer: &str,
    class: &[f32],
) -> Result<Vec<f32>, BackendError> {
    let width = class.len();
    let fc = loader.linear(&format!("{layer}.message_fc"), width, width, true)?;
    let norm = loader.norm(&format!("{layer}.message_ln"), width)?;
    let value = loader.linear(&format!("{layer}.message_attn.v_proj"), width, width, true)?;
    let out = loader.linear(&format!("{layer}.message_attn.out_proj"), width, width, true)?;
    let cpu = loader.cpu;
    let (mut lhs, mut message, mut values) = (Lhs::default(), vec![0.0; width], vec![0.0; width]);
    lhs.copy_from(cpu, 1, width, class, width);
    gemm(cpu, &lhs, &fc, Activation::None, Out::Rows(&mut message));
    norm.to_lines(cpu, &message, width, 1, 0, lhs.reset(cpu, 1, width));
    gemm(cpu, &lhs, &value, Activation::None, Out::Rows(&mut values));
    lhs.copy_from(cpu, 1, width, &values, width);
    gemm(cpu, &lhs, &out, Activation::None, Out::AddTo(&mut message));
    Ok(message)
}
