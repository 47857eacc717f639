//! One checkpoint on one GPU, behind the trait of all backends.

use super::CudaError;
use super::graphs::{Graphs, Key, Times};
use super::head::Head;
use super::launcher::{Lane, Launcher};
use super::prompts::Prompts;
use super::runtime::probe;
use super::shape;
use super::text::Text;
use super::trace::Tracer;
use super::vision::Vision;
use super::weights::Loader;
use super::work::Work;
use crate::backend::source::Source;
use crate::backend::{Backend, BackendError, ClipFeatures, Precision, Prepared, TextFeatures, Trace};
use crate::model::{Config, Model};
use crate::preprocess::{Reduced, Rule};

pub struct CudaBackend {
    // First, so that it is dropped first: its drop waits for all work.
    pub(super) launcher: Launcher,
    pub(super) graphs: Graphs,
    pub(super) config: Config,
    pub(super) weights: Weights,
    pub(super) work: Work,
    weight_bytes: usize,
    pub(super) trace: Option<Trace>,
}

pub(super) struct Weights {
    vision: Vision,
    head: Head,
    pub(super) prompts: Prompts,
    text: Text,
}

impl CudaBackend {
    /// Uploads the model's weights to GPU `ordinal`.
    pub fn new(model: &Model, ordinal: usize) -> Result<Self, BackendError> {
        let mut source = |name: &str, _: &[usize]| model.weights.tensor(name);
        Self::from_source(&model.config, &model.rule, ordinal, &mut source)
    }

    /// As [`CudaBackend::new`], weights from any source (synthetic ones need no disk).
    pub fn from_source(
        config: &Config,
        rule: &Rule,
        ordinal: usize,
        source: &mut Source<'_>,
    ) -> Result<Self, BackendError> {
        let gpu = probe(ordinal)?;
        shape::check(config)?;
        let launcher = Launcher::new(&gpu)?;
        let mut loader = Loader { launcher: &launcher, source, bytes: 0 };
        let weights = Weights {
            vision: Vision::load(&mut loader, config, rule)?,
            head: Head::load(&mut loader, config)?,
            prompts: Prompts::load(&mut loader, config)?,
            text: Text::load(&mut loader, config)?,
        };
        let weight_bytes = loader.bytes;
        let work = Work::new(&launcher, config, weights.vision.state())?;
        let (graphs, config) = (Graphs::new(), config.clone());
        Ok(Self { launcher, graphs, config, weights, work, weight_bytes, trace: None })
    }

    /// Bytes of weights on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Graphs and single launches since it was opened.
    pub fn launches(&self) -> u64 {
        self.launcher.launches()
    }

    /// False: every launch by itself, never a graph.
    pub fn set_graphs(&mut self, on: bool) {
        self.graphs.enabled = on;
    }

    /// Whether the device's own times are taken, see [`CudaBackend::take_times`].
    pub fn set_timing(&mut self, on: bool) {
        self.graphs.set_timing(on);
    }

    /// What the device spent since the last call, by its own clock.
    pub fn take_times(&mut self) -> Result<Times, CudaError> {
        self.launcher.context.enter()?;
        self.graphs.take_times(&self.launcher)
    }

    fn check_frame(&self, frame: &Reduced) -> Result<(), BackendError> {
        let size = self.config.image_size;
        if frame.size as usize == size && frame.rgb.len() == size * size * 3 {
            return Ok(());
        }
        let found = format!("{}x{} with {} bytes", frame.size, frame.size, frame.rgb.len());
        Err(shape_error("frame", format!("{size}x{size}x3 bytes"), found))
    }

