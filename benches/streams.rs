//! Many streams on one engine, with the real backend: what a window costs below saturation, and who is
//! served above it.
//!
//! `cargo bench --bench streams`; XCLIP_BENCH_MODEL and XCLIP_BENCH_PRECISION choose another model than
//! `demo` and another precision than `auto`. Not criterion's shape: what is measured is a queue over
//! seconds, not a function. Without `--bench` it runs once, briefly.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstxclip::backend::{Device, Precision};
use gstxclip::engine::{Dropped, Engine, Frame, Job, Prompts, Scored, Spec, State};
use gstxclip::model::{Heads, recipe};
use gstxclip::preprocess::Reduced;

/// New frames per window, as by default. Above saturation a served window has those of the lost ones before it
/// too.
const HOP: usize = 2;
/// What a window may cost with 16 streams, of one stream's, and most ÷ least windows served per stream.
const COST: std::ops::RangeInclusive<f64> = 0.9..=1.1;
const UNEVEN: f64 = 1.2;
const LABELS: u32 = 10;

struct Setup {
    engine: Arc<Engine>,
    pictures: Vec<Reduced>,
    prompts: Prompts,
    frames: usize,
}

/// What happened to one stream's windows.
#[derive(Clone, Default)]
struct Tally {
    submitted: usize,
    superseded: usize,
    /// Work of each served window, and the time from submission to its answer.
    served: Vec<(Duration, Duration)>,
}

impl Setup {
    fn new() -> Self {
        let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
        let precision: Precision = variable("XCLIP_BENCH_PRECISION", "auto").parse().expect("a precision");
        let model = variable("XCLIP_BENCH_MODEL", "demo");
        let spec = Spec { model, device: Device::Auto, precision, threads: 0, heads: Heads::Hf };
        let engine = Engine::open(&spec).unwrap_or_else(|error| panic!("{}: {error}", spec.model));
        while matches!(engine.state(), State::Loading) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (size, frames) = (engine.model().config.image_size, engine.model().config.num_frames);
        let pictures = Reduced::split(&recipe::frames_u8(4 * frames, size, size, 2), size);
        let vocab = engine.model().config.vocab_size as u32;
        let prompts = (0..LABELS).map(|i| vec![vocab - 2, 3 + i, 40 + i, vocab - 1]).collect();
        Self { engine, pictures, prompts, frames }
    }

