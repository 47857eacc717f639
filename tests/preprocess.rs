//! Pre-processing equals torchvision on RGB and the f64 reference on every format, and never panics.

use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::preprocess::{Geometry, Reducer, Rule, reference};
use proptest::prelude::*;

const FORMATS: [PixelFormat; 13] = [
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Rgba,
    PixelFormat::Bgra,
    PixelFormat::Rgbx,
    PixelFormat::Bgrx,
    PixelFormat::Gray8,
    PixelFormat::Nv12,
    PixelFormat::I420,
    PixelFormat::Y42b,
    PixelFormat::Yuy2,
    PixelFormat::I420Le10,
    PixelFormat::P010Le10,
];

fn rule(size: u32, geometry: Geometry) -> Rule {
    Rule { size, geometry, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
}

fn shortest(short: u32) -> Geometry {
    Geometry::ShortestEdge { short }
}

fn info(format: PixelFormat, width: u32, height: u32) -> ImageInfo {
    ImageInfo { format, width, height, matrix: Matrix::Bt709, range: Range::Limited }
}

/// A small generator, so that pictures follow from one seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

/// A picture that owns its planes.
struct Picture {
    info: ImageInfo,
    planes: Vec<(Vec<u8>, usize)>,
}

impl Picture {
    /// Noise whose single pixels all lie inside the RGB cube, in planes with `padding` bytes a row.
    fn in_gamut(info: ImageInfo, padding: usize, seed: u64) -> Self {
        let mut noise = Noise(seed);
        let layout = info.format.planes(info.width, info.height);
        let planes = layout.iter().enumerate().map(|(plane, &(row, rows))| {
            let stride = row + padding;
            let mut data = vec![0xA5; stride * (rows - 1) + row];
            for y in 0..rows {
                for x in 0..row {
                    data[y * stride + x] = noise.next() as u8;
                }
                if info.format as usize >= PixelFormat::Nv12 as usize {
                    calm(&mut data[y * stride..][..row], info.format, plane, &mut noise);
                }
            }
            (data, stride)
        });
        Self { info, planes: planes.collect() }
    }

    fn image(&self) -> Image<'_> {
        let planes: Vec<Plane<'_>> =
            self.planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        Image::new(self.info, &planes).unwrap()
    }
}

/// Y'CbCr codes that stay inside the RGB cube in every matrix and range. The unused bits of 10-bit
/// words keep their noise.
fn calm(row: &mut [u8], format: PixelFormat, plane: usize, noise: &mut Noise) {
    let mut code =
        |chroma: bool| if chroma { noise.between(100, 156) } else { noise.between(80, 170) } as u16;
    match format {
        PixelFormat::I420Le10 | PixelFormat::P010Le10 => {
            for word in row.chunks_exact_mut(2) {
                let value = code(plane > 0) << 2 | (word[0] & 3) as u16;
                let old = u16::from_le_bytes([word[0], word[1]]);
                let new = match format {
                    PixelFormat::P010Le10 => value << 6 | old & 0x3f,
                    _ => value | old & 0xfc00,
                };
                word.copy_from_slice(&new.to_le_bytes());
            }
        }
        PixelFormat::Yuy2 => row.iter_mut().enumerate().for_each(|(i, b)| *b = code(i % 2 == 1) as u8),
        _ => row.iter_mut().for_each(|b| *b = code(plane > 0) as u8),
    }
}

/// Largest distance between the fast result and the reference before its rounding, in levels.
fn distance(rule: &Rule, image: &Image<'_>, roi: Roi) -> f64 {
    let fast = Reducer::new(*rule).reduce(image, roi).unwrap();
    assert_eq!((fast.size(), fast.rgb().len()), (rule.size, 3 * (rule.size * rule.size) as usize));
    let exact = reference::reduce(rule, image, roi).unwrap();
    fast.rgb().iter().zip(&exact).map(|(&f, e)| (f as f64 - e).abs()).fold(0.0, f64::max)
}

