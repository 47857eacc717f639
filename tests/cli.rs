//! xclipd as a user meets it: what it prints where, its exit status, its files. With the elements: detect
//! and drawn videos are most of it.
#![cfg(feature = "gst")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use gstxclip::event::json::Record;
use gstxclip::event::{Phase, Reason};

fn xclipd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xclipd"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    xclipd(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one error message of a run that must fail with status 1.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(stdout(&output), "", "{arguments:?}");
    let messages: Vec<_> = text.lines().filter(|line| line.starts_with("xclipd: ")).collect();
    assert_eq!(messages.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    messages[0].trim_start_matches("xclipd: ").to_string()
}

fn records(text: &str) -> Vec<Record> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

const SCRIPT: &str = "seed: 5\nsegments:
  - {action: walking, from: 2, to: 7, colour: red}
  - {action: falling down, from: 9, to: 14, colour: blue}
  - {action: waving, from: 16, to: 21, colour: green}
duration: 24\n";
const LABELS: &str = "walking; lying on the ground; waving";

/// A folder with `scene.mp4`, its `truth.ndjson` and `script.yaml`; drawn once for all tests.
static SCENE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("script.yaml"), SCRIPT).unwrap();
    let (script, out, truth) = (path("script.yaml"), path("scene.mp4"), path("truth.ndjson"));
    let output = run(&["scene", "--script", &script, "--out", &out, "--truth", &truth, "--rate", "12"]);
    assert!(output.status.success(), "{}", stderr(&output));
    folder
});

fn scene(name: &str) -> String {
    SCENE.path().join(name).to_str().unwrap().to_string()
}

/// Seconds that a video file plays, read by a pipeline that decodes all of it.
fn playable(path: &Path) -> f64 {
    use gst::prelude::*;
    use gstreamer as gst;
    gst::init().unwrap();
    let line = format!("filesrc location={} ! decodebin ! fakesink name=sink", path.display());
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("sink").unwrap().set_property("sync", false);
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Error, gst::MessageType::Eos];
    let message =
        pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{}: {message:?}", path.display());
    let duration = pipeline.query_duration::<gst::ClockTime>().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    duration.nseconds() as f64 / 1e9
}

#[test]
fn detect_writes_events_to_stdout_and_file_and_draws_them() {
    let folder = tempfile::tempdir().unwrap();
    let (video, lines) = (folder.path().join("annotated.mp4"), folder.path().join("events.ndjson"));
    let (video, lines) = (video.to_str().unwrap(), lines.to_str().unwrap());
    let arguments =
        ["detect", &scene("scene.mp4"), "--labels", LABELS, "--annotate", video, "--events", lines];
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let events = records(&stdout(&output));
    assert_eq!(stdout(&output), std::fs::read_to_string(lines).unwrap());
    let starts = events.iter().filter(|event| event.phase == Phase::Start).count();
    let ends = events.iter().filter(|event| event.phase == Phase::End).count();
    assert!(starts > 0, "the demo model sees nothing in a drawn scene");
    assert_eq!(starts, ends);
    assert!((23.0..25.0).contains(&playable(Path::new(video))));
    // The summary names each label and says that nothing was lost.
    let summary = stderr(&output);
    assert!(summary.contains("none dropped"), "{summary}");
    assert!(events.iter().all(|event| summary.contains(&event.label)), "{summary}");
}

#[test]
fn events_of_a_file_match_its_truth() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("events.ndjson");
    let lines = lines.to_str().unwrap();
    run(&["detect", &scene("scene.mp4"), "--labels", LABELS, "--events", lines]);
    let truth = scene("truth.ndjson");
    let arguments = ["eval", "--events", lines, "--truth", &truth, "--labels", LABELS, "--at-least", "0.6"];
    let output = run(&arguments);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("precision"));
}

