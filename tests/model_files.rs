//! Checkpoints on disk: what `generate` writes, `Model::open` reads back as it was meant.

use std::path::Path;

use gstxclip::model::{Config, Heads, Model, generate, layout, recipe};
use gstxclip::preprocess::Geometry;

/// The golden vectors' small configuration.
fn small_config() -> serde_json::Value {
    serde_json::json!({
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
