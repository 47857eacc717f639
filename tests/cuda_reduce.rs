//! Preprocessing on the device: patch rows of the same levels as the CPU's, from any thread, within bounds.
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use cuda_device::{current_context, device};
use gstxclip::backend::DeviceReducer;
use gstxclip::backend::cuda::CudaReducer;
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::preprocess::device::patch_columns;
use gstxclip::preprocess::{Geometry, Reduced, Reducer, Rule, reference};

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

/// The patch rows of a picture on the device, which are its levels, normalised, in patches of side `patch`;
/// those levels as [S, S, 3].
fn levels(reducer: &CudaReducer, rule: &Rule, patch: usize, reduced: &Reduced) -> Vec<u8> {
    let (size, columns) = (rule.size as usize, patch_columns(patch));
    let rows = reducer.patch_rows(reduced).unwrap().expect("it was not prepared yet");
    assert_eq!(rows.len(), (size / patch).pow(2) * columns);
    let mut levels = vec![0; 3 * size * size];
    for (i, row) in rows.chunks(columns).enumerate() {
        let (top, left) = (i / (size / patch) * patch, i % (size / patch) * patch);
        for (at, value) in row.iter().enumerate() {
            let (c, y, x) = (at / (patch * patch), at / patch % patch, at % patch);
            if c > 2 {
                assert_eq!(*value, 0.0, "row {i}, column {at}");
                continue;
            }
            let level = 255.0 * (value * rule.std[c] + rule.mean[c]);
            assert!((level - level.round()).abs() < 0.1, "row {i}, column {at}: level {level}");
            levels[3 * ((top + y) * size + left + x) + c] = level.round() as u8;
        }
    }
    levels
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
    let reducer = CudaReducer::open(64, 16, 0).unwrap();
    for (width, height, roi, surplus, geometry) in cases {
        let rule = rule(64, geometry);
        for format in FORMATS {
            // Near grey, no single pixel leaves the RGB cube, where the reference clamps before the resize.
            let picture = Picture::noise(info(format, width, height, Range::Full), surplus, 110..150);
            let reduced = reducer.reduce(&rule, &picture.image(), roi).expect("these have kernels");
            let exact = reference::reduce(&rule, &picture.image(), roi).unwrap();
            let off = |(level, exact): (&u8, &f64)| (f64::from(*level) - exact).abs();
            let found = levels(&reducer, &rule, 16, &reduced);
            let worst = found.iter().zip(&exact).map(off).fold(0.0, f64::max);
            assert!(worst <= 0.501, "{format:?} {width}x{height}: {worst} levels from the exact value");
        }
    }
}

#[test]
fn levels_are_the_processors_within_one_and_its_own_on_the_host() {
    if device().is_none() {
        return;
    }
    // Patches of 14: rows of a length that is rounded up.
    let rule = rule(98, Geometry::ShortestEdge { short: 98 });
    let (device, mut cpu) = (CudaReducer::open(98, 14, 0).unwrap(), Reducer::new(rule));
    for format in FORMATS {
        let picture = Picture::noise(info(format, 301, 175, Range::Limited), 3, 0..256);
        let reduced = device.reduce(&rule, &picture.image(), Roi::WHOLE).expect("these have kernels");
        let expected = cpu.reduce(&picture.image(), Roi::WHOLE).unwrap();
        assert!(reduced.is_on_device() && !expected.is_on_device());
        assert_eq!(reduced, expected, "{format:?}: what another backend gets");
        let (found, expected) = (levels(&device, &rule, 14, &reduced), expected.rgb());
        let differ: Vec<u8> =
            found.iter().zip(&*expected).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
        assert!(differ.iter().all(|d| *d == 1), "{format:?}: {:?}", differ.iter().max());
        // Only where the exact value is within 0.1 of the middle between two levels, on both sides.
        assert!(differ.len() * 5 < found.len(), "{format:?}: {} differ", differ.len());
        assert_eq!(reduced, Reduced::new(98, expected.into_owned()), "{format:?}: after its rows are gone");
    }
}

#[test]
fn what_the_device_does_not_reduce_is_left_to_the_processor() {
    if device().is_none() {
        return;
    }
    let rule = rule(32, Geometry::Stretch);
    let reducer = CudaReducer::open(32, 16, 0).unwrap();
    let grey = Picture::noise(info(PixelFormat::Gray8, 40, 30, Range::Full), 0, 0..256);
    assert!(reducer.reduce(&rule, &grey.image(), Roi::WHOLE).is_none());
    let bad = Roi { x: 0.5, y: 0.0, w: 0.8, h: 1.0 };
    let picture = Picture::noise(info(PixelFormat::Nv12, 40, 30, Range::Full), 0, 0..256);
    assert!(reducer.reduce(&rule, &picture.image(), bad).is_none());
    let other = Rule { size: 48, ..rule };
    assert!(reducer.reduce(&other, &picture.image(), Roi::WHOLE).is_none());
}

