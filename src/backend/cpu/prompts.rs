//! Video-specific prompting: what the clip's patches say moves every label's text vector a little.
//! Labels never see each other, and keys and values are the clip's alone.

use super::attention::{Attention, Item, Rows};
use super::block::Scratch;
use super::buffer::row_stride;
use super::gemm::{Activation, Cpu, Out, gemm};
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use super::load::Loader;
use crate::backend::{BackendError, Trace, emit};
use crate::model::Config;

/// Prompts that share one packing of the keys.
const QUERIES: usize = 96;

struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key_value: Linear,
    out: Linear,
    norm3: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

pub struct Prompts {
    norm: LayerNorm,
    layers: Vec<Layer>,
    alpha: Vec<f32>,
    heads: usize,
}

impl Prompts {
    pub(super) fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
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
        let norm = loader.norm("prompts_generator.layernorm", width)?;
        Ok(Self { norm, layers, alpha: loader.tensor("prompts_generator.alpha", &[width])?, heads })
    }

    /// `text`: K×E features; `patches`: P×E of one clip; `x`: text + alpha · prompted(text), K×E.
    pub fn forward(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        text: &[f32],
        patches: &[f32],
        x: &mut [f32],
        trace: &mut Option<Trace>,
    ) {
        let width = self.alpha.len();
        let (prompts, keys) = (text.len() / width, patches.len() / width);
        let stride = row_stride(2 * width);
        let Scratch { lhs, hidden, qkv, seen, queries } = scratch;
        x.copy_from_slice(text);
        for (i, layer) in self.layers.iter().enumerate() {
            if i == 0 {
                self.norm.to_lhs(cpu, patches, width, keys, seen, &layer.key_value);
            }
            gemm(cpu, seen, &layer.key_value, Activation::None, Out::Spaced(qkv.fit(keys * stride), stride));
            layer.norm1.to_lhs(cpu, x, width, prompts, lhs, &layer.query);
            gemm(cpu, lhs, &layer.query, Activation::None, Out::Rows(queries.fit(prompts * width)));
            let item = |i: usize| {
                let first = i * QUERIES;
                Item {
                    q: Rows { values: &queries[first * width..], stride: width },
                    k: Rows { values: qkv, stride },
                    v: Rows { values: &qkv[width..], stride },
                    queries: QUERIES.min(prompts - first),
                    keys,
                    extra: None,
                    first,
                }
            };
            let attention = Attention {
                item: &item,
                items: prompts.div_ceil(QUERIES),
                rows: prompts,
                heads: self.heads,
                head: width / self.heads,
                causal: false,
            };
            attention.run(cpu, lhs, &layer.out);
            gemm(cpu, lhs, &layer.out, Activation::None, Out::AddTo(x));
            layer.norm3.to_lhs(cpu, x, width, prompts, lhs, &layer.fc1);
            gemm(cpu, lhs, &layer.fc1, Activation::QuickGelu, Out::Lhs(hidden, &layer.fc2));
            gemm(cpu, hidden, &layer.fc2, Activation::None, Out::AddTo(x));
            if trace.is_some() {
                emit(trace, &format!("prompts_hidden_{i}"), x);
            }
        }
        for (x, text) in x.chunks_mut(width).zip(text.chunks(width)) {
            x.iter_mut().zip(text).zip(&self.alpha).for_each(|((x, t), a)| *x = t + a * *x);
        }
    }

    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| {
            [&l.query, &l.key_value, &l.out, &l.fc1, &l.fc2].iter().map(|l| l.bytes()).sum::<usize>()
        };
        self.layers.iter().map(layer).sum()
    }
}
