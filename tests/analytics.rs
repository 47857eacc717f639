//! With the feature `v1_24`: events as GstAnalytics metadata, read as any analytics element reads it.
#![cfg(feature = "v1_24")]

mod element_common;

use element_common::*;
use gstreamer_analytics as gst_analytics;
use gstreamer_analytics::prelude::*;

#[test]
fn a_scored_window_is_a_classification_and_an_open_event_a_tracking_of_its_label() {
    let mut detect = Detect::new("sync=true labels=\"walking;waving\" onset=0 offset=0 hop=1");
    let buffers = detect.pass(0..T);
    assert!(buffers[0].meta::<gst_analytics::AnalyticsRelationMeta>().is_none(), "no window yet");
    let event = &detect.events()[0];

    let meta = buffers[T as usize - 1].meta::<gst_analytics::AnalyticsRelationMeta>().unwrap();
    let classes: Vec<Vec<String>> = meta
        .iter::<gst_analytics::AnalyticsClassificationMtd>()
        .map(|mtd| (0..mtd.len()).map(|i| mtd.quark(i).as_str().to_string()).collect())
        .collect();
    let [window, first, second] = &classes[..] else { panic!("{classes:?}") };
    assert_eq!(window.len(), 2, "all labels of the window");
    let mut open = [first[0].as_str(), second[0].as_str()];
    open.sort_unstable();
    assert_eq!(open, ["walking", "waving"]);

    let trackings: Vec<_> = meta.iter::<gst_analytics::AnalyticsTrackingMtd>().collect();
    assert_eq!(trackings.len(), 2, "one for each open event");
    let (_, first_seen, _, lost) = trackings[0].info();
    assert_eq!(first_seen.nseconds(), event.start.timestamp);
    assert!(!lost);
    let related = meta.iter_direct_related::<gst_analytics::AnalyticsClassificationMtd>(
        trackings[0].id(),
        gst_analytics::RelTypes::RELATE_TO,
    );
    let labels: Vec<_> = related.map(|mtd| mtd.quark(0).as_str().to_string()).collect();
    assert_eq!(labels.len(), 1);
}
