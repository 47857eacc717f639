//! CLIP's byte-level BPE as a tokenizer.json: from vocab.json and merges.txt, or synthetic.
//!
//! Lower-cased, NFC, whitespace collapsed; words split by CLIP's pattern, spelled in the 256 byte symbols,
//! the last symbol of a word carrying `</w>`. Source: openai/CLIP simple_tokenizer.py, transformers'
//! CLIPTokenizer.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::tokenizer::{END, START};

const WORD_END: &str = "</w>";
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Byte symbols and their `</w>` forms, start and end token.
pub(crate) const LEAST_VOCABULARY: usize = 2 * 256 + 2;

/// A tokenizer.json of these tokens. `vocabulary` has the start and the end token as well.
pub(crate) fn tokenizer_json(vocabulary: Map<String, Value>, merges: Vec<[String; 2]>) -> Value {
    let special = |token: &str| {
        json!({"id": vocabulary[token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let (start, end) = (vocabulary[START].clone(), vocabulary[END].clone());
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(START), special(END)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": END, "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                START: {"id": START, "ids": [start], "tokens": [START]},
                END: {"id": END, "ids": [end], "tokens": [END]},
            },
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": WORD_END, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// Reads vocab.json (token → id) and merges.txt (a `#version` line, then one merge per line).
pub(crate) fn from_files(vocab: &[u8], merges: &str) -> Result<Value, String> {
    let vocabulary: Map<String, Value> =
        serde_json::from_slice(vocab).map_err(|error| format!("vocab.json: {error}"))?;
    if let Some((token, id)) =
        vocabulary.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id > u64::from(u32::MAX)))
    {
        return Err(format!("vocab.json: expected an id for `{}`, found {id}", super::error::shown(token)));
    }
    for token in [START, END] {
        if !vocabulary.contains_key(token) {
            return Err(format!("vocab.json: has no token `{token}`; expected a CLIP vocabulary"));
        }
    }
    let mut pairs = Vec::new();
    for (number, line) in merges.lines().enumerate() {
        if line.trim().is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let mut parts = line.split_whitespace();
        let (Some(left), Some(right), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!(
                "merges.txt, line {}: expected two tokens separated by a space, found `{}`",
                number + 1,
                super::error::shown(line)
            ));
        };
        let merged = format!("{left}{right}");
        if let Some(absent) =
            [left, right, &merged].into_iter().find(|token| !vocabulary.contains_key(*token))
        {
            return Err(format!(
                "merges.txt, line {}: the token `{}` is not in vocab.json; the files are of different tokenizers",
                number + 1,
                super::error::shown(absent)
            ));
        }
        pairs.push([left.to_string(), right.to_string()]);
    }
    Ok(tokenizer_json(vocabulary, pairs))
}

/// By frequency in English, so that small synthetic vocabularies spell words in few tokens.
const LETTERS: &str = "etaoinshrdlucmfwypvbgkjxqz";

/// A tokenizer of exactly `size` ≥ [`LEAST_VOCABULARY`] tokens. It spells every text; its merges are
/// systematic (all pairs of [`LETTERS`], then all triples, …) and carry no meaning.
pub(crate) fn synthetic(size: usize) -> Value {
    let mut vocabulary = Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.insert(token, id.into());
    };
    let symbols = byte_symbols();
    symbols.iter().for_each(|symbol| add(symbol.to_string()));
    symbols.iter().for_each(|symbol| add(format!("{symbol}{WORD_END}")));

    let wanted = size.saturating_sub(LEAST_VOCABULARY);
    let mut merges: Vec<[String; 2]> = Vec::with_capacity(wanted);
    let mut stems: Vec<String> = LETTERS.chars().map(String::from).collect();
    while merges.len() < wanted {
        let mut longer = Vec::new();
        'stems: for stem in &stems {
            for letter in LETTERS.chars() {
                for right in [letter.to_string(), format!("{letter}{WORD_END}")] {
                    if merges.len() == wanted {
                        break 'stems;
                    }
                    add(format!("{stem}{right}"));
                    merges.push([stem.clone(), right]);
                }
                longer.push(format!("{stem}{letter}"));
            }
        }
        stems = longer;
    }
    add(START.to_string());
    add(END.to_string());
    tokenizer_json(vocabulary, merges)
}

/// The printable stand-ins for the 256 byte values, in CLIP's order: printable Latin-1 for itself first,
/// then the others as U+0100, U+0101, …
fn byte_symbols() -> Vec<char> {
    let own: Vec<u8> = (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff).collect();
    let taken: HashSet<u8> = own.iter().copied().collect();
    let moved = (0..=255u8).filter(|byte| !taken.contains(byte)).count() as u32;
    let stand_ins = (0..moved).map(|i| char::from_u32(0x100 + i).expect("U+0100 to U+0143 are characters"));
    own.iter().map(|&byte| byte as char).chain(stand_ins).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_symbols_are_256_different_characters() {
        let symbols: HashSet<char> = byte_symbols().into_iter().collect();
        assert_eq!(symbols.len(), 256);
        assert!(symbols.contains(&'\u{120}')); // the space
    }

    #[test]
    fn a_synthetic_vocabulary_has_exactly_the_size_asked_for() {
        for size in [LEAST_VOCABULARY, 515, 1000, 49408] {
            let json = synthetic(size);
            let vocabulary = json["model"]["vocab"].as_object().unwrap();
            assert_eq!(vocabulary.len(), size);
            assert_eq!(vocabulary[START], size - 2);
            assert_eq!(vocabulary[END], size - 1);
            let ids: HashSet<u64> = vocabulary.values().map(|id| id.as_u64().unwrap()).collect();
            assert_eq!(ids.len(), size);
        }
    }
}
