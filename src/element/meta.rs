//! What a GStreamer user reads: [`Event`](crate::event::Event) as a structure, and the buffer meta.
//!
//! Event → `xclip-event`, one [`gst::Structure`] with the field names and the nesting of the event's
//! JSON: strings, booleans; every non-negative integer is a `guint64`, a negative one a `gint64`, other
//! numbers are `gdouble`; an object is a nested structure named like its field, a list a
//! `GstValueArray` (of one type: mixed numbers become doubles, other mixtures their JSON text); `null` is
//! an absent field. The element message, the custom downstream event and the
//! JSON line therefore say the same, and a field added to the event type appears in all of them.
//!
//! Buffer → `XClipMeta`, a custom meta (`gst_buffer_get_custom_meta (buf, "XClipMeta")`) whose structure
//! has two `GstValueArray`s of structures:
//!
//! | array | on which buffer | fields of an entry |
//! |---|---|---|
//! | `windows` | the one that completed the window (sync) or the next one (async) | `instance`, `view`, `start`, `end` (stamps), `labels-generation`, `top`: array of {`label`, `score`}, best first |
//! | `events` | every one while an event is open | `instance`, `view`, `id`, `label`, `severity`, `score`, `start` (stamp) |
//!
//! A stamp is a structure of `timestamp`, `stream-time`, `running-time` in nanoseconds. `instance` is
//! the name of the element that wrote the entry: several detectors in one pipeline add to one meta. The
//! meta has no tags, so it survives copies, scaling and colour conversion; a buffer without it has no
//! open event. Nothing else in the crate knows these names.

use std::sync::Once;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use crate::detector::WindowScores;
use crate::event::Stamp;

/// Name of the event's structure: of the element message and of the custom downstream event.
pub const EVENT: &str = "xclip-event";

/// Name of the custom buffer meta.
pub const META: &str = "XClipMeta";

/// Window scores and open events on one buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    pub windows: Vec<(String, WindowScores)>,
    pub events: Vec<OpenEvent>,
}

/// An event that is open at a buffer's time.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenEvent {
    /// Name of the element that wrote it.
    pub instance: String,
    pub view: String,
    /// The event's UUID.
    pub id: String,
    pub label: String,
    pub severity: Option<String>,
    /// Smoothed probability of the last message, 0..1.
    pub score: f32,
    pub start: Stamp,
}

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("structure `{found}` is not an event; expected `{EVENT}`")]
    Name { found: String },
    #[error("structure `{EVENT}`: {0}")]
    Field(#[from] serde_json::Error),
}

/// The event as the structure of messages and downstream events.
pub fn structure<E: Serialize>(event: &E) -> Result<gst::Structure, MetaError> {
    match serde_json::to_value(event)? {
        Value::Object(fields) => Ok(object(EVENT, fields)),
        other => Err(MetaError::Name { found: other.to_string() }),
    }
}

/// The event in a structure made by [`structure`], from a message or a downstream event.
pub fn event<E: DeserializeOwned>(structure: &gst::StructureRef) -> Result<E, MetaError> {
    if structure.name() != EVENT {
        return Err(MetaError::Name { found: structure.name().to_string() });
    }
    Ok(serde_json::from_value(json(structure))?)
}

/// A structure as JSON: the reverse of the mapping above. Fields of other types appear as their
/// GStreamer serialization.
pub fn json(structure: &gst::StructureRef) -> Value {
    Value::Object(structure.iter().map(|(name, value)| (name.to_string(), json_value(value))).collect())
}

fn object(name: &str, fields: Map<String, Value>) -> gst::Structure {
    // Only letters first, then letters, digits and a few signs: GStreamer refuses other names.
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.:+".contains(c));
    let mut structure = gst::Structure::new_empty(if valid { name } else { "object" });
    for (key, value) in fields {
        if let Some(value) = send_value(&key, value) {
            structure.set_value(text(key), value);
        }
    }
    structure
}

