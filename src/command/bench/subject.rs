//! A loaded backend with fixed input, and one round of all its stages.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::memory::{self, Memory};
use super::{Options, Source};
use crate::backend::cpu::{CpuBackend, Isa};
use crate::backend::{self, Backend, BackendError, ClipFeatures, Device, Opened, Precision, Prepared};
use crate::model::{Config, Model, ModelError, layout, published, recipe};
use crate::preprocess::{Geometry, Reduced, Rule};

/// Tokens of the prompts: a short phrase with start and end token.
pub const TOKENS: usize = 8;

pub struct Subject {
    pub config: Config,
    pub backend: Box<dyn Backend>,
    /// From opening the checkpoint to a backend that can answer.
    pub load: Duration,
    /// After loading, before the first window.
    pub memory: Option<Memory>,
    pub prompts: Vec<Vec<u32>>,
    pub tokens: usize,
    frames: Vec<Reduced>,
    windows: usize,
    /// Kept, as the engine keeps it: its mapped files count.
    _model: Option<Model>,
}

/// What each stage of one round took, for all windows together.
pub struct Round {
    /// One frame per window.
    pub prepare_one: Duration,
    /// All frames of every window.
    pub prepare: Duration,
    pub encode: Duration,
    pub compare: Duration,
    pub text: Duration,
}

impl Subject {
    pub fn load(options: &Options, precision: Precision) -> anyhow::Result<Self> {
        memory::forget_peak();
        let start = Instant::now();
        let (config, backend, model): (Config, Box<dyn Backend>, _) = match &options.source {
            Source::Published(name) => {
                let config = published_config(name, options)?;
                let backend = synthetic_on(&config, options.device, options.threads, precision)?;
                (config, backend, None)
            }
            Source::Checkpoint(name) => {
                let model = Model::open(name, options.heads)?;
                let backend = backend::open(&model, options.device, precision, options.threads)?.warned();
                (model.config.clone(), backend, Some(model))
            }
        };
        let (load, memory) = (start.elapsed(), Memory::now());
        let size = config.image_size;
        let frames = recipe::frames_u8(options.windows * config.num_frames, size, size, 2);
        let frames = Reduced::split(&frames, size);
        let tokens = TOKENS.min(config.context);
        let prompts = prompts(&config, options.prompts, tokens);
        let windows = options.windows;
        Ok(Self { config, backend, load, memory, prompts, tokens, frames, windows, _model: model })
    }

    /// Bytes of all parameters as f32.
    pub fn parameter_bytes(&self) -> usize {
        layout::tensors(&self.config).iter().map(|t| 4 * t.shape.iter().product::<usize>()).sum()
    }

    /// Runs every stage, so that all see the same caches and the same neighbours; what it took, and the
    /// first window's logits.
    pub fn round(&mut self) -> anyhow::Result<(Round, Vec<f32>)> {
        let mut lap = Lap::new();
        self.prepare_one()?;
        let prepare_one = lap.next();
        let prepared = self.prepare()?;
        let prepare = lap.next();
        let clips: Vec<&[Prepared]> = prepared.chunks(self.config.num_frames).collect();
        let features: Vec<ClipFeatures> = self.backend.encode(&clips)?;
        let encode = lap.next();
        let texts = self.backend.encode_text(&self.prompts)?;
        let text = lap.next();
        let mut logits = self.backend.compare(&features.iter().collect::<Vec<_>>(), &texts)?;
        let compare = lap.next();
        ensure!(logits.len() == self.windows, "compare gave {} rows of logits", logits.len());
        let logits = logits.remove(0);
        ensure!(logits.len() == self.prompts.len(), "compare gave {} logits", logits.len());
        Ok((Round { prepare_one, prepare, encode, compare, text }, logits))
    }

    /// All frames of every window.
    pub fn prepare(&mut self) -> Result<Vec<Prepared>, BackendError> {
        self.backend.prepare(&self.frames.iter().collect::<Vec<_>>())
    }

