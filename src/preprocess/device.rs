//! The reduction as a table of words, for the kernels that run it on a GPU (kernels/preprocess.cuh).
//!
//! Same filters and colours as `reduce`; the kernels sum in f32 throughout, so they are nearer to the exact
//! result than the fixed point of the CPU: a level differs by at most one, where the exact value lies
//! within 0.1 of the middle between two.

use super::Rule;
use super::convert::Colour;
use super::filter::{Axis, Siting, Taps};
use crate::image::{ImageInfo, PixelFormat, Rectangle};

/// Units of the reduction's 16-bit samples in one 8-bit code.
const PER_CODE: f64 = 256.0;

// Words of a plan, PLAN_… in kernels/preprocess.cuh.
const SIZE: usize = 0;
const COVERED: usize = 1;
const PATCH: usize = 5;
const COLUMNS: usize = 6;
const TABLES: usize = 8;
const COLOUR: usize = 16;
const OFFSET: usize = 25;
const SCALE: usize = 28;
const SHIFT: usize = 31;
const WORDS: usize = 34;

/// Columns of a patch row on the device: 3·patch² rounded up to a multiple of 8, so that rows stay 16-byte
/// aligned; the surplus is zero.
pub fn patch_columns(patch: usize) -> usize {
    (3 * patch * patch).next_multiple_of(8)
}