fn send_value(name: &str, value: Value) -> Option<glib::SendValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => flag.to_send_value(),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), ..) => unsigned.to_send_value(),
            (None, Some(signed), _) => signed.to_send_value(),
            (None, None, float) => float?.to_send_value(),
        },
        Value::String(string) => text(string).to_send_value(),
        Value::Array(values) => array(name, values).to_send_value(),
        Value::Object(fields) => object(name, fields).to_send_value(),
    })
}

/// A `GstValueArray` holds one type: mixed numbers become doubles, other mixtures their JSON text.
fn array(name: &str, values: Vec<Value>) -> gst::Array {
    let numbers = values.iter().all(Value::is_number);
    let texts: Vec<String> = values.iter().map(Value::to_string).collect();
    let floats: Vec<Option<f64>> = values.iter().map(Value::as_f64).collect();
    let sent: Vec<_> = values.into_iter().filter_map(|value| send_value(name, value)).collect();
    if sent.windows(2).all(|pair| pair[0].type_() == pair[1].type_()) {
        gst::Array::from_values(sent)
    } else if numbers {
        gst::Array::new(floats.into_iter().flatten())
    } else {
        gst::Array::new(texts.into_iter().map(text))
    }
}

/// C strings end at the first NUL; what a label says after one is kept.
fn text(string: String) -> String {
    if string.contains('\0') { string.replace('\0', "\u{fffd}") } else { string }
}

fn json_value(value: &glib::Value) -> Value {
    fn number(float: f64) -> Value {
        Number::from_f64(float).map_or(Value::Null, Value::Number)
    }
    if let Ok(string) = value.get::<Option<&str>>() {
        return string.map_or(Value::Null, Value::from);
    }
    if let Ok(unsigned) = value.get::<u64>() {
        return unsigned.into();
    }
    if let Ok(signed) = value.get::<i64>() {
        return signed.into();
    }
    if let Ok(unsigned) = value.get::<u32>() {
        return unsigned.into();
    }
    if let Ok(signed) = value.get::<i32>() {
        return signed.into();
    }
    if let Ok(float) = value.get::<f64>() {
        return number(float);
    }
    if let Ok(float) = value.get::<f32>() {
        return number(float as f64);
    }
    if let Ok(flag) = value.get::<bool>() {
        return flag.into();
    }
    if let Ok(structure) = value.get::<gst::Structure>() {
        return json(&structure);
    }
    if let Ok(array) = value.get::<gst::ArrayRef>() {
        return Value::Array(array.iter().map(|value| json_value(value)).collect());
    }
    value.serialize().map_or(Value::Null, |string| Value::from(string.as_str()))
}

/// Makes the meta known to GStreamer. Every plugin load and test calls it; once is enough.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A second copy of this library in the process (plugin and statically linked tool) is harmless.
        if !gst::meta::CustomMeta::is_registered(META) {
            gst::meta::CustomMeta::register(META, &[]);
        }
    });
}

/// Adds `marks` to the buffer, after what another detector wrote there. Empty marks add nothing.
pub fn attach(buffer: &mut gst::BufferRef, marks: &Marks) {
    if marks.windows.is_empty() && marks.events.is_empty() {
        return;
    }
    register();
    let (windows, events) = {
        let present = gst::meta::CustomMeta::from_buffer(buffer, META).ok();
        let array = |name| {
            let present = present.as_ref().and_then(|meta| meta.structure().get::<gst::Array>(name).ok());
            present.unwrap_or_default()
        };
        (array("windows"), array("events"))
    };
    let windows = windows.iter().cloned().chain(marks.windows.iter().map(window)).collect::<gst::Array>();
    let events = events.iter().cloned().chain(marks.events.iter().map(open_event)).collect::<gst::Array>();
    let fill = |structure: &mut gst::StructureRef| {
        structure.set("windows", windows);
        structure.set("events", events);
    };
    if gst::meta::CustomMeta::from_buffer(buffer, META).is_ok() {
        if let Ok(mut meta) = gst::meta::CustomMeta::from_mut_buffer(buffer, META) {
            fill(meta.mut_structure());
        }
    } else if let Ok(mut meta) = gst::meta::CustomMeta::add(buffer, META) {
        fill(meta.mut_structure());
    }
}

