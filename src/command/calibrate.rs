//! `xclipd calibrate`: temperature and thresholds of a label file, fitted on the user's own footage.
//!
//! Footage → the real element in sync mode → scores of every window. The temperature is the one under
//! which the scores are likeliest beside the truth; the footage is played again with it, since prompts of
//! one class do not scale alike. Then each label gets the onset with the best event F1, or without any
//! truth the lowest one that stays silent.

mod fit;
mod footage;
mod report;

use std::path::{Path, PathBuf};

use super::detect::property;
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
    /// A folder of videos, folders in it included, or one video
    #[arg(long, value_name = "PATH")]
    pub footage: PathBuf,
    /// What is true, one JSON line each: {"file": "a.mp4", "label": "…", "start": 3.5, "end": 8.0} (seconds);
    /// `file` may be left out for a single video. Without it nothing watched for may happen in the footage
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// For labels without truth: the most false events per hour
    #[arg(long, value_name = "N", default_value_t = 0.5)]
    pub false_per_hour: f64,
    /// Write the fitted label file here [default: over --labels-file, which is kept as FILE.bak]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write plots here: precision over recall of every label, reliability
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
    /// A property of xclipdetect as the cameras will have it, such as roi=0,0,0.5,1, hop=4 or heads=videox;
    /// may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    pub set: Vec<(String, String)>,
}

/// Footage is played again until the temperature moves by less than this.
const SETTLED: f64 = 0.05;
/// ... or so often.
const ROUNDS: usize = 4;

impl Calibrate {
    pub fn run(self) -> Result<Verdict, CommandError> {
        if !(0.0..=3600.0).contains(&self.false_per_hour) {
            let problem = format!("is {}", self.false_per_hour);
            return Err(CommandError::unusable("--false-per-hour", problem, "expected 0 to 3600"));
        }
        let mut labels = Labels::read(&self.labels_file)
            .map_err(|error| CommandError::unusable("--labels-file", error.to_string(), ""))?;
        if labels.labels.is_empty() {
            let file = self.labels_file.display().to_string();
            return Err(CommandError::unusable(file, "has no labels", "name what to watch for"));
        }
        start_gstreamer()?;
        let draft = Draft::new(self.out.as_ref().unwrap_or(&self.labels_file))?;
        let mut footage = Footage::new(&self, &labels)?;
        let own = Model::open(&self.model, Heads::Hf)?.extra.temperature;
        let before = labels.temperature.unwrap_or(own);
        footage.play(&self, &labels, &draft.put(&labels)?)?;
        let first = footage.clone();
        let mut temperature = before;
        for _ in 0..ROUNDS {
            let Some(factor) = fit::temperature_factor(&footage) else { break };
            let next = fit::rounded(temperature * factor as f32);
            if (f64::from(next / temperature) - 1.0).abs() < SETTLED {
                break;
            }
            temperature = next;
            labels.temperature = Some(temperature);
            say!("temperature {temperature}: once more");
            footage.play(&self, &labels, &draft.put(&labels)?)?;
        }
        let fit = Fit::new(&first, &footage, labels, (before, temperature), self.false_per_hour);
        report::print(&fit, &footage)?;
        if let Some(folder) = &self.report {
            report::draw(&fit, folder)?;
        }
        draft.put(&fit.labels)?;
        draft.finish()?;
        Ok(Verdict::Pass)
    }
}

/// The fitted file while it is made: beside its place, so that the last step is one rename.
struct Draft {
    place: PathBuf,
    path: tempfile::TempPath,
}

impl Draft {
    /// # Errors
    /// Nothing can be written there: told before hours of footage are played.
    fn new(place: &Path) -> Result<Self, CommandError> {
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".calibrate-")
            .suffix(".yaml")
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|source| CommandError::Io { path: place.to_path_buf(), source })?;
        Ok(Self { place: place.to_path_buf(), path: file.into_temp_path() })
    }

    fn put(&self, labels: &Labels) -> Result<PathBuf, CommandError> {
        let text = labels.to_yaml();
        debug_assert_eq!(Labels::parse_yaml("fitted", &text).as_ref().ok(), Some(labels));
        std::fs::write(&self.path, text)
            .map_err(|source| CommandError::Io { path: self.path.to_path_buf(), source })?;
        Ok(self.path.to_path_buf())
    }

    /// Takes its place; what was there is kept, and no older copy is lost.
    fn finish(self) -> Result<(), CommandError> {
        let place = self.place.display().to_string();
        match std::fs::metadata(&self.place) {
            Ok(there) => self.replace(there.permissions())?,
            Err(_) => {
                // Copied, not renamed: a new file gets the rights of any other new file there.
                let text = std::fs::read(&self.path).map_err(failed(&self.path))?;
                std::fs::write(&self.place, text).map_err(failed(&self.place))?;
            }
        }
        say!("written: {place}");
        Ok(())
    }

    fn replace(self, permissions: std::fs::Permissions) -> Result<(), CommandError> {
        let name = |end: &str| {
            let mut name = self.place.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        let mut names = std::iter::once(name(".bak")).chain((1..).map(|n| name(&format!(".bak.{n}"))));
        let kept = names.find(|name| !name.exists()).expect("the numbers do not end");
        std::fs::copy(&self.place, &kept).map_err(failed(&kept))?;
        say!("the old file is {}; its comments are not in the new one", kept.display());
        std::fs::set_permissions(&self.path, permissions).map_err(failed(&self.place))?;
        self.path.persist(&self.place).map_err(|error| failed(&self.place)(error.error))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let path = path.to_path_buf();
    move |source| CommandError::Io { path, source }
}
