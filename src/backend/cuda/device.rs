//! Owned things of one GPU: streams, events, graphs, modules, each returned when dropped; and its context.
//!
//! Invariant: whatever is dropped here is no longer in use by queued work. `CudaBackend` synchronises
//! before it drops anything (see `launcher`). Events alone may go before: the driver keeps what a stream has still to
//! mark or to wait for (cuda.h, cuEventDestroy).

use std::ffi::{CStr, c_uint};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use super::CudaError;
use super::driver::Gpu;
use super::images::Image;
use super::runtime::{Runtime, runtime};
use super::sys::{self, Raw};

/// Those of this process, one per GPU, kept to its end.
static CONTEXTS: Mutex<Vec<Arc<Context>>> = Mutex::new(Vec::new());

/// The device's primary context: shared with everything else in the process that uses this GPU.
///
/// Retained once and never released. The last release would destroy it, and cuBLASLt, which keeps what it made in
/// it (loaded kernels, its own CUDA runtime's state), is not told: nothing says that a later backend of the
/// process would find the library whole. What that keeps is some hundred MB of device memory until the process ends.
pub(super) struct Context {
    pub runtime: &'static Runtime,
    pub gpu: Gpu,
    raw: Raw,
}

impl Context {
    pub fn open(gpu: &Gpu) -> Result<Arc<Self>, CudaError> {
        let mut contexts = CONTEXTS.lock().unwrap_or_else(|e| e.into_inner());
        let context = match contexts.iter().find(|context| context.gpu.device == gpu.device) {
            Some(known) => known.clone(),
            None => {
                let made = Arc::new(Self::retain(gpu)?);
                contexts.push(made.clone());
                made
            }
        };
        drop(contexts);
        context.enter()?;
        Ok(context)
    }

    fn retain(gpu: &Gpu) -> Result<Self, CudaError> {
        let runtime = runtime()?;
        let mut raw = Raw::NULL;
        // SAFETY: a device of the probe; writes one handle.
        let status = unsafe { (runtime.driver.primary_ctx_retain)(&mut raw, gpu.device) };
        runtime.check("cuDevicePrimaryCtxRetain", status)?;
        Ok(Self { runtime, gpu: gpu.clone(), raw })
    }

    /// Makes the context this thread's current one, and leaves it so: for the thread that owns the backend.
    pub fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: retained for good.
        self.runtime.check("cuCtxSetCurrent", unsafe { (self.runtime.driver.ctx_set_current)(self.raw) })
    }

    /// Makes the context the current one until the end of the visit: for threads of others, which may have one
    /// of their own (a pipeline's other CUDA elements), and for drops, which happen on any thread.
    pub fn visit(&self) -> Result<Visit<'_>, CudaError> {
        // SAFETY: retained for good.
        let status = unsafe { (self.runtime.driver.ctx_push_current)(self.raw) };
        self.runtime.check("cuCtxPushCurrent", status)?;
        Ok(Visit { context: self, _thread: PhantomData })
    }

    /// Free bytes of device memory now.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        let status = unsafe { (self.runtime.driver.mem_get_info)(&mut free, &mut total) };
        self.runtime.check("cuMemGetInfo", status)?;
        Ok(free)
    }
}

/// Ends where it began, on the same thread.
#[must_use]
pub(super) struct Visit<'a> {
    context: &'a Context,
    _thread: PhantomData<*const ()>,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut own = Raw::NULL;
        // SAFETY: pushed by `visit` on this thread, which `Visit` cannot leave; writes one handle.
        unsafe { (self.context.runtime.driver.ctx_pop_current)(&mut own) };
    }
}

macro_rules! owned {
    ($(#[$doc:meta])* $name:ident, $destroy:ident $(, $field:ident: $type:ty)?) => {
        $(#[$doc])*
        pub(super) struct $name {
            $(pub $field: $type,)?
            pub raw: Raw,
            pub context: Arc<Context>,
        }

        impl Drop for $name {
            fn drop(&mut self) {
                let _visit = self.context.visit();
                // SAFETY: created once, destroyed once.
                unsafe { (self.context.runtime.driver.$destroy)(self.raw) };
            }
        }
    };
}

owned!(
    /// A queue of work on the device.
    Stream, stream_destroy);
owned!(
    /// A mark in a stream.
    Event, event_destroy);
owned!(
    /// Captured work, ready to launch as one.
    Graph, graph_exec_destroy);
owned!(
    /// Loaded device code, and what it was made for.
    Module, module_unload, target: &'static str);

impl Stream {
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        let mut raw = Raw::NULL;
        // SAFETY: writes one handle.
        let status = unsafe { (context.runtime.driver.stream_create)(&mut raw, sys::NON_BLOCKING) };
        context.runtime.check("cuStreamCreate", status)?;
        Ok(Self { raw, context: context.clone() })
    }

    /// Waits until all its work is done, and tells what went wrong in it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: a live stream.
        runtime.check("cuStreamSynchronize", unsafe { (runtime.driver.stream_synchronize)(self.raw) })
    }

    /// Later work of this stream waits for `event`.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: live handles.
        runtime
            .check("cuStreamWaitEvent", unsafe { (runtime.driver.stream_wait_event)(self.raw, event.raw, 0) })
    }
}

