//! From scores and truth to a temperature and an onset and offset for every label.

use super::footage::{Footage, Video};
use crate::command::figures::Figures;
use crate::command::matching::Span;
use crate::command::reliability::{self, Reliability, Sample};
use crate::command::watch::Recording;
use crate::event::GateSettings;
use crate::model::labels::{Label, Labels};

/// Onsets tried.
const ONSETS: [f32; 16] =
    [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
/// Fewer judged windows of an action say too little for a temperature.
const ENOUGH: usize = 20;

pub struct Fit {
    /// The label file with what was fitted.
    pub labels: Labels,
    /// Temperature before and after.
    pub temperatures: (f32, f32),
    /// Judged windows, and how far scores are from the truth before and after; none without truth.
    pub reliability: Option<(usize, Reliability, Reliability)>,
    /// In the order of the file.
    pub thresholds: Vec<Threshold>,
}

/// One label's choice.
pub struct Threshold {
    pub label: String,
    /// The truth speaks of it.
    pub known: bool,
    pub onset: f32,
    pub offset: f32,
    /// With the old settings, and with the new ones.
    pub before: Figures,
    pub after: Figures,
    /// Every onset tried, at the new temperature.
    pub curve: Vec<(f32, Figures)>,
}

impl Fit {
    pub fn new(footage: &Footage, labels: &Labels, temperature: f32, false_per_hour: f64) -> Self {
        let samples = samples(footage);
        let enough = samples.iter().filter(|(_, is_true)| *is_true).count() >= ENOUGH;
        let factor = if enough { reliability::temperature(&samples) } else { 1.0 };
        let rescaled: Vec<Sample> =
            samples.iter().map(|&(p, is_true)| (reliability::rescale(p, factor), is_true)).collect();
        let judged = (!samples.is_empty())
            .then(|| (samples.len(), Reliability::of(&samples), Reliability::of(&rescaled)));

        // Rounded to what is written, so that the file does what the report says.
        let fitted =
            if enough { (temperature * factor as f32 * 1000.0).round() / 1000.0 } else { temperature };
        let videos: Vec<Recording> =
            footage.videos.iter().map(|video| cooled(&video.recording, factor)).collect();
        let mut result = labels.clone();
        let mut thresholds = Vec::with_capacity(labels.labels.len());
        for (position, label) in result.labels.iter_mut().enumerate() {
            let known = footage.known.contains(&label.name);
            let threshold = threshold(footage, &videos, position, label, known, false_per_hour);
            (label.gate.onset, label.gate.offset) = (Some(threshold.onset), Some(threshold.offset));
            thresholds.push(threshold);
        }
        if enough {
            result.temperature = Some(fitted);
        }
        Self { labels: result, temperatures: (temperature, fitted), reliability: judged, thresholds }
    }
}

/// Every judged window of every label that the truth speaks of.
fn samples(footage: &Footage) -> Vec<Sample> {
    let one = |video: &Video| -> Vec<Sample> {
        let positions = (0..video.recording.labels.len())
            .filter(|&position| footage.known.contains(&video.recording.labels[position]));
        positions
            .flat_map(|position| reliability::samples(&video.recording, &video.truth, position))
            .collect()
    };
    footage.videos.iter().flat_map(one).collect()
}

/// The recording as it would be with the fitted temperature.
fn cooled(recording: &Recording, factor: f64) -> Recording {
    let mut recording = recording.clone();
    for window in &mut recording.windows {
        window.scores.iter_mut().for_each(|score| *score = reliability::rescale(*score, factor));
    }
    recording
}

fn threshold(
    footage: &Footage,
    cooled: &[Recording],
    position: usize,
    label: &Label,
    known: bool,
    false_per_hour: f64,
) -> Threshold {
    let old = label.gate.over(GateSettings::default());
    let old = GateSettings { offset: old.offset.min(old.onset), ..old };
    let asked = footage.videos.iter().map(|video| &video.recording);
    let before = figures(footage, asked, position, old);
    let curve: Vec<(f32, Figures)> = ONSETS
        .iter()
        .map(|&onset| (onset, figures(footage, cooled.iter(), position, at(old, onset))))
        .collect();
    let onset = if known { best(&curve) } else { silent(&curve, false_per_hour) };
    let gate = at(old, onset);
    let after = figures(footage, cooled.iter(), position, gate);
    let label = label.name.clone();
    Threshold { label, known, onset, offset: gate.offset, before, after, curve }
}

/// Offset keeps the default's distance to onset, as a ratio; on the grid of what is written.
fn at(base: GateSettings, onset: f32) -> GateSettings {
    let default = GateSettings::default();
    let offset = (onset * default.offset / default.onset * 100.0).round() / 100.0;
    GateSettings { onset, offset, ..base }
}

/// Of one label in all videos.
fn figures<'a>(
    footage: &Footage,
    recordings: impl Iterator<Item = &'a Recording>,
    position: usize,
    gate: GateSettings,
) -> Figures {
    let mut sum = Figures::default();
    for (video, recording) in footage.videos.iter().zip(recordings) {
        let events = recording.gated_one(position, gate, 1);
        let mine = video.truth.iter().filter(|span| span.label == recording.labels[position]);
        let truth: Vec<Span> = mine.cloned().collect();
        sum.add(&Figures::of(&truth, &events, video.seconds));
    }
    sum
}

