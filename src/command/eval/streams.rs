//! Event level: scripted streams through the detector in sync mode, drawn at the sampling rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;

use super::Eval;
use crate::backend::Device;
use crate::command::matching::{Matching, Reported, Span};
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::detector::{Detector, Mode, Outlet, Settings, WindowScores};
use crate::engine::{Engine, EngineError, Spec};
use crate::event::{Event, Phase, Reason, Source, Stamp};
use crate::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range};
use crate::model::Heads;
use crate::model::labels::{Label, Labels};
use crate::scene::{Action, Look, Script, Stage};

/// Training never draws scripts of these seeds.
const SEED: u64 = 3_000_000;
/// Events and truth are a pair above this intersection over union.
const OVERLAP: f64 = 0.3;
/// Picture of the streams in pixels: wider than the model looks.
const PICTURE: [u32; 2] = [320, 240];

use Action::*;

/// What the streams in turn watch for.
const SETS: [[Action; 5]; 4] = [
    [Walk, Fall, Wave, Climb, Fight],
    [Run, Lie, Carry, Kick, Hug],
    [Stand, Jump, Sit, Dribble, ShakeHands],
    [Crouch, Throw, RaiseArms, Dance, Empty],
];

/// One kind of stream.
struct Kind {
    name: &'static str,
    look: Look,
    /// Actions that happen too and nobody watches for.
    unlisted: usize,
}

/// Prints the figures of three kinds of streams; returns precision and recall of the plain one.
pub fn measure(arguments: &Eval) -> Result<(f64, f64), CommandError> {
    let spec = Spec {
        model: arguments.model.clone(),
        device: Device::Auto,
        precision: arguments.precision,
        threads: arguments.threads,
        heads: Heads::Hf,
    };
    let engine = Engine::open(&spec)?;
    let kinds = [
        Kind { name: "plain", look: Look::Plain, unlisted: 0 },
        Kind { name: "plain, three unlisted actions", look: Look::Plain, unlisted: 3 },
        Kind { name: "busy", look: Look::Busy, unlisted: 0 },
    ];
    say!(
        "\n{} streams of {:.0} s, {}×{}, five labels each, default settings; a match overlaps by {OVERLAP}",
        arguments.streams,
        arguments.seconds,
        PICTURE[0],
        PICTURE[1]
    );
    let mut plain = None;
    for kind in kinds {
        let (truth, events) = play_all(&engine, arguments, &kind)?;
        let matching = Matching::new(&truth, &events, OVERLAP);
        say!("\n{}: {matching}", kind.name);
        say!("{}", mistakes(&truth, &events, &matching));
        plain.get_or_insert((matching.precision(), matching.recall()));
    }
    Ok(plain.unwrap_or_default())
}

