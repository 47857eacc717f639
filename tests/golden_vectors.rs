//! The forward pass equals the reference, stage by stage (tests/golden/README.md).

use std::path::{Path, PathBuf};

use gstxclip::backend::cpu::{CpuBackend, Isa};
use gstxclip::backend::{Device, Precision};
use gstxclip::command::bench::subject;
use gstxclip::command::verify;
use gstxclip::model::{Config, Heads, Model};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn synthetic(name: &str, isa: Isa, threads: usize, precision: Precision) -> (Config, CpuBackend) {
    let json = std::fs::read(golden(name).join("config.json")).unwrap();
    let config = Config::parse("config.json", &json, Heads::Hf).unwrap();
    let backend = subject::synthetic(&config, isa, threads, precision).unwrap();
    (config, backend)
}

fn verify(name: &str, isa: Isa, precision: Precision) {
    let (config, mut backend) = synthetic(name, isa, 0, precision);
    let (mut report, file) = (Vec::new(), golden(name).join("golden.safetensors"));
    let passed = verify::check(&mut backend, &config, &file, precision, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(passed, "{report}");
    assert!(report.lines().filter(|l| l.ends_with(" ok")).count() >= 20, "{report}");
    // Closer than users are promised for so few dimensions: what is measured, and some room.
    let most = if name == "odd" { 0.07 } else { 0.05 };
    for line in report.lines().filter(|line| line.starts_with("logits")) {
        let error: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(error <= most, "{report}");
    }
}

#[test]
fn small_holds_on_every_instruction_set() {
    Isa::available().into_iter().for_each(|isa| verify("small", isa, Precision::F32));
}

/// Head sizes 8 to 96, widths that no vector divides, patches of 14, one frame, one layer.
#[test]
fn odd_configurations_hold_on_every_instruction_set() {
    for isa in Isa::available() {
        verify("odd", isa, Precision::F32);
        verify("single", isa, Precision::F32);
    }
}

#[test]
fn base_patch32_holds() {
    verify("base-patch32", Isa::best(), Precision::F32);
}

#[test]
fn int8_holds_on_every_instruction_set() {
    for isa in Isa::available() {
        ["small", "odd", "single"].into_iter().for_each(|name| verify(name, isa, Precision::Int8));
    }
}

/// Also what users are promised beyond the stages' bounds.
#[test]
fn base_patch32_holds_in_int8() {
    let (config, mut backend) = synthetic("base-patch32", Isa::best(), 0, Precision::Int8);
    let (mut report, file) = (Vec::new(), golden("base-patch32").join("golden.safetensors"));
    assert!(verify::check(&mut backend, &config, &file, Precision::Int8, &mut report).unwrap());
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    let column = |stage: &str, column: usize| -> f64 {
        let line = report.lines().find(|line| line.split_whitespace().next() == Some(stage)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    assert!(column("video_embeds", 3) >= 0.9998, "{report}");
    assert!(column("logits_per_video", 1) <= 0.05, "{report}");
}

#[test]
fn a_checkpoint_folder_verifies() {
    let folder = golden("small");
    let model = Model::open_for_verify(folder.to_str().unwrap(), Heads::Hf).unwrap();
    let (mut report, file) = (Vec::new(), folder.join("golden.safetensors"));
    let passed = verify::run(&model, &file, Device::Auto, Precision::F32, &mut report).unwrap();
    assert!(passed, "{}", String::from_utf8_lossy(&report));
}

/// The small golden file with one value of `stage` changed, or without it.
fn changed(stage: &str, by: Option<f32>) -> tempfile::NamedTempFile {
    let bytes = std::fs::read(golden("small/golden.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let mut data = view.data().to_vec();
        if name == stage {
            let Some(by) = by else { continue };
            let value = f32::from_le_bytes(data[4..8].try_into().unwrap()) + by;
            data[4..8].copy_from_slice(&value.to_le_bytes());
        }
        tensors.push((name, view.dtype(), view.shape().to_vec(), data));
    }
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let out = tempfile::NamedTempFile::new().unwrap();
    safetensors::serialize_to_file(views, None, out.path()).unwrap();
    out
}

#[test]
fn verify_fails_at_the_stage_that_is_past_its_bound() {
    let (config, mut backend) = synthetic("small", Isa::best(), 1, Precision::F32);
    for (stage, by) in [("vision_hidden_1", 1e-4), ("text_embeds", 3e-5), ("logits_per_video", -4e-4)] {
        let (file, mut report) = (changed(stage, Some(by)), Vec::new());
        let passed = verify::check(&mut backend, &config, file.path(), Precision::F32, &mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        let failed: Vec<&str> = report.lines().filter(|l| l.ends_with("FAIL")).collect();
        assert!(!passed && failed.len() == 1 && failed[0].starts_with(stage), "{stage}: {report}");
    }
}

#[test]
fn verify_says_which_stages_the_file_lacks() {
    let (config, mut backend) = synthetic("small", Isa::best(), 1, Precision::F32);
    let (file, mut report) = (changed("mit_pooled", None), Vec::new());
    assert!(verify::check(&mut backend, &config, file.path(), Precision::F32, &mut report).unwrap());
    let report = String::from_utf8(report).unwrap();
    assert!(
        report.lines().any(|l| l.starts_with("skipped, not in the file:") && l.contains("mit_pooled")),
        "{report}"
    );
}

#[test]
fn verify_names_the_tensor_of_another_configuration() {
    let (config, mut backend) = synthetic("small", Isa::best(), 1, Precision::F32);
    let file = golden("odd/golden.safetensors");
    let error = verify::check(&mut backend, &config, &file, Precision::F32, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains('`'), "{error}");
}
