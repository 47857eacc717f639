//! Checkpoints on disk: what `generate` writes, `Model::open` reads back as it was meant.

use std::path::Path;

use gstxclip::model::{Config, Heads, Model, Resize, generate, layout, recipe};
use gstxclip::preprocess::{Geometry, Rule};
use serde_json::json;

/// The golden vectors' small configuration.
fn small_config() -> serde_json::Value {
    json!({
        "model_type": "xclip", "projection_dim": 32, "prompt_layers": 2, "prompt_num_attention_heads": 2,
        "prompt_hidden_act": "quick_gelu",
        "text_config": {"vocab_size": 1000, "hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        "vision_config": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3,
            "num_attention_heads": 4, "mit_hidden_size": 32, "mit_intermediate_size": 128, "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2, "num_channels": 3, "image_size": 64, "patch_size": 16, "num_frames": 4,
            "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    })
}

fn generate_small(out: &Path) {
    let config = out.join("small.json");
    std::fs::create_dir_all(out).unwrap();
    std::fs::write(&config, small_config().to_string()).unwrap();
    generate(&config, &out.join("model"), &mut |_, _| {}).unwrap();
}

#[test]
fn a_generated_checkpoint_opens_with_the_recipes_values() {
    let dir = tempfile::tempdir().unwrap();
    generate_small(dir.path());
    let model = Model::open(dir.path().join("model").to_str().unwrap(), Heads::Hf).unwrap();
    assert_eq!((model.config.patches(), model.config.num_frames, model.config.projection), (16, 4, 32));
    assert_eq!((model.rule.size, model.rule.geometry), (64, Geometry::ShortestEdge { short: 64 }));
    assert_eq!(model.extra.sample_rate, (2, 1));
    for expected in layout::tensors(&model.config) {
        let values = model.weights.tensor(&expected.name).unwrap();
        assert_eq!(values, recipe::tensor(&expected.name, &expected.shape), "{}", expected.name);
    }
    let ids = model.tokenizer.encode("  Two  people FIGHTING ").unwrap();
    assert_eq!(ids, model.tokenizer.encode("two people fighting").unwrap());
    assert_eq!((ids[0], *ids.last().unwrap()), (998, 999));
    assert!(ids[1..ids.len() - 1].iter().all(|&id| id < 998));
    assert!(!model.extra.background.is_empty());
    model.extra.background.iter().for_each(|prompt| drop(model.tokenizer.encode(prompt).unwrap()));
}

/// Name → [shape, first, last, sum] as the golden vectors' generator computed them in Python.
fn assert_recipe_matches(config: &[u8], check: &[u8]) {
    let config = Config::parse("config.json", config, Heads::Hf).unwrap();
    let mut check: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(check).unwrap();
    for expected in layout::tensors(&config) {
        let known = check
            .remove(&expected.name)
            .unwrap_or_else(|| panic!("{} is not in the reference", expected.name));
        let shape: Vec<usize> = serde_json::from_value(known[0].clone()).unwrap();
        assert_eq!(
            shape.iter().product::<usize>(),
            expected.shape.iter().product::<usize>(),
            "{}",
            expected.name
        );
        let values = recipe::tensor(&expected.name, &expected.shape);
        assert_eq!(values[0] as f64, known[1].as_f64().unwrap(), "{}", expected.name);
        assert_eq!(*values.last().unwrap() as f64, known[2].as_f64().unwrap(), "{}", expected.name);
        // Every term of the sum is a multiple of 2^-24 or so: f64 adds them almost exactly in any order.
        let sum: f64 = values.iter().map(|&v| v as f64).sum();
        assert!((sum - known[3].as_f64().unwrap()).abs() < 1e-6, "{}: {sum}", expected.name);
    }
    assert!(check.is_empty(), "not in the layout: {:?}", check.keys());
}

#[test]
fn recipe_equals_the_reference_for_every_tensor_of_the_small_configuration() {
    assert_recipe_matches(
        include_bytes!("golden/small/config.json"),
        include_bytes!("golden/small/weights_check.json"),
    );
}

#[test]
fn recipe_equals_the_reference_for_every_tensor_of_base_patch32() {
    assert_recipe_matches(
        include_bytes!("golden/base-patch32/config.json"),
        include_bytes!("golden/base-patch32/weights_check.json"),
    );
}

#[test]
fn the_bundled_model_opens_from_the_binary_alone() {
    // Cargo runs tests in the package's folder; `demo` must not depend on it.
    std::env::set_current_dir(std::env::temp_dir()).unwrap();
    let model = Model::open("demo", Heads::Hf).unwrap();
    assert_eq!(model.name, "demo");
    for expected in layout::tensors(&model.config) {
        assert_eq!(
            model.weights.tensor(&expected.name).unwrap().len(),
            expected.shape.iter().product::<usize>()
        );
    }
    assert_eq!(model.extra.sample_rate, (4, 1));
    for prompt in &model.extra.background {
        model.tokenizer.encode(prompt).unwrap();
        assert_eq!(model.tokenizer.unknown_words(prompt), Vec::<String>::new(), "{prompt}");
    }
    assert_eq!(model.tokenizer.unknown_words("A person walking: Zeppelin! zeppelin's"), ["zeppelin"]);
}

/// A generated small checkpoint with one JSON file replaced.
fn with_file(dir: &Path, name: &str, content: serde_json::Value) -> Model {
    generate_small(dir);
    std::fs::write(dir.join("model").join(name), content.to_string()).unwrap();
    Model::open(dir.join("model").to_str().unwrap(), Heads::Hf).unwrap()
}

#[test]
fn both_key_styles_of_preprocessor_config_are_read() {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    for (content, geometry) in [
        (
            json!({"feature_extractor_type": "VideoMAEFeatureExtractor", "do_resize": true, "size": 64, "resample": 2,
                   "do_center_crop": true, "crop_size": 64, "do_normalize": true, "image_mean": mean, "image_std": std}),
            Geometry::ShortestEdge { short: 64 },
        ),
        (
            json!({"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 73},
                   "crop_size": {"height": 64, "width": 64}, "image_mean": mean, "image_std": std}),
            Geometry::ShortestEdge { short: 73 },
        ),
        (
            json!({"size": {"height": 64, "width": 64}, "do_center_crop": false, "resample": 2, "image_mean": mean,
                   "image_std": std}),
            Geometry::Stretch,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let rule = with_file(dir.path(), "preprocessor_config.json", content).rule;
        assert_eq!((rule.size, rule.geometry), (64, geometry));
        assert_eq!((rule.mean, rule.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    }
}

#[test]
fn a_whole_processor_saved_by_transformers_5_is_read() {
    let dir = tempfile::tempdir().unwrap();
    generate_small(dir.path());
    let folder = dir.path().join("model");
    let text = std::fs::read_to_string(folder.join("preprocessor_config.json")).unwrap();
    let inner: serde_json::Value = serde_json::from_str(&text).unwrap();
    std::fs::remove_file(folder.join("preprocessor_config.json")).unwrap();
    let whole = json!({"image_processor": inner, "processor_class": "XCLIPProcessor"});
    std::fs::write(folder.join("processor_config.json"), whole.to_string()).unwrap();
    let model = Model::open(folder.to_str().unwrap(), Heads::Hf).unwrap();
    assert_eq!(model.rule.geometry, Geometry::ShortestEdge { short: 64 });
}

#[test]
fn resize_is_the_checkpoints_unless_xclip_json_or_the_user_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let content = json!({"resize": "videox", "sample_rate": "5/2", "temperature": 0.5, "background": [" an empty yard "]});
    let model = with_file(dir.path(), "xclip.json", content);
    // int(256 / 224 * 64) = 73
    assert_eq!(model.rule.geometry, Geometry::ShortestEdge { short: 73 });
    assert_eq!(model.rule_for(None), model.rule);
    assert_eq!(model.rule_for(Some(Resize::Checkpoint)).geometry, Geometry::ShortestEdge { short: 64 });
    assert_eq!(model.rule_for(Some(Resize::Stretch)).geometry, Geometry::Stretch);
    assert_eq!((model.extra.sample_rate, model.extra.temperature), ((5, 2), 0.5));
    assert_eq!(model.extra.background, ["an empty yard"]);
}

#[test]
fn videox_geometry_is_256_of_224_for_the_published_sizes() {
    for (size, short) in [(224, 256), (336, 384)] {
        let rule =
            Rule { size, geometry: Geometry::ShortestEdge { short: size }, mean: [0.0; 3], std: [1.0; 3] };
        assert_eq!(Resize::Videox.apply(rule).geometry, Geometry::ShortestEdge { short });
    }
}

#[test]
fn videox_heads_are_the_widths_over_64() {
    let mut config = small_config();
    config["projection_dim"] = 768.into();
    config["vision_config"]["mit_hidden_size"] = 768.into();
    config["vision_config"]["mit_num_attention_heads"] = 8.into();
    config["prompt_num_attention_heads"] = 8.into();
    let parse = |heads| Config::parse("config.json", config.to_string().as_bytes(), heads).unwrap();
    let (hf, videox) = (parse(Heads::Hf), parse(Heads::Videox));
    assert_eq!((hf.mit.heads, hf.prompt_heads), (8, 8));
    assert_eq!((videox.mit.heads, videox.prompt_heads), (12, 12));
    assert_eq!((videox.vision, videox.text), (hf.vision, hf.text));
}

/// What transformers leaves out when it saves are its defaults: base-patch32.
#[test]
fn absent_settings_are_those_of_base_patch32() {
    let bare = Config::parse("config.json", br#"{"model_type": "xclip"}"#, Heads::Hf).unwrap();
    let full =
        Config::parse("config.json", include_bytes!("golden/base-patch32/config.json"), Heads::Hf).unwrap();
    assert_eq!(bare, full);
    // Old versions wrote the parts a second time; these count.
    let old = br#"{"model_type": "xclip", "vision_config": {"num_frames": 4}, "vision_config_dict": {"num_frames": 16},
                   "text_config_dict": null}"#;
    assert_eq!(Config::parse("config.json", old, Heads::Hf).unwrap().num_frames, 16);
}

#[test]
fn fingerprints_tell_weights_and_settings_apart() {
    let dir = tempfile::tempdir().unwrap();
    generate_small(dir.path());
    let folder = dir.path().join("model");
    let open = || Model::open(folder.to_str().unwrap(), Heads::Hf).unwrap().fingerprint().to_string();
    let first = open();
    assert_eq!(first.len(), 16);
    assert_eq!(first, open());
    let mut bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header] ^= 1; // lowest bit of logit_scale
    std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
    let second = open();
    assert_ne!(first, second);
    // The last element of the last tensor.
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
    let (second, before) = (open(), second);
    assert_ne!(second, before);
    let text = std::fs::read_to_string(folder.join("preprocessor_config.json")).unwrap();
    std::fs::write(folder.join("preprocessor_config.json"), text.replace("0.485", "0.5")).unwrap();
    assert_ne!(second, open());
}

/// Ids as transformers' CLIPTokenizerFast gives them for the same vocab.json and merges.txt.
#[test]
fn prompts_become_the_same_ids_as_in_transformers() {
    let dir = tempfile::tempdir().unwrap();
    generate_small(dir.path());
    let folder = dir.path().join("model");
    let from_json = Model::open(folder.to_str().unwrap(), Heads::Hf).unwrap();
    let text = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    std::fs::write(folder.join("merges.txt"), format!("#version: 0.2\n{}", merges.collect::<String>()))
        .unwrap();
    std::fs::write(folder.join("vocab.json"), tokenizer["model"]["vocab"].to_string()).unwrap();
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let from_parts = Model::open(folder.to_str().unwrap(), Heads::Hf).unwrap();
    let known: [(&str, &[u32]); 10] = [
        ("The person's here!!", &[998, 578, 324, 79, 528, 82, 679, 6, 338, 71, 528, 324, 0, 256, 999]),
        ("  tabs\tand\nlines ", &[998, 568, 65, 338, 626, 323, 75, 730, 525, 999]),
        ("na\u{ef}ve \u{c9}", &[998, 776, 127, 107, 85, 324, 127, 358, 999]),
        ("e\u{301}t\u{e9}", &[998, 127, 102, 83, 127, 358, 999]),
        ("日本", &[998, 162, 245, 98, 162, 250, 361, 999]),
        ("run 🔥", &[998, 950, 333, 172, 253, 242, 354, 999]),
        ("a_b c-d", &[998, 320, 318, 321, 322, 268, 323, 999]),
        ("don't I'LL", &[998, 67, 679, 6, 339, 328, 6, 75, 331, 999]),
        ("''s 't", &[998, 6, 262, 338, 6, 339, 999]),
        ("x1y22", &[998, 343, 272, 344, 273, 273, 999]),
    ];
    for (text, ids) in known {
        assert_eq!(from_json.tokenizer.encode(text).unwrap(), ids, "{text}");
        assert_eq!(from_parts.tokenizer.encode(text).unwrap(), ids, "{text}");
    }
}
