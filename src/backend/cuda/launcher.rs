//! The way to the device: two streams, the copies, and the count of what was launched. Kernels and products
//! are launched through it (`kernels`, `product`).
//!
//! Order: `main` carries everything; `side` carries what may run beside it, from a `fork` to the `join`.
//! Nothing is pending when a call of the backend returns features, texts or logits. Prepared frames are the
//! exception: their states are read by later work of `main` only, so the stream keeps the order.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::CudaError;
use super::device::{Context, Event, Graph, Stream};
use super::driver::Gpu;
use super::functions::Kernels;
use super::memory::{At, Buffer, Pinned, Plain};
use super::product::Products;
use super::sys;

/// Which stream work goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Main,
    /// Between `fork` and `join` only.
    Side,
}

pub(super) struct Launcher {
    // Fields drop in this order: handles before the context they live in.
    pub(super) products: RefCell<Products>,
    pub(super) kernels: Arc<Kernels>,
    main: Stream,
    side: Stream,
    forked: Event,
    joined: Event,
    /// Kernels, products and graphs since the backend was opened; inside a capture only its launch counts.
    launches: Cell<u64>,
    capturing: Cell<bool>,
    pub context: Arc<Context>,
}

impl Launcher {
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let context = Context::open(gpu)?;
        let kernels = Kernels::load(&context)?;
        Ok(Self {
            products: RefCell::new(Products::new(&context)?),
            kernels,
            main: Stream::new(&context)?,
            side: Stream::new(&context)?,
            forked: Event::new(&context, sys::UNTIMED)?,
            joined: Event::new(&context, sys::UNTIMED)?,
            launches: Cell::new(0),
            capturing: Cell::new(false),
            context,
        })
    }

    pub fn stream(&self, lane: Lane) -> &Stream {
        match lane {
            Lane::Main => &self.main,
            Lane::Side => &self.side,
        }
    }

    /// What `side` is given from here on runs after what `main` has so far.
    pub fn fork(&self) -> Result<(), CudaError> {
        self.forked.record(&self.main)?;
        self.side.wait(&self.forked)
    }

    /// What `main` is given from here on runs after what `side` has so far.
    pub fn join(&self) -> Result<(), CudaError> {
        self.joined.record(&self.side)?;
        self.main.wait(&self.joined)
    }

    /// Waits for all work; to be called outside a fork.
    pub fn finish(&self) -> Result<(), CudaError> {
        self.main.synchronize()
    }

    /// Waits for all work of both lanes: after an error, which may have come inside a fork.
    pub fn settle(&self) -> Result<(), CudaError> {
        let side = self.side.synchronize();
        self.main.synchronize().and(side)
    }

    pub fn launches(&self) -> u64 {
        self.launches.get()
    }

    pub(super) fn count_launch(&self) {
        if !self.capturing.get() {
            self.launches.set(self.launches.get() + 1);
        }
    }

    pub(super) fn is_capturing(&self) -> bool {
        self.capturing.get()
    }

    /// `work`, which must use this launcher only, as a graph.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        self.capturing.set(true);
        let graph = Graph::capture(&self.context, &self.main, work);
        self.capturing.set(false);
        graph
    }

    pub fn launch(&self, graph: &Graph) -> Result<(), CudaError> {
        self.count_launch();
        graph.launch(&self.main)
    }

    /// Copies to the device and waits.
    pub fn upload<T: Plain>(&self, to: At<T>, values: &[T]) -> Result<(), CudaError> {
        to.upload(&self.main, values)?;
        self.finish()
    }

    /// A buffer with these values.
    pub fn uploaded<T: Plain>(&self, what: &'static str, values: &[T]) -> Result<Buffer<T>, CudaError> {
        let buffer = Buffer::new(&self.context, what, values.len())?;
        self.upload(buffer.at(), values)?;
        Ok(buffer)
    }

    /// Waits for all work and copies to the host.
    pub fn download<T: Plain>(&self, from: At<T>, len: usize) -> Result<Vec<T>, CudaError> {
        from.download(&self.main, len)
    }

    /// Queues a copy of the first `len` values; also inside a capture. `from` stays as it is until the work
    /// is done.
    pub fn copy_in<T: Plain>(&self, to: At<T>, from: &Pinned<T>, len: usize) -> Result<(), CudaError> {
        from.copy_in(&self.main, to, len)
    }

    /// Queues a copy to the first `len` values; also inside a capture. They are there after `finish`.
    pub fn copy_out<T: Plain>(&self, to: &Pinned<T>, from: At<T>, len: usize) -> Result<(), CudaError> {
        assert!(len <= to.len(), "a copy beyond page-locked memory");
        let (runtime, bytes) = (self.context.runtime, len * size_of::<T>());
        // SAFETY: page-locked memory lives as long as the backend, which finishes work before it goes; nobody
        // looks before `finish`.
        let status = unsafe {
            (runtime.driver.memcpy_to_host)(to.as_ptr().cast_mut().cast(), from.0, bytes, self.main.raw)
        };
        runtime.check("cuMemcpyDtoHAsync", status)
    }

    /// Queues a copy on the device.
    pub fn copy<T: Plain>(&self, to: At<T>, from: At<T>, len: usize) -> Result<(), CudaError> {
        let (runtime, bytes) = (self.context.runtime, len * size_of::<T>());
        // SAFETY: the caller's buffers hold `len` values there.
        let status = unsafe { (runtime.driver.memcpy_on_device)(to.0, from.0, bytes, self.main.raw) };
        runtime.check("cuMemcpyDtoDAsync", status)
    }

    /// Queues zeroes.
    pub fn clear<T: Plain>(&self, buffer: &Buffer<T>) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: the whole buffer.
        let status = unsafe { (runtime.driver.memset)(buffer.at().0, 0, buffer.bytes(), self.main.raw) };
        runtime.check("cuMemsetD8Async", status)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _visit = self.context.visit();
        let _ = self.settle();
    }
}
