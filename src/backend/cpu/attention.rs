//! Attention per (item, head): softmax(q·kᵀ)·v with both products on the tile kernel.
//!
//! An item is one set of queries with its keys: a frame, a prompt, a clip. Queries come scaled by
//! hd^-0.5 (folded into the projection at load). Keys are turned into a panel once per item and head;
//! the matrix of scores never leaves the thread's cache.

use std::cell::RefCell;

use super::activation::exp;
use super::buffer::{Buffer, LINE, first, first_mut, prefetch};
use super::gemm::Cpu;
use super::isa::{per_isa, reduce};
use super::kernel::{Ahead, F32Kernels, MAX_ROWS, Tile};
use super::lhs::{Lhs, Tiles, Writer};
use super::linear::Linear;
use super::transpose::{self, Transpose};

/// Rows `stride` values apart; head h of a row is at h·hd.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn head(&self, row: usize, head: usize, width: usize) -> &'a [f32] {
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

#[derive(Default)]
struct Scratch {
    keys: Buffer,
    values: Buffer,
    query: Buffer,
    scores: Buffer,
    weights: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Attention<'_> {
    /// Writes every query's result as a row of the next product's left side.
    pub(super) fn run(&self, cpu: &Cpu, to: &mut Lhs, for_product: &Linear) {
        let writer = to.stage(cpu, self.rows, for_product);
        let (kernels, transpose) = (cpu.kernels, transpose::of(cpu.isa));
        let Attention { heads, head: width, causal, .. } = *self;
        let alone = cpu.pool.threads() == 1;
        cpu.pool.run(self.items * heads, |task| {
            let item = (self.item)(task / heads);
            let keys = item.keys + item.extra.is_some() as usize;
            let task = Task { kernels, transpose, item, width, causal, head: task % heads, keys, alone };
            SCRATCH.with_borrow_mut(|scratch| attend(cpu.isa, &task, scratch, writer));
        });
        to.complete(cpu);
    }
}

per_isa! {
    fn attend(task: &Task<'_>, scratch: &mut Scratch, to: Writer<'_>) = attend_body
}

#[inline(always)]
fn attend_body<const FMA: bool>(task: &Task<'_>, scratch: &mut Scratch, to: Writer<'_>) {
    match task.kernels.cols {
        32 => task.run::<FMA, 32, 16>(scratch, to),
        16 => task.run::<FMA, 16, 16>(scratch, to),
        _ => task.run::<FMA, 8, 8>(scratch, to),
    }
}

/// One head of one item. Panels have NR columns, loops take C at a time.
struct Task<'a> {
    kernels: F32Kernels,
    transpose: Transpose,
    item: Item<'a>,
    width: usize,
    causal: bool,
    head: usize,
    /// The extra one included.
    keys: usize,
    /// Whether this thread does all heads, in order.
    alone: bool,
}

