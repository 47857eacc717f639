//! Attention beside int8 products: queries, keys, values and the softmax's weights as 16-bit numbers, both
//! products on the kernel of pairs. Queries, keys and values have one scale each per item and head, of 12 bits
//! below the largest. Weights have one per row, which leaves a row with one large weight 15 bits, and are rounded
//! by ordered dithering: hundreds of small ones beside a large one would all round to nothing, or all up. All that
//! is finer than the bytes that the results become.
//!
//! A pair holds two values that are 16 apart, so that vectors are paired without being shuffled: channels
//! for q·kᵀ, keys for the product with the values. A line holds the pairs of 32 values.

use super::activation::Power;
use super::attention::{Task, put};
use super::buffer::{Buffer, LINE, first, first_mut, part};
use super::isa::{ROUND, mul_add, reduce};
use super::kernel::{Ahead, MAX_ROWS, Tile};
use super::kernel_i16::limit;
use super::lhs::{Tiles, Writer};

/// The largest number of a value.
const VALUE_MOST: f32 = 4095.0;
/// The largest number of a weight (they may come out larger by 9 %, see `Power`), and the most that a row of them
/// may sum to: times VALUE_MOST, and with half a number more for each of MOST_KEYS on average, it stays below 2^31.
const WEIGHT_MOST: f32 = 30_000.0;
const WEIGHTS_MOST: f32 = 500_000.0;
/// Beyond, sums could overflow.
pub(super) const MOST_KEYS: usize = 40_000;

/// Values of which a line holds the pairs.
const PAIRED: usize = 2 * LINE;

/// Buffers of pairs, as the bits of f32.
#[derive(Default)]
pub(super) struct Scratch {
    key_rows: Buffer,
    keys: Buffer,
    values: Buffer,
    query: Buffer,
    /// Sums, then exps.
    scores: Buffer,
    weights: Buffer,
    /// 0 for every key, −∞ past the last.
    past: Buffer,
}

/// value ≈ scale · number
#[derive(Clone, Copy)]
struct Scale {
    scale: f32,
    inverse: f32,
}

