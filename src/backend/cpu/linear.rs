//! Weights and bias of y = x·Wᵀ + b, packed once at load in panels of NR output columns.

use super::arena::Slab;
use super::buffer::{LINE, Shared, first_mut};
use super::gemm::Cpu;
use super::kernel_i8::MAX_K;
use super::quantise::quantise_weights;

/// How a product's two sides are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    F32,
    /// Bytes: weights with a scale per output channel, activations with a scale per row.
    Int8,
    /// As Int8, activations with a second byte for what the first one rounds off: twice the operations,
    /// and only the weights' rounding is left. For products that are few and far-reaching.
    Int8Fine,
}

pub struct Linear {
    pub(super) format: Format,
    pub(super) panels: Panels,
    pub(super) bias: Vec<f32>,
    pub ins: usize,
    pub outs: usize,
    /// NR
    pub(super) cols: usize,
}

pub(super) enum Panels {
    /// `[panel][k][NR]`
    F32(Slab<f32>),
    Int8(Bytes),
}

/// Weight = scale of its column · byte.
pub(super) struct Bytes {
    /// `[panel][k/4][NR][4]`, zeros beyond k.
    pub panels: Slab<i8>,
    /// Per column.
    pub scales: Vec<f32>,
    /// Per column, Σ of its bytes: what a row's zero adds to every sum.
    pub sums: Vec<i32>,
}

impl Linear {
    /// All zero; see [`Linear::put`].
    pub fn new(cpu: &Cpu, ins: usize, outs: usize, format: Format) -> Self {
        let cols = match format {
            Format::F32 => cpu.kernels.cols,
            Format::Int8 | Format::Int8Fine => cpu.dots.cols,
        };
        let padded = outs.div_ceil(cols) * cols;
        let panels = match format {
            Format::F32 => Panels::F32(cpu.arena.zeroed(padded * ins)),
            Format::Int8 | Format::Int8Fine => {
                assert!(ins <= MAX_K, "a row of {ins} overflows 32-bit sums");
                Panels::Int8(Bytes {
                    panels: cpu.arena.zeroed(padded * ins.next_multiple_of(4)),
                    scales: vec![0.0; padded],
                    sums: vec![0; padded],
                })
            }
        };
        Self { format, panels, bias: vec![0.0; padded], ins, outs, cols }
    }

    /// Packs `scale` × weights [n, ins] (row-major, the checkpoint's layout) as outputs `first..first+n`.
    pub fn put(&mut self, cpu: &Cpu, first: usize, weights: &[f32], scale: f32) {
        let (ins, cols) = (self.ins, self.cols);
        let outs = weights.len() / ins;
        assert!(weights.len() == outs * ins && first + outs <= self.outs);
        let (from, to) = (first / cols, (first + outs).div_ceil(cols));
        let columns = |panel: usize| (panel * cols).max(first)..((panel + 1) * cols).min(first + outs);
        let row = |column: usize| &weights[(column - first) * ins..][..ins];
        match &mut self.panels {
            Panels::F32(panels) => {
                let panels = Shared::new(panels);
                cpu.pool.run(to - from, |i| {
                    let panel = from + i;
                    // SAFETY: one task per panel.
                    let packed = unsafe { panels.part(panel * ins * cols, ins * cols) };
                    for block in (0..ins).step_by(LINE) {
                        for column in columns(panel) {
                            let row = row(column);
                            for k in block..ins.min(block + LINE) {
                                packed[k * cols + column % cols] = row[k] * scale;
                            }
                        }
                    }
                });
            }
            Panels::Int8(bytes) => {
                let size = ins.next_multiple_of(4) * cols;
                let panels = Shared::new(&mut bytes.panels);
                let (scales, sums) = (Shared::new(&mut bytes.scales), Shared::new(&mut bytes.sums));
                cpu.pool.run(to - from, |i| {
                    let panel = from + i;
                    // SAFETY (all): one task per panel and its columns.
                    let packed = unsafe { panels.part(panel * size, size) };
                    let mut bytes = vec![0; ins.next_multiple_of(4)];
                    for column in columns(panel) {
                        let (step, sum) =
                            unsafe { (&mut scales.part(column, 1)[0], &mut sums.part(column, 1)[0]) };
                        quantise_weights(cpu.isa, row(column), &mut bytes[..ins], step, sum);
                        *step *= scale;
                        for (quad, to) in
                            bytes.as_chunks::<4>().0.iter().zip(packed.chunks_exact_mut(4 * cols))
                        {
                            *first_mut::<4, _>(&mut to[column % cols * 4..]) = *quad;
                        }
                    }
                });
            }
        }
    }

    /// Sets the bias of outputs `first..`.
    pub fn put_bias(&mut self, first: usize, bias: &[f32], scale: f32) {
        assert!(first + bias.len() <= self.outs);
        for (to, from) in self.bias[first..].iter_mut().zip(bias) {
            *to = from * scale;
        }
    }

    /// The weight of input `k` for `column`, as stored.
    pub fn weight(&self, k: usize, column: usize) -> f32 {
        let (panel, column_there) = (column / self.cols, column % self.cols);
        match &self.panels {
            Panels::F32(panels) => panels[(panel * self.ins + k) * self.cols + column_there],
            Panels::Int8(bytes) => {
                let quads = self.ins.div_ceil(4);
                let at = ((panel * quads + k / 4) * self.cols + column_there) * 4 + k % 4;
                f32::from(bytes.panels[at]) * bytes.scales[column]
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let weights = match &self.panels {
            Panels::F32(panels) => panels.len() * 4,
            Panels::Int8(bytes) => bytes.panels.len() + (bytes.scales.len() + bytes.sums.len()) * 4,
        };
        weights + self.bias.len() * 4
    }
}
