//! The multi-frame integration transformer (MIT): frame features → one video vector.

use super::block::{Block, Extra, Scratch, Spans};
use super::buffer::Buffer;
use super::gemm::Cpu;
use super::load::Loader;
use crate::backend::{BackendError, Trace, emit};
use crate::model::Config;

pub struct Mit {
    /// T×E
    positions: Vec<f32>,
    frames: usize,
    blocks: Vec<Block>,
}

impl Mit {
    pub(super) fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
        let positions = loader.tensor("mit.position_embedding", &[1, config.num_frames, config.mit.width])?;
        let blocks = (0..config.mit.layers)
            .map(|i| Block::load(loader, &format!("mit.encoder.layers.{i}"), &config.mit))
            .collect::<Result<_, _>>()?;
        Ok(Self { positions, frames: config.num_frames, blocks })
    }

    /// Frame features [T, E] → mean over T of (blocks(features + positions) + features). `x` is working
    /// memory.
    pub fn forward(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        features: &[f32],
        x: &mut Buffer,
        trace: &mut Option<Trace>,
    ) -> Vec<f32> {
        let (frames, width) = (self.frames, features.len() / self.frames);
        let x = x.fit(features.len());
        x.iter_mut().zip(features).zip(&self.positions).for_each(|((x, f), p)| *x = f + p);
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(cpu, scratch, x, Spans::Equal(frames), Extra::None, false);
            if trace.is_some() {
                emit(trace, &format!("mit_hidden_{i}"), x);
            }
        }
        let mut video = vec![0.0; width];
        for (rows, features) in x.chunks(width).zip(features.chunks(width)) {
            video.iter_mut().zip(rows).zip(features).for_each(|((v, x), f)| *v += x + f);
        }
        video.iter_mut().for_each(|v| *v /= frames as f32);
        emit(trace, "mit_pooled", &video);
        video
    }

    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Block::bytes).sum::<usize>() + self.positions.len() * 4
    }
}
