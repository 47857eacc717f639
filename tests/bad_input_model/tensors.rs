//! model.safetensors, single and sharded.

use std::fs;

use gstxclip::model::layout;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::{Checkpoint, find, safetensors_of};

#[test]
fn missing_misshapen_extra_and_wrongly_typed_tensors_are_listed_together() {
    let broken = Checkpoint::new();
    broken.edit_tensors(|tensors| {
        tensors.retain(|t| t.0 != "visual_projection.weight");
        find(tensors, "prompts_visual_projection").2 = vec![32, 64];
        tensors.push(("surplus.weight".into(), Dtype::F32, vec![2], vec![0; 8]));
        let wide = find(tensors, "text_projection.weight");
        wide.1 = Dtype::F64;
        wide.3.extend(wide.3.clone());
        tensors.push(("text_model.embeddings.position_ids".into(), Dtype::I64, vec![1, 16], vec![0; 128]));
    });
    let message = broken.fails_with(&[
        "model.safetensors: 4 problems",
        "tensor `visual_projection.weight`: missing, expected shape [32, 64]",
        "tensor `prompts_visual_projection`: expected shape [64, 32], file has [32, 64]",
        "tensor `surplus.weight` of shape [2] is not part of this configuration",
        "tensor `text_projection.weight`: expected F32, F16 or BF16, file has F64",
    ]);
    assert!(!message.contains("position_ids"), "{message}");
}

#[test]
fn a_long_list_of_problems_is_cut_and_counted() {
    let broken = Checkpoint::new();
    broken.edit_json("config.json", |c| c["text_config"]["hidden_size"] = json!(96));
    let message = broken.fails_with(&["problems:", "… and ", "more", "not of the same checkpoint"]);
    assert!(message.lines().count() < 20, "{message}");
}

#[test]
fn values_that_are_not_finite_are_named_with_tensor_and_index() {
    for (bits, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let broken = Checkpoint::new();
        broken.edit_tensors(|tensors| {
            find(tensors, "mit.position_embedding").3[4 * 77..4 * 78].copy_from_slice(&bits.to_le_bytes());
        });
        let model = broken.open().unwrap();
        let message = model.weights.tensor("mit.position_embedding").unwrap_err().to_string();
        for part in ["model.safetensors", "`mit.position_embedding`", "element 77", &format!("is {shown}")] {
            assert!(message.contains(part), "{message}");
        }
        assert!(model.weights.tensor("logit_scale").is_ok());
    }
}

#[test]
fn truncated_and_lengthened_files_are_refused_at_every_cut() {
    let whole = Checkpoint::new();
    let bytes = fs::read(whole.path.join("model.safetensors")).unwrap();
    for cut in [1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        Checkpoint::new()
            .write("model.safetensors", &bytes[..cut])
            .fails_with(&["model.safetensors", "fetch it again"]);
    }
    let longer = [&bytes[..], b"x"].concat();
    Checkpoint::new().write("model.safetensors", longer).fails_with(&["bytes after its last tensor"]);
}

#[test]
fn hostile_safetensors_headers_are_refused() {
    let with_header = |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    for header in [
        r#"{"a": {"dtype": "F32", "shape": [18446744073709551615, 2], "data_offsets": [0, 8]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [1000000, 1000008]}}"#,
        r#"{"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}"#,
        "[]",
        "not json",
    ] {
        Checkpoint::new()
            .write("model.safetensors", with_header(header))
            .fails_with(&["model.safetensors", "damaged"]);
    }
    let absurd = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    Checkpoint::new().write("model.safetensors", absurd).fails_with(&["not a safetensors file"]);
}

fn shard(checkpoint: &Checkpoint) {
    let tensors = checkpoint.tensors();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in
        [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        checkpoint.write(name, safetensors_of(part));
        part.iter().for_each(|tensor| drop(map.insert(tensor.0.clone(), json!(name))));
    }
    checkpoint.write(
        "model.safetensors.index.json",
        json!({"metadata": {"total_size": 0}, "weight_map": map}).to_string(),
    );
    checkpoint.remove("model.safetensors");
}

#[test]
fn shards_give_the_same_checkpoint_as_one_file() {
    let (whole, sharded) = (Checkpoint::new(), Checkpoint::new());
    shard(&sharded);
    let (whole, sharded) = (whole.open().unwrap(), sharded.open().unwrap());
    assert_eq!(whole.fingerprint(), sharded.fingerprint());
    for tensor in layout::tensors(&whole.config) {
        assert_eq!(
            whole.weights.tensor(&tensor.name).unwrap(),
            sharded.weights.tensor(&tensor.name).unwrap()
        );
    }
}

#[test]
fn shards_that_are_missing_misplaced_or_outside_the_folder_are_named() {
    let broken = Checkpoint::new();
    shard(&broken);
    broken.remove("model-00002-of-00002.safetensors");
    broken.fails_with(&["index.json", "`model-00002-of-00002.safetensors`", "all 2 shards"]);

    let broken = Checkpoint::new();
    shard(&broken);
    broken.edit_json("model.safetensors.index.json", |index| {
        index["weight_map"]["logit_scale"] = json!("../../secret.safetensors");
    });
    broken.fails_with(&["index.json", "secret.safetensors", "plain file name"]);

    let broken = Checkpoint::new();
    shard(&broken);
    broken.edit_json("model.safetensors.index.json", |index| {
        let place = index["weight_map"]["logit_scale"].as_str().unwrap().to_string();
        let other = if place.contains("00001") {
            place.replace("00001-", "00002-")
        } else {
            place.replace("00002-", "00001-")
        };
        index["weight_map"]["logit_scale"] = json!(other);
    });
    broken.fails_with(&["tensor `logit_scale`", "as the index says"]);
}
