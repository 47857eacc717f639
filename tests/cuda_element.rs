//! xclipdetect on the CUDA backend, in whole pipelines: the same windows and events as on the CPU, and what its
//! user hears when there is no GPU, one that cannot be used, or one that dies.
#![cfg(all(feature = "gst", feature = "cuda", unix))]

mod cuda_device;
mod element_common;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cuda_device::{device, emulator, say};
use element_common::{init, record, text};
use gst::prelude::*;
use gstreamer as gst;
use gstxclip::backend::cuda::probe;
use gstxclip::backend::{Device, Precision};
use gstxclip::detector::WindowScores;
use gstxclip::element::meta;
use gstxclip::engine::{Engine, Spec, State};
use gstxclip::event::json::Record;
use gstxclip::event::{Phase, Reason};
use gstxclip::model::Heads;

/// Set in a process of its own: the device property.
const CHILD: &str = "XCLIP_TEST_DEVICE";
/// Probabilities; f16 moves a logit by up to 0.02, and a level may be rounded the other way.
const NEAR: f32 = 0.02;

/// Somebody waves, then jumps: nine seconds of odd size, in the format of decoders.
const SCENE: &str = "xclipscenesrc script=\"{duration: 9, seed: 5, segments: [{action: waving, from: 0, to: 5}, \
     {action: jumping, from: 5, to: 9}]}\" ! video/x-raw,width=150,height=114,framerate=8/1 ! videoconvert ! \
     video/x-raw,format=NV12";
/// One every 250 ms.
const SAMPLED: u64 = 36;
/// From the eighth sampled frame on, every second.
const WINDOWS: usize = 15;

/// What one pipeline said.
#[derive(Default)]
struct Played {
    windows: Vec<WindowScores>,
    events: Vec<Record>,
    warnings: Vec<String>,
    errors: Vec<String>,
    stats: Option<gst::Structure>,
}

impl Played {
    fn stat(&self, name: &str) -> u64 {
        self.stats.as_ref().expect("taken before the end").get(name).unwrap()
    }

    /// Warnings that are not the bundled checkpoint's own.
    fn of_device(&self) -> Vec<&String> {
        self.warnings.iter().filter(|warning| !warning.contains("demo")).collect()
    }
}

/// Plays the scene to its end; five seconds in, other labels.
fn play(properties: &str) -> Played {
    init();
    let line = format!(
        "{SCENE} ! xclipdetect name=d sync=true hop=2 onset=0.5 offset=0.4 labels=waving;running {properties} ! \
         fakesink sync=false name=sink signal-handoffs=true"
    );
    let pipeline: gst::Pipeline = gst::parse::launch(&line).unwrap().downcast().unwrap();
    let detect = pipeline.by_name("d").unwrap();
    detect.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        let pts = info.buffer().and_then(|buffer| buffer.pts()).unwrap();
        if pts == gst::ClockTime::from_seconds(5) {
            pad.parent_element().unwrap().set_property("labels", "jumping;waving;sitting");
        }
        gst::PadProbeReturn::Ok
    });
    let windows = Arc::new(Mutex::new(Vec::new()));
    let seen = windows.clone();
    pipeline.by_name("sink").unwrap().connect("handoff", false, move |values| {
        let marks = meta::read(&values[1].get::<gst::Buffer>().unwrap());
        seen.lock().unwrap().extend(marks.windows.into_iter().map(|(_, window)| window));
        None
    });
    let bus = pipeline.bus().unwrap();
    // Not the source's, which stops because of it.
    let is_own = |message: &gst::Message| message.src() == Some(detect.upcast_ref::<gst::Object>());
    let mut played = Played::default();
    let playing = pipeline.set_state(gst::State::Playing).is_ok();
    loop {
        // One that did not start has said all it has to say.
        let patience = gst::ClockTime::from_seconds(if playing { 120 } else { 0 });
        let Some(message) = bus.timed_pop(patience) else {
            assert!(!playing, "no end within two minutes");
            break;
        };
        match message.view() {
            gst::MessageView::Warning(_) => played.warnings.push(text(&message)),
            gst::MessageView::Error(_) if is_own(&message) => played.errors.push(text(&message)),
            gst::MessageView::Element(_) => played.events.extend(record(&message)),
            gst::MessageView::Eos(_) => break,
            _ => {}
        }
        if playing && !played.errors.is_empty() {
            break;
        }
    }
    played.stats = Some(detect.property("stats"));
    pipeline.set_state(gst::State::Null).unwrap();
    // Whatever else was said on the way out.
    let rest = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Error]));
    played.errors.extend(rest.filter(is_own).map(|message| text(&message)));
    played.windows = std::mem::take(&mut windows.lock().unwrap());
    played
}

