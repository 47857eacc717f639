//! What the user reads while it runs and at the end: events, progress, summary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Format;
use crate::command::CommandError;
use crate::command::table::{Align, Table, clock};
use crate::event::Phase;
use crate::event::json::{Record, StampRecord};

/// Position in the stream; for cameras the time of day (UTC) to a tenth of a second.
fn shown(stamp: &StampRecord, live: bool) -> String {
    let time_of_day = stamp.utc.as_ref().filter(|_| live).and_then(|utc| utc.get(11..21));
    time_of_day.map_or_else(|| clock(seconds(stamp)), |time| format!("{time}Z"))
}

/// An enum as its JSON says it, without quotes.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_string()
}

fn seconds(stamp: &StampRecord) -> f64 {
    stamp.stream_time as f64 / 1e9
}

#[derive(Default)]
struct Tally {
    events: u32,
    seconds: f64,
    longest: f64,
    peak: f64,
}

pub struct Report {
    format: Format,
    live: bool,
    file: Option<(PathBuf, BufWriter<File>)>,
    bar: ProgressBar,
    begun: Instant,
    tallies: BTreeMap<String, Tally>,
    /// The first write that failed; what comes after is not written.
    broken: Option<CommandError>,
    stdout_closed: bool,
}

impl Report {
    /// # Errors
    /// The events file cannot be created.
    pub fn new(format: Format, live: bool, file: Option<PathBuf>) -> Result<Self, CommandError> {
        let file = match file {
            Some(path) => match File::create(&path) {
                Ok(file) => Some((path, BufWriter::new(file))),
                Err(source) => return Err(CommandError::Io { path, source }),
            },
            None => None,
        };
        Ok(Self {
            format,
            live,
            file,
            bar: if live { ProgressBar::hidden() } else { bar() },
            begun: Instant::now(),
            tallies: BTreeMap::new(),
            broken: None,
            stdout_closed: false,
        })
    }

    /// One event as a JSON line, without its newline. Written at once.
    pub fn event(&mut self, json: &str) {
        match serde_json::from_str::<Record>(json) {
            Ok(line) => self.count(json, &line),
            Err(error) => tracing::error!("an event that cannot be read ({error}): {json}"),
        }
        if let Some((path, file)) = &mut self.file
            && let Err(source) = writeln!(file, "{json}").and_then(|()| file.flush())
        {
            let path = path.clone();
            self.broken.get_or_insert(CommandError::Io { path, source });
        }
    }

    fn count(&mut self, json: &str, line: &Record) {
        let tally = self.tallies.entry(line.label.clone()).or_default();
        tally.peak = tally.peak.max(line.peak.into());
        if line.phase == Phase::Start {
            tally.events += 1;
        }
        if let Some(end) = &line.end {
            let lasted = (seconds(end) - seconds(&line.start)).max(0.0);
            tally.seconds += lasted;
            tally.longest = tally.longest.max(lasted);
        }
        let text = match (self.format, &line.end) {
            (Format::Ndjson, _) => json.to_string(),
            (Format::Table, Some(end)) => format!(
                "{}  end    {} (from {}, {}, peak {:.2})",
                shown(end, self.live),
                line.label,
                shown(&line.start, self.live),
                word(&line.reason),
                line.peak
            ),
            (Format::Table, None) if line.phase == Phase::Start => {
                format!("{}  start  {} ({:.2})", shown(&line.start, self.live), line.label, line.score)
            }
            (Format::Table, None) => return,
        };
        self.print(&text);
    }

    fn print(&mut self, text: &str) {
        if self.stdout_closed {
            return;
        }
        let written = self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdout_closed = true,
            Err(error) => {
                self.broken.get_or_insert(CommandError::Stdout(error));
            }
            Ok(()) => {}
        }
    }

    /// Nobody reads stdout any more, or a file cannot be written: there is no point in going on.
    pub fn is_over(&self) -> bool {
        self.stdout_closed || self.broken.is_some()
    }

    /// Shows how far a file is. On a terminal only.
    pub fn progress(&mut self, position: Duration, duration: Option<Duration>) {
        let Some(duration) = duration.filter(|_| !self.live) else { return };
        self.bar.set_length(duration.as_millis() as u64);
        self.bar.set_position(position.as_millis() as u64);
        self.bar.set_message(format!("{} of {} at {}", at(position), at(duration), self.speed(position)));
    }

    fn speed(&self, position: Duration) -> String {
        format!("{:.1}× real time", position.as_secs_f64() / self.begun.elapsed().as_secs_f64().max(1e-3))
    }

    /// The summary, to stderr; then the first write that failed, if any did.
    pub fn finish(&mut self, position: Duration, windows: u64, dropped: &str) -> Result<(), CommandError> {
        self.bar.finish_and_clear();
        let mut table = Table::new([
            ("label", Align::Left),
            ("events", Align::Right),
            ("in all", Align::Right),
            ("longest", Align::Right),
            ("peak", Align::Right),
        ]);
        for (label, tally) in &self.tallies {
            table.row([
                label.clone(),
                tally.events.to_string(),
                clock(tally.seconds),
                clock(tally.longest),
                format!("{:.2}", tally.peak),
            ]);
        }
        if table.is_empty() {
            eprintln!("no events");
        } else {
            eprintln!("{table}");
        }
        if windows == 0 {
            eprintln!("no window was complete: the input is shorter than what the model looks at");
        }
        eprintln!("{} of video at {}; {windows} windows, {dropped}", at(position), self.speed(position));
        self.broken.take().map_or(Ok(()), Err)
    }
}

/// Drawn on a terminal only, once the length is known.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{wide_bar} {percent}% {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn at(time: Duration) -> String {
    clock(time.as_secs_f64())
}
