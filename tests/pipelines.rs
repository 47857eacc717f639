//! Every pipeline and script in pipelines/ and every file in config/ is good as it is printed.
#![cfg(feature = "gst")]

use std::path::{Path, PathBuf};

use gst::prelude::*;
use gstreamer as gst;
use gstxclip::model::labels::Labels;
use gstxclip::scene::Script;

fn init() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
}

/// Files of a folder and those below that end in one of `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.to_str().unwrap().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What the shell makes of `$(grep -v '^#' FILE)`, with quotes as GStreamer's parser sees them.
fn line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_launch_file_is_a_pipeline() {
    init();
    let files = files("pipelines", &[".launch"]);
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let built = gst::parse::launch_full(&line(&path), None, gst::ParseFlags::FATAL_ERRORS);
        let element = built.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn every_launch_file_says_what_it_is_and_how_to_run_it() {
    for path in files("pipelines", &[".launch"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let comments: Vec<_> = text.lines().filter(|line| line.starts_with("# ")).collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(comments.len(), 2, "{name}");
        assert!(
            comments[1].ends_with(&format!("$(grep -v '^#' pipelines/{name})")),
            "{name}: {}",
            comments[1]
        );
    }
}

#[test]
fn launch_files_that_need_no_camera_and_no_file_play() {
    init();
    // Labels and scripts are named relative to the repository.
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut played = 0;
    for path in files("pipelines", &[".launch"]) {
        let line = line(&path);
        if !line.starts_with("xclipscenesrc") {
            continue;
        }
        let line = line.replace("autovideosink", "fakesink");
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let wanted = [gst::MessageType::Element, gst::MessageType::Error, gst::MessageType::Eos];
        // The first message of the scene's truth is posted with the first picture.
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &wanted);
        let message = message.unwrap_or_else(|| panic!("{}: nothing happens", path.display()));
        assert_eq!(message.type_(), gst::MessageType::Element, "{}: {message:?}", path.display());
        pipeline.set_state(gst::State::Null).unwrap();
        played += 1;
    }
    assert!(played >= 2);
}

#[test]
fn every_script_can_be_played() {
    for path in files("pipelines", &[".scene.yaml"]) {
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap());
        let script = script.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!script.truth().is_empty(), "{}", path.display());
    }
}

#[test]
fn every_label_file_is_a_label_set() {
    let files = files("config/labels", &[".yaml"]);
    assert!(!files.is_empty());
    for path in files {
        let labels = Labels::read(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(!labels.labels.is_empty(), "{}", path.display());
    }
}

#[test]
fn nothing_in_config_is_unknown_to_these_tests() {
    for path in files("config", &[""]) {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_string();
        let known = name.starts_with("config/labels/") && name.ends_with(".yaml")
            || name == "config/event.schema.json"; // tests/event_schema.rs
        assert!(known, "{name} is loaded by no test");
    }
}
