//! The engine over the CUDA backend: streams with labels of their own, labels that change, a device that is
//! lost or keeps failing.
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use std::process::Output;
use std::sync::{Arc, Mutex};

use cuda_device::{device, fail_launches, on_failing_device, root};
use gstxclip::backend::{Device, Precision};
use gstxclip::engine::{Dropped, Engine, Frame, Job, Prompts, Spec};
use gstxclip::model::{Heads, generate, recipe};
use gstxclip::preprocess::Reduced;
use tempfile::TempDir;

/// The child runs what its parent's test is about, with the device's faults in its environment.
const CHILD: &str = "XCLIP_TEST_DEVICE";

fn open(device: Device, precision: Precision) -> (TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    generate(&root().join("tests/golden/small/config.json"), dir.path(), &mut |_, _| {}).unwrap();
    let model = dir.path().to_str().unwrap().into();
    let engine = Engine::open(&Spec { model, device, precision, threads: 2, heads: Heads::Hf }).unwrap();
    (dir, engine)
}

fn frames(seed: u32) -> Vec<Arc<Frame>> {
    let pictures = recipe::frames_u8(4, 64, 64, seed);
    let frame = |rgb: &[u8]| Arc::new(Frame::new(Reduced::new(64, rgb.to_vec())));
    pictures.chunks(64 * 64 * 3).map(frame).collect()
}

fn prompts(words: &[u32]) -> Prompts {
    words.iter().map(|word| vec![998, *word, 999]).collect()
}

type Scores = Result<Vec<f32>, Dropped>;

/// One window of a stream after the other, each with its own frames and prompts.
fn stream(engine: &Arc<Engine>, windows: &[(u32, Prompts)]) -> Vec<Scores> {
    let stream = engine.stream();
    let one = |(seed, prompts): &(u32, Prompts)| {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        stream.run(Job {
            frames: frames(*seed),
            prompts: prompts.clone(),
            done: Box::new(move |scored| *slot.lock().unwrap() = Some(scored.map(|scored| scored.logits))),
        });
        result.lock().unwrap().take().expect("`run` returns after `done`")
    };
    windows.iter().map(one).collect()
}

/// Labels change within each stream, and differ between the streams, in number too.
fn schedule() -> [Vec<(u32, Prompts)>; 3] {
    let sets = [prompts(&[1, 2, 3]), prompts(&[4]), prompts(&[5, 1, 6, 7, 8]), prompts(&[2])];
    [0u32, 1, 2].map(|stream| {
        (0..6u32).map(|i| (2 + stream, sets[((i / 2 + stream) % 4) as usize].clone())).collect()
    })
}

/// All streams at once.
fn run(engine: &Arc<Engine>) -> Vec<Vec<Scores>> {
    let threads = schedule().map(|windows| {
        let engine = engine.clone();
        std::thread::spawn(move || stream(&engine, &windows))
    });
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What the CPU says in f32, one stream after the other.
fn assert_scores_are_the_cpus(found: &[Vec<Scores>]) {
    let (_dir, engine) = open(Device::Cpu, Precision::F32);
    for (found, windows) in found.iter().zip(schedule()) {
        for (i, (found, expected)) in found.iter().zip(stream(&engine, &windows)).enumerate() {
            let (found, expected) = (found.as_ref().unwrap(), expected.unwrap());
            assert_eq!(found.len(), expected.len(), "window {i}");
            let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.02);
            assert!(near, "window {i}: {found:?}, on the CPU {expected:?}");
        }
    }
}

#[test]
fn streams_with_labels_that_change_do_not_disturb_each_other() {
    if device().is_none() {
        return;
    }
    let (_dir, engine) = open(Device::Cuda(0), Precision::Auto);
    // Eager, captured, replayed; then the same again while graphs replay.
    for _ in 0..2 {
        assert_scores_are_the_cpus(&run(&engine));
    }
}

/// This test again, in a process where the device is lost at its N-th kernel. None without an emulated one.
fn with_lost_device(test: &str, device_name: &str) -> Option<Output> {
    on_failing_device(test, &[(CHILD, device_name), ("XCLIP_EMULATED_FAULT", "lost:300")])
}

