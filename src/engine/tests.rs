//! The engine's promises, over a backend whose every move the test decides.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::scripted::{BAD, Bench, PANIC, Score, bench, loading, lock, model, wait_until};
use super::*;

/// Frame value plus prompt.
const SUM: Score = |value, ids| f32::from(value) + ids[0];

fn prompts(ids: &[u32]) -> Prompts {
    ids.iter().map(|&id| vec![id]).collect()
}

fn frame(value: u8) -> Arc<Frame> {
    Arc::new(Frame::new(Reduced::new(1, vec![value; 3])))
}

type Answers = Arc<Mutex<Vec<(usize, Result<Vec<f32>, Dropped>)>>>;

/// A one-frame window whose answer is noted under `name`.
fn job(name: usize, value: u8, prompts: &Prompts, answers: &Answers) -> Job {
    let answers = answers.clone();
    let done = Box::new(move |result: Result<Scored, Dropped>| {
        lock(&answers).push((name, result.map(|scored| scored.logits)));
    });
    Job { frames: vec![frame(value)], prompts: prompts.clone(), done }
}

fn names(answers: &Answers) -> Vec<usize> {
    lock(answers).iter().map(|(name, _)| *name).collect()
}

#[test]
fn logits_come_back_in_the_order_of_the_prompts() {
    let Bench { engine, .. } = bench(false, SUM);
    let answers = Answers::default();
    engine.stream().run(job(0, 10, &prompts(&[3, 1, 2, 1]), &answers));
    let answers = lock(&answers);
    assert_eq!(answers[0].1.as_ref().unwrap(), &[13.0, 11.0, 12.0, 11.0]);
}

#[test]
fn a_newer_window_takes_the_place_of_a_pending_one() {
    let Bench { engine, gate, begun, .. } = bench(true, SUM);
    let (stream, p, answers) = (engine.stream(), prompts(&[1]), Answers::default());
    stream.submit(job(0, 1, &p, &answers));
    begun.recv().unwrap();
    for name in 1..4 {
        stream.submit(job(name, 1, &p, &answers));
    }
    assert_eq!(names(&answers), [1, 2]);
    assert!(lock(&answers).iter().all(|(_, r)| matches!(r, Err(Dropped::Superseded))));
    drop(gate);
    wait_until(|| names(&answers) == [1, 2, 0, 3]);
}

#[test]
fn streams_take_turns_and_share_batches() {
    let Bench { engine, control, gate, begun } = bench(true, SUM);
    let (p, answers) = (prompts(&[1]), Answers::default());
    let streams: Vec<_> = (0..6).map(|_| engine.stream()).collect();
    streams[0].submit(job(0, 1, &p, &answers));
    begun.recv().unwrap();
    for (name, stream) in streams.iter().enumerate() {
        stream.submit(job(10 + name, 1, &p, &answers));
    }
    // Stream 0 was served last: 1 to 4 come first, then 5 and 0, whose windows waited as long.
    gate.send(()).unwrap();
    begun.recv().unwrap();
    wait_until(|| names(&answers) == [0]);
    gate.send(()).unwrap();
    begun.recv().unwrap();
    // Served streams ask again at once: they have to wait for 5 and 0 all the same.
    for (name, stream) in streams.iter().enumerate().skip(1).take(4) {
        stream.submit(job(20 + name, 1, &p, &answers));
    }
    drop(gate);
    wait_until(|| names(&answers).len() == 11);
    assert_eq!(names(&answers)[..7], [0, 11, 12, 13, 14, 15, 10]);
    assert_eq!(lock(&control.batches)[1], 4);
}

#[test]
fn a_frame_is_prepared_once_and_a_prompt_encoded_once() {
    let Bench { engine, control, .. } = bench(false, SUM);
    let (a, b) = (engine.stream(), engine.stream());
    let frames: Vec<_> = (0..6).map(frame).collect();
    for start in 0..3 {
        for (stream, ids) in [(&a, [1, 2]), (&b, [2, 3])] {
            let frames = frames[start..start + 4].to_vec();
            stream.run(Job { frames, prompts: prompts(&ids), done: Box::new(|r| assert!(r.is_ok())) });
        }
    }
    assert_eq!(control.prepared.load(SeqCst), 6);
    assert!(lock(&control.texts).values().all(|&times| times == 1));
}

