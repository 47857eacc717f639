//! `xclipd scene`: the drawn world as raw clips for training, or as a video file with its truth.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::{CommandError, Verdict, closed_is_fine};
use crate::scene::{
    Action, ClipOptions, Company, Look, Pairs, RawOptions, Script, write_clips, write_stream,
};

/// Draw scripted scenes: a video with its truth, or raw clips for training
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("form").required(true)))]
pub struct Scene {
    /// Write raw pictures to stdout: clips for training, or with --script the stream of a script
    #[arg(long, group = "form")]
    pub raw: bool,
    /// Write this video (.mp4 or .mkv)
    #[cfg(feature = "gst")]
    #[arg(long, group = "form", value_name = "VIDEO")]
    pub out: Option<PathBuf>,
    /// Write who does what from when to when (seconds), one JSON line each
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub truth: Option<PathBuf>,
    /// YAML script; - reads stdin. Without one, --out makes up a script from all actions
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Seed of the first clip, or of the made-up script; overrides the script's
    #[arg(long)]
    pub seed: Option<u64>,
    /// Width and height of clips, height of streams, in pixels [default: 96 raw, 360 else]
    #[arg(long)]
    pub size: Option<u32>,
    /// Width of streams in pixels [default: the height raw, 16:9 else]
    #[arg(long)]
    pub width: Option<u32>,
    /// Pictures per second of streams [default: 4 raw, 25 else]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Length of a made-up script in seconds
    #[arg(long, default_value_t = 60.0)]
    pub duration: f64,
    /// Number of clips [default: no end]
    #[arg(long, help_heading = "Clips (--raw)")]
    pub count: Option<u64>,
    /// Position of the first clip in the sequence
    #[arg(long, default_value_t = 0, help_heading = "Clips (--raw)")]
    pub start: u64,
    /// Every so many clips only
    #[arg(long, default_value_t = 1, help_heading = "Clips (--raw)")]
    pub step: u64,
    /// Share of busy scenes, 0 to 1
    #[arg(long, default_value_t = 0.5, help_heading = "Clips (--raw)")]
    pub hardness: f32,
    /// Share of busy scenes after --ramp clips [default: the same]
    #[arg(long, help_heading = "Clips (--raw)")]
    pub final_hardness: Option<f32>,
    /// Clips over which the share of busy scenes changes
    #[arg(long, default_value_t = 1, help_heading = "Clips (--raw)")]
    pub ramp: u64,
    /// What busy scenes look like: busy, or unseen (backgrounds kept for evaluation)
    #[arg(long, default_value = "busy", help_heading = "Clips (--raw)")]
    pub look: String,
    /// Colours of clothes with each action: any, seen (never the pairs kept for evaluation) or held-out
    #[arg(long, default_value = "any", help_heading = "Clips (--raw)")]
    pub pairs: String,
    /// Somebody else doing something else: never, sometimes (a fifth of the busy scenes) or always
    #[arg(long, default_value = "sometimes", help_heading = "Clips (--raw)")]
    pub company: String,
    /// Share of clips with something else at an edge, 0 to 1
    #[arg(long, default_value_t = 0.35, help_heading = "Clips (--raw)")]
    pub mixed: f32,
}

/// Larger pictures than any camera's are a slip of the finger.
const LARGEST: u32 = 8192;

impl Scene {
    pub fn run(self) -> Result<Verdict, CommandError> {
        self.check()?;
        #[cfg(feature = "gst")]
        if let Some(out) = &self.out {
            return self.record(out);
        }
        let size = self.size.unwrap_or(96);
        let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
        let written = match self.script()? {
            Some(script) => {
                let width = self.width.unwrap_or(size);
                write_stream(&mut out, &script, width, size, self.rate.unwrap_or(4.0))
            }
            None => write_clips(&mut out, &self.clips(size)?),
        };
        closed_is_fine(written.and_then(|()| out.flush()))?;
        Ok(Verdict::Pass)
    }

    fn clips(&self, size: u32) -> Result<RawOptions, CommandError> {
        let wrong = |name: &str, value: &str, expected: &str| {
            CommandError::unusable(name, format!("is `{value}`"), format!("expected {expected}"))
        };
        let (hardness, mixed) = (self.hardness, self.mixed);
        let hard = Look::parse(&self.look)
            .filter(|look| *look != Look::Plain)
            .ok_or_else(|| wrong("--look", &self.look, "busy or unseen"))?;
        let pairs = Pairs::parse(&self.pairs)
            .ok_or_else(|| wrong("--pairs", &self.pairs, "any, seen or held-out"))?;
        let company = Company::parse(&self.company)
            .ok_or_else(|| wrong("--company", &self.company, "never, sometimes or always"))?;
        Ok(RawOptions {
            clip: ClipOptions { size, hardness, hard, mixed, pairs, company, ..ClipOptions::default() },
            seed: self.seed.unwrap_or(0),
            start: self.start,
            step: self.step,
            count: self.count.unwrap_or(u64::MAX),
            final_hardness: self.final_hardness.unwrap_or(hardness),
            ramp: self.ramp,
        })
    }

