//! The forward pass equals the reference, stage by stage (tests/golden/README.md).

use std::path::{Path, PathBuf};

use gstxclip::backend::cpu::{CpuBackend, Isa};
use gstxclip::backend::{Device, Precision};
use gstxclip::command::verify;
use gstxclip::model::{Config, Heads, Model, recipe};
use gstxclip::preprocess::{Geometry, Rule};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn synthetic(name: &str, isa: Isa, threads: usize) -> (Config, CpuBackend) {
    let json = std::fs::read(golden(name).join("config.json")).unwrap();
    let config = Config::parse("config.json", &json, Heads::Hf).unwrap();
    let size = config.image_size as u32;
    let rule = Rule {
        size,
        geometry: Geometry::ShortestEdge { short: size },
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let mut source = |name: &str, shape: &[usize]| Ok(recipe::tensor(name, shape));
    let backend = CpuBackend::from_source(&config, &rule, isa, threads, &mut source).unwrap();
    (config, backend)
}

fn verify(name: &str, isa: Isa) {
    let (config, mut backend) = synthetic(name, isa, 0);
    let (mut report, file) = (Vec::new(), golden(name).join("golden.safetensors"));
    let passed = verify::check(&mut backend, &config, &file, Precision::F32, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(passed, "{report}");
    assert!(report.lines().filter(|l| l.ends_with(" ok")).count() > 20, "{report}");
}

#[test]
fn small_holds_on_every_instruction_set() {
    Isa::available().into_iter().for_each(|isa| verify("small", isa));
}

#[test]
fn base_patch32_holds() {
    verify("base-patch32", Isa::best());
}

#[test]
fn a_checkpoint_folder_verifies() {
    let folder = golden("small");
    let model = Model::open_for_verify(folder.to_str().unwrap(), Heads::Hf).unwrap();
    let (mut report, file) = (Vec::new(), folder.join("golden.safetensors"));
    let passed = verify::run(&model, &file, Device::Auto, Precision::Auto, &mut report).unwrap();
    assert!(passed, "{}", String::from_utf8_lossy(&report));
}
