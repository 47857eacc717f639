//! A checkpoint that is broken in any way is one message that names the place, what was expected and
//! what was found; nothing of it runs, nothing huge is allocated.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use gstxclip::model::{Heads, Model, ModelError, generate, layout};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

/// A whole small checkpoint in a folder of its own, to be broken.
struct Checkpoint {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

impl Checkpoint {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/config.json");
        generate(&config, &path, &mut |_, _| {}).unwrap();
        Self { _dir: dir, path }
    }

    fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) -> &Self {
        let path = self.path.join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
        self
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path.join(file), bytes).unwrap();
        self
    }

    fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.path.join(file)).unwrap();
        self
    }

    fn tensors(&self) -> Vec<Tensor> {
        let bytes = fs::read(self.path.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors =
            file.iter().map(|(name, t)| (name.to_string(), t.dtype(), t.shape().to_vec(), t.data().to_vec()));
        tensors.collect()
    }

    fn edit_tensors(&self, edit: impl FnOnce(&mut Vec<Tensor>)) -> &Self {
        let mut tensors = self.tensors();
        edit(&mut tensors);
        self.write("model.safetensors", safetensors_of(&tensors))
    }

    fn open(&self) -> Result<Model, ModelError> {
        Model::open(self.path.to_str().unwrap(), Heads::Hf)
    }

    /// The message, which must contain all of `parts`.
    #[track_caller]
    fn fails_with(&self, parts: &[&str]) -> String {
        let message = self.open().err().expect("the checkpoint is broken").to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        message
    }
}

fn safetensors_of(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize(views, None).unwrap()
}

fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

fn halve(tensor: &mut Tensor, to: impl Fn(f32) -> [u8; 2], dtype: Dtype) {
    let values = tensor.3.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
    tensor.3 = values.flat_map(to).collect();
    tensor.1 = dtype;
}

// ── the folder

#[test]
fn a_folder_that_is_none_says_what_was_expected() {
    let message = |model: &str| Model::open(model, Heads::Hf).err().unwrap().to_string();
    assert!(message("/no/such/folder").contains("no such folder"), "{}", message("/no/such/folder"));
    let checkpoint = Checkpoint::new();
    let file = checkpoint.path.join("config.json").display().to_string();
    assert!(message(&file).contains("is a file; name the folder"), "{}", message(&file));
}

#[test]
fn each_missing_file_is_named() {
    for (file, parts) in [
        ("config.json", &["has no config.json"][..]),
        ("preprocessor_config.json", &["has no preprocessor_config.json"]),
        ("tokenizer.json", &["has no tokenizer", "vocab.json and merges.txt"]),
        ("model.safetensors", &["has no weights", "model.safetensors", "pytorch_model.bin"]),
    ] {
        Checkpoint::new().remove(file).fails_with(parts);
    }
}

#[test]
fn empty_files_and_lfs_pointers_are_recognised() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        Checkpoint::new().write(file, "").fails_with(&[file, "is empty"]);
        Checkpoint::new()
            .write(file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
            .fails_with(&[file, "Git LFS pointer", "git lfs pull"]);
    }
}

// ── config.json

#[test]
fn malformed_json_is_reported_with_line_and_column() {
    Checkpoint::new()
        .write("config.json", "{\n \"model_type\": \"xclip\",\n")
        .fails_with(&["config.json", "line 3"]);
    Checkpoint::new()
        .write("preprocessor_config.json", "{]")
        .fails_with(&["preprocessor_config.json", "line 1 column 2"]);
    Checkpoint::new().write("tokenizer.json", "{}").fails_with(&["tokenizer.json", "not a tokenizer"]);
    Checkpoint::new().edit_json("config.json", |c| c["projection_dim"] = json!("32")).fails_with(&[
        "config.json",
        "invalid type",
        "expected usize",
    ]);
}

#[test]
fn another_kind_of_model_is_refused() {
    let broken = Checkpoint::new();
    broken.edit_json("config.json", |c| c["model_type"] = json!("clip"));
    broken.fails_with(&["config.json", "model_type: expected `xclip`, found `clip`"]);
}

