//! Videos with what is true in them, as the element sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;
use indicatif::ProgressBar;
use serde::Deserialize;

use super::Calibrate;
use crate::command::CommandError;
use crate::command::detect::pipeline::{decoder, set_property};
use crate::command::matching::Span;
use crate::command::recorder::make;
use crate::command::watch::{Recording, watch};
use crate::model::labels::{Labels, tidy};

const KINDS: [&str; 9] = ["mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "mpg", "mpeg"];

#[derive(Clone)]
pub struct Footage {
    pub videos: Vec<Video>,
    /// Labels of the file that the truth speaks of, as the file writes them.
    pub known: Vec<String>,
}

#[derive(Clone)]
pub struct Video {
    pub path: PathBuf,
    pub recording: Recording,
    pub truth: Vec<Span>,
    pub seconds: f64,
}

/// A line of the truth file; further keys are ignored.
#[derive(Deserialize)]
struct Line {
    file: Option<String>,
    label: String,
    start: f64,
    end: f64,
}

impl Footage {
    /// The videos and what is true in them; nothing is played yet.
    ///
    /// # Errors
    /// No video there; a truth that names an unknown video or no span of time, or none of the labels.
    pub fn new(arguments: &Calibrate, labels: &Labels) -> Result<Self, CommandError> {
        let paths = videos(&arguments.footage)?;
        let mut truths = match &arguments.truth {
            Some(path) => truths(path, &paths)?,
            None => BTreeMap::new(),
        };
        // Labels are the same whatever their case and spacing, as in a label file.
        let plain = |text: &str| tidy(text).to_lowercase();
        let names: BTreeMap<String, String> =
            labels.labels.iter().map(|label| (plain(&label.name), label.name.clone())).collect();
        let (mut known, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        for span in truths.values_mut().flatten() {
            match names.get(&plain(&span.label)) {
                Some(name) => {
                    span.label.clone_from(name);
                    known.insert(name.clone());
                }
                None => drop(foreign.insert(span.label.clone())),
            }
        }
        if let Some(path) = &arguments.truth {
            let path = path.display().to_string();
            if known.is_empty() {
                let problem = format!("names no label of {}", arguments.labels_file.display());
                return Err(CommandError::unusable(path, problem, ""));
            }
            if !foreign.is_empty() {
                let foreign = Vec::from_iter(foreign).join("`, `");
                tracing::warn!("{path}: `{foreign}` is no label of the file and stands for nothing");
            }
        }
        let video = |path: PathBuf| Video {
            truth: truths.remove(&path).unwrap_or_default(),
            path,
            recording: Recording::default(),
            seconds: 0.0,
        };
        let videos = paths.into_iter().map(video).collect();
        Ok(Self { videos, known: known.into_iter().collect() })
    }

    /// Plays every video through the element with `labels`, which `file` says.
    ///
    /// # Errors
    /// A video that cannot be decoded, or none that is as long as a window.
    pub fn play(&mut self, arguments: &Calibrate, labels: &Labels, file: &Path) -> Result<(), CommandError> {
        let names: Vec<String> = labels.labels.iter().map(|label| label.name.clone()).collect();
        let _loaded = Loaded::new(detector(arguments, file)?);
        let bar = ProgressBar::new(self.videos.len() as u64);
        for video in &mut self.videos {
            video.recording = play(arguments, &video.path, file, &names)?;
            video.seconds = video.recording.last.map_or(0.0, |last| last.stream_time.as_secs_f64());
            bar.inc(1);
        }
        bar.finish_and_clear();
        if self.videos.iter().all(|video| video.recording.windows.is_empty()) {
            let problem = "is too short: no video fills a window";
            return Err(CommandError::unusable(arguments.footage.display().to_string(), problem, ""));
        }
        Ok(())
    }

    pub fn hours(&self) -> f64 {
        self.videos.iter().map(|video| video.seconds).sum::<f64>() / 3600.0
    }
}

/// A detector that waits. Elements of one checkpoint share it while there is one: else every video would
/// load it anew.
struct Loaded(gst::Element);

impl Loaded {
    fn new(detect: gst::Element) -> Self {
        // What is wrong with it, the first video tells.
        let _ = detect.set_state(gst::State::Paused);
        Self(detect)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// All videos of a folder and of the folders in it, in order of their names.
fn videos(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let failed = |source| CommandError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            // Not through links: they may lead back.
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(path);
            } else if KINDS.contains(&extension.to_ascii_lowercase().as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        let mend = format!("put videos there ({})", KINDS.join(", "));
        return Err(CommandError::unusable(path.display().to_string(), "has no video", mend));
    }
    Ok(found)
}

fn truths(path: &Path, videos: &[PathBuf]) -> Result<BTreeMap<PathBuf, Vec<Span>>, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CommandError::Io { path: path.to_path_buf(), source })?;
    let mut truths: BTreeMap<PathBuf, Vec<Span>> = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |problem: String, mend: &str| {
            CommandError::unusable(format!("{}:{}", path.display(), number + 1), problem, mend)
        };
        let line: Line = serde_json::from_str(line).map_err(|error| fault(error.to_string(), ""))?;
        let named = |video: &&PathBuf| {
            line.file.as_ref().is_some_and(|file| video.ends_with(file) && !file.is_empty())
        };
        let video = match (&line.file, videos) {
            (None, [only]) => only,
            (None, _) => return Err(fault("has no `file`".into(), "say which video it speaks of")),
            (Some(file), _) => {
                let mut fitting = videos.iter().filter(named);
                let unknown = || fault(format!("`{file}` is no video of the footage"), "check its name");
                let video = fitting.next().ok_or_else(unknown)?;
                if let Some(other) = fitting.next() {
                    let problem = format!("`{file}` may be {} or {}", video.display(), other.display());
                    return Err(fault(problem, "write it with its folder"));
                }
                video
            }
        };
        if !(line.start >= 0.0 && line.end > line.start) {
            return Err(fault(format!("{} to {} s is no span of time", line.start, line.end), ""));
        }
        let span = Span { label: line.label, start: line.start, end: line.end };
        truths.entry(video.clone()).or_default().push(span);
    }
    Ok(truths)
}

fn play(
    arguments: &Calibrate,
    path: &Path,
    labels: &Path,
    names: &[String],
) -> Result<Recording, CommandError> {
    let pipeline = gst::Pipeline::new();
    let source = make("filesrc", &[("location", &text(path)?)])?;
    let convert = make("videoconvert", &[])?;
    let decode = decoder(&convert)?;
    pipeline.add_many([&source, &decode, &convert])?;
    source.link(&decode)?;
    let detect = detector(arguments, labels)?;
    watch(&pipeline, &convert, &detect, names, &path.display().to_string())
}

fn detector(arguments: &Calibrate, labels: &Path) -> Result<gst::Element, CommandError> {
    let detect = make("xclipdetect", &[("model", &arguments.model), ("labels-file", &text(labels)?)])?;
    for (name, value) in &arguments.set {
        set_property(&detect, name, value)?;
    }
    Ok(detect)
}

/// GStreamer's properties are UTF-8.
fn text(path: &Path) -> Result<&str, CommandError> {
    path.to_str().ok_or_else(|| {
        let shown = path.display().to_string();
        CommandError::unusable(shown, "has a name that is not UTF-8", "rename it")
    })
}
