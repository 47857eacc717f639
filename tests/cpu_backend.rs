//! What the engine relies on beyond the golden vectors: independence, refusal of bad input.

#[path = "backend_promises/mod.rs"]
mod promises;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gstxclip::backend::cpu::{CpuBackend, Isa};
use gstxclip::backend::{Backend, BackendError, ClipFeatures, Device, Precision, TextFeatures};
use gstxclip::model::{Config, Heads, recipe};
use gstxclip::preprocess::{Geometry, Rule};
use promises::{Same, frames, prompts};

fn config(name: &str) -> Config {
    if name == "tall" {
        return Config::parse(name, include_bytes!("backend_promises/tall.json"), Heads::Hf).unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).join("config.json");
    Config::parse("config.json", &std::fs::read(file).unwrap(), Heads::Hf).unwrap()
}

fn load(config: &Config, threads: usize, precision: Precision) -> CpuBackend {
    let size = config.image_size as u32;
    let geometry = Geometry::ShortestEdge { short: size };
    let rule = Rule { size, geometry, mean: [0.5; 3], std: [0.5; 3] };
    let mut source = |name: &str, shape: &[usize]| Ok(recipe::tensor(name, shape));
    CpuBackend::from_source(config, &rule, Isa::best(), threads, precision, &mut source).unwrap()
}

const BOTH: [Precision; 2] = [Precision::F32, Precision::Int8];

struct Run {
    clips: Vec<ClipFeatures>,
    text: Vec<TextFeatures>,
    logits: Vec<Vec<f32>>,
}

/// Two overlapping windows.
fn run(config: &Config, threads: usize, labels: u32, precision: Precision) -> Run {
    let mut backend = load(config, threads, precision);
    let frames = frames(config, config.num_frames + 1);
    let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
    let clips = backend.encode(&[&prepared[..config.num_frames], &prepared[1..]]).unwrap();
    let text = backend.encode_text(&prompts(config, labels)).unwrap();
    let logits = backend.compare(&clips.iter().collect::<Vec<_>>(), &text).unwrap();
    Run { clips, text, logits }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (name, precision) in ["small", "odd", "single", "tall"]
        .into_iter()
        .flat_map(|name| BOTH.map(|precision| (name, precision)))
    {
        let config = config(name);
        let one = run(&config, 1, 9, precision);
        for threads in [2, 3, 7] {
            let many = run(&config, threads, 9, precision);
            assert_eq!(one.clips, many.clips, "{name}, {precision}, {threads} threads");
            assert_eq!(one.text, many.text, "{name}, {precision}, {threads} threads");
            assert_eq!(one.logits, many.logits, "{name}, {precision}, {threads} threads");
        }
    }
}

#[test]
fn a_traced_window_equals_an_untraced_one() {
    for (name, precision) in ["small", "tall"].into_iter().flat_map(|name| BOTH.map(|p| (name, p))) {
        let config = config(name);
        let frames = frames(&config, config.num_frames);
        let frames: Vec<_> = frames.iter().collect();
        for threads in [1, 2, 7] {
            let mut backend = load(&config, threads, precision);
            let clip = |backend: &mut CpuBackend| {
                let window = backend.prepare(&frames).unwrap();
                backend.encode(&[&window]).unwrap()
            };
            let untraced = clip(&mut backend);
            let stages = Arc::new(AtomicUsize::new(0));
            let count = stages.clone();
            backend.set_trace(Some(Box::new(move |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            })));
            assert_eq!(untraced, clip(&mut backend), "{name}, {precision}, {threads} threads");
            assert!(stages.load(Ordering::Relaxed) > config.num_frames);
        }
    }
}

#[test]
fn adding_a_label_moves_no_other_logit() {
    for (name, precision) in
        ["small", "odd"].into_iter().flat_map(|name| BOTH.map(|precision| (name, precision)))
    {
        let config = config(name);
        let few = run(&config, 2, 3, precision);
        // More labels than share one packing of the keys.
        let many = run(&config, 2, 250, precision);
        for (few, many) in few.logits.iter().zip(&many.logits) {
            assert_eq!(few[..], many[..few.len()], "{name}, {precision}");
        }
        assert_eq!(few.text[..], many.text[..3]);
    }
}

#[test]
fn a_frame_is_prepared_alike_alone_and_in_company() {
    let config = config("small");
    for precision in BOTH {
        let mut backend = load(&config, 2, precision);
        promises::a_frame_is_prepared_alike_alone_and_in_company(&config, &mut backend, Same::Exactly);
    }
}

#[test]
fn padding_after_the_end_token_changes_nothing() {
    let config = config("small");
    promises::padding_after_the_end_token_changes_nothing(&config, &mut load(&config, 2, Precision::F32));
}

#[test]
fn nothing_to_do_is_done() {
    let config = config("small");
    promises::nothing_to_do_is_done(&config, &mut load(&config, 2, Precision::F32));
}

#[test]
fn bad_input_is_refused_by_name() {
    let config = config("small");
    let mut backend = load(&config, 2, Precision::F32);
    promises::bad_input_is_refused_by_name(&config, &mut backend, "17x64 rows");
}

#[test]
fn weights_of_the_wrong_size_are_refused_by_name() {
    let config = config("small");
    let rule = Rule { size: 64, geometry: Geometry::Stretch, mean: [0.5; 3], std: [0.5; 3] };
    let mut source = |name: &str, shape: &[usize]| {
        let mut values = recipe::tensor(name, shape);
        if name == "visual_projection.weight" {
            values.pop();
        }
        Ok(values)
    };
    let error = CpuBackend::from_source(&config, &rule, Isa::best(), 1, Precision::F32, &mut source)
        .err()
        .unwrap()
        .to_string();
    assert_eq!(error, "tensor `visual_projection.weight`: expected shape [32, 64], got 2047 values");
}

#[test]
fn values_that_overflow_are_reported_and_never_rounded_to_numbers() {
    let config = config("small");
    let rule = Rule { size: 64, geometry: Geometry::Stretch, mean: [0.5; 3], std: [0.5; 3] };
    for precision in BOTH {
        for name in ["vision_model.encoder.layers.0.layer_norm1.weight", "vision_model.pre_layernorm.bias"] {
            let mut source = |tensor: &str, shape: &[usize]| {
                let mut values = recipe::tensor(tensor, shape);
                if tensor == name {
                    values[1] = 3e38;
                }
                Ok(values)
            };
            let isa = Isa::best();
            let mut backend =
                CpuBackend::from_source(&config, &rule, isa, 2, precision, &mut source).unwrap();
            let frames = frames(&config, config.num_frames);
            let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
            let found = backend.encode(&[&prepared]);
            assert!(matches!(found, Err(BackendError::NotFinite { .. })), "{precision}, {name}: {found:?}");
        }
    }
}

#[test]
fn devices_and_precisions_that_do_not_exist_list_what_does() {
    assert_eq!("auto".parse::<Device>().unwrap(), Device::Auto);
    for precision in [Precision::Auto, Precision::F32, Precision::F16, Precision::Int8] {
        assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
    }
    let error = "cuda".parse::<Device>().unwrap_err().to_string();
    assert_eq!(error, "device `cuda` does not exist here; available: auto, cpu, cuda:0, cuda:1, …");
    let error = "fp16".parse::<Precision>().unwrap_err().to_string();
    assert_eq!(error, "precision `fp16` does not exist here; available: auto, f32, f16, int8");
}
