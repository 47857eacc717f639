//! Bad properties and labels: the state change fails with one message, or, while playing, a warning
//! names the fault and the old value stays.
#![cfg(feature = "gst")]

mod element_common;

use element_common::*;
use gst::prelude::*;
use gstreamer as gst;

/// The error message with which the element refuses to start.
fn refusal(properties: &[(&str, &str)]) -> String {
    init();
    let element = gst::ElementFactory::make("xclipdetect").build().unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    assert!(element.set_state(gst::State::Paused).is_err(), "{properties:?} are accepted");
    let errors: Vec<_> = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Error])).collect();
    element.set_state(gst::State::Null).unwrap();
    element.set_bus(None);
    assert_eq!(errors.len(), 1, "{properties:?}: one message, not {errors:?}");
    text(&errors[0])
}

#[test]
fn a_fault_fails_the_start_and_its_message_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    let missing = format!("{empty}/nothing-here");
    let bad_yaml = folder.path().join("bad.yaml");
    std::fs::write(&bad_yaml, "labels:\n  - label: [").unwrap();
    type Case<'a> = (Vec<(&'a str, &'a str)>, Vec<&'a str>);
    let cases: Vec<Case> = vec![
        (vec![("device", "tpu")], vec!["`tpu`", "auto, cpu"]),
        (vec![("precision", "f4")], vec!["`f4`", "auto"]),
        (vec![("model", &missing)], vec!["nothing-here"]),
        (vec![("model", empty)], vec!["config.json"]),
        (vec![("labels", "walking;;running")], vec!["label 2", "empty"]),
        (vec![("labels", "walking;running;walking")], vec!["`walking`", "twice"]),
        (vec![("labels", "[\"walking\", 3]")], vec!["label 2"]),
        (vec![("labels", "[\"walking\"")], vec!["JSON"]),
        (vec![("labels-file", &missing)], vec!["labels-file", "nothing-here"]),
        (vec![("labels-file", bad_yaml.to_str().unwrap())], vec!["bad.yaml"]),
        (vec![("roi", "1,2,3")], vec!["roi `1,2,3`", "x,y,w,h"]),
        (vec![("roi", "0.5,0.5,0.6,0.5")], vec!["0.5,0.5,0.6,0.5", "inside"]),
        (vec![("background", "walking;;x")], vec!["background"]),
    ];
    for (properties, words) in cases {
        let message = refusal(&properties);
        for word in words {
            assert!(message.contains(word), "{properties:?}: `{word}` is not in: {message}");
        }
    }
    let long = format!("walking;{}", "person ".repeat(200));
    assert!(
        refusal(&[("labels", &long)]).contains("person person"),
        "a prompt over the text context is named"
    );
    let many: Vec<String> = (0..1001).map(|n| format!("walking {n}")).collect();
    let message = refusal(&[("labels", &many.join(";"))]);
    assert!(message.contains("1000"), "{message}");
}

#[test]
fn a_bad_value_while_playing_is_a_warning_and_the_old_one_stays() {
    let mut detect = Detect::new("sync=true labels=walking onset=0 offset=0 hop=1");
    detect.pass(0..T);
    detect.warnings();
    for (property, value, word) in [
        ("labels", "running;running", "twice"),
        ("labels", "[3]", "label 1"),
        ("labels-file", "/nothing/here.yaml", "/nothing/here.yaml"),
        ("roi", "0,0,2,2", "inside"),
        ("background", "a;;b", "background"),
    ] {
        detect.element.set_property(property, value);
        let warnings = detect.warnings();
        assert_eq!(warnings.len(), 1, "{property}={value}: {warnings:?}");
        assert!(
            warnings[0].contains(word) && warnings[0].contains("stays"),
            "{property}={value}: {warnings:?}"
        );
    }
    assert_eq!(detect.element.property::<Option<String>>("labels").as_deref(), Some("walking"));
    assert_eq!(detect.element.property::<Option<String>>("roi"), None);
    assert_eq!(detect.element.property::<u64>("labels-generation"), 1);
    detect.pass(T..T + 1);
    assert_eq!(detect.stat("windows"), 2, "the window went on");
    assert!(detect.events().iter().all(|event| event.seq == 1));
}

