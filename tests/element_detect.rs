//! xclipdetect as a neighbour in a pipeline: what passes, what is attached, what ends events.
#![cfg(feature = "gst")]

mod element_common;

use std::sync::mpsc;

use element_common::*;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstxclip::element::meta;
use gstxclip::event::{Phase, Reason};

#[test]
fn buffers_pass_untouched_in_every_format() {
    init();
    let template = gst::ElementFactory::find("xclipdetect").unwrap();
    let template = template
        .static_pad_templates()
        .into_iter()
        .find(|pad| pad.direction() == gst::PadDirection::Sink)
        .unwrap();
    let caps = template.caps();
    let formats = caps.structure(0).unwrap().get::<gst::List>("format").unwrap();
    assert_eq!(formats.len(), 13);
    for format in formats.iter().map(|format| format.get::<String>().unwrap()) {
        let mut detect = Detect::without_caps("labels=walking sync=true");
        // Odd sizes: chroma rounds up, strides are padded.
        let info = gst_video::VideoInfo::builder(format.parse().unwrap(), 35, 27)
            .fps(gst::Fraction::new(4, 1))
            .build()
            .unwrap();
        detect.harness.set_src_caps(info.to_caps().unwrap());
        for frame in 0..T {
            let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
            buffer.get_mut().unwrap().set_pts(time(frame));
            let (header, samples) = (buffer.as_ptr(), address(&buffer));
            let passed = detect.harness.push_and_pull(buffer).unwrap();
            assert_eq!(address(&passed), samples, "{format}: memory was copied");
            assert_eq!((passed.as_ptr(), passed.pts()), (header, Some(time(frame))), "{format}");
        }
        assert_eq!(detect.stat("windows"), 1, "{format}");
        assert_eq!(detect.warnings().iter().filter(|warning| !warning.contains("demo")).count(), 0);
    }
}

#[test]
fn a_header_somebody_else_holds_is_copied_but_not_its_memory() {
    let mut detect = Detect::new("sync=true labels=walking onset=0");
    detect.pass(0..T - 1);
    let mine = buffer(T - 1);
    let passed = detect.harness.push_and_pull(mine.clone()).unwrap();
    assert_eq!(meta::read(&passed).windows.len(), 1);
    assert_eq!(meta::read(&mine), meta::Marks::default(), "a buffer that is not ours was written to");
    assert_eq!(address(&passed), address(&mine));
}

#[test]
fn in_sync_mode_results_land_on_the_buffer_that_completes_the_window() {
    let mut detect = Detect::new("name=cam sync=true labels=walking;running onset=0 offset=0 hop=2");
    let buffers = detect.pass(0..T + 4);
    for (frame, buffer) in (0..).zip(&buffers) {
        let marks = meta::read(buffer);
        let completes = frame >= T - 1 && (frame - (T - 1)).is_multiple_of(2);
        assert_eq!(marks.windows.len(), completes as usize, "frame {frame}");
        for (instance, window) in &marks.windows {
            assert_eq!(instance, "cam");
            assert_eq!(window.end.timestamp, time(frame).into());
            assert_eq!(window.start.timestamp, time(frame + 1 - T).into());
            assert_eq!(window.top.len(), 2);
        }
        let open = if frame >= T - 1 { 2 } else { 0 };
        assert_eq!(marks.events.len(), open, "frame {frame}: open events ride on every buffer");
    }
    assert_eq!(detect.stat("windows"), 3);
    let events = detect.events();
    assert_eq!(events.len(), 2);
    assert!(
        events
            .iter()
            .all(|event| event.phase == Phase::Start && event.detected.timestamp == time(T - 1).nseconds())
    );
}

#[test]
fn in_async_mode_results_are_posted_at_once_and_ride_on_the_next_buffer() {
    let mut detect = Detect::new("sync=false labels=walking onset=0 offset=0").loaded();
    let buffers = detect.pass(0..T);
    let event = detect.next_event();
    assert_eq!(event.detected.timestamp, time(T - 1).nseconds());
    assert_eq!(meta::read(&buffers[T as usize - 2]), meta::Marks::default());
    let next = detect.pass(T..T + 1);
    let marks = meta::read(&next[0]);
    // The last of the first batch may have been overtaken by a very fast worker.
    let before = meta::read(&buffers[T as usize - 1]).windows.len();
    assert_eq!(marks.windows.len() + before, 1);
    assert_eq!(marks.events[0].id, event.id);
}

