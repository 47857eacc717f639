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

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

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

/// A picture reduced to the model's input: S×S pixels, R G B, a byte each. Lies in host memory, or on the
/// device that reduced it.
#[derive(Clone)]
pub struct Reduced {
    size: u32,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Host(Vec<u8>),
    Device(Arc<dyn OnDevice>),
}

/// A reduced picture in a device's memory, in a form that is the device's own.
pub trait OnDevice: Any + Send + Sync {
    /// The same picture for those who cannot read the device, also when it is lost: S·S·3 bytes, as
    /// [`Reducer`] makes them. Costs another reduction.
    fn rgb(&self) -> Vec<u8>;
}

impl Reduced {
    /// `rgb`: S·S·3 bytes, row-major, R G B, of side `size`.
    pub fn new(size: u32, rgb: Vec<u8>) -> Self {
        Self { size, place: Place::Host(rgb) }
    }

    pub fn on_device(size: u32, picture: Arc<dyn OnDevice>) -> Self {
        Self { size, place: Place::Device(picture) }
    }

    /// Pictures of side `size`, one after another as by `rgb`; a last one that is not whole is left out.
    pub fn split(rgb: &[u8], size: usize) -> Vec<Self> {
        rgb.chunks_exact(size * size * 3).map(|rgb| Self::new(size as u32, rgb.to_vec())).collect()
    }

    /// S
    pub fn size(&self) -> u32 {
        self.size
    }

    /// S·S·3 bytes, row-major, R G B. Reduces anew where the picture is on a device.
    pub fn rgb(&self) -> Cow<'_, [u8]> {
        match &self.place {
            Place::Host(rgb) => Cow::Borrowed(rgb),
            Place::Device(picture) => Cow::Owned(picture.rgb()),
        }
    }

    /// As [`Reduced::rgb`]; `None` where the picture is on a device.
    pub fn host_rgb(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Host(rgb) => Some(rgb),
            Place::Device(_) => None,
        }
    }

    /// The picture on a device of kind `P`; `None` where it is elsewhere.
    pub fn device<P: OnDevice>(&self) -> Option<&P> {
        let Place::Device(picture) = &self.place else { return None };
        let picture: &dyn Any = picture.as_ref();
        picture.downcast_ref()
    }

    pub fn is_on_device(&self) -> bool {
        matches!(self.place, Place::Device(_))
    }
}

impl PartialEq for Reduced {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.rgb() == other.rgb()
    }
}

impl fmt::Debug for Reduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_on_device() { "device" } else { "host" };
        write!(f, "Reduced({0}×{0} on the {place})", self.size)
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
        Ok(Reduced::new(self.rule.size, rgb))
    }
}
