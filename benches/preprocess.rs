//! One frame from the camera's format to the model's input, as on the streaming thread.
//!
//! `cargo bench --bench preprocess`; the peer is benches/peers/preprocess.py, run on the same machine.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::preprocess::{Geometry, Reducer, Rule, reference};

fn reduce(criterion: &mut Criterion) {
    let cases = [
        (PixelFormat::Nv12, 1920, 1080, 224),
        (PixelFormat::Nv12, 1920, 1080, 96),
        (PixelFormat::I420, 1920, 1080, 224),
        (PixelFormat::I420, 1920, 1080, 96),
        (PixelFormat::Rgb, 1920, 1080, 224),
        (PixelFormat::Rgb, 1920, 1080, 96),
        (PixelFormat::Bgrx, 1920, 1080, 224),
        (PixelFormat::Yuy2, 1920, 1080, 224),
        (PixelFormat::P010Le10, 1920, 1080, 224),
        (PixelFormat::Nv12, 3840, 2160, 224),
        (PixelFormat::I420, 640, 480, 96),
    ];
    for (format, width, height, size) in cases {
        let info = ImageInfo { format, width, height, matrix: Matrix::Bt709, range: Range::Limited };
        // A slow wave in every plane: in gamut as Y'CbCr.
        let planes: Vec<(Vec<u8>, usize)> = format
            .planes(width, height)
            .into_iter()
            .map(|(row, rows)| {
                let wave =
                    |i: usize| 125.0 + 25.0 * ((i % row) as f32 * 0.01 + (i / row) as f32 * 0.02).sin();
                ((0..row * rows).map(|i| wave(i) as u8).collect(), row)
            })
            .collect();
        let planes: Vec<Plane<'_>> =
            planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        let image = Image::new(info, &planes).expect("the planes have the layout's sizes");
        let geometry = Geometry::ShortestEdge { short: size };
        let rule = Rule { size, geometry, mean: [0.5; 3], std: [0.5; 3] };
        let mut reducer = Reducer::new(rule);

        let fast = reducer.reduce(&image, Roi::WHOLE).expect("the whole picture is a roi");
        let exact = reference::reduce(&rule, &image, Roi::WHOLE).expect("the whole picture is a roi");
        assert!(fast.rgb().iter().zip(&exact).all(|(&f, e)| (f as f64 - e).abs() <= 0.6));

        criterion.bench_function(&format!("reduce/{format:?}-{width}x{height}-{size}/cpu"), |b| {
            b.iter(|| reducer.reduce(black_box(&image), Roi::WHOLE))
        });
    }
}

criterion_group!(benches, reduce);
criterion_main!(benches);
