//! What happens to a tile's sums on their way out: bias, activation, residual or the next product's layout.

use super::activation::quick_gelu;
use super::buffer::{LINE, Shared, first};
use super::kernel::MAX_ROWS;
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

/// A tile's sums as f32, on top of the bias: C columns of row `r` from column `c` on. By value: the compiler
/// keeps them in vector registers, surely so if C is no more than one of them holds.
pub(super) trait TileRows {
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, bias: &[f32; C]) -> [f32; C];
}

/// Where a tile goes: some rows × the columns of one panel.
#[derive(Default)]
pub(super) struct Place {
    rows: usize,
    first_col: usize,
    /// Columns of the panel that exist.
    width: usize,
    /// Per row, where its first value goes, and the distance between its lines.
    at: [(usize, usize); MAX_ROWS],
}

impl Epilogue<'_> {
    /// Where a tile of NR columns goes, into `place`. Asks for its lines, to write them when the sums are
    /// made: else every store would wait for its line, in order.
    #[inline(always)]
    pub fn expect<const NR: usize>(
        &self,
        place: &mut Place,
        first_row: usize,
        rows: usize,
        first_col: usize,
    ) {
        let width = NR.min(self.outs - first_col);
        (place.rows, place.first_col, place.width) = (rows, first_col, width);
        let at = &mut place.at[..rows];
        match &self.target {
            Target::Rows(to) | Target::AddTo(to) => {
                for (r, at) in at.iter_mut().enumerate() {
                    *at = ((first_row + r) * self.outs + first_col, LINE);
                    for i in 0..NR.div_ceil(LINE) {
                        to.expect(at.0 + i * LINE);
                    }
                }
            }
            Target::Lhs(next) => {
                next.rows(first_row, at);
                for at in at {
                    for i in 0..NR.div_ceil(LINE) {
                        next.expect(*at, first_col / LINE + i);
                    }
                }
            }
        }
    }

    /// A tile's sums of a panel of NR columns, C at a time; C divides NR.
    ///
    /// # Safety
    /// No other task writes these columns of these rows.
    #[inline(always)]
    pub unsafe fn put<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        place: &Place,
        sums: &impl TileRows,
        bias: &[f32; NR],
    ) {
        // SAFETY (both): the caller's promise. One body per activation: no branch between vectors.
        match self.activation {
            Activation::None => unsafe { self.put_as::<FMA, NR, C, false>(place, sums, bias) },
            Activation::QuickGelu => unsafe { self.put_as::<FMA, NR, C, true>(place, sums, bias) },
        }
    }

    #[inline(always)]
    unsafe fn put_as<const FMA: bool, const NR: usize, const C: usize, const GELU: bool>(
        &self,
        place: &Place,
        sums: &impl TileRows,
        bias: &[f32; NR],
    ) {
        let Place { rows, first_col, width, ref at } = *place;
        let at = &at[..rows];
        if width < NR {
            // SAFETY: the caller's promise.
            return unsafe { self.put_some::<FMA, NR, C, GELU>(place, sums, bias) };
        }
        // SAFETY (all): the caller holds that these elements are ours.
        match &self.target {
            Target::Rows(to) => {
                for (r, at) in at.iter().enumerate() {
                    let to: &mut [f32; NR] = unsafe { to.array(at.0) };
                    for (c, to) in to.as_chunks_mut::<C>().0.iter_mut().enumerate() {
                        *to = finish::<FMA, NR, C, GELU>(sums, bias, r, c * C);
                    }
                }
            }
            Target::AddTo(to) => {
                for (r, at) in at.iter().enumerate() {
                    let to: &mut [f32; NR] = unsafe { to.array(at.0) };
                    for (c, to) in to.as_chunks_mut::<C>().0.iter_mut().enumerate() {
                        let values = finish::<FMA, NR, C, GELU>(sums, bias, r, c * C);
                        let mut sums = *to;
                        for i in 0..C {
                            sums[i] += values[i];
                        }
                        *to = sums;
                    }
                }
            }
            Target::Lhs(next) => {
                for (r, at) in at.iter().enumerate() {
                    for c in 0..NR / C {
                        let values = finish::<FMA, NR, C, GELU>(sums, bias, r, c * C);
                        unsafe { next.put_line(*at, first_col + c * C, &values) }
                    }
                }
            }
        }
    }

    /// The last panel, of which some columns do not exist.
    #[inline(always)]
    unsafe fn put_some<const FMA: bool, const NR: usize, const C: usize, const GELU: bool>(
        &self,
        place: &Place,
        sums: &impl TileRows,
        bias: &[f32; NR],
    ) {
        for (r, at) in place.at[..place.rows].iter().enumerate() {
            for c in (0..place.width).step_by(C) {
                let values = finish::<FMA, NR, C, GELU>(sums, bias, r, c);
                let values = &values[..C.min(place.width - c)];
                // SAFETY (all): the caller holds that these elements are ours.
                match &self.target {
                    Target::Rows(to) => {
                        unsafe { to.part(at.0 + c, values.len()) }.copy_from_slice(values);
                    }
                    Target::AddTo(to) => {
                        let to = unsafe { to.part(at.0 + c, values.len()) };
                        to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
                    }
                    Target::Lhs(next) => unsafe { next.put(*at, place.first_col + c, values) },
                }
            }
        }
    }
}

/// Bias and activation.
#[inline(always)]
fn finish<const FMA: bool, const NR: usize, const C: usize, const GELU: bool>(
    sums: &impl TileRows,
    bias: &[f32; NR],
    r: usize,
    c: usize,
) -> [f32; C] {
    let mut values = sums.part::<FMA, C>(r, c, first(&bias[c..]));
    if GELU {
        for value in &mut values {
            *value = quick_gelu::<FMA>(*value);
        }
    }
    values
}
