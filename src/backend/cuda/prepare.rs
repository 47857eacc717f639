//! What comes before a batch: new frames → their states on the device.
//!
//! Frames are prepared in groups that fit the buffers, one graph each. The host lays a group's inputs out while the
//! device works on the group before (`work::Staged`). Which set a group takes follows from its number in the call: a
//! call of one group, as most are, always runs the same graph.

use std::borrow::Cow;
use std::sync::Arc;

use super::CudaError;
use super::arrivals::Slot;
use super::backend::CudaBackend;
use super::device::Event;
use super::graphs::Key;
use super::launcher::{Lane, Launcher};
use super::sys;
use super::trace::Tracer;
use super::vision::Pictures;
use super::work::STAGING_SETS;
use crate::backend::{BackendError, Prepared};

/// A group of frames, by how they came to be prepared.
enum Arrived<'a> {
    /// As pixels in host memory.
    Pixels(&'a [Cow<'a, [u8]>]),
    /// As patch rows in the reducer's slots.
    Rows(&'a mut [Slot]),
}

impl CudaBackend {
    /// The states of frames that came as pixels, then of those in slots. Slots may go back when it returns.
    pub(super) fn prepare_arrived(
        &mut self,
        pixels: &[Cow<'_, [u8]>],
        rows: &mut [Slot],
    ) -> Result<Vec<Prepared>, BackendError> {
        let (most, mut states) = (self.work.sizes.frames, Vec::with_capacity(pixels.len() + rows.len()));
        let (pixels, rows) = (pixels.chunks(most), rows.chunks_mut(most));
        let groups = pixels.map(Arrived::Pixels).chain(rows.map(Arrived::Rows));
        for (number, group) in groups.enumerate() {
            states.extend(self.prepare_group(group, number % STAGING_SETS)?);
        }
        Ok(states)
    }

    /// At most `sizes.frames` frames, staged in this set.
    fn prepare_group(&mut self, frames: Arrived<'_>, set: usize) -> Result<Vec<Prepared>, CudaError> {
        let Self { launcher, graphs, config, weights, work, reducer, trace, .. } = self;
        if let Some(read) = &work.read[set] {
            read.synchronize()?;
        }
        let bytes = 3 * config.image_size.pow(2);
        let count = match &frames {
            Arrived::Pixels(frames) => {
                for (to, rgb) in work.pixels.host(set).chunks_mut(bytes).zip(*frames) {
                    to.copy_from_slice(rgb);
                }
                frames.len()
            }
            Arrived::Rows(frames) => {
                // Unused places repeat the last one.
                let numbers = frames.iter().chain(frames.last().into_iter().cycle());
                for (to, slot) in work.picture_slots.host(set).iter_mut().zip(numbers) {
                    *to = slot.number() as i32;
                }
                // They arrive in one stream: with the last, all are there.
                if let Some(last) = frames.iter().max_by_key(|slot| slot.order) {
                    launcher.stream(Lane::Main).wait(last.arrived())?;
                }
                frames.len()
            }
        };
        let slots = work.ring.take(count);
        let staged = work.new_slots.host(set);
        staged.fill(-1);
        staged[..count].copy_from_slice(&slots);
        let traced = trace.is_some();
        let bucket = if traced { count } else { work.sizes.frame_bucket(count) };
        let shared = &*work;
        let (key, all) = match frames {
            Arrived::Pixels(_) => (Key::Prepare(bucket, set), None),
            Arrived::Rows(_) => {
                (Key::PrepareRows(bucket, set), reducer.as_ref().map(|reducer| reducer.rows()))
            }
        };
        let inputs = || {
            match all {
                None => shared.pixels.send(launcher, set, bucket * bytes)?,
                Some(_) => shared.picture_slots.send(launcher, set, bucket)?,
            }
            shared.new_slots.send(launcher, set, bucket)
        };
        let step = |first: usize, tracer: &mut Tracer<'_>| {
            let count = shared.sizes.frame_step.min(bucket - first);
            let pictures = match all {
                None => Pictures::Pixels(shared.pixels.at().add(first * bytes)),
                Some(all) => Pictures::Rows { all, slots: shared.picture_slots.at().add(first) },
            };
            let (slots, states) = (shared.new_slots.at().add(first), shared.ring.states());
            weights.vision.prepare(launcher, &shared.vision, pictures, count, slots, states, tracer)
        };
        let mut steps = (0..bucket).step_by(shared.sizes.frame_step);
        let launched = if traced {
            let tracer = &mut Tracer { launcher, trace };
            inputs().and_then(|()| steps.try_for_each(|first| step(first, tracer)))
        } else {
            graphs.run(launcher, key, || {
                inputs()?;
                let tracer = &mut Tracer { launcher, trace: &mut None };
                steps.clone().try_for_each(|first| step(first, tracer))
            })
        };
        let read = launched.and_then(|()| mark(launcher)).inspect_err(|_| {
            // What was queued of it is done with its slots and inputs before others take them.
            let _ = launcher.settle();
            work.ring.give_back(&slots);
        })?;
        if let Arrived::Rows(frames) = frames {
            frames.iter_mut().for_each(|slot| slot.read = Some(read.clone()));
        }
        work.read[set] = Some(read);
        work.ring.keep(launcher, &slots)
    }
}

/// Here in the main stream.
fn mark(launcher: &Launcher) -> Result<Arc<Event>, CudaError> {
    let event = Event::new(&launcher.context, sys::UNTIMED)?;
    event.record(launcher.stream(Lane::Main))?;
    Ok(Arc::new(event))
}