impl Task<'_> {
    #[inline(always)]
    pub(super) fn run_i16<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        scratch: &mut Scratch,
        to: Writer<'_>,
    ) {
        let Task { pairs: kernels, item, width, head, keys, .. } = *self;
        self.expect_first();
        let Scratch { key_rows, keys: packed_keys, values: packed_values, query, scores, weights, past } =
            scratch;
        let channels = limit(width);
        let q = scale_of::<FMA>(item.queries, |r| item.q.head(r, head, width), channels);
        let k = scale_of::<FMA>(keys, |j| self.key(j), channels);
        let v = scale_of::<FMA>(keys, |j| self.value(j), VALUE_MOST);
        let lines = width.div_ceil(PAIRED);
        let key_rows = key_rows.fit(keys * lines * LINE);
        for (j, row) in key_rows.as_chunks_mut::<LINE>().0.chunks_exact_mut(lines).enumerate() {
            let key = self.key(j);
            self.expect_next(key);
            pack_row::<FMA>(key, k.inverse, row, 1);
        }
        let packed_keys = packed_keys.fit(keys.div_ceil(NR) * lines * LINE * NR);
        for (panel, rows) in
            packed_keys.chunks_exact_mut(lines * LINE * NR).zip(key_rows.chunks(NR * lines * LINE))
        {
            let mut columns: [&[f32]; NR] = [&[]; NR];
            columns.iter_mut().zip(rows.chunks_exact(lines * LINE)).for_each(|(column, row)| *column = row);
            // SAFETY: NR rows of lines·16 pairs or none, and a panel of their size; the function is of a
            // detected instruction set.
            unsafe { (self.transpose)(&columns, lines * LINE, panel.as_mut_ptr()) }
        }
        // Pairs of keys: all of a line, but of the last only those whose first key there is.
        let key_pairs = keys / PAIRED * LINE + (keys % PAIRED).min(LINE);
        let packed_values = packed_values.fit(width.div_ceil(NR) * key_pairs * NR);
        self.pack_values_i16::<FMA, NR, C>(key_pairs, v.inverse, packed_values);

        let key_lines = keys.div_ceil(PAIRED);
        let past = past.fit(key_lines * PAIRED);
        past[..keys].fill(0.0);
        past[keys..].fill(f32::NEG_INFINITY);
        let softmax = Softmax::new(past, q.scale * k.scale);
        let mut tile = Tile::<i32>::new();
        let tiles = Tiles::new(item.queries, kernels.rows());
        for (top, height) in (0..tiles.count).map(|index| tiles.at(index)) {
            let kernel = kernels.for_rows(height);
            let mut places = [(0, 0); MAX_ROWS];
            to.rows(item.first + top, &mut places[..height]);
            let query = query.fit(lines * height * LINE);
            for r in 0..height {
                let row = item.q.head(top + r, head, width);
                self.expect_next(row);
                pack_row::<FMA>(row, q.inverse, &mut query.as_chunks_mut().0[r..], height);
            }
            // Whole lines of scores; those beyond the last panel of keys are masked, whatever they are.
            let scores = scores.fit(key_lines * PAIRED * height);
            for (keys, scores) in
                packed_keys.chunks_exact(lines * LINE * NR).zip(scores.chunks_exact_mut(height * NR))
            {
                // SAFETY: `query` has the lines of `height` rows, the panel lines·16·NR pairs, the scores
                // of this panel height·NR; all of them keep to cache lines or the kernel's vector.
                unsafe {
                    let (query, keys) = (query.as_ptr().cast(), keys.as_ptr().cast());
                    kernel(lines * LINE, query, keys, scores.as_mut_ptr().cast(), Ahead::NOTHING)
                }
            }
            let weights = weights.fit(key_lines * height * LINE);
            let mut scale = [0f32; MAX_ROWS];
            for (r, scale) in scale.iter_mut().enumerate().take(height) {
                let (scores, weights) = (scores.as_chunks_mut().0, weights.as_chunks_mut().0);
                *scale = v.scale / softmax.row::<FMA, NR, C>(scores, r, height, weights);
                to.expect(places[r], head * width, width);
            }
            for (p, values) in packed_values.chunks_exact(key_pairs * NR).enumerate() {
                // SAFETY: `weights` has the lines of key_pairs columns of `height` rows, the panel
                // key_pairs·NR pairs, and the tile the largest R·NR.
                unsafe {
                    let (weights, values) = (weights.as_ptr().cast(), values.as_ptr().cast());
                    kernel(key_pairs, weights, values, tile.0.as_mut_ptr(), Ahead::NOTHING)
                }
                let (first, columns) = (head * width + p * NR, NR.min(width - p * NR));
                // SAFETY: these rows × this head's columns belong to this task alone.
                unsafe { put::<NR, C>(&tile, &scale[..height], &places, first, columns, to) }
            }
        }
    }

    /// Panels key_pairs×NR with a channel per column.
    #[inline(always)]
    fn pack_values_i16<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        key_pairs: usize,
        inverse: f32,
        packed: &mut [f32],
    ) {
        for pair in 0..key_pairs {
            let j = pair / LINE * PAIRED + pair % LINE;
            let low = self.value(j);
            // Where there is no second key, anything times 0.
            let (high, times) =
                if j + LINE < self.keys { (self.value(j + LINE), inverse) } else { (low, 0.0) };
            self.expect_next(low);
            self.expect_next(high);
            let ((lows, low), (highs, high)) = (low.as_chunks::<NR>(), high.as_chunks::<NR>());
            for (p, (low, high)) in lows.iter().zip(highs).enumerate() {
                let to = first_mut::<NR, _>(&mut packed[(p * key_pairs + pair) * NR..]);
                pair_all::<FMA, NR, C>(low, inverse, high, times, to);
            }
            if !low.is_empty() {
                let to = first_mut::<NR, _>(&mut packed[(lows.len() * key_pairs + pair) * NR..]);
                pair_all::<FMA, NR, C>(&part(low, 0), inverse, &part(high, 0), times, to);
            }
        }
    }
}

