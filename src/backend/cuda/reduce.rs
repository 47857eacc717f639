//! Pictures → patch rows on the device: crop, antialiased resize, colours, rounding and normalisation in one
//! launch, on a stream of their own beside the backend's work.
//!
//! The thread that has a picture packs the samples that count into page-locked memory, queues copy and
//! kernel, and lets the picture go. The rows wait in a slot (`arrivals`) until `prepare` reads them there; the
//! packed samples stay as long as the frame, so that another backend can take over when the device is lost.
//!
//! What that saves and costs, of a 1080p NV12 picture: the processor copies 1.8 MB where it would reduce
//! them, and as much goes over the bus where 150 KB would. The copies run beside the backend's kernels, hence
//! a stream of their own. `xclipd bench --device cuda:0` measures both ways.
//!
//! Threads of all streams come here while the worker captures a graph: its captures are thread-local, so
//! memory may be allocated and waited for meanwhile.
//!
//! The same rule as preprocess::Reducer on the CPU (preprocess::device says how near).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use half::f16;

use super::CudaError;
use super::arrivals::{Arrivals, Block, Slot};
use super::device::{Context, Event, Stream};
use super::functions::Kernels;
use super::kernels::{PlanesAt, preprocess};
use super::memory::{At, Buffer};
use super::runtime::probe;
use super::sys;
use crate::backend::DeviceReducer;
use crate::image::{Image, ImageInfo, PixelFormat, Roi};
use crate::preprocess::device::{DevicePlan, patch_columns};
use crate::preprocess::{OnDevice, Reduced, Rule};

/// Geometries whose tables are kept, some 50 KB each: as many as streams of which `arrivals` has room for two
/// pictures, since each may look at a zone of its own, and tables made for every picture cost more than they save.
const MOST_PLANS: usize = 256;

/// Reduces pictures of all streams on one GPU.
pub struct CudaReducer {
    size: u32,
    patch: u32,
    kernels: Arc<Kernels>,
    stream: Stream,
    /// Held while a picture's copy and its kernel are queued.
    queued: Mutex<Queued>,
    /// The latest used last.
    plans: Mutex<VecDeque<Arc<Plan>>>,
    arrivals: Arc<Arrivals>,
    /// The first failure was told.
    told: AtomicBool,
}

#[derive(Default)]
struct Queued {
    /// Pictures so far, in the order of the stream.
    pictures: u64,
    /// The samples of the one in work.
    planes: Option<Buffer<u8>>,
}

struct Plan {
    /// Freeing them waits for queued work, their own copy from `host` too: they go first.
    words: Buffer<u32>,
    host: DevicePlan,
}

/// A picture between its arrival and the end of its frame.
pub(super) struct Picture {
    /// Until it is prepared.
    slot: Mutex<Option<Slot>>,
    block: Block,
    plan: Arc<Plan>,
    arrivals: Arc<Arrivals>,
}

