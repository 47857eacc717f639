//! What waits: one pending job per stream, served in the order of [`turns`](super::turns), nothing lost
//! silently.
//!
//! Invariant: every job's `done` is called exactly once and with no lock held, whatever happens to
//! the stream, the engine or the worker.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::turns::{Ask, Turn, Turns};
use super::{Dropped, EngineError, Job, Prompts, Scored, Serving, State};
use crate::backend::{BackendError, DeviceReducer, taken_over};

/// Called with every state until it returns false.
pub(super) type Observer = Box<dyn FnMut(&State) -> bool + Send>;

/// What engine handles, streams and the worker share.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Work came, or the last user went.
    wake: Condvar,
}

struct Inner {
    state: State,
    serving: Option<Arc<Serving>>,
    /// Why it is the CPU that serves.
    takeover: Option<Arc<str>>,
    /// Of the backend that serves.
    reducer: Option<Arc<dyn DeviceReducer>>,
    /// Engine handles. At 0 the worker ends as soon as it sees it. Counted here and not by the handles'
    /// `Arc`: one may be on its way out while another joins.
    users: usize,
    /// The worker is gone or about to go: nobody serves this queue any more.
    exited: bool,
    slots: BTreeMap<u64, Slot>,
    next_id: u64,
    turns: Turns,
    observers: Vec<Arc<Mutex<Observer>>>,
}

#[derive(Default)]
struct Slot {
    pending: Option<Waiting>,
    warm: Option<Prompts>,
    /// Counts cancels: a `run` begun before one must not wait after it.
    cancels: u64,
    waiter: Option<Arc<Waiter>>,
    turn: Turn,
}

/// A job in the queue or in work. Dropping it without an answer cancels it, so that no path through
/// a panic or a shutdown leaves a caller waiting.
pub(super) struct Waiting {
    job: Option<Job>,
    pub(super) submitted: Instant,
}

impl Waiting {
    fn new(job: Job) -> Self {
        Self { job: Some(job), submitted: Instant::now() }
    }

    pub(super) fn job(&self) -> &Job {
        self.job.as_ref().expect("taken only by `answer`, which consumes self")
    }

    pub(super) fn answer(mut self, result: Result<Scored, Dropped>) {
        self.call(result);
    }

