//! A tile's sums on their way to f32, for each of the formats.

use super::buffer::first;
use super::epilogue::TileRows;
use super::isa::mul_add;
use super::quantise::RowScale;

/// `[row][NR]`
pub(super) struct F32Rows<'a, const NR: usize>(pub &'a [[f32; NR]]);

impl<const NR: usize> TileRows for F32Rows<'_, NR> {
    #[inline(always)]
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, bias: &[f32; C]) -> [f32; C] {
        let mut values = *first::<C, _>(&self.0[r][c..]);
        for i in 0..C {
            values[i] += bias[i];
        }
        values
    }
}

/// Sums of bytes: (sum − zero · column sum) · row scale · column scale.
pub(super) struct ByteRows<'a, const NR: usize> {
    pub sums: &'a [[i32; NR]],
    pub rows: &'a [RowScale],
    pub scales: [f32; NR],
    pub column_sums: [i32; NR],
}

impl<const NR: usize> TileRows for ByteRows<'_, NR> {
    #[inline(always)]
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, bias: &[f32; C]) -> [f32; C] {
        let (row, sums) = (self.rows[r], *first::<C, _>(&self.sums[r][c..]));
        let (scales, column_sums) =
            (*first::<C, _>(&self.scales[c..]), *first::<C, _>(&self.column_sums[c..]));
        let mut values = *bias;
        for i in 0..C {
            // One rounding of a sum, 2^-24 of it, for three slow instructions of a product of integers.
            let sum = if FMA {
                mul_add::<FMA>(-row.zero as f32, column_sums[i] as f32, sums[i] as f32)
            } else {
                exact(sums[i], row.zero, column_sums[i])
            };
            values[i] = mul_add::<FMA>(sum, row.scale * scales[i], bias[i]);
        }
        values
    }
}

/// As [`ByteRows`], the sums of second bytes added.
pub(super) struct FineRows<'a, const NR: usize> {
    pub first: ByteRows<'a, NR>,
    pub fine: &'a [[i32; NR]],
}

impl<const NR: usize> TileRows for FineRows<'_, NR> {
    #[inline(always)]
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, bias: &[f32; C]) -> [f32; C] {
        let of = &self.first;
        let (row, fine_row) = (of.rows[r], of.rows[r].of_fine());
        let (sums, fine) = (*first::<C, _>(&of.sums[r][c..]), *first::<C, _>(&self.fine[r][c..]));
        let (scales, column_sums) = (*first::<C, _>(&of.scales[c..]), *first::<C, _>(&of.column_sums[c..]));
        let mut values = *bias;
        for i in 0..C {
            let rest = exact(fine[i], fine_row.zero, column_sums[i]) * fine_row.scale;
            values[i] += (exact(sums[i], row.zero, column_sums[i]) * row.scale + rest) * scales[i];
        }
        values
    }
}

/// What the bytes' values sum to, without the zero of each.
#[inline(always)]
fn exact(sum: i32, zero: i32, column_sum: i32) -> f32 {
    sum.wrapping_sub(zero.wrapping_mul(column_sum)) as f32
}
