//! What every backend promises beyond the golden vectors; the bodies of tests/cpu_backend.rs and
//! tests/cuda_backend.rs.
#![allow(dead_code)]

use std::sync::Arc;

use gstxclip::backend::{Backend, BackendError, ClipFeatures, Prepared, TextFeatures};
use gstxclip::model::{Config, recipe};
use gstxclip::preprocess::Reduced;

/// How equal results must be that differ only in what else was computed beside them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Bit by bit.
    Exactly,
    /// Up to f16: a product of another size may sum in another order.
    InHalfPrecision,
}

impl Same {
    pub fn check(self, found: &[f32], expected: &[f32], what: &str) {
        if self == Same::Exactly {
            assert_eq!(found, expected, "{what}");
            return;
        }
        assert_eq!(found.len(), expected.len(), "{what}");
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
        assert!(cosine >= 0.99999, "{what}: cosine {cosine} of {found:?} and {expected:?}");
    }

    pub fn check_clip(self, found: &ClipFeatures, expected: &ClipFeatures, what: &str) {
        self.check(&found.video, &expected.video, what);
        self.check(&found.patches, &expected.patches, what);
    }
}

pub fn frames(config: &Config, n: usize) -> Vec<Reduced> {
    let size = config.image_size;
    Reduced::split(&recipe::frames_u8(n, size, size, 5), size)
}

/// Prompts of 3 to 8 tokens, as far as the context allows.
pub fn prompts(config: &Config, n: u32) -> Vec<Vec<u32>> {
    let vocab = config.vocab_size as u32;
    (0..n)
        .map(|i| {
            let words =
                (0..(1 + i % 6).min(config.context as u32 - 2)).map(|t| (i * 31 + t * 17) % (vocab - 2));
            std::iter::once(vocab - 2).chain(words).chain([vocab - 1]).collect()
        })
        .collect()
}

pub fn a_frame_is_prepared_alike_alone_and_in_company(
    config: &Config,
    backend: &mut dyn Backend,
    same: Same,
) {
    let frames = frames(config, config.num_frames);
    let together = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
    let alone: Vec<Prepared> = frames.iter().flat_map(|f| backend.prepare(&[f]).unwrap()).collect();
    let clips = backend.encode(&[&together, &alone]).unwrap();
    same.check_clip(&clips[0], &clips[1], &backend.describe());
}

pub fn padding_after_the_end_token_changes_nothing(config: &Config, backend: &mut dyn Backend) {
    let plain = prompts(config, 5);
    let padded: Vec<Vec<u32>> = plain
        .iter()
        .enumerate()
        .map(|(i, ids)| {
            let mut ids = ids.clone();
            ids.resize(config.context, if i % 2 == 0 { 0 } else { config.vocab_size as u32 - 1 });
            ids
        })
        .collect();
    assert_eq!(backend.encode_text(&plain).unwrap(), backend.encode_text(&padded).unwrap());
}

pub fn nothing_to_do_is_done(config: &Config, backend: &mut dyn Backend) {
    assert!(backend.prepare(&[]).unwrap().is_empty());
    assert!(backend.encode(&[]).unwrap().is_empty());
    assert!(backend.encode_text(&[]).unwrap().is_empty());
    assert!(backend.score(&[]).unwrap().is_empty());
    let frames = frames(config, config.num_frames);
    let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
    let clip = backend.encode(&[&prepared]).unwrap();
    assert_eq!(backend.compare(&[&clip[0]], &[]).unwrap(), [Vec::<f32>::new()]);
    assert_eq!(backend.score(&[(&prepared, &[])]).unwrap(), [Vec::<f32>::new()]);
}

/// `config`: of tests/golden/small. `state`: how the backend describes a prepared frame of its own.
pub fn bad_input_is_refused_by_name(config: &Config, backend: &mut dyn Backend, state: &str) {
    let message = |error: BackendError| error.to_string();

    let wrong = Reduced::new(32, vec![0; 32 * 32 * 3]);
    let text = message(backend.prepare(&[&wrong]).err().unwrap());
    assert!(text.starts_with("frame: expected 64x64"), "{text}");

    let frames = frames(config, config.num_frames);
    let prepared = backend.prepare(&frames.iter().collect::<Vec<_>>()).unwrap();
    let text = message(backend.encode(&[&prepared[..3]]).unwrap_err());
    assert_eq!(text, "window: expected 4 frames, got 3");
    let foreign: Vec<Prepared> = (0..4).map(|_| Arc::new(1u8) as Prepared).collect();
    let text = message(backend.encode(&[&foreign]).unwrap_err());
    assert!(text.starts_with(&format!("prepared frame: expected {state}")), "{text}");

    let text = message(backend.encode_text(&[vec![]]).unwrap_err());
    assert_eq!(text, "prompt: expected 1 to 16 token ids, got 0");
    let text = message(backend.encode_text(&[vec![5; 17]]).unwrap_err());
    assert_eq!(text, "prompt: expected 1 to 16 token ids, got 17");
    let text = message(backend.encode_text(&[vec![1, 1000]]).unwrap_err());
    assert_eq!(text, "prompt: expected token ids below 1000, got id 1000");

    let clip = backend.encode(&[&prepared]).unwrap().remove(0);
    let short = TextFeatures(vec![0.0; 3].into());
    let text = message(backend.compare(&[&clip], &[short]).unwrap_err());
    assert_eq!(text, "text features: expected 32 values, got 3");
    let cut = ClipFeatures { video: clip.video.clone(), patches: clip.patches[1..].to_vec() };
    let text = message(backend.compare(&[&cut], &[]).unwrap_err());
    assert!(text.starts_with("clip features: expected 32 and 512 values"), "{text}");
    let nan = ClipFeatures { video: vec![f32::NAN; 32], patches: clip.patches };
    let text = backend.encode_text(&prompts(config, 1)).unwrap();
    let error = backend.compare(&[&nan], &text).unwrap_err();
    assert!(matches!(error, BackendError::NotFinite { what: "logits" }), "{error}");
}
