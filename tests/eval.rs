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
