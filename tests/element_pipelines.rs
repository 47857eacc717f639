//! xclipdetect in whole pipelines: the events pad, state cycling, leaks, the line of the documentation.
#![cfg(feature = "gst")]

mod element_common;

use std::process::Command;
use std::sync::mpsc;

use element_common::*;
use gst::prelude::*;
use gstreamer as gst;
use gstxclip::event::json::Record;
use gstxclip::event::{Phase, Reason};

fn pipeline(line: &str) -> gst::Pipeline {
    init();
    gst::parse::launch(line).unwrap().downcast().unwrap()
}

fn play_to_eos(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.expect("no end within a minute").type_(), gst::MessageType::Eos);
}

#[test]
fn a_file_without_an_event_plays_to_its_end_through_the_events_pad() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    for sync in ["true", "false"] {
        play_to_eos(&pipeline(&format!(
            "videotestsrc num-buffers=90 ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 ! \
             xclipdetect name=d sync={sync} labels=walking onset=1 offset=1 ! fakesink \
             d.events ! filesink location={}",
            file.display()
        )));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    }
}

#[test]
fn the_events_pad_writes_one_line_of_json_per_event() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    play_to_eos(&pipeline(&format!(
        "videotestsrc num-buffers=90 ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 ! \
         xclipdetect name=d labels=walking;running onset=0 offset=0 ! fakesink \
         d.events ! queue ! filesink location={}",
        file.display()
    )));
    let text = std::fs::read_to_string(&file).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let phases = |phase| records.iter().filter(|record| record.phase == phase).count();
    assert_eq!((phases(Phase::Start), phases(Phase::End)), (2, 2));
    assert!(records.iter().all(|record| record.phase != Phase::End || record.reason == Reason::Eos));
    assert!(text.ends_with('\n'));
}

#[test]
fn event_lines_carry_the_videos_time_on_a_sparse_stream() {
    let pipeline = pipeline(
        "videotestsrc num-buffers=90 ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 ! \
         xclipdetect name=d labels=walking onset=0 offset=0 ! fakesink \
         d.events ! fakesink name=events sync=false",
    );
    let (sender, seen) = mpsc::channel();
    let pad = pipeline.by_name("events").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let what = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => format!("line {}", buffer.pts().unwrap()),
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::StreamStart(start) => format!("start {:?}", start.stream_flags()),
                gst::EventView::Caps(caps) => format!("caps {}", caps.caps()),
                gst::EventView::Segment(segment) => format!("segment {:?}", segment.segment().format()),
                gst::EventView::Gap(_) => "gap".into(),
                gst::EventView::Eos(_) => "eos".into(),
                _ => return gst::PadProbeReturn::Ok,
            },
            _ => return gst::PadProbeReturn::Ok,
        };
        sender.send(what).unwrap();
        gst::PadProbeReturn::Ok
    });
    play_to_eos(&pipeline);
    let seen: Vec<String> = seen.try_iter().collect();
    assert_eq!(seen[..4], ["start StreamFlags(SPARSE)", "caps application/x-ndjson", "segment Time", "gap"]);
    assert_eq!(seen.last().unwrap(), "eos");
    let lines: Vec<_> = seen.iter().filter(|what| what.starts_with("line")).collect();
    // T frames of 4 per second: the window is full with the frame after 1.75 s.
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("line 0:00:01.7"), "{lines:?}");
    assert!(seen.iter().filter(|what| *what == "gap").count() >= 4, "{seen:?}");
}

#[test]
fn a_blocked_events_sink_delays_no_video_in_async_mode() {
    let pipeline = pipeline(
        "videotestsrc num-buffers=3000 ! video/x-raw,format=GRAY8,width=16,height=16,framerate=30/1 ! \
         xclipdetect name=d sync=false labels=walking onset=0 offset=0 ! fakesink name=video \
         d.events ! fakesink name=events async=false",
    );
    // The events sink never takes a thing: its first buffer or event is held for good.
    let events = pipeline.by_name("events").unwrap().static_pad("sink").unwrap();
    let held = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    events.add_probe(held, |_, _| gst::PadProbeReturn::Ok);
    let (sender, ended) = mpsc::channel();
    let video = pipeline.by_name("video").unwrap().static_pad("sink").unwrap();
    video.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
            sender.send(()).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    ended.recv_timeout(std::time::Duration::from_secs(60)).expect("video waits for the events sink");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_events_pad_can_come_and_go_while_playing() {
    let pipeline = pipeline(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=16,height=16,framerate=100/1 ! \
         xclipdetect name=d labels=walking onset=0 offset=0 ! fakesink",
    );
    let detect = pipeline.by_name("d").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for _ in 0..3 {
        let pad = detect.request_pad_simple("events").unwrap();
        assert!(detect.request_pad_simple("events").is_none(), "there is one");
        let sink = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
        let (sender, gap) = mpsc::channel();
        sink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Gap) {
                let _ = sender.send(());
            }
            gst::PadProbeReturn::Ok
        });
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        gap.recv_timeout(std::time::Duration::from_secs(60)).expect("no life on the events pad");
        detect.release_request_pad(&pad);
        sink.set_state(gst::State::Null).unwrap();
        pipeline.remove(&sink).unwrap();
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_seek_of_the_whole_pipeline_works_with_both_pads_linked() {
    let pipeline = pipeline(
        "videotestsrc num-buffers=300 ! video/x-raw,format=GRAY8,width=16,height=16,framerate=30/1 ! \
         xclipdetect name=d labels=walking onset=0 offset=0 ! fakesink d.events ! fakesink",
    );
    pipeline.set_state(gst::State::Paused).unwrap();
    let bus = pipeline.bus().unwrap();
    let prerolled = || {
        let ends = [gst::MessageType::AsyncDone, gst::MessageType::Error];
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends);
        assert_eq!(message.expect("no preroll within a minute").type_(), gst::MessageType::AsyncDone);
    };
    prerolled();
    for seconds in [5, 2] {
        pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(seconds)).unwrap();
        prerolled();
        let position = pipeline.query_position::<gst::ClockTime>().unwrap();
        assert_eq!(position, gst::ClockTime::from_seconds(seconds));
    }
    play_to_eos(&pipeline);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Alone in its process, where threads and memory are this test's: the test below starts it.
