//! `xclipd eval` as a user meets it: figures of the drawn world, and pictures of what is taken for what.

use std::process::Command;

#[test]
fn eval_reports_every_world_and_probe_and_draws_what_is_taken_for_what() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("figures");
    let output = Command::new(env!("CARGO_BIN_EXE_xclipd"))
        .args(["eval", "--clips", "10", "--at-least", "0.8", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for section in [
        "plain backgrounds, 10 clips: top-1",
        "whole world, 10 clips: top-1",
        "whole world, backgrounds never trained, 10 clips",
        "whole world, always two people with two actions",
        "plain, held-out pairs",
        "whole world, held-out pairs",
        "plain: shuffled",
        "whole world: the middle one repeated",
        "running to the left or right",
        "sitting down or standing up",
        "each frame reads its own only",
        "light × 0.15",
        "20 % of the picture covered",
        "24 × 24 pixels, enlarged",
        "cpu, f32",
        "cpu, int8",
    ] {
        assert!(text.contains(section), "no `{section}` in:\n{text}");
    }
    for world in ["plain", "whole", "unseen", "company"] {
        let picture = std::fs::read(out.join(format!("confusion_{world}.png"))).unwrap();
        assert!(picture.starts_with(b"\x89PNG"), "{world}");
        let table = std::fs::read_to_string(out.join(format!("confusion_{world}.csv"))).unwrap();
        let counts = table.lines().skip(1).flat_map(|line| line.split(',').skip(1));
        let clips: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
        assert_eq!((table.lines().count(), clips), (21, 10), "{world}:\n{table}");
    }
}

#[test]
#[cfg(feature = "gst")]
fn one_recording_is_judged_under_every_background_setting_of_the_gate_and_camera() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("figures");
    let output = Command::new(env!("CARGO_BIN_EXE_xclipd"))
        .args(["eval", "--clips", "0", "--streams", "1", "--quiet-streams", "2", "--seconds", "10"])
        .args(["--sweep", "--cameras", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for section in [
        "1 streams (2 with nothing listed) of 10 s each",
        "whole, nothing listed",
        "an unlisted action",
        "labels       none",
        "the checkpoint's, unlisted actions",
        "min-duration-off (s)",
        "on the front where nothing gets better",
        "the defaults",
        "highest F1 within the bars of delay",
        "2 pictures/s",
        "1280×720",
        "50 kbit/s",
    ] {
        assert!(text.contains(section), "no `{section}` in:\n{text}");
    }
    for plot in ["sweep.svg", "precision-recall.svg", "reliability.svg", "grid.svg"] {
        assert!(std::fs::read_to_string(out.join(plot)).unwrap().starts_with("<svg"), "{plot}");
    }
    let grid = std::fs::read_to_string(out.join("grid.csv")).unwrap();
    let columns: Vec<usize> = grid.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.len() > 1000 && columns.iter().all(|&count| count == 12), "{columns:?}");
}

#[test]
fn what_labels_compete_against_is_checked_before_anything_is_measured() {
    for (arguments, says) in [
        (&["--background", ""][..], "--background: is empty"),
        (&["--background", "a;;b"][..], "--background"),
        (&["--competition", "all"][..], "expected background or labels"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_xclipd"))
            .args(["eval", "--clips", "1"])
            .args(arguments)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(says), "{arguments:?}: {told}");
    }
}