    fn call(&mut self, result: Result<Scored, Dropped>) {
        let Some(job) = self.job.take() else { return };
        // A caller's panic must not take the worker, and with it the other streams, along.
        if catch_unwind(AssertUnwindSafe(|| (job.done)(result))).is_err() {
            tracing::error!("a result callback panicked; the window is lost, the engine goes on");
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.call(Err(Dropped::Cancelled));
    }
}

/// A thread in `run`.
#[derive(Default)]
struct Waiter {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Waiter {
    fn release(&self) {
        *lock(&self.over) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let over = lock(&self.over);
        drop(self.changed.wait_while(over, |over| !*over).unwrap_or_else(|e| e.into_inner()));
    }
}

/// Releases the waiter when the job's closure is gone, called or not.
struct Release(Arc<Waiter>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// What the worker does next.
pub(super) enum Todo {
    Windows(Vec<Waiting>),
    /// Encode some of these prompts.
    Texts(Prompts),
    End,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No invariant spans a panic: values are moved in and out whole.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Inner {
    /// The stream's newest job; the one it replaces is to be told, without the lock.
    fn put(&mut self, id: u64, ask: Ask, new: Waiting) -> Option<Waiting> {
        let slot = self.slots.entry(id).or_default();
        self.turns.ask(&mut slot.turn, ask, slot.pending.is_none());
        slot.pending.replace(new)
    }
}

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        let inner = Inner {
            state: State::Loading,
            serving: None,
            takeover: None,
            reducer: None,
            users: 1,
            exited: false,
            slots: BTreeMap::new(),
            next_id: 1,
            turns: Turns::default(),
            observers: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), wake: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub(super) fn serving(&self) -> Option<Arc<Serving>> {
        self.lock().serving.clone()
    }

    pub(super) fn set_serving(&self, serving: Serving) {
        self.lock().serving = Some(Arc::new(serving));
    }

    pub(super) fn takeover(&self) -> Option<Arc<str>> {
        self.lock().takeover.clone()
    }

    pub(super) fn set_takeover(&self, why: &BackendError) {
        self.lock().takeover = Some(taken_over(why).into());
    }

    pub(super) fn reducer(&self) -> Option<Arc<dyn DeviceReducer>> {
        self.lock().reducer.clone()
    }

    pub(super) fn set_reducer(&self, reducer: Option<Arc<dyn DeviceReducer>>) {
        let before = std::mem::replace(&mut self.lock().reducer, reducer);
        // Frees a device's memory, with no lock held.
        drop(before);
    }

    /// One more user, if the worker still serves; also where the last one left and it has not ended yet.
    pub(super) fn join(&self) -> bool {
        let mut inner = self.lock();
        inner.users += usize::from(!inner.exited);
        !inner.exited
    }

    pub(super) fn leave(&self) {
        self.lock().users -= 1;
        self.wake.notify_all();
    }

    pub(super) fn observe(&self, observer: Observer) {
        let observer = Arc::new(Mutex::new(observer));
        // Held until the present state was told, so that a later one cannot overtake it.
        let mut call = lock(&observer);
        let state = {
            let mut inner = self.lock();
            inner.observers.push(observer.clone());
            inner.state.clone()
        };
        if !(*call)(&state) {
            self.lock().observers.retain(|known| !Arc::ptr_eq(known, &observer));
        }
    }

    pub(super) fn add(&self) -> u64 {
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.slots.insert(id, Slot::default());
        id
    }

    pub(super) fn remove(&self, id: u64) {
        self.cancel(id);
        let slot = self.lock().slots.remove(&id);
        drop(slot);
    }

    /// Async: at once or never.
    pub(super) fn submit(&self, id: u64, job: Job) {
        let new = Waiting::new(job);
        let mut inner = self.lock();
        let refused = match &inner.state {
            State::Loading => Some(Dropped::Loading),
            State::Failed(error) => Some(Dropped::Failed(error.clone())),
            State::Ready => inner.exited.then_some(Dropped::Cancelled),
        };
        if let Some(why) = refused {
            drop(inner);
            return new.answer(Err(why));
        }
        let old = inner.put(id, Ask::Newest(new.submitted), new);
        drop(inner);
        self.wake.notify_all();
        if let Some(old) = old {
            old.answer(Err(Dropped::Superseded));
        }
    }

    pub(super) fn cancels(&self, id: u64) -> u64 {
        self.lock().slots.get(&id).map_or(0, |slot| slot.cancels)
    }

    /// Sync: waits for the answer, unless a cancel came since `cancels` was read.
    pub(super) fn run(&self, id: u64, cancels: Option<u64>, job: Job) {
        let waiter = Arc::new(Waiter::default());
        let release = Release(waiter.clone());
        let done = job.done;
        let done = Box::new(move |result| {
            let _release = release;
            done(result);
        });
        let new = Waiting::new(Job { done, ..job });
        let mut inner = self.lock();
        let refused = match &inner.state {
            State::Failed(error) => Some(Dropped::Failed(error.clone())),
            _ => inner.exited.then_some(Dropped::Cancelled),
        };
        if let Some(why) = refused {
            drop(inner);
            return new.answer(Err(why));
        }
        let slot = inner.slots.entry(id).or_default();
        if cancels.is_some_and(|seen| seen != slot.cancels) {
            drop(inner);
            return new.answer(Err(Dropped::Cancelled));
        }
        slot.waiter = Some(waiter.clone());
        let old = inner.put(id, Ask::Waits, new);
        drop(inner);
        self.wake.notify_all();
        if let Some(old) = old {
            old.answer(Err(Dropped::Superseded));
        }
        waiter.wait();
    }

    pub(super) fn cancel(&self, id: u64) {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(&id) else { return };
        slot.cancels += 1;
        let (pending, waiter) = (slot.pending.take(), slot.waiter.take());
        drop(inner);
        drop(pending); // answers Cancelled
        if let Some(waiter) = waiter {
            waiter.release();
        }
    }

    pub(super) fn warm(&self, id: u64, prompts: Prompts) {
        if let Some(slot) = self.lock().slots.get_mut(&id) {
            slot.warm = Some(prompts);
        }
        self.wake.notify_all();
    }

    /// The worker tells a new state. A failure answers everything that waits.
    pub(super) fn set_state(&self, state: State) {
        let mut inner = self.lock();
        inner.state = state.clone();
        let mut failed = Vec::new();
        if let State::Failed(_) = state {
            inner.exited = true;
            failed = inner.slots.values_mut().filter_map(|slot| slot.pending.take()).collect();
        }
        let observers = inner.observers.clone();
        drop(inner);
        for waiting in failed {
            if let State::Failed(error) = &state {
                waiting.answer(Err(Dropped::Failed(error.clone())));
            }
        }
        let mut leaving = Vec::new();
        for observer in observers {
            let again = catch_unwind(AssertUnwindSafe(|| (*lock(&observer))(&state)));
            if !again.unwrap_or(false) {
                leaving.push(observer);
            }
        }
        self.lock().observers.retain(|known| !leaving.iter().any(|gone| Arc::ptr_eq(known, gone)));
    }

    /// Whether the worker may stop; if so, nobody can join any more.
    pub(super) fn end_if_unused(&self) -> bool {
        let mut inner = self.lock();
        inner.exited |= inner.users == 0;
        inner.exited
    }

    /// Fails the jobs that wait for texts which cannot be encoded.
    pub(super) fn fail_texts(&self, prompts: &Prompts, error: Arc<EngineError>) {
        let mut inner = self.lock();
        let mut failed = Vec::new();
        for slot in inner.slots.values_mut() {
            if slot.warm.as_ref().is_some_and(|warm| Arc::ptr_eq(warm, prompts)) {
                slot.warm = None;
            }
            let waits = |waiting: &mut Waiting| Arc::ptr_eq(&waiting.job().prompts, prompts);
            failed.extend(slot.pending.take_if(waits));
        }
        drop(inner);
        for waiting in failed {
            waiting.answer(Err(Dropped::Failed(error.clone())));
        }
    }

    /// Waits for work. The stream whose turn it is either has its texts encoded a bit further, or is scored
    /// together with up to `batch` − 1 that come after it and are ready too.
    pub(super) fn next(&self, batch: usize, ready: impl Fn(&Prompts) -> bool) -> Todo {
        let mut inner = self.lock();
        loop {
            if inner.users == 0 {
                inner.exited = true;
                return Todo::End;
            }
            let Inner { slots, turns, .. } = &mut *inner;
            let all = slots.len();
            let shares = |slot: &&Slot| turns.shares(&slot.turn, slot.pending.is_some(), all);
            let streams = slots.values().filter(shares).count();
            let (known, sum) = slots
                .values()
                .filter(shares)
                .filter_map(|slot| slot.turn.period())
                .fold((0, 0.0), |(known, sum), period| (known + 1, sum + period));
            let usual = sum / f64::from(known.max(1));
            let mut waiting: Vec<&mut Slot> =
                slots.values_mut().filter(|slot| slot.pending.is_some()).collect();
            waiting.sort_by(|a, b| turns.compare(&a.turn, &b.turn, streams));
            let mut taken = Vec::new();
            for slot in waiting {
                let Some(prompts) = slot.pending.as_ref().map(|waiting| waiting.job().prompts.clone()) else {
                    continue;
                };
                if ready(&prompts) {
                    taken.extend(slot.pending.take());
                    turns.take(&mut slot.turn, usual, streams);
                    if taken.len() == batch {
                        break;
                    }
                } else if taken.is_empty() {
                    turns.take(&mut slot.turn, usual, streams);
                    return Todo::Texts(prompts);
                } else {
                    break; // its turn comes next, before those behind it
                }
            }
            if !taken.is_empty() {
                return Todo::Windows(taken);
            }
            for slot in inner.slots.values_mut() {
                slot.warm.take_if(|prompts| ready(prompts));
                if let Some(prompts) = &slot.warm {
                    return Todo::Texts(prompts.clone());
                }
            }
            inner = self.wake.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
    }
}
