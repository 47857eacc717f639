//! A buffer's [`Stamp`]: its PTS on every clock a user may ask for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gst::prelude::*;
use gstreamer as gst;

use crate::event::{Stamp, Utc, UtcSource};

/// Seconds from 1900-01-01, where NTP counts from, to 1970-01-01.
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);

/// Why a buffer has no usable time; it passes on and is counted under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimed {
    NoTimestamp,
    OutsideSegment,
}

impl Untimed {
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoTimestamp => "no-timestamp",
            Self::OutsideSegment => "outside-segment",
        }
    }
}

/// The pipeline's clock and where running time 0 lies on it; `None` for input that is not live, whose
/// frames happened at no wall-clock time we know.
pub struct WallClock {
    pub clock: Option<(gst::Clock, gst::ClockTime)>,
}

/// `wall` is asked only if the buffer carries no reference timestamp of its sender.
pub fn stamp(
    buffer: &gst::BufferRef,
    segment: &gst::FormattedSegment<gst::ClockTime>,
    wall: Option<&WallClock>,
) -> Result<Stamp, Untimed> {
    let pts = buffer.pts().ok_or(Untimed::NoTimestamp)?;
    let running_time = segment.to_running_time(pts).ok_or(Untimed::OutsideSegment)?;
    let stream_time = segment.to_stream_time(pts).ok_or(Untimed::OutsideSegment)?;
    Ok(Stamp {
        timestamp: pts.into(),
        stream_time: stream_time.into(),
        running_time: running_time.into(),
        utc: reference(buffer).or_else(|| wall.map(|wall| wall.utc(running_time))),
    })
}

/// The sender's clock, as rtspsrc with add-reference-timestamp-meta and others attach it.
fn reference(buffer: &gst::BufferRef) -> Option<Utc> {
    buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = Duration::from(meta.timestamp());
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => Some(Utc { unix: time.checked_sub(NTP_TO_UNIX)?, source: UtcSource::Ntp }),
            "timestamp/x-unix" => Some(Utc { unix: time, source: UtcSource::Unix }),
            _ => None,
        }
    })
}

impl WallClock {
    /// Now, less the time since the frame's running time on the pipeline clock: when it was captured,
    /// even if it waited in queues. Without a clock: now.
    fn utc(&self, running_time: gst::ClockTime) -> Utc {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = self.clock.as_ref().and_then(|(clock, base_time)| {
            let captured = Duration::from(base_time.checked_add(running_time)?);
            (now + captured).checked_sub(clock.time().into())
        });
        Utc { unix: unix.unwrap_or(now), source: UtcSource::Clock }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(pts: Option<u64>) -> gst::Buffer {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().set_pts(pts.map(gst::ClockTime::from_seconds));
        buffer
    }

    fn segment(start: u64, time: u64, base: u64) -> gst::FormattedSegment<gst::ClockTime> {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(start));
        segment.set_time(gst::ClockTime::from_seconds(time));
        segment.set_base(gst::ClockTime::from_seconds(base));
        segment
    }

    #[test]
    fn three_times_come_from_the_segment() {
        let stamp = stamp(&buffer(Some(12)), &segment(10, 100, 5), None).unwrap();
        assert_eq!(stamp.timestamp, Duration::from_secs(12));
        assert_eq!(stamp.stream_time, Duration::from_secs(102));
        assert_eq!(stamp.running_time, Duration::from_secs(7));
        assert_eq!(stamp.utc, None);
    }

    #[test]
    fn a_buffer_without_place_in_time_is_named_so() {
        assert_eq!(stamp(&buffer(None), &segment(0, 0, 0), None), Err(Untimed::NoTimestamp));
        assert_eq!(stamp(&buffer(Some(9)), &segment(10, 0, 0), None), Err(Untimed::OutsideSegment));
    }

    #[test]
    fn the_senders_clock_wins_and_ntp_counts_from_1900() {
        for (name, seconds, source) in [
            ("timestamp/x-ntp", 2_208_988_800 + 1_700_000_000, UtcSource::Ntp),
            ("timestamp/x-unix", 1_700_000_000, UtcSource::Unix),
        ] {
            let mut buffer = buffer(Some(1));
            gst::ReferenceTimestampMeta::add(
                buffer.make_mut(),
                &gst::Caps::new_empty_simple("timestamp/x-other"),
                gst::ClockTime::from_seconds(5),
                gst::ClockTime::NONE,
            );
            gst::ReferenceTimestampMeta::add(
                buffer.make_mut(),
                &gst::Caps::new_empty_simple(name),
                gst::ClockTime::from_seconds(seconds),
                gst::ClockTime::NONE,
            );
            let wall = WallClock { clock: None };
            let utc = stamp(&buffer, &segment(0, 0, 0), Some(&wall)).unwrap().utc.unwrap();
            assert_eq!(utc, Utc { unix: Duration::from_secs(1_700_000_000), source });
        }
    }

    #[test]
    fn the_pipeline_clock_dates_a_late_frame_back() {
        let buffer = buffer(Some(1));
        let clock = gst::SystemClock::obtain();
        // Running time 0 was 3 s ago, so a frame at 1 s is 2 s old.
        let base = clock.time() - gst::ClockTime::from_seconds(3);
        let wall = WallClock { clock: Some((clock, base)) };
        let utc = stamp(&buffer, &segment(0, 0, 0), Some(&wall)).unwrap().utc.unwrap();
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - utc.unix;
        assert_eq!(utc.source, UtcSource::Clock);
        assert!((1.9..2.9).contains(&age.as_secs_f64()), "{age:?}");
    }
}
