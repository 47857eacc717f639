//! The CPU backend: the default that always works.
//!
//! prepare = patch embedding, block 0 and block 1's q, k and v of each frame, once: all that is exactly
//! frame-only. encode = blocks 1… over a window, MIT and the projected patches. compare = prompting and
//! cosines. All weights are packed once at load; results do not depend on the number of threads, nor a
//! frame's on the frames it is computed beside.
//!
//! **int8.** The towers' products multiply bytes: weights symmetric with a scale per output channel,
//! activations with a range per row, made where their producer has the whole row (`quantise`), 32-bit
//! sums that are bit-equal on every instruction set (`kernel_i8`). Attention within frames, whose products
//! have no weights, takes numbers of 16 bits (`attention_i16`), and QuickGELU is within 1e-4 where AVX-512 looks
//! it up (`activation_i8`). In f32 stay LayerNorm, the residual stream, attention between frames and in the text
//! tower, MIT, prompting and the three projections to the joint space. Pixels are bytes already, so the patch
//! embedding rounds only its weights. Against the golden vectors of base-patch32, whose weights are generated
//! (`xclipd verify --precision int8`):
//!
//! | activations of text and messages | attention within frames | video cosine | text cosine | logits |
//! |---|---|---|---|---|
//! | one byte, as everywhere else | f32 | 0.99993 | 0.99975 | within 0.060 |
//! | two bytes | f32 | 0.99993 | 0.99993 | within 0.025 |
//! | two bytes (chosen) | 16 bits (chosen) | 0.99992 | 0.99993 | within 0.034 |
//!
//! Second bytes double a product's operations. The text tower runs once per label; messages are a few
//! rows, and wait for their weights anyway. MIT and prompting in two bytes would take 4 % off a window of
//! base-patch32, but bring the logits of the small golden model from 0.035 to 0.055 of the reference.
//!
//! Source of the mathematics: `modeling_x_clip.py` of transformers; every stage is held against its
//! golden vectors (`tests/golden`).

mod activation;
mod activation_i8;
mod arena;
mod attention;
mod attention_f32;
mod attention_i16;
mod auto;
mod block;
mod buffer;
mod embed;
mod epilogue;
mod gemm;
mod isa;
mod kernel;
mod kernel_i16;
mod kernel_i8;
mod layer_norm;
mod lhs;
mod linear;
mod load;
mod mit;
mod next_panel;
mod pool;
mod prompts;
mod quantise;
mod roof;
mod spread;
mod sums;
mod text;
mod transpose;
mod vision;

use std::sync::Arc;

use self::block::Scratch;
use self::buffer::{Buffer, Shared};
use self::gemm::{Activation, Cpu, Out, gemm};
use self::layer_norm::LayerNorm;
use self::linear::{Format, Linear};
use self::load::Loader;
use self::vision::{Frame, Window};
use super::{Backend, BackendError, ClipFeatures, Device, Precision, Prepared, TextFeatures, Trace, emit};
use crate::model::{Config, Model};
use crate::preprocess::{Reduced, Rule};

pub use self::isa::Isa;
pub use self::roof::Roof;
pub use super::source::Source;

/// One checkpoint on the processor's cores.
pub struct CpuBackend {
    cpu: Cpu,
    /// Of the towers' products.
    format: Format,
    config: Config,
    weights: Weights,
    memory: Memory,
    trace: Option<Trace>,
}

struct Weights {
    vision: vision::Vision,
    post_norm: LayerNorm,
    projection: Linear,
    mit: mit::Mit,
    patch_norm: LayerNorm,
    patch_projection: Linear,
    prompts: prompts::Prompts,
    text: text::Text,
    /// exp(logit_scale)
    scale: f32,
}

/// What every window uses again: a steady stream of them allocates only what leaves the backend
/// (prepared frames, features).
#[derive(Default)]
struct Memory {
    scratch: Scratch,
    window: Window,
    rows: Buffer,
    features: Buffer,
    mean: Buffer,
    mit: Buffer,
    /// Of a comparison: the texts side by side, the clip's vector, and the texts after prompting.
    texts: Buffer,
    video: Buffer,
    prompted: Buffer,
}

impl CpuBackend {
    /// Packs the model's weights. `threads`: 0 takes one per available core. `Precision::Auto` takes int8
    /// where the processor has dot products for it and the checkpoint passes a self-check (see `auto`).
    pub fn new(model: &Model, threads: usize, precision: Precision) -> Result<Self, BackendError> {
        match precision {
            Precision::Auto => auto::open(model, threads),
            _ => Self::on(model, Isa::best(), threads, precision),
        }
    }

    fn on(model: &Model, isa: Isa, threads: usize, precision: Precision) -> Result<Self, BackendError> {
        let mut source = |name: &str, _: &[usize]| model.weights.tensor(name);
        Self::from_source(&model.config, &model.rule, isa, threads, precision, &mut source)
    }

