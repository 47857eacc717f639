//! `xclipd bench`: prepare, encode, compare and text of a checkpoint, under this machine's measured peak.

#[cfg(all(feature = "cuda", unix))]
mod arrival;
mod flop;
#[cfg(all(feature = "cuda", unix))]
mod gpu;
#[cfg(all(feature = "cuda", unix))]
mod gpu_round;
mod memory;
mod serve;
pub mod subject;

use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use self::flop::Flop;
pub use self::memory::Memory;
use self::subject::{Round, Subject};
use super::table::{Align, Table};
use crate::backend::cpu::Roof;
use crate::backend::{Device, Precision};
use crate::model::Heads;

/// Which weights.
#[derive(Clone, Debug)]
pub enum Source {
    /// `demo` or a checkpoint's folder.
    Checkpoint(String),
    /// A published configuration's name; its weights are generated, nothing is read from disk.
    Published(String),
}

/// What to time.
#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    pub heads: Heads,
    pub device: Device,
    /// Timed one after the other.
    pub precisions: Vec<Precision>,
    /// 0 takes one per available core.
    pub threads: usize,
    /// Windows in one call, each of its own frames.
    pub windows: usize,
    /// Timed rounds of all stages, after two untimed ones.
    pub rounds: usize,
    /// Labels in `text` and `compare`.
    pub prompts: usize,
    /// Windows that pass the blocks together on a GPU; none: as many as its L2 cache holds.
    pub micro: Option<usize>,
    /// Machine-readable instead of a table.
    pub json: bool,
}

/// One stage's figures; times are per window.
#[derive(Debug, Serialize)]
pub struct Row {
    pub stage: String,
    pub median_ms: f64,
    pub least_ms: f64,
    pub most_ms: f64,
    /// Multiplications and additions.
    pub gflop: f64,
    pub gflop_per_s: f64,
    /// Of the measured matrix product's rate.
    pub of_product: f64,
}

/// Figures of one precision.
#[derive(Debug, Serialize)]
pub struct Run {
    pub precision: String,
    pub backend: String,
    pub load_ms: f64,
    /// After loading; told of the first precision only.
    pub memory: Option<Memory>,
    /// All parameters as f32.
    pub parameters_mb: f64,
    pub peak_registers_gflop_per_s: f64,
    pub peak_product_gflop_per_s: f64,
    pub stages: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub frames: usize,
    pub windows: usize,
    pub rounds: usize,
    pub prompts: usize,
    pub tokens: usize,
    pub runs: Vec<Run>,
}

/// Times the stages and writes the table, or JSON.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    check(options)?;
    #[cfg(all(feature = "cuda", unix))]
    let options = &mut options.clone();
    #[cfg(all(feature = "cuda", unix))]
    if let Some(subject) = gpu::Subject::load(options)? {
        return gpu::run(options, subject, out);
    }
    ensure!(
        options.micro.is_none(),
        "--micro cuts a GPU's batches, and this runs on the CPU: --device cuda:0"
    );
    let report = measure(options)?;
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(())
}

/// Answers requests for single rounds, one per line; see `serve`.
pub fn run_interactive(options: &Options, requests: impl BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    check(options)?;
    ensure!(options.precisions.len() == 1, "--interactive takes one precision");
    serve::serve(&mut Subject::load(options, options.precisions[0])?, requests, out)
}

fn check(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rounds > 0 && options.prompts > 0, "rounds and prompts must be at least 1");
    ensure!(options.windows > 0 && !options.precisions.is_empty(), "windows and precisions: at least 1");
    Ok(())
}

/// Times the stages.
pub fn measure(options: &Options) -> anyhow::Result<Report> {
    check(options)?;
    let (Source::Checkpoint(name) | Source::Published(name)) = &options.source;
    let mut report = Report {
        model: name.clone(),
        frames: 0,
        windows: options.windows,
        rounds: options.rounds,
        prompts: options.prompts,
        tokens: 0,
        runs: Vec::new(),
    };
    for precision in &options.precisions {
        let mut subject = Subject::load(options, *precision)?;
        (report.frames, report.tokens) = (subject.config.num_frames, subject.tokens);
        let mut run = measure_one(options, *precision, &mut subject)?;
        // The allocator keeps some of what the one before gave back.
        run.memory = run.memory.filter(|_| report.runs.is_empty());
        report.runs.push(run);
    }
    Ok(report)
}

