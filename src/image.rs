//! One picture as it lies in memory: pixel format, size, colour description, planes with strides.
//!
//! Invariant: an [`Image`] that exists has every sample its format promises; [`Image::new`] refuses
//! short planes and narrow strides, so readers need no bounds of their own.

/// Layout of the samples, named as GStreamer's video formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    Rgb,
    Bgr,
    Rgba,
    Bgra,
    Rgbx,
    Bgrx,
    Gray8,
    /// 4:2:0, Y plane, then interleaved UV plane.
    Nv12,
    /// 4:2:0, planes Y, U, V.
    I420,
    /// 4:2:2, planes Y, U, V.
    Y42b,
    /// 4:2:2, packed Y0 U Y1 V.
    Yuy2,
    /// I420 with 10 bits in the low bits of little-endian u16.
    I420Le10,
    /// NV12 with 10 bits in the high bits of little-endian u16.
    P010Le10,
}

/// Y'CbCr matrix of the caps' colorimetry; ignored by RGB and grey formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
}

/// Code range of Y'CbCr (and grey) samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// Y 16–235, C 16–240 (scaled by 4 for 10 bits).
    Limited,
    Full,
}

/// Everything about a picture but its samples; constant between two caps events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageInfo {
    pub format: PixelFormat,
    /// Pixels, 1 to 32768.
    pub width: u32,
    /// Pixels, 1 to 32768.
    pub height: u32,
    pub matrix: Matrix,
    pub range: Range,
}

/// One plane: rows of `stride` bytes. The last row may end after its last sample.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// A picture in host memory, borrowed for the time of one reduction.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    info: ImageInfo,
    planes: [Plane<'a>; 3],
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    #[error("image size {width}×{height} is outside 1..=32768")]
    Size { width: u32, height: u32 },
    #[error("{format:?} has {expected} planes, the buffer has {found}")]
    PlaneCount { format: PixelFormat, expected: usize, found: usize },
    #[error(
        "plane {plane} of a {format:?} {width}×{height} picture: stride {found} is below the row's {expected} bytes"
    )]
    Stride { format: PixelFormat, plane: usize, width: u32, height: u32, expected: usize, found: usize },
    #[error(
        "plane {plane} of a {format:?} {width}×{height} picture: needs {expected} bytes, the buffer has {found}"
    )]
    PlaneSize { format: PixelFormat, plane: usize, width: u32, height: u32, expected: usize, found: usize },
    #[error("roi x={x} y={y} w={w} h={h} must be fractions with w, h > 0 inside the picture")]
    Roi { x: String, y: String, w: String, h: String },
}

impl PixelFormat {
    /// Bytes per row and rows of each plane of a `width`×`height` picture (chroma sizes round up).
    pub fn planes(self, width: u32, height: u32) -> Vec<(usize, usize)> {
        self.layout(width, height).into_iter().take_while(|&(row, _)| row > 0).collect()
    }

    /// As `planes`, without an allocation: (0, 0) stands for a plane the format lacks.
    fn layout(self, width: u32, height: u32) -> [(usize, usize); 3] {
        let (w, h) = (width as usize, height as usize);
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let none = (0, 0);
        match self {
            Self::Rgb | Self::Bgr => [(3 * w, h), none, none],
            Self::Rgba | Self::Bgra | Self::Rgbx | Self::Bgrx => [(4 * w, h), none, none],
            Self::Gray8 => [(w, h), none, none],
            Self::Nv12 => [(w, h), (2 * cw, ch), none],
            Self::I420 => [(w, h), (cw, ch), (cw, ch)],
            Self::Y42b => [(w, h), (cw, h), (cw, h)],
            Self::Yuy2 => [(4 * cw, h), none, none],
            Self::I420Le10 => [(2 * w, h), (2 * cw, ch), (2 * cw, ch)],
            Self::P010Le10 => [(2 * w, h), (4 * cw, ch), none],
        }
    }
}

impl<'a> Image<'a> {
    pub fn new(info: ImageInfo, planes: &[Plane<'a>]) -> Result<Self, ImageError> {
        let ImageInfo { format, width, height, .. } = info;
        if !(1..=32768).contains(&width) || !(1..=32768).contains(&height) {
            return Err(ImageError::Size { width, height });
        }
        let layout = format.layout(width, height);
        let expected = layout.iter().filter(|&&(row, _)| row > 0).count();
        if planes.len() != expected {
            return Err(ImageError::PlaneCount { format, expected, found: planes.len() });
        }
        let mut own = [Plane { data: &[], stride: 0 }; 3];
        for (plane, (given, (row, rows))) in planes.iter().zip(layout).enumerate() {
            if given.stride < row {
                return Err(ImageError::Stride {
                    format,
                    plane,
                    width,
                    height,
                    expected: row,
                    found: given.stride,
                });
            }
            // Saturating: a stride may be any number, no buffer is that long.
            let expected = given.stride.saturating_mul(rows - 1).saturating_add(row);
            if given.data.len() < expected {
                let found = given.data.len();
                return Err(ImageError::PlaneSize { format, plane, width, height, expected, found });
            }
            own[plane] = *given;
        }
        Ok(Self { info, planes: own })
    }

    pub fn info(&self) -> ImageInfo {
        self.info
    }

    /// Plane `index` (0 is luma or the packed samples). Row `y` starts at `y * stride`.
    pub fn plane(&self, index: usize) -> Plane<'a> {
        self.planes[index]
    }
}

/// A rectangle in fractions of the picture, applied before the resize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roi {
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
}

impl Roi {
    pub const WHOLE: Roi = Roi { x: 0.0, y: 0.0, w: 1.0, h: 1.0 };

    pub fn new(x: f32, y: f32, w: f32, h: f32) -> Result<Self, ImageError> {
        let inside = |v: f32| (0.0..=1.0).contains(&v);
        // 1e-4: fractions such as 1/3 + 2/3 are typed with few digits.
        let ok = inside(x) && inside(y) && w > 0.0 && h > 0.0 && x + w <= 1.0001 && y + h <= 1.0001;
        if ok {
            Ok(Self { x, y, w, h })
        } else {
            Err(ImageError::Roi { x: x.to_string(), y: y.to_string(), w: w.to_string(), h: h.to_string() })
        }
    }

    /// The pixels it covers in a `width`×`height` picture: rounded outward, at least one. The fields
    /// are public, so they are checked again.
    pub fn rectangle(self, width: u32, height: u32) -> Result<Rectangle, ImageError> {
        let Self { x, y, w, h } = Self::new(self.x, self.y, self.w, self.h)?;
        let (x, width) = span(x, w, width);
        let (y, height) = span(y, h, height);
        Ok(Rectangle { x, y, width, height })
    }
}

/// First pixel and pixel count of the fraction `start..start + extent` of `length` pixels.
fn span(start: f32, extent: f32, length: u32) -> (u32, u32) {
    // f32 fractions of 32768 pixels are off by up to 0.004: an edge that near to a pixel's lies on it.
    const ON_EDGE: f64 = 1.0 / 128.0;
    let (start, end) = (start as f64, start as f64 + extent as f64);
    let first = ((start * length as f64 + ON_EDGE).floor() as u32).min(length - 1);
    let last = ((end * length as f64 - ON_EDGE).ceil() as u32).clamp(first + 1, length);
    (first, last - first)
}

/// Whole pixels inside a picture; `width` and `height` are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}