#[test]
fn pictures_beyond_the_slots_are_left_to_the_processor_until_some_come_back() {
    if device().is_none() {
        return;
    }
    let rule = rule(32, Geometry::Stretch);
    let reducer = CudaReducer::open(32, 16, 0).unwrap();
    let picture = Picture::noise(info(PixelFormat::I420, 40, 30, Range::Full), 0, 0..256);
    let reduce = || reducer.reduce(&rule, &picture.image(), Roi::WHOLE);
    let mut kept: Vec<Reduced> = std::iter::from_fn(reduce).take(5000).collect();
    assert!((2..5000).contains(&kept.len()), "{} slots", kept.len());
    let expected = levels(&reducer, &rule, 16, &kept[0]);
    // One was read and one forgotten: two more fit.
    drop(kept.pop());
    for _ in 0..2 {
        let reduced = reduce().expect("there is room again");
        assert_eq!(levels(&reducer, &rule, 16, &reduced), expected);
        kept.push(reduced);
    }
    // Their rows were read, so their slots are free; the pictures themselves are still there.
    let more: Vec<Reduced> = std::iter::from_fn(reduce).take(5000).collect();
    assert_eq!(more.len(), 2);
}

/// More geometries than tables are kept of; nothing waits before the last.
#[test]
fn a_zone_that_moves_with_every_picture_is_followed() {
    if device().is_none() {
        return;
    }
    let rule = rule(32, Geometry::Stretch);
    let (reducer, mut cpu) = (CudaReducer::open(32, 16, 0).unwrap(), Reducer::new(rule));
    let picture = Picture::noise(info(PixelFormat::Nv12, 400, 30, Range::Limited), 0, 0..256);
    let zone = |step: u32| Roi { x: 0.001 * step as f32, y: 0.0, w: 0.5, h: 1.0 };
    let mut kept = Vec::new();
    for step in 0..400 {
        let reduced = reducer.reduce(&rule, &picture.image(), zone(step)).expect("there is room");
        // The others' tables have no owner when they go.
        if step % 50 == 0 {
            kept.push((step, reduced));
        }
    }
    for (step, reduced) in kept {
        let expected = cpu.reduce(&picture.image(), zone(step)).unwrap();
        let found = levels(&reducer, &rule, 16, &reduced);
        let worst = found.iter().zip(&*expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "step {step}: {worst:?}");
    }
}

/// A pipeline's other elements may have a context of their own on the same thread.
#[test]
fn a_cameras_thread_has_the_context_it_had_before() {
    if device().is_none() {
        return;
    }
    let rule = rule(32, Geometry::Stretch);
    let reducer = CudaReducer::open(32, 16, 0).unwrap();
    assert!(!current_context().is_null(), "the thread that opened it is its own");
    let picture = Picture::noise(info(PixelFormat::Nv12, 40, 30, Range::Full), 0, 0..256);
    let camera = move || {
        let reduced = reducer.reduce(&rule, &picture.image(), Roi::WHOLE).expect("there is room");
        assert!(current_context().is_null(), "after a picture");
        // The last owner of all there is on the device.
        drop(reducer);
        drop(reduced);
        assert!(current_context().is_null(), "after the end");
    };
    std::thread::spawn(camera).join().unwrap();
}

#[test]
fn cameras_on_threads_of_their_own_do_not_disturb_each_other() {
    if device().is_none() {
        return;
    }
    let rule = rule(64, Geometry::ShortestEdge { short: 64 });
    let reducer = CudaReducer::open(64, 16, 0).unwrap();
    let camera = |number: u32| {
        let format = FORMATS[number as usize % FORMATS.len()];
        let (width, height) = (90 + 40 * number, 70 + 10 * number);
        let mut cpu = Reducer::new(rule);
        for frame in 0..6 {
            let codes = 20 * frame..20 * frame + 100;
            let picture = Picture::noise(info(format, width, height, Range::Full), number as usize, codes);
            let expected = cpu.reduce(&picture.image(), Roi::WHOLE).unwrap();
            let reduced = reducer.reduce(&rule, &picture.image(), Roi::WHOLE).expect("there is room");
            drop(picture);
            let found = levels(&reducer, &rule, 16, &reduced);
            let worst = found.iter().zip(&*expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(1), "camera {number}, frame {frame}: {worst:?}");
            assert_eq!(reduced, expected, "camera {number}, frame {frame}");
        }
    };
    std::thread::scope(|scope| {
        for number in 0..4 {
            let camera = &camera;
            scope.spawn(move || camera(number));
        }
    });
}
