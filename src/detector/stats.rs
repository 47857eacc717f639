//! What the detector counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Counters since the detector was made, and quantiles over the last 256 windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Frames offered by the stream.
    pub frames: u64,
    /// Frames the sampler kept.
    pub sampled: u64,
    /// Of these, frames sent to a GPU, which reduces them to the model's input; the processor did the others.
    pub uploaded: u64,
    /// Windows begun anew by a gap, a jump in time, a restart or a changed setting.
    pub restarts: u64,
    /// Windows scored.
    pub windows: u64,
    /// Dropped windows by reason: superseded, loading, flushed, failed.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Windows waiting or in work now.
    pub queue: u32,
    pub inference_p50: Duration,
    pub inference_p95: Duration,
    /// From the last frame's arrival to the window's result, and so to the events it causes.
    pub delay_p50: Duration,
    pub delay_p95: Duration,
    /// Event messages sent, by phase.
    pub starts: u64,
    pub updates: u64,
    pub ends: u64,
}

/// The last 256 durations.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(VecDeque<Duration>);

impl Recent {
    pub fn add(&mut self, value: Duration) {
        if self.0.len() == 256 {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// (median, 95th percentile), nearest rank; zero before the first value.
    pub fn quantiles(&self) -> (Duration, Duration) {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(index).copied().unwrap_or_default()
        };
        (rank(50), rank(95))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_256_values() {
        let mut recent = Recent::default();
        assert_eq!(recent.quantiles(), (Duration::ZERO, Duration::ZERO));
        for ms in 1..=1000 {
            recent.add(Duration::from_millis(ms));
        }
        let (p50, p95) = recent.quantiles();
        assert_eq!((p50.as_millis(), p95.as_millis()), (872, 988));
    }
}
