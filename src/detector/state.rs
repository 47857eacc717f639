//! Everything a stream remembers between frames, behind the detector's one lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::labels::LabelSet;
use super::outbox::{Item, Outbox};
use super::stats::Recent;
use super::{Active, Settings, Stats, WindowScores};
use crate::clip::{Break, Rate, Sampler, Verdict, Window};
use crate::engine::{Dropped, Frame, Scored};
use crate::event::{Event, Hysteresis, Phase, Reason, Source, Span, Stamp, Step};
use crate::preprocess::{Reducer, Rule};

/// The one view there is so far.
const VIEW: &str = "frame";

/// A sampled frame and when it was shown.
#[derive(Clone)]
pub(super) struct Kept {
    pub frame: Arc<Frame>,
    pub time: Stamp,
}

/// What a window's result needs to be understood when it comes back.
pub(super) struct Ticket {
    pub epoch: u64,
    pub set: Arc<LabelSet>,
    pub span: Span,
    /// When the last frame came.
    pub arrived: Instant,
}

pub(super) struct State {
    pub settings: Settings,
    pub source: Source,
    pub set: Arc<LabelSet>,
    /// One gate per label of `set`.
    gates: Vec<Hysteresis>,
    sampler: Sampler,
    window: Window<Kept>,
    /// Counts windows begun anew: a frame reduced across one is not added.
    pub cut: u64,
    /// Counts flushes: results of windows from before one are ignored.
    pub epoch: u64,
    /// The cut under which the next frame was agreed to.
    pub agreed: Option<u64>,
    /// Taken out while it works.
    pub reducer: Option<Reducer>,
    pub rule: Rule,
    /// The latest frame offered, kept or not.
    last_seen: Option<Stamp>,
    last_scored: Option<(Span, Vec<(String, f32)>)>,
    pub in_flight: u32,
    /// No `push` may wait, none completes a window.
    pub interrupted: bool,
    /// The takeover told.
    takeover: Option<Arc<str>>,
    /// The failure told last; the same one again is counted only.
    failure: Option<String>,
    fingerprint: String,
    stats: Stats,
    inference: Recent,
    delay: Recent,
}

/// A live stream silent for longer has stalled, however short its window is.
const STALL: Duration = Duration::from_secs(2);

impl State {
    pub fn new(
        settings: Settings,
        source: Source,
        set: LabelSet,
        rate: Rate,
        frames: usize,
        rule: Rule,
        fingerprint: String,
    ) -> Self {
        let gates = set.gates.iter().map(|&gate| Hysteresis::new(gate)).collect();
        Self {
            sampler: Sampler::new(rate, frames),
            window: Window::new(frames, settings.hop),
            settings,
            source,
            set: Arc::new(set),
            gates,
            cut: 0,
            epoch: 0,
            agreed: None,
            reducer: None,
            rule,
            last_seen: None,
            last_scored: None,
            in_flight: 0,
            interrupted: false,
            takeover: None,
            failure: None,
            fingerprint,
            stats: Stats::default(),
            inference: Recent::default(),
            delay: Recent::default(),
        }
    }

    pub fn window_span(&self) -> Duration {
        self.sampler.window_span()
    }

    pub fn stall_timeout(&self) -> Duration {
        self.window_span().max(STALL)
    }

    /// Whether the frame at `time` is kept. `true` in the second place: windows in flight became void.
    pub fn observe(&mut self, time: &Stamp, outbox: &Outbox) -> (bool, bool) {
        self.stats.frames += 1;
        let verdict = self.sampler.observe(time.stream_time);
        let mut void = false;
        if let Verdict::Restart(why) = verdict {
            let silent = self
                .last_seen
                .map_or(Duration::ZERO, |last| time.stream_time.saturating_sub(last.stream_time));
            self.cut_window();
            // A pause too short to be a stall may lie within an event.
            if why == Break::Backwards || silent > self.stall_timeout() {
                self.flush(Reason::Discontinuity, outbox);
                void = true;
            }
            if why == Break::Backwards {
                self.leave_time_line();
            }
            self.last_seen = Some(*time);
        } else if self.last_seen.is_none_or(|last| last.stream_time < time.stream_time) {
            self.last_seen = Some(*time);
        }
        if verdict == Verdict::Skip {
            return (false, void);
        }
        self.stats.sampled += 1;
        self.agreed = Some(self.cut);
        (true, void)
    }

