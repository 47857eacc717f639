//! What xclipscenesrc promises, in real pipelines.
#![cfg(feature = "gst")]

use std::collections::BTreeMap;

use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use gstreamer as gst;
use gstreamer_check as gst_check;
use gstreamer_video as gst_video;
use gstxclip::scene::{Script, Stage};

const SCRIPT: &str = "{seed: 5, duration: 4, segments: [
    {action: walking, from: 0.2, to: 1.0, colour: red, actor: 3},
    {action: falling down, from: 1.0, to: 3.6, actor: 3}]}";

fn init() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
}

/// A pipeline with an appsink called `sink`, which takes what comes as it comes.
fn pipeline(launch: &str) -> (gst::Pipeline, gst::Element) {
    init();
    let pipeline = gst::parse::launch(&format!("{launch} ! appsink name=sink sync=false")).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    (pipeline, sink)
}

fn pull(sink: &gst::Element) -> Option<gst::Sample> {
    sink.emit_by_name::<Option<gst::Sample>>("pull-sample", &[])
}

struct Run {
    caps: gst::Caps,
    /// PTS, duration, samples.
    buffers: Vec<(gst::ClockTime, gst::ClockTime, Vec<u8>)>,
    messages: Vec<gst::Structure>,
}

/// Runs to EOS.
fn run(launch: &str) -> Run {
    let (pipeline, sink) = pipeline(launch);
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut run = Run { caps: gst::Caps::new_empty(), buffers: Vec::new(), messages: Vec::new() };
    while let Some(sample) = pull(&sink) {
        let buffer = sample.buffer().unwrap();
        let samples = buffer.map_readable().unwrap().to_vec();
        run.buffers.push((buffer.pts().unwrap(), buffer.duration().unwrap(), samples));
        run.caps = sample.caps_owned().unwrap();
    }
    run.messages = truth_messages(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    run
}

fn truth_messages(pipeline: &gst::Pipeline) -> Vec<gst::Structure> {
    let bus = pipeline.bus().unwrap();
    let messages =
        std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Element, gst::MessageType::Error]));
    messages
        .map(|message| message.structure().unwrap().to_owned())
        .filter(|s| s.name() == "xclip-truth")
        .collect()
}

/// phase, label, start, end in milliseconds.
fn said(messages: &[gst::Structure]) -> Vec<(String, String, u64, u64)> {
    let ms = |s: &gst::Structure, name: &str| s.get::<u64>(name).unwrap() / 1_000_000;
    let line =
        |s: &gst::Structure| (s.get("phase").unwrap(), s.get("label").unwrap(), ms(s, "start"), ms(s, "end"));
    messages.iter().map(line).collect()
}

fn inline(script: &str) -> String {
    format!("\"{}\"", script.replace('\n', " "))
}

#[test]
fn pictures_are_those_of_the_stage() {
    let run = run(&format!(
        "xclipscenesrc script={} ! video/x-raw,width=161,height=121,framerate=10/1",
        inline(SCRIPT)
    ));
    assert_eq!(run.buffers.len(), 40, "4 s at 10/s, then EOS");
    assert_eq!(run.caps.structure(0).unwrap().get::<&str>("format").unwrap(), "RGBA");
    let mut stage = Stage::new(&Script::parse(SCRIPT).unwrap(), 161, 121);
    let mut expected = vec![0; 161 * 121 * 4];
    for (index, (pts, duration, samples)) in run.buffers.iter().enumerate() {
        assert_eq!((pts.mseconds(), duration.mseconds()), (100 * index as u64, 100));
        stage.draw((*pts).into(), &mut expected);
        assert!(*samples == expected, "picture {index}");
    }
}

#[test]
fn defaults_are_vga_at_25_of_a_made_up_minute() {
    init();
    let mut harness = Harness::new("xclipscenesrc");
    harness.play();
    let buffer = harness.pull().unwrap();
    let caps = harness.sinkpad().unwrap().current_caps().unwrap();
    let info = VideoInfo::from_caps(&caps).unwrap();
    assert_eq!((info.format(), info.width(), info.height()), (VideoFormat::Rgba, 640, 480));
    assert_eq!(info.fps(), gst::Fraction::new(25, 1));
    assert_eq!(buffer.size(), 640 * 480 * 4);
    let duration = harness.element().unwrap().query_duration::<gst::ClockTime>();
    assert_eq!(duration, Some(gst::ClockTime::from_seconds(60)));
}

