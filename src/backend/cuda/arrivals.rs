//! Room for pictures that have arrived and are not prepared yet: slots of patch rows on the device, and blocks
//! of page-locked memory that hold the samples they are made of. Bounded; who finds no room goes another way.
//!
//! Both come back on any thread, maybe while the device still works on them. An event marks the last use of
//! each, and whoever takes it next waits for that: on the device for a slot, on the host for a block, which
//! is free after a copy. The longest free goes first, so that there is hardly ever something to wait for. Hence
//! one event for all slots of a group that are prepared together, but a new one for each group: recorded again, it
//! would hold up who takes a slot of a group long done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use half::f16;

use super::CudaError;
use super::device::{Context, Event};
use super::memory::{At, Buffer, Pinned};
use super::sys;

/// Pictures on the device at once, at most: two new ones of each of 256 streams.
const MOST_SLOTS: usize = 512;
/// Page-locked memory, at most. A stream keeps the samples of a window's frames, 14 MB at 1080p.
const MOST_BLOCK_BYTES: usize = 1 << 30;
/// Sizes of blocks are multiples of it, so that cameras of nearly the same size share them.
const BLOCK_UNIT: usize = 1 << 16;

pub(super) struct Arrivals {
    /// [slots, P, columns]
    rows: Buffer<f16>,
    /// Values of a slot.
    size: usize,
    /// When each slot has its picture.
    arrived: Vec<Event>,
    free: Mutex<VecDeque<FreeSlot>>,
    blocks: Mutex<Blocks>,
    pub context: Arc<Context>,
}

struct FreeSlot {
    number: usize,
    read: Option<Arc<Event>>,
}

/// B is [`Locked`].
struct Blocks<B = Locked> {
    free: VecDeque<B>,
    /// Of all there are, and of those that are being made.
    bytes: usize,
}

struct Locked {
    memory: Pinned<u8>,
    used: Event,
}

/// One picture's patch rows; comes back when dropped.
pub(super) struct Slot {
    number: usize,
    /// Which picture of the reducer's it is: later ones arrive after it.
    pub order: u64,
    /// After the group that read its last picture. Another picture waits for it; those that nobody read are
    /// followed in the order of the reducer's stream.
    pub read: Option<Arc<Event>>,
    arrivals: Arc<Arrivals>,
}

/// Page-locked memory for one picture's samples; comes back when dropped.
pub(super) struct Block {
    /// None on the way out only.
    locked: Option<Locked>,
    arrivals: Arc<Arrivals>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Arrivals {
    /// Slots of `size` values, as many as are of use and fit a sixteenth of the free memory.
    pub fn new(context: &Arc<Context>, size: usize) -> Result<Arc<Self>, CudaError> {
        let fitting = context.free_bytes()? / 16 / (size * size_of::<f16>()).max(1);
        let slots = fitting.clamp(1, MOST_SLOTS);
        let rows = Buffer::new(context, "pictures", slots * size)?;
        let arrived: Result<Vec<Event>, _> = (0..slots).map(|_| Event::new(context, sys::UNTIMED)).collect();
        let free = Mutex::new((0..slots).map(|number| FreeSlot { number, read: None }).collect());
        let blocks = Mutex::new(Blocks { free: VecDeque::new(), bytes: 0 });
        Ok(Arc::new(Self { rows, size, arrived: arrived?, free, blocks, context: context.clone() }))
    }

    /// The first slot's rows.
    pub fn rows(&self) -> At<f16> {
        self.rows.at()
    }

    /// Values of a slot.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let FreeSlot { number, read } = lock(&self.free).pop_front()?;
        Some(Slot { number, order: 0, read, arrivals: self.clone() })
    }

    /// A block of at least `bytes`, which nothing uses any more. `None`: all there may be are in use.
    pub fn take_block(self: &Arc<Self>, bytes: usize) -> Result<Option<Block>, CudaError> {
        let mut blocks = lock(&self.blocks);
        let size = bytes.next_multiple_of(BLOCK_UNIT);
        let fits = |locked: &Locked| (size..=2 * size).contains(&locked.memory.len());
        if let Some(at) = blocks.free.iter().position(fits) {
            let locked = blocks.free.remove(at);
            drop(blocks);
            let block = Block { locked, arrivals: self.clone() };
            block.used().synchronize()?;
            return Ok(Some(block));
        }
        let Some(others) = blocks.make_room(size, MOST_BLOCK_BYTES, |locked| locked.memory.len()) else {
            return Ok(None);
        };
        // Memory is freed and locked in the driver's own time: other blocks come back meanwhile.
        drop(blocks);
        let freed = others.into_iter().try_for_each(|other| other.used.synchronize());
        let locked = freed.and_then(|()| Locked::new(&self.context, size));
        if locked.is_err() {
            lock(&self.blocks).bytes -= size;
        }
        Ok(Some(Block { locked: Some(locked?), arrivals: self.clone() }))
    }
}

impl<B> Blocks<B> {
    /// Counts `size` bytes in, and gives the free blocks that have to go for them: cameras of another size have
    /// left these. `None`, and all stay, where those in use leave no room within `most`.
    fn make_room(&mut self, size: usize, most: usize, len: impl Fn(&B) -> usize) -> Option<Vec<B>> {
        let free: usize = self.free.iter().map(&len).sum();
        if self.bytes - free + size > most {
            return None;
        }
        self.bytes += size;
        let mut others = Vec::new();
        while self.bytes > most
            && let Some(other) = self.free.pop_front()
        {
            self.bytes -= len(&other);
            others.push(other);
        }
        Some(others)
    }
}

impl Locked {
    fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        Ok(Self { memory: Pinned::new(context, bytes)?, used: Event::new(context, sys::UNTIMED)? })
    }
}

impl Slot {
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn rows(&self) -> At<f16> {
        self.arrivals.rows.from(self.number * self.arrivals.size)
    }

    /// Marks the picture's arrival; to be recorded after its rows were queued.
    pub fn arrived(&self) -> &Event {
        &self.arrivals.arrived[self.number]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let free = FreeSlot { number: self.number, read: self.read.take() };
        lock(&self.arrivals.free).push_back(free);
    }
}

impl Block {
    fn locked(&self) -> &Locked {
        self.locked.as_ref().expect("taken by drop only")
    }

    pub fn memory(&self) -> &Pinned<u8> {
        &self.locked().memory
    }

    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.locked.as_mut().expect("taken by drop only").memory
    }

    /// Marks the last use; to be recorded after a copy was queued.
    pub fn used(&self) -> &Event {
        &self.locked().used
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        lock(&self.arrivals.blocks).free.extend(self.locked.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_go_for_new_ones_only_where_that_makes_room() {
        // 6 of 9 bytes in use.
        let mut blocks = Blocks { free: VecDeque::from([1, 2]), bytes: 9 };
        let mut make_room =
            |size| blocks.make_room(size, 10, |block| *block).map(|gone| (gone, blocks.bytes));
        assert_eq!(make_room(5), None, "those in use leave 4");
        assert_eq!(make_room(1), Some((vec![], 10)));
        assert_eq!(make_room(2), Some((vec![1, 2], 9)), "the longest free first");
        assert_eq!(make_room(1), Some((vec![], 10)));
        assert_eq!(make_room(1), None);
    }
}
