//! `xclipd eval`: how good a checkpoint is on the drawn world, on seeds never used in training.

pub mod clips;
mod confusion;
mod files;
pub mod judge;
mod pairs;
mod probes;
mod robustness;
#[cfg(feature = "gst")]
pub mod streams;

use std::path::PathBuf;

use super::{CommandError, Verdict, say};
use crate::backend::Precision;
use crate::model::labels::Labels;
use crate::score::Competition;
use judge::Judge;

/// Measure a checkpoint on drawn clips, on scripted streams, or compare an events file with its truth
#[derive(clap::Args, Clone, Debug)]
pub struct Eval {
    /// `demo` or a checkpoint's folder
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// Drawn clips on plain backgrounds, and as many of each harder world; 0 leaves them out
    #[arg(long, default_value_t = 1000)]
    pub clips: u32,
    /// Write pictures here: confusion matrices (also as tables), sweeps
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Also this many scripted streams of each kind, as H.264, through the real element
    #[cfg(feature = "gst")]
    #[arg(long, default_value_t = 0)]
    pub streams: u32,
    /// How many of the streams in which nothing listed happens: false events are rare, their rate needs
    /// hours [default: as --streams]
    #[cfg(feature = "gst")]
    #[arg(long, value_name = "STREAMS")]
    pub quiet_streams: Option<u32>,
    /// Leave out so many streams of each kind first: what was chosen by some is judged by others, 0 to 700
    #[cfg(feature = "gst")]
    #[arg(long, value_name = "STREAMS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=700))]
    pub skip_streams: u32,
    /// With --streams and --out: compare backgrounds and competitions, vary onset, offset, smoothing,
    /// durations and hop one at a time and together
    #[cfg(feature = "gst")]
    #[arg(long, requires = "out")]
    pub sweep: bool,
    /// With --streams: also a quarter of the whole world's streams from other cameras: resolution, frame
    /// rate, bitrate
    #[cfg(feature = "gst")]
    #[arg(long)]
    pub cameras: bool,
    /// Length of a stream in seconds
    #[cfg(feature = "gst")]
    #[arg(long, default_value_t = 120.0)]
    pub seconds: f64,
    /// First seed of the clips; training used seeds below 3,000,000,000
    #[arg(long, default_value_t = clips::SEED)]
    pub seed: u64,
    #[command(flatten)]
    pub against: Against,
    /// auto, f32, int8
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Worker threads; 0 is all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Compare the events of this file (from `xclipd detect --events`) with --truth, nothing else
    #[arg(long, value_name = "FILE", requires = "truth")]
    pub events: Option<PathBuf>,
    /// What is true (from `xclipd scene --truth`)
    #[arg(long, value_name = "FILE", requires = "events")]
    pub truth: Option<PathBuf>,
    /// With --events: which labels were watched for, one per line or separated by semicolons [default:
    /// those of the events]
    #[arg(long, value_name = "TEXT", requires = "events")]
    pub labels: Option<String>,
    /// Fail if precision or recall of events, or top-1 on plain clips, is below this
    #[arg(long, value_name = "SHARE")]
    pub at_least: Option<f64>,
}

/// What a label's score is measured against.
#[derive(clap::Args, Clone, Debug)]
pub struct Against {
    /// background: each label against the background alone; labels: all of them share a probability of 1
    #[arg(long, default_value = "background", value_parser = competition)]
    pub competition: Competition,
    /// Prompts of the background class, separated by semicolons; \"\" is none [default: the checkpoint's]
    #[arg(long, value_name = "TEXT")]
    pub background: Option<String>,
}

fn competition(text: &str) -> Result<Competition, String> {
    match text {
        "background" => Ok(Competition::Background),
        "labels" => Ok(Competition::Labels),
        _ => Err("expected background or labels".into()),
    }
}

impl Against {
    /// The prompts of `--background`, if it was given.
    pub fn background(&self) -> Result<Option<Vec<String>>, CommandError> {
        let Some(text) = &self.background else { return Ok(None) };
        let fault = |problem: String, mend: &str| CommandError::unusable("--background", problem, mend);
        if text.trim().is_empty() {
            return match self.competition {
                Competition::Labels => Ok(Some(Vec::new())),
                Competition::Background => {
                    Err(fault("is empty".into(), "name prompts, or take --competition labels"))
                }
            };
        }
        let parsed =
            Labels::parse(text).map_err(|error| fault(error.to_string(), "write prompts as labels"))?;
        Ok(Some(parsed.labels.into_iter().map(|label| label.name).collect()))
    }

    /// Sets the properties of an `xclipdetect`.
    #[cfg(feature = "gst")]
    fn apply(&self, detect: &gstreamer::Element) -> Result<(), CommandError> {
        use gstreamer::prelude::*;
        if let Some(prompts) = self.background()? {
            detect.set_property("background", serde_json::Value::from(prompts).to_string());
        }
        let name = match self.competition {
            Competition::Background => "background",
            Competition::Labels => "labels",
        };
        detect.set_property_from_str("competition", name);
        Ok(())
    }
}

impl Eval {
    pub fn run(self) -> Result<Verdict, CommandError> {
        if let Some(least) = self.at_least.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(CommandError::unusable("--at-least", format!("is {least}"), "expected 0 to 1"));
        }
        #[cfg(feature = "gst")]
        if !(1.0..=86_400.0).contains(&self.seconds) {
            let problem = format!("is {}", self.seconds);
            return Err(CommandError::unusable("--seconds", problem, "expected 1 to 86400 s"));
        }
        if self.clips == 0 && !self.asks_for_streams() && self.events.is_none() {
            return Err(CommandError::unusable("--clips", "is 0", "ask for clips, --streams or --events"));
        }
        self.against.background()?;
        let least = self.at_least.unwrap_or(0.0);
        if let (Some(events), Some(truth)) = (&self.events, &self.truth) {
            let matching = files::compare(events, truth, self.labels.as_deref())?;
            return Ok((matching.precision() >= least && matching.recall() >= least).into());
        }
        let mut good = true;
        if let Some(folder) = &self.out {
            std::fs::create_dir_all(folder)
                .map_err(|source| CommandError::Io { path: folder.clone(), source })?;
        }
        if self.clips > 0 {
            let mut judge = Judge::new(&self.model, self.precision, self.threads)?;
            judge.score_against(self.against.competition, self.against.background()?);
            say!("{}", judge.describe());
            let plain = clips::measure(&mut judge, &self)?;
            pairs::measure(&mut judge, &self)?;
            probes::measure(&mut judge, &self)?;
            robustness::measure(&mut judge, &self)?;
            good &= plain >= least;
        }
        #[cfg(feature = "gst")]
        if self.asks_for_streams() {
            let (precision, recall) = streams::measure(&self)?;
            good &= precision >= least && recall >= least;
        }
        Ok(good.into())
    }

    #[cfg(feature = "gst")]
    fn asks_for_streams(&self) -> bool {
        self.streams > 0
    }

    #[cfg(not(feature = "gst"))]
    fn asks_for_streams(&self) -> bool {
        false
    }
}