fn child_device() -> Option<Device> {
    let device = std::env::var(CHILD).ok()?.parse().unwrap();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    cuda_device::device().expect("the parent has one");
    Some(device)
}

#[test]
fn a_device_lost_under_auto_hands_over_to_the_cpu_which_is_told() {
    if let Some(device) = child_device() {
        let (_dir, engine) = open(device, Precision::Auto);
        // Of the precision that the CPU takes over with, int8 or f32, only that every window is scored.
        assert_eq!(engine.takeover(), None);
        let scores = run(&engine);
        assert!(scores.iter().flatten().all(|scores| scores.is_ok()), "{scores:?}");
        let why = engine.takeover().expect("the device is lost on the way");
        assert!(why.contains("the CPU takes over") && why.contains("the GPU was lost in cu"), "{why}");
        return;
    }
    let test = "a_device_lost_under_auto_hands_over_to_the_cpu_which_is_told";
    let Some(child) = with_lost_device(test, "auto") else { return };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stdout));
    // The warning is the streams', for each user one.
    assert!(
        !said.contains(" WARN ") && said.contains("the CPU takes over: the GPU was lost in cu"),
        "{said}"
    );
}

#[test]
fn a_device_lost_under_its_own_name_fails_every_later_window_with_its_message() {
    if let Some(device) = child_device() {
        let (_dir, engine) = open(device, Precision::Auto);
        let scores = run(&engine);
        for stream in &scores {
            let first =
                stream.iter().position(|scores| scores.is_err()).expect("the device is lost on the way");
            for lost in &stream[first..] {
                let error = lost.as_ref().unwrap_err().to_string();
                assert!(error.contains("the GPU was lost in cu"), "{error}");
            }
        }
        return;
    }
    let test = "a_device_lost_under_its_own_name_fails_every_later_window_with_its_message";
    let Some(child) = with_lost_device(test, "cuda:0") else { return };
    let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
}

/// Another program takes the memory, and gives it back or does not.
#[test]
fn a_device_that_keeps_failing_hands_over_to_the_cpu_under_auto_and_is_an_error_by_its_name() {
    if let Some(device) = child_device() {
        let (_dir, engine) = open(device, Precision::Auto);
        let windows: Vec<_> = (0..6).map(|_| (2, prompts(&[1, 2, 3]))).collect();
        // Eager, captured, replayed.
        assert!(stream(&engine, &windows).iter().all(|scores| scores.is_ok()));
        let failed =
            |scores: &[Scores]| -> Vec<bool> { scores.iter().map(|scores| scores.is_err()).collect() };
        // What passes by costs its own windows, however often.
        for _ in 0..2 {
            fail_launches(0, 2);
            let scores = stream(&engine, &windows);
            assert_eq!(failed(&scores), [true, true, false, false, false, false]);
            let error = scores[0].as_ref().unwrap_err().to_string();
            assert!(
                error.contains("ran out of memory on the GPU") && error.contains("nvidia-smi"),
                "{error}"
            );
        }
        assert_eq!(engine.takeover(), None);
        fail_launches(0, i64::MAX);
        let scores = stream(&engine, &windows);
        if device == Device::Auto {
            assert_eq!(failed(&scores), [true, true, false, false, false, false]);
            let why = engine.takeover().expect("the third window in a row");
            assert!(why.contains("the CPU takes over") && why.contains("ran out of memory"), "{why}");
        } else {
            assert_eq!(failed(&scores), [true; 6]);
            assert_eq!(engine.takeover(), None);
            // It goes on when there is memory again.
            fail_launches(0, 0);
            assert_eq!(failed(&stream(&engine, &windows)), [false; 6]);
        }
        return;
    }
    let test = "a_device_that_keeps_failing_hands_over_to_the_cpu_under_auto_and_is_an_error_by_its_name";
    for device in ["auto", "cuda:0"] {
        let Some(child) = on_failing_device(test, &[(CHILD, device)]) else { return };
        let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{device}: {said}");
    }
}
