//! Attention in f32.

use super::activation::exp;
use super::attention::{Task, put};
use super::buffer::{Buffer, LINE, first, first_mut};
use super::isa::reduce;
use super::kernel::{Ahead, MAX_ROWS, Tile};
use super::lhs::{Tiles, Writer};

#[derive(Default)]
pub(super) struct Scratch {
    keys: Buffer,
    values: Buffer,
    query: Buffer,
    scores: Buffer,
    weights: Buffer,
}

impl Task<'_> {
    #[inline(always)]
    pub(super) fn run_f32<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        scratch: &mut Scratch,
        to: Writer<'_>,
    ) {
        let Task { kernels, item, width, causal, head, keys, .. } = *self;
        self.expect_first();
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
            let scores = visible_only::<C>(*first(&row[c..]), p * NR + c, visible);
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
            let mut exps = visible_only::<C>(*first(&row[c..]), j, visible);
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
fn visible_only<const C: usize>(mut scores: [f32; C], j: usize, visible: usize) -> [f32; C] {
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
