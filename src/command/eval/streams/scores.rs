//! What windows score where an action is present, where it is absent, and where nothing watched for
//! happens; and whether the scores mean what they say.

use std::path::Path;

use super::{KINDS, Played};
use crate::command::figures::quantile;
use crate::command::reliability::{Reliability, Sample};
use crate::command::table::{Align, Table};
use crate::command::{CommandError, plot, say};

/// Prints quantiles and the calibration error of each kind of stream; with `folder`, writes
/// `reliability.svg` there.
pub fn measure(played: &[Played], folder: Option<&Path>) -> Result<(), CommandError> {
    let mut table = Table::new([
        ("window scores", Align::Left),
        ("windows", Align::Right),
        ("p5", Align::Right),
        ("p25", Align::Right),
        ("p50", Align::Right),
        ("p75", Align::Right),
        ("p95", Align::Right),
        ("calibration error", Align::Right),
    ]);
    let mut curves = Vec::new();
    for (kind, description) in KINDS.iter().enumerate() {
        let judged: Vec<Sample> = played
            .iter()
            .filter(|stream| stream.kind == kind)
            .flat_map(|stream| {
                let positions = 0..stream.recording.labels.len();
                positions.flat_map(|position| stream.recording.judged(&stream.truth, position))
            })
            .collect();
        let reliability = Reliability::of(&judged);
        for (name, is_true) in [("present", true), ("absent", false)] {
            let mut scores: Vec<f64> =
                judged.iter().filter(|sample| sample.1 == is_true).map(|sample| sample.0.into()).collect();
            if scores.is_empty() {
                continue;
            }
            scores.sort_by(f64::total_cmp);
            let at = |share: f64| format!("{:.3}", quantile(&scores, share));
            // Of both together.
            let error = if is_true || !description.listed {
                format!("{:.3}", reliability.error())
            } else {
                "".into()
            };
            table.row([
                format!("{}: {name}", description.name),
                scores.len().to_string(),
                at(0.05),
                at(0.25),
                at(0.5),
                at(0.75),
                at(0.95),
                error,
            ]);
        }
        if description.listed {
            curves.push((description.name, reliability));
        }
    }
    say!("{table}");
    if let Some(folder) = folder {
        let path = folder.join("reliability.svg");
        let curves: Vec<_> = curves.iter().map(|(name, curve)| (*name, curve)).collect();
        plot::reliability(&path, &curves)
            .map_err(|fault| CommandError::unusable(path.display().to_string(), fault.to_string(), ""))?;
    }
    Ok(())
}
