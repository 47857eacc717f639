//! The seam to the hardware: four questions, answered on different devices.
//!
//! A frame is prepared once; a window of T prepared frames is encoded into clip features; clip
//! features are compared with label texts. Only `compare` knows labels.

use std::any::Any;
use std::sync::Arc;

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
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("device `{0}` does not exist here; available: auto, cpu")]
    UnknownDevice(String),
    #[error("precision `{0}` does not exist here; available: auto, f32")]
    UnknownPrecision(String),
    #[error("{what}: expected {expected}, got {found}")]
    Shape { what: &'static str, expected: String, found: String },
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
    /// One line for logs and `xclipd doctor`: device, instruction set, threads, precision.
    fn describe(&self) -> String;
}
