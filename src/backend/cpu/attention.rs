//! Attention per (item, head): softmax(q·kᵀ)·v with both products on the tile kernel.
//!
//! An item is one set of queries with its keys: a frame, a prompt, a clip. Queries come scaled by
//! hd^-0.5 (folded into the projection at load). Keys are turned into a panel once per item and head;
//! the matrix of scores never leaves the thread's cache.

use std::cell::RefCell;

use super::buffer::{LINE, prefetch};
use super::gemm::Cpu;
use super::isa::per_isa;
use super::kernel::{F32Kernels, Tile};
use super::kernel_i16::PairKernels;
use super::lhs::{Lhs, Writer};
use super::linear::{Format, Linear};
use super::transpose::{self, Transpose};
use super::{attention_f32, attention_i16};

/// Rows `stride` values apart; head h of a row is at h·hd.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    pub(super) fn head(&self, row: usize, head: usize, width: usize) -> &'a [f32] {
        &self.values[row * self.stride + head * width..][..width]
    }
}

/// One set of queries and its keys.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub q: Rows<'a>,
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub queries: usize,
    pub keys: usize,
    /// One more key row and value row, of all heads.
    pub extra: Option<(&'a [f32], &'a [f32])>,
    /// Where the result's rows start.
    pub first: usize,
}

/// What one attention works on.
pub struct Attention<'a> {
    /// Item by index.
    pub item: &'a (dyn Fn(usize) -> Item<'a> + Sync),
    pub items: usize,
    /// Queries of all items.
    pub rows: usize,
    pub heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Query i sees keys 0..=i only.
    pub causal: bool,
}

thread_local! {
    static SCRATCH_F32: RefCell<attention_f32::Scratch> = RefCell::default();
    static SCRATCH_I16: RefCell<attention_i16::Scratch> = RefCell::default();
}

impl Attention<'_> {
    /// Writes every query's result as a row of the next product's left side. Where that takes single bytes,
    /// attention itself works on 16-bit numbers, unless it is causal: no row may depend on later ones. A value
    /// that is no number then spoils its whole item and head.
    pub(super) fn run(&self, cpu: &Cpu, to: &mut Lhs, for_product: &Linear) {
        let writer = to.stage(cpu, self.rows, for_product);
        let (kernels, pairs, transpose) = (cpu.kernels, cpu.pairs, transpose::of(cpu.isa));
        let in_pairs = for_product.format == Format::Int8 && !self.causal;
        let Attention { heads, head: width, causal, .. } = *self;
        let alone = cpu.pool.threads() == 1;
        cpu.pool.run(self.items * heads, |task| {
            let item = (self.item)(task / heads);
            let keys = item.keys + item.extra.is_some() as usize;
            let head = task % heads;
            let task = Task { kernels, pairs, transpose, item, width, causal, head, keys, alone };
            if in_pairs && keys <= attention_i16::MOST_KEYS {
                SCRATCH_I16.with_borrow_mut(|scratch| attend_i16(cpu.isa, &task, scratch, writer));
            } else {
                SCRATCH_F32.with_borrow_mut(|scratch| attend_f32(cpu.isa, &task, scratch, writer));
            }
        });
        to.complete(cpu);
    }
}

per_isa! {
    fn attend_f32(task: &Task<'_>, scratch: &mut attention_f32::Scratch, to: Writer<'_>) = attend_f32_body
}

per_isa! {
    fn attend_i16(task: &Task<'_>, scratch: &mut attention_i16::Scratch, to: Writer<'_>) = attend_i16_body
}

// Panels have NR columns, loops take C at a time.

#[inline(always)]
fn attend_f32_body<const FMA: bool>(task: &Task<'_>, scratch: &mut attention_f32::Scratch, to: Writer<'_>) {
    match task.kernels.cols {
        32 => task.run_f32::<FMA, 32, 16>(scratch, to),
        16 => task.run_f32::<FMA, 16, 16>(scratch, to),
        _ => task.run_f32::<FMA, 8, 8>(scratch, to),
    }
}

#[inline(always)]
fn attend_i16_body<const FMA: bool>(task: &Task<'_>, scratch: &mut attention_i16::Scratch, to: Writer<'_>) {
    match task.pairs.cols {
        32 => task.run_i16::<FMA, 32, 16>(scratch, to),
        16 => task.run_i16::<FMA, 16, 16>(scratch, to),
        _ => task.run_i16::<FMA, 8, 8>(scratch, to),
    }
}