#[test]
fn in_async_mode_a_blocked_inference_delays_no_buffer() {
    let jam = Jam::new();
    let mut detect = Detect::new("sync=false labels=walking hop=1 onset=0");
    let buffers = detect.pass(0..100);
    assert_eq!(buffers.len(), 100);
    assert_eq!(detect.stat("windows"), 0, "the worker is held");
    assert_eq!(
        detect.count("dropped", "superseded"),
        100 - (T - 1) - 1,
        "the newest window waits, the others are counted"
    );
    drop(jam);
    assert_eq!(detect.next_event().detected.timestamp, time(99).nseconds(), "the newest window won");
}

#[test]
fn events_go_downstream_in_stream_order() {
    let mut detect = Detect::new("sync=true labels=walking onset=0 offset=0");
    let (sender, order) = mpsc::channel();
    let pad = detect.element.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let seen = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                format!("buffer {}", buffer.pts().unwrap() / (gst::ClockTime::SECOND / FPS))
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::CustomDownstream(custom) => {
                    let record: gstxclip::event::json::Record =
                        meta::event(custom.structure().unwrap()).unwrap();
                    format!("{:?}", record.phase)
                }
                gst::EventView::Eos(_) => "eos".into(),
                _ => return gst::PadProbeReturn::Ok,
            },
            _ => return gst::PadProbeReturn::Ok,
        };
        sender.send(seen).unwrap();
        gst::PadProbeReturn::Ok
    });
    detect.pass(0..T);
    detect.harness.push_event(gst::event::Eos::new());
    let order: Vec<String> = order.try_iter().collect();
    assert_eq!(order[T as usize - 2..], ["buffer 6", "Start", "buffer 7", "End", "eos"]);
    let events = detect.events();
    assert_eq!((events[1].reason, events[1].seq), (Reason::Eos, 2));
    assert_eq!(events[0].id, events[1].id);
    assert_eq!(events[1].end.as_ref().unwrap().timestamp, time(T - 1).nseconds());
}

#[test]
fn a_pool_of_four_never_starves() {
    for sync in ["true", "false"] {
        let mut detect = Detect::new(&format!("sync={sync} labels=walking hop=4 onset=0"));
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&CAPS.parse::<gst::Caps>().unwrap()), 32 * 24 * 3, 4, 4);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let dont_wait = gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
        // Downstream holds three, as a queue and a sink would; the fourth is on its way.
        let mut downstream = std::collections::VecDeque::new();
        for frame in 0..30 {
            let acquired = pool.acquire_buffer(Some(&dont_wait));
            let mut buffer =
                acquired.unwrap_or_else(|_| panic!("frame {frame}, sync={sync}: the element holds buffers"));
            buffer.get_mut().unwrap().set_pts(time(frame));
            downstream.push_back(detect.harness.push_and_pull(buffer).unwrap());
            if downstream.len() > 3 {
                downstream.pop_front();
            }
        }
        downstream.clear();
        pool.set_active(false).unwrap();
    }
}

#[test]
fn the_allocation_query_asks_for_one_buffer_more() {
    let detect = Detect::new("labels=walking");
    let caps: gst::Caps = CAPS.parse().unwrap();
    let sink = detect.harness.sinkpad().unwrap();
    sink.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(query) = query.view_mut()
        {
            query.add_allocation_pool(None::<&gst::BufferPool>, 100, 2, 0);
            query.add_allocation_pool(None::<&gst::BufferPool>, 100, 3, 3);
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(detect.harness.srcpad().unwrap().peer_query(&mut query));
    let pools: Vec<_> = query.allocation_pools().map(|(_, size, min, max)| (size, min, max)).collect();
    assert_eq!(pools, [(100, 3, 0), (100, 4, 4)]);
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
}

#[test]
fn labels_replaced_while_playing_drop_no_buffer_and_end_their_events() {
    let mut detect = Detect::new("sync=true labels=sitting;walking onset=0 offset=0");
    assert_eq!(detect.pass(0..T).len(), T as usize);
    let started = detect.events();
    assert_eq!(started.len(), 2);
    assert!(started.iter().all(|event| event.labels_generation == 1));
    detect.element.set_property("labels", "walking;jumping");
    let ended = detect.events();
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].label.as_str(), ended[0].phase, ended[0].reason),
        ("sitting", Phase::End, Reason::LabelRemoved)
    );
    assert_eq!(detect.element.property::<u64>("labels-generation"), 2);
    assert_eq!(detect.pass(T..T + 4).len(), 4);
    let after = detect.events();
    assert!(after.iter().any(|event| event.label == "jumping" && event.phase == Phase::Start));
    assert!(after.iter().all(|event| event.labels_generation == 2 && event.label != "sitting"));
}

