//! xclipdetect and streams that misbehave: breaks, seeks, flushes, stalls, frames without a place in time.
#![cfg(feature = "gst")]

mod element_common;

use std::sync::mpsc;

use element_common::*;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check as gst_check;
use gstxclip::element::meta;
use gstxclip::event::{Phase, Reason};

const ONE: &str = "sync=true labels=walking onset=0 offset=0 hop=1";

fn discont(frame: u64) -> gst::Buffer {
    let mut buffer = buffer(frame);
    buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
    buffer
}

fn segment(rate: f64) -> gst::Event {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_rate(rate);
    segment.set_stop(gst::ClockTime::from_seconds(1000));
    gst::event::Segment::new(&segment)
}

/// Waits until a window of the element is in the engine.
fn wait_for_window_in_flight(element: &gst::Element) {
    let queue = || element.property::<gst::Structure>("stats").get::<u64>("queue").unwrap();
    while queue() == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn frames_are_taken_by_time_never_by_count() {
    // 30 frames per second, then 7, then 100: four of each second are taken. No labels: no windows.
    let mut detect = Detect::new("sync=true");
    let mut pts = gst::ClockTime::ZERO;
    for rate in [30u64, 7, 100] {
        for _ in 0..rate * 4 {
            let mut buffer = buffer(0);
            buffer.get_mut().unwrap().set_pts(pts);
            detect.harness.push_and_pull(buffer).unwrap();
            pts += gst::ClockTime::SECOND / rate;
        }
    }
    let sampled = detect.stat("sampled");
    assert!((46..=50).contains(&sampled), "{sampled} of 12 s");
}

#[test]
fn at_double_speed_frames_are_taken_by_stream_time() {
    let mut detect = Detect::new(ONE);
    detect.harness.push_event(segment(2.0));
    detect.pass(0..T);
    assert_eq!(detect.stat("windows"), 1);
    let event = &detect.events()[0];
    assert_eq!(event.detected.stream_time, time(T - 1).nseconds());
    assert_eq!(event.detected.running_time, time(T - 1).nseconds() / 2);
}

#[test]
fn no_window_mixes_before_and_after_a_break() {
    type Break = fn(&mut Detect);
    let breaks: [(&str, Break); 4] = [
        ("another connection", |detect| {
            let sink = detect.element.static_pad("sink").unwrap();
            let same = sink.sticky_event::<gst::event::StreamStart>(0).unwrap().stream_id().to_string();
            detect.harness.push_event(gst::event::StreamStart::new(&same));
            detect.pass(T - 1..T);
        }),
        ("another stream-id", |detect| {
            detect.harness.push_event(gst::event::StreamStart::new("another"));
            detect.pass(T - 1..T);
        }),
        ("another rate", |detect| {
            detect.harness.push_event(segment(1.5));
            detect.pass(T - 1..T);
        }),
        ("another region", |detect| {
            detect.element.set_property("roi", "0,0,0.5,0.5");
            detect.pass(T - 1..T);
        }),
    ];
    for (name, breaks) in breaks {
        let mut detect = Detect::new(ONE);
        detect.pass(0..T - 1);
        breaks(&mut detect);
        detect.pass(T..2 * T - 2);
        assert_eq!(detect.stat("windows"), 0, "{name}: a window mixes before and after");
        let last = detect.pass(2 * T - 2..2 * T - 1).remove(0);
        let window = &meta::read(&last).windows[0].1;
        assert_eq!(window.start.timestamp, time(T - 1).into(), "{name}");
    }
}

#[test]
fn a_lost_buffer_costs_no_window() {
    // 25 frames per second of which every tenth is lost, as a leaky queue marks it.
    let mut detect = Detect::new(ONE);
    for frame in (0..250).filter(|frame| frame % 10 != 7) {
        let mut buffer = if frame % 10 == 8 { discont(0) } else { buffer(0) };
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(40 * frame));
        detect.harness.push_and_pull(buffer).unwrap();
    }
    // 10 s at 4 frames per second: 40 frames.
    assert_eq!(detect.stat("windows"), 40 - T + 1);
    assert_eq!(detect.events().len(), 1);
}

#[test]
fn a_new_connection_of_the_same_camera_leaves_its_event_open() {
    let mut detect = Detect::new(ONE);
    detect.pass(0..T);
    let sink = detect.element.static_pad("sink").unwrap();
    let same = sink.sticky_event::<gst::event::StreamStart>(0).unwrap().stream_id().to_string();
    detect.harness.push_event(gst::event::StreamStart::new(&same));
    detect.harness.push_event(segment(1.0));
    detect.pass(T..2 * T);
    let events = detect.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].phase, Phase::Start);
    assert_eq!(detect.stat("restarts"), 1);
}

