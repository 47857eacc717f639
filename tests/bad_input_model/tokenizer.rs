//! tokenizer.json, vocab.json and merges.txt, prompts.

use std::fs;

use serde_json::{Value, json};

use super::Checkpoint;

#[test]
fn a_tokenizer_of_another_checkpoint_is_refused() {
    let broken = Checkpoint::new();
    broken.edit_json("tokenizer.json", |t| {
        t["model"]["vocab"]["surplus"] = json!(1000);
    });
    broken.fails_with(&[
        "tokenizer.json",
        "end token `<|endoftext|>` must have the largest id",
        "999",
        "`surplus` has 1000",
    ]);

    let broken = Checkpoint::new();
    broken.edit_json("tokenizer.json", |t| {
        t["added_tokens"] = json!([]);
        t["model"]["vocab"].as_object_mut().unwrap().remove("<|endoftext|>");
    });
    broken.fails_with(&["tokenizer.json", "<|endoftext|>"]);
}

#[test]
fn vocab_and_merges_that_do_not_match_are_refused_by_line() {
    let split = |merges: &str| {
        let checkpoint = Checkpoint::new();
        let json: Value =
            serde_json::from_slice(&fs::read(checkpoint.path.join("tokenizer.json")).unwrap()).unwrap();
        checkpoint.write("vocab.json", json["model"]["vocab"].to_string()).write("merges.txt", merges);
        checkpoint.remove("tokenizer.json");
        checkpoint
    };
    split("#version: 0.2\ne t\nzz zz\n").fails_with(&["merges.txt, line 3", "`zz`", "not in vocab.json"]);
    split("#version: 0.2\ne t o\n").fails_with(&["merges.txt, line 2", "two tokens"]);
    let alone = split("e t\n");
    alone.remove("merges.txt").fails_with(&["has vocab.json but no merges.txt"]);
}

#[test]
fn prompts_that_cannot_be_read_say_why() {
    let model = Checkpoint::new().open().unwrap();
    let message = |prompt: &str| model.tokenizer.encode(prompt).unwrap_err().to_string();
    let long = message(&"zebra quartz ".repeat(20));
    assert!(long.contains("tokens long") && long.contains("at most 16") && long.contains("zebra"), "{long}");
    assert!(message("  ").contains("empty"));
    assert!(message("a <|endoftext|> b").contains("start or end token"));
    let huge = message(&"a".repeat(1 << 20));
    assert!(huge.contains("1048576 bytes") && huge.len() < 400, "{huge}");
}

#[test]
fn settings_that_the_tokenizers_library_panics_on_are_an_error() {
    let broken = Checkpoint::new();
    broken.edit_json("tokenizer.json", |t| t["model"]["continuing_subword_prefix"] = json!("much too long"));
    broken.fails_with(&["tokenizer.json", "not a tokenizer"]);
}