/// The scale that makes numbers up to `largest` of so many rows. A value that is not finite makes it NaN,
/// so that it reaches the results. In f32: of maxima of integers the compiler makes gathers.
#[inline(always)]
fn scale_of<'a, const FMA: bool>(rows: usize, row: impl Fn(usize) -> &'a [f32], largest: f32) -> Scale {
    // Two chains: one alone would wait for itself.
    let (mut most, mut none) = ([[0f32; LINE]; 2], [[0f32; LINE]; 2]);
    for j in 0..rows {
        let row = row(j);
        let (whole, rest) = row.as_chunks::<PAIRED>();
        for values in whole {
            look::<FMA>(values, &mut most, &mut none);
        }
        if !rest.is_empty() {
            look::<FMA>(&part(rest, 0), &mut most, &mut none);
        }
    }
    if none.into_iter().any(|none| reduce(none, |a, b| a + b) != 0.0) {
        return Scale { scale: f32::NAN, inverse: 0.0 };
    }
    let [first, second] = most.map(|most| reduce(most, |a, b| if b > a { b } else { a }));
    let most = first.max(second);
    // Below, the inverse would overflow: all numbers are 0.
    Scale { scale: most / largest, inverse: if most > 1e-30 { largest / most } else { 0.0 } }
}

/// The largest magnitudes, and 0 if all are numbers, else NaN.
#[inline(always)]
fn look<const FMA: bool>(values: &[f32; PAIRED], most: &mut [[f32; LINE]; 2], none: &mut [[f32; LINE]; 2]) {
    for half in 0..2 {
        let line = *first::<LINE, _>(&values[half * LINE..]);
        for i in 0..LINE {
            let x = line[i].abs();
            most[half][i] = if x > most[half][i] { x } else { most[half][i] };
        }
        for i in 0..LINE {
            none[half][i] = mul_add::<FMA>(line[i], 0.0, none[half][i]);
        }
    }
}

/// Lane by lane, two values as 16-bit numbers.
#[inline(always)]
fn pair_up<const FMA: bool, const C: usize>(
    low: &[f32; C],
    inverse: f32,
    high: &[f32; C],
    high_inverse: f32,
) -> [f32; C] {
    let mut pairs = [0f32; C];
    for i in 0..C {
        let low = mul_add::<FMA>(low[i], inverse, ROUND).to_bits() & 0xffff;
        let high = mul_add::<FMA>(high[i], high_inverse, ROUND).to_bits() << 16;
        pairs[i] = f32::from_bits(low | high);
    }
    pairs
}

/// As [`pair_up`], C at a time.
#[inline(always)]
fn pair_all<const FMA: bool, const NR: usize, const C: usize>(
    low: &[f32; NR],
    inverse: f32,
    high: &[f32; NR],
    high_inverse: f32,
    to: &mut [f32; NR],
) {
    for c in (0..NR).step_by(C) {
        let (low, high) = (first::<C, _>(&low[c..]), first(&high[c..]));
        *first_mut(&mut to[c..]) = pair_up::<FMA, C>(low, inverse, high, high_inverse);
    }
}

/// A row's lines of pairs, so many lines apart.
#[inline(always)]
fn pack_row<const FMA: bool>(row: &[f32], inverse: f32, to: &mut [[f32; LINE]], step: usize) {
    let (whole, rest) = row.as_chunks::<PAIRED>();
    let line = |values: &[f32; PAIRED]| {
        pair_up::<FMA, LINE>(first(values), inverse, first(&values[LINE..]), inverse)
    };
    let mut to = to.iter_mut().step_by(step);
    for (values, to) in whole.iter().zip(&mut to) {
        *to = line(values);
    }
    if let (false, Some(to)) = (rest.is_empty(), to.next()) {
        *to = line(&part(rest, 0));
    }
}