/// One head of one item.
pub(super) struct Task<'a> {
    pub kernels: F32Kernels,
    pub pairs: PairKernels,
    pub transpose: Transpose,
    pub item: Item<'a>,
    pub width: usize,
    pub causal: bool,
    pub head: usize,
    /// The extra one included.
    pub keys: usize,
    /// Whether this thread does all heads, in order.
    alone: bool,
}

impl<'a> Task<'a> {
    #[inline(always)]
    pub fn key(&self, j: usize) -> &'a [f32] {
        match self.item.extra {
            Some((row, _)) if j == self.item.keys => &row[self.head * self.width..][..self.width],
            _ => self.item.k.head(j, self.head, self.width),
        }
    }

    #[inline(always)]
    pub fn value(&self, j: usize) -> &'a [f32] {
        match self.item.extra {
            Some((_, row)) if j == self.item.keys => &row[self.head * self.width..][..self.width],
            _ => self.item.v.head(j, self.head, self.width),
        }
    }

    /// All rows, unless this thread's last task asked for them; a hint only.
    #[inline(always)]
    pub fn expect_first(&self) {
        let Task { item, width, head, keys, .. } = *self;
        if head == 0 || !self.alone {
            (0..keys).for_each(|j| expect(self.key(j).as_ptr(), width));
            (0..keys).for_each(|j| expect(self.value(j).as_ptr(), width));
            (0..item.queries).for_each(|r| expect(item.q.head(r, head, width).as_ptr(), width));
        }
    }

    /// The same row of the next head, if that is this thread's next task; a hint only.
    #[inline(always)]
    pub fn expect_next(&self, row: &[f32]) {
        if self.alone {
            expect(row.as_ptr().wrapping_add(row.len()), row.len());
        }
    }
}

/// Asks for lines long before they are needed: they lie a row apart, where no processor looks ahead by
/// itself.
#[inline(always)]
fn expect(at: *const f32, width: usize) {
    (0..width).step_by(LINE).for_each(|i| prefetch::<false>(at.wrapping_add(i)));
}

/// What a tile holds.
pub(super) trait Sum: Copy {
    fn to_f32(self) -> f32;
}

impl Sum for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Sum for i32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

#[inline(always)]
fn times<const C: usize>(sums: &[impl Sum; C], scale: f32) -> [f32; C] {
    let mut values = [0f32; C];
    for i in 0..C {
        values[i] = sums[i].to_f32() * scale;
    }
    values
}

