//! Drawing into the picture or leaving it to the sink: which caps say so.
//!
//! A sink that composes overlays itself (glimagesink, waylandsink) says so by the caps feature
//! `meta:GstVideoOverlayComposition` and in its answer to the allocation query. Then the picture stays as
//! it is, and text keeps the window's resolution. All others get it drawn in.

use gst::prelude::*;
use gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION as COMPOSITION;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// The feature alone and beside system memory: sinks write it in both ways, and GStreamer tells them apart.
fn with_composition() -> [gst::CapsFeatures; 2] {
    [
        gst::CapsFeatures::new([gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY, COMPOSITION]),
        gst::CapsFeatures::new([COMPOSITION]),
    ]
}

fn composed(features: &gst::CapsFeaturesRef) -> bool {
    features.contains(COMPOSITION)
}

/// Any raw picture in system memory, with and without composition.
pub fn template() -> gst::Caps {
    // Drawing in a picture with a palette would change the palette, and so the whole picture.
    let formats =
        gst_video::VideoFormat::iter_raw().filter(|format| *format != gst_video::VideoFormat::Rgb8p);
    let plain = gst_video::VideoCapsBuilder::new().format_list(formats).build();
    let mut caps = plain.clone();
    for features in with_composition() {
        let mut variant = plain.clone();
        variant.make_mut().set_features_simple(Some(features));
        caps.make_mut().append(variant);
    }
    caps
}

/// What the other pad may carry when this one carries `caps`: the feature may be added on the way
/// downstream, never taken away, for what upstream attached would be lost.
pub fn transformed(direction: gst::PadDirection, caps: &gst::Caps) -> gst::Caps {
    let plain = || [gst::CapsFeatures::new([gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY])];
    let mut other = gst::Caps::new_empty();
    let to = other.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let more: Vec<gst::CapsFeatures> = match direction {
            gst::PadDirection::Sink if !composed(features) => with_composition().into(),
            gst::PadDirection::Src if composed(features) => plain().into(),
            _ => Vec::new(),
        };
        to.append_structure_full(structure.to_owned(), Some(features.to_owned()));
        for features in more {
            to.append_structure_full(structure.to_owned(), Some(features));
        }
    }
    other
}

/// Of several possible output caps the one to take: with the feature where the peer names it, which one
/// that takes anything does not.
pub fn preferred(mut candidates: gst::Caps, peer: &gst::Caps) -> gst::Caps {
    let named = peer.iter_with_features().any(|(_, features)| !features.is_any() && composed(features));
    let fitting = candidates
        .iter_with_features()
        .position(|(_, features)| composed(features) == named)
        .and_then(|index| candidates.iter_with_features().nth(index));
    if let Some((structure, features)) = fitting {
        let mut caps = gst::Caps::new_empty();
        let to = caps.make_mut();
        to.append_structure_full(structure.to_owned(), Some(features.to_owned()));
        return caps;
    }
    candidates.truncate();
    candidates
}

/// Whether overlays are attached, with these caps on the source pad: the feature is there, and downstream
/// promises to heed it.
pub fn attaches(pad: &gst::Pad, caps: &gst::Caps) -> bool {
    if !caps.features(0).is_some_and(composed) {
        return false;
    }
    let mut query = gst::query::Allocation::new(Some(caps), false);
    pad.peer_query(&mut query)
        && query.find_allocation_meta::<gst_video::VideoOverlayCompositionMeta>().is_some()
}
