//! Which events are open: from the stream's `xclip-event` events and from the buffers' meta.
//!
//! Either alone is enough. A buffer's meta is complete for its moment but does not survive encoding; an
//! event does, and is remembered until its end, or until the stream is flushed, ends or starts anew.

use std::collections::BTreeMap;
use std::time::Duration;

use gstreamer as gst;
use serde::Deserialize;

use super::draw::{Content, EventLine, Percent};
use crate::element::meta::{self, Marks, MetaError};

/// Scores older than this are of a detector that was switched off.
const STALE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Open {
    /// By event id.
    events: BTreeMap<String, Known>,
    /// Last scored window per element and view.
    windows: BTreeMap<(String, String), Scores>,
}

struct Known {
    /// Element and view it was seen by.
    seen_by: (String, String),
    label: String,
    /// Of the last message; a window that knows better overrides it.
    score: f32,
    /// Running time.
    start: Duration,
    /// Whether an `xclip-event` told it. Else it is open as long as buffers say so.
    told: bool,
}

struct Scores {
    end: Duration,
    top: Vec<(String, f32)>,
}

/// What the overlay needs of an `xclip-event`.
#[derive(Deserialize)]
struct Notice {
    source: Source,
    view: String,
    id: String,
    phase: String,
    label: String,
    score: f32,
    start: Start,
}

#[derive(Deserialize)]
struct Source {
    instance: String,
}

#[derive(Deserialize)]
struct Start {
    #[serde(rename = "running-time")]
    running_time: u64,
}

impl Open {
    /// Takes note of an `xclip-event`.
    pub fn tell(&mut self, structure: &gst::StructureRef) -> Result<(), MetaError> {
        let notice: Notice = meta::event(structure)?;
        if notice.phase == "end" {
            self.events.remove(&notice.id);
        } else {
            let start = Duration::from_nanos(notice.start.running_time);
            let seen_by = (notice.source.instance, notice.view);
            let known = Known { seen_by, label: notice.label, score: notice.score, start, told: true };
            self.events.insert(notice.id, known);
        }
        Ok(())
    }

    /// Takes note of what a buffer carries.
    pub fn see(&mut self, marks: Marks) {
        self.events.retain(|_, known| known.told);
        for event in marks.events {
            let start = event.start.running_time;
            let (seen_by, label, score) = ((event.instance, event.view), event.label, event.score);
            self.events.entry(event.id).and_modify(|known| known.score = score).or_insert(Known {
                seen_by,
                label,
                score,
                start,
                told: false,
            });
        }
        for (instance, window) in marks.windows {
            let scores = Scores { end: window.end.running_time, top: window.top };
            self.windows.insert((instance, window.view), scores);
        }
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.windows.clear();
    }