/// Half a level of rounding and a tenth for fixed point.
const EXACT: f64 = 0.6;

#[test]
fn raw_golden_frames_are_within_one_level_of_torchvision() {
    let file = std::fs::read("tests/golden/small/golden.safetensors").unwrap();
    let golden = safetensors::SafeTensors::deserialize(&file).unwrap();
    let raw = golden.tensor("frames_raw_u8").unwrap();
    let expected = golden.tensor("pixel_values_from_raw_torchvision").unwrap();
    assert_eq!((raw.shape(), expected.shape()), (&[4, 96, 134, 3][..], &[4, 3, 64, 64][..]));
    let expected: Vec<f32> =
        expected.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let rule = rule(64, shortest(64));
    let mut reducer = Reducer::new(rule);
    let mut worst = 0.0f32;
    for (frame, expected) in raw.data().chunks_exact(96 * 134 * 3).zip(expected.chunks_exact(3 * 64 * 64)) {
        let planes = [Plane { data: frame, stride: 134 * 3 }];
        let image = Image::new(info(PixelFormat::Rgb, 134, 96), &planes).unwrap();
        let ours = reducer.reduce(&image, Roi::WHOLE).unwrap();
        for (i, &level) in ours.rgb().iter().enumerate() {
            let (pixel, c) = (i / 3, i % 3);
            let theirs = 255.0 * (expected[c * 64 * 64 + pixel] * rule.std[c] + rule.mean[c]);
            worst = worst.max((level as f32 - theirs).abs());
        }
    }
    assert!(worst <= 1.001, "{worst} levels away from torchvision");
}

#[test]
fn any_scale_is_within_one_level_of_the_published_processor() {
    let file = std::fs::read("tests/golden/preprocess.safetensors").unwrap();
    let golden = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut cases = 0;
    for name in golden.names().into_iter().filter_map(|name| name.strip_suffix(".picture")) {
        let numbers: Vec<u32> = name.split(['x', '_']).map(|number| number.parse().unwrap()).collect();
        let [width, height, short, size] = numbers[..] else {
            panic!("{name} is not WIDTHxHEIGHT_SHORT_SIZE")
        };
        let picture = golden.tensor(&format!("{name}.picture")).unwrap();
        let expected = golden.tensor(&format!("{name}.levels")).unwrap();
        let planes = [Plane { data: picture.data(), stride: 3 * width as usize }];
        let image = Image::new(info(PixelFormat::Rgb, width, height), &planes).unwrap();
        let ours = Reducer::new(rule(size, shortest(short))).reduce(&image, Roi::WHOLE).unwrap();
        assert_eq!(ours.rgb().len(), expected.data().len(), "{name}");
        let worst = ours.rgb().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1, "{name}: {worst} levels");
        cases += 1;
    }
    assert_eq!(cases, 9);
}

fn any_geometry() -> impl Strategy<Value = (u32, Geometry)> {
    (1u32..40, 0u32..60).prop_map(|(size, short)| match short {
        0..10 => (size, Geometry::Stretch),
        // Down to half of S: padded.
        _ => (size, shortest(short.max(size / 2 + 1))),
    })
}

fn any_roi() -> impl Strategy<Value = Roi> {
    let part = (0.0f32..0.9, 0.0f32..0.9, 0.01f32..1.0, 0.01f32..1.0)
        .prop_map(|(x, y, w, h)| Roi::new(x, y, w.min(1.0 - x), h.min(1.0 - y)).unwrap());
    prop_oneof![Just(Roi::WHOLE), part]
}