    /// As [`CpuBackend::new`], weights from any source (synthetic ones need no disk), for any
    /// instruction set of this processor. `Precision::Auto` takes int8 where the instruction set has dot
    /// products for it, unchecked.
    pub fn from_source(
        config: &Config,
        rule: &Rule,
        isa: Isa,
        threads: usize,
        precision: Precision,
        source: &mut Source<'_>,
    ) -> Result<Self, BackendError> {
        let cpu = Cpu::new(isa, threads);
        let format = match precision {
            Precision::F32 => Format::F32,
            Precision::F16 => {
                let available = "auto, f32 or int8";
                return Err(BackendError::PrecisionOnDevice { precision, device: Device::Cpu, available });
            }
            Precision::Int8 => Format::Int8,
            Precision::Auto if isa.has_vnni() => Format::Int8,
            Precision::Auto => Format::F32,
        };
        let loader = &mut Loader { cpu: &cpu, source, format };
        let (width, joint) = (config.vision.width, config.projection);
        let scale = loader.tensor("logit_scale", &[])?[0].exp();
        let vision = vision::Vision::load(loader, config, rule)?;
        let post_norm = loader.norm("vision_model.post_layernorm", width)?;
        if format == Format::Int8 {
            loader.format = Format::Int8Fine;
        }
        let text = text::Text::load(loader, config)?;
        loader.format = Format::F32;
        let projection = loader.linear("visual_projection", joint, width, false)?;
        let mit = mit::Mit::load(loader, config)?;
        let patch_norm = loader.norm("prompts_visual_layernorm", width)?;
        // The one weight that is stored [in, out].
        let stored = loader.tensor("prompts_visual_projection", &[width, joint])?;
        let turned: Vec<f32> = (0..width * joint).map(|i| stored[i % width * joint + i / width]).collect();
        let mut patch_projection = Linear::new(&cpu, width, joint, Format::F32);
        patch_projection.put(&cpu, 0, &turned, 1.0);
        drop((stored, turned));
        let prompts = prompts::Prompts::load(loader, config)?;
        let weights = Weights {
            vision,
            post_norm,
            projection,
            mit,
            patch_norm,
            patch_projection,
            prompts,
            text,
            scale,
        };
        Ok(Self { cpu, format, config: config.clone(), weights, memory: Memory::default(), trace: None })
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        let w = &self.weights;
        let single = w.projection.bytes() + w.patch_projection.bytes();
        w.vision.bytes() + w.mit.bytes() + w.prompts.bytes() + w.text.bytes() + single
    }

    fn encode_window(&mut self, clip: &[Prepared]) -> Result<ClipFeatures, BackendError> {
        let Self { cpu, config, weights, memory, trace, .. } = self;
        let (tokens, width) = weights.vision.shape();
        let (frames, joint, frame) = (config.num_frames, config.projection, tokens * width);
        if clip.len() != frames {
            return Err(shape("window", format!("{frames} frames"), format!("{}", clip.len())));
        }
        let of = |t: usize| clip[t].downcast_ref::<Frame>().filter(|frame| weights.vision.owns(frame));
        if (0..frames).any(|t| of(t).is_none()) {
            let expected = format!("{tokens}x{width} rows prepared by this backend");
            return Err(shape("prepared frame", expected, "another backend's or checkpoint's".into()));
        }
        let of = |t: usize| of(t).expect("all were checked above");
        let Memory { scratch, window, rows, features, mean, mit, .. } = memory;
        weights.vision.encode(cpu, scratch, window, frames, &of, trace);
        let x = &window.x;

        let pooled = rows.fit(frames * width);
        weights.post_norm.to_rows(cpu, x, frame, pooled);
        pooled.chunks(width).for_each(|row| emit(trace, "pooled_cls_post_ln", row));
        scratch.lhs.copy_from(cpu, frames, pooled, width, &weights.projection);
        let features = features.fit(frames * joint);
        gemm(cpu, &scratch.lhs, &weights.projection, Activation::None, Out::Rows(features));
        features.chunks(joint).for_each(|row| emit(trace, "frame_features", row));
        let video = weights.mit.forward(cpu, scratch, features, mit, trace);

        // The projection is linear: the mean of the rows is taken first, and projected once.
        let patches = tokens - 1;
        let mean = mean.fit(patches * width);
        mean.fill(0.0);
        let normed = rows.fit(patches * width);
        for t in 0..frames {
            weights.patch_norm.to_rows(cpu, &x[t * frame + width..], width, normed);
            emit(trace, "prompts_visual_ln", normed);
            let (to, normed) = (Shared::new(mean), &*normed);
            cpu.run_ranges(patches * width, 8192, |range| {
                // SAFETY: the ranges are disjoint.
                let to = unsafe { to.part(range.start, range.len()) };
                to.iter_mut().zip(&normed[range]).for_each(|(m, v)| *m += v / frames as f32);
            });
        }
        scratch.lhs.copy_from(cpu, patches, mean, width, &weights.patch_projection);
        let mut patch_features = vec![0.0; patches * joint];
        gemm(cpu, &scratch.lhs, &weights.patch_projection, Activation::None, Out::Rows(&mut patch_features));
        emit(trace, "img_features_mean", &patch_features);
        finite("clip features", &video)?;
        finite("clip features", &patch_features)?;
        Ok(ClipFeatures { video, patches: patch_features })
    }
}

