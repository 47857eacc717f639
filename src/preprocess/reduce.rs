//! The fast reduction: filter tables of one geometry, and the loops that use them.
//!
//! Per output row and plane: a vertical pass over raw rows (16-bit fixed point, contiguous), then a
//! horizontal pass over that one row (f32), whose sums go through the colour matrix at once. Only the
//! roi's rows and columns that reach the crop are read, and intermediates are a few rows, whatever the
//! picture's size. The loops are plain safe code in shapes that LLVM vectorises.

use std::ops::Range;

use super::Rule;
use super::convert::{Colour, round_row};
use super::filter::{Axis, Siting, Taps};
use super::layout::{Band, Depth, bands};
use super::tables::{Horizontal, RowWeights, Vertical};
use crate::image::{Image, ImageInfo, Plane, Rectangle};

/// All tables of one picture description, roi and rule.
pub(super) struct Plan {
    bands: Vec<(Band, Vertical, Horizontal)>,
    offset: [f32; 4],
    /// Output pixels that the picture covers, horizontally and vertically, of `size`.
    columns: Range<usize>,
    rows: Range<usize>,
    size: usize,
}

/// Row buffers, kept from picture to picture.
#[derive(Default)]
pub(super) struct Scratch {
    sums: Vec<u16>,
    row: Vec<f32>,
    pixels: Vec<[f32; 4]>,
}

impl Plan {
    pub fn new(rule: &Rule, info: ImageInfo, roi: Rectangle) -> Self {
        let (horizontal, vertical) = Axis::pair(rule, roi);
        let halved = |taps: &[Taps], siting, length: u32| -> Vec<Taps> {
            let length = length.div_ceil(2) as usize;
            taps.iter().map(|t| t.subsampled(siting, length)).collect()
        };
        let (x, y) = (horizontal.taps(), vertical.taps());
        let half_x = halved(&x, Siting::Cosited, info.width);
        let half_y = halved(&y, Siting::Centred, info.height);
        let colour = Colour::of(&info);
        let tables = |band: Band| {
            let rows = if band.halved { &half_y } else { &y };
            let horizontal = Horizontal::new(&band, &x, &half_x, &colour);
            (band, Vertical::new(rows), horizontal)
        };
        Self {
            bands: bands(info.format).into_iter().map(tables).collect(),
            offset: [colour.offset[0] as f32, colour.offset[1] as f32, colour.offset[2] as f32, 0.0],
            columns: horizontal.output,
            rows: vertical.output,
            size: rule.size as usize,
        }
    }

    /// `image` has the description the plan was made for; `rgb` is S·S·3 bytes of black.
    pub fn run(&self, image: &Image<'_>, scratch: &mut Scratch, rgb: &mut [u8]) {
        let rows = rgb.chunks_exact_mut(3 * self.size.max(1)).skip(self.rows.start).take(self.rows.len());
        for (y, out) in rows.enumerate() {
            scratch.pixels.clear();
            scratch.pixels.resize(self.columns.len(), self.offset);
            for (band, vertical, horizontal) in &self.bands {
                vertical_pass(band, vertical, y, image.plane(band.plane), horizontal, scratch);
                let pixels = &mut scratch.pixels;
                match band.period {
                    1 => horizontal_pass::<4, 1>(horizontal, &scratch.row, pixels),
                    2 => horizontal_pass::<8, 2>(horizontal, &scratch.row, pixels),
                    3 => horizontal_pass::<12, 3>(horizontal, &scratch.row, pixels),
                    _ => horizontal_pass::<16, 4>(horizontal, &scratch.row, pixels),
                }
            }
            round_row(&scratch.pixels, &mut out[3 * self.columns.start..3 * self.columns.end]);
        }
    }
}

/// Output row `y` at the plane's full width, as f32, followed by room for the last pixel's block.
fn vertical_pass(
    band: &Band,
    vertical: &Vertical,
    y: usize,
    plane: Plane<'_>,
    horizontal: &Horizontal,
    scratch: &mut Scratch,
) {
    let samples = horizontal.samples.clone();
    scratch.row.resize(samples.len() + horizontal.steps * 4 * band.period, 0.0);
    scratch.sums.resize(samples.len(), 0);
    let (start, weights) = (vertical.rows[y].0, vertical.rows[y].1..vertical.rows[y + 1].1);
    let rows = Rows { plane, start, samples };
    let (sums, row) = (&mut scratch.sums[..], &mut scratch.row[..]);
    match (&vertical.weights, band.depth) {
        (RowWeights::Fixed(w), Depth::Bits8) => rows.sum(&w[weights], bytes, |s| (s as u16) << 8, sums, row),
        (RowWeights::Fixed(w), Depth::Low10) => rows.sum(&w[weights], pairs, low_10, sums, row),
        (RowWeights::Fixed(w), Depth::High10) => rows.sum(&w[weights], pairs, high_10, sums, row),
        (RowWeights::Float(w), Depth::Bits8) => rows.sum_float(&w[weights], bytes, |s| (s as u16) << 8, row),
        (RowWeights::Float(w), Depth::Low10) => rows.sum_float(&w[weights], pairs, low_10, row),
        (RowWeights::Float(w), Depth::High10) => rows.sum_float(&w[weights], pairs, high_10, row),
    }
}

