//! What a camera does to the picture: exposure, light that changes, night, softness, noise, shaking.

use std::time::Duration;

use super::background::Look;
use super::random::Random;

/// One camera's faults.
#[derive(Clone, Debug)]
pub struct Lens {
    gain: f32,
    /// Added to every channel, 0..255 scale.
    bias: f32,
    /// Deviation of the noise, 0..255 scale.
    noise: f32,
    /// Light that comes and goes: its share of the gain, and its phase.
    drift: f32,
    phase: f32,
    /// A lamp goes on or off: factor on the gain, and switchings per second.
    lamp: Option<(f32, f32)>,
    /// Deviation of the camera's shaking in picture heights.
    pub shake: f32,
    /// 0 is sharp, 1 a 1-2-1 blur in both directions.
    pub softness: f32,
}

impl Lens {
    pub fn new(random: &mut Random, look: Look) -> Self {
        let mut lens = Self {
            gain: random.between(0.75, 1.2),
            bias: random.between(-15.0, 15.0),
            noise: random.between(0.0, 7.0) * f32::from(random.chance(0.6)),
            drift: 0.15 * random.normal(),
            phase: random.between(0.0, std::f32::consts::TAU),
            shake: random.between(0.0, 0.008) * f32::from(random.chance(0.5)),
            lamp: None,
            softness: 0.0,
        };
        if look == Look::Plain {
            lens.noise = 0.0;
            lens.drift = 0.0;
            lens.shake = 0.0;
            return lens;
        }
        if random.chance(0.12) {
            // Night: little light, and the noise of an amplified sensor.
            lens.gain *= random.between(0.4, 0.65);
            lens.noise = random.between(8.0, 15.0);
        }
        lens.lamp = random.chance(0.15).then(|| (random.between(0.6, 1.5), 1.0 / random.between(2.0, 12.0)));
        lens
    }

    /// Takes the picture `scene` (RGBA, `width` pixels a row) into `rgba` of the same size.
    pub fn take(&self, scene: &[u8], width: u32, time: Duration, random: &mut Random, rgba: &mut [u8]) {
        let light = libm::sinf(time.as_secs_f32() * std::f32::consts::TAU / 9.0 + self.phase);
        let lamp = match self.lamp {
            Some((factor, rate)) if (time.as_secs_f32() * rate + self.phase) as u64 % 2 == 1 => factor,
            _ => 1.0,
        };
        let gain = self.gain * lamp * (1.0 + self.drift * light);
        let exposed: [u8; 256] =
            std::array::from_fn(|v| (v as f32 * gain + self.bias).clamp(0.0, 255.0) as u8);
        for (to, from) in rgba.chunks_exact_mut(4).zip(scene.chunks_exact(4)) {
            for c in 0..3 {
                to[c] = exposed[from[c] as usize];
            }
            to[3] = 255;
        }
        if self.softness > 0.0 {
            soften(rgba, width as usize, self.softness);
        }
        if self.noise > 0.5 {
            add_noise(rgba, self.noise, random);
        }
    }
}

/// Mixes each pixel with its neighbours: `softness` of a 1-2-1 kernel, across and down.
fn soften(rgba: &mut [u8], width: usize, softness: f32) {
    let side = (softness.clamp(0.0, 1.0) * 64.0) as u32;
    let centre = 256 - 2 * side;
    let mix = |a: u8, b: u8, c: u8| {
        ((side * (u32::from(a) + u32::from(c)) + centre * u32::from(b) + 128) >> 8) as u8
    };
    let stride = width * 4;
    let mut before = vec![0u8; stride];
    for row in rgba.chunks_exact_mut(stride) {
        before.copy_from_slice(row);
        for i in 4..stride.saturating_sub(4) {
            row[i] = mix(before[i - 4], before[i], before[i + 4]);
        }
    }
    let mut above = rgba[..stride].to_vec();
    for start in (stride..rgba.len().saturating_sub(stride)).step_by(stride) {
        let (row, below) = rgba[start..start + 2 * stride].split_at_mut(stride);
        before.copy_from_slice(row);
        for i in 0..stride {
            row[i] = mix(above[i], before[i], below[i]);
        }
        std::mem::swap(&mut above, &mut before);
    }
}

fn add_noise(rgba: &mut [u8], deviation: f32, random: &mut Random) {
    // The sum of two bytes deviates by 104.5 from its mean of 255.
    let scale = (deviation / 104.5 * 65536.0) as i32;
    for pixel in rgba.chunks_exact_mut(4) {
        let bytes = random.bits().to_le_bytes();
        for c in 0..3 {
            let spread = i32::from(bytes[c]) + i32::from(bytes[c + 3]) - 255;
            let noise = (spread * scale + 32768) >> 16;
            pixel[c] = (i32::from(pixel[c]) + noise).clamp(0, 255) as u8;
        }
    }
}