/// Of one precision: which one `auto` takes may depend on the threads, since it looks at the time too.
#[test]
fn the_same_file_gives_the_same_events_whatever_the_threads() {
    for precision in ["f32", "int8"] {
        let events = |threads: &str| {
            let (threads, precision) = (format!("threads={threads}"), format!("precision={precision}"));
            let set = ["--set", &threads, "--set", &precision];
            let output = run(&[&["detect", &scene("scene.mp4"), "--labels", LABELS], &set[..]].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            records(&stdout(&output))
        };
        let (one, again, two) = (events("1"), events("1"), events("2"));
        let shape = |events: &[Record]| -> Vec<_> {
            let shape =
                |e: &Record| (e.phase, e.reason, e.label.clone(), e.seq, e.start.clone(), e.end.clone());
            events.iter().map(shape).collect()
        };
        assert!(!one.is_empty());
        assert_eq!(shape(&one), shape(&again));
        assert_eq!(shape(&one), shape(&two));
        for (a, b) in one.iter().zip(&two) {
            assert!((a.score - b.score).abs() < 1e-4 && (a.peak - b.peak).abs() < 1e-4);
        }
    }
}

#[test]
fn a_script_is_an_input_and_a_table_a_format() {
    let input = format!("scene:{}", scene("script.yaml"));
    let output = run(&["detect", &input, "--labels", LABELS, "--format", "table"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.lines().all(|line| line.contains("  start  ") || line.contains("  end    ")), "{text}");
    assert!(text.contains("  start  "), "{text}");
}

#[test]
fn an_interrupt_completes_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("long.yaml");
    // Somebody walks the whole time, so that an event is open when it ends.
    std::fs::write(&script, "segments: [{action: walking, from: 0, to: 3600}]").unwrap();
    let video: PathBuf = folder.path().join("annotated.mp4");
    let input = format!("scene:{}", script.display());
    let set = ["--set", "onset=0.01", "--set", "offset=0"];
    let mut arguments = vec!["detect", &input, "--labels", "walking", "--annotate", video.to_str().unwrap()];
    arguments.extend(set);
    let mut child = xclipd(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().expect("an event starts").unwrap();
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let asked = Instant::now();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30));
    assert_eq!(status.code(), Some(0));
    let last = records(rest.last().unwrap()).remove(0);
    assert_eq!((last.phase, last.reason), (Phase::End, Reason::Eos));
    assert_eq!(last.id, records(&first)[0].id);
    assert!(playable(&video) > 1.0);
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let script = scene("script.yaml");
    let mut child = xclipd(&["scene", "--raw", "--script", &script, "--size", "240"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
}

#[test]
fn inputs_that_cannot_be_read_are_refused_with_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let detect = |input: &str| refused(&["detect", input, "--labels", "walking"]);

    assert!(detect("no/such/file.mp4").starts_with("no/such/file.mp4: No such file"));
    assert!(detect(folder.path().to_str().unwrap()).contains("is a folder"));
    assert!(detect(&file("text.txt", b"no video, only words")).contains("expected a video"));
    assert!(detect(&file("noise.bin", &[7; 4096])).contains("expected a video"));
    let whole = std::fs::read(scene("scene.mp4")).unwrap();
    let cut = detect(&file("cut.mp4", &whole[..whole.len() / 2]));
    assert!(cut.contains("damaged or incomplete"), "{cut}");
    let unreachable = detect("rtsp://me:secret@127.0.0.1:9/stream");
    assert!(unreachable.starts_with("rtsp://me:***@127.0.0.1:9/stream: cannot read from the camera"));
    assert!(detect("/dev/video250").contains("no such device"));
    assert!(detect("ftp://camera/file").contains("not supported"));
    let script = file("bad.yaml", b"segments: [{action: flying, from: 0, to: 3}]");
    assert!(detect(&format!("scene:{script}")).contains("unknown action `flying`"));
}

#[test]
fn a_file_without_pictures_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound.wav");
    // A second of silence: 8 kHz, mono, 16 bits.
    let header: &[&[u8]] = &[
        b"RIFF",
        &16036u32.to_le_bytes(),
        b"WAVEfmt ",
        &16u32.to_le_bytes(),
        &1u16.to_le_bytes(),
        &1u16.to_le_bytes(),
        &8000u32.to_le_bytes(),
        &16000u32.to_le_bytes(),
        &2u16.to_le_bytes(),
        &16u16.to_le_bytes(),
        b"data",
        &16000u32.to_le_bytes(),
    ];
    let mut bytes = header.concat();
    bytes.resize(bytes.len() + 16000, 0);
    std::fs::write(&sound, bytes).unwrap();
    let message = refused(&["detect", sound.to_str().unwrap(), "--labels", "walking"]);
    assert!(message.contains("no video stream"), "{message}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_one_message() {
    let input = scene("scene.mp4");
    let detect = |more: &[&str]| {
        let mut arguments = vec!["detect", &input];
        if !more.contains(&"--labels") {
            arguments.extend(["--labels", "walking"]);
        }
        arguments.extend(more);
        refused(&arguments)
    };
    assert!(detect(&["--set", "onset=7"]).contains("out of its range 0 to 1"));
    assert!(detect(&["--set", "colour=red"]).contains("does not have it"));
    assert!(detect(&["--set", "stats=1"]).contains("can only be read"));
    assert!(detect(&["--set", "device=gpu9"]).contains("available: auto, cpu"));
    assert!(detect(&["--model", "/no/such/model"]).contains("model `/no/such/model`: no such folder"));
    assert!(detect(&["--labels", "walking; walking"]).contains("twice"));
    assert!(detect(&["--annotate", &input]).contains("is the input"));
    assert!(detect(&["--annotate", "out.avi"]).contains("use .mp4 or .mkv"));
    assert!(detect(&["--events", "/no/such/folder/events.ndjson"]).contains("there is no folder"));
    assert!(refused(&["scene", "--raw", "--hardness", "3"]).contains("expected 0 to 1"));
    assert!(refused(&["scene", "--raw", "--size", "0"]).contains("expected 1 to 8192"));
    assert!(refused(&["eval", "--model", "/no/such/model"]).contains("no such folder"));
    assert!(refused(&["generate-weights", "/no/such.json", "out"]).contains("/no/such.json"));
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for arguments in [&["detect", "x.mp4"][..], &["detect", "--labels", "walking"], &["scene"], &["fly"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_finding_below_the_bound_is_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("none.ndjson");
    std::fs::write(&events, "").unwrap();
    let truth = scene("truth.ndjson");
    let arguments = ["eval", "--events", events.to_str().unwrap(), "--truth", &truth, "--labels", LABELS];
    assert_eq!(run(&arguments).status.code(), Some(0));
    let output = run(&[&arguments[..], &["--at-least", "0.1"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("recall 0.00 of 3 actions"), "{}", stdout(&output));
}

#[test]
fn doctor_finds_what_is_here_and_says_how_to_get_what_is_not() {
    let output = run(&["doctor"]);
    assert!(output.status.success(), "{}", stdout(&output));
    let text = stdout(&output);
    assert!(text.contains("GStreamer") && text.contains("decodebin") && !text.contains("MISSING"), "{text}");

    // A GStreamer without any plugin.
    let empty = tempfile::tempdir().unwrap();
    let output = xclipd(&["doctor"])
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", empty.path())
        .env("GST_REGISTRY_1_0", empty.path().join("registry.bin"))
        .output()
        .unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("MISSING") && text.contains("gstreamer1.0-plugins-base"), "{text}");
}

#[test]
fn raw_scenes_are_the_same_for_the_same_seed() {
    let raw = |seed: &str| run(&["scene", "--raw", "--seed", seed, "--count", "2", "--size", "32"]).stdout;
    assert_eq!(raw("9"), raw("9"));
    assert_ne!(raw("9"), raw("10"));
}
