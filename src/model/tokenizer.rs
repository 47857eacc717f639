//! CLIP's byte-level BPE: prompts → token ids.
//!
//! The text tower pools at the largest id, so a prompt holds the end token exactly once, and no token
//! may have a larger id.

use tokenizers::Tokenizer as Bpe;

use super::config::Config;
use super::error::shown;
use super::source::Folder;
use super::{ModelError, clip_bpe};

pub const START: &str = "<|startoftext|>";
pub const END: &str = "<|endoftext|>";

/// Longest prompt that is looked at, in bytes; the longest text context holds far less.
const LONGEST: usize = 16 << 10;

pub struct Tokenizer {
    /// `None`: the checkpoint has none ([`super::Model::open_for_verify`]).
    bpe: Option<Bpe>,
    start: u32,
    end: u32,
    context: usize,
}

impl Tokenizer {
    pub(crate) fn open(folder: &Folder, config: &Config) -> Result<Self, ModelError> {
        Self::find(folder, config)?.ok_or_else(|| ModelError::Folder {
            model: folder.label(""),
            problem: "has no tokenizer; expected tokenizer.json, or vocab.json and merges.txt".into(),
        })
    }

    /// As `open`; where there is no tokenizer, one that refuses every prompt.
    pub(crate) fn open_if_there(folder: &Folder, config: &Config) -> Result<Self, ModelError> {
        let absent = Self { bpe: None, start: 0, end: 0, context: config.context };
        Ok(Self::find(folder, config)?.unwrap_or(absent))
    }

    fn find(folder: &Folder, config: &Config) -> Result<Option<Self>, ModelError> {
        if let Some(content) = folder.read("tokenizer.json")? {
            return Self::parse(&content.file, &content, config).map(Some);
        }
        let (vocab, merges) = match (folder.read("vocab.json")?, folder.read("merges.txt")?) {
            (Some(vocab), Some(merges)) => (vocab, merges),
            (None, None) => return Ok(None),
            (vocab, _) => {
                let (found, missing) =
                    if vocab.is_some() { ("vocab.json", "merges.txt") } else { ("merges.txt", "vocab.json") };
                let problem =
                    format!("has {found} but no {missing}: fetch it, or tokenizer.json instead of both");
                return Err(ModelError::Folder { model: folder.label(""), problem });
            }
        };
        let fault = |problem: String| ModelError::Format { file: folder.label(""), problem };
        let text = std::str::from_utf8(&merges).map_err(|error| fault(format!("merges.txt: {error}")))?;
        let json = clip_bpe::from_files(&vocab, text).map_err(fault)?;
        Self::parse(&vocab.file, json.to_string().as_bytes(), config).map(Some)
    }

    fn parse(file: &str, json: &[u8], config: &Config) -> Result<Self, ModelError> {
        let fault = |problem: String| ModelError::Format { file: file.to_string(), problem };
        // Says where malformed JSON is malformed.
        serde_json::from_slice::<serde::de::IgnoredAny>(json)
            .map_err(|source| ModelError::Json { file: file.to_string(), source })?;
        // The library panics on settings that contradict each other, such as a prefix longer than a token.
        let mut bpe = std::panic::catch_unwind(|| Bpe::from_bytes(json))
            .map_err(|_| fault("not a tokenizer: its settings contradict each other".into()))?
            .map_err(|error| fault(format!("not a tokenizer: {error}")))?;
        // Prompts come in one at a time and are never cut or filled up.
        bpe.with_padding(None);
        bpe.with_truncation(None).map_err(|error| fault(error.to_string()))?;
        let id = |token: &str| {
            bpe.token_to_id(token)
                .ok_or_else(|| fault(format!("has no token `{token}`; expected a CLIP tokenizer")))
        };
        let (start, end) = (id(START)?, id(END)?);
        let (largest, id) = bpe
            .get_vocab(true)
            .into_iter()
            .max_by_key(|(_, id)| *id)
            .expect("the vocabulary has at least the two tokens found above");
        if id != end {
            return Err(fault(format!(
                "the end token `{END}` must have the largest id (the text tower pools there): it has {end}, `{}` has {id}",
                shown(&largest)
            )));
        }
        if end as usize >= config.vocab_size {
            return Err(fault(format!(
                "has ids up to {end}, but config.json says vocab_size {}: the files are of different checkpoints",
                config.vocab_size
            )));
        }
        Ok(Self { bpe: Some(bpe), start, end, context: config.context })
    }

    /// Start token, words, end token; no padding. An over-long prompt is an error that names it.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, ModelError> {
        let fault =
            |problem: &str| ModelError::Prompt { prompt: shown(prompt), problem: problem.to_string() };
        let Some(bpe) = &self.bpe else {
            return Err(fault("cannot be read: the checkpoint has no tokenizer"));
        };
        if prompt.len() > LONGEST {
            return Err(fault(&format!("is {} bytes long, expected at most {LONGEST}", prompt.len())));
        }
        let words = bpe.encode_fast(prompt, false).map_err(|error| fault(&error.to_string()))?;
        let words = words.get_ids();
        if words.is_empty() {
            return Err(fault(match prompt.trim() {
                "" => "is empty; expected words",
                _ => "has nothing that this checkpoint's tokenizer can spell",
            }));
        }
        if words.iter().any(|&id| id == self.start || id == self.end) {
            return Err(fault("contains a start or end token; expected words only"));
        }
        let tokens = words.len() + 2;
        if tokens > self.context {
            return Err(ModelError::PromptTooLong { prompt: shown(prompt), tokens, context: self.context });
        }
        let mut ids = Vec::with_capacity(tokens);
        ids.push(self.start);
        ids.extend_from_slice(words);
        ids.push(self.end);
        Ok(ids)
    }

    /// Words of `text` that are no token of their own: they fall apart into pieces or cannot be spelled,
    /// so a model trained on a closed vocabulary has never seen them. In order, lower-cased, each once.
    pub fn unknown_words(&self, text: &str) -> Vec<String> {
        // What CLIP's pattern splits off as tokens of their own.
        const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "m", "ll", "d"];
        let mut unknown: Vec<String> = Vec::new();
        let Some(bpe) = &self.bpe else { return unknown };
        let lower = text.to_lowercase();
        let mut before = "";
        for part in lower.split_inclusive(|c: char| !c.is_alphabetic()) {
            let word = part.trim_end_matches(|c: char| !c.is_alphabetic());
            let suffix = before.ends_with('\'') && CONTRACTIONS.contains(&word);
            before = part;
            if word.is_empty() || suffix || unknown.iter().any(|known| known == word) {
                continue;
            }
            if !bpe.encode_fast(word, false).is_ok_and(|encoding| encoding.len() == 1) {
                unknown.push(word.to_string());
            }
        }
        unknown
    }
}
