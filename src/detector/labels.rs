//! A label set ready to be scored: token ids for the engine, a scorer and gates for the results.

use std::collections::HashMap;
use std::sync::Arc;

use super::{LabelError, Settings};
use crate::engine::Prompts;
use crate::event::GateSettings;
use crate::model::labels::{Label, Labels, MOST_PROMPTS};
use crate::model::{Model, ModelError};
use crate::score::{Competition, Scorer};

/// Immutable; windows in flight keep the set they were submitted with.
#[derive(Debug)]
pub(super) struct LabelSet {
    pub generation: u64,
    pub labels: Vec<Label>,
    /// The stream's gate settings with each label's own over them.
    pub gates: Vec<GateSettings>,
    /// Position by name.
    pub index: HashMap<String, usize>,
    pub prompts: Prompts,
    pub scorer: Scorer,
}

impl LabelSet {
    pub fn new(
        model: &Model,
        labels: &Labels,
        settings: &Settings,
        generation: u64,
    ) -> Result<Self, LabelError> {
        let background = match &settings.background {
            Some(prompts) => prompts,
            None if !labels.background.is_empty() => &labels.background,
            None => &model.extra.background,
        };
        let tokens = |prompt: &str| model.tokenizer.encode(prompt);
        let temperature = labels.temperature.unwrap_or(model.extra.temperature);
        Self::build(tokens, &labels.labels, background, settings, temperature, generation)
    }

    fn build(
        tokens: impl Fn(&str) -> Result<Vec<u32>, ModelError>,
        labels: &[Label],
        background: &[String],
        settings: &Settings,
        temperature: f32,
        generation: u64,
    ) -> Result<Self, LabelError> {
        if background.is_empty() && settings.competition == Competition::Background {
            return Err(LabelError::NoBackground);
        }
        // Counted before any is read: a wrong file may hold millions.
        let found = labels.iter().map(|l| l.prompts.len().max(1)).sum::<usize>() + background.len();
        if found > MOST_PROMPTS {
            return Err(LabelError::TooMany { found, limit: MOST_PROMPTS });
        }
        let mut prompts = Vec::with_capacity(found);
        let mut encode = |whose: &str, prompt: &str| {
            let whose = whose.to_string();
            if prompt.trim().is_empty() {
                return Err(LabelError::EmptyPrompt { whose });
            }
            let ids =
                tokens(prompt).map_err(|source| LabelError::Prompt { whose, source: Box::new(source) })?;
            prompts.push(ids);
            Ok(())
        };
        let (mut index, mut ranges, mut gates) = (HashMap::new(), Vec::new(), Vec::new());
        let mut begin = 0;
        for (position, label) in labels.iter().enumerate() {
            if label.name.trim().is_empty() {
                return Err(LabelError::Empty { position: position + 1 });
            }
            if index.insert(label.name.clone(), position).is_some() {
                return Err(LabelError::Duplicate { label: label.name.clone() });
            }
            let whose = format!("label `{}`", label.name);
            let own = std::slice::from_ref(&label.name);
            let texts = if label.prompts.is_empty() { own } else { &label.prompts };
            for prompt in texts {
                encode(&whose, prompt)?;
            }
            ranges.push(begin..begin + texts.len());
            begin += texts.len();
            let gate = label.gate.over(settings.gate);
            gate.validate().map_err(|source| LabelError::Gate { label: label.name.clone(), source })?;
            gates.push(gate);
        }
        for prompt in background {
            encode("background", prompt)?;
        }
        let background = begin..begin + background.len();
        let scorer = Scorer { labels: ranges, background, competition: settings.competition, temperature };
        Ok(Self { generation, labels: labels.to_vec(), gates, index, prompts: prompts.into(), scorer })
    }

