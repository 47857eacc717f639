//! A stream over the real backend: the same pictures give the same events, whatever surrounds them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstxclip::backend::{Device, Precision};
use gstxclip::detector::{Detector, Mode, Outlet, Settings, Stats, WindowScores};
use gstxclip::engine::{Engine, EngineError, Spec};
use gstxclip::event::json::{Record, schema};
use gstxclip::event::{Event, GateSettings, Phase, Reason, Source, Stamp};
use gstxclip::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range};
use gstxclip::model::labels::{GateOverride, Label, Labels};
use gstxclip::model::{Heads, generate, recipe};
use tempfile::TempDir;

const SIDE: usize = 80;

fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/config.json");
    generate(&config, dir.path(), &mut |_, _| {}).unwrap();
    dir
}

fn engine(dir: &TempDir, threads: usize) -> Arc<Engine> {
    let model = dir.path().to_str().unwrap().into();
    let spec = Spec { model, device: Device::Cpu, precision: Precision::F32, threads, heads: Heads::Hf };
    Engine::open(&spec).unwrap()
}

#[derive(Default)]
struct Notes {
    events: Mutex<Vec<Event>>,
    windows: Mutex<Vec<WindowScores>>,
}

impl Outlet for Notes {
    fn event(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
    fn window(&self, window: &WindowScores) {
        self.windows.lock().unwrap().push(window.clone());
    }
    fn taken_over(&self, why: &str) {
        panic!("{why}");
    }
    fn failed(&self, error: &EngineError) {
        panic!("{error}");
    }
}

const LABELS: [&str; 3] = ["run", "fall", "jump"];

fn labels(names: &[&str], onset: f32) -> Labels {
    let gate = GateOverride { onset: Some(onset), offset: Some(onset), ..GateOverride::default() };
    let label = |name: &&str| Label {
        name: name.to_string(),
        prompts: vec![name.to_string(), format!("{name}s")],
        gate,
        severity: None,
        metadata: Default::default(),
    };
    Labels {
        labels: names.iter().map(label).collect(),
        background: vec!["nothing".into(), "empty".into()],
        temperature: None,
    }
}

fn stamp(ms: u64) -> Stamp {
    let t = Duration::from_millis(ms);
    Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
}

/// Twelve seconds at 10 fps: two scenes that take turns each three seconds.
fn play(detector: &Detector, names: &[&str], onset: f32, change: bool) {
    let format = PixelFormat::Rgb;
    let (width, height) = (SIDE as u32, SIDE as u32);
    let info = ImageInfo { format, width, height, matrix: Matrix::Bt601, range: Range::Full };
    let scenes = [recipe::frames_u8(30, SIDE, SIDE, 1), recipe::frames_u8(30, SIDE, SIDE, 7)];
    for number in 0..120u64 {
        if change && number == 60 {
            detector.set_labels(labels(names, onset)).unwrap();
        }
        let time = stamp(number * 100);
        if detector.wants(&time) {
            let scene = &scenes[(number / 30 % 2) as usize];
            let size = SIDE * SIDE * 3;
            let mut data = scene[(number % 30) as usize * size..][..size].to_vec();
            if (number / 30).is_multiple_of(2) {
                data.iter_mut().for_each(|v| *v /= 4); // the first scene is a dark one
            }
            let image = Image::new(info, &[Plane { data: &data, stride: SIDE * 3 }]).unwrap();
            detector.push(time, &image).unwrap();
        }
    }
    detector.finish(Reason::Eos);
}

fn settings() -> Settings {
    let gate = GateSettings { min_duration_off: Duration::ZERO, ..GateSettings::default() };
    Settings { sample_rate: Some((5, 1)), hop: 1, gate, ..Settings::default() }
}

fn run(engine: Arc<Engine>, mode: Mode, onset: f32) -> (Vec<Event>, Vec<WindowScores>, Stats) {
    let notes = Arc::new(Notes::default());
    let source = Source { instance: "test".into(), stream: "two scenes".into() };
    let detector =
        Detector::new(engine, source, settings(), labels(&LABELS, onset), mode, notes.clone()).unwrap();
    play(&detector, &LABELS[..2], onset, false);
    let stats = detector.stats();
    drop(detector);
    // The worker may be on its way out of the last answer still.
    let begun = Instant::now();
    while Arc::strong_count(&notes) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "a dropped detector leaves nothing behind");
        std::thread::yield_now();
    }
    let notes = Arc::into_inner(notes).expect("counted above");
    (notes.events.into_inner().unwrap(), notes.windows.into_inner().unwrap(), stats)
}

