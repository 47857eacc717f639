//! The seam to the hardware: four questions, answered on different devices.
//!
//! A frame is prepared once; a window of T prepared frames is encoded into clip features; clip
//! features are compared with label texts. Only `compare` knows labels.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::image::{Image, Roi};
use crate::model::Model;
use crate::preprocess::{Reduced, Rule};

pub mod cpu;
pub(crate) mod source;
// dlopen and its kin; NVIDIA's driver exists on Linux (and Windows, where nobody has tried this).
#[cfg(all(feature = "cuda", unix))]
pub mod cuda;

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
    /// The first GPU where the `cuda` backend can run, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The NVIDIA GPU of this ordinal as CUDA counts: fastest first, or as `nvidia-smi` with
    /// CUDA_DEVICE_ORDER=PCI_BUS_ID.
    Cuda(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    #[default]
    Auto,
    F32,
    /// Stored in half precision, summed in f32; on GPUs only, and all they have.
    F16,
    /// Products of bytes with 32-bit sums; see `cpu` for what stays in f32.
    Int8,
}

impl Precision {
    /// What the CPU computes in where `Device::Auto` had a GPU in mind: f16 is the GPU's alone.
    pub(crate) fn in_place_of_gpu(self) -> Self {
        if self == Precision::F16 { Precision::Auto } else { self }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("device `{0}` does not exist here; available: auto, cpu, cuda:0, cuda:1, …")]
    UnknownDevice(String),
    #[error("precision `{0}` does not exist here; available: auto, f32, f16, int8")]
    UnknownPrecision(String),
    #[error("precision {precision} does not exist on device {device}; take {available}")]
    PrecisionOnDevice { precision: Precision, device: Device, available: &'static str },
    #[error("device {0} needs a build with cargo feature `cuda`, which this one lacks; use device=cpu")]
    NotBuilt(Device),
    #[cfg(all(feature = "cuda", unix))]
    #[error(transparent)]
    Cuda(#[from] cuda::CudaError),
    #[error("{what}: expected {expected}, got {found}")]
    Shape { what: String, expected: String, found: String },
    #[error(
        "{what} has values that are not finite; the checkpoint or its precision is unusable for this input"
    )]
    NotFinite { what: &'static str },
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
}

impl BackendError {
    /// The device is gone: no later call of this backend can succeed.
    pub fn is_lost(&self) -> bool {
        #[cfg(all(feature = "cuda", unix))]
        if let BackendError::Cuda(error) = self {
            return error.is_lost();
        }
        false
    }