#[test]
fn each_impossible_setting_names_its_key_expected_and_found() {
    for (part, key, value, message) in [
        (
            "vision_config",
            "num_attention_heads",
            json!(5),
            "vision_config.num_attention_heads: 5 does not divide vision_config.hidden_size 64",
        ),
        (
            "vision_config",
            "mit_num_attention_heads",
            json!(3),
            "mit_num_attention_heads: 3 does not divide vision_config.mit_hidden_size 32",
        ),
        (
            "text_config",
            "num_attention_heads",
            json!(5),
            "text_config.num_attention_heads: 5 does not divide text_config.hidden_size 48",
        ),
        (
            "",
            "prompt_num_attention_heads",
            json!(3),
            "prompt_num_attention_heads: 3 does not divide projection_dim 32",
        ),
        ("vision_config", "patch_size", json!(15), "patch_size: 15 does not divide image_size 64"),
        (
            "vision_config",
            "mit_hidden_size",
            json!(64),
            "mit_hidden_size: expected projection_dim 32, found 64",
        ),
        (
            "vision_config",
            "hidden_act",
            json!("gelu"),
            "vision_config.hidden_act: expected `quick_gelu`, found `gelu`",
        ),
        (
            "text_config",
            "hidden_act",
            json!("relu"),
            "text_config.hidden_act: expected `quick_gelu`, found `relu`",
        ),
        ("", "prompt_hidden_act", json!("gelu"), "prompt_hidden_act: expected `quick_gelu`, found `gelu`"),
        (
            "vision_config",
            "layer_norm_eps",
            json!(1e-6),
            "vision_config.layer_norm_eps: expected 1e-5, found 1e-6",
        ),
        (
            "text_config",
            "layer_norm_eps",
            json!(1e-12),
            "text_config.layer_norm_eps: expected 1e-5, found 1e-12",
        ),
        ("vision_config", "num_channels", json!(1), "num_channels: expected 3 (RGB), found 1"),
        ("vision_config", "num_frames", json!(0), "num_frames: expected 1 to 1024, found 0"),
        (
            "vision_config",
            "num_hidden_layers",
            json!(1_000_000_000),
            "num_hidden_layers: expected 1 to 256, found 1000000000",
        ),
        (
            "text_config",
            "vocab_size",
            json!(u64::MAX),
            "vocab_size: expected 3 to 1048576, found 18446744073709551615",
        ),
        ("vision_config", "image_size", json!(1u64 << 40), "image_size: expected 1 to 4096"),
    ] {
        let broken = Checkpoint::new();
        broken.edit_json("config.json", |c| match part {
            "" => c[key] = value,
            part => c[part][key] = value,
        });
        broken.fails_with(&["config.json", message]);
    }
}

#[test]
fn several_faults_are_reported_at_once() {
    let broken = Checkpoint::new();
    broken.edit_json("config.json", |c| {
        c["vision_config"]["num_attention_heads"] = json!(5);
        c["text_config"]["num_attention_heads"] = json!(7);
    });
    broken.fails_with(&[
        "2 problems",
        "vision_config.num_attention_heads",
        "text_config.num_attention_heads",
    ]);
}

#[test]
fn videox_heads_need_widths_of_64() {
    let checkpoint = Checkpoint::new();
    let message = Model::open(checkpoint.path.to_str().unwrap(), Heads::Videox).err().unwrap().to_string();
    assert!(
        message.contains("heads=videox") && message.contains("32") && message.contains("heads=hf"),
        "{message}"
    );
}

#[test]
fn frames_and_patches_that_contradict_the_position_embeddings_are_explained() {
    let broken = Checkpoint::new();
    broken.edit_json("config.json", |c| c["vision_config"]["num_frames"] = json!(8));
    broken.fails_with(&[
        "tensor `mit.position_embedding`",
        "expected shape [1, 8, 32] (num_frames 8",
        "file has [1, 4, 32]",
    ]);

    let broken = Checkpoint::new();
    broken.edit_json("config.json", |c| c["vision_config"]["image_size"] = json!(96));
    broken.edit_json("preprocessor_config.json", |p| {
        p["size"] = json!({"shortest_edge": 96});
        p["crop_size"] = json!({"height": 96, "width": 96});
    });
    broken.fails_with(&[
        "tensor `vision_model.embeddings.position_embedding.weight`: expected shape [37, 64]",
        "image_size 96 / patch_size 16 gives 36 patches",
        "file has [17, 64]",
    ]);
}

// ── preprocessor_config.json, xclip.json

