//! Memory for packed weights, in large pages where the system has them. A window reads all weights several
//! times over; in pages of 4 KiB every 64th line of them waits for its address to be looked up.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use super::buffer::Number;

/// What is mapped at a time; pages of it take no memory before they are written.
const REGION: usize = 64 << 20;
/// A large page.
const PAGE: usize = 2 << 20;
/// Slabs start on a pair of cache lines, as a [`Buffer`](super::buffer::Buffer) does.
const ALIGN: usize = 128;

/// Hands out memory that nothing gives back before all that came with it is dropped.
#[derive(Default)]
pub(super) struct Arena(Mutex<Option<Region>>);

struct Region {
    mapping: Arc<Mapping>,
    /// Bytes from the mapping's start that are not handed out yet.
    free: std::ops::Range<usize>,
}

struct Mapping {
    start: *mut u8,
    /// Only kept: slabs are the ones that read and write it.
    _map: MmapMut,
}

// SAFETY (both): the pointer is only copied; what it points to is the slabs', each of which has its own part.
unsafe impl Send for Mapping {}
unsafe impl Sync for Mapping {}

/// Numbers of one's own in a shared region; zero at first.
pub(super) struct Slab<T> {
    start: *mut T,
    len: usize,
    _mapping: Arc<Mapping>,
    _of: PhantomData<T>,
}

// SAFETY (both): it is a Box<[T]> in all but who gives the memory back.
unsafe impl<T: Send> Send for Slab<T> {}
unsafe impl<T: Sync> Sync for Slab<T> {}

impl Arena {
    pub fn zeroed<T: Number>(&self, len: usize) -> Slab<T> {
        let size = (len * size_of::<T>()).next_multiple_of(ALIGN);
        let mut current = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let region = match current.take().filter(|region| region.free.len() >= size) {
            Some(region) => region,
            None => Region::new(size),
        };
        let region = current.insert(region);
        let start = region.mapping.start.wrapping_add(region.free.start).cast();
        region.free.start += size;
        Slab { start, len, _mapping: region.mapping.clone(), _of: PhantomData }
    }
}

impl Region {
    fn new(least: usize) -> Self {
        let size = least.max(REGION).next_multiple_of(PAGE) + PAGE;
        let mut map = MmapMut::map_anon(size).unwrap_or_else(|error| {
            panic!("no memory for weights: {size} bytes cannot be mapped ({error}); free some")
        });
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!("no large pages for weights: {error}");
        }
        let start = map.as_mut_ptr();
        let first = start.align_offset(PAGE);
        Self { mapping: Arc::new(Mapping { start, _map: map }), free: first..size }
    }
}

impl<T: Number> Deref for Slab<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values on a line within a mapping that lives as long as the slab, zero or written as T;
        // no other slab has them.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Number> DerefMut for Slab<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_zero_on_lines_apart_and_outlive_their_arena() {
        let arena = Arena::default();
        let sizes = [1, 0, 31, 4096, 100_000, REGION / 4 - 1, REGION / 4 + 1, 5];
        let mut slabs: Vec<Slab<f32>> = sizes.map(|len| arena.zeroed(len)).into();
        drop(arena);
        for (i, slab) in slabs.iter_mut().enumerate() {
            assert!(slab.len() == sizes[i] && slab.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(slab.iter().all(|v| *v == 0.0), "{i}");
            slab.fill(i as f32 + 1.0);
        }
        for (i, slab) in slabs.iter().enumerate() {
            assert!(slab.iter().all(|v| *v == i as f32 + 1.0), "{i}");
        }
    }

    #[test]
    fn threads_never_get_the_same_part() {
        let arena = Arena::default();
        let slabs: Vec<Slab<i32>> = std::thread::scope(|scope| {
            let take = |id: i32| {
                let mut slab = arena.zeroed(1000);
                slab.fill(id);
                slab
            };
            let threads: Vec<_> = (0..8).map(|id| scope.spawn(move || take(id))).collect();
            threads.into_iter().map(|thread| thread.join().expect("takes a slab")).collect()
        });
        assert!(slabs.iter().zip(0..).all(|(slab, id)| slab.iter().all(|v| *v == id)));
    }
}
