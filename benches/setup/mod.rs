//! One loaded configuration with its test pictures; weights are synthetic, nothing is read from disk.
#![allow(dead_code)] // each bench uses a part

use gstxclip::backend::Precision;
use gstxclip::backend::cpu::{CpuBackend, Isa};
use gstxclip::command::bench::subject;
use gstxclip::model::{Config, Heads, published, recipe};
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
        let json = published::config_json(&name).unwrap_or_else(|| {
            panic!("no published configuration is called `{name}`; there are {:?}", published::NAMES)
        });
        let config = Config::parse(&name, json.as_bytes(), Heads::Hf).expect("published ones are consistent");
        let size = config.image_size;
        let frames = Reduced::split(&recipe::frames_u8(config.num_frames, size, size, 2), size);
        let backend = subject::synthetic(&config, Isa::best(), 0, Precision::F32)
            .expect("the recipe gives every tensor its shape");
        Self { name, config, backend, frames }
    }

    /// Prompts of 8 tokens.
    pub fn prompts(&self, n: usize) -> Vec<Vec<u32>> {
        subject::prompts(&self.config, n, 8)
    }
}
