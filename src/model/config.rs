//! config.json of the Hugging Face layout.

/// Which head counts the MIT and the prompt cross-attention use. The published large checkpoints were
/// converted with 8 where the original has `width / 64` = 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Heads {
    #[default]
    Hf,
    Videox,
}

/// One transformer: width, MLP width, layers, heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tower {
    pub width: usize,
    pub mlp: usize,
    pub layers: usize,
    pub heads: usize,
}

/// A consistent X-CLIP configuration: heads divide widths, the patch divides the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// S
    pub image_size: usize,
    pub patch_size: usize,
    /// T, baked into the MIT's position embedding.
    pub num_frames: usize,
    pub vision: Tower,
    /// Width is E.
    pub mit: Tower,
    pub text: Tower,
    pub vocab_size: usize,
    /// Longest prompt in tokens, start and end token included.
    pub context: usize,
    /// E
    pub projection: usize,
    pub prompt_layers: usize,
    pub prompt_heads: usize,
}

impl Config {
    /// P
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}
