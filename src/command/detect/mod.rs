//! `xclipd detect`: one input, its events on stdout.
//!
//! Files run in sync mode as fast as they can: the same input gives the same events. Cameras run in
//! async mode: nothing waits, what is dropped is counted.

mod fault;
mod input;
pub(super) mod pipeline;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use self::input::Input;
use self::pipeline::Built;
use self::report::Report;
use super::{CommandError, Verdict};
use crate::detector::DetectorError;
use crate::model::labels::Labels;

/// Report the events of a video: one JSON line each on stdout
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Detect {
    /// A file, rtsp://…, /dev/videoN, or scene:[SEED or SCRIPT] for a drawn one
    pub input: String,
    /// What to watch for, in plain words: "a person falling; two people fighting"; also one per line or a
    /// JSON array
    #[arg(long, group = "what", value_name = "TEXT")]
    pub labels: Option<String>,
    /// YAML label set: prompts, thresholds, severity, background
    #[arg(long, group = "what", value_name = "FILE")]
    pub labels_file: Option<PathBuf>,
    /// `demo` (knows drawn scenes only) or a checkpoint's folder
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// Also write the video with the open events drawn on it (.mp4 or .mkv, without sound)
    #[arg(long, value_name = "VIDEO")]
    pub annotate: Option<PathBuf>,
    /// Also write the events to this file
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// How stdout looks: every message as JSON, or a line for each start and end
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// Another property of xclipdetect, such as onset=0.7 or threads=2; may be repeated
    #[arg(long, value_name = "PROPERTY=VALUE", value_parser = property)]
    pub set: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Ndjson,
    Table,
}

pub(super) fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected PROPERTY=VALUE")?;
    Ok((name.trim().to_string(), value.to_string()))
}

/// Set by the first Ctrl-C (or SIGTERM, SIGHUP); the second ends the process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn watch_signals() -> Result<(), CommandError> {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("finishing; once more to abort");
    };
    ctrlc::set_handler(handler).map_err(|error| CommandError::unusable("signals", error.to_string(), ""))
}

impl Detect {
    /// Runs to the end of the input or the first Ctrl-C; files are complete in both cases.
    pub fn run(self) -> Result<Verdict, CommandError> {
        let input = Input::parse(&self.input)?;
        if let Some(text) = &self.labels
            && Labels::parse(text).map_err(DetectorError::from)?.labels.is_empty()
        {
            return Err(CommandError::unusable("--labels", "is empty", "name at least one action"));
        }
        if self.annotate.is_some() && self.annotate == self.events {
            return Err(CommandError::unusable(
                "--events",
                "is the file of --annotate",
                "choose another name",
            ));
        }
        for output in [&self.annotate, &self.events].into_iter().flatten() {
            check_output(output, &input)?;
        }
        super::start_gstreamer()?;
        let built = pipeline::build(&self, &input)?;
        let report = Report::new(self.format, input.is_live(), self.events.clone())?;
        watch_signals()?;
        Run::new(input, built, report).play()?;
        Ok(Verdict::Pass)
    }
}

/// An output must not be the input, and its folder must exist.
fn check_output(output: &Path, input: &Input) -> Result<(), CommandError> {
    let shown = || output.display().to_string();
    let same = |path: &Path| matches!((path.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b);
    match input {
        Input::File(path) | Input::Scene { script: Some(path), .. } if same(path) => {
            return Err(CommandError::unusable(shown(), "is the input", "choose another name"));
        }
        _ => {}
    }
    match output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => {
            let problem = format!("there is no folder {}", folder.display());
            Err(CommandError::unusable(shown(), problem, "make it first"))
        }
        None => Ok(()),
    }
}

/// How often the bus is left to look at signals and progress.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing may move before the first picture: decodebin of GStreamer 1.22 loses an error that a
/// demuxer posts while it is being plugged, and then waits for ever.
const STILL: Duration = Duration::from_secs(2);
/// How long files may take to be completed after an error.
const COMPLETION: Duration = Duration::from_secs(20);

