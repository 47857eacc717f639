//! One stream and its views: sample → reduce → window → engine → score → gate → outlet.
//! Knows no GStreamer and no socket.
//!
//! Invariants: no lock is held while a picture is reduced, a window is scored or an outlet is called;
//! results leave in the order they were decided; nothing comes out for windows from before a flush.

mod labels;
mod outbox;
mod settings;
mod state;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::clip::Rate;
use crate::engine::{Dropped, Engine, EngineError, Job, Stream};
use crate::event::{Event, Reason, Source, Stamp};
use crate::image::{Image, ImageError};
use crate::model::Model;
pub use crate::model::labels::LabelError;
use crate::model::labels::Labels;
use crate::preprocess::{Reducer, Rule};
use labels::LabelSet;
use outbox::Outbox;
pub use settings::{Settings, SettingsError};
use state::{Kept, State, Ticket};
pub use stats::Stats;

/// How `push` treats a busy engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `push` never waits; newest window wins, drops are counted.
    Async,
    /// `push` returns when the window it completed was scored; nothing is dropped.
    Sync,
}

/// A scored window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowScores {
    pub view: String,
    pub start: Stamp,
    pub end: Stamp,
    /// All labels' probabilities of this window (not smoothed), best first, at most `top_k`.
    pub top: Vec<(String, f32)>,
    pub labels_generation: u64,
}

/// Where results go, one call at a time and in order. Called without any lock of the detector held:
/// from `push` in sync mode (same thread), from the engine's worker in async mode, from the caller for
/// ends it caused; now and then from another of these threads that is delivering already. May call the
/// detector back.
pub trait Outlet: Send + Sync {
    fn event(&self, event: &Event);
    fn window(&self, window: &WindowScores);
    /// The CPU serves although `auto` found a GPU, and why. For a warning; told once, before the first result
    /// that comes of it.
    fn taken_over(&self, why: &str);
    /// A window could not be computed; the stream goes on. For a warning or an element error. The same
    /// failure again and again is told once.
    fn failed(&self, error: &EngineError);
}

#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// An open event, for `active-events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    pub id: uuid::Uuid,
    pub label: String,
    pub score: f32,
    pub start: Stamp,
}

