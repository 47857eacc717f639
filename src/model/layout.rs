//! Which tensors a configuration has: names and shapes of transformers' `XCLIPModel` state dict.
//! Linear weights are [out, in]; `prompts_visual_projection` alone is stored [in, out].

use super::config::{Config, Tower};

/// A tensor a checkpoint must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub name: String,
    pub shape: Vec<usize>,
}

struct List(Vec<Expected>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(Expected { name: name.into(), shape: shape.to_vec() });
    }

    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.add(format!("{name}.weight"), &[out, input]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width]);
        self.add(format!("{name}.bias"), &[width]);
    }

    fn attention(&mut self, name: &str, width: usize) {
        for part in ["k_proj", "v_proj", "q_proj", "out_proj"] {
            self.linear(&format!("{name}.{part}"), width, width);
        }
    }

    /// One pre-LN transformer block.
    fn block(&mut self, name: &str, tower: Tower) {
        self.attention(&format!("{name}.self_attn"), tower.width);
        self.norm(&format!("{name}.layer_norm1"), tower.width);
        self.linear(&format!("{name}.mlp.fc1"), tower.mlp, tower.width);
        self.linear(&format!("{name}.mlp.fc2"), tower.width, tower.mlp);
        self.norm(&format!("{name}.layer_norm2"), tower.width);
    }
}

/// All tensors of a configuration.
pub fn tensors(config: &Config) -> Vec<Expected> {
    let (d, e, text) = (config.vision.width, config.projection, config.text.width);
    let mut list = List(Vec::new());
    list.add("logit_scale", &[]);
    list.add("prompts_visual_projection", &[d, e]);

    list.add("text_model.embeddings.token_embedding.weight", &[config.vocab_size, text]);
    list.add("text_model.embeddings.position_embedding.weight", &[config.context, text]);
    for layer in 0..config.text.layers {
        list.block(&format!("text_model.encoder.layers.{layer}"), config.text);
    }
    list.norm("text_model.final_layer_norm", text);

    list.add("vision_model.embeddings.class_embedding", &[d]);
    list.add("vision_model.embeddings.patch_embedding.weight", &[d, 3, config.patch_size, config.patch_size]);
    list.add("vision_model.embeddings.position_embedding.weight", &[config.patches() + 1, d]);
    list.norm("vision_model.pre_layernorm", d);
    for layer in 0..config.vision.layers {
        let name = format!("vision_model.encoder.layers.{layer}");
        list.linear(&format!("{name}.message_fc"), d, d);
        list.norm(&format!("{name}.message_ln"), d);
        list.attention(&format!("{name}.message_attn"), d);
        list.block(&name, config.vision);
    }
    list.norm("vision_model.post_layernorm", d);

    list.add("visual_projection.weight", &[e, d]);
    list.add("text_projection.weight", &[e, text]);
    list.norm("prompts_visual_layernorm", d);

    list.add("mit.position_embedding", &[1, config.num_frames, e]);
    for layer in 0..config.mit.layers {
        list.block(&format!("mit.encoder.layers.{layer}"), config.mit);
    }

    list.add("prompts_generator.alpha", &[e]);
    list.norm("prompts_generator.layernorm", e);
    for layer in 0..config.prompt_layers {
        let name = format!("prompts_generator.decoder.{layer}");
        for part in ["q_proj", "k_proj", "v_proj"] {
            list.add(format!("{name}.cross_attn.{part}.weight"), &[e, e]);
        }
        list.linear(&format!("{name}.cross_attn.proj"), e, e);
        list.norm(&format!("{name}.norm1"), e);
        list.norm(&format!("{name}.norm3"), e);
        list.linear(&format!("{name}.mlp.0"), 4 * e, e);
        list.linear(&format!("{name}.mlp.3"), e, 4 * e);
    }
    list.0
}

/// Which settings of config.json a shape comes from, for the tensors people trip over.
pub(crate) fn because(name: &str, config: &Config) -> String {
    match name {
        "mit.position_embedding" => {
            format!(" (num_frames {}, projection_dim {})", config.num_frames, config.projection)
        }
        "vision_model.embeddings.position_embedding.weight" => format!(
            " (image_size {} / patch_size {} gives {} patches, plus the class token)",
            config.image_size,
            config.patch_size,
            config.patches()
        ),
        "text_model.embeddings.position_embedding.weight" => {
            format!(" (max_position_embeddings {})", config.context)
        }
        "text_model.embeddings.token_embedding.weight" => format!(" (vocab_size {})", config.vocab_size),
        "vision_model.embeddings.patch_embedding.weight" => format!(" (patch_size {})", config.patch_size),
        _ => String::new(),
    }
}
