//! Video-specific prompting and logits: what a clip's patches say moves every label's vector a little.
//!
//! Each window names its labels by rows of one device table, so windows with different labels share a batch.

use half::f16;

use super::CudaError;
use super::block::Scratch;
use super::head::FeaturesAt;
use super::kernels::{Attention, Step};
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::product::Into;
use super::shape::Sizes;
use super::trace::Tracer;
use super::weights::{Linear, Loader, Norm};
use crate::backend::BackendError;
use crate::model::Config;

struct Layer {
    norm1: Norm,
    query: Linear,
    key_value: Linear,
    out: Linear,
    norm3: Norm,
    fc1: Linear,
    fc2: Linear,
}

pub(super) struct Prompts {
    norm: Norm,
    layers: Vec<Layer>,
    alpha: Buffer<f32>,
    heads: usize,
    /// P
    patches: usize,
    /// E
    width: usize,
    /// exp(logit_scale)
    scale: f32,
}

pub(super) struct PromptWork {
    /// [N, P, E]: normalised patches.
    seen: Buffer<f16>,
    /// Per layer [N, P, 2E].
    keys: Vec<Buffer<f16>>,
    /// [N, K, E]: labels on their way.
    x: Buffer<f16>,
    /// Queries.
    queries: Buffer<f16>,
    scratch: Scratch,
}

impl PromptWork {
    pub fn new(launcher: &Launcher, config: &Config, sizes: &Sizes) -> Result<Self, CudaError> {
        let (width, patches) = (config.projection, sizes.compared * config.patches());
        let rows = sizes.label_rows();
        let buffer = |len| Buffer::new(&launcher.context, "prompts in work", len);
        Ok(Self {
            seen: buffer(patches * width)?,
            keys: (0..config.prompt_layers).map(|_| buffer(patches * 2 * width)).collect::<Result<_, _>>()?,
            x: buffer(rows * width)?,
            queries: buffer(rows * width)?,
            scratch: Scratch::new(launcher, rows, width, 4 * width)?,
        })
    }
}

/// Labels of N windows: [N, K] rows of the table, −1 where a window has fewer.
#[derive(Clone, Copy)]
pub(super) struct LabelsAt {
    pub table: At<f32>,
    pub index: At<i32>,
}

impl Prompts {
    pub fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
        let (width, heads) = (config.projection, config.prompt_heads);
        let scale = ((width / heads) as f32).powf(-0.5);
        let mut layers = Vec::with_capacity(config.prompt_layers);
        for i in 0..config.prompt_layers {
            let layer = format!("prompts_generator.decoder.{i}");
            let part = |name: &str, factor| (format!("{layer}.cross_attn.{name}_proj"), factor);
            layers.push(Layer {
                norm1: loader.norm(&format!("{layer}.norm1"), width)?,
                query: loader.stacked(&[part("q", scale)], width, width, false)?,
                key_value: loader.stacked(&[part("k", 1.0), part("v", 1.0)], width, width, false)?,
                out: loader.linear(&format!("{layer}.cross_attn.proj"), width, width, true)?,
                norm3: loader.norm(&format!("{layer}.norm3"), width)?,
                fc1: loader.linear(&format!("{layer}.mlp.0"), 4 * width, width, true)?,
                fc2: loader.linear(&format!("{layer}.mlp.3"), width, 4 * width, true)?,
            });
        }
        let alpha = loader.tensor("prompts_generator.alpha", &[width])?;
        Ok(Self {
            norm: loader.norm("prompts_generator.layernorm", width)?,
            layers,
            alpha: loader.upload_f32(&alpha)?,
            heads,
            patches: config.patches(),
            width,
            scale: loader.tensor("logit_scale", &[])?[0].exp(),
        })
    }

    /// Features of N windows and K labels each → logits [N, K]. The trace sees what is before the cosine;
    /// prompted labels are left in `work`.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        launcher: &Launcher,
        work: &PromptWork,
        features: FeaturesAt,
        labels: LabelsAt,
        windows: usize,
        prompts: usize,
        logits: At<f32>,
        tracer: &mut Tracer<'_>,
    ) -> Result<(), CudaError> {
        let (main, side, width) = (Lane::Main, Lane::Side, self.width);
        let (rows, keys) = (windows * prompts, windows * self.patches);
        let (x, seen, queries) = (work.x.at(), work.seen.at(), work.queries.at());
        let (narrow, wide) = (work.scratch.narrow(), work.scratch.wide());
        let (heads, head) = (self.heads, width / self.heads);
        let sizes = Attention { items: windows, length: prompts, heads, head, causal: false };

        launcher.fork()?;
        launcher.layer_norm(side, features.patches, width, seen, self.norm.at(), keys)?;
        for (layer, to) in self.layers.iter().zip(&work.keys) {
            launcher.product(side, seen, width, keys, layer.key_value.at(), to.at(), Into::Replace)?;
        }
        launcher.gather_text(labels.table, labels.index, x, rows, width)?;
        for (i, (layer, keys)) in self.layers.iter().zip(&work.keys).enumerate() {
            let step = Step::new(Some(layer.norm1.at()), layer.query.at(), Into::Replace);
            launcher.layer(main, x, width, rows, step, narrow, queries)?;
            if i == 0 {
                launcher.join()?;
            }
            launcher.prompt_attention(sizes, queries, keys.at(), narrow, self.patches)?;
            let step = Step::new(None, layer.out.at(), Into::AddTo);
            launcher.layer(main, narrow, width, rows, step, At::NULL, x)?;
            let step = Step::new(Some(layer.norm3.at()), layer.fc1.at(), Into::Replace);
            let step = Step { quick_gelu: true, ..step };
            launcher.layer(main, x, width, rows, step, narrow, wide)?;
            let step = Step::new(None, layer.fc2.at(), Into::AddTo);
            launcher.layer(main, wide, layer.fc2.ins, rows, step, At::NULL, x)?;
            tracer.show(&format!("prompts_hidden_{i}"), x, windows, prompts * width)?;
        }
        let (alpha, video, scale) = (self.alpha.at(), features.video, self.scale);
        let counts = [windows, prompts, width];
        launcher.prompt_logits(labels.table, labels.index, x, alpha, video, scale, logits, counts)
    }

    /// For the trace: x/‖x‖ of each window's video vector and prompted labels, as the logits' kernel takes
    /// them. `texts`: each window's label vectors.
    pub fn show_embeddings(
        &self,
        work: &PromptWork,
        features: FeaturesAt,
        texts: &[Vec<f32>],
        tracer: &mut Tracer<'_>,
    ) -> Result<(), CudaError> {
        let (launcher, width) = (tracer.launcher, self.width);
        let alpha = launcher.download(self.alpha.at(), width)?;
        let video = launcher.download(features.video, texts.len() * width)?;
        let prompted = tracer.values(work.x.at(), texts.iter().map(Vec::len).sum())?;
        let mut from = 0;
        for (text, video) in texts.iter().zip(video.chunks(width)) {
            tracer.emit("video_embeds", &normalised(video));
            let mut rows = Vec::with_capacity(text.len());
            for (text, prompted) in text.chunks(width).zip(prompted[from..].chunks(width)) {
                let row: Vec<f32> =
                    text.iter().zip(prompted).zip(&alpha).map(|((t, p), a)| t + a * p).collect();
                rows.extend(normalised(&row));
            }
            from += text.len();
            tracer.emit("text_embeds", &rows);
        }
        Ok(())
    }
}

/// x/‖x‖
fn normalised(values: &[f32]) -> Vec<f32> {
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter().map(|v| v / norm).collect()
}
