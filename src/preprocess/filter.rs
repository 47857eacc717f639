//! Filter tables: which source samples make one output sample, and with what weights.
//!
//! Source of the antialias filter: PyTorch's `upsample_bilinear2d_aa` and Pillow's `Resample.c`, which
//! agree: a triangle of half width max(scale, 1) source pixels, cut off at the border, normalised.

use std::ops::Range;

use super::{Geometry, Rule};
use crate::image::Rectangle;

/// One output sample: the weighted sum of the source samples `start..start + weights.len()`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taps {
    pub start: usize,
    /// At least one; their sum is 1.
    pub weights: Vec<f64>,
}

impl Taps {
    /// Sample `index` of `length` samples resized to `resized`.
    pub fn antialias(length: usize, resized: usize, index: usize) -> Self {
        let scale = length as f64 / resized as f64;
        let support = scale.max(1.0);
        let centre = scale * (index as f64 + 0.5);
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(length);
        let triangle = |i: usize| (1.0 - ((i as f64 + 0.5 - centre) / support).abs()).max(0.0);
        Self { start, weights: (start..end).map(triangle).collect() }.normalised()
    }

    /// The same output sample from a plane of `length` samples that has one for two of these.
    pub fn subsampled(&self, siting: Siting, length: usize) -> Self {
        let (start, end) = (self.start, self.start + self.weights.len());
        let first = (start / 2).saturating_sub(1);
        let mut weights = vec![0.0; end / 2 + 2 - first];
        for (i, weight) in (start..end).zip(&self.weights) {
            for (j, share) in siting.neighbours(i) {
                weights[j.min(length - 1) - first] += share * weight;
            }
        }
        Self { start: first, weights }.normalised()
    }

    /// Cuts zeros at both ends; sum 1.
    fn normalised(mut self) -> Self {
        let zeros = self.weights.iter().take_while(|&&w| w == 0.0).count();
        self.weights.drain(..zeros);
        self.start += zeros;
        let used = self.weights.iter().rposition(|&w| w != 0.0).map_or(0, |last| last + 1);
        self.weights.truncate(used);
        let sum: f64 = self.weights.iter().sum();
        self.weights.iter_mut().for_each(|w| *w /= sum);
        self
    }
}

/// Where the samples of a plane at half resolution lie between the luma samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Siting {
    /// On the even luma samples.
    Cosited,
    /// In the middle of each pair.
    Centred,
}

impl Siting {
    /// The two samples between which luma position `i` lies, with their shares; an index past the
    /// end means the last sample.
    fn neighbours(self, i: usize) -> [(usize, f64); 2] {
        let k = i / 2;
        match (self, i % 2) {
            (Self::Cosited, 0) => [(k, 1.0), (k, 0.0)],
            (Self::Cosited, _) => [(k, 0.5), (k + 1, 0.5)],
            (Self::Centred, 0) => [(k, 0.75), (k.saturating_sub(1), 0.25)],
            (Self::Centred, _) => [(k, 0.75), (k + 1, 0.25)],
        }
    }
}

/// One direction of the whole reduction: crop to the roi, resize, centre crop to S.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// The roi's first sample and sample count in the picture.
    origin: usize,
    length: usize,
    resized: usize,
    /// First resized sample that is kept.
    first: usize,
    /// Output samples that are computed; the others are black padding.
    pub output: Range<usize>,
}

impl Axis {
    /// (horizontal, vertical)
    pub fn pair(rule: &Rule, roi: Rectangle) -> (Self, Self) {
        let (width, height, size) = (roi.width as usize, roi.height as usize, rule.size as usize);
        let (resized_width, resized_height) = match rule.geometry {
            Geometry::Stretch => (size, size),
            Geometry::ShortestEdge { short } => {
                // u64: 2³² × 32768 would not fit 32-bit machines. Exact, so equal to int(float).
                let side = |length| (short as u64 * length as u64 / width.min(height) as u64) as usize;
                (side(width), side(height))
            }
        };
        (
            Self::new(roi.x as usize, width, resized_width, size),
            Self::new(roi.y as usize, height, resized_height, size),
        )
    }

