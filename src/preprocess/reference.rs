//! The same reduction, slow and plain: each pixel to RGB in f64, then the resize, no rounding.
//!
//! Shares neither tables nor loops with the fast one. For tests and for reading.

use super::convert::{codes, luma_weights};
use super::{Geometry, Rule};
use crate::image::{Image, ImageError, PixelFormat, Plane, Roi};

/// S·S·3 levels 0..=255, row-major, R G B, not rounded. `f64::round` of them is the result.
pub fn reduce(rule: &Rule, image: &Image<'_>, roi: Roi) -> Result<Vec<f64>, ImageError> {
    let info = image.info();
    let roi = roi.rectangle(info.width, info.height)?;
    let (width, height, size) = (roi.width as usize, roi.height as usize, rule.size as usize);
    let (resized_width, resized_height) = match rule.geometry {
        Geometry::Stretch => (size, size),
        Geometry::ShortestEdge { short } => {
            let (short, least) = (short as f64, width.min(height) as f64);
            ((short * width as f64 / least) as usize, (short * height as f64 / least) as usize)
        }
    };
    let rgb: Vec<[f64; 3]> = (0..width * height)
        .map(|i| pixel(image, roi.x as usize + i % width, roi.y as usize + i / width))
        .collect();
    let mut result = vec![0.0; 3 * size * size];
    let columns: Vec<_> = (0..size).map(|x| weights(x, size, resized_width, width)).collect();
    for y in 0..size {
        let rows = weights(y, size, resized_height, height);
        let narrow: Vec<[f64; 3]> = (0..width)
            .map(|x| [0, 1, 2].map(|c| rows.iter().map(|&(row, w)| w * rgb[row * width + x][c]).sum::<f64>()))
            .collect();
        for x in 0..size {
            for c in 0..3 {
                result[3 * (y * size + x) + c] = columns[x].iter().map(|&(col, w)| w * narrow[col][c]).sum();
            }
        }
    }
    Ok(result)
}

/// Source samples of output sample `index` of S after the centre crop; none outside the picture.
fn weights(index: usize, size: usize, resized: usize, length: usize) -> Vec<(usize, f64)> {
    let shift = (resized as i64 - size as i64).div_euclid(2);
    // Padding has its smaller half first, so its shift rounds towards zero.
    let shift = if resized < size { -((size - resized) as i64 / 2) } else { shift };
    let position = index as i64 + shift;
    if position < 0 || position >= resized as i64 {
        return Vec::new();
    }
    let scale = length as f64 / resized as f64;
    let support = scale.max(1.0);
    let centre = (position as f64 + 0.5) * scale;
    let all: Vec<(usize, f64)> = (0..length)
        .map(|i| (i, 1.0 - ((i as f64 + 0.5 - centre) / support).abs()))
        .filter(|&(_, w)| w > 0.0)
        .collect();
    let sum: f64 = all.iter().map(|&(_, w)| w).sum();
    all.into_iter().map(|(i, w)| (i, w / sum)).collect()
}

/// One pixel as RGB levels, clamped to 0..=255.
fn pixel(image: &Image<'_>, x: usize, y: usize) -> [f64; 3] {
    use PixelFormat::*;
    let info = image.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let byte = |plane: Plane<'_>, x: usize, y: usize| plane.data[y * plane.stride + x] as f64;
    let word = |plane: Plane<'_>, x: usize, y: usize| {
        let at = y * plane.stride + 2 * x;
        u16::from_le_bytes([plane.data[at], plane.data[at + 1]])
    };
    let packed = |step: usize, order: [usize; 3]| order.map(|c| byte(image.plane(0), step * x + c, y));
    let chroma_x = Cosited(x, width);
    let chroma_y = if matches!(info.format, Yuy2 | Y42b) { Exact(y) } else { Centred(y, height) };
    let chroma = |sample: &dyn Fn(usize, usize) -> f64| interpolate(chroma_x, chroma_y, sample);
    let plane = |i: usize| image.plane(i);
    let low = |p: usize, x: usize, y: usize| (word(plane(p), x, y) & 0x3ff) as f64;
    let high = |p: usize, x: usize, y: usize| (word(plane(p), x, y) >> 6) as f64;
    let (bits, ycc) = match info.format {
        Rgb => return packed(3, [0, 1, 2]),
        Bgr => return packed(3, [2, 1, 0]),
        Rgba | Rgbx => return packed(4, [0, 1, 2]),
        Bgra | Bgrx => return packed(4, [2, 1, 0]),
        Gray8 => {
            let (black, _, swing, _) = codes(info.range, 8);
            return [((byte(plane(0), x, y) - black) / swing * 255.0).clamp(0.0, 255.0); 3];
        }
        Nv12 => {
            let c = |k: usize| chroma(&|x, y| byte(plane(1), 2 * x + k, y));
            (8, [byte(plane(0), x, y), c(0), c(1)])
        }
        I420 | Y42b => {
            let c = |p: usize| chroma(&|x, y| byte(plane(p), x, y));
            (8, [byte(plane(0), x, y), c(1), c(2)])
        }
        Yuy2 => {
            let c = |k: usize| chroma(&|x, y| byte(plane(0), 4 * x + k, y));
            (8, [byte(plane(0), 2 * x, y), c(1), c(3)])
        }
        I420Le10 => {
            let c = |p: usize| chroma(&|x, y| low(p, x, y));
            (10, [low(0, x, y), c(1), c(2)])
        }
        P010Le10 => {
            let c = |k: usize| chroma(&|x, y| high(1, 2 * x + k, y));
            (10, [high(0, x, y), c(0), c(1)])
        }
    };
    let (black, neutral, luma_swing, chroma_swing) = codes(info.range, bits);
    let luma = (ycc[0] - black) / luma_swing;
    let [cb, cr] = [ycc[1], ycc[2]].map(|c| (c - neutral) / chroma_swing);
    let (kr, kb) = luma_weights(info.matrix);
    let (red, blue) = (luma + 2.0 * (1.0 - kr) * cr, luma + 2.0 * (1.0 - kb) * cb);
    let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|v| (255.0 * v).clamp(0.0, 255.0))
}

/// Where a luma position of `.0` (of `.1`) lies on a chroma axis.
#[derive(Clone, Copy)]
enum Position {
    Exact(usize),
    Cosited(usize, usize),
    Centred(usize, usize),
}
use Position::*;

/// Bilinear interpolation between chroma samples, the border repeated.
fn interpolate(x: Position, y: Position, sample: &dyn Fn(usize, usize) -> f64) -> f64 {
    let between = |position: Position| -> [(usize, f64); 2] {
        let (at, length) = match position {
            Exact(i) => return [(i, 1.0), (i, 0.0)],
            Cosited(i, length) => (i as f64 / 2.0, length.div_ceil(2)),
            Centred(i, length) => (i as f64 / 2.0 - 0.25, length.div_ceil(2)),
        };
        let at = at.clamp(0.0, length as f64 - 1.0);
        let low = at.floor() as usize;
        [(low, 1.0 - at.fract()), ((low + 1).min(length - 1), at.fract())]
    };
    between(y).iter().map(|&(y, v)| between(x).iter().map(|&(x, u)| u * v * sample(x, y)).sum::<f64>()).sum()
}