#[test]
fn another_stream_id_ends_events() {
    let mut detect = Detect::new(ONE);
    detect.pass(0..T);
    detect.harness.push_event(gst::event::StreamStart::new("another"));
    let events = detect.events();
    assert_eq!((events[1].phase, events[1].reason), (Phase::End, Reason::Discontinuity));
    detect.harness.push_event(segment(1.0));
    detect.pass(T..2 * T);
    assert_eq!(detect.events()[0].source.stream, "another");
}

#[test]
fn a_gap_longer_than_a_window_begins_a_new_one() {
    let mut detect = Detect::new(ONE);
    detect.pass(0..T);
    detect
        .harness
        .push_event(gst::event::Gap::builder(time(T)).duration(gst::ClockTime::from_seconds(25)).build());
    detect.pass(T + 100..2 * T + 99);
    assert_eq!(detect.stat("windows"), 1);
    detect.pass(2 * T + 99..2 * T + 100);
    assert_eq!(detect.stat("windows"), 2);
    let reasons: Vec<_> = detect.events().iter().map(|event| event.reason).collect();
    assert_eq!(reasons, [Reason::Onset, Reason::Discontinuity, Reason::Onset]);
}

#[test]
fn backwards_timestamps_never_share_a_window_with_later_ones() {
    let mut detect = Detect::new(ONE);
    detect.pass(40..40 + T - 1);
    detect.pass(0..T - 1);
    assert_eq!(detect.stat("windows"), 0);
    detect.pass(T - 1..T);
    assert_eq!(detect.stat("windows"), 1);
}

#[test]
fn other_caps_in_the_middle_keep_the_window() {
    let mut detect = Detect::new(ONE);
    detect.pass(0..T / 2);
    detect.harness.set_src_caps_str("video/x-raw,format=NV12,width=64,height=50,framerate=4/1");
    for frame in T / 2..T {
        let mut buffer = gst::Buffer::with_size(64 * 75).unwrap();
        buffer.get_mut().unwrap().set_pts(time(frame));
        detect.harness.push_and_pull(buffer).unwrap();
    }
    assert_eq!(detect.stat("windows"), 1);
}

#[test]
fn what_cannot_be_placed_in_time_passes_and_is_counted() {
    let mut detect = Detect::new(ONE);
    let pass = |detect: &mut Detect, change: fn(&mut gst::BufferRef)| {
        for frame in 0..T {
            let mut buffer = buffer(frame);
            change(buffer.get_mut().unwrap());
            detect.harness.push_and_pull(buffer).unwrap();
        }
    };
    pass(&mut detect, |buffer| buffer.set_pts(None));
    assert_eq!(detect.count("unseen", "no-timestamp"), T);
    pass(&mut detect, |buffer| buffer.set_flags(gst::BufferFlags::CORRUPTED));
    assert_eq!(detect.count("unseen", "corrupted"), T);
    pass(&mut detect, |buffer| buffer.set_size(10));
    assert_eq!(detect.count("unseen", "unreadable"), T);
    assert!(
        detect.warnings().iter().any(|warning| warning.contains("2304 bytes")),
        "what is missing is named"
    );
    detect.harness.push_event(segment(-1.0));
    pass(&mut detect, |_| ());
    assert_eq!(detect.count("unseen", "reverse"), T);
    let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
    detect.harness.push_event(gst::event::Segment::new(&bytes));
    pass(&mut detect, |_| ());
    assert_eq!(detect.count("unseen", "segment-format"), T);
    let mut late = gst::FormattedSegment::<gst::ClockTime>::new();
    late.set_start(time(1000));
    detect.harness.push_event(gst::event::Segment::new(&late));
    pass(&mut detect, |_| ());
    assert_eq!(detect.count("unseen", "outside-segment"), T);
    assert_eq!(detect.stat("windows"), 0);
    assert_eq!(detect.stat("buffers"), 6 * T);
}

#[test]
fn a_flush_wakes_a_waiting_buffer_and_nothing_comes_of_flushed_frames() {
    let jam = Jam::new();
    let mut detect = Detect::new(ONE);
    let pad = detect.harness.srcpad().unwrap();
    let pusher = std::thread::spawn({
        let pad = pad.clone();
        move || (0..T).map(|frame| pad.push(buffer(frame))).collect::<Vec<_>>()
    });
    wait_for_window_in_flight(&detect.element);
    detect.harness.push_event(gst::event::FlushStart::new());
    let flows = pusher.join().unwrap();
    assert_eq!(flows[T as usize - 1], Err(gst::FlowError::Flushing));
    detect.harness.push_event(gst::event::FlushStop::new(true));
    detect.harness.push_event(segment(1.0));
    drop(jam);
    while detect.harness.try_pull().is_some() {}
    let buffers = detect.pass(100..100 + T);
    assert_eq!(detect.count("dropped", "flushed"), 1);
    assert!(buffers[..T as usize - 1].iter().all(|buffer| meta::read(buffer) == meta::Marks::default()));
    let events = detect.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].window_start.timestamp, time(100).nseconds());
}

