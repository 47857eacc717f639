//! Tensors by name → device memory: weights in f16, LayerNorms and positions in f32. Each source is dropped
//! as soon as it is uploaded.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::kernels::NormAt;
use super::launcher::Launcher;
use super::memory::{At, Buffer};
use super::product::LayerAt;
use crate::backend::BackendError;
use crate::backend::source::{self, Source};

pub(super) struct Loader<'a, 'b> {
    pub launcher: &'a Launcher,
    pub source: &'a mut Source<'b>,
    /// Bytes uploaded so far.
    pub bytes: usize,
}

/// y = x·Wᵀ + b
pub(super) struct Linear {
    /// [outs, ins]
    weight: Buffer<f16>,
    bias: Option<Buffer<f16>>,
    pub ins: usize,
    pub outs: usize,
}

pub(super) struct Norm {
    gain: Buffer<f32>,
    bias: Buffer<f32>,
}

impl Linear {
    pub fn at(&self) -> LayerAt {
        self.part(0, self.outs)
    }

    /// Outputs `first..first + outs` alone.
    pub fn part(&self, first: usize, outs: usize) -> LayerAt {
        let bias = self.bias.as_ref().map(|bias| bias.from(first));
        LayerAt { weight: self.weight.from(first * self.ins), bias, ins: self.ins, outs }
    }
}

impl Norm {
    pub fn at(&self) -> NormAt {
        NormAt { gain: self.gain.at(), bias: self.bias.at(), width: self.gain.len() }
    }
}

/// f16 values of these; overflow is an error, where a checkpoint's own values are known to be finite.
pub(super) fn halves(values: &[f32]) -> Result<Vec<f16>, BackendError> {
    let mut to = vec![f16::ZERO; values.len()];
    to.convert_from_f32_slice(values);
    match to.iter().all(|v| v.is_finite()) {
        true => Ok(to),
        false => Err(BackendError::NotFinite { what: "a weight in f16" }),
    }
}

impl Loader<'_, '_> {
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, BackendError> {
        source::tensor(self.source, name, shape)
    }

    pub fn upload_f16(&mut self, values: &[f32]) -> Result<Buffer<f16>, BackendError> {
        let buffer = self.launcher.uploaded("weights", &halves(values)?)?;
        self.bytes += buffer.bytes();
        Ok(buffer)
    }

    pub fn upload_f32(&mut self, values: &[f32]) -> Result<Buffer<f32>, BackendError> {
        let buffer = self.launcher.uploaded("weights", values)?;
        self.bytes += buffer.bytes();
        Ok(buffer)
    }

    pub fn norm(&mut self, prefix: &str, width: usize) -> Result<Norm, BackendError> {
        let gain = self.tensor(&format!("{prefix}.weight"), &[width])?;
        let bias = self.tensor(&format!("{prefix}.bias"), &[width])?;
        Ok(Norm { gain: self.upload_f32(&gain)?, bias: self.upload_f32(&bias)? })
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
        let all = parts.len() * outs;
        let weight = Buffer::new(&self.launcher.context, "weights", all * ins)?;
        let mut biases = Vec::with_capacity(all);
        for (i, (prefix, factor)) in parts.iter().enumerate() {
            let mut values = self.tensor(&format!("{prefix}.weight"), &[outs, ins])?;
            values.iter_mut().for_each(|v| *v *= factor);
            let to: At<f16> = weight.from(i * outs * ins);
            self.launcher.upload(to, &halves(&values)?)?;
            if bias {
                let values = self.tensor(&format!("{prefix}.bias"), &[outs])?;
                biases.extend(values.iter().map(|v| v * factor));
            }
        }
        self.bytes += weight.bytes();
        let bias = if bias { Some(self.upload_f16(&biases)?) } else { None };
        Ok(Linear { weight, bias, ins, outs: all })
    }

    /// Values [outs, ins] as they are, without a bias.
    pub fn plain(&mut self, values: &[f32], outs: usize, ins: usize) -> Result<Linear, BackendError> {
        Ok(Linear { weight: self.upload_f16(values)?, bias: None, ins, outs })
    }

    /// q, k, v of one self-attention; the queries' scale hd^-0.5 is folded in.
    pub fn qkv(&mut self, prefix: &str, width: usize, heads: usize) -> Result<Linear, BackendError> {
        self.stacked(&source::qkv_parts(prefix, width, heads), width, width, true)
    }
}
