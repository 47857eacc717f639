//! `xclipd bench`: prepare, encode, compare and text of a checkpoint, under this machine's measured roof.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::backend::cpu::{CpuBackend, Isa, Roof};
use crate::backend::{self, Backend, ClipFeatures, Device, Precision};
use crate::model::config::Tower;
use crate::model::{Config, Heads, Model, recipe};
use crate::preprocess::{Geometry, Reduced, Rule};

/// What to time.
pub struct Options {
    /// `demo`, a checkpoint folder, or a published configuration's name (synthetic weights, no disk).
    pub model: String,
    pub heads: Heads,
    pub device: Device,
    pub precision: Precision,
    /// 0 takes one per available core.
    pub threads: usize,
    /// Timed rounds of each stage, after two untimed ones.
    pub windows: usize,
    /// Labels in `text` and `compare`.
    pub prompts: usize,
    /// Machine-readable instead of a table.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: "demo".into(),
            heads: Heads::Hf,
            device: Device::Auto,
            precision: Precision::Auto,
            threads: 0,
            windows: 15,
            prompts: 10,
            json: false,
        }
    }
}

/// One stage's figures.
#[derive(Debug, Serialize)]
pub struct Row {
    pub stage: &'static str,
    pub median_ms: f64,
    pub least_ms: f64,
    pub most_ms: f64,
    /// Multiplications and additions.
    pub gflop: f64,
    pub gflop_per_s: f64,
    /// Of the measured matrix product's rate.
    pub of_gemm: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub backend: String,
    pub frames: usize,
    pub prompts: usize,
    pub load_ms: f64,
    pub roof_fma_gflop_per_s: f64,
    pub roof_gemm_gflop_per_s: f64,
    pub stages: Vec<Row>,
}

/// Tokens of the prompts that `text` times: a short phrase with start and end token.
const TOKENS: usize = 8;

/// Times the stages and writes the table, or JSON.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let report = measure(options)?;
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    writeln!(out, "{}: {}, loaded in {:.0} ms", report.model, report.backend, report.load_ms)?;
    let (fma, gemm) = (report.roof_fma_gflop_per_s, report.roof_gemm_gflop_per_s);
    writeln!(out, "roof now: {fma:.0} GFLOP/s in registers, {gemm:.0} GFLOP/s in a 1536x1536x1536 product")?;
    writeln!(
        out,
        "{:<28} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8}",
        "stage", "median ms", "least ms", "most ms", "GFLOP", "GFLOP/s", "of gemm"
    )?;
    for row in &report.stages {
        writeln!(
            out,
            "{:<28} {:>10.2} {:>10.2} {:>10.2} {:>9.2} {:>9.0} {:>7.0}%",
            row.stage,
            row.median_ms,
            row.least_ms,
            row.most_ms,
            row.gflop,
            row.gflop_per_s,
            100.0 * row.of_gemm
        )?;
    }
    writeln!(
        out,
        "window = prepare of all {} frames + encode + compare with {} prompts",
        report.frames, report.prompts
    )?;
    Ok(())
}

/// Times the stages.
pub fn measure(options: &Options) -> anyhow::Result<Report> {
    ensure!(options.windows > 0 && options.prompts > 0, "windows and prompts must be at least 1");
    let start = Instant::now();
    let (config, mut backend): (Config, Box<dyn Backend>) = match published(&options.model) {
        Some(config) => {
            let backend = synthetic(&config, options.threads, options.precision)?;
            (config, Box::new(backend))
        }
        None => {
            let model = Model::open(&options.model, options.heads)?;
            let backend = backend::open(&model, options.device, options.precision, options.threads)?;
            (model.config, backend)
        }
    };
    let load_ms = milliseconds(start.elapsed());
    let roof = Roof::measure(options.threads);

    let (frames, size) = (config.num_frames, config.image_size);
    let reduced: Vec<Reduced> = recipe::frames_u8(frames, size, size, 2)
        .chunks_exact(size * size * 3)
        .map(|rgb| Reduced { size: size as u32, rgb: rgb.to_vec() })
        .collect();
    let reduced: Vec<&Reduced> = reduced.iter().collect();
    let vocab = config.vocab_size as u32;
    let tokens = TOKENS.min(config.context) as u32;
    let prompts: Vec<Vec<u32>> = (0..options.prompts as u32)
        .map(|i| {
            let word = |t: u32| (i * 7919 + t * 104_729) % (vocab - 2);
            std::iter::once(vocab - 2).chain((2..tokens).map(word)).chain([vocab - 1]).collect()
        })
        .collect();

    // Every round runs the whole window, so all stages see the same caches and the same neighbours.
    let (mut one, mut all, mut encode, mut compare, mut text) = (vec![], vec![], vec![], vec![], vec![]);
    let mut whole = Vec::new();
    for round in 0..options.windows + 2 {
        let mut lap = Lap::new();
        backend.prepare(&reduced[..1])?;
        let a = lap.next();
        let prepared = backend.prepare(&reduced)?;
        let b = lap.next();
        let clip: Vec<ClipFeatures> = backend.encode(&[&prepared])?;
        let c = lap.next();
        let features = backend.encode_text(&prompts)?;
        let d = lap.next();
        let logits = backend.compare(&[&clip[0]], &features)?;
        let e = lap.next();
        ensure!(logits[0].len() == options.prompts, "compare gave {} logits", logits[0].len());
        if round >= 2 {
            one.push(a);
            all.push(b);
            encode.push(c);
            text.push(d);
            compare.push(e);
            whole.push(b + c + e);
        }
    }
    let flop = Flop { config: &config };
    let (prepare, window, comparing) = (flop.prepare(), flop.encode(), flop.compare(options.prompts));
    let row = |stage, times: Vec<Duration>, flop: f64| row(stage, times, flop, roof.gemm);
    let stages = vec![
        row("prepare, one frame", one, prepare),
        row("prepare, all frames", all, prepare * frames as f64),
        row("encode", encode, window),
        row("compare", compare, comparing),
        row("window", whole, prepare * frames as f64 + window + comparing),
        row("text (8 tokens a prompt)", text, flop.text(options.prompts, tokens as usize)),
    ];
    Ok(Report {
        model: options.model.clone(),
        backend: backend.describe(),
        frames,
        prompts: options.prompts,
        load_ms,
        roof_fma_gflop_per_s: roof.fma,
        roof_gemm_gflop_per_s: roof.gemm,
        stages,
    })
}

