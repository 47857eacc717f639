//! The GStreamer elements: `xclipdetect`, `xclipoverlay`, `xclipscenesrc`.
