//! An events file beside its truth.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::command::matching::{Matching, Reported, Span};
use crate::command::{CommandError, say};
use crate::event::Phase;
use crate::event::json::{Record, StampRecord};
use crate::model::labels::Labels;
use crate::scene::Action;

const OVERLAP: f64 = 0.3;

/// A line of a truth file. Times are seconds of the stream; where `utc` (the stream's beginning) is
/// given, events are placed by their wall-clock time: a client that joins a camera late has another
/// stream time.
#[derive(Deserialize)]
struct Truth {
    label: String,
    start: f64,
    end: f64,
    utc: Option<String>,
}

/// Prints both side by side. Labels that stand for the same action of the drawn world are the same.
pub fn compare(events: &Path, truth: &Path, watched: Option<&str>) -> Result<Matching, CommandError> {
    let truths: Vec<Truth> = lines(truth)?;
    let begun = truths.iter().find_map(|truth| truth.utc.as_ref()?.parse().ok());
    let records: Vec<Record> = lines(events)?;
    let last = records.iter().map(|record| at(&record.window_end, begun)).fold(0.0, f64::max);
    let reported: Vec<Reported> = records
        .iter()
        .filter(|record| record.phase == Phase::Start)
        .map(|start| {
            let end = records.iter().find(|record| record.id == start.id && record.end.is_some());
            Reported {
                span: Span {
                    label: canonical(&start.label),
                    start: at(&start.start, begun),
                    // Still open where the file ends.
                    end: end.and_then(|end| end.end.as_ref()).map_or(last, |end| at(end, begun)),
                },
                detected: at(&start.detected, begun),
                ended: end.map_or(last, |end| at(&end.window_end, begun)),
            }
        })
        .collect();
    let watched: BTreeSet<String> = match watched {
        Some(text) => {
            let labels = Labels::parse(text).map_err(|error| {
                CommandError::unusable("--labels", error.to_string(), "write them as for xclipd detect")
            })?;
            labels.labels.iter().map(|label| canonical(&label.name)).collect()
        }
        None => reported.iter().map(|event| event.span.label.clone()).collect(),
    };
    let spans: Vec<Span> = truths
        .into_iter()
        .map(|truth| Span { label: canonical(&truth.label), start: truth.start, end: truth.end })
        .filter(|span| watched.contains(&span.label))
        .collect();
    if spans.is_empty() {
        // Nothing to be right or wrong about: no figure would mean a thing.
        let problem = "names none of the labels that were watched for";
        return Err(CommandError::unusable(
            truth.display().to_string(),
            problem,
            "compare --labels with the file",
        ));
    }
    let matching = Matching::new(&spans, &reported, OVERLAP);
    say!("{}", matching.table(&spans, &reported));
    say!("{matching}");
    Ok(matching)
}

fn canonical(label: &str) -> String {
    Action::parse(label).map_or(label.to_string(), |action| action.label().to_string())
}

/// Seconds since the stream began.
fn at(stamp: &StampRecord, begun: Option<jiff::Timestamp>) -> f64 {
    let utc = stamp.utc.as_ref().and_then(|utc| utc.parse::<jiff::Timestamp>().ok());
    match (begun, utc) {
        (Some(begun), Some(utc)) => utc.duration_since(begun).as_secs_f64(),
        _ => stamp.stream_time as f64 / 1e9,
    }
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CommandError::Io { path: path.to_path_buf(), source })?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                let place = format!("{}:{}", path.display(), number + 1);
                CommandError::unusable(place, error.to_string(), "")
            })
        })
        .collect()
}
