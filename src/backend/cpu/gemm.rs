//! Matrix products: activations × weights packed once at load, with the epilogue on the tile.
//!
//! A weight panel is read from memory once per product and stays in the second-level cache while every
//! row tile passes it; the left side streams. Sums of bytes become f32 on the tile, and everything after
//! (bias, activation, residual) is the same code for both formats.
//! Source: Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.

use std::ops::Range;

use super::activation_i8;
use super::arena::Arena;
use super::buffer::{Buffer, LINE, LINE_BYTES, Shared, first};
use super::epilogue::{Epilogue, Place, Target};
use super::isa::{Isa, per_isa};
use super::kernel::{Ahead, F32Kernels, Tile};
use super::kernel_i8::DotKernels;
use super::kernel_i16::PairKernels;
use super::lhs::Lhs;
use super::linear::{Bytes, Format, Linear, Panels};
use super::next_panel::Next;
use super::pool::Pool;
use super::sums::{ByteRows, F32Rows, FineRows};

pub use super::epilogue::Activation;

/// Steps of k summed in registers before they are added to the tile: shorter chains of additions lose
/// fewer bits.
const CHAIN: usize = 512;
/// Bytes of the left side that pass one weight panel: about what the caches above memory hold.
const LHS_BYTES: usize = 4 << 20;
/// The same in int8: half of a small second-level cache. A product of bytes is done with a line four
/// times as fast, and the third level cannot keep up.
const LHS_BYTES_INT8: usize = 512 << 10;

/// What every operation needs: instruction set and threads.
pub struct Cpu {
    pub isa: Isa,
    pub kernels: F32Kernels,
    pub dots: DotKernels,
    pub pairs: PairKernels,
    pub pool: Pool,
    /// Where weights are packed.
    pub(super) arena: Arena,
    /// The same with the calling thread only; none if that is all there is.
    alone: Option<Box<Cpu>>,
}

impl Cpu {
    pub fn new(isa: Isa, threads: usize) -> Self {
        let pool = Pool::new(threads);
        let alone = (pool.threads() > 1).then(|| Box::new(Cpu::new(isa, 1)));
        Self {
            isa,
            kernels: F32Kernels::of(isa),
            dots: DotKernels::of(isa),
            pairs: PairKernels::of(isa),
            pool,
            arena: Arena::default(),
            alone,
        }
    }

    /// For operations inside a parallel task: they run on its own thread, in order.
    pub fn alone(&self) -> &Cpu {
        self.alone.as_deref().unwrap_or(self)
    }

    /// Runs `task` on ranges that cover 0..items, a few per thread.
    pub fn run_ranges(&self, items: usize, least: usize, task: impl Fn(Range<usize>) + Sync) {
        let chunk = items.div_ceil(self.pool.threads() * 4).max(least).max(1);
        self.pool.run(items.div_ceil(chunk), |i| task(i * chunk..((i + 1) * chunk).min(items)));
    }
}

