//! The pre-norm transformer block that all towers share: x += attention(LN1(x)), x += MLP(LN2(x)).

use half::f16;

use super::CudaError;
use super::kernels::{Attention, MessageKeys, Step};
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::product::Into;
use super::weights::{Linear, Loader, Norm};
use crate::backend::BackendError;
use crate::model::config::Tower;

pub(super) struct Block {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    width: usize,
}

/// Working memory of blocks on one stream.
pub(super) struct Scratch {
    /// Rows of D values: normalised, then attended.
    narrow: Buffer<f16>,
    /// Rows of q, k, v, then of the MLP.
    wide: Buffer<f16>,
}

/// Which rows attend to each other.
#[derive(Clone, Copy)]
pub(super) enum Spans {
    /// So many items of so many rows each.
    Equal(usize, usize),
    /// Items + 1 row numbers, the number of items, and the longest one's rows.
    Starts(At<i32>, usize, usize),
}

impl Scratch {
    /// For `rows` rows of up to `narrow` and `wide` values.
    pub fn new(launcher: &Launcher, rows: usize, narrow: usize, wide: usize) -> Result<Self, CudaError> {
        let buffer = |len| Buffer::new(&launcher.context, "working memory", len);
        Ok(Self { narrow: buffer(rows * narrow)?, wide: buffer(rows * wide)? })
    }

    pub fn narrow(&self) -> At<f16> {
        self.narrow.at()
    }

    pub fn wide(&self) -> At<f16> {
        self.wide.at()
    }
}

impl Block {
    pub fn load(loader: &mut Loader<'_, '_>, prefix: &str, tower: &Tower) -> Result<Self, BackendError> {
        let width = tower.width;
        Ok(Self {
            norm1: loader.norm(&format!("{prefix}.layer_norm1"), width)?,
            qkv: loader.qkv(&format!("{prefix}.self_attn"), width, tower.heads)?,
            out: loader.linear(&format!("{prefix}.self_attn.out_proj"), width, width, true)?,
            norm2: loader.norm(&format!("{prefix}.layer_norm2"), width)?,
            fc1: loader.linear(&format!("{prefix}.mlp.fc1"), tower.mlp, width, true)?,
            fc2: loader.linear(&format!("{prefix}.mlp.fc2"), width, tower.mlp, true)?,
            heads: tower.heads,
            width,
        })
    }

    /// Keys and values that this block's attention sees of message rows: [rows, 2D] in `keys`.
    pub fn project_messages(
        &self,
        launcher: &Launcher,
        lane: Lane,
        narrow: At<f16>,
        messages: At<f16>,
        rows: usize,
        keys: At<f16>,
    ) -> Result<(), CudaError> {
        let width = self.width;
        let step = Step::new(Some(self.norm1.at()), self.qkv.part(width, 2 * width), Into::Replace);
        launcher.layer(lane, messages, width, rows, step, narrow, keys)
    }

    /// q, k, v of the block's own rows, in `scratch.wide`.
    pub fn project(
        &self,
        launcher: &Launcher,
        scratch: &Scratch,
        x: At<f16>,
        rows: usize,
    ) -> Result<(), CudaError> {
        let (width, narrow) = (self.width, scratch.narrow.at());
        let step = Step::new(Some(self.norm1.at()), self.qkv.at(), Into::Replace);
        launcher.layer(Lane::Main, x, width, rows, step, narrow, scratch.wide.at())
    }

    /// The rest of the block after [`Block::project`].
    #[allow(clippy::too_many_arguments)]
    pub fn forward_projected(
        &self,
        launcher: &Launcher,
        scratch: &Scratch,
        x: At<f16>,
        rows: usize,
        spans: Spans,
        message: Option<MessageKeys>,
        causal: bool,
    ) -> Result<(), CudaError> {
        let (width, main) = (self.width, Lane::Main);
        let (narrow, wide) = (scratch.narrow.at(), scratch.wide.at());
        let (starts, items, length) = match spans {
            Spans::Equal(items, length) => (At::NULL, items, length),
            Spans::Starts(starts, items, longest) => (starts, items, longest),
        };
        let sizes = Attention { items, length, heads: self.heads, head: width / self.heads, causal };
        launcher.attention(main, sizes, wide, message, narrow, starts)?;
        let step = Step::new(None, self.out.at(), Into::AddTo);
        launcher.layer(main, narrow, width, rows, step, At::NULL, x)?;
        let step =
            Step { quick_gelu: true, ..Step::new(Some(self.norm2.at()), self.fc1.at(), Into::Replace) };
        launcher.layer(main, x, width, rows, step, narrow, wide)?;
        let step = Step::new(None, self.fc2.at(), Into::AddTo);
        launcher.layer(main, wide, self.fc2.ins, rows, step, At::NULL, x)
    }

    /// One step of the residual stream `x`.
    pub fn forward(
        &self,
        launcher: &Launcher,
        scratch: &Scratch,
        x: At<f16>,
        rows: usize,
        spans: Spans,
        causal: bool,
    ) -> Result<(), CudaError> {
        self.project(launcher, scratch, x, rows)?;
        self.forward_projected(launcher, scratch, x, rows, spans, None, causal)
    }
}