/// How long a thread that must see its results delivered waits for another one that is at it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Frames come from one thread at a time; everything else may be called from any thread.
pub struct Detector {
    engine: Arc<Engine>,
    stream: Stream,
    /// Mode::Sync.
    sync: AtomicBool,
    outlet: Arc<dyn Outlet>,
    /// The label set as the user gave it; serialises changes. Taken before `state`.
    labels: Mutex<Labels>,
    state: Mutex<State>,
    /// A window came back, or was given up.
    returned: Condvar,
    outbox: Outbox,
    /// For jobs: a window in work does not keep its detector alive.
    me: Weak<Detector>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Outlets and reductions, the code that may panic, run without a lock.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The sampling rate and the rule that settings come to with a checkpoint.
fn resolve(model: &Model, settings: &Settings) -> Result<(Rate, Rule), SettingsError> {
    settings.validate(&model.rule)?;
    let (num, den) = settings.sample_rate.unwrap_or(model.extra.sample_rate);
    let rate = Rate::new(num, den).ok_or(SettingsError::SampleRate(num, den))?;
    let rule = Rule { geometry: settings.geometry.unwrap_or(model.rule.geometry), ..model.rule };
    Ok((rate, rule))
}

impl Detector {
    pub fn new(
        engine: Arc<Engine>,
        source: Source,
        settings: Settings,
        labels: Labels,
        mode: Mode,
        outlet: Arc<dyn Outlet>,
    ) -> Result<Arc<Self>, DetectorError> {
        let model = engine.model().clone();
        let (rate, rule) = resolve(&model, &settings)?;
        let set = LabelSet::new(&model, &labels, &settings, 1)?;
        let prompts = set.prompts.clone();
        let frames = model.config.num_frames;
        let state = State::new(settings, source, set, rate, frames, rule, model.fingerprint().to_string());
        let stream = engine.stream();
        stream.warm(prompts);
        Ok(Arc::new_cyclic(|me| Self {
            engine,
            stream,
            sync: AtomicBool::new(mode == Mode::Sync),
            outlet,
            labels: Mutex::new(labels),
            state: Mutex::new(state),
            returned: Condvar::new(),
            outbox: Outbox::default(),
            me: me.clone(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn deliver(&self, patience: Duration) {
        self.outbox.deliver(&*self.outlet, patience);
    }

    /// Replaces the label set; events of removed labels end with `LabelRemoved` at once, and carry the
    /// generation their label was of. A label of the same name keeps its open event. Returns the new
    /// generation. On an error the old set stays.
    pub fn set_labels(&self, labels: Labels) -> Result<u64, DetectorError> {
        let mut current = lock(&self.labels);
        let (settings, old) = {
            let state = self.state();
            (state.settings.clone(), state.set.clone())
        };
        let generation = old.generation + 1;
        let mut set = LabelSet::new(self.engine.model(), &labels, &settings, generation)?;
        set.reuse_prompts(&old);
        *current = labels;
        self.stream.warm(set.prompts.clone());
        self.state().replace_set(set, &self.outbox);
        drop(current);
        self.deliver(Duration::ZERO);
        Ok(generation)
    }

    /// Applies to the next frame and the next result. Other background prompts or another competition
    /// are a new label generation. On an error nothing changes.
    pub fn set_settings(&self, settings: Settings) -> Result<(), DetectorError> {
        let labels = lock(&self.labels);
        let (rate, rule) = resolve(self.engine.model(), &settings)?;
        let (before, old) = {
            let state = self.state();
            (state.settings.clone(), state.set.clone())
        };
        let other = (&before.background, before.competition) != (&settings.background, settings.competition);
        let generation = old.generation + u64::from(other);
        let mut set = LabelSet::new(self.engine.model(), &labels, &settings, generation)?;
        set.reuse_prompts(&old);
        self.stream.warm(set.prompts.clone());
        let mut state = self.state();
        state.replace_set(set, &self.outbox);
        state.apply(settings, rate, rule);
        Ok(())
    }

    /// Before the first frame: an outlet may learn late whether its input is live.
    pub fn set_mode(&self, mode: Mode) {
        self.sync.store(mode == Mode::Sync, Ordering::Relaxed);
    }

    pub fn mode(&self) -> Mode {
        if self.sync.load(Ordering::Relaxed) { Mode::Sync } else { Mode::Async }
    }

    /// Names the source of events from now on.
    pub fn set_source(&self, source: Source) {
        self.state().source = source;
    }

    /// Whether the frame at `time` would be kept; call before mapping the buffer. Counts the frame,
    /// notices gaps and jumps in time: a gap longer than a window, or time going back by more than a
    /// sampling interval, begins a new window; if it is longer than [`Detector::stall_timeout`], or
    /// time went back, open events end with `Discontinuity` at the last frame before.
    pub fn wants(&self, time: &Stamp) -> bool {
        let (keep, void) = self.state().observe(time, &self.outbox);
        if void {
            self.give_up();
        }
        keep
    }

    /// Takes a frame that `wants` agreed to; any other is ignored, also one overtaken by a flush.
    pub fn push(&self, time: Stamp, image: &Image<'_>) -> Result<(), DetectorError> {
        let arrived = Instant::now();
        let (cut, roi, mut reducer) = {
            let mut state = self.state();
            let agreed = state.agreed.take();
            let Some(cut) = agreed.filter(|&cut| cut == state.cut) else { return Ok(()) };
            let rule = state.rule;
            (cut, state.settings.roi, state.reducer.take().unwrap_or_else(|| Reducer::new(rule)))
        };
        let frame = self.stream.frame(&mut reducer, image, roi);
        let (frames, ticket, cancels) = {
            let mut state = self.state();
            if state.cut != cut {
                return Ok(());
            }
            state.reducer = Some(reducer);
            let frame = frame?;
            state.note_reduced(&frame);
            let kept = Kept { frame: Arc::new(frame), time };
            let Some((frames, ticket)) = state.add(kept, arrived) else { return Ok(()) };
            (frames, ticket, self.stream.cancels())
        };
        let prompts = ticket.set.prompts.clone();
        match self.mode() {
            Mode::Async => {
                let me = self.me.clone();
                let done = Box::new(move |result| {
                    if let Some(me) = me.upgrade() {
                        me.answer(&ticket, result, Duration::ZERO);
                    }
                });
                self.stream.submit(Job { frames, prompts, done });
            }
            Mode::Sync => {
                let answer = Arc::new(Mutex::new(None));
                let slot = answer.clone();
                let done = Box::new(move |result| *lock(&slot) = Some(result));
                self.stream.run_unless_cancelled(cancels, Job { frames, prompts, done });
                let result = lock(&answer).take().unwrap_or(Err(Dropped::Cancelled));
                self.answer(&ticket, result, PATIENCE);
            }
        }
        Ok(())
    }

    fn answer(&self, ticket: &Ticket, result: Result<crate::engine::Scored, Dropped>, patience: Duration) {
        let takeover = self.engine.takeover();
        self.state().answer(ticket, result, takeover, &self.outbox);
        self.returned.notify_all();
        self.deliver(patience);
    }

    /// After a flush of the state: wakes whoever waits for windows that are void now.
    fn give_up(&self) {
        self.stream.cancel();
        self.returned.notify_all();
        self.deliver(Duration::ZERO);
    }

    /// The stream broke (another connection, stream-id or segment): no window mixes before and after.
    /// Events stay open (the same camera goes on) unless `end` gives a reason to end them; then windows
    /// in flight are dropped too.
    pub fn restart(&self, end: Option<Reason>) {
        let mut state = self.state();
        state.restart();
        if let Some(reason) = end {
            state.flush(reason, &self.outbox);
            state.leave_time_line();
            drop(state);
            self.give_up();
        }
    }

    /// Drops windows in flight (their results are ignored), wakes a waiting `push`, ends open events
    /// with `reason`. The next frame may have any time. Cooldowns go on, unless the reason is a flush.
    pub fn flush(&self, reason: Reason) {
        let mut state = self.state();
        state.flush(reason, &self.outbox);
        state.forget_time();
        if reason == Reason::Flush {
            state.leave_time_line();
        }
        drop(state);
        self.give_up();
    }

    /// While `on`, no `push` waits and none completes a window: for FLUSH_START … FLUSH_STOP and for
    /// leaving PAUSED, where a streaming thread may be on its way into `push`. Starts off.
    pub fn interrupt(&self, on: bool) {
        self.state().interrupted = on;
        if on {
            self.give_up();
        }
    }

    /// End of stream: waits for the windows in flight, then ends open events. `flush` and `interrupt`
    /// end the wait; after a flush there is nothing left to end.
    pub fn finish(&self, reason: Reason) {
        let state = self.state();
        let epoch = state.epoch;
        let waiting = |state: &mut State| state.in_flight > 0 && state.epoch == epoch && !state.interrupted;
        let mut state = self.returned.wait_while(state, waiting).unwrap_or_else(|e| e.into_inner());
        if state.epoch == epoch {
            state.flush(reason, &self.outbox);
            state.forget_time();
            state.leave_time_line();
        }
        drop(state);
        self.deliver(PATIENCE);
    }

    /// T / sample rate: what one window covers of a stream that delivers frames fast enough.
    pub fn window_span(&self) -> Duration {
        self.state().window_span()
    }

    /// max(window span, 2 s): a live stream silent for longer has stalled; call `flush(Stalled)` then.
    pub fn stall_timeout(&self) -> Duration {
        self.state().stall_timeout()
    }

    pub fn labels_generation(&self) -> u64 {
        self.state().set.generation
    }

    pub fn stats(&self) -> Stats {
        self.state().stats()
    }

    pub fn active(&self) -> Vec<Active> {
        self.state().active()
    }
}