    /// The device or its libraries failed, not the input: the same call may succeed later, or on another device.
    pub fn is_device_fault(&self) -> bool {
        #[cfg(all(feature = "cuda", unix))]
        if let BackendError::Cuda(error) = self {
            return !matches!(error, cuda::CudaError::Refused(_));
        }
        false
    }
}

/// One loaded checkpoint on one device. Owned by the engine's worker thread.
pub trait Backend: Send {
    /// Each frame [S, S, 3] u8 → its exactly frame-only state. Frames of this backend's own
    /// [`Backend::reducer`] are on the device already; of any other it takes the host's copy.
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
    /// Encode, then compare each window with its own prompts: one row of logits per window. What lies between
    /// need not leave the device.
    fn score(&mut self, windows: &[(&[Prepared], &[TextFeatures])]) -> Result<Vec<Vec<f32>>, BackendError> {
        let clips: Vec<&[Prepared]> = windows.iter().map(|(clip, _)| *clip).collect();
        let features = self.encode(&clips)?;
        expect("clip features", windows.len(), features.len())?;
        let mut logits = Vec::with_capacity(windows.len());
        for ((_, prompts), features) in windows.iter().zip(&features) {
            let mut rows = self.compare(&[features], prompts)?;
            expect("rows of logits", 1, rows.len())?;
            logits.append(&mut rows);
        }
        Ok(logits)
    }
    /// What reduces pictures on the device itself; `None` where the processor is to do it.
    fn reducer(&self) -> Option<Arc<dyn DeviceReducer>> {
        None
    }
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

/// Reduces pictures of all streams on a backend's device, from any thread and beside the backend's own work.
pub trait DeviceReducer: Send + Sync {
    /// Copies what `rule` needs of the picture and returns: the device works later, in its own time. `None`
    /// where the processor has to reduce it: a format without a kernel, no room, a device that is lost, a
    /// `roi` that is none.
    fn reduce(&self, rule: &Rule, image: &Image<'_>, roi: Roi) -> Option<Reduced>;
}

/// Sees named stages of a forward pass, for `xclipd verify`: the key names of tests/golden/README.md, and
/// one frame's, prompt's or clip's values at a time, in order.
pub type Trace = Box<dyn FnMut(&str, &[f32]) + Send>;

pub(crate) fn emit(trace: &mut Option<Trace>, stage: &str, values: &[f32]) {
    if let Some(trace) = trace {
        trace(stage, values);
    }
}

/// What a backend gave instead of one answer per question.
pub(crate) fn expect(what: &'static str, expected: usize, found: usize) -> Result<(), BackendError> {
    if expected == found {
        return Ok(());
    }
    Err(BackendError::Shape { what: what.into(), expected: expected.to_string(), found: found.to_string() })
}

impl FromStr for Device {
    type Err = BackendError;
    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            _ => {
                let ordinal = text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
                ordinal.map(Device::Cuda).ok_or_else(|| BackendError::UnknownDevice(text.into()))
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for Precision {
    type Err = BackendError;
    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "auto" => Ok(Precision::Auto),
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
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
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        })
    }
}

/// CUDA's libraries are looked for in `folder` before all other places, until a GPU was found.
pub fn look_for_cuda_in(folder: &Path) {
    #[cfg(all(feature = "cuda", unix))]
    cuda::set_library_folder(folder);
    #[cfg(not(all(feature = "cuda", unix)))]
    tracing::warn!("this build has no CUDA: {} is of no use to it", folder.display());
}

/// Whether the device named is here and has this precision; loads nothing. `auto` always is.
pub fn check(device: Device, precision: Precision) -> Result<(), BackendError> {
    match (device, precision) {
        (Device::Cpu, Precision::F16) => {
            Err(BackendError::PrecisionOnDevice { precision, device, available: "auto, f32 or int8" })
        }
        (Device::Auto | Device::Cpu, _) => Ok(()),
        (Device::Cuda(_), Precision::F32 | Precision::Int8) => {
            Err(BackendError::PrecisionOnDevice { precision, device, available: "auto or f16" })
        }
        #[cfg(all(feature = "cuda", unix))]
        (Device::Cuda(ordinal), _) => Ok(cuda::probe(ordinal).map(drop)?),
        #[cfg(not(all(feature = "cuda", unix)))]
        (Device::Cuda(_), _) => Err(BackendError::NotBuilt(device)),
    }
}

/// Threads that the CPU's pool has for this setting: 0 is one per core that this process may use.
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n.min(1024),
    }
}

/// Loads a checkpoint on a device. Reads, checks and packs all weights: seconds for a large one.
/// `threads` of the CPU: 0 takes one per available core.
///
/// `Device::Auto` takes the first GPU that can be used, where there is one and it has the precision asked for; if
/// none of them can (no memory, a checkpoint it does not take), the CPU takes over, which is worth one warning.
pub fn open(
    model: &Model,
    device: Device,
    precision: Precision,
    threads: usize,
) -> Result<Opened, BackendError> {
    check(device, precision)?;
    let opened = match device {
        Device::Cpu => on_cpu(model, precision, threads)?,
        Device::Cuda(ordinal) => on_gpu(model, ordinal)?.into(),
        Device::Auto => match gpu_of_auto(precision, |ordinal| on_gpu(model, ordinal)) {
            Ok(Some(backend)) => backend.into(),
            other => {
                let opened = on_cpu(model, precision.in_place_of_gpu(), threads)?;
                Opened { unusable: other.err(), ..opened }
            }
        },
    };
    model.weights.release();
    Ok(opened)
}

/// A loaded checkpoint.
pub struct Opened {
    pub backend: Box<dyn Backend>,
    /// Why this is the CPU although `Device::Auto` found a GPU: one warning for the user.
    pub unusable: Option<BackendError>,
    /// What `Precision::Auto` came to, where there was a choice: for the user too.
    pub choice: Option<Choice>,
}