/// All streams of a kind, one after the other on one clock.
fn play_all(
    engine: &Arc<Engine>,
    arguments: &Eval,
    kind: &Kind,
) -> Result<(Vec<Span>, Vec<Reported>), CommandError> {
    let (mut truth, mut events) = (Vec::new(), Vec::new());
    let bar = ProgressBar::new(arguments.streams.into());
    for number in 0..arguments.streams as usize {
        let watched = SETS[number % SETS.len()];
        let script = script(number, &watched, kind, arguments.seconds);
        // Far enough apart that nothing of one stream overlaps with another.
        let offset = number as f64 * (arguments.seconds + 3600.0);
        truth.extend(script.truth().into_iter().filter(|t| watched.contains(&t.action)).map(|t| Span {
            label: t.label.into(),
            start: t.start + offset,
            end: t.end + offset,
        }));
        events.extend(play(engine, &script, &watched, offset)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((truth, events))
}

fn script(number: usize, watched: &[Action; 5], kind: &Kind, seconds: f64) -> Script {
    let rest: Vec<Action> =
        SETS.as_flattened().iter().copied().filter(|a| !watched.contains(a) && *a != Empty).collect();
    let unlisted = (0..kind.unlisted).map(|k| rest[(7 * number + k) % rest.len()]);
    // Standing and emptiness fill the gaps of every script.
    let played: Vec<Action> =
        watched.iter().copied().filter(|a| ![Stand, Empty].contains(a)).chain(unlisted).collect();
    Script::random(SEED + number as u64, Duration::from_secs_f64(seconds), &played, kind.look)
}

/// Collects events by their ends.
#[derive(Default)]
struct Collector {
    events: Mutex<Vec<Reported>>,
    failure: Mutex<Option<String>>,
}

impl Outlet for Collector {
    fn event(&self, event: &Event) {
        if let (Phase::End, Some(end)) = (event.phase, event.end) {
            let seconds = |stamp: &Stamp| stamp.stream_time.as_secs_f64();
            let span = Span { label: event.label.clone(), start: seconds(&event.start), end: seconds(&end) };
            let reported = Reported { span, detected: seconds(&event.detected) };
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(reported);
        }
    }

    fn window(&self, _: &WindowScores) {}

    fn failed(&self, error: &EngineError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
    }
}

fn play(
    engine: &Arc<Engine>,
    script: &Script,
    watched: &[Action; 5],
    offset: f64,
) -> Result<Vec<Reported>, CommandError> {
    let label = |action: &Action| Label {
        name: action.label().into(),
        prompts: vec![action.label().into()],
        gate: Default::default(),
        severity: None,
        metadata: Default::default(),
    };
    let labels = Labels { labels: watched.iter().map(label).collect(), ..Labels::default() };
    let collector = Arc::new(Collector::default());
    let (source, settings) = (Source::default(), Settings::default());
    let detector = Detector::new(engine.clone(), source, settings, labels, Mode::Sync, collector.clone())?;

    let [width, height] = PICTURE;
    let mut stage = Stage::new(script, width, height);
    let mut rgba = vec![0; (4 * width * height) as usize];
    let info =
        ImageInfo { format: PixelFormat::Rgba, width, height, matrix: Matrix::Bt601, range: Range::Full };
    let (num, den) = engine.model().extra.sample_rate;
    let step = Duration::from_secs(den.into()) / num;
    for frame in 0.. {
        let time = step * frame;
        if time >= script.duration {
            break;
        }
        let stamp = Stamp { timestamp: time, stream_time: time, running_time: time, utc: None };
        if detector.wants(&stamp) {
            stage.draw(time, &mut rgba);
            let plane = Plane { data: &rgba, stride: 4 * width as usize };
            let image = Image::new(info, &[plane]).expect("the buffer was made for this size");
            detector.push(stamp, &image)?;
        }
    }
    detector.finish(Reason::Eos);
    if let Some(failure) = collector.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(CommandError::unusable("a window", failure, ""));
    }
    let mut events = std::mem::take(&mut *collector.events.lock().unwrap_or_else(PoisonError::into_inner));
    for event in &mut events {
        event.span.start += offset;
        event.span.end += offset;
        event.detected += offset;
    }
    Ok(events)
}

/// Per label: how many happened, were missed, and were invented.
fn mistakes(truth: &[Span], events: &[Reported], matching: &Matching) -> Table {
    let mut table = Table::new([
        ("label", Align::Left),
        ("actions", Align::Right),
        ("missed", Align::Right),
        ("false", Align::Right),
    ]);
    for action in Action::ALL {
        let mine = |label: &str| label == action.label();
        let actions = truth.iter().filter(|t| mine(&t.label)).count();
        let missed = matching.missed.iter().filter(|&&t| mine(&truth[t].label)).count();
        let invented = matching.spurious.iter().filter(|&&e| mine(&events[e].span.label)).count();
        if actions + invented > 0 {
            table.row([action.label().into(), actions.to_string(), missed.to_string(), invented.to_string()]);
        }
    }
    table
}
