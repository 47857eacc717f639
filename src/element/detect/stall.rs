//! Notices that a live stream fell silent: no buffer for as long as the detector tolerates.
//!
//! One shot on the pipeline's clock at a time, re-armed for the rest if buffers came meanwhile, so a
//! buffer costs a look at the clock, no timer. While the streaming thread is in the element or
//! downstream, or the pipeline is not playing, nothing stalls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use gstreamer as gst;

#[derive(Default)]
pub struct Stall {
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    armed: Option<Armed>,
    /// The streaming thread is with a buffer, here or downstream.
    busy: bool,
    /// Clock time when the last buffer left, or playing began.
    last: Option<gst::ClockTime>,
    timer: Option<gst::SingleShotClockId>,
}

#[derive(Clone)]
struct Armed {
    clock: gst::Clock,
    timeout: gst::ClockTime,
    stalled: Arc<dyn Fn() + Send + Sync>,
}

impl Stall {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        // Nothing in here panics half-way through a change.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `stalled` is called, on the clock's thread, when no buffer came for `timeout`; again
    /// only after another buffer.
    pub fn arm(
        self: &Arc<Self>,
        clock: gst::Clock,
        timeout: gst::ClockTime,
        stalled: Arc<dyn Fn() + Send + Sync>,
    ) {
        self.disarm();
        let mut watch = self.lock();
        watch.last = Some(clock.time());
        watch.armed = Some(Armed { clock, timeout, stalled });
        self.schedule(&mut watch);
    }

    pub fn disarm(&self) {
        let mut watch = self.lock();
        watch.armed = None;
        let timer = watch.timer.take();
        drop(watch);
        // Not under the lock: the clock may be calling us.
        if let Some(timer) = timer {
            timer.unschedule();
        }
    }

    pub fn is_armed(&self) -> bool {
        self.lock().armed.is_some()
    }

    /// A buffer came; until the guard is dropped the stream is busy.
    pub fn buffer(self: &Arc<Self>) -> Busy {
        self.lock().busy = true;
        Busy(self.clone())
    }

    fn schedule(self: &Arc<Self>, watch: &mut Watch) {
        let (Some(armed), Some(last)) = (&watch.armed, watch.last) else { return };
        if watch.timer.is_some() {
            return;
        }
        let timer = armed.clock.new_single_shot_id(last + armed.timeout);
        let stall = Arc::downgrade(self);
        let result = timer.wait_async(move |_, _, _| {
            if let Some(stall) = stall.upgrade() {
                stall.fired();
            }
        });
        if result.is_ok() {
            watch.timer = Some(timer);
        }
    }

    fn fired(self: &Arc<Self>) {
        let mut watch = self.lock();
        let Some(armed) = watch.armed.clone() else { return };
        watch.timer = None;
        if watch.busy {
            return; // the next timer starts when the buffer has left
        }
        let now = armed.clock.time();
        let silent = watch.last.and_then(|last| now.checked_sub(last));
        if silent.is_some_and(|silent| silent >= armed.timeout) {
            watch.last = None;
            drop(watch);
            (armed.stalled)();
        } else {
            self.schedule(&mut watch);
        }
    }
}

pub struct Busy(Arc<Stall>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut watch = self.0.lock();
        watch.busy = false;
        if let Some(armed) = &watch.armed {
            watch.last = Some(armed.clock.time());
            self.0.schedule(&mut watch);
        }
    }
}
