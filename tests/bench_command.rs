//! `xclipd bench`: what it prints for people, for programs, and one round at a time.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(arguments: &[&str], requests: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xclipd"));
    command.arg("bench").args(arguments).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_stage_has_a_figure_per_precision_and_window() {
    let arguments =
        ["--precision", "f32,auto", "--threads", "2", "--windows", "3", "--rounds", "3", "--prompts", "4"];
    let output = bench(&[&arguments[..], &["--json"]].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["windows"].as_u64(), report["prompts"].as_u64()), (Some(3), Some(4)));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    if cfg!(target_os = "linux") {
        assert!(runs[0]["memory"]["resident_mb"].as_f64().unwrap() > 1.0);
    }
    for run in runs {
        assert!(run["load_ms"].as_f64().unwrap() > 0.0);
        assert!(run["parameters_mb"].as_f64().unwrap() > 5.0);
        let stage = |name: &str| {
            let mut stages = run["stages"].as_array().unwrap().iter();
            stages.find(|s| s["stage"] == name).unwrap_or_else(|| panic!("no stage {name}: {run}"))
        };
        let flop = |name: &str| stage(name)["gflop"].as_f64().unwrap();
        assert!((flop("prepare, 8 frames") / flop("prepare, one frame") - 8.0).abs() < 1e-6);
        let parts = flop("prepare, 8 frames") + flop("encode") + flop("compare");
        assert!((flop("window, all frames new") / parts - 1.0).abs() < 1e-6);
        assert!(flop("window, one frame new") < parts);
        for name in ["prepare, one frame", "encode", "compare", "text, all labels"] {
            let (least, most) = (stage(name)["least_ms"].as_f64(), stage(name)["most_ms"].as_f64());
            assert!(least.unwrap() > 0.0 && least <= most, "{name}: {least:?} {most:?}");
        }
    }
    let table = String::from_utf8(bench(&arguments, "").stdout).unwrap();
    assert!(table.contains("3 windows in one call") && table.contains("window, one frame new"), "{table}");
}

#[test]
fn rounds_are_answered_one_by_one_with_the_same_logits() {
    let output = bench(&["--interactive", "--prompts", "3"], "window\nhop\ntext\nwindow\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&output);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["prompts"].as_array().unwrap().len(), 3);
    assert_eq!(lines[1]["logits"].as_array().unwrap().len(), 3);
    assert_eq!(lines[1]["logits"], lines[2]["logits"]);
    assert_eq!(lines[1]["logits"], lines[4]["logits"]);
    assert!(lines[3]["logits"].is_null());
    assert!(lines[1..].iter().all(|line| line["ms"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_request_or_a_size_that_does_not_exist_is_refused_by_name() {
    let output = bench(&["--interactive"], "windows\n");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("`windows`: expected window, hop or text"), "{text}");
    let output = bench(&["--config", "base-patch8"], "");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("base-patch16-zero-shot"), "{text}");
}