    fn new(origin: usize, length: usize, resized: usize, size: usize) -> Self {
        let (first, padding) = (resized.saturating_sub(size) / 2, size.saturating_sub(resized) / 2);
        Self { origin, length, resized, first, output: padding..padding + size.min(resized) }
    }

    /// The computed output samples from luma (or packed) samples, in the picture's coordinates.
    pub fn taps(&self) -> Vec<Taps> {
        (self.first..self.first + self.output.len())
            .map(|index| {
                let taps = Taps::antialias(self.length, self.resized, index);
                Taps { start: self.origin + taps.start, ..taps }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_triangle_of_the_scale_cut_at_the_border() {
        // 8 → 2: scale 4, centres 2 and 6, triangle half width 4.
        let taps = Taps::antialias(8, 2, 0);
        let raw = [0.625, 0.875, 0.875, 0.625, 0.375, 0.125];
        let sum: f64 = raw.iter().sum();
        assert_eq!(taps.start, 0);
        assert_eq!(taps.weights.len(), raw.len());
        for (w, r) in taps.weights.iter().zip(raw) {
            assert!((w - r / sum).abs() < 1e-15);
        }
    }

    #[test]
    fn same_size_is_the_identity() {
        for i in 0..5 {
            assert_eq!(Taps::antialias(5, 5, i), Taps { start: i, weights: vec![1.0] });
        }
    }

    #[test]
    fn upsizing_interpolates_between_two_neighbours() {
        // 2 → 4: centres at 0.25, 0.75, 1.25, 1.75 source pixels.
        assert_eq!(Taps::antialias(2, 4, 0), Taps { start: 0, weights: vec![1.0] });
        assert_eq!(Taps::antialias(2, 4, 1), Taps { start: 0, weights: vec![0.75, 0.25] });
        assert_eq!(Taps::antialias(2, 4, 2), Taps { start: 0, weights: vec![0.25, 0.75] });
    }

    #[test]
    fn chroma_taps_are_luma_taps_through_the_interpolation() {
        let one = |i| Taps { start: i, weights: vec![1.0] };
        assert_eq!(one(2).subsampled(Siting::Cosited, 3), Taps { start: 1, weights: vec![1.0] });
        assert_eq!(one(3).subsampled(Siting::Cosited, 3), Taps { start: 1, weights: vec![0.5, 0.5] });
        assert_eq!(one(5).subsampled(Siting::Cosited, 3), Taps { start: 2, weights: vec![1.0] });
        assert_eq!(one(0).subsampled(Siting::Centred, 3), Taps { start: 0, weights: vec![1.0] });
        assert_eq!(one(1).subsampled(Siting::Centred, 3), Taps { start: 0, weights: vec![0.75, 0.25] });
        assert_eq!(one(2).subsampled(Siting::Centred, 3), Taps { start: 0, weights: vec![0.25, 0.75] });
        assert_eq!(one(5).subsampled(Siting::Centred, 3), Taps { start: 2, weights: vec![1.0] });
    }

    #[test]
    fn long_side_is_floored_and_cropped_about_the_centre() {
        let rule =
            Rule { size: 64, geometry: Geometry::ShortestEdge { short: 64 }, mean: [0.0; 3], std: [1.0; 3] };
        let (x, y) = Axis::pair(&rule, Rectangle { x: 3, y: 0, width: 134, height: 96 });
        // int(64 · 134 / 96) = 89; floor((89 − 64) / 2) = 12.
        assert_eq!(x, Axis { origin: 3, length: 134, resized: 89, first: 12, output: 0..64 });
        assert_eq!(y, Axis { origin: 0, length: 96, resized: 64, first: 0, output: 0..64 });
    }
}
