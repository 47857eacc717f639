//! A camera's events as they were told, in real time, beside a script that began at a known moment.

use std::time::SystemTime;

use super::matching::{Reported, Span};
use crate::event::Phase;
use crate::event::json::{Record, StampRecord};

/// Messages of events, each with the moment at which it was heard.
#[derive(Clone, Debug, Default)]
pub struct Told(pub Vec<(Record, SystemTime)>);

impl Told {
    /// Events that have ended, on the script's clock: seconds since `begun`. Spans are what the messages say,
    /// by the sender's clock where it is known; when a start and an end were known is when they were heard.
    pub fn reported(&self, begun: SystemTime) -> Vec<Reported> {
        let of = |start: &Record, phase: Phase| {
            self.0.iter().find(|(record, _)| record.id == start.id && record.phase == phase)
        };
        let starts = self.0.iter().filter(|(record, _)| record.phase == Phase::Start);
        let one = |(start, heard): &(Record, SystemTime)| {
            let (end, ended) = of(start, Phase::End)?;
            let span = Span {
                label: start.label.clone(),
                start: seconds(&start.start, begun)?,
                end: seconds(end.end.as_ref()?, begun)?,
            };
            Some(Reported { span, detected: since(*heard, begun), ended: since(*ended, begun) })
        };
        starts.filter_map(one).collect()
    }
}

/// `None` without a wall-clock time: the stream was not live.
fn seconds(stamp: &StampRecord, begun: SystemTime) -> Option<f64> {
    let utc: jiff::Timestamp = stamp.utc.as_ref()?.parse().ok()?;
    Some(utc.duration_since(jiff::Timestamp::try_from(begun).ok()?).as_secs_f64())
}

fn since(moment: SystemTime, begun: SystemTime) -> f64 {
    match moment.duration_since(begun) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
