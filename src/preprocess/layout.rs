//! Where each component of a pixel format lies, in terms the reduction can loop over.

use crate::image::PixelFormat;

/// Samples in memory → 16 bits: 8-bit codes times 256, 10-bit codes times 64.
#[derive(Clone, Copy, Debug)]
pub(super) enum Depth {
    Bits8,
    /// 10 low bits of little-endian u16; what lies above them is ignored.
    Low10,
    /// 10 high bits of little-endian u16; what lies below them is ignored.
    High10,
}

/// One component inside a plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    /// 0: red or Y, 1: green or Cb, 2: blue or Cr.
    pub column: usize,
    /// Index of the first sample in a row, and from one to the next (1 to 4).
    pub offset: usize,
    pub step: usize,
    /// One sample for two pixels of a row.
    pub halved: bool,
}

/// One plane.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub plane: usize,
    pub depth: Depth,
    /// One row for two of the picture.
    pub halved: bool,
    pub channels: Vec<Channel>,
}

pub(super) fn bands(format: PixelFormat) -> Vec<Band> {
    use Depth::*;
    match format {
        PixelFormat::Rgb => vec![packed(3, [0, 1, 2])],
        PixelFormat::Bgr => vec![packed(3, [2, 1, 0])],
        PixelFormat::Rgba | PixelFormat::Rgbx => vec![packed(4, [0, 1, 2])],
        PixelFormat::Bgra | PixelFormat::Bgrx => vec![packed(4, [2, 1, 0])],
        PixelFormat::Gray8 => vec![luma(Bits8)],
        PixelFormat::Nv12 => vec![luma(Bits8), interleaved(Bits8)],
        PixelFormat::P010Le10 => vec![luma(High10), interleaved(High10)],
        PixelFormat::I420 => vec![luma(Bits8), chroma(1, Bits8, true), chroma(2, Bits8, true)],
        PixelFormat::I420Le10 => vec![luma(Low10), chroma(1, Low10, true), chroma(2, Low10, true)],
        PixelFormat::Y42b => vec![luma(Bits8), chroma(1, Bits8, false), chroma(2, Bits8, false)],
        PixelFormat::Yuy2 => {
            let channels = vec![full(0, 0, 2), half(1, 1, 4), half(2, 3, 4)];
            vec![Band { plane: 0, depth: Bits8, halved: false, channels }]
        }
    }
}

fn full(column: usize, offset: usize, step: usize) -> Channel {
    Channel { column, offset, step, halved: false }
}

fn half(column: usize, offset: usize, step: usize) -> Channel {
    Channel { column, offset, step, halved: true }
}

/// Three components of `period` bytes; a fourth byte is ignored.
fn packed(period: usize, columns: [usize; 3]) -> Band {
    let channels = columns.iter().enumerate().map(|(offset, &column)| full(column, offset, period)).collect();
    Band { plane: 0, depth: Depth::Bits8, halved: false, channels }
}

fn luma(depth: Depth) -> Band {
    Band { plane: 0, depth, halved: false, channels: vec![full(0, 0, 1)] }
}

fn interleaved(depth: Depth) -> Band {
    Band { plane: 1, depth, halved: true, channels: vec![half(1, 0, 2), half(2, 1, 2)] }
}

fn chroma(plane: usize, depth: Depth, halved: bool) -> Band {
    Band { plane, depth, halved, channels: vec![half(plane, 0, 1)] }
}
