//! Tensors by name → packed layers. Every source is dropped as soon as it is packed.

use super::gemm::Cpu;
use super::layer_norm::LayerNorm;
use super::linear::{Format, Linear};
use crate::backend::BackendError;
use crate::backend::source::{self, Source};

pub(super) struct Loader<'a, 'b> {
    pub cpu: &'a Cpu,
    pub source: &'a mut Source<'b>,
    /// Of the layers to come.
    pub format: Format,
}

impl Loader<'_, '_> {
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, BackendError> {
        source::tensor(self.source, name, shape)
    }

    pub fn norm(&mut self, prefix: &str, width: usize) -> Result<LayerNorm, BackendError> {
        let weight = self.tensor(&format!("{prefix}.weight"), &[width])?;
        Ok(LayerNorm { weight, bias: self.tensor(&format!("{prefix}.bias"), &[width])? })
    }

    pub fn linear(
        &mut self,
        prefix: &str,
        outs: usize,
        ins: usize,
        bias: bool,
    ) -> Result<Linear, BackendError> {
        self.stacked(&[(prefix.into(), 1.0)], outs, ins, bias)
    }

    /// Several projections of one input side by side, each times a factor.
    pub fn stacked(
        &mut self,
        parts: &[(String, f32)],
        outs: usize,
        ins: usize,
        bias: bool,
    ) -> Result<Linear, BackendError> {
        let mut linear = Linear::new(self.cpu, ins, outs * parts.len(), self.format);
        for (i, (prefix, factor)) in parts.iter().enumerate() {
            let weight = self.tensor(&format!("{prefix}.weight"), &[outs, ins])?;
            linear.put(self.cpu, i * outs, &weight, *factor);
            if bias {
                linear.put_bias(i * outs, &self.tensor(&format!("{prefix}.bias"), &[outs])?, *factor);
            }
        }
        Ok(linear)
    }

    /// q, k, v of one self-attention; the queries' scale hd^-0.5 is folded in.
    pub fn qkv(&mut self, prefix: &str, width: usize, heads: usize) -> Result<Linear, BackendError> {
        self.stacked(&source::qkv_parts(prefix, width, heads), width, width, true)
    }
}
