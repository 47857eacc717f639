//! Zero-shot action events from live video: X-CLIP as GStreamer elements.
//!
//! ```text
//!  camera ─ decode ─► xclipdetect ─────────────► (same buffers, untouched, + metadata) ► overlay, sink
//!                       │ sample by PTS
//!                       ▼
//!   Image ─► Sampler ─► reduce ─► Window ─► prepare ─► encode ─► compare ─► score ─► Hysteresis ─► Event
//!            (keep?)  (u8 RGB S×S)  (T kept)  (per frame, once)  (CCT+MIT)  (prompts)           (onset/offset)
//!                                            └──────── backend ────────┘
//! ```
//!
//! Pictures are reduced on the thread that brings them: on the processor, or by a backend that does it on its
//! device (`backend::DeviceReducer`), where they stay.
//!
//! Data flows one way, and imports only go down: ground (`image`, `clip`, `preprocess`, `score`,
//! `event`, `scene`) ← `model` ← `backend` ← `engine` ← `detector` ← outlets (`element`, `command`).
//! `tests/layers.rs` holds this line.
//!
//! Axis letters, the same in Rust, CUDA and the docs: N clips, T frames, H×W pixels, S the model's
//! square input side, P patches, L = P+1 tokens, D vision width, E joint width, K prompts, h heads.
//!
//! Source of the model: Ni et al., "Expanding Language-Image Pretrained Models for General Video
//! Recognition", ECCV 2022, arXiv 2208.02816.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod backend;
pub mod clip;
pub mod command;
pub mod detector;
#[cfg(feature = "gst")]
pub mod element;
pub mod engine;
pub mod event;
pub mod image;
pub mod model;
pub mod preprocess;
pub mod scene;
pub mod score;

#[cfg(feature = "gst")]
use element::register;
#[cfg(feature = "gst")]
gstreamer::plugin_define!(
    xclip,
    env!("CARGO_PKG_DESCRIPTION"),
    register,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    // Both licences of the package are fine; this is the name GStreamer knows one of them by.
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