    pub fn note_reduced(&mut self, frame: &Frame) {
        self.stats.uploaded += u64::from(frame.reduced.is_on_device());
    }

    /// Adds a kept frame; a full window that is due comes with its ticket and counts as in flight.
    pub fn add(&mut self, kept: Kept, arrived: Instant) -> Option<(Vec<Arc<Frame>>, Ticket)> {
        let clip = self.window.push(kept)?;
        if self.set.labels.is_empty() {
            return None;
        }
        if self.interrupted {
            self.drop_windows("flushed", 1);
            return None;
        }
        self.in_flight += 1;
        let (first, last) = (clip.first()?.time, clip.last()?.time);
        let ticket = Ticket { epoch: self.epoch, set: self.set.clone(), span: Span { first, last }, arrived };
        Some((clip.into_iter().map(|kept| kept.frame).collect(), ticket))
    }

    fn drop_windows(&mut self, why: &'static str, count: u32) {
        if count > 0 {
            *self.stats.dropped.entry(why).or_default() += u64::from(count);
        }
    }

    /// The answer to a ticket. Ignored if a flush came between; the flush counted it.
    pub fn answer(
        &mut self,
        ticket: &Ticket,
        result: Result<Scored, Dropped>,
        takeover: Option<Arc<str>>,
        outbox: &Outbox,
    ) {
        if ticket.epoch != self.epoch {
            return;
        }
        if let Some(why) = takeover
            && self.takeover.as_ref().is_none_or(|told| !Arc::ptr_eq(told, &why))
        {
            self.takeover = Some(why.clone());
            outbox.put(Item::TakenOver(why));
        }
        self.in_flight -= 1;
        match result {
            Ok(scored) => self.score(ticket, &scored, outbox),
            Err(Dropped::Superseded) => self.drop_windows("superseded", 1),
            Err(Dropped::Loading) => self.drop_windows("loading", 1),
            Err(Dropped::Cancelled) => self.drop_windows("flushed", 1),
            Err(Dropped::Failed(error)) => {
                self.drop_windows("failed", 1);
                let message = error.to_string();
                if self.failure.as_ref() != Some(&message) {
                    self.failure = Some(message);
                    outbox.put(Item::Failed(error));
                }
            }
        }
    }

    fn score(&mut self, ticket: &Ticket, scored: &Scored, outbox: &Outbox) {
        self.failure = None;
        self.stats.windows += 1;
        self.inference.add(scored.inference);
        self.delay.add(ticket.arrived.elapsed());
        let Ticket { set, span, .. } = ticket;
        let probabilities = set.scorer.probabilities(&scored.logits);
        let mut top: Vec<(usize, f32)> = probabilities.iter().copied().enumerate().collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        let top: Vec<(String, f32)> =
            top.iter().take(self.settings.top_k).map(|&(i, p)| (set.labels[i].name.clone(), p)).collect();
        outbox.put(Item::Window(WindowScores {
            view: VIEW.into(),
            start: span.first,
            end: span.last,
            top: top.clone(),
            labels_generation: set.generation,
        }));
        self.last_scored = Some((*span, top));
        for (label, probability) in set.labels.iter().zip(probabilities) {
            // A label removed since the window was submitted makes no event any more.
            let Some(&position) = self.set.index.get(&label.name) else { continue };
            if let Some(step) = self.gates[position].observe(span, probability, Uuid::now_v7) {
                self.emit(position, step, set.generation, outbox);
            }
        }
    }

