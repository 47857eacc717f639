//! Label sets: what the user watches for, in plain words.
//!
//! The `labels` property is a JSON array, else one label per line, else separated by semicolons, else by
//! commas ([`Labels::parse`]); a label file is YAML ([`Labels::read`], see `label_file`). Both give the same
//! value, trimmed and free of duplicates; whether a prompt fits a checkpoint is the tokenizer's question.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::shown;
use super::label_entry::Entry;
use super::{ModelError, label_file};
use crate::event::{GateError, GateSettings};

/// Most prompts of one label set, background included.
pub const MOST_PROMPTS: usize = 1000;

/// Longest label set that is looked at, in bytes.
const LONGEST: usize = 4 << 20;

/// What is wrong with a label set.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("labels: {0}")]
    Syntax(String),
    #[error("labels: label {position} is empty; expected words")]
    Empty { position: usize },
    #[error("labels: `{label}` is there twice; give it several prompts instead")]
    Duplicate { label: String },
    #[error("labels: {found} prompts with the background, expected at most {limit}")]
    TooMany { found: usize, limit: usize },
    #[error("{whose}: a prompt is empty; expected words")]
    EmptyPrompt { whose: String },
    #[error("{whose}: {source}")]
    Prompt { whose: String, source: Box<ModelError> },
    #[error("label `{label}`: {source}")]
    Gate { label: String, source: GateError },
    /// An entry of the JSON form.
    #[error("labels: label {position}: {problem}")]
    Entry { position: usize, problem: String },
    #[error(
        "background must not be empty with competition=background: give prompts, or use competition=labels"
    )]
    NoBackground,
    /// A label file; the problem has line and column.
    #[error("{file}: {problem}")]
    File { file: String, problem: String },
}

/// One watched action. A label without prompts of its own is its own prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// What events are called.
    pub name: String,
    /// What the model reads; the label's score is the log-mean-exp over them. Empty: the name.
    pub prompts: Vec<String>,
    pub gate: GateOverride,
    pub severity: Option<String>,
    /// Free metadata from the label file, passed through to events.
    pub metadata: Map<String, Value>,
}

/// Per-label gate settings; `None` takes the stream's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateOverride {
    pub onset: Option<f32>,
    pub offset: Option<f32>,
    pub smoothing: Option<Duration>,
    pub min_duration_on: Option<Duration>,
    pub min_duration_off: Option<Duration>,
    pub cooldown: Option<Duration>,
}

/// A parsed `labels` property or label file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    pub labels: Vec<Label>,
    /// Background prompts of the file; empty: the stream's, else the checkpoint's.
    pub background: Vec<String>,
    /// Logits are divided by this instead of the checkpoint's temperature: fitted on the user's footage
    /// (`xclipd calibrate`) with these labels and this background.
    pub temperature: Option<f32>,
}

impl GateOverride {
    pub fn over(&self, base: GateSettings) -> GateSettings {
        GateSettings {
            onset: self.onset.unwrap_or(base.onset),
            offset: self.offset.unwrap_or(base.offset),
            smoothing: self.smoothing.unwrap_or(base.smoothing),
            min_duration_on: self.min_duration_on.unwrap_or(base.min_duration_on),
            min_duration_off: self.min_duration_off.unwrap_or(base.min_duration_off),
            cooldown: self.cooldown.unwrap_or(base.cooldown),
        }
    }
}

impl Label {
    /// A label that is its own prompt.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            prompts: Vec::new(),
            gate: GateOverride::default(),
            severity: None,
            metadata: Map::new(),
        }
    }
}

