//! xclip.json: what the Hugging Face layout lacks. The file and each of its keys are optional.

use serde::Deserialize;

use super::config::Config;
use super::preprocessor::Resize;
use super::{ModelError, Tokenizer};

/// Settings a checkpoint brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    /// Frames taken per second of stream time, as (numerator, denominator). Default: T/2, a window of
    /// two seconds; long enough for an action, short enough for a quick answer.
    pub sample_rate: (u32, u32),
    /// Default of the `resize` property.
    pub resize: Resize,
    /// Logits are divided by this before they are compared; 1 leaves the checkpoint's scale.
    pub temperature: f32,
    /// Prompts of the background class.
    pub background: Vec<String>,
}

/// The background class of a checkpoint that brings none: what most cameras see most of the time.
pub const BACKGROUND: [&str; 12] = [
    "an empty scene",
    "nothing is happening",
    "a static camera view",
    "a person standing still",
    "a person walking by",
    "people standing around",
    "people walking around",
    "somebody sitting quietly",
    "somebody talking",
    "vehicles passing by",
    "a street with traffic",
    "a dark or blurred picture",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sample_rate: Option<String>,
    #[serde(default)]
    resize: Resize,
    temperature: Option<f32>,
    background: Option<Vec<String>>,
}

impl Extra {
    /// What a checkpoint without xclip.json gets.
    pub(crate) fn default_for(config: &Config) -> Self {
        let frames = config.num_frames as u32;
        let sample_rate = if frames.is_multiple_of(2) { (frames / 2, 1) } else { (frames, 2) };
        Self {
            sample_rate,
            resize: Resize::default(),
            temperature: 1.0,
            background: BACKGROUND.map(String::from).to_vec(),
        }
    }

    /// Leaves out the bundled background prompts that are too long for a checkpoint with a short text
    /// context; unless all are, which encoding then reports. A checkpoint's own prompts stay as they are.
    pub(crate) fn fit_bundled_background(&mut self, tokenizer: &Tokenizer) {
        if self.background != BACKGROUND {
            return;
        }
        let fitting: Vec<String> =
            self.background.iter().filter(|prompt| tokenizer.encode(prompt).is_ok()).cloned().collect();
        if !fitting.is_empty() {
            self.background = fitting;
        }
    }

    pub(crate) fn parse(file: &str, json: &[u8], config: &Config) -> Result<Self, ModelError> {
        let read: File =
            serde_json::from_slice(json).map_err(|source| ModelError::Json { file: file.into(), source })?;
        let mut problems = Vec::new();
        let mut extra = Self { resize: read.resize, ..Self::default_for(config) };
        if let Some(text) = read.sample_rate {
            match parse_rate(&text) {
                Some(rate) => extra.sample_rate = rate,
                None => problems.push(format!(
                    "sample_rate: expected frames per second as \"N/D\" or \"N\", 1/60 to 240, found `{}`",
                    super::error::shown(&text)
                )),
            }
        }
        if let Some(temperature) = read.temperature {
            if temperature.is_finite() && (1e-3..=1e3).contains(&temperature) {
                extra.temperature = temperature;
            } else {
                problems.push(format!("temperature: expected 0.001 to 1000, found {temperature}"));
            }
        }
        if let Some(prompts) = read.background {
            extra.background = prompts.iter().map(|prompt| prompt.trim().to_string()).collect();
            if extra.background.is_empty() || extra.background.iter().any(String::is_empty) {
                problems.push("background: expected at least one prompt, none of them empty".to_string());
            }
            if extra.background.len() > super::labels::MOST_PROMPTS {
                problems.push(format!(
                    "background: expected at most {} prompts, found {}",
                    super::labels::MOST_PROMPTS,
                    extra.background.len()
                ));
            }
        }
        if problems.is_empty() {
            Ok(extra)
        } else {
            Err(ModelError::Settings { file: file.into(), problems })
        }
    }
}

/// "4/1" or "4"; between one frame a minute and 240 a second.
fn parse_rate(text: &str) -> Option<(u32, u32)> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let rate: (u32, u32) = (numerator.trim().parse().ok()?, denominator.trim().parse().ok()?);
    let sane = rate.0 > 0
        && rate.1 > 0
        && u64::from(rate.0) * 60 >= u64::from(rate.1)
        && u64::from(rate.0) <= 240 * u64::from(rate.1);
    sane.then_some(rate)
}
