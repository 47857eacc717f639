//! Which frames are kept, and which T of them make a clip.
//!
//! Sampling goes by stream time, never by frame count: cameras change their rate, files are played at
//! other speeds. Time is a `Duration` of one clock throughout; the caller says which.
//!
//! Invariant: no window holds frames from both sides of a break (a gap, a jump back, a restart).

use std::collections::VecDeque;
use std::time::Duration;

/// Frames per second as a fraction; both parts ≥ 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    num: u32,
    den: u32,
}

impl Rate {
    /// `None` if a part is 0.
    pub fn new(num: u32, den: u32) -> Option<Self> {
        (num > 0 && den > 0).then_some(Self { num, den })
    }

    /// Time of `frames` sampling intervals, rounded down to a nanosecond.
    pub fn span(self, frames: u64) -> Duration {
        nanos(u128::from(frames) * u128::from(self.den) * 1_000_000_000 / u128::from(self.num))
    }
}

fn nanos(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or(u64::MAX))
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Skip,
    Keep,
    /// Keep it as the first frame of a new window.
    Restart(Break),
}

/// Why frames before and after do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// First frame, or the first after [`Sampler::restart`].
    Begin,
    /// No frame for longer than the window lasts.
    Gap,
    /// Time went back by more than a sampling interval, or at all after a restart.
    Backwards,
}

/// Keeps `rate` frames per second.
///
/// A regular grid of due times starts at the first frame; the first frame that comes no earlier than
/// 3/8 of a frame step before a due time is kept. Without that grace a camera that runs at the sampling
/// rate would lose frames to every jitter; at 1/2, common rates (25 or 30 frames to 4) lie on the edge,
/// where jitter picks now one frame, now its neighbour. A frame late
/// by whole intervals moves the grid on, so that a slow camera gives every frame once and never a burst.
#[derive(Clone, Debug)]
pub struct Sampler {
    rate: Rate,
    /// A step longer than this breaks the window.
    gap: Duration,
    /// Origin of the grid and the index of the next due time.
    grid: Option<(Duration, u64)>,
    /// Latest time seen.
    last: Option<Duration>,
    /// Running mean of the time between frames, at most an interval; zero until two were seen.
    step: Duration,
}

impl Sampler {
    /// `frames`: T; a gap longer than T intervals breaks the window. A camera slower than one frame
    /// per T intervals therefore never fills one.
    pub fn new(rate: Rate, frames: usize) -> Self {
        Self { rate, gap: rate.span(frames as u64), grid: None, last: None, step: Duration::ZERO }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// T intervals: what a window covers, and the longest step that does not break it.
    pub fn window_span(&self) -> Duration {
        self.gap
    }

    /// The next frame begins a new window. The last time stays known, so that a gap or a jump back
    /// across the restart is still told.
    pub fn restart(&mut self) {
        self.grid = None;
    }

    /// Takes the time of the next frame of the stream.
    pub fn observe(&mut self, time: Duration) -> Verdict {
        if let Some(last) = self.last {
            let fresh = self.grid.is_none();
            if time < last && (fresh || last - time > self.rate.span(1)) {
                return self.begin(time, Break::Backwards);
            }
            if time > last && time - last > self.gap {
                return self.begin(time, Break::Gap);
            }
            // A duplicate or two frames out of order: a frame is never taken twice, nor time turned.
            if time <= last && !fresh {
                return Verdict::Skip;
            }
        }
        let Some((origin, next)) = self.grid else { return self.begin(time, Break::Begin) };
        let interval = self.rate.span(1);
        let step = self.last.map_or(interval, |last| time.saturating_sub(last)).min(interval);
        self.step = if self.step.is_zero() { step } else { (self.step * 7 + step) / 8 };
        self.last = Some(time);
        let due = origin + self.rate.span(next);
        if time + self.step * 3 / 8 < due {
            return Verdict::Skip;
        }
        let late = time.saturating_sub(due).as_nanos() / interval.as_nanos().max(1);
        self.grid = Some((origin, next + 1 + late as u64));
        Verdict::Keep
    }

    fn begin(&mut self, time: Duration, why: Break) -> Verdict {
        self.grid = Some((time, 1));
        self.last = Some(time);
        Verdict::Restart(why)
    }
}

/// The last T kept frames; a clip is due when T are there, then every `hop` kept frames.
///
/// At a steady frame rate of at least the sampling rate a clip spans T − 1 intervals. A slower camera
/// spans longer; frames the caller could not keep leave a hole no longer than the sampler's gap.
#[derive(Clone, Debug)]
pub struct Window<F> {
    frames: VecDeque<F>,
    length: usize,
    hop: u32,
    /// Kept frames since the last clip; meaningless until the window was full.
    since: u32,
    emitted: bool,
}

impl<F: Clone> Window<F> {
    /// `length`: T ≥ 1; `hop` ≥ 1 (0 counts as 1).
    pub fn new(length: usize, hop: u32) -> Self {
        let length = length.max(1);
        Self { frames: VecDeque::with_capacity(length), length, hop: hop.max(1), since: 0, emitted: false }
    }

