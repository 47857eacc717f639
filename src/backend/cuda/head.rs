//! From the rows after the last block to clip features: class rows through the multi-frame integration
//! transformer (MIT) to the video vector, patch rows to their projected mean over T.

use half::f16;

use super::CudaError;
use super::block::{Block, Scratch, Spans};
use super::kernels::Step;
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::product::Into;
use super::trace::Tracer;
use super::vision::VisionWork;
use super::weights::{Linear, Loader, Norm};
use crate::backend::BackendError;
use crate::model::Config;

pub(super) struct Head {
    post_norm: Norm,
    projection: Linear,
    /// [T, E]
    positions: Buffer<f32>,
    blocks: Vec<Block>,
    patch_norm: Norm,
    patch_projection: Linear,
    /// T
    frames: usize,
    /// L
    tokens: usize,
}

/// Buffers of windows in work.
pub(super) struct HeadWork {
    /// [N, T, E]
    features: Buffer<f16>,
    /// [N, T, E]: MIT's residual stream.
    hidden: Buffer<f16>,
    /// [N, P, D]: patch rows, normalised and averaged over T.
    mean: Buffer<f16>,
    scratch: Scratch,
}

/// Clip features on the device.
#[derive(Clone, Copy)]
pub(super) struct FeaturesAt {
    /// [N, E], not normalised.
    pub video: At<f32>,
    /// [N, P, E]
    pub patches: At<f16>,
}

impl HeadWork {
    pub fn new(launcher: &Launcher, config: &Config, windows: usize) -> Result<Self, CudaError> {
        let (rows, mit) = (windows * config.num_frames, &config.mit);
        let buffer = || Buffer::new(&launcher.context, "frame features", rows * config.projection);
        let scratch = Scratch::new(launcher, rows, mit.width, mit.mlp.max(3 * mit.width))?;
        let mean = windows * config.patches() * config.vision.width;
        let mean = Buffer::new(&launcher.context, "frame features", mean)?;
        Ok(Self { features: buffer()?, hidden: buffer()?, mean, scratch })
    }
}

impl Head {
    pub fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
        let (width, joint) = (config.vision.width, config.projection);
        let positions = loader.tensor("mit.position_embedding", &[1, config.num_frames, config.mit.width])?;
        // The one weight that is stored [in, out].
        let stored = loader.tensor("prompts_visual_projection", &[width, joint])?;
        let turned: Vec<f32> = (0..width * joint).map(|i| stored[i % width * joint + i / width]).collect();
        Ok(Self {
            post_norm: loader.norm("vision_model.post_layernorm", width)?,
            projection: loader.linear("visual_projection", joint, width, false)?,
            positions: loader.upload_f32(&positions)?,
            blocks: (0..config.mit.layers)
                .map(|i| Block::load(loader, &format!("mit.encoder.layers.{i}"), &config.mit))
                .collect::<Result<_, _>>()?,
            patch_norm: loader.norm("prompts_visual_layernorm", width)?,
            patch_projection: loader.plain(&turned, joint, width)?,
            frames: config.num_frames,
            tokens: config.patches() + 1,
        })
    }

    /// Rows of N windows in `vision.x` → their features.
    pub fn forward(
        &self,
        launcher: &Launcher,
        vision: &VisionWork,
        work: &HeadWork,
        windows: usize,
        to: FeaturesAt,
        tracer: &mut Tracer<'_>,
    ) -> Result<(), CudaError> {
        let (main, frames, tokens) = (Lane::Main, self.frames, self.tokens);
        let (width, joint, rows) = (self.projection.ins, self.projection.outs, windows * frames);
        let (x, narrow) = (vision.x.at(), vision.blocks.scratch.narrow());
        let (features, hidden) = (work.features.at(), work.hidden.at());

        // The projection is linear: the mean of the rows is taken first, and projected once. The MIT, a chain
        // of small launches, runs beside it.
        let (patches, mean) = (tokens - 1, work.mean.at());
        launcher.fork()?;
        launcher.patch_mean(Lane::Side, x, self.patch_norm.at(), mean, windows, frames, tokens)?;
        let layer = self.patch_projection.at();
        launcher.product(Lane::Side, mean, width, windows * patches, layer, to.patches, Into::Replace)?;
        if tracer.is_on() {
            launcher.join()?;
            launcher.layer_norm(main, x, tokens * width, narrow, self.post_norm.at(), rows)?;
            tracer.show("pooled_cls_post_ln", narrow, rows, width)?;
        }

        let step = Step::new(Some(self.post_norm.at()), self.projection.at(), Into::Replace);
        launcher.layer(main, x, tokens * width, rows, step, narrow, features)?;
        tracer.show("frame_features", features, rows, joint)?;
        launcher.add_positions(features, self.positions.at(), hidden, windows, frames, joint)?;
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(launcher, &work.scratch, hidden, rows, Spans::Equal(windows, frames), false)?;
            tracer.show(&format!("mit_hidden_{i}"), hidden, windows, frames * joint)?;
        }
        launcher.mit_pool(hidden, features, to.video, windows, frames, joint)?;
        tracer.show_f32("mit_pooled", to.video, windows, joint)?;

        if !tracer.is_on() {
            return launcher.join();
        }
        for frame in 0..rows {
            let first = x.add((frame * tokens + 1) * width);
            launcher.layer_norm(main, first, width, narrow, self.patch_norm.at(), patches)?;
            tracer.show("prompts_visual_ln", narrow, 1, patches * width)?;
        }
        tracer.show("img_features_mean", to.patches, windows, patches * joint)
    }
}
