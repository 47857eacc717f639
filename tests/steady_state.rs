//! After the first windows, a window costs no memory but its results: no allocation on any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use gstxclip::backend::cpu::Isa;
use gstxclip::backend::{Backend, Precision, Prepared};
use gstxclip::command::bench::subject;
use gstxclip::model::{Config, Heads, recipe};
use gstxclip::preprocess::Reduced;

/// Counts what every thread of this test binary allocates.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, SeqCst);
        BYTES.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, SeqCst);
        BYTES.fetch_add(size, SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and bytes of `work`.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = (CALLS.load(SeqCst), BYTES.load(SeqCst));
    let result = work();
    (CALLS.load(SeqCst) - before.0, BYTES.load(SeqCst) - before.1, result)
}

fn check(name: &str, json: &[u8], precision: Precision) {
    let config = Config::parse(name, json, Heads::Hf).unwrap();
    let mut backend = subject::synthetic(&config, Isa::best(), 2, precision).unwrap();
    let (size, count) = (config.image_size, config.num_frames);
    let frames = Reduced::split(&recipe::frames_u8(count, size, size, 2), size);
    let frames: Vec<&Reduced> = frames.iter().collect();
    let texts = backend.encode_text(&subject::prompts(&config, 10, 6)).unwrap();
    let mut window: Vec<Prepared> = backend.prepare(&frames).unwrap();
    for round in 0..12 {
        let (prepare_calls, _, fresh) = counted(|| backend.prepare(&frames[..1]).unwrap());
        window.remove(0);
        window.extend(fresh);
        let (encode_calls, encode_bytes, clips) = counted(|| backend.encode(&[&window]).unwrap());
        let (compare_calls, _, logits) = counted(|| backend.compare(&[&clips[0]], &texts).unwrap());
        assert_eq!(logits[0].len(), 10);
        // Buffers grow in the first rounds; which thread takes which task decides when its own are there.
        if round < 8 {
            continue;
        }
        let what = format!("{name} at {precision}, round {round}");
        // The list, and of the frame its rows, what it projects, and the pointer that shares both.
        assert!(prepare_calls <= 4, "{what}: prepare allocated {prepare_calls} times");
        // The list, and the two vectors of the features.
        assert!(encode_calls <= 3, "{what}: encode allocated {encode_calls} times");
        let features =
            4 * (clips[0].video.len() + clips[0].patches.len()) + clips.capacity() * size_of_val(&clips[0]);
        assert!(encode_bytes <= features, "{what}: encode allocated {encode_bytes} bytes for {features}");
        // The list, and the clip's logits.
        assert!(compare_calls <= 2, "{what}: compare allocated {compare_calls} times");
    }
}

/// Many tokens to a frame, so that a window passes the blocks in groups of frames.
const TALL: &str = r#"{
    "model_type": "xclip", "projection_dim": 32, "prompt_num_attention_heads": 2,
    "vision_config": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 2, "mit_hidden_size": 32, "mit_intermediate_size": 64,
        "mit_num_attention_heads": 2, "image_size": 224, "patch_size": 16, "num_frames": 8},
    "text_config": {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 16}
}"#;

/// One test only: another one's allocations would count here.
#[test]
fn a_window_allocates_nothing_but_its_results() {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/small/config.json");
    for precision in [Precision::F32, Precision::Int8] {
        check("small", &std::fs::read(small).unwrap(), precision);
        check("tall", TALL.as_bytes(), precision);
    }
}
