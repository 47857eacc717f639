//! Pixels → the first rows of the residual stream: patch embedding, class row, positions, first LayerNorm.
//!
//! A patch is read row by row as it lies in the frame, red, green and blue side by side; the weights are
//! turned to that order at load. In int8 the pixels themselves are the product's bytes: normalisation is
//! folded into weights and bias, so nothing is rounded but the weights.

use super::buffer::{Buffer, Shared};
use super::gemm::{Activation, Cpu, Out, gemm};
use super::layer_norm::LayerNorm;
use super::lhs::{Lhs, RowWriter};
use super::linear::{Format, Linear};
use super::load::Loader;
use super::quantise::RowScale;
use crate::backend::BackendError;
use crate::model::Config;
use crate::preprocess::{Reduced, Rule};

/// Values of 16 pixels.
const PIXELS: usize = 48;

pub struct Embedding {
    size: usize,
    patch: usize,
    width: usize,
    /// Per channel: u8 → (u8/255 − mean)/std.
    normalised: [[f32; 256]; 3],
    /// The same as a factor and a summand for each value of 16 pixels.
    factor: [f32; PIXELS],
    summand: [f32; PIXELS],
    linear: Linear,
    /// LN(class + position 0)
    class: Vec<f32>,
    /// P×D
    positions: Vec<f32>,
    norm: LayerNorm,
}

impl Embedding {
    pub(super) fn load(
        loader: &mut Loader<'_, '_>,
        config: &Config,
        rule: &Rule,
    ) -> Result<Self, BackendError> {
        let (patch, patches, width) = (config.patch_size, config.patches(), config.vision.width);
        let name = "vision_model.embeddings";
        let mut positions =
            loader.tensor(&format!("{name}.position_embedding.weight"), &[patches + 1, width])?;
        let mut raw = loader.tensor(&format!("{name}.class_embedding"), &[width])?;
        raw.iter_mut().zip(&positions).for_each(|(c, p)| *c += p);
        positions.drain(..width);
        let norm = loader.norm("vision_model.pre_layernorm", width)?;
        let mut class = vec![0.0; width];
        norm.row(loader.cpu, &raw, &mut class);

        let stored = loader.tensor(&format!("{name}.patch_embedding.weight"), &[width, 3, patch, patch])?;
        let factor = std::array::from_fn(|i| 1.0 / (255.0 * rule.std[i % 3]));
        let summand = std::array::from_fn(|i| -rule.mean[i % 3] / rule.std[i % 3]);
        let (area, ins) = (patch * patch, 3 * patch * patch);
        let mut turned = vec![0.0; stored.len()];
        for (to, from) in turned.chunks_mut(ins).zip(stored.chunks(ins)) {
            for (i, to) in to.iter_mut().enumerate() {
                *to = from[i % 3 * area + i / 3];
                if loader.format == Format::Int8 {
                    *to *= factor[i % 3];
                }
            }
        }
        drop(stored);
        let mut linear = Linear::new(loader.cpu, ins, width, loader.format);
        linear.put(loader.cpu, 0, &turned, 1.0);
        drop(turned);
        if loader.format == Format::Int8 {
            // The mean of the weights as they are stored, so that their rounding is not multiplied by it.
            let mean = |j: usize, k: usize| 255.0 * rule.mean[k % 3] * linear.weight(k, j);
            let bias: Vec<f32> = (0..width).map(|j| -(0..ins).map(|k| mean(j, k)).sum::<f32>()).collect();
            linear.put_bias(0, &bias, 1.0);
        }
        let normalised =
            std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 / 255.0 - rule.mean[c]) / rule.std[c]));
        let size = config.image_size;
        Ok(Self { size, patch, width, normalised, factor, summand, linear, class, positions, norm })
    }

    /// LN(class + position 0): the class row of every frame.
    pub fn class(&self) -> &[f32] {
        &self.class
    }

    /// Normalised pixels as [3, S, S]; for the trace only, the product takes them in place.
    pub fn pixel_values(&self, frame: &Reduced) -> Vec<f32> {
        let rgb = frame.rgb();
        let table = |c: usize| rgb.iter().skip(c).step_by(3).map(move |v| self.normalised[c][*v as usize]);
        (0..3).flat_map(table).collect()
    }

    /// Frames [S, S, 3] → L×D rows each, in `x`. `embedded` is working memory.
    pub fn forward(
        &self,
        cpu: &Cpu,
        lhs: &mut Lhs,
        embedded: &mut Buffer,
        frames: &[&Reduced],
        x: &mut [f32],
    ) {
        let (width, side) = (self.width, self.size / self.patch);
        let (patches, line) = (side * side, 3 * self.patch);
        let rows = frames.len() * patches;
        let writer = lhs.reset(cpu, rows, &self.linear);
        cpu.run_ranges(rows, 4, |range| {
            for row in range {
                let (frame, py, px) = (frames[row / patches], row % patches / side, row % side);
                let rgb = frame.host_rgb().expect("`CpuBackend::prepare` brings frames to the host");
                for y in 0..self.patch {
                    let start = ((py * self.patch + y) * self.size + px * self.patch) * 3;
                    let pixels = &rgb[start..][..line];
                    // SAFETY (both): each row is written by one task.
                    match writer {
                        RowWriter::Int8(writer) => unsafe {
                            writer.put_bytes(row, y * line, pixels, RowScale { scale: 1.0, zero: 0 })
                        },
                        RowWriter::F32(writer) => {
                            for (i, pixels) in pixels.chunks(PIXELS).enumerate() {
                                let mut values = [0f32; PIXELS];
                                let pattern = self.factor.iter().zip(&self.summand);
                                for ((to, v), (factor, summand)) in values.iter_mut().zip(pixels).zip(pattern)
                                {
                                    *to = f32::from(*v) * factor + summand;
                                }
                                let at = y * line + i * PIXELS;
                                unsafe { writer.put(writer.row(row), at, &values[..pixels.len()]) }
                            }
                        }
                    }
                }
            }
        });
        let embedded = embedded.fit(rows * width);
        gemm(cpu, lhs, &self.linear, Activation::None, Out::Rows(embedded));
        let (embedded, x) = (Shared::new(embedded), Shared::new(x));
        let tokens = patches + 1;
        cpu.run_ranges(frames.len() * tokens, 8, |range| {
            for i in range {
                let (frame, token) = (i / tokens, i % tokens);
                // SAFETY (both): each row is read and written by one task.
                let to = unsafe { x.part(i * width, width) };
                if token == 0 {
                    to.copy_from_slice(&self.class);
                    continue;
                }
                let row = unsafe { embedded.part((frame * patches + token - 1) * width, width) };
                let position = &self.positions[(token - 1) * width..][..width];
                row.iter_mut().zip(position).for_each(|(r, p)| *r += p);
                self.norm.row(cpu, row, to);
            }
        });
    }

    pub fn bytes(&self) -> usize {
        self.linear.bytes() + self.positions.len() * 4
    }
}
