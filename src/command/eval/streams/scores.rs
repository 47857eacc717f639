//! What windows score where an action is present, where another one that is watched for happens, where one
//! happens that nobody watches for, and where nothing does; and whether the scores mean what they say.

use std::path::Path;

use super::Played;
use super::stream::KINDS;
use crate::command::figures::{quantile, united};
use crate::command::matching::Span;
use crate::command::reliability::{self, Reliability, Sample};
use crate::command::table::{Align, Table};
use crate::command::watch::{ABSENT, PRESENT, Window};
use crate::command::{CommandError, plot, say};
use crate::scene::Action;

/// What a window shows, as seen by one of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// The label's own action.
    Present,
    /// An action of another label.
    Listed,
    /// An action of no label.
    Unlisted,
    /// Nobody, or somebody who stands.
    Nothing,
}

const ALL: [(Shows, &str); 4] = [
    (Shows::Present, "the label's action"),
    (Shows::Listed, "another listed action"),
    (Shows::Unlisted, "an unlisted action"),
    (Shows::Nothing, "nobody, or standing"),
];

/// `None`: something begins or ends within the window, nobody can say.
fn shows(window: &Window, own: &[Span], listed: &[Span], unlisted: &[Span]) -> Option<Shows> {
    let share = window.share(own);
    if share > PRESENT {
        return Some(Shows::Present);
    }
    let fills = |span: &Span| [Action::Stand, Action::Empty].iter().any(|fill| fill.label() == span.label);
    let most = |spans: &[Span], wanted: &dyn Fn(&Span) -> bool| {
        let shares = spans.iter().filter(|span| wanted(span));
        shares.map(|span| window.share(std::slice::from_ref(span))).fold(0.0, f64::max)
    };
    let (listed, unlisted, nothing) =
        (most(listed, &|_| true), most(unlisted, &|span| !fills(span)), most(unlisted, &fills));
    match () {
        () if share >= ABSENT => None,
        () if listed > PRESENT => Some(Shows::Listed),
        () if unlisted > PRESENT => Some(Shows::Unlisted),
        () if nothing > PRESENT => Some(Shows::Nothing),
        () => None,
    }
}

/// Prints quantiles and the calibration error of each kind of stream; with `folder`, writes
/// `reliability.svg` there.
pub fn measure(played: &[Played], folder: Option<&Path>) -> Result<(), CommandError> {
    let mut table = Table::new([
        ("streams", Align::Left),
        ("a label's score where the window shows", Align::Left),
        ("windows", Align::Right),
        ("p5", Align::Right),
        ("p25", Align::Right),
        ("p50", Align::Right),
        ("p75", Align::Right),
        ("p95", Align::Right),
        ("p99", Align::Right),
        ("over 0.5", Align::Right),
    ]);
    let mut curves = Vec::new();
    for (kind, description) in KINDS.iter().enumerate() {
        let streams = || played.iter().filter(|stream| stream.kind == kind);
        let scores: Vec<(Shows, f32)> = streams().flat_map(judged).collect();
        for (shows, name) in ALL {
            let mut scores: Vec<f64> =
                scores.iter().filter(|score| score.0 == shows).map(|score| score.1.into()).collect();
            if scores.is_empty() {
                continue;
            }
            scores.sort_by(f64::total_cmp);
            let at = |share: f64| format!("{:.3}", quantile(&scores, share));
            let over = scores.iter().filter(|score| **score > 0.5).count() as f64 / scores.len() as f64;
            table.row([
                description.name.into(),
                name.into(),
                scores.len().to_string(),
                at(0.05),
                at(0.25),
                at(0.5),
                at(0.75),
                at(0.95),
                at(0.99),
                format!("{over:.4}"),
            ]);
        }
        let samples: Vec<Sample> = streams().flat_map(samples).collect();
        curves.push((description.name, Reliability::of(&samples), reliability::temperature(&samples)));
    }
    say!("{table}");
    let errors = curves.iter().map(|(name, curve, _)| format!("{name} {:.3}", curve.error()));
    say!("expected calibration error of windows: {}", errors.collect::<Vec<_>>().join(", "));
    // Without any true label nothing says how sure scores should be.
    let factors = curves.iter().zip(&KINDS).filter(|(_, kind)| kind.listed);
    let factors = factors.map(|((name, _, factor), _)| format!("{name} {factor:.2}"));
    say!(
        "they would be likeliest at this multiple of the temperature: {}",
        factors.collect::<Vec<_>>().join(", ")
    );
    if let Some(folder) = folder {
        let listed = curves.iter().zip(&KINDS).filter(|(_, kind)| kind.listed);
        let curves: Vec<_> = listed.map(|((name, curve, _), _)| (*name, curve)).collect();
        plot::reliability(&folder.join("reliability.svg"), &curves)?;
    }
    Ok(())
}

/// Every label's score of every window, with what that shows.
fn judged(stream: &Played) -> Vec<(Shows, f32)> {
    let mut all = Vec::new();
    for (position, label) in stream.recording.labels.iter().enumerate() {
        let (own, listed): (Vec<Span>, Vec<Span>) =
            stream.truth.iter().cloned().partition(|span| span.label == *label);
        let own = united(&own);
        let score = |window: &Window| {
            Some((shows(window, &own, &listed, &stream.unlisted)?, window.scores[position]))
        };
        all.extend(stream.recording.windows.iter().filter_map(score));
    }
    all
}

/// Every label's score of every window in which it is certainly true or not.
pub fn samples(stream: &Played) -> Vec<Sample> {
    let positions = 0..stream.recording.labels.len();
    positions.flat_map(|position| stream.recording.judged(&stream.truth, position)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stamp;
    use std::time::Duration;

    #[test]
    fn a_window_is_judged_by_what_fills_it() {
        let at = |s: f64| {
            let t = Duration::from_secs_f64(s);
            Stamp { timestamp: t, stream_time: t, running_time: t, utc: None }
        };
        let span = |label: &str, start: f64, end: f64| Span { label: label.into(), start, end };
        let own = [span("walking", 0.0, 4.0)];
        let listed = [span("waving", 4.0, 8.0)];
        let unlisted = [span("kicking", 8.0, 12.0), span("standing", 12.0, 16.0)];
        let found = [1.0, 2.9, 5.0, 9.0, 13.0, 11.0].map(|from| {
            let window = Window { first: at(from), last: at(from + 2.0), scores: vec![0.5] };
            shows(&window, &own, &listed, &unlisted)
        });
        let expected = [
            Some(Shows::Present),
            None,
            Some(Shows::Listed),
            Some(Shows::Unlisted),
            Some(Shows::Nothing),
            None,
        ];
        assert_eq!(found, expected);
    }
}
