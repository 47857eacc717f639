//! LayerNorm over rows: (x − mean)/√(variance + 1e-5)·g + b, biased variance, in two passes.

use super::buffer::{LINE, Shared, first};
use super::gemm::Cpu;
use super::isa::{mul_add, per_isa, reduce};
use super::lhs::{Lhs, RowWriter};
use super::linear::Linear;

/// The same in every LayerNorm of the model.
const EPSILON: f32 = 1e-5;

pub struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl LayerNorm {
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// `from`: rows `stride` values apart → a product's left side.
    pub(super) fn to_lhs(
        &self,
        cpu: &Cpu,
        from: &[f32],
        stride: usize,
        rows: usize,
        to: &mut Lhs,
        for_product: &Linear,
    ) {
        let (width, to) = (self.width(), to.reset(cpu, rows, for_product));
        cpu.run_ranges(rows, 8, |range| {
            for row in range {
                let from = &from[row * stride..][..width];
                match to {
                    RowWriter::F32(to) => {
                        let (start, step) = to.row(row);
                        normalise(cpu.isa, from, &self.weight, &self.bias, to.values(), start, step);
                    }
                    // SAFETY: each row is written by one task.
                    RowWriter::Int8(to) => unsafe {
                        to.make(cpu, row, width, |to| self.row(cpu, from, to));
                    },
                }
            }
        });
    }

    /// `from`: rows `stride` values apart → contiguous rows.
    pub fn to_rows(&self, cpu: &Cpu, from: &[f32], stride: usize, to: &mut [f32]) {
        let width = self.width();
        let rows = to.len() / width;
        let to = Shared::new(to);
        cpu.run_ranges(rows, 8, |range| {
            for row in range {
                normalise(
                    cpu.isa,
                    &from[row * stride..][..width],
                    &self.weight,
                    &self.bias,
                    &to,
                    row * width,
                    LINE,
                );
            }
        });
    }

    /// One row.
    pub fn row(&self, cpu: &Cpu, from: &[f32], to: &mut [f32]) {
        normalise(cpu.isa, from, &self.weight, &self.bias, &Shared::new(to), 0, LINE);
    }
}

per_isa! {
    /// One row; chunk i of 16 values goes to `start + i·step`. The caller holds that no other task
    /// writes this row.
    fn normalise(x: &[f32], weight: &[f32], bias: &[f32], to: &Shared<'_>, start: usize, step: usize) = normalise_body
}

/// Values summed side by side: four vectors hide the latency of an addition.
const LANES: usize = 64;

/// Σ x, or Σ (x − mean)².
#[inline(always)]
fn sum<const SQUARES: bool>(x: &[f32], mean: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let x = chunk[i] - mean;
            lanes[i] += if SQUARES { x * x } else { x };
        }
    }
    if !rest.is_empty() {
        for (lane, x) in lanes.iter_mut().zip(rest) {
            let x = x - mean;
            *lane += if SQUARES { x * x } else { x };
        }
    }
    reduce(lanes, |a, b| a + b)
}

#[inline(always)]
fn normalise_body<const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    to: &Shared<'_>,
    start: usize,
    step: usize,
) {
    let n = x.len() as f32;
    let mean = sum::<false>(x, 0.0) / n;
    let variance = sum::<true>(x, mean) / n;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    let (lines, rest) = x.as_chunks::<LINE>();
    for (i, x) in lines.iter().enumerate() {
        let (weight, bias) = (*first::<LINE, _>(&weight[i * LINE..]), *first::<LINE, _>(&bias[i * LINE..]));
        let mut values = [0f32; LINE];
        for c in 0..LINE {
            values[c] = mul_add::<FMA>((x[c] - mean) * scale, weight[c], bias[c]);
        }
        // SAFETY: the row is this task's alone (see above).
        unsafe { *to.array(start + i * step) = values };
    }
    if !rest.is_empty() {
        // SAFETY: as above.
        let to = unsafe { to.part(start + lines.len() * step, rest.len()) };
        for (c, (to, x)) in to.iter_mut().zip(rest).enumerate() {
            let at = lines.len() * LINE + c;
            *to = mul_add::<FMA>((x - mean) * scale, weight[at], bias[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::isa::Isa;
    use crate::model::recipe;

    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 2);
            for width in [1, 7, 16, 48, 500, 768] {
                let noise = recipe::tensor("noise.weight", &[20, width]);
                let x: Vec<f32> =
                    noise.iter().enumerate().map(|(i, v)| v + 100.0 * (i / width) as f32).collect();
                let norm = LayerNorm {
                    weight: recipe::tensor("norm.weight", &[width]),
                    bias: recipe::tensor("norm.bias", &[width]),
                };
                let mut out = vec![0.0; x.len()];
                norm.to_rows(&cpu, &x, width, &mut out);
                for (row, (x, y)) in x.chunks(width).zip(out.chunks(width)).enumerate() {
                    let mean = x.iter().map(|v| *v as f64).sum::<f64>() / width as f64;
                    let variance = x.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / width as f64;
                    for i in 0..width {
                        let exact = (x[i] as f64 - mean) / (variance + 1e-5).sqrt() * norm.weight[i] as f64
                            + norm.bias[i] as f64;
                        // The mean itself is only known to half a unit in the last place of a sum near 2000.
                        let bound = 1e-6 + 3e-7 * mean.abs() / (variance + 1e-5).sqrt();
                        assert!(
                            (y[i] as f64 - exact).abs() < bound,
                            "{} row {row}: {} {exact}",
                            isa.name(),
                            y[i]
                        );
                    }
                }
            }
        }
    }
}
