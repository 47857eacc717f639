//! A backend whose every move a test decides: for what a real one cannot be made to do on demand
//! (block, fail, panic, score as told).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use super::{Engine, State};
use crate::backend::{Backend, BackendError, ClipFeatures, Prepared, TextFeatures};
use crate::model::{Heads, Model};
use crate::preprocess::Reduced;

/// What the backend saw and what it shall do.
#[derive(Default)]
pub struct Control {
    pub prepared: AtomicUsize,
    pub texts: Mutex<HashMap<Vec<u32>, usize>>,
    /// Calls that encoded them.
    pub text_calls: AtomicUsize,
    /// Sizes of the batches, in order.
    pub batches: Mutex<Vec<usize>>,
    pub dropped: AtomicUsize,
}

/// Frame value that makes `encode` fail, and one that makes it panic.
pub const BAD: u8 = 254;
pub const PANIC: u8 = 255;

pub struct Scripted {
    pub control: Arc<Control>,
    /// One message lets one `encode` through; a closed channel lets all through.
    pub gate: Option<Receiver<()>>,
    /// Told when an `encode` begins.
    pub begun: Sender<()>,
    pub score: Score,
}

/// The logit of a clip, by the first sample of its last frame, with a prompt's token ids.
pub type Score = fn(u8, &[f32]) -> f32;

impl Drop for Scripted {
    fn drop(&mut self) {
        self.control.dropped.fetch_add(1, SeqCst);
    }
}

impl Backend for Scripted {
    fn prepare(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError> {
        self.control.prepared.fetch_add(frames.len(), SeqCst);
        Ok(frames.iter().map(|f| Arc::new(f.rgb()[0]) as Prepared).collect())
    }

    fn encode(&mut self, clips: &[&[Prepared]]) -> Result<Vec<ClipFeatures>, BackendError> {
        let _ = self.begun.send(());
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let last = |clip: &&[Prepared]| *clip.last().unwrap().downcast_ref::<u8>().unwrap();
        let values: Vec<u8> = clips.iter().map(last).collect();
        assert!(!values.contains(&PANIC), "the scripted panic");
        if values.contains(&BAD) {
            return Err(BackendError::NotFinite { what: "the scripted clip" });
        }
        lock(&self.control.batches).push(clips.len());
        Ok(values.iter().map(|&v| ClipFeatures { video: vec![v.into()], patches: Vec::new() }).collect())
    }

    fn encode_text(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<TextFeatures>, BackendError> {
        self.control.text_calls.fetch_add(1, SeqCst);
        let mut texts = lock(&self.control.texts);
        for prompt in prompts {
            *texts.entry(prompt.clone()).or_default() += 1;
        }
        if prompts.iter().any(|p| p[0] == 666) {
            return Err(BackendError::NotFinite { what: "the scripted prompt" });
        }
        Ok(prompts.iter().map(|p| TextFeatures(p.iter().map(|&id| id as f32).collect())).collect())
    }

    fn compare(
        &mut self,
        clips: &[&ClipFeatures],
        prompts: &[TextFeatures],
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let row =
            |clip: &&ClipFeatures| prompts.iter().map(|p| (self.score)(clip.video[0] as u8, &p.0)).collect();
        Ok(clips.iter().map(row).collect())
    }

    fn batch(&self) -> usize {
        4
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

pub fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    let open = || {
        let dir = tempfile::tempdir().unwrap();
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/small/config.json");
        crate::model::generate(config.as_ref(), dir.path(), &mut |_, _| {}).unwrap();
        Arc::new(Model::open(dir.path().to_str().unwrap(), Heads::Hf).unwrap())
    };
    MODEL.get_or_init(open).clone()
}

pub struct Bench {
    pub engine: Arc<Engine>,
    pub control: Arc<Control>,
    pub gate: Sender<()>,
    pub begun: Receiver<()>,
}

/// `gated`: each encode waits for a message.
pub fn bench(gated: bool, score: Score) -> Bench {
    let (control, (gate, held), (begin, begun)) = (Arc::new(Control::default()), channel(), channel());
    let scripted = Scripted { control: control.clone(), gate: gated.then_some(held), begun: begin, score };
    let engine = Engine::with_backend(model(), Box::new(scripted));
    wait_until(|| matches!(engine.state(), State::Ready));
    Bench { engine, control, gate, begun }
}

/// An engine that loads until it gets a message.
pub fn loading(score: Score) -> (Arc<Engine>, Sender<()>) {
    let (go, held) = channel::<()>();
    let load = move || {
        held.recv().expect("the test lets it load");
        let (begun, _) = channel();
        let scripted = Scripted { control: Arc::default(), gate: None, begun, score };
        Ok((Box::new(scripted) as Box<dyn Backend>).into())
    };
    (Engine::start(model(), Box::new(load), None).expect("a thread can be started"), go)
}

pub fn wait_until(mut what: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("did not happen within 5 s");
}
