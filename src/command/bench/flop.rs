//! Multiplications and additions of the stages as this backend computes them.

use crate::model::Config;
use crate::model::config::Tower;

pub struct Flop<'a> {
    pub config: &'a Config,
}

impl Flop<'_> {
    /// One block over `rows` with `keys` visible to each.
    fn block(tower: &Tower, rows: usize, keys: usize) -> f64 {
        let (width, mlp) = (tower.width as f64, tower.mlp as f64);
        2.0 * rows as f64 * (4.0 * width * width + 2.0 * width * mlp + 2.0 * keys as f64 * width)
    }

    /// Block 1's queries, keys and values of one frame's own rows.
    pub fn projected(&self) -> f64 {
        let Config { vision, .. } = self.config;
        let ahead = if vision.layers > 1 { 6 } else { 0 };
        (ahead * (self.config.patches() + 1) * vision.width * vision.width) as f64
    }

    /// One frame's patch embedding, block 0, and what it projects for block 1.
    pub fn prepare(&self) -> f64 {
        let Config { vision, patch_size, .. } = self.config;
        let patches = self.config.patches();
        let embedding = 2 * patches * 3 * patch_size * patch_size * vision.width;
        embedding as f64 + Self::block(vision, patches + 1, patches + 2) + self.projected()
    }

    /// One window's other blocks, projections and MIT.
    pub fn encode(&self) -> f64 {
        let Config { vision, mit, num_frames, projection, .. } = self.config;
        let (patches, frames) = (self.config.patches(), *num_frames);
        let width = vision.width as f64;
        // Per frame and layer: message_fc, its q, k, v and out, and its key and value for the frame.
        let message = 2.0 * width * (5.0 * width + 2.0 * frames as f64 + 2.0 * width);
        let layer = frames as f64 * (message + Self::block(vision, patches + 1, patches + 2));
        let projections = 2.0 * ((frames + patches) * vision.width * projection) as f64;
        (vision.layers - 1) as f64 * layer - frames as f64 * self.projected()
            + projections
            + mit.layers as f64 * Self::block(mit, frames, frames)
    }

    /// One window's prompting and cosines.
    pub fn compare(&self, prompts: usize) -> f64 {
        let (joint, patches) = (self.config.projection as f64, self.config.patches() as f64);
        let rows = prompts as f64 * (10.0 * joint + 2.0 * patches) * joint;
        2.0 * self.config.prompt_layers as f64 * (rows + 2.0 * patches * joint * joint)
    }

    /// `prompts` prompts of `tokens` tokens each.
    pub fn text(&self, prompts: usize, tokens: usize) -> f64 {
        let Config { text, projection, .. } = self.config;
        let blocks = text.layers as f64 * Self::block(text, prompts * tokens, tokens);
        blocks + 2.0 * (prompts * text.width * projection) as f64
    }
}