/// Where a product goes.
pub enum Out<'a> {
    /// Row-major, rows of `outs` values.
    Rows(&'a mut [f32]),
    /// The same, rows so many values apart; those between stay as they are.
    Spaced(&'a mut [f32], usize),
    /// Added to what is there: the residual stream.
    AddTo(&'a mut [f32]),
    /// The left side of the next product.
    Lhs(&'a mut Lhs, &'a Linear),
}

struct Product<'a> {
    kernels: F32Kernels,
    dots: DotKernels,
    lhs: &'a Lhs,
    rhs: &'a Linear,
    epilogue: Epilogue<'a>,
}

/// out = activation(lhs · Wᵀ + b).
pub fn gemm(cpu: &Cpu, lhs: &Lhs, rhs: &Linear, activation: Activation, out: Out<'_>) {
    gemm_from(cpu, lhs, rhs, 0, activation, out);
}

/// As [`gemm`]; columns before `first` may be left as they are.
pub fn gemm_from<'a>(cpu: &Cpu, lhs: &Lhs, rhs: &Linear, first: usize, activation: Activation, out: Out<'a>) {
    assert!(lhs.k == rhs.ins && lhs.format == rhs.format);
    let mut next = None;
    let mut coarse = None;
    // Rows apart and all there: tasks write to them side by side.
    let checked = |rows: &'a mut [f32], stride: usize| {
        assert!(stride >= rhs.outs && rows.len() + stride >= lhs.rows * stride + rhs.outs);
        (Shared::new(rows), stride)
    };
    let target = match out {
        Out::Rows(rows) => Target::Rows(checked(rows, rhs.outs)),
        Out::Spaced(rows, stride) => Target::Rows(checked(rows, stride)),
        Out::AddTo(rows) => Target::AddTo(checked(rows, rhs.outs)),
        Out::Lhs(to, for_product) => {
            assert_eq!(rhs.outs, for_product.ins);
            if for_product.format == Format::Int8 {
                coarse = activation_i8::quick_gelu(cpu.isa);
            }
            Target::Lhs(next.insert(to).stage(cpu, lhs.rows, for_product))
        }
    };
    let (kernels, dots, threads) = (cpu.kernels, cpu.dots, cpu.pool.threads());
    let epilogue = Epilogue { activation, coarse, target, outs: rhs.outs };
    let product = Product { kernels, dots, lhs, rhs, epilogue };
    let tiles = lhs.tiles.count;
    let skipped = first / rhs.cols;
    let panels = rhs.outs.div_ceil(rhs.cols) - skipped;
    let fitting = match lhs.format {
        Format::F32 => (lhs.rows * lhs.k * 4).div_ceil(LHS_BYTES),
        Format::Int8 | Format::Int8Fine => (lhs.rows * lhs.k).div_ceil(LHS_BYTES_INT8),
    };
    // Whole panels where they are enough for all threads, else panels × chunks of tiles.
    let wanted = (threads * 4).div_ceil(panels.max(1)).min(tiles.max(1)).max(1);
    let chunk = tiles.div_ceil(wanted.max(fitting).max(1)).max(1);
    // Tasks that run at the same time are far apart in the result's rows: their cache lines are too.
    let apart = panels.div_ceil(threads);
    cpu.pool.run(apart * threads * tiles.div_ceil(chunk), |task| {
        let (first, i) = (task / (apart * threads) * chunk, task % (apart * threads));
        let panel = i % threads * apart + i / threads;
        if panel < panels {
            multiply(cpu.isa, &product, skipped + panel, first..(first + chunk).min(tiles));
        }
    });
    if let Some(next) = next {
        next.complete(cpu);
    }
}

