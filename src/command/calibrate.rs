//! `xclipd calibrate`: temperature and thresholds of a label file, fitted on the user's own footage.
//!
//! Footage → the real element in sync mode → scores of every window. The temperature is the one under
//! which the scores are likeliest beside the truth; then each label gets the onset with the best event
//! F1, or without any truth the lowest one that stays silent.

mod fit;
mod footage;
mod report;

use std::path::PathBuf;

use super::{CommandError, Verdict, say, start_gstreamer};
use crate::model::labels::Labels;
use crate::model::{Heads, Model};
use fit::Fit;
use footage::Footage;

/// Fit temperature and thresholds of a label file to your own footage
#[derive(clap::Args, Clone, Debug)]
pub struct Calibrate {
    /// `demo` or a checkpoint's folder
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// The YAML label file to fit
    #[arg(long, value_name = "FILE")]
    pub labels_file: PathBuf,
    /// A folder of videos, or one video
    #[arg(long, value_name = "PATH")]
    pub footage: PathBuf,
    /// What is true, one JSON line each: {"file": "a.mp4", "label": "…", "start": 3.5, "end": 8.0} (seconds);
    /// `file` may be left out for a single video. Without it nothing watched for may happen in the footage
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// For labels without truth: the most false events per hour
    #[arg(long, value_name = "N", default_value_t = 0.5)]
    pub false_per_hour: f64,
    /// Write the fitted label file here [default: over --labels-file, the old one is kept as FILE.bak]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write plots here: precision over recall of every label, reliability
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
    /// Worker threads; 0 is all cores
    #[arg(long, default_value_t = 0)]
    pub threads: u32,
}

impl Calibrate {
    pub fn run(self) -> Result<Verdict, CommandError> {
        if !(0.0..=3600.0).contains(&self.false_per_hour) {
            let problem = format!("is {}", self.false_per_hour);
            return Err(CommandError::unusable("--false-per-hour", problem, "expected 0 to 3600"));
        }
        let labels = Labels::read(&self.labels_file)
            .map_err(|error| CommandError::unusable("--labels-file", error.to_string(), ""))?;
        let before = labels.temperature.unwrap_or(Model::open(&self.model, Heads::Hf)?.extra.temperature);
        start_gstreamer()?;
        let footage = Footage::play(&self, &labels)?;
        let fit = Fit::new(&footage, &labels, before, self.false_per_hour);
        report::print(&fit, &footage)?;
        if let Some(folder) = &self.report {
            report::draw(&fit, folder)?;
        }
        self.write(&fit)?;
        Ok(Verdict::Pass)
    }

    fn write(&self, fit: &Fit) -> Result<(), CommandError> {
        let out = self.out.as_ref().unwrap_or(&self.labels_file);
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| CommandError::Io { path, source }
        };
        if self.out.is_none() {
            let mut kept = self.labels_file.clone().into_os_string();
            kept.push(".bak");
            let kept = PathBuf::from(kept);
            std::fs::copy(&self.labels_file, &kept).map_err(failed(&kept))?;
            say!("the old file is {}; its comments are not in the new one", kept.display());
        }
        std::fs::write(out, fit.labels.to_yaml()).map_err(failed(out))?;
        say!("written: {}", out.display());
        Ok(())
    }
}
