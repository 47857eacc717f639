//! `xclipd bench --device cuda:N`: stages by the device's own clock, under its measured peaks.
//!
//! Every round takes another of several input sets, so that no cache holds the answer; times are medians
//! after untimed rounds in which kernels load and graphs are captured. Frames come as those of streams do:
//! reduced on the device before their batch, which `arrival` times by itself. Whole batches are one sequence from
//! one mark in the device's queue to another, gaps between the graphs included; single stages are timed in batches
//! of their own, with marks around every graph.

use std::io::Write;
use std::time::Instant;

use serde::Serialize;

use super::arrival::Arrival;
use super::flop::Flop;
use super::gpu_round::{Round, Rounds};
use super::subject::{self, TOKENS};
use super::{Options, Source, milliseconds};
use crate::backend::cuda::{CudaBackend, Placement, Roof, probe};
use crate::backend::{self, Backend, Device, Precision};
use crate::command::table::{Align, Table};
use crate::model::{Config, Model};
use crate::preprocess::Rule;

/// Input sets, one after the other.
const INPUT_SETS: usize = 3;
/// One eager, one that captures, one that replays for the first time; per set.
const WARM_UP: usize = 3 * INPUT_SETS;
/// Rows of the report: `windows, …` are sequences, the others single stages.
const ALL_NEW: &str = "windows, all frames new";
const ONE_NEW: &str = "windows, one frame of each new";

/// Milliseconds of one batch over the rounds.
#[derive(Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub stage: String,
    /// On the device. Of a batch: from before `prepare` is called to the last logits, as one sequence. Of a stage: its
    /// graphs alone.
    pub device_ms: Spread,
    pub gflop: f64,
    pub tflop_per_s: f64,
    /// Of the measured product's rate.
    pub of_product: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub backend: String,
    pub emulated: bool,
    pub frames: usize,
    pub windows: usize,
    /// Windows that pass the blocks together.
    pub micro: usize,
    pub prompts: usize,
    pub rounds: usize,
    pub sets: usize,
    pub load_ms: f64,
    pub weights_mb: f64,
    pub peak_product_tflop_per_s: f64,
    pub peak_copy_gb_per_s: f64,
    /// Graphs, and kernels and products by themselves, of a batch in steady state: prepare one new frame per window,
    /// encode, compare. A new picture's copy and kernel came before, on a stream of their own, and are `arrival`'s.
    pub launches_per_batch: u64,
    /// The same of a batch whose frames are all new, as in the row of that name.
    pub launches_all_new: u64,
    /// The batch of `launches_per_batch` by the host's clock, from frames that have arrived to logits.
    pub wall_ms: Spread,
    pub stages: Vec<Row>,
    /// What a new frame costs before its batch.
    pub arrival: Arrival,
    /// Of the first set's first window in the last timed round of that set, to be compared with others'.
    pub logits: Vec<f32>,
}

/// A checkpoint on a GPU, of which everything else is measured too.
pub struct Subject {
    ordinal: usize,
    config: Config,
    rule: Rule,
    backend: CudaBackend,
    load_ms: f64,
}

impl Subject {
    /// On the GPU that these options mean, if they mean one: with `auto` the first on which it opens. Where it opens
    /// on none, the options mean the CPU from then on.
    pub fn load(options: &mut Options) -> anyhow::Result<Option<Self>> {
        let gpu_can = |p: &Precision| matches!(p, Precision::Auto | Precision::F16);
        match options.device {
            Device::Cuda(ordinal) => {
                options.precisions.iter().try_for_each(|p| backend::check(options.device, *p))?;
                Self::on(options, ordinal).map(Some)
            }
            Device::Auto if options.precisions.iter().all(gpu_can) => {
                // What is wrong with these is not the GPU's fault.
                match &options.source {
                    Source::Published(name) => {
                        subject::published_config(name, options)?;
                    }
                    Source::Checkpoint(name) => {
                        Model::open(name, options.heads)?;
                    }
                }
                match backend::gpu_of_auto(Precision::Auto, |ordinal| Self::on(options, ordinal)) {
                    Ok(Some(subject)) => return Ok(Some(subject)),
                    Ok(None) => {}
                    Err(error) => tracing::warn!("device auto: {}", backend::taken_over(&error)),
                }
                options.device = Device::Cpu;
                options.precisions.iter_mut().for_each(|p| *p = p.in_place_of_gpu());
                Ok(None)
            }
            Device::Auto | Device::Cpu => Ok(None),
        }
    }

    fn on(options: &Options, ordinal: usize) -> anyhow::Result<Self> {
        let (begun, placement) = (Instant::now(), Placement { ordinal, micro: options.micro });
        let (config, rule, backend) = match &options.source {
            Source::Published(name) => {
                let config = subject::published_config(name, options)?;
                let backend = subject::synthetic_cuda(&config, placement)?;
                let rule = subject::rule(&config);
                (config, rule, backend)
            }
            Source::Checkpoint(name) => {
                let model = Model::open(name, options.heads)?;
                let backend = CudaBackend::new(&model, placement)?;
                (model.config.clone(), model.rule, backend)
            }
        };
        Ok(Self { ordinal, config, rule, backend, load_ms: milliseconds(begun.elapsed()) })
    }
}

pub fn run(options: &Options, subject: Subject, out: &mut dyn Write) -> anyhow::Result<()> {
    let report = measure(options, subject)?;
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(())
}

