//! The gate of one label: window probabilities in, at most one step of an event out.
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
    /// Over onset, not for `min_duration_on` yet.
    Rising {
        start: Stamp,
        since: Duration,
        peak: f32,
    },
    Open(Open),
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

    fn cooling(&self, start: Duration) -> bool {
        // An end in the future belongs to a time line that was left; it holds nothing back.
        self.ended.is_some_and(|end| start >= end && start - end < self.settings.cooldown)
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
        if score < onset {
            self.state = State::Idle;
            return None;
        }
        let (start, since, peak) = match self.state {
            State::Rising { start, since, peak } => (start, since, peak.max(score)),
            _ => {
                let start = window.middle();
                if self.cooling(start.stream_time) {
                    return None;
                }
                (start, now, score)
            }
        };
        if now.saturating_sub(since) < min_duration_on {
            self.state = State::Rising { start, since, peak };
            return None;
        }
        let (detected, sent_peak, sent_at) = (window.last, peak, now);
        let mut open = Open { id: id(), seq: 0, start, detected, peak, sent_peak, sent_at, falling: None };
        let step = open.step(Phase::Start, Reason::Onset, score, None);
        self.state = State::Open(open);
        Some(step)
    }

    /// Ends an open event at `last` (the last frame seen) and forgets smoothing and a rise not yet
    /// confirmed. The cooldown goes on.
    pub fn close(&mut self, last: Stamp, reason: Reason) -> Option<Step> {
        let score = self.score();
        self.smoothed = None;
        let State::Open(mut open) = std::mem::replace(&mut self.state, State::Idle) else { return None };
        // `last` lies before the start only if the caller's time line turned back.
        let end = if last.stream_time < open.start.stream_time { open.start } else { last };
        self.ended = Some(end.stream_time);
        Some(open.step(Phase::End, reason, score, Some(end)))
    }
}