#[test]
fn an_offset_over_onset_counts_as_onset() {
    let mut detect = Detect::new("sync=true labels=walking hop=1");
    // One after the other, as properties are set: between the two, offset is above onset.
    detect.element.set_property("onset", 0.0);
    detect.element.set_property("offset", 0.0);
    assert!(detect.warnings().iter().all(|warning| warning.contains("demo")));
    detect.pass(0..T);
    assert_eq!(detect.events().len(), 1);
}

#[test]
fn video_in_foreign_memory_is_refused_with_a_remedy() {
    let detect = Detect::new("labels=walking");
    let caps: gst::Caps =
        "video/x-raw(memory:CUDAMemory),format=NV12,width=64,height=64,framerate=4/1".parse().unwrap();
    assert!(!detect.element.static_pad("sink").unwrap().query_accept_caps(&caps));
    let warnings = detect.warnings();
    let about =
        warnings.iter().find(|warning| warning.contains("memory:CUDAMemory")).expect("no warning names it");
    assert!(about.contains("cudadownload"), "{about}");
}

#[test]
fn the_bundled_model_says_what_it_cannot_know() {
    let detect = Detect::new("labels=\"walking;a zebra plays the xylophone\"");
    let warnings = detect.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("drawn scenes only"));
    assert!(
        warnings[1].contains("zebra")
            && warnings[1].contains("xylophone")
            && !warnings[1].contains("`walking`")
    );
    detect.element.set_property("labels", "running");
    assert!(detect.warnings().is_empty(), "once is enough, and these words are known");
}

#[test]
fn an_element_without_labels_plays_and_takes_them_later() {
    let mut detect = Detect::new("sync=true onset=0 hop=1");
    detect.pass(0..T);
    assert_eq!(detect.stat("windows"), 0);
    detect.element.set_property("labels", "walking");
    detect.pass(T..T + 1);
    assert_eq!(detect.events().len(), 1);
    detect.element.set_property("labels", "");
    assert_eq!(detect.events()[0].reason, gstxclip::event::Reason::LabelRemoved);
}

/// A checkpoint that is what it was in f32 and cannot be told in bytes: an input that is always zero has
/// weights beside which all others round to zero.
fn coarse_checkpoint() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/small/config.json");
    gstxclip::model::generate(config.as_ref(), dir.path(), &mut |_, _| {}).unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let layers = |name: &str| name.starts_with("vision_model.encoder.layers.");
    for (name, tensor) in json.as_object().unwrap().iter().filter(|(name, _)| layers(name)) {
        let start = header + tensor["data_offsets"][0].as_u64().unwrap() as usize;
        let mut put = |index: usize, value: f32| {
            bytes[start + 4 * index..start + 4 * index + 4].copy_from_slice(&value.to_le_bytes());
        };
        if name.contains(".layer_norm2.") {
            put(0, 0.0);
        } else if name.ends_with(".mlp.fc1.weight") {
            let shape = |axis: usize| tensor["shape"][axis].as_u64().unwrap() as usize;
            (0..shape(0)).for_each(|row| put(row * shape(1), 1000.0));
        }
    }
    std::fs::write(&path, bytes).unwrap();
    dir
}

#[test]
fn what_computes_is_told_and_int8_that_differs_is_warned_of_once_per_element() {
    let dir = coarse_checkpoint();
    let line = format!("model={} device=cpu threads=1", dir.path().display());
    let next = |detect: &Detect, kind| {
        let message = detect.bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[kind]);
        message.expect("no message within a minute")
    };
    let first = Detect::new(&line);
    let told = loop {
        let message = next(&first, gst::MessageType::Progress);
        let gst::MessageView::Progress(progress) = message.view() else { unreachable!() };
        let (kind, _, text) = progress.get();
        if kind == gst::ProgressType::Complete {
            break text.to_string();
        }
    };
    let backend = first.stats().get::<String>("backend").unwrap();
    assert!(told.contains("is loaded: cpu, ") && told.ends_with(&backend), "{told}, {backend}");
    assert!(backend.ends_with(", 1 threads, f32"), "{backend}");
    // The second one joins what is loaded.
    for _ in 0..2 {
        let detect = Detect::new(&line).loaded();
        let warnings = detect.warnings();
        if gstxclip::backend::cpu::Isa::best().has_vnni() {
            assert!(warnings.len() == 1 && warnings[0].contains("cosine"), "{warnings:?}");
        } else {
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }
}
