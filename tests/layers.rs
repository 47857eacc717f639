//! Imports only go down. One package means that the compiler does not guard this; this test does.
//!
//! It reads every path in src/ that starts at `crate`, `super`, `std` or an outside crate, in `use`
//! lines and in code (comments, strings and test code aside), and compares it with the tables below.

use std::fmt;
use std::path::{Path, PathBuf};

/// From the ground up: a module may use its own floor and the floors below.
const FLOORS: [(&str, &[&str]); 6] = [
    ("ground", &["image", "clip", "preprocess", "score", "event", "scene"]),
    ("model", &["model"]),
    ("backend", &["backend"]),
    ("engine", &["engine"]),
    ("detector", &["detector"]),
    ("outlets", &["element", "command", "store", "sink", "daemon"]),
];

/// What the floors would allow and the architecture does not: (module, what it must not use, why).
const APART: [(&str, &[&str], &str); 9] = [
    ("backend::cpu", &["backend::cuda", "backend::tensorrt"], "backends do not know each other"),
    ("backend::cuda", &["backend::cpu", "backend::tensorrt"], "backends do not know each other"),
    ("backend::tensorrt", &["backend::cpu"], "tensorrt may use cuda and no other backend"),
    ("engine", BACKENDS, "the engine knows the trait and backend::open, not a backend"),
    ("detector", BACKENDS, "the detector knows the engine, not a backend"),
    ("element", &["command", "store", "sink", "daemon"], "an element is used by these, it does not use them"),
    ("store", &["element", "command", "sink", "daemon"], "the store is below sink and daemon"),
    ("sink", &["element", "command", "daemon"], "a sink knows only event and store"),
    ("daemon", &["command"], "xclipd calls the daemon, never the reverse"),
];
const BACKENDS: &[&str] = &["backend::cpu", "backend::cuda", "backend::tensorrt"];

/// Modules that may use these crate modules only, whatever the floors say.
const ONLY: [(&str, &[&str], &str); 2] = [
    ("sink", &["sink", "event", "store"], "a sink knows only event and store"),
    ("store", &["store", "event"], "the store knows only event"),
];

const GSTREAMER: &[&str] = &["gst", "gst_base", "gst_video", "gst_analytics", "gstreamer"];

/// Outside crates and parts of std: (floor, what its modules must not name, why).
const OUTSIDE: [(&str, &[&str], &str); 7] = [
    (
        "ground",
        &["std::fs", "std::net", "std::thread", "std::process", "std::env", "std::time::Instant"],
        "the ground is pure: no I/O, thread or clock",
    ),
    (
        "ground",
        &["std::time::SystemTime", "memmap2", "cudarc"],
        "the ground is pure: no I/O, clock or device",
    ),
    ("ground", GSTREAMER, "the ground knows no GStreamer"),
    ("model", GSTREAMER, "the model knows no GStreamer"),
    ("backend", GSTREAMER, "a backend knows no GStreamer"),
    ("engine", GSTREAMER, "the engine knows no GStreamer"),
    (
        "detector",
        &["gst", "gstreamer", "gst_base", "gst_video", "std::net", "std::fs"],
        "the detector knows no GStreamer, no socket, no file",
    ),
];

/// Where `unsafe` may stand: SIMD and device code, the memory-mapped file, GStreamer's C interface.
const UNSAFE: [&str; 5] = ["backend::cpu", "backend::cuda", "backend::tensorrt", "model::source", "element"];

#[derive(Debug, PartialEq)]
struct Violation {
    file: PathBuf,
    line: usize,
    import: String,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.file.display(), self.line, self.import, self.rule)
    }
}

/// `path` is `prefix` or lies in it.
fn inside(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn height(module: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, modules)| modules.contains(&top(module)))
}

/// Why `module` may not name the crate's `target`, if it may not.
fn forbidden_inside(module: &str, target: &str) -> Option<String> {
    let Some(of_target) = height(target) else {
        return Some(format!("`{}` is on no floor of tests/layers.rs", top(target)));
    };
    let own = height(module)?;
    if of_target > own {
        let (own, of_target) = (FLOORS[own].0, FLOORS[of_target].0);
        return Some(format!("imports only go down: {own} must not use {of_target}"));
    }
    for (who, others, why) in APART {
        if inside(module, who) && others.iter().any(|other| inside(target, other)) {
            return Some(why.into());
        }
    }
    let only = ONLY.iter().find(|(who, _, _)| inside(module, who));
    only.filter(|(_, others, _)| !others.contains(&top(target))).map(|(_, _, why)| why.to_string())
}

