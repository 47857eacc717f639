//! config.json, preprocessor_config.json, xclip.json.

use gstxclip::model::{Heads, Model};
use serde_json::{Value, json};

use super::Checkpoint;

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

#[test]
fn each_unusable_preprocessing_setting_is_named() {
    let set = |key: &'static str, value: Value| move |p: &mut Value| p[key] = value;
    type Edit = Box<dyn FnOnce(&mut Value)>;
    let edits: Vec<(Edit, &[&str])> = vec![
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
