//! Commands about checkpoints: arguments of `verify`, `bench` and `generate-weights`.

use std::io;
use std::path::PathBuf;

use super::{CommandError, Verdict, bench, verify};
use crate::backend::{Device, Precision};
use crate::model::{self, Heads, Model, published};

/// Compare a checkpoint's results with golden vectors, stage by stage
#[derive(clap::Args, Clone, Debug)]
pub struct Verify {
    /// `demo` or a checkpoint's folder
    #[arg(long)]
    pub model: String,
    /// A golden.safetensors file
    #[arg(long, value_name = "FILE")]
    pub golden: PathBuf,
    /// Where to compute: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// auto, f32, f16 (GPU only), int8
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

/// Time prepare, encode, compare and text of a checkpoint, beside this machine's measured peak
#[derive(clap::Args, Clone, Debug)]
pub struct Bench {
    /// `demo` or a checkpoint's folder
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// Generated weights of a published size instead of a checkpoint; nothing is read from disk
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = published::NAMES)]
    pub config: Option<String>,
    #[arg(long, default_value = "hf", value_parser = heads, help = "Head counts: hf or videox")]
    pub heads: Heads,
    /// Where to compute: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// auto, f32, f16 (GPU only), int8; several with commas between, or given several times
    #[arg(long, default_value = "auto", value_delimiter = ',')]
    pub precision: Vec<Precision>,
    /// Threads; 0 is one per core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Windows in one call, as of several streams
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub windows: u32,
    /// Timed rounds of all stages, after two untimed ones
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// Labels in `text` and `compare`
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub prompts: u32,
    /// GPU only: windows that pass the blocks together; as many as its L2 cache holds, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub micro: Option<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Answer `window`, `hop` or `text` per line of stdin with a line of JSON, to be timed in turns with others
    #[arg(long, conflicts_with_all = ["json", "rounds", "micro"])]
    pub interactive: bool,
}

impl Bench {
    pub fn run(self) -> Result<Verdict, CommandError> {
        let options = bench::Options {
            source: self.config.map_or(bench::Source::Checkpoint(self.model), bench::Source::Published),
            heads: self.heads,
            device: self.device,
            precisions: self.precision,
            threads: self.threads,
            windows: self.windows as usize,
            rounds: self.rounds as usize,
            prompts: self.prompts as usize,
            micro: self.micro.map(|micro| micro as usize),
            json: self.json,
        };
        let mut out = io::stdout().lock();
        let done = if self.interactive {
            bench::run_interactive(&options, io::stdin().lock(), &mut out)
        } else {
            bench::run(&options, &mut out)
        };
        done.map_err(CommandError::Other)?;
        Ok(Verdict::Pass)
    }
}

/// Write a complete synthetic checkpoint for a configuration: every published size without a download
#[derive(clap::Args, Clone, Debug)]
pub struct GenerateWeights {
    /// A config.json of the Hugging Face layout, or the name of a published size (base-patch32, …)
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
