//! The engine over the real backend: one per spec, the reference's logits, no growth.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use gstxclip::backend::{Device, Precision};
use gstxclip::engine::{Dropped, Engine, Frame, Job, Scored, Spec, State};
use gstxclip::model::{Heads, generate, recipe};
use gstxclip::preprocess::Reduced;
use safetensors::SafeTensors;
use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/small");

/// A folder of its own per test, so that no test shares an engine with another.
fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    generate(&Path::new(GOLDEN).join("config.json"), dir.path(), &mut |_, _| {}).unwrap();
    dir
}

fn spec(dir: &TempDir) -> Spec {
    Spec {
        model: dir.path().to_str().unwrap().into(),
        device: Device::Auto,
        precision: Precision::F32,
        threads: 2,
        heads: Heads::Hf,
    }
}

fn settled(engine: &Engine) -> State {
    let (tell, told) = mpsc::channel();
    engine.observe(Box::new(move |state| {
        let loading = matches!(state, State::Loading);
        if !loading {
            let _ = tell.send(state.clone());
        }
        loading
    }));
    told.recv_timeout(Duration::from_secs(60)).expect("loading ends")
}

fn score(engine: &Arc<Engine>, prompts: &[Vec<u32>]) -> Result<Scored, Dropped> {
    let pictures = Reduced::split(&recipe::frames_u8(4, 64, 64, 2), 64);
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    engine.stream().run(Job {
        frames: pictures.into_iter().map(|picture| Arc::new(Frame::new(picture))).collect(),
        prompts: prompts.into(),
        done: Box::new(move |r| *slot.lock().unwrap() = Some(r)),
    });
    result.lock().unwrap().take().expect("`run` returns after `done`")
}

/// The golden prompts without their padding, and the golden logits.
fn golden() -> (Vec<Vec<u32>>, Vec<f32>) {
    let bytes = std::fs::read(Path::new(GOLDEN).join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let ids: Vec<u32> =
        ids.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let whole = |row: &[u32]| row[..=row.iter().position(|&id| id == 999).unwrap()].to_vec();
    let logits = file.tensor("logits_per_video").unwrap();
    let logits = logits.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (ids.chunks(16).map(whole).collect(), logits)
}

#[test]
fn a_window_scores_as_the_reference_says() {
    let dir = checkpoint();
    let engine = Engine::open(&spec(&dir)).unwrap();
    let (prompts, expected) = golden();
    let scored = score(&engine, &prompts).unwrap();
    assert_eq!(scored.logits.len(), expected.len());
    for (found, expected) in scored.logits.iter().zip(&expected) {
        assert!((found - expected).abs() <= 2e-4, "{:?} for {expected:?}", scored.logits);
    }
    assert!(scored.inference > Duration::ZERO);
}

#[test]
fn one_spec_is_one_engine_and_another_spec_another() {
    let dir = checkpoint();
    let first = Engine::open(&spec(&dir)).unwrap();
    assert!(Arc::ptr_eq(&first, &Engine::open(&spec(&dir)).unwrap()));
    let other = Engine::open(&Spec { threads: 1, ..spec(&dir) }).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_none(), "nothing else keeps it");
    let again = Engine::open(&spec(&dir)).unwrap();
    assert!(score(&again, &[vec![998, 5, 999]]).is_ok());
}

#[test]
fn what_means_the_same_is_one_engine() {
    let dir = checkpoint();
    let first = Engine::open(&Spec { threads: 0, device: Device::Cpu, ..spec(&dir) }).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let inside = format!("{}/./", spec(&dir).model);
    let other = dir.path().join("other");
    std::os::unix::fs::symlink(dir.path(), &other).unwrap();
    for model in [spec(&dir).model, inside, other.to_str().unwrap().into()] {
        for threads in [0, cores] {
            let same = Spec { model: model.clone(), threads, device: Device::Cpu, ..spec(&dir) };
            assert!(Arc::ptr_eq(&first, &Engine::open(&same).unwrap()), "{model}, {threads} threads");
        }
    }
    for other in [
        Spec { threads: cores + 1, ..spec(&dir) },
        Spec { threads: 0, precision: Precision::Int8, ..spec(&dir) },
        Spec { threads: 0, heads: Heads::Videox, ..spec(&dir) },
    ] {
        // Other head counts may be none for this configuration.
        let engine = Engine::open(&other);
        assert!(engine.is_err() || !Arc::ptr_eq(&first, &engine.unwrap()), "{other:?}");
    }
}

#[test]
fn faults_of_the_checkpoint_are_told_before_anything_loads() {
    let dir = checkpoint();
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let message = Engine::open(&spec(&dir)).err().unwrap().to_string();
    assert!(message.contains("tokenizer"), "{message}");
    let missing = Spec { model: "no/such/folder".into(), ..spec(&dir) };
    let message = Engine::open(&missing).err().unwrap().to_string();
    assert!(message.contains("no/such/folder"), "{message}");
}

#[test]
fn a_nan_among_the_weights_fails_the_load_by_name_and_a_mended_file_opens() {
    let dir = checkpoint();
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = "vision_model.encoder.layers.1.mlp.fc1.weight";
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let at = header + json[name]["data_offsets"][0].as_u64().unwrap() as usize + 400;
    let good: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();

    let engine = Engine::open(&spec(&dir)).unwrap();
    match settled(&engine) {
        State::Failed(error) => assert!(error.to_string().contains(name), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(score(&engine, &[vec![998, 5, 999]]), Err(Dropped::Failed(_))));

    bytes[at..at + 4].copy_from_slice(&good);
    std::fs::write(&path, &bytes).unwrap();
    let mended = Engine::open(&spec(&dir)).unwrap();
    assert!(matches!(settled(&mended), State::Ready), "a failed engine is not handed out again");
}

#[test]
fn a_window_of_the_wrong_size_is_an_error_and_not_the_end() {
    let dir = checkpoint();
    let engine = Engine::open(&spec(&dir)).unwrap();
    let stream = engine.stream();
    let (tell, told) = mpsc::channel();
    let frame = || Arc::new(Frame::new(Reduced::new(64, vec![0; 64 * 64 * 3])));
    for frames in [3, 5, 4] {
        let tell = tell.clone();
        let done = Box::new(move |r: Result<Scored, Dropped>| tell.send(r.is_ok()).unwrap());
        stream.run(Job {
            frames: (0..frames).map(|_| frame()).collect(),
            prompts: [vec![998, 5, 999]].into(),
            done,
        });
    }
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn threads_do_not_change_the_scores() {
    let dir = checkpoint();
    let (prompts, _) = golden();
    let by =
        |threads| score(&Engine::open(&Spec { threads, ..spec(&dir) }).unwrap(), &prompts).unwrap().logits;
    let one = by(1);
    for threads in [2, 3] {
        for (a, b) in one.iter().zip(by(threads)) {
            assert!((a - b).abs() <= 1e-4, "{a} with one thread, {b} with {threads}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_quick_cycles_leave_no_worker_behind() {
    // Only this test's engine: others run at the same time under the same thread name.
    let dir = checkpoint();
    let spec = spec(&dir);
    // Each worker held its model, and a model maps its weights.
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&spec.model)).count()
    };
    for cycle in 0..100 {
        let engine = Engine::open(&spec).unwrap();
        if cycle % 3 == 0 {
            assert!(score(&engine, &[vec![998, 5, 999]]).is_ok());
        }
        assert!((1..=4).contains(&mapped()), "cycle {cycle}: {} mappings", mapped());
    }
    let begun = Instant::now();
    while mapped() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} mappings left", mapped());
        std::thread::sleep(Duration::from_millis(5));
    }
}