#[test]
fn same_seed_same_pixels_and_another_seed_others() {
    let launch = |rest: &str| {
        run(&format!("xclipscenesrc look=busy duration=700000000 {rest} ! video/x-raw,width=96,height=96"))
            .buffers
    };
    let first = launch("seed=11");
    assert_eq!(first.len(), 18, "0.7 s at 25/s");
    assert!(first == launch("seed=11"));
    assert!(first != launch("seed=12"));
}

#[test]
fn seed_takes_the_place_of_the_scripts() {
    let script = "{seed: 5, duration: 0.2, segments: [{action: waving, from: 0, to: 0.2}]}";
    let other = script.replace("seed: 5", "seed: 6");
    let pictures = |script: &str, seed: u64| {
        run(&format!("xclipscenesrc script={} seed={seed}", inline(script))).buffers
    };
    assert!(pictures(script, 0) != pictures(&other, 0));
    assert!(pictures(script, 6) == pictures(&other, 0));
}

#[test]
fn truth_is_said_when_its_pictures_are_drawn() {
    let run =
        run(&format!("xclipscenesrc script={} name=src ! video/x-raw,width=32,height=32", inline(SCRIPT)));
    let truth = Script::parse(SCRIPT).unwrap().truth();
    let labels: Vec<&str> = truth.iter().map(|item| item.label).collect();
    assert_eq!(
        labels,
        ["an empty scene", "walking", "falling down", "lying on the ground", "an empty scene"]
    );
    let mut expected = Vec::new();
    for item in &truth {
        let ms = |seconds: f64| (seconds * 1000.0 + 1e-6) as u64;
        for phase in ["start", "end"] {
            expected.push((phase.to_string(), item.label.to_string(), ms(item.start), ms(item.end)));
        }
    }
    // One after the other in this script, so an end comes before the next start.
    assert_eq!(said(&run.messages), expected);
    let walking = run.messages.iter().find(|s| s.get::<&str>("label") == Ok("walking")).unwrap();
    assert_eq!((walking.get::<&str>("colour").unwrap(), walking.get::<u64>("actor").unwrap()), ("red", 3));
}

#[test]
fn truth_message_comes_no_later_than_the_picture() {
    init();
    let mut harness = Harness::new_parse("xclipscenesrc name=src");
    let source = harness.find_element("xclipscenesrc").unwrap();
    source.set_property("script", SCRIPT);
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    harness.play();
    let mut heard = BTreeMap::new();
    for _ in 0..90 {
        let pts = harness.pull().unwrap().pts().unwrap();
        while let Some(message) = bus.pop_filtered(&[gst::MessageType::Element]) {
            let structure = message.structure().unwrap();
            let key = (structure.get::<u64>("index").unwrap(), structure.get::<String>("phase").unwrap());
            let time = structure.get::<u64>(&key.1).unwrap();
            heard.insert(key, (time, pts.nseconds()));
        }
    }
    assert!(heard.len() >= 6, "{heard:?}");
    for (time, pts) in heard.values() {
        // The harness queues pictures, so the message may be early by some pictures, but never late.
        assert!(*pts < time + 40_000_000, "{heard:?}");
    }
}