/// Milliseconds on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReduceTimes {
    /// Packed samples to device memory.
    pub copy: f32,
    /// From there to patch rows.
    pub kernel: f32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl CudaReducer {
    /// For pictures of side `size` in patches of side `patch`, on GPU `ordinal`, without a backend.
    pub fn open(size: u32, patch: u32, ordinal: usize) -> Result<Self, CudaError> {
        let context = Context::open(&probe(ordinal)?)?;
        Self::new(&context, Kernels::load(&context)?, size, patch)
    }

    pub(super) fn new(
        context: &Arc<Context>,
        kernels: Arc<Kernels>,
        size: u32,
        patch: u32,
    ) -> Result<Self, CudaError> {
        let rows = (size / patch.max(1)).pow(2) as usize * patch_columns(patch as usize);
        Ok(Self {
            size,
            patch,
            kernels,
            stream: Stream::new(context)?,
            queued: Mutex::default(),
            plans: Mutex::default(),
            arrivals: Arrivals::new(context, rows)?,
            told: AtomicBool::new(false),
        })
    }

    /// As [`CudaBackend::kernels`](super::CudaBackend::kernels).
    pub fn kernels(&self) -> &'static str {
        self.kernels.target()
    }

    /// Waits for all pictures so far.
    pub(super) fn finish(&self) -> Result<(), CudaError> {
        self.stream.synchronize()
    }

    /// The first slot's patch rows.
    pub(super) fn rows(&self) -> At<f16> {
        self.arrivals.rows()
    }

    /// The slot of a picture of this reducer's, if it lies there and nobody took it before.
    pub(super) fn take_slot(&self, reduced: &Reduced) -> Option<Slot> {
        let picture = reduced.device::<Picture>()?;
        let own = Arc::ptr_eq(&picture.arrivals, &self.arrivals);
        own.then(|| lock(&picture.slot).take()).flatten()
    }

    /// The patch rows of a picture of this reducer's: P rows of `preprocess::device::patch_columns` values.
    /// `None` where it is no such, or was prepared.
    pub fn patch_rows(&self, reduced: &Reduced) -> Result<Option<Vec<f32>>, CudaError> {
        let Some(slot) = self.take_slot(reduced) else { return Ok(None) };
        let _visit = self.arrivals.context.visit()?;
        let values = slot.rows().download(&self.stream, self.arrivals.size())?;
        Ok(Some(values.into_iter().map(f16::to_f32).collect()))
    }

    /// What the device spends on one picture, `tries` times. `None` for formats that have no kernel.
    pub fn times(
        &self,
        rule: &Rule,
        image: &Image<'_>,
        roi: Roi,
        tries: usize,
    ) -> Result<Option<Vec<ReduceTimes>>, CudaError> {
        let mut times = Vec::with_capacity(tries);
        let context = &self.arrivals.context;
        let _visit = context.visit()?;
        // The first one loads the kernel.
        for i in 0..tries + 1 {
            let mut marks = Vec::with_capacity(3);
            let mut mark = || {
                let event = Event::new(context, sys::TIMED)?;
                event.record(&self.stream)?;
                marks.push(event);
                Ok(())
            };
            if self.queue(rule, image, roi, &mut mark)?.is_none() {
                return Ok(None);
            }
            self.stream.synchronize()?;
            if i > 0 {
                let between = |i: usize| marks[i + 1].milliseconds_since(&marks[i]);
                times.push(ReduceTimes { copy: between(0)?, kernel: between(1)? });
            }
        }
        Ok(Some(times))
    }

    /// `mark` is called before the copy, between it and the kernel, and after that.
    fn queue(
        &self,
        rule: &Rule,
        image: &Image<'_>,
        roi: Roi,
        mark: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<Option<Picture>, CudaError> {
        let _visit = self.arrivals.context.visit()?;
        let Some(plan) = self.plan(rule, image.info(), roi)? else { return Ok(None) };
        let Some(mut slot) = self.arrivals.take_slot() else { return Ok(None) };
        let bytes = plan.host.bytes();
        let Some(mut block) = self.arrivals.take_block(bytes)? else { return Ok(None) };
        plan.host.pack(image, block.memory_mut());

        let mut queued = lock(&self.queued);
        let done = self.queue_packed(&plan, &block, &mut slot, &mut queued, mark);
        if done.is_err() {
            // Block and slot go back now: what was queued is to be done with them.
            let _ = self.stream.synchronize();
        }
        drop(queued);
        done?;
        let (slot, arrivals) = (Mutex::new(Some(slot)), self.arrivals.clone());
        Ok(Some(Picture { slot, block, plan, arrivals }))
    }

    fn queue_packed(
        &self,
        plan: &Plan,
        block: &Block,
        slot: &mut Slot,
        queued: &mut Queued,
        mark: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let bytes = plan.host.bytes();
        queued.pictures += 1;
        slot.order = queued.pictures;
        if queued.planes.as_ref().is_none_or(|planes| planes.len() < bytes) {
            queued.planes = None;
            queued.planes = Some(Buffer::new(&self.arrivals.context, "a picture", bytes)?);
        }
        let planes = queued.planes.as_ref().expect("made above where there was none");
        mark()?;
        block.memory().copy_in(&self.stream, planes.at(), bytes)?;
        block.used().record(&self.stream)?;
        mark()?;
        if let Some(read) = &slot.read {
            self.stream.wait(read)?;
            slot.read = None;
        }
        let (at, words) = (planes_at(&plan.host, planes), plan.words.at());
        preprocess(&self.stream, &self.kernels, at, words, self.size as usize, slot.rows())?;
        slot.arrived().record(&self.stream)?;
        mark()
    }

    /// The plan of this geometry, from the last ones or made anew.
    fn plan(&self, rule: &Rule, info: ImageInfo, roi: Roi) -> Result<Option<Arc<Plan>>, CudaError> {
        let mut plans = lock(&self.plans);
        if let Some(at) = plans.iter().position(|plan| plan.host.is_of(rule, info, roi)) {
            let known = plans.remove(at).expect("found above");
            plans.push_back(known.clone());
            return Ok(Some(known));
        }
        // Other streams need not wait for the tables; two of one geometry may both make them.
        drop(plans);
        if rule.size != self.size {
            return Ok(None);
        }
        // The error is a roi that is none: the processor tells it.
        let Ok(Some(host)) = DevicePlan::new(rule, info, roi, self.patch) else { return Ok(None) };
        let words = Buffer::new(&self.arrivals.context, "resize tables", host.words().len())?;
        // Read where they lie now, on the heap, maybe after this returns.
        let made = Arc::new(Plan { words, host });
        made.words.at().upload(&self.stream, made.host.words())?;
        let mut plans = lock(&self.plans);
        plans.push_back(made.clone());
        let oldest = if plans.len() > MOST_PLANS { plans.pop_front() } else { None };
        drop(plans);
        // Its last owner's drop waits for the device.
        drop(oldest);
        Ok(Some(made))
    }
}