/// Rows of a tile times their scales, to columns `first..first + columns`.
///
/// # Safety
/// No other task writes these columns of these rows.
#[inline(always)]
pub(super) unsafe fn put<const NR: usize, const C: usize>(
    tile: &Tile<impl Sum>,
    scales: &[f32],
    places: &[(usize, usize)],
    first: usize,
    columns: usize,
    to: Writer<'_>,
) {
    let rows = tile.0.as_chunks::<NR>().0.iter().zip(scales).zip(places);
    if columns == NR && first.is_multiple_of(NR.min(LINE)) {
        for ((row, scale), place) in rows {
            let spot = to.spot(*place, first, NR);
            for (i, part) in row.as_chunks::<C>().0.iter().enumerate() {
                let part = times::<C>(part, *scale);
                // SAFETY: the caller's promise; C columns of the spot's NR are in one line.
                unsafe { *spot.column(i * C).cast() = part }
            }
        }
        return;
    }
    for ((row, scale), place) in rows {
        let row = times::<NR>(row, *scale);
        // SAFETY: the caller's promise.
        unsafe { to.put(*place, first, &row[..columns]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::row_stride;
    use crate::backend::cpu::gemm::{Activation, Out, gemm};
    use crate::backend::cpu::isa::Isa;
    use crate::backend::cpu::linear::Format;
    use crate::model::recipe;

    /// A product with the unit matrix.
    fn same(cpu: &Cpu, width: usize) -> Linear {
        let mut same = Linear::new(cpu, width, width, Format::F32);
        let unit: Vec<f32> = (0..width * width).map(|i| (i % (width + 1) == 0) as u8 as f32).collect();
        same.put(cpu, 0, &unit, 1.0);
        same
    }

    fn rows(values: &[f32], first: usize, stride: usize) -> Rows<'_> {
        Rows { values: &values[first * stride..], stride }
    }

    #[allow(clippy::too_many_arguments)]
    fn check(
        isa: Isa,
        lengths: &[(usize, usize)],
        heads: usize,
        head: usize,
        causal: bool,
        extra: bool,
        gain: f32,
    ) {
        let d = heads * head;
        let (queries, keys): (usize, usize) = lengths.iter().fold((0, 0), |s, l| (s.0 + l.0, s.1 + l.1));
        let fill = |name: &str, rows: usize| -> Vec<f32> {
            recipe::tensor(name, &[rows, 4])
                .iter()
                .cycle()
                .take(rows * d)
                .enumerate()
                .map(|(i, v)| v * gain * ((i * 7 % 13) as f32 / 6.0 - 1.0))
                .collect()
        };
        let (q, k, v) = (fill("q.weight", queries), fill("k.weight", keys), fill("v.weight", keys));
        let (ek, ev) = (fill("ek.weight", 1), fill("ev.weight", 1));
        let mut items = Vec::new();
        let (mut q0, mut k0) = (0, 0);
        for &(queries, keys) in lengths {
            let extra = extra.then_some((&ek[..], &ev[..]));
            let (q, k, v) = (rows(&q, q0, d), rows(&k, k0, d), rows(&v, k0, d));
            items.push((k0, Item { q, k, v, queries, keys, extra, first: q0 }));
            (q0, k0) = (q0 + queries, k0 + keys);
        }
        let cpu = Cpu::new(isa, 2);
        let (mut lhs, same) = (Lhs::default(), same(&cpu, d));
        let item = |i: usize| items[i].1;
        let attention = Attention { item: &item, items: items.len(), rows: queries, heads, head, causal };
        attention.run(&cpu, &mut lhs, &same);
        let mut ours = vec![0.0; queries * d];
        gemm(&cpu, &lhs, &same, Activation::None, Out::Rows(&mut ours));
        // What is about to become bytes, of 16-bit numbers unless it is causal.
        attention.run(&cpu, &mut lhs, &Linear::new(&cpu, d, d, Format::Int8));
        let staged = |row: usize, c: usize| lhs.values[row * row_stride(d) + c];
        let largest = v.iter().chain(&ev).fold(0f32, |m, v| m.max(v.abs())) as f64;
        for (first_key, item) in &items {
            for h in 0..heads {
                for i in 0..item.queries {
                    let row = (item.first + i) * d + h * head;
                    let mut seen: Vec<(&[f32], &[f32])> = (0..item.keys)
                        .filter(|j| !causal || *j <= i)
                        .map(|j| ((first_key + j) * d + h * head, head))
                        .map(|(at, n)| (&k[at..at + n], &v[at..at + n]))
                        .collect();
                    if let Some((ek, ev)) = item.extra {
                        seen.push((&ek[h * head..][..head], &ev[h * head..][..head]));
                    }
                    let scores: Vec<f64> = seen
                        .iter()
                        .map(|(k, _)| {
                            q[row..row + head].iter().zip(*k).map(|(a, b)| *a as f64 * *b as f64).sum()
                        })
                        .collect();
                    let max = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for c in 0..head {
                        let exact: f64 = scores
                            .iter()
                            .zip(&seen)
                            .map(|(s, (_, v))| (s - max).exp() / total * v[c] as f64)
                            .sum();
                        let bound = 3e-6 * gain as f64 * (1.0 + max.abs() / 8.0);
                        assert!(
                            (ours[row + c] as f64 - exact).abs() < bound,
                            "{} {lengths:?} {heads}x{head} row {i}: {} against {exact}",
                            isa.name(),
                            ours[row + c]
                        );
                        let (coarse, bound) = (staged(item.first + i, h * head + c) as f64, 2e-3 * largest);
                        assert!(
                            (coarse - exact).abs() < if causal { 3e-6 * gain as f64 } else { bound },
                            "{} {lengths:?} {heads}x{head} row {i}: {coarse} of 16 bits against {exact}",
                            isa.name(),
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn attention_equals_the_naive_sum_for_any_lengths_and_head_sizes() {
        for isa in Isa::available() {
            check(isa, &[(5, 5)], 3, 16, false, false, 1.0);
            check(isa, &[(50, 50), (50, 50)], 2, 64, false, true, 1.0);
            check(isa, &[(1, 1), (3, 40), (17, 31)], 2, 24, false, false, 1.0);
            check(isa, &[(13, 65)], 1, 96, false, true, 1.0);
            check(isa, &[(7, 7), (77, 77), (1, 1), (33, 33)], 2, 40, true, false, 1.0);
            check(isa, &[(4, 6)], 5, 7, false, false, 1.0);
            check(isa, &[(2, 15), (3, 16), (2, 31), (1, 32), (3, 33)], 2, 33, false, true, 1.0);
            check(isa, &[(25, 198), (2, 258)], 1, 64, false, false, 1.0);
        }
    }

    #[test]
    fn softmax_survives_scores_of_thousands() {
        for isa in Isa::available() {
            check(isa, &[(9, 40)], 1, 64, false, false, 30.0);
            check(isa, &[(20, 20)], 1, 64, true, false, 30.0);
        }
    }

    #[test]
    fn many_small_weights_beside_a_large_one_keep_their_share() {
        const D: usize = 32;
        for isa in Isa::available() {
            let (cpu, mut lhs) = (Cpu::new(isa, 1), Lhs::default());
            for keys in [51, 198, 258, 578] {
                for share in [0.02, 0.05, 0.1, 0.2, 0.5f64] {
                    // One key that the queries see, all others alike.
                    let score = ((1.0 - share) / share * (keys - 1) as f64).ln();
                    let (mut q, mut k, mut v) =
                        (vec![0f32; 3 * D], vec![0f32; keys * D], vec![0f32; keys * D]);
                    // Three queries, so that the tail's weights are at several parts of a number.
                    for (row, part) in q.chunks_mut(D).zip([1.0, 0.97, 0.93]) {
                        row[0] = score as f32 * part;
                    }
                    k[7 * D] = 1.0;
                    for (j, row) in v.chunks_mut(D).enumerate().filter(|(j, _)| *j != 7) {
                        (row[0], row[1]) = (1.0, if j % 3 == 0 { 1.0 } else { -0.5 });
                    }
                    let of = |values| Rows { values, stride: D };
                    let (q, k, v) = (of(&q), of(&k), of(&v));
                    let item = |_| Item { q, k, v, queries: 3, keys, extra: None, first: 0 };
                    let attention =
                        Attention { item: &item, items: 1, rows: 3, heads: 1, head: D, causal: false };
                    attention.run(&cpu, &mut lhs, &Linear::new(&cpu, D, D, Format::Int8));
                    for (i, part) in [1.0, 0.97, 0.93].into_iter().enumerate() {
                        let weight = 1.0 / ((score * part).exp() + (keys - 1) as f64);
                        let ones: f64 = v.values.chunks(D).map(|row| row[1] as f64).sum();
                        let exact = [(keys - 1) as f64 * weight, ones * weight];
                        for (c, exact) in exact.into_iter().enumerate() {
                            let ours = lhs.values[i * row_stride(D) + c] as f64;
                            let what = format!("{} {keys} keys, {share}: {ours} against {exact}", isa.name());
                            assert!((ours - exact).abs() < 2e-3, "{what}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn equal_weights_of_the_largest_values_do_not_overflow() {
        const D: usize = 32;
        for isa in Isa::available() {
            let (cpu, mut lhs) = (Cpu::new(isa, 1), Lhs::default());
            for (keys, value) in [(51, 3.0), (578, 3.0), (578, -3.0), (4097, 3.0), (4097, -3.0)] {
                let (q, v) = (vec![0f32; keys * D], vec![value; keys * D]);
                let of = |values| Rows { values, stride: D };
                let (q, k, v) = (of(&q), of(&q), of(&v));
                let item = |_| Item { q, k, v, queries: 5, keys, extra: None, first: 0 };
                let attention =
                    Attention { item: &item, items: 1, rows: 5, heads: 1, head: D, causal: false };
                attention.run(&cpu, &mut lhs, &Linear::new(&cpu, D, D, Format::Int8));
                for ours in &lhs.values[..D] {
                    assert!((ours - value).abs() < 3e-3, "{} {keys} keys: {ours}, not {value}", isa.name());
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let (rows, d) = (20, 40);
        for isa in Isa::available() {
            let (cpu, mut lhs) = (Cpu::new(isa, 1), Lhs::default());
            for (part, bad) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
                let mut qkv = vec![0.5; rows * 3 * d];
                qkv[17 * 3 * d + part * d + 21] = bad;
                let part = |p: usize| Rows { values: &qkv[p * d..], stride: 3 * d };
                let (q, k, v) = (part(0), part(1), part(2));
                let item = |_| Item { q, k, v, queries: rows, keys: rows, extra: None, first: 0 };
                let attention = Attention { item: &item, items: 1, rows, heads: 1, head: d, causal: false };
                attention.run(&cpu, &mut lhs, &Linear::new(&cpu, d, d, Format::Int8));
                assert!(lhs.scales[17].scale.is_nan(), "{}: {bad} became a number", isa.name());
            }
        }
    }
}
