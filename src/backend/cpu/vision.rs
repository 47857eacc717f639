//! The cross-frame communication transformer (CCT): frames → patch rows and class rows.
//!
//! Block 0 is exactly frame-only: the class row that feeds its messages is LN(class + position 0) for
//! every frame, and attention over equal tokens returns the value, so all layer-0 messages are one
//! constant, folded here at load. Blocks 1… see messages across the window.

use std::ops::Range;

use super::attention::{Attention, Item, Rows};
use super::block::{Block, Extra, Scratch, Spans};
use super::buffer::{Buffer, Shared, row_stride};
use super::embed::Embedding;
use super::gemm::{Activation, Cpu, Out, gemm};
use super::layer_norm::LayerNorm;
use super::lhs::Lhs;
use super::linear::{Format, Linear};
use super::load::Loader;
use super::spread::{Spare, spread};
use crate::backend::{BackendError, Trace, emit};
use crate::model::Config;
use crate::preprocess::{Reduced, Rule};

/// Messages of one block: class rows → one row per frame.
struct Messages {
    fc: Linear,
    norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    heads: usize,
}

pub struct Vision {
    width: usize,
    /// L = P + 1
    tokens: usize,
    embedding: Embedding,
    first: Block,
    /// q, k and v of block 0's constant message.
    first_message: Vec<f32>,
    rest: Vec<(Messages, Block)>,
}

/// What is exactly frame-only.
pub struct Frame {
    /// L×D: the residual stream after block 0.
    pub rows: Vec<f32>,
    /// What block 1's attention makes of these rows: L rows of 3D values, `row_stride(3D)` apart; none without
    /// a block 1.
    pub qkv: Buffer,
}

/// Buffers of a window in work; they only ever grow.
#[derive(Default)]
pub struct Window {
    /// The residual stream: T×L×D, or as many frames as are prepared.
    pub x: Buffer,
    spare: Spare,
    /// T×D
    messages: Buffer,
    /// T rows of 3D values, `row_stride(3D)` apart.
    seen: Buffer,
}

impl Vision {
    pub(super) fn load(
        loader: &mut Loader<'_, '_>,
        config: &Config,
        rule: &Rule,
    ) -> Result<Self, BackendError> {
        let (tower, width) = (&config.vision, config.vision.width);
        let embedding = Embedding::load(loader, config, rule)?;
        let layer = |i: usize| format!("vision_model.encoder.layers.{i}");
        let first = Block::load(loader, &layer(0), tower)?;
        let message = constant_message(loader, &layer(0), embedding.class())?;
        let mut first_message = vec![0.0; row_stride(3 * width)];
        first.project_seen(loader.cpu, &mut Lhs::default(), &message, &mut first_message);
        let mut rest = Vec::with_capacity(tower.layers.saturating_sub(1));
        for i in 1..tower.layers {
            rest.push((
                Messages::load(loader, &layer(i), width, tower.heads)?,
                Block::load(loader, &layer(i), tower)?,
            ));
        }
        Ok(Self { width, tokens: config.patches() + 1, embedding, first, first_message, rest })
    }

    /// Rows of one frame's state (L) and their width (D).
    pub fn shape(&self) -> (usize, usize) {
        (self.tokens, self.width)
    }

    /// Values of a frame's q, k and v.
    fn projected(&self) -> usize {
        self.tokens * row_stride(3 * self.width)
    }

    /// Whether this is the state that [`Vision::prepare`] of this checkpoint makes.
    pub fn owns(&self, frame: &Frame) -> bool {
        let size = self.tokens * self.width;
        frame.rows.len() == size && frame.qkv.len() == if self.rest.is_empty() { 0 } else { self.projected() }
    }

    /// Frames [S, S, 3] → each frame's exactly frame-only state.
    pub fn prepare(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        window: &mut Window,
        frames: &[&Reduced],
        trace: &mut Option<Trace>,
    ) -> Vec<Frame> {
        let size = self.tokens * self.width;
        let next = self.rest.first().map(|(_, block)| block);
        let empty = || Frame { rows: Vec::new(), qkv: Buffer::default() };
        let mut states: Vec<Frame> = frames.iter().map(|_| empty()).collect();
        let x = Shared::new(window.x.fit(frames.len() * size));
        let to = Shared::new(&mut states);
        let step = |cpu: &Cpu, scratch: &mut Scratch, range: Range<usize>, trace: &mut Option<Trace>| {
            // SAFETY: every frame is in exactly one range.
            let x = unsafe { x.part(range.start * size, range.len() * size) };
            let frames = &frames[range.clone()];
            if trace.is_some() {
                frames.iter().for_each(|f| emit(trace, "pixel_values", &self.embedding.pixel_values(f)));
            }
            self.embedding.forward(cpu, &mut scratch.lhs, &mut scratch.qkv, frames, x);
            x.chunks(size).for_each(|rows| emit(trace, "vision_embed_after_pre_ln", rows));
            let spans = Spans::Equal(self.tokens);
            self.first.forward(cpu, scratch, x, spans, Extra::Same(&self.first_message), false);
            x.chunks(size).for_each(|rows| emit(trace, "vision_hidden_0", rows));
            for (rows, i) in x.chunks(size).zip(range) {
                // SAFETY: as above.
                let state = unsafe { &mut to.part(i, 1)[0] };
                state.rows = rows.to_vec();
                if let Some(block) = next {
                    block.project(cpu, &mut scratch.lhs, rows, state.qkv.fit(self.projected()));
                }
            }
        };
        if trace.is_some() {
            (0..frames.len()).for_each(|i| step(cpu, scratch, i..i + 1, trace));
        } else {
            spread(cpu, scratch, &window.spare, self.tokens, frames.len(), |cpu, scratch, range| {
                step(cpu, scratch, range, &mut None)
            });
        }
        states
    }