fn bytes(row: &[u8]) -> &[u8] {
    row
}

fn pairs(row: &[u8]) -> &[[u8; 2]] {
    row.as_chunks().0
}

fn low_10(sample: [u8; 2]) -> u16 {
    (u16::from_le_bytes(sample) & 0x3ff) << 6
}

fn high_10(sample: [u8; 2]) -> u16 {
    u16::from_le_bytes(sample) & 0xffc0
}

/// Rows of a plane from `start` on, cut to `samples`.
struct Rows<'a> {
    plane: Plane<'a>,
    start: usize,
    samples: Range<usize>,
}

impl<'a> Rows<'a> {
    fn row<T: 'a>(&self, index: usize, split: impl Fn(&'a [u8]) -> &'a [T]) -> &'a [T] {
        let samples = self.samples.start * size_of::<T>()..self.samples.end * size_of::<T>();
        split(&self.plane.data[(self.start + index) * self.plane.stride..][samples])
    }

    /// `out` = Σ weight × row, in fixed point.
    fn sum<T: Copy + 'a>(
        &self,
        weights: &[u16],
        split: impl Fn(&'a [u8]) -> &'a [T] + Copy,
        widen: impl Fn(T) -> u16 + Copy,
        sums: &mut [u16],
        out: &mut [f32],
    ) {
        sums.fill(0);
        let (fours, rest) = weights.as_chunks::<4>();
        for (i, w) in fours.iter().enumerate() {
            add([0, 1, 2, 3].map(|k| self.row(4 * i + k, split)), *w, widen, sums);
        }
        for (i, &w) in rest.iter().enumerate() {
            add([self.row(4 * fours.len() + i, split)], [w], widen, sums);
        }
        let lost = 0.5 * weights.len() as f32;
        for (out, &sum) in out.iter_mut().zip(&*sums) {
            *out = sum as f32 + lost;
        }
    }

    /// `out` = Σ weight × row, in f32.
    fn sum_float<T: Copy + 'a>(
        &self,
        weights: &[f32],
        split: impl Fn(&'a [u8]) -> &'a [T] + Copy,
        widen: impl Fn(T) -> u16,
        out: &mut [f32],
    ) {
        out.fill(0.0);
        for (i, w) in weights.iter().enumerate() {
            for (out, &sample) in out.iter_mut().zip(self.row(i, split)) {
                *out += w * widen(sample) as f32;
            }
        }
    }
}

/// Adds N weighted rows. Weights sum to at most 2¹⁶, so the sums fit.
fn add<const N: usize, T: Copy>(
    rows: [&[T]; N],
    weights: [u16; N],
    widen: impl Fn(T) -> u16,
    sums: &mut [u16],
) {
    let rows = rows.map(|row| &row[..sums.len()]);
    for (x, sum) in sums.iter_mut().enumerate() {
        for (row, weight) in rows.iter().zip(weights) {
            *sum = sum.wrapping_add(((widen(row[x]) as u32 * weight as u32) >> 16) as u16);
        }
    }
}

/// Adds each output pixel's colour. L = 4·C lanes: the sums of lanes l, l+C, l+2C, l+3C are sample l.
fn horizontal_pass<const L: usize, const C: usize>(table: &Horizontal, row: &[f32], pixels: &mut [[f32; 4]]) {
    let length = table.steps * L;
    let weights = table.weights.chunks_exact(length.max(1));
    for ((&start, weights), pixel) in table.starts.iter().zip(weights).zip(pixels) {
        let mut lanes = [0.0f32; L];
        let blocks = row[start..start + length].as_chunks::<L>().0.iter();
        for (block, weights) in blocks.zip(weights.as_chunks::<L>().0) {
            for l in 0..L {
                lanes[l] += block[l] * weights[l];
            }
        }
        let mut colour = *pixel;
        for c in 0..C {
            let value = (lanes[c] + lanes[C + c]) + (lanes[2 * C + c] + lanes[3 * C + c]);
            for (sum, column) in colour.iter_mut().zip(table.colours[c]) {
                *sum += value * column;
            }
        }
        *pixel = colour;
    }
}
