//! The detector's promises over a backend that scores as told: bit k of a grey picture's value says
//! whether label k is to be seen.

mod turmoil;

use super::*;
use crate::engine::State as EngineState;
use crate::engine::scripted::{BAD, Bench, Score, bench, loading, lock, wait_until};
use crate::event::{Event, GateSettings, Phase};
use crate::image::{ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use crate::model::labels::{GateOverride, Label};
use crate::preprocess::Geometry;
use crate::score::Competition;

/// The test tokenizer has a token per byte: `a`, `bb`, `ccc` are labels 0, 1, 2; longer is background.
const BITS: Score = |value, ids| match ids.len() - 3 {
    bit @ 0..=2 => (f32::from((value >> bit) & 1) - 0.5) * 10.0,
    _ => 0.0,
};

#[derive(Default)]
struct Notes {
    events: Mutex<Vec<Event>>,
    windows: Mutex<Vec<WindowScores>>,
    failures: Mutex<Vec<String>>,
}

impl Outlet for Notes {
    fn event(&self, event: &Event) {
        lock(&self.events).push(event.clone());
    }
    fn window(&self, window: &WindowScores) {
        lock(&self.windows).push(window.clone());
    }
    fn taken_over(&self, why: &str) {
        panic!("{why}");
    }
    fn failed(&self, error: &EngineError) {
        lock(&self.failures).push(error.to_string());
    }
}

impl Notes {
    /// Label, phase, reason, generation of every event so far.
    fn told(&self) -> Vec<(String, Phase, Reason, u64)> {
        let tell = |e: &Event| (e.label.clone(), e.phase, e.reason, e.labels_generation);
        lock(&self.events).iter().map(tell).collect()
    }

    /// (first, last) frame of every window in ms.
    fn spans(&self) -> Vec<(u128, u128)> {
        let ms = |s: Stamp| s.stream_time.as_millis();
        lock(&self.windows).iter().map(|w| (ms(w.start), ms(w.end))).collect()
    }
}

fn labels(names: &[&str]) -> Labels {
    let label = |name: &&str| Label {
        name: name.to_string(),
        prompts: Vec::new(),
        gate: GateOverride::default(),
        severity: Some("high".into()),
        metadata: Default::default(),
    };
    Labels {
        labels: names.iter().map(label).collect(),
        background: vec!["nothing".into()],
        temperature: None,
    }
}

/// Four frames a second, so a window of T = 4 is a second long; one each two frames.
fn settings() -> Settings {
    let zero = Duration::ZERO;
    let (onset, offset) = (0.6, 0.4);
    let gate =
        GateSettings { onset, offset, smoothing: zero, min_duration_off: zero, ..GateSettings::default() };
    Settings { sample_rate: Some((4, 1)), gate, ..Settings::default() }
}

struct Rig {
    detector: Arc<Detector>,
    notes: Arc<Notes>,
    bench: Bench,
}

fn rig(mode: Mode, gated: bool, names: &[&str]) -> Rig {
    let bench = bench(gated, BITS);
    let notes = Arc::new(Notes::default());
    let source = Source { instance: "test".into(), stream: "cam".into() };
    let outlet: Arc<dyn Outlet> = notes.clone();
    let detector = Detector::new(bench.engine.clone(), source, settings(), labels(names), mode, outlet);
    Rig { detector: detector.unwrap(), notes, bench }
}

fn stamp(ms: u64) -> Stamp {
    let t = Duration::from_millis(ms);
    Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
}

/// Shows a frame of `value` at `ms`, as the element does.
fn show(detector: &Detector, ms: u64, value: u8) {
    let format = PixelFormat::Gray8;
    let info = ImageInfo { format, width: 64, height: 64, matrix: Matrix::Bt601, range: Range::Full };
    let data = vec![value; 64 * 64];
    let image = Image::new(info, &[Plane { data: &data, stride: 64 }]).unwrap();
    if detector.wants(&stamp(ms)) {
        detector.push(stamp(ms), &image).unwrap();
    }
}

/// Frames of `value` each 250 ms in [from, to).
fn play(detector: &Detector, from: u64, to: u64, value: u8) {
    (from..to).step_by(250).for_each(|ms| show(detector, ms, value));
}

use Phase::{End, Start};
use Reason::*;

fn is(told: &[(String, Phase, Reason, u64)], expected: &[(&str, Phase, Reason, u64)]) {
    let expected: Vec<_> = expected.iter().map(|&(l, p, r, g)| (l.to_string(), p, r, g)).collect();
    assert_eq!(told, expected);
}

#[test]
fn an_action_becomes_one_event_with_the_right_times() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a", "bb"]);
    play(&detector, 0, 2000, 0);
    play(&detector, 2000, 5000, 1);
    play(&detector, 5000, 7000, 0);
    is(&notes.told(), &[("a", Start, Onset, 1), ("a", End, Offset, 1)]);
    let events = lock(&notes.events);
    let ms = |s: Stamp| s.stream_time.as_millis();
    // Windows end at 750, 1250, …; the first to see it is 1500–2250.
    assert_eq!((ms(events[0].start), ms(events[0].detected)), (1875, 2250));
    assert_eq!(events[1].end.map(ms), Some(4875));
    assert_eq!((events[0].id, events[0].seq, events[1].seq), (events[1].id, 1, 2));
    assert_eq!((events[0].source.stream.as_str(), events[0].severity.as_deref()), ("cam", Some("high")));
    assert_eq!(events[0].top[0].0, "a");
    assert_eq!(events[0].top.len(), 2);
    assert_eq!(notes.spans()[..3], [(0, 750), (500, 1250), (1000, 1750)]);
    let stats = detector.stats();
    assert_eq!((stats.frames, stats.sampled, stats.windows), (28, 28, 13));
    assert_eq!((stats.starts, stats.updates, stats.ends, stats.queue), (1, 0, 1, 0));
    assert!(stats.dropped.is_empty() && stats.delay_p95 >= stats.delay_p50);
}