    /// What to show on the buffer at running time `now`; `scores`: the table of scores too.
    pub fn content(&self, now: Duration, scores: bool) -> Content {
        let fresh = |window: &&Scores| window.end + STALE > now;
        // Messages come when an event peaks; how it fares since is in the windows.
        let score = |known: &Known| {
            let window = self.windows.get(&known.seen_by).filter(fresh);
            let found = window.and_then(|window| window.top.iter().find(|(label, _)| *label == known.label));
            found.map_or(known.score, |(_, score)| *score)
        };
        let mut open: Vec<_> = self.events.values().collect();
        open.sort_by_key(|known| known.start);
        let events = open.into_iter().map(|known| EventLine {
            label: known.label.clone(),
            score: Percent::of(score(known)),
            seconds: now.saturating_sub(known.start).as_secs(),
        });
        let windows = self.windows.values().filter(|window| scores && fresh(window));
        let table =
            windows.flat_map(|window| &window.top).map(|(label, score)| (label.clone(), Percent::of(*score)));
        Content { events: events.collect(), scores: table.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::WindowScores;
    use crate::element::meta::OpenEvent;
    use crate::event::Stamp;

    fn at(seconds: u64) -> Stamp {
        let time = Duration::from_secs(seconds);
        Stamp { timestamp: time, stream_time: time, running_time: time, utc: None }
    }

    fn told(id: &str, phase: &str, score: f32) -> gst::Structure {
        meta::structure(&serde_json::json!({
            "source": {"instance": "d", "stream": "s"}, "view": "frame",
            "id": id, "phase": phase, "label": "waving", "score": score,
            "start": {"timestamp": 1, "stream-time": 1, "running-time": 2_000_000_000_u64},
        }))
        .unwrap()
    }

    fn marked(id: &str, score: f32) -> Marks {
        let event = OpenEvent {
            instance: "d".into(),
            view: "frame".into(),
            id: id.into(),
            label: "waving".into(),
            severity: None,
            score,
            start: at(2),
        };
        Marks { windows: Vec::new(), events: vec![event] }
    }

    fn lines(open: &Open) -> Vec<(u8, u64)> {
        let content = open.content(Duration::from_millis(5900), true);
        content.events.iter().map(|line| (line.score.0, line.seconds)).collect()
    }

    #[test]
    fn a_told_event_stays_until_its_end_is_told() {
        gst::init().unwrap();
        let mut open = Open::default();
        open.tell(&told("a", "start", 0.6)).unwrap();
        open.see(Marks::default());
        assert_eq!(lines(&open), [(60, 3)]);
        open.tell(&told("a", "update", 0.9)).unwrap();
        open.tell(&told("b", "end", 0.9)).unwrap();
        assert_eq!(lines(&open), [(90, 3)]);
        open.tell(&told("a", "end", 0.1)).unwrap();
        assert_eq!(lines(&open), []);
    }

    #[test]
    fn a_marked_event_is_open_as_long_as_buffers_say_so() {
        let mut open = Open::default();
        open.see(marked("a", 0.6));
        open.see(marked("a", 0.7));
        assert_eq!(lines(&open), [(70, 3)]);
        open.see(Marks::default());
        assert_eq!(lines(&open), []);
    }

    #[test]
    fn told_and_marked_is_one_event() {
        gst::init().unwrap();
        let mut open = Open::default();
        open.tell(&told("a", "start", 0.6)).unwrap();
        open.see(marked("a", 0.8));
        assert_eq!(lines(&open), [(80, 3)]);
    }

    #[test]
    fn scores_are_those_of_the_last_window_while_fresh() {
        let mut open = Open::default();
        let window = |label: &str, end| WindowScores {
            view: "frame".into(),
            start: at(end - 2),
            end: at(end),
            top: vec![(label.into(), 0.5)],
            labels_generation: 1,
        };
        open.see(Marks { windows: vec![("d".into(), window("old", 3))], events: Vec::new() });
        open.see(Marks { windows: vec![("d".into(), window("new", 4))], events: Vec::new() });
        let now = Duration::from_secs(5);
        assert_eq!(open.content(now, true).scores, [("new".to_string(), Percent(50))]);
        assert!(open.content(now, false).scores.is_empty());
        assert!(open.content(Duration::from_secs(14), true).scores.is_empty());
    }

    #[test]
    fn an_event_shows_the_score_of_its_last_window() {
        gst::init().unwrap();
        let mut open = Open::default();
        open.tell(&told("a", "start", 0.9)).unwrap();
        let window = |view: &str, score| WindowScores {
            view: view.into(),
            start: at(2),
            end: at(5),
            top: vec![("other".into(), 0.3), ("waving".into(), score)],
            labels_generation: 1,
        };
        let windows = vec![("d".into(), window("frame", 0.2)), ("d".into(), window("door", 0.7))];
        open.see(Marks { windows, events: Vec::new() });
        assert_eq!(lines(&open), [(20, 3)]);
        let much_later = open.content(Duration::from_secs(60), false);
        assert_eq!(much_later.events[0].score, Percent(90), "no window says otherwise any more");
    }

    #[test]
    fn a_structure_that_is_no_event_is_refused() {
        gst::init().unwrap();
        let empty = gst::Structure::new_empty(meta::EVENT);
        assert!(Open::default().tell(&empty).unwrap_err().to_string().contains("source"));
    }
}