/// Why `module` may not name the outside path, if it may not.
fn forbidden_outside(module: &str, path: &str) -> Option<String> {
    let floor = FLOORS[height(module)?].0;
    OUTSIDE
        .iter()
        .find(|(who, paths, _)| *who == floor && paths.iter().any(|p| inside(path, p)))
        .map(|(_, _, why)| why.to_string())
}

/// The violations of one file whose module path is `module`.
fn violations(file: &Path, module: &str, source: &str) -> Vec<Violation> {
    if height(module).is_none() {
        let rule = format!("`{}` is on no floor of tests/layers.rs", top(module));
        return vec![Violation { file: file.into(), line: 1, import: module.into(), rule }];
    }
    let tokens = without_tests(tokens(source));
    let mut found = Vec::new();
    for (line, import) in paths(&tokens) {
        let rule = match resolve(module, &import) {
            Some(target) => forbidden_inside(module, &target),
            None => forbidden_outside(module, &import),
        };
        found.extend(rule.map(|rule| Violation { file: file.into(), line, import, rule }));
    }
    for (line, token) in &tokens {
        if token == "unsafe" && !UNSAFE.iter().any(|place| inside(module, place)) {
            let rule = format!("unsafe stands in {} only", UNSAFE.join(", "));
            found.push(Violation { file: file.into(), line: *line, import: token.clone(), rule });
        }
    }
    found
}

/// The path from the crate's root that `import` means, or `None` for an outside one.
fn resolve(module: &str, import: &str) -> Option<String> {
    if let Some(path) = import.strip_prefix("crate::") {
        return Some(path.into());
    }
    let mut own: Vec<&str> = module.split("::").collect();
    let mut rest: Vec<&str> = import.split("::").collect();
    if rest.first() != Some(&"super") {
        return None;
    }
    while rest.first() == Some(&"super") {
        // In an inline module of a top-level file `super` is that file: never above the root.
        if own.len() > 1 || height(rest.get(1).unwrap_or(&"")).is_some() {
            own.pop();
        }
        rest.remove(0);
    }
    own.extend(rest);
    Some(own.join("::"))
}