#[test]
fn the_same_frames_give_the_same_events_but_for_ids() {
    let run = |mode| {
        let Rig { detector, notes, bench: _bench } = rig(mode, false, &["a", "bb", "ccc"]);
        for second in 0..60u64 {
            play(&detector, second * 1000, (second + 1) * 1000, (second * 7919 % 8) as u8);
            // Async loses windows only when it is busy.
            wait_until(|| detector.stats().queue == 0);
        }
        detector.finish(Eos);
        let mut events = lock(&notes.events).clone();
        events.iter_mut().for_each(|e| e.id = uuid::Uuid::nil());
        events
    };
    let events = run(Mode::Sync);
    assert!(events.len() > 20);
    assert_eq!(events, run(Mode::Sync));
}

#[test]
fn async_never_waits_counts_what_it_drops_and_finish_waits_for_the_rest() {
    let Rig { detector, notes, bench } = rig(Mode::Async, true, &["a"]);
    play(&detector, 0, 1000, 1);
    bench.begun.recv().unwrap();
    play(&detector, 1000, 10_000, 1);
    let stats = detector.stats();
    assert_eq!((stats.windows, stats.queue), (0, 2), "one in work, one pending");
    let windows = (40 - 4) / 2 + 1;
    assert_eq!(stats.dropped["superseded"], windows - 2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| detector.finish(Eos));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(bench.gate);
    });
    is(&notes.told(), &[("a", Start, Onset, 1), ("a", End, Eos, 1)]);
    assert_eq!(lock(&notes.events)[1].end, Some(stamp(9750)), "the last frame seen");
    let stats = detector.stats();
    assert_eq!(stats.windows + stats.dropped["superseded"], windows);
    assert_eq!(stats.queue, 0);
}

