//! The pre-norm transformer block that all towers share: x += attention(LN1(x)), x += MLP(LN2(x)).

use super::attention::{Attention, Item, Rows};
use super::buffer::{Buffer, row_stride};
use super::gemm::{Activation, Cpu, Out, gemm, gemm_from};
use super::layer_norm::LayerNorm;
use super::lhs::Lhs;
use super::linear::Linear;
use super::load::Loader;
use crate::backend::BackendError;
use crate::model::config::Tower;

/// Working memory; only ever grows.
#[derive(Default)]
pub struct Scratch {
    pub lhs: Lhs,
    pub hidden: Lhs,
    pub qkv: Buffer,
    /// Keys' side and queries of prompting.
    pub seen: Lhs,
    pub queries: Buffer,
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

/// Which rows attend to each other: item after item.
#[derive(Clone, Copy)]
pub enum Spans<'a> {
    /// Items of so many rows.
    Equal(usize),
    /// Each item's first row, and after the last item the number of rows.
    Starts(&'a [usize]),
}

/// What an item's attention sees beside its own rows: one more key and value, as [`Block::project`]
/// lays rows out. Its own query, projection and MLP would be dropped, so they are not computed.
#[derive(Clone, Copy)]
pub enum Extra<'a> {
    None,
    /// Item i sees row i.
    Each(&'a [f32]),
    /// All items see the same row.
    Same(&'a [f32]),
}

impl Spans<'_> {
    fn count(&self, rows: usize) -> usize {
        match self {
            Spans::Equal(length) => rows / length,
            Spans::Starts(starts) => starts.len() - 1,
        }
    }

    /// First row and number of rows.
    fn of(&self, item: usize) -> (usize, usize) {
        match self {
            Spans::Equal(length) => (item * length, *length),
            Spans::Starts(starts) => (starts[item], starts[item + 1] - starts[item]),
        }
    }
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

    /// Residual rows → q, k and v of this block's attention: rows of 3D values, `row_stride(3D)` apart.
    pub fn project(&self, cpu: &Cpu, lhs: &mut Lhs, x: &[f32], qkv: &mut [f32]) {
        let width = self.norm1.width();
        self.norm1.to_lhs(cpu, x, width, x.len() / width, lhs, &self.qkv);
        gemm(cpu, lhs, &self.qkv, Activation::None, Out::Spaced(qkv, row_stride(3 * width)));
    }

    /// As [`Block::project`] for rows that are only seen: q is left as it is.
    pub fn project_seen(&self, cpu: &Cpu, lhs: &mut Lhs, x: &[f32], qkv: &mut [f32]) {
        let width = self.norm1.width();
        self.norm1.to_lhs(cpu, x, width, x.len() / width, lhs, &self.qkv);
        gemm_from(cpu, lhs, &self.qkv, width, Activation::None, Out::Spaced(qkv, row_stride(3 * width)));
    }

    /// One step of the residual stream `x`.
    pub fn forward(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        x: &mut [f32],
        spans: Spans<'_>,
        extra: Extra<'_>,
        causal: bool,
    ) {
        let mut qkv = std::mem::take(&mut scratch.qkv);
        let width = self.norm1.width();
        let row = row_stride(3 * width);
        self.project(cpu, &mut scratch.lhs, x, qkv.fit(x.len() / width * row));
        let of_item = |item: usize| &qkv[spans.of(item).0 * row..];
        self.forward_projected(cpu, scratch, x, &of_item, spans, extra, causal);
        scratch.qkv = qkv;
    }

    /// As [`Block::forward`], from each item's projected rows on.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_projected<'a>(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        x: &mut [f32],
        qkv: &(dyn Fn(usize) -> &'a [f32] + Sync),
        spans: Spans<'_>,
        extra: Extra<'a>,
        causal: bool,
    ) {
        let width = self.norm1.width();
        let rows = x.len() / width;
        let Scratch { lhs, hidden, .. } = scratch;
        let item = |i: usize| {
            let (own, (first, length)) = (qkv(i), spans.of(i));
            let part = |part: usize| Rows { values: &own[part * width..], stride: row_stride(3 * width) };
            let row = match extra {
                Extra::None => None,
                Extra::Each(rows) => Some(&rows[i * row_stride(3 * width)..][..3 * width]),
                Extra::Same(row) => Some(row),
            };
            Item {
                q: part(0),
                k: part(1),
                v: part(2),
                queries: length,
                keys: length,
                extra: row.map(|row| (&row[width..2 * width], &row[2 * width..])),
                first,
            }
        };
        let attention = Attention {
            item: &item,
            items: spans.count(rows),
            rows,
            heads: self.heads,
            head: width / self.heads,
            causal,
        };
        attention.run(cpu, lhs, &self.out);
        gemm(cpu, lhs, &self.out, Activation::None, Out::AddTo(x));

        self.norm2.to_lhs(cpu, x, width, rows, lhs, &self.fc1);
        gemm(cpu, lhs, &self.fc1, Activation::QuickGelu, Out::Lhs(hidden, &self.fc2));
        gemm(cpu, hidden, &self.fc2, Activation::None, Out::AddTo(x));
    }

    pub fn bytes(&self) -> usize {
        [&self.qkv, &self.out, &self.fc1, &self.fc2].iter().map(|l| l.bytes()).sum()
    }
}
