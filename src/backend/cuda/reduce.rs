//! Pictures → the model's input on the device: crop, antialiased resize, colours and rounding in one launch.
//!
//! The same rule as preprocess::Reducer on the CPU (preprocess::device says how near).

use half::f16;

use super::CudaError;
use super::device::Event;
use super::kernels::PlanesAt;
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer};
use super::runtime::probe;
use super::sys;
use crate::backend::BackendError;
use crate::image::{Image, ImageInfo, PixelFormat, Rectangle, Roi};
use crate::preprocess::{Reduced, Rule, device};

/// Rows start here in device memory, so that every row is read in whole words.
const ALIGNED: usize = 256;

/// Reduces pictures of one stream on GPU `ordinal`; keeps the tables of the last geometry it saw.
pub struct DeviceReducer {
    launcher: Launcher,
    rule: Rule,
    /// Side of a patch.
    patch: u32,
    plan: Option<(ImageInfo, Rectangle, Buffer<i32>)>,
    planes: Option<Buffer<u8>>,
    levels: Buffer<u8>,
    rows: Buffer<f16>,
}

impl DeviceReducer {
    /// `patch`: the side of a patch, which divides the rule's size.
    pub fn new(rule: Rule, patch: u32, ordinal: usize) -> Result<Self, CudaError> {
        let launcher = Launcher::new(&probe(ordinal)?)?;
        let (size, patches) = (rule.size as usize, (rule.size / patch.max(1)).pow(2) as usize);
        let levels = Buffer::new(&launcher.context, "a reduced picture", 3 * size * size)?;
        let columns = device::patch_columns(patch as usize);
        let rows = Buffer::new(&launcher.context, "a reduced picture", patches * columns)?;
        Ok(Self { launcher, rule, patch, plan: None, planes: None, levels, rows })
    }

    /// None for formats that have no kernel. The errors are the device's, and a `roi` that is none.
    pub fn reduce(&mut self, image: &Image<'_>, roi: Roi) -> Result<Option<Reduced>, BackendError> {
        let Some(planes) = self.upload(image, roi)? else { return Ok(None) };
        self.launch(planes, self.levels.at(), self.rows.at())?;
        let size = self.rule.size;
        let rgb = self.launcher.download(self.levels.at(), 3 * (size as usize).pow(2))?;
        Ok(Some(Reduced { size, rgb }))
    }

    /// The patch rows of the last picture reduced: P rows of `preprocess::device::patch_columns` values.
    pub fn patch_rows(&self) -> Result<Vec<f32>, CudaError> {
        self.launcher.context.enter()?;
        let values = self.launcher.download(self.rows.at(), self.rows.len())?;
        Ok(values.into_iter().map(f16::to_f32).collect())
    }

    /// Milliseconds of each of `tries` runs to patch rows, by the device's clock: the picture is in device
    /// memory before. None as in [`DeviceReducer::reduce`].
    pub fn milliseconds(
        &mut self,
        image: &Image<'_>,
        roi: Roi,
        tries: usize,
    ) -> Result<Option<Vec<f32>>, BackendError> {
        let Some(planes) = self.upload(image, roi)? else { return Ok(None) };
        let mut times = Vec::with_capacity(tries);
        // The first one loads the kernel.
        for i in 0..tries + 1 {
            let context = &self.launcher.context;
            let (begun, ended) = (Event::new(context, sys::TIMED)?, Event::new(context, sys::TIMED)?);
            begun.record(self.launcher.stream(Lane::Main))?;
            self.launch(planes, At::NULL, self.rows.at())?;
            ended.record(self.launcher.stream(Lane::Main))?;
            self.launcher.finish()?;
            if i > 0 {
                times.push(ended.milliseconds_since(&begun)?);
            }
        }
        Ok(Some(times))
    }

    fn launch(&self, planes: PlanesAt, levels: At<u8>, rows: At<f16>) -> Result<(), CudaError> {
        let (_, _, plan) = self.plan.as_ref().expect("uploaded with the planes");
        self.launcher.preprocess(planes, plan.at(), self.rule.size as usize, levels, rows)
    }

    /// Planes and plan to the device.
    fn upload(&mut self, image: &Image<'_>, roi: Roi) -> Result<Option<PlanesAt>, BackendError> {
        let info = image.info();
        let rectangle = roi.rectangle(info.width, info.height).map_err(|error| BackendError::Shape {
            what: "roi".into(),
            expected: "fractions inside the picture".into(),
            found: error.to_string(),
        })?;
        self.launcher.context.enter()?;
        if !matches!(&self.plan, Some((i, r, _)) if *i == info && *r == rectangle) {
            let Some(words) = device::plan(&self.rule, info, rectangle, self.patch) else { return Ok(None) };
            let words: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
            self.plan = Some((info, rectangle, self.launcher.uploaded("resize tables", &words)?));
        }
        let shapes = info.format.planes(info.width, info.height);
        let (mut bytes, mut starts, mut strides) = (Vec::new(), [0; 3], [0; 3]);
        for (i, (row, rows)) in shapes.into_iter().enumerate() {
            let plane = image.plane(i);
            (starts[i], strides[i]) = (bytes.len(), row.next_multiple_of(ALIGNED));
            for y in 0..rows {
                bytes.extend_from_slice(&plane.data[y * plane.stride..][..row]);
                bytes.resize(starts[i] + (y + 1) * strides[i], 0);
            }
        }
        let planes = match self.planes.take() {
            Some(planes) if planes.len() >= bytes.len() => planes,
            _ => Buffer::new(&self.launcher.context, "a picture", bytes.len())?,
        };
        self.launcher.upload(planes.at(), &bytes)?;
        let at = |i: usize| planes.from(starts[i]);
        let packed = |step: usize, order| PlanesAt::Rgb { plane: at(0), stride: strides[0], step, order };
        let found = match info.format {
            PixelFormat::Nv12 => {
                Some(PlanesAt::Nv12 { planes: [at(0), at(1)], strides: [strides[0], strides[1]] })
            }
            PixelFormat::I420 => Some(PlanesAt::I420 { planes: [at(0), at(1), at(2)], strides }),
            PixelFormat::Rgb => Some(packed(3, [0, 1, 2])),
            PixelFormat::Bgr => Some(packed(3, [2, 1, 0])),
            PixelFormat::Rgba | PixelFormat::Rgbx => Some(packed(4, [0, 1, 2])),
            PixelFormat::Bgra | PixelFormat::Bgrx => Some(packed(4, [2, 1, 0])),
            _ => None,
        };
        self.planes = Some(planes);
        Ok(found)
    }
}
