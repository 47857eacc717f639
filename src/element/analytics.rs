//! The buffer's marks once more as GstAnalytics metadata, for GStreamer 1.24 and later: what other
//! analytics elements, ONVIF converters and tools understand.
//!
//! Each scored window is a classification of all its labels; each open event a tracking (its id from the
//! event's, first seen at its start) related to a classification of its label. Class names are GQuarks,
//! interned for ever: labels beyond [`MOST_QUARKS`] in the life of the process are left out here.

use std::sync::atomic::{AtomicUsize, Ordering};

use gst::glib;
use gstreamer as gst;
use gstreamer_analytics as gst_analytics;
use gstreamer_analytics::prelude::*;

use super::meta::Marks;

const MOST_QUARKS: usize = 4096;

/// Adds to the relation meta the buffer has, or gives it one.
pub fn attach(buffer: &mut gst::BufferRef, marks: &Marks) {
    if marks.windows.is_empty() && marks.events.is_empty() {
        return;
    }
    if buffer.meta::<gst_analytics::AnalyticsRelationMeta>().is_none() {
        gst_analytics::AnalyticsRelationMeta::add(buffer);
    }
    let Some(mut meta) = buffer.meta_mut::<gst_analytics::AnalyticsRelationMeta>() else { return };
    for (_, window) in &marks.windows {
        let classes = window.top.iter().filter_map(|(label, score)| Some((*score, quark(label)?)));
        let (levels, quarks): (Vec<f32>, Vec<glib::Quark>) = classes.unzip();
        if !levels.is_empty() {
            // Fails only where there is no memory left.
            let _ = meta.add_cls_mtd(&levels, &quarks);
        }
    }
    for event in &marks.events {
        let Ok(first_seen) = gst::ClockTime::try_from(event.start.timestamp) else { continue };
        let (Some(class), Some(id)) = (quark(&event.label), tracking_id(&event.id)) else { continue };
        let class = meta.add_one_cls_mtd(event.score, class).map(|class| class.id());
        let tracking = meta.add_tracking_mtd(id, first_seen).map(|tracking| tracking.id());
        if let (Ok(class), Ok(tracking)) = (class, tracking) {
            let _ = meta.set_relation(gst_analytics::RelTypes::RELATE_TO, tracking, class);
        }
    }
}

/// The random half of the event's UUIDv7.
fn tracking_id(id: &str) -> Option<u64> {
    Some(uuid::Uuid::parse_str(id).ok()?.as_u64_pair().1)
}

fn quark(label: &str) -> Option<glib::Quark> {
    static INTERNED: AtomicUsize = AtomicUsize::new(0);
    let known = glib::Quark::try_from_str(label);
    known.or_else(|| {
        let room = INTERNED.fetch_add(1, Ordering::Relaxed) < MOST_QUARKS;
        room.then(|| glib::Quark::from_str(label))
    })
}
