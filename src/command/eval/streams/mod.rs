//! Event level: scripted streams, as H.264, through the real element in sync mode.

mod plot;
mod scores;
mod sweep;

use gst::prelude::*;
use gstreamer as gst;
use indicatif::ProgressBar;

use super::Eval;
use crate::command::figures::{Figures, OVERLAP, quantile};
use crate::command::matching::{Reported, Span};
use crate::command::recorder::make;
use crate::command::table::{Align, Table};
use crate::command::watch::{Recording, watch};
use crate::command::{CommandError, say, start_gstreamer};
use crate::scene::{Action, Look, Random, Script};

/// Training never draws scripts of these seeds.
const SEED: u64 = 3_000_000;
/// Wider than the model looks, as cameras are.
const PICTURE: [i32; 2] = [640, 360];
const FRAMES_PER_SECOND: i32 = 12;
/// kbit/s: a camera's second stream.
const BITRATE: u32 = 500;
/// Labels watched for in a stream.
const LABELS: usize = 5;

/// One kind of stream.
struct Kind {
    name: &'static str,
    look: Look,
    /// The labels watched for happen.
    listed: bool,
    /// Actions that happen too and nobody watches for.
    unlisted: usize,
}

const KINDS: [Kind; 4] = [
    Kind { name: "plain", look: Look::Plain, listed: true, unlisted: 0 },
    Kind { name: "plain, three unlisted", look: Look::Plain, listed: true, unlisted: 3 },
    Kind { name: "whole world", look: Look::Busy, listed: true, unlisted: 0 },
    Kind { name: "whole, nothing listed", look: Look::Busy, listed: false, unlisted: 8 },
];

/// A stream with what happens in it.
pub(super) struct Played {
    pub kind: usize,
    pub recording: Recording,
    pub truth: Vec<Span>,
    pub seconds: f64,
}

