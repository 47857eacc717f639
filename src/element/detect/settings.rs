//! What the user asked for: one field per property, as given. [`Settings::spec`] and its neighbours
//! check and translate them; nothing is checked while the element is stopped, because a property's
//! neighbour may follow, and everything is when it starts.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use super::choices::{Competition, Heads, Resize, Sync};
use crate::backend::BackendError;
use crate::detector;
use crate::engine::Spec;
use crate::event::GateSettings;
use crate::image::{ImageError, Roi};
use crate::model::labels::{LabelError, Labels};
use crate::model::{self, Model};
use crate::score;

/// Where the labels come from: the property that was set last.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LabelSource {
    #[default]
    None,
    Text(String),
    File(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub model: String,
    pub device: String,
    /// Where CUDA's libraries are looked for first.
    pub cuda_lib_dir: Option<String>,
    pub precision: String,
    pub threads: u32,
    pub heads: Heads,
    pub labels: LabelSource,
    pub background: Option<String>,
    pub competition: Competition,
    /// 0/1: the checkpoint's.
    pub sample_rate: gst::Fraction,
    pub hop: u32,
    pub gate: GateSettings,
    pub roi: Option<String>,
    pub resize: Resize,
    pub sync: Sync,
    pub stream_id: Option<String>,
    pub enabled: bool,
    pub post_messages: bool,
    pub top_k: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error("labels-file: {0}")]
    LabelsFile(LabelError),
    #[error("background: {0}")]
    Background(LabelError),
    #[error(
        "roi `{text}`: expected x,y,w,h, four fractions of the picture such as 0.5,0,0.5,1 for its right half"
    )]
    RoiSyntax { text: String },
    #[error("roi `{text}`: {source}")]
    Roi { text: String, source: ImageError },
}

impl Default for Settings {
    fn default() -> Self {
        let detector = detector::Settings::default();
        Self {
            model: "demo".into(),
            device: "auto".into(),
            cuda_lib_dir: None,
            precision: "auto".into(),
            threads: 0,
            heads: Heads::default(),
            labels: LabelSource::default(),
            background: None,
            competition: Competition::default(),
            sample_rate: gst::Fraction::new(0, 1),
            hop: detector.hop,
            gate: detector.gate,
            roi: None,
            resize: Resize::default(),
            sync: Sync::default(),
            stream_id: None,
            enabled: true,
            post_messages: true,
            top_k: detector.top_k as u32,
        }
    }
}

/// What a changed property touches while the element runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes effect at the next start.
    AtStart,
    Labels,
    Detector,
    Source,
    Enabled,
    Messages,
}

impl Settings {
    pub fn spec(&self) -> Result<Spec, SettingsError> {
        Ok(Spec {
            model: self.model.clone(),
            device: self.device.parse()?,
            precision: self.precision.parse()?,
            threads: self.threads as usize,
            heads: match self.heads {
                Heads::Hf => model::Heads::Hf,
                Heads::Videox => model::Heads::Videox,
            },
        })
    }

    /// The parsed label set; empty if none was given.
    pub fn labels(&self) -> Result<Labels, SettingsError> {
        match &self.labels {
            LabelSource::None => Ok(Labels::default()),
            LabelSource::Text(text) => Ok(Labels::parse(text)?),
            LabelSource::File(path) => Labels::read(Path::new(path)).map_err(SettingsError::LabelsFile),
        }
    }

    pub fn detector(&self, model: &Model) -> Result<detector::Settings, SettingsError> {
        let resize = match self.resize {
            Resize::Checkpoint => None,
            Resize::Videox => Some(model::Resize::Videox),
            Resize::Stretch => Some(model::Resize::Stretch),
        };
        Ok(detector::Settings {
            sample_rate: (self.sample_rate.numer() > 0)
                .then(|| (self.sample_rate.numer() as u32, self.sample_rate.denom() as u32)),
            hop: self.hop,
            // Onset and offset are two properties set one after the other: between the two, or with only
            // onset lowered, an event must still end below where it starts.
            gate: GateSettings { offset: self.gate.offset.min(self.gate.onset), ..self.gate },
            competition: match self.competition {
                Competition::Background => score::Competition::Background,
                Competition::Labels => score::Competition::Labels,
            },
            background: self.background()?,
            roi: self.roi()?,
            geometry: resize.map(|resize| model.rule_for(Some(resize)).geometry),
            top_k: self.top_k as usize,
        })
    }

    fn background(&self) -> Result<Option<Vec<String>>, SettingsError> {
        let Some(text) = &self.background else { return Ok(None) };
        let parsed = Labels::parse(text).map_err(SettingsError::Background)?;
        let prompts = parsed
            .labels
            .into_iter()
            .flat_map(|label| if label.prompts.is_empty() { vec![label.name] } else { label.prompts });
        Ok(Some(prompts.collect()))
    }

