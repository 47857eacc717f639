//! Streams on the CUDA backend, from pictures as decoders give them to scores: reduced on the device, and the
//! same as on the CPU.
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cuda_device::{device, root, runs, say};
use gstxclip::backend::{Device, Precision};
use gstxclip::detector::{Detector, Mode, Outlet, Settings, Stats, WindowScores};
use gstxclip::engine::{Engine, EngineError, Spec, State};
use gstxclip::event::{Event, Reason, Source, Stamp};
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use gstxclip::model::labels::Labels;
use gstxclip::model::{Heads, generate};
use gstxclip::preprocess::Geometry;
use tempfile::TempDir;

/// Probabilities of two labels; f16 moves a logit by up to 0.02, and a level may be rounded the other way.
const NEAR: f32 = 0.01;
/// Set in the process that loses its device.
const CHILD: &str = "XCLIP_TEST_LOST";

/// One test at a time: kernels are counted per process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// An engine that is ready.
fn engine(device: Device, precision: Precision) -> (TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    generate(&root().join("tests/golden/small/config.json"), dir.path(), &mut |_, _| {}).unwrap();
    let model = dir.path().to_str().unwrap().into();
    let engine = Engine::open(&Spec { model, device, precision, threads: 2, heads: Heads::Hf }).unwrap();
    while matches!(engine.state(), State::Loading) {
        std::thread::sleep(Duration::from_millis(1));
    }
    (dir, engine)
}

#[derive(Default)]
struct Notes {
    windows: Mutex<Vec<WindowScores>>,
    takeovers: Mutex<Vec<String>>,
}

impl Outlet for Notes {
    fn event(&self, _: &Event) {}
    fn window(&self, window: &WindowScores) {
        self.windows.lock().unwrap().push(window.clone());
    }
    fn taken_over(&self, why: &str) {
        self.takeovers.lock().unwrap().push(why.into());
    }
    fn failed(&self, error: &EngineError) {
        panic!("{error}");
    }
}

/// A camera: what it sends, and what is looked at.
#[derive(Clone)]
struct Camera {
    /// Of one frame after the other, in turns.
    formats: Vec<PixelFormat>,
    size: (u32, u32),
    /// Bytes after each row.
    surplus: usize,
    range: Range,
    settings: Settings,
}

fn camera(formats: &[PixelFormat], size: (u32, u32), surplus: usize) -> Camera {
    let settings = Settings { sample_rate: Some((5, 1)), hop: 1, ..Settings::default() };
    Camera { formats: formats.to_vec(), size, surplus, range: Range::Limited, settings }
}

impl Camera {
    /// A picture of blocks that move, brighter in every other second.
    fn push(&self, detector: &Detector, frame: usize, time: Stamp) {
        let format = self.formats[frame % self.formats.len()];
        let (width, height) = self.size;
        let info = ImageInfo { format, width, height, matrix: Matrix::Bt709, range: self.range };
        let bright = if (frame / 5).is_multiple_of(2) { 30 } else { 130 };
        let sample = |i: usize, stride: usize| {
            let (x, y) = (i % stride, i / stride);
            (bright + (x / 9 + y / 7 + 3 * frame) % 11 * 8 + (x * 31 + y * 17) % 13) as u8
        };
        let data: Vec<(Vec<u8>, usize)> = (format.planes(width, height).into_iter())
            .map(|(row, rows)| (row + self.surplus, rows))
            .map(|(stride, rows)| ((0..stride * rows).map(|i| sample(i, stride)).collect(), stride))
            .collect();
        let planes: Vec<Plane<'_>> =
            data.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        detector.push(time, &Image::new(info, &planes).unwrap()).unwrap();
    }

    fn detector(&self, engine: &Arc<Engine>, mode: Mode, notes: &Arc<Notes>) -> Arc<Detector> {
        let labels = Labels::parse("run;fall").unwrap();
        let settings = self.settings.clone();
        Detector::new(engine.clone(), Source::default(), settings, labels, mode, notes.clone()).unwrap()
    }

