//! Calls from within an outlet, and from several threads at once.

use std::collections::{HashMap, HashSet};

use super::*;

/// Calls the detector back from within.
struct Caller {
    notes: Notes,
    detector: std::sync::OnceLock<Weak<Detector>>,
}

impl Outlet for Caller {
    fn event(&self, event: &Event) {
        self.notes.event(event);
        let detector = self.detector.get().unwrap().upgrade().unwrap();
        detector.stats();
        detector.active();
        if event.phase == Start {
            detector.set_labels(labels(&["ccc"])).unwrap();
        } else {
            detector.flush(Flush);
        }
    }
    fn window(&self, window: &WindowScores) {
        self.notes.window(window);
    }
    fn taken_over(&self, why: &str) {
        self.notes.taken_over(why);
    }
    fn failed(&self, error: &EngineError) {
        self.notes.failed(error);
    }
}

#[test]
fn an_outlet_may_call_the_detector_back() {
    let bench = bench(false, BITS);
    let outlet = Arc::new(Caller { notes: Notes::default(), detector: Default::default() });
    let detector = Detector::new(
        bench.engine,
        Source::default(),
        settings(),
        labels(&["a"]),
        Mode::Sync,
        outlet.clone(),
    );
    let detector = detector.unwrap();
    outlet.detector.set(Arc::downgrade(&detector)).unwrap();
    play(&detector, 0, 1000, 1);
    is(&outlet.notes.told(), &[("a", Start, Onset, 1), ("a", End, LabelRemoved, 1)]);
}

#[test]
fn events_stay_well_formed_and_in_order_when_everything_happens_at_once() {
    let Rig { detector, notes, bench: _bench } = rig(Mode::Async, false, &["a", "bb", "ccc"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let over = || stop.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sets =
                [labels(&["a", "bb"]), labels(&["bb", "ccc"]), labels(&["ccc"]), labels(&["a", "bb", "ccc"])];
            for set in sets.iter().cycle().take_while(|_| !over()) {
                detector.set_labels(set.clone()).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        scope.spawn(|| {
            while !over() {
                std::thread::sleep(Duration::from_millis(3));
                detector.flush(Flush);
                detector.restart(None);
                detector.set_settings(settings()).unwrap();
            }
        });
        for second in 0..1500u64 {
            play(&detector, second * 1000, (second + 1) * 1000, (second * 7919 % 8) as u8);
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    detector.finish(Eos);
    well_formed(&lock(&notes.events));
    assert!(detector.active().is_empty());
    let stats = detector.stats();
    let events = lock(&notes.events);
    assert_eq!(stats.starts, stats.ends);
    assert_eq!((stats.starts + stats.updates + stats.ends) as usize, events.len());
    assert!(stats.starts > 50 && stats.queue == 0, "{stats:?}");
}

/// Ids are used once, seq counts, labels have one open event, every event ends, times are in order.
fn well_formed(events: &[Event]) {
    let (mut open, mut used) = (HashMap::<String, Event>::new(), HashSet::new());
    for event in events {
        match (event.phase, open.remove(&event.label)) {
            (Start, None) => assert!(used.insert(event.id) && event.seq == 1, "{event:?}"),
            (_, Some(before)) => {
                assert_eq!((event.id, event.seq), (before.id, before.seq + 1));
                assert_eq!((event.start, event.detected), (before.start, before.detected));
                assert!(event.window_end.stream_time >= before.window_end.stream_time);
            }
            other => panic!("{other:?}"),
        }
        assert!(event.start.stream_time <= event.detected.stream_time);
        assert!(event.end.is_none_or(|end| end.stream_time >= event.start.stream_time));
        if event.phase != End {
            open.insert(event.label.clone(), event.clone());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
