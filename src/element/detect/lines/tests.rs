//! What the queue keeps, drops and carries over a flush.

use super::*;

fn at(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

fn line(id: u128, phase: Phase) -> Line {
    Line { id: Uuid::from_u128(id), phase, json: format!("{id} {phase:?}") }
}

/// The lines that wait, in order.
fn waiting(lines: &Lines) -> Vec<String> {
    let json = |item: &Item| match item {
        Item::Line { line, .. } => Some(line.json.clone()),
        _ => None,
    };
    lines.lock().items.iter().filter_map(json).collect()
}

#[test]
fn a_full_queue_drops_and_counts_but_never_waits() {
    let lines = Lines::default();
    lines.open();
    for i in 0..CAPACITY as u128 + 3 {
        lines.line(line(i, Phase::Start), false);
    }
    assert_eq!(lines.dropped(), 3);
    lines.line(line(5000, Phase::Start), true);
    lines.line(line(7, Phase::End), false);
    assert_eq!(lines.dropped(), 3, "the end of a start that waits");
    lines.line(line(CAPACITY as u128, Phase::End), true);
    assert_eq!(lines.dropped(), 4, "no end without a start");
    assert_eq!(lines.next(), Some(Item::Line { pts: at(0), line: line(0, Phase::Start) }));
}

#[test]
fn nothing_is_kept_for_a_pad_that_nobody_asked_for() {
    let lines = Lines::default();
    lines.advance(at(0));
    lines.line(line(0, Phase::Start), false);
    lines.flush_start();
    lines.line(line(0, Phase::End), false);
    lines.flush_stop();
    lines.advance(at(0));
    assert!(lines.lock().items.is_empty());
    assert_eq!(lines.dropped(), 0);
}

#[test]
fn a_flush_passes_over_the_ends_of_events_whose_start_went_out() {
    gst::init().unwrap();
    let lines = Lines::default();
    lines.open();
    lines.line(line(1, Phase::Start), false);
    lines.line(line(2, Phase::Start), false);
    assert!(lines.next().is_some() && lines.next().is_some());
    lines.line(line(2, Phase::End), false);
    lines.line(line(3, Phase::Start), false);
    lines.flush_start();
    assert_eq!(lines.next(), None);
    lines.line(line(1, Phase::End), false);
    lines.line(line(3, Phase::End), false);
    lines.line(line(4, Phase::Start), false);
    lines.flush_stop();
    lines.segment(gst::FormattedSegment::new());
    lines.line(line(4, Phase::End), false);
    lines.advance(at(70));
    assert_eq!(waiting(&lines), ["2 End", "1 End"]);
    assert!(matches!(lines.next(), Some(Item::Segment(_))), "of the new segment's time");
    assert_eq!(lines.next(), Some(Item::Line { pts: at(70), line: line(2, Phase::End) }));
}

#[test]
fn a_line_in_flight_at_a_flush_is_passed_over_like_those_behind_it() {
    let lines = Lines::default();
    lines.open();
    for event in [1, 2] {
        lines.line(line(event, Phase::Start), false);
    }
    assert!(lines.next().is_some());
    lines.line(line(1, Phase::End), false);
    // The start of 2 is on its way, and refused because of the flush; its end was carried already.
    assert!(lines.next().is_some());
    lines.flush_start();
    lines.line(line(2, Phase::End), false);
    lines.refused(line(2, Phase::Start), false);
    lines.flush_stop();
    lines.advance(at(70));
    assert_eq!((waiting(&lines), lines.dropped()), (vec!["1 End".to_string()], 0));
    // An end on its way stays before those that wait.
    let lines = Lines::default();
    lines.open();
    lines.line(line(1, Phase::Start), false);
    assert!(lines.next().is_some());
    lines.line(line(1, Phase::End), false);
    assert!(lines.next().is_some());
    lines.flush_start();
    lines.refused(line(1, Phase::End), false);
    lines.flush_stop();
    lines.advance(at(70));
    assert_eq!((waiting(&lines), lines.dropped()), (vec!["1 End".to_string()], 0));
}

#[test]
fn an_error_of_before_a_new_link_does_not_end_it() {
    let lines = Lines::default();
    lines.open();
    lines.line(line(1, Phase::Start), false);
    assert!(lines.next().is_some());
    lines.revive();
    lines.refused(line(1, Phase::Start), true);
    lines.line(line(2, Phase::Start), false);
    assert_eq!(waiting(&lines), ["2 Start"]);
}

#[test]
fn a_stream_start_that_waits_at_a_flush_follows_it() {
    let lines = Lines::default();
    lines.open();
    lines.stream_start();
    lines.flush_start();
    lines.flush_stop();
    assert_eq!(lines.next(), Some(Item::Start));
}

#[test]
fn the_segment_of_before_a_flush_is_not_told_again() {
    gst::init().unwrap();
    let lines = Lines::default();
    lines.open();
    lines.segment(gst::FormattedSegment::new());
    lines.flush_start();
    lines.flush_stop();
    assert!(lines.lock().items.is_empty());
}

#[test]
fn a_dead_end_takes_lines_again_after_a_new_stream_or_link() {
    let revivals: [fn(&Lines); 2] = [Lines::revive, Lines::stream_start];
    for revive in revivals {
        let lines = Lines::default();
        lines.open();
        lines.line(line(1, Phase::Start), false);
        assert!(lines.next().is_some());
        lines.refused(line(1, Phase::Start), true);
        lines.line(line(2, Phase::Start), false);
        assert_eq!(lines.dropped(), 2);
        revive(&lines);
        lines.line(line(3, Phase::Start), false);
        lines.line(line(1, Phase::End), false);
        assert_eq!(waiting(&lines), ["3 Start"]);
    }
}

#[test]
fn gaps_of_a_blocked_sink_become_one() {
    let lines = Lines::default();
    lines.open();
    for i in 0..10_000 {
        lines.advance(at(40 * i));
    }
    let Some(Item::Gap { start, end }) = lines.next() else { panic!("no gap") };
    assert_eq!(start, at(0));
    assert!(at(399_960) - end < GAP, "{end}");
    assert!(lines.lock().items.is_empty());
}

#[test]
fn reconnects_of_a_camera_do_not_grow_the_queue_of_a_blocked_sink() {
    gst::init().unwrap();
    let lines = Lines::default();
    lines.open();
    lines.line(line(0, Phase::Start), false);
    for _ in 0..100 {
        lines.stream_start();
        lines.segment(gst::FormattedSegment::new());
        lines.advance(at(0));
    }
    assert_eq!(lines.lock().items.len(), 4, "the line, one start, one segment, one gap");
}

#[test]
fn closing_wakes_who_waits() {
    let lines = std::sync::Arc::new(Lines::default());
    lines.open();
    (0..CAPACITY as u128).for_each(|i| lines.line(line(i, Phase::Start), true));
    let writer = std::thread::spawn({
        let lines = lines.clone();
        move || lines.wait_for_room()
    });
    lines.close();
    writer.join().unwrap();
    assert_eq!(lines.next(), None);
}