    /// `frames` frames at 5 fps.
    fn push_all(&self, detector: &Detector, frames: usize) {
        for frame in 0..frames {
            let t = Duration::from_millis(200 * frame as u64);
            let time = Stamp { timestamp: t, stream_time: t, running_time: t, utc: None };
            assert!(detector.wants(&time));
            self.push(detector, frame, time);
        }
    }

    /// `frames` frames; all windows.
    fn play(&self, engine: &Arc<Engine>, frames: usize) -> (Vec<WindowScores>, Stats, Vec<String>) {
        let notes = Arc::new(Notes::default());
        let detector = self.detector(engine, Mode::Sync, &notes);
        self.push_all(&detector, frames);
        detector.finish(Reason::Eos);
        let windows = std::mem::take(&mut *notes.windows.lock().unwrap());
        let takeovers = std::mem::take(&mut *notes.takeovers.lock().unwrap());
        (windows, detector.stats(), takeovers)
    }
}

fn assert_near(found: &[WindowScores], expected: &[WindowScores], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.start, found.end), (expected.start, expected.end), "{what}");
        for (label, score) in &found.top {
            let other = expected.top.iter().find(|(other, _)| other == label).expect("the same labels").1;
            assert!((score - other).abs() <= NEAR, "{what}: {label} {score}, on the CPU {other}");
        }
    }
    let scores: Vec<f32> = expected.iter().map(|window| window.top[0].1).collect();
    let (low, high) = scores.iter().fold((1f32, 0f32), |(l, h), &s| (l.min(s), h.max(s)));
    assert!(high - low > 2.0 * NEAR, "{what}: {low} to {high} would pass whatever the pictures are");
}

const FRAMES: usize = 10;
/// T of the small checkpoint is 4.
const WINDOWS: usize = FRAMES - 3;

#[test]
fn a_streams_pictures_are_reduced_on_the_device_and_score_as_on_the_cpu() {
    let _alone = alone();
    if device().is_none() {
        return;
    }
    let (_dir, gpu) = engine(Device::Cuda(0), Precision::Auto);
    let (_other, cpu) = engine(Device::Cpu, Precision::F32);
    let zone = Roi { x: 0.11, y: 0.2, w: 0.6, h: 0.71 };
    let mut cases = vec![
        ("preprocess_nv12", camera(&[PixelFormat::Nv12], (171, 97), 13)),
        ("preprocess_i420", camera(&[PixelFormat::I420], (96, 131), 1)),
        ("preprocess_rgb", camera(&[PixelFormat::Rgb], (133, 75), 0)),
        ("preprocess_rgb", camera(&[PixelFormat::Bgrx], (60, 40), 5)),
    ];
    for (i, (kernel, camera)) in cases.clone().into_iter().enumerate() {
        let settings = Settings {
            roi: zone,
            geometry: (i % 2 == 0).then_some(Geometry::Stretch),
            ..camera.settings.clone()
        };
        cases.push((kernel, Camera { settings, range: Range::Full, ..camera }));
    }
    for (kernel, camera) in cases {
        let what = format!("{kernel} {:?} {:?}", camera.size, camera.settings.roi);
        let before = (runs(kernel), runs("patch_rows"));
        let (found, stats, _) = camera.play(&gpu, FRAMES);
        assert_eq!((stats.sampled, stats.uploaded), (FRAMES as u64, FRAMES as u64), "{what}");
        assert_eq!((stats.windows, stats.dropped.len()), (WINDOWS as u64, 0), "{what}");
        if let (Some(reduced), Some(rows)) = before {
            assert_eq!(runs(kernel), Some(reduced + FRAMES as i64), "{what}: each picture once");
            assert_eq!(runs("patch_rows"), Some(rows), "{what}: no pixels came from the host");
        }
        let (expected, stats, _) = camera.play(&cpu, FRAMES);
        assert_eq!(stats.uploaded, 0);
        assert_near(&found, &expected, &what);
    }
}