fn any_info() -> impl Strategy<Value = ImageInfo> {
    let matrix = prop_oneof![Just(Matrix::Bt601), Just(Matrix::Bt709), Just(Matrix::Bt2020)];
    let range = prop_oneof![Just(Range::Limited), Just(Range::Full)];
    let side = || prop_oneof![1u32..8, 8u32..120];
    (prop::sample::select(&FORMATS[..]), side(), side(), matrix, range)
        .prop_map(|(format, width, height, matrix, range)| ImageInfo { format, width, height, matrix, range })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_format_size_stride_and_roi_equals_the_reference(
        info in any_info(), (size, geometry) in any_geometry(), roi in any_roi(), padding in 0usize..9, seed: u64,
    ) {
        // Bright grey codes leave 0..255 in limited range, where the reference clamps each pixel.
        let range = if info.format == PixelFormat::Gray8 { Range::Full } else { info.range };
        let picture = Picture::in_gamut(ImageInfo { range, ..info }, padding, seed);
        let worst = distance(&rule(size, geometry), &picture.image(), roi);
        prop_assert!(worst <= EXACT, "{worst} levels from the reference");
    }

    #[test]
    fn one_reducer_serves_changing_pictures(infos in prop::collection::vec(any_info(), 2..5), seed: u64) {
        let rule = rule(17, shortest(20));
        let mut kept = Reducer::new(rule);
        for info in infos.iter().chain(&infos) {
            let picture = Picture::in_gamut(*info, 3, seed);
            let fresh = Reducer::new(rule).reduce(&picture.image(), Roi::WHOLE).unwrap();
            prop_assert_eq!(kept.reduce(&picture.image(), Roi::WHOLE).unwrap(), fresh);
        }
    }

    #[test]
    fn no_input_panics(
        info in any_info(), wild_size in any::<Option<(u32, u32)>>(),
        (size, geometry) in any_geometry(), short in 0u32..4,
        planes in prop::collection::vec((0usize..40_000, prop_oneof![0usize..500, any::<usize>()]), 0..4),
        x: f32, y: f32, w: f32, h: f32, seed: u64,
    ) {
        let (width, height) = wild_size.unwrap_or((info.width, info.height));
        let info = ImageInfo { width, height, ..info };
        let mut noise = Noise(seed);
        let data: Vec<Vec<u8>> =
            planes.iter().map(|&(n, _)| (0..n).map(|_| noise.next() as u8).collect()).collect();
        let planes: Vec<Plane<'_>> =
            data.iter().zip(&planes).map(|(data, &(_, stride))| Plane { data, stride }).collect();
        if let Ok(image) = Image::new(info, &planes) {
            let geometry = if short < 2 { shortest(short) } else { geometry };
            let mut reducer = Reducer::new(rule(size, geometry));
            prop_assert!(reducer.reduce(&image, Roi::WHOLE).is_ok());
            // Fields are public: any floats may come.
            let _ = reducer.reduce(&image, Roi { x, y, w, h });
            let _ = Reducer::new(rule(0, geometry)).reduce(&image, Roi::WHOLE);
        }
    }
}

#[test]
fn every_format_and_colorimetry_is_within_the_bound_at_video_size() {
    for format in FORMATS {
        for (matrix, range) in [(Matrix::Bt601, Range::Limited), (Matrix::Bt709, Range::Full)] {
            let range = if format == PixelFormat::Gray8 { Range::Full } else { range };
            let picture = Picture::in_gamut(ImageInfo { matrix, range, ..info(format, 321, 181) }, 5, 7);
            let worst = distance(&rule(96, shortest(96)), &picture.image(), Roi::WHOLE);
            assert!(worst <= EXACT, "{format:?} {matrix:?} {range:?}: {worst} levels from the reference");
        }
    }
}

