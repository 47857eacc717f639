//! Scores over time → events: one start, one end, the right time.
//!
//! Gate as in speech activity detection: `onset`, `offset`, `min_duration_on`, `min_duration_off`,
//! plus `cooldown` counted from events sent. [`Hysteresis`] is the gate of one label; [`json`] is the
//! one shape events have outside this process.

pub mod gate;
pub mod json;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use gate::{Hysteresis, Span, Step};

/// When something happened, on every clock a user may ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp {
    /// Buffer timestamp (PTS).
    pub timestamp: Duration,
    /// Position in the stream: what a player's seek bar shows. The clock of the sampler and the gate: a file
    /// played at double speed gives the same events.
    pub stream_time: Duration,
    /// Time since the pipeline started playing, pauses excluded. Reported only.
    pub running_time: Duration,
    pub utc: Option<Utc>,
}

impl Stamp {
    /// Half-way between the first and the last frame of a window, on every clock.
    pub fn middle(first: &Stamp, last: &Stamp) -> Stamp {
        let half = |a: Duration, b: Duration| (a + b) / 2;
        let utc = match (first.utc, last.utc) {
            (Some(a), Some(b)) if a.source == b.source => Some(Utc { unix: half(a.unix, b.unix), ..b }),
            // Two clocks cannot be averaged: go half the window back from the later one, else forward.
            (_, Some(b)) => {
                let back = last.running_time.saturating_sub(first.running_time) / 2;
                Some(Utc { unix: b.unix.saturating_sub(back), ..b })
            }
            (Some(a), None) => {
                let ahead = last.running_time.saturating_sub(first.running_time) / 2;
                Some(Utc { unix: a.unix + ahead, ..a })
            }
            (None, None) => None,
        };
        Stamp {
            timestamp: half(first.timestamp, last.timestamp),
            stream_time: half(first.stream_time, last.stream_time),
            running_time: half(first.running_time, last.running_time),
            utc,
        }
    }
}

/// Wall-clock time since 1970-01-01T00:00:00Z, and who said so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utc {
    pub unix: Duration,
    pub source: UtcSource,
}

/// Whose clock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UtcSource {
    /// The sender's clock by RTCP/NTP (reference timestamp meta `timestamp/x-ntp`).
    Ntp,
    /// The sender's clock (reference timestamp meta `timestamp/x-unix`).
    Unix,
    /// This machine's clock when the buffer came.
    Clock,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateSettings {
    /// Probability that starts an event, 0..1.
    pub onset: f32,
    /// Probability under which an event ends, 0..=onset.
    pub offset: f32,
    /// Time constant of exponential smoothing over window scores; 0 is none.
    pub smoothing: Duration,
    /// Over onset at least this long before a start is sent.
    pub min_duration_on: Duration,
    /// Under offset at least this long before an end is sent (shorter gaps are merged).
    pub min_duration_off: Duration,
    /// After an event that was sent: no new start of this label for this long.
    pub cooldown: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GateError {
    #[error("{name} must be a probability from 0 to 1, got {found}")]
    Probability { name: &'static str, found: f32 },
    #[error("offset must not be above onset, got offset {offset} with onset {onset}")]
    Order { onset: f32, offset: f32 },
}

impl GateSettings {
    pub fn validate(&self) -> Result<(), GateError> {
        for (name, found) in [("onset", self.onset), ("offset", self.offset)] {
            // Also refuses NaN.
            if !(0.0..=1.0).contains(&found) {
                return Err(GateError::Probability { name, found });
            }
        }
        if self.offset > self.onset {
            return Err(GateError::Order { onset: self.onset, offset: self.offset });
        }
        Ok(())
    }
}

impl Default for GateSettings {
    /// For 2 s windows every 0.5 s, chosen by the sweep of models/demo/README.md: a high onset keeps quiet as
    /// well as a lower one behind smoothing, and tells earlier. Dips shorter than a second are merged; ends
    /// are dated back, so waiting costs no accuracy.
    fn default() -> Self {
        Self {
            onset: 0.8,
            offset: 0.4,
            smoothing: Duration::ZERO,
            min_duration_on: Duration::ZERO,
            min_duration_off: Duration::from_secs(1),
            cooldown: Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Start,
    Update,
    End,
}

/// Why a phase was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Start: the smoothed score passed onset.
    Onset,
    /// Update: a new peak.
    Peak,
    /// End: the smoothed score fell under offset.
    Offset,
    Eos,
    Flush,
    LabelRemoved,
    Stalled,
    /// The stream broke: another connection, caps gap, a jump in time.
    Discontinuity,
    Disabled,
}

/// One message about one event. The id is the same from start to end; seq counts 1, 2, … within it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub source: Source,
    pub view: String,
    pub id: uuid::Uuid,
    pub seq: u32,
    pub phase: Phase,
    pub reason: Reason,
    pub label: String,
    pub severity: Option<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Smoothed probability now, 0..1.
    pub score: f32,
    /// Highest smoothed probability so far, 0..1.
    pub peak: f32,
    /// Middle of the first window over offset, of those that led over onset.
    pub start: Stamp,
    /// Last frame of the window that confirmed the start.
    pub detected: Stamp,
    /// Middle of the first window under offset, or the last frame seen; in end messages only.
    pub end: Option<Stamp>,
    /// First and last frame of the window behind this message.
    pub window_start: Stamp,
    pub window_end: Stamp,
    /// Best labels of that window with their probabilities, best first.
    pub top: Vec<(String, f32)>,
    pub labels_generation: u64,
    /// Fingerprint of the checkpoint.
    pub model: String,
}

/// Where events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// The element's name.
    pub instance: String,
    /// The stream-id property, else the upstream stream id.
    pub stream: String,
}