struct Run {
    input: Input,
    built: Built,
    report: Arc<Mutex<Report>>,
    /// Stream time of the last frame, in nanoseconds.
    position: Arc<AtomicU64>,
    missing: Vec<String>,
    /// The error that made us stop early.
    fault: Option<CommandError>,
    /// When completion must be done; set with the end of stream that we sent.
    ending: Option<Instant>,
}

impl Run {
    fn new(input: Input, built: Built, report: Report) -> Self {
        let report = Arc::new(Mutex::new(report));
        let position = Arc::new(AtomicU64::new(0));

        let writer = Arc::clone(&report);
        built.events.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(lines) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                let mut report = lock(&writer);
                String::from_utf8_lossy(&lines).lines().for_each(|line| report.event(line));
            }
            gst::PadProbeReturn::Ok
        });

        let last = Arc::clone(&position);
        let pad = built.detect.static_pad("sink").expect("xclipdetect has an always pad `sink`");
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            let time = segment
                .as_ref()
                .and_then(|event| event.segment().downcast_ref::<gst::ClockTime>())
                .and_then(|segment| {
                    let buffer = info.buffer()?;
                    segment.to_stream_time(buffer.pts()? + buffer.duration().unwrap_or_default())
                });
            if let Some(time) = time {
                last.fetch_max(time.nseconds(), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        Self { input, built, report, position, missing: Vec::new(), fault: None, ending: None }
    }

    fn play(mut self) -> Result<(), CommandError> {
        let started = self.built.pipeline.set_state(gst::State::Playing);
        if started.is_err() {
            // The bus has the reason; without one, GStreamer's own words must do.
            self.fault = Some(CommandError::GStreamer(gst::glib::bool_error!("the pipeline does not start")));
        }
        self.follow_bus(started.is_err());
        let stats = self.built.detect.property::<Option<gst::Structure>>("stats");
        // Stops all threads: nothing writes to the report any more.
        let _ = self.built.pipeline.set_state(gst::State::Null);
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let windows = stats.as_ref().and_then(|stats| stats.get::<u64>("windows").ok()).unwrap_or(0);
        let dropped = stats.as_deref().map(dropped).unwrap_or_default();
        let position = Duration::from_nanos(self.position.load(Ordering::Relaxed));
        lock(&self.report).finish(position, windows, &dropped)
    }

    /// Until the end of the stream, an error, or (`failed`) the queued messages are read.
    fn follow_bus(&mut self, failed: bool) {
        let bus = self.built.pipeline.bus().expect("a pipeline has a bus");
        let tick = gst::ClockTime::from_nseconds(if failed { 0 } else { TICK.as_nanos() as u64 });
        let mut moving = Instant::now();
        loop {
            let message = bus.timed_pop(tick);
            if message.is_some() || !self.is_still() {
                moving = Instant::now();
            } else if moving.elapsed() > STILL {
                self.fault = Some(fault::silent(&self.input));
                return;
            }
            match message.as_ref().map(|message| message.view()) {
                None if failed => return,
                None => {}
                Some(gst::MessageView::Eos(_)) => return,
                Some(gst::MessageView::Error(error)) => {
                    let fault = fault::explain(&self.input, error, &self.missing);
                    let upstream = self.is_upstream(error.src());
                    // The first upstream fault is the cause; sources post several while we complete.
                    if self.fault.is_none() || failed || !upstream {
                        self.fault = Some(fault);
                    }
                    if failed || !upstream || (self.ending.is_none() && !self.complete()) {
                        return;
                    }
                }
                Some(gst::MessageView::Warning(warning)) => {
                    tracing::warn!("{}: {}", self.input, warning.error());
                }
                Some(gst::MessageView::Latency(_)) => {
                    let _ = self.built.pipeline.recalculate_latency();
                }
                Some(gst::MessageView::Element(element)) => self.note_missing(element.structure()),
                Some(_) => {}
            }
            if self.ending.is_some_and(|end| Instant::now() > end) {
                tracing::error!("files could not be completed within {} s", COMPLETION.as_secs());
                return;
            }
            if self.ending.is_none() && self.should_stop() && !self.complete() {
                return;
            }
            self.show_progress();
        }
    }

    /// Whether no picture has come and no thread before the detector works on one. A file only: cameras
    /// have their own time limits.
    fn is_still(&self) -> bool {
        let sink = self.built.detect.static_pad("sink").expect("xclipdetect has an always pad `sink`");
        if !matches!(self.input, Input::File(_)) || sink.has_current_caps() {
            return false;
        }
        let detect = self.built.detect.upcast_ref::<gst::Element>();
        let elements = self.built.pipeline.iterate_recurse().into_iter().flatten();
        let pads = elements.filter(|element| element != detect).flat_map(|element| element.pads());
        let tasks: Vec<gst::TaskState> = pads.map(|pad| pad.task_state()).collect();
        // Not begun yet is not still.
        tasks.contains(&gst::TaskState::Paused) && !tasks.contains(&gst::TaskState::Started)
    }

    fn should_stop(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst) || lock(&self.report).is_over()
    }

    /// Sends the end of stream to the detector, so that events end and files are completed. False if
    /// nothing has come yet: there is nothing to complete.
    fn complete(&mut self) -> bool {
        let pad = self.built.detect.static_pad("sink").expect("xclipdetect has an always pad `sink`");
        if pad.sticky_event::<gst::event::Segment>(0).is_none() {
            return false;
        }
        if self.fault.is_some() {
            self.ending = Some(Instant::now() + COMPLETION);
        } else {
            // A second Ctrl-C is the user's limit.
            self.ending = Some(Instant::now() + Duration::from_secs(3600));
        }
        pad.send_event(gst::event::Eos::new())
    }

    /// Whether the fault lies before the detector, so that what was seen can still be completed.
    fn is_upstream(&self, source: Option<&gst::Object>) -> bool {
        let after = std::iter::once(&self.built.detect).chain(&self.built.tail);
        source
            .is_some_and(|source| after.clone().all(|element| element.upcast_ref::<gst::Object>() != source))
    }

    fn note_missing(&mut self, structure: Option<&gst::StructureRef>) {
        let Some(structure) = structure.filter(|s| s.name() == "missing-plugin") else { return };
        let Ok(name) = structure.get::<String>("name") else { return };
        tracing::debug!("no plugin for {name}");
        // Sound is not asked for: decoders for it only say that there is no picture.
        let caps = structure.get::<gst::Caps>("detail").ok();
        let sound =
            caps.is_some_and(|caps| caps.structure(0).is_some_and(|s| s.name().starts_with("audio/")));
        if !sound {
            self.missing.push(name);
        }
    }

    fn show_progress(&self) {
        let position = Duration::from_nanos(self.position.load(Ordering::Relaxed));
        let duration = self.built.pipeline.query_duration::<gst::ClockTime>().map(Duration::from);
        lock(&self.report).progress(position, duration);
    }
}

/// A report is usable whatever panicked while it was held.
fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `3 dropped (superseded 2, loading 1)` from the detector's statistics.
fn dropped(stats: &gst::StructureRef) -> String {
    let reasons: Vec<(String, u64)> = match stats.get::<gst::Structure>("dropped") {
        Ok(by_reason) => by_reason
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.get::<u64>().ok()?)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        Err(_) => Vec::new(),
    };
    let sum: u64 = reasons.iter().map(|(_, count)| count).sum();
    let list: Vec<String> = reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if sum == 0 { "none dropped".into() } else { format!("{sum} dropped ({})", list.join(", ")) }
}