#[test]
fn each_unusable_preprocessing_setting_is_named() {
    let set = |key: &'static str, value: Value| move |p: &mut Value| p[key] = value;
    let edits: Vec<(Box<dyn FnOnce(&mut Value)>, &[&str])> = vec![
        (
            Box::new(|p| drop(p.as_object_mut().unwrap().remove("image_mean"))),
            &["image_mean: missing", "0.485"],
        ),
        (Box::new(|p| drop(p.as_object_mut().unwrap().remove("image_std"))), &["image_std: missing"]),
        (Box::new(set("image_std", json!([0.2, 0.0, 0.2]))), &["image_std: expected positive"]),
        (Box::new(set("image_mean", json!([0.5, 0.5]))), &["invalid length 2"]),
        (Box::new(set("resample", json!(3))), &["resample: expected 2 (bilinear)", "found 3 (bicubic)"]),
        (Box::new(set("do_resize", json!(false))), &["do_resize: expected true"]),
        (Box::new(set("do_rescale", json!(false))), &["do_rescale: expected true"]),
        (Box::new(set("do_center_crop", json!(false))), &["do_center_crop: false", "square"]),
        (Box::new(set("rescale_factor", json!(1.0 / 127.5))), &["rescale_factor: expected 1/255"]),
        (
            Box::new(set("crop_size", json!({"height": 224, "width": 224}))),
            &["crop_size: expected image_size 64", "224x224"],
        ),
        (
            Box::new(set("size", json!({"shortest_edge": 32}))),
            &["size: expected a shortest edge of 64", "found shortest edge 32"],
        ),
        (Box::new(set("size", json!({"height": 64, "width": 80}))), &["found 64x80 (height x width)"]),
    ];
    for (edit, parts) in edits {
        let broken = Checkpoint::new();
        broken
            .edit_json("preprocessor_config.json", edit)
            .fails_with(&[&["preprocessor_config.json"], parts].concat());
    }
}

