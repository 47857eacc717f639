//! Commands about checkpoints: arguments of `verify`, `bench` and `generate-weights`.

use std::io;
use std::path::PathBuf;

use super::{CommandError, Verdict, verify};
use crate::backend::{Device, Precision};
use crate::model::{self, Heads, Model};

/// Compare a checkpoint's results with golden vectors, stage by stage
#[derive(clap::Args, Clone, Debug)]
pub struct Verify {
    /// `demo` or a checkpoint's folder
    #[arg(long)]
    pub model: String,
    /// A golden.safetensors file
    #[arg(long, value_name = "FILE")]
    pub golden: PathBuf,
    /// Where to compute: auto, cpu
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// auto, f32
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Head counts as the Hugging Face configuration says, or as the original large models have them
    #[arg(long, default_value = "hf", value_parser = heads)]
    pub heads: Heads,
}

impl Verify {
    /// Fails when a stage is past its bound.
    pub fn run(self) -> Result<Verdict, CommandError> {
        let model = Model::open_for_verify(&self.model, self.heads)?;
        let passed = verify::run(&model, &self.golden, self.device, self.precision, &mut io::stdout().lock());
        Ok(passed.map_err(CommandError::Other)?.into())
    }
}

/// Write a complete synthetic checkpoint for a configuration: every published size without a download
#[derive(clap::Args, Clone, Debug)]
pub struct GenerateWeights {
    /// A config.json of the Hugging Face layout
    pub config: PathBuf,
    /// The folder to write; made if need be
    pub out: PathBuf,
}

impl GenerateWeights {
    pub fn run(self) -> Result<Verdict, CommandError> {
        let bar = indicatif::ProgressBar::no_length();
        model::generate(&self.config, &self.out, &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        Ok(Verdict::Pass)
    }
}

fn heads(text: &str) -> Result<Heads, String> {
    match text {
        "hf" => Ok(Heads::Hf),
        "videox" => Ok(Heads::Videox),
        _ => Err("expected hf or videox".into()),
    }
}