    /// At most `sizes.frames` frames.
    fn prepare_group(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError> {
        let Self { launcher, graphs, weights, work, trace, .. } = self;
        work.staged.synchronize()?;
        let bytes = frames[0].rgb.len();
        for (to, frame) in work.pixels.host.chunks_mut(bytes).zip(frames) {
            to.copy_from_slice(&frame.rgb);
        }
        let slots = work.ring.take(frames.len());
        work.new_slots.host.fill(-1);
        work.new_slots.host[..slots.len()].copy_from_slice(&slots);
        let traced = trace.is_some();
        let bucket = if traced { frames.len() } else { work.sizes.frame_bucket(frames.len()) };
        let shared = &*work;
        let inputs = || {
            shared.pixels.send(launcher, bucket * bytes)?;
            shared.new_slots.send(launcher, bucket)
        };
        let step = |first: usize, tracer: &mut Tracer<'_>| {
            let count = shared.sizes.frame_step.min(bucket - first);
            let pixels = shared.pixels.at().add(first * bytes);
            let (slots, states) = (shared.new_slots.at().add(first), shared.ring.states());
            weights.vision.prepare(launcher, &shared.vision, pixels, count, slots, states, tracer)
        };
        let mut steps = (0..bucket).step_by(shared.sizes.frame_step);
        let launched = if traced {
            let tracer = &mut Tracer { launcher, trace };
            inputs().and_then(|()| steps.try_for_each(|first| step(first, tracer)))
        } else {
            graphs.run(launcher, Key::Prepare(bucket), || {
                inputs()?;
                let tracer = &mut Tracer { launcher, trace: &mut None };
                steps.clone().try_for_each(|first| step(first, tracer))
            })
        };
        let launched = launched.and_then(|()| work.staged.record(launcher.stream(Lane::Main)));
        if let Err(error) = launched {
            work.ring.give_back(&slots);
            return Err(error.into());
        }
        Ok(work.ring.keep(launcher, &slots)?)
    }

    /// How many of these windows pass in one call; all are whole windows of own frames.
    fn fitting(&self, clips: &[&[Prepared]]) -> usize {
        let mut guests = 0;
        let fits = clips.iter().take(self.work.sizes.windows).take_while(|clip| {
            guests += clip.iter().filter(|frame| self.work.ring.is_guest(frame) == Some(true)).count();
            guests <= self.work.ring.guest_count()
        });
        fits.count().max(1)
    }

    fn check_clip(&self, clip: &[Prepared]) -> Result<(), BackendError> {
        let frames = self.config.num_frames;
        if clip.len() != frames {
            return Err(shape_error("window", format!("{frames} frames"), format!("{}", clip.len())));
        }
        if clip.iter().any(|frame| self.work.ring.is_guest(frame).is_none()) {
            let expected = "a state prepared by this backend".into();
            return Err(shape_error("prepared frame", expected, "another backend's or checkpoint's".into()));
        }
        Ok(())
    }

    /// Windows → features on the device, from window 0 on. Nothing waits.
    fn encode_on_device(&mut self, clips: &[&[Prepared]]) -> Result<(), BackendError> {
        let Self { launcher, graphs, config, weights, work, trace, .. } = self;
        let frames = config.num_frames;
        let all: Vec<&Prepared> = clips.iter().copied().flatten().collect();
        let slots = work.ring.slots(launcher, &all)?;
        let traced = trace.is_some();
        let bucket = if traced { clips.len() } else { work.sizes.bucket(clips.len()) };
        // Unused places repeat the last window.
        let last = &slots[slots.len() - frames..];
        let padded = slots.iter().chain(last.iter().cycle()).take(bucket * frames);
        work.slots.host.iter_mut().zip(padded).for_each(|(to, slot)| *to = *slot);
        let work = &*work;
        let step = |first: usize, tracer: &mut Tracer<'_>| {
            let windows = work.sizes.micro.min(bucket - first);
            let (states, slots) = (work.ring.states(), work.slots.at().add(first * frames));
            weights.vision.encode(launcher, &work.vision, states, slots, windows, frames, tracer)?;
            let to = work.features(config, first);
            weights.head.forward(launcher, &work.vision, &work.head, windows, to, tracer)
        };
        let mut steps = (0..bucket).step_by(work.sizes.micro);
        if traced {
            work.slots.send(launcher, bucket * frames)?;
            let tracer = &mut Tracer { launcher, trace };
            steps.try_for_each(|first| step(first, tracer))?;
        } else {
            graphs.run(launcher, Key::Encode(bucket), || {
                work.slots.send(launcher, bucket * frames)?;
                let tracer = &mut Tracer { launcher, trace: &mut None };
                steps.clone().try_for_each(|first| step(first, tracer))
            })?;
        }
        Ok(())
    }

    fn check_texts(&self, texts: &[TextFeatures]) -> Result<(), BackendError> {
        let joint = self.config.projection;
        match texts.iter().find(|text| text.0.len() != joint) {
            Some(bad) => {
                Err(shape_error("text features", format!("{joint} values"), bad.0.len().to_string()))
            }
            None => Ok(()),
        }
    }
}

