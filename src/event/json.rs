//! An event as JSON: the bus message, the custom event, the `events` pad and `xclipd` all carry these
//! fields. Keys are kebab-case but for `utc_source`; times are integers in nanoseconds.
//!
//! config/event.schema.json is generated from [`Record`]; tests/event_schema.rs holds them together.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Event, Phase, Reason, Source, Stamp, UtcSource};

/// Version of the shape; a field that changes its meaning or goes raises it, a new one does not.
pub const SCHEMA: u32 = 1;

/// One message about one action event of one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "xclip event")]
pub struct Record {
    /// Version of this shape.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    pub source: Source,
    /// What is watched: `frame`, or the name of a zone.
    pub view: String,
    /// UUIDv7; the same from start to end.
    #[schemars(regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"))]
    pub id: String,
    /// 1, 2, … within the event.
    #[schemars(range(min = 1))]
    pub seq: u32,
    pub phase: Phase,
    pub reason: Reason,
    pub label: String,
    /// From the label file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub severity: Option<String>,
    /// Free metadata of the label file.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Smoothed probability now.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f32,
    /// Highest smoothed probability so far.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub peak: f32,
    /// Middle of the first window over offset, of those that led over onset.
    pub start: StampRecord,
    /// Last frame of the window that confirmed the start.
    pub detected: StampRecord,
    /// Middle of the first window under offset, or the last frame seen. In phase `end` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StampRecord")]
    pub end: Option<StampRecord>,
    /// First frame of the window behind this message.
    pub window_start: StampRecord,
    /// Last frame of the window behind this message.
    pub window_end: StampRecord,
    /// Best labels of that window (not smoothed), best first.
    pub top: Vec<Top>,
    /// Counts label sets since the element started; the set this event was scored with.
    #[schemars(range(min = 1))]
    pub labels_generation: u64,
    /// Fingerprint of the checkpoint.
    pub model: String,
}

/// One moment on every clock, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Stamp")]
pub struct StampRecord {
    /// Buffer timestamp (PTS).
    pub timestamp: u64,
    /// Position in the stream.
    pub stream_time: u64,
    /// Time since the pipeline started playing, pauses excluded.
    pub running_time: u64,
    /// Wall-clock time, RFC 3339 with nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub utc: Option<String>,
    /// Whose clock `utc` is.
    #[serde(rename = "utc_source", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UtcSource")]
    pub utc_source: Option<UtcSource>,
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Top {
    pub label: String,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f32,
}

impl Record {
    /// One line of newline-delimited JSON, without the newline.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("string keys and finite numbers always serialise")
    }
}

/// The JSON Schema of [`Record`].
pub fn schema() -> Value {
    schemars::schema_for!(Record).to_value()
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Self {
        Self {
            schema: SCHEMA,
            source: event.source.clone(),
            view: event.view.clone(),
            id: event.id.to_string(),
            seq: event.seq,
            phase: event.phase,
            reason: event.reason,
            label: event.label.clone(),
            severity: event.severity.clone(),
            metadata: event.metadata.clone(),
            score: event.score,
            peak: event.peak,
            start: (&event.start).into(),
            detected: (&event.detected).into(),
            end: event.end.as_ref().map(Into::into),
            window_start: (&event.window_start).into(),
            window_end: (&event.window_end).into(),
            top: event.top.iter().map(|(label, score)| Top { label: label.clone(), score: *score }).collect(),
            labels_generation: event.labels_generation,
            model: event.model.clone(),
        }
    }
}

impl From<&Stamp> for StampRecord {
    fn from(stamp: &Stamp) -> Self {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        // A time past the year 9999 is no time: it is left out like an unknown one.
        let utc = stamp.utc.and_then(|utc| Some((rfc3339(utc.unix)?, utc.source)));
        Self {
            timestamp: ns(stamp.timestamp),
            stream_time: ns(stamp.stream_time),
            running_time: ns(stamp.running_time),
            utc_source: utc.as_ref().map(|(_, source)| *source),
            utc: utc.map(|(text, _)| text),
        }
    }
}

/// `2026-11-23T12:00:00.5Z`; `None` past the year 9999.
pub fn rfc3339(unix: Duration) -> Option<String> {
    let nanos = i128::try_from(unix.as_nanos()).ok()?;
    Some(jiff::Timestamp::from_nanosecond(nanos).ok()?.to_string())
}
