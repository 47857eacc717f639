//! Where results leave the detector: the bus at once, downstream in stream order.
//!
//! Results arrive on the engine's worker (async), on the streaming thread (sync) or from whoever ended
//! an event. A message is posted from there; what belongs into the stream waits here until the
//! streaming thread takes it with [`Outlet::take`], just before it pushes the next buffer.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use super::CAT;
use super::lines::{Line, Lines};
use super::run::Flags;
use crate::detector::{self, WindowScores};
use crate::element::meta::{self, Marks, OpenEvent};
use crate::engine::{self, Engine, EngineError};
use crate::event::json::Record;
use crate::event::{Event, Phase};

/// Scored windows that wait for a buffer to carry them. More than a few only pile up when no buffer
/// comes, and then the oldest say the least.
const WINDOWS: usize = 16;

pub struct Outlet {
    element: glib::WeakRef<gst::Element>,
    engine: Arc<Engine>,
    flags: Arc<Flags>,
    lines: Arc<Lines>,
    post_messages: AtomicBool,
    lossless: AtomicBool,
    failures: AtomicU64,
    outbox: Mutex<Outbox>,
}

#[derive(Default)]
struct Outbox {
    /// Between FLUSH_START and FLUSH_STOP: what a frame in flight still causes is dropped.
    flushing: bool,
    /// Open by the messages sent.
    open: Vec<(uuid::Uuid, OpenEvent)>,
    /// Open by the events pushed downstream.
    open_downstream: HashSet<uuid::Uuid>,
    /// For downstream, in order.
    events: VecDeque<(uuid::Uuid, Phase, gst::Structure)>,
    windows: VecDeque<(String, WindowScores)>,
}

/// What the streaming thread pushes next.
#[derive(Default)]
pub struct Taken {
    pub events: Vec<gst::Structure>,
    pub marks: Marks,
}

impl Outlet {
    pub fn new(element: &gst::Element, engine: Arc<Engine>, flags: Arc<Flags>, lines: Arc<Lines>) -> Self {
        Self {
            element: element.downgrade(),
            engine,
            flags,
            lines,
            post_messages: AtomicBool::new(true),
            lossless: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            outbox: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        // Nothing in here panics half-way through a change.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_post_messages(&self, on: bool) {
        self.post_messages.store(on, Ordering::Relaxed);
    }

    /// Sync mode: no line of the events pad is dropped.
    pub fn set_lossless(&self, on: bool) {
        self.lossless.store(on, Ordering::Relaxed);
    }

    /// A flush begins: undelivered starts go, and with them their ends.
    pub fn flush_start(&self) {
        let mut outbox = self.lock();
        outbox.flushing = true;
        outbox.windows.clear();
        let Outbox { events, open_downstream, .. } = &mut *outbox;
        events.retain(|(id, phase, _)| *phase == Phase::End && open_downstream.contains(id));
    }

    pub fn flush_stop(&self) {
        self.lock().flushing = false;
    }

    /// Events first, then the buffer that carries the marks. `marks`: a buffer is there to carry them.
    pub fn take(&self, marks: bool) -> Taken {
        let mut outbox = self.lock();
        let mut taken = Taken::default();
        while let Some((id, phase, structure)) = outbox.events.pop_front() {
            let known = match phase {
                Phase::Start => outbox.open_downstream.insert(id),
                Phase::Update => outbox.open_downstream.contains(&id),
                Phase::End => outbox.open_downstream.remove(&id),
            };
            // The start of an unknown one was flushed away: downstream has never heard of it.
            if known {
                taken.events.push(structure);
            }
        }
        if marks {
            taken.marks.windows = outbox.windows.drain(..).collect();
            taken.marks.events = outbox.open.iter().map(|(_, event)| event.clone()).collect();
        }
        taken
    }

    /// Open events, oldest first.
    pub fn open(&self) -> Vec<OpenEvent> {
        self.lock().open.iter().map(|(_, event)| event.clone()).collect()
    }

    /// Keeps the books; `false`: nobody is to hear of this message.
    fn note(&self, event: &Event) -> bool {
        let mut outbox = self.lock();
        let flushing = outbox.flushing;
        let found = outbox.open.iter().position(|(id, _)| *id == event.id);
        match (event.phase, found) {
            (Phase::Start | Phase::Update, _) if flushing => return false,
            (Phase::Start, None) => outbox.open.push((
                event.id,
                OpenEvent {
                    instance: event.source.instance.clone(),
                    view: event.view.clone(),
                    id: event.id.to_string(),
                    label: event.label.clone(),
                    severity: event.severity.clone(),
                    score: event.score,
                    start: event.start,
                },
            )),
            (Phase::Start | Phase::Update, Some(at)) => outbox.open[at].1.score = event.score,
            (Phase::End, Some(at)) => drop(outbox.open.remove(at)),
            (Phase::Update | Phase::End, None) => return false,
        }
        true
    }
}

impl detector::Outlet for Outlet {
    fn event(&self, event: &Event) {
        let Some(element) = self.element.upgrade() else { return };
        if !self.note(event) {
            return;
        }
        let record = Record::from(event);
        let structure = match meta::structure(&record) {
            Ok(structure) => structure,
            Err(error) => return gst::error!(CAT, obj = element, "event {}: {error}", event.id),
        };
        gst::debug!(CAT, obj = element, "{structure}");
        if self.lines.is_open() {
            let line = Line { id: event.id, phase: event.phase, json: record.to_line() };
            self.lines.line(line, self.lossless.load(Ordering::Relaxed));
        }
        self.lock().events.push_back((event.id, event.phase, structure.clone()));
        if self.post_messages.load(Ordering::Relaxed) {
            let message = gst::message::Element::builder(structure).src(&element).build();
            // Fails only where there is no bus.
            let _ = element.post_message(message);
        }
    }

    fn window(&self, window: &WindowScores) {
        let Some(element) = self.element.upgrade() else { return };
        gst::log!(
            CAT,
            obj = element,
            "window {} to {}: {:?}",
            window.start.running_time.as_secs_f64(),
            window.end.running_time.as_secs_f64(),
            window.top
        );
        let mut outbox = self.lock();
        if outbox.flushing {
            return;
        }
        if outbox.windows.len() == WINDOWS {
            outbox.windows.pop_front();
        }
        outbox.windows.push_back((element.name().into(), window.clone()));
    }

    fn taken_over(&self, why: &str) {
        let Some(element) = self.element.upgrade() else { return };
        gst::element_warning!(
            element,
            gst::ResourceError::Failed,
            ("{why}"),
            ["device=auto; with device=cuda:0 this is an error, with device=cpu the GPU is not tried"]
        );
        self.flags.tell(&element, self.engine.serving());
    }

    fn failed(&self, error: &EngineError) {
        let Some(element) = self.element.upgrade() else { return };
        if let engine::State::Failed(error) = self.engine.state() {
            return self.flags.fail(&element, &error.to_string());
        }
        // The first is for the user; the rest is counted and in the log.
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            gst::element_warning!(
                element,
                gst::StreamError::Failed,
                ("a window could not be computed: {error}"),
                ["the video goes on; further failures are counted in stats"]
            );
        } else {
            gst::warning!(CAT, obj = element, "a window could not be computed: {error}");
        }
    }
}
