//! The bounded queue of the pad `events`: what its task pushes next.
//!
//! Whoever makes a line only queues it, so a slow or blocked sink on this pad delays no video: in async
//! mode a full queue drops lines and counts them; in sync mode, where nothing is dropped, the streaming
//! thread waits for room (a flush or a state change ends the wait). GAP events follow the video.
//!
//! A flush drops what waits, but for the ends of events whose start went out: they follow it. A pipeline
//! stopped without EOS gets its last ends as messages only, since its sinks stop first.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use uuid::Uuid;

use crate::event::Phase;

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
        line: Line,
    },
    Gap {
        start: gst::ClockTime,
        end: gst::ClockTime,
    },
    Eos,
}

/// One message of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub id: Uuid,
    pub phase: Phase,
    pub json: String,
}

/// The queue between the element and the pad's task.
#[derive(Default)]
pub struct Lines {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The pad is active.
    open: bool,
    /// Between FLUSH_START and FLUSH_STOP.
    flushing: bool,
    /// Downstream has met its end (EOS, an error): lines are dropped until the next flush, stream or link.
    dead: bool,
    /// The video's stream-start has come.
    started: bool,
    items: VecDeque<Item>,
    lines: usize,
    /// Ends that a flush passed over; they wait for the first position after it.
    carried: Vec<Line>,
    /// Events whose start never left: nothing more is told of them.
    withheld: HashSet<Uuid>,
    /// A stream-start that a flush passed over.
    start_due: bool,
    /// Counts flushes, streams and links: an error of before one says nothing about after it.
    revivals: u64,
    /// As `revivals` was when the task took its last item.
    taken_at: u64,
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

    /// The pad becomes active.
    pub fn open(&self) {
        let mut queue = self.lock();
        queue.clear();
        (queue.open, queue.flushing) = (true, false);
        if queue.started {
            queue.items.push_back(Item::Start);
        }
        if let Some(segment) = queue.segment.clone() {
            queue.items.push_back(Item::Segment(segment));
        }
        self.changed.notify_all();
    }

    /// The pad becomes inactive: what waits is dropped, waiting threads return.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.clear();
        queue.withheld.clear();
        queue.carried.clear();
        queue.open = false;
        self.changed.notify_all();
    }

    /// What waits is dropped but for ends, waiting threads return.
    pub fn flush_start(&self) {
        let mut queue = self.lock();
        queue.flushing = true;
        queue.revivals += 1;
        for item in std::mem::take(&mut queue.items) {
            match item {
                Item::Line { line, .. } => queue.pass_over(line),
                Item::Start => queue.start_due = true,
                _ => (),
            }
        }
        queue.clear();
        self.changed.notify_all();
    }

    /// The segment is the flushed one's no more.
    pub fn flush_stop(&self) {
        let mut queue = self.lock();
        (queue.flushing, queue.segment) = (false, None);
        if std::mem::take(&mut queue.start_due) {
            queue.items.push_front(Item::Start);
        }
        self.changed.notify_all();
    }

    /// A new link or stream: downstream may take lines again.
    pub fn revive(&self) {
        let mut queue = self.lock();
        queue.dead = false;
        queue.revivals += 1;
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
        queue.dead = false;
        queue.revivals += 1;
        queue.start_due |= queue.open && queue.flushing;
        if queue.open && !queue.flushing {
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
        if queue.open && !queue.flushing {
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
        if !queue.open || queue.flushing {
            return;
        }
        queue.release();
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
        }
        self.changed.notify_all();
    }

    /// Queues a line at the video's position. `lossless`: beyond the capacity too (the streaming thread
    /// then waits in [`Lines::wait_for_room`]); ends of events whose start was queued always are.
    pub fn line(&self, line: Line, lossless: bool) {
        let mut queue = self.lock();
        if !queue.open {
            return;
        }
        if queue.flushing {
            return queue.pass_over(line);
        }
        let full = queue.lines >= CAPACITY && !lossless && line.phase != Phase::End;
        if queue.dead || full || queue.is_withheld(&line) {
            return queue.lose(&line);
        }
        queue.put(line);
        self.changed.notify_all();
    }

    pub fn eos(&self) {
        let mut queue = self.lock();
        if queue.open && !queue.flushing {
            queue.release();
            queue.items.push_back(Item::Eos);
            self.changed.notify_all();
        }
    }

    /// Returns when a line more fits, or the pad is closed or flushing.
    pub fn wait_for_room(&self) {
        let queue = self.lock();
        let full =
            |queue: &mut Queue| queue.open && !queue.flushing && !queue.dead && queue.lines >= CAPACITY;
        drop(self.changed.wait_while(queue, full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The next item, waited for; `None` when the pad is closed or flushing.
    pub fn next(&self) -> Option<Item> {
        let queue = self.lock();
        let idle =
            |queue: &mut Queue| queue.open && !queue.flushing && (queue.dead || queue.items.is_empty());
        let mut queue = self.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if !queue.open || queue.flushing {
            return None;
        }
        let item = queue.items.pop_front()?;
        queue.taken_at = queue.revivals;
        if matches!(item, Item::Line { .. }) {
            queue.lines -= 1;
            self.changed.notify_all();
        }
        Some(item)
    }

    /// Downstream did not take this line. `dead`: nor will it take others until the next flush, stream or
    /// link; if one of those came meanwhile, the error was before it.
    pub fn refused(&self, line: Line, dead: bool) {
        let mut queue = self.lock();
        if queue.flushing {
            return queue.pass_over_first(line);
        }
        queue.lose(&line);
        if dead && queue.taken_at == queue.revivals {
            for item in std::mem::take(&mut queue.items) {
                if let Item::Line { line, .. } = item {
                    queue.lose(&line);
                }
            }
            queue.clear();
            queue.dead = true;
            self.changed.notify_all();
        }
    }
}

impl Queue {
    fn clear(&mut self) {
        self.items.clear();
        self.lines = 0;
        self.gap_end = None;
        self.dead = false;
    }

    fn put(&mut self, line: Line) {
        let pts = self.position.unwrap_or(gst::ClockTime::ZERO);
        self.items.push_back(Item::Line { pts, line });
        self.lines += 1;
        self.gap_end = Some(pts);
    }

    /// Whether the start of this line's event never left.
    fn is_withheld(&self, line: &Line) -> bool {
        self.withheld.contains(&line.id)
    }

    /// Drops a line, counted; without its start an event is not told at all.
    fn lose(&mut self, line: &Line) {
        self.dropped += 1;
        self.forget(line);
    }

    fn forget(&mut self, line: &Line) {
        match line.phase {
            Phase::Start => drop(self.withheld.insert(line.id)),
            Phase::Update => (),
            Phase::End => drop(self.withheld.remove(&line.id)),
        }
    }

    /// What a flush does to a line: that is no loss, the frames behind it are gone too.
    fn pass_over(&mut self, line: Line) {
        if line.phase == Phase::End && !self.is_withheld(&line) {
            self.carried.push(line);
        } else {
            self.forget(&line);
        }
    }

    /// As `pass_over`, of the line that the task had taken: before those that waited behind it.
    fn pass_over_first(&mut self, line: Line) {
        let others = std::mem::take(&mut self.carried);
        self.pass_over(line);
        self.carried.extend(others);
    }

    /// There is a position again: the ends that were carried over a flush are queued.
    fn release(&mut self) {
        for line in std::mem::take(&mut self.carried) {
            // Its start may have been refused while the flush was under way.
            if self.is_withheld(&line) {
                self.forget(&line);
            } else {
                self.put(line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