#[test]
fn streams_of_the_device_and_of_the_processor_share_batches_and_windows() {
    let _alone = alone();
    if device().is_none() {
        return;
    }
    let (_dir, gpu) = engine(Device::Cuda(0), Precision::Auto);
    let (_other, cpu) = engine(Device::Cpu, Precision::F32);
    use PixelFormat::*;
    // Grey has no kernel; the last camera changes its format with every frame.
    let cameras = [
        (camera(&[Nv12], (160, 90), 0), FRAMES),
        (camera(&[Gray8], (90, 160), 3), 0),
        (camera(&[I420], (64, 64), 0), FRAMES),
        (camera(&[Nv12, Gray8, Rgb, Yuy2], (98, 76), 2), FRAMES / 2),
    ];
    let cameras = cameras.map(|(camera, uploaded)| {
        let gpu = gpu.clone();
        std::thread::spawn(move || (camera.play(&gpu, FRAMES), camera, uploaded))
    });
    for (i, camera) in cameras.into_iter().enumerate() {
        let ((found, stats, _), camera, uploaded) = camera.join().unwrap();
        assert_eq!(stats.uploaded, uploaded as u64, "camera {i}");
        assert_near(&found, &camera.play(&cpu, FRAMES).0, &format!("camera {i}"));
    }
}

/// Live streams, faster than the device, which are flushed and end with windows in work.
#[test]
fn windows_that_are_dropped_leave_their_room_on_the_device_to_others() {
    let _alone = alone();
    if device().is_none() {
        return;
    }
    let (_dir, gpu) = engine(Device::Cuda(0), Precision::Auto);
    let live = || {
        let camera = camera(&[PixelFormat::Nv12], (64, 48), 0);
        let stats = (0..5).map(|_| {
            let detector = camera.detector(&gpu, Mode::Async, &Arc::new(Notes::default()));
            camera.push_all(&detector, 20);
            detector.flush(Reason::Flush);
            camera.push_all(&detector, 20);
            detector.stats()
        });
        stats.collect::<Vec<_>>()
    };
    let stats: Vec<Stats> = std::thread::scope(|scope| {
        let streams = [(); 4].map(|()| scope.spawn(live));
        streams.into_iter().flat_map(|stream| stream.join().unwrap()).collect()
    });
    // More frames than there are slots, of which none was lost.
    assert!(stats.iter().all(|stats| stats.uploaded == 40), "{stats:?}");
    assert!(stats.iter().map(|stats| stats.dropped.values().sum::<u64>()).sum::<u64>() > 0, "{stats:?}");
    let camera = camera(&[PixelFormat::I420], (96, 131), 1);
    let (found, stats, _) = camera.play(&gpu, FRAMES);
    assert_eq!((found.len(), stats.uploaded), (WINDOWS, FRAMES as u64));
}

#[test]
fn a_device_lost_on_the_way_costs_no_window_and_is_told_once() {
    let _alone = alone();
    let camera = camera(&[PixelFormat::Nv12], (171, 97), 13);
    if std::env::var_os(CHILD).is_some() {
        device().expect("the parent has one");
        let (_dir, auto) = engine(Device::Auto, Precision::Auto);
        let (found, stats, told) = camera.play(&auto, 3 * FRAMES);
        assert_eq!((found.len(), stats.dropped.len()), (3 * FRAMES - 3, 0), "{stats:?}");
        // Some frames came before, some after; those in between were reduced twice.
        assert!(stats.uploaded > 4 && stats.uploaded < stats.sampled, "{stats:?}");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("the CPU takes over") && told[0].contains("the GPU was lost in cu"));
        return;
    }
    let Some(gpu) = device() else { return };
    if !gpu.is_emulated() {
        return say("SKIPPED a_device_lost_on_the_way_…: only an emulated device dies on demand");
    }
    let test = "a_device_lost_on_the_way_costs_no_window_and_is_told_once";
    // At different kernels of a frame's and a window's way.
    for kernel in [700, 717, 731] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "yes")
            .env("XCLIP_EMULATED_FAULT", format!("lost:{kernel}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "kernel {kernel}: {said}");
    }
}
