//! The request pad `events`: one JSON line per buffer, from its own task through a bounded queue.
//!
//! Whoever makes a line only queues it, so a slow or blocked sink on this pad delays no video: in async
//! mode a full queue drops lines and counts them; in sync mode, where nothing is dropped, the streaming
//! thread waits for room (a flush or a state change ends the wait). The stream is SPARSE and GAP events
//! follow the video, so that sinks preroll and muxers go on while nothing happens.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use gstreamer as gst;

use super::CAT;

/// Lines that wait for the sink; with a screenful of labels a minute or more of trouble.
const CAPACITY: usize = 1024;

/// Video time between two GAP events.
const GAP: gst::ClockTime = gst::ClockTime::from_mseconds(500);

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A stream begins: stream-start and caps are due.
    Start,
    Segment(gst::FormattedSegment<gst::ClockTime>),
    Line {
        pts: gst::ClockTime,
        json: String,
    },
    Gap {
        start: gst::ClockTime,
        end: gst::ClockTime,
    },
    Eos,
}

/// The queue between the element and the pad's task.
#[derive(Default)]
pub struct Lines {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The pad is active and not flushing.
    open: bool,
    /// The task met an end (EOS downstream, an error): lines are dropped until the next flush or start.
    dead: bool,
    /// The video's stream-start has come.
    started: bool,
    items: VecDeque<Item>,
    lines: usize,
    dropped: u64,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// PTS of the video buffer that came last.
    position: Option<gst::ClockTime>,
    /// Where the events stream has got to.
    gap_end: Option<gst::ClockTime>,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pad becomes active, or a flush ended.
    pub fn open(&self) {
        let mut queue = self.lock();
        queue.clear();
        queue.open = true;
        if queue.started {
            queue.items.push_back(Item::Start);
        }
        if let Some(segment) = queue.segment.clone() {
            queue.items.push_back(Item::Segment(segment));
        }
        self.changed.notify_all();
    }