/// A backend with synthetic weights of the portable recipe; nothing is read from disk.
pub fn synthetic(
    config: &Config,
    threads: usize,
    precision: Precision,
) -> Result<CpuBackend, backend::BackendError> {
    let size = config.image_size as u32;
    let rule = Rule {
        size,
        geometry: Geometry::ShortestEdge { short: size },
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let mut source = |name: &str, shape: &[usize]| Ok(recipe::tensor(name, shape));
    CpuBackend::from_source(config, &rule, Isa::best(), threads, precision, &mut source)
}

/// Published configurations by name, as on the Hugging Face hub without `microsoft/xclip-`.
pub fn published(name: &str) -> Option<Config> {
    let (patch, frames, image) = match name {
        "base-patch32" => (32, 8, 224),
        "base-patch32-16-frames" => (32, 16, 224),
        "base-patch16" => (16, 8, 224),
        "base-patch16-16-frames" => (16, 16, 224),
        "base-patch16-zero-shot" => (16, 32, 224),
        "large-patch14" => (14, 8, 224),
        "large-patch14-16-frames" => (14, 16, 336),
        _ => return None,
    };
    let large = patch == 14;
    let tower = |width, layers, heads| Tower { width, mlp: 4 * width, layers, heads };
    let joint = if large { 768 } else { 512 };
    Some(Config {
        image_size: image,
        patch_size: patch,
        num_frames: frames,
        vision: if large { tower(1024, 24, 16) } else { tower(768, 12, 12) },
        mit: tower(joint, 1, 8),
        text: tower(joint, 12, joint / 64),
        vocab_size: 49408,
        context: 77,
        projection: joint,
        prompt_layers: 2,
        prompt_heads: 8,
    })
}

/// Multiplications and additions of the stages as this backend computes them.
struct Flop<'a> {
    config: &'a Config,
}

impl Flop<'_> {
    /// One block over `rows` with `keys` visible to each.
    fn block(tower: &Tower, rows: usize, keys: usize) -> f64 {
        let (width, mlp) = (tower.width as f64, tower.mlp as f64);
        2.0 * rows as f64 * (4.0 * width * width + 2.0 * width * mlp + 2.0 * keys as f64 * width)
    }

    fn prepare(&self) -> f64 {
        let Config { vision, patch_size, .. } = self.config;
        let patches = self.config.patches();
        let embedding = 2 * patches * 3 * patch_size * patch_size * vision.width;
        embedding as f64 + Self::block(vision, patches + 1, patches + 2)
    }

    fn encode(&self) -> f64 {
        let Config { vision, mit, num_frames, projection, .. } = self.config;
        let (patches, frames) = (self.config.patches(), *num_frames);
        let width = vision.width as f64;
        // Per frame and layer: message_fc, its q, k, v and out, and its key and value for the frame.
        let message = 2.0 * width * (5.0 * width + 2.0 * frames as f64 + 2.0 * width);
        let layer = frames as f64 * (message + Self::block(vision, patches + 1, patches + 2));
        let projections = 2.0 * ((frames + patches) * vision.width * projection) as f64;
        (vision.layers - 1) as f64 * layer
            + projections
            + mit.layers as f64 * Self::block(mit, frames, frames)
    }

    fn compare(&self, prompts: usize) -> f64 {
        let (joint, patches) = (self.config.projection as f64, self.config.patches() as f64);
        let rows = prompts as f64 * (10.0 * joint + 2.0 * patches) * joint;
        2.0 * self.config.prompt_layers as f64 * (rows + 2.0 * patches * joint * joint)
    }

    fn text(&self, prompts: usize, tokens: usize) -> f64 {
        let Config { text, projection, .. } = self.config;
        let blocks = text.layers as f64 * Self::block(text, prompts * tokens, tokens);
        blocks + 2.0 * (prompts * text.width * projection) as f64
    }
}

struct Lap(Instant);

impl Lap {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn next(&mut self) -> Duration {
        let elapsed = self.0.elapsed();
        self.0 = Instant::now();
        elapsed
    }
}

fn row(stage: &'static str, mut times: Vec<Duration>, flop: f64, gemm: f64) -> Row {
    times.sort();
    let median = times[times.len() / 2];
    let gflop_per_s = flop / median.as_nanos() as f64;
    Row {
        stage,
        median_ms: milliseconds(median),
        least_ms: milliseconds(times[0]),
        most_ms: milliseconds(times[times.len() - 1]),
        gflop: flop / 1e9,
        gflop_per_s,
        of_gemm: gflop_per_s / gemm,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