/// The engine that elements with these properties share, loaded, so that no frame comes before it is.
fn loaded(device: Device) -> Arc<Engine> {
    let (model, precision) = ("demo".into(), Precision::Auto);
    let engine =
        Engine::open(&Spec { model, device, precision, threads: 0, heads: Heads::default() }).unwrap();
    while matches!(engine.state(), State::Loading) {
        std::thread::sleep(Duration::from_millis(5));
    }
    engine
}

/// Label, phase, reason, and when.
fn plain(event: &Record) -> (String, Phase, Reason, u64, Option<u64>) {
    let end = event.end.as_ref().map(|end| end.timestamp);
    (event.label.clone(), event.phase, event.reason, event.start.timestamp, end)
}

#[test]
fn windows_and_events_on_the_device_are_those_of_the_cpu_across_a_change_of_labels() {
    if std::env::var_os(CHILD).is_some() || device().is_none() {
        return;
    }
    let _engine = loaded(Device::Cuda(0));
    let found = play("device=cuda:0");
    assert_eq!((&found.errors, found.of_device()), (&Vec::new(), Vec::new()));
    assert_eq!((found.stat("sampled"), found.stat("uploaded")), (SAMPLED, SAMPLED));
    let expected = play("device=cpu precision=f32");
    assert_eq!((found.windows.len(), expected.windows.len()), (WINDOWS, WINDOWS));
    for (found, expected) in found.windows.iter().zip(&expected.windows) {
        assert_eq!((found.end, found.labels_generation), (expected.end, expected.labels_generation));
        assert_eq!(found.top.len(), if found.labels_generation == 1 { 2 } else { 3 });
        for (label, score) in &found.top {
            let other = expected.top.iter().find(|(other, _)| other == label).expect("the same labels").1;
            let end = found.end.timestamp;
            assert!((score - other).abs() <= NEAR, "{end:?}: {label} {score}, on the CPU {other}");
        }
    }
    let plainly = |played: &Played| played.events.iter().map(plain).collect::<Vec<_>>();
    assert_eq!(plainly(&found), plainly(&expected));
    let starts: Vec<&str> = (found.events.iter().filter(|event| event.phase == Phase::Start))
        .map(|event| event.label.as_str())
        .collect();
    assert_eq!(starts, ["waving", "jumping"]);
}

/// The last one of a moment takes the engine and all of its device memory along, while others start.
#[test]
fn pipelines_come_and_go_beside_each_other() {
    if std::env::var_os(CHILD).is_some() || device().is_none() {
        return;
    }
    let plays = |precision: &'static str| {
        move || [(); 2].map(|()| play(&format!("device=cuda:0 precision={precision}")))
    };
    std::thread::scope(|scope| {
        // Of two engines.
        let played = ["auto", "f16", "f16"].map(|precision| scope.spawn(plays(precision)));
        for played in played.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert_eq!((&played.errors, played.of_device()), (&Vec::new(), Vec::new()));
            assert_eq!((played.windows.len(), played.stat("sampled")), (WINDOWS, SAMPLED));
        }
    });
}

/// `test` again in a process of its own, with these libraries and this fault; checked there.
fn in_child(test: &str, device: &str, libraries: &Path, fault: &str) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, device)
        .env("XCLIP_CUDA_LIB_DIR", libraries)
        .env("XCLIP_EMULATED_FAULT", fault)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr) + String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{device}, fault `{fault}`: {said}");
}

