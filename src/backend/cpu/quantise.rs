//! f32 rows → bytes, each row with a scale and a zero of its own, at run time.
//!
//! value ≈ scale · (byte − zero): the row's range, 0 included, spread over 0…255. A range of its own at
//! either end costs nothing (the product takes zero · column sum off the sums) and gives one bit more
//! where values lie on one side, as after QuickGELU. A row's bytes depend on that row alone.

use super::buffer::{LINE_BYTES, Shared};
use super::isa::{ROUND, mul_add, per_isa, reduce};

/// What a row's bytes mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScale {
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: i32,
}

impl RowScale {
    /// What the bytes mean that hold what the first bytes round off, −½…½ of their step.
    #[inline(always)]
    pub fn of_fine(self) -> Self {
        Self { scale: self.scale / FINE, zero: FINE as i32 / 2 }
    }
}

/// Steps of the second byte in one of the first.
const FINE: f32 = 256.0;

/// Ranges below are taken for 0: the reciprocal of their step would overflow.
const LEAST: f32 = 1e-30;

per_isa! {
    /// One row; line i of 64 bytes goes to `start + i·step`, of `fine` bytes too if there are any. A value that is not finite makes the scale
    /// NaN, so that it reaches the results. The caller holds that no other task writes this row.
    pub(super) fn quantise(
        row: &[f32],
        to: &Shared<'_, u8>,
        fine: Option<&Shared<'_, u8>>,
        start: usize,
        step: usize,
        scale: &mut RowScale,
    ) = quantise_body
}

#[inline(always)]
fn quantise_body<const FMA: bool>(
    row: &[f32],
    to: &Shared<'_, u8>,
    fine: Option<&Shared<'_, u8>>,
    start: usize,
    step: usize,
    scale: &mut RowScale,
) {
    let (low, high, finite) = range::<FMA>(row);
    let width = high - low;
    let inverse = if width > LEAST { 255.0 / width } else { 0.0 };
    let zero = (-low * inverse).round_ties_even();
    *scale = RowScale { scale: if finite { width / 255.0 } else { f32::NAN }, zero: zero as i32 };
    let (lines, rest) = row.as_chunks::<LINE_BYTES>();
    for (i, values) in lines.iter().enumerate() {
        // An array by value: the compiler keeps it in vector registers.
        let mut bytes = [0u8; LINE_BYTES];
        for c in 0..LINE_BYTES {
            bytes[c] = byte::<FMA>(values[c], inverse, zero);
        }
        // SAFETY: the row is this task's alone (see above).
        unsafe { *to.array(start + i * step) = bytes };
    }
    if !rest.is_empty() {
        // SAFETY: as above.
        let to = unsafe { to.part(start + lines.len() * step, rest.len()) };
        for (to, x) in to.iter_mut().zip(rest) {
            *to = byte::<FMA>(*x, inverse, zero);
        }
    }
    let Some(fine) = fine else { return };
    for (i, values) in row.chunks(LINE_BYTES).enumerate() {
        // SAFETY: as above.
        let to = unsafe { fine.part(start + i * step, values.len()) };
        for (to, x) in to.iter_mut().zip(values) {
            let whole = f32::from(byte::<FMA>(*x, inverse, zero));
            let rest = mul_add::<FMA>(*x, inverse, zero) - whole;
            *to = byte::<FMA>(rest, FINE, FINE / 2.0);
        }
    }
}

/// round(x·inverse + zero) within 0…255.
#[inline(always)]
fn byte<const FMA: bool>(x: f32, inverse: f32, zero: f32) -> u8 {
    let y = mul_add::<FMA>(x, inverse, zero);
    let y = if y > 0.0 { y } else { 0.0 };
    let y = if y < 255.0 { y } else { 255.0 };
    (y + ROUND).to_bits() as u8
}

/// Values looked at side by side: four vectors hide the latency of a comparison.
const LANES: usize = 64;

/// The least and the largest of the values and 0, and whether all are finite.
#[inline(always)]
fn range<const FMA: bool>(row: &[f32]) -> (f32, f32, bool) {
    let (mut low, mut high, mut none) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        // One loop each: the compiler makes vectors of them, of all in one it makes shuffles.
        for i in 0..LANES {
            low[i] = if chunk[i] < low[i] { chunk[i] } else { low[i] };
        }
        for i in 0..LANES {
            high[i] = if chunk[i] > high[i] { chunk[i] } else { high[i] };
        }
        // 0 for every number, NaN for NaN and infinities.
        for i in 0..LANES {
            none[i] = mul_add::<FMA>(chunk[i], 0.0, none[i]);
        }
    }
    for (i, x) in rest.iter().enumerate() {
        low[i] = low[i].min(*x);
        high[i] = high[i].max(*x);
        none[i] += x * 0.0;
    }
    let low = reduce(low, |a, b| if b < a { b } else { a });
    let high = reduce(high, |a, b| if b > a { b } else { a });
    (low, high, reduce(none, |a, b| a + b) == 0.0)
}

