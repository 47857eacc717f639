//! The gate's settings swept together, against the bars that a user would set.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;

use super::stream::{QUIET, WHOLE};
use super::sweep::Settings;
use super::{Played, figures, plot};
use crate::command::figures::quantile;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::event::GateSettings;

const ONSETS: [f32; 11] = [0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9];
const OFFSETS: [f32; 4] = [0.2, 0.3, 0.4, 0.5];
const SMOOTHINGS: [u64; 5] = [0, 250, 500, 750, 1000];
const MIN_DURATIONS_ON: [u64; 4] = [0, 250, 500, 1000];
const HOPS: [u32; 2] = [1, 2];
/// Rows of the table.
const SHOWN: usize = 15;

/// What one choice of settings gives: events of the whole world, false events where nothing listed happens.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub settings: Settings,
    pub f1: f64,
    /// Seconds.
    pub delay_p50: f64,
    pub delay_p90: f64,
    pub false_per_hour: f64,
    /// Per 100 actions.
    pub repeats: f64,
    plain: f64,
    unlisted: f64,
}

/// What good enough is.
const BAR_F1: f64 = 0.9;
const BAR_DELAY_P50: f64 = 1.2;
const BAR_DELAY_P90: f64 = 2.0;
const BAR_FALSE: f64 = 2.0;
const BAR_REPEATS: f64 = 2.0;

impl Point {
    fn new(settings: Settings, played: &[Played]) -> Self {
        let all = figures(played, |played| settings.events(&played.recording));
        let whole = &all[WHOLE];
        Self {
            settings,
            f1: whole.f1(),
            delay_p50: quantile(&whole.start_delays, 0.5),
            delay_p90: quantile(&whole.start_delays, 0.9),
            false_per_hour: all[QUIET].false_per_hour(),
            repeats: whole.repeats(),
            plain: all[0].f1(),
            unlisted: all[1].f1(),
        }
    }

    /// What should be small.
    fn costs(&self) -> [f64; 5] {
        [1.0 - self.f1, self.delay_p50, self.delay_p90, self.false_per_hour, self.repeats]
    }

    /// No worse in anything, and better in something.
    fn beats(&self, other: &Point) -> bool {
        let (mine, others) = (self.costs(), other.costs());
        let mut pairs = mine.iter().zip(&others);
        // Without a single event there is no delay: NaN, which beats nothing.
        pairs.all(|(mine, other)| mine <= other) && mine != others
    }

    /// The largest ratio of a cost to its bar: at most 1 if every bar holds.
    fn shortfall(&self) -> f64 {
        let bars = [1.0 - BAR_F1, BAR_DELAY_P50, BAR_DELAY_P90, BAR_FALSE, BAR_REPEATS];
        let ratios = self.costs().into_iter().zip(bars).map(|(cost, bar)| cost / bar);
        ratios.map(|ratio| if ratio.is_nan() { f64::INFINITY } else { ratio }).fold(0.0, f64::max)
    }

    fn cells(&self) -> [String; 11] {
        let Settings { gate, hop } = self.settings;
        [
            gate.onset.to_string(),
            gate.offset.to_string(),
            gate.smoothing.as_secs_f64().to_string(),
            gate.min_duration_on.as_secs_f64().to_string(),
            hop.to_string(),
            format!("{:.3}", self.f1),
            format!("{:.2}/{:.2}", self.delay_p50, self.delay_p90),
            format!("{:.1}", self.false_per_hour),
            format!("{:.1}", self.repeats),
            format!("{:.3}", self.plain),
            format!("{:.3}", self.unlisted),
        ]
    }
}

const COLUMNS: [(&str, Align); 11] = [
    ("onset", Align::Right),
    ("offset", Align::Right),
    ("smoothing (s)", Align::Right),
    ("min-duration-on (s)", Align::Right),
    ("hop", Align::Right),
    ("F1 whole", Align::Right),
    ("delay p50/p90 (s)", Align::Right),
    ("false/h", Align::Right),
    ("repeats/100", Align::Right),
    ("F1 plain", Align::Right),
    ("F1 unlisted", Align::Right),
];

/// Prints the front of what cannot be bettered in one thing without losing in another, and the settings
/// nearest to the bars; writes all of them as `grid.csv` and `grid.svg`.
pub fn run(played: &[Played], folder: &Path) -> Result<(), CommandError> {
    let settings = all();
    let bar = ProgressBar::new(settings.len() as u64);
    let points: Vec<Point> = settings
        .into_iter()
        .map(|settings| {
            bar.inc(1);
            Point::new(settings, played)
        })
        .collect();
    bar.finish_and_clear();
    let mut front = front(&points);
    let mut table = Table::new(COLUMNS);
    for point in front.iter().take(SHOWN) {
        table.row(point.cells());
    }
    say!(
        "\n{} settings together; {} of them are on the front where nothing gets better without something else \
         getting worse, the {} nearest to the bars first (F1 of the whole world {BAR_F1}, start delay \
         {BAR_DELAY_P50}/{BAR_DELAY_P90} s, {BAR_FALSE} false/h with nothing listed, {BAR_REPEATS} repeats/100)",
        points.len(),
        front.len(),
        front.len().min(SHOWN),
    );
    say!("{table}");
    let default = Point::new(Settings::default(), played);
    choices(&points, &front, &default)?;
    write(&folder.join("grid.csv"), &points)?;
    front.truncate(SHOWN);
    plot::grid(&folder.join("grid.svg"), &points, &front, &default)
}