/// Identifiers and punctuation with their lines; no comments, no literals.
fn tokens(source: &str) -> Vec<(usize, String)> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < text.len() {
        let start = i;
        if at(i) == '/' && at(i + 1) == '/' {
            while i < text.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            while i < text.len() {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(end) = raw_string(&text, i) {
            i = end;
        } else if at(i) == '"' {
            i += 1;
            while i < text.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < text.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if name(at(i)) {
            while name(at(i)) {
                i += 1;
            }
            tokens.push((line, text[start..i].iter().collect()));
        } else if at(i) == ':' && at(i + 1) == ':' {
            i += 2;
            tokens.push((line, "::".into()));
        } else {
            i += 1;
            if !at(start).is_whitespace() {
                tokens.push((line, at(start).to_string()));
            }
        }
        line += text[start..i.min(text.len())].iter().filter(|&&c| c == '\n').count();
    }
    tokens
}

/// The end of the raw string that starts at `i`, if one does.
fn raw_string(text: &[char], i: usize) -> Option<usize> {
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let letters = if at(i) == 'b' { 1 } else { 0 };
    if at(i + letters) != 'r' || (i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_')) {
        return None;
    }
    let mut j = i + letters + 1;
    let hashes = (j..).take_while(|&k| at(k) == '#').count();
    j += hashes;
    if at(j) != '"' {
        return None;
    }
    j += 1;
    while j < text.len() && !(at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#')) {
        j += 1;
    }
    Some((j + 1 + hashes).min(text.len()))
}

/// Cuts every item under a `#[cfg(…test…)]`.
fn without_tests(tokens: Vec<(usize, String)>) -> Vec<(usize, String)> {
    let is = |i: usize, text: &str| tokens.get(i).is_some_and(|(_, token)| token == text);
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if is(i, "#") && is(i + 1, "[") && is(i + 2, "cfg") {
            let end = closing(&tokens, i + 1);
            let inner: Vec<&str> = tokens[i..end].iter().map(|(_, token)| token.as_str()).collect();
            if inner.contains(&"test") && !inner.contains(&"not") {
                i = end;
                while i < tokens.len() && !is(i, "{") && !is(i, ";") {
                    i = if is(i, "[") || is(i, "(") { closing(&tokens, i) } else { i + 1 };
                }
                i = if is(i, "{") { closing(&tokens, i) } else { i + 1 };
                continue;
            }
        }
        kept.push(tokens[i].clone());
        i += 1;
    }
    kept
}

/// The index after the bracket that closes the one at `open`.
fn closing(tokens: &[(usize, String)], open: usize) -> usize {
    let mut depth = 0;
    for (i, (_, token)) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Every path with at least two segments, groups spread out; `use NAME;` and `extern crate` too.
fn paths(tokens: &[(usize, String)]) -> Vec<(usize, String)> {
    let is = |i: usize, text: &str| tokens.get(i).is_some_and(|(_, token)| token == text);
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let starts = tokens[i].1.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let continues = i > 0 && is(i - 1, "::");
        let used = i > 0 && (is(i - 1, "use") || is(i - 1, "crate"));
        if is(i, "use") && is(i + 1, "{") {
            i = tree(tokens, i + 1, &mut Vec::new(), &mut found);
        } else if starts && !continues && (is(i + 1, "::") || used) {
            i = tree(tokens, i, &mut Vec::new(), &mut found);
        } else {
            i += 1;
        }
    }
    found
}

/// Reads one use tree from `i`, below `prefix`; returns the index after it.
fn tree(
    tokens: &[(usize, String)],
    i: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(usize, String)>,
) -> usize {
    let is = |i: usize, text: &str| tokens.get(i).is_some_and(|(_, token)| token == text);
    let mut i = i;
    let depth = prefix.len();
    loop {
        if is(i, "{") {
            let end = closing(tokens, i);
            i += 1;
            while i + 1 < end {
                i = tree(tokens, i, prefix, found).max(i + 1);
                while i + 1 < end && !is(i - 1, ",") {
                    i += 1;
                }
            }
            prefix.truncate(depth);
            return end;
        }
        let Some((line, token)) = tokens.get(i) else { return i };
        // `*`, `self` and a generic argument stand for the path so far.
        if token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            && (token != "self" || prefix.is_empty())
        {
            prefix.push(token.clone());
        }
        if is(i + 1, "::") && (is(i + 2, "{") || tokens.get(i + 2).is_some_and(|(_, t)| t != "<")) {
            i += 2;
            continue;
        }
        found.push((*line, prefix.join("::")));
        prefix.truncate(depth);
        return i + 1;
    }
}

/// Every module file under `src` with its module path; files of test modules aside.
fn modules(src: &Path) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![src.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inner = path.strip_prefix(src).unwrap().with_extension("");
                let mut names: Vec<&str> = inner.iter().map(|name| name.to_str().unwrap()).collect();
                if names.last() == Some(&"mod") {
                    names.pop();
                }
                found.push((path.clone(), names.join("::")));
            }
        }
    }
    let tests: Vec<String> = found.iter().flat_map(|(path, module)| test_modules(path, module)).collect();
    found.retain(|(_, module)| !tests.iter().any(|test| inside(module, test)));
    // The root and the binary assemble all floors.
    found.retain(|(_, module)| module != "lib" && module != "main");
    found.sort();
    found
}

/// `mod NAME;` items that disappear with the test code.
fn test_modules(path: &Path, module: &str) -> Vec<String> {
    let declared = |tokens: &[(usize, String)]| -> Vec<String> {
        let named = tokens.windows(3).filter(|w| w[0].1 == "mod" && w[2].1 == ";");
        named.map(|w| format!("{module}::{}", w[1].1)).collect()
    };
    let all = tokens(&std::fs::read_to_string(path).unwrap());
    let kept = declared(&without_tests(all.clone()));
    declared(&all).into_iter().filter(|name| !kept.contains(name)).collect()
}

#[test]
fn imports_only_go_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = modules(&root.join("src"));
    assert!(modules.iter().any(|(_, module)| module == "backend::cpu"), "src/ was not read: {modules:?}");
    let all: Vec<String> = modules
        .iter()
        .flat_map(|(path, module)| {
            let source = std::fs::read_to_string(path).unwrap();
            violations(path.strip_prefix(root).unwrap(), module, &source)
        })
        .map(|violation| violation.to_string())
        .collect();
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

fn reported(module: &str, source: &str) -> Vec<String> {
    let file = format!("src/{}.rs", module.replace("::", "/"));
    violations(Path::new(&file), module, source).iter().map(|v| v.to_string()).collect()
}