/// Prints the figures of all kinds of streams; returns precision and recall of the plain one.
pub fn measure(arguments: &Eval) -> Result<(f64, f64), CommandError> {
    start_gstreamer()?;
    let hop = if arguments.sweep { 1 } else { sweep::HOP };
    let mut played = Vec::new();
    let bar = ProgressBar::new(u64::from(arguments.streams) * KINDS.len() as u64);
    for kind in 0..KINDS.len() {
        for number in 0..arguments.streams.into() {
            played.push(play(arguments, kind, number, hop)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    say!(
        "\n{} streams of {:.0} s each, {}×{} at {FRAMES_PER_SECOND}/s, H.264 at {BITRATE} kbit/s, {LABELS} random \
         labels; an event stands for an action it overlaps by more than {OVERLAP}",
        arguments.streams,
        arguments.seconds,
        PICTURE[0],
        PICTURE[1],
    );
    let plain = match arguments.out.as_ref().filter(|_| arguments.sweep) {
        None => print(&figures(&played, |played| played.recording.events.clone()))?,
        Some(folder) => {
            let base = sweep::Settings::default();
            let plain = print(&figures(&played, |played| base.events(&played.recording)))?;
            sweep::run(&played, folder)?;
            plain
        }
    };
    scores::measure(&played, arguments.out.as_deref())?;
    Ok((plain.precision(), plain.recall()))
}

/// One for each kind.
fn figures(played: &[Played], events: impl Fn(&Played) -> Vec<Reported>) -> Vec<Figures> {
    let mut sums = vec![Figures::default(); KINDS.len()];
    for stream in played {
        sums[stream.kind].add(&Figures::of(&stream.truth, &events(stream), stream.seconds));
    }
    sums
}

/// Prints all, returns those of the first kind.
fn print(all: &[Figures]) -> Result<Figures, CommandError> {
    let mut table = Table::new([
        ("streams", Align::Left),
        ("actions", Align::Right),
        ("events", Align::Right),
        ("precision", Align::Right),
        ("recall", Align::Right),
        ("F1", Align::Right),
        ("F1 at 0.5", Align::Right),
        ("start delay p50/p90", Align::Right),
        ("end delay p50/p90", Align::Right),
        ("repeats/100", Align::Right),
        ("merges", Align::Right),
        ("false/h", Align::Right),
    ]);
    for (kind, figures) in KINDS.iter().zip(all) {
        let ratio = |value: f64, of: usize| if of == 0 { "-".into() } else { format!("{value:.3}") };
        let delay = |delays: &[f64]| match delays.len() {
            0 => "-".into(),
            _ => format!("{:.2}/{:.2} s", quantile(delays, 0.5), quantile(delays, 0.9)),
        };
        table.row([
            kind.name.into(),
            figures.actions.to_string(),
            figures.events.to_string(),
            ratio(figures.precision(), figures.events),
            ratio(figures.recall(), figures.actions),
            ratio(figures.f1(), figures.actions),
            ratio(figures.close_f1(), figures.actions),
            delay(&figures.start_delays),
            delay(&figures.end_delays),
            ratio(figures.repeats(), figures.actions),
            figures.merges.to_string(),
            format!("{:.1}", figures.false_per_hour()),
        ]);
    }
    say!("{table}");
    Ok(all.first().cloned().unwrap_or_default())
}

/// What is watched for and what is played, both from the stream's number.
fn choose(kind: &Kind, seed: u64) -> (Vec<Action>, Vec<Action>) {
    // Standing and emptiness fill the gaps of every script.
    let fills = |action: &Action| [Action::Stand, Action::Empty].contains(action);
    let mut deck = Action::ALL.to_vec();
    if !kind.listed {
        deck.retain(|action| !fills(action));
    }
    let mut random = Random::fork(seed, 77);
    for i in (1..deck.len()).rev() {
        deck.swap(i, random.below(i + 1));
    }
    let rest = deck.split_off(LABELS);
    // Whoever fell lies.
    let taboo = |action: &Action| *action == Action::Fall && deck.contains(&Action::Lie);
    let unlisted = rest.into_iter().filter(|action| !fills(action) && !taboo(action)).take(kind.unlisted);
    let listed = deck.iter().copied().filter(|action| kind.listed && !fills(action));
    let played = listed.chain(unlisted).collect();
    (deck, played)
}

fn play(arguments: &Eval, kind: usize, number: u64, hop: u32) -> Result<Played, CommandError> {
    let seed = SEED + 1000 * kind as u64 + number;
    let (watched, actions) = choose(&KINDS[kind], seed);
    let names: Vec<&str> = actions.iter().map(|action| action.label()).collect();
    let look = if KINDS[kind].look == Look::Plain { "plain" } else { "busy" };
    let text = serde_json::json!({
        "seed": seed, "duration": arguments.seconds, "look": look, "random": names,
    });
    let text = text.to_string();
    let script = Script::parse(&text).expect("names and numbers of our own");
    let labels: Vec<String> = watched.iter().map(|action| action.label().to_string()).collect();

    let pipeline = gst::Pipeline::new();
    let size = gst::Caps::builder("video/x-raw")
        .field("width", PICTURE[0])
        .field("height", PICTURE[1])
        .field("framerate", gst::Fraction::new(FRAMES_PER_SECOND, 1))
        .build();
    let encoder = make("x264enc", &[("bitrate", &BITRATE), ("key-int-max", &50u32)])?;
    encoder.set_property_from_str("speed-preset", "veryfast");
    encoder.set_property_from_str("tune", "zerolatency");
    let source = [
        make("xclipscenesrc", &[("script", &text)])?,
        make("capsfilter", &[("caps", &size)])?,
        make("videoconvert", &[])?,
        encoder,
        make("avdec_h264", &[])?,
        // Drawing and encoding use another core.
        make("queue", &[])?,
    ];
    pipeline.add_many(&source)?;
    gst::Element::link_many(&source)?;
    let [.., last] = &source;
    let detect = make("xclipdetect", &[("model", &arguments.model), ("labels", &labels.join("\n"))])?;
    detect.set_property("threads", u32::try_from(arguments.threads).unwrap_or(u32::MAX).min(1024));
    detect.set_property("precision", arguments.precision.to_string());
    detect.set_property("hop", hop);
    let recording = watch(&pipeline, last, &detect, &labels, &format!("stream {number}"))?;
    let truth = script.truth().into_iter().filter(|truth| watched.contains(&truth.action));
    let truth = truth.map(|truth| Span { label: truth.label.into(), start: truth.start, end: truth.end });
    Ok(Played { kind, recording, truth: truth.collect(), seconds: script.duration.as_secs_f64() })
}
