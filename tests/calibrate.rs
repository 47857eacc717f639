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
    assert!(!recording.events.is_empty(), "{:?}", recording.events);
    let mut own = recording.events.clone();
    own.sort_by(|a, b| a.span.start.total_cmp(&b.span.start));
    assert_eq!(recording.gated(&vec![GateSettings::default(); labels.len()], 1), own);
}

/// Events of `label` that `xclipd detect` reports with this label file.
fn starts(video: &str, labels: &str, label: &str) -> usize {
    let done = xclipd(&["detect", video, "--labels-file", labels]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let told = text(&done.stdout);
    told.lines().filter(|line| line.contains(label) && line.contains(r#""phase":"start""#)).count()
}

#[test]
fn calibrate_makes_a_label_heard_that_was_not_and_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir_all(folder.path().join("videos/monday")).unwrap();
    let mut truth = String::new();
    for (name, seed) in [("a.mp4", 81), ("monday/b.mp4", 82)] {
        let script = format!(
            "seed: {seed}\nduration: 40\nsegments:\n  - {{action: climbing a fence, from: 6, to: 14}}\n  - \
             {{action: walking, from: 18, to: 25}}\n  - {{action: climbing a fence, from: 28, to: 36}}\n"
        );
        std::fs::write(path("script.yaml"), script).unwrap();
        let (script, video, said) =
            (path("script.yaml"), path(&format!("videos/{name}")), path("truth.ndjson"));
        let drawn = ["scene", "--script", &script, "--out", &video, "--truth", &said, "--size", "160"];
        let made = xclipd(&[&drawn[..], &["--rate", "8"]].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
        for line in std::fs::read_to_string(&said).unwrap().lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["file"] = name.into();
            // Labels are the same whatever their case.
            line["label"] = line["label"].as_str().unwrap().to_uppercase().into();
            truth += &format!("{line}\n");
        }
    }
    std::fs::write(path("all.ndjson"), &truth).unwrap();
    // An onset that nothing reaches, and a bad guess of the scale.
    let file = "temperature: 3\nlabels:\n  climbing a fence: {onset: 1.0, severity: alert}\n  dancing:\n";
    std::fs::write(path("labels.yaml"), file).unwrap();
    let video = path("videos/a.mp4");
    assert_eq!(starts(&video, &path("labels.yaml"), "climbing a fence"), 0);
    let (labels, videos, truth, report) =
        (path("labels.yaml"), path("videos"), path("all.ndjson"), path("report"));
    let arguments =
        ["calibrate", "--labels-file", &labels, "--footage", &videos, "--truth", &truth, "--report", &report];
    let done = xclipd(&arguments);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert!(text(&done.stdout).contains("(stays)") || text(&done.stdout).contains("keeps quiet"));
    assert_eq!(starts(&video, &labels, "climbing a fence"), 2);
    assert_eq!(std::fs::read_to_string(path("labels.yaml.bak")).unwrap(), file);
    let fitted = Labels::read(Path::new(&labels)).unwrap();
    assert!(fitted.temperature.unwrap() < 3.0, "{:?}", fitted.temperature);
    assert_eq!(fitted.labels[0].severity.as_deref(), Some("alert"));
    for plot in ["report/precision-recall.svg", "report/reliability.svg"] {
        assert!(std::fs::read_to_string(path(plot)).unwrap().starts_with("<svg"), "{plot}");
    }
    // Again: the first file is still there.
    assert!(xclipd(&arguments).status.success());
    assert_eq!(std::fs::read_to_string(path("labels.yaml.bak")).unwrap(), file);
    assert!(Path::new(&path("labels.yaml.bak.1")).exists());
}

#[test]
fn calibrate_says_what_is_wrong_with_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("labels.yaml"), "labels: {walking: }\n").unwrap();
    std::fs::write(path("video.mp4"), "no video").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for day in ["two/monday", "two/friday"] {
        std::fs::create_dir_all(folder.path().join(day)).unwrap();
        std::fs::write(folder.path().join(day).join("a.mp4"), "no video").unwrap();
    }
    for (file, line) in [
        ("unknown.ndjson", r#"{"file": "other.mp4", "label": "walking", "start": 1, "end": 2}"#),
        ("span.ndjson", r#"{"label": "walking", "start": 3, "end": 2}"#),
        ("foreign.ndjson", r#"{"label": "juggling", "start": 1, "end": 2}"#),
        ("either.ndjson", r#"{"file": "a.mp4", "label": "walking", "start": 1, "end": 2}"#),
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
        ("two", Some("either.ndjson"), "either.ndjson:1: `a.mp4` may be "),
    ] {
        let said = run(footage, truth);
        assert!(said.contains(says), "{footage} {truth:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(path("labels.yaml")).unwrap(), "labels: {walking: }\n", "untouched");
}
