//! What may be said about one label, in JSON and in YAML: the same keys, the names of the properties.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::labels::{GateOverride, Label};

/// The longest time a gate setting may have.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Entry {
    prompts: Prompts,
    onset: Option<Probability>,
    offset: Option<Probability>,
    smoothing: Option<Time>,
    min_duration_on: Option<Time>,
    min_duration_off: Option<Time>,
    cooldown: Option<Time>,
    severity: Option<String>,
    metadata: Map<String, Value>,
}

/// A list of prompts; one may stand for itself.
#[derive(Default)]
pub(crate) struct Prompts(pub Vec<String>);

/// 0 to 1.
#[derive(Clone, Copy)]
struct Probability(f32);

/// A number with its unit: `500ms`, `1.5s`, `2min`.
#[derive(Clone, Copy)]
struct Time(Duration);

pub(crate) const TIMES: [&str; 4] = ["smoothing", "min-duration-on", "min-duration-off", "cooldown"];

impl Entry {
    /// An entry of prompts only.
    pub fn of(prompts: Prompts) -> Self {
        Self { prompts, ..Self::default() }
    }

    /// An entry of the `labels` property: as in YAML, but a bare number is a time in nanoseconds, as in
    /// the element's other properties.
    pub fn from_json(mut entry: Map<String, Value>) -> serde_json::Result<Self> {
        for key in TIMES {
            if let Some(time) = entry.get_mut(key)
                && let Some(nanoseconds) = time.as_u64()
            {
                *time = format!("{nanoseconds}ns").into();
            }
        }
        serde_json::from_value(Value::Object(entry))
    }

    pub fn into_label(self, name: &str) -> Result<Label, String> {
        let gate = GateOverride {
            onset: self.onset.map(|p| p.0),
            offset: self.offset.map(|p| p.0),
            smoothing: self.smoothing.map(|t| t.0),
            min_duration_on: self.min_duration_on.map(|t| t.0),
            min_duration_off: self.min_duration_off.map(|t| t.0),
            cooldown: self.cooldown.map(|t| t.0),
        };
        if let (Some(onset), Some(offset)) = (gate.onset, gate.offset)
            && offset > onset
        {
            return Err(format!(
                "offset {offset} is above onset {onset}; an event must end below where it starts"
            ));
        }
        let severity = self.severity.map(|severity| severity.trim().to_string());
        if severity.as_deref() == Some("") {
            return Err("severity is empty; leave it out or give it a word".into());
        }
        Ok(Label { name: name.to_string(), prompts: self.prompts.0, gate, severity, metadata: self.metadata })
    }

    /// The JSON form of a label, which [`Entry::from_json`] and [`Entry::into_label`] read back.
    pub fn label_to_json(label: &Label) -> Value {
        if *label == Label::named(label.name.as_str()) {
            return label.name.clone().into();
        }
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Out<'a> {
            label: &'a str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            prompts: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            onset: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            offset: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            smoothing: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            min_duration_on: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            min_duration_off: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cooldown: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            severity: Option<&'a str>,
            #[serde(skip_serializing_if = "Map::is_empty")]
            metadata: &'a Map<String, Value>,
        }
        // At most a day (checked when it was read), so it fits.
        let nanoseconds = |time: Option<Duration>| time.map(|time| time.as_nanos() as u64);
        // 0.7 stays 0.7: the shortest decimal that reads back as the same f32.
        let probability = |p: Option<f32>| p.map(|p| p.to_string().parse().expect("f32 prints as a number"));
        let out = Out {
            label: &label.name,
            prompts: &label.prompts,
            onset: probability(label.gate.onset),
            offset: probability(label.gate.offset),
            smoothing: nanoseconds(label.gate.smoothing),
            min_duration_on: nanoseconds(label.gate.min_duration_on),
            min_duration_off: nanoseconds(label.gate.min_duration_off),
            cooldown: nanoseconds(label.gate.cooldown),
            severity: label.severity.as_deref(),
            metadata: &label.metadata,
        };
        serde_json::to_value(out).expect("texts, numbers and JSON values are JSON")
    }
}

/// Reads `500ms`, `1.5s`, `2min`, at most a day.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let nanoseconds: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let number = number.trim();
    let time = match number.parse::<u64>() {
        Ok(whole) => Duration::from_nanos(whole.checked_mul(nanoseconds)?),
        Err(_) => {
            let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
            let seconds = number.parse::<f64>().ok().filter(|_| plain)? * nanoseconds as f64 / 1e9;
            Duration::try_from_secs_f64(seconds).ok()?
        }
    };
    (time <= LONGEST).then_some(time)
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, such as \"500ms\", \"1.5s\" or \"2min\", at most 24h")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                parse_time(text).map(Time).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = f32::deserialize(from)?;
        // Also refuses NaN.
        if !(0.0..=1.0).contains(&value) {
            return Err(de::Error::invalid_value(
                de::Unexpected::Float(value.into()),
                &"a probability from 0 to 1",
            ));
        }
        Ok(Self(value))
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PromptsReader)
    }
}

pub(crate) struct PromptsReader;

impl<'de> Visitor<'de> for PromptsReader {
    type Value = Prompts;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt or a list of prompts")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![text.to_string()]))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
        let mut prompts = Vec::new();
        while let Some(prompt) = items.next_element()? {
            prompts.push(prompt);
        }
        Ok(Prompts(prompts))
    }
}
