//! One checkpoint on one GPU, behind the trait of all backends.

use std::borrow::Cow;
use std::sync::Arc;

use super::CudaError;
use super::device::Event;
use super::graphs::{Graphs, Key, Times};
use super::head::Head;
use super::launcher::{Lane, Launcher};
use super::prompts::Prompts;
use super::reduce::CudaReducer;
use super::runtime::probe;
use super::shape;
use super::sys;
use super::text::Text;
use super::trace::Tracer;
use super::vision::Vision;
use super::weights::Loader;
use super::work::Work;
use crate::backend::source::Source;
use crate::backend::{
    Backend, BackendError, ClipFeatures, DeviceReducer, Precision, Prepared, TextFeatures, Trace,
};
use crate::model::{Config, Model};
use crate::preprocess::{Reduced, Rule};

/// Which GPU a checkpoint goes to, and in which parts its batches pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub ordinal: usize,
    /// Windows that pass the blocks together; none: as many as the L2 cache holds.
    pub micro: Option<usize>,
}

impl From<usize> for Placement {
    fn from(ordinal: usize) -> Self {
        Self { ordinal, micro: None }
    }
}

pub struct CudaBackend {
    // First, so that it is dropped first: its drop waits for all work.
    pub(super) launcher: Launcher,
    pub(super) graphs: Graphs,
    pub(super) config: Config,
    pub(super) weights: Weights,
    pub(super) work: Work,
    /// None where there was no memory left for it.
    pub(super) reducer: Option<Arc<CudaReducer>>,
    weight_bytes: usize,
    pub(super) trace: Option<Trace>,
}

pub(super) struct Weights {
    pub(super) vision: Vision,
    head: Head,
    pub(super) prompts: Prompts,
    text: Text,
}

impl CudaBackend {
    /// Uploads the model's weights to a GPU.
    pub fn new(model: &Model, placement: impl Into<Placement>) -> Result<Self, BackendError> {
        let mut source = |name: &str, _: &[usize]| model.weights.tensor(name);
        Self::from_source(&model.config, &model.rule, placement, &mut source)
    }

    /// As [`CudaBackend::new`], weights from any source (synthetic ones need no disk).
    pub fn from_source(
        config: &Config,
        rule: &Rule,
        placement: impl Into<Placement>,
        source: &mut Source<'_>,
    ) -> Result<Self, BackendError> {
        let Placement { ordinal, micro } = placement.into();
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
        let work = Work::new(&launcher, config, weights.vision.state(), micro)?;
        let (size, patch) = (config.image_size as u32, config.patch_size as u32);
        let reducer = CudaReducer::new(&launcher.context, launcher.kernels.clone(), size, patch);
        let reducer = match reducer {
            Err(error) if error.is_out_of_memory() => {
                tracing::info!("pictures are reduced on the processor: {error}");
                None
            }
            opened => Some(Arc::new(opened?)),
        };
        let (graphs, config) = (Graphs::new(), config.clone());
        Ok(Self { launcher, graphs, config, weights, work, reducer, weight_bytes, trace: None })
    }

    /// Bytes of weights on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// The loaded kernels' target, such as `sm_90`; `compute_80` where the driver compiled them.
    pub fn kernels(&self) -> &'static str {
        self.launcher.kernels.target()
    }

    /// Windows that pass the blocks together.
    pub fn micro(&self) -> usize {
        self.work.sizes.micro
    }

    /// Graphs, and kernels and products launched by themselves, since it was opened. Pictures are copied and reduced
    /// before their batch, by the threads that have them: a copy and a kernel each, which are not counted.
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

    /// What `work` gives, and the milliseconds between two marks in the device's queue: one before all of it, one
    /// after its last comparison. Waits first for pictures on their way and for earlier work.
    pub fn timed<R>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<R, BackendError>,
    ) -> Result<(R, f32), BackendError> {
        self.launcher.context.enter()?;
        if let Some(reducer) = &self.reducer {
            reducer.finish()?;
        }
        self.launcher.finish()?;
        let begun = Event::new(&self.launcher.context, sys::TIMED)?;
        begun.record(self.launcher.stream(Lane::Main))?;
        self.graphs.begin_sequence(&self.launcher)?;
        let done = work(self);
        let ended = self.graphs.end_sequence();
        let (done, ended) = (done?, ended.expect("begun above, and ended nowhere else"));
        self.launcher.finish()?;
        Ok((done, ended.milliseconds_since(&begun)?))
    }

    /// A frame's pixels in host memory.
    fn pixels<'a>(&self, frame: &'a Reduced) -> Result<Cow<'a, [u8]>, BackendError> {
        let (size, rgb) = (self.config.image_size, frame.rgb());
        if frame.size() as usize == size && rgb.len() == size * size * 3 {
            return Ok(rgb);
        }
        let found = format!("{0}x{0} with {1} bytes", frame.size(), rgb.len());
        Err(shape_error("frame", format!("{size}x{size}x3 bytes"), found))
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
            let launched = steps.try_for_each(|first| step(first, tracer));
            launched.inspect_err(|_| drop(launcher.settle()))?;
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
        self.launcher.context.enter()?;
        let (mut pixels, mut rows, mut in_slot) = (Vec::new(), Vec::new(), Vec::with_capacity(frames.len()));
        for frame in frames {
            let slot = self.reducer.as_ref().and_then(|reducer| reducer.take_slot(frame));
            in_slot.push(slot.is_some());
            match slot {
                Some(slot) => rows.push(slot),
                None => pixels.push(self.pixels(frame)?),
            }
        }
        let mut of_pixels = self.prepare_arrived(&pixels, &mut rows)?;
        let (mut of_rows, mut of_pixels) =
            (of_pixels.split_off(pixels.len()).into_iter(), of_pixels.into_iter());
        let next = |in_slot: &bool| if *in_slot { of_rows.next() } else { of_pixels.next() };
        Ok(in_slot.iter().filter_map(next).collect())
    }

    fn reducer(&self) -> Option<Arc<dyn DeviceReducer>> {
        self.reducer.clone().map(|reducer| reducer as Arc<dyn DeviceReducer>)
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
        format!("cuda:{}, {} ({}), CUDA {}, f16", gpu.ordinal, gpu.name, self.kernels(), gpu.driver)
    }

    fn set_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }
}
