//! What the README says is so: its tables are complete, its Python runs.
#![cfg(feature = "gst")]

use std::path::Path;
use std::process::Command;

use gst::prelude::*;
use gstreamer as gst;

const README: &str = include_str!("../README.md");

fn section(title: &str) -> &'static str {
    let start = README.find(&format!("## {title}\n")).unwrap_or_else(|| panic!("no section `{title}`"));
    let rest = &README[start + 3..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// Words in backquotes in the first cells of a section's table.
fn rows(title: &str) -> Vec<&'static str> {
    section(title)
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| cell.split([',', ' ']))
        .map(|word| word.trim_matches('`'))
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn the_property_table_is_complete() {
    gst::init().unwrap();
    gstxclip::element::register_static().unwrap();
    let detect = gst::ElementFactory::make("xclipdetect").build().unwrap();
    let mut real: Vec<String> = detect.list_properties().iter().map(|p| p.name().to_string()).collect();
    real.retain(|name| !["name", "parent"].contains(&name.as_str()));
    real.sort();
    let mut told = rows("Properties of xclipdetect");
    told.sort();
    assert_eq!(told, real);
}

#[test]
fn the_event_table_is_complete() {
    let schema = gstxclip::event::json::schema();
    let mut real: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    real.sort();
    let mut told = rows("An event");
    told.sort();
    assert_eq!(told, real);
}

#[test]
fn every_file_that_the_readme_links_is_there() {
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if link.starts_with("http") || link.starts_with('#') {
            continue;
        }
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{link} is not there");
    }
}

#[test]
fn the_python_example_reads_events_and_scores() {
    let code = section("In a pipeline").split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.lines().count() <= 18, "the README says it takes little code");

    // A folder with nothing but the plugin, as `make install` leaves it.
    let plugins = tempfile::tempdir().unwrap();
    let library = Path::new(env!("CARGO_BIN_EXE_xclipd")).parent().unwrap().join("deps/libgstxclip.so");
    std::os::unix::fs::symlink(library, plugins.path().join("libgstxclip.so")).unwrap();
    // The system's interpreter: PyGObject comes from the distribution.
    let output = Command::new("/usr/bin/python3")
        .args(["-c", code])
        .env("GST_PLUGIN_PATH", plugins.path())
        .env("GST_REGISTRY_1_0", plugins.path().join("registry.bin"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    // Two threads print: lines may run into each other, but not the words of one string.
    let count = |phase| -> usize {
        ["walking", "waving", "running"]
            .map(|label| out.matches(&format!("{phase} {label} ")).count())
            .iter()
            .sum()
    };
    let (starts, ends) = (count("start"), count("end"));
    assert!(starts > 0 && starts == ends, "{out}{err}");
    assert!(out.contains("XClipMeta") && out.contains("windows"), "{out}");
}