    /// The pad becomes inactive, or a flush began: what waits is dropped, waiting threads return.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.clear();
        queue.open = false;
        self.changed.notify_all();
    }

    /// Forgets the last run, before the next.
    pub fn reset(&self) {
        let mut queue = self.lock();
        (queue.segment, queue.position, queue.dropped, queue.started) = (None, None, 0, false);
    }

    /// Whether lines are wanted at all.
    pub fn is_open(&self) -> bool {
        self.lock().open
    }

    pub fn stream_start(&self) {
        let mut queue = self.lock();
        queue.started = true;
        if queue.open {
            // What follows repeats everything but lines: without this a blocked sink and a camera that
            // reconnects for days would grow the queue.
            while queue.items.back().is_some_and(|item| !matches!(item, Item::Line { .. })) {
                queue.items.pop_back();
            }
            queue.items.push_back(Item::Start);
            self.changed.notify_all();
        }
    }

    /// The video's segment: event buffers are on its time.
    pub fn segment(&self, segment: gst::FormattedSegment<gst::ClockTime>) {
        let mut queue = self.lock();
        queue.segment = Some(segment.clone());
        if queue.open {
            while matches!(queue.items.back(), Some(Item::Gap { .. } | Item::Segment(_))) {
                queue.items.pop_back();
            }
            queue.items.push_back(Item::Segment(segment));
            queue.gap_end = None;
            self.changed.notify_all();
        }
    }

    /// A video buffer or gap at `pts` came.
    pub fn advance(&self, pts: gst::ClockTime) {
        let mut queue = self.lock();
        queue.position = Some(pts);
        if !queue.open {
            return;
        }
        let due = queue.gap_end.is_none_or(|end| pts < end || pts - end >= GAP);
        if due {
            if let Some(Item::Gap { end, .. }) = queue.items.back_mut()
                && *end <= pts
            {
                *end = pts;
            } else {
                let start = queue.gap_end.map_or(pts, |end| end.min(pts));
                queue.items.push_back(Item::Gap { start, end: pts });
            }
            queue.gap_end = Some(pts);
            self.changed.notify_all();
        }
    }

    /// Queues a line at the video's position. `lossless`: beyond the capacity too (the streaming thread
    /// then waits in [`Lines::wait_for_room`]).
    pub fn line(&self, json: String, lossless: bool) {
        let mut queue = self.lock();
        if !queue.open {
            return;
        }
        if queue.dead || (queue.lines >= CAPACITY && !lossless) {
            queue.dropped += 1;
            return;
        }
        let pts = queue.position.unwrap_or(gst::ClockTime::ZERO);
        queue.items.push_back(Item::Line { pts, json });
        queue.lines += 1;
        queue.gap_end = Some(pts);
        self.changed.notify_all();
    }

    pub fn eos(&self) {
        let mut queue = self.lock();
        if queue.open {
            queue.items.push_back(Item::Eos);
            self.changed.notify_all();
        }
    }

    /// Returns when a line more fits, or the pad is closed.
    pub fn wait_for_room(&self) {
        let queue = self.lock();
        let full = |queue: &mut Queue| queue.open && !queue.dead && queue.lines >= CAPACITY;
        drop(self.changed.wait_while(queue, full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The next item, waited for; `None` when the pad is closed or its stream came to an end.
    fn next(&self) -> Option<Item> {
        let queue = self.lock();
        let idle = |queue: &mut Queue| queue.open && !queue.dead && queue.items.is_empty();
        let mut queue = self.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if !queue.open || queue.dead {
            return None;
        }
        let item = queue.items.pop_front()?;
        if matches!(item, Item::Line { .. }) {
            queue.lines -= 1;
            self.changed.notify_all();
        }
        Some(item)
    }

    /// Downstream takes nothing more until the next flush or start.
    fn die(&self) {
        let mut queue = self.lock();
        queue.dropped += queue.lines as u64;
        queue.clear();
        queue.dead = true;
        self.changed.notify_all();
    }
}

impl Queue {
    fn clear(&mut self) {
        self.items.clear();
        self.lines = 0;
        self.gap_end = None;
        self.dead = false;
    }
}

/// One turn of the pad's task. `false`: the task has nothing more to do.
pub fn turn(pad: &gst::Pad, element: &gst::Element, sinkpad: &gst::Pad, lines: &Lines) -> bool {
    let Some(item) = lines.next() else { return false };
    let flow = match item {
        Item::Start => {
            start_stream(pad, element, sinkpad);
            Ok(gst::FlowSuccess::Ok)
        }
        Item::Segment(segment) => {
            if pad.sticky_event::<gst::event::StreamStart>(0).is_none() {
                start_stream(pad, element, sinkpad);
            }
            pad.push_event(gst::event::Segment::new(&segment));
            Ok(gst::FlowSuccess::Ok)
        }
        Item::Gap { start, end } => {
            ensure_segment(pad, element, sinkpad);
            pad.push_event(gst::event::Gap::builder(start).duration(end - start).build());
            Ok(gst::FlowSuccess::Ok)
        }
        Item::Line { pts, mut json } => {
            ensure_segment(pad, element, sinkpad);
            json.push('\n');
            let mut buffer = gst::Buffer::from_slice(json.into_bytes());
            buffer.get_mut().expect("a new buffer has one owner").set_pts(pts);
            pad.push(buffer)
        }
        Item::Eos => {
            ensure_segment(pad, element, sinkpad);
            pad.push_event(gst::event::Eos::new());
            return true;
        }
    };
    match flow {
        // Nobody listens yet: the pad may be linked later.
        Ok(_) | Err(gst::FlowError::NotLinked) => true,
        Err(error) => {
            gst::debug!(CAT, obj = pad, "no more lines: {error}");
            lines.die();
            false
        }
    }
}

fn start_stream(pad: &gst::Pad, element: &gst::Element, sinkpad: &gst::Pad) {
    let id = pad.create_stream_id(element, Some("events"));
    let mut start = gst::event::StreamStart::builder(&id).flags(gst::StreamFlags::SPARSE);
    let upstream = sinkpad.sticky_event::<gst::event::StreamStart>(0);
    if let Some(group) = upstream.and_then(|event| event.group_id()) {
        start = start.group_id(group);
    }
    pad.push_event(start.build());
    let caps = gst::Caps::new_empty_simple("application/x-ndjson");
    pad.push_event(gst::event::Caps::new(&caps));
}

/// Video without a TIME segment still gets its events across.
fn ensure_segment(pad: &gst::Pad, element: &gst::Element, sinkpad: &gst::Pad) {
    if pad.sticky_event::<gst::event::StreamStart>(0).is_none() {
        start_stream(pad, element, sinkpad);
    }
    if pad.sticky_event::<gst::event::Segment>(0).is_none() {
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    #[test]
    fn a_full_queue_drops_and_counts_but_never_waits() {
        let lines = Lines::default();
        lines.open();
        for i in 0..CAPACITY + 3 {
            lines.line(i.to_string(), false);
        }
        assert_eq!(lines.dropped(), 3);
        lines.line("one more".into(), true);
        assert_eq!(lines.dropped(), 3);
        assert_eq!(lines.next(), Some(Item::Line { pts: at(0), json: "0".into() }));
    }

    #[test]
    fn nothing_is_kept_for_a_pad_that_nobody_asked_for() {
        let lines = Lines::default();
        lines.advance(at(0));
        lines.line("x".into(), false);
        assert!(lines.lock().items.is_empty());
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn gaps_of_a_blocked_sink_become_one() {
        let lines = Lines::default();
        lines.open();
        for i in 0..10_000 {
            lines.advance(at(40 * i));
        }
        let Some(Item::Gap { start, end }) = lines.next() else { panic!("no gap") };
        assert_eq!(start, at(0));
        assert!(at(399_960) - end < GAP, "{end}");
        assert!(lines.lock().items.is_empty());
    }

    #[test]
    fn reconnects_of_a_camera_do_not_grow_the_queue_of_a_blocked_sink() {
        gst::init().unwrap();
        let lines = Lines::default();
        lines.open();
        lines.line("kept".into(), false);
        for _ in 0..100 {
            lines.stream_start();
            lines.segment(gst::FormattedSegment::new());
            lines.advance(at(0));
        }
        assert_eq!(lines.lock().items.len(), 4, "the line, one start, one segment, one gap");
    }

    #[test]
    fn closing_wakes_who_waits() {
        let lines = std::sync::Arc::new(Lines::default());
        lines.open();
        (0..CAPACITY).for_each(|_| lines.line(String::new(), true));
        let writer = std::thread::spawn({
            let lines = lines.clone();
            move || lines.wait_for_room()
        });
        lines.close();
        writer.join().unwrap();
        assert_eq!(lines.next(), None);
    }
}
