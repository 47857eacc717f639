//! A picture's way from a decoder's memory to the model's input, on the device and on the processor.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::gpu::{Spread, spread};
use super::milliseconds;
use crate::backend::DeviceReducer;
use crate::backend::cuda::CudaReducer;
use crate::image::{Image, ImageInfo, Matrix, PixelFormat, Plane, Range, Roi};
use crate::model::{Config, recipe};
use crate::preprocess::device::DevicePlan;
use crate::preprocess::{Reducer, Rule};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;

/// Milliseconds of one 1080p NV12 picture.
#[derive(Debug, Serialize)]
pub struct Arrival {
    /// What goes to the device.
    pub packed_mb: f64,
    /// Of the thread that has the picture: packing, and queueing the rest.
    pub hand_over_ms: Spread,
    /// By the device's clock: packed samples to device memory.
    pub copy_ms: Spread,
    /// By the device's clock: device memory → patch rows.
    pub preprocess_ms: Spread,
    /// The same on that thread, without the device.
    pub processor_ms: Spread,
}

impl Arrival {
    pub fn measure(config: &Config, rule: &Rule, ordinal: usize, rounds: usize) -> anyhow::Result<Self> {
        let (format, width, height) = (PixelFormat::Nv12, WIDTH as u32, HEIGHT as u32);
        let info = ImageInfo { format, width, height, matrix: Matrix::Bt709, range: Range::Limited };
        let noise = recipe::frames_u8(1, HEIGHT, WIDTH, 2);
        let planes = [&noise[..WIDTH * HEIGHT], &noise[WIDTH * HEIGHT..WIDTH * HEIGHT * 3 / 2]];
        let image = Image::new(info, &planes.map(|data| Plane { data, stride: WIDTH }))?;
        let (patch, roi) = (config.patch_size as u32, Roi::WHOLE);
        let plan = DevicePlan::new(rule, info, roi, patch)?.context("NV12 has no kernel")?;
        let device = CudaReducer::open(rule.size, patch, ordinal)?;

        let times = device.times(rule, &image, roi, rounds)?.context("no room for one picture")?;
        // As in a stream, where the last window's pictures are kept.
        let (mut kept, mut hand_over) = (VecDeque::new(), Vec::with_capacity(rounds));
        for round in 0..config.num_frames + rounds {
            let begun = Instant::now();
            let reduced = device.reduce(rule, &image, roi).context("no room for one picture")?;
            let time = milliseconds(begun.elapsed());
            kept.push_back(reduced);
            if round >= config.num_frames {
                hand_over.push(time);
                kept.pop_front();
            }
        }
        let (mut reducer, mut processor) = (Reducer::new(*rule), Vec::with_capacity(rounds));
        reducer.reduce(&image, roi)?;
        for _ in 0..rounds {
            let begun = Instant::now();
            reducer.reduce(&image, roi)?;
            processor.push(milliseconds(begun.elapsed()));
        }
        Ok(Self {
            packed_mb: plan.bytes() as f64 / 1e6,
            hand_over_ms: spread(hand_over.into_iter()),
            copy_ms: spread(times.iter().map(|times| f64::from(times.copy))),
            preprocess_ms: spread(times.iter().map(|times| f64::from(times.kernel))),
            processor_ms: spread(processor.into_iter()),
        })
    }

    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let shown =
            |Spread { median, least, most }: &Spread| format!("{median:.4} ms ({least:.4}-{most:.4})");
        writeln!(out, "1080p NV12 to patch rows: {} on the device", shown(&self.preprocess_ms))?;
        writeln!(
            out,
            "  before it {} for the copy of {:.1} MB; its thread is held {}, by the processor's own reduction {}",
            shown(&self.copy_ms),
            self.packed_mb,
            shown(&self.hand_over_ms),
            shown(&self.processor_ms)
        )
    }
}
