//! Which true actions begin or end as time goes by.

use std::time::Duration;

use gstreamer as gst;

use crate::scene::Truth;

/// Says each start and each end once, in order of time.
#[derive(Debug, Default)]
pub struct Announcer {
    /// In order of start.
    items: Vec<Item>,
    /// First item that has not started.
    next: usize,
    /// Items that have started and not ended.
    open: Vec<usize>,
    /// What ended by then is passed over: it was sought past.
    from: Duration,
}

#[derive(Debug)]
struct Item {
    start: Duration,
    end: Duration,
    truth: Truth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Start,
    End,
}

impl Announcer {
    pub fn new(truth: Vec<Truth>) -> Self {
        let time = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        let item = |truth: Truth| Item { start: time(truth.start), end: time(truth.end), truth };
        Self { items: truth.into_iter().map(item).collect(), ..Self::default() }
    }

    /// What begins or ends up to stream time `now`.
    pub fn advance(&mut self, now: Duration) -> Vec<(Phase, usize)> {
        let mut said = Vec::new();
        while let Some(item) = self.items.get(self.next).filter(|item| item.start <= now) {
            if item.end > self.from {
                said.push((item.start, Phase::Start, self.next));
                self.open.push(self.next);
            }
            self.next += 1;
        }
        self.open.retain(|&index| {
            let over = self.items[index].end <= now;
            if over {
                said.push((self.items[index].end, Phase::End, index));
            }
            !over
        });
        // Stable, so what is shorter than a picture starts before it ends.
        said.sort_by_key(|&(time, phase, _)| (time, phase == Phase::Start));
        said.into_iter().map(|(_, phase, index)| (phase, index)).collect()
    }

    /// Goes on at stream time `now`, earlier or later: what is under way there starts again.
    pub fn seek(&mut self, now: Duration) {
        self.next = 0;
        self.open.clear();
        self.from = now;
    }

    /// Item `index` as a structure of the `truth` property.
    fn structure(&self, index: usize) -> gst::structure::Builder {
        let Item { start, end, truth } = &self.items[index];
        gst::Structure::builder("xclip-truth")
            .field("index", index as u64)
            .field("label", truth.label)
            .field_if_some("colour", truth.colour.map(|colour| colour.name()))
            .field("actor", u64::from(truth.actor))
            .field("start", start.as_nanos() as u64)
            .field("end", end.as_nanos() as u64)
    }

    /// The structure of a message.
    pub fn message(&self, phase: Phase, index: usize) -> gst::Structure {
        let phase = if phase == Phase::Start { "start" } else { "end" };
        self.structure(index).field("phase", phase).build()
    }

    pub fn all(&self) -> gst::Array {
        gst::Array::new((0..self.items.len()).map(|index| self.structure(index).build()))
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{End, Start};
    use super::*;
    use crate::scene::Action;

    fn announcer(spans: &[(f64, f64)]) -> Announcer {
        let truth = |&(start, end): &(f64, f64)| Truth {
            action: Action::Walk,
            label: "walking",
            colour: None,
            start,
            end,
            actor: 0,
        };
        Announcer::new(spans.iter().map(truth).collect())
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn starts_and_ends_are_said_once_when_reached() {
        let mut announcer = announcer(&[(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]);
        assert_eq!(announcer.advance(secs(0.0)), [(Start, 0)]);
        assert_eq!(announcer.advance(secs(0.9)), []);
        assert_eq!(announcer.advance(secs(1.0)), [(Start, 1)]);
        assert_eq!(announcer.advance(secs(2.5)), [(End, 0), (Start, 2)]);
        assert_eq!(announcer.advance(secs(9.0)), [(End, 1), (End, 2)]);
        assert_eq!(announcer.advance(secs(10.0)), []);
    }

    #[test]
    fn what_is_shorter_than_a_picture_is_said_too() {
        let mut announcer = announcer(&[(0.0, 1.0), (1.01, 1.02), (1.02, 5.0)]);
        announcer.advance(secs(0.0));
        assert_eq!(announcer.advance(secs(1.1)), [(End, 0), (Start, 1), (End, 1), (Start, 2)]);
    }

    #[test]
    fn after_a_seek_what_is_under_way_starts_again() {
        let mut announcer = announcer(&[(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]);
        announcer.advance(secs(2.5));
        announcer.seek(secs(1.5));
        assert_eq!(announcer.advance(secs(1.5)), [(Start, 0), (Start, 1)]);
        announcer.seek(secs(3.5));
        assert_eq!(announcer.advance(secs(3.5)), [(Start, 2)]);
        assert_eq!(announcer.advance(secs(4.0)), [(End, 2)]);
    }
}