    fn roi(&self) -> Result<Roi, SettingsError> {
        let Some(text) = &self.roi else { return Ok(Roi::WHOLE) };
        let numbers: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        let Ok(Ok([x, y, w, h])) = numbers.map(<[f32; 4]>::try_from) else {
            return Err(SettingsError::RoiSyntax { text: text.clone() });
        };
        Roi::new(x, y, w, h).map_err(|source| SettingsError::Roi { text: text.clone(), source })
    }

    /// Takes a property's value. `None`: not a writable property of ours.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> Option<Change> {
        // GObject has checked the type and the range before it calls set_property.
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
            value.get().unwrap_or_else(|_| unreachable!("GObject checks property types"))
        }
        fn text(value: &glib::Value) -> Option<String> {
            get::<Option<String>>(value).filter(|text| !text.trim().is_empty())
        }
        let time = |value| Duration::from_nanos(get(value));
        Some(match name {
            "model" => {
                self.model = text(value).unwrap_or_else(|| "demo".into());
                Change::AtStart
            }
            "device" => {
                self.device = text(value).unwrap_or_else(|| "auto".into());
                Change::AtStart
            }
            "cuda-lib-dir" => {
                self.cuda_lib_dir = text(value);
                Change::AtStart
            }
            "precision" => {
                self.precision = text(value).unwrap_or_else(|| "auto".into());
                Change::AtStart
            }
            "threads" => {
                self.threads = get(value);
                Change::AtStart
            }
            "heads" => {
                self.heads = get(value);
                Change::AtStart
            }
            "sync" => {
                self.sync = get(value);
                Change::AtStart
            }
            "labels" => {
                self.labels = text(value).map_or(LabelSource::None, LabelSource::Text);
                Change::Labels
            }
            "labels-file" => {
                self.labels = text(value).map_or(LabelSource::None, LabelSource::File);
                Change::Labels
            }
            "background" => {
                self.background = text(value);
                Change::Detector
            }
            "competition" => {
                self.competition = get(value);
                Change::Detector
            }
            "sample-rate" => {
                self.sample_rate = get(value);
                Change::Detector
            }
            "hop" => {
                self.hop = get(value);
                Change::Detector
            }
            "onset" => {
                self.gate.onset = get::<f64>(value) as f32;
                Change::Detector
            }
            "offset" => {
                self.gate.offset = get::<f64>(value) as f32;
                Change::Detector
            }
            "smoothing" => {
                self.gate.smoothing = time(value);
                Change::Detector
            }
            "min-duration-on" => {
                self.gate.min_duration_on = time(value);
                Change::Detector
            }
            "min-duration-off" => {
                self.gate.min_duration_off = time(value);
                Change::Detector
            }
            "cooldown" => {
                self.gate.cooldown = time(value);
                Change::Detector
            }
            "roi" => {
                self.roi = text(value);
                Change::Detector
            }
            "resize" => {
                self.resize = get(value);
                Change::Detector
            }
            "top-k" => {
                self.top_k = get(value);
                Change::Detector
            }
            "stream-id" => {
                self.stream_id = text(value);
                Change::Source
            }
            "enabled" => {
                self.enabled = get(value);
                Change::Enabled
            }
            "post-messages" => {
                self.post_messages = get(value);
                Change::Messages
            }
            _ => return None,
        })
    }

    /// A property's value; `None` for one that is not a setting.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_value();
        // Shown as typed: 0.6, not the double next to the float.
        let probability = |p: f32| ((p as f64 * 1e6).round() / 1e6).to_value();
        Some(match name {
            "model" => self.model.to_value(),
            "device" => self.device.to_value(),
            "cuda-lib-dir" => self.cuda_lib_dir.to_value(),
            "precision" => self.precision.to_value(),
            "threads" => self.threads.to_value(),
            "heads" => self.heads.to_value(),
            "sync" => self.sync.to_value(),
            "labels" => match &self.labels {
                LabelSource::Text(text) => Some(text.as_str()).to_value(),
                _ => None::<&str>.to_value(),
            },
            "labels-file" => match &self.labels {
                LabelSource::File(path) => Some(path.as_str()).to_value(),
                _ => None::<&str>.to_value(),
            },
            "background" => self.background.to_value(),
            "competition" => self.competition.to_value(),
            "sample-rate" => self.sample_rate.to_value(),
            "hop" => self.hop.to_value(),
            "onset" => probability(self.gate.onset),
            "offset" => probability(self.gate.offset),
            "smoothing" => nanos(self.gate.smoothing),
            "min-duration-on" => nanos(self.gate.min_duration_on),
            "min-duration-off" => nanos(self.gate.min_duration_off),
            "cooldown" => nanos(self.gate.cooldown),
            "roi" => self.roi.to_value(),
            "resize" => self.resize.to_value(),
            "top-k" => self.top_k.to_value(),
            "stream-id" => self.stream_id.to_value(),
            "enabled" => self.enabled.to_value(),
            "post-messages" => self.post_messages.to_value(),
            _ => return None,
        })
    }
}

