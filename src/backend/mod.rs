//! The seam to the hardware: four questions, answered on different devices.
//!
//! A frame is prepared once; a window of T prepared frames is encoded into clip features; clip
//! features are compared with label texts. Only `compare` knows labels.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::Model;
use crate::preprocess::Reduced;

pub mod cpu;

/// What is exactly frame-only: patch embedding and block 0 of the CCT (see `cpu`). Opaque: each
/// backend stores its own state (host rows, or a slot in a device ring).
pub type Prepared = Arc<dyn Any + Send + Sync>;

/// One clip as the text side sees it; host-readable, the same layout on all backends.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipFeatures {
    /// E values: MIT's pooled vector, not normalised.
    pub video: Vec<f32>,
    /// P×E values: projected patch features, averaged over T.
    pub patches: Vec<f32>,
}

/// One prompt's text features before video-specific prompting: E values, not normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct TextFeatures(pub Arc<[f32]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Device {
    #[default]
    Auto,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    #[default]
    Auto,
    F32,
    /// Products of bytes with 32-bit sums; see `cpu` for what stays in f32.
    Int8,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("device `{0}` does not exist here; available: auto, cpu")]
    UnknownDevice(String),
    #[error("precision `{0}` does not exist here; available: auto, f32, int8")]
    UnknownPrecision(String),
    #[error("{what}: expected {expected}, got {found}")]
    Shape { what: String, expected: String, found: String },
    #[error(
        "{what} has values that are not finite; the checkpoint or its precision is unusable for this input"
    )]
    NotFinite { what: &'static str },
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
}

/// One loaded checkpoint on one device. Owned by the engine's worker thread.
pub trait Backend: Send {
    /// Each frame [S, S, 3] u8 → its exactly frame-only state.
    fn prepare(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError>;
    /// Each clip of exactly T prepared frames, oldest first → its features.
    fn encode(&mut self, clips: &[&[Prepared]]) -> Result<Vec<ClipFeatures>, BackendError>;
    /// Each prompt's token ids (start token … end token, at most the text context) → its features.
    fn encode_text(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<TextFeatures>, BackendError>;
    /// Cosine × logit scale of each clip with each prompt: N rows of K logits. Prompts never see each other.
    fn compare(
        &mut self,
        clips: &[&ClipFeatures],
        prompts: &[TextFeatures],
    ) -> Result<Vec<Vec<f32>>, BackendError>;
    /// How many windows of different streams are worth one call. One where a call works through them in
    /// turn anyway: the first would only wait for the last.
    fn batch(&self) -> usize {
        1
    }
    /// What the arithmetic is; never `Auto`.
    fn precision(&self) -> Precision {
        Precision::F32
    }
    /// One line for logs and `xclipd doctor`: device, instruction set, threads, precision.
    fn describe(&self) -> String;
    /// Shows every named stage of the following calls to `trace`; `None` ends it. A backend that cannot
    /// leaves out stages, never changes them.
    fn set_trace(&mut self, trace: Option<Trace>) {
        let _ = trace;
    }
}

/// Sees named stages of a forward pass, for `xclipd verify`: the key names of tests/golden/README.md, and
/// one frame's, prompt's or clip's values at a time, in order.
pub type Trace = Box<dyn FnMut(&str, &[f32]) + Send>;

pub(crate) fn emit(trace: &mut Option<Trace>, stage: &str, values: &[f32]) {
    if let Some(trace) = trace {
        trace(stage, values);
    }
}

impl FromStr for Device {
    type Err = BackendError;
    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            _ => Err(BackendError::UnknownDevice(text.into())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
        })
    }
}

impl FromStr for Precision {
    type Err = BackendError;
    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "auto" => Ok(Precision::Auto),
            "f32" => Ok(Precision::F32),
            "int8" => Ok(Precision::Int8),
            _ => Err(BackendError::UnknownPrecision(text.into())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
        })
    }
}

/// Loads a checkpoint on a device. Reads, checks and packs all weights: seconds for a large one.
/// `threads`: 0 takes one per available core.
pub fn open(
    model: &Model,
    device: Device,
    precision: Precision,
    threads: usize,
) -> Result<Box<dyn Backend>, BackendError> {
    let backend = match device {
        Device::Auto | Device::Cpu => Box::new(cpu::CpuBackend::new(model, threads, precision)?),
    };
    model.weights.release();
    Ok(backend)
}