/// What `Precision::Auto` took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// It, and the reason with its figures.
    pub why: String,
    /// It is f32 because int8 sees something else: worth a warning.
    pub differs: bool,
}

impl Choice {
    /// For a program without another place for it.
    pub fn log(&self) {
        if self.differs { tracing::warn!("{}", self.why) } else { tracing::info!("{}", self.why) }
    }
}

impl Opened {
    /// Warning and choice go to the log.
    pub fn warned(self) -> Box<dyn Backend> {
        self.choice.iter().for_each(Choice::log);
        if let Some(error) = self.unusable {
            tracing::warn!("device auto: {}", taken_over(&error));
        }
        self.backend
    }
}

impl From<Box<dyn Backend>> for Opened {
    fn from(backend: Box<dyn Backend>) -> Self {
        Self { backend, unusable: None, choice: None }
    }
}

/// The words of that warning, whenever it happens.
pub fn taken_over(why: &impl std::fmt::Display) -> String {
    format!("the CPU takes over, because the GPU cannot be used: {why}")
}

fn on_cpu(model: &Model, precision: Precision, threads: usize) -> Result<Opened, BackendError> {
    let (backend, choice) = match precision {
        Precision::Auto => {
            let (backend, choice) = cpu::CpuBackend::choose(model, threads)?;
            (backend, Some(choice))
        }
        _ => (cpu::CpuBackend::new(model, threads, precision)?, None),
    };
    Ok(Opened { backend: Box::new(backend), unusable: None, choice })
}

#[cfg(all(feature = "cuda", unix))]
fn on_gpu(model: &Model, ordinal: usize) -> Result<Box<dyn Backend>, BackendError> {
    Ok(Box::new(cuda::CudaBackend::new(model, ordinal)?))
}

#[cfg(not(all(feature = "cuda", unix)))]
fn on_gpu(_: &Model, ordinal: usize) -> Result<Box<dyn Backend>, BackendError> {
    Err(BackendError::NotBuilt(Device::Cuda(ordinal)))
}

/// What `open` makes of the first GPU that it opens on, in the order of their ordinals; the first one's error where it
/// opens on none. `None`: this machine has no GPU, or `precision` is none of theirs.
#[cfg(all(feature = "cuda", unix))]
pub(crate) fn gpu_of_auto<R, E: From<cuda::CudaError> + std::fmt::Display>(
    precision: Precision,
    mut open: impl FnMut(usize) -> Result<R, E>,
) -> Result<Option<R>, E> {
    if !matches!(precision, Precision::Auto | Precision::F16) {
        return Ok(None);
    }
    let mut first = None;
    // Where they cannot be counted, the probe says why.
    for ordinal in 0..cuda::count().unwrap_or(0).max(1) {
        let error = match cuda::probe(ordinal) {
            // A machine without a GPU is as usual as one with it; one that has a GPU it cannot use is not.
            Err(absent) if absent.is_without_gpu() => {
                tracing::debug!("device auto: no GPU: {absent}");
                return Ok(None);
            }
            Err(unusable) => unusable.into(),
            Ok(_) => match open(ordinal) {
                Ok(opened) => {
                    if let Some(passed) = first {
                        tracing::info!(
                            "device auto: cuda:{ordinal}, because cuda:0 cannot be used: {passed}"
                        );
                    }
                    return Ok(Some(opened));
                }
                Err(error) => error,
            },
        };
        first.get_or_insert(error);
    }
    Err(first.expect("there was one round at least"))
}

#[cfg(not(all(feature = "cuda", unix)))]
pub(crate) fn gpu_of_auto<R, E>(_: Precision, _: impl FnMut(usize) -> Result<R, E>) -> Result<Option<R>, E> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_precisions_are_read_as_they_are_shown() {
        for text in ["auto", "cpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in ["auto", "f32", "f16", "int8"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
        for text in ["cuda", "cuda:", "cuda:-1", "cuda:x", "gpu", ""] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("cuda:0"), "{error}");
        }
    }
}