#[test]
fn labels_that_come_back_are_not_encoded_again() {
    let Bench { engine, control, .. } = bench(false, SUM);
    let (stream, answers) = (engine.stream(), Answers::default());
    // Every list is another one to the engine, and the one before is gone.
    for ids in [&[1, 2][..], &[3], &[2, 1, 3], &[1, 2]] {
        stream.run(job(0, 1, &prompts(ids), &answers));
    }
    let texts = lock(&control.texts);
    assert!(texts.len() == 3 && texts.values().all(|&times| times == 1), "{texts:?}");
    assert!(lock(&answers).iter().all(|(_, answer)| answer.is_ok()));
}

#[test]
fn new_prompts_are_encoded_many_to_a_call() {
    let Bench { engine, control, .. } = bench(false, SUM);
    let (stream, answers) = (engine.stream(), Answers::default());
    stream.run(job(0, 1, &prompts(&(0..10).collect::<Vec<_>>()), &answers));
    assert_eq!(control.text_calls.load(SeqCst), 1);
    stream.run(job(0, 1, &prompts(&(0..100).collect::<Vec<_>>()), &answers));
    assert!(control.text_calls.load(SeqCst) <= 7);
    assert_eq!(lock(&control.texts).len(), 100);
}

#[test]
fn warmed_prompts_are_encoded_before_the_first_window() {
    let Bench { engine, control, .. } = bench(false, SUM);
    let stream = engine.stream();
    stream.warm(prompts(&(0..50).collect::<Vec<_>>()));
    wait_until(|| lock(&control.texts).len() == 50);
}

#[test]
fn a_long_list_of_new_prompts_does_not_hold_up_other_streams() {
    let Bench { engine, control, gate, begun } = bench(true, SUM);
    let answers = Answers::default();
    let (long, short) = (engine.stream(), engine.stream());
    let few = prompts(&[1]);
    short.submit(job(0, 1, &few, &answers));
    begun.recv().unwrap();
    long.submit(job(1, 1, &prompts(&(100..1100).collect::<Vec<_>>()), &answers));
    short.submit(job(2, 1, &few, &answers));
    gate.send(()).unwrap();
    begun.recv().unwrap();
    let encoded = lock(&control.texts).len();
    assert!(encoded < 50, "{encoded} prompts were encoded before the other stream's window");
    drop(gate);
    wait_until(|| names(&answers) == [0, 2, 1]);
}

#[test]
fn a_bad_window_costs_only_its_own_stream() {
    let Bench { engine, gate, begun, .. } = bench(true, SUM);
    let (p, answers) = (prompts(&[1]), Answers::default());
    let streams: Vec<_> = (0..4).map(|_| engine.stream()).collect();
    streams[0].submit(job(0, 1, &p, &answers));
    begun.recv().unwrap();
    for (name, value) in [(1, 1), (2, BAD), (3, 3)] {
        streams[name].submit(job(name, value, &p, &answers));
    }
    drop(gate);
    wait_until(|| names(&answers) == [0, 1, 2, 3]);
    let answers = lock(&answers);
    assert!(matches!(&answers[2].1, Err(Dropped::Failed(e)) if e.to_string().contains("scripted clip")));
    assert!(answers[1].1.is_ok() && answers[3].1.is_ok());
}

#[test]
fn prompts_that_cannot_be_encoded_fail_their_windows_only() {
    let Bench { engine, .. } = bench(false, SUM);
    let (a, b, answers) = (engine.stream(), engine.stream(), Answers::default());
    let bad = prompts(&[1, 666]);
    a.warm(bad.clone());
    a.run(job(0, 1, &bad, &answers));
    b.run(job(1, 1, &prompts(&[2]), &answers));
    a.run(job(2, 1, &bad, &answers));
    let answers = lock(&answers);
    assert!(matches!(&answers[0].1, Err(Dropped::Failed(e)) if e.to_string().contains("scripted prompt")));
    assert!(answers[1].1.is_ok() && answers[2].1.is_err());
}

