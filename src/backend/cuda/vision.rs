//! The cross-frame communication transformer (CCT): frames → states, windows of states → rows.
//!
//! Block 0 is exactly frame-only: the class row that feeds its messages is LN(class + position 0) for every
//! frame, and attention over equal tokens returns the value, so all layer-0 messages are one constant,
//! folded here at load. Blocks 1… see messages across the window; each block's message path runs on the
//! side stream beside the frames' own queries, keys and values.

use half::f16;

use super::CudaError;
use super::block::{Block, Spans};
use super::constant::constant_message;
use super::frame_block::{FrameBlock, FrameWork};
use super::kernels::{Attention, MessageKeys, Step};
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::product::Into;
use super::shape;
use super::trace::Tracer;
use super::weights::{Linear, Loader, Norm};
use crate::backend::BackendError;
use crate::model::Config;
use crate::preprocess::Rule;

/// Messages of one block: class rows → one row per frame.
struct Messages {
    fc: Linear,
    norm: Norm,
    qkv: Linear,
    out: Linear,
    heads: usize,
}

pub(super) struct Vision {
    width: usize,
    /// L = P + 1
    tokens: usize,
    size: usize,
    patch: usize,
    /// Values of a patch row.
    columns: usize,
    scale: [f32; 3],
    shift: [f32; 3],
    patches: Linear,
    /// class + position 0
    class: Buffer<f32>,
    /// [P, D]
    positions: Buffer<f32>,
    norm: Norm,
    first: Block,
    /// Key and value of block 0's constant message.
    first_keys: Buffer<f16>,
    rest: Vec<(Messages, FrameBlock)>,
}

/// Where the pictures of frames are.
#[derive(Clone, Copy)]
pub(super) enum Pictures {
    /// [F, S, S, 3]
    Pixels(At<u8>),
    /// Patch rows, normalised: those of each frame, P·columns values, in one of `all` slots.
    Rows { all: At<f16>, slots: At<i32> },
}

/// Buffers of frames in work.
pub(super) struct VisionWork {
    /// [F, L, D]: the residual stream.
    pub x: Buffer<f16>,
    /// [F, D]
    messages: Buffer<f16>,
    pub blocks: FrameWork,
}

impl VisionWork {
    /// For `frames` frames that pass together.
    pub fn new(launcher: &Launcher, config: &Config, frames: usize) -> Result<Self, CudaError> {
        let (tower, rows) = (&config.vision, frames * (config.patches() + 1));
        let buffer = |len| Buffer::new(&launcher.context, "the residual stream", len);
        Ok(Self {
            x: buffer(rows * tower.width)?,
            messages: buffer(frames * tower.width)?,
            blocks: FrameWork::new(launcher, tower, frames, rows, shape::columns(config))?,
        })
    }
}

impl Vision {
    pub fn load(loader: &mut Loader<'_, '_>, config: &Config, rule: &Rule) -> Result<Self, BackendError> {
        let (tower, width) = (&config.vision, config.vision.width);
        let (patch, count, columns) = (config.patch_size, config.patches(), shape::columns(config));
        let name = "vision_model.embeddings";
        let mut positions =
            loader.tensor(&format!("{name}.position_embedding.weight"), &[count + 1, width])?;
        let mut class = loader.tensor(&format!("{name}.class_embedding"), &[width])?;
        class.iter_mut().zip(&positions).for_each(|(c, p)| *c += p);
        positions.drain(..width);

        let stored = loader.tensor(&format!("{name}.patch_embedding.weight"), &[width, 3, patch, patch])?;
        let mut padded = vec![0.0; width * columns];
        for (to, from) in padded.chunks_mut(columns).zip(stored.chunks(3 * patch * patch)) {
            to[..from.len()].copy_from_slice(from);
        }
        drop(stored);
        let patches = loader.plain(&padded, width, columns)?;
        drop(padded);

        let layer = |i: usize| format!("vision_model.encoder.layers.{i}");
        let first = Block::load(loader, &layer(0), tower)?;
        let message = constant_message(loader, &layer(0), &class)?;
        let launcher = loader.launcher;
        let message = loader.upload_f16(&message)?;
        let first_keys = Buffer::new(&launcher.context, "weights", 2 * width)?;
        let narrow = Buffer::new(&launcher.context, "weights", width)?;
        first.project_messages(launcher, Lane::Main, narrow.at(), message.at(), 1, first_keys.at())?;
        launcher.finish()?;

        let mut rest = Vec::with_capacity(tower.layers.saturating_sub(1));
        for i in 1..tower.layers {
            rest.push((
                Messages::load(loader, &layer(i), width, tower.heads)?,
                FrameBlock::load(loader, &layer(i), tower)?,
            ));
        }
        Ok(Self {
            width,
            tokens: count + 1,
            size: config.image_size,
            patch,
            columns,
            scale: rule.std.map(|std| 1.0 / (255.0 * std)),
            shift: std::array::from_fn(|c| -rule.mean[c] / rule.std[c]),
            patches,
            class: loader.upload_f32(&class)?,
            positions: loader.upload_f32(&positions)?,
            norm: loader.norm("vision_model.pre_layernorm", width)?,
            first,
            first_keys,
            rest,
        })
    }