fn shape(what: &str, expected: String, found: String) -> BackendError {
    BackendError::Shape { what: what.into(), expected, found }
}

fn finite(what: &'static str, values: &[f32]) -> Result<(), BackendError> {
    if values.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(BackendError::NotFinite { what }) }
}

/// x/‖x‖
fn normalise(values: &mut [f32]) {
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter_mut().for_each(|v| *v /= norm);
}

impl Backend for CpuBackend {
    fn prepare(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError> {
        let size = self.config.image_size;
        for frame in frames {
            let Some(rgb) = frame.host_rgb() else {
                // Reduced by a device that was lost.
                let own = |frame: &&Reduced| Reduced::new(frame.size(), frame.rgb().into_owned());
                let frames: Vec<Reduced> = frames.iter().map(own).collect();
                return self.prepare(&frames.iter().collect::<Vec<_>>());
            };
            if frame.size() as usize != size || rgb.len() != size * size * 3 {
                let found = format!("{0}x{0} with {1} bytes", frame.size(), rgb.len());
                return Err(shape("frame", format!("{size}x{size}x3 bytes"), found));
            }
        }
        let Memory { scratch, window, .. } = &mut self.memory;
        let states = self.weights.vision.prepare(&self.cpu, scratch, window, frames, &mut self.trace);
        Ok(states.into_iter().map(|frame| Arc::new(frame) as Prepared).collect())
    }

    fn encode(&mut self, clips: &[&[Prepared]]) -> Result<Vec<ClipFeatures>, BackendError> {
        clips.iter().map(|clip| self.encode_window(clip)).collect()
    }

    fn encode_text(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<TextFeatures>, BackendError> {
        let Self { cpu, weights, memory, trace, .. } = self;
        let features = weights.text.forward(cpu, &mut memory.scratch, prompts, trace)?;
        for row in &features {
            finite("text features", row)?;
        }
        Ok(features.into_iter().map(|row| TextFeatures(row.into())).collect())
    }

    fn compare(
        &mut self,
        clips: &[&ClipFeatures],
        prompts: &[TextFeatures],
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let Self { cpu, config, weights, memory, trace, .. } = self;
        let (joint, patches) = (config.projection, config.patches());
        if let Some(bad) = prompts.iter().find(|p| p.0.len() != joint) {
            return Err(shape("text features", format!("{joint} values"), bad.0.len().to_string()));
        }
        let Memory { scratch, texts, video, prompted, .. } = memory;
        let texts = texts.fit(prompts.len() * joint);
        texts.chunks_exact_mut(joint).zip(prompts).for_each(|(to, text)| to.copy_from_slice(&text.0));
        let (video, prompted) = (video.fit(joint), prompted.fit(prompts.len() * joint));
        let mut all = Vec::with_capacity(clips.len());
        for clip in clips {
            if clip.video.len() != joint || clip.patches.len() != patches * joint {
                let found = format!("{} and {}", clip.video.len(), clip.patches.len());
                return Err(shape("clip features", format!("{joint} and {} values", patches * joint), found));
            }
            video.copy_from_slice(&clip.video);
            normalise(video);
            emit(trace, "video_embeds", video);
            weights.prompts.forward(cpu, scratch, texts, &clip.patches, prompted, trace);
            let mut logits = Vec::with_capacity(prompts.len());
            for row in prompted.chunks_mut(joint) {
                normalise(row);
                let cosine: f32 = row.iter().zip(&*video).map(|(t, v)| t * v).sum();
                logits.push(weights.scale * cosine);
            }
            emit(trace, "text_embeds", prompted);
            emit(trace, "logits_per_video", &logits);
            finite("logits", &logits)?;
            all.push(logits);
        }
        Ok(all)
    }

    fn precision(&self) -> Precision {
        match self.format {
            Format::F32 => Precision::F32,
            Format::Int8 | Format::Int8Fine => Precision::Int8,
        }
    }

    fn describe(&self) -> String {
        let (isa, threads) = (self.cpu.isa.name(), self.cpu.pool.threads());
        format!("cpu, {isa}, {threads} threads, {}", self.precision())
    }

    fn set_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }
}
