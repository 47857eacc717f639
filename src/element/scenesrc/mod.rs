/**
 * SECTION:element-xclipscenesrc
 *
 * Draws people who do something, and says who does what when. Pictures depend on script, seed, size and
 * time only: the same on every machine, every run (in RGBA; other formats are converted by GStreamer).
 *
 * Live, it behaves like a camera: in step with the clock, leaving out pictures it has no time to draw.
 * Else it runs as fast as downstream takes pictures, and can be sought in. The script's end is EOS.
 *
 * The truth goes to the bus: one element message `xclip-truth` when the picture of a true action's start
 * is drawn and one at its end, each with
 *
 * | field | type | |
 * |---|---|---|
 * | `phase` | string | `start` or `end` |
 * | `index` | guint64 | position in the `truth` property |
 * | `label` | string | the action's canonical label |
 * | `colour` | string | of the clothes; absent for an empty scene |
 * | `actor` | guint64 | the same number is the same person |
 * | `start`, `end` | guint64 | stream time, nanoseconds |
 *
 * After a seek, actions that are under way are started again; those left behind are not ended.
 *
 * ```sh
 * gst-launch-1.0 -m xclipscenesrc seed=7 actions="walking; waving" is-live=true ! videoconvert ! autovideosink
 * ```
 *
 * ```sh
 * gst-launch-1.0 xclipscenesrc script="{duration: 6, segments: [{action: jumping, from: 1, to: 5}]}" \
 *     ! video/x-raw,width=320,height=240,framerate=10/1 ! videoconvert ! autovideosink
 * ```
 */
use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod imp;
mod paint;
mod truth;

/// How much goes on behind the people of a made-up script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstXClipSceneLook")]
pub enum Look {
    #[default]
    #[enum_value(name = "A gradient, perhaps with a floor; steady camera and light", nick = "plain")]
    Plain,
    #[enum_value(name = "Textures, objects, noise, shaking, changing light", nick = "busy")]
    Busy,
}

glib::wrapper! {
    pub struct SceneSrc(ObjectSubclass<imp::SceneSrc>)
        @extends gstreamer_base::BaseSrc, gst::Element, gst::Object;
}

pub fn register(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    gst::Element::register(plugin, "xclipscenesrc", gst::Rank::NONE, SceneSrc::static_type())
}
