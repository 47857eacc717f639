//! f32 memory on cache lines: vector loads never straddle two lines, and parallel writers of different
//! lines never share one.

use std::ops::{Deref, DerefMut};

/// f32 values per cache line.
pub const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// A growable run of f32 that starts on a cache line. New values are zero.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.fit(len);
        buffer
    }

    /// Sets the length; values kept from an earlier use are arbitrary. Memory only ever grows.
    pub fn fit(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0.0; LINE]));
        }
        self.len = len;
        self
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: Line is 16 f32 without padding, and fit() holds len within the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in deref; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A mutable slice that parallel tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    _life: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a &mut [f32] whose users promise (see `part`) to write disjoint parts.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), _life: std::marker::PhantomData }
    }

    /// # Safety
    /// No two live parts overlap, in this or another thread.
    #[inline(always)]
    pub unsafe fn part(&self, from: usize, len: usize) -> &'a mut [f32] {
        assert!(from <= self.len && len <= self.len - from, "part {from}+{len} of {}", self.len);
        // SAFETY: within the slice by the line above; the caller holds disjointness.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// As [`Shared::part`], of a length known at compile time: copies become vector moves.
    ///
    /// # Safety
    /// As for [`Shared::part`].
    #[inline(always)]
    pub unsafe fn array<const C: usize>(&self, from: usize) -> &'a mut [f32; C] {
        // SAFETY: the caller holds disjointness.
        unsafe { self.part(from, C) }.try_into().expect("the part has C values")
    }
}

/// The first C values: a slice of a length known at compile time.
#[inline(always)]
pub(super) fn first<const C: usize>(values: &[f32]) -> &[f32; C] {
    values.first_chunk().expect("the slice has at least C values")
}
