//! One worker thread owns a backend; all streams of the process with the same [`Spec`] share it.
//!
//! Bounded by construction: a stream has at most one pending job; a newer one replaces it (counted).
//! Streams take turns, so a saturated machine costs every stream the same share of windows.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backend::{BackendError, Device, Precision, Prepared};
use crate::model::{Heads, Model, ModelError};
use crate::preprocess::Reduced;

/// What makes two elements share an engine.
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

/// One sampled frame. Shared by the windows it is part of; prepared on the worker, once, when the
/// first window that needs it is encoded (a frame of dropped windows only costs nothing more).
pub struct Frame {
    pub reduced: Reduced,
    prepared: OnceLock<Prepared>,
}

impl Frame {
    pub fn new(reduced: Reduced) -> Self {
        Self { reduced, prepared: OnceLock::new() }
    }
}

/// A window to score against prompts.
pub struct Job {
    /// Exactly T frames, oldest first.
    pub frames: Vec<Arc<Frame>>,
    /// Token ids of every prompt; texts are encoded once per engine and cached.
    pub prompts: Arc<[Vec<u32>]>,
    /// Called once, on the worker thread.
    pub done: Box<dyn FnOnce(Result<Scored, Dropped>) + Send>,
}

pub struct Scored {
    /// One logit per prompt, in the job's order.
    pub logits: Vec<f32>,
    /// From submission to the start of work.
    pub queued: Duration,
    /// Work on this window.
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

pub struct Engine {
    model: Arc<Model>,
}

impl Engine {
    /// Joins the process's engine of this spec or opens one. Checks configuration, tokenizer, tensor
    /// names and shapes and the device before it returns; weights load on the worker.
    pub fn open(spec: &Spec) -> Result<Arc<Engine>, EngineError> {
        let _ = spec;
        todo!("engine branch")
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn state(&self) -> State {
        todo!("engine branch")
    }

    /// Calls `observer` with the present state at once and with every later one, until it returns
    /// false. Called on the worker thread; for progress messages.
    pub fn observe(&self, observer: Box<dyn FnMut(&State) -> bool + Send>) {
        let _ = observer;
        todo!("engine branch")
    }

    /// A place in the queue.
    pub fn stream(self: &Arc<Self>) -> Stream {
        todo!("engine branch")
    }
}

/// One stream's place in the engine's queue; dropping it cancels what is pending.
pub struct Stream {
    _engine: Arc<Engine>,
}

impl Stream {
    /// Never waits. The stream's pending job, if any, is `Superseded`.
    pub fn submit(&self, job: Job) {
        let _ = job;
        todo!("engine branch")
    }

    /// Waits until `job.done` was called (also while the model loads). `cancel` from another thread
    /// ends the wait.
    pub fn run(&self, job: Job) {
        let _ = job;
        todo!("engine branch")
    }

    /// Drops what is pending as `Cancelled` and wakes `run`. A window in work completes; its result
    /// is for the caller to ignore.
    pub fn cancel(&self) {
        todo!("engine branch")
    }

    /// Encodes these prompts when the worker is next free, so that the first window finds them cached.
    pub fn warm(&self, prompts: Arc<[Vec<u32>]>) {
        let _ = prompts;
        todo!("engine branch")
    }
}
