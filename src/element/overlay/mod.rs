/**
 * SECTION:element-xclipoverlay
 *
 * Draws the action events that are open (label, score, duration) into the picture. It takes any raw
 * video in system memory. While nothing is open, buffers pass untouched.
 *
 * Events come from `xclipdetect` upstream: from its serialized `xclip-event` events and its `XClipMeta`
 * buffer meta. Queues, converters and scalers may stand between; through an encoder and a decoder the
 * events still arrive, the scores table does not.
 *
 * A score is that of the last window if its best labels (`top-k` of xclipdetect) list the label, else that
 * of the event's last message.
 *
 * Sinks that compose overlays themselves (glimagesink, waylandsink) get them attached to the buffer as
 * GstVideoOverlayComposition; for all others the panel is blended into the picture.
 *
 * The text is DejaVu Sans, drawn from left to right; characters it lacks (emoji, Chinese) show as a box.
 *
 * ```sh
 * gst-launch-1.0 xclipscenesrc is-live=true ! xclipdetect labels="walking; waving; falling down" \
 *     ! xclipoverlay show-scores=true ! videoconvert ! autovideosink
 * ```
 */
use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod draw;
mod imp;
mod negotiate;
mod open;
mod text;

/// The corner of the picture where the panel is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstXClipOverlayPosition")]
pub enum Position {
    #[default]
    #[enum_value(name = "Top left corner", nick = "top-left")]
    TopLeft,
    #[enum_value(name = "Top right corner", nick = "top-right")]
    TopRight,
    #[enum_value(name = "Bottom left corner", nick = "bottom-left")]
    BottomLeft,
    #[enum_value(name = "Bottom right corner", nick = "bottom-right")]
    BottomRight,
}

glib::wrapper! {
    pub struct Overlay(ObjectSubclass<imp::Overlay>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    gst::Element::register(plugin, "xclipoverlay", gst::Rank::NONE, Overlay::static_type())
}