/// What the kernels preprocess_nv12, _i420 and _rgb read beside the planes: constant as long as description,
/// `roi` and rule are. `patch` is the side of a patch in pixels and divides the rule's size. None for
/// formats that have no kernel (reduce those on the CPU).
pub fn plan(rule: &Rule, info: ImageInfo, roi: Rectangle, patch: u32) -> Option<Vec<u32>> {
    use PixelFormat::*;
    if !matches!(info.format, Nv12 | I420 | Rgb | Bgr | Rgba | Bgra | Rgbx | Bgrx) {
        return None;
    }
    let (horizontal, vertical) = Axis::pair(rule, roi);
    let halved = |taps: &[Taps], siting, length: u32| -> Vec<Taps> {
        let length = length.div_ceil(2) as usize;
        taps.iter().map(|t| t.subsampled(siting, length)).collect()
    };
    let (x, y) = (horizontal.taps(), vertical.taps());
    let half_x = halved(&x, Siting::Cosited, info.width);
    let half_y = halved(&y, Siting::Centred, info.height);

    let mut words = vec![0; WORDS];
    words[SIZE] = rule.size;
    let (columns, rows) = (&horizontal.output, &vertical.output);
    for (word, edge) in words[COVERED..].iter_mut().zip([columns.start, columns.end, rows.start, rows.end]) {
        *word = edge as u32;
    }
    words[PATCH] = patch;
    words[COLUMNS] = patch_columns(patch as usize) as u32;
    let colour = Colour::of(&info);
    let mut put = |at: usize, values: &mut dyn Iterator<Item = f64>| {
        words[at..].iter_mut().zip(values).for_each(|(word, value)| *word = (value as f32).to_bits());
    };
    put(COLOUR, &mut colour.columns.iter().flatten().map(|v| v * PER_CODE));
    put(OFFSET, &mut colour.offset.iter().copied());
    put(SCALE, &mut rule.std.iter().map(|&s| 1.0 / (255.0 * s as f64)));
    put(SHIFT, &mut rule.mean.iter().zip(&rule.std).map(|(&m, &s)| -m as f64 / s as f64));
    for (i, taps) in [&x, &y, &half_x, &half_y].into_iter().enumerate() {
        let stride = 2 + taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
        (words[TABLES + 2 * i], words[TABLES + 2 * i + 1]) = (words.len() as u32, stride as u32);
        for t in taps {
            let end = words.len() + stride;
            words.extend([t.start as u32, t.weights.len() as u32]);
            words.extend(t.weights.iter().map(|&w| (w as f32).to_bits()));
            words.resize(end, 0);
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, Matrix, Plane, Range, Roi};
    use crate::preprocess::{Geometry, reference};

    /// The sums a kernel makes of one plane: [S, S] of covered pixels, row by row.
    fn sums(words: &[u32], tables: [usize; 2], sample: impl Fn(usize, usize) -> u8) -> Vec<f64> {
        let entry = |table: usize, i: usize| {
            let at = words[TABLES + 2 * table] as usize + i * words[TABLES + 2 * table + 1] as usize;
            let (start, count) = (words[at] as usize, words[at + 1] as usize);
            let weights = words[at + 2..][..count].iter().map(|&w| f32::from_bits(w) as f64);
            weights.enumerate().map(move |(k, w)| (start + k, w)).collect::<Vec<_>>()
        };
        let [left, right, top, bottom] = [1, 2, 3, 4].map(|i| words[i] as usize);
        let mut sums = Vec::new();
        for y in 0..bottom - top {
            for x in 0..right - left {
                let (columns, rows) = (entry(tables[0], x), entry(tables[1], y));
                let row = |&(y, v): &(usize, f64)| {
                    columns.iter().map(|&(x, u)| u * v * sample(x, y) as f64).sum::<f64>()
                };
                sums.push(rows.iter().map(row).sum());
            }
        }
        sums
    }

    #[test]
    fn a_plan_applied_to_the_planes_is_the_reference() {
        let rule = Rule {
            size: 32,
            geometry: Geometry::ShortestEdge { short: 28 },
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        for (format, width, height) in
            [(PixelFormat::I420, 71, 53), (PixelFormat::Nv12, 40, 90), (PixelFormat::Bgrx, 67, 33)]
        {
            let info = ImageInfo { format, width, height, matrix: Matrix::Bt709, range: Range::Limited };
            let shapes = format.planes(width, height);
            // Codes near the middle: no single pixel leaves the RGB cube, where the two would differ.
            let data: Vec<Vec<u8>> = shapes
                .iter()
                .enumerate()
                .map(|(p, &(row, rows))| {
                    (0..row * rows).map(|i| (110 + (i * 7 + i / row * 11 + p) % 31) as u8).collect()
                })
                .collect();
            let planes: Vec<_> =
                data.iter().zip(&shapes).map(|(d, s)| Plane { data: d, stride: s.0 }).collect();
            let image = Image::new(info, &planes).expect("planes of the format's own sizes");
            let roi = Roi { x: 0.1, y: 0.0, w: 0.8, h: 0.9 };
            let rectangle = roi.rectangle(width, height).expect("inside");
            let words = plan(&rule, info, rectangle, 16).expect("these formats have kernels");

            let at = |plane: usize, step: usize, offset: usize| {
                let (data, stride) = (&data[plane], shapes[plane].0);
                move |x: usize, y: usize| data[y * stride + step * x + offset]
            };
            let (full, half) = ([0, 1], [2, 3]);
            let channels = match format {
                PixelFormat::I420 => [
                    sums(&words, full, at(0, 1, 0)),
                    sums(&words, half, at(1, 1, 0)),
                    sums(&words, half, at(2, 1, 0)),
                ],
                PixelFormat::Nv12 => [
                    sums(&words, full, at(0, 1, 0)),
                    sums(&words, half, at(1, 2, 0)),
                    sums(&words, half, at(1, 2, 1)),
                ],
                _ => [2, 1, 0].map(|offset| sums(&words, full, at(0, 4, offset))),
            };
            let float = |at: usize| f32::from_bits(words[at]) as f64;
            let [left, right, top, bottom] = [1, 2, 3, 4].map(|i| words[i] as usize);
            let mut levels = vec![0.0; 3 * 32 * 32];
            for (i, (y, x)) in (top..bottom).flat_map(|y| (left..right).map(move |x| (y, x))).enumerate() {
                for c in 0..3 {
                    let column = |k: usize| channels[k][i] * float(COLOUR + 3 * k + c);
                    levels[3 * (y * 32 + x) + c] = float(OFFSET + c) + (0..3).map(column).sum::<f64>();
                }
            }
            let expected = reference::reduce(&rule, &image, roi).expect("inside");
            let worst = levels.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{format:?}: {worst} levels");
        }
    }

    #[test]
    fn formats_without_a_kernel_have_no_plan() {
        let rule = Rule { size: 32, geometry: Geometry::Stretch, mean: [0.5; 3], std: [0.5; 3] };
        let info = ImageInfo {
            format: PixelFormat::P010Le10,
            width: 64,
            height: 48,
            matrix: Matrix::Bt2020,
            range: Range::Limited,
        };
        assert_eq!(plan(&rule, info, Rectangle { x: 0, y: 0, width: 64, height: 48 }, 32), None);
    }
}