#[test]
fn async_counts_windows_dropped_while_the_model_loads_and_sync_waits() {
    for mode in [Mode::Async, Mode::Sync] {
        let (engine, go) = loading(BITS);
        let notes = Arc::new(Notes::default());
        let detector =
            Detector::new(engine.clone(), Source::default(), settings(), labels(&["a"]), mode, notes.clone());
        let detector = detector.unwrap();
        std::thread::scope(|scope| {
            let playing = scope.spawn(|| play(&detector, 0, 2000, 1));
            wait_until(|| detector.stats().frames >= 4);
            if mode == Mode::Async {
                playing.join().unwrap();
                assert_eq!(detector.stats().dropped["loading"], 3);
                is(&notes.told(), &[]);
            }
            go.send(()).unwrap();
        });
        wait_until(|| !matches!(engine.state(), EngineState::Loading));
        play(&detector, 2000, 2500, 1);
        detector.finish(Eos);
        assert_eq!(detector.stats().windows, if mode == Mode::Sync { 4 } else { 1 });
        is(&notes.told(), &[("a", Start, Onset, 1), ("a", End, Eos, 1)]);
    }
}

#[test]
fn nothing_comes_out_for_windows_that_were_flushed() {
    let Rig { detector, notes, bench } = rig(Mode::Async, true, &["a"]);
    play(&detector, 0, 1000, 1);
    bench.begun.recv().unwrap();
    play(&detector, 1000, 1500, 1);
    assert_eq!(detector.stats().queue, 2);
    detector.flush(Flush);
    assert_eq!((detector.stats().queue, detector.stats().dropped["flushed"]), (0, 2));
    detector.finish(Eos); // nothing to wait for, though a window is in work
    play(&detector, 500, 1000, 0);
    drop(bench.gate);
    // The worker is free again when it has scored a window from after the flush.
    play(&detector, 1000, 2000, 0);
    wait_until(|| detector.stats().windows > 0);
    is(&notes.told(), &[]);
    assert!(notes.spans().iter().all(|&(first, last)| first >= 500 && last < 2000), "{:?}", notes.spans());
}

#[test]
fn a_flush_ends_open_events_and_wakes_a_waiting_push() {
    let Rig { detector, notes, bench } = rig(Mode::Sync, true, &["a"]);
    bench.gate.send(()).unwrap();
    play(&detector, 0, 1000, 1);
    is(&notes.told(), &[("a", Start, Onset, 1)]);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| play(&detector, 1000, 1500, 1));
        bench.begun.recv().unwrap();
        bench.begun.recv().unwrap();
        assert!(!pushing.is_finished());
        detector.flush(Flush);
        pushing.join().unwrap();
    });
    is(&notes.told(), &[("a", Start, Onset, 1), ("a", End, Flush, 1)]);
    assert_eq!(detector.stats().dropped["flushed"], 1);
    assert!(detector.active().is_empty());
}

#[test]
fn while_interrupted_no_push_waits() {
    let Rig { detector, bench, .. } = rig(Mode::Sync, true, &["a"]);
    detector.interrupt(true);
    play(&detector, 0, 2000, 1);
    assert_eq!(detector.stats().dropped["flushed"], 3);
    detector.interrupt(false);
    drop(bench.gate);
    play(&detector, 2000, 2500, 1);
    assert_eq!(detector.stats().windows, 1);
}

#[test]
fn replaced_labels_end_their_events_and_kept_ones_go_on() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a", "bb"]);
    play(&detector, 0, 1000, 3);
    let id = lock(&notes.events).iter().find(|e| e.label == "bb").unwrap().id;
    assert_eq!(detector.set_labels(labels(&["ccc", "bb"])).unwrap(), 2);
    is(&notes.told()[2..], &[("a", End, LabelRemoved, 1)]);
    assert_eq!(lock(&notes.events)[2].end, Some(stamp(750)));
    play(&detector, 1000, 2000, 4 | 2);
    play(&detector, 2000, 3000, 4);
    is(&notes.told()[3..], &[("ccc", Start, Onset, 2), ("bb", End, Offset, 2)]);
    let events = lock(&notes.events);
    assert_eq!((events[4].id, events[4].seq), (id, 2));
    assert_eq!(detector.active().len(), 1);
    assert_eq!(detector.labels_generation(), 2);
}