/// A threshold that the first label crosses in this footage.
fn threshold(engine: &Arc<Engine>) -> f32 {
    let (_, windows, _) = run(engine.clone(), Mode::Sync, 1.0);
    let score = |w: &WindowScores| w.top.iter().find(|(label, _)| label == LABELS[0]).unwrap().1;
    let scores: Vec<f32> = windows.iter().map(score).collect();
    let (low, high) = scores.iter().fold((1f32, 0f32), |(l, h), &s| (l.min(s), h.max(s)));
    assert!(high - low > 0.01, "the two scenes differ: {low} to {high}");
    (low + high) / 2.0
}

#[test]
fn the_same_pictures_give_the_same_events_whatever_the_thread_count() {
    let dir = checkpoint();
    let two = engine(&dir, 2);
    let onset = threshold(&two);
    let (events, windows, stats) = run(two.clone(), Mode::Sync, onset);
    assert_eq!((stats.frames, stats.sampled, stats.windows), (120, 60, 57));
    assert!(stats.dropped.is_empty());
    assert!(events.iter().filter(|e| e.phase == Phase::Start).count() >= 2, "{events:?}");
    let bare = |events: &[Event]| {
        let bare = |e: &Event| (e.label.clone(), e.phase, e.reason, e.seq, e.start, e.detected, e.end);
        events.iter().map(bare).collect::<Vec<_>>()
    };
    for engine in [two, engine(&dir, 1), engine(&dir, 3)] {
        let (again, scores, _) = run(engine, Mode::Sync, onset);
        assert_eq!(bare(&events), bare(&again));
        for (a, b) in windows.iter().zip(&scores) {
            for ((label, p), (other, q)) in a.top.iter().zip(&b.top) {
                assert!(label == other && (p - q).abs() <= 1e-4, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn async_scores_the_windows_it_takes_as_sync_does_and_counts_the_rest() {
    let dir = checkpoint();
    let engine = engine(&dir, 2);
    let onset = threshold(&engine);
    let (_, all, _) = run(engine.clone(), Mode::Sync, onset);
    let (events, some, stats) = run(engine, Mode::Async, onset);
    assert!(!some.is_empty() && some.iter().all(|window| all.contains(window)));
    assert_eq!(stats.windows + stats.dropped.values().sum::<u64>(), 57);
    assert_eq!((stats.windows, stats.queue), (some.len() as u64, 0));
    let count = |phase| events.iter().filter(|e| e.phase == phase).count();
    assert_eq!(count(Phase::Start), count(Phase::End));
}

#[test]
fn sync_waits_for_the_load() {
    let dir = checkpoint();
    let (_, windows, stats) = run(engine(&dir, 1), Mode::Sync, 1.0);
    assert_eq!((windows.len() as u64, stats.windows), (57, 57), "none was lost to the load");
}

#[test]
fn events_of_a_stream_keep_to_the_schema() {
    let dir = checkpoint();
    let engine = engine(&dir, 2);
    let (events, _, _) = run(engine.clone(), Mode::Sync, threshold(&engine));
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    for event in &events {
        let json = serde_json::to_value(Record::from(event)).unwrap();
        validator.validate(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
        assert_eq!(event.model, engine.model().fingerprint());
    }
    assert!(!events.is_empty());
}

#[test]
fn labels_changed_half_way_are_taken_over_with_the_next_window() {
    let dir = checkpoint();
    let engine = engine(&dir, 2);
    let notes = Arc::new(Notes::default());
    let (source, start) = (Source::default(), labels(&LABELS, 0.0));
    let detector = Detector::new(engine, source, settings(), start, Mode::Sync, notes.clone()).unwrap();
    play(&detector, &["sit", "fall"], 0.0, true);
    let generations: Vec<_> = notes
        .windows
        .lock()
        .unwrap()
        .iter()
        .map(|w| (w.end.stream_time.as_millis(), w.labels_generation))
        .collect();
    assert!(generations.iter().all(|&(end, generation)| generation == if end < 6000 { 1 } else { 2 }));
    let told: Vec<_> =
        notes.events.lock().unwrap().iter().map(|e| (e.label.clone(), e.phase, e.reason)).collect();
    for gone in ["run", "jump"] {
        assert!(told.contains(&(gone.into(), Phase::End, Reason::LabelRemoved)), "{told:?}");
    }
    assert!(told.contains(&("sit".into(), Phase::Start, Reason::Onset)), "{told:?}");
    let fall: Vec<_> = told.iter().filter(|(l, p, _)| l == "fall" && *p != Phase::Update).collect();
    assert_eq!(fall.len(), 2, "one event over the change: {told:?}");
}
