//! The CUDA backend keeps what every backend promises, on a GPU or on the emulated device (cuda_device).
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;
#[path = "backend_promises/mod.rs"]
mod promises;

use std::path::PathBuf;
use std::process::Command;

use cuda_device::{device, root, runs, say};
use gstxclip::backend::cpu::Isa;
use gstxclip::backend::cuda::{CudaBackend, Placement};
use gstxclip::backend::{Backend, BackendError, ClipFeatures, Precision, TextFeatures};
use gstxclip::command::{bench::subject, verify};
use gstxclip::model::{Config, Heads, recipe};
use gstxclip::preprocess::{Geometry, Rule};
use promises::{Same, frames, prompts};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

fn config(name: &str) -> Config {
    let json = std::fs::read(golden(name).join("config.json")).unwrap();
    Config::parse("config.json", &json, Heads::Hf).unwrap()
}

fn load(config: &Config) -> CudaBackend {
    subject::synthetic_cuda(config, 0).unwrap()
}

/// Stage by stage, the same body as the CPU's (tests/golden_vectors.rs).
fn verify(name: &str, placement: impl Into<Placement>) -> Option<String> {
    device()?;
    let (config, mut report) = (config(name), Vec::new());
    let file = golden(name).join("golden.safetensors");
    let mut backend = subject::synthetic_cuda(&config, placement).unwrap();
    let passed = verify::check(&mut backend, &config, &file, Precision::F16, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(passed, "{report}");
    assert!(report.lines().filter(|l| l.ends_with(" ok")).count() >= 20, "{report}");
    Some(report)
}

#[test]
fn small_holds() {
    verify("small", 0);
}

/// Window by window where the cache would hold them all.
#[test]
fn small_and_base_patch32_hold_in_parts_of_one_window() {
    for name in ["small", "base-patch32"] {
        verify(name, Placement { ordinal: 0, micro: Some(1) });
    }
}

/// One frame, one layer, heads of 96.
#[test]
fn single_holds() {
    verify("single", 0);
}

#[test]
fn base_patch32_holds() {
    let Some(report) = verify("base-patch32", 0) else { return };
    let column = |stage: &str, column: usize| -> f64 {
        let line = report.lines().find(|line| line.split_whitespace().next() == Some(stage)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    assert!(column("video_embeds", 3) >= 0.9999, "{report}");
    assert!(column("logits_per_video", 1) <= 0.02, "{report}");
}

/// Widths and heads that 16-byte loads cannot take.
#[test]
fn configurations_it_cannot_take_are_refused_with_every_reason() {
    if device().is_none() {
        return;
    }
    let error = subject::synthetic_cuda(&config("odd"), 0).err().unwrap().to_string();
    for part in [
        "the GPU cannot take this checkpoint: ",
        "vision_config.mit: width 36 (taken: multiples of 8 up to 1280)",
        "vision_config.mit: intermediate size 90",
        "prompts: heads of 18 values (taken: multiples of 8 up to 96)",
        "Use device=cpu",
    ] {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

/// Another configuration of tests/golden/small: what is not named stays.
struct Shape {
    frames: usize,
    image: usize,
    patch: usize,
    layers: usize,
    /// Width and heads.
    vision: (usize, usize),
    text: (usize, usize),
    /// Width, heads of the MIT and of the prompts.
    joint: (usize, usize, usize),
    context: usize,
}

impl Shape {
    fn config(&self) -> Config {
        let json = std::fs::read(golden("small").join("config.json")).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let (joint, mit_heads, prompt_heads) = self.joint;
        let mut set = |path: &str, value: usize| *json.pointer_mut(path).unwrap() = value.into();
        set("/projection_dim", joint);
        set("/prompt_layers", 3);
        set("/prompt_num_attention_heads", prompt_heads);
        set("/vision_config/num_frames", self.frames);
        set("/vision_config/image_size", self.image);
        set("/vision_config/patch_size", self.patch);
        set("/vision_config/num_hidden_layers", self.layers);
        set("/vision_config/hidden_size", self.vision.0);
        set("/vision_config/intermediate_size", 200);
        set("/vision_config/num_attention_heads", self.vision.1);
        set("/vision_config/mit_hidden_size", joint);
        set("/vision_config/mit_intermediate_size", 88);
        set("/vision_config/mit_num_hidden_layers", 2);
        set("/vision_config/mit_num_attention_heads", mit_heads);
        set("/text_config/hidden_size", self.text.0);
        set("/text_config/intermediate_size", 104);
        set("/text_config/num_attention_heads", self.text.1);
        set("/text_config/max_position_embeddings", self.context);
        Config::parse("config.json", json.to_string().as_bytes(), Heads::Hf).unwrap()
    }
}

/// Of two windows with three labels: features, texts and logits.
fn answers(
    config: &Config,
    backend: &mut dyn Backend,
) -> (Vec<ClipFeatures>, Vec<TextFeatures>, Vec<Vec<f32>>) {
    let frames = frames(config, config.num_frames + 1);
    let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
    let clips = backend.encode(&[&prepared[..config.num_frames], &prepared[1..]]).unwrap();
    let texts = backend.encode_text(&prompts(config, 3)).unwrap();
    let logits = backend.compare(&clips.iter().collect::<Vec<_>>(), &texts).unwrap();
    (clips, texts, logits)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Against the CPU in f32, which the golden vectors hold: every patch size, 1 to 64 frames, 577 tokens, heads
/// of 24 to 96, widths of 96 to 1280.
#[test]
fn configurations_of_every_size_agree_with_the_cpu() {
    if device().is_none() {
        return;
    }
    let shape = |frames, image, patch, layers, vision, text, joint, context| Shape {
        frames,
        image,
        patch,
        layers,
        vision,
        text,
        joint,
        context,
    };
    let shapes = [
        shape(5, 70, 14, 3, (144, 6), (120, 3), (144, 2, 2), 12),
        shape(1, 64, 32, 1, (96, 1), (96, 4), (96, 1, 1), 5),
        shape(64, 32, 16, 2, (1280, 16), (64, 1), (48, 2, 1), 16),
        shape(2, 336, 14, 2, (112, 2), (112, 2), (80, 1, 2), 77),
        shape(16, 96, 16, 4, (216, 3), (104, 13), (192, 8, 2), 9),
    ];
    for shape in shapes {
        let config = shape.config();
        let mut cpu = subject::synthetic(&config, Isa::best(), 0, Precision::F32).unwrap();
        let (clips, texts, logits) = answers(&config, &mut cpu);
        let (our_clips, our_texts, our_logits) = answers(&config, &mut load(&config));
        let what = format!("{config:?}");
        for (ours, reference) in our_clips.iter().zip(&clips) {
            assert!(cosine(&ours.video, &reference.video) >= 0.9999, "{what}");
            assert!(cosine(&ours.patches, &reference.patches) >= 0.9999, "{what}");
        }
        for (ours, reference) in our_texts.iter().zip(&texts) {
            assert!(cosine(&ours.0, &reference.0) >= 0.9999, "{what}");
        }
        for (ours, reference) in our_logits.concat().iter().zip(logits.concat()) {
            assert!((ours - reference).abs() <= 0.02, "{what}: {our_logits:?}, on the CPU {logits:?}");
        }
    }
}

#[test]
fn a_frame_is_prepared_alike_alone_and_in_company() {
    if device().is_none() {
        return;
    }
    let config = config("small");
    let same = Same::InHalfPrecision;
    promises::a_frame_is_prepared_alike_alone_and_in_company(&config, &mut load(&config), same);
}

#[test]
fn padding_after_the_end_token_changes_nothing() {
    if device().is_none() {
        return;
    }
    let config = config("small");
    promises::padding_after_the_end_token_changes_nothing(&config, &mut load(&config));
}

#[test]
fn nothing_to_do_is_done() {
    if device().is_none() {
        return;
    }
    let config = config("small");
    promises::nothing_to_do_is_done(&config, &mut load(&config));
}

#[test]
fn bad_input_is_refused_by_name() {
    if device().is_none() {
        return;
    }
    let config = config("small");
    let state = "a state prepared by this backend";
    promises::bad_input_is_refused_by_name(&config, &mut load(&config), state);
}

/// Beyond 65504 there is no f16. In a weight it is found at load, in a hidden state when features leave.
#[test]
fn values_that_overflow_are_reported_and_never_rounded_to_numbers() {
    if device().is_none() {
        return;
    }
    let config = config("small");
    let rule = Rule { size: 64, geometry: Geometry::Stretch, mean: [0.5; 3], std: [0.5; 3] };
    let with = |name: &str, value: f32| {
        let mut source = |tensor: &str, shape: &[usize]| {
            let mut values = recipe::tensor(tensor, shape);
            if tensor == name {
                values[1] = value;
            }
            Ok(values)
        };
        let mut backend = CudaBackend::from_source(&config, &rule, 0, &mut source)?;
        let prepared = backend.prepare(&frames(&config, config.num_frames).iter().collect::<Vec<_>>())?;
        backend.encode(&[&prepared]).map(drop)
    };
    for (name, value) in [
        ("vision_model.encoder.layers.0.mlp.fc1.weight", 1e5),
        ("vision_model.encoder.layers.0.layer_norm1.weight", 3e38),
        ("vision_model.pre_layernorm.bias", 3e38),
    ] {
        let found = with(name, value);
        assert!(matches!(found, Err(BackendError::NotFinite { .. })), "{name}: {found:?}");
    }
}

/// Two checkpoints, or one twice, on one device: neither sees the other's buffers, ring or graphs.
#[test]
fn two_backends_on_one_device_do_not_disturb_each_other() {
    if device().is_none() {
        return;
    }
    let (one, other) = (
        config("small"),
        Shape {
            frames: 3,
            image: 48,
            patch: 16,
            layers: 2,
            vision: (96, 2),
            text: (64, 2),
            joint: (48, 1, 1),
            context: 16,
        }
        .config(),
    );
    let (alone, other_alone) = (answers(&one, &mut load(&one)), answers(&other, &mut load(&other)));
    let (mut first, mut second, mut third) = (load(&one), load(&other), load(&one));
    // Eager, captured, replayed.
    for round in 0..4 {
        assert_eq!(answers(&one, &mut first), alone, "round {round}");
        assert_eq!(answers(&other, &mut second), other_alone, "round {round}");
        assert_eq!(answers(&one, &mut third), alone, "round {round}");
    }
    let threads = [first, third].map(|mut backend| {
        let one = one.clone();
        std::thread::spawn(move || answers(&one, &mut backend))
    });
    let last = answers(&other, &mut second);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), alone);
    }
    assert_eq!(last, other_alone);
}

/// A sum that is split stays f32 until its parts are together.
#[test]
fn no_part_of_a_sum_is_rounded_to_f16() {
    let Some(gpu) = device() else { return };
    if !gpu.is_emulated() {
        say("SKIPPED no_part_of_a_sum_is_rounded_to_f16: only an emulated cuBLASLt tells of it");
        return;
    }
    let config = config("small");
    answers(&config, &mut load(&config));
    // The emulated cuBLASLt splits every long sum, in the worst way that it is left.
    assert_eq!(runs("sum rounded to f16"), Some(0));
}

/// The device's context outlives its last user, since cuBLASLt keeps in it what it loaded.
#[test]
fn a_backend_opens_again_after_the_last_one_went() {
    const CHILD: &str = "XCLIP_TEST_AGAIN";
    if device().is_none() {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let config = config("small");
        let first = answers(&config, &mut load(&config));
        assert_eq!(answers(&config, &mut load(&config)), first);
        return;
    }
    // In a process where no other test has a backend meanwhile.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_backend_opens_again_after_the_last_one_went"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

/// Blocks, lanes and independent nodes of a graph from last to first: what they give must not depend on it.
#[test]
fn results_do_not_depend_on_the_order_of_independent_work() {
    const ORDER: &str = "XCLIP_EMULATED_ORDER";
    let Some(gpu) = device() else { return };
    if !gpu.is_emulated() || std::env::var_os(ORDER).is_some() {
        return;
    }
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["small_holds", "two_backends", "alone_and_in_company"])
        .env(ORDER, "reverse")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("3 passed"), "{said}");
}
