//! Event level: scripted streams, as H.264, through the real element in sync mode.

mod backgrounds;
mod cameras;
mod grid;
mod plot;
mod scores;
pub mod stream;
mod sweep;
mod tape;

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;
use indicatif::ProgressBar;

use super::Eval;
use crate::command::figures::{Figures, OVERLAP, quantile};
use crate::command::matching::{Reported, Span};
use crate::command::recorder::make;
use crate::command::table::{Align, Table};
use crate::command::watch::Recording;
use crate::command::{CommandError, say, start_gstreamer};
use crate::model::{Heads, Model};
use stream::{Camera, KINDS, LABELS, QUIET, Stream};
use tape::{Scoring, Tape};

/// A stream with what happens in it.
pub(super) struct Played {
    pub kind: usize,
    pub recording: Recording,
    /// What happens of what is watched for, and what else happens.
    pub truth: Vec<Span>,
    pub unlisted: Vec<Span>,
    pub seconds: f64,
}

/// Prints the figures of all kinds of streams; returns precision and recall of the plain one.
pub fn measure(arguments: &Eval) -> Result<(f64, f64), CommandError> {
    start_gstreamer()?;
    let plain = match arguments.out.as_ref().filter(|_| arguments.sweep) {
        Some(folder) => measure_and_sweep(arguments, folder)?,
        None => {
            let played = play_all(arguments, |stream| play(arguments, stream, &Camera::default()))?;
            let played: Vec<Played> =
                played.into_iter().map(|(kind, stream, recording)| shown(kind, &stream, recording)).collect();
            describe(arguments)?;
            let all = figures(&played, |played| played.recording.events.clone());
            print(KINDS.iter().map(|kind| kind.name).zip(&all))?;
            scores::measure(&played, arguments.out.as_deref())?;
            all.into_iter().next().unwrap_or_default()
        }
    };
    if arguments.cameras {
        cameras::measure(arguments)?;
    }
    Ok((plain.precision(), plain.recall()))
}

/// Records logits once; the gate and the scores are replayed from them.
fn measure_and_sweep(arguments: &Eval, folder: &Path) -> Result<Figures, CommandError> {
    let extra = Model::open(&arguments.model, Heads::Hf)?.extra;
    let scoring = Scoring {
        competition: arguments.against.competition,
        background: arguments.against.background()?.unwrap_or_else(|| extra.background.clone()),
        temperature: extra.temperature,
    };
    let mut candidates = backgrounds::candidates(&extra.background);
    candidates.extend(scoring.background.clone());
    let tapes = play_all(arguments, |stream| {
        Tape::record(stream, &Camera::default(), &candidates, &detector(arguments, 1)?)
    })?;
    let scored = |scoring: &dyn Fn(&Stream) -> Scoring| -> Vec<Played> {
        let one = |(kind, stream, tape): &(usize, Stream, Tape)| {
            shown(*kind, stream, tape.scored(&scoring(stream)))
        };
        tapes.iter().map(one).collect()
    };
    describe(arguments)?;
    let played = scored(&|_| scoring.clone());
    let base = sweep::Settings::default();
    let all = figures(&played, |played| base.events(&played.recording));
    print(KINDS.iter().map(|kind| kind.name).zip(&all))?;
    scores::measure(&played, Some(folder))?;
    backgrounds::compare(&scoring, &scored)?;
    sweep::run(&played, folder)?;
    grid::run(&played, folder)?;
    Ok(all.into_iter().next().unwrap_or_default())
}

fn shown(kind: usize, stream: &Stream, recording: Recording) -> Played {
    let (truth, unlisted) = (stream.truth(true), stream.truth(false));
    Played { kind, recording, truth, unlisted, seconds: stream.seconds() }
}

/// Every stream of every kind with what `play` makes of it.
fn play_all<T>(
    arguments: &Eval,
    play: impl Fn(&Stream) -> Result<T, CommandError>,
) -> Result<Vec<(usize, Stream, T)>, CommandError> {
    let count = |kind: usize| match arguments.quiet_streams {
        Some(count) if kind == QUIET => u64::from(count),
        _ => u64::from(arguments.streams),
    };
    let bar = ProgressBar::new((0..KINDS.len()).map(count).sum());
    let mut played = Vec::new();
    for kind in 0..KINDS.len() {
        for number in 0..count(kind) {
            let number = u64::from(arguments.skip_streams) + number;
            let stream = Stream::new(kind, number, arguments.seconds);
            let result = play(&stream)?;
            played.push((kind, stream, result));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(played)
}

/// Through the element as a user would set it.
fn play(arguments: &Eval, stream: &Stream, camera: &Camera) -> Result<Recording, CommandError> {
    let detect = detector(arguments, sweep::HOP)?;
    detect.set_property("labels", stream.labels.join("\n"));
    arguments.against.apply(&detect)?;
    stream.play(camera, &detect, &stream.labels)
}

fn detector(arguments: &Eval, hop: u32) -> Result<gst::Element, CommandError> {
    let detect = make("xclipdetect", &[("model", &arguments.model)])?;
    detect.set_property("threads", u32::try_from(arguments.threads).unwrap_or(u32::MAX).min(1024));
    detect.set_property("precision", arguments.precision.to_string());
    detect.set_property("hop", hop);
    Ok(detect)
}

fn describe(arguments: &Eval) -> Result<(), CommandError> {
    let Camera { picture: [width, height], frames_per_second, bitrate } = Camera::default();
    let quiet = match arguments.quiet_streams {
        Some(count) if count != arguments.streams => format!(" ({count} with nothing listed)"),
        _ => String::new(),
    };
    say!(
        "\n{} streams{quiet} of {:.0} s each, {width}×{height} at {frames_per_second}/s, H.264 at {bitrate} kbit/s, \
         {LABELS} random labels; an event stands for an action it overlaps by more than {OVERLAP}",
        arguments.streams,
        arguments.seconds,
    );
    Ok(())
}

/// One for each kind.
fn figures(played: &[Played], events: impl Fn(&Played) -> Vec<Reported>) -> Vec<Figures> {
    let mut sums = vec![Figures::default(); KINDS.len()];
    for stream in played {
        sums[stream.kind].add(&Figures::of(&stream.truth, &events(stream), stream.seconds));
    }
    sums
}

/// A row for each name.
pub fn print<'a>(rows: impl Iterator<Item = (&'a str, &'a Figures)>) -> Result<(), CommandError> {
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
        ("false/h (90 %)", Align::Right),
    ]);
    for (name, figures) in rows {
        let ratio = |value: f64, of: usize| if of == 0 { "-".into() } else { format!("{value:.3}") };
        table.row([
            name.into(),
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
            false_per_hour(figures),
        ]);
    }
    say!("{table}");
    Ok(())
}

/// Median and 90 % quantile.
fn delay(delays: &[f64]) -> String {
    match delays.len() {
        0 => "-".into(),
        _ => format!("{:.2}/{:.2} s", quantile(delays, 0.5), quantile(delays, 0.9)),
    }
}

/// With the interval that so many events allow.
fn false_per_hour(figures: &Figures) -> String {
    let (low, high) = figures.false_per_hour_interval();
    format!("{:.1} ({low:.1}-{high:.1})", figures.false_per_hour())
}
