//! The gate of one label: window probabilities in, at most one step of an event out.
//!
//! An event is a stretch over offset that reaches onset: it starts and ends where the score passes offset.
//! What is older than the window that passed onset is no part of it: a score that hovers says little.
//!
//! Invariants: start, updates and end share an id and count seq 1, 2, …; at most one event is open;
//! start ≤ detected and start ≤ end. Time is stream time.

use std::time::Duration;

use uuid::Uuid;

use super::{GateSettings, Phase, Reason, Stamp};

/// An update is worth a message once the peak moved by this much.
const PEAK_STEP: f32 = 0.01;
/// At most one update in this time.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// The frames behind a score: a window's first and last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub first: Stamp,
    pub last: Stamp,
}

impl Span {
    pub fn middle(&self) -> Stamp {
        Stamp::middle(&self.first, &self.last)
    }
}

/// One message of one event, without what the gate does not know (source, label, model …).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub id: Uuid,
    pub seq: u32,
    pub phase: Phase,
    pub reason: Reason,
    /// Smoothed probability now.
    pub score: f32,
    pub peak: f32,
    pub start: Stamp,
    pub detected: Stamp,
    /// In the end step only.
    pub end: Option<Stamp>,
}

#[derive(Clone, Debug)]
pub struct Hysteresis {
    settings: GateSettings,
    /// Smoothed probability and the stream time of the window it stands for.
    smoothed: Option<(f32, Duration)>,
    state: State,
    /// End of the last event sent; a start before `end + cooldown` is held back.
    ended: Option<Duration>,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// Over offset since the middle of this window, or over onset, not for `min_duration_on` yet.
    Rising {
        first: Stamp,
        onset: Option<Onset>,
    },
    Open(Open),
}

/// Where the score passed onset: what the start will be, and that window's end.
#[derive(Clone, Copy, Debug)]
struct Onset {
    start: Stamp,
    since: Duration,
    peak: f32,
}

#[derive(Clone, Debug)]
struct Open {
    id: Uuid,
    seq: u32,
    start: Stamp,
    detected: Stamp,
    peak: f32,
    /// Peak and stream time of the last message.
    sent_peak: f32,
    sent_at: Duration,
    /// Middle of the first window under offset, and that window's end.
    falling: Option<(Stamp, Duration)>,
}

impl Open {
    fn step(&mut self, phase: Phase, reason: Reason, score: f32, end: Option<Stamp>) -> Step {
        self.seq += 1;
        let &mut Open { id, seq, start, detected, peak, .. } = self;
        Step { id, seq, phase, reason, score, peak, start, detected, end }
    }
}

impl Hysteresis {
    /// `settings` must be valid ([`GateSettings::validate`]).
    pub fn new(settings: GateSettings) -> Self {
        Self { settings, smoothed: None, state: State::Idle, ended: None }
    }

    /// Holds from the next window on; an open event stays open.
    pub fn set_settings(&mut self, settings: GateSettings) {
        self.settings = settings;
    }

    /// (id, smoothed score, start) of the open event.
    pub fn open(&self) -> Option<(Uuid, f32, Stamp)> {
        match &self.state {
            State::Open(open) => Some((open.id, self.score(), open.start)),
            _ => None,
        }
    }

    fn score(&self) -> f32 {
        self.smoothed.map_or(0.0, |(score, _)| score)
    }

    /// Exponential smoothing with the time constant of the settings; the first value initialises it.
    fn smooth(&mut self, probability: f32, now: Duration) -> f32 {
        let tau = self.settings.smoothing.as_secs_f64();
        let score = match self.smoothed {
            Some((old, then)) if tau > 0.0 && now >= then => {
                let keep = (-(now - then).as_secs_f64() / tau).exp();
                (f64::from(probability) + (f64::from(old) - f64::from(probability)) * keep) as f32
            }
            _ => probability,
        };
        self.smoothed = Some((score, now));
        score
    }

    /// Whether an event from `start` on, seen at `now`, would overlap the last one or its cooldown.
    fn cooling(&self, start: Duration, now: Duration) -> bool {
        // An end in the future belongs to a time line that was left; it holds nothing back.
        self.ended.is_some_and(|end| now >= end && start < end + self.settings.cooldown)
    }