per_isa! {
    /// Weights of one output channel → symmetric bytes −127…127, their scale and their sum.
    pub(super) fn quantise_weights(
        row: &[f32], to: &mut [i8], scale: &mut f32, sum: &mut i32,
    ) = quantise_weights_body
}

#[inline(always)]
fn quantise_weights_body<const FMA: bool>(row: &[f32], to: &mut [i8], scale: &mut f32, sum: &mut i32) {
    let mut largest = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let w = chunk[i].abs();
            largest[i] = if w > largest[i] { w } else { largest[i] };
        }
    }
    let largest = largest.iter().chain(rest).fold(0f32, |m, w| m.max(w.abs()));
    let inverse = if largest > LEAST { 127.0 / largest } else { 0.0 };
    let mut sums = [0i32; LANES];
    for (to, row) in to.chunks_mut(LANES).zip(row.chunks(LANES)) {
        for ((to, w), sum) in to.iter_mut().zip(row).zip(&mut sums) {
            *to = (w * inverse + ROUND).to_bits() as i8;
            *sum += i32::from(*to);
        }
    }
    *scale = largest / 127.0;
    *sum = sums.iter().sum();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::Buffer;
    use crate::backend::cpu::isa::Isa;
    use crate::model::recipe;

    fn bytes(isa: Isa, row: &[f32]) -> (Vec<u8>, RowScale) {
        let (mut to, mut scale) = (Buffer::<u8>::zeroed(row.len().next_multiple_of(64)), RowScale::default());
        quantise(isa, row, &Shared::new(&mut to), None, 0, LINE_BYTES, &mut scale);
        (to[..row.len()].to_vec(), scale)
    }

    #[test]
    fn a_value_comes_back_within_half_a_step() {
        for isa in Isa::available() {
            for width in [1, 15, 64, 65, 768, 1000] {
                for (gain, shift) in [(1.0, 0.0), (1e-3, 0.0), (50.0, 200.0), (50.0, -200.0), (1e20, 0.0)] {
                    let row: Vec<f32> = recipe::tensor("row.weight", &[1, width])
                        .iter()
                        .map(|v| (v * 10.0 + shift) * gain)
                        .collect();
                    let (bytes, scale) = bytes(isa, &row);
                    for (x, byte) in row.iter().zip(&bytes) {
                        let y = scale.scale * (i32::from(*byte) - scale.zero) as f32;
                        assert!(
                            (x - y).abs() <= scale.scale * 0.5001,
                            "{} {width}: {x} came back as {y}, step {}",
                            isa.name(),
                            scale.scale
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_second_byte_brings_a_value_back_within_half_of_a_256th_step() {
        for isa in Isa::available() {
            let row: Vec<f32> =
                recipe::tensor("row.weight", &[1, 700]).iter().map(|v| v * 7.0 + 0.1).collect();
            let (mut to, mut fine) = (Buffer::<u8>::zeroed(704), Buffer::<u8>::zeroed(704));
            let mut scale = RowScale::default();
            let (to_lines, fine_lines) = (Shared::new(&mut to), Shared::new(&mut fine));
            quantise(isa, &row, &to_lines, Some(&fine_lines), 0, LINE_BYTES, &mut scale);
            let value = |byte: u8, of: RowScale| of.scale * (i32::from(byte) - of.zero) as f32;
            for (i, x) in row.iter().enumerate() {
                let y = value(to[i], scale) + value(fine[i], scale.of_fine());
                // The largest rest, half a step up, is one fine step beyond the last byte.
                assert!((x - y).abs() <= scale.scale / 256.0 * 1.01, "{}: {x} came back as {y}", isa.name());
            }
        }
    }

    #[test]
    fn a_row_of_zeros_and_a_constant_row_are_exact() {
        for isa in Isa::available() {
            let (bytes_of_zeros, scale) = bytes(isa, &[0.0; 70]);
            assert!(bytes_of_zeros.iter().all(|b| i32::from(*b) == scale.zero) && scale.scale == 0.0);
            for value in [3.0f32, -7.5] {
                let (all, scale) = bytes(isa, &[value; 70]);
                let back = scale.scale * (i32::from(all[0]) - scale.zero) as f32;
                assert!((back - value).abs() <= 1e-6 * value.abs(), "{back}");
                assert!(all.iter().all(|b| *b == all[0]));
            }
        }
    }

    #[test]
    fn what_is_not_finite_makes_the_scale_nan() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 63, 69] {
                    let mut row = [1.0; 70];
                    row[at] = bad;
                    assert!(bytes(isa, &row).1.scale.is_nan(), "{bad} at {at}");
                }
            }
        }
    }
}