/// What one might settle for, beside the defaults.
fn choices(points: &[Point], front: &[Point], default: &Point) -> Result<(), CommandError> {
    let highest = |fits: &dyn Fn(&Point) -> bool| {
        let fitting = points.iter().filter(|point| fits(point));
        fitting.max_by(|a, b| a.f1.total_cmp(&b.f1).then(b.delay_p50.total_cmp(&a.delay_p50)))
    };
    let prompt = |point: &Point| point.delay_p50 <= BAR_DELAY_P50 && point.delay_p90 <= BAR_DELAY_P90;
    let quiet = |point: &Point| point.false_per_hour <= BAR_FALSE;
    let rows = [
        ("the defaults", Some(default)),
        ("nearest to the bars", front.first()),
        ("highest F1", highest(&|_| true)),
        ("highest F1 within the bars of delay", highest(&prompt)),
        ("highest F1 within the bar of false events", highest(&quiet)),
    ];
    let mut table = Table::new(choice_columns());
    for (name, point) in rows {
        let Some(point) = point else { continue };
        let [onset, offset, smoothing, on, hop, f1, delay, false_events, repeats, plain, unlisted] =
            point.cells();
        let ratio = format!("{:.2}", point.shortfall());
        let name = name.to_string();
        table.row([
            name,
            onset,
            offset,
            smoothing,
            on,
            hop,
            f1,
            delay,
            false_events,
            repeats,
            plain,
            unlisted,
            ratio,
        ]);
    }
    say!("{table}");
    match front.first().is_some_and(|best| best.shortfall() <= 1.0) {
        true => say!("`nearest to the bars` meets every one of them"),
        false => say!("no setting meets every bar"),
    }
    Ok(())
}

fn choice_columns() -> [(&'static str, Align); 13] {
    let mut columns = [("", Align::Right); 13];
    columns[0] = ("choice", Align::Left);
    columns[1..12].copy_from_slice(&COLUMNS);
    columns[12] = ("worst ratio to a bar", Align::Right);
    columns
}

fn all() -> Vec<Settings> {
    let mut all = Vec::new();
    for onset in ONSETS {
        for offset in OFFSETS.into_iter().filter(|offset| *offset <= onset) {
            for smoothing in SMOOTHINGS.map(Duration::from_millis) {
                for min_duration_on in MIN_DURATIONS_ON.map(Duration::from_millis) {
                    let default = GateSettings::default();
                    let gate = GateSettings { onset, offset, smoothing, min_duration_on, ..default };
                    all.extend(HOPS.map(|hop| Settings { gate, hop }));
                }
            }
        }
    }
    all
}

/// The points that none beats: those that meet the bars by F1, then those nearest to them.
fn front(points: &[Point]) -> Vec<Point> {
    let unbeaten = |point: &&Point| !points.iter().any(|other| other.beats(point));
    let mut front: Vec<Point> = points.iter().filter(unbeaten).copied().collect();
    let rank = |point: &Point| (point.shortfall().max(1.0), 1.0 - point.f1);
    front.sort_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    front
}

fn write(path: &Path, points: &[Point]) -> Result<(), CommandError> {
    let mut text =
        "onset,offset,smoothing,min_duration_on,hop,f1,delay_p50,delay_p90,false_per_hour,repeats,\
                    f1_plain,f1_unlisted\n"
            .to_string();
    for point in points {
        let cells = point.cells().join(",").replace('/', ",");
        writeln!(text, "{cells}").expect("a string takes everything");
    }
    std::fs::write(path, text).map_err(|source| CommandError::Io { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(f1: f64, delay: f64, false_per_hour: f64) -> Point {
        let settings = Settings::default();
        let (delay_p50, delay_p90) = (delay, delay + 0.5);
        Point { settings, f1, delay_p50, delay_p90, false_per_hour, repeats: 0.0, plain: f1, unlisted: f1 }
    }

    #[test]
    fn the_front_has_what_nothing_beats_the_best_that_meets_the_bars_first() {
        let points = [
            point(0.95, 1.3, 1.0), // too slow
            point(0.91, 1.0, 2.0),
            point(0.92, 1.0, 2.0),
            point(0.92, 1.1, 2.0), // as the one before, slower
            point(0.80, 0.5, 9.0),
            point(0.80, f64::NAN, 0.0),
        ];
        let found: Vec<f64> = front(&points).iter().map(|point| point.f1).collect();
        assert_eq!(found, [0.92, 0.95, 0.80, 0.80]);
        assert!(points[2].shortfall() <= 1.0 && points[0].shortfall() > 1.0);
        assert!((points[4].shortfall() - 4.5).abs() < 1e-9, "nine false events for two");
    }

    #[test]
    fn every_setting_of_the_grid_is_valid() {
        let all = all();
        assert!(all.iter().all(|settings| settings.gate.validate().is_ok()));
        assert!(all.len() > 1000);
    }
}
