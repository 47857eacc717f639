//! Element `xclipdetect`.
//!
//! Watches a video stream for actions given in plain words and reports each as one event with a start,
//! updates and an end. Video passes through untouched: memory is never copied, and in a live pipeline
//! no buffer waits for the model.
//!
//! ## Example launch line
//! ```bash
//! gst-launch-1.0 -m videotestsrc num-buffers=150 ! video/x-raw,framerate=25/1 ! \
//!     xclipdetect labels="a person falls down; two people fight" ! fakesink
//! ```
//! prints the element messages of a test picture (there is no action in it). With a camera:
//! ```bash
//! gst-launch-1.0 -m rtspsrc location=rtsp://camera/stream latency=200 protocols=tcp ! \
//!     application/x-rtp,media=video ! rtph264depay ! avdec_h264 ! \
//!     xclipdetect labels="a person falls down; two people fight" name=d ! videoconvert ! autovideosink \
//!     d.events ! queue ! filesink location=events.ndjson
//! ```
//! Labels contain commas more often than semicolons, so the semicolon separates them here; the `labels`
//! property also takes a JSON array or one label per line, and `labels-file` a YAML label set.
//!
//! ## Where events go
//! All carry the same fields, those of `config/event.schema.json`:
//! - element messages `xclip-event` on the bus, at once;
//! - custom downstream events of the same name, serialized with the buffers;
//! - lines of JSON on the request pad `events` (application/x-ndjson), in the same order. A sink there
//!   never holds the video back unless the element is in sync mode;
//! - the scores of every window and the open events as custom meta `XClipMeta` on the buffers
//!   (see `meta`), which `xclipoverlay` draws.
//!
//! ## Async and sync
//! Async (`sync=false`, and `auto` when upstream is live): buffers never wait; when the machine cannot
//! keep up, the newest window wins and the dropped ones are counted in `stats`. A result is on the next
//! buffer. No latency is added.
//! Sync (`sync=true`, and `auto` for files): every window is scored before the buffer that completes it
//! passes on; nothing is dropped, and the same input gives the same events. If upstream is live all the
//! same, the slowest tenth of the windows so far is added to the pipeline's latency.
//!
//! ## Time
//! Frames are sampled by time, never by count. Each moment of an event is given as buffer timestamp,
//! stream time, running time and UTC; `utc_source` says whose clock that is: the sender's (`ntp`,
//! `unix`, from reference timestamp meta, e.g. `rtspsrc add-reference-timestamp-meta=true`) or this
//! machine's (`clock`, by the pipeline clock). Input that is not live and says nothing of its sender's
//! clock has no UTC: a file's frames did not happen while it was read.
//!
//! A new connection (stream-start), another segment, a gap longer than the window or a jump back in time
//! starts a new window; DISCONT alone does not: one lost packet costs one frame. Events stay open. A new
//! stream-id, a jump back or a silent live stream (no buffer for the longer of a window and 2 s) ends
//! them. Buffers without PTS, outside the segment, in reverse segments or flagged CORRUPTED pass on;
//! `stats` counts them.
//!
//! ## Loading
//! A fault in the checkpoint's configuration, tokenizer, tensor names or shapes, in labels or properties
//! fails the change to PAUSED with an error message. Weights load in the background (progress messages
//! `load`, the last of which says what computes, as `backend` in `stats` does: device, instruction set,
//! threads, precision). Where `precision=auto` takes f32 because int8 would change the scores, a warning
//! message gives the figures. Until the weights are there async counts windows as dropped (`loading`) and
//! sync waits. Where `device=auto` found a GPU that cannot be used, or that is lost later or fails three
//! batches in a row, the CPU takes over, with one warning message, and scores again the windows that were
//! in work; what async drops until its weights are loaded is counted.
//!
//! Since: 0.1

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod choices;
mod events_pad;
mod imp;
mod lines;
mod outlet;
mod picture;
mod run;
mod settings;
mod stall;
mod stream;
mod time;

pub use choices::{Competition, Heads, Resize, Sync};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("xclipdetect", gst::DebugColorFlags::empty(), Some("Zero-shot action events"))
});

glib::wrapper! {
    pub struct XClipDetect(ObjectSubclass<imp::XClipDetect>)
        @extends gst::Element, gst::Object;
}

pub(super) fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    gst::Element::register(plugin, "xclipdetect", gst::Rank::NONE, XClipDetect::static_type())
}