#[test]
fn each_fault_of_xclip_json_is_named() {
    for (text, parts) in [
        (r#"{"sample_rate": "4/0"}"#, &["sample_rate", "`4/0`"][..]),
        (r#"{"sample_rate": "fast"}"#, &["sample_rate", "N/D", "`fast`"]),
        (r#"{"resize": "crop"}"#, &["unknown variant `crop`", "`checkpoint`, `videox`, `stretch`"]),
        (r#"{"temperature": 0}"#, &["temperature: expected 0.001 to 1000, found 0"]),
        (r#"{"background": []}"#, &["background: expected at least one"]),
        (r#"{"backgrounds": ["a"]}"#, &["unknown field `backgrounds`"]),
    ] {
        Checkpoint::new().write("xclip.json", text).fails_with(&[&["xclip.json"], parts].concat());
    }
}

// ── tokenizer

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

// ── tensors

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

// ── shards

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

// ── pytorch_model.bin

/// What a broken .bin does differently from what torch.save writes.
#[derive(Default)]
struct Bin {
    /// Bytes of the pickle before its first tensor.
    prologue: Vec<u8>,
    /// Elements that the pickle claims for each storage, over the true number.
    surplus: u32,
    byte_order: Option<&'static str>,
    deflated: bool,
    without: Option<&'static str>,
}

impl Bin {
    fn write(&self, checkpoint: &Checkpoint) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(b'X');
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        };
        let int = |out: &mut Vec<u8>, value: usize| {
            out.push(b'J');
            out.extend((value as i32).to_le_bytes());
        };
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend(&self.prologue);
        pickle.extend(b"ccollections\nOrderedDict\n)R(");
        let tensors = checkpoint.tensors();
        for (key, (name, dtype, shape, data)) in tensors.iter().enumerate() {
            let (class, width) = match dtype {
                Dtype::F16 => ("HalfStorage", 2),
                Dtype::BF16 => ("BFloat16Storage", 2),
                _ => ("FloatStorage", 4),
            };
            text(&mut pickle, name);
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend(format!("ctorch\n{class}\n").bytes());
            text(&mut pickle, &key.to_string());
            text(&mut pickle, "cpu");
            int(&mut pickle, data.len() / width + self.surplus as usize);
            pickle.extend(b"tQK\x00(");
            shape.iter().for_each(|&axis| int(&mut pickle, axis));
            pickle.extend(b"t(");
            (0..shape.len()).for_each(|axis| int(&mut pickle, shape[axis + 1..].iter().product()));
            pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        }
        pickle.extend(b"u.");

        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut add = |name: String, content: &[u8]| {
            if self.without != Some(name.as_str()) {
                zip.start_file(name, options).unwrap();
                zip.write_all(content).unwrap();
            }
        };
        add("archive/data.pkl".into(), &pickle);
        add("archive/byteorder".into(), self.byte_order.unwrap_or("little").as_bytes());
        for (key, tensor) in tensors.iter().enumerate() {
            add(format!("archive/data/{key}"), &tensor.3);
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        if self.deflated {
            // Method 8 in every central directory entry.
            let at: Vec<usize> =
                (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")).collect();
            at.into_iter().for_each(|at| bytes[at + 10] = 8);
        }
        checkpoint.write("pytorch_model.bin", bytes).remove("model.safetensors");
    }
}

#[test]
fn a_pytorch_file_gives_the_same_checkpoint_as_safetensors() {
    let (safe, torch) = (Checkpoint::new(), Checkpoint::new());
    Bin::default().write(&torch);
    let (safe, torch) = (safe.open().unwrap(), torch.open().unwrap());
    assert_eq!(safe.fingerprint(), torch.fingerprint());
    for tensor in layout::tensors(&safe.config) {
        assert_eq!(safe.weights.tensor(&tensor.name).unwrap(), torch.weights.tensor(&tensor.name).unwrap());
    }
}

#[test]
fn half_precision_weights_are_read_in_both_formats() {
    for torch in [false, true] {
        let checkpoint = Checkpoint::new();
        checkpoint.edit_tensors(|tensors| {
            halve(
                find(tensors, "text_projection.weight"),
                |v| half::f16::from_f32(v).to_le_bytes(),
                Dtype::F16,
            );
            halve(
                find(tensors, "visual_projection.weight"),
                |v| half::bf16::from_f32(v).to_le_bytes(),
                Dtype::BF16,
            );
        });
        let exact = Checkpoint::new().open().unwrap();
        if torch {
            Bin::default().write(&checkpoint);
        }
        let rounded = checkpoint.open().unwrap();
        for (name, bound) in
            [("text_projection.weight", 2f32.powi(-11)), ("visual_projection.weight", 2f32.powi(-8))]
        {
            let (a, b) = (exact.weights.tensor(name).unwrap(), rounded.weights.tensor(name).unwrap());
            assert_ne!(a, b);
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= bound * a.abs().max(1e-4)), "{name}");
        }
    }
}

#[test]
fn a_hostile_pickle_is_refused_by_name_and_runs_nothing() {
    let broken = Checkpoint::new();
    let proof = broken.path.join("proof");
    let command = format!("touch {}", proof.display());
    let mut prologue = b"cposix\nsystem\n(X".to_vec();
    prologue.extend((command.len() as u32).to_le_bytes());
    prologue.extend(command.bytes());
    prologue.extend(b"tR");
    Bin { prologue, ..Bin::default() }.write(&broken);
    broken.fails_with(&["pytorch_model.bin", "data.pkl, byte 2", "`posix.system`", "refused", "safetensors"]);
    assert!(!proof.exists());
}

#[test]
fn damaged_pytorch_files_say_what_is_wrong() {
    let cases: [(Bin, &[&str]); 4] = [
        (Bin { surplus: 1, ..Bin::default() }, &["tensor `", "storage has", "bytes, expected"]),
        (Bin { byte_order: Some("big"), ..Bin::default() }, &["byteorder: expected little, found big"]),
        (Bin { deflated: true, ..Bin::default() }, &["compressed", "expected stored"]),
        (
            Bin { without: Some("archive/data/3"), ..Bin::default() },
            &["storage `archive/data/3` is not in the file"],
        ),
    ];
    for (bin, parts) in cases {
        let broken = Checkpoint::new();
        bin.write(&broken);
        broken.fails_with(&[&["pytorch_model.bin"], parts].concat());
    }
    let broken = Checkpoint::new();
    Bin { without: Some("archive/data.pkl"), ..Bin::default() }.write(&broken);
    broken.fails_with(&["has no data.pkl"]);

    let whole = Checkpoint::new();
    Bin::default().write(&whole);
    let bytes = fs::read(whole.path.join("pytorch_model.bin")).unwrap();
    whole.write("pytorch_model.bin", &bytes[..bytes.len() / 2]).fails_with(&["truncated or damaged"]);
    whole
        .write("pytorch_model.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.rest")
        .fails_with(&["before 1.6", "torch.save"]);
    whole.write("pytorch_model.bin", b"hello world").fails_with(&["not a PyTorch file"]);
}