/// RGB → I420 by hand, chroma filtered as an MPEG-2 encoder does, then through both paths.
#[test]
fn yuv_of_a_rendered_picture_shows_its_colours() {
    let (width, height) = (160usize, 120usize);
    let rgb = |x: usize, y: usize| {
        let (u, v) = (x as f64 / width as f64, y as f64 / height as f64);
        [60.0 + 120.0 * u, 200.0 - 130.0 * v, 90.0 + 60.0 * (6.0 * u).sin() * (5.0 * v).cos()]
    };
    let ycc = |[r, g, b]: [f64; 3]| {
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        [
            16.0 + y * 219.0 / 255.0,
            128.0 + (b - y) / 1.8556 * 224.0 / 255.0,
            128.0 + (r - y) / 1.5748 * 224.0 / 255.0,
        ]
    };
    let luma: Vec<u8> =
        (0..width * height).map(|i| ycc(rgb(i % width, i / width))[0].round() as u8).collect();
    let chroma = |c: usize| -> Vec<u8> {
        let sample = |x: usize, y: usize| (ycc(rgb(x, y))[c] + ycc(rgb(x, y + 1))[c]) / 2.0;
        (0..width * height / 4).map(|i| sample(2 * (i % 80), 2 * (i / 80)).round() as u8).collect()
    };
    let (cb, cr) = (chroma(1), chroma(2));
    let planes = [(&luma, 160), (&cb, 80), (&cr, 80)].map(|(data, stride)| Plane { data, stride });
    let image = Image::new(info(PixelFormat::I420, 160, 120), &planes).unwrap();
    let ours = Reducer::new(rule(60, shortest(60))).reduce(&image, Roi::WHOLE).unwrap();

    let packed: Vec<u8> =
        (0..width * height).flat_map(|i| rgb(i % width, i / width).map(|v| v.round() as u8)).collect();
    let planes = [Plane { data: &packed, stride: 480 }];
    let image = Image::new(info(PixelFormat::Rgb, 160, 120), &planes).unwrap();
    let truth = Reducer::new(rule(60, shortest(60))).reduce(&image, Roi::WHOLE).unwrap();
    let worst = ours.rgb().iter().zip(&*truth.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 2, "{worst} levels from the picture before its conversion");
}

#[test]
fn grey_of_limited_range_is_stretched_and_clamped() {
    let data = [0, 16, 126, 235, 255];
    let planes = [Plane { data: &data, stride: 5 }];
    let image = Image::new(info(PixelFormat::Gray8, 5, 1), &planes).unwrap();
    let mut reducer = Reducer::new(rule(1, Geometry::Stretch));
    let mut level = |i: usize| {
        let roi = Roi::new(i as f32 / 5.0, 0.0, 0.2, 1.0).unwrap();
        reducer.reduce(&image, roi).unwrap().rgb().into_owned()
    };
    let levels: Vec<Vec<u8>> = (0..5).map(&mut level).collect();
    assert_eq!(levels, [[0; 3], [0; 3], [128; 3], [255; 3], [255; 3]]);
}

#[test]
fn roi_takes_whole_pixels_outward() {
    let pixels = |x, w, of| {
        let r = Roi::new(x, 0.0, w, 1.0).unwrap().rectangle(of, 1).unwrap();
        (r.x, r.width)
    };
    assert_eq!(pixels(0.0, 1.0, 640), (0, 640));
    assert_eq!(pixels(0.1, 0.2, 640), (64, 128), "fractions that f32 cannot hold still name whole pixels");
    assert_eq!(pixels(0.101, 0.2, 640), (64, 129));
    assert_eq!(pixels(0.999, 0.001, 3), (2, 1));
    assert_eq!(pixels(1.0, 0.0001, 3), (2, 1));
    assert_eq!(pixels(0.5, 1e-6, 32768), (16384, 1));
}

#[test]
fn extreme_aspect_ratio_reads_the_crop_only() {
    for (width, height) in [(4000, 8), (8, 4000), (32768, 1), (1, 32768), (3, 1), (1, 1), (2, 2)] {
        for format in [PixelFormat::I420, PixelFormat::Yuy2, PixelFormat::Rgb, PixelFormat::P010Le10] {
            let picture = Picture::in_gamut(info(format, width, height), 1, 3);
            let worst = distance(&rule(32, shortest(36)), &picture.image(), Roi::WHOLE);
            assert!(worst <= EXACT, "{format:?} {width}×{height}: {worst}");
        }
    }
}

