//! One stream and its views: sample → reduce → window → engine → score → gate → outlet.
//! Knows no GStreamer and no socket.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, EngineError};
use crate::event::{Event, GateSettings, Reason, Source, Stamp};
use crate::image::{Image, ImageError, Roi};
use crate::model::labels::Labels;
use crate::preprocess::Geometry;
use crate::score::Competition;

/// What may change while playing.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Frames taken per second of stream time, (numerator, denominator); `None`: the checkpoint's.
    pub sample_rate: Option<(u32, u32)>,
    /// Sampled frames between windows, ≥ 1.
    pub hop: u32,
    pub gate: GateSettings,
    pub competition: Competition,
    /// Background prompts of the stream; `None`: the label file's, else the checkpoint's.
    pub background: Option<Vec<String>>,
    /// A change starts a new window.
    pub roi: Roi,
    /// Spatial rule; `None`: the checkpoint's. A change starts a new window.
    pub geometry: Option<Geometry>,
    /// How many labels a window report and an event list.
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

/// How `push` treats a busy engine. Set once, before the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `push` never waits; newest window wins, drops are counted.
    Async,
    /// `push` returns when the window it completed was scored; nothing is dropped.
    Sync,
}

/// A scored window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowScores {
    pub view: String,
    pub start: Stamp,
    pub end: Stamp,
    /// All labels' probabilities of this window (not smoothed), best first, at most `top_k`.
    pub top: Vec<(String, f32)>,
    pub labels_generation: u64,
}

/// Where results go. Called without any lock of the detector held: from `push` in sync mode (same
/// thread), from the engine's worker in async mode, from the caller for ends it caused.
pub trait Outlet: Send + Sync {
    fn event(&self, event: &Event);
    fn window(&self, window: &WindowScores);
    /// A window could not be computed; the stream goes on. For a warning or an element error.
    fn failed(&self, error: &EngineError);
}

#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("labels: {0}")]
    Syntax(String),
}

/// Counters since the detector was made, and quantiles over the last windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Frames offered by the stream.
    pub frames: u64,
    /// Frames the sampler kept.
    pub sampled: u64,
    /// Windows scored.
    pub windows: u64,
    /// Dropped windows by reason: superseded, loading, flushed, failed.
    pub dropped: std::collections::BTreeMap<&'static str, u64>,
    /// Windows waiting or in work now.
    pub queue: u32,
    pub inference_p50: Duration,
    pub inference_p95: Duration,
    /// From the last frame's arrival to the event's emission.
    pub delay_p50: Duration,
    pub delay_p95: Duration,
    /// Event messages sent, by phase.
    pub starts: u64,
    pub updates: u64,
    pub ends: u64,
}

/// An open event, for `active-events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    pub id: uuid::Uuid,
    pub label: String,
    pub score: f32,
    pub start: Stamp,
}

pub struct Detector {}

impl Detector {
    pub fn new(
        engine: Arc<Engine>,
        source: Source,
        settings: Settings,
        labels: Labels,
        mode: Mode,
        outlet: Arc<dyn Outlet>,
    ) -> Result<Arc<Self>, DetectorError> {
        let _ = (engine, source, settings, labels, mode, outlet);
        todo!("engine branch")
    }

    /// Replaces the label set; events of removed labels end with `LabelRemoved` at once. Returns the
    /// new generation. On an error the old set stays.
    pub fn set_labels(&self, labels: Labels) -> Result<u64, DetectorError> {
        let _ = labels;
        todo!("engine branch")
    }

    pub fn set_settings(&self, settings: Settings) -> Result<(), DetectorError> {
        let _ = settings;
        todo!("engine branch")
    }

    pub fn set_source(&self, source: Source) {
        let _ = source;
        todo!("engine branch")
    }

    /// Whether the frame at `time` would be kept; call before mapping the buffer. Counts the frame,
    /// notices gaps and jumps in time (the window restarts, open events end as the rules say).
    pub fn wants(&self, time: &Stamp) -> bool {
        let _ = time;
        todo!("engine branch")
    }

    /// Takes a frame that `wants` agreed to.
    pub fn push(&self, time: Stamp, image: &Image<'_>) -> Result<(), DetectorError> {
        let _ = (time, image);
        todo!("engine branch")
    }

    /// The stream broke (DISCONT, new stream-id, segment): no window mixes before and after. Events
    /// stay open (the same camera goes on) unless `end` gives a reason to end them.
    pub fn restart(&self, end: Option<Reason>) {
        let _ = end;
        todo!("engine branch")
    }

    /// Drops windows in flight (their results are ignored), wakes a waiting `push`, ends open events
    /// with `reason`.
    pub fn flush(&self, reason: Reason) {
        let _ = reason;
        todo!("engine branch")
    }

    /// End of stream: waits for the windows in flight, then ends open events. `flush` interrupts it.
    pub fn finish(&self, reason: Reason) {
        let _ = reason;
        todo!("engine branch")
    }

    /// While `on`, no `push` waits and none completes a window: for FLUSH_START … FLUSH_STOP and for
    /// leaving PAUSED, where a streaming thread may be on its way into `push`. Starts off.
    pub fn interrupt(&self, on: bool) {
        let _ = on;
        todo!("engine branch")
    }

    /// T / sample rate: what one window covers of a stream that delivers frames fast enough.
    pub fn window_span(&self) -> Duration {
        todo!("engine branch")
    }

    /// max(window span, 2 s): a live stream silent for longer has stalled; call `flush(Stalled)` then.
    pub fn stall_timeout(&self) -> Duration {
        todo!("engine branch")
    }

    pub fn labels_generation(&self) -> u64 {
        todo!("engine branch")
    }

    pub fn stats(&self) -> Stats {
        todo!("engine branch")
    }

    pub fn active(&self) -> Vec<Active> {
        todo!("engine branch")
    }
}