#[test]
#[ignore = "run by a_hundred_starts_and_stops_leave_nothing_behind"]
fn a_hundred_starts_and_stops() {
    let pipeline = pipeline(
        "videotestsrc ! video/x-raw,format=GRAY8,width=32,height=32,framerate=4/1 ! \
         xclipdetect name=d labels=walking onset=0 offset=0 ! fakesink name=video d.events ! fakesink async=false",
    );
    let video = pipeline.by_name("video").unwrap();
    video.set_property("signal-handoffs", true);
    let (sender, frames) = mpsc::channel();
    video.connect("handoff", false, move |_| {
        let _ = sender.send(());
        None
    });
    let mut after = Vec::new();
    for cycle in 0..100 {
        frames.try_iter().for_each(drop);
        pipeline.set_state(gst::State::Playing).unwrap();
        // Some stops fall into loading, some into a window, some after one.
        let frame_count = if cycle % 10 == 9 { T + 1 } else { cycle % 7 };
        (0..frame_count).for_each(|_| frames.recv().unwrap());
        pipeline.set_state(gst::State::Null).unwrap();
        pipeline.bus().unwrap().set_flushing(true);
        pipeline.bus().unwrap().set_flushing(false);
        // The engine's threads end on their own, just after the last element let go of it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while engine_threads() > 0 {
            assert!(std::time::Instant::now() < deadline, "cycle {cycle}: the engine's threads stay");
            std::thread::yield_now();
        }
        after.push((count("/proc/self/task"), count("/proc/self/fd"), resident_kib()));
    }
    let middle = |cycles: std::ops::Range<usize>| {
        let mut kib: Vec<u64> = after[cycles].iter().map(|(_, _, kib)| *kib).collect();
        kib.sort_unstable();
        kib[kib.len() / 2]
    };
    let (early, late) = (middle(20..40), middle(80..100));
    // 50 kB a cycle would show; one more allocator arena, for one more thread, does not.
    assert!(late < early + 3072, "resident KiB: {early} → {late}, {after:?}");
    // GStreamer keeps a few idle threads of its own.
    let (threads, files, _) = after[99];
    assert!(threads < 16 && files <= after[19].1, "{after:?}");
}

/// Threads of the engine and its backend.
fn engine_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.starts_with("xclip")).count()
}

/// Runs a test of this file in a process of its own.
fn alone(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name, "--nocapture"]);
    command
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing_behind() {
    let output = alone("a_hundred_starts_and_stops").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// gst-launch-1.0 with the plugin as it is installed: a folder with nothing but the shared library, which
/// `cargo test` leaves beside this test.
fn gst_launch(arguments: &str) -> Command {
    static PLUGINS: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let test = std::env::current_exe().unwrap();
        let library = test.with_file_name("libgstxclip.so");
        assert!(library.exists(), "{} is not there", library.display());
        let folder = tempfile::tempdir().unwrap().keep();
        std::os::unix::fs::symlink(library, folder.join("libgstxclip.so")).unwrap();
        folder
    });
    let mut command = Command::new("gst-launch-1.0");
    command.env("GST_PLUGIN_PATH", &*PLUGINS).env("GST_REGISTRY", PLUGINS.join("registry.bin"));
    command.args(arguments.split_whitespace());
    command
}

#[test]
fn a_run_leaks_nothing_and_breaks_no_rule_of_glib() {
    for line in [
        "videotestsrc num-buffers=90 ! video/x-raw,format=NV12,width=64,height=64,framerate=30/1 ! \
         xclipdetect name=d labels=walking;running onset=0 offset=0 ! videoconvert ! fakesink \
         d.events ! queue ! fakesink",
        "videotestsrc num-buffers=60 is-live=true ! video/x-raw,format=RGB,width=64,height=64,framerate=60/1 ! \
         xclipdetect labels=walking onset=0 offset=0 ! xclipdetect labels=running ! fakesink",
        // Ends in an error while everything is set up.
        "videotestsrc num-buffers=90 ! xclipdetect name=d labels=walking;walking ! fakesink d.events ! fakesink",
    ] {
        let mut command = gst_launch(line);
        command.env("GST_TRACERS", "leaks").env("GST_DEBUG", "GST_TRACER:7").env("GST_DEBUG_NO_COLOR", "1");
        let output = command.env("G_DEBUG", "fatal-criticals").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some(), "{line}: ended by a signal\n{text}");
        assert!(text.contains("object-alive"), "the tracer did not run: {text}");
        let leaks: Vec<_> =
            text.lines().filter(|line| line.contains("object-alive, type-name=(string)Gst")).collect();
        assert!(leaks.is_empty(), "{line}: {leaks:#?}");
        assert_eq!(output.status.success(), !line.contains("walking;walking"), "{line}: {text}");
    }
}

#[test]
fn the_documented_line_runs_as_printed() {
    let source = include_str!("../src/element/detect/mod.rs");
    let start = source.find("gst-launch-1.0 -m videotestsrc").unwrap();
    let line = source[start..].split("```").next().unwrap();
    let line = line.replace("\\\n//!", "").replace("//! ", "");
    let program = gst_launch("");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line.trim());
    for (name, value) in program.get_envs() {
        shell.env(name, value.unwrap());
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Got EOS"));
}
