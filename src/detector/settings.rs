//! What a stream may change while playing, and its bounds.

use crate::event::{GateError, GateSettings};
use crate::image::{ImageError, Roi};
use crate::preprocess::{Geometry, Rule};
use crate::score::Competition;

/// What may change while playing.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Frames taken per second of stream time, (numerator, denominator), 1/60 to 120; `None`: the
    /// checkpoint's. A change starts a new window.
    pub sample_rate: Option<(u32, u32)>,
    /// Sampled frames between windows, 1 to 10,000.
    pub hop: u32,
    pub gate: GateSettings,
    pub competition: Competition,
    /// Background prompts of the stream; `None`: the label file's, else the checkpoint's.
    pub background: Option<Vec<String>>,
    /// A change starts a new window.
    pub roi: Roi,
    /// Spatial rule; `None`: the checkpoint's. A change starts a new window.
    pub geometry: Option<Geometry>,
    /// How many labels a window report and an event list, at most 1,000.
    pub top_k: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sample_rate: None,
            hop: 2,
            gate: GateSettings::default(),
            competition: Competition::default(),
            background: None,
            roi: Roi::WHOLE,
            geometry: None,
            top_k: 5,
        }
    }
}

/// A setting out of its range, named as the element's property.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SettingsError {
    #[error("sample-rate must be from 1/60 to 120/1 frames per second, got {0}/{1}")]
    SampleRate(u32, u32),
    #[error("hop must be from 1 to 10000 sampled frames, got {0}")]
    Hop(u32),
    #[error("top-k must be at most 1000 labels, got {0}")]
    TopK(usize),
    #[error("resize: the short side must be from the model's {size} to 4096 pixels, got {short}")]
    Resize { size: u32, short: u32 },
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Roi(#[from] ImageError),
}

impl Settings {
    /// Checks every range; `rule` is the checkpoint's.
    pub fn validate(&self, rule: &Rule) -> Result<(), SettingsError> {
        if let Some((num, den)) = self.sample_rate {
            let rate = f64::from(num) / f64::from(den);
            if !(1.0 / 60.0..=120.0).contains(&rate) {
                return Err(SettingsError::SampleRate(num, den));
            }
        }
        if !(1..=10_000).contains(&self.hop) {
            return Err(SettingsError::Hop(self.hop));
        }
        if self.top_k > 1000 {
            return Err(SettingsError::TopK(self.top_k));
        }
        if let Some(Geometry::ShortestEdge { short }) = self.geometry
            && !(rule.size..=4096).contains(&short)
        {
            return Err(SettingsError::Resize { size: rule.size, short });
        }
        self.gate.validate()?;
        let Roi { x, y, w, h } = self.roi;
        Roi::new(x, y, w, h)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { size: 96, geometry: Geometry::Stretch, mean: [0.0; 3], std: [1.0; 3] };

    #[test]
    fn defaults_are_valid_and_each_fault_names_its_property() {
        assert_eq!(Settings::default().validate(&RULE), Ok(()));
        let gate = GateSettings::default();
        let base = Settings::default;
        for (settings, name) in [
            (Settings { sample_rate: Some((0, 1)), ..base() }, "sample-rate"),
            (Settings { sample_rate: Some((4, 0)), ..base() }, "sample-rate"),
            (Settings { sample_rate: Some((0, 0)), ..base() }, "sample-rate"),
            (Settings { sample_rate: Some((1, 61)), ..base() }, "sample-rate"),
            (Settings { hop: 0, ..base() }, "hop"),
            (Settings { top_k: 1001, ..base() }, "top-k"),
            (Settings { geometry: Some(Geometry::ShortestEdge { short: 95 }), ..base() }, "resize"),
            (Settings { gate: GateSettings { onset: 1.5, ..gate }, ..base() }, "onset"),
            (Settings { gate: GateSettings { offset: f32::NAN, ..gate }, ..base() }, "offset"),
            (Settings { gate: GateSettings { offset: 0.9, ..gate }, ..base() }, "offset"),
            (Settings { roi: Roi { x: 0.5, y: 0.0, w: 0.6, h: 1.0 }, ..base() }, "roi"),
        ] {
            let message = settings.validate(&RULE).unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
        }
    }
}