#[test]
fn a_worker_that_panics_fails_everything_and_hangs_nothing() {
    let Bench { engine, control, gate, begun } = bench(true, SUM);
    let (p, answers) = (prompts(&[1]), Answers::default());
    let (a, b) = (engine.stream(), engine.stream());
    a.submit(job(0, PANIC, &p, &answers));
    begun.recv().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| b.run(job(1, 1, &p, &answers)));
        a.submit(job(2, 1, &p, &answers));
        gate.send(()).unwrap();
    });
    wait_until(|| names(&answers).len() == 3);
    assert!(lock(&answers).iter().all(|(_, r)| r.is_err()));
    assert!(matches!(engine.state(), State::Failed(e) if e.to_string().contains("scripted panic")));
    a.submit(job(3, 1, &p, &answers));
    b.run(job(4, 1, &p, &answers));
    assert!(lock(&answers)[3..].iter().all(|(_, r)| matches!(r, Err(Dropped::Failed(_)))));
    wait_until(|| control.dropped.load(SeqCst) == 1);
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let Bench { engine, .. } = bench(false, SUM);
    let (stream, p, answers) = (engine.stream(), prompts(&[1]), Answers::default());
    let done = Box::new(|_: Result<Scored, Dropped>| panic!("a callback's panic"));
    stream.run(Job { frames: vec![frame(1)], prompts: p.clone(), done });
    stream.run(job(0, 1, &p, &answers));
    assert!(lock(&answers)[0].1.is_ok());
}

#[test]
fn while_loading_submit_is_refused_at_once_and_run_waits() {
    let (engine, go) = loading(SUM);
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = states.clone();
    engine.observe(Box::new(move |state| {
        lock(&seen).push(format!("{state:?}"));
        true
    }));
    let (stream, p, answers) = (engine.stream(), prompts(&[1]), Answers::default());
    stream.submit(job(0, 1, &p, &answers));
    assert!(matches!(lock(&answers)[0].1, Err(Dropped::Loading)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stream.run(job(1, 1, &p, &answers)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        stream.cancel();
        waiting.join().unwrap();
        assert!(matches!(lock(&answers)[1].1, Err(Dropped::Cancelled)));
        let before = stream.cancels();
        stream.cancel();
        stream.run_unless_cancelled(before, job(2, 1, &p, &answers));
        assert!(matches!(lock(&answers)[2].1, Err(Dropped::Cancelled)), "a cancel on the way in counts");
        let waiting = scope.spawn(|| stream.run(job(3, 1, &p, &answers)));
        go.send(()).unwrap();
        waiting.join().unwrap();
    });
    assert!(lock(&answers)[3].1.is_ok());
    assert_eq!(*lock(&states), ["Loading", "Ready"]);
}

#[test]
fn a_cancel_wakes_a_run_whose_window_is_in_work() {
    let Bench { engine, gate, begun, .. } = bench(true, SUM);
    let (stream, p, answers) = (engine.stream(), prompts(&[1]), Answers::default());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stream.run(job(0, 1, &p, &answers)));
        begun.recv().unwrap();
        stream.cancel();
        waiting.join().unwrap();
        assert!(names(&answers).is_empty(), "its answer comes when the work is done");
        drop(gate);
    });
    wait_until(|| names(&answers) == [0]);
}

#[test]
fn a_load_that_fails_or_panics_answers_everybody() {
    for panics in [false, true] {
        let (go, held) = channel::<()>();
        let load = move || {
            held.recv().unwrap();
            assert!(!panics, "a load's panic");
            Err(BackendError::UnknownDevice("tpu".into()).into())
        };
        let engine = Engine::start(model(), Box::new(load), None).unwrap();
        let (stream, answers) = (engine.stream(), Answers::default());
        std::thread::scope(|scope| {
            scope.spawn(|| stream.run(job(0, 1, &prompts(&[1]), &answers)));
            std::thread::sleep(Duration::from_millis(20));
            go.send(()).unwrap();
        });
        let text = if panics { "a load's panic" } else { "tpu" };
        assert!(matches!(&lock(&answers)[0].1, Err(Dropped::Failed(e)) if e.to_string().contains(text)));
        let told = Arc::new(Mutex::new(String::new()));
        let note = told.clone();
        engine.observe(Box::new(move |state| {
            *lock(&note) = format!("{state:?}");
            false
        }));
        assert!(lock(&told).starts_with("Failed"), "{told:?}");
    }
}

