//! `xclipd bench --device cuda:N`: stages by the device's own clock, under its measured peaks.
//!
//! Every round takes another of several input sets, so that no cache holds the answer; times are medians
//! after untimed rounds in which kernels load and graphs are captured. Frames come as those of streams do:
//! reduced on the device before their batch, which `arrival` times by itself.

use std::io::Write;
use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;

use super::arrival::Arrival;
use super::flop::Flop;
use super::subject::{self, TOKENS};
use super::{Options, Source, milliseconds};
use crate::backend::cuda::{CudaBackend, Roof, Times, probe};
use crate::backend::{self, Backend, Device, Precision, Prepared, TextFeatures};
use crate::command::table::{Align, Table};
use crate::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use crate::model::{Config, Model, recipe};
use crate::preprocess::{Geometry, Reduced, Rule};

/// Input sets, one after the other.
const SETS: usize = 3;
/// One eager, one that captures, one that replays for the first time; per set.
const WARM_UP: usize = 3 * SETS;

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
    /// From the first launch to the last result, on the device.
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
    pub prompts: usize,
    pub rounds: usize,
    pub sets: usize,
    pub load_ms: f64,
    pub weights_mb: f64,
    pub peak_product_tflop_per_s: f64,
    pub peak_copy_gb_per_s: f64,
    /// Graphs and single launches of a batch: one new frame per window, encode, compare.
    pub launches_per_batch: u64,
    /// The same batch by the host's clock, from frames that have arrived to logits.
    pub wall_ms: Spread,
    pub stages: Vec<Row>,
    /// What a new frame costs before its batch.
    pub arrival: Arrival,
    /// Of the first set's first window, to be compared with others'.
    pub logits: Vec<f32>,
}

/// The GPU that these options mean, if they mean one.
pub fn meant(options: &Options) -> Option<usize> {
    match options.device {
        Device::Cuda(ordinal) => Some(ordinal),
        Device::Cpu => None,
        Device::Auto => {
            let gpu_can = |p: &Precision| matches!(p, Precision::Auto | Precision::F16);
            (options.precisions.iter().all(gpu_can) && probe(0).is_ok()).then_some(0)
        }
    }
}

pub fn run(options: &Options, ordinal: usize, out: &mut dyn Write) -> anyhow::Result<()> {
    for precision in &options.precisions {
        backend::check(Device::Cuda(ordinal), *precision)?;
    }
    let report = measure(options, ordinal)?;
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(())
}

/// Times of one round.
struct Round {
    all_frames: Times,
    batch: Times,
    wall_ms: f64,
}

