//! config.json of the Hugging Face layout.
//!
//! Absent keys take the defaults of transformers' `XCLIPConfig`, which leaves them out when it saves.

use serde::Deserialize;

use super::ModelError;

/// Which head counts the MIT and the prompt cross-attention use. The published large checkpoints were
/// converted with 8 where the original has `width / 64` = 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Heads {
    /// As config.json says: equal to transformers.
    #[default]
    Hf,
    /// `width / 64`: equal to the paper's code.
    Videox,
}

/// One transformer: width, MLP width, layers, heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tower {
    pub width: usize,
    pub mlp: usize,
    pub layers: usize,
    pub heads: usize,
}

/// A consistent X-CLIP configuration: heads divide widths, the patch divides the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// S
    pub image_size: usize,
    pub patch_size: usize,
    /// T, baked into the MIT's position embedding.
    pub num_frames: usize,
    pub vision: Tower,
    /// Width is E.
    pub mit: Tower,
    pub text: Tower,
    pub vocab_size: usize,
    /// Longest prompt in tokens, start and end token included.
    pub context: usize,
    /// E
    pub projection: usize,
    pub prompt_layers: usize,
    pub prompt_heads: usize,
}

#[derive(Deserialize)]
#[serde(default)]
struct File {
    model_type: Option<String>,
    projection_dim: usize,
    prompt_layers: usize,
    prompt_num_attention_heads: usize,
    prompt_hidden_act: String,
    text_config: Option<TextPart>,
    vision_config: Option<VisionPart>,
    // transformers up to 4.26 wrote these beside the above; where present, they are what counts.
    text_config_dict: Option<TextPart>,
    vision_config_dict: Option<VisionPart>,
}

#[derive(Deserialize)]
#[serde(default)]
struct TextPart {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

#[derive(Deserialize)]
#[serde(default)]
struct VisionPart {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    mit_hidden_size: usize,
    mit_intermediate_size: usize,
    mit_num_hidden_layers: usize,
    mit_num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    num_frames: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

const ACTIVATION: &str = "quick_gelu";
const EPSILON: f64 = 1e-5;

impl Default for File {
    fn default() -> Self {
        Self {
            model_type: None,
            projection_dim: 512,
            prompt_layers: 2,
            prompt_num_attention_heads: 8,
            prompt_hidden_act: ACTIVATION.into(),
            text_config: None,
            vision_config: None,
            text_config_dict: None,
            vision_config_dict: None,
        }
    }
}

impl Default for TextPart {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: ACTIVATION.into(),
            layer_norm_eps: EPSILON,
        }
    }
}

impl Default for VisionPart {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mit_hidden_size: 512,
            mit_intermediate_size: 2048,
            mit_num_hidden_layers: 1,
            mit_num_attention_heads: 8,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            num_frames: 8,
            hidden_act: ACTIVATION.into(),
            layer_norm_eps: EPSILON,
        }
    }
}