fn planes_at(plan: &DevicePlan, planes: &Buffer<u8>) -> PlanesAt {
    let parts = plan.parts();
    let (at, stride) = (|i: usize| planes.from(parts[i].start), |i: usize| parts[i].stride);
    let packed = |step, order| PlanesAt::Rgb { plane: at(0), stride: stride(0), step, order };
    match plan.info().format {
        PixelFormat::Nv12 => PlanesAt::Nv12 { planes: [at(0), at(1)], strides: [stride(0), stride(1)] },
        PixelFormat::I420 => PlanesAt::I420 { planes: [0, 1, 2].map(at), strides: [0, 1, 2].map(stride) },
        PixelFormat::Bgr => packed(3, [2, 1, 0]),
        PixelFormat::Rgba | PixelFormat::Rgbx => packed(4, [0, 1, 2]),
        PixelFormat::Bgra | PixelFormat::Bgrx => packed(4, [2, 1, 0]),
        // Others have no plan.
        _ => packed(3, [0, 1, 2]),
    }
}

impl DeviceReducer for CudaReducer {
    fn reduce(&self, rule: &Rule, image: &Image<'_>, roi: Roi) -> Option<Reduced> {
        let queued = self.queue(rule, image, roi, &mut || Ok(()));
        if let Err(error) = &queued
            // A lost device is told once, by the backend.
            && !error.is_lost()
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("pictures are reduced on the processor, because the GPU could not: {error}");
        }
        let picture = queued.ok()??;
        Some(Reduced::on_device(self.size, Arc::new(picture)))
    }
}

impl OnDevice for Picture {
    fn rgb(&self) -> Vec<u8> {
        self.plan.host.reduce(self.block.memory())
    }
}

impl Drop for CudaReducer {
    fn drop(&mut self) {
        // All that reads blocks and plans, before they go.
        let _visit = self.arrivals.context.visit();
        let _ = self.stream.synchronize();
    }
}
