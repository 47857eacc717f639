//! Matrix products: activations × weights packed once at load, with the epilogue on the tile.
//!
//! A weight panel is read from memory once per product and stays in the second-level cache while every
//! row tile passes it; the left side streams. Activations that only feed a product are written by their
//! producer straight into the product's layout ([`Lhs`]), so nothing is re-packed.
//! Source: Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.

use std::ops::Range;

use super::activation::quick_gelu;
use super::buffer::{Buffer, LINE, Shared, first};
use super::isa::{Isa, per_isa};
use super::kernel::{Kernels, Tile};
use super::pool::Pool;

/// Steps of k summed in registers before they are added to the tile: shorter chains of additions lose
/// fewer bits.
const CHAIN: usize = 512;
/// Bytes of the left side that pass one weight panel: about what the caches above memory hold.
const LHS_BYTES: usize = 4 << 20;

/// What every operation needs: instruction set and threads.
pub struct Cpu {
    pub isa: Isa,
    pub kernels: Kernels,
    pub pool: Pool,
}

impl Cpu {
    pub fn new(isa: Isa, threads: usize) -> Self {
        Self { isa, kernels: Kernels::of(isa), pool: Pool::new(threads) }
    }

    /// Runs `task` on ranges that cover 0..items, a few per thread.
    pub fn run_ranges(&self, items: usize, least: usize, task: impl Fn(Range<usize>) + Sync) {
        let chunk = items.div_ceil(self.pool.threads() * 4).max(least).max(1);
        self.pool.run(items.div_ceil(chunk), |i| task(i * chunk..((i + 1) * chunk).min(items)));
    }
}

/// The left side of a product: `rows` × `k`, in tiles of rows; within a tile, lines of 16 consecutive
/// values of one row, row after row. So a producer writes whole cache lines and the kernel reads
/// forward only.
#[derive(Default)]
pub struct Lhs {
    values: Buffer,
    pub rows: usize,
    pub k: usize,
    /// Rows of every tile but the last.
    tile: usize,
}

/// An [`Lhs`] that parallel tasks fill.
#[derive(Clone, Copy)]
pub(super) struct LhsWriter<'a> {
    values: Shared<'a>,
    rows: usize,
    lines: usize,
    tile: usize,
}

impl Lhs {
    /// Gives it a shape; the values are arbitrary until written.
    pub(super) fn reset(&mut self, cpu: &Cpu, rows: usize, k: usize) -> LhsWriter<'_> {
        let most = cpu.kernels.rows();
        // Even tiles: 50 rows are 5 × 10, not 4 × 12 + 2.
        self.tile = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        self.rows = rows;
        self.k = k;
        let lines = k.div_ceil(LINE);
        let values = Shared::new(self.values.fit(rows * lines * LINE));
        LhsWriter { values, rows, lines, tile: self.tile }
    }

    /// Copies a row-major matrix with `stride` values from row to row.
    pub fn copy_from(&mut self, cpu: &Cpu, rows: usize, k: usize, from: &[f32], stride: usize) {
        let writer = self.reset(cpu, rows, k);
        cpu.run_ranges(rows, 64, |range| {
            for row in range {
                // SAFETY: each row is written by one task.
                unsafe { writer.put(row, 0, &from[row * stride..][..k]) }
            }
        });
    }
}

impl<'a> LhsWriter<'a> {
    /// Where `row` starts, and the distance between its lines.
    #[inline(always)]
    pub fn row(&self, row: usize) -> (usize, usize) {
        let first = row / self.tile * self.tile;
        let height = self.tile.min(self.rows - first);
        (first * self.lines * LINE + (row - first) * LINE, height * LINE)
    }

    #[inline(always)]
    pub fn values(&self) -> &Shared<'a> {
        &self.values
    }

    /// Writes values of `row` from column `col` on.
    ///
    /// # Safety
    /// No other task writes these elements.
    #[inline(always)]
    pub unsafe fn put(&self, row: usize, col: usize, values: &[f32]) {
        let (start, stride) = self.row(row);
        if col.is_multiple_of(LINE) && values.len() == LINE {
            // SAFETY: the caller holds that these elements are ours.
            unsafe { *self.values.array(start + col / LINE * stride) = *first::<LINE>(values) };
            return;
        }
        let (mut col, mut values) = (col, values);
        while !values.is_empty() {
            let take = (LINE - col % LINE).min(values.len());
            let (now, rest) = values.split_at(take);
            // SAFETY: the caller holds that these elements are ours.
            unsafe { self.values.part(start + col / LINE * stride + col % LINE, take) }.copy_from_slice(now);
            (col, values) = (col + take, rest);
        }
    }
}