    /// Values of one frame's state: L·D.
    pub fn state(&self) -> usize {
        self.tokens * self.width
    }

    /// Pictures → states, in `states` at `slots`.
    #[allow(clippy::too_many_arguments)]
    pub fn prepare(
        &self,
        launcher: &Launcher,
        work: &VisionWork,
        pictures: Pictures,
        frames: usize,
        slots: At<i32>,
        states: At<f16>,
        tracer: &mut Tracer<'_>,
    ) -> Result<(), CudaError> {
        let (width, tokens, count) = (self.width, self.tokens, self.tokens - 1);
        let (x, scratch) = (work.x.at(), &work.blocks.scratch);
        let (rows, embedded) = (scratch.wide(), scratch.narrow());
        match pictures {
            Pictures::Pixels(pixels) => {
                let (scale, shift) = (self.scale, self.shift);
                launcher.patch_rows(
                    pixels,
                    rows,
                    scale,
                    shift,
                    frames,
                    self.size,
                    self.patch,
                    self.columns,
                )?;
            }
            Pictures::Rows { all, slots } => {
                launcher.gather_rows(all, slots, rows, frames, count * self.columns)?;
            }
        }
        if tracer.is_on() {
            for frame in 0..frames {
                let values = tracer.values(rows.add(frame * count * self.columns), count * self.columns)?;
                tracer.emit("pixel_values", &self.unfolded(&values));
            }
        }
        let layer = self.patches.at();
        launcher.product(Lane::Main, rows, self.columns, frames * count, layer, embedded, Into::Replace)?;
        let (class, positions) = (self.class.at(), self.positions.at());
        launcher.embed(embedded, class, positions, self.norm.at(), x, frames, count)?;
        tracer.show("vision_embed_after_pre_ln", x, frames, tokens * width)?;
        self.first.project(launcher, scratch, x, frames * tokens)?;
        let message = Some(MessageKeys { at: self.first_keys.at(), stride: 0 });
        let spans = Spans::Equal(frames, tokens);
        self.first.forward_projected(launcher, scratch, x, frames * tokens, spans, message, false)?;
        tracer.show("vision_hidden_0", x, frames, tokens * width)?;
        launcher.scatter_rows(x, slots, states, frames, tokens * width)
    }

    /// Patch rows of a frame → [3, S, S].
    fn unfolded(&self, rows: &[f32]) -> Vec<f32> {
        let (size, patch) = (self.size, self.patch);
        let (side, area) = (size / patch, patch * patch);
        let mut pixels = vec![0.0; 3 * size * size];
        for (i, row) in rows.chunks(self.columns).enumerate() {
            let (top, left) = (i / side * patch, i % side * patch);
            for (at, value) in row[..3 * area].iter().enumerate() {
                let (channel, y, x) = (at / area, at % area / patch, at % patch);
                pixels[(channel * size + top + y) * size + left + x] = *value;
            }
        }
        pixels
    }

    /// States of N windows, oldest frame first, at `slots` → their rows after the last block, in `work.x`.
    #[allow(clippy::too_many_arguments)]
    pub fn encode(
        &self,
        launcher: &Launcher,
        work: &VisionWork,
        states: At<f16>,
        slots: At<i32>,
        windows: usize,
        frames: usize,
        tracer: &mut Tracer<'_>,
    ) -> Result<(), CudaError> {
        let (all, state, x) = (windows * frames, self.state(), work.x.at());
        launcher.gather_rows(states, slots, x, all, state)?;
        for (i, (messages, block)) in self.rest.iter().enumerate() {
            launcher.fork()?;
            messages.forward(launcher, work, x, state, windows, frames)?;
            block.forward(launcher, &work.blocks, x, work.messages.at(), all, self.tokens)?;
            tracer.show(&format!("vision_hidden_{}", i + 1), x, all, state)?;
        }
        Ok(())
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

    /// Class rows, `state` values apart in `x`, → `work.messages` [N·T, D], on the side stream.
    fn forward(
        &self,
        launcher: &Launcher,
        work: &VisionWork,
        x: At<f16>,
        state: usize,
        windows: usize,
        frames: usize,
    ) -> Result<(), CudaError> {
        let (side, rows, width, messages) = (Lane::Side, windows * frames, self.fc.outs, work.messages.at());
        let (narrow, wide) = (work.blocks.side.narrow(), work.blocks.side.wide());
        let step = Step::new(None, self.fc.at(), Into::Replace);
        launcher.layer(side, x, state, rows, step, At::NULL, messages)?;
        let step = Step::new(Some(self.norm.at()), self.qkv.at(), Into::Replace);
        launcher.layer(side, messages, width, rows, step, narrow, wide)?;
        let (heads, head) = (self.heads, width / self.heads);
        let sizes = Attention { items: windows, length: frames, heads, head, causal: false };
        launcher.attention(side, sizes, wide, None, narrow, At::NULL)?;
        let step = Step::new(None, self.out.at(), Into::AddTo);
        launcher.layer(side, narrow, width, rows, step, At::NULL, messages)
    }
}