#[test]
fn steep_reductions_stay_exact() {
    // More than 128 rows to one: another path.
    for format in [PixelFormat::Gray8, PixelFormat::Nv12, PixelFormat::P010Le10, PixelFormat::I420Le10] {
        let range = Range::Full;
        for (size, height) in [(2, 500), (3, 180)] {
            let picture = Picture::in_gamut(ImageInfo { range, ..info(format, 700, height) }, 0, 11);
            let worst = distance(&rule(size, shortest(size)), &picture.image(), Roi::WHOLE);
            assert!(worst <= EXACT, "{format:?} {height} → {size}: {worst}");
        }
    }
}

#[test]
fn white_stays_white_and_black_black_at_any_scale() {
    for (format, white, black) in [(PixelFormat::Rgb, 255, 0), (PixelFormat::Gray8, 235, 16)] {
        for (side, size) in [(2000, 8), (2000, 224), (100, 224), (1, 5), (1000, 1)] {
            for (code, level) in [(white, 255), (black, 0)] {
                let (row, rows) = format.planes(side, side)[0];
                let data = vec![code; row * rows];
                let planes = [Plane { data: &data, stride: row }];
                let image = Image::new(info(format, side, side), &planes).unwrap();
                let result = Reducer::new(rule(size, shortest(size))).reduce(&image, Roi::WHOLE).unwrap();
                assert!(result.rgb().iter().all(|&v| v == level), "{format:?} {side} → {size}");
            }
        }
    }
}

#[test]
fn an_8k_picture_is_reduced() {
    let picture = Picture::in_gamut(info(PixelFormat::Nv12, 7680, 4320), 64, 1);
    let rule = rule(224, shortest(256));
    let result = Reducer::new(rule).reduce(&picture.image(), Roi::WHOLE).unwrap();
    // Noise of mean Y 125 and neutral chroma: grey.
    let grey = (125.0 - 16.0) / 219.0 * 255.0;
    let mean = result.rgb().iter().map(|&v| v as f64).sum::<f64>() / result.rgb().len() as f64;
    assert!((mean - grey).abs() < 1.0, "mean {mean}, not {grey}");
    let corner = Roi::new(0.95, 0.95, 0.05, 0.05).unwrap();
    assert!(distance(&rule, &picture.image(), corner) <= EXACT);
}

#[test]
fn a_roi_outside_the_picture_is_an_error_not_a_panic() {
    let data = [0; 12];
    let image = Image::new(info(PixelFormat::Rgb, 2, 2), &[Plane { data: &data, stride: 6 }]).unwrap();
    let mut reducer = Reducer::new(rule(4, shortest(4)));
    for (x, y, w, h) in
        [(f32::NAN, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.6, 1.0), (-0.1, 0.0, 1.0, 1.0)]
    {
        let error = reducer.reduce(&image, Roi { x, y, w, h }).unwrap_err();
        assert!(error.to_string().contains("fractions"), "{error}");
    }
}

#[test]
fn pictures_with_too_few_bytes_are_refused_by_name() {
    let data = [0u8; 64];
    let plane = |stride| Plane { data: &data, stride };
    let of =
        |planes: &[Plane<'_>]| Image::new(info(PixelFormat::Nv12, 7, 8), planes).unwrap_err().to_string();
    assert_eq!(of(&[plane(7)]), "Nv12 has 2 planes, the buffer has 1");
    assert_eq!(
        of(&[plane(7), plane(7)]),
        "plane 1 of a Nv12 7×8 picture: stride 7 is below the row's 8 bytes"
    );
    assert_eq!(of(&[plane(9), plane(8)]), "plane 0 of a Nv12 7×8 picture: needs 70 bytes, the buffer has 64");
    assert!(of(&[plane(usize::MAX), plane(8)]).contains("needs 18446744073709551615 bytes"));
}
