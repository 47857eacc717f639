//! model.safetensors (single or sharded) and pytorch_model.bin: names, shapes, then values as f32.

use super::ModelError;

/// Tensors by Hugging Face name; files are mapped, values are converted on demand.
pub struct Weights {}

impl Weights {
    /// Row-major values of a tensor as f32 (from f32, f16 or bf16), checked to be finite.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let _ = name;
        todo!("model branch")
    }
}
