//! States of prepared frames in device memory: a fixed number of slots, each returned when its frame is
//! forgotten. A frame that finds no slot keeps its state on the host and visits a guest slot when needed.

use std::sync::{Arc, Mutex};

use half::f16;

use super::CudaError;
use super::launcher::Launcher;
use super::memory::{At, Buffer, Pinned};
use crate::backend::Prepared;

/// Slots of one ring that are free; frames may be dropped on any thread.
struct Free(Mutex<Vec<i32>>);

/// One frame's residual rows after block 0: L·D values.
struct State {
    place: Place,
    free: Arc<Free>,
}

enum Place {
    Slot(i32),
    Host(Vec<f16>),
}

impl Drop for State {
    fn drop(&mut self) {
        // Whatever reads the slot was queued before whatever will write it, in one stream.
        if let Place::Slot(slot) = self.place {
            self.free.0.lock().unwrap_or_else(|e| e.into_inner()).push(slot);
        }
    }
}

pub(super) struct Ring {
    states: Buffer<f16>,
    /// Values of a state.
    size: usize,
    /// The first guest slot.
    guests: usize,
    guest_count: usize,
    free: Arc<Free>,
    /// States on their way between guest slots and the host.
    staged: Pinned<f16>,
    warned: bool,
}

impl Ring {
    /// `slots` states of `size` values to keep, and `guests` for those that found no slot.
    pub fn new(launcher: &Launcher, size: usize, slots: usize, guests: usize) -> Result<Self, CudaError> {
        let states = Buffer::new(&launcher.context, "states of prepared frames", (slots + guests) * size)?;
        launcher.clear(&states)?;
        let free = Mutex::new((0..slots as i32).rev().collect());
        Ok(Self {
            states,
            size,
            guests: slots,
            guest_count: guests,
            free: Arc::new(Free(free)),
            staged: Pinned::new(&launcher.context, size)?,
            warned: false,
        })
    }

    pub fn states(&self) -> At<f16> {
        self.states.at()
    }

    /// A slot for each of `count` new frames, guests' where no other is free. At most as many as guest slots.
    pub fn take(&mut self, count: usize) -> Vec<i32> {
        assert!(count <= self.guest_count, "frames are prepared in groups that fit the guest slots");
        let mut free = self.free.0.lock().unwrap_or_else(|e| e.into_inner());
        let own = free.len().min(count);
        let at = free.len() - own;
        let mut slots = free.split_off(at);
        drop(free);
        if own < count && !self.warned {
            self.warned = true;
            tracing::warn!(
                "all {} slots for prepared frames are in use: more frames wait in host memory, which costs time",
                self.guests
            );
        }
        slots.extend((0..count - own).map(|guest| (self.guests + guest) as i32));
        slots
    }

    /// Returns slots that came to no use.
    pub fn give_back(&self, slots: &[i32]) {
        let own = slots.iter().filter(|slot| (**slot as usize) < self.guests);
        self.free.0.lock().unwrap_or_else(|e| e.into_inner()).extend(own);
    }

    /// Handles on states that queued work writes to `slots`. Those in guest slots are fetched, which waits.
    pub fn keep(&mut self, launcher: &Launcher, slots: &[i32]) -> Result<Vec<Prepared>, CudaError> {
        let mut states: Vec<Prepared> = Vec::with_capacity(slots.len());
        for (i, slot) in slots.iter().enumerate() {
            let place = if (*slot as usize) < self.guests {
                Place::Slot(*slot)
            } else {
                match self.fetch(launcher, *slot as usize) {
                    Ok(values) => Place::Host(values),
                    Err(error) => {
                        self.give_back(&slots[i..]);
                        return Err(error);
                    }
                }
            };
            states.push(Arc::new(State { place, free: self.free.clone() }));
        }
        Ok(states)
    }

    fn fetch(&mut self, launcher: &Launcher, slot: usize) -> Result<Vec<f16>, CudaError> {
        launcher.copy_out(&self.staged, self.states.from(slot * self.size), self.size)?;
        launcher.finish()?;
        Ok(self.staged.to_vec())
    }

    /// Whether the state is in host memory; `None` for another backend's.
    pub fn is_guest(&self, frame: &Prepared) -> Option<bool> {
        let state = self.own(frame)?;
        Some(matches!(state.place, Place::Host(_)))
    }

    fn own<'a>(&self, frame: &'a Prepared) -> Option<&'a State> {
        frame.downcast_ref::<State>().filter(|state| Arc::ptr_eq(&state.free, &self.free))
    }

    /// How many states in host memory one call can bring along.
    pub fn guest_count(&self) -> usize {
        self.guest_count
    }

    /// Where each frame's state is; those on the host are brought to guest slots first. All are own.
    pub fn slots(&mut self, launcher: &Launcher, frames: &[&Prepared]) -> Result<Vec<i32>, CudaError> {
        let mut guest = self.guests;
        let mut slots = Vec::with_capacity(frames.len());
        for frame in frames {
            let state = frame.downcast_ref::<State>().expect("the caller asked `is_guest`");
            match &state.place {
                Place::Slot(slot) => slots.push(*slot),
                Place::Host(values) => {
                    launcher.upload(self.states.from(guest * self.size), values)?;
                    slots.push(guest as i32);
                    guest += 1;
                }
            }
        }
        assert!(guest <= self.guests + self.guest_count, "the caller counted the guests");
        Ok(slots)
    }
}