/// None in the parent.
fn child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// The emulated libraries; none, with a line that says why, where faults cannot be brought about.
fn libraries() -> Option<std::path::PathBuf> {
    let name = std::thread::current().name().unwrap_or("test").to_string();
    if device().is_some_and(|gpu| !gpu.is_emulated()) {
        say(&format!("SKIPPED {name}: this machine has a GPU"));
        return None;
    }
    emulator().inspect_err(|why| say(&format!("SKIPPED {name}: {why}"))).ok()
}

#[test]
fn without_a_driver_auto_plays_on_the_cpu_and_a_named_gpu_is_one_error() {
    if let Some(device) = child() {
        let played = play(&format!("device={device}"));
        if device == "auto" {
            // As usual as a machine with a GPU, nothing to warn of; a card that lacks its driver is.
            let card = probe(0).unwrap_err().to_string().contains("NVIDIA card");
            assert_eq!(
                (played.errors.len(), played.of_device().len()),
                (0, usize::from(card)),
                "{:?}",
                played.warnings
            );
            assert_eq!((played.windows.len(), played.stat("uploaded")), (WINDOWS, 0));
        } else {
            assert_eq!(played.errors.len(), 1, "{:?}", played.errors);
            let error = &played.errors[0];
            assert!(error.starts_with("no NVIDIA driver: libcuda.so.1 was not found"), "{error}");
            assert!(error.contains("Install driver 525 or newer") && error.contains("device=cpu"), "{error}");
        }
        return;
    }
    if libraries().is_none() {
        return;
    }
    let (empty, test) =
        (tempfile::tempdir().unwrap(), "without_a_driver_auto_plays_on_the_cpu_and_a_named_gpu_is_one_error");
    for device in ["auto", "cuda:0"] {
        in_child(test, device, empty.path(), "");
    }
}

#[test]
fn a_gpu_that_cannot_be_used_is_one_warning_with_auto_and_one_error_by_name() {
    if let Some(device) = child() {
        let played = play(&format!("device={device}"));
        if device == "auto" {
            assert_eq!((played.errors.len(), played.windows.len()), (0, WINDOWS), "{:?}", played.errors);
            let warnings = played.of_device();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].starts_with("the CPU takes over, because"), "{warnings:?}");
            assert!(warnings[0].contains("is too old: it speaks CUDA 11.4"), "{warnings:?}");
        } else {
            assert_eq!(played.errors.len(), 1, "{:?}", played.errors);
            assert!(played.errors[0].contains("Update it to driver 525"), "{:?}", played.errors);
        }
        return;
    }
    let Some(libraries) = libraries() else { return };
    let test = "a_gpu_that_cannot_be_used_is_one_warning_with_auto_and_one_error_by_name";
    for device in ["auto", "cuda:0"] {
        in_child(test, device, &libraries, "old-driver");
    }
}

#[test]
fn a_gpu_that_dies_is_one_warning_with_auto_which_goes_on_and_one_error_by_name() {
    if let Some(name) = child() {
        let _engine = loaded(name.parse().unwrap());
        let played = play(&format!("device={name}"));
        let uploaded = played.stat("uploaded");
        assert!((8..SAMPLED).contains(&uploaded), "{uploaded} frames before the device died");
        if name == "auto" {
            assert_eq!((played.errors.len(), played.windows.len()), (0, WINDOWS), "{:?}", played.errors);
            let warnings = played.of_device();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("the GPU was lost in cu"), "{warnings:?}");
            // One begins after the loss, and both end.
            let of = |phase| played.events.iter().filter(|event| event.phase == phase).count();
            assert_eq!((of(Phase::Start), of(Phase::End)), (2, 2), "{:?}", played.events);
        } else {
            assert_eq!(played.errors.len(), 1, "{:?}", played.errors);
            let error = &played.errors[0];
            assert!(error.contains("the GPU was lost in cu") && error.contains("dmesg"), "{error}");
        }
        return;
    }
    let Some(libraries) = libraries() else { return };
    let test = "a_gpu_that_dies_is_one_warning_with_auto_which_goes_on_and_one_error_by_name";
    for device in ["auto", "cuda:0"] {
        in_child(test, device, &libraries, "lost:800");
    }
}
