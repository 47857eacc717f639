//! The YAML label file.
//!
//! ```yaml
//! background:                    # optional; else the checkpoint's
//!   - an empty car park
//! temperature: 1.3               # optional; else the checkpoint's; `xclipd calibrate` fits it
//! labels:
//!   running:                     # a label is its own prompt …
//!   falling: a person falls down # … or has another one …
//!   fighting: [two people fighting, a brawl]   # … or several …
//!   climbing a fence:            # … or says more
//!     prompts: [a person climbing a fence, somebody climbs over a fence]
//!     onset: 0.7
//!     offset: 0.5
//!     smoothing: 500ms           # times carry their unit: ns, us, ms, s, min, h
//!     min-duration-on: 1s
//!     min-duration-off: 1.5s
//!     cooldown: 2min
//!     severity: alert            # free words, passed through to events
//!     metadata: {zone: north}    # likewise
//! ```

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, Visitor, value::MapAccessDeserializer};
use serde_json::{Map, Value};

use super::error::shown;
use super::label_entry::{Entry, Prompts, PromptsReader, TIMES};
use super::labels::{Label, LabelError, Labels, tidy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    labels: Entries,
    #[serde(default)]
    background: Prompts,
    temperature: Option<Temperature>,
}

struct Temperature(f32);

/// In the file's order.
struct Entries(Vec<Label>);

/// Not yet checked for duplicates and empty texts. The error has line and column.
pub(crate) fn parse(text: &str) -> Result<Labels, String> {
    // Labels that are there twice are found below, in words for users.
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    let temperature = file.temperature.map(|temperature| temperature.0);
    Ok(Labels { labels: file.labels.0, background: file.background.0, temperature })
}

/// The other way round; comments are not part of the value.
pub(crate) fn write(labels: &Labels) -> String {
    let mut file = Map::new();
    if let Some(temperature) = labels.temperature {
        file.insert("temperature".into(), shortest(temperature));
    }
    if !labels.background.is_empty() {
        file.insert("background".into(), labels.background.clone().into());
    }
    let entries: Map<String, Value> = labels
        .labels
        .iter()
        .map(|label| {
            let Value::Object(mut entry) = Entry::label_to_json(label) else {
                return (label.name.clone(), Value::Null);
            };
            entry.shift_remove("label");
            for key in TIMES {
                if let Some(time) = entry.get_mut(key)
                    && let Some(nanoseconds) = time.as_u64()
                {
                    *time = time_text(nanoseconds).into();
                }
            }
            (label.name.clone(), entry.into())
        })
        .collect();
    file.insert("labels".into(), entries.into());
    serde_saphyr::to_string(&file).expect("texts, numbers, lists and maps of texts are YAML")
}

/// In the largest unit that needs no fraction.
fn time_text(nanoseconds: u64) -> String {
    let units = [("min", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let whole = units.iter().find(|(_, unit)| nanoseconds.is_multiple_of(*unit) && nanoseconds > 0);
    let (name, unit) = whole.copied().unwrap_or(("ns", 1));
    format!("{}{name}", nanoseconds / unit)
}

/// 0.7 stays 0.7: the shortest decimal that reads back as the same f32.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().expect("f32 prints as a number").into()
}

impl<'de> Deserialize<'de> for Temperature {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = f32::deserialize(from)?;
        // Also refuses NaN.
        if !(1e-3..=1e3).contains(&value) {
            let found = de::Unexpected::Float(value.into());
            return Err(de::Error::invalid_value(found, &"a temperature from 0.001 to 1000"));
        }
        Ok(Self(value))
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping from labels to prompts or settings")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut labels = Vec::new();
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key_seed(NewName(&mut seen))? {
                    let entry: Entry = map.next_value::<AnyEntry>()?.0;
                    let fault = |problem| de::Error::custom(format!("label `{}`: {problem}", shown(&name)));
                    labels.push(entry.into_label(&name).map_err(fault)?);
                }
                Ok(Entries(labels))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// Reads a label's name, and remembers it: an error here has the place of the second one.
struct NewName<'a>(&'a mut HashSet<String>);

impl<'de> DeserializeSeed<'de> for NewName<'_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        let name = tidy(&String::deserialize(from)?);
        if !self.0.insert(name.to_lowercase()) {
            return Err(de::Error::custom(LabelError::Duplicate { label: shown(&name) }));
        }
        Ok(name)
    }
}

/// Nothing, a prompt, a list of prompts or a mapping.
struct AnyEntry(Entry);

impl<'de> Deserialize<'de> for AnyEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = AnyEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nothing, a prompt, a list of prompts, or a mapping of prompts, onset, offset, …")
            }
            fn visit_unit<E: de::Error>(self) -> Result<AnyEntry, E> {
                Ok(AnyEntry(Entry::default()))
            }
            fn visit_none<E: de::Error>(self) -> Result<AnyEntry, E> {
                self.visit_unit()
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyEntry, E> {
                PromptsReader.visit_str(text).map(|prompts| AnyEntry(Entry::of(prompts)))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<AnyEntry, A::Error> {
                PromptsReader.visit_seq(items).map(|prompts| AnyEntry(Entry::of(prompts)))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<AnyEntry, A::Error> {
                Entry::deserialize(MapAccessDeserializer::new(map)).map(AnyEntry)
            }
        }
        from.deserialize_any(Reader)
    }
}