#[test]
fn dropping_a_stream_cancels_and_the_last_handle_ends_the_worker() {
    let Bench { engine, control, gate, begun } = bench(true, SUM);
    let (p, answers) = (prompts(&[1]), Answers::default());
    let (a, b) = (engine.stream(), engine.stream());
    a.submit(job(0, 1, &p, &answers));
    begun.recv().unwrap();
    b.submit(job(1, 1, &p, &answers));
    drop(b);
    assert!(matches!(lock(&answers)[..], [(1, Err(Dropped::Cancelled))]));
    drop(a);
    drop(engine);
    assert_eq!(control.dropped.load(SeqCst), 0, "the window in work completes");
    drop(gate);
    wait_until(|| control.dropped.load(SeqCst) == 1);
    assert!(matches!(lock(&answers)[1], (0, Ok(_))));
}

#[test]
fn a_handle_that_joins_while_the_last_one_leaves_keeps_the_worker() {
    let Bench { engine, control, .. } = bench(false, SUM);
    let (queue, model) = (engine.queue.clone(), engine.model.clone());
    // What `open` does when it finds a handle that is on its way out: it joins before that one left.
    assert!(queue.join());
    drop(engine);
    let engine = Arc::new(Engine { queue: queue.clone(), model });
    let answers = Answers::default();
    engine.stream().run(job(0, 1, &prompts(&[1]), &answers));
    assert!(lock(&answers)[0].1.is_ok());
    drop(engine);
    wait_until(|| control.dropped.load(SeqCst) == 1);
    assert!(!queue.join());
    let answers = Answers::default();
    queue.submit(1, job(0, 1, &prompts(&[1]), &answers));
    queue.run(1, None, job(1, 1, &prompts(&[1]), &answers));
    assert!(lock(&answers).iter().all(|(_, r)| matches!(r, Err(Dropped::Cancelled))), "nobody serves it");
    assert_eq!(names(&answers), [0, 1]);
}

#[test]
fn every_job_is_answered_exactly_once_in_any_turmoil() {
    for round in 0..20u64 {
        let Bench { engine, .. } = bench(false, SUM);
        let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..1200).map(|_| AtomicUsize::new(0)).collect());
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let (engine, counts) = (engine.clone(), counts.clone());
                scope.spawn(move || {
                    let mut stream = engine.stream();
                    let lists = [prompts(&[1, 2]), prompts(&[3]), prompts(&[666])];
                    for i in 0..300usize {
                        let name = thread * 300 + i;
                        // Deterministic noise; the last rounds end in a panic of the worker.
                        let noise = (name as u64 + round * 7919).wrapping_mul(0x9E3779B97F4A7C15) >> 40;
                        let fatal = round >= 15 && thread == 0 && i == 150;
                        let value = if fatal {
                            PANIC
                        } else if noise.is_multiple_of(11) {
                            BAD
                        } else {
                            1
                        };
                        let counts = counts.clone();
                        let job = Job {
                            frames: vec![frame(value)],
                            prompts: lists[usize::from(noise.is_multiple_of(3))
                                + usize::from(noise.is_multiple_of(31))]
                            .clone(),
                            done: Box::new(move |_| {
                                counts[name].fetch_add(1, SeqCst);
                            }),
                        };
                        match noise % 7 {
                            0 => stream.run(job),
                            1 => stream.run_unless_cancelled(stream.cancels(), job),
                            _ => stream.submit(job),
                        }
                        match noise % 13 {
                            0 => stream.cancel(),
                            1 => stream = engine.stream(),
                            _ => {}
                        }
                    }
                });
            }
        });
        drop(engine);
        wait_until(|| counts.iter().all(|count| count.load(SeqCst) >= 1));
        assert!(counts.iter().all(|count| count.load(SeqCst) == 1), "round {round}");
    }
}