    /// From the next frame on.
    pub fn set_hop(&mut self, hop: u32) {
        self.hop = hop.max(1);
    }

    pub fn restart(&mut self) {
        self.frames.clear();
        self.emitted = false;
    }

    /// Adds a frame; a clip of exactly T frames, oldest first, when one is due.
    pub fn push(&mut self, frame: F) -> Option<Vec<F>> {
        if self.frames.len() == self.length {
            self.frames.pop_front();
        }
        self.frames.push_back(frame);
        if self.frames.len() < self.length {
            return None;
        }
        self.since = self.since.saturating_add(1);
        if self.emitted && self.since < self.hop {
            return None;
        }
        (self.emitted, self.since) = (true, 0);
        Some(self.frames.iter().cloned().collect())
    }

    /// T
    pub fn length(&self) -> usize {
        self.length
    }

    /// The newest frame held.
    pub fn newest(&self) -> Option<&F> {
        self.frames.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn sampler(num: u32, den: u32) -> Sampler {
        Sampler::new(Rate::new(num, den).unwrap(), 8)
    }

    fn kept(sampler: &mut Sampler, times: impl IntoIterator<Item = Duration>) -> Vec<Duration> {
        times.into_iter().filter(|&t| sampler.observe(t) != Verdict::Skip).collect()
    }

    #[test]
    fn every_camera_rate_at_least_the_sampling_rate_gives_it_exactly() {
        for fps in [4u64, 5, 6, 10, 12, 15, 24, 25, 30, 50, 60] {
            let times = (0..fps * 60).map(|i| Duration::from_nanos(i * 1_000_000_000 / fps));
            let count = kept(&mut sampler(4, 1), times).len();
            assert!((239..=241).contains(&count), "{fps} fps gave {count} frames in 60 s");
        }
    }

    #[test]
    fn a_fractional_rate_does_not_drift() {
        // 30000/1001 is the rate of NTSC cameras; an hour of it.
        let times = (0..107_892u64).map(|i| Duration::from_nanos(i * 1_001_000_000 / 30));
        let count = kept(&mut sampler(30_000, 7 * 1001), times).len();
        assert!((15_412..=15_414).contains(&count), "{count}");
    }

    #[test]
    fn a_slow_camera_gives_every_frame_once() {
        for step in [260, 500, 900, 1999] {
            let times: Vec<_> = (0..50).map(|i| MS(i * step)).collect();
            assert_eq!(kept(&mut sampler(4, 1), times.clone()), times);
        }
    }

    #[test]
    fn jitter_around_the_sampling_rate_loses_no_frame() {
        // A 4 fps camera whose frames come up to 40 ms early or late, at any phase of the grid.
        for first in 0..=80 {
            let noise = |i: u64| (i * 7919 + 13) % 81;
            let times = (0..400).map(|i| MS(1000 + i * 250 + if i == 0 { first } else { noise(i) }));
            let count = kept(&mut sampler(4, 1), times).len();
            assert!(count >= 398, "first frame at {first} ms: {count} of 400");
        }
    }

    #[test]
    fn jitter_of_a_fast_camera_keeps_the_same_frames() {
        let noise = |i: u64| (i * 7919 + 13) % 5;
        let steady = kept(&mut sampler(4, 1), (0..3000).map(|i| MS(i * 40)));
        let jittered = kept(&mut sampler(4, 1), (0..3000).map(|i| MS(i * 40 + noise(i))));
        let index = |v: &[Duration]| v.iter().map(|t| t.as_millis() / 40).collect::<Vec<_>>();
        let (a, b) = (index(&steady), index(&jittered));
        let same = a.iter().filter(|i| b.contains(i)).count();
        assert!(same * 10 >= a.len() * 9, "{same} of {}", a.len());
    }

    #[test]
    fn a_gap_longer_than_the_window_breaks_it_and_a_shorter_one_does_not() {
        let mut s = sampler(4, 1);
        assert_eq!(s.observe(MS(0)), Verdict::Restart(Break::Begin));
        assert_eq!(s.observe(MS(2000)), Verdict::Keep);
        assert_eq!(s.observe(MS(4001)), Verdict::Restart(Break::Gap));
        assert_eq!(s.observe(MS(4251)), Verdict::Keep);
    }

    #[test]
    fn a_jump_back_breaks_the_window_and_disorder_is_skipped() {
        let mut s = sampler(4, 1);
        s.observe(MS(10_000));
        assert_eq!(s.observe(MS(10_000)), Verdict::Skip, "duplicate");
        assert_eq!(s.observe(MS(10_250)), Verdict::Keep);
        assert_eq!(s.observe(MS(10_100)), Verdict::Skip, "out of order");
        assert_eq!(s.observe(MS(10_500)), Verdict::Keep);
        assert_eq!(s.observe(MS(3_000)), Verdict::Restart(Break::Backwards));
        assert_eq!(s.observe(MS(3_250)), Verdict::Keep);
    }

    #[test]
    fn a_restart_begins_anew_and_still_tells_a_jump_across_it() {
        let mut s = sampler(4, 1);
        s.observe(MS(1000));
        s.restart();
        assert_eq!(s.observe(MS(1040)), Verdict::Restart(Break::Begin));
        s.restart();
        assert_eq!(s.observe(MS(1000)), Verdict::Restart(Break::Backwards));
        s.restart();
        assert_eq!(s.observe(MS(9000)), Verdict::Restart(Break::Gap));
    }

    #[test]
    fn first_window_when_full_then_one_each_hop() {
        let mut w = Window::new(4, 2);
        let clips: Vec<_> = (0..9).filter_map(|i| w.push(i)).collect();
        assert_eq!(clips, [vec![0, 1, 2, 3], vec![2, 3, 4, 5], vec![4, 5, 6, 7]]);
        w.restart();
        assert!((9..12).all(|i| w.push(i).is_none()));
        assert_eq!(w.push(12), Some(vec![9, 10, 11, 12]));
    }

    #[test]
    fn a_hop_longer_than_the_window_leaves_frames_out() {
        let mut w = Window::new(2, 3);
        let clips: Vec<_> = (0..9).filter_map(|i| w.push(i)).collect();
        assert_eq!(clips, [vec![0, 1], vec![3, 4], vec![6, 7]]);
    }

    proptest! {
        #[test]
        fn any_times_give_windows_in_order_without_breaks_inside(
            steps in prop::collection::vec(-3000i64..3000, 1..300), num in 1u32..30, den in 1u32..4
        ) {
            let mut s = Sampler::new(Rate::new(num, den).unwrap(), 4);
            let mut w = Window::new(4, 1);
            let mut now = 1_000_000i64;
            for step in steps {
                now += step;
                let time = MS(now as u64);
                match s.observe(time) {
                    Verdict::Skip => continue,
                    Verdict::Keep => {}
                    Verdict::Restart(_) => w.restart(),
                }
                if let Some(clip) = w.push(time) {
                    prop_assert_eq!(clip.len(), 4);
                    prop_assert!(clip.windows(2).all(|p| p[0] < p[1]), "{:?}", clip);
                }
            }
        }

        #[test]
        fn never_more_frames_than_the_rate_allows(steps in prop::collection::vec(0u64..400, 1..500)) {
            let mut s = sampler(4, 1);
            let mut now = 0;
            let times: Vec<_> = steps.iter().map(|step| { now += step; MS(now) }).collect();
            let span = *times.last().unwrap() - times[0];
            let count = kept(&mut s, times).len() as u128;
            prop_assert!(count <= span.as_millis() / 250 + 2);
        }
    }
}
