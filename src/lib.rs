//! X-CLIP as GStreamer elements.

pub mod scene;
