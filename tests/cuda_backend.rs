//! The CUDA backend keeps what every backend promises, on a GPU or on the emulated device (cuda_device).
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use std::path::PathBuf;

use cuda_device::{device, root};
use gstxclip::backend::Precision;
use gstxclip::backend::cuda::CudaBackend;
use gstxclip::command::{bench::subject, verify};
use gstxclip::model::{Config, Heads};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

fn config(name: &str) -> Config {
    Config::parse("config.json", &std::fs::read(golden(name).join("config.json")).unwrap(), Heads::Hf)
        .unwrap()
}

fn load(config: &Config) -> CudaBackend {
    subject::synthetic_cuda(config, 0).unwrap()
}

/// Stage by stage, the same body as the CPU's (tests/golden_vectors.rs).
fn verify(name: &str) -> Option<String> {
    device()?;
    let (config, mut report) = (config(name), Vec::new());
    let file = golden(name).join("golden.safetensors");
    let passed = verify::check(&mut load(&config), &config, &file, Precision::F16, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(passed, "{report}");
    assert!(report.lines().filter(|l| l.ends_with(" ok")).count() >= 20, "{report}");
    Some(report)
}

#[test]
fn small_holds() {
    verify("small");
}

/// Head sizes 8 to 96, patches of 14, one frame, one layer.
#[test]
fn odd_configurations_hold() {
    verify("odd");
    verify("single");
}

#[test]
fn base_patch32_holds() {
    let Some(report) = verify("base-patch32") else { return };
    let column = |stage: &str, column: usize| -> f64 {
        let line = report.lines().find(|line| line.split_whitespace().next() == Some(stage)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    assert!(column("video_embeds", 3) >= 0.9999, "{report}");
    assert!(column("logits_per_video", 1) <= 0.02, "{report}");
}