/// The middle of the onsets with the best F1: far from both cliffs.
fn best(curve: &[(f32, Figures)]) -> f32 {
    let top = curve.iter().map(|(_, figures)| figures.f1()).fold(0.0, f64::max);
    let good: Vec<f32> =
        curve.iter().filter(|(_, figures)| figures.f1() > top - 1e-9).map(|(onset, _)| *onset).collect();
    good.get(good.len() / 2).copied().unwrap_or(GateSettings::default().onset)
}

/// The lowest onset, not under the default, with at most so many false events; else the highest.
fn silent(curve: &[(f32, Figures)], false_per_hour: f64) -> f32 {
    let default = GateSettings::default().onset;
    let quiet =
        |(onset, figures): &&(f32, Figures)| *onset >= default && figures.false_per_hour() <= false_per_hour;
    curve.iter().find(quiet).or(curve.last()).map_or(default, |(onset, _)| *onset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::watch::Window;
    use crate::event::Stamp;
    use std::time::Duration;

    fn at(s: f64) -> Stamp {
        let t = Duration::from_secs_f64(s);
        Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
    }

    /// A video of 60 s whose label `a` is at `high` from 20 to 30 s and at `low` else.
    fn video(high: f32, low: f32) -> Video {
        let windows = (0..116).map(|i| 0.5 * f64::from(i)).map(|from| {
            let inside = (19.0..29.0).contains(&from);
            Window { first: at(from), last: at(from + 2.0), scores: vec![if inside { high } else { low }] }
        });
        let recording = Recording {
            labels: vec!["a".into()],
            windows: windows.collect(),
            last: Some(at(60.0)),
            ..Recording::default()
        };
        let truth = vec![Span { label: "a".into(), start: 20.0, end: 30.0 }];
        Video { recording, truth, seconds: 60.0 }
    }

    fn labels() -> Labels {
        Labels { labels: vec![Label::named("a")], ..Labels::default() }
    }

    #[test]
    fn an_onset_between_action_and_rest_is_found_where_the_default_misses() {
        // Sure of itself, and never over the default onset: no temperature below 1 mends that alone.
        let footage = Footage { videos: vec![video(0.45, 0.05), video(0.45, 0.1)], known: vec!["a".into()] };
        let fit = Fit::new(&footage, &labels(), 1.0, 0.0);
        let threshold = &fit.thresholds[0];
        assert_eq!((threshold.before.recall(), threshold.after.f1()), (0.0, 1.0));
        assert!(threshold.offset < threshold.onset);
        let gate = fit.labels.labels[0].gate;
        assert_eq!((gate.onset, gate.offset), (Some(threshold.onset), Some(threshold.offset)));
        assert!(fit.labels.temperature.is_some());
    }

    #[test]
    fn without_truth_the_lowest_silent_onset_is_taken_and_the_temperature_stays() {
        let mut video = video(0.72, 0.1);
        video.truth.clear();
        let footage = Footage { videos: vec![video], known: vec![] };
        let fit = Fit::new(&footage, &labels(), 1.7, 0.0);
        assert!(fit.reliability.is_none());
        assert_eq!((fit.labels.temperature, fit.temperatures), (None, (1.7, 1.7)));
        let threshold = &fit.thresholds[0];
        assert_eq!(threshold.onset, 0.75);
        assert!(threshold.before.false_per_hour() > 0.0);
        assert_eq!(threshold.after.false_per_hour(), 0.0);
    }
}