impl Config {
    /// P
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Reads config.json; `file` names it in messages. All contradictions are reported at once.
    pub fn parse(file: &str, json: &[u8], heads: Heads) -> Result<Self, ModelError> {
        let read: File =
            serde_json::from_slice(json).map_err(|source| ModelError::Json { file: file.into(), source })?;
        let mut problems = Vec::new();
        if read.model_type.as_deref() != Some("xclip") {
            problems.push(format!(
                "model_type: expected `xclip`, found {}; this is another kind of model",
                read.model_type
                    .as_deref()
                    .map_or("nothing".into(), |t| format!("`{}`", super::error::shown(t)))
            ));
            return Err(ModelError::Settings { file: file.into(), problems });
        }
        let text = read.text_config_dict.or(read.text_config).unwrap_or_default();
        let vision = read.vision_config_dict.or(read.vision_config).unwrap_or_default();

        for (key, act) in [
            ("text_config.hidden_act", &text.hidden_act),
            ("vision_config.hidden_act", &vision.hidden_act),
            ("prompt_hidden_act", &read.prompt_hidden_act),
        ] {
            if act != ACTIVATION {
                problems
                    .push(format!("{key}: expected `{ACTIVATION}`, found `{}`", super::error::shown(act)));
            }
        }
        for (key, eps) in [("text_config", text.layer_norm_eps), ("vision_config", vision.layer_norm_eps)] {
            // Relative: 1e-05 may have passed through f32.
            if (eps - EPSILON).abs() > EPSILON * 1e-3 {
                problems.push(format!("{key}.layer_norm_eps: expected {EPSILON:e}, found {eps:e}"));
            }
        }
        if vision.num_channels != 3 {
            problems
                .push(format!("vision_config.num_channels: expected 3 (RGB), found {}", vision.num_channels));
        }

        let mut config = Self {
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            num_frames: vision.num_frames,
            vision: Tower {
                width: vision.hidden_size,
                mlp: vision.intermediate_size,
                layers: vision.num_hidden_layers,
                heads: vision.num_attention_heads,
            },
            mit: Tower {
                width: vision.mit_hidden_size,
                mlp: vision.mit_intermediate_size,
                layers: vision.mit_num_hidden_layers,
                heads: vision.mit_num_attention_heads,
            },
            text: Tower {
                width: text.hidden_size,
                mlp: text.intermediate_size,
                layers: text.num_hidden_layers,
                heads: text.num_attention_heads,
            },
            vocab_size: text.vocab_size,
            context: text.max_position_embeddings,
            projection: read.projection_dim,
            prompt_layers: read.prompt_layers,
            prompt_heads: read.prompt_num_attention_heads,
        };
        config.check_ranges(&mut problems);
        if problems.is_empty() {
            config.check_consistency(&mut problems);
        }
        if problems.is_empty() && heads == Heads::Videox {
            config.take_videox_heads(&mut problems);
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ModelError::Settings { file: file.into(), problems })
        }
    }

    /// Bounds far over any published size, so that later products and allocations stay sane.
    fn check_ranges(&self, problems: &mut Vec<String>) {
        let towers = [
            ("vision_config.hidden_size", "vision_config.intermediate_size", self.vision),
            ("vision_config.mit_hidden_size", "vision_config.mit_intermediate_size", self.mit),
            ("text_config.hidden_size", "text_config.intermediate_size", self.text),
        ];
        let mut ranges = vec![
            ("vision_config.image_size", self.image_size, 1, 4096),
            ("vision_config.patch_size", self.patch_size, 1, 1024),
            ("vision_config.num_frames", self.num_frames, 1, 1024),
            ("vision_config.num_hidden_layers", self.vision.layers, 1, 256),
            ("vision_config.num_attention_heads", self.vision.heads, 1, 1024),
            ("vision_config.mit_num_hidden_layers", self.mit.layers, 1, 256),
            ("vision_config.mit_num_attention_heads", self.mit.heads, 1, 1024),
            ("text_config.num_hidden_layers", self.text.layers, 1, 256),
            ("text_config.num_attention_heads", self.text.heads, 1, 1024),
            ("text_config.vocab_size", self.vocab_size, 3, 1 << 20),
            ("text_config.max_position_embeddings", self.context, 3, 4096),
            ("projection_dim", self.projection, 1, 8192),
            ("prompt_layers", self.prompt_layers, 1, 256),
            ("prompt_num_attention_heads", self.prompt_heads, 1, 1024),
        ];
        for (width_key, mlp_key, tower) in towers {
            ranges.extend([(width_key, tower.width, 1, 8192), (mlp_key, tower.mlp, 1, 65536)]);
        }
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                problems.push(format!("{key}: expected {least} to {most}, found {value}"));
            }
        }
    }

    fn check_consistency(&self, problems: &mut Vec<String>) {
        for (heads_key, heads, width_key, width) in [
            (
                "vision_config.num_attention_heads",
                self.vision.heads,
                "vision_config.hidden_size",
                self.vision.width,
            ),
            (
                "vision_config.mit_num_attention_heads",
                self.mit.heads,
                "vision_config.mit_hidden_size",
                self.mit.width,
            ),
            ("text_config.num_attention_heads", self.text.heads, "text_config.hidden_size", self.text.width),
            ("prompt_num_attention_heads", self.prompt_heads, "projection_dim", self.projection),
        ] {
            if !width.is_multiple_of(heads) {
                problems.push(format!("{heads_key}: {heads} does not divide {width_key} {width}"));
            }
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            problems.push(format!(
                "vision_config.patch_size: {} does not divide image_size {}",
                self.patch_size, self.image_size
            ));
        }
        if self.mit.width != self.projection {
            problems.push(format!(
                "vision_config.mit_hidden_size: expected projection_dim {}, found {}",
                self.projection, self.mit.width
            ));
        }
    }

    fn take_videox_heads(&mut self, problems: &mut Vec<String>) {
        // Both widths are E (checked).
        if !self.projection.is_multiple_of(64) {
            problems.push(format!(
                "heads=videox needs widths that are multiples of 64, projection_dim is {}: use heads=hf",
                self.projection
            ));
            return;
        }
        self.mit.heads = self.projection / 64;
        self.prompt_heads = self.projection / 64;
    }
}
