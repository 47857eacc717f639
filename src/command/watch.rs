//! A finite video through the real element in sync mode: every window's scores and every event.
//!
//! What `eval` and `calibrate` judge. The recording can be gated again with other settings, since gates
//! see nothing but scores: [`Recording::gated`] gives what the element gives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use gstreamer as gst;

use super::CommandError;
use super::figures::united;
use super::matching::{Reported, Span};
use super::recorder::{make, run_to_end};
use super::reliability::Sample;
use crate::detector::WindowScores;
use crate::element::meta;
use crate::event::json::Record;
use crate::event::{GateSettings, Hysteresis, Phase, Reason, Stamp, Step};

/// What the element sees of a video.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub labels: Vec<String>,
    /// In order of time; a probability per label, in the order of `labels`.
    pub windows: Vec<Window>,
    /// The element's own events, ended by the end of the video.
    pub events: Vec<Reported>,
    /// Time of the last frame.
    pub last: Option<Stamp>,
}

/// A scored window.
#[derive(Clone, Debug)]
pub struct Window {
    pub first: Stamp,
    pub last: Stamp,
    pub scores: Vec<f32>,
}

impl Window {
    /// How much of its time lies in one of the spans, which do not overlap each other; 0..=1.
    pub fn share(&self, spans: &[Span]) -> f64 {
        let (from, to) = (self.first.stream_time.as_secs_f64(), self.last.stream_time.as_secs_f64());
        let common = |span: &Span| (span.end.min(to) - span.start.max(from)).max(0.0);
        spans.iter().map(common).sum::<f64>() / (to - from).max(1e-9)
    }
}

#[derive(Default)]
struct Notes {
    windows: Vec<WindowScores>,
    records: Vec<Record>,
    last: Option<Stamp>,
    fault: Option<String>,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    // Values are pushed whole.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays `source` (its last element gives raw video) to its end through `detect`, whose labels are
/// `labels` in order.
///
/// # Errors
/// The pipeline's first error, as one about `subject`.
pub fn watch(
    pipeline: &gst::Pipeline,
    source: &gst::Element,
    detect: &gst::Element,
    labels: &[String],
    subject: &str,
) -> Result<Recording, CommandError> {
    detect.set_property_from_str("sync", "true");
    detect.set_property("top-k", u32::try_from(labels.len()).unwrap_or(u32::MAX).min(1000));
    let sink = make("fakesink", &[("sync", &false), ("enable-last-sample", &false)])?;
    pipeline.add_many([detect, &sink])?;
    gst::Element::link_many([source, detect, &sink])?;
    let notes = Arc::new(Mutex::new(Notes::default()));
    listen(pipeline, detect, &notes);
    let played = run_to_end(pipeline, subject, |_| ());
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
    played?;
    let notes = std::mem::take(&mut *lock(&notes));
    if let Some(fault) = notes.fault {
        return Err(CommandError::unusable(subject, fault, ""));
    }
    Ok(recording(labels, notes))
}

fn listen(pipeline: &gst::Pipeline, detect: &gst::Element, notes: &Arc<Mutex<Notes>>) {
    let (name, mine) = (detect.name(), notes.clone());
    let pad = detect.static_pad("src").expect("xclipdetect has one");
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let windows = meta::read(buffer).windows;
        let mut notes = lock(&mine);
        notes.windows.extend(windows.into_iter().filter(|(who, _)| *who == name).map(|(_, w)| w));
        notes.last = stamp(pad, buffer).or(notes.last);
        gst::PadProbeReturn::Ok
    });
    let mine = notes.clone();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    bus.set_sync_handler(move |_, message| {
        let structure = message.structure().filter(|structure| structure.name() == meta::EVENT);
        let Some(structure) = structure else { return gst::BusSyncReply::Pass };
        match meta::event::<Record>(structure) {
            Ok(record) => lock(&mine).records.push(record),
            Err(error) => drop(lock(&mine).fault.get_or_insert(error.to_string())),
        }
        gst::BusSyncReply::Drop
    });
}

/// A buffer's time, by the pad's segment.
fn stamp(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Stamp> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    let pts = buffer.pts()?;
    Some(Stamp {
        timestamp: pts.into(),
        stream_time: segment.to_stream_time(pts)?.into(),
        running_time: segment.to_running_time(pts)?.into(),
        utc: None,
    })
}