#[test]
fn a_window_scored_with_old_labels_starts_no_event_of_a_removed_one() {
    let Rig { detector, notes, bench } = rig(Mode::Async, true, &["a", "bb"]);
    play(&detector, 0, 1000, 3);
    bench.begun.recv().unwrap();
    detector.set_labels(labels(&["bb"])).unwrap();
    drop(bench.gate);
    wait_until(|| detector.stats().windows == 1);
    is(&notes.told(), &[("bb", Start, Onset, 1)]);
}

#[test]
fn bad_labels_leave_the_old_set_and_name_the_fault() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    play(&detector, 0, 1000, 1);
    for (names, fault) in [
        (vec!["a", "a"], "`a` is there twice"),
        (vec!["a", ""], "label 2 is empty"),
        (vec!["a label far beyond sixteen tokens"], "label `a label far beyond sixteen tokens`"),
    ] {
        let message = detector.set_labels(labels(&names)).unwrap_err().to_string();
        assert!(message.contains(fault), "{message}");
    }
    let long = detector.set_labels(labels(&["a label far beyond sixteen tokens"])).unwrap_err().to_string();
    assert!(long.contains("16") && long.contains("tokens"), "{long}");
    assert_eq!((detector.labels_generation(), detector.active().len()), (1, 1));
    is(&notes.told(), &[("a", Start, Onset, 1)]);
}

#[test]
fn without_labels_nothing_is_scored_until_some_come() {
    let Rig { detector, .. } = rig(Mode::Sync, false, &[]);
    play(&detector, 0, 2000, 1);
    assert_eq!(detector.stats().windows, 0);
    detector.set_labels(labels(&["a"])).unwrap();
    play(&detector, 2000, 2500, 1);
    assert_eq!((detector.stats().windows, detector.active().len()), (1, 1));
}

#[test]
fn a_restart_keeps_events_open_and_mixes_no_window() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    play(&detector, 0, 2500, 1);
    detector.restart(None);
    play(&detector, 2500, 4500, 1);
    is(&notes.told(), &[("a", Start, Onset, 1)]);
    assert!(notes.spans().iter().all(|&(first, last)| last < 2500 || first >= 2500), "{:?}", notes.spans());
    detector.restart(Some(Discontinuity));
    is(&notes.told()[1..], &[("a", End, Discontinuity, 1)]);
    assert_eq!(detector.stats().restarts, 2);
}

#[test]
fn a_gap_begins_a_new_window_and_a_stall_s_length_ends_events() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    assert_eq!(detector.window_span(), Duration::from_secs(1));
    assert_eq!(detector.stall_timeout(), Duration::from_secs(2));
    play(&detector, 0, 2000, 1);
    play(&detector, 3000, 5000, 1); // 1.25 s: longer than the window, shorter than a stall
    is(&notes.told(), &[("a", Start, Onset, 1)]);
    play(&detector, 6800, 8000, 1); // 2.05 s
    is(&notes.told()[1..], &[("a", End, Discontinuity, 1), ("a", Start, Onset, 1)]);
    assert_eq!(lock(&notes.events)[1].end, Some(stamp(4750)));
    assert!(lock(&notes.events)[2].start.stream_time > Duration::from_millis(6800));
    let breaks = [2000, 6000];
    let whole = |&(first, last): &(u128, u128)| breaks.iter().all(|&b| last < b || first >= b);
    assert!(notes.spans().iter().all(whole), "{:?}", notes.spans());
}

#[test]
fn time_that_goes_back_ends_events_and_disorder_does_not() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    play(&detector, 5000, 7000, 1);
    show(&detector, 6600, 1);
    show(&detector, 6750, 1);
    play(&detector, 7000, 8000, 1);
    is(&notes.told(), &[("a", Start, Onset, 1)]);
    play(&detector, 1000, 2000, 1);
    is(&notes.told()[1..], &[("a", End, Discontinuity, 1), ("a", Start, Onset, 1)]);
    assert_eq!(lock(&notes.events)[1].end, Some(stamp(7750)));
    assert_eq!(notes.spans().last(), Some(&(1000, 1750)));
}

