//! The gate's settings varied one at a time, the others at their defaults: events are made again from
//! the recorded scores of every window.

use std::path::Path;
use std::time::Duration;

use super::plot::{self, Curve};
use super::stream::{KINDS, QUIET, WHOLE};
use super::{Played, delay, false_per_hour, figures};
use crate::command::figures::Figures;
use crate::command::matching::Reported;
use crate::command::table::{Align, Table};
use crate::command::watch::Recording;
use crate::command::{CommandError, say};
use crate::event::GateSettings;

/// The element's default.
pub const HOP: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub gate: GateSettings,
    pub hop: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gate: GateSettings::default(), hop: HOP }
    }
}

impl Settings {
    pub fn events(&self, recording: &Recording) -> Vec<Reported> {
        recording.gated(&vec![self.gate; recording.labels.len()], self.hop as usize)
    }
}

/// One setting and the values it takes.
struct Axis {
    name: &'static str,
    values: &'static [f64],
    set: fn(&mut Settings, f64),
    get: fn(&Settings) -> f64,
}

const AXES: [Axis; 6] = [
    Axis {
        name: "onset",
        values: &[0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9],
        set: |settings, value| {
            settings.gate.onset = value as f32;
            settings.gate.offset = settings.gate.offset.min(settings.gate.onset);
        },
        get: |settings| settings.gate.onset.into(),
    },
    Axis {
        name: "offset",
        values: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        set: |settings, value| settings.gate.offset = settings.gate.onset.min(value as f32),
        get: |settings| settings.gate.offset.into(),
    },
    Axis {
        name: "smoothing (s)",
        values: &[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0],
        set: |settings, value| settings.gate.smoothing = Duration::from_secs_f64(value),
        get: |settings| settings.gate.smoothing.as_secs_f64(),
    },
    Axis {
        name: "min-duration-on (s)",
        values: &[0.0, 0.25, 0.5, 1.0, 1.5],
        set: |settings, value| settings.gate.min_duration_on = Duration::from_secs_f64(value),
        get: |settings| settings.gate.min_duration_on.as_secs_f64(),
    },
    Axis {
        name: "min-duration-off (s)",
        values: &[0.0, 0.5, 1.0, 1.5, 2.0, 3.0],
        set: |settings, value| settings.gate.min_duration_off = Duration::from_secs_f64(value),
        get: |settings| settings.gate.min_duration_off.as_secs_f64(),
    },
    Axis {
        name: "hop (sampled frames)",
        values: &[1.0, 2.0, 3.0, 4.0, 8.0],
        set: |settings, value| settings.hop = value as u32,
        get: |settings| settings.hop.into(),
    },
];

/// Prints a table for each setting and writes `sweep.svg` and `precision-recall.svg`.
pub fn run(played: &[Played], folder: &Path) -> Result<(), CommandError> {
    let measure = |settings: &Settings| figures(played, |played| settings.events(&played.recording));
    let mut curves = Vec::new();
    for axis in &AXES {
        let default = (axis.get)(&Settings::default());
        let points: Vec<(f64, Vec<Figures>)> = axis
            .values
            .iter()
            .map(|&value| {
                let mut settings = Settings::default();
                (axis.set)(&mut settings, value);
                (value, measure(&settings))
            })
            .collect();
        say!("{}", table(axis.name, default, &points));
        curves.push(Curve { name: axis.name, default, points });
    }
    plot::sweep(&folder.join("sweep.svg"), &curves)?;
    plot::precision_recall(&folder.join("precision-recall.svg"), &curves[0])
}

fn table(name: &str, default: f64, points: &[(f64, Vec<Figures>)]) -> Table {
    let mut table = Table::new([
        (name, Align::Left),
        ("F1 plain", Align::Right),
        ("F1 unlisted", Align::Right),
        ("F1 whole", Align::Right),
        ("delay p50/p90, whole", Align::Right),
        ("repeats/100, whole", Align::Right),
        ("false/h (90 %), nothing listed", Align::Right),
    ]);
    const { assert!(KINDS.len() == 4 && WHOLE == 2 && QUIET == 3) };
    for (value, figures) in points {
        let [plain, unlisted, whole, nothing] = &figures[..] else { continue };
        let mark = if (value - default).abs() < 1e-6 { "*" } else { "" };
        table.row([
            format!("{value}{mark}"),
            format!("{:.3}", plain.f1()),
            format!("{:.3}", unlisted.f1()),
            format!("{:.3}", whole.f1()),
            delay(&whole.start_delays),
            format!("{:.1}", whole.repeats()),
            false_per_hour(nothing),
        ]);
    }
    table
}