    /// A stream that submits a window every `period`, the first after `phase`, until `until`.
    fn stream(&self, phase: Duration, period: Duration, until: Instant) -> Tally {
        let stream = self.engine.stream();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let picture = |i: usize| Arc::new(Frame::new(self.pictures[i % self.pictures.len()].clone()));
        let mut frames: Vec<Arc<Frame>> = (0..self.frames).map(picture).collect();
        let mut due = Instant::now() + phase;
        for window in 0.. {
            if due >= until {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            frames.drain(..HOP.min(self.frames));
            frames.extend((0..HOP.min(self.frames)).map(|i| picture(window * HOP + i)));
            let note = tally.clone();
            let done = Box::new(move |result: Result<Scored, Dropped>| {
                let mut tally = note.lock().expect("no holder panics");
                match result {
                    Ok(scored) => tally.served.push((scored.inference, scored.queued + scored.inference)),
                    Err(Dropped::Superseded) => tally.superseded += 1,
                    Err(other) => panic!("{other}"),
                }
            });
            tally.lock().expect("no holder panics").submitted += 1;
            stream.submit(Job { frames: frames.clone(), prompts: self.prompts.clone(), done });
            due += period;
        }
        // The last window is answered before the stream goes, else it would be cancelled.
        loop {
            let tally = tally.lock().expect("no holder panics");
            if tally.served.len() + tally.superseded == tally.submitted {
                return tally.clone();
            }
            drop(tally);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `streams` streams that together ask for `rate` windows per second, and the processor time used.
    fn run(&self, streams: u32, rate: f64, length: Duration) -> (Vec<Tally>, Option<Duration>) {
        let period = Duration::from_secs_f64(f64::from(streams) / rate);
        let (before, until) = (processor_time(), Instant::now() + length);
        let tallies = std::thread::scope(|scope| {
            let start = |i| scope.spawn(move || self.stream(period * i / streams, period, until));
            let threads: Vec<_> = (0..streams).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("a stream does not panic")).collect()
        });
        (tallies, before.and_then(|before| Some(processor_time()? - before)))
    }

    /// One window after the other for a while, each with [`HOP`] new frames: windows per second.
    fn capacity(&self, length: Duration) -> f64 {
        let stream = self.engine.stream();
        let picture = |i: usize| Arc::new(Frame::new(self.pictures[i % self.pictures.len()].clone()));
        let mut frames: Vec<Arc<Frame>> = (0..self.frames).map(picture).collect();
        let (begun, mut windows) = (Instant::now(), 0);
        while begun.elapsed() < length {
            frames.drain(..HOP.min(self.frames));
            frames.extend((0..HOP.min(self.frames)).map(|i| picture(windows * HOP + i)));
            // A panic in `done` is caught by the engine.
            let (answer, answered) = std::sync::mpsc::channel();
            let done = Box::new(move |result: Result<Scored, Dropped>| {
                let _ = answer.send(result.is_ok());
            });
            stream.run(Job { frames: frames.clone(), prompts: self.prompts.clone(), done });
            assert_eq!(answered.recv(), Ok(true), "a window failed");
            windows += 1;
        }
        windows as f64 / begun.elapsed().as_secs_f64()
    }
}

/// What all threads of the process used so far; Linux only.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn verdict(holds: bool) -> &'static str {
    if holds { "met" } else { "MISSES" }
}

fn main() {
    let timed = std::env::args().any(|argument| argument == "--bench");
    let (rounds, length) = if timed { (5, Duration::from_secs(2)) } else { (1, Duration::from_millis(200)) };
    let setup = Setup::new();
    setup.run(1, 20.0, length);
    let capacity = setup.capacity(length);
    println!("{}, hop {HOP}, {LABELS} labels: {capacity:.0} windows/s at most", setup.engine.model().name);

    let counts = [1, 4, 16];
    let mut work = vec![Vec::new(); counts.len()];
    let mut processor = vec![Vec::new(); counts.len()];
    // In turns, so that a slow minute hits all alike.
    for _ in 0..rounds {
        for (i, &streams) in counts.iter().enumerate() {
            let (tallies, used) = setup.run(streams, capacity / 2.0, length);
            let served: Vec<_> =
                tallies.iter().flat_map(|t| t.served.iter().map(|(work, _)| *work)).collect();
            assert!(!served.is_empty(), "no window was served");
            processor[i].extend(used.map(|used| used / served.len() as u32));
            work[i].extend(served);
        }
    }
    let work: Vec<_> = work.into_iter().map(median).collect();
    let cost = |i: usize| work[i].as_secs_f64() / work[0].as_secs_f64();
    for (i, streams) in counts.iter().enumerate() {
        let processor = processor[i].is_empty().then(String::new).unwrap_or_else(|| {
            format!(", {:.2} ms of processor time", milliseconds(median(processor[i].clone())))
        });
        println!(
            "streams/{streams} at half of it: {:.2} ms per window{processor}, {:.2} of one stream's (bar: within 10 %: {})",
            milliseconds(work[i]),
            cost(i),
            verdict(COST.contains(&cost(i)))
        );
    }

    for times in [2.0, 8.0] {
        let (tallies, _) = setup.run(16, capacity * times, length * rounds);
        let served: Vec<usize> = tallies.iter().map(|t| t.served.len()).collect();
        let (least, most) = (served.iter().min().expect("16"), served.iter().max().expect("16"));
        let submitted: usize = tallies.iter().map(|t| t.submitted).sum();
        let all: usize = served.iter().sum();
        let mut delays: Vec<_> =
            tallies.iter().flat_map(|t| t.served.iter().map(|(_, delay)| *delay)).collect();
        delays.sort();
        let uneven = *most as f64 / (*least).max(1) as f64;
        let last = delays.last().expect("something was served");
        println!(
            "streams/16 at {times:.0} times what fits: {all} of {submitted} windows served, {least} to {most} per \
             stream ({uneven:.2}; bar 1.2: {}), from submission to score {:.1} ms (median), {:.1} ms at most; a turn of all is {:.1} ms",
            verdict(uneven <= UNEVEN),
            milliseconds(delays[delays.len() / 2]),
            milliseconds(*last),
            16.0 * milliseconds(work[0]),
        );
        assert!(*least > 0, "a stream was never served");
    }
}