    /// Takes a window's probability (0..1). Windows come in order of time. `id` makes the id of an
    /// event that starts here.
    pub fn observe(&mut self, window: &Span, probability: f32, id: impl FnOnce() -> Uuid) -> Option<Step> {
        let now = window.last.stream_time;
        let score = self.smooth(probability, now);
        let GateSettings { onset, offset, min_duration_on, min_duration_off, .. } = self.settings;
        if let State::Open(open) = &mut self.state {
            open.peak = open.peak.max(score);
            if score < offset {
                let (end, since) = *open.falling.get_or_insert((window.middle(), now));
                if now.saturating_sub(since) < min_duration_off {
                    return None;
                }
                let step = open.step(Phase::End, Reason::Offset, score, Some(end));
                self.ended = Some(end.stream_time);
                self.state = State::Idle;
                return Some(step);
            }
            open.falling = None;
            if open.peak < open.sent_peak + PEAK_STEP || now.saturating_sub(open.sent_at) < UPDATE_INTERVAL {
                return None;
            }
            (open.sent_peak, open.sent_at) = (open.peak, now);
            return Some(open.step(Phase::Update, Reason::Peak, score, None));
        }
        if score < offset {
            self.state = State::Idle;
            return None;
        }
        let (first, passed) = match self.state {
            State::Rising { first, onset } => (first, onset),
            _ => {
                let middle = window.middle();
                if self.cooling(middle.stream_time, now) {
                    return None;
                }
                (middle, None)
            }
        };
        if score < onset {
            self.state = State::Rising { first, onset: None };
            return None;
        }
        let Onset { start, since, peak } = match passed {
            Some(passed) => Onset { peak: passed.peak.max(score), ..passed },
            None => {
                let old = first.stream_time < window.first.stream_time;
                Onset { start: if old { window.first } else { first }, since: now, peak: score }
            }
        };
        if now.saturating_sub(since) < min_duration_on {
            self.state = State::Rising { first, onset: Some(Onset { start, since, peak }) };
            return None;
        }
        let (detected, sent_peak, sent_at) = (window.last, peak, now);
        let mut open = Open { id: id(), seq: 0, start, detected, peak, sent_peak, sent_at, falling: None };
        let step = open.step(Phase::Start, Reason::Onset, score, None);
        self.state = State::Open(open);
        Some(step)
    }

    /// Ends an open event and forgets smoothing and a rise not yet confirmed; the cooldown goes on. The
    /// end is the last frame seen, or the middle of the first window under offset if the score was
    /// already waiting there for `min_duration_off`.
    pub fn close(&mut self, last: Stamp, reason: Reason) -> Option<Step> {
        let score = self.score();
        self.smoothed = None;
        let State::Open(mut open) = std::mem::replace(&mut self.state, State::Idle) else { return None };
        let end = open.falling.map_or(last, |(end, _)| end);
        // It lies before the start only if the caller's time line turned back.
        let end = if end.stream_time < open.start.stream_time { open.start } else { end };
        self.ended = Some(end.stream_time);
        Some(open.step(Phase::End, reason, score, Some(end)))
    }

