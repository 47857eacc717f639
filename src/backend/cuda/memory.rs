//! Device memory and page-locked host memory, typed and owned.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::CudaError;
use super::device::{Context, Stream};
use super::sys::{self, Address};

/// Values that have the same bytes on host and device.
///
/// # Safety
/// Any bytes are a valid value, and there is no padding.
pub(super) unsafe trait Plain: Copy + Default + Send + 'static {}
// SAFETY (all): plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for half::f16 {}

/// A place in device memory that holds values of type T.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct At<T>(pub Address, PhantomData<T>);

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<T> {}

impl<T> At<T> {
    /// Kernels take it for "none".
    pub const NULL: At<T> = At(0, PhantomData);

    /// `values` further on; the caller stays inside the buffer.
    pub fn add(self, values: usize) -> Self {
        At(self.0 + (values * size_of::<T>()) as Address, PhantomData)
    }
}

impl<T: Plain> At<T> {
    /// Queues a copy to the device; `values` stay as they are, and where they are, until `stream` has done it. Not
    /// inside a capture.
    pub fn upload(self, stream: &Stream, values: &[T]) -> Result<(), CudaError> {
        let (runtime, from) = (stream.context.runtime, values.as_ptr().cast());
        // SAFETY: the caller keeps `values`: memory that is not page-locked is mostly read before the call returns,
        // but need not be (cuda.h, "API synchronization behavior"), least where the device reads the host's pages
        // itself. The caller's buffer holds as many values.
        let status =
            unsafe { (runtime.driver.memcpy_to_device)(self.0, from, size_of_val(values), stream.raw) };
        runtime.check("cuMemcpyHtoDAsync", status)
    }

    /// Waits for all work of `stream` and copies to the host.
    pub fn download(self, stream: &Stream, len: usize) -> Result<Vec<T>, CudaError> {
        let mut values = vec![T::default(); len];
        let (runtime, bytes) = (stream.context.runtime, len * size_of::<T>());
        // SAFETY: `values` outlives the copy, which is waited for.
        let status =
            unsafe { (runtime.driver.memcpy_to_host)(values.as_mut_ptr().cast(), self.0, bytes, stream.raw) };
        runtime.check("cuMemcpyDtoHAsync", status)?;
        stream.synchronize()?;
        Ok(values)
    }
}

/// Device memory for `len` values; 256-byte aligned. Its first content is undefined.
pub(super) struct Buffer<T> {
    at: At<T>,
    len: usize,
    context: Arc<Context>,
}

impl<T: Plain> Buffer<T> {
    /// `what` names it when it does not fit.
    pub fn new(context: &Arc<Context>, what: &'static str, len: usize) -> Result<Self, CudaError> {
        let bytes = (len * size_of::<T>()).max(1);
        let mut address = 0;
        // SAFETY: writes one address.
        let status = unsafe { (context.runtime.driver.mem_alloc)(&mut address, bytes) };
        if status == sys::OUT_OF_MEMORY {
            let free_mib = context.free_bytes().unwrap_or(0) >> 20;
            return Err(CudaError::OutOfMemory { what, needed_mib: bytes.div_ceil(1 << 20), free_mib });
        }
        context.runtime.check("cuMemAlloc", status)?;
        Ok(Self { at: At(address, PhantomData), len, context: context.clone() })
    }

    /// The first value.
    pub fn at(&self) -> At<T> {
        self.at
    }

    /// Value `index`.
    pub fn from(&self, index: usize) -> At<T> {
        debug_assert!(index <= self.len);
        self.at.add(index)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let _visit = self.context.visit();
        // SAFETY: allocated by `new`; cuMemFree itself waits for queued work that might use it.
        unsafe { (self.context.runtime.driver.mem_free)(self.at.0) };
    }
}

/// Page-locked host memory: copies from and to it run beside the host, and may be part of a graph.
pub(super) struct Pinned<T> {
    address: *mut T,
    len: usize,
    context: Arc<Context>,
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl<T: Plain> Send for Pinned<T> {}
// SAFETY: as above. Between threads it is only read: what the device writes stays with the backend's.
unsafe impl<T: Plain> Sync for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// Zeroes.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, CudaError> {
        let bytes = (len * size_of::<T>()).max(1);
        let mut address: *mut c_void = std::ptr::null_mut();
        // SAFETY: writes one address.
        let status = unsafe { (context.runtime.driver.mem_host_alloc)(&mut address, bytes, 0) };
        context.runtime.check("cuMemHostAlloc", status)?;
        // SAFETY: just allocated with this many bytes, page aligned.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Self { address: address.cast(), len, context: context.clone() })
    }

    /// Queues a copy of the first `len` values to the device; also inside a capture. They stay as they are,
    /// and this lives, until `stream` has done it.
    pub fn copy_in(&self, stream: &Stream, to: At<T>, len: usize) -> Result<(), CudaError> {
        assert!(len <= self.len, "a copy beyond page-locked memory");
        let (runtime, bytes) = (self.context.runtime, len * size_of::<T>());
        // SAFETY: inside this memory, which its owners (`CudaBackend`, `CudaReducer`, `Arrivals`) free only when
        // the stream, or an event after the copy, was waited for.
        let status =
            unsafe { (runtime.driver.memcpy_to_device)(to.0, self.address.cast(), bytes, stream.raw) };
        runtime.check("cuMemcpyHtoDAsync", status)
    }
}

impl<T> Deref for Pinned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: initialised by `new`, `len` values. The device writes it only between a launch and the
        // synchronisation that `launcher`'s callers make before they look.
        unsafe { std::slice::from_raw_parts(self.address, self.len) }
    }
}

impl<T> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and it is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _visit = self.context.visit();
        // SAFETY: allocated by `new`.
        unsafe { (self.context.runtime.driver.mem_free_host)(self.address.cast()) };
    }
}
