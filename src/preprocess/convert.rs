//! Samples → RGB: one affine map per picture format, applied after the resize.

use crate::image::{ImageInfo, Matrix, PixelFormat, Range};

/// Samples as the reduction carries them, in 16 bits: per unit of an 8-bit and of a 10-bit code.
const UNIT_8: f64 = 256.0;
const UNIT_10: f64 = 64.0;

/// Red, green, blue in levels 0..255 = offset + Σ channel value × its column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Colour {
    /// Columns of (Y or R), (Cb or G), (Cr or B), per unit of a 16-bit sample.
    pub columns: [[f64; 3]; 3],
    pub offset: [f64; 3],
}

/// Kr and Kb: weights of red and blue in luma.
/// Sources: ITU-R BT.601-7 §2.5.1, BT.709-6 §3.2, BT.2020-2 table 4 (non-constant luminance).
pub(super) fn luma_weights(matrix: Matrix) -> (f64, f64) {
    match matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt2020 => (0.2627, 0.0593),
    }
}

/// Code of black, code of neutral chroma, codes from black to white, codes of chroma's full swing.
pub(super) fn codes(range: Range, bits: u32) -> (f64, f64, f64, f64) {
    let step = (1 << (bits - 8)) as f64;
    let top = (1 << bits) as f64 - 1.0;
    match range {
        Range::Limited => (16.0 * step, 128.0 * step, 219.0 * step, 224.0 * step),
        Range::Full => (0.0, 128.0 * step, top, top),
    }
}

impl Colour {
    pub fn of(info: &ImageInfo) -> Self {
        use PixelFormat::*;
        let (bits, unit) =
            if matches!(info.format, I420Le10 | P010Le10) { (10, UNIT_10) } else { (8, UNIT_8) };
        let (black, neutral, luma, chroma) = codes(info.range, bits);
        // Levels per unit of sample.
        let (y, c) = (255.0 / (luma * unit), 255.0 / (chroma * unit));
        let grey_offset = -black * unit * y;
        match info.format {
            Rgb | Bgr | Rgba | Bgra | Rgbx | Bgrx => {
                let one = 1.0 / UNIT_8;
                Self { columns: [[one, 0.0, 0.0], [0.0, one, 0.0], [0.0, 0.0, one]], offset: [0.0; 3] }
            }
            Gray8 => Self { columns: [[y; 3], [0.0; 3], [0.0; 3]], offset: [grey_offset; 3] },
            Nv12 | I420 | Y42b | Yuy2 | I420Le10 | P010Le10 => {
                let (kr, kb) = luma_weights(info.matrix);
                let kg = 1.0 - kr - kb;
                let (red, blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
                let cb = [0.0, -c * blue * kb / kg, c * blue];
                let cr = [c * red, -c * red * kr / kg, 0.0];
                let offset = std::array::from_fn(|i| grey_offset - neutral * unit * (cb[i] + cr[i]));
                Self { columns: [[y; 3], cb, cr], offset }
            }
        }
    }
}

/// Rounds to the nearest level, with what lies outside 0..255 clamped.
pub(super) fn round(pixels: &[[[f32; 4]; 3]], levels: &mut [[[u8; 4]; 3]]) {
    // 2²³ + x has no fraction bits, so the sum is rounded and its low byte is the level. Unlike a
    // float to integer cast this vectorises on every target.
    const ROUND: f32 = 8_388_608.0;
    let levels = levels.as_flattened_mut().as_flattened_mut();
    for (value, level) in pixels.as_flattened().as_flattened().iter().zip(levels) {
        *level = (value.clamp(0.0, 255.0) + ROUND).to_bits() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(info: &ImageInfo, codes: [f64; 3], unit: f64) -> [f64; 3] {
        let colour = Colour::of(info);
        std::array::from_fn(|i| {
            colour.offset[i] + (0..3).map(|c| colour.columns[c][i] * codes[c] * unit).sum::<f64>()
        })
    }

    #[test]
    fn black_white_and_primaries_have_their_standard_codes() {
        let mut info = ImageInfo {
            format: PixelFormat::I420,
            width: 2,
            height: 2,
            matrix: Matrix::Bt709,
            range: Range::Limited,
        };
        let near = |a: [f64; 3], b: [f64; 3], tolerance: f64| {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance), "{a:?} is not {b:?}");
        };
        near(convert(&info, [16.0, 128.0, 128.0], 256.0), [0.0; 3], 1e-9);
        near(convert(&info, [235.0, 128.0, 128.0], 256.0), [255.0; 3], 1e-9);
        // 100 % colour bars: blue of BT.709, red of BT.601, rounded codes.
        near(convert(&info, [32.0, 240.0, 118.0], 256.0), [0.0, 0.0, 255.0], 1.5);
        info.matrix = Matrix::Bt601;
        near(convert(&info, [81.0, 90.0, 240.0], 256.0), [255.0, 0.0, 0.0], 1.5);
        (info.range, info.format) = (Range::Full, PixelFormat::I420Le10);
        near(convert(&info, [1023.0, 512.0, 512.0], 64.0), [255.0; 3], 1e-9);
        (info.range, info.matrix) = (Range::Limited, Matrix::Bt2020);
        near(convert(&info, [940.0, 512.0, 512.0], 64.0), [255.0; 3], 1e-9);
    }

    #[test]
    fn levels_are_rounded_and_clamped() {
        let mut levels = [[[0; 4]; 3]];
        round(
            &[[[-3.0, 0.49, 0.51, 1.4], [254.4, 254.6, 255.4, 300.0], [f32::MAX, f32::MIN, 0.0, -0.0]]],
            &mut levels,
        );
        assert_eq!(levels, [[[0, 0, 1, 1], [254, 255, 255, 255], [255, 0, 0, 0]]]);
    }
}