impl Labels {
    /// Parses the `labels` property. Free text contains commas, so they separate only where nothing else
    /// does: `a person falls, then lies still; running` is two labels. A separator at the end is no label.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.len() > LONGEST {
            return Err(LabelError::Syntax(format!("{} bytes long, expected at most {LONGEST}", text.len())));
        }
        let text = text.trim();
        if text.starts_with('[') || text.starts_with('{') {
            return Self::parse_json(text);
        }
        let separator = ['\n', ';', ','].into_iter().find(|&c| text.contains(c)).unwrap_or('\n');
        let text = text.strip_suffix(separator).unwrap_or(text);
        let names = text.split(separator).map(str::trim);
        // Blank lines are how people write lists; two separators in a row are a forgotten word.
        let names: Vec<&str> = names.filter(|name| separator != '\n' || !name.is_empty()).collect();
        if names.is_empty() {
            return Err(LabelError::Empty { position: 1 });
        }
        Self {
            labels: names.into_iter().map(Label::named).collect(),
            background: Vec::new(),
            temperature: None,
        }
        .check()
    }

    fn parse_json(text: &str) -> Result<Self, LabelError> {
        let entries: Vec<Value> = serde_json::from_str(text)
            .map_err(|error| LabelError::Syntax(format!("expected a JSON array of labels: {error}")))?;
        let label = |(index, entry): (usize, Value)| {
            let at_fault = |problem: String| LabelError::Entry { position: index + 1, problem };
            match entry {
                Value::String(name) => Ok(Label::named(name)),
                Value::Object(mut entry) => {
                    let Some(Value::String(name)) = entry.remove("label") else {
                        return Err(at_fault("expected the key `label` with the label's text".into()));
                    };
                    let at_fault = |problem: String| at_fault(format!("`{}`: {problem}", shown(&name)));
                    let entry = Entry::from_json(entry).map_err(|error| at_fault(error.to_string()))?;
                    entry.into_label(&name).map_err(at_fault)
                }
                _ => Err(at_fault("expected a text or an object {label, prompts, onset, offset, …}".into())),
            }
        };
        let labels: Result<Vec<Label>, LabelError> = entries.into_iter().enumerate().map(label).collect();
        Self { labels: labels?, background: Vec::new(), temperature: None }.check()
    }

    /// Reads a YAML label file.
    pub fn read(path: &Path) -> Result<Self, LabelError> {
        let file = path.display().to_string();
        let fault = |problem: String| LabelError::File { file: file.clone(), problem };
        let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
        if size > LONGEST as u64 {
            return Err(fault(format!("{size} bytes long, expected at most {LONGEST}")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        Self::parse_yaml(&file, &text)
    }

    /// Parses the text of a YAML label file; `file` names it in messages.
    pub fn parse_yaml(file: &str, text: &str) -> Result<Self, LabelError> {
        let fault = |problem: String| LabelError::File { file: file.to_string(), problem };
        label_file::parse(text).map_err(fault)?.check().map_err(|error| fault(error.to_string()))
    }

    /// The label set as the JSON array that [`Labels::parse`] reads: a bare label is a string, times are in
    /// nanoseconds. The background is a setting of its own and not part of it.
    pub fn to_json(&self) -> String {
        Value::Array(self.labels.iter().map(Entry::label_to_json).collect()).to_string()
    }

    /// The label set as a YAML label file that [`Labels::read`] reads back the same.
    pub fn to_yaml(&self) -> String {
        label_file::write(self)
    }

    fn check(mut self) -> Result<Self, LabelError> {
        let found = self.labels.iter().map(|l| l.prompts.len().max(1)).sum::<usize>() + self.background.len();
        if found > MOST_PROMPTS {
            return Err(LabelError::TooMany { found, limit: MOST_PROMPTS });
        }
        let mut seen = HashSet::new();
        for (index, label) in self.labels.iter_mut().enumerate() {
            label.name = tidy(&label.name);
            if label.name.is_empty() {
                return Err(LabelError::Empty { position: index + 1 });
            }
            // The model reads lower case: labels that differ in case only would be one.
            if !seen.insert(label.name.to_lowercase()) {
                return Err(LabelError::Duplicate { label: shown(&label.name) });
            }
            trim(&mut label.prompts, || format!("label `{}`", shown(&label.name)))?;
        }
        trim(&mut self.background, || "background".into())?;
        Ok(self)
    }
}

/// One space between words, none around them.
pub(crate) fn tidy(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn trim(prompts: &mut [String], whose: impl Fn() -> String) -> Result<(), LabelError> {
    for prompt in prompts {
        *prompt = prompt.trim().to_string();
        if prompt.is_empty() {
            return Err(LabelError::EmptyPrompt { whose: whose() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        Labels::parse(text).unwrap().labels.into_iter().map(|label| label.name).collect()
    }

    fn fault(text: &str) -> String {
        Labels::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_first_separator_of_lines_semicolons_commas_counts() {
        assert_eq!(names("running"), ["running"]);
        assert_eq!(names(" running,  falling   down,"), ["running", "falling down"]);
        assert_eq!(names("a person falls, then lies; running;"), ["a person falls, then lies", "running"]);
        assert_eq!(names("a; b, c\r\n\r\n  d\n"), ["a; b, c", "d"]);
        assert_eq!(names(r#" ["a, b; c", "d"] "#), ["a, b; c", "d"]);
    }

    #[test]
    fn json_objects_say_more_about_a_label() {
        let text = r#"[{"label": "fence", "prompts": ["climbing a fence", " over a fence "], "onset": 0.7, "offset": 0.5,
            "smoothing": 250000000, "min-duration-on": "1.5s", "min-duration-off": "500ms", "cooldown": "2min",
            "severity": "alert", "metadata": {"zone": ["north", 3]}}]"#;
        let labels = Labels::parse(text).unwrap();
        let label = &labels.labels[0];
        assert_eq!(label.prompts, ["climbing a fence", "over a fence"]);
        assert_eq!((label.gate.onset, label.gate.offset), (Some(0.7), Some(0.5)));
        assert_eq!(label.gate.smoothing, Some(Duration::from_millis(250)));
        assert_eq!(label.gate.min_duration_on, Some(Duration::from_millis(1500)));
        assert_eq!(label.gate.min_duration_off, Some(Duration::from_millis(500)));
        assert_eq!(label.gate.cooldown, Some(Duration::from_secs(120)));
        assert_eq!(label.severity.as_deref(), Some("alert"));
        assert_eq!(label.metadata["zone"][1], 3);
        assert_eq!(Labels::parse(&labels.to_json()).unwrap(), labels);
        assert!(labels.to_json().contains(r#""onset":0.7,"#), "{}", labels.to_json());
    }

    #[test]
    fn each_fault_names_its_place_and_what_was_expected() {
        for (text, parts) in [
            ("", &["label 1", "empty"][..]),
            (" ; ", &["label 1", "empty"]),
            ("a;;b", &["label 2", "empty"]),
            ("running\nRunning", &["`Running`", "twice"]),
            ("[\"a\",", &["JSON", "line 1 column 5"]),
            ("{\"label\": \"a\"}", &["JSON array"]),
            ("[7]", &["label 1", "text or an object"]),
            (r#"["a", {"prompts": ["b"]}]"#, &["label 2", "`label`"]),
            (r#"[{"label": "a", "onsett": 0.5}]"#, &["label 1", "`a`", "`onsett`", "`onset`"]),
            (r#"[{"label": "a", "onset": 1.5}]"#, &["`a`", "1.5", "0 to 1"]),
            (r#"[{"label": "a", "offset": -0.5}]"#, &["`a`", "-0.5", "0 to 1"]),
            (r#"[{"label": "a", "onset": 0.5, "offset": 0.6}]"#, &["`a`", "offset 0.6", "onset 0.5"]),
            (r#"[{"label": "a", "cooldown": "5"}]"#, &["`a`", "5", "unit"]),
            (r#"[{"label": "a", "cooldown": -5}]"#, &["`a`", "-5", "unit"]),
            (r#"[{"label": "a", "cooldown": "25h"}]"#, &["`a`", "25h", "24h"]),
            (r#"[{"label": "a", "prompts": ["b", " "]}]"#, &["`a`", "prompt is empty"]),
            (r#"[{"label": "a", "severity": ""}]"#, &["`a`", "severity"]),
        ] {
            let message = fault(text);
            assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        }
    }

    #[test]
    fn more_than_a_thousand_prompts_are_refused_with_their_number() {
        let thousand: Vec<String> = (0..1000).map(|i| format!("label {i}")).collect();
        assert_eq!(names(&thousand.join(";")).len(), 1000);
        let message = fault(&format!("{};one more", thousand.join(";")));
        assert!(message.contains("1001") && message.contains("1000"), "{message}");
    }

    #[test]
    fn label_files_keep_their_order_and_all_forms() {
        let text = "background: [an empty street]\nlabels:\n  zebra:\n  fall: a person falls\n  \
                    fight: [two people fighting, a brawl]\n  climb:\n    onset: 0.7\n    cooldown: 90s\n";
        let labels = Labels::parse_yaml("f.yaml", text).unwrap();
        let names: Vec<&str> = labels.labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(names, ["zebra", "fall", "fight", "climb"]);
        assert_eq!(labels.background, ["an empty street"]);
        assert_eq!(labels.labels[2].prompts, ["two people fighting", "a brawl"]);
        assert_eq!(labels.labels[3].gate.cooldown, Some(Duration::from_secs(90)));
    }

    #[test]
    fn faults_of_a_label_file_have_file_and_line() {
        for (text, line, part) in [
            ("labels:\n  a:\n    onset: 2\n", 3, "0 to 1"),
            ("labels:\n  a:\n    onsett: 2\n", 3, "onsett"),
            ("labels:\n  a:\n    cooldown: 5\n", 3, "unit"),
            ("labels:\n  a:\n    onset: 0.3\n    offset: 0.5\n", 2, "above onset"),
            ("labels:\n  a:\n  A:\n", 3, "twice"),
            ("labels:\n  a: 5\n", 2, "prompt"),
            ("labels:\n  - a\n", 2, "mapping"),
            ("actions:\n  a:\n", 1, "actions"),
            ("labels:\n  a: 'x\n", 2, "quote"),
        ] {
            let message = Labels::parse_yaml("f.yaml", text).unwrap_err().to_string();
            let place = format!("line {line}");
            assert!(
                message.starts_with("f.yaml: ") && message.contains(part) && message.contains(&place),
                "{message}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_label_set_or_an_error(text in ".{0,300}") {
            if let Ok(labels) = Labels::parse(&text) {
                prop_assert_eq!(Labels::parse(&labels.to_json()).unwrap(), labels);
            }
            let _ = Labels::parse_yaml("f.yaml", &text);
        }

        #[test]
        fn json_like_and_yaml_like_text_never_panics(text in r#"[\[\]{}",:;a1.\-&*!|>? \n]{0,120}"#) {
            let _ = Labels::parse(&text);
            let _ = Labels::parse_yaml("f.yaml", &format!("labels:\n  {text}"));
        }
    }
}
