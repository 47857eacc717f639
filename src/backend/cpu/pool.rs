//! A thread pool for one owner: many short parallel loops, a few microseconds apart.
//!
//! The caller works too. Tasks are handed out one by one, so a core that someone else is using slows
//! nothing but its own task; long tasks (see `spread`) leave less to share out again. A worker joins a loop
//! only while it is open, and the caller waits only for those that joined: a worker that sleeps or is not
//! scheduled never holds a loop up.
//! Which thread runs a task never changes its result.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// The gate's bits: generation of the loop, then "may be joined", then how many have joined.
const OPEN: u64 = 1 << 16;
const GENERATION: u64 = 1 << 17;
const JOINED: u64 = OPEN - 1;
/// Spins (some 20 to 50 µs) before an idle worker sleeps: longer than the gap between two loops of
/// products, far shorter than the gap between two windows.
const SPINS: u32 = 2_000;

#[derive(Clone, Copy)]
struct Job {
    run: unsafe fn(*const (), usize),
    context: *const (),
    tasks: usize,
}

struct Inner {
    gate: AtomicU64,
    next: AtomicUsize,
    /// Written only while the gate is closed and nobody has joined; read only by who joined.
    job: UnsafeCell<Job>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is the only part without its own synchronisation; the gate orders its one writer
// before its readers (see `job`).
unsafe impl Sync for Inner {}
// SAFETY: the pointers in `job` are followed only while `run` holds what they point to.
unsafe impl Send for Inner {}

/// Threads that share the tasks of a loop with its caller.
pub struct Pool {
    inner: Arc<Inner>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a loop: a loop started inside a loop, or from a second thread, runs on its caller.
    busy: Mutex<()>,
}

impl Pool {
    /// `threads` in all, the caller included; 0 takes one per available core, more than 1024 are 1024.
    pub fn new(threads: usize) -> Self {
        let threads = crate::backend::threads(threads);
        let nothing: unsafe fn(*const (), usize) = |_, _| {};
        let inner = Arc::new(Inner {
            gate: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { run: nothing, context: std::ptr::null(), tasks: 0 }),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|i| {
                let inner = inner.clone();
                // Fewer threads than asked for still give the same results.
                std::thread::Builder::new().name(format!("xclip-cpu-{i}")).spawn(move || inner.work()).ok()
            })
            .collect();
        Self { inner, workers, busy: Mutex::new(()) }
    }

    /// Threads that work in a loop, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0) … task(tasks - 1)`, each once, in any order and on any thread, and returns when all
    /// are done. A task's panic is passed on.
    pub fn run<F: Fn(usize) + Sync>(&self, tasks: usize, task: F) {
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(task);
        }
        let Ok(guard) = self.busy.try_lock() else { return (0..tasks).for_each(task) };
        unsafe fn call<F: Fn(usize)>(context: *const (), i: usize) {
            // SAFETY: `context` is the &F of the `run` that is waiting for this call.
            unsafe { (*context.cast::<F>())(i) }
        }
        let inner = &*self.inner;
        let job = Job { run: call::<F>, context: (&raw const task).cast(), tasks };
        // SAFETY: the gate is closed and nobody has joined, since the last loop waited for that.
        unsafe { *inner.job.get() = job };
        inner.next.store(0, Ordering::Relaxed);
        let generation = (inner.gate.load(Ordering::Relaxed) & !(GENERATION - 1)).wrapping_add(GENERATION);
        inner.gate.store(generation | OPEN, Ordering::SeqCst);
        if inner.sleepers.load(Ordering::SeqCst) > 0 {
            let _lock = inner.lock.lock();
            inner.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| inner.drain(job)));
        if own.is_err() {
            inner.next.store(tasks, Ordering::Relaxed);
        }
        inner.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while inner.gate.load(Ordering::Acquire) & JOINED != 0 {
            spins += 1;
            // With more threads than cores the joined worker may need this very core.
            if spins > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        drop(guard);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!inner.panicked.swap(false, Ordering::Relaxed), "a parallel task panicked");
    }
}

impl Inner {
    fn drain(&self, job: Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.tasks {
                return;
            }
            // SAFETY: the `run` that opened this job waits until everybody who joined has left.
            unsafe { (job.run)(job.context, i) }
        }
    }

    fn work(&self) {
        let mut seen = 0;
        while let Some(generation) = self.join(seen) {
            seen = generation;
            // SAFETY: joined, so the job stands until this thread leaves.
            let job = unsafe { *self.job.get() };
            if catch_unwind(AssertUnwindSafe(|| self.drain(job))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
                self.next.store(job.tasks, Ordering::Relaxed);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a loop after generation `seen` and joins it; None when the pool ends.
    fn join(&self, seen: u64) -> Option<u64> {
        let fresh = |gate: u64| gate & OPEN != 0 && gate & !(GENERATION - 1) != seen;
        let mut spins = 0;
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if fresh(gate) {
                if self
                    .gate
                    .compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
                {
                    return Some(gate & !(GENERATION - 1));
                }
                continue;
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            let mut lock = self.lock.lock().unwrap_or_else(|e| e.into_inner());
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !fresh(self.gate.load(Ordering::SeqCst)) && !self.stop.load(Ordering::SeqCst) {
                lock = self.wake.wait(lock).unwrap_or_else(|e| e.into_inner());
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            drop(lock);
            spins = 0;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        {
            let _lock = self.inner.lock.lock();
            self.inner.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics; nothing else in it can fail.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_every_loop() {
        let pool = Pool::new(4);
        for round in 0..2000 {
            let tasks = round % 37;
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn workers_that_sleep_wake_for_the_next_loop() {
        let pool = Pool::new(2);
        let names = Mutex::new(std::collections::HashSet::new());
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(3));
            pool.run(2, |_| {
                names.lock().unwrap().insert(std::thread::current().id());
                std::thread::sleep(std::time::Duration::from_millis(10));
            });
        }
        assert_eq!(names.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_loop_inside_a_loop_runs_on_its_caller() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        pool.run(5, |i| {
            pool.run(7, |j| {
                sum.fetch_add(i * 7 + j, Ordering::Relaxed);
            })
        });
        assert_eq!(sum.load(Ordering::Relaxed), (0..35usize).sum::<usize>());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for (tasks, bad) in [(100, 0), (1, 0), (100, 50), (100, 99)] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(tasks, |i| assert!(i != bad, "task {i}"));
            }));
            assert!(result.is_err());
            assert!(!pool.busy.is_poisoned(), "all loops to come would run on one thread");
            let sum = AtomicUsize::new(0);
            pool.run(10, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 45);
        }
    }
}