/// A device that is lost at its first window.
#[cfg(all(feature = "cuda", unix))]
struct Lost;

#[cfg(all(feature = "cuda", unix))]
impl crate::backend::Backend for Lost {
    fn prepare(&mut self, frames: &[&Reduced]) -> Result<Vec<Prepared>, BackendError> {
        Ok(frames.iter().map(|_| Arc::new(()) as Prepared).collect())
    }
    fn encode(&mut self, _: &[&[Prepared]]) -> Result<Vec<crate::backend::ClipFeatures>, BackendError> {
        let (name, text) = ("CUDA_ERROR_ECC_UNCORRECTABLE".into(), "uncorrectable ECC error".into());
        Err(crate::backend::cuda::CudaError::Lost { call: "cuStreamSynchronize", name, text }.into())
    }
    fn encode_text(
        &mut self,
        prompts: &[Vec<u32>],
    ) -> Result<Vec<crate::backend::TextFeatures>, BackendError> {
        let features = |p: &Vec<u32>| crate::backend::TextFeatures(vec![p[0] as f32].into());
        Ok(prompts.iter().map(features).collect())
    }
    fn compare(
        &mut self,
        _: &[&crate::backend::ClipFeatures],
        _: &[crate::backend::TextFeatures],
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        unreachable!("nothing was encoded")
    }
    fn describe(&self) -> String {
        "lost".into()
    }
}

#[cfg(all(feature = "cuda", unix))]
#[test]
fn after_a_lost_device_the_fallback_answers_the_same_window() {
    use super::scripted::{Control, Scripted};
    let control = Arc::new(Control::default());
    let (begun, _kept) = channel();
    let scripted = Scripted { control: control.clone(), gate: None, begun, score: SUM };
    let load = Box::new(|| Ok((Box::new(Lost) as Box<dyn crate::backend::Backend>).into()));
    let fallback = Box::new(move || Ok((Box::new(scripted) as Box<dyn crate::backend::Backend>).into()));
    let engine = Engine::start(model(), load, Some(fallback)).unwrap();
    let answers = Answers::default();
    engine.stream().run(job(0, 10, &prompts(&[3]), &answers));
    assert_eq!(lock(&answers)[0].1.as_ref().unwrap(), &[13.0]);
    assert_eq!(control.prepared.load(SeqCst), 1, "states of the lost device are of no use");
    assert!(engine.takeover().is_some_and(|why| why.contains("the CPU takes over") && why.contains("ECC")));
    assert!(matches!(engine.state(), State::Ready));
}

#[cfg(all(feature = "cuda", unix))]
#[test]
fn a_lost_device_without_a_fallback_ends_the_engine_with_its_reason() {
    let load = Box::new(|| Ok((Box::new(Lost) as Box<dyn crate::backend::Backend>).into()));
    let engine = Engine::start(model(), load, None).unwrap();
    let (stream, answers) = (engine.stream(), Answers::default());
    let (asked, states) = (Arc::downgrade(&engine), Answers::default());
    let noted = states.clone();
    let done = Box::new(move |result: Result<Scored, Dropped>| {
        let failed = asked.upgrade().is_some_and(|engine| matches!(engine.state(), State::Failed(_)));
        lock(&noted).push((usize::from(failed), result.map(|scored| scored.logits)));
    });
    stream.run(Job { frames: vec![frame(10)], prompts: prompts(&[3]), done });
    assert!(matches!(&lock(&states)[0].1, Err(Dropped::Failed(e)) if e.to_string().contains("ECC")));
    assert_eq!(lock(&states)[0].0, 1, "who hears of the lost window finds the engine failed");
    stream.run(job(1, 10, &prompts(&[3]), &answers));
    assert!(matches!(&lock(&answers)[0].1, Err(Dropped::Failed(e)) if e.to_string().contains("dmesg")));
}