#[test]
fn a_flush_ends_events_and_downstream_hears_of_it_after_the_flush() {
    let mut detect = Detect::new(ONE);
    detect.pass(0..T);
    let (sender, downstream) = mpsc::channel();
    detect.element.static_pad("src").unwrap().add_probe(
        gst::PadProbeType::EVENT_DOWNSTREAM,
        move |_, info| {
            if let Some(gst::EventView::CustomDownstream(custom)) = info.event().map(|event| event.view()) {
                let record: gstxclip::event::json::Record = meta::event(custom.structure().unwrap()).unwrap();
                sender.send((record.phase, record.reason)).unwrap();
            }
            gst::PadProbeReturn::Ok
        },
    );
    detect.harness.push_event(gst::event::FlushStart::new());
    detect.harness.push_event(gst::event::FlushStop::new(true));
    let events = detect.events();
    assert_eq!((events[1].phase, events[1].reason), (Phase::End, Reason::Flush));
    assert_eq!(downstream.try_recv(), Err(mpsc::TryRecvError::Empty));
    detect.harness.push_event(segment(1.0));
    let after = detect.pass(50..51);
    assert_eq!(downstream.try_recv(), Ok((Phase::End, Reason::Flush)));
    assert_eq!(meta::read(&after[0]), meta::Marks::default());
}

