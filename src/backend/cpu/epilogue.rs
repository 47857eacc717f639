//! What happens to a tile's sums on their way out: bias, activation, residual or the next product's layout.

use super::activation::quick_gelu;
use super::buffer::Shared;
use super::lhs::Writer;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    QuickGelu,
}

pub(super) enum Target<'a> {
    /// Row-major, rows of `outs` values.
    Rows(Shared<'a>),
    /// Added to what is there: the residual stream.
    AddTo(Shared<'a>),
    /// The left side of the next product.
    Lhs(Writer<'a>),
}

pub(super) struct Epilogue<'a> {
    pub activation: Activation,
    pub target: Target<'a>,
    pub outs: usize,
}

impl Epilogue<'_> {
    /// Asks for the lines that a tile will go to while its sums are made: else every store would wait
    /// for its line, in order.
    #[inline(always)]
    pub fn expect(&self, first_row: usize, rows: usize, first_col: usize, cols: usize) {
        let width = cols.min(self.outs - first_col);
        for row in first_row..first_row + rows {
            match &self.target {
                Target::Rows(to) | Target::AddTo(to) => to.expect(row * self.outs + first_col, width),
                Target::Lhs(next) => next.expect(row, first_col, width),
            }
        }
    }

    /// One row's sums of a panel, whose first column is `first_col`. Arrays by value: the compiler keeps
    /// them in vector registers.
    ///
    /// # Safety
    /// No other task writes these columns of this row.
    #[inline(always)]
    pub unsafe fn put<const FMA: bool, const NR: usize>(
        &self,
        row: usize,
        first_col: usize,
        mut values: [f32; NR],
        bias: &[f32; NR],
    ) {
        for i in 0..NR {
            values[i] += bias[i];
        }
        if self.activation == Activation::QuickGelu {
            for value in &mut values {
                *value = quick_gelu::<FMA>(*value);
            }
        }
        let width = NR.min(self.outs - first_col);
        let start = row * self.outs + first_col;
        // SAFETY (all): the caller holds that these elements are ours.
        match &self.target {
            Target::Rows(to) if width == NR => unsafe { *to.array(start) = values },
            Target::Rows(to) => unsafe { to.part(start, width) }.copy_from_slice(&values[..width]),
            Target::AddTo(to) if width == NR => {
                let to: &mut [f32; NR] = unsafe { to.array(start) };
                let mut sums = *to;
                for i in 0..NR {
                    sums[i] += values[i];
                }
                *to = sums;
            }
            Target::AddTo(to) => {
                let to = unsafe { to.part(start, width) };
                to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
            }
            Target::Lhs(next) => unsafe { next.put(row, first_col, &values[..width]) },
        }
    }
}