fn measure(options: &Options, ordinal: usize) -> anyhow::Result<Report> {
    let gpu = probe(ordinal)?;
    let begun = Instant::now();
    let (config, rule, mut backend) = load(options, ordinal)?;
    let load_ms = milliseconds(begun.elapsed());
    let roof = Roof::measure(ordinal)?;
    let sets: Vec<Vec<Reduced>> = (0..SETS).map(|set| frames(&config, options.windows, set)).collect();
    let texts =
        backend.encode_text(&subject::prompts(&config, options.prompts, TOKENS.min(config.context)))?;
    backend.set_timing(true);
    let (mut rounds, mut logits, mut launches) = (Vec::new(), Vec::new(), 0);
    for round in 0..WARM_UP + options.rounds {
        let set = &sets[round % SETS];
        let before = backend.launches();
        let (times, answer, spare) = one_round(&config, &rule, &mut backend, set, &texts)?;
        launches = backend.launches() - before - spare;
        if round == 0 {
            logits = answer;
        }
        if round >= WARM_UP {
            rounds.push(times);
        }
    }
    let (frames, windows) = (config.num_frames, options.windows);
    let report = Report {
        model: name(options).into(),
        backend: backend.describe(),
        emulated: gpu.is_emulated(),
        frames,
        windows,
        prompts: options.prompts,
        rounds: options.rounds,
        sets: SETS,
        load_ms,
        weights_mb: backend.weight_bytes() as f64 / 1e6,
        peak_product_tflop_per_s: roof.product_tflop_per_s,
        peak_copy_gb_per_s: roof.copy_gb_per_s,
        launches_per_batch: launches,
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
    let row = |stage: String, flop: f64, time: &dyn Fn(&Round) -> f32| {
        let device_ms = spread(rounds.iter().map(|round| f64::from(time(round))));
        let tflop_per_s = flop / device_ms.median.max(1e-6) / 1e9;
        Row { stage, device_ms, gflop: flop / 1e9, tflop_per_s, of_product: tflop_per_s / peak }
    };
    vec![
        row(format!("prepare, {windows} frames"), one, &|r| r.batch.prepare),
        row(format!("prepare, {} frames", windows * frames), one * frames, &|r| r.all_frames.prepare),
        row("encode".into(), encode, &|r| r.batch.encode),
        row("compare".into(), compare, &|r| r.batch.compare),
        row("windows, one frame of each new".into(), one + encode + compare, &|r| {
            r.batch.prepare + r.batch.encode + r.batch.compare
        }),
        row("windows, all frames new".into(), one * frames + encode + compare, &|r| {
            r.all_frames.prepare + r.batch.encode + r.batch.compare
        }),
    ]
}

fn name(options: &Options) -> &str {
    let (Source::Checkpoint(name) | Source::Published(name)) = &options.source;
    name
}

fn load(options: &Options, ordinal: usize) -> anyhow::Result<(Config, Rule, CudaBackend)> {
    match &options.source {
        Source::Published(name) => {
            let config = subject::published_config(name, options)?;
            let backend = subject::synthetic_cuda(&config, ordinal)?;
            let rule = subject::rule(&config);
            Ok((config, rule, backend))
        }
        Source::Checkpoint(name) => {
            let model = Model::open(name, options.heads)?;
            let backend = CudaBackend::new(&model, ordinal)?;
            Ok((model.config.clone(), model.rule, backend))
        }
    }
}

fn frames(config: &Config, windows: usize, set: usize) -> Vec<Reduced> {
    let size = config.image_size;
    Reduced::split(&recipe::frames_u8(windows * config.num_frames, size, size, 2 + set as u32), size)
}

/// Frames as a stream's come to the backend: on its device, if there is room for so many.
fn arrived<'a>(
    rule: &Rule,
    backend: &CudaBackend,
    frames: impl Iterator<Item = &'a Reduced>,
) -> anyhow::Result<Vec<Reduced>> {
    // They have the model's size.
    let (rule, reducer) = (Rule { geometry: Geometry::Stretch, ..*rule }, backend.reducer());
    let (format, size) = (PixelFormat::Rgb, rule.size);
    let info = ImageInfo { format, width: size, height: size, matrix: Matrix::Bt709, range: Range::Full };
    let one = |frame: &Reduced| {
        let rgb = frame.rgb();
        let image = Image::new(info, &[Plane { data: &rgb, stride: 3 * size as usize }])?;
        let on_device = reducer.as_ref().and_then(|reducer| reducer.reduce(&rule, &image, Roi::WHOLE));
        Ok(on_device.unwrap_or_else(|| frame.clone()))
    };
    frames.map(one).collect()
}

/// All frames; then the batch as it is in steady state. Its first window's logits, and the launches that
/// are not the batch's.
fn one_round(
    config: &Config,
    rule: &Rule,
    backend: &mut CudaBackend,
    frames: &[Reduced],
    texts: &[TextFeatures],
) -> anyhow::Result<(Round, Vec<f32>, u64)> {
    let before = backend.launches();
    let all = arrived(rule, backend, frames.iter())?;
    let prepared = backend.prepare(&all.iter().collect::<Vec<_>>())?;
    let all_frames = backend.take_times()?;
    let spare = backend.launches() - before;
    let clips: Vec<(&[Prepared], &[TextFeatures])> =
        prepared.chunks(config.num_frames).map(|clip| (clip, texts)).collect();
    let new = arrived(rule, backend, frames.iter().step_by(config.num_frames))?;
    let begun = Instant::now();
    backend.prepare(&new.iter().collect::<Vec<_>>())?;
    let logits = backend.score(&clips)?;
    let wall_ms = milliseconds(begun.elapsed());
    let batch = backend.take_times()?;
    ensure!(logits.len() == clips.len(), "score gave {} rows of logits", logits.len());
    Ok((Round { all_frames, batch, wall_ms }, logits[0].clone(), spare))
}

pub(super) fn spread(times: impl Iterator<Item = f64>) -> Spread {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    Spread { median: times[times.len() / 2], least: times[0], most: times[times.len() - 1] }
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let Report { model, frames, windows, rounds, prompts, sets, .. } = report;
    writeln!(out, "{model}: {frames} frames, {prompts} labels, {rounds} rounds over {sets} input sets")?;
    writeln!(out, "{windows} windows in one batch; times are of the whole batch, on the device")?;
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
        "a batch with one new frame per window, by the host's clock: {median:.3} ms ({least:.3}-{most:.3}), {} launches; \
         {:.0} windows/s",
        report.launches_per_batch,
        *windows as f64 / median * 1e3
    )?;
    Ok(())
}