pub(super) fn shape_error(what: &str, expected: String, found: String) -> BackendError {
    BackendError::Shape { what: what.into(), expected, found }
}

impl Backend for CudaBackend {
    fn prepare(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError> {
        frames.iter().try_for_each(|frame| self.check_frame(frame))?;
        self.launcher.context.enter()?;
        let mut states = Vec::with_capacity(frames.len());
        for group in frames.chunks(self.work.sizes.frames) {
            states.extend(self.prepare_group(group)?);
        }
        Ok(states)
    }

    fn encode(&mut self, clips: &[&[Prepared]]) -> Result<Vec<ClipFeatures>, BackendError> {
        clips.iter().try_for_each(|clip| self.check_clip(clip))?;
        self.launcher.context.enter()?;
        let (mut features, mut rest) = (Vec::with_capacity(clips.len()), clips);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            self.encode_on_device(now)?;
            features.extend(self.fetch_features(now.len())?);
            rest = later;
        }
        Ok(features)
    }

    fn encode_text(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<TextFeatures>, BackendError> {
        self.launcher.context.enter()?;
        let Self { launcher, weights, work, trace, .. } = self;
        let tracer = &mut Tracer { launcher, trace };
        let features = weights.text.forward(launcher, &work.text, prompts, tracer)?;
        if features.iter().flatten().any(|v| !v.is_finite()) {
            return Err(BackendError::NotFinite { what: "text features" });
        }
        Ok(features.into_iter().map(|row| TextFeatures(row.into())).collect())
    }

    fn compare(
        &mut self,
        clips: &[&ClipFeatures],
        prompts: &[TextFeatures],
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        self.check_texts(prompts)?;
        self.launcher.context.enter()?;
        let mut logits = Vec::with_capacity(clips.len());
        for clips in clips.chunks(self.work.sizes.windows) {
            self.send_features(clips)?;
            logits.extend(self.compare_on_device(&vec![prompts; clips.len()])?);
        }
        Ok(logits)
    }

    fn score(&mut self, windows: &[(&[Prepared], &[TextFeatures])]) -> Result<Vec<Vec<f32>>, BackendError> {
        for (clip, texts) in windows {
            self.check_clip(clip)?;
            self.check_texts(texts)?;
        }
        self.launcher.context.enter()?;
        let (clips, texts): (Vec<&[Prepared]>, Vec<&[TextFeatures]>) = windows.iter().copied().unzip();
        let (mut logits, mut first) = (Vec::with_capacity(windows.len()), 0);
        while first < clips.len() {
            let count = self.fitting(&clips[first..]);
            self.encode_on_device(&clips[first..first + count])?;
            logits.extend(self.compare_on_device(&texts[first..first + count])?);
            first += count;
        }
        Ok(logits)
    }

    fn batch(&self) -> usize {
        self.work.sizes.windows
    }

    fn precision(&self) -> Precision {
        Precision::F16
    }

    fn describe(&self) -> String {
        let gpu = &self.launcher.context.gpu;
        format!("cuda:{}, {} ({}), CUDA {}, f16", gpu.ordinal, gpu.name, gpu.kernels, gpu.driver)
    }

    fn set_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }
}
