//! Pictures to the model's input: the kernels against the f64 reference of src/preprocess.

use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::preprocess::device::{DevicePlan, patch_columns};
use gstxclip::preprocess::{Geometry, Rule, reference};
use half::f16;

use crate::lab::{Argument, Lab, Noise, assert_close};

/// Step, red, green, blue of a packed pixel.
fn packed(format: PixelFormat) -> [usize; 4] {
    match format {
        PixelFormat::Rgb => [3, 0, 1, 2],
        PixelFormat::Bgr => [3, 2, 1, 0],
        PixelFormat::Rgba | PixelFormat::Rgbx => [4, 0, 1, 2],
        PixelFormat::Bgra | PixelFormat::Bgrx => [4, 2, 1, 0],
        _ => unreachable!("not packed"),
    }
}

fn check(lab: &Lab, rule: &Rule, info: ImageInfo, roi: Roi, patch: usize) {
    let mut noise = Noise(u64::from(info.width) * 7919 + u64::from(info.height));
    let shapes = info.format.planes(info.width, info.height);
    // Rows are wider than the picture, as decoders' are; codes stay near the middle, where no single pixel
    // leaves the RGB cube and the reference needs no clamp of its own.
    let padding = 13;
    let data: Vec<Vec<u8>> = shapes
        .iter()
        .map(|&(row, rows)| (0..(row + padding) * rows).map(|_| (100 + noise.word() % 50) as u8).collect())
        .collect();
    let planes: Vec<Plane<'_>> =
        data.iter().zip(&shapes).map(|(data, shape)| Plane { data, stride: shape.0 + padding }).collect();
    let image = Image::new(info, &planes).unwrap();
    let plan = DevicePlan::new(rule, info, roi, patch as u32).unwrap().unwrap();
    // The parts that count, in rows of any length and start.
    let parts: Vec<(Vec<u8>, usize)> = plan
        .parts()
        .iter()
        .zip(&planes)
        .map(|(part, plane)| {
            let row = |y: usize| &plane.data[y * plane.stride..][part.columns.clone()];
            let stride = part.columns.len() + padding;
            let data = part.rows.clone().flat_map(|y| row(y).iter().copied().chain(vec![0; padding]));
            (data.collect(), stride)
        })
        .collect();

    let size = rule.size as usize;
    let (columns, side) = (patch_columns(patch), size / patch);
    let (levels, rows) = (lab.room::<u8>(size * size * 3), lab.room::<f16>(side * side * columns));
    let on_device: Vec<_> = parts.iter().map(|(data, _)| lab.put(data)).collect();
    let mut arguments: Vec<Argument> = on_device.iter().map(Argument::from).collect();
    arguments.extend(parts.iter().map(|(_, stride)| Argument::from(*stride)));
    let name = match info.format {
        PixelFormat::Nv12 => "preprocess_nv12",
        PixelFormat::I420 => "preprocess_i420",
        format => {
            arguments.extend(packed(format).map(Argument::from));
            "preprocess_rgb"
        }
    };
    arguments.extend([&lab.put(plan.words()), &levels, &rows].map(Argument::from));
    lab.launch(name, [size.div_ceil(32), size.div_ceil(8), 1], 256, 0, &arguments);

    let exact = reference::reduce(rule, &image, roi).unwrap();
    let found = lab.get::<u8>(&levels);
    let what = format!("{:?} {}x{} {roi:?} {rule:?}", info.format, info.width, info.height);
    for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
        let off = (f64::from(*found) - exact.clamp(0.0, 255.0)).abs();
        assert!(off <= 0.502, "{what}: level {i} is {found}, exactly {exact}");
    }
    let value = |i: usize| {
        let (place, column) = (i / columns, i % columns);
        let (channel, y, x) = (column / patch / patch, column / patch % patch, column % patch);
        if channel > 2 {
            return 0.0;
        }
        let (y, x) = (place / side * patch + y, place % side * patch + x);
        let level = f64::from(found[(y * size + x) * 3 + channel]);
        (level / 255.0 - f64::from(rule.mean[channel])) / f64::from(rule.std[channel])
    };
    let expected: Vec<f64> = (0..rows.len).map(value).collect();
    assert_close(&lab.get_halves(&rows), &expected, 1e-6, &what);
}

fn rule(size: u32, geometry: Geometry) -> Rule {
    Rule { size, geometry, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
}

fn info(format: PixelFormat, width: u32, height: u32) -> ImageInfo {
    ImageInfo { format, width, height, matrix: Matrix::Bt709, range: Range::Limited }
}

const WHOLE: Roi = Roi { x: 0.0, y: 0.0, w: 1.0, h: 1.0 };

#[test]
fn every_format_with_a_kernel_is_reduced_as_the_reference_does() {
    use PixelFormat::*;
    let Some(lab) = Lab::open() else { return };
    for format in [Nv12, I420, Rgb, Bgr, Rgba, Bgra, Rgbx, Bgrx] {
        check(&lab, &rule(32, Geometry::Stretch), info(format, 71, 53), WHOLE, 16);
    }
}

#[test]
fn crops_edges_enlargement_and_odd_sizes_hold() {
    let Some(lab) = Lab::open() else { return };
    let shortest = |short| Geometry::ShortestEdge { short };
    let part = Roi { x: 0.13, y: 0.2, w: 0.71, h: 0.66 };
    for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb] {
        check(&lab, &rule(56, shortest(64)), info(format, 213, 121), WHOLE, 14);
        check(&lab, &rule(32, shortest(28)), info(format, 90, 161), part, 32);
        check(&lab, &rule(48, Geometry::Stretch), info(format, 17, 9), WHOLE, 16);
        check(&lab, &rule(32, shortest(32)), info(format, 640, 360), part, 16);
        let full = ImageInfo { range: Range::Full, matrix: Matrix::Bt601, ..info(format, 66, 50) };
        check(&lab, &rule(32, Geometry::Stretch), full, WHOLE, 16);
    }
}
