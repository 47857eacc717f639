//! Filter taps packed for the two passes of the reduction.

use std::ops::Range;

use super::convert::Colour;
use super::filter::Taps;
use super::layout::Band;

/// Which source rows make each output row.
pub(super) struct Vertical {
    /// First source row and its index into the weights, per output row and one past the last.
    pub rows: Vec<(usize, usize)>,
    pub weights: RowWeights,
}

pub(super) enum RowWeights {
    /// Units of 2⁻¹⁶. Products are cut to 16 bits, which loses half a unit each on average.
    Fixed(Vec<u16>),
    /// For so many rows that the cut bits would add up.
    Float(Vec<f32>),
}

/// At 128 rows the cut bits are off by 0.02 levels on average pictures, 0.25 at the very worst.
const MAX_FIXED: usize = 128;

impl Vertical {
    pub fn new(taps: &[Taps]) -> Self {
        let mut rows = Vec::with_capacity(taps.len() + 1);
        let mut weights: Vec<f64> = Vec::new();
        for t in taps {
            rows.push((t.start, weights.len()));
            weights.extend(&t.weights);
        }
        rows.push((0, weights.len()));
        let weights = if taps.iter().all(|t| t.weights.len() <= MAX_FIXED) {
            RowWeights::Fixed(taps.iter().flat_map(|t| fixed(&t.weights)).collect())
        } else {
            RowWeights::Float(weights.iter().map(|&w| w as f32).collect())
        };
        Self { rows, weights }
    }
}

/// Weights in units of 2⁻¹⁶, rounded so that the partial sums are right.
fn fixed(weights: &[f64]) -> impl Iterator<Item = u16> {
    let (mut sum, mut done) = (0.0, 0);
    weights.iter().map(move |w| {
        sum += w;
        // A single row of weight 1 is short by 2⁻¹⁶: 0.004 levels.
        let unit = ((sum * 65536.0).round() as i64 - done).clamp(0, 65535);
        done += unit;
        unit as u16
    })
}

/// Which samples of a row make each output pixel, and its colour: per pixel `steps` blocks of 4·period
/// samples, each sample with its weight.
pub(super) struct Horizontal {
    /// Sample range of the plane's rows that is read.
    pub samples: Range<usize>,
    /// First sample of each output pixel, counted from `samples.start`; a multiple of the period.
    pub starts: Vec<usize>,
    pub steps: usize,
    pub weights: Vec<f32>,
    /// What one unit of each interleaved sample adds to red, green, blue (and nothing).
    pub colours: [[f32; 4]; 4],
}

impl Horizontal {
    pub fn new(band: &Band, full: &[Taps], half: &[Taps], colour: &Colour) -> Self {
        let pixels: Vec<Vec<(usize, f64)>> = (0..full.len())
            .map(|x| {
                let samples = band.channels.iter().flat_map(|channel| {
                    let taps = if channel.halved { &half[x] } else { &full[x] };
                    let index = move |i| channel.offset + channel.step * (taps.start + i);
                    taps.weights.iter().enumerate().map(move |(i, &w)| (index(i), w))
                });
                samples.collect()
            })
            .collect();
        let aligned = |i: usize| i - i % band.period;
        let first = |p: &[(usize, f64)]| aligned(p.iter().map(|s| s.0).min().unwrap_or(0));
        let end = |p: &[(usize, f64)]| p.iter().map(|s| s.0 + 1).max().unwrap_or(0);
        let firsts: Vec<usize> = pixels.iter().map(|p| first(p)).collect();
        let start = firsts.iter().copied().min().unwrap_or(0);
        let lanes = 4 * band.period;
        let steps = pixels.iter().map(|p| (end(p) - first(p)).div_ceil(lanes)).max().unwrap_or(0);
        let mut weights = vec![0.0; pixels.len() * steps * lanes];
        for ((p, first), row) in
            pixels.iter().zip(&firsts).zip(weights.chunks_exact_mut((steps * lanes).max(1)))
        {
            p.iter().for_each(|&(i, w)| row[i - first] = w as f32);
        }
        let mut colours = [[0.0; 4]; 4];
        for channel in &band.channels {
            for sample in (channel.offset..band.period).step_by(channel.step) {
                let column = colour.columns[channel.column];
                colours[sample] = [column[0] as f32, column[1] as f32, column[2] as f32, 0.0];
            }
        }
        Self {
            samples: start..pixels.iter().map(|p| end(p)).max().unwrap_or(0),
            starts: firsts.iter().map(|f| f - start).collect(),
            steps,
            weights,
            colours,
        }
    }
}
