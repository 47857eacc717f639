//! What happens to a tile's sums on their way out: bias, activation, residual or the next product's layout.

use super::activation::quick_gelu;
use super::activation_i8::Function;
use super::buffer::{LINE, Shared, first, first_mut};
use super::kernel::{Ahead, MAX_ROWS, Spot, Tile};
use super::lhs::Writer;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    QuickGelu,
}

pub(super) enum Target<'a> {
    /// Row-major, rows so many values apart.
    Rows((Shared<'a>, usize)),
    /// Added to what is there, rows so many values apart: the residual stream.
    AddTo((Shared<'a>, usize)),
    /// The left side of the next product.
    Lhs(Writer<'a>),
}

pub(super) struct Epilogue<'a> {
    pub activation: Activation,
    /// The same, near enough for what becomes bytes; none where it would not do or there is none.
    pub coarse: Option<Function>,
    pub target: Target<'a>,
    pub outs: usize,
}

/// A tile's sums as f32, on top of the bias: C columns of row `r` from column `c` on. By value: the compiler
/// keeps them in vector registers, surely so if C is no more than one of them holds.
pub(super) trait TileRows {
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, bias: &[f32; C]) -> [f32; C];
}

/// Where a tile goes: some rows × the columns of one panel.
pub(super) struct Place {
    rows: usize,
    /// Columns of the panel that exist.
    width: usize,
    spots: [Spot; MAX_ROWS],
    /// Values on their way through an activation.
    values: Tile<f32>,
}

/// A tile with bias and activation.
struct Done<'a, const NR: usize>(&'a [[f32; NR]]);

impl<const NR: usize> TileRows for Done<'_, NR> {
    #[inline(always)]
    fn part<const FMA: bool, const C: usize>(&self, r: usize, c: usize, _: &[f32; C]) -> [f32; C] {
        *first(&self.0[r][c..])
    }
}

impl Place {
    pub fn new() -> Self {
        Self { rows: 0, width: 0, spots: [Spot::NOWHERE; MAX_ROWS], values: Tile::new() }
    }

    /// Has the kernel ask for the lines while it makes the sums: else every store would wait for its own.
    #[inline(always)]
    pub fn ahead(&self, ahead: Ahead) -> Ahead {
        Ahead { spots: self.spots.as_ptr(), rows: self.rows, ..ahead }
    }
}

impl Epilogue<'_> {
    /// Where a tile of NR columns goes, into `place`.
    #[inline(always)]
    pub fn find<const NR: usize>(&self, place: &mut Place, first_row: usize, rows: usize, first_col: usize) {
        let width = NR.min(self.outs - first_col);
        (place.rows, place.width) = (rows, width);
        let spots = &mut place.spots[..rows];
        match &self.target {
            Target::Rows((to, stride)) | Target::AddTo((to, stride)) => {
                for (r, spot) in spots.iter_mut().enumerate() {
                    *spot = Spot { at: to.run((first_row + r) * stride + first_col, width), step: LINE };
                }
            }
            Target::Lhs(next) => {
                let mut at = [(0, 0); MAX_ROWS];
                next.rows(first_row, &mut at[..rows]);
                for (spot, at) in spots.iter_mut().zip(at) {
                    *spot = next.spot(at, first_col, width);
                }
            }
        }
    }

    /// A tile's sums of a panel of NR columns, C at a time; C divides NR and the columns of a line.
    ///
    /// # Safety
    /// [`Epilogue::find`] of this epilogue and NR filled `place`, and no other task writes these columns of
    /// these rows.
    #[inline(always)]
    pub unsafe fn put<const FMA: bool, const NR: usize, const C: usize>(
        &self,
        place: &mut Place,
        sums: &impl TileRows,
        bias: &[f32; NR],
    ) {
        let add = matches!(self.target, Target::AddTo(..));
        // SAFETY (all): the caller's promise. One body each: no branch between vectors.
        match (self.activation, self.coarse, add) {
            (Activation::None, _, false) => unsafe { put::<FMA, NR, C, false, false>(place, sums, bias) },
            (Activation::None, _, true) => unsafe { put::<FMA, NR, C, false, true>(place, sums, bias) },
            (Activation::QuickGelu, None, false) => unsafe {
                put::<FMA, NR, C, true, false>(place, sums, bias)
            },
            (Activation::QuickGelu, Some(coarse), false) => {
                let values = &mut place.values.0[..place.rows * NR];
                for (r, row) in values.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
                    for c in (0..NR).step_by(C) {
                        *first_mut(&mut row[c..]) = sums.part::<FMA, C>(r, c, first(&bias[c..]));
                    }
                }
                coarse(values.as_chunks_mut().0);
                let done = Done(place.values.0.as_chunks::<NR>().0);
                unsafe { put::<FMA, NR, C, false, false>(place, &done, bias) }
            }
            (Activation::QuickGelu, _, true) => unreachable!("no product adds what it activates"),
        }
    }
}

/// # Safety
/// See [`Epilogue::put`].
#[inline(always)]
unsafe fn put<const FMA: bool, const NR: usize, const C: usize, const GELU: bool, const ADD: bool>(
    place: &Place,
    sums: &impl TileRows,
    bias: &[f32; NR],
) {
    let spots = &place.spots[..place.rows];
    if place.width < NR {
        // The last panel, of which some columns do not exist.
        for (r, spot) in spots.iter().enumerate() {
            for c in (0..place.width).step_by(C) {
                let values = finish::<FMA, NR, C, GELU>(sums, bias, r, c);
                for (i, value) in values.iter().enumerate().take(place.width - c) {
                    // SAFETY: a column that exists, and the caller holds that it is ours.
                    let to = unsafe { &mut *spot.column(c + i) };
                    *to = if ADD { *to + value } else { *value };
                }
            }
        }
        return;
    }
    for (r, spot) in spots.iter().enumerate() {
        for c in (0..NR).step_by(C) {
            let mut values = finish::<FMA, NR, C, GELU>(sums, bias, r, c);
            // SAFETY: C columns of one line that exist, and the caller holds that they are ours.
            let to = unsafe { &mut *spot.column(c).cast::<[f32; C]>() };
            if ADD {
                let old = *to;
                for i in 0..C {
                    values[i] += old[i];
                }
            }
            *to = values;
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