/// Weights and bias of y = x·Wᵀ + b, packed in panels of NR output columns: `[panel][k][NR]`.
pub struct Linear {
    panels: Buffer,
    bias: Vec<f32>,
    pub ins: usize,
    pub outs: usize,
    cols: usize,
}

impl Linear {
    /// All zero; see [`Linear::put`].
    pub fn new(cpu: &Cpu, ins: usize, outs: usize) -> Self {
        let cols = cpu.kernels.cols;
        let padded = outs.div_ceil(cols) * cols;
        Self { panels: Buffer::zeroed(padded * ins), bias: vec![0.0; padded], ins, outs, cols }
    }

    /// Packs `scale` × weights [n, ins] (row-major, the checkpoint's layout) as outputs `first..first+n`.
    pub fn put(&mut self, cpu: &Cpu, first: usize, weights: &[f32], scale: f32) {
        let (ins, cols) = (self.ins, self.cols);
        let outs = weights.len() / ins;
        assert!(weights.len() == outs * ins && first + outs <= self.outs);
        let panels = Shared::new(&mut self.panels);
        let (from, to) = (first / cols, (first + outs).div_ceil(cols));
        cpu.pool.run(to - from, |i| {
            let panel = from + i;
            // SAFETY: one task per panel.
            let packed = unsafe { panels.part(panel * ins * cols, ins * cols) };
            let columns = (panel * cols).max(first)..((panel + 1) * cols).min(first + outs);
            for block in (0..ins).step_by(LINE) {
                for column in columns.clone() {
                    let row = &weights[(column - first) * ins..][..ins];
                    for k in block..ins.min(block + LINE) {
                        packed[k * cols + column % cols] = row[k] * scale;
                    }
                }
            }
        });
    }

