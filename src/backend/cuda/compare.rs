//! The second half of a batch: features on the device → logits, and features to and from the host.

use half::f16;

use super::CudaError;
use super::backend::{CudaBackend, shape_error};
use super::graphs::Key;
use super::labels::LabelTable;
use super::prompts::LabelsAt;
use super::shape::{MOST_PROMPTS, prompt_bucket};
use super::trace::Tracer;
use crate::backend::{BackendError, ClipFeatures, TextFeatures};

impl CudaBackend {
    /// Logits of the features on the device, each window's with its own labels.
    pub(super) fn compare_on_device(
        &mut self,
        texts: &[&[TextFeatures]],
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let most = texts.iter().map(|texts| texts.len()).max().unwrap_or(0);
        let mut logits = vec![Vec::new(); texts.len()];
        for first in (0..most).step_by(MOST_PROMPTS) {
            let part = |texts: &&[TextFeatures]| -> Vec<TextFeatures> {
                texts.iter().skip(first).take(MOST_PROMPTS).cloned().collect()
            };
            let parts: Vec<Vec<TextFeatures>> = texts.iter().map(part).collect();
            if self.trace.is_some() {
                self.compare_traced(&parts, &mut logits)?;
            } else {
                self.compare_part(&parts, &mut logits)?;
            }
        }
        if most == 0 {
            // Nothing to compare, and the features' work is pending.
            self.launcher.finish()?;
        }
        if logits.iter().flatten().any(|v| !v.is_finite()) {
            return Err(BackendError::NotFinite { what: "logits" });
        }
        Ok(logits)
    }

    /// Rows of the label table, row after row of `prompts`, where the next launch finds them.
    fn fill_index(&mut self, texts: &[Vec<TextFeatures>], prompts: usize) -> Result<(), CudaError> {
        let Self { launcher, graphs, work, .. } = self;
        let moves = work.labels.moves();
        work.index.host.fill(-1);
        for (row, texts) in work.index.host.chunks_mut(prompts).zip(texts) {
            for (to, text) in row.iter_mut().zip(texts) {
                *to = LabelTable::row(&mut work.labels, launcher, text)?;
            }
        }
        if work.labels.moves() > moves {
            graphs.forget_compare();
        }
        Ok(())
    }

    fn compare_part(
        &mut self,
        texts: &[Vec<TextFeatures>],
        logits: &mut [Vec<f32>],
    ) -> Result<(), CudaError> {
        let most = texts.iter().map(Vec::len).max().unwrap_or(0);
        let (windows, prompts) = (self.work.sizes.bucket(texts.len()), prompt_bucket(most));
        self.fill_index(texts, prompts)?;
        let Self { launcher, graphs, config, weights, work, .. } = self;
        let work = &*work;
        graphs.run(launcher, Key::Compare(windows, prompts), || {
            work.index.send(launcher, windows * prompts)?;
            let together = work.sizes.compared_with(prompts);
            for first in (0..windows).step_by(together) {
                let (count, at) = (together.min(windows - first), first * prompts);
                let labels = LabelsAt { table: work.labels.at(), index: work.index.at().add(at) };
                let (features, to) = (work.features(config, first), work.logits.at().add(at));
                let tracer = &mut Tracer { launcher, trace: &mut None };
                weights.prompts.forward(
                    launcher,
                    &work.prompts,
                    features,
                    labels,
                    count,
                    prompts,
                    to,
                    tracer,
                )?;
            }
            work.logits.fetch(launcher, windows * prompts)
        })?;
        launcher.finish()?;
        for ((row, texts), to) in work.logits.host.chunks(prompts).zip(texts).zip(logits) {
            to.extend_from_slice(&row[..texts.len()]);
        }
        Ok(())
    }

    /// Window by window, nothing padded.
    fn compare_traced(
        &mut self,
        texts: &[Vec<TextFeatures>],
        logits: &mut [Vec<f32>],
    ) -> Result<(), CudaError> {
        for (window, (texts, to)) in texts.iter().zip(logits).enumerate() {
            if texts.is_empty() {
                continue;
            }
            self.fill_index(std::slice::from_ref(texts), texts.len())?;
            let Self { launcher, config, weights, work, trace, .. } = self;
            work.index.send(launcher, texts.len())?;
            let labels = LabelsAt { table: work.labels.at(), index: work.index.at() };
            let (features, out) = (work.features(config, window), work.logits.at());
            let tracer = &mut Tracer { launcher, trace };
            let prompts = &weights.prompts;
            prompts.forward(launcher, &work.prompts, features, labels, 1, texts.len(), out, tracer)?;
            let vectors = vec![texts.iter().flat_map(|text| text.0.iter().copied()).collect::<Vec<f32>>()];
            prompts.show_embeddings(&work.prompts, features, &vectors, tracer)?;
            let row = launcher.download(out, texts.len())?;
            tracer.emit("logits_per_video", &row);
            to.extend(row);
        }
        Ok(())
    }

    /// Features of the first `count` windows on the device.
    pub(super) fn fetch_features(&mut self, count: usize) -> Result<Vec<ClipFeatures>, BackendError> {
        let Self { launcher, config, work, .. } = self;
        let (joint, patches) = (config.projection, config.patches() * config.projection);
        work.video.fetch(launcher, count * joint)?;
        work.patches.fetch(launcher, count * patches)?;
        launcher.finish()?;
        let rows = work.video.host.chunks(joint).zip(work.patches.host.chunks(patches)).take(count);
        let features: Vec<ClipFeatures> = rows
            .map(|(video, patches)| ClipFeatures {
                video: video.to_vec(),
                patches: patches.iter().map(|v| v.to_f32()).collect(),
            })
            .collect();
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        match features.iter().all(|clip| finite(&clip.video) && finite(&clip.patches)) {
            true => Ok(features),
            false => Err(BackendError::NotFinite { what: "clip features" }),
        }
    }

    /// The reverse; patch features that came from a GPU are f16 values already.
    pub(super) fn send_features(&mut self, clips: &[&ClipFeatures]) -> Result<(), BackendError> {
        let Self { launcher, config, work, .. } = self;
        let (joint, patches) = (config.projection, config.patches() * config.projection);
        let rows = work.video.host.chunks_mut(joint).zip(work.patches.host.chunks_mut(patches));
        for (clip, (to_video, to_patches)) in clips.iter().zip(rows) {
            if clip.video.len() != joint || clip.patches.len() != patches {
                let found = format!("{} and {}", clip.video.len(), clip.patches.len());
                return Err(shape_error("clip features", format!("{joint} and {patches} values"), found));
            }
            to_video.copy_from_slice(&clip.video);
            to_patches.iter_mut().zip(&clip.patches).for_each(|(to, v)| *to = f16::from_f32(*v));
        }
        work.video.send(launcher, clips.len() * joint)?;
        Ok(work.patches.send(launcher, clips.len() * patches)?)
    }
}
