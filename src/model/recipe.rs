//! Portable synthetic weights: the same values in any language, from names and shapes alone.
//!
//! seed = FNV-1a-64(name) ^ SALT; element i = splitmix64 of (seed, i+1), its top 24 bits mapped to
//! [-1, 1), times a half range, plus an offset, both by name. Two f32 roundings, no FMA.
//! Reference: tests/golden/gen_golden.py.

const SALT: u64 = 0x58434C495001;

pub(crate) fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf29ce484222325, |h, &b| (h ^ b as u64).wrapping_mul(0x100000001b3))
}

/// Element `index` (from 0) of the 24-bit sequence of `seed`.
fn u24(seed: u64, index: u64) -> u32 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
    ((z ^ (z >> 31)) >> 40) as u32
}

/// (half range, offset) of the tensor `name` with PyTorch shape `shape`.
fn range(name: &str, shape: &[usize]) -> (f64, f64) {
    let (sqrt3, leaf) = (3f64.sqrt(), name.rsplit('.').next().unwrap_or(name));
    let fan = |n: usize| sqrt3 / (n as f64).sqrt();
    match name {
        "logit_scale" => return (0.2, 3.0),
        "prompts_generator.alpha" => return (0.1, 0.3),
        "prompts_visual_projection" => return (fan(shape[0]), 0.0), // stored [in, out]
        _ => {}
    }
    if name.contains("norm") || name.contains("message_ln") {
        return if leaf == "weight" { (0.3, 1.0) } else { (0.2, 0.0) };
    }
    if leaf == "class_embedding" || name.contains("token_embedding") {
        return (0.8, 0.0);
    }
    if name.contains("position_embedding") {
        return (0.5, 0.0);
    }
    if name.contains("patch_embedding") {
        return (fan(shape[1] * shape[2] * shape[3]), 0.0);
    }
    if leaf == "bias" {
        return (0.1, 0.0);
    }
    let narrow = ["fc2.weight", "mlp.3.weight", "cross_attn.proj.weight"];
    let gain = if name.contains("q_proj") || name.contains("k_proj") {
        1.5
    } else if name.contains("out_proj") || narrow.iter().any(|end| name.ends_with(end)) {
        0.7
    } else {
        1.0
    };
    (gain * sqrt3 / (shape[1] as f64).sqrt(), 0.0)
}

/// The values of the tensor `name`, row-major.
pub fn tensor(name: &str, shape: &[usize]) -> Vec<f32> {
    let (half, offset) = range(name, shape);
    let (half, offset) = (half as f32, offset as f32);
    let seed = fnv1a64(name.as_bytes()) ^ SALT;
    (0..shape.iter().product::<usize>() as u64)
        .map(|i| (u24(seed, i) as i32 - (1 << 23)) as f32 * (1.0 / (1 << 23) as f32) * half + offset)
        .collect()
}

/// The integer-only moving test picture of the golden vectors: T×h×w×3 u8.
pub fn frames_u8(frames: usize, h: usize, w: usize, seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames * h * w * 3);
    let (ih, iw) = (h as i64, w as i64);
    for t in 0..frames as i64 {
        let noise = fnv1a64(format!("frame{seed}.{t}").as_bytes());
        let (cx, cy, r) = (iw / 4 + t * iw / (2 * frames as i64), ih / 2, ih.min(iw) / 5);
        for y in 0..ih {
            for x in 0..iw {
                let inside = (x - cx).pow(2) + (y - cy).pow(2) < r * r;
                let base = if inside {
                    [220, 40, 90]
                } else {
                    [
                        (x * 3 + y + 5 * t) % 256,
                        (y * 4 - x + 9 * t).rem_euclid(256),
                        ((x + y) * 2 - 7 * t).rem_euclid(256),
                    ]
                };
                for (c, v) in base.into_iter().enumerate() {
                    let i = ((y * iw + x) * 3) as u64 + c as u64;
                    let n = (u24(noise, i) & 31) as i64 - 16;
                    out.push((v + n).clamp(0, 255) as u8);
                }
            }
        }
    }
    out
}
