//! The request pad `events`: one JSON line per buffer, from its own task, out of the queue in
//! [`lines`](super::lines). The stream is SPARSE and has GAP events, so that sinks preroll and muxers go
//! on while nothing happens.

use gst::prelude::*;
use gstreamer as gst;

use super::CAT;
use super::lines::{Item, Lines};

/// One turn of the pad's task. `false`: the pad is closed or flushing, and the task pauses.
pub fn turn(pad: &gst::Pad, element: &gst::Element, sinkpad: &gst::Pad, lines: &Lines) -> bool {
    let Some(item) = lines.next() else { return false };
    match item {
        Item::Start => start_stream(pad, element, sinkpad),
        Item::Segment(segment) => {
            if pad.sticky_event::<gst::event::StreamStart>(0).is_none() {
                start_stream(pad, element, sinkpad);
            }
            pad.push_event(gst::event::Segment::new(&segment));
        }
        Item::Gap { start, end } => {
            ensure_segment(pad, element, sinkpad);
            pad.push_event(gst::event::Gap::builder(start).duration(end - start).build());
        }
        Item::Line { pts, line } => {
            ensure_segment(pad, element, sinkpad);
            let mut buffer = gst::Buffer::from_slice(format!("{}\n", line.json).into_bytes());
            buffer.get_mut().expect("a new buffer has one owner").set_pts(pts);
            if let Err(error) = pad.push(buffer) {
                gst::debug!(CAT, obj = pad, "a line is refused: {error}");
                // Nobody listens now: a sink may be linked or started later.
                let later = [gst::FlowError::NotLinked, gst::FlowError::Flushing].contains(&error);
                lines.refused(line, !later);
            }
        }
        Item::Eos => {
            ensure_segment(pad, element, sinkpad);
            pad.push_event(gst::event::Eos::new());
        }
    }
    true
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