    /// Sets the bias of outputs `first..`.
    pub fn put_bias(&mut self, first: usize, bias: &[f32], scale: f32) {
        assert!(first + bias.len() <= self.outs);
        for (to, from) in self.bias[first..].iter_mut().zip(bias) {
            *to = from * scale;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.panels.len() + self.bias.len()) * 4
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    QuickGelu,
}

/// Where a product goes.
pub enum Out<'a> {
    /// Row-major, rows of `outs` values.
    Rows(&'a mut [f32]),
    /// Added to what is there: the residual stream.
    AddTo(&'a mut [f32]),
    /// The left side of the next product.
    Lines(&'a mut Lhs),
}

enum Target<'a> {
    Rows(Shared<'a>),
    AddTo(Shared<'a>),
    Lines(LhsWriter<'a>),
}

struct Product<'a> {
    kernels: Kernels,
    lhs: &'a Lhs,
    rhs: &'a Linear,
    activation: Activation,
    target: Target<'a>,
    /// The panel that this thread will most likely take next is so many further on.
    ahead: usize,
}

/// out = activation(lhs · Wᵀ + b).
pub fn gemm(cpu: &Cpu, lhs: &Lhs, rhs: &Linear, activation: Activation, out: Out<'_>) {
    assert_eq!(lhs.k, rhs.ins);
    let size = lhs.rows * rhs.outs;
    let target = match out {
        Out::Rows(rows) => Target::Rows(Shared::new(&mut rows[..size])),
        Out::AddTo(rows) => Target::AddTo(Shared::new(&mut rows[..size])),
        Out::Lines(next) => Target::Lines(next.reset(cpu, lhs.rows, rhs.outs)),
    };
    let product = Product { kernels: cpu.kernels, lhs, rhs, activation, target, ahead: cpu.pool.threads() };
    let tiles = lhs.rows.div_ceil(lhs.tile.max(1));
    let panels = rhs.outs.div_ceil(rhs.cols);
    // Whole panels where they are enough for all threads, else panels × chunks of tiles.
    let wanted = (cpu.pool.threads() * 4).div_ceil(panels.max(1)).min(tiles.max(1)).max(1);
    let fitting = (lhs.rows * lhs.k * 4).div_ceil(LHS_BYTES);
    let chunk = tiles.div_ceil(wanted.max(fitting).max(1)).max(1);
    cpu.pool.run(panels * tiles.div_ceil(chunk), |task| {
        let first = task / panels * chunk;
        multiply(cpu.isa, &product, task % panels, first..(first + chunk).min(tiles));
    });
}

per_isa! {
    /// One panel × some tiles.
    fn multiply(product: &Product<'_>, panel: usize, tiles: Range<usize>) = multiply_body
}

#[inline(always)]
fn multiply_body<const FMA: bool>(product: &Product<'_>, panel: usize, tiles: Range<usize>) {
    let Product { kernels, lhs, rhs, .. } = product;
    let (k, cols) = (rhs.ins, rhs.cols);
    let padded = k.div_ceil(LINE) * LINE;
    let packed = &rhs.panels[panel * k * cols..][..k * cols];
    let first_col = panel * cols;
    let width = cols.min(rhs.outs - first_col);
    // The next panel comes from memory while this one is at work, a share with every tile; with few
    // tiles there is no work to hide it behind.
    let next = if tiles.len() < 4 {
        &[]
    } else {
        rhs.panels.get((panel + product.ahead) * k * cols..).unwrap_or(&[])
    };
    let mut next = next[..next.len().min(k * cols)].chunks((k * cols).div_ceil(tiles.len().max(1)));
    let mut tile = Tile::new();
    for index in tiles {
        next.next().unwrap_or(&[]).iter().step_by(LINE).for_each(prefetch);
        let first_row = index * lhs.tile;
        let height = lhs.tile.min(lhs.rows - first_row);
        let rows = &lhs.values[first_row * padded..][..height * padded];
        let kernel = kernels.for_rows(height);
        for start in (0..k).step_by(CHAIN) {
            let steps = CHAIN.min(k - start);
            let (a, b) = (&rows[start * height..], &packed[start * cols..]);
            // SAFETY: `a` has the lines of `steps` columns of `height` rows and `b` `steps`·NR values;
            // CHAIN is a multiple of 16, so both stay on lines; the tile holds the largest R·NR; the
            // kernels are those of a detected instruction set.
            unsafe { kernel(steps, a.as_ptr(), b.as_ptr(), tile.0.as_mut_ptr(), start > 0) }
        }
        if cols >= LINE {
            finish::<FMA, LINE>(product, &tile, first_row..first_row + height, first_col, width);
        } else {
            finish::<FMA, 8>(product, &tile, first_row..first_row + height, first_col, width);
        }
    }
}

/// Asks for a cache line; a hint only.
#[inline(always)]
fn prefetch(at: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, at any address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>((&raw const *at).cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Bias, activation and the way out of a tile, C columns at a time; C divides NR.
#[inline(always)]
fn finish<const FMA: bool, const C: usize>(
    product: &Product<'_>,
    tile: &Tile,
    rows: Range<usize>,
    first_col: usize,
    width: usize,
) {
    let (cols, outs) = (product.rhs.cols, product.rhs.outs);
    for (row, values) in rows.zip(tile.0.chunks_exact(cols)) {
        for at in (0..width).step_by(C) {
            let (mut chunk, bias) =
                (*first::<C>(&values[at..]), first::<C>(&product.rhs.bias[first_col + at..]));
            for (value, bias) in chunk.iter_mut().zip(bias) {
                *value += bias;
            }
            if product.activation == Activation::QuickGelu {
                for value in &mut chunk {
                    *value = quick_gelu::<FMA>(*value);
                }
            }
            let (col, used) = (first_col + at, C.min(width - at));
            let start = row * outs + col;
            // SAFETY (all): rows of this tile × columns of this panel belong to this task alone.
            match &product.target {
                Target::Rows(to) if used == C => unsafe { *to.array(start) = chunk },
                Target::Rows(to) => unsafe { to.part(start, used) }.copy_from_slice(&chunk[..used]),
                Target::AddTo(to) if used == C => {
                    let to: &mut [f32; C] = unsafe { to.array(start) };
                    for (to, value) in to.iter_mut().zip(&chunk) {
                        *to += value;
                    }
                }
                Target::AddTo(to) => {
                    for (to, value) in unsafe { to.part(start, used) }.iter_mut().zip(&chunk) {
                        *to += value;
                    }
                }
                Target::Lines(next) => unsafe { next.put(row, col, &chunk[..used]) },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recipe;

    fn random(name: &str, rows: usize, cols: usize) -> Vec<f32> {
        recipe::tensor(&format!("{name}.weight"), &[rows, cols])
    }

    fn naive(a: &[f32], w: &[f32], bias: &[f32], rows: usize, k: usize, outs: usize) -> Vec<f64> {
        let mut c = vec![0.0; rows * outs];
        for (i, row) in a.chunks_exact(k).enumerate().take(rows) {
            for (j, column) in w.chunks_exact(k).enumerate() {
                let dot: f64 = row.iter().zip(column).map(|(x, y)| *x as f64 * *y as f64).sum();
                c[i * outs + j] = dot + bias[j] as f64;
            }
        }
        c
    }

    fn close(ours: &[f32], exact: &[f64], what: &str) {
        assert_eq!(ours.len(), exact.len(), "{what}");
        for (i, (x, y)) in ours.iter().zip(exact).enumerate() {
            assert!((*x as f64 - y).abs() <= 1e-5 * (1.0 + y.abs()), "{what}: element {i}: {x} against {y}");
        }
    }

    #[test]
    fn every_instruction_set_multiplies_awkward_shapes_right() {
        let shapes = [
            (1, 1, 1),
            (1, 768, 33),
            (2, 17, 5),
            (5, 16, 32),
            (13, 31, 31),
            (25, 48, 100),
            (37, 600, 64),
            (50, 1100, 7),
        ];
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 2);
            for (rows, k, outs) in shapes {
                let what = format!("{} {rows}x{k}x{outs}", isa.name());
                let (a, w, bias) = (random("a", rows, k), random("w", outs, k), random("b", 1, outs));
                let exact = naive(&a, &w, &bias, rows, k, outs);
                let mut linear = Linear::new(&cpu, k, outs);
                let split = outs / 3;
                linear.put(&cpu, 0, &w[..split * k], 1.0);
                linear.put(&cpu, split, &w[split * k..], 1.0);
                linear.put_bias(0, &bias, 1.0);
                let mut lhs = Lhs::default();
                lhs.copy_from(&cpu, rows, k, &a, k);

                let mut out = vec![f32::NAN; rows * outs];
                gemm(&cpu, &lhs, &linear, Activation::None, Out::Rows(&mut out));
                close(&out, &exact, &what);

                let mut sum = vec![2.0; rows * outs];
                gemm(&cpu, &lhs, &linear, Activation::None, Out::AddTo(&mut sum));
                close(&sum, &exact.iter().map(|v| v + 2.0).collect::<Vec<_>>(), &what);

                // Through the lines of a next product, with the activation between.
                let mut next = Lhs::default();
                gemm(&cpu, &lhs, &linear, Activation::QuickGelu, Out::Lines(&mut next));
                let mut same = Linear::new(&cpu, outs, outs);
                let unit: Vec<f32> = (0..outs * outs).map(|i| (i % (outs + 1) == 0) as u8 as f32).collect();
                same.put(&cpu, 0, &unit, 1.0);
                gemm(&cpu, &next, &same, Activation::None, Out::Rows(&mut out));
                let gelu: Vec<f64> = exact.iter().map(|v| v / (1.0 + (-1.702 * v).exp())).collect();
                close(&out, &gelu, &what);
            }
        }
    }

    #[test]
    fn a_row_never_depends_on_its_neighbours_or_the_threads() {
        let (k, outs) = (700, 45);
        let (a, w) = (random("a", 40, k), random("w", outs, k));
        for isa in Isa::available() {
            let run = |rows: Range<usize>, threads: usize| {
                let cpu = Cpu::new(isa, threads);
                let mut linear = Linear::new(&cpu, k, outs);
                linear.put(&cpu, 0, &w, 1.0);
                let mut lhs = Lhs::default();
                lhs.copy_from(&cpu, rows.len(), k, &a[rows.start * k..rows.end * k], k);
                let mut out = vec![0.0; rows.len() * outs];
                gemm(&cpu, &lhs, &linear, Activation::QuickGelu, Out::Rows(&mut out));
                out
            };
            let all = run(0..40, 3);
            for rows in [0..1, 7..9, 5..18, 0..40] {
                assert_eq!(
                    run(rows.clone(), 1),
                    all[rows.start * outs..rows.end * outs],
                    "{} {rows:?}",
                    isa.name()
                );
            }
        }
    }
}
