//! A real camera on loopback: an RTSP server that streams H.264 of a scripted scene, in real time.
#![cfg(feature = "gst")]

#[path = "../pipelines/rtsp_scene.rs"]
mod rtsp_scene;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use gstreamer as gst;
use gstxclip::command::matching::{Matching, Span};
use gstxclip::command::told::Told;
use gstxclip::element::meta;
use gstxclip::event::Phase;
use gstxclip::event::json::Record;
use gstxclip::scene::Script;
use rtsp_scene::Camera;

/// Each test has the machine to itself: they measure.
static ALONE: Mutex<()> = Mutex::new(());

/// Of the scene; never used in training.
const SEED: u64 = 4_000_007;
const SECONDS: u64 = 120;
const LABELS: [&str; 5] =
    ["walking", "lying on the ground", "waving", "climbing a fence", "two people fighting"];

/// What is seen at the detector's pads and on the bus.
#[derive(Default)]
struct Seen {
    entered: HashMap<gst::ClockTime, Instant>,
    /// From sink pad to source pad, of every buffer.
    transits: Vec<Duration>,
    /// Label generation of the scores on buffers, and when it was first seen.
    generations: Vec<(u64, Instant)>,
    events: Vec<(Record, SystemTime)>,
}

fn watch(pipeline: &gst::Pipeline) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let detect = pipeline.by_name("detect").unwrap();
    let at = Arc::clone(&seen);
    detect.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) {
            at.lock().unwrap().entered.insert(pts, Instant::now());
        }
        gst::PadProbeReturn::Ok
    });
    let at = Arc::clone(&seen);
    detect.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = Instant::now();
        let mut seen = at.lock().unwrap();
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        if let Some(entered) = buffer.pts().and_then(|pts| seen.entered.remove(&pts)) {
            seen.transits.push(now - entered);
        }
        for (_, window) in meta::read(buffer).windows {
            if seen.generations.last().is_none_or(|(last, _)| *last != window.labels_generation) {
                seen.generations.push((window.labels_generation, now));
            }
        }
        gst::PadProbeReturn::Ok
    });
    let at = Arc::clone(&seen);
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        let structure = message.structure().filter(|structure| structure.name() == meta::EVENT);
        if let Some(structure) = structure {
            let record = meta::event::<Record>(structure).unwrap();
            at.lock().unwrap().events.push((record, SystemTime::now()));
        }
        gst::BusSyncReply::Pass
    });
    seen
}

fn play(line: &str) -> gst::Pipeline {
    gst::parse::launch_full(line, None, gst::ParseFlags::FATAL_ERRORS).unwrap().downcast().unwrap()
}

#[test]
fn a_camera_s_events_match_its_script_and_no_picture_waits() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let text = serde_json::json!({"seed": SEED, "duration": SECONDS, "random": LABELS}).to_string();
    let script = Script::parse(&text).unwrap();
    let camera = Camera::start(&text, [640, 360], 25, false).unwrap();
    let pipeline = play(&format!(
        "rtspsrc location={} latency=200 add-reference-timestamp-meta=true ! rtph264depay ! avdec_h264 \
         ! xclipdetect name=detect labels=\"{}\" ! fakesink sync=false",
        camera.address,
        LABELS.join("; ")
    ));
    let detect = pipeline.by_name("detect").unwrap();
    let seen = watch(&pipeline);
    pipeline.set_state(gst::State::Playing).unwrap();

    let bus = pipeline.bus().unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let half = bus.timed_pop_filtered(gst::ClockTime::from_seconds(SECONDS / 2), &ends);
    assert!(half.is_none(), "{half:?}");
    let changed = Instant::now();
    detect.set_property("labels", format!("{}; jumping", LABELS.join("; ")));
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(SECONDS), &ends);
    let end = end.expect("the camera's last picture ends the stream");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    let stats = detect.property::<gst::Structure>("stats");
    pipeline.set_state(gst::State::Null).unwrap();
    let begun = camera.begun().unwrap();
    let seen = seen.lock().unwrap();

    // Events beside the script.
    let truth: Vec<Span> = script
        .truth()
        .iter()
        .filter(|truth| LABELS.contains(&truth.label) || truth.label == "jumping")
        .map(|truth| Span { label: truth.label.into(), start: truth.start, end: truth.end })
        .collect();
    // When a message was on the bus, not what it says.
    let reported = Told(seen.events.clone()).reported(begun);
    let starts = seen.events.iter().filter(|(event, _)| event.phase == Phase::Start).count();
    assert_eq!(reported.len(), starts, "every event has UTC and ends by the end of the stream");
    let matching = Matching::new(&truth, &reported, 0.3);
    println!("{}\n{matching}", matching.table(&truth, &reported));
    println!("{stats}");
    for label in LABELS {
        assert!(truth.iter().any(|span| span.label == label), "`{label}` is not in the script");
    }
    assert!(matching.precision() >= 0.8, "{matching}");
    assert!(matching.recall() >= 0.8, "{matching}");
    assert!(matching.median_delay().unwrap() <= 2.0, "{matching}");

    // No picture waited for the model: they left within their frame interval, but for what the machine
    // itself held up.
    let mut transits = seen.transits.clone();
    transits.sort();
    let share = |share: f64| transits[((transits.len() - 1) as f64 * share) as usize];
    println!(
        "{} pictures, in the element for {:?} (median), {:?} (95 %), {:?} (99 %)",
        transits.len(),
        share(0.5),
        share(0.95),
        share(0.99)
    );
    assert!(transits.len() as u64 > SECONDS * 25 / 2);
    assert!(share(0.95) < Duration::from_millis(40), "{:?}", share(0.95));

    // The new labels scored the pictures of the same second.
    let (_, first) = seen.generations.iter().find(|(generation, _)| *generation == 2).unwrap();
    assert!(*first - changed < Duration::from_secs(1), "{:?}", *first - changed);
}

#[test]
fn the_readme_s_line_works_for_a_camera_with_audio() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let text = r#"{"duration": 30, "segments": [{"action": "walking", "from": 0, "to": 30}]}"#;
    let camera = Camera::start(text, [320, 240], 15, true).unwrap();
    let readme = include_str!("../README.md");
    let line = readme
        .lines()
        .skip_while(|line| !line.starts_with("gst-launch-1.0 -m rtspsrc "))
        .take_while(|line| !line.starts_with("```"))
        .map(|line| line.trim_end_matches('\\'))
        .collect::<Vec<_>>()
        .join(" ");
    let line = line.strip_prefix("gst-launch-1.0 -m ").expect("the README has the rtspsrc line");
    let address = line.split_whitespace().find(|word| word.starts_with("location=")).unwrap();
    let line = line
        .replace(address, &format!("location={}", camera.address))
        .replace("autovideosink", "fakesink sync=false")
        .replace("xclipdetect ", "xclipdetect name=detect ");
    let pipeline = play(&line);
    let seen = watch(&pipeline);
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let failed = bus.timed_pop_filtered(gst::ClockTime::from_seconds(8), &[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(failed.is_none(), "{failed:?}");
    let pictures = seen.lock().unwrap().transits.len();
    assert!(pictures > 45, "{pictures} pictures in 8 s");
}
