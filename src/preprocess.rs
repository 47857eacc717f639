//! From a camera's picture to the model's input: convert, crop, resize, centre crop, round to u8.
//!
//! Reference: torchvision's antialiased bilinear resize on u8 as `VideoMAEImageProcessor` calls it.
//! Normalisation ((u8/255 − mean)/std) is folded into the backend's patch embedding input.

use crate::image::{Image, ImageError, Roi};

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

/// Reduces pictures of one stream; keeps filter tables for the last geometry it saw.
pub struct Reducer {
    rule: Rule,
}

impl Reducer {
    pub fn new(rule: Rule) -> Self {
        Self { rule }
    }

    pub fn reduce(&mut self, image: &Image<'_>, roi: Roi) -> Result<Reduced, ImageError> {
        let _ = (self.rule, image, roi);
        todo!("preprocess branch")
    }
}
