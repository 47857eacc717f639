//! One round of `xclipd bench --device cuda:N`: each kind of batch once.

use std::time::Instant;

use anyhow::ensure;

use super::milliseconds;
use crate::backend::cuda::{CudaBackend, Times};
use crate::backend::{Backend, BackendError, Prepared, TextFeatures};
use crate::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use crate::model::{Config, recipe};
use crate::preprocess::{Geometry, Reduced, Rule};

/// Input sets in turns.
pub(super) struct Rounds {
    /// T
    frames: usize,
    rule: Rule,
    /// Each: the frames of all windows.
    sets: Vec<Vec<Reduced>>,
    texts: Vec<TextFeatures>,
    done: usize,
}

/// Milliseconds on the device, where nothing else is said.
pub(super) struct Round {
    /// All frames prepared, encoded and compared: one sequence.
    pub all_new: f32,
    pub launches_all_new: u64,
    /// One new frame of each window prepared, all encoded and compared: one sequence.
    pub one_new: f32,
    pub launches_one_new: u64,
    /// The same by the host's clock.
    pub wall_ms: f64,
    /// The stages of the first sequence, each by itself.
    pub stages: Times,
    /// `prepare` of the second one, by itself.
    pub prepare_one: f32,
    /// Of the first window.
    pub logits: Vec<f32>,
}

impl Rounds {
    /// `rule` of the checkpoint; `texts`: the labels of every window.
    pub fn new(config: &Config, rule: &Rule, windows: usize, sets: usize, texts: Vec<TextFeatures>) -> Self {
        let size = config.image_size;
        let set = |set| recipe::frames_u8(windows * config.num_frames, size, size, 2 + set as u32);
        let sets = (0..sets).map(|i| Reduced::split(&set(i), size)).collect();
        // Frames have the model's size.
        let rule = Rule { geometry: Geometry::Stretch, ..*rule };
        Self { frames: config.num_frames, rule, sets, texts, done: 0 }
    }

    /// With the next input set.
    pub fn next(&mut self, backend: &mut CudaBackend) -> anyhow::Result<Round> {
        let set = &self.sets[self.done % self.sets.len()];
        self.done += 1;
        let news = || set.iter().step_by(self.frames);

        backend.set_timing(false);
        let (all, before) = (self.arrived(backend, set.iter())?, backend.launches());
        let (logits, all_new) = backend.timed(|backend| {
            let prepared = backend.prepare(&all.iter().collect::<Vec<_>>())?;
            self.score(backend, &prepared)
        })?;
        let launches_all_new = backend.launches() - before;

        backend.set_timing(true);
        let all = self.arrived(backend, set.iter())?;
        let prepared = backend.prepare(&all.iter().collect::<Vec<_>>())?;
        self.score(backend, &prepared)?;
        let stages = backend.take_times()?;
        let new = self.arrived(backend, news())?;
        backend.prepare(&new.iter().collect::<Vec<_>>())?;
        let prepare_one = backend.take_times()?.prepare;
        backend.set_timing(false);

        let (new, before) = (self.arrived(backend, news())?, backend.launches());
        let ((again, wall_ms), one_new) = backend.timed(|backend| {
            let begun = Instant::now();
            backend.prepare(&new.iter().collect::<Vec<_>>())?;
            let logits = self.score(backend, &prepared)?;
            Ok((logits, milliseconds(begun.elapsed())))
        })?;
        let launches_one_new = backend.launches() - before;
        let windows = set.len() / self.frames;
        ensure!(logits.len() == windows && again.len() == windows, "score gave {} rows", logits.len());
        Ok(Round {
            all_new,
            launches_all_new,
            one_new,
            launches_one_new,
            wall_ms,
            stages,
            prepare_one,
            logits: logits[0].clone(),
        })
    }

    /// Logits of all windows.
    fn score(&self, backend: &mut CudaBackend, prepared: &[Prepared]) -> Result<Vec<Vec<f32>>, BackendError> {
        let clips = prepared.chunks(self.frames).map(|clip| (clip, &self.texts[..]));
        backend.score(&clips.collect::<Vec<_>>())
    }

    /// Frames as a stream's come to the backend: on its device, if there is room for so many.
    fn arrived<'a>(
        &self,
        backend: &CudaBackend,
        frames: impl Iterator<Item = &'a Reduced>,
    ) -> anyhow::Result<Vec<Reduced>> {
        let (rule, reducer) = (&self.rule, backend.reducer());
        let (format, size) = (PixelFormat::Rgb, rule.size);
        let info = ImageInfo { format, width: size, height: size, matrix: Matrix::Bt709, range: Range::Full };
        let one = |frame: &Reduced| {
            let rgb = frame.rgb();
            let image = Image::new(info, &[Plane { data: &rgb, stride: 3 * size as usize }])?;
            let on_device = reducer.as_ref().and_then(|reducer| reducer.reduce(rule, &image, Roi::WHOLE));
            Ok(on_device.unwrap_or_else(|| frame.clone()))
        };
        frames.map(one).collect()
    }
}
