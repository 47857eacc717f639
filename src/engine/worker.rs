//! The thread that owns the backend.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{Queue, Todo, Waiting};
use super::texts::Texts;
use super::{Dropped, EngineError, Frame, Prompts, Scored, Serving, State};
use crate::backend::{Backend, BackendError, Opened, Prepared, TextFeatures, expect};
use crate::preprocess::Reduced;

/// Prompts encoded in one call, before other streams get a turn: enough rows for a fast product, less
/// time than a window.
const TEXTS: usize = 16;
/// Batches in a row that fail by their device's fault before another one takes over. Once or twice may pass by: memory
/// that another program took comes back.
const FAULTS: u32 = 3;

pub(super) type Load = Box<dyn FnOnce() -> Result<Opened, EngineError> + Send>;

/// Starts the worker; it ends when the queue closes or the backend fails for good: when it panics, or its
/// device is lost and there is no `fallback`.
pub(super) fn start(queue: Arc<Queue>, load: Load, fallback: Option<Load>) -> Result<(), EngineError> {
    let work = move || {
        let failed = |why: EngineError| queue.set_state(State::Failed(Arc::new(why)));
        let Opened { backend, unusable, choice } = match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return failed(error),
            Err(panic) => return failed(EngineError::Worker(message(panic.as_ref()))),
        };
        if queue.end_if_unused() {
            return;
        }
        let serving = Serving { backend: backend.describe(), choice };
        tracing::info!("engine ready: {serving}");
        queue.set_serving(serving);
        if let Some(why) = unusable {
            queue.set_takeover(&why);
        }
        queue.set_reducer(backend.reducer());
        queue.set_state(State::Ready);
        let (texts, lost, faults) = (Texts::default(), false, Faults::default());
        let mut worker = Worker { backend, epoch: 0, fallback, faults, lost, texts, queue: queue.clone() };
        // Jobs in work answer themselves (Cancelled) while a panic unwinds.
        let worked = catch_unwind(AssertUnwindSafe(|| worker.work()));
        queue.set_reducer(None);
        if let Err(panic) = worked {
            failed(EngineError::Worker(message(panic.as_ref())));
        }
    };
    let spawned = std::thread::Builder::new().name("xclip-engine".into()).spawn(work);
    spawned.map(drop).map_err(|e| EngineError::Worker(format!("it could not be started: {e}")))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "no message".into()))
}

struct Worker {
    backend: Box<dyn Backend>,
    /// Counts backends: frames prepared by the one before are prepared again.
    epoch: u64,
    /// Opens the backend that goes on when the device is lost, or fails again and again.
    fallback: Option<Load>,
    faults: Faults,
    /// The worker ends.
    lost: bool,
    texts: Texts,
    queue: Arc<Queue>,
}

/// Work that got no answer by the device's fault.
#[derive(Default)]
struct Faults {
    /// In so many batches in a row, before this one.
    batches: u32,
    /// In this one.
    now: bool,
}

/// One window's logits and the time its work took.
type Answer = Result<(Vec<f32>, Duration), BackendError>;

impl Worker {
    fn work(&mut self) {
        loop {
            match self.queue.next(self.backend.batch().max(1), |prompts| self.texts.get(prompts).is_some()) {
                Todo::Windows(windows) => self.score(windows),
                Todo::Texts(prompts) => self.encode_texts(&prompts),
                Todo::End => return,
            }
            if self.lost {
                return;
            }
            let failed = std::mem::take(&mut self.faults.now);
            self.faults.batches = if failed { self.faults.batches + 1 } else { 0 };
        }
    }

