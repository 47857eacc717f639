//! Results leave in the order they were decided, one thread at a time, with no lock held.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use super::{Outlet, WindowScores};
use crate::engine::EngineError;
use crate::event::Event;

pub(super) enum Item {
    Event(Box<Event>),
    Window(WindowScores),
    TakenOver(Arc<str>),
    Failed(Arc<EngineError>),
}

#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    empty: Condvar,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// The thread that delivers now.
    carrier: Option<ThreadId>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Queues; called under the lock that decided the order.
    pub fn put(&self, item: Item) {
        self.lock().items.push_back(item);
    }

    /// Delivers everything queued. If another thread is at it, that one delivers ours too: waits up to
    /// `patience` for it to be done, then leaves it to it. From within a delivery it returns at once.
    pub fn deliver(&self, outlet: &dyn Outlet, patience: Duration) {
        let this = std::thread::current().id();
        let mut inner = self.lock();
        if inner.carrier == Some(this) {
            return;
        }
        if inner.carrier.is_some() {
            let busy = |inner: &mut Inner| inner.carrier.is_some();
            inner = self.empty.wait_timeout_while(inner, patience, busy).unwrap_or_else(|e| e.into_inner()).0;
            if inner.carrier.is_some() {
                return;
            }
        }
        inner.carrier = Some(this);
        let mut leave = Leave { outbox: self, done: false };
        loop {
            let Some(item) = inner.items.pop_front() else {
                // Under the same lock as the look: nothing put after it can be missed.
                inner.carrier = None;
                leave.done = true;
                drop(inner);
                return;
            };
            drop(inner);
            match &item {
                Item::Event(event) => outlet.event(event),
                Item::Window(window) => outlet.window(window),
                Item::TakenOver(why) => outlet.taken_over(why),
                Item::Failed(error) => outlet.failed(error),
            }
            inner = self.lock();
        }
    }
}

/// Lets the next carrier in, also when an outlet panicked.
struct Leave<'a> {
    outbox: &'a Outbox,
    done: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.outbox.lock().carrier = None;
        }
        self.outbox.empty.notify_all();
    }
}
