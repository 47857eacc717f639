//! A loaded checkpoint that answers about drawn clips.

use crate::backend::cpu::{CpuBackend, Isa};
use crate::backend::{self, Backend, ClipFeatures, Device, Precision, TextFeatures};
use crate::command::CommandError;
use crate::model::{Heads, Model};
use crate::preprocess::Reduced;
use crate::scene::{Action, ClipOptions, clip};
use crate::score::{Competition, Scorer};

use super::clips::SEED;

/// What the frames of a window tell each other while they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// As trained.
    All,
    /// Each frame reads its own message only: no frame knows of another before the MIT.
    Own,
    /// Every message is zero.
    None,
}

/// Texts are compared with clips one by one: which others are asked beside them changes nothing.
pub struct Judge {
    pub fingerprint: String,
    model: Model,
    backend: Box<dyn Backend>,
    competition: Competition,
    background: Vec<String>,
}

impl Judge {
    pub fn new(name: &str, precision: Precision, threads: usize) -> Result<Self, CommandError> {
        Self::on(name, Device::Auto, precision, threads)
    }

    pub fn on(
        name: &str,
        device: Device,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, CommandError> {
        let model = Model::open(name, Heads::Hf)?;
        let backend = backend::open(&model, device, precision, threads)?.warned();
        Ok(Self::of(model, backend))
    }

    fn of(model: Model, backend: Box<dyn Backend>) -> Self {
        let (fingerprint, background) = (model.fingerprint().to_string(), model.extra.background.clone());
        Self { fingerprint, model, backend, competition: Competition::default(), background }
    }

    /// Instead of each label against the checkpoint's background; `None` leaves its prompts.
    pub fn score_against(&mut self, competition: Competition, background: Option<Vec<String>>) {
        self.competition = competition;
        self.background = background.unwrap_or_else(|| self.model.extra.background.clone());
    }

    /// The same checkpoint in f32, with the weights that carry messages set to zero.
    pub fn with_messages(name: &str, threads: usize, messages: Messages) -> Result<Self, CommandError> {
        let model = Model::open(name, Heads::Hf)?;
        let silent = |tensor: &str| match messages {
            Messages::All => false,
            Messages::Own => tensor.contains(".message_attn.out_proj."),
            Messages::None => tensor.contains(".message_attn.out_proj.") || tensor.contains(".message_fc."),
        };
        let mut source = |tensor: &str, _: &[usize]| {
            let mut values = model.weights.tensor(tensor)?;
            if silent(tensor) {
                values.fill(0.0);
            }
            Ok(values)
        };
        let backend = CpuBackend::from_source(
            &model.config,
            &model.rule,
            Isa::best(),
            threads,
            Precision::F32,
            &mut source,
        )?;
        Ok(Self::of(model, Box::new(backend)))
    }

    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// Options of the clips this model watches: its size and number of frames, nothing else in them.
    pub fn options(&self) -> ClipOptions {
        let (size, frames) = (self.model.rule.size, self.model.config.num_frames);
        ClipOptions { size, frames, hardness: 0.0, mixed: 0.0, ..ClipOptions::default() }
    }

    pub fn texts<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<TextFeatures>, CommandError> {
        let encode = |text: &T| self.model.tokenizer.encode(text.as_ref());
        let tokens = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        Ok(self.backend.encode_text(&tokens)?)
    }

    pub fn background(&self) -> &[String] {
        &self.background
    }

    /// Scores `labels` prompts, one label each, against the background prompts at the end of `prompts`.
    pub fn scorer(&self, labels: usize, prompts: usize) -> Scorer {
        Scorer {
            labels: (0..labels).map(|i| i..i + 1).collect(),
            background: prompts - self.background().len()..prompts,
            competition: self.competition,
            temperature: self.model.extra.temperature,
        }
    }

    /// T × S × S × 3 bytes → what the text side sees of the clip.
    pub fn watch(&mut self, frames: &[u8]) -> Result<ClipFeatures, CommandError> {
        let frames = Reduced::split(frames, self.model.rule.size as usize);
        let prepared = self.backend.prepare(&frames.iter().collect::<Vec<_>>())?;
        let features = self.backend.encode(&[&prepared])?;
        Ok(features.into_iter().next().expect("one clip gives one row"))
    }

    /// One logit per text.
    pub fn compare(&mut self, clip: &ClipFeatures, texts: &[TextFeatures]) -> Result<Vec<f32>, CommandError> {
        let rows = self.backend.compare(&[clip], texts)?;
        Ok(rows.into_iter().next().expect("one clip gives one row"))
    }

    /// Position of the text that fits best.
    pub fn choose(&mut self, frames: &[u8], texts: &[TextFeatures]) -> Result<usize, CommandError> {
        let clip = self.watch(frames)?;
        Ok(best(&self.compare(&clip, texts)?))
    }

    /// How many of `count` clips on plain backgrounds get the right label.
    pub fn try_out(&mut self, count: u64) -> Result<usize, CommandError> {
        let options = self.options();
        let labels = self.texts(&Action::ALL.map(Action::label))?;
        let mut right = 0;
        for seed in SEED..SEED + count {
            let clip = clip(seed, &options);
            right += usize::from(self.choose(&clip.frames, &labels)? == clip.action.index());
        }
        Ok(right)
    }
}

/// Position of the largest value; the first of equals, 0 of none.
pub fn best(values: &[f32]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_messages_a_window_is_seen_differently() {
        let judge = |messages| Judge::with_messages("demo", 1, messages).unwrap();
        let (mut all, mut own, mut none) =
            (judge(Messages::All), judge(Messages::Own), judge(Messages::None));
        let frames = clip(SEED, &ClipOptions { action: Some(Action::Run), ..all.options() }).frames;
        let seen = [&mut all, &mut own, &mut none].map(|judge| judge.watch(&frames).unwrap());
        assert_ne!(seen[0], seen[1]);
        assert_ne!(seen[1], seen[2]);
        assert_eq!(seen[0], Judge::new("demo", Precision::F32, 1).unwrap().watch(&frames).unwrap());
    }

    #[test]
    fn the_largest_value_is_chosen() {
        assert_eq!(best(&[0.5, 2.0, -1.0]), 1);
        assert_eq!(best(&[3.0, 3.0]), 0);
    }
}
