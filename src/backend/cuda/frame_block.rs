//! Block i ≥ 1 of the CCT for the frames of a batch: the seam for an engine that replaces it.
//!
//! In: x [F, L, D] and finished message tokens m [F, D], row-major f16. Out: x, in place. Everything between
//! is the block's own: LayerNorm and the messages' keys and values too. A TensorRT engine of the same block
//! takes this type's place behind `forward`; its profiles are the batch sizes of `shape::Sizes`.

use half::f16;

use super::CudaError;
use super::block::{Block, Scratch, Spans};
use super::kernels::MessageKeys;
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::weights::Loader;
use crate::backend::BackendError;
use crate::model::config::Tower;

pub(super) struct FrameBlock {
    block: Block,
    width: usize,
}

/// Working memory; the residual stream and the messages are the caller's.
pub(super) struct FrameWork {
    pub scratch: Scratch,
    /// Of the side stream.
    pub side: Scratch,
    /// [F, 2D]
    keys: Buffer<f16>,
}

impl FrameWork {
    /// For `frames` frames of `tokens` rows in blocks, `rows` rows in all (others may use the scratch too).
    pub fn new(
        launcher: &Launcher,
        tower: &Tower,
        frames: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Self, CudaError> {
        let width = tower.width;
        Ok(Self {
            scratch: Scratch::new(launcher, rows, width, tower.mlp.max(3 * width).max(columns))?,
            side: Scratch::new(launcher, frames, width, 3 * width)?,
            keys: Buffer::new(&launcher.context, "working memory", frames * 2 * width)?,
        })
    }
}

impl FrameBlock {
    pub fn load(loader: &mut Loader<'_, '_>, prefix: &str, tower: &Tower) -> Result<Self, BackendError> {
        Ok(Self { block: Block::load(loader, prefix, tower)?, width: tower.width })
    }

    /// Called inside a fork whose side stream finishes `messages`; ends the fork.
    pub fn forward(
        &self,
        launcher: &Launcher,
        work: &FrameWork,
        x: At<f16>,
        messages: At<f16>,
        frames: usize,
        tokens: usize,
    ) -> Result<(), CudaError> {
        let (keys, narrow) = (work.keys.at(), work.side.narrow());
        self.block.project_messages(launcher, Lane::Side, narrow, messages, frames, keys)?;
        self.block.project(launcher, &work.scratch, x, frames * tokens)?;
        launcher.join()?;
        let message = Some(MessageKeys { at: keys, stride: 2 * self.width });
        let spans = Spans::Equal(frames, tokens);
        self.block.forward_projected(launcher, &work.scratch, x, frames * tokens, spans, message, false)
    }
}
