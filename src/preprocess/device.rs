//! The reduction for the kernels that run it on a GPU (kernels/preprocess.cuh): a table of words, and which
//! samples of a picture have to be there.
//!
//! Same filters and colours as `reduce`; the kernels sum in f32 throughout, so they are nearer to the exact
//! result than the fixed point of the CPU: a level differs by at most one, where the exact value lies
//! within 0.1 of the middle between two.

use std::ops::Range;

use super::convert::Colour;
use super::filter::{Axis, Siting, Taps};
use super::{Reducer, Rule};
use crate::image::{Image, ImageError, ImageInfo, PixelFormat, Plane, Roi};

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

/// Packed rows start here, so that the kernels read them in whole words; a sector of device memory.
const ALIGNED: usize = 32;

/// The reduction of one rule, picture description and roi on a device.
pub struct DevicePlan {
    rule: Rule,
    info: ImageInfo,
    roi: Roi,
    words: Vec<u32>,
    parts: Vec<Part>,
}

/// The samples of one plane that the reduction reads, and where they lie packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the plane's rows.
    pub columns: Range<usize>,
    pub rows: Range<usize>,
    /// First byte when packed, a multiple of the stride's unit.
    pub start: usize,
    /// Bytes from one packed row to the next.
    pub stride: usize,
}

/// The samples that these taps read.
fn span(taps: &[Taps]) -> Range<usize> {
    let start = taps.iter().map(|t| t.start).min().unwrap_or(0);
    start..taps.iter().map(|t| t.start + t.weights.len()).max().unwrap_or(0)
}

/// Bytes from one sample to the next, and whether the plane is at half resolution; `None` for formats that
/// have no kernel.
fn planes(format: PixelFormat) -> Option<&'static [(usize, bool)]> {
    use PixelFormat::*;
    match format {
        Nv12 => Some(&[(1, false), (2, true)]),
        I420 => Some(&[(1, false), (1, true), (1, true)]),
        Rgb | Bgr => Some(&[(3, false)]),
        Rgba | Bgra | Rgbx | Bgrx => Some(&[(4, false)]),
        Gray8 | Y42b | Yuy2 | I420Le10 | P010Le10 => None,
    }
}

impl DevicePlan {
    /// `patch` is the side of a patch in pixels and divides the rule's size. `None` for formats that have no
    /// kernel: reduce those on the CPU.
    pub fn new(rule: &Rule, info: ImageInfo, roi: Roi, patch: u32) -> Result<Option<Self>, ImageError> {
        let (horizontal, vertical) = Axis::pair(rule, roi.rectangle(info.width, info.height)?);
        let Some(planes) = planes(info.format) else { return Ok(None) };
        let halved = |taps: &[Taps], siting, length: u32| -> Vec<Taps> {
            let length = length.div_ceil(2) as usize;
            taps.iter().map(|t| t.subsampled(siting, length)).collect()
        };
        let (x, y) = (horizontal.taps(), vertical.taps());
        let half_x = halved(&x, Siting::Cosited, info.width);
        let half_y = halved(&y, Siting::Centred, info.height);

        let (full, half) = ((span(&x), span(&y)), (span(&half_x), span(&half_y)));
        let (mut parts, mut start) = (Vec::with_capacity(planes.len()), 0);
        for &(step, halved) in planes {
            let (columns, rows) = if halved { &half } else { &full };
            let columns = step * columns.start..step * columns.end;
            let stride = columns.len().next_multiple_of(ALIGNED);
            let part = Part { columns, rows: rows.clone(), start, stride };
            start += part.bytes();
            parts.push(part);
        }

        let mut words = vec![0; WORDS];
        words[SIZE] = rule.size;
        let (columns, rows) = (&horizontal.output, &vertical.output);
        for (word, edge) in
            words[COVERED..].iter_mut().zip([columns.start, columns.end, rows.start, rows.end])
        {
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
        // Positions count from the parts' first samples.
        let tables = [(&x, &full.0), (&y, &full.1), (&half_x, &half.0), (&half_y, &half.1)];
        for (i, (taps, span)) in tables.into_iter().enumerate() {
            let stride = 2 + taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
            (words[TABLES + 2 * i], words[TABLES + 2 * i + 1]) = (words.len() as u32, stride as u32);
            for t in taps {
                let end = words.len() + stride;
                words.extend([(t.start - span.start) as u32, t.weights.len() as u32]);
                words.extend(t.weights.iter().map(|&w| (w as f32).to_bits()));
                words.resize(end, 0);
            }
        }
        Ok(Some(Self { rule: *rule, info, roi, words, parts }))
    }

    /// What the kernels preprocess_nv12, _i420 and _rgb read beside the parts.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub fn info(&self) -> ImageInfo {
        self.info
    }

