//! The published configurations by name, as on the Hugging Face hub without `microsoft/xclip-`: with the
//! weights of [`recipe`](super::recipe), each of them runs and is measured without a download.

use serde_json::{Value, json};

/// Every name that [`config_json`] knows, smallest first.
pub const NAMES: [&str; 7] = [
    "base-patch32",
    "base-patch32-16-frames",
    "base-patch16",
    "base-patch16-16-frames",
    "base-patch16-zero-shot",
    "large-patch14",
    "large-patch14-16-frames",
];

/// The config.json of a published size, `None` if there is none of that name. What it leaves out has
/// transformers' default, as in the published files.
pub fn config_json(name: &str) -> Option<String> {
    let (patch, frames, image) = match name {
        "base-patch32" => (32, 8, 224),
        "base-patch32-16-frames" => (32, 16, 224),
        "base-patch16" => (16, 8, 224),
        "base-patch16-16-frames" => (16, 16, 224),
        "base-patch16-zero-shot" => (16, 32, 224),
        "large-patch14" => (14, 8, 224),
        "large-patch14-16-frames" => (14, 16, 336),
        _ => return None,
    };
    let mut vision = json!({"patch_size": patch, "num_frames": frames, "image_size": image});
    let (mut text, mut joint) = (json!({}), 512);
    if patch == 14 {
        joint = 768;
        set(&mut vision, &[("hidden_size", 1024), ("intermediate_size", 4096)]);
        set(&mut vision, &[("num_hidden_layers", 24), ("num_attention_heads", 16)]);
        set(&mut vision, &[("mit_hidden_size", 768), ("mit_intermediate_size", 3072)]);
        set(&mut text, &[("hidden_size", 768), ("intermediate_size", 3072), ("num_attention_heads", 12)]);
    }
    let config = json!({
        "architectures": ["XCLIPModel"], "model_type": "xclip", "projection_dim": joint,
        "text_config": text, "vision_config": vision,
    });
    Some(format!("{config:#}\n"))
}

fn set(part: &mut Value, values: &[(&str, u32)]) {
    for (key, value) in values {
        part[*key] = (*value).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Heads};

    #[test]
    fn every_published_size_is_consistent_with_both_head_counts() {
        for name in NAMES {
            let json = config_json(name).unwrap();
            let config = Config::parse(name, json.as_bytes(), Heads::Hf).unwrap();
            assert_eq!(config.vision.width / config.vision.heads, 64, "{name}");
            let large = name.starts_with("large");
            assert_eq!((config.projection, config.mit.heads), if large { (768, 8) } else { (512, 8) });
            let videox = Config::parse(name, json.as_bytes(), Heads::Videox).unwrap();
            assert_eq!(videox.mit.heads, if large { 12 } else { 8 }, "{name}");
        }
        assert_eq!(config_json("base-patch8"), None);
    }

    #[test]
    fn base_patch32_is_the_golden_configuration() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/base-patch32/config.json");
        let golden = Config::parse(golden, &std::fs::read(golden).unwrap(), Heads::Hf).unwrap();
        let json = config_json("base-patch32").unwrap();
        assert_eq!(Config::parse("published", json.as_bytes(), Heads::Hf).unwrap(), golden);
    }
}