#[test]
fn a_seek_by_flush_may_go_anywhere() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    play(&detector, 50_000, 51_000, 1);
    detector.flush(Flush);
    play(&detector, 1000, 2000, 1);
    detector.flush(Stalled);
    play(&detector, 90_000, 91_000, 1);
    let reasons: Vec<_> = notes.told().into_iter().map(|(_, _, reason, _)| reason).collect();
    assert_eq!(reasons, [Onset, Flush, Onset, Stalled, Onset]);
}

#[test]
fn a_new_rate_roi_or_resize_begins_a_window_and_a_new_hop_or_gate_does_not() {
    let half = Roi::new(0.0, 0.0, 0.5, 1.0).unwrap();
    type Change = fn(&mut Settings, Roi);
    let changes: [(bool, Change); 7] = [
        (true, |s, _| s.sample_rate = Some((5, 1))),
        (true, |s, half| s.roi = half),
        (true, |s, _| s.geometry = Some(Geometry::Stretch)),
        (false, |s, _| s.hop = 1),
        (false, |s, _| s.gate.onset = 0.9),
        (false, |s, _| s.competition = Competition::Labels),
        (false, |s, _| s.background = Some(vec!["a quiet place".into()])),
    ];
    for (number, (restarts, change)) in changes.into_iter().enumerate() {
        let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
        play(&detector, 0, 1000, 1);
        let mut settings = settings();
        change(&mut settings, half);
        detector.set_settings(settings).unwrap();
        play(&detector, 1000, 3000, 1);
        let mixed = notes.spans().iter().any(|&(first, last)| first < 1000 && last >= 1000);
        assert_eq!(mixed, !restarts, "change {number}: {:?}", notes.spans());
        assert_eq!(detector.labels_generation(), if number >= 5 { 2 } else { 1 });
        assert_eq!(notes.told().len(), 1, "the event goes on: {:?}", notes.told());
    }
}

#[test]
fn settings_out_of_range_change_nothing() {
    let Rig { detector, .. } = rig(Mode::Sync, false, &["a"]);
    let bad = Settings { hop: 0, sample_rate: Some((8, 1)), ..settings() };
    assert!(detector.set_settings(bad).unwrap_err().to_string().contains("hop"));
    let none = Settings { background: Some(Vec::new()), sample_rate: Some((8, 1)), ..settings() };
    assert!(detector.set_settings(none).unwrap_err().to_string().contains("background"));
    assert_eq!(detector.window_span(), Duration::from_secs(1));
}

#[test]
fn a_failing_window_is_told_once_and_the_stream_goes_on() {
    let Rig { detector, notes, .. } = rig(Mode::Sync, false, &["a"]);
    play(&detector, 0, 3000, BAD);
    assert_eq!((detector.stats().dropped["failed"], lock(&notes.failures).len()), (5, 1));
    play(&detector, 3000, 4000, 1);
    assert_eq!(detector.active().len(), 1);
    play(&detector, 4000, 5000, BAD);
    assert_eq!(lock(&notes.failures).len(), 2, "told again after it had worked");
}

#[test]
fn a_frame_nobody_agreed_to_is_ignored() {
    let Rig { detector, .. } = rig(Mode::Sync, false, &["a"]);
    let format = PixelFormat::Gray8;
    let info = ImageInfo { format, width: 64, height: 64, matrix: Matrix::Bt601, range: Range::Full };
    let data = vec![1; 64 * 64];
    let image = Image::new(info, &[Plane { data: &data, stride: 64 }]).unwrap();
    for ms in (0..4000).step_by(250) {
        assert!(detector.wants(&stamp(ms)));
        detector.flush(Flush); // overtakes the frame
        detector.push(stamp(ms), &image).unwrap();
    }
    assert_eq!(detector.stats().windows, 0);
}
