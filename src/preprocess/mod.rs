//! From a camera's picture to the model's input: convert, crop, resize, centre crop, round to u8.
//!
//! Reference: torchvision's antialiased bilinear resize on u8 as `VideoMAEImageProcessor` calls it.
//! Normalisation ((u8/255 − mean)/std) is folded into the backend's patch embedding input.
//!
//! What is promised: the result is the exact resize of the exactly converted picture, rounded once, to
//! within 0.1 of a level. torchvision rounds to u8 between its two passes as well, so the two differ by
//! at most 1 of 255. [`reference`](mod@reference) is the same sentence in slow f64.
//!
//! How it is fast: resize, chroma interpolation and the Y'CbCr matrix are all linear, so they commute.
//! The planes are reduced as they lie in memory, and only S×S pixels are converted. Chroma filters are
//! the luma filter composed with the chroma interpolation, hence no approximation; only a picture whose
//! single pixels leave the RGB cube differs, since the reference clamps those before the resize.
//!
//! Chroma is interpolated linearly, as by videoconvert's default resampler (its 8-bit shortcuts take the
//! nearest), at the MPEG-2 positions that H.264 and H.265 cameras use: horizontally on the even luma
//! columns, vertically between two luma rows. Transfer functions and primaries are left as they are.

mod convert;
pub mod device;
mod filter;
mod layout;
mod reduce;
pub mod reference;
mod tables;

use crate::image::{Image, ImageError, ImageInfo, Rectangle, Roi};
use reduce::{Plan, Scratch};

/// Which part of the picture the model sees, and at what scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geometry {
    /// Short side to `short` pixels (long = floor(short·long/short side)), then a centre crop of S×S.
    ShortestEdge { short: u32 },
    /// Both sides to S, aspect ratio ignored.
    Stretch,
}

/// The checkpoint's pre-processing, from preprocessor_config.json.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// S, the model's square input side in pixels.
    pub size: u32,
    pub geometry: Geometry,
    /// Per channel, in units of 0..1.
    pub mean: [f32; 3],
    /// Per channel, in units of 0..1.
    pub std: [f32; 3],
}

/// A picture reduced to the model's input: S×S, RGB interleaved, u8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduced {
    pub size: u32,
    /// S·S·3 bytes, row-major, R G B.
    pub rgb: Vec<u8>,
}

impl Reduced {
    /// Pictures of side `size`, one after another as by `rgb`; a last one that is not whole is left out.
    pub fn split(rgb: &[u8], size: usize) -> Vec<Self> {
        rgb.chunks_exact(size * size * 3).map(|rgb| Self { size: size as u32, rgb: rgb.to_vec() }).collect()
    }
}

/// Reduces pictures of one stream; keeps filter tables for the last geometry it saw.
pub struct Reducer {
    rule: Rule,
    plan: Option<(ImageInfo, Rectangle, Plan)>,
    scratch: Scratch,
}

impl Reducer {
    pub fn new(rule: Rule) -> Self {
        Self { rule, plan: None, scratch: Scratch::default() }
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Never panics and, once the geometry is known, allocates the result only. A picture smaller
    /// than S after the resize is centred on black. The only error is a `roi` that is none.
    pub fn reduce(&mut self, image: &Image<'_>, roi: Roi) -> Result<Reduced, ImageError> {
        let info = image.info();
        let rectangle = roi.rectangle(info.width, info.height)?;
        let plan = match &mut self.plan {
            Some((i, r, plan)) if *i == info && *r == rectangle => plan,
            stale => &mut stale.insert((info, rectangle, Plan::new(&self.rule, info, rectangle))).2,
        };
        let mut rgb = vec![0; 3 * (self.rule.size as usize).pow(2)];
        plan.run(image, &mut self.scratch, &mut rgb);
        Ok(Reduced { size: self.rule.size, rgb })
    }
}
