//! Captured work by size: run once as single launches, captured the second time, replayed from then on.
//!
//! The first, eager run loads kernels and picks algorithms, which a capture must not do.

use std::collections::HashMap;

use super::CudaError;
use super::device::{Event, Graph};
use super::launcher::{Lane, Launcher};
use super::sys;

/// Which work, and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Frames that come as pixels, and the set they are staged in: a captured copy reads one place on the host.
    Prepare(usize, usize),
    /// The same of frames whose patch rows are on the device.
    PrepareRows(usize, usize),
    /// Windows.
    Encode(usize),
    /// Windows and prompts.
    Compare(usize, usize),
}

/// Milliseconds on the device since the last time they were asked for; gaps between the graphs are in none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    pub prepare: f32,
    pub encode: f32,
    pub compare: f32,
}

enum Known {
    Warm,
    Captured(Graph),
    /// This driver cannot capture it.
    Eager,
}

pub(super) struct Graphs {
    known: HashMap<Key, Known>,
    /// False: always single launches.
    pub enabled: bool,
    timing: Option<Timing>,
    /// The end of the last comparison of a sequence that is timed as a whole.
    ended: Option<Event>,
}

struct Timing {
    marks: Vec<(Key, Event, Event)>,
    times: Times,
}

impl Graphs {
    pub fn new() -> Self {
        Self { known: HashMap::new(), enabled: true, timing: None, ended: None }
    }

    /// Runs `work`, which launches the same on the same addresses whenever the key is the same. After an error
    /// nothing of it is pending.
    pub fn run(
        &mut self,
        launcher: &Launcher,
        key: Key,
        mut work: impl FnMut() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let begun = self.mark(launcher)?;
        if let Err(error) = self.run_untimed(launcher, key, &mut work) {
            // Whoever uses the buffers next finds nothing at work on them.
            let _ = launcher.settle();
            return Err(error);
        }
        if let (Some(timing), Some(begun)) = (&mut self.timing, begun) {
            let ended = Event::new(&launcher.context, sys::TIMED)?;
            ended.record(launcher.stream(Lane::Main))?;
            timing.marks.push((key, begun, ended));
        }
        match (&self.ended, key) {
            (Some(ended), Key::Compare(..)) => ended.record(launcher.stream(Lane::Main)),
            _ => Ok(()),
        }
    }

    /// From here on the end of each comparison is marked, until `end_sequence` takes the last mark; before the
    /// first one it is here. Between other graphs nothing is marked, which would hold them apart.
    pub fn begin_sequence(&mut self, launcher: &Launcher) -> Result<(), CudaError> {
        let ended = Event::new(&launcher.context, sys::TIMED)?;
        ended.record(launcher.stream(Lane::Main))?;
        self.ended = Some(ended);
        Ok(())
    }

    pub fn end_sequence(&mut self) -> Option<Event> {
        self.ended.take()
    }

    fn run_untimed(
        &mut self,
        launcher: &Launcher,
        key: Key,
        work: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        if !self.enabled {
            return work();
        }
        match self.known.get(&key) {
            None => {
                work()?;
                self.known.insert(key, Known::Warm);
            }
            Some(Known::Warm) => match launcher.capture(&mut *work) {
                Ok(graph) => {
                    launcher.launch(&graph)?;
                    self.known.insert(key, Known::Captured(graph));
                }
                Err(error) if error.is_lost() => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        "{key:?} goes on as single launches, because it cannot be a graph: {error}"
                    );
                    self.known.insert(key, Known::Eager);
                    work()?;
                }
            },
            Some(Known::Captured(graph)) => launcher.launch(graph)?,
            Some(Known::Eager) => work()?,
        }
        Ok(())
    }

    /// After a buffer of comparing work has moved.
    pub fn forget_compare(&mut self) {
        self.known.retain(|key, _| !matches!(key, Key::Compare(..)));
    }

    pub fn set_timing(&mut self, on: bool) {
        self.timing = on.then(|| Timing { marks: Vec::new(), times: Times::default() });
    }

    fn mark(&self, launcher: &Launcher) -> Result<Option<Event>, CudaError> {
        if self.timing.is_none() {
            return Ok(None);
        }
        let event = Event::new(&launcher.context, sys::TIMED)?;
        event.record(launcher.stream(Lane::Main))?;
        Ok(Some(event))
    }

    /// What the device spent since the last call; zeros without timing.
    pub fn take_times(&mut self, launcher: &Launcher) -> Result<Times, CudaError> {
        let Some(timing) = &mut self.timing else { return Ok(Times::default()) };
        launcher.finish()?;
        for (key, begun, ended) in timing.marks.drain(..) {
            let time = ended.milliseconds_since(&begun)?;
            match key {
                Key::Prepare(..) | Key::PrepareRows(..) => timing.times.prepare += time,
                Key::Encode(_) => timing.times.encode += time,
                Key::Compare(..) => timing.times.compare += time,
            }
        }
        Ok(std::mem::take(&mut timing.times))
    }
}