    /// Of each plane, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Of all parts packed.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Whether this is the plan of these.
    pub fn is_of(&self, rule: &Rule, info: ImageInfo, roi: Roi) -> bool {
        self.rule == *rule && self.info == info && self.roi == roi
    }

    /// Copies the parts of a picture of this plan's description to the first `bytes` of `to`; what lies
    /// between rows stays.
    pub fn pack(&self, image: &Image<'_>, to: &mut [u8]) {
        for (i, part) in self.parts.iter().enumerate() {
            let plane = image.plane(i);
            for (row, y) in part.rows.clone().enumerate() {
                let from = &plane.data[y * plane.stride..][part.columns.clone()];
                to[part.start + row * part.stride..][..from.len()].copy_from_slice(from);
            }
        }
    }

    /// The packed picture reduced on the CPU: what [`Reducer`] makes of the whole one.
    pub fn reduce(&self, packed: &[u8]) -> Vec<u8> {
        let shapes = self.info.format.planes(self.info.width, self.info.height);
        // What was not packed is not read.
        let mut planes: Vec<Vec<u8>> = shapes.iter().map(|(row, rows)| vec![0; row * rows]).collect();
        for ((plane, part), (stride, _)) in planes.iter_mut().zip(&self.parts).zip(&shapes) {
            for (row, y) in part.rows.clone().enumerate() {
                let from = &packed[part.start + row * part.stride..][..part.columns.len()];
                plane[y * stride..][part.columns.clone()].copy_from_slice(from);
            }
        }
        let planes: Vec<Plane<'_>> =
            planes.iter().zip(&shapes).map(|(data, &(stride, _))| Plane { data, stride }).collect();
        let image = Image::new(self.info, &planes).expect("planes of the format's own sizes");
        let reduced = Reducer::new(self.rule).reduce(&image, self.roi).expect("`new` checked the roi");
        reduced.rgb().into_owned()
    }
}

impl Part {
    fn bytes(&self) -> usize {
        self.stride * self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Matrix, Range};
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
            let plan = DevicePlan::new(&rule, info, roi, 16).expect("inside").expect("these have kernels");
            let (words, mut packed) = (plan.words(), vec![0; plan.bytes()]);
            plan.pack(&image, &mut packed);
            assert_eq!(plan.reduce(&packed), *Reducer::new(rule).reduce(&image, roi).expect("inside").rgb());

            let at = |plane: usize, step: usize, offset: usize| {
                let (packed, part) = (&packed, &plan.parts()[plane]);
                move |x: usize, y: usize| packed[part.start + y * part.stride + step * x + offset]
            };
            let (full, half) = ([0, 1], [2, 3]);
            let channels = match format {
                PixelFormat::I420 => [
                    sums(words, full, at(0, 1, 0)),
                    sums(words, half, at(1, 1, 0)),
                    sums(words, half, at(2, 1, 0)),
                ],
                PixelFormat::Nv12 => [
                    sums(words, full, at(0, 1, 0)),
                    sums(words, half, at(1, 2, 0)),
                    sums(words, half, at(1, 2, 1)),
                ],
                _ => [2, 1, 0].map(|offset| sums(words, full, at(0, 4, offset))),
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
        assert!(DevicePlan::new(&rule, info, Roi::WHOLE, 32).expect("the whole picture").is_none());
    }

    #[test]
    fn a_wide_picture_is_packed_without_its_sides() {
        let rule = Rule {
            size: 224,
            geometry: Geometry::ShortestEdge { short: 224 },
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        let format = PixelFormat::Nv12;
        let info = ImageInfo { format, width: 1920, height: 1080, matrix: Matrix::Bt709, range: Range::Full };
        let plan = DevicePlan::new(&rule, info, Roi::WHOLE, 32).expect("the whole picture").expect("NV12");
        let sizes: Vec<_> = plan.parts().iter().map(|p| (p.columns.len(), p.rows.len())).collect();
        // 1080 columns of luma and the filter's reach beyond them.
        assert!((1080..1096).contains(&sizes[0].0) && (1080..1100).contains(&sizes[1].0), "{sizes:?}");
        assert_eq!((sizes[0].1, sizes[1].1), (1080, 540));
        assert!(plan.parts().iter().all(|p| p.start % ALIGNED == 0 && p.stride % ALIGNED == 0));
    }
}
