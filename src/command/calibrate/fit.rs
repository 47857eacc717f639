//! From scores and truth to a temperature and an onset and offset for every label.

use super::footage::{Footage, Video};
use crate::command::figures::Figures;
use crate::command::matching::Span;
use crate::command::reliability::{self, Reliability, Sample};
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
    /// An onset was found; else the old one stays.
    pub found: bool,
    pub onset: f32,
    pub offset: f32,
    /// With the old settings, and with the new ones.
    pub before: Figures,
    pub after: Figures,
    /// Every onset tried, at the new temperature.
    pub curve: Vec<(f32, Figures)>,
}

impl Fit {
    /// `before` was played with the file as it was, `after` with `labels` and the fitted temperature.
    pub fn new(
        before: &Footage,
        after: &Footage,
        labels: Labels,
        temperatures: (f32, f32),
        false_per_hour: f64,
    ) -> Self {
        let (old, new) = (samples(before), samples(after));
        let reliability =
            (!old.is_empty()).then(|| (old.len(), Reliability::of(&old), Reliability::of(&new)));
        let mut labels = labels;
        let mut thresholds = Vec::with_capacity(labels.labels.len());
        for (position, label) in labels.labels.iter_mut().enumerate() {
            let known = after.known.contains(&label.name);
            let threshold = threshold((before, after), position, label, known, false_per_hour);
            if threshold.found {
                (label.gate.onset, label.gate.offset) = (Some(threshold.onset), Some(threshold.offset));
            }
            thresholds.push(threshold);
        }
        Self { labels, temperatures, reliability, thresholds }
    }
}

/// What the temperature should be multiplied by; `None`: there is too little to judge by.
pub fn temperature_factor(footage: &Footage) -> Option<f64> {
    let samples = samples(footage);
    let enough = samples.iter().filter(|(_, is_true)| *is_true).count() >= ENOUGH;
    enough.then(|| reliability::temperature(&samples))
}

/// Three digits, within what a label file may say.
pub fn rounded(temperature: f32) -> f32 {
    let text = format!("{:.2e}", temperature.clamp(1e-3, 1e3));
    text.parse().expect("a float prints as a float")
}

/// Every judged window of every label that the truth speaks of.
fn samples(footage: &Footage) -> Vec<Sample> {
    let one = |video: &Video| -> Vec<Sample> {
        let positions = (0..video.recording.labels.len())
            .filter(|&position| footage.known.contains(&video.recording.labels[position]));
        positions.flat_map(|position| video.recording.judged(&video.truth, position)).collect()
    };
    footage.videos.iter().flat_map(one).collect()
}

fn threshold(
    (before, after): (&Footage, &Footage),
    position: usize,
    label: &Label,
    known: bool,
    false_per_hour: f64,
) -> Threshold {
    let old = label.gate.over(GateSettings::default());
    let old = GateSettings { offset: old.offset.min(old.onset), ..old };
    let curve: Vec<(f32, Figures)> =
        ONSETS.iter().map(|&onset| (onset, figures(after, position, at(old, onset)))).collect();
    let onset = if known { best(&curve) } else { silent(&curve, false_per_hour) };
    let gate = onset.map_or(old, |onset| at(old, onset));
    Threshold {
        label: label.name.clone(),
        known,
        found: onset.is_some(),
        onset: gate.onset,
        offset: gate.offset,
        before: figures(before, position, old),
        after: figures(after, position, gate),
        curve,
    }
}

/// Offset keeps the default's distance to onset, as a ratio; on the grid of what is written.
fn at(base: GateSettings, onset: f32) -> GateSettings {
    let default = GateSettings::default();
    let offset = (onset * default.offset / default.onset * 100.0).round() / 100.0;
    GateSettings { onset, offset, ..base }
}

/// Of one label in all videos.
fn figures(footage: &Footage, position: usize, gate: GateSettings) -> Figures {
    let mut sum = Figures::default();
    for Video { recording, truth, seconds, .. } in &footage.videos {
        let events = recording.gated_one(position, gate, 1);
        let mine = truth.iter().filter(|span| span.label == recording.labels[position]);
        sum.add(&Figures::of(&mine.cloned().collect::<Vec<Span>>(), &events, *seconds));
    }
    sum
}

/// The middle of the onsets with the best F1: far from both cliffs. `None`: no onset finds anything.
fn best(curve: &[(f32, Figures)]) -> Option<f32> {
    let top = curve.iter().map(|(_, figures)| figures.f1()).fold(0.0, f64::max);
    let good: Vec<f32> =
        curve.iter().filter(|(_, figures)| figures.f1() > top - 1e-9).map(|(onset, _)| *onset).collect();
    good.get(good.len() / 2).copied().filter(|_| top > 0.0)
}

/// The lowest onset, not under the default, with at most so many false events; `None`: none is so quiet.
fn silent(curve: &[(f32, Figures)], false_per_hour: f64) -> Option<f32> {
    let default = GateSettings::default().onset;
    let quiet =
        |(onset, figures): &&(f32, Figures)| *onset >= default && figures.false_per_hour() <= false_per_hour;
    curve.iter().find(quiet).map(|(onset, _)| *onset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::watch::{Recording, Window};
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
        Video { path: "a.mp4".into(), recording, truth, seconds: 60.0 }
    }

    fn labels() -> Labels {
        Labels { labels: vec![Label::named("a")], ..Labels::default() }
    }

    fn fit(footage: &Footage, false_per_hour: f64) -> Fit {
        Fit::new(footage, footage, labels(), (1.0, 1.0), false_per_hour)
    }

    #[test]
    fn an_onset_between_action_and_rest_is_found_where_the_default_misses() {
        let footage = Footage { videos: vec![video(0.45, 0.05), video(0.45, 0.1)], known: vec!["a".into()] };
        let fit = fit(&footage, 0.0);
        let threshold = &fit.thresholds[0];
        assert_eq!((threshold.before.recall(), threshold.after.f1()), (0.0, 1.0));
        assert!(threshold.offset < threshold.onset && threshold.onset < 0.45);
        let gate = fit.labels.labels[0].gate;
        assert_eq!((gate.onset, gate.offset), (Some(threshold.onset), Some(threshold.offset)));
    }

    #[test]
    fn without_truth_the_lowest_silent_onset_is_taken() {
        let mut video = video(0.82, 0.1);
        video.truth.clear();
        let footage = Footage { videos: vec![video], known: vec![] };
        assert_eq!(temperature_factor(&footage), None);
        let fit = fit(&footage, 0.0);
        assert!(fit.reliability.is_none());
        let threshold = &fit.thresholds[0];
        assert_eq!(threshold.onset, 0.85);
        assert!(threshold.before.false_per_hour() > 0.0);
        assert_eq!(threshold.after.false_per_hour(), 0.0);
    }

    #[test]
    fn where_no_onset_helps_the_old_one_stays() {
        let mut noisy = video(1.0, 0.1);
        noisy.truth.clear();
        let blind = video(0.01, 0.01);
        for (video, known) in [(noisy, vec![]), (blind, vec!["a".to_string()])] {
            let fit = fit(&Footage { videos: vec![video], known }, 0.0);
            assert!(!fit.thresholds[0].found);
            assert_eq!(fit.labels.labels[0].gate.onset, None);
        }
    }

    #[test]
    fn a_temperature_is_written_with_three_digits_and_never_out_of_range() {
        assert_eq!(rounded(0.058_712), 0.0587);
        assert_eq!((rounded(1e-9), rounded(1e9)), (1e-3, 1e3));
        assert_eq!(rounded(1.0), 1.0);
    }
}