/// The marks of a buffer; empty where it has none. Entries that are not ours are skipped.
pub fn read(buffer: &gst::BufferRef) -> Marks {
    if !gst::meta::CustomMeta::is_registered(META) {
        return Marks::default();
    }
    let Ok(meta) = gst::meta::CustomMeta::from_buffer(buffer, META) else { return Marks::default() };
    fn entries<T>(s: &gst::StructureRef, name: &str, read: fn(&gst::StructureRef) -> Option<T>) -> Vec<T> {
        let Ok(array) = s.get::<gst::ArrayRef>(name) else { return Vec::new() };
        array.iter().filter_map(|entry| entry.get::<gst::Structure>().ok()).filter_map(|s| read(&s)).collect()
    }
    let structure = meta.structure();
    Marks {
        windows: entries(structure, "windows", read_window),
        events: entries(structure, "events", read_open_event),
    }
}

/// Open events as a list of the structures the meta has: for the property `active-events`.
pub fn active(events: &[OpenEvent]) -> gst::Array {
    events.iter().map(open_event).collect()
}

fn stamp(name: &str, stamp: &Stamp) -> gst::Structure {
    gst::Structure::builder(name)
        .field("timestamp", nanos(stamp.timestamp))
        .field("stream-time", nanos(stamp.stream_time))
        .field("running-time", nanos(stamp.running_time))
        .build()
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn read_stamp(structure: &gst::StructureRef, name: &str) -> Option<Stamp> {
    let stamp = structure.get::<gst::Structure>(name).ok()?;
    let time = |name| stamp.get::<u64>(name).map(Duration::from_nanos).ok();
    Some(Stamp {
        timestamp: time("timestamp")?,
        stream_time: time("stream-time")?,
        running_time: time("running-time")?,
        utc: None,
    })
}

fn window((instance, window): &(String, WindowScores)) -> glib::SendValue {
    let top = window.top.iter().map(|(label, score)| {
        gst::Structure::builder("score")
            .field("label", text(label.clone()))
            .field("score", *score as f64)
            .build()
    });
    gst::Structure::builder("window")
        .field("instance", text(instance.clone()))
        .field("view", text(window.view.clone()))
        .field("start", stamp("start", &window.start))
        .field("end", stamp("end", &window.end))
        .field("labels-generation", window.labels_generation)
        .field("top", gst::Array::new(top))
        .build()
        .to_send_value()
}

fn read_window(structure: &gst::StructureRef) -> Option<(String, WindowScores)> {
    let top = structure.get::<gst::ArrayRef>("top").ok()?;
    let top = top.iter().filter_map(|entry| {
        let entry = entry.get::<gst::Structure>().ok()?;
        Some((entry.get("label").ok()?, entry.get::<f64>("score").ok()? as f32))
    });
    let window = WindowScores {
        view: structure.get("view").ok()?,
        start: read_stamp(structure, "start")?,
        end: read_stamp(structure, "end")?,
        top: top.collect(),
        labels_generation: structure.get("labels-generation").ok()?,
    };
    Some((structure.get("instance").ok()?, window))
}

fn open_event(event: &OpenEvent) -> glib::SendValue {
    gst::Structure::builder("event")
        .field("instance", text(event.instance.clone()))
        .field("view", text(event.view.clone()))
        .field("id", &event.id)
        .field("label", text(event.label.clone()))
        .field_if_some("severity", event.severity.clone().map(text))
        .field("score", event.score as f64)
        .field("start", stamp("start", &event.start))
        .build()
        .to_send_value()
}

fn read_open_event(structure: &gst::StructureRef) -> Option<OpenEvent> {
    Some(OpenEvent {
        instance: structure.get("instance").ok()?,
        view: structure.get("view").ok()?,
        id: structure.get("id").ok()?,
        label: structure.get("label").ok()?,
        severity: structure.get("severity").ok(),
        score: structure.get::<f64>("score").ok()? as f32,
        start: read_stamp(structure, "start")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        let time = Duration::from_secs(seconds);
        Stamp { timestamp: time, stream_time: time, running_time: time, utc: None }
    }

    fn marks(instance: &str, label: &str) -> Marks {
        let window = WindowScores {
            view: "frame".into(),
            start: at(1),
            end: at(3),
            top: vec![(label.into(), 0.75), ("other".into(), 0.25)],
            labels_generation: 4,
        };
        let event = OpenEvent {
            instance: instance.into(),
            view: "frame".into(),
            id: "0190".into(),
            label: label.into(),
            severity: Some("high".into()),
            score: 0.75,
            start: at(2),
        };
        Marks { windows: vec![(instance.into(), window)], events: vec![event] }
    }

    #[test]
    fn marks_come_back_as_they_were_attached() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(4).unwrap();
        assert_eq!(read(&buffer), Marks::default());
        let label = "a person falls, then lies «still»";
        attach(buffer.make_mut(), &marks("one", label));
        assert_eq!(read(&buffer), marks("one", label));
    }

    #[test]
    fn two_detectors_share_one_meta() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(4).unwrap();
        attach(buffer.make_mut(), &marks("one", "a"));
        attach(buffer.make_mut(), &marks("two", "b"));
        let both = read(&buffer);
        assert_eq!(both.events.iter().map(|e| e.instance.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(both.windows.len(), 2);
    }

    #[test]
    fn marks_survive_a_copy() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(4).unwrap();
        attach(buffer.make_mut(), &marks("one", "a"));
        let copy = buffer.copy();
        assert_eq!(read(&copy), marks("one", "a"));
    }

    #[test]
    fn json_survives_the_way_through_a_structure() {
        gst::init().unwrap();
        let value: Value = serde_json::from_str(
            r#"{"schema": 1, "source": {"instance": "d", "stream": "s"}, "score": 0.5, "whole": 1.0,
                "negative": -3, "big": 18446744073709551615, "flag": true, "label": "Sturz, \"laut\" 转身",
                "top": [{"label": "a", "score": 0.5}, {"label": "b", "score": 1.0}], "lists": [[1, 2], [3]],
                "metadata": {"ruf an": {"1 nummer": 112}, "leer": {}, "liste": []}}"#,
        )
        .unwrap();
        let structure = structure(&value).unwrap();
        assert_eq!(structure.name(), EVENT);
        assert_eq!(structure.get::<u64>("schema").unwrap(), 1);
        assert_eq!(structure.get::<f64>("whole").unwrap(), 1.0);
        let source = structure.get::<gst::Structure>("source").unwrap();
        assert_eq!(source.get::<&str>("instance").unwrap(), "d");
        assert_eq!(event::<Value>(&structure).unwrap(), value);
    }

    #[test]
    fn lists_of_several_types_become_one_type() {
        gst::init().unwrap();
        let structure = structure(&serde_json::json!({"numbers": [1, 2.5], "words": ["a", 1]})).unwrap();
        assert_eq!(json(&structure), serde_json::json!({"numbers": [1.0, 2.5], "words": ["\"a\"", "1"]}));
    }

    #[test]
    fn null_is_an_absent_field_and_nul_cuts_nothing_off() {
        gst::init().unwrap();
        let value = serde_json::json!({"end": null, "label": "a\0b"});
        let structure = structure(&value).unwrap();
        assert!(!structure.has_field("end"));
        assert_eq!(structure.get::<&str>("label").unwrap(), "a\u{fffd}b");
    }

    #[test]
    fn another_structure_is_refused_by_name() {
        gst::init().unwrap();
        let other = gst::Structure::new_empty("level");
        assert!(event::<Value>(&other).unwrap_err().to_string().contains("`level`"));
    }
}
