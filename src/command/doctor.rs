//! `xclipd doctor`: what is here, what is missing, and the command that installs it.

#[cfg(all(feature = "cuda", unix))]
mod graphics;

use std::time::Instant;

use super::eval::judge::Judge;
use super::{CommandError, Verdict, say};
use crate::backend::Precision;

/// Tell what is here and what is missing, with the command that installs it
#[derive(clap::Args, Clone, Debug)]
pub struct Doctor {
    /// Check this checkpoint too: `demo` or a folder
    #[arg(long, default_value = "demo")]
    pub model: String,
}

impl Doctor {
    /// Fails when something is missing without which nothing works.
    pub fn run(self) -> Result<Verdict, CommandError> {
        say!("xclipd {}", env!("CARGO_PKG_VERSION"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        say!("system      {}, {cores} cores", std::env::consts::ARCH);
        say!("processor   {}", processor());
        let graphics = graphics()?;
        let model = self.check_model()?;
        let good = gstreamer()?;
        Ok((good && model && graphics).into())
    }

    /// Loads the checkpoint and lets it look at drawn clips. The bundled one must recognise most of them.
    fn check_model(&self) -> Result<bool, CommandError> {
        let check = || -> Result<(String, bool), CommandError> {
            let mut judge = Judge::new(&self.model, Precision::Auto, 0)?;
            let begun = Instant::now();
            let right = judge.try_out(CLIPS)?;
            let each = begun.elapsed().as_secs_f64() * 1000.0 / CLIPS as f64;
            let (about, print) = (judge.describe(), &judge.fingerprint);
            let text = format!("{about}; fingerprint {print}; {each:.0} ms per drawn clip");
            if self.model != "demo" {
                return Ok((format!("loads and answers: {text}"), true));
            }
            let good = right as u64 * 10 >= CLIPS * 6;
            Ok((format!("recognises {right} of {CLIPS} drawn clips: {text}"), good))
        };
        let found = check();
        match &found {
            Ok((text, true)) => say!("model       {} {text}", self.model),
            Ok((text, false)) => say!("model       {} DAMAGED or built wrong: {text}", self.model),
            Err(error) => say!("model       {} UNUSABLE: {error}", self.model),
        }
        Ok(matches!(found, Ok((_, true))))
    }
}

/// Drawn clips that the model is tried on.
const CLIPS: u64 = 20;

#[cfg(all(feature = "cuda", unix))]
fn graphics() -> Result<bool, CommandError> {
    graphics::check()
}

#[cfg(not(all(feature = "cuda", unix)))]
fn graphics() -> Result<bool, CommandError> {
    say!("graphics    not used: this build has no CUDA (cargo feature `cuda`)");
    Ok(true)
}

fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let list = |wanted: bool| {
        let names: Vec<_> =
            features.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "nothing".to_string() } else { names.join(" ") }
    };
    format!("has {}; lacks {}", list(true), list(false))
}

#[cfg(not(feature = "gst"))]
fn gstreamer() -> Result<bool, CommandError> {
    say!("GStreamer   not in this build (cargo feature `gst`)");
    Ok(true)
}

#[cfg(feature = "gst")]
fn gstreamer() -> Result<bool, CommandError> {
    use gstreamer as gst;

    use super::packages::{ELEMENTS, Family, Install, Package};
    use super::table::{Align, Table};

    if let Err(error) = super::start_gstreamer() {
        say!("GStreamer   {error}");
        return Ok(false);
    }
    say!("GStreamer   {}", gst::version_string().trim_start_matches("GStreamer "));
    let plugin = gst::Registry::get().find_plugin("xclip");
    match plugin.and_then(|plugin| plugin.filename()) {
        Some(path) => say!("plugin      {}", path.display()),
        None => {
            say!("plugin      not installed: xclipd works without; `make install` for gst-launch-1.0")
        }
    }
    let mut table = Table::new([("element", Align::Left), ("", Align::Left), ("for", Align::Left)]);
    let mut missing: Vec<Package> = Vec::new();
    let mut good = true;
    for needed in ELEMENTS {
        let here = gst::ElementFactory::find(needed.element).is_some();
        if !here {
            missing.push(needed.package);
            good &= !needed.required;
        }
        let state = match (here, needed.required) {
            (true, _) => "found".to_string(),
            (false, true) => format!("MISSING: {}", Install(Family::here(), &[needed.package])),
            (false, false) => format!("missing: {}", Install(Family::here(), &[needed.package])),
        };
        table.row([needed.element.into(), state, needed.purpose.into()]);
    }
    say!("{table}");
    if !missing.is_empty() {
        say!("all that is missing: {}", Install(Family::here(), &missing));
    }
    Ok(good)
}
