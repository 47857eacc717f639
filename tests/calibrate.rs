//! Recorded scores stand for the element, and `xclipd calibrate` fits a label file to footage.
#![cfg(feature = "gst")]

use std::path::Path;
use std::process::{Command, Output};

use gst::prelude::*;
use gstreamer as gst;
use gstxclip::command::recorder::make;
use gstxclip::command::watch::watch;
use gstxclip::event::GateSettings;
use gstxclip::model::labels::Labels;

fn xclipd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xclipd")).args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn recorded_scores_gated_again_give_the_elements_own_events() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
    let labels: Vec<String> = ["walking", "waving", "two people fighting"].map(String::from).into();
    let script = r#"{"seed": 5, "duration": 40, "random": ["walking", "waving", "running"]}"#;
    let pipeline = gst::Pipeline::new();
    let source = make("xclipscenesrc", &[("script", &script)]).unwrap();
    let caps = gst::Caps::builder("video/x-raw").field("width", 160).field("height", 120).build();
    let size = make("capsfilter", &[("caps", &caps)]).unwrap();
    let convert = make("videoconvert", &[]).unwrap();
    pipeline.add_many([&source, &size, &convert]).unwrap();
    gst::Element::link_many([&source, &size, &convert]).unwrap();
    let detect = make("xclipdetect", &[("labels", &labels.join("; "))]).unwrap();
    let recording = watch(&pipeline, &convert, &detect, &labels, "the script").unwrap();
    // 40 s at 4 frames per second, a window of 8, every second frame.
    assert_eq!(recording.windows.len(), (160 - 8) / 2 + 1);
    assert!(recording.events.len() >= 3, "{:?}", recording.events);
    let mut own = recording.events.clone();
    own.sort_by(|a, b| a.span.start.total_cmp(&b.span.start));
    assert_eq!(recording.gated(&vec![GateSettings::default(); labels.len()], 1), own);
}

#[test]
fn calibrate_fits_a_label_file_and_keeps_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("videos")).unwrap();
    let mut truth = String::new();
    for (name, seed) in [("a.mp4", "81"), ("b.mp4", "82")] {
        let (video, said) = (path(&format!("videos/{name}")), path("truth.ndjson"));
        let drawn = ["scene", "--out", &video, "--truth", &said, "--seed", seed, "--duration", "45"];
        let made = xclipd(&[&drawn[..], &["--size", "160", "--rate", "8"]].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
        for line in std::fs::read_to_string(&said).unwrap().lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["file"] = name.into();
            truth += &format!("{line}\n");
        }
    }
    std::fs::write(path("all.ndjson"), &truth).unwrap();
    let first: serde_json::Value = serde_json::from_str(truth.lines().next().unwrap()).unwrap();
    let known = first["label"].as_str().unwrap();
    // An onset that nothing reaches: to be mended.
    let file = format!("labels:\n  {known}: {{onset: 1.0, severity: alert}}\n  a person plays the violin:\n");
    std::fs::write(path("labels.yaml"), &file).unwrap();
    let arguments = [
        "calibrate",
        "--labels-file",
        &path("labels.yaml"),
        "--footage",
        &path("videos"),
        "--truth",
        &path("all.ndjson"),
        "--report",
        &path("report"),
    ];
    let done = xclipd(&arguments);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert_eq!(std::fs::read_to_string(path("labels.yaml.bak")).unwrap(), file);
    let fitted = Labels::read(Path::new(&path("labels.yaml"))).unwrap();
    let onset = fitted.labels[0].gate.onset.unwrap();
    assert!(onset < 1.0, "{onset}");
    assert!(fitted.labels[0].gate.offset.unwrap() < onset);
    assert_eq!(fitted.labels[0].severity.as_deref(), Some("alert"));
    assert!(
        fitted.labels[1].gate.onset.unwrap() >= 0.6,
        "not in the truth: as quiet as the default at least"
    );
    for plot in ["report/precision-recall.svg", "report/reliability.svg"] {
        assert!(std::fs::read_to_string(path(plot)).unwrap().starts_with("<svg"), "{plot}");
    }
}

#[test]
fn calibrate_says_what_is_wrong_with_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("labels.yaml"), "labels: {walking: }\n").unwrap();
    std::fs::write(path("video.mp4"), "no video").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (file, line) in [
        ("unknown.ndjson", r#"{"file": "other.mp4", "label": "walking", "start": 1, "end": 2}"#),
        ("span.ndjson", r#"{"label": "walking", "start": 3, "end": 2}"#),
        ("foreign.ndjson", r#"{"label": "juggling", "start": 1, "end": 2}"#),
    ] {
        std::fs::write(path(file), format!("{line}\n")).unwrap();
    }
    let run = |footage: &str, truth: Option<&str>| {
        let mut arguments = vec!["calibrate".into(), "--labels-file".into(), path("labels.yaml")];
        arguments.extend(["--footage".into(), path(footage)]);
        arguments.extend(truth.into_iter().flat_map(|truth| ["--truth".into(), path(truth)]));
        let done = xclipd(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(done.status.code(), Some(1));
        text(&done.stderr)
    };
    for (footage, truth, says) in [
        ("empty", None, "has no video"),
        ("missing", None, "No such file"),
        ("video.mp4", None, "video.mp4"),
        ("video.mp4", Some("unknown.ndjson"), "unknown.ndjson:1: `other.mp4` is no video of the footage"),
        ("video.mp4", Some("span.ndjson"), "span.ndjson:1: 3 to 2 s is no span of time"),
        ("video.mp4", Some("foreign.ndjson"), "names no label"),
    ] {
        let said = run(footage, truth);
        assert!(said.contains(says), "{footage} {truth:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(path("labels.yaml")).unwrap(), "labels: {walking: }\n", "untouched");
}