    /// One frame per window.
    pub fn prepare_one(&mut self) -> Result<Vec<Prepared>, BackendError> {
        let first: Vec<&Reduced> = self.frames.iter().step_by(self.config.num_frames).collect();
        self.backend.prepare(&first)
    }
}

pub fn published_config(name: &str, options: &Options) -> anyhow::Result<Config> {
    let Some(json) = published::config_json(name) else {
        let known = published::NAMES.join(", ");
        bail!("no published configuration is called `{name}`; there are {known}");
    };
    Ok(Config::parse(name, json.as_bytes(), options.heads)?)
}

/// As `backend::open`, with weights of the portable recipe.
fn synthetic_on(
    config: &Config,
    device: Device,
    threads: usize,
    precision: Precision,
) -> Result<Box<dyn Backend>, BackendError> {
    backend::check(device, precision)?;
    let on_cpu =
        |precision| Ok(Box::new(synthetic(config, Isa::best(), threads, precision)?) as Box<dyn Backend>);
    match device {
        Device::Cpu => on_cpu(precision),
        Device::Cuda(ordinal) => on_gpu(config, ordinal),
        Device::Auto => match backend::gpu_of_auto(precision, |ordinal| on_gpu(config, ordinal)) {
            Ok(Some(backend)) => Ok(backend),
            other => {
                let backend = on_cpu(precision.in_place_of_gpu())?;
                Ok(Opened { unusable: other.err(), ..backend.into() }.warned())
            }
        },
    }
}

#[cfg(all(feature = "cuda", unix))]
fn on_gpu(config: &Config, ordinal: usize) -> Result<Box<dyn Backend>, BackendError> {
    Ok(Box::new(synthetic_cuda(config, ordinal)?))
}

#[cfg(not(all(feature = "cuda", unix)))]
fn on_gpu(_: &Config, ordinal: usize) -> Result<Box<dyn Backend>, BackendError> {
    Err(BackendError::NotBuilt(Device::Cuda(ordinal)))
}

/// A backend on a GPU with weights of the portable recipe; nothing is read from disk.
#[cfg(all(feature = "cuda", unix))]
pub fn synthetic_cuda(
    config: &Config,
    placement: impl Into<backend::cuda::Placement>,
) -> Result<backend::cuda::CudaBackend, BackendError> {
    let mut source = |name: &str, shape: &[usize]| Ok::<_, ModelError>(recipe::tensor(name, shape));
    backend::cuda::CudaBackend::from_source(config, &rule(config), placement, &mut source)
}

/// A backend with weights of the portable recipe; nothing is read from disk.
pub fn synthetic(
    config: &Config,
    isa: Isa,
    threads: usize,
    precision: Precision,
) -> Result<CpuBackend, BackendError> {
    let mut source = |name: &str, shape: &[usize]| Ok::<_, ModelError>(recipe::tensor(name, shape));
    CpuBackend::from_source(config, &rule(config), isa, threads, precision, &mut source)
}

/// Pre-processing as the published checkpoints have it.
pub fn rule(config: &Config) -> Rule {
    let size = config.image_size as u32;
    Rule {
        size,
        geometry: Geometry::ShortestEdge { short: size },
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    }
}

/// `n` prompts of `tokens` ids, start and end token included, all different.
pub fn prompts(config: &Config, n: usize, tokens: usize) -> Vec<Vec<u32>> {
    let vocab = config.vocab_size as u32;
    let word = |i: u32, t: u32| (i * 7919 + t * 104_729) % (vocab - 2);
    let words = |i: u32| (2..tokens as u32).map(move |t| word(i, t));
    (0..n as u32).map(|i| std::iter::once(vocab - 2).chain(words(i)).chain([vocab - 1]).collect()).collect()
}

struct Lap(Instant);

impl Lap {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn next(&mut self) -> Duration {
        let elapsed = self.0.elapsed();
        self.0 = Instant::now();
        elapsed
    }
}
