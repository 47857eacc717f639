//! What the element tests share: an xclipdetect in a harness, frames with times, its bus.
//!
//! The bundled checkpoint's numbers may change, so nothing here depends on a score: onset=0 opens an
//! event for every label at the first window, onset=1 for none.
#![allow(dead_code)]

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check as gst_check;
use gstxclip::element::meta;
use gstxclip::event::json::Record;

/// Frames of a window and frames per second of the bundled checkpoint.
pub const T: u64 = 8;
pub const FPS: u64 = 4;

pub const CAPS: &str = "video/x-raw,format=RGB,width=32,height=24,framerate=4/1";

pub fn init() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
}

/// A playing xclipdetect between the harness's pads.
pub struct Detect {
    pub harness: gst_check::Harness,
    pub element: gst::Element,
    pub bus: gst::Bus,
}

impl Detect {
    /// `properties` as in gst-launch, e.g. `sync=true labels="a;b"`.
    pub fn new(properties: &str) -> Self {
        let mut detect = Self::without_caps(properties);
        detect.harness.set_src_caps_str(CAPS);
        detect
    }

    pub fn without_caps(properties: &str) -> Self {
        init();
        let element = gst::parse::launch(&format!("xclipdetect {properties}")).unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        // A harness aborts where a state change fails; this says why.
        if element.set_state(gst::State::Paused).is_err() {
            panic!("{:?}", bus.pop_filtered(&[gst::MessageType::Error]).map(|message| text(&message)));
        }
        let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
        harness.play();
        Self { harness, element, bus }
    }

    /// Waits until the checkpoint is loaded, so that async mode drops nothing for that reason.
    pub fn loaded(self) -> Self {
        let is_ready = || {
            let stats = self.element.property::<gst::Structure>("stats");
            stats.get::<&str>("engine").unwrap() == "ready"
        };
        while !is_ready() {
            // The progress message `complete` follows; any message is a reason to look again.
            self.bus.timed_pop(gst::ClockTime::from_mseconds(100));
        }
        self
    }

    pub fn push(&mut self, frame: u64) {
        self.harness.push(buffer(frame)).unwrap();
    }

    /// Pushes frames and returns the buffers that came out.
    pub fn pass(&mut self, frames: impl IntoIterator<Item = u64>) -> Vec<gst::Buffer> {
        frames.into_iter().map(|frame| self.harness.push_and_pull(buffer(frame)).unwrap()).collect()
    }

    /// Event messages posted so far.
    pub fn events(&self) -> Vec<Record> {
        let messages = std::iter::from_fn(|| self.bus.pop_filtered(&[gst::MessageType::Element]));
        messages.filter_map(|message| record(&message)).collect()
    }

    /// The next event message, waited for.
    pub fn next_event(&self) -> Record {
        loop {
            let message =
                self.bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Element]);
            if let Some(record) = record(&message.expect("no event within a minute")) {
                return record;
            }
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        let messages = std::iter::from_fn(|| self.bus.pop_filtered(&[gst::MessageType::Warning]));
        messages.map(|message| text(&message)).collect()
    }

    pub fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.stats().get(name).unwrap()
    }

    /// A count of `unseen` or `dropped`.
    pub fn count(&self, group: &str, reason: &str) -> u64 {
        self.stats().get::<gst::Structure>(group).unwrap().get(reason).unwrap_or(0)
    }
}

impl Drop for Detect {
    fn drop(&mut self) {
        // The harness does not own the bus.
        let _ = self.element.set_state(gst::State::Null);
        self.element.set_bus(None);
    }
}

pub fn record(message: &gst::Message) -> Option<Record> {
    let structure = message.structure().filter(|structure| structure.name() == meta::EVENT)?;
    Some(meta::event(structure).unwrap())
}

/// The text of a warning or error message.
pub fn text(message: &gst::Message) -> String {
    match message.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_string(),
        gst::MessageView::Error(error) => error.error().message().to_string(),
        other => panic!("{other:?} has no text"),
    }
}

pub fn time(frame: u64) -> gst::ClockTime {
    gst::ClockTime::SECOND * frame / FPS
}

/// Frame `frame` of a 4 fps stream of CAPS.
pub fn buffer(frame: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(vec![(frame * 16 % 256) as u8; 32 * 24 * 3]);
    let header = buffer.get_mut().unwrap();
    header.set_pts(time(frame));
    header.set_duration(gst::ClockTime::SECOND / FPS);
    buffer
}

/// Frames of CAPS take `frame · 1/4 s`; the address of the samples.
pub fn address(buffer: &gst::BufferRef) -> *const u8 {
    buffer.peek_memory(0).map_readable().unwrap().as_ptr()
}

/// Blocks the engine that every element with default settings shares, until dropped: its worker delivers
/// an event of this element and is held in a synchronous bus handler.
pub struct Jam {
    detect: Detect,
    release: Option<std::sync::mpsc::Sender<()>>,
}

impl Jam {
    pub fn new() -> Self {
        let mut detect = Detect::new("sync=false labels=waving onset=0 offset=0").loaded();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (reached, wait) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        detect.bus.set_sync_handler(move |_, message| {
            if record(message).is_some_and(|record| record.seq == 1) {
                reached.send(()).unwrap();
                // Ends when the sender is dropped.
                let _ = gate.lock().unwrap().recv();
            }
            gst::BusSyncReply::Drop
        });
        for frame in 0..T {
            detect.push(frame);
        }
        wait.recv().unwrap();
        Self { detect, release: Some(release) }
    }
}

impl Drop for Jam {
    fn drop(&mut self) {
        self.release.take();
        self.detect.bus.unset_sync_handler();
    }
}
