//! Preprocessing on the device: the same levels as the CPU's, the patch rows that follow from them.
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use cuda_device::device;
use gstxclip::backend::cuda::DeviceReducer;
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::preprocess::device::patch_columns;
use gstxclip::preprocess::{Geometry, Reducer, Rule, reference};

const FORMATS: [PixelFormat; 6] = [
    PixelFormat::Nv12,
    PixelFormat::I420,
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Rgbx,
    PixelFormat::Bgra,
];

fn rule(size: u32, geometry: Geometry) -> Rule {
    Rule { size, geometry, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
}

/// A picture's planes, `surplus` bytes after each row.
struct Picture {
    info: ImageInfo,
    planes: Vec<(Vec<u8>, usize)>,
}

impl Picture {
    /// Noise with codes in `codes`, on a slope.
    fn noise(info: ImageInfo, surplus: usize, codes: std::ops::Range<usize>) -> Self {
        let mut state = 0x9e37_79b9_u32;
        let mut byte = |slope: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (codes.start + (slope + (state >> 24) as usize) % codes.len()) as u8
        };
        let planes = info.format.planes(info.width, info.height).into_iter();
        let planes = planes
            .map(|(row, rows)| {
                let stride = row + surplus;
                ((0..stride * rows).map(|i| byte(i % stride / 7 + i / stride)).collect(), stride)
            })
            .collect();
        Self { info, planes }
    }

    fn image(&self) -> Image<'_> {
        let planes: Vec<_> =
            self.planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        Image::new(self.info, &planes).expect("planes of the format's own sizes")
    }
}

fn info(format: PixelFormat, width: u32, height: u32, range: Range) -> ImageInfo {
    ImageInfo { format, width, height, matrix: Matrix::Bt709, range }
}

#[test]
fn levels_are_the_reference_rounded() {
    if device().is_none() {
        return;
    }
    let cases = [
        (97, 61, Roi::WHOLE, 0, Geometry::ShortestEdge { short: 64 }),
        (64, 150, Roi { x: 0.1, y: 0.3, w: 0.8, h: 0.45 }, 5, Geometry::Stretch),
        // Smaller than the input: centred on black.
        (40, 30, Roi::WHOLE, 1, Geometry::ShortestEdge { short: 48 }),
    ];
    for (width, height, roi, surplus, geometry) in cases {
        let rule = rule(64, geometry);
        let mut reducer = DeviceReducer::new(rule, 16, 0).unwrap();
        for format in FORMATS {
            // Near grey, no single pixel leaves the RGB cube, where the reference clamps before the resize.
            let picture = Picture::noise(info(format, width, height, Range::Full), surplus, 110..150);
            let reduced = reducer.reduce(&picture.image(), roi).unwrap().expect("these have kernels");
            let exact = reference::reduce(&rule, &picture.image(), roi).unwrap();
            let off = |(level, exact): (&u8, &f64)| (f64::from(*level) - exact).abs();
            let worst = reduced.rgb.iter().zip(&exact).map(off).fold(0.0, f64::max);
            assert!(worst <= 0.501, "{format:?} {width}x{height}: {worst} levels from the exact value");
        }
    }
}

#[test]
fn levels_are_the_processors_within_one() {
    if device().is_none() {
        return;
    }
    let rule = rule(96, Geometry::ShortestEdge { short: 96 });
    let (mut device, mut cpu) = (DeviceReducer::new(rule, 32, 0).unwrap(), Reducer::new(rule));
    for format in FORMATS {
        let picture = Picture::noise(info(format, 301, 175, Range::Limited), 3, 0..256);
        let found = device.reduce(&picture.image(), Roi::WHOLE).unwrap().expect("these have kernels");
        let expected = cpu.reduce(&picture.image(), Roi::WHOLE).unwrap();
        let differ: Vec<u8> =
            found.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
        assert!(differ.iter().all(|d| *d == 1), "{format:?}: {:?}", differ.iter().max());
        // Only where the exact value is within 0.1 of the middle between two levels, on both sides.
        assert!(differ.len() * 5 < found.rgb.len(), "{format:?}: {} differ", differ.len());
    }
}

#[test]
fn patch_rows_are_the_normalised_levels() {
    if device().is_none() {
        return;
    }
    let (size, patch) = (56usize, 14usize);
    let rule = rule(size as u32, Geometry::ShortestEdge { short: 60 });
    let mut reducer = DeviceReducer::new(rule, patch as u32, 0).unwrap();
    let picture = Picture::noise(info(PixelFormat::Nv12, 120, 80, Range::Limited), 0, 0..256);
    let reduced = reducer.reduce(&picture.image(), Roi::WHOLE).unwrap().expect("NV12 has a kernel");
    let rows = reducer.patch_rows().unwrap();
    let columns = patch_columns(patch);
    assert_eq!(rows.len(), (size / patch).pow(2) * columns);
    for (i, row) in rows.chunks(columns).enumerate() {
        let (top, left) = (i / (size / patch) * patch, i % (size / patch) * patch);
        for (at, value) in row.iter().enumerate() {
            let (channel, y, x) = (at / (patch * patch), at / patch % patch, at % patch);
            let expected = match channel {
                0..3 => {
                    let level = reduced.rgb[3 * ((top + y) * size + left + x) + channel];
                    (f32::from(level) / 255.0 - rule.mean[channel]) / rule.std[channel]
                }
                _ => 0.0,
            };
            assert!((value - expected).abs() <= expected.abs() / 1024.0 + 1e-4, "row {i}, column {at}");
        }
    }
}

#[test]
fn formats_without_a_kernel_are_left_to_the_processor() {
    if device().is_none() {
        return;
    }
    let rule = rule(32, Geometry::Stretch);
    let mut reducer = DeviceReducer::new(rule, 16, 0).unwrap();
    let picture = Picture::noise(info(PixelFormat::Gray8, 40, 30, Range::Full), 0, 0..256);
    assert!(reducer.reduce(&picture.image(), Roi::WHOLE).unwrap().is_none());
    let bad = Roi { x: 0.5, y: 0.0, w: 0.8, h: 1.0 };
    let picture = Picture::noise(info(PixelFormat::Nv12, 40, 30, Range::Full), 0, 0..256);
    assert!(reducer.reduce(&picture.image(), bad).unwrap_err().to_string().contains("roi"));
}
