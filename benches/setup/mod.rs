//! One loaded configuration with its test pictures; weights are synthetic, nothing is read from disk.
#![allow(dead_code)] // each bench uses a part

use gstxclip::backend::Precision;
use gstxclip::backend::cpu::CpuBackend;
use gstxclip::command::bench;
use gstxclip::model::{Config, recipe};
use gstxclip::preprocess::Reduced;

pub struct Setup {
    pub name: String,
    pub config: Config,
    pub backend: CpuBackend,
    pub frames: Vec<Reduced>,
}

impl Setup {
    pub fn new() -> Self {
        let name = std::env::var("XCLIP_BENCH_CONFIG").unwrap_or_else(|_| "base-patch32".into());
        let config = bench::published(&name).unwrap_or_else(|| panic!("no published configuration `{name}`"));
        let size = config.image_size;
        let frames = recipe::frames_u8(config.num_frames, size, size, 2)
            .chunks_exact(size * size * 3)
            .map(|rgb| Reduced { size: size as u32, rgb: rgb.to_vec() })
            .collect();
        let backend =
            bench::synthetic(&config, 0, Precision::F32).expect("the recipe gives every tensor its shape");
        Self { name, config, backend, frames }
    }

    /// Prompts of 8 tokens.
    pub fn prompts(&self, n: usize) -> Vec<Vec<u32>> {
        let vocab = self.config.vocab_size as u32;
        let word = |i: u32, t: u32| (i * 7919 + t * 104_729) % (vocab - 2);
        (0..n as u32)
            .map(|i| [vocab - 2].into_iter().chain((2..8).map(|t| word(i, t))).chain([vocab - 1]).collect())
            .collect()
    }
}