    /// A window's frames, oldest first → its T·L rows after the last block, in `window.x`.
    pub fn encode<'a>(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        window: &mut Window,
        frames: usize,
        frame: &(dyn Fn(usize) -> &'a Frame + Sync),
        trace: &mut Option<Trace>,
    ) {
        let (width, size) = (self.width, self.tokens * self.width);
        let x = window.x.fit(frames * size);
        // The first messages need the class rows only; who takes a frame on copies the rest.
        let own = if self.rest.is_empty() { size } else { width };
        x.chunks_mut(size).zip(0..).for_each(|(rows, t)| rows[..own].copy_from_slice(&frame(t).rows[..own]));
        let messages = window.messages.fit(frames * width);
        let apart = row_stride(3 * width);
        let seen = window.seen.fit(frames * apart);
        for (layer, (message, block)) in self.rest.iter().enumerate() {
            message.forward(cpu, scratch, x, size, messages);
            block.project_seen(cpu, &mut scratch.lhs, messages, seen);
            let (seen, rows) = (&seen[..], Shared::new(x));
            spread(cpu, scratch, &window.spare, self.tokens, frames, |cpu, scratch, range| {
                // SAFETY: every frame is in exactly one range.
                let rows = unsafe { rows.part(range.start * size, range.len() * size) };
                let seen = &seen[range.start * apart..range.end * apart];
                let (spans, extra) = (Spans::Equal(self.tokens), Extra::Each(seen));
                if layer == 0 {
                    for (rows, t) in rows.chunks_mut(size).zip(range.clone()) {
                        rows.copy_from_slice(&frame(t).rows);
                    }
                    let of_frame = |t: usize| &frame(range.start + t).qkv[..];
                    block.forward_projected(cpu, scratch, rows, &of_frame, spans, extra, false);
                } else {
                    block.forward(cpu, scratch, rows, spans, extra, false);
                }
            });
            if trace.is_some() {
                x.chunks(size).for_each(|rows| emit(trace, &format!("vision_hidden_{}", layer + 1), rows));
            }
        }
    }

    pub fn bytes(&self) -> usize {
        let rest: usize =
            self.rest.iter().map(|(m, b)| m.fc.bytes() + m.qkv.bytes() + m.out.bytes() + b.bytes()).sum();
        self.embedding.bytes() + self.first.bytes() + rest
    }
}

impl Messages {
    fn load(
        loader: &mut Loader<'_, '_>,
        layer: &str,
        width: usize,
        heads: usize,
    ) -> Result<Self, BackendError> {
        // A few rows that reach every frame, from the residual stream as it is, outliers included: second
        // bytes cost nothing where the weights' way from memory takes the time.
        let format = loader.format;
        if format == Format::Int8 {
            loader.format = Format::Int8Fine;
        }
        let messages = Self {
            fc: loader.linear(&format!("{layer}.message_fc"), width, width, true)?,
            norm: loader.norm(&format!("{layer}.message_ln"), width)?,
            qkv: loader.qkv(&format!("{layer}.message_attn"), width, heads)?,
            out: loader.linear(&format!("{layer}.message_attn.out_proj"), width, width, true)?,
            heads,
        };
        loader.format = format;
        Ok(messages)
    }

    /// Class rows, `stride` values apart in `x`, → messages [T, D].
    fn forward(&self, cpu: &Cpu, scratch: &mut Scratch, x: &[f32], stride: usize, messages: &mut [f32]) {
        let width = self.norm.width();
        let frames = messages.len() / width;
        let Scratch { lhs, qkv, .. } = scratch;
        lhs.copy_from(cpu, frames, x, stride, &self.fc);
        gemm(cpu, lhs, &self.fc, Activation::None, Out::Rows(messages));
        self.norm.to_lhs(cpu, messages, width, frames, lhs, &self.qkv);
        let stride = row_stride(3 * width);
        gemm(cpu, lhs, &self.qkv, Activation::None, Out::Spaced(qkv.fit(frames * stride), stride));
        let part = |i: usize| Rows { values: &qkv[i * width..], stride };
        let (q, k, v) = (part(0), part(1), part(2));
        let item = |_| Item { q, k, v, queries: frames, keys: frames, extra: None, first: 0 };
        let (heads, head) = (self.heads, width / self.heads);
        let attention = Attention { item: &item, items: 1, rows: frames, heads, head, causal: false };
        attention.run(cpu, lhs, &self.out);
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
    // Once, at load: nothing to gain from int8. Weights of its own, which go when it is done.
    let cpu = &Cpu::new(loader.cpu.isa, 1);
    let loader = &mut Loader { cpu, source: loader.source, format: Format::F32 };
    let fc = loader.linear(&format!("{layer}.message_fc"), width, width, true)?;
    let norm = loader.norm(&format!("{layer}.message_ln"), width)?;
    let value = loader.linear(&format!("{layer}.message_attn.v_proj"), width, width, true)?;
    let out = loader.linear(&format!("{layer}.message_attn.out_proj"), width, width, true)?;
    let (mut lhs, mut message, mut values) = (Lhs::default(), vec![0.0; width], vec![0.0; width]);
    lhs.copy_from(cpu, 1, class, width, &fc);
    gemm(cpu, &lhs, &fc, Activation::None, Out::Rows(&mut message));
    norm.to_lhs(cpu, &message, width, 1, &mut lhs, &value);
    gemm(cpu, &lhs, &value, Activation::None, Out::Rows(&mut values));
    lhs.copy_from(cpu, 1, &values, width, &out);
    gemm(cpu, &lhs, &out, Activation::None, Out::AddTo(&mut message));
    Ok(message)
}