/// The table of gst-inspect-1.0: every property with its unit and default; GStreamer prints from the
/// flags in which states it may change.
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let string = |name, nick, blurb| glib::ParamSpecString::builder(name).nick(nick).blurb(blurb);
    let nanos = |name, nick, blurb, default: Duration| {
        glib::ParamSpecUInt64::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(default.as_nanos() as u64)
            .mutable_playing()
            .build()
    };
    let probability = |name, nick, blurb, default: f32| {
        glib::ParamSpecDouble::builder(name)
            .nick(nick)
            .blurb(blurb)
            .minimum(0.0)
            .maximum(1.0)
            .default_value((default as f64 * 1e6).round() / 1e6)
            .mutable_playing()
            .build()
    };
    vec![
        string("model", "Model", "Checkpoint: `demo` (bundled; knows drawn scenes only) or a folder in the Hugging Face layout. With device, precision, threads and heads it is the engine's key: elements with the same key share one engine")
            .default_value(Some("demo")).mutable_ready().build(),
        string("device", "Device", "Where the model runs: auto (the first NVIDIA GPU since Ampere with driver and cuBLASLt, else the CPU), cpu, cuda:N")
            .default_value(Some("auto")).mutable_ready().build(),
        string("cuda-lib-dir", "CUDA library folder", "Folder with libcublasLt.so (or a Python site-packages with NVIDIA's wheels), looked through before the system's; also XCLIP_CUDA_LIB_DIR. The first GPU user of the process decides")
            .mutable_ready().build(),
        string("precision", "Precision", "Arithmetic of the model: auto, f32, f16, int8. GPUs compute in f16. On the CPU auto takes int8 on processors with dot products for it where a self-check of the checkpoint holds and it is not more than a tenth slower, else f32; `backend` in stats and the progress message say which")
            .default_value(Some("auto")).mutable_ready().build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads").blurb("Threads of the engine; 0 is one per core. They work while a window is scored, beside GStreamer's own: where decoders or encoders in software are to keep up meanwhile, set as many fewer than cores as those need")
            .maximum(1024).default_value(0).mutable_ready().build(),
        glib::ParamSpecEnum::builder_with_default("heads", Heads::default())
            .nick("Heads").blurb("Attention heads of the temporal and prompt parts; the published large checkpoints say 8 where the original has 12: `videox` restores it")
            .mutable_ready().build(),
        string("labels", "Labels", "Actions to watch for, in plain words: `a person falls; two people fight`. A JSON array of strings or objects {label, prompts, onset, offset, min-duration-on, …}, else one per line, else separated by semicolons, else by commas. labels and labels-file replace each other")
            .mutable_playing().build(),
        string("labels-file", "Labels file", "YAML label set: label → prompts, thresholds, severity, metadata; background prompts. labels and labels-file replace each other")
            .mutable_playing().build(),
        string("background", "Background", "Prompts of the background class, written as in labels; default: the label file's, else the checkpoint's, else a bundled set")
            .mutable_playing().build(),
        glib::ParamSpecEnum::builder_with_default("competition", Competition::default())
            .nick("Competition").blurb("What a label is measured against")
            .mutable_playing().build(),
        gst::ParamSpecFraction::builder("sample-rate")
            .nick("Sample rate").blurb("Frames taken per second of stream time, 1/60 to 120/1; 0/1 is the checkpoint's (demo: 4/1)")
            .minimum(gst::Fraction::new(0, 1)).maximum(gst::Fraction::new(120, 1))
            .default_value(defaults.sample_rate).mutable_playing().build(),
        glib::ParamSpecUInt::builder("hop")
            .nick("Hop").blurb("Sampled frames from one window to the next")
            .minimum(1).maximum(1000).default_value(defaults.hop).mutable_playing().build(),
        probability("onset", "Onset", "Smoothed probability that starts an event; a label may have its own", defaults.gate.onset),
        probability("offset", "Offset", "Smoothed probability under which an event ends, at most onset (a higher value counts as onset); a label may have its own", defaults.gate.offset),
        nanos("smoothing", "Smoothing", "Time constant (ns) of the exponential smoothing over window scores; 0 is none", defaults.gate.smoothing),
        nanos("min-duration-on", "Minimum duration on", "Time (ns) the score stays over onset before a start is sent", defaults.gate.min_duration_on),
        nanos("min-duration-off", "Minimum duration off", "Time (ns) the score stays under offset before an end is sent; shorter gaps are merged", defaults.gate.min_duration_off),
        nanos("cooldown", "Cooldown", "Time (ns) after an event that was sent in which its label starts no other", defaults.gate.cooldown),
        string("roi", "Region of interest", "Part of the picture the model sees, x,y,w,h in fractions (0,0,1,1 is the whole frame, the default), cut out before the resize; a change starts a new window")
            .mutable_playing().build(),
        glib::ParamSpecEnum::builder_with_default("resize", Resize::default())
            .nick("Resize").blurb("How the picture becomes the model's square input; a change starts a new window")
            .mutable_playing().build(),
        glib::ParamSpecEnum::builder_with_default("sync", Sync::default())
            .nick("Sync").blurb("Whether buffers wait for their scores")
            .mutable_ready().build(),
        string("stream-id", "Stream id", "Name of the stream in events; default: the id of upstream's stream-start event")
            .mutable_playing().build(),
        glib::ParamSpecBoolean::builder("enabled")
            .nick("Enabled").blurb("Whether frames are analysed; when switched off, open events end (reason disabled) and video passes on")
            .default_value(true).mutable_playing().build(),
        glib::ParamSpecBoolean::builder("post-messages")
            .nick("Post messages").blurb("Whether events are posted on the bus as element messages `xclip-event`")
            .default_value(true).mutable_playing().build(),
        glib::ParamSpecUInt::builder("top-k")
            .nick("Top k").blurb("How many labels a window's metadata and an event list, best first")
            .maximum(1000).default_value(defaults.top_k).mutable_playing().build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics").blurb("Counts since the start: buffers, frames, windows, dropped by reason, events; queue, inference and delay quantiles (ns)")
            .read_only().build(),
        gst::ParamSpecArray::builder("active-events")
            .nick("Active events").blurb("Open events, each a structure of id, label, severity, score, start")
            .read_only().build(),
        glib::ParamSpecUInt64::builder("labels-generation")
            .nick("Labels generation").blurb("Counts label sets since the start; every event says its own. 0 while stopped")
            .read_only().build(),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: impl ToValue) -> Settings {
        let mut settings = Settings::default();
        settings.set(name, &value.to_value()).unwrap();
        settings
    }

    #[test]
    fn every_property_is_read_back_as_written() {
        gst::init().unwrap();
        for spec in PROPERTIES.iter().filter(|spec| spec.flags().contains(glib::ParamFlags::WRITABLE)) {
            let value = match spec.value_type() {
                t if t == String::static_type() => "text".to_value(),
                t if t == f64::static_type() => 0.25.to_value(),
                t if t == u64::static_type() => 5_000_000_000u64.to_value(),
                t if t == u32::static_type() => 3u32.to_value(),
                t if t == bool::static_type() => false.to_value(),
                t if t == gst::Fraction::static_type() => gst::Fraction::new(5, 2).to_value(),
                _ => spec.default_value().clone(),
            };
            let settings = settings(spec.name(), value.clone());
            let read = settings.get(spec.name()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{value:?}"), "{}", spec.name());
        }
    }

    #[test]
    fn defaults_of_the_table_are_the_settings_defaults() {
        gst::init().unwrap();
        let defaults = Settings::default();
        for spec in PROPERTIES.iter().filter(|spec| spec.flags().contains(glib::ParamFlags::WRITABLE)) {
            let (table, own) = (spec.default_value(), defaults.get(spec.name()).unwrap());
            assert_eq!(format!("{table:?}"), format!("{own:?}"), "{}", spec.name());
        }
    }

    #[test]
    fn roi_is_four_fractions() {
        assert_eq!(settings("roi", "0.5, 0,0.5,1").roi().unwrap(), Roi { x: 0.5, y: 0.0, w: 0.5, h: 1.0 });
        assert_eq!(settings("roi", "").roi().unwrap(), Roi::WHOLE);
        for bad in ["1,2,3", "a,b,c,d", "0,0,1,1,1"] {
            let message = settings("roi", bad).roi().unwrap_err().to_string();
            assert!(message.contains(bad) && message.contains("x,y,w,h"), "{message}");
        }
        assert!(settings("roi", "0.5,0,0.6,1").roi().unwrap_err().to_string().contains("inside the picture"));
    }

    #[test]
    fn an_unknown_device_lists_what_exists() {
        let message = settings("device", "gpu").spec().unwrap_err().to_string();
        assert!(message.contains("`gpu`") && message.contains("auto, cpu, cuda:0"), "{message}");
        let message = settings("precision", "f8").spec().unwrap_err().to_string();
        assert!(message.contains("`f8`") && message.contains("auto, f32"), "{message}");
    }
}