fn measure(options: &Options, subject: Subject) -> anyhow::Result<Report> {
    let Subject { ordinal, config, rule, mut backend, load_ms } = subject;
    let (gpu, roof) = (probe(ordinal)?, Roof::measure(ordinal)?);
    let texts =
        backend.encode_text(&subject::prompts(&config, options.prompts, TOKENS.min(config.context)))?;
    let mut source = Rounds::new(&config, &rule, options.windows, INPUT_SETS, texts);
    let (mut rounds, mut logits) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + options.rounds {
        let times = source.next(&mut backend)?;
        if round % INPUT_SETS == 0 {
            logits.clone_from(&times.logits);
        }
        if round >= WARM_UP {
            rounds.push(times);
        }
    }
    let last = rounds.last().expect("the caller asked for one round at least");
    let (frames, windows) = (config.num_frames, options.windows);
    let report = Report {
        model: name(options).into(),
        backend: backend.describe(),
        emulated: gpu.is_emulated(),
        frames,
        windows,
        micro: backend.micro(),
        prompts: options.prompts,
        rounds: options.rounds,
        sets: INPUT_SETS,
        load_ms,
        weights_mb: backend.weight_bytes() as f64 / 1e6,
        peak_product_tflop_per_s: roof.product_tflop_per_s,
        peak_copy_gb_per_s: roof.copy_gb_per_s,
        launches_per_batch: last.launches_one_new,
        launches_all_new: last.launches_all_new,
        wall_ms: spread(rounds.iter().map(|round| round.wall_ms)),
        stages: rows(&config, options, &rounds, roof.product_tflop_per_s),
        arrival: Arrival::measure(&config, &rule, ordinal, options.rounds)?,
        logits,
    };
    Ok(report)
}

fn rows(config: &Config, options: &Options, rounds: &[Round], peak: f64) -> Vec<Row> {
    let (frames, windows) = (config.num_frames as f64, options.windows as f64);
    let flop = Flop { config };
    // Block 1's own queries, keys and values are part of encoding here.
    let one = (flop.prepare() - flop.projected()) * windows;
    let encode = (flop.encode() + frames * flop.projected()) * windows;
    let compare = flop.compare(options.prompts) * windows;
    let row = |stage: &str, flop: f64, time: fn(&Round) -> f32| {
        let device_ms = spread(rounds.iter().map(|round| f64::from(time(round))));
        let tflop_per_s = flop / device_ms.median.max(1e-6) / 1e9;
        Row { stage: stage.into(), device_ms, gflop: flop / 1e9, tflop_per_s, of_product: tflop_per_s / peak }
    };
    vec![
        row(&format!("prepare, {windows} frames"), one, |r| r.prepare_one),
        row(&format!("prepare, {} frames", windows * frames), one * frames, |r| r.stages.prepare),
        row("encode", encode, |r| r.stages.encode),
        row("compare", compare, |r| r.stages.compare),
        row(ONE_NEW, one + encode + compare, |r| r.one_new),
        row(ALL_NEW, one * frames + encode + compare, |r| r.all_new),
    ]
}

fn name(options: &Options) -> &str {
    let (Source::Checkpoint(name) | Source::Published(name)) = &options.source;
    name
}

pub(super) fn spread(times: impl Iterator<Item = f64>) -> Spread {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    Spread { median: times[times.len() / 2], least: times[0], most: times[times.len() - 1] }
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let Report { model, frames, windows, rounds, prompts, sets, .. } = report;
    writeln!(out, "{model}: {frames} frames, {prompts} labels, {rounds} rounds over {sets} input sets")?;
    writeln!(
        out,
        "{windows} windows in one batch, at most {} in the blocks together; times are of all of them, on the device",
        report.micro
    )?;
    writeln!(out, "\n{}", report.backend)?;
    if report.emulated {
        writeln!(out, "EMULATED: these times say nothing about any GPU")?;
    }
    writeln!(out, "loaded in {:.0} ms; {:.0} MB of weights", report.load_ms, report.weights_mb)?;
    writeln!(
        out,
        "peak now: {:.0} TFLOP/s in a product, {:.0} GB/s in a copy",
        report.peak_product_tflop_per_s, report.peak_copy_gb_per_s
    )?;
    let mut table = Table::new([
        ("stage", Align::Left),
        ("median ms", Align::Right),
        ("min-max", Align::Right),
        ("GFLOP", Align::Right),
        ("TFLOP/s", Align::Right),
        ("of product", Align::Right),
    ]);
    for row in &report.stages {
        let Spread { median, least, most } = row.device_ms;
        table.row([
            row.stage.clone(),
            format!("{median:.3}"),
            format!("{least:.3}-{most:.3}"),
            format!("{:.1}", row.gflop),
            format!("{:.1}", row.tflop_per_s),
            format!("{:.0} %", 100.0 * row.of_product),
        ]);
    }
    writeln!(out, "{table}")?;
    report.arrival.print(out)?;
    let Spread { median, least, most } = report.wall_ms;
    writeln!(
        out,
        "a batch with one new frame per window: {} launches ({} where every frame is new), by the host's clock {median:.3} ms \
         ({least:.3}-{most:.3}), {:.0} windows/s",
        report.launches_per_batch,
        report.launches_all_new,
        *windows as f64 / median * 1e3
    )?;
    Ok(())
}
