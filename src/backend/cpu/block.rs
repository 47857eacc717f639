//! The pre-norm transformer block that all towers share: x += attention(LN1(x)), x += MLP(LN2(x)).

use super::attention::{Attention, Item, Rows};
use super::buffer::Buffer;
use super::gemm::{Activation, Cpu, Lhs, Linear, Out, gemm};
use super::layer_norm::LayerNorm;
use super::load::Loader;
use crate::backend::BackendError;
use crate::model::config::Tower;

/// Working memory; only ever grows.
#[derive(Default)]
pub struct Scratch {
    pub lhs: Lhs,
    pub hidden: Lhs,
    pub qkv: Buffer,
}

pub struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

/// What the attention sees beside the item's own rows.
#[derive(Clone, Copy)]
pub enum Extra<'a> {
    None,
    /// One row of the residual stream per item, as one more key and value: its own query, projection
    /// and MLP would be dropped, so they are not computed.
    Rows(&'a [f32]),
    /// The same projected key and value for every item.
    Constant(&'a [f32], &'a [f32]),
}

impl Block {
    pub(super) fn load(
        loader: &mut Loader<'_, '_>,
        prefix: &str,
        tower: &Tower,
    ) -> Result<Self, BackendError> {
        let width = tower.width;
        Ok(Self {
            norm1: loader.norm(&format!("{prefix}.layer_norm1"), width)?,
            qkv: loader.qkv(&format!("{prefix}.self_attn"), width, tower.heads)?,
            out: loader.linear(&format!("{prefix}.self_attn.out_proj"), width, width, true)?,
            norm2: loader.norm(&format!("{prefix}.layer_norm2"), width)?,
            fc1: loader.linear(&format!("{prefix}.mlp.fc1"), tower.mlp, width, true)?,
            fc2: loader.linear(&format!("{prefix}.mlp.fc2"), width, tower.mlp, true)?,
            heads: tower.heads,
        })
    }

    /// The key and value that this block's attention makes of one residual row.
    pub fn key_value(&self, cpu: &Cpu, row: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = row.len();
        let (mut lhs, mut qkv) = (Lhs::default(), vec![0.0; 3 * width]);
        self.norm1.to_lines(cpu, row, width, 1, 0, lhs.reset(cpu, 1, width));
        gemm(cpu, &lhs, &self.qkv, Activation::None, Out::Rows(&mut qkv));
        (qkv[width..2 * width].to_vec(), qkv[2 * width..].to_vec())
    }

    /// One step of the residual stream `x`: items of `lengths` rows, one after another.
    pub fn forward(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        x: &mut [f32],
        lengths: &[usize],
        extra: Extra<'_>,
        causal: bool,
    ) {
        let width = self.norm1.width();
        let rows = x.len() / width;
        let Scratch { lhs, hidden, qkv } = scratch;
        let extra_rows = if let Extra::Rows(rows) = extra { rows } else { &[] };
        let more = extra_rows.len() / width;

        let writer = lhs.reset(cpu, rows + more, width);
        self.norm1.to_lines(cpu, x, width, rows, 0, writer);
        self.norm1.to_lines(cpu, extra_rows, width, more, rows, writer);
        gemm(cpu, lhs, &self.qkv, Activation::None, Out::Rows(qkv.fit((rows + more) * 3 * width)));

        let row = |at: usize, part: usize| &qkv[(at * 3 + part) * width..][..width];
        let mut first = 0;
        let items: Vec<Item<'_>> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| {
                let extra = match extra {
                    Extra::None => None,
                    Extra::Rows(_) => Some((row(rows + i, 1), row(rows + i, 2))),
                    Extra::Constant(key, value) => Some((key, value)),
                };
                first += length;
                Item { queries: (first - length, length), keys: (first - length, length), extra }
            })
            .collect();
        let part = |i: usize| Rows { values: &qkv[i * width..], stride: 3 * width };
        let attention = Attention {
            q: part(0),
            k: part(1),
            v: part(2),
            items: &items,
            heads: self.heads,
            head: width / self.heads,
            causal,
        };
        attention.run(cpu, lhs.reset(cpu, rows, width));
        gemm(cpu, lhs, &self.out, Activation::None, Out::AddTo(x));

        self.norm2.to_lines(cpu, x, width, rows, 0, lhs.reset(cpu, rows, width));
        gemm(cpu, lhs, &self.fc1, Activation::QuickGelu, Out::Lines(hidden));
        gemm(cpu, hidden, &self.fc2, Activation::None, Out::AddTo(x));
    }

    pub fn bytes(&self) -> usize {
        [&self.qkv, &self.out, &self.fc1, &self.fc2].iter().map(|l| l.bytes()).sum()
    }
}
