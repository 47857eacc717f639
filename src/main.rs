//! xclipd: arguments, then one function call each.

use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use gstxclip::scene::{ClipOptions, RawOptions, Script, write_clips, write_stream};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draws clips or streams of the drawn world
    Scene(SceneArgs),
}

#[derive(Args)]
struct SceneArgs {
    /// Write raw pictures to stdout: clips for training, or with --script the stream of a script
    #[arg(long)]
    raw: bool,
    /// YAML script; - reads stdin
    #[arg(long)]
    script: Option<PathBuf>,
    /// Seed of the first clip
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Width and height of clips, height of streams [pixels]
    #[arg(long, default_value_t = 96)]
    size: u32,
    /// Width of streams [pixels]; default: the height
    #[arg(long)]
    width: Option<u32>,
    /// Pictures per second of streams
    #[arg(long, default_value_t = 4.0)]
    rate: f64,
    /// Number of clips
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Position of the first clip in the sequence
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Every so many clips only
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// Share of busy scenes, 0 to 1
    #[arg(long, default_value_t = 0.5)]
    hardness: f32,
    /// Share of busy scenes after --ramp clips; default: the same
    #[arg(long)]
    final_hardness: Option<f32>,
    /// Clips over which the share of busy scenes changes
    #[arg(long, default_value_t = 1)]
    ramp: u64,
    /// Share of clips with something else at an edge, 0 to 1
    #[arg(long, default_value_t = 0.35)]
    mixed: f32,
}

fn main() -> anyhow::Result<()> {
    let Cli { command: Command::Scene(args) } = Cli::parse();
    scene(&args)
}

fn scene(args: &SceneArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.raw, "only --raw is there yet");
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let written = match &args.script {
        Some(path) => {
            let mut text = String::new();
            if path.as_os_str() == "-" {
                std::io::stdin().read_to_string(&mut text)?;
            } else {
                text =
                    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            }
            let script = Script::parse(&text)?;
            write_stream(&mut out, &script, args.width.unwrap_or(args.size), args.size, args.rate)
        }
        None => write_clips(
            &mut out,
            &RawOptions {
                clip: ClipOptions {
                    size: args.size,
                    hardness: args.hardness,
                    mixed: args.mixed,
                    ..ClipOptions::default()
                },
                seed: args.seed,
                start: args.start,
                step: args.step,
                count: args.count,
                final_hardness: args.final_hardness.unwrap_or(args.hardness),
                ramp: args.ramp,
            },
        ),
    };
    match written.and_then(|()| out.flush()) {
        // The reader has had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