per_isa! {
    /// One panel × some tiles.
    fn multiply(product: &Product<'_>, panel: usize, tiles: Range<usize>) = multiply_body
}

#[inline(always)]
fn multiply_body<const FMA: bool>(product: &Product<'_>, panel: usize, tiles: Range<usize>) {
    match (&product.rhs.panels, product.rhs.cols) {
        (Panels::F32(panels), 32) => multiply_f32::<FMA, 32, 16>(product, panels, panel, tiles),
        (Panels::F32(panels), 16) => multiply_f32::<FMA, 16, 16>(product, panels, panel, tiles),
        (Panels::F32(panels), _) => multiply_f32::<FMA, 8, 8>(product, panels, panel, tiles),
        (Panels::Int8(bytes), 32) => multiply_i8::<FMA, 32, 16>(product, bytes, panel, tiles),
        (Panels::Int8(bytes), 16) => multiply_i8::<FMA, 16, 16>(product, bytes, panel, tiles),
        (Panels::Int8(bytes), _) => multiply_i8::<FMA, 8, 8>(product, bytes, panel, tiles),
    }
}

#[inline(always)]
fn multiply_f32<const FMA: bool, const NR: usize, const C: usize>(
    product: &Product<'_>,
    panels: &[f32],
    panel: usize,
    tiles: Range<usize>,
) {
    let Product { lhs, rhs, epilogue, .. } = product;
    let (k, first_col) = (rhs.ins, panel * NR);
    let padded = k.div_ceil(LINE) * LINE;
    let size = k * NR;
    let packed = &panels[panel * size..][..size];
    let mut next = Next::new(panels, (panel + 1) * size, size, tiles.len(), k.div_ceil(LINE));
    let bias = *first::<NR, _>(&rhs.bias[first_col..]);
    let (mut tile, mut place) = (Tile::new(), Place::new());
    for index in tiles {
        let (first_row, height) = lhs.tiles.at(index);
        epilogue.find::<NR>(&mut place, first_row, height, first_col);
        let mut ahead = place.ahead(next.tile());
        let rows = &lhs.values[first_row * padded..][..height * padded];
        let kernel = product.kernels.for_rows(height);
        for start in (0..k).step_by(CHAIN) {
            let steps = CHAIN.min(k - start);
            let (a, b) = (&rows[start * height..], &packed[start * NR..]);
            // SAFETY: `a` has the lines of `steps` columns of `height` rows and `b` `steps`·NR values;
            // CHAIN is a multiple of 16, so both stay on lines; the tile holds the largest R·NR; the
            // kernels are those of a detected instruction set.
            unsafe { kernel(steps, a.as_ptr(), b.as_ptr(), tile.0.as_mut_ptr(), start > 0, ahead) }
            ahead.at = ahead.at.wrapping_add(steps / LINE * ahead.lines * LINE_BYTES);
            ahead.rows = 0;
        }
        let sums = F32Rows(tile.0.as_chunks::<NR>().0);
        // SAFETY: rows of this tile × columns of this panel belong to this task alone.
        unsafe { epilogue.put::<FMA, NR, C>(&mut place, &sums, &bias) }
    }
}

#[inline(always)]
fn multiply_i8<const FMA: bool, const NR: usize, const C: usize>(
    product: &Product<'_>,
    bytes: &Bytes,
    panel: usize,
    tiles: Range<usize>,
) {
    let Product { lhs, rhs, epilogue, .. } = product;
    let (k, first_col) = (rhs.ins, panel * NR);
    let padded = k.div_ceil(LINE_BYTES) * LINE_BYTES;
    let size = k.next_multiple_of(4) * NR;
    let packed = &bytes.panels[panel * size..][..size];
    let mut next = Next::new(&bytes.panels, (panel + 1) * size, size, tiles.len(), k.div_ceil(LINE_BYTES));
    let bias = *first::<NR, _>(&rhs.bias[first_col..]);
    let scales = *first::<NR, _>(&bytes.scales[first_col..]);
    let column_sums = *first::<NR, _>(&bytes.sums[first_col..]);
    let (mut sums, mut fine_sums, mut place) = (Tile::new(), Tile::new(), Place::new());
    for index in tiles {
        let (first_row, height) = lhs.tiles.at(index);
        epilogue.find::<NR>(&mut place, first_row, height, first_col);
        let ahead = place.ahead(next.tile());
        let kernel = product.dots.for_rows(height);
        let rows = |bytes: &Buffer<u8>| bytes[first_row * padded..][..height * padded].as_ptr();
        // SAFETY (both): `rows` are the lines of `height` rows and `packed` all quads of the panel; sums
        // hold the largest R·NR; the kernels are those of a detected instruction set.
        unsafe { kernel(size / NR / 4, rows(&lhs.bytes), packed.as_ptr(), sums.0.as_mut_ptr(), ahead) }
        let fine = lhs.format == Format::Int8Fine;
        if fine {
            unsafe {
                kernel(
                    size / NR / 4,
                    rows(&lhs.fine),
                    packed.as_ptr(),
                    fine_sums.0.as_mut_ptr(),
                    Ahead::NOTHING,
                )
            }
        }
        let sums = sums.0.as_chunks().0;
        let sums = ByteRows { sums, rows: &lhs.scales[first_row..][..height], scales, column_sums };
        // SAFETY (both): rows of this tile × columns of this panel belong to this task alone.
        if fine {
            let sums = FineRows { first: sums, fine: fine_sums.0.as_chunks().0 };
            unsafe { epilogue.put::<FMA, NR, C>(&mut place, &sums, &bias) }
        } else {
            unsafe { epilogue.put::<FMA, NR, C>(&mut place, &sums, &bias) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::row_stride;
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
                let mut linear = Linear::new(&cpu, k, outs, Format::F32);
                let split = outs / 3;
                linear.put(&cpu, 0, &w[..split * k], 1.0);
                linear.put(&cpu, split, &w[split * k..], 1.0);
                linear.put_bias(0, &bias, 1.0);
                let mut lhs = Lhs::default();
                lhs.copy_from(&cpu, rows, &a, k, &linear);

                let mut out = vec![f32::NAN; rows * outs];
                gemm(&cpu, &lhs, &linear, Activation::None, Out::Rows(&mut out));
                close(&out, &exact, &what);

                let mut sum = vec![2.0; rows * outs];
                gemm(&cpu, &lhs, &linear, Activation::None, Out::AddTo(&mut sum));
                close(&sum, &exact.iter().map(|v| v + 2.0).collect::<Vec<_>>(), &what);

                // Some of the columns.
                let mut some = vec![f32::NAN; rows * outs];
                gemm_from(&cpu, &lhs, &linear, split, Activation::None, Out::Rows(&mut some));
                for (some, all) in some.chunks(outs).zip(out.chunks(outs)) {
                    assert_eq!(some[split..], all[split..], "{what}");
                }

                // Rows apart, with what lies between them left alone.
                let mut apart = vec![f32::NAN; rows * (outs + 5)];
                gemm(&cpu, &lhs, &linear, Activation::None, Out::Spaced(&mut apart, outs + 5));
                for (apart, all) in apart.chunks(outs + 5).zip(out.chunks(outs)) {
                    assert_eq!(apart[..outs], *all, "{what}");
                    assert!(apart[outs..].iter().all(|v| v.is_nan()), "{what}");
                }

                // Through the lines of a next product, with the activation between.
                let (mut next, same) = (Lhs::default(), unit(&cpu, outs, Format::F32));
                gemm(&cpu, &lhs, &linear, Activation::QuickGelu, Out::Lhs(&mut next, &same));
                gemm(&cpu, &next, &same, Activation::None, Out::Rows(&mut out));
                let gelu: Vec<f64> = exact.iter().map(|v| v / (1.0 + (-1.702 * v).exp())).collect();
                close(&out, &gelu, &what);

                // As f32 rows on their way to bytes, where it is looked up.
                gemm(
                    &cpu,
                    &lhs,
                    &linear,
                    Activation::QuickGelu,
                    Out::Lhs(&mut next, &unit(&cpu, outs, Format::Int8)),
                );
                for (i, exact) in gelu.iter().enumerate() {
                    let ours = next.values[i / outs * row_stride(outs) + i % outs] as f64;
                    assert!((ours - exact).abs() < 1e-4 + 1e-5 * exact.abs(), "{what}: {i}: {ours}, {exact}");
                }
            }
        }
    }

    fn unit(cpu: &Cpu, width: usize, format: Format) -> Linear {
        let mut same = Linear::new(cpu, width, width, format);
        let unit: Vec<f32> = (0..width * width).map(|i| (i % (width + 1) == 0) as u8 as f32).collect();
        same.put(cpu, 0, &unit, 1.0);
        same
    }

    /// What bytes make of the factors, multiplied exactly.
    fn rounded(a: &[f32], w: &[f32], bias: &[f32], rows: usize, k: usize, outs: usize) -> Vec<f64> {
        let a: Vec<f32> = a
            .chunks_exact(k)
            .flat_map(|row| {
                let (low, high) = row.iter().fold((0f32, 0f32), |(l, h), x| (l.min(*x), h.max(*x)));
                let inverse = 255.0 / (high - low);
                let zero = (-low * inverse).round_ties_even();
                let byte = move |x: f32| x.mul_add(inverse, zero).clamp(0.0, 255.0).round_ties_even();
                row.iter().map(move |x| (byte(*x) - zero) * ((high - low) / 255.0)).collect::<Vec<_>>()
            })
            .collect();
        let w: Vec<f32> = w
            .chunks_exact(k)
            .flat_map(|row| {
                let largest = row.iter().fold(0f32, |m, w| m.max(w.abs()));
                row.iter().map(move |w| (w * (127.0 / largest)).round_ties_even() * (largest / 127.0))
            })
            .collect();
        naive(&a, &w, bias, rows, k, outs)
    }

    #[test]
    fn bytes_multiply_as_the_rounded_factors_do_on_every_instruction_set() {
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 2);
            for (rows, k, outs) in [(1, 1, 1), (1, 768, 33), (2, 17, 5), (13, 131, 31), (50, 1100, 70)] {
                let what = format!("{} {rows}x{k}x{outs}", isa.name());
                let (a, w, bias) = (random("a", rows, k), random("w", outs, k), random("b", 1, outs));
                let mut linear = Linear::new(&cpu, k, outs, Format::Int8);
                let split = outs / 3;
                linear.put(&cpu, 0, &w[..split * k], 1.0);
                linear.put(&cpu, split, &w[split * k..], 1.0);
                linear.put_bias(0, &bias, 1.0);
                let (mut lhs, mut out) = (Lhs::default(), vec![f32::NAN; rows * outs]);
                lhs.copy_from(&cpu, rows, &a, k, &linear);
                gemm(&cpu, &lhs, &linear, Activation::None, Out::Rows(&mut out));
                // Where a value lies between two bytes, the portable rounding may take the other one.
                let exact = rounded(&a, &w, &bias, rows, k, outs);
                let step = 1.0 / 255.0 / 100.0;
                for (x, y) in out.iter().zip(&exact) {
                    assert!((*x as f64 - y).abs() <= step * (1.0 + y.abs()), "{what}: {x} against {y}");
                }
                // Staged for a next product: the same as quantised row by row.
                let same = unit(&cpu, outs, Format::Int8);
                let (mut next, mut direct) = (Lhs::default(), Lhs::default());
                gemm(&cpu, &lhs, &linear, Activation::None, Out::Lhs(&mut next, &same));
                direct.copy_from(&cpu, rows, &out, outs, &same);
                let (mut one, mut other) = (vec![0.0; rows * outs], vec![0.0; rows * outs]);
                gemm(&cpu, &next, &same, Activation::None, Out::Rows(&mut one));
                gemm(&cpu, &direct, &same, Activation::None, Out::Rows(&mut other));
                assert_eq!(one, other, "{what}");
                for (back, x) in one.chunks(outs).zip(out.chunks(outs)) {
                    let range = x.iter().fold(0f32, |m, x| m.max(*x)) - x.iter().fold(0f32, |m, x| m.min(*x));
                    let within = |(b, x): (&f32, &f32)| (b - x).abs() <= range / 255.0 * 0.51;
                    assert!(back.iter().zip(x).all(within), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_row_never_depends_on_its_neighbours_or_the_threads() {
        let (k, outs) = (700, 45);
        let (a, w) = (random("a", 40, k), random("w", outs, k));
        for (isa, format) in
            Isa::available().into_iter().flat_map(|isa| [(isa, Format::F32), (isa, Format::Int8)])
        {
            let run = |rows: Range<usize>, threads: usize| {
                let cpu = Cpu::new(isa, threads);
                let mut linear = Linear::new(&cpu, k, outs, format);
                linear.put(&cpu, 0, &w, 1.0);
                let mut lhs = Lhs::default();
                lhs.copy_from(&cpu, rows.len(), &a[rows.start * k..rows.end * k], k, &linear);
                let mut out = vec![0.0; rows.len() * outs];
                gemm(&cpu, &lhs, &linear, Activation::QuickGelu, Out::Rows(&mut out));
                out
            };
            let all = run(0..40, 3);
            for rows in [0..1, 7..9, 5..18, 0..40] {
                assert_eq!(
                    run(rows.clone(), 1),
                    all[rows.start * outs..rows.end * outs],
                    "{} {format:?} {rows:?}",
                    isa.name()
                );
            }
        }
    }
}
