//! Videos with what is true in them, as the element sees them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;
use indicatif::ProgressBar;
use serde::Deserialize;

use super::Calibrate;
use crate::command::CommandError;
use crate::command::detect::pipeline::decoder;
use crate::command::matching::Span;
use crate::command::recorder::make;
use crate::command::watch::{Recording, watch};
use crate::model::labels::Labels;

const KINDS: [&str; 9] = ["mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "mpg", "mpeg"];

pub struct Footage {
    pub videos: Vec<Video>,
    /// Labels that the truth speaks of.
    pub known: Vec<String>,
}

pub struct Video {
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
    /// Plays every video through the element.
    ///
    /// # Errors
    /// No video there; a truth that names an unknown video or no span of time; a video that cannot be
    /// decoded.
    pub fn play(arguments: &Calibrate, labels: &Labels) -> Result<Self, CommandError> {
        let paths = videos(&arguments.footage)?;
        let mut truths = match &arguments.truth {
            Some(path) => truths(path, &paths)?,
            None => BTreeMap::new(),
        };
        let names: Vec<String> = labels.labels.iter().map(|label| label.name.clone()).collect();
        let mut known: Vec<String> = truths.values().flatten().map(|span| span.label.clone()).collect();
        known.sort();
        known.dedup();
        if let Some(path) = &arguments.truth
            && !known.iter().any(|label| names.contains(label))
        {
            let problem = format!("names no label of {}", arguments.labels_file.display());
            return Err(CommandError::unusable(path.display().to_string(), problem, ""));
        }
        let bar = ProgressBar::new(paths.len() as u64);
        let mut videos = Vec::with_capacity(paths.len());
        for path in paths {
            let recording = play(arguments, &path, &names)?;
            let seconds = recording.last.map_or(0.0, |last| last.stream_time.as_secs_f64());
            videos.push(Video { recording, truth: truths.remove(&path).unwrap_or_default(), seconds });
            bar.inc(1);
        }
        bar.finish_and_clear();
        if videos.iter().all(|video| video.recording.windows.is_empty()) {
            let problem = "is too short: no video fills a window";
            return Err(CommandError::unusable(arguments.footage.display().to_string(), problem, ""));
        }
        Ok(Self { videos, known })
    }

    pub fn hours(&self) -> f64 {
        self.videos.iter().map(|video| video.seconds).sum::<f64>() / 3600.0
    }
}

fn videos(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let failed = |source| CommandError::Io { path: path.to_path_buf(), source };
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if KINDS.contains(&extension.to_ascii_lowercase().as_str()) {
            found.push(path);
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
                let unknown = || fault(format!("`{file}` is no video of the footage"), "check its name");
                videos.iter().find(named).ok_or_else(unknown)?
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

fn play(arguments: &Calibrate, path: &Path, names: &[String]) -> Result<Recording, CommandError> {
    let pipeline = gst::Pipeline::new();
    let source = make("filesrc", &[("location", &path.display().to_string())])?;
    let convert = make("videoconvert", &[])?;
    let decode = decoder(&convert)?;
    pipeline.add_many([&source, &decode, &convert])?;
    source.link(&decode)?;
    let detect = make(
        "xclipdetect",
        &[("model", &arguments.model), ("labels-file", &arguments.labels_file.display().to_string())],
    )?;
    detect.set_property("threads", arguments.threads);
    watch(&pipeline, &convert, &detect, names, &path.display().to_string())
}
