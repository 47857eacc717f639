//! All memory that batches use again, allocated once: addresses stay, so graphs may hold them.

use std::sync::Arc;

use half::f16;

use super::CudaError;
use super::device::Event;
use super::head::{FeaturesAt, HeadWork};
use super::labels::LabelTable;
use super::launcher::Launcher;
use super::memory::{At, Buffer, Pinned, Plain};
use super::prompts::PromptWork;
use super::ring::Ring;
use super::shape::{MOST_PROMPTS, Sizes};
use super::text::TextWork;
use super::vision::VisionWork;
use crate::model::Config;

/// Prepared frames kept on the device, at most; 8 frames of 100 streams and their hops.
const MOST_STATES: usize = 1024;
/// Device memory that stays free, at most; a sixteenth of it on small cards. cuBLASLt's kernels are loaded when
/// they are first used, the driver keeps memory for each graph, and either fails without a word of why.
const SPARE: usize = 384 << 20;

/// A place on the device and the page-locked memory that is copied to or from it.
pub(super) struct Exchange<T> {
    pub host: Pinned<T>,
    device: Buffer<T>,
}

impl<T: Plain> Exchange<T> {
    fn new(launcher: &Launcher, len: usize) -> Result<Self, CudaError> {
        let device = Buffer::new(&launcher.context, "inputs and results", len)?;
        launcher.clear(&device)?;
        Ok(Self { host: Pinned::new(&launcher.context, len)?, device })
    }

    pub fn at(&self) -> At<T> {
        self.device.at()
    }

    /// Queues the way to the device.
    pub fn send(&self, launcher: &Launcher, len: usize) -> Result<(), CudaError> {
        launcher.copy_in(self.device.at(), &self.host, len)
    }

    /// Queues the way back; to be read after `finish`.
    pub fn fetch(&self, launcher: &Launcher, len: usize) -> Result<(), CudaError> {
        launcher.copy_out(&self.host, self.device.at(), len)
    }
}

/// Page-locked sets of the inputs of new frames: one group of them is laid out while the device has still to read
/// the other. A call of the most new frames that a batch has, eight of each window, is two groups.
pub(super) const STAGING_SETS: usize = 2;

/// A place on the device that is copied to from either set. Work on one place keeps the stream's order.
pub(super) struct Staged<T> {
    hosts: [Pinned<T>; STAGING_SETS],
    device: Buffer<T>,
}

impl<T: Plain> Staged<T> {
    fn new(launcher: &Launcher, len: usize) -> Result<Self, CudaError> {
        let device = Buffer::new(&launcher.context, "new frames", len)?;
        launcher.clear(&device)?;
        let host = || Pinned::new(&launcher.context, len);
        Ok(Self { hosts: [host()?, host()?], device })
    }

    /// Of this set; to be written when it has been read.
    pub fn host(&mut self, set: usize) -> &mut [T] {
        &mut self.hosts[set]
    }

    pub fn at(&self) -> At<T> {
        self.device.at()
    }

    /// Queues the way to the device.
    pub fn send(&self, launcher: &Launcher, set: usize, len: usize) -> Result<(), CudaError> {
        launcher.copy_in(self.device.at(), &self.hosts[set], len)
    }
}

pub(super) struct Work {
    pub sizes: Sizes,
    pub vision: VisionWork,
    pub head: HeadWork,
    pub prompts: PromptWork,
    pub text: TextWork,
    pub ring: Ring,
    pub labels: LabelTable,
    /// Frames to prepare, as pixels or the slots of their patch rows, and the slots of their states; `read` says of
    /// each set when the device is done with it.
    pub pixels: Staged<u8>,
    pub picture_slots: Staged<i32>,
    pub new_slots: Staged<i32>,
    pub read: [Option<Arc<Event>>; STAGING_SETS],
    /// States of the windows to encode.
    pub slots: Exchange<i32>,
    /// Clip features: [windows, E] and [windows, P, E].
    pub video: Exchange<f32>,
    pub patches: Exchange<f16>,
    /// Rows of the label table, and logits: [windows, prompts].
    pub index: Exchange<i32>,
    pub logits: Exchange<f32>,
}

impl Work {
    /// For as many windows at once as fit the device's memory. `micro` of them pass the blocks together, or as many
    /// as the L2 cache holds.
    pub fn new(
        launcher: &Launcher,
        config: &Config,
        state: usize,
        micro: Option<usize>,
    ) -> Result<Self, CudaError> {
        let mut last = None;
        for sizes in Sizes::choices(config, launcher.context.gpu.l2_bytes, micro) {
            let fitting = Self::with(launcher, config, sizes, state);
            match fitting.and_then(|work| spare(launcher).map(|()| work)) {
                Err(error) if error.is_out_of_memory() => {
                    tracing::info!("{} windows per batch do not fit the GPU's memory", sizes.windows);
                    last = Some(error);
                }
                done => return done,
            }
        }
        Err(last.expect("there is at least one choice"))
    }

    fn with(launcher: &Launcher, config: &Config, sizes: Sizes, state: usize) -> Result<Self, CudaError> {
        let (windows, frames, joint) = (sizes.windows, config.num_frames, config.projection);
        let pixels = 3 * config.image_size.pow(2);
        let guests = sizes.frames;
        let together = (sizes.micro * frames).max(sizes.frame_step);
        let vision = VisionWork::new(launcher, config, together)?;
        let head = HeadWork::new(launcher, config, sizes.micro)?;
        let prompts = PromptWork::new(launcher, config, &sizes)?;
        let text = TextWork::new(launcher, config)?;
        let labels = LabelTable::new(launcher, joint)?;
        let pixels = Staged::new(launcher, sizes.frames * pixels)?;
        let picture_slots = Staged::new(launcher, sizes.frames)?;
        let new_slots = Staged::new(launcher, sizes.frames)?;
        let slots = Exchange::new(launcher, windows * frames)?;
        let video = Exchange::new(launcher, windows * joint)?;
        let patches = Exchange::new(launcher, windows * config.patches() * joint)?;
        let index = Exchange::new(launcher, windows * MOST_PROMPTS)?;
        let logits = Exchange::new(launcher, windows * MOST_PROMPTS)?;
        // What is left is others' too: a quarter of it, and no more than is ever of use.
        let affordable = launcher.context.free_bytes()? / 4 / (state * size_of::<f16>());
        let kept = affordable.clamp(2 * frames, MOST_STATES.max(2 * frames));
        let ring = Ring::new(launcher, state, kept, guests)?;
        launcher.finish()?;
        Ok(Self {
            sizes,
            vision,
            head,
            prompts,
            text,
            ring,
            labels,
            pixels,
            picture_slots,
            new_slots,
            read: Default::default(),
            slots,
            video,
            patches,
            index,
            logits,
        })
    }

    /// Clip features from window `first` on.
    pub fn features(&self, config: &Config, first: usize) -> FeaturesAt {
        let joint = config.projection;
        FeaturesAt {
            video: self.video.at().add(first * joint),
            patches: self.patches.at().add(first * config.patches() * joint),
        }
    }
}

/// What comes later has room too.
fn spare(launcher: &Launcher) -> Result<(), CudaError> {
    let (free, needed) = (launcher.context.free_bytes()?, SPARE.min(launcher.context.gpu.memory_bytes / 16));
    if free >= needed {
        return Ok(());
    }
    let what = "room for the libraries' kernels and for graphs";
    Err(CudaError::OutOfMemory { what, needed_mib: needed >> 20, free_mib: free >> 20 })
}