    /// Takes over the other set's list of prompts if it is the same: the engine knows lists by identity.
    pub fn reuse_prompts(&mut self, other: &LabelSet) {
        if self.prompts == other.prompts {
            self.prompts = Arc::clone(&other.prompts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::GateError;
    use crate::model::labels::GateOverride;

    fn label(name: &str, prompts: &[&str]) -> Label {
        Label {
            name: name.into(),
            prompts: prompts.iter().map(|p| p.to_string()).collect(),
            gate: GateOverride::default(),
            severity: None,
            metadata: Default::default(),
        }
    }

    /// One token per byte; a context of 20.
    fn bytes(prompt: &str) -> Result<Vec<u32>, ModelError> {
        if prompt.len() + 2 > 20 {
            let tokens = prompt.len() + 2;
            return Err(ModelError::PromptTooLong { prompt: prompt.into(), tokens, context: 20 });
        }
        Ok(std::iter::once(0).chain(prompt.bytes().map(u32::from)).chain([999]).collect())
    }

    fn build(labels: &[Label], background: &[&str], settings: &Settings) -> Result<LabelSet, LabelError> {
        let background: Vec<String> = background.iter().map(|p| p.to_string()).collect();
        LabelSet::build(bytes, labels, &background, settings, 1.0, 1)
    }

    #[test]
    fn labels_without_prompts_are_their_own_and_the_background_comes_last() {
        let labels = [label("run", &[]), label("fall", &["falls", "falling"])];
        let set = build(&labels, &["nothing"], &Settings::default()).unwrap();
        assert_eq!(set.prompts.len(), 4);
        assert_eq!(set.prompts[0], bytes("run").unwrap());
        assert_eq!(set.prompts[3], bytes("nothing").unwrap());
        assert_eq!(set.scorer.labels, [0..1, 1..3]);
        assert_eq!(set.scorer.background, 3..4);
        assert_eq!(set.index["fall"], 1);
    }

    #[test]
    fn each_fault_names_the_label_and_the_limit() {
        let settings = Settings::default();
        let fault = |labels: &[Label], background: &[&str]| {
            build(labels, background, &settings).map(|_| ()).unwrap_err().to_string()
        };
        let twice = fault(&[label("run", &[]), label("run", &["runs"])], &["b"]);
        assert!(twice.contains("`run`") && twice.contains("twice"), "{twice}");
        let empty = fault(&[label("run", &[]), label(" ", &[])], &["b"]);
        assert!(empty.contains("label 2"), "{empty}");
        let blank = fault(&[label("run", &["runs", " "])], &["b"]);
        assert!(blank.contains("`run`"), "{blank}");
        let long = fault(&[label("run", &["a prompt of more than twenty tokens"])], &["b"]);
        assert!(long.contains("`run`") && long.contains("37") && long.contains("20"), "{long}");
        let long = fault(&[label("run", &[])], &["a prompt of more than twenty tokens"]);
        assert!(long.contains("background"), "{long}");
        let many: Vec<_> = (0..1000).map(|i| label(&i.to_string(), &[])).collect();
        let many = fault(&many, &["b"]);
        assert!(many.contains("1001") && many.contains("1000"), "{many}");
        let none = fault(&[label("run", &[])], &[]);
        assert!(none.contains("background"), "{none}");
    }

    #[test]
    fn without_a_background_labels_can_still_compete_with_each_other() {
        let settings = Settings { competition: Competition::Labels, ..Settings::default() };
        let set = build(&[label("a", &[]), label("b", &[])], &[], &settings).unwrap();
        assert_eq!(set.scorer.probabilities(&[1.0, 1.0]), [0.5, 0.5]);
    }

    #[test]
    fn a_label_s_own_threshold_is_checked_against_the_stream_s() {
        let mut low = label("run", &[]);
        low.gate.onset = Some(0.3);
        match build(&[low], &["b"], &Settings::default()) {
            Err(LabelError::Gate { label, source: GateError::Order { .. } }) => assert_eq!(label, "run"),
            other => panic!("{other:?}"),
        }
    }
}