    fn emit(&mut self, position: usize, step: Step, labels_generation: u64, outbox: &Outbox) {
        match step.phase {
            Phase::Start => self.stats.starts += 1,
            Phase::Update => self.stats.updates += 1,
            Phase::End => self.stats.ends += 1,
        }
        let label = &self.set.labels[position];
        let Step { id, seq, phase, reason, score, peak, start, detected, end } = step;
        let (span, top) = match &self.last_scored {
            Some((span, top)) => (*span, top.clone()),
            None => (Span { first: start, last: detected }, Vec::new()),
        };
        outbox.put(Item::Event(Box::new(Event {
            source: self.source.clone(),
            view: VIEW.into(),
            id,
            seq,
            phase,
            reason,
            label: label.name.clone(),
            severity: label.severity.clone(),
            metadata: label.metadata.clone(),
            score,
            peak,
            start,
            detected,
            end,
            window_start: span.first,
            window_end: span.last,
            top,
            labels_generation,
            model: self.fingerprint.clone(),
        })));
    }

    fn close(&mut self, position: usize, reason: Reason, outbox: &Outbox) {
        let Some(last) = self.last_seen else { return };
        if let Some(step) = self.gates[position].close(last, reason) {
            self.emit(position, step, self.set.generation, outbox);
        }
    }

    /// The next frame begins a new window.
    pub fn cut_window(&mut self) {
        self.cut += 1;
        self.agreed = None;
        self.stats.restarts += u64::from(self.window.newest().is_some());
        self.window.restart();
    }

    /// As `cut_window`, for a break the sampler does not see.
    pub fn restart(&mut self) {
        self.cut_window();
        self.sampler.restart();
    }

    /// Open events end, windows in flight are void.
    pub fn flush(&mut self, reason: Reason, outbox: &Outbox) {
        for position in 0..self.gates.len() {
            self.close(position, reason, outbox);
        }
        self.epoch += 1;
        let void = std::mem::take(&mut self.in_flight);
        self.drop_windows("flushed", void);
    }

    /// Another stream or another place in it: cooldowns were for the events before.
    pub fn leave_time_line(&mut self) {
        self.gates.iter_mut().for_each(Hysteresis::forget_cooldown);
    }

    /// As before the first frame, but for what is counted and cooldowns.
    pub fn forget_time(&mut self) {
        self.cut_window();
        self.sampler = Sampler::new(self.sampler.rate(), self.frames());
        self.last_seen = None;
    }

    fn frames(&self) -> usize {
        self.window.length()
    }

    /// Takes a new label set: events of removed labels end, those of kept ones go on under their gates.
    pub fn replace_set(&mut self, set: LabelSet, outbox: &Outbox) {
        for position in 0..self.gates.len() {
            if !set.index.contains_key(&self.set.labels[position].name) {
                self.close(position, Reason::LabelRemoved, outbox);
            }
        }
        let mut old: Vec<Option<Hysteresis>> =
            std::mem::take(&mut self.gates).into_iter().map(Some).collect();
        for (label, &settings) in set.labels.iter().zip(&set.gates) {
            let kept = self.set.index.get(&label.name).and_then(|&position| old[position].take());
            self.gates.push(match kept {
                Some(mut gate) => {
                    gate.set_settings(settings);
                    gate
                }
                None => Hysteresis::new(settings),
            });
        }
        self.set = Arc::new(set);
    }

    /// `settings` are valid; `rate` and `rule` are what they come to with this checkpoint.
    pub fn apply(&mut self, settings: Settings, rate: Rate, rule: Rule) {
        if rate != self.sampler.rate() {
            self.restart();
            self.sampler = Sampler::new(rate, self.frames());
        }
        if rule != self.rule || settings.roi != self.settings.roi {
            self.restart();
            self.rule = rule;
            self.reducer = None;
        }
        self.window.set_hop(settings.hop);
        self.settings = settings;
    }

    pub fn active(&self) -> Vec<Active> {
        let open = |(label, gate): (&crate::model::labels::Label, &Hysteresis)| {
            let (id, score, start) = gate.open()?;
            Some(Active { id, label: label.name.clone(), score, start })
        };
        self.set.labels.iter().zip(&self.gates).filter_map(open).collect()
    }

    pub fn stats(&self) -> Stats {
        let (inference_p50, inference_p95) = self.inference.quantiles();
        let (delay_p50, delay_p95) = self.delay.quantiles();
        let queue = self.in_flight;
        Stats { queue, inference_p50, inference_p95, delay_p50, delay_p95, ..self.stats.clone() }
    }
}