#[test]
fn truth_property_lists_all_from_paused_on() {
    let (pipeline, _) = pipeline(&format!("xclipscenesrc name=src script={}", inline(SCRIPT)));
    let source = pipeline.by_name("src").unwrap();
    assert!(source.property::<gst::Array>("truth").is_empty());
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(10)).0.unwrap();
    let truth = source.property::<gst::Array>("truth");
    let labels: Vec<String> =
        truth.iter().map(|item| item.get::<gst::Structure>().unwrap().get("label").unwrap()).collect();
    let expected: Vec<&str> = Script::parse(SCRIPT).unwrap().truth().iter().map(|item| item.label).collect();
    assert_eq!(labels, expected);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_seek_shows_the_pictures_of_that_time() {
    let launch = format!("xclipscenesrc name=src script={} ! video/x-raw,width=64,height=48", inline(SCRIPT));
    let whole = run(&launch);
    let (pipeline, sink) = pipeline(&launch);
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(10)).0.unwrap();
    truth_messages(&pipeline);
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    pipeline.seek_simple(flags, gst::ClockTime::from_mseconds(1450)).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(10)).0.unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = pull(&sink).unwrap();
    let buffer = sample.buffer().unwrap();
    // The picture that is seen at 1.45 s began at 1.44 s.
    assert_eq!(buffer.pts().unwrap().mseconds(), 1440);
    assert!(*buffer.map_readable().unwrap() == *whole.buffers[36].2);
    let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap();
    assert_eq!(
        segment.to_stream_time(gst::ClockTime::from_mseconds(1480)),
        Some(gst::ClockTime::from_mseconds(1480))
    );
    while pull(&sink).is_some() {}
    let messages = said(&truth_messages(&pipeline));
    assert_eq!(messages[0].0, "start");
    assert!(messages[0].2 <= 1450 && messages[0].3 > 1450, "what is under way: {messages:?}");
    assert!(messages.iter().all(|(_, label, ..)| label != "walking"), "{messages:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_seek_with_a_stop_ends_there_and_backwards_is_refused() {
    let (pipeline, sink) = pipeline(&format!("xclipscenesrc script={}", inline(SCRIPT)));
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(10)).0.unwrap();
    let (from, to) = (gst::ClockTime::from_mseconds(400), gst::ClockTime::from_mseconds(800));
    let seek =
        |rate| pipeline.seek(rate, gst::SeekFlags::FLUSH, gst::SeekType::Set, from, gst::SeekType::Set, to);
    assert!(seek(-1.0).is_err());
    seek(2.0).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let times: Vec<u64> =
        std::iter::from_fn(|| pull(&sink)).map(|s| s.buffer().unwrap().pts().unwrap().mseconds()).collect();
    assert_eq!((times[0], *times.last().unwrap(), times.len()), (400, 760, 10));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn every_format_and_size_is_negotiated() {
    for format in ["RGBA", "RGBx", "BGRA", "BGRx", "RGB", "BGR", "I420", "NV12", "GRAY8"] {
        for (width, height) in [(1, 1), (17, 3), (333, 241), (640, 480)] {
            let caps =
                format!("video/x-raw,format={format},width={width},height={height},framerate=30000/1001");
            let run = run(&format!("xclipscenesrc duration=100000000 ! {caps}"));
            let info = VideoInfo::from_caps(&run.caps).unwrap();
            assert_eq!(
                (info.width(), info.height(), info.format().to_str().as_str()),
                (width, height, format)
            );
            assert_eq!(run.buffers.len(), 3, "{caps}");
            assert!(run.buffers.iter().all(|(_, _, samples)| samples.len() == info.size()), "{caps}");
            // Picture times are those of the rate, not multiples of a rounded duration.
            assert_eq!(run.buffers[2].0.nseconds(), 66_733_333);
        }
    }
}

#[test]
fn formats_show_the_same_picture() {
    let picture = |format: &str| {
        let launch = format!(
            "xclipscenesrc seed=3 num-buffers=1 ! video/x-raw,format={format},width=64,height=64 \
             ! videoconvert ! video/x-raw,format=RGBA"
        );
        run(&launch).buffers.remove(0).2
    };
    let reference = picture("RGBA");
    for format in ["RGBx", "BGRA", "BGRx", "RGB", "BGR", "I420", "NV12"] {
        let off: u64 = reference.iter().zip(picture(format)).map(|(a, b)| u64::from(a.abs_diff(b))).sum();
        // Chroma subsampling blurs edges of clothes.
        let bound = if format.contains('4') || format == "NV12" { 4.0 } else { 0.0 };
        assert!(off as f64 / reference.len() as f64 <= bound, "{format}: {off}");
    }
}

#[test]
fn pictures_in_4k() {
    let run = run("xclipscenesrc num-buffers=2 ! video/x-raw,width=3840,height=2160");
    assert_eq!(run.buffers.len(), 2);
    assert_eq!(run.buffers[1].2.len(), 3840 * 2160 * 4);
    assert!(
        run.buffers[0].2 != run.buffers[1].2
            || run.buffers[0].2.chunks(4).any(|p| p != &run.buffers[0].2[..4])
    );
}

#[test]
fn live_pictures_come_in_step_with_the_clock() {
    init();
    let mut harness = Harness::new("xclipscenesrc");
    harness.element().unwrap().set_property("is-live", true);
    harness.use_testclock();
    harness.play();
    let clock = harness.testclock().unwrap();
    for index in 0..5_u64 {
        // The source waits for the picture's time; nothing comes before the clock is there.
        assert!(harness.try_pull().is_none());
        harness.crank_single_clock_wait().unwrap();
        let buffer = harness.pull().unwrap();
        assert_eq!(buffer.pts().unwrap().mseconds(), 40 * index);
        assert_eq!(clock.time().mseconds(), 40 * index);
    }
}