impl<'a> Task<'a> {
    #[inline(always)]
    fn key(&self, j: usize) -> &'a [f32] {
        match self.item.extra {
            Some((row, _)) if j == self.item.keys => &row[self.head * self.width..][..self.width],
            _ => self.item.k.head(j, self.head, self.width),
        }
    }

    #[inline(always)]
    fn value(&self, j: usize) -> &'a [f32] {
        match self.item.extra {
            Some((_, row)) if j == self.item.keys => &row[self.head * self.width..][..self.width],
            _ => self.item.v.head(j, self.head, self.width),
        }
    }

    #[inline(always)]
    fn run<const FMA: bool, const NR: usize, const C: usize>(&self, scratch: &mut Scratch, to: Writer<'_>) {
        let Task { kernels, item, width, causal, head, keys, .. } = *self;
        if head == 0 || !self.alone {
            (0..keys).for_each(|j| expect(self.key(j).as_ptr(), width));
            (0..keys).for_each(|j| expect(self.value(j).as_ptr(), width));
            (0..item.queries).for_each(|r| expect(item.q.head(r, head, width).as_ptr(), width));
        }
        let Scratch { keys: packed_keys, values: packed_values, query, scores, weights } = scratch;
        let packed_keys = packed_keys.fit(keys.div_ceil(NR) * width * NR);
        self.pack_keys::<NR>(packed_keys);
        let packed_values = packed_values.fit(width.div_ceil(NR) * keys * NR);
        self.pack_values::<NR>(packed_values);
        let mut tile = Tile::new();
        let tiles = Tiles::new(item.queries, kernels.rows());
        for (top, height) in (0..tiles.count).map(|index| tiles.at(index)) {
            let kernel = kernels.for_rows(height);
            let mut places = [(0, 0); MAX_ROWS];
            to.rows(item.first + top, &mut places[..height]);
            let query = query.fit(width.div_ceil(LINE) * height * LINE);
            self.pack_queries(top, height, query.as_chunks_mut().0);
            // A causal tile sees no key past its last row.
            let seen = if causal { keys.min(top + height) } else { keys };
            let scores = scores.fit(seen.div_ceil(NR) * height * NR);
            for (keys, scores) in
                packed_keys.chunks_exact(width * NR).zip(scores.chunks_exact_mut(height * NR))
            {
                // SAFETY: `query` has the lines of `height` rows, the panel width·NR values, the scores of
                // this panel height·NR; NR·R·4 bytes keep every part on a cache line or the kernel's vector.
                unsafe {
                    kernel(width, query.as_ptr(), keys.as_ptr(), scores.as_mut_ptr(), false, Ahead::NOTHING)
                }
            }
            let weights = weights.fit(seen.next_multiple_of(NR).div_ceil(LINE) * height * LINE);
            let mut scale = [0f32; MAX_ROWS];
            for (r, scale) in scale.iter_mut().enumerate().take(height) {
                let visible = if causal { keys.min(top + r + 1) } else { keys };
                let (scores, weights) = (scores.as_chunks().0, weights.as_chunks_mut().0);
                *scale = softmax_row::<FMA, NR, C>(scores, r, height, visible, weights);
                to.expect(places[r], head * width, width);
            }
            for (p, values) in packed_values.chunks_exact(keys * NR).enumerate() {
                // SAFETY: `weights` has the lines of `seen` columns of `height` rows, the panel keys·NR
                // values, and the tile the largest R·NR.
                unsafe {
                    kernel(
                        seen,
                        weights.as_ptr(),
                        values.as_ptr(),
                        tile.0.as_mut_ptr(),
                        false,
                        Ahead::NOTHING,
                    )
                }
                let (first, columns) = (head * width + p * NR, NR.min(width - p * NR));
                // SAFETY: these rows × this head's columns belong to this task alone.
                unsafe { put::<NR, C>(&tile, &scale[..height], &places, first, columns, to) }
            }
        }
    }

    /// The same row of the next head, if that is this thread's next task; a hint only.
    #[inline(always)]
    fn expect_next(&self, row: &[f32]) {
        if self.alone {
            expect(row.as_ptr().wrapping_add(row.len()), row.len());
        }
    }

    /// Lines of queries, row after row.
    #[inline(always)]
    fn pack_queries(&self, top: usize, height: usize, packed: &mut [[f32; LINE]]) {
        for r in 0..height {
            let from = self.item.q.head(top + r, self.head, self.width);
            self.expect_next(from);
            let (lines, rest) = from.as_chunks::<LINE>();
            for (i, line) in lines.iter().enumerate() {
                packed[i * height + r] = *line;
            }
            if !rest.is_empty() {
                packed[lines.len() * height + r][..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Panels width×NR with a key per column.
    #[inline(always)]
    fn pack_keys<const NR: usize>(&self, packed: &mut [f32]) {
        for (p, panel) in packed.chunks_exact_mut(self.width * NR).enumerate() {
            let mut rows: [&[f32]; NR] = [&[]; NR];
            for (i, row) in rows.iter_mut().enumerate().take(self.keys - p * NR) {
                *row = self.key(p * NR + i);
                self.expect_next(row);
            }
            // SAFETY: NR rows of `width` values or none, and a panel of their size; the function is of a
            // detected instruction set.
            unsafe { (self.transpose)(&rows, self.width, panel.as_mut_ptr()) }
        }
    }

    /// Panels keys×NR with a channel per column.
    #[inline(always)]
    fn pack_values<const NR: usize>(&self, packed: &mut [f32]) {
        for j in 0..self.keys {
            let row = self.value(j);
            self.expect_next(row);
            let (whole, rest) = row.as_chunks::<NR>();
            for (p, values) in whole.iter().enumerate() {
                *first_mut::<NR, _>(&mut packed[(p * self.keys + j) * NR..]) = *values;
            }
            if !rest.is_empty() {
                let to = first_mut::<NR, _>(&mut packed[(whole.len() * self.keys + j) * NR..]);
                to[..rest.len()].copy_from_slice(rest);
                to[rest.len()..].fill(0.0);
            }
        }
    }
}

/// Asks for lines long before they are needed: they lie a row apart, where no processor looks ahead by
/// itself.
#[inline(always)]
fn expect(at: *const f32, width: usize) {
    (0..width).step_by(LINE).for_each(|i| prefetch::<false>(at.wrapping_add(i)));
}

/// exp(score − max) of row `r`'s first `visible` scores, 0 beyond, into the lines of `weights`; returns
/// 1/Σ. `scores`: panels of `height` rows, no column of them left out.
#[inline(always)]
fn softmax_row<const FMA: bool, const NR: usize, const C: usize>(
    scores: &[[f32; NR]],
    r: usize,
    height: usize,
    visible: usize,
    weights: &mut [[f32; LINE]],
) -> f32 {
    let rows = || scores[r..].iter().step_by(height).enumerate();
    let mut max = [f32::NEG_INFINITY; C];
    for (p, row) in rows() {
        for c in (0..NR).step_by(C) {
            let scores = visible_only::<C>(&row[c..], p * NR + c, visible);
            for i in 0..C {
                max[i] = if scores[i] > max[i] { scores[i] } else { max[i] };
            }
        }
    }
    let max = reduce(max, |a, b| if b > a { b } else { a });
    let mut sums = [0f32; C];
    for (p, row) in rows() {
        for c in (0..NR).step_by(C) {
            let j = p * NR + c;
            // Plain loops: closures of `map` may be compiled without the instruction set.
            let mut exps = visible_only::<C>(&row[c..], j, visible);
            for i in 0..C {
                exps[i] = exp::<FMA>(exps[i] - max);
                sums[i] += exps[i];
            }
            *first_mut(&mut weights[j / LINE * height + r][j % LINE..]) = exps;
        }
    }
    1.0 / reduce(sums, |a, b| a + b)
}

/// What follows the last visible score.
static PAST: [f32; 2 * LINE] = {
    let mut past = [0.0; 2 * LINE];
    let mut i = LINE;
    while i < past.len() {
        past[i] = f32::NEG_INFINITY;
        i += 1;
    }
    past
};

/// The scores from key `j` on, −∞ where they are past the visible ones, if they are finite. A sum with a part of a table:
/// of comparisons the compiler makes one value at a time.
#[inline(always)]
fn visible_only<const C: usize>(scores: &[f32], j: usize, visible: usize) -> [f32; C] {
    let mut scores = *first::<C, _>(scores);
    if j + C <= visible {
        return scores;
    }
    let left = visible.saturating_sub(j);
    let past = first::<C, _>(&PAST[LINE - left..]);
    for i in 0..C {
        scores[i] += past[i];
    }
    scores
}

/// Rows of a tile times their scales, to columns `first..first + columns`.
///
/// # Safety
/// No other task writes these columns of these rows.
#[inline(always)]
unsafe fn put<const NR: usize, const C: usize>(
    tile: &Tile<f32>,
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
                let mut part = *part;
                for value in &mut part {
                    *value *= scale;
                }
                // SAFETY: the caller's promise; C columns of the spot's NR are in one line.
                unsafe { *spot.column(i * C).cast() = part }
            }
        }
        return;
    }
    for ((row, scale), place) in rows {
        let mut row = *row;
        row.iter_mut().for_each(|value| *value *= scale);
        // SAFETY: the caller's promise.
        unsafe { to.put(*place, first, &row[..columns]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        }
    }

    #[test]
    fn softmax_survives_scores_of_thousands() {
        for isa in Isa::available() {
            check(isa, &[(9, 40)], 1, 64, false, false, 30.0);
            check(isa, &[(20, 20)], 1, 64, true, false, 30.0);
        }
    }
}