#[test]
fn disabling_ends_events_and_video_goes_on() {
    let mut detect = Detect::new("sync=true labels=walking onset=0 offset=0");
    detect.pass(0..T);
    detect.element.set_property("enabled", false);
    let events = detect.events();
    assert_eq!((events[1].phase, events[1].reason), (Phase::End, Reason::Disabled));
    detect.pass(T..3 * T);
    assert_eq!(detect.stat("windows"), 1);
    detect.element.set_property("enabled", true);
    detect.pass(3 * T..4 * T);
    assert_eq!(detect.stat("windows"), 2, "a whole new window after the pause");
    assert_eq!(detect.events().len(), 1);
}

#[test]
fn messages_can_be_switched_off_and_marks_stay() {
    let mut detect = Detect::new("sync=true post-messages=false labels=walking onset=0");
    let buffers = detect.pass(0..T);
    assert!(detect.events().is_empty());
    let open = meta::read(buffers.last().unwrap()).events;
    assert_eq!(open.len(), 1);
    let active = detect.element.property::<gst::Array>("active-events");
    let active = active[0].get::<gst::Structure>().unwrap();
    assert_eq!(active.get::<&str>("id").unwrap(), open[0].id);
}

#[test]
fn the_stream_id_property_names_the_source_else_upstream_does() {
    let mut detect = Detect::without_caps("name=one sync=true labels=walking onset=0 offset=0");
    detect.harness.push_event(gst::event::StreamStart::new("upstream-id"));
    detect.harness.set_src_caps_str(CAPS);
    detect.pass(0..T);
    let event = detect.events().remove(0);
    assert_eq!((event.source.instance.as_str(), event.source.stream.as_str()), ("one", "upstream-id"));
    detect.element.set_property("stream-id", "north gate");
    detect.harness.push_event(gst::event::Eos::new());
    assert_eq!(detect.events()[0].source.stream, "north gate");
}

#[test]
fn marks_survive_conversion_and_scaling() {
    init();
    let pipeline = gst::parse::launch(
        "videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 ! \
         xclipdetect name=one labels=walking onset=0 offset=0 ! xclipdetect name=two labels=running onset=0 offset=0 ! \
         videoconvert ! videoscale ! video/x-raw,format=RGBA,width=96,height=80 ! videorate ! \
         video/x-raw,framerate=15/1 ! fakesink name=sink signal-handoffs=true",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let (sender, marks) = mpsc::channel();
    pipeline.by_name("sink").unwrap().connect("handoff", false, move |values| {
        sender.send(meta::read(&values[1].get::<gst::Buffer>().unwrap())).unwrap();
        None
    });
    run_to_eos(&pipeline);
    let last = marks.try_iter().last().unwrap();
    let who: Vec<_> =
        last.events.iter().map(|event| (event.instance.as_str(), event.label.as_str())).collect();
    assert_eq!(who, [("one", "walking"), ("two", "running")]);
}

fn run_to_eos(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.expect("no end within a minute").type_(), gst::MessageType::Eos);
}

#[test]
fn a_live_upstream_makes_auto_async_and_a_file_makes_it_sync() {
    for (live, mode) in [(true, "async"), (false, "sync")] {
        init();
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc num-buffers=2 is-live={live} ! video/x-raw,format=RGB,framerate=30/1 ! \
             xclipdetect name=d labels=walking ! fakesink"
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos]).unwrap();
        let stats = pipeline.by_name("d").unwrap().property::<gst::Structure>("stats");
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(stats.get::<&str>("mode").unwrap(), mode);
    }
}

#[test]
fn sync_mode_of_a_live_stream_adds_the_slowest_windows_to_the_latency() {
    let mut detect = Detect::without_caps("sync=true labels=walking hop=1");
    let upstream = gst::ClockTime::from_mseconds(10);
    detect.harness.set_upstream_latency(upstream);
    detect.harness.set_live(true);
    detect.harness.set_src_caps_str(CAPS);
    detect.pass(0..T - 1);
    assert_eq!(detect.harness.query_latency(), Some(upstream), "no window was scored");
    detect.pass(T - 1..2 * T);
    let told = detect.harness.query_latency().unwrap() - upstream;
    let measured: u64 = detect.stats().get("delay-p95").unwrap();
    assert!(told.nseconds() > 0 && told.nseconds() >= measured * 3 / 4, "{told} of {measured} ns");
    let asked = detect.bus.pop_filtered(&[gst::MessageType::Latency]);
    assert!(asked.is_some(), "the pipeline is asked to distribute it");
}