    fn check(&self) -> Result<(), CommandError> {
        let wrong = |name: &str, value: String, expected: &str| {
            Err(CommandError::unusable(name, format!("is {value}"), format!("expected {expected}")))
        };
        for (name, pixels) in [("--size", self.size), ("--width", self.width)] {
            if let Some(pixels) = pixels.filter(|pixels| !(1..=LARGEST).contains(pixels)) {
                return wrong(name, pixels.to_string(), "1 to 8192 pixels");
            }
        }
        #[cfg(feature = "gst")]
        self.check_video()?;
        if let Some(rate) = self.rate.filter(|rate| !(0.01..=1000.0).contains(rate)) {
            return wrong("--rate", rate.to_string(), "0.01 to 1000 pictures per second");
        }
        if !(0.1..=86_400.0).contains(&self.duration) {
            return wrong("--duration", self.duration.to_string(), "0.1 to 86400 s");
        }
        for (name, share) in [
            ("--hardness", self.hardness),
            ("--final-hardness", self.final_hardness.unwrap_or(0.0)),
            ("--mixed", self.mixed),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(name, share.to_string(), "0 to 1");
            }
        }
        if self.step == 0 {
            return wrong("--step", "0".into(), "1 or more");
        }
        Ok(())
    }

    /// The script that the user gave, with the seed that the user gave.
    fn script(&self) -> Result<Option<Script>, CommandError> {
        let Some(path) = &self.script else { return Ok(None) };
        Ok(Some(parse(path, &read_script(path, self.seed)?)?))
    }

    #[cfg(feature = "gst")]
    fn check_video(&self) -> Result<(), CommandError> {
        let encodable = |pixels: &u32| *pixels >= 16 && pixels.is_multiple_of(2);
        for (name, pixels) in [("--size", self.size), ("--width", self.width)] {
            if let Some(pixels) = pixels.filter(|pixels| self.out.is_some() && !encodable(pixels)) {
                let expected = "expected an even number from 16 on, which encoders need";
                return Err(CommandError::unusable(name, format!("is {pixels}"), expected));
            }
        }
        if self.truth.is_some() && (self.truth == self.script || self.truth == self.out) {
            let problem = "is also the file of --script or --out";
            return Err(CommandError::unusable("--truth", problem, "choose another name"));
        }
        Ok(())
    }

    #[cfg(feature = "gst")]
    fn record(&self, out: &Path) -> Result<Verdict, CommandError> {
        let (path, text) = match &self.script {
            Some(path) => (path.as_path(), read_script(path, self.seed)?),
            None => (Path::new("script"), made_up(self.seed.unwrap_or(0), self.duration)),
        };
        let script = parse(path, &text)?;
        if let Some(path) = &self.truth {
            write_truth(path, &script)?;
        }
        let height = self.size.unwrap_or(360);
        // Encoders want even sides.
        let width = self.width.unwrap_or((height * 16 / 9).next_multiple_of(2));
        record(&text, &script, out, [width, height], self.rate.unwrap_or(25.0))?;
        Ok(Verdict::Pass)
    }
}

/// The text of a script; `-` is stdin. `seed` replaces the script's own.
pub fn read_script(path: &Path, seed: Option<u64>) -> Result<String, CommandError> {
    let io = |source| CommandError::Io { path: path.to_path_buf(), source };
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(io)?;
        text
    } else {
        std::fs::read_to_string(path).map_err(io)?
    };
    let Some(seed) = seed else { return Ok(text) };
    // A made-up script follows from its seed as a whole, so the seed goes into the text. JSON is YAML.
    match serde_saphyr::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(mut script) => {
            script.insert("seed".into(), seed.into());
            Ok(serde_json::Value::Object(script).to_string())
        }
        // What is wrong with it is for the script's own parser to say.
        Err(_) => Ok(text),
    }
}

fn parse(path: &Path, text: &str) -> Result<Script, CommandError> {
    Script::parse(text).map_err(|source| CommandError::Script { path: path.to_path_buf(), source })
}

/// The text of a script of all actions on a plain background.
pub fn made_up(seed: u64, seconds: f64) -> String {
    let actions = Action::ALL.map(Action::label);
    serde_json::json!({"seed": seed, "duration": seconds, "random": actions}).to_string()
}

/// Draws and encodes with the elements that a user would take.
#[cfg(feature = "gst")]
fn record(text: &str, script: &Script, out: &Path, size: [u32; 2], rate: f64) -> Result<(), CommandError> {
    use gst::prelude::*;
    use gstreamer as gst;

    use super::recorder::{make, recorder, run_to_end};

    super::start_gstreamer()?;
    let rate = gst::Fraction::approximate_f64(rate).unwrap_or(gst::Fraction::new(25, 1));
    let caps = gst::Caps::builder("video/x-raw")
        .field("width", size[0] as i32)
        .field("height", size[1] as i32)
        .field("framerate", rate)
        .build();
    let pipeline = gst::Pipeline::new();
    let mut elements =
        vec![make("xclipscenesrc", &[("script", &text)])?, make("capsfilter", &[("caps", &caps)])?];
    elements.extend(recorder(out, false)?);
    pipeline.add_many(&elements)?;
    gst::Element::link_many(&elements)?;
    let bar = indicatif::ProgressBar::new(script.duration.as_millis() as u64);
    run_to_end(&pipeline, &out.display().to_string(), |position| {
        bar.set_position(position.as_millis() as u64)
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// One JSON line per truth: label, start, end (seconds of the stream), actor, colour.
pub fn write_truth(path: &Path, script: &Script) -> Result<(), CommandError> {
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for truth in script.truth() {
            let colour = truth.colour.map(|colour| colour.name());
            let (label, start, end, actor) = (truth.label, truth.start, truth.end, truth.actor);
            let line = serde_json::json!({"label": label, "start": start, "end": end, "actor": actor, "colour": colour});
            writeln!(file, "{line}")?;
        }
        file.flush()
    };
    write().map_err(|source| CommandError::Io { path: path.to_path_buf(), source })
}
