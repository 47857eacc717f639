//! One worker thread owns a backend; all streams of the process with the same [`Spec`] share it.
//!
//! Bounded by construction: a stream has at most one pending job; a newer one replaces it (counted).
//! Streams take turns as often as they ask, so a saturated machine costs every stream the same share of its
//! windows (see `turns`).
//!
//! On a GPU the windows of several streams are one batch. On the CPU they are worked through one by one: the
//! rows of one window's frames already fill the tiles of all threads, so a batch would take as long and
//! its first window would wait for its last.

mod queue;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod texts;
mod turns;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::backend::{BackendError, Choice, Device, Precision, Prepared};
use crate::image::{Image, ImageError, Roi};
use crate::model::{Heads, Model, ModelError};
use crate::preprocess::{Reduced, Reducer};

use queue::Queue;

/// Token ids of a stream's prompts. Send the same `Arc` with every window: the engine knows it by identity.
pub type Prompts = Arc<[Vec<u32>]>;

/// What makes two elements share an engine: whatever is written differently and means the same, does not
/// keep them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// `demo` or a folder.
    pub model: String,
    pub device: Device,
    pub precision: Precision,
    /// Worker threads; 0 is all cores.
    pub threads: usize,
    pub heads: Heads,
}

impl Spec {
    /// The same for every way to say the same: what engines are known by.
    fn key(&self) -> Self {
        let folder = || std::fs::canonicalize(&self.model).ok()?.into_os_string().into_string().ok();
        let bundled = self.model == crate::model::DEMO;
        let model = if bundled { None } else { folder() }.unwrap_or_else(|| self.model.clone());
        // A GPU has one precision, and no threads of ours.
        let (precision, threads) = match self.device {
            Device::Cuda(_) if self.precision == Precision::Auto => (Precision::F16, 0),
            Device::Cuda(_) => (self.precision, 0),
            Device::Auto | Device::Cpu => (self.precision, crate::backend::threads(self.threads)),
        };
        Self { model, device: self.device, precision, threads, heads: self.heads }
    }
}

/// What computes an engine's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Device, instruction set, threads, precision.
    pub backend: String,
    /// What `Precision::Auto` took, where there was a choice.
    pub choice: Option<Choice>,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.backend)?;
        self.choice.iter().try_for_each(|choice| write!(f, "; {}", choice.why))
    }
}

/// One sampled frame. Shared by the windows it is part of; reduced when it comes, on the engine's device or
/// on the processor ([`Stream::frame`]); prepared on the worker, once, when the first window that needs it is
/// encoded (a frame of dropped windows only costs nothing more).
pub struct Frame {
    pub reduced: Reduced,
    /// And by which backend of this engine: after a lost device another one takes over.
    prepared: Mutex<Option<(u64, Prepared)>>,
}

impl Frame {
    pub fn new(reduced: Reduced) -> Self {
        Self { reduced, prepared: Mutex::new(None) }
    }
}

/// A window to score against prompts.
pub struct Job {
    /// Exactly T frames, oldest first.
    pub frames: Vec<Arc<Frame>>,
    /// Token ids of every prompt; texts are encoded once per engine and cached.
    pub prompts: Prompts,
    /// Called exactly once with no lock held: on the worker thread, or on the thread that superseded,
    /// cancelled or refused the job. A panic in it is caught and logged.
    pub done: Box<dyn FnOnce(Result<Scored, Dropped>) + Send>,
}

pub struct Scored {
    /// One logit per prompt, in the job's order.
    pub logits: Vec<f32>,
    /// From submission to the start of work.
    pub queued: Duration,
    /// Work on this window, and on those scored together with it.
    pub inference: Duration,
}

/// Why a window has no score.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Dropped {
    /// A newer window of the stream took its place.
    #[error("a newer window took its place")]
    Superseded,
    #[error("the model is still loading")]
    Loading,
    #[error("cancelled by flush or state change")]
    Cancelled,
    #[error("{0}")]
    Failed(Arc<EngineError>),
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the engine's worker thread ended: {0}")]
    Worker(String),
}

#[derive(Clone, Debug)]
pub enum State {
    Loading,
    Ready,
    Failed(Arc<EngineError>),
}

/// A handle on the process's engine of one [`Spec`]. When the last one goes, the worker ends after the
/// windows in work; nobody waits for it.
pub struct Engine {
    queue: Arc<Queue>,
    model: Arc<Model>,
}

/// The engines of the process. A queue outlives its last handle by the work in progress; an `open` in
/// that time takes it over, so that quick state cycles never load a model twice at once.
static ENGINES: Mutex<Option<HashMap<Spec, Known>>> = Mutex::new(None);

struct Known {
    engine: Weak<Engine>,
    queue: Weak<Queue>,
    model: Weak<Model>,
}

