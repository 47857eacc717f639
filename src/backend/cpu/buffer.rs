//! Memory on cache lines: vector loads never straddle two lines, and parallel writers of different
//! lines never share one.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// f32 values per cache line.
pub const LINE: usize = 16;
/// Bytes per cache line, or int8 values.
pub const LINE_BYTES: usize = 64;

/// Values from a row to the next, an odd number of lines: rows of 3072 values lie a multiple of 4096 bytes
/// apart, so that all of them would fight for one set of the first-level cache.
pub const fn row_stride(width: usize) -> usize {
    (width.div_ceil(LINE) | 1) * LINE
}

/// Lines come in pairs: processors fetch the neighbour too, so two threads are better not at one pair.
const PAIR_BYTES: usize = 2 * LINE_BYTES;

#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Pair([u8; PAIR_BYTES]);

/// Numbers for which every pattern of bits is a value.
///
/// # Safety
/// All-zero bytes are valid, there is no padding, and the size divides a cache line.
pub(super) unsafe trait Number: Copy {}
// SAFETY (all): plain numbers of 1 or 4 bytes.
unsafe impl Number for f32 {}
unsafe impl Number for i32 {}
unsafe impl Number for u8 {}
unsafe impl Number for i8 {}

/// A growable run of numbers that starts on a cache line. New values are zero.
pub struct Buffer<T = f32> {
    lines: Vec<Pair>,
    len: usize,
    _of: PhantomData<T>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, _of: PhantomData }
    }
}

#[allow(private_bounds)]
impl<T: Number> Buffer<T> {
    #[cfg(test)]
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.fit(len);
        buffer
    }

    /// Sets the length; values kept from an earlier use are arbitrary. Memory only ever grows.
    pub fn fit(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(PAIR_BYTES);
        if lines > self.lines.len() {
            self.lines.resize(lines, Pair([0; PAIR_BYTES]));
        }
        self.len = len;
        self
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: lines are bytes without padding, any bytes are a T, and fit() holds len within them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Number> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A mutable slice that parallel tasks write disjoint parts of.
pub(super) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    _life: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<'_, T> {}

// SAFETY: it is a &mut [T] whose users promise (see `part`) to write disjoint parts.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), _life: PhantomData }
    }

    /// Asks for the line of a value, to write it soon; a hint only.
    #[inline(always)]
    pub fn expect(&self, at: usize) {
        prefetch::<true>(self.start.wrapping_add(at));
    }

    /// The first of `len` values from `from` on, all of which are there.
    #[inline(always)]
    pub fn run(&self, from: usize, len: usize) -> *mut T {
        assert!(from <= self.len && len <= self.len - from, "{from}+{len} of {}", self.len);
        self.start.wrapping_add(from)
    }

    /// # Safety
    /// No two live parts overlap, in this or another thread.
    #[inline(always)]
    pub unsafe fn part(&self, from: usize, len: usize) -> &'a mut [T] {
        let start = self.run(from, len);
        // SAFETY: within the slice by the line above; the caller holds disjointness.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// As [`Shared::part`], of a length known at compile time: copies become vector moves.
    ///
    /// # Safety
    /// As for [`Shared::part`].
    #[inline(always)]
    pub unsafe fn array<const C: usize>(&self, from: usize) -> &'a mut [T; C] {
        // SAFETY: the caller holds disjointness.
        unsafe { self.part(from, C) }.try_into().expect("the part has C values")
    }
}

/// Asks for a cache line, near where it will be written (`NEAR`) or anywhere above memory; a hint only.
#[inline(always)]
pub(super) fn prefetch<const NEAR: bool>(at: *const impl Sized) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, at any address; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
        if NEAR {
            _mm_prefetch::<_MM_HINT_ET0>(at.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Up to N values of `row` from `at` on, zeros beyond.
#[inline(always)]
pub(super) fn part<const N: usize>(row: &[f32], at: usize) -> [f32; N] {
    let rest = row.get(at..).unwrap_or(&[]);
    match rest.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut some = [0.0; N];
            some[..rest.len()].copy_from_slice(rest);
            some
        }
    }
}

/// As [`first`], to write to: assigning an array is a vector store, `copy_from_slice` may be a call.
#[inline(always)]
pub(super) fn first_mut<const C: usize, T>(values: &mut [T]) -> &mut [T; C] {
    values.first_chunk_mut().expect("the slice has at least C values")
}

/// The first C values: a slice of a length known at compile time.
#[inline(always)]
pub(super) fn first<const C: usize, T>(values: &[T]) -> &[T; C] {
    values.first_chunk().expect("the slice has at least C values")
}
