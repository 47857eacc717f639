//! config/event.schema.json is the Rust type, and real events keep to it.
//!
//! After a wanted change: XCLIP_WRITE_SCHEMA=1 cargo test --test event_schema

use std::time::Duration;

use gstxclip::event::json::{Record, rfc3339, schema};
use gstxclip::event::{Event, Phase, Reason, Source, Stamp, Utc, UtcSource};
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/event.schema.json");

fn stamp(seconds: u64, utc: Option<UtcSource>) -> Stamp {
    let time = Duration::from_secs(seconds);
    let unix = Duration::from_secs(1_795_435_200) + time;
    Stamp {
        timestamp: time,
        stream_time: time,
        running_time: time,
        utc: utc.map(|source| Utc { unix, source }),
    }
}

fn event(phase: Phase, reason: Reason) -> Event {
    Event {
        source: Source { instance: "xclipdetect0".into(), stream: "gate, north".into() },
        view: "frame".into(),
        id: uuid::Uuid::now_v7(),
        seq: 3,
        phase,
        reason,
        label: "a person \"falls\" – then lies still".into(),
        severity: Some("high".into()),
        metadata: json!({"zone": 7, "tags": ["a", null]}).as_object().unwrap().clone(),
        score: 0.8125,
        peak: 1.0,
        start: stamp(10, Some(UtcSource::Ntp)),
        detected: stamp(11, Some(UtcSource::Unix)),
        end: (phase == Phase::End).then(|| stamp(15, None)),
        window_start: stamp(13, Some(UtcSource::Clock)),
        window_end: stamp(15, Some(UtcSource::Clock)),
        top: vec![("falls".into(), 0.9), ("runs".into(), 0.0)],
        labels_generation: 2,
        model: "0123456789abcdef".into(),
    }
}

fn json_of(event: &Event) -> Value {
    serde_json::from_str(&Record::from(event).to_line()).unwrap()
}

fn committed() -> Value {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

#[test]
fn the_committed_schema_is_the_rust_type_s() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("XCLIP_WRITE_SCHEMA").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap();
    assert_eq!(committed, text, "run XCLIP_WRITE_SCHEMA=1 cargo test --test event_schema");
}

#[test]
fn every_phase_and_reason_keeps_to_the_schema() {
    let validator = jsonschema::draft202012::new(&committed()).unwrap();
    use Reason::*;
    let ends = [Offset, Eos, Flush, LabelRemoved, Stalled, Discontinuity, Disabled];
    let all = [(Phase::Start, Onset), (Phase::Update, Peak)].into_iter();
    for (phase, reason) in all.chain(ends.map(|reason| (Phase::End, reason))) {
        let mut event = event(phase, reason);
        validator.validate(&json_of(&event)).unwrap_or_else(|e| panic!("{phase:?} {reason:?}: {e}"));
        (event.severity, event.metadata, event.top) = (None, Default::default(), Vec::new());
        validator.validate(&json_of(&event)).unwrap_or_else(|e| panic!("{phase:?} {reason:?}: {e}"));
    }
}

#[test]
fn a_changed_event_does_not_keep_to_the_schema() {
    let validator = jsonschema::draft202012::new(&committed()).unwrap();
    let good = json_of(&event(Phase::End, Reason::Eos));
    assert!(validator.is_valid(&good));
    let keys: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
    let optional = ["severity", "metadata", "end"];
    for key in keys.iter().filter(|key| !optional.contains(&key.as_str())) {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&bad), "without {key}");
    }
    for (pointer, value) in [
        ("/schema", json!(2)),
        ("/id", json!("7")),
        ("/id", json!("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        ("/seq", json!(0)),
        ("/phase", json!("Start")),
        ("/reason", json!("label_removed")),
        ("/score", json!(1.5)),
        ("/peak", json!(-0.1)),
        ("/severity", json!(null)),
        ("/start/timestamp", json!(1.5)),
        ("/start/stream-time", json!(-1)),
        ("/start/utc", json!(17)),
        ("/start/utc_source", json!("rtcp")),
        ("/end", json!(null)),
        ("/top/0", json!(["falls", 0.9])),
        ("/labels-generation", json!(0)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is there")) = value.clone();
        assert!(!validator.is_valid(&bad), "{pointer} = {value}");
    }
    for pointer in ["", "/source", "/start", "/top/0"] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()["surplus"] = json!(1);
        assert!(!validator.is_valid(&bad), "surplus key in {pointer:?}");
    }
}

#[test]
fn keys_times_and_missing_values_are_as_documented() {
    let start = json_of(&event(Phase::Start, Reason::Onset));
    let keys: Vec<&str> = start.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "schema",
            "source",
            "view",
            "id",
            "seq",
            "phase",
            "reason",
            "label",
            "severity",
            "metadata",
            "score",
            "peak",
            "start",
            "detected",
            "window-start",
            "window-end",
            "top",
            "labels-generation",
            "model"
        ],
        "no `end` before the end"
    );
    assert_eq!(
        start["start"],
        json!({
            "timestamp": 10_000_000_000u64, "stream-time": 10_000_000_000u64, "running-time": 10_000_000_000u64,
            "utc": "2026-11-23T12:00:10Z", "utc_source": "ntp"
        })
    );
    let end = json_of(&event(Phase::End, Reason::LabelRemoved));
    assert_eq!(end["reason"], "label-removed");
    let time = 15_000_000_000u64;
    assert_eq!(end["end"], json!({"timestamp": time, "stream-time": time, "running-time": time}));
    assert_eq!(end["top"][0], json!({"label": "falls", "score": 0.9}));
}

#[test]
fn records_read_back_as_written() {
    for phase in [Phase::Start, Phase::Update, Phase::End] {
        let record = Record::from(&event(phase, Reason::Peak));
        let line = record.to_line();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}

#[test]
fn utc_is_rfc_3339_to_the_nanosecond_and_nothing_past_the_year_9999() {
    assert_eq!(rfc3339(Duration::ZERO).unwrap(), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(Duration::new(951_782_399, 120_000_001)).unwrap(), "2000-02-28T23:59:59.120000001Z");
    assert_eq!(rfc3339(Duration::from_secs(400_000_000_000)), None);
}