#[test]
fn a_forbidden_import_is_named_with_file_line_and_rule() {
    assert_eq!(
        reported("clip", "//! Doc.\n\nuse crate::engine::Frame;\n"),
        ["src/clip.rs:3: `crate::engine::Frame`: imports only go down: ground must not use engine"]
    );
    assert_eq!(
        reported("engine::worker", "use crate::{\n    model::Model,\n    backend::{self, cpu::Cpu},\n};"),
        ["src/engine/worker.rs:3: `crate::backend::cpu::Cpu`: \
             the engine knows the trait and backend::open, not a backend"]
    );
}

#[test]
fn every_rule_catches_its_case() {
    let caught = |module: &str, source: &str, rule: &str| {
        let found = reported(module, source);
        assert!(found.len() == 1 && found[0].contains(rule), "{module}: {source}: {found:?}");
    };
    caught("backend::cpu::gemm", "use crate::backend::cuda::Stream;", "backends do not know each other");
    caught("backend::cpu", "use super::cuda;", "backends do not know each other");
    caught("backend::cuda", "fn f() { crate::backend::cpu::pack(x) }", "backends do not know each other");
    caught("backend::cuda", "use super::tensorrt::Runtime;", "backends do not know each other");
    caught("backend::tensorrt", "use crate::backend::cpu;", "no other backend");
    caught("detector", "use crate::element::meta::Meta;", "detector must not use outlets");
    caught("sink::mqtt", "use crate::model::labels::Labels;", "a sink knows only event and store");
    caught("store", "use crate::sink::Sink;", "below sink");
    caught("daemon", "use crate::command::detect;", "never the reverse");
    caught("element::detect", "use crate::command::packages;", "does not use them");
    caught("image", "use std::{fmt, fs::File};", "the ground is pure");
    caught("event::gate", "fn now() { std::time::Instant::now() }", "the ground is pure");
    caught("score", "use std::time::{Duration, SystemTime};", "the ground is pure");
    caught("scene::render", "use std::thread;", "the ground is pure");
    caught("preprocess", "use gstreamer as gst;", "no GStreamer");
    caught("model", "pub extern crate gstreamer;", "no GStreamer");
    caught("detector::state", "fn f(b: &gst::Buffer) {}", "no GStreamer");
    caught("detector", "use std::net::TcpStream;", "no socket");
    caught("scene", "fn f() { unsafe { g() } }", "unsafe stands in");
    caught("helpers", "", "on no floor");
    caught("clip", "use crate::utils::min;", "on no floor");
    caught("clip::rate", "use super::super::engine::Engine;", "ground must not use engine");
    caught("clip", "mod inner { use super::super::engine::Engine; }", "ground must not use engine");
    caught("clip", "const A: char = '\"'; use crate::engine::Engine; const B: char = '\"';", "engine");
    caught("clip", "#[cfg(not(test))]\nuse crate::engine::Engine;", "engine");
}

#[test]
fn allowed_imports_comments_strings_and_tests_pass() {
    let passes =
        |module: &str, source: &str| assert_eq!(reported(module, source), [""; 0], "{module}: {source}");
    passes("engine", "use crate::backend::{self, Backend};\nfn f() { crate::backend::open(m) }");
    passes("backend::tensorrt", "use crate::backend::cuda::Stream;");
    passes("backend::cpu::pool", "use std::thread; fn f() { unsafe { g() } }");
    passes("model::labels", "use crate::event::GateSettings; use std::fs;");
    passes("sink::jsonl", "use crate::{event::Event, store::Cursor}; use super::Sink;");
    passes("clip", "use std::time::Duration; // use crate::engine::Frame;\n/* use crate::engine; /* */ */");
    passes(
        "clip",
        "const A: &str = \"use crate::engine::Frame; \\\" gst::init\"; const B: &str = r#\"std::fs \" \"#;",
    );
    passes(
        "clip",
        "#[cfg(test)]\nmod tests {\n    use crate::engine::Frame;\n    use std::fs;\n}\nfn f() {}",
    );
    passes("clip", "#[cfg(test)]\n#[path = \"a.rs\"]\nmod tests;\nuse crate::image::Image;");
    passes("clip", "mod inner { use super::Sampler; }\nfn f<'a>(x: &'a str) -> Vec<&'a str> { g::<u8>(x) }");
}

#[test]
fn test_modules_in_files_of_their_own_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("engine")).unwrap();
    write("lib.rs", "pub mod engine;");
    write("engine.rs", "mod queue;\n#[cfg(test)]\nmod tests;");
    write("engine/queue.rs", "");
    write("engine/tests.rs", "");
    let names: Vec<String> = modules(folder.path()).into_iter().map(|(_, module)| module).collect();
    assert_eq!(names, ["engine::queue", "engine"]);
}