/// The messages on the events pad, and a channel with (phase, reason, PTS of the line) as they arrive.
fn events_sink(detect: &Detect) -> (gst::Pad, gst::Pad, mpsc::Receiver<(Phase, Reason, gst::ClockTime)>) {
    let pad = detect.element.request_pad_simple("events").unwrap();
    let (sender, lines) = mpsc::channel();
    let sink = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, buffer| {
            let map = buffer.map_readable().unwrap();
            let record: gstxclip::event::json::Record = serde_json::from_slice(&map).unwrap();
            sender.send((record.phase, record.reason, buffer.pts().unwrap())).unwrap();
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(|_, _, _| true)
        .build();
    sink.set_active(true).unwrap();
    pad.link(&sink).unwrap();
    (pad, sink, lines)
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
fn the_events_pad_tells_ends_of_a_flush_after_it() {
    let mut detect = Detect::new(ONE);
    let (_pad, _sink, lines) = events_sink(&detect);
    detect.pass(0..T);
    assert_eq!(lines.recv_timeout(PATIENCE), Ok((Phase::Start, Reason::Onset, time(T - 1))));
    detect.harness.push_event(gst::event::FlushStart::new());
    detect.harness.push_event(gst::event::FlushStop::new(true));
    detect.harness.push_event(segment(1.0));
    assert_eq!(lines.try_recv(), Err(mpsc::TryRecvError::Empty));
    detect.pass(50..51);
    assert_eq!(lines.recv_timeout(PATIENCE), Ok((Phase::End, Reason::Flush, time(50))));
}

#[test]
fn the_events_pad_goes_on_with_a_sink_that_was_restarted_or_replaced() {
    let mut detect = Detect::new("sync=true labels=walking onset=0 offset=0 hop=1 name=d");
    let (pad, sink, lines) = events_sink(&detect);
    // The sink is down: its pad refuses all. An update or a start in that time is lost, and counted.
    sink.set_active(false).unwrap();
    detect.pass(0..T);
    while detect.stat("lines-dropped") == 0 {
        std::thread::yield_now();
    }
    sink.set_active(true).unwrap();
    detect.harness.push_event(gst::event::StreamStart::new("another"));
    detect.harness.push_event(segment(1.0));
    detect.pass(100..100 + T);
    assert_eq!(
        lines.recv_timeout(PATIENCE).map(|(phase, ..)| phase),
        Ok(Phase::Start),
        "no end of a start that was lost"
    );
    // EOS downstream ends the pad until it is linked anew.
    pad.unlink(&sink).unwrap();
    let full = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(|_, _, _| Err(gst::FlowError::Eos))
        .event_function(|_, _, _| true)
        .build();
    full.set_active(true).unwrap();
    pad.link(&full).unwrap();
    let lost = detect.stat("lines-dropped");
    detect.harness.push_event(gst::event::StreamStart::new("a third"));
    while detect.stat("lines-dropped") == lost {
        std::thread::yield_now();
    }
    pad.unlink(&full).unwrap();
    pad.link(&sink).unwrap();
    detect.harness.push_event(segment(1.0));
    detect.pass(200..200 + T);
    assert_eq!(lines.recv_timeout(PATIENCE).map(|(phase, ..)| phase), Ok(Phase::Start));
}

#[test]
fn stopping_wakes_a_waiting_buffer() {
    let jam = Jam::new();
    let detect = Detect::new(ONE);
    let pad = detect.harness.srcpad().unwrap();
    let pusher = std::thread::spawn(move || {
        for frame in 0..T {
            let _ = pad.push(buffer(frame));
        }
    });
    wait_for_window_in_flight(&detect.element);
    // Both would wait for ever: the engine is held until the end.
    detect.element.set_state(gst::State::Null).unwrap();
    pusher.join().unwrap();
    assert_eq!(detect.stat("windows"), 0);
    drop(jam);
}

#[test]
fn stopping_wakes_an_end_of_stream_that_waits_for_its_windows() {
    let jam = Jam::new();
    let detect = Detect::new("sync=false labels=walking onset=0");
    let pad = detect.harness.srcpad().unwrap();
    let pusher = std::thread::spawn(move || {
        (0..T).for_each(|frame| assert!(pad.push(buffer(frame)).is_ok()));
        pad.push_event(gst::event::Eos::new());
    });
    wait_for_window_in_flight(&detect.element);
    detect.element.set_state(gst::State::Null).unwrap();
    pusher.join().unwrap();
    drop(jam);
}

#[test]
fn the_end_of_the_stream_waits_for_windows_in_flight() {
    let jam = Jam::new();
    let detect = Detect::new("sync=false labels=walking onset=0 offset=0");
    let pad = detect.harness.srcpad().unwrap();
    let pusher = std::thread::spawn(move || {
        (0..T).for_each(|frame| assert!(pad.push(buffer(frame)).is_ok()));
        pad.push_event(gst::event::Eos::new());
    });
    wait_for_window_in_flight(&detect.element);
    drop(jam);
    pusher.join().unwrap();
    let events = detect.events();
    assert_eq!(events.iter().map(|event| event.reason).collect::<Vec<_>>(), [Reason::Onset, Reason::Eos]);
}

#[test]
fn a_silent_live_stream_ends_its_events_by_the_clock() {
    let mut detect = Detect::without_caps("sync=true labels=walking onset=0 offset=0");
    detect.harness.use_testclock();
    detect.harness.set_src_caps_str(CAPS);
    let clock: gst_check::TestClock = detect.harness.testclock().unwrap();
    for frame in 0..T {
        clock.set_time(time(frame));
        detect.pass(frame..frame + 1);
    }
    assert_eq!(detect.events().len(), 1);
    // The first timer was set with the first buffer; it finds life and is set again.
    let timeout = gst::ClockTime::from_seconds(2);
    clock.set_time(time(0) + timeout);
    clock.process_next_clock_id().expect("a timer is due");
    assert!(detect.events().is_empty(), "buffers came since");
    // A GAP says that there is nothing to see.
    detect.harness.push_event(gst::event::Gap::builder(time(T)).build());
    clock.set_time(time(T - 1) + timeout);
    clock.process_next_clock_id().expect("a timer is due");
    let events = detect.events();
    assert_eq!((events[0].phase, events[0].reason), (Phase::End, Reason::Stalled));
    assert_eq!(events[0].end.as_ref().unwrap().timestamp, time(T - 1).nseconds());
    // The camera comes back: a new window, a new event.
    detect.pass(100..100 + T);
    assert_eq!(detect.events()[0].seq, 1);
}

#[test]
fn a_seek_sent_from_every_sink_goes_upstream_once() {
    let mut detect = Detect::new(ONE);
    let events_pad = detect.element.request_pad_simple("events").unwrap();
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        gst::ClockTime::ZERO,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    detect.harness.push_upstream_event(seek.clone());
    events_pad.send_event(seek.clone());
    let seeks = std::iter::from_fn(|| detect.harness.try_pull_upstream_event())
        .filter(|event| event.type_() == gst::EventType::Seek);
    assert_eq!(seeks.count(), 1);
}

#[test]
fn utc_is_the_senders_if_it_says_so() {
    let mut detect = Detect::new(ONE);
    for frame in 0..T {
        let mut buffer = buffer(frame);
        let unix = gst::ClockTime::from_seconds(1_700_000_000) + time(frame);
        let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
        gst::ReferenceTimestampMeta::add(buffer.get_mut().unwrap(), &caps, unix, gst::ClockTime::NONE);
        detect.harness.push_and_pull(buffer).unwrap();
    }
    let event = &detect.events()[0];
    assert_eq!(event.detected.utc.as_deref(), Some("2023-11-14T22:13:21.75Z"));
    assert_eq!(event.detected.utc_source, Some(gstxclip::event::UtcSource::Unix));
}