/// What makes weights of scores.
#[derive(Clone, Copy)]
struct Softmax<'a> {
    /// 0 for every key, −∞ past the last.
    past: &'a [f32],
    /// Of a score, to the logarithm to base 2.
    rate: f32,
}

/// What is added to weights before they are rounded: the middles of 32 equal parts of −½…½, neighbours far apart.
static DITHER: [f32; PAIRED] = {
    let mut offsets = [0.0; PAIRED];
    let mut i = 0;
    while i < PAIRED {
        offsets[i] = ((i * 13 + 5) % PAIRED) as f32 / PAIRED as f32 + 0.5 / PAIRED as f32 - 0.5;
        i += 1;
    }
    offsets
};

impl<'a> Softmax<'a> {
    #[inline(always)]
    fn new(past: &'a [f32], scale: f32) -> Self {
        // Times a sum, 2^22 at most (see `Power`). That is less than it should be only where the largest query
        // times the largest key passes 45,000 (heads of 64 channels), which no trained model has.
        let rate = (scale * std::f32::consts::LOG2_E).clamp(1e-30, 1.0 / 256.0);
        Self { past, rate }
    }

    /// Numbers of exp(score − max) of row `r`, in pairs, into the lines of `weights`; returns the sum of all,
    /// before they are rounded. `scores`: panels of `height` rows, whole lines of them, 32-bit sums; they become
    /// exps.
    #[inline(always)]
    fn row<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        scores: &mut [[f32; NR]],
        r: usize,
        height: usize,
        weights: &mut [[f32; LINE]],
    ) -> f32 {
        let mut max = [f32::NEG_INFINITY; C];
        for (j, past) in (0..).step_by(C).zip(self.past.as_chunks::<C>().0) {
            let scores = first::<C, _>(&scores[j / NR * height + r][j % NR..]);
            for i in 0..C {
                let score = scores[i].to_bits() as i32 as f32 + past[i];
                max[i] = if score > max[i] { score } else { max[i] };
            }
        }
        // Whole powers of 2 of the largest come off: the largest is ½…1, and the sum takes care of it.
        let power = Power::new(self.rate, reduce(max, |a, b| if b > a { b } else { a }));
        let mut sums = [0f32; C];
        for (j, past) in (0..).step_by(C).zip(self.past.as_chunks::<C>().0) {
            let scores = first_mut::<C, _>(&mut scores[j / NR * height + r][j % NR..]);
            let mut exps = *scores;
            for i in 0..C {
                exps[i] = power.of::<FMA>(exps[i].to_bits() as i32 as f32 + past[i]);
                sums[i] += exps[i];
            }
            *scores = exps;
        }
        let sum = reduce(sums, |a, b| a + b);
        let scale = (WEIGHTS_MOST / sum).min(WEIGHT_MOST);
        for (line, j) in (0..self.past.len()).step_by(PAIRED).enumerate() {
            for c in (0..LINE).step_by(C) {
                let mut halves = [[0f32; C]; 2];
                for (half, numbers) in halves.iter_mut().enumerate() {
                    let at = half * LINE + c;
                    let exps = first::<C, _>(&scores[(j + at) / NR * height + r][(j + at) % NR..]);
                    let dither = first::<C, _>(&DITHER[at..]);
                    for i in 0..C {
                        numbers[i] = mul_add::<FMA>(exps[i], scale, dither[i]);
                    }
                }
                let [low, high] = &halves;
                *first_mut(&mut weights[line * height + r][c..]) = pair_up::<FMA, C>(low, 1.0, high, 1.0);
            }
        }
        scale * sum
    }
}