    /// Whether another backend has taken the place of one that is lost or fails for good, so that the work is worth
    /// another try.
    fn recovered(&mut self, error: &BackendError) -> bool {
        let again = error.is_device_fault() && self.faults.batches + 1 >= FAULTS;
        if !error.is_lost() && !again {
            return false;
        }
        let Some(load) = self.fallback.take() else { return false };
        // The warning is for each stream's user.
        tracing::info!("the CPU takes over: {error}");
        self.queue.set_reducer(None);
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(Opened { backend, choice, .. })) => {
                let serving = Serving { backend: backend.describe(), choice };
                tracing::info!("engine ready again: {serving}");
                self.queue.set_serving(serving);
                self.queue.set_takeover(error);
                self.queue.set_reducer(backend.reducer());
                self.backend = backend;
                self.epoch += 1;
                return true;
            }
            Ok(Err(why)) => tracing::error!("the CPU cannot take over: {why}"),
            Err(panic) => tracing::error!("the CPU cannot take over: {}", message(panic.as_ref())),
        }
        if !error.is_lost() {
            self.queue.set_reducer(self.backend.reducer());
        }
        false
    }

    /// The error as everybody is told it; a lost device ends the worker. The engine has failed before its
    /// windows are answered, so that whoever hears of them finds it so.
    fn told(&mut self, error: BackendError) -> Arc<EngineError> {
        let lost = error.is_lost();
        self.faults.now |= error.is_device_fault();
        let error = Arc::new(EngineError::from(error));
        if lost && !std::mem::replace(&mut self.lost, true) {
            self.queue.set_reducer(None);
            self.queue.set_state(State::Failed(error.clone()));
        }
        error
    }

    fn encode_texts(&mut self, prompts: &Prompts) {
        let missing = self.texts.missing(prompts, TEXTS);
        if missing.is_empty() {
            return;
        }
        let mut encoded = self.backend.encode_text(&missing);
        if let Err(error) = &encoded
            && self.recovered(error)
        {
            encoded = self.backend.encode_text(&missing);
        }
        let counted = encoded.and_then(|features| {
            expect("text features", missing.len(), features.len())?;
            Ok(features)
        });
        match counted {
            Ok(features) => {
                for (prompt, features) in missing.into_iter().zip(features) {
                    self.texts.insert(prompt, features);
                }
            }
            Err(error) => {
                let error = self.told(error);
                self.queue.fail_texts(prompts, error);
            }
        }
    }

    fn score(&mut self, windows: Vec<Waiting>) {
        let queued: Vec<Duration> = windows.iter().map(|w| w.submitted.elapsed()).collect();
        let answers: Vec<Answer> = match self.recovering(&windows) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) if windows.len() > 1 && !error.is_lost() => self.alone(&windows),
            Err(error) => {
                let error = self.told(error);
                windows.into_iter().for_each(|w| w.answer(Err(Dropped::Failed(error.clone()))));
                return;
            }
        };
        for ((window, queued), answer) in windows.into_iter().zip(queued).zip(answers) {
            window.answer(match answer {
                Ok((logits, inference)) => Ok(Scored { logits, queued, inference }),
                Err(error) => Err(Dropped::Failed(self.told(error))),
            });
        }
    }

    /// Each window by itself: one stream's bad window must not cost the others theirs, nor their device. One that
    /// serves any of them does not fail for good.
    fn alone(&mut self, windows: &[Waiting]) -> Vec<Answer> {
        let one = |worker: &mut Self, window| {
            let window = std::slice::from_ref(window);
            let answers = match worker.logits(window) {
                Err(error) if error.is_lost() && worker.recovered(&error) => worker.logits(window),
                done => done,
            };
            answers.map(|mut answers| answers.remove(0))
        };
        let mut answers: Vec<Answer> = windows.iter().map(|window| one(self, window)).collect();
        if answers.iter().any(Result::is_ok) {
            self.faults.batches = 0;
        } else if let Some(Err(error)) = answers.first()
            && self.recovered(error)
        {
            answers = windows.iter().map(|window| one(self, window)).collect();
        }
        answers
    }

    /// As [`Worker::logits`]; by another backend if the device is lost meanwhile, or fails once more, and there is one.
    fn recovering(&mut self, windows: &[Waiting]) -> Result<Vec<(Vec<f32>, Duration)>, BackendError> {
        match self.logits(windows) {
            // Several together may fail by one of them.
            Err(error) if (windows.len() == 1 || error.is_lost()) && self.recovered(&error) => {
                self.logits(windows)
            }
            done => done,
        }
    }

    /// One answer per window.
    fn logits(&mut self, windows: &[Waiting]) -> Result<Vec<(Vec<f32>, Duration)>, BackendError> {
        let begun = Instant::now();
        let epoch = self.epoch;
        let known = |frame: &Frame| -> Option<Prepared> {
            let prepared = frame.prepared.lock().unwrap_or_else(|e| e.into_inner());
            prepared.as_ref().filter(|(by, _)| *by == epoch).map(|(_, prepared)| prepared.clone())
        };
        let frames = || windows.iter().flat_map(|w| &w.job().frames);
        let fresh: Vec<&Arc<Frame>> = frames().filter(|frame| known(frame).is_none()).collect();
        if !fresh.is_empty() {
            let reduced: Vec<&Reduced> = fresh.iter().map(|frame| &frame.reduced).collect();
            let prepared = self.backend.prepare(&reduced)?;
            expect("prepared frames", fresh.len(), prepared.len())?;
            for (frame, prepared) in fresh.iter().zip(prepared) {
                // Twice if the frame is in the window twice; either will do.
                *frame.prepared.lock().unwrap_or_else(|e| e.into_inner()) = Some((epoch, prepared));
            }
        }
        let clips: Vec<Vec<Prepared>> = windows
            .iter()
            .map(|w| w.job().frames.iter().filter_map(|frame| known(frame)).collect())
            .collect();
        let texts = |w: &Waiting| {
            self.texts.get(&w.job().prompts).expect("`next` gives windows with complete texts only").clone()
        };
        let texts: Vec<Arc<[TextFeatures]>> = windows.iter().map(texts).collect();
        let pairs: Vec<(&[Prepared], &[TextFeatures])> =
            clips.iter().zip(&texts).map(|(clip, texts)| (clip.as_slice(), &**texts)).collect();
        let logits = self.backend.score(&pairs)?;
        expect("rows of logits", windows.len(), logits.len())?;
        let mut answers = Vec::with_capacity(windows.len());
        for (window, logits) in windows.iter().zip(logits) {
            expect("logits", window.job().prompts.len(), logits.len())?;
            if logits.iter().any(|x| !x.is_finite()) {
                return Err(BackendError::NotFinite { what: "logits" });
            }
            answers.push((logits, begun.elapsed()));
        }
        Ok(answers)
    }
}
