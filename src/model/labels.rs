//! Label sets: what the user watches for, in plain words.

use std::time::Duration;

use crate::event::GateSettings;

/// Most prompts of one label set, background included.
pub const MOST_PROMPTS: usize = 1000;

/// One watched action. A label without prompts of its own is its own prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// What events are called.
    pub name: String,
    /// What the model reads; the label's score is the log-mean-exp over them.
    pub prompts: Vec<String>,
    pub gate: GateOverride,
    pub severity: Option<String>,
    /// Free metadata from the label file, passed through to events.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Per-label gate settings; `None` takes the stream's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateOverride {
    pub onset: Option<f32>,
    pub offset: Option<f32>,
    pub smoothing: Option<Duration>,
    pub min_duration_on: Option<Duration>,
    pub min_duration_off: Option<Duration>,
    pub cooldown: Option<Duration>,
}

/// A parsed `labels` property or label file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    pub labels: Vec<Label>,
    /// Background prompts of the file; empty: the stream's, else the checkpoint's.
    pub background: Vec<String>,
}

impl GateOverride {
    pub fn over(&self, base: GateSettings) -> GateSettings {
        GateSettings {
            onset: self.onset.unwrap_or(base.onset),
            offset: self.offset.unwrap_or(base.offset),
            smoothing: self.smoothing.unwrap_or(base.smoothing),
            min_duration_on: self.min_duration_on.unwrap_or(base.min_duration_on),
            min_duration_off: self.min_duration_off.unwrap_or(base.min_duration_off),
            cooldown: self.cooldown.unwrap_or(base.cooldown),
        }
    }
}
