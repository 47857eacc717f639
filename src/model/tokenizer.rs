//! CLIP's byte-level BPE: prompts → token ids.

use super::ModelError;

pub struct Tokenizer {}

impl Tokenizer {
    /// Start token, words, end token; no padding. An over-long prompt is an error that names it.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, ModelError> {
        let _ = prompt;
        todo!("model branch")
    }
}
