//! The GStreamer elements: `xclipdetect`, `xclipoverlay`, `xclipscenesrc`.

use gst::glib;
use gstreamer as gst;

#[cfg(feature = "v1_24")]
pub mod analytics;
pub mod detect;
pub mod meta;
pub mod overlay;
pub mod scenesrc;

/// Registers every element, with the plugin that was loaded from libgstxclip.so.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    register_all(Some(plugin))
}

/// Registers every element in this process, without a plugin file: for xclipd and tests. May be called
/// again. `gst::init` first.
pub fn register_static() -> Result<(), glib::BoolError> {
    static DONE: std::sync::OnceLock<Result<(), glib::BoolError>> = std::sync::OnceLock::new();
    DONE.get_or_init(|| register_all(None)).clone()
}

fn register_all(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    meta::register();
    overlay::register(plugin)?;
    scenesrc::register(plugin)?;
    detect::register(plugin)?;
    Ok(())
}