fn measure_one(options: &Options, precision: Precision, subject: &mut Subject) -> anyhow::Result<Run> {
    let roof = Roof::measure(options.threads);
    let (registers, product) = match subject.backend.precision() {
        Precision::Int8 => (roof.dot, roof.gemm_int8),
        Precision::F32 | Precision::F16 | Precision::Auto => (roof.fma, roof.gemm),
    };
    let mut rounds = Vec::with_capacity(options.rounds);
    for round in 0..options.rounds + 2 {
        let (times, _) = subject.round()?;
        if round >= 2 {
            rounds.push(times);
        }
    }
    let flop = Flop { config: &subject.config };
    let (frames, windows) = (subject.config.num_frames, options.windows as u32);
    let (one, encode, compare) = (flop.prepare(), flop.encode(), flop.compare(options.prompts));
    let prepare = one * frames as f64;
    let row = |stage: &str, flop: f64, share: u32, time: fn(&Round) -> Duration| {
        row(stage, rounds.iter().map(|round| time(round) / share).collect(), flop, product)
    };
    let stages = vec![
        row("prepare, one frame", one, windows, |r| r.prepare_one),
        row(&format!("prepare, {frames} frames"), prepare, windows, |r| r.prepare),
        row("encode", encode, windows, |r| r.encode),
        row("compare", compare, windows, |r| r.compare),
        row("window, all frames new", prepare + encode + compare, windows, |r| {
            r.prepare + r.encode + r.compare
        }),
        row("window, one frame new", one + encode + compare, windows, |r| {
            r.prepare_one + r.encode + r.compare
        }),
        row("text, all labels", flop.text(options.prompts, subject.tokens), 1, |r| r.text),
    ];
    Ok(Run {
        precision: precision.to_string(),
        backend: subject.backend.describe(),
        load_ms: milliseconds(subject.load),
        memory: subject.memory,
        parameters_mb: subject.parameter_bytes() as f64 / 1e6,
        peak_registers_gflop_per_s: registers,
        peak_product_gflop_per_s: product,
        stages,
    })
}

fn row(stage: &str, mut times: Vec<Duration>, flop: f64, product: f64) -> Row {
    times.sort();
    let median = times[times.len() / 2];
    let gflop_per_s = flop / median.as_nanos() as f64;
    Row {
        stage: stage.into(),
        median_ms: milliseconds(median),
        least_ms: milliseconds(times[0]),
        most_ms: milliseconds(times[times.len() - 1]),
        gflop: flop / 1e9,
        gflop_per_s,
        of_product: gflop_per_s / product,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let Report { model, frames, windows, rounds, prompts, tokens, .. } = report;
    writeln!(out, "{model}: {frames} frames, {prompts} labels of {tokens} tokens, {rounds} rounds")?;
    if *windows > 1 {
        writeln!(out, "{windows} windows in one call; times are per window")?;
    }
    for run in &report.runs {
        writeln!(out, "\n{}: {}", run.precision, run.backend)?;
        let memory = run.memory.map_or(String::new(), |memory| {
            let times = memory.resident_mb / run.parameters_mb;
            format!(
                "; {:.0} MB resident ({times:.2} x the f32 parameters), {:.0} MB at most while loading",
                memory.resident_mb, memory.peak_mb
            )
        });
        writeln!(out, "loaded in {:.0} ms{memory}", run.load_ms)?;
        let (registers, product) = (run.peak_registers_gflop_per_s, run.peak_product_gflop_per_s);
        writeln!(out, "peak now: {registers:.0} GFLOP/s in registers, {product:.0} in a matrix product")?;
        let mut table = Table::new([
            ("stage", Align::Left),
            ("median ms", Align::Right),
            ("min-max", Align::Right),
            ("GFLOP", Align::Right),
            ("GFLOP/s", Align::Right),
            ("of product", Align::Right),
        ]);
        for row in &run.stages {
            table.row([
                row.stage.clone(),
                format!("{:.2}", row.median_ms),
                format!("{:.2}-{:.2}", row.least_ms, row.most_ms),
                format!("{:.2}", row.gflop),
                format!("{:.0}", row.gflop_per_s),
                format!("{:.0} %", 100.0 * row.of_product),
            ]);
        }
        writeln!(out, "{table}")?;
    }
    Ok(())
}
