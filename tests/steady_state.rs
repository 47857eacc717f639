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

fn check(name: &str, json: &[u8], threads: usize, precision: Precision) {
    let config = Config::parse(name, json, Heads::Hf).unwrap();
    let mut backend = subject::synthetic(&config, Isa::best(), threads, precision).unwrap();
    let (size, count) = (config.image_size, config.num_frames);
    let frames = Reduced::split(&recipe::frames_u8(count, size, size, 2), size);
    let frames: Vec<&Reduced> = frames.iter().collect();
    let texts = backend.encode_text(&subject::prompts(&config, 10, 6)).unwrap();
    let mut window: Vec<Prepared> = backend.prepare(&frames).unwrap();
    let mut rounds = Vec::new();
    for round in 0..12 {
        let (prepare_calls, _, fresh) = counted(|| backend.prepare(&frames[..1]).unwrap());
        window.remove(0);
        window.extend(fresh);
        let (encode_calls, encode_bytes, clips) = counted(|| backend.encode(&[&window]).unwrap());
        let (compare_calls, _, logits) = counted(|| backend.compare(&[&clips[0]], &texts).unwrap());
        assert_eq!(logits[0].len(), 10);
        let features =
            4 * (clips[0].video.len() + clips[0].patches.len()) + clips.capacity() * size_of_val(&clips[0]);
        // Buffers grow in the first rounds, and in a later one where a thread takes its first task then.
        if round >= 6 {
            rounds.push([prepare_calls, encode_calls, encode_bytes.saturating_sub(features), compare_calls]);
        }
    }
    // At least half of the rounds, each figure for itself. Not all: where the machine is busy, a thread may
    // take its first task of a kind in any round, and its buffers grow then.
    let [prepare_calls, encode_calls, encode_bytes, compare_calls] = std::array::from_fn(|figure| {
        let mut figures: Vec<usize> = rounds.iter().map(|round| round[figure]).collect();
        figures.sort_unstable();
        figures[figures.len().div_ceil(2) - 1]
    });
    let what = format!("{name} at {precision}, {threads} threads");
    // Of the frame its rows, what it projects, and the pointer that shares both, and a list on either side
    // of sharing.
    assert!(prepare_calls <= 5, "{what}: prepare allocated {prepare_calls} times");
    // The list, and the two vectors of the features.
    assert!(encode_calls <= 3, "{what}: encode allocated {encode_calls} times");
    assert!(encode_bytes == 0, "{what}: encode allocated {encode_bytes} bytes beside the features");
    // The list, and the clip's logits.
    assert!(compare_calls <= 2, "{what}: compare allocated {compare_calls} times");
}

/// One test only: another one's allocations would count here.
#[test]
fn a_window_allocates_nothing_but_its_results() {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/small/config.json");
    for precision in [Precision::F32, Precision::Int8] {
        check("small", &std::fs::read(small).unwrap(), 2, precision);
        // Many tokens to a frame: each thread takes its own frames, or all share one group after the other.
        for threads in [2, 7] {
            check("tall", include_bytes!("backend_promises/tall.json"), threads, precision);
        }
    }
}