impl Engine {
    /// Joins the process's engine of this spec or opens one. Checks configuration, tokenizer, tensor
    /// names and shapes and the device before it returns; weights load on the worker.
    pub fn open(spec: &Spec) -> Result<Arc<Engine>, EngineError> {
        let key = spec.key();
        // Held while headers are read (milliseconds), so that two elements do not open the same twice.
        let mut engines = ENGINES.lock().unwrap_or_else(|e| e.into_inner());
        let engines = engines.get_or_insert_default();
        engines.retain(|_, known| known.queue.strong_count() > 0);
        if let Some(known) = engines.get_mut(&key) {
            if let Some(engine) = known.engine.upgrade()
                && !matches!(engine.state(), State::Failed(_))
            {
                return Ok(engine);
            }
            if let (Some(queue), Some(model)) = (known.queue.upgrade(), known.model.upgrade())
                && queue.join()
            {
                let engine = Arc::new(Engine { queue, model });
                known.engine = Arc::downgrade(&engine);
                return Ok(engine);
            }
        }
        crate::backend::check(spec.device, spec.precision)?;
        let model = Arc::new(Model::open(&spec.model, spec.heads)?);
        let load = {
            let (model, spec) = (model.clone(), spec.clone());
            move || Ok(crate::backend::open(&model, spec.device, spec.precision, spec.threads)?)
        };
        // With `auto` a device that is lost later, or fails again and again, is no reason to stop.
        let fallback = (spec.device == Device::Auto).then(|| {
            let (model, threads) = (model.clone(), spec.threads);
            let precision = spec.precision.in_place_of_gpu();
            let load = move || Ok(crate::backend::open(&model, Device::Cpu, precision, threads)?);
            Box::new(load) as worker::Load
        });
        let engine = Self::start(model, Box::new(load), fallback)?;
        let known = Known {
            engine: Arc::downgrade(&engine),
            queue: Arc::downgrade(&engine.queue),
            model: Arc::downgrade(&engine.model),
        };
        engines.insert(key, known);
        Ok(engine)
    }

    /// An engine of its own, outside the process's registry. `fallback` opens what goes on when the device
    /// is lost or keeps failing.
    fn start(
        model: Arc<Model>,
        load: worker::Load,
        fallback: Option<worker::Load>,
    ) -> Result<Arc<Engine>, EngineError> {
        let queue = Queue::new();
        worker::start(queue.clone(), load, fallback)?;
        Ok(Arc::new(Engine { queue, model }))
    }

    /// An engine over a given backend: the seam for tests that need a backend of known behaviour.
    #[cfg(test)]
    pub(crate) fn with_backend(model: Arc<Model>, backend: Box<dyn crate::backend::Backend>) -> Arc<Engine> {
        Self::start(model, Box::new(move || Ok(backend.into())), None).expect("a thread can be started")
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn state(&self) -> State {
        self.queue.state()
    }

    /// What computes the windows, once it is loaded; the same `Arc` as long as it is the same backend. Each
    /// stream's user is to be told of it once.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.queue.serving()
    }

    /// Why the CPU serves although `auto` found a GPU, which cannot be used or was lost; the same `Arc` as long
    /// as it is the same reason. Each stream's user is to be warned of it once.
    pub fn takeover(&self) -> Option<Arc<str>> {
        self.queue.takeover()
    }

    /// Calls `observer` with the present state at once, on this thread, and with every later one on the
    /// worker thread, until it returns false; for progress messages. One that is done should return
    /// false, else it lives as long as the engine.
    pub fn observe(&self, observer: Box<dyn FnMut(&State) -> bool + Send>) {
        self.queue.observe(observer);
    }

    /// A place in the queue.
    pub fn stream(self: &Arc<Self>) -> Stream {
        Stream { id: self.queue.add(), engine: self.clone() }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

/// One stream's place in the engine's queue; dropping it cancels what is pending.
pub struct Stream {
    id: u64,
    engine: Arc<Engine>,
}

impl Stream {
    /// Never waits. The stream's pending job, if any, is `Superseded`. While the model loads, the job
    /// is `Loading` at once.
    pub fn submit(&self, job: Job) {
        self.engine.queue.submit(self.id, job);
    }

    /// Waits until `job.done` was called (also while the model loads). `cancel` from another thread
    /// ends the wait.
    pub fn run(&self, job: Job) {
        self.engine.queue.run(self.id, None, job);
    }

    /// How often `cancel` was called; for [`Stream::run_unless_cancelled`].
    pub fn cancels(&self) -> u64 {
        self.engine.queue.cancels(self.id)
    }

    /// As `run`, but the job is `Cancelled` at once if `cancel` was called since `cancels` was read.
    pub fn run_unless_cancelled(&self, cancels: u64, job: Job) {
        self.engine.queue.run(self.id, Some(cancels), job);
    }

    /// Drops what is pending as `Cancelled` and wakes `run`. A window in work completes; its result
    /// is for the caller to ignore.
    pub fn cancel(&self) {
        self.engine.queue.cancel(self.id);
    }

    /// A frame of this picture: reduced on the engine's device if it has one that does this, else by
    /// `reducer` on this thread. Either way the picture is not needed any more, and no window's work
    /// is waited for. The only error is a `roi` that is none.
    pub fn frame(&self, reducer: &mut Reducer, image: &Image<'_>, roi: Roi) -> Result<Frame, ImageError> {
        let device = self.engine.queue.reducer();
        let reduced = device.and_then(|device| device.reduce(reducer.rule(), image, roi));
        Ok(Frame::new(match reduced {
            Some(reduced) => reduced,
            None => reducer.reduce(image, roi)?,
        }))
    }

    /// Encodes these prompts when the worker is next free, so that the first window finds them cached.
    pub fn warm(&self, prompts: Prompts) {
        self.engine.queue.warm(self.id, prompts);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.engine.queue.remove(self.id);
    }
}