    /// The time line was left (a seek, another stream): no end on it holds a start on the next one back.
    pub fn forget_cooldown(&mut self) {
        self.ended = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(ms: u64) -> Stamp {
        let t = Duration::from_millis(ms);
        Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
    }

    /// A 2 s window that ends at `ms`.
    fn window(ms: u64) -> Span {
        Span { first: stamp(ms - 2000), last: stamp(ms) }
    }

    fn plain() -> GateSettings {
        let zero = Duration::ZERO;
        let base = GateSettings::default();
        let (onset, offset) = (0.6, 0.4);
        GateSettings { onset, offset, smoothing: zero, min_duration_off: zero, cooldown: zero, ..base }
    }

    /// One window each 500 ms from 2 s on: what each probability brought.
    fn steps(gate: &mut Hysteresis, probabilities: &[f32]) -> Vec<(u64, Step)> {
        let times = (0..).map(|i| 2000 + 500 * i);
        let one = |(ms, &p)| Some((ms, gate.observe(&window(ms), p, Uuid::now_v7)?));
        times.zip(probabilities).filter_map(one).collect()
    }

    fn ms(stamp: Stamp) -> u128 {
        stamp.stream_time.as_millis()
    }

    #[test]
    fn an_event_is_told_when_its_score_reaches_onset() {
        let found = steps(&mut Hysteresis::new(plain()), &[0.1, 0.59, 0.6]);
        let [(at, step)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((*at, step.phase, step.reason, step.seq), (3000, Phase::Start, Reason::Onset, 1));
        assert_eq!((ms(step.start), ms(step.detected)), (1500, 3000));
        assert_eq!(step.id.get_version_num(), 7);
    }

    #[test]
    fn event_ends_only_below_offset_in_the_middle_of_the_first_window_below() {
        let settings = GateSettings { min_duration_off: Duration::from_millis(1000), ..plain() };
        let found = steps(&mut Hysteresis::new(settings), &[0.9, 0.5, 0.4, 0.39, 0.39, 0.39, 0.39]);
        let [(_, start), (at, end)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((start.phase, end.phase, end.reason), (Phase::Start, Phase::End, Reason::Offset));
        assert_eq!((*at, end.end.map(ms)), (4500, Some(2500)), "told after 1 s below, dated to its begin");
        assert_eq!((start.id, end.seq), (end.id, 2));
    }

    #[test]
    fn an_event_starts_where_its_rise_passed_offset_but_within_the_window_that_passed_onset() {
        // Windows at 2 s, 2.5 s, …; their middles are 1 s before.
        for (scores, detected, start) in [
            (&[0.1, 0.45, 0.5, 0.9][..], 3500, 1500),
            (&[0.45, 0.1, 0.5, 0.9][..], 3500, 2000),
            (&[0.1, 0.1, 0.9][..], 3000, 2000),
            // Hovering since 1 s: the window that passed onset begins at 3 s.
            (&[0.45, 0.45, 0.45, 0.45, 0.45, 0.45, 0.9][..], 5000, 3000),
        ] {
            let found = steps(&mut Hysteresis::new(plain()), scores);
            let [(at, step)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((u128::from(*at), ms(step.start)), (detected, start), "{scores:?}");
            assert_eq!(ms(step.detected), detected);
            assert_eq!(step.peak, 0.9);
        }
    }

    #[test]
    fn a_dip_shorter_than_min_duration_off_is_merged() {
        let settings = GateSettings { min_duration_off: Duration::from_millis(1000), ..plain() };
        let found = steps(&mut Hysteresis::new(settings), &[0.9, 0.1, 0.1, 0.5, 0.1, 0.1, 0.9]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn an_event_confirmed_late_still_starts_where_its_rise_began() {
        let settings = GateSettings { min_duration_on: Duration::from_millis(1000), ..plain() };
        let found = steps(&mut Hysteresis::new(settings), &[0.9, 0.9, 0.1, 0.7, 0.9, 0.8]);
        let [(at, step)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (*at, ms(step.start), ms(step.detected)),
            (4500, 2500, 4500),
            "the first rise was too short"
        );
        assert_eq!(step.peak, 0.9);
    }

    #[test]
    fn smoothing_goes_by_time_and_begins_at_the_first_value() {
        let settings = GateSettings { smoothing: Duration::from_millis(500), ..plain() };
        let mut gate = Hysteresis::new(settings);
        gate.observe(&window(2000), 0.2, Uuid::now_v7);
        assert_eq!(gate.score(), 0.2);
        gate.observe(&window(2500), 0.5, Uuid::now_v7);
        let once = 0.5 - 0.3 * (-1f32).exp();
        assert!((gate.score() - once).abs() < 1e-6);
        // Two windows half as far apart come to the same.
        let mut dense = Hysteresis::new(settings);
        for at in [2000, 2250, 2500] {
            dense.observe(&window(at), if at == 2000 { 0.2 } else { 0.5 }, Uuid::now_v7);
        }
        assert!((dense.score() - once).abs() < 1e-6);
    }

    #[test]
    fn updates_tell_a_changed_peak_at_most_once_a_second() {
        let found =
            steps(&mut Hysteresis::new(plain()), &[0.6, 0.7, 0.8, 0.8, 0.85, 0.805, 0.805, 0.855, 0.855]);
        let seen: Vec<_> = found.iter().map(|(at, step)| (*at, step.seq, step.peak)).collect();
        assert_eq!(seen, [(2000, 1, 0.6), (3000, 2, 0.8), (4000, 3, 0.85)]);
        assert!(found[1..].iter().all(|(_, s)| s.phase == Phase::Update && s.reason == Reason::Peak));
    }

    #[test]
    fn cooldown_counts_from_the_end_of_an_event_that_was_sent() {
        let cooldown = Duration::from_millis(2000);
        let settings = GateSettings { cooldown, min_duration_on: Duration::from_millis(500), ..plain() };
        // A rise too short to be sent costs no cooldown; the event at 3000 ends at 3500 (middle 3000).
        let p = [0.9, 0.0, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9];
        let found = steps(&mut Hysteresis::new(settings), &p);
        let seen: Vec<_> = found.iter().map(|(at, s)| (*at, s.phase, ms(s.start))).collect();
        let first = ms(found[1].1.end.unwrap());
        assert_eq!(first, 3000);
        assert_eq!(
            seen,
            [(3500, Phase::Start, 2000), (4000, Phase::End, 2000), (6500, Phase::Start, 5000)],
            "the next start lies 2 s after the end"
        );
    }

    #[test]
    fn closing_ends_at_the_last_frame_seen_and_drops_a_rise_unsent() {
        let mut gate = Hysteresis::new(plain());
        steps(&mut gate, &[0.9]);
        let end = gate.close(stamp(2700), Reason::Eos).unwrap();
        assert_eq!((end.phase, end.reason, end.end.map(ms)), (Phase::End, Reason::Eos, Some(2700)));
        assert_eq!(gate.close(stamp(2800), Reason::Eos), None, "once");
        let settings = GateSettings { min_duration_on: Duration::from_secs(5), ..plain() };
        let mut gate = Hysteresis::new(settings);
        steps(&mut gate, &[0.9, 0.9]);
        assert_eq!(gate.close(stamp(2700), Reason::Flush), None, "no end without a start");
    }

    #[test]
    fn an_event_closed_while_it_falls_ends_at_the_first_window_under_offset() {
        let settings = GateSettings { min_duration_off: Duration::from_secs(5), ..plain() };
        let mut gate = Hysteresis::new(settings);
        // Windows at 2 s, 2.5 s (under offset, middle 1.5 s) and 3 s.
        steps(&mut gate, &[0.9, 0.1, 0.1]);
        let end = gate.close(stamp(3200), Reason::Eos).unwrap();
        assert_eq!((end.reason, end.end.map(ms)), (Reason::Eos, Some(1500)));
    }

    #[test]
    fn an_end_on_a_time_line_that_was_left_holds_no_start_back() {
        let settings = GateSettings { cooldown: Duration::from_secs(60), ..plain() };
        let mut gate = Hysteresis::new(settings);
        gate.observe(&window(500_000), 0.9, Uuid::now_v7);
        gate.close(stamp(500_000), Reason::Stalled);
        assert!(gate.observe(&window(520_000), 0.9, Uuid::now_v7).is_none(), "the same time line");
        let mut restarted = gate.clone();
        assert!(restarted.observe(&window(3_000), 0.9, Uuid::now_v7).is_some(), "time began anew");
        gate.forget_cooldown();
        assert!(gate.observe(&window(520_000), 0.9, Uuid::now_v7).is_some());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Score(f32),
        Close,
        Onset(f32),
    }

    fn act() -> impl Strategy<Value = (u64, Act)> {
        let act = prop_oneof![
            12 => (0f32..=1.0).prop_map(Act::Score),
            1 => Just(Act::Close),
            1 => (0f32..=1.0).prop_map(Act::Onset),
        ];
        (1u64..1500, act)
    }

    proptest! {
        #[test]
        fn any_scores_give_well_formed_events(
            acts in prop::collection::vec(act(), 1..400),
            smoothing in 0u64..2000, on in 0u64..2000, off in 0u64..2000, cooldown in 0u64..5000,
            a in 0f32..=1.0, b in 0f32..=1.0,
        ) {
            let d = Duration::from_millis;
            let mut settings = GateSettings {
                onset: a.max(b), offset: a.min(b), smoothing: d(smoothing),
                min_duration_on: d(on), min_duration_off: d(off), cooldown: d(cooldown),
            };
            prop_assert!(settings.validate().is_ok());
            let mut gate = Hysteresis::new(settings);
            let mut now = 2000;
            let mut open: Option<Step> = None;
            let (mut ids, mut ended, mut said) = (std::collections::HashSet::new(), None, Duration::ZERO);
            for (step, act) in acts {
                now += step;
                let step = match act {
                    Act::Score(p) => gate.observe(&window(now), p, Uuid::now_v7),
                    Act::Close => gate.close(stamp(now), Reason::Flush),
                    Act::Onset(onset) => {
                        settings = GateSettings { onset, offset: settings.offset.min(onset), ..settings };
                        gate.set_settings(settings);
                        None
                    }
                };
                let Some(step) = step else { continue };
                prop_assert!((0.0..=1.0).contains(&step.score) && step.peak <= 1.0);
                prop_assert!(step.start.stream_time <= step.detected.stream_time);
                prop_assert_eq!(step.end.is_some(), step.phase == Phase::End);
                match (step.phase, &open) {
                    (Phase::Start, None) => {
                        prop_assert!(ids.insert(step.id), "an id is used once");
                        prop_assert_eq!(step.seq, 1);
                        if let Some(ended) = ended {
                            prop_assert!(step.start.stream_time >= ended + settings.cooldown);
                        }
                        said = d(now);
                        open = Some(step);
                    }
                    (Phase::Update | Phase::End, Some(before)) => {
                        prop_assert_eq!(step.id, before.id);
                        prop_assert_eq!(step.seq, before.seq + 1);
                        prop_assert_eq!(step.start, before.start);
                        prop_assert!(step.peak >= before.peak);
                        if step.phase == Phase::Update {
                            prop_assert!(d(now) - said >= UPDATE_INTERVAL);
                            prop_assert!(step.peak > before.peak);
                            said = d(now);
                            open = Some(step);
                        } else {
                            let end = step.end.unwrap().stream_time;
                            prop_assert!(end >= step.start.stream_time);
                            (ended, open) = (Some(end), None);
                        }
                    }
                    other => prop_assert!(false, "out of order: {:?}", other),
                }
                prop_assert_eq!(gate.open().map(|(id, ..)| id), open.map(|s| s.id));
            }
        }
    }
}