impl Event {
    /// `flags`: `sys::TIMED` or `sys::UNTIMED`.
    pub fn new(context: &Arc<Context>, flags: c_uint) -> Result<Self, CudaError> {
        let mut raw = Raw::NULL;
        // SAFETY: writes one handle.
        context
            .runtime
            .check("cuEventCreate", unsafe { (context.runtime.driver.event_create)(&mut raw, flags) })?;
        Ok(Self { raw, context: context.clone() })
    }

    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: live handles.
        runtime.check("cuEventRecord", unsafe { (runtime.driver.event_record)(self.raw, stream.raw) })
    }

    /// Waits for the work before the mark; at once where it was never recorded.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: a live event.
        runtime.check("cuEventSynchronize", unsafe { (runtime.driver.event_synchronize)(self.raw) })
    }

    /// Milliseconds from `earlier` to this mark; both reached, both with times.
    pub fn milliseconds_since(&self, earlier: &Event) -> Result<f32, CudaError> {
        let runtime = self.context.runtime;
        let mut time = 0.0;
        // SAFETY: live events; writes one number.
        let status = unsafe { (runtime.driver.event_elapsed_time)(&mut time, earlier.raw, self.raw) };
        runtime.check("cuEventElapsedTime", status)?;
        Ok(time)
    }
}

impl Graph {
    /// What `work` puts into `stream`, and into streams that wait for it and are waited for. Nothing of it
    /// runs.
    pub fn capture(
        context: &Arc<Context>,
        stream: &Stream,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Self, CudaError> {
        let (runtime, driver) = (context.runtime, context.runtime.driver);
        // SAFETY: a live stream without a capture.
        let status = unsafe { (driver.stream_begin_capture)(stream.raw, sys::THREAD_LOCAL) };
        runtime.check("cuStreamBeginCapture", status)?;
        let done = work();
        let mut graph = Raw::NULL;
        // The capture ends whatever `work` says: else the stream would be of no more use.
        // SAFETY: the capture begun above; writes one handle.
        let status = unsafe { (driver.stream_end_capture)(stream.raw, &mut graph) };
        let ended = done.and_then(|()| runtime.check("cuStreamEndCapture", status));
        let mut raw = Raw::NULL;
        let instantiated = ended.and_then(|()| {
            // SAFETY: the graph captured above; writes one handle.
            runtime.check("cuGraphInstantiate", unsafe { (driver.graph_instantiate)(&mut raw, graph, 0) })
        });
        if graph != Raw::NULL {
            // SAFETY: captured above; an executable graph does not need it any more.
            unsafe { (driver.graph_destroy)(graph) };
        }
        instantiated?;
        Ok(Self { raw, context: context.clone() })
    }

    pub fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        let runtime = self.context.runtime;
        // SAFETY: live handles; the buffers of its work live as long as the backend, which owns both.
        runtime.check("cuGraphLaunch", unsafe { (runtime.driver.graph_launch)(self.raw, stream.raw) })
    }
}

impl Module {
    pub fn load(context: &Arc<Context>, image: &Image) -> Result<Self, CudaError> {
        let (runtime, target, data) = (context.runtime, image.target, image.data());
        let mut raw = Raw::NULL;
        // SAFETY: an image of the kind the driver tells by its head; it copies what it needs.
        let status = unsafe { (runtime.driver.module_load_data)(&mut raw, data.as_ptr().cast()) };
        runtime.check("cuModuleLoadData", status).map_err(|error| match error {
            CudaError::Call { name, text, .. } if sys::UNFIT_IMAGE.contains(&status) => {
                CudaError::Kernels { target: target.into(), why: format!("{name}: {text}") }
            }
            other => other,
        })?;
        Ok(Self { target, raw, context: context.clone() })
    }

    pub fn function(&self, name: &'static CStr) -> Result<Raw, CudaError> {
        let runtime = self.context.runtime;
        let mut function = Raw::NULL;
        // SAFETY: a loaded module and a C string; writes one handle.
        let status = unsafe { (runtime.driver.module_get_function)(&mut function, self.raw, name.as_ptr()) };
        runtime.check("cuModuleGetFunction", status).map_err(|error| match error {
            CudaError::Call { .. } => CudaError::Kernels {
                target: self.target.into(),
                why: format!("there is no kernel {}: `make kernels` and build again", name.to_string_lossy()),
            },
            other => other,
        })?;
        Ok(function)
    }
}