fn recording(labels: &[String], notes: Notes) -> Recording {
    let score = |window: &WindowScores, label: &String| {
        window.top.iter().find(|(name, _)| name == label).map_or(0.0, |(_, score)| *score)
    };
    let windows = notes.windows.iter().map(|window| Window {
        first: window.start,
        last: window.end,
        scores: labels.iter().map(|label| score(window, label)).collect(),
    });
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let starts = notes.records.iter().filter(|record| record.phase == Phase::Start);
    let events = starts.filter_map(|start| {
        let end = notes.records.iter().find(|end| end.id == start.id && end.phase == Phase::End)?;
        let ended = end.end.as_ref()?.stream_time;
        // The end of the stream comes after its last window.
        let last = notes.last.filter(|_| end.reason != Reason::Offset);
        let told = last.map_or(seconds(end.window_end.stream_time), |last| last.stream_time.as_secs_f64());
        Some(Reported {
            span: Span {
                label: start.label.clone(),
                start: seconds(start.start.stream_time),
                end: seconds(ended),
            },
            detected: seconds(start.detected.stream_time),
            ended: told,
        })
    });
    Recording {
        labels: labels.to_vec(),
        windows: windows.collect(),
        events: events.collect(),
        last: notes.last,
    }
}

/// Of a window's time: above the first the action is present, below the second it is absent; between
/// them nobody can say.
pub const PRESENT: f64 = 0.6;
pub const ABSENT: f64 = 0.1;

impl Recording {
    /// Of the label at `position`, every window that can be judged. `truth` may have other labels too.
    pub fn judged(&self, truth: &[Span], position: usize) -> Vec<Sample> {
        let label = &self.labels[position];
        // Two people who do the same at once are one action.
        let mine = truth.iter().filter(|span| span.label == *label).cloned().collect::<Vec<Span>>();
        let mine = united(&mine);
        let judged = self.windows.iter().filter_map(|window| {
            let share = window.share(&mine);
            let certain = !(ABSENT..=PRESENT).contains(&share);
            certain.then_some((window.scores[position], share > PRESENT))
        });
        judged.collect()
    }

    /// The events that gates of these settings, one per label, make of every `hop`th window.
    ///
    /// For a video without breaks: after a break the element counts windows anew.
    pub fn gated(&self, gates: &[GateSettings], hop: usize) -> Vec<Reported> {
        let one = |(position, gate): (usize, &GateSettings)| self.gated_one(position, *gate, hop);
        let mut all: Vec<Reported> = gates.iter().enumerate().flat_map(one).collect();
        all.sort_by(|a, b| a.span.start.total_cmp(&b.span.start));
        all
    }

    /// As `gated`, of the label at `position`.
    pub fn gated_one(&self, position: usize, gate: GateSettings, hop: usize) -> Vec<Reported> {
        let mut gate = Hysteresis::new(gate);
        let mut events = Vec::new();
        let mut told = |step: Option<Step>, now: &Stamp| {
            // The end repeats what the start said.
            let Some(Step { end: Some(end), start, detected, .. }) = step else { return };
            let seconds = |stamp: &Stamp| stamp.stream_time.as_secs_f64();
            let label = self.labels[position].clone();
            events.push(Reported {
                span: Span { label, start: seconds(&start), end: seconds(&end) },
                detected: seconds(&detected),
                ended: seconds(now),
            });
        };
        for window in self.windows.iter().step_by(hop.max(1)) {
            let span = crate::event::Span { first: window.first, last: window.last };
            told(gate.observe(&span, window.scores[position], uuid::Uuid::now_v7), &window.last);
        }
        if let Some(last) = self.last {
            told(gate.close(last, Reason::Eos), &last);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_window_half_full_of_an_action_is_not_judged() {
        let at = |s: f64| {
            let t = Duration::from_secs_f64(s);
            Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
        };
        let window = |from: f64| Window { first: at(from), last: at(from + 2.0), scores: vec![0.7] };
        let recording = Recording {
            labels: vec!["a".into()],
            windows: [0.0, 3.0, 4.0, 6.0].map(window).into(),
            ..Recording::default()
        };
        let truth = [Span { label: "a".into(), start: 4.0, end: 7.0 }];
        assert_eq!(recording.judged(&truth, 0), [(0.7, false), (0.7, true)], "the first and the third");
    }
}