#[test]
fn a_late_live_source_leaves_pictures_out() {
    init();
    let mut harness = Harness::new("xclipscenesrc");
    harness.element().unwrap().set_property("is-live", true);
    harness.use_testclock();
    harness.play();
    harness.crank_single_clock_wait().unwrap();
    assert_eq!(harness.pull().unwrap().pts().unwrap().mseconds(), 0);
    // The picture of 40 ms is drawn and waits; then the machine is busy for a second.
    harness.wait_for_clock_id_waits(1, 5).unwrap();
    harness.set_time(gst::ClockTime::from_mseconds(1050)).unwrap();
    harness.crank_single_clock_wait().unwrap();
    assert_eq!(harness.pull().unwrap().pts().unwrap().mseconds(), 40);
    // A test clock holds late waits too.
    harness.crank_single_clock_wait().unwrap();
    let next = harness.pull().unwrap();
    assert_eq!(next.pts().unwrap().mseconds(), 1040);
}

#[test]
fn live_latency_is_one_picture_and_live_cannot_be_sought() {
    init();
    for (live, seekable) in [(true, false), (false, true)] {
        let (pipeline, sink) =
            pipeline(&format!("xclipscenesrc name=src is-live={live} ! video/x-raw,framerate=20/1"));
        pipeline.set_state(gst::State::Playing).unwrap();
        pull(&sink).unwrap();
        let source = pipeline.by_name("src").unwrap();
        let mut latency = gst::query::Latency::new();
        assert!(source.query(&mut latency));
        assert_eq!(latency.result(), (live, gst::ClockTime::from_mseconds(50), None));
        let mut seeking = gst::query::Seeking::new(gst::Format::Time);
        assert!(source.query(&mut seeking));
        assert_eq!(seeking.result().0, seekable);
        assert_eq!(source.query_duration::<gst::ClockTime>().is_some(), !live);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// The error of a pipeline that must not start.
fn refused(properties: &str) -> String {
    let (pipeline, _) = pipeline(&format!("xclipscenesrc {properties}"));
    assert!(pipeline.set_state(gst::State::Paused).is_err());
    let message = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let text = format!("{} {}", error.error(), error.debug().unwrap_or_default());
    pipeline.set_state(gst::State::Null).unwrap();
    text
}

#[test]
fn bad_scripts_are_refused_by_name_and_place() {
    for (properties, expected) in [
        ("script=/no/such/file.yaml", "/no/such/file.yaml"),
        ("script=\"{duration: 5, segments: [{action: flying, from: 0, to: 1}]}\"", "unknown action `flying`"),
        ("script=\"{duration: 5, sgments: []}\"", "sgments"),
        ("actions=\"walking; yodelling\"", "`yodelling`"),
    ] {
        let message = refused(properties);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_script_file_plays_like_its_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SCRIPT).unwrap();
    let of = |script: &str| {
        run(&format!("xclipscenesrc script={script} ! video/x-raw,width=32,height=24")).buffers
    };
    assert!(of(file.path().to_str().unwrap()) == of(&inline(SCRIPT)));
}

#[test]
fn a_script_as_compact_json_is_a_script() {
    let source = |script: &str| {
        init();
        let mut harness = Harness::new("xclipscenesrc");
        let element = harness.element().unwrap();
        element.set_property("script", script);
        element.set_property("seed", 4_u64);
        harness.play();
        harness.pull().unwrap().map_readable().unwrap().to_vec()
    };
    let compact = r#"{"seed":9,"duration":2.5,"random":["walking","waving"]}"#;
    let lines = "seed: 4\nduration: 2.5\nrandom: [walking, waving]\n";
    assert!(source(compact) == source(lines));
}

#[test]
fn state_cycles_start_from_the_beginning() {
    let (pipeline, sink) = pipeline("xclipscenesrc num-buffers=3 ! video/x-raw,width=32,height=32");
    for _ in 0..20 {
        pipeline.set_state(gst::State::Playing).unwrap();
        let times: Vec<u64> = std::iter::from_fn(|| pull(&sink))
            .map(|s| s.buffer().unwrap().pts().unwrap().mseconds())
            .collect();
        assert_eq!(times, [0, 40, 80]);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
