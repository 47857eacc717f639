//! Block 0's message, computed on the host at load: it is the same for all frames, windows and any T.

use super::weights::Loader;
use crate::backend::BackendError;

/// As in the kernels; the host computes one row once.
const EPSILON: f32 = 1e-5;

/// fc(LN(class + position 0)), then + out(v(LN(·))), since its attention sees equal tokens only. `class` is
/// class + position 0.
pub(super) fn constant_message(
    loader: &mut Loader<'_, '_>,
    layer: &str,
    class: &[f32],
) -> Result<Vec<f32>, BackendError> {
    let class = normalised(loader, "vision_model.pre_layernorm", class)?;
    let mut message = applied(loader, &format!("{layer}.message_fc"), &class)?;
    let values = normalised(loader, &format!("{layer}.message_ln"), &message)?;
    let values = applied(loader, &format!("{layer}.message_attn.v_proj"), &values)?;
    let out = applied(loader, &format!("{layer}.message_attn.out_proj"), &values)?;
    message.iter_mut().zip(out).for_each(|(m, o)| *m += o);
    Ok(message)
}

fn normalised(loader: &mut Loader<'_, '_>, prefix: &str, x: &[f32]) -> Result<Vec<f32>, BackendError> {
    let gain = loader.tensor(&format!("{prefix}.weight"), &[x.len()])?;
    let bias = loader.tensor(&format!("{prefix}.bias"), &[x.len()])?;
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    Ok(x.iter().zip(gain.iter().zip(&bias)).map(|(v, (g, b))| (v - mean) * scale * g + b).collect())
}

/// W·x + b with W square.
fn applied(loader: &mut Loader<'_, '_>, prefix: &str, x: &[f32]) -> Result<Vec<f32>, BackendError> {
    let weight = loader.tensor(&format!("{prefix}.weight"), &[x.len(), x.len()])?;
    let bias = loader.tensor(&format!("{prefix}.bias"), &[x.len()])?;
    let row = |row: &[f32]| row.iter().zip(x).map(|(w, v)| w * v).sum::<f32>();
    Ok(weight.chunks(x.len()).zip(bias).map(|(w, b)| row(w) + b).collect())
}
