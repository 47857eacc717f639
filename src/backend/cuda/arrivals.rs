//! Room for pictures that have arrived and are not prepared yet: slots of patch rows on the device, and blocks
//! of page-locked memory that hold the samples they are made of. Bounded; who finds no room goes another way.
//!
//! Both come back on any thread, maybe while the device still works on them. An event marks the last use of
//! each, and whoever takes it next waits for that: on the device for a slot, on the host for a block, which
//! is free after a copy. The longest free goes first, so that there is hardly ever something to wait for.

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
    /// The last use of each slot.
    used: Vec<Event>,
    free: Mutex<VecDeque<usize>>,
    blocks: Mutex<Blocks>,
    pub context: Arc<Context>,
}

#[derive(Default)]
struct Blocks {
    free: VecDeque<Locked>,
    /// Of all there are.
    bytes: usize,
}

struct Locked {
    memory: Pinned<u8>,
    used: Event,
}

/// One picture's patch rows; comes back when dropped.
pub(super) struct Slot {
    number: usize,
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
        let used: Result<Vec<Event>, _> = (0..slots).map(|_| Event::new(context, sys::UNTIMED)).collect();
        let (free, blocks) = (Mutex::new((0..slots).collect()), Mutex::default());
        Ok(Arc::new(Self { rows, size, used: used?, free, blocks, context: context.clone() }))
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
        let number = lock(&self.free).pop_front()?;
        Some(Slot { number, arrivals: self.clone() })
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
        while blocks.bytes + size > MOST_BLOCK_BYTES {
            // Cameras of another size have left these.
            let Some(other) = blocks.free.pop_front() else { return Ok(None) };
            blocks.bytes -= other.memory.len();
            other.used.synchronize()?;
        }
        let memory = Pinned::new(&self.context, size)?;
        let locked = Locked { memory, used: Event::new(&self.context, sys::UNTIMED)? };
        blocks.bytes += size;
        Ok(Some(Block { locked: Some(locked), arrivals: self.clone() }))
    }
}

impl Slot {
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn rows(&self) -> At<f16> {
        self.arrivals.rows.from(self.number * self.arrivals.size)
    }

    /// Marks the last use so far; queued work that uses the slot waits for it first, and records it then.
    pub fn used(&self) -> &Event {
        &self.arrivals.used[self.number]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.arrivals.free).push_back(self.number);
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
