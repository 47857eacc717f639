use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;

use super::Look;
use super::paint::{FORMATS, Painter};
use super::truth::Announcer;
use crate::scene::{self, Action, Script};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "xclipscenesrc",
        gst::DebugColorFlags::empty(),
        Some("Drawn scenes with known truth"),
    )
});

const DEFAULT_DURATION: gst::ClockTime = gst::ClockTime::from_seconds(60);
const LONGEST_DURATION: gst::ClockTime = gst::ClockTime::from_seconds(86_400);
/// 8K pictures; a side is also the largest that textures of common sinks have.
const LARGEST: i32 = 8192;
const DEFAULT_SIZE: (i32, i32) = (640, 480);
const DEFAULT_RATE: gst::Fraction = gst::Fraction::new_raw(25, 1);
const FASTEST: gst::Fraction = gst::Fraction::new_raw(1000, 1);
const SLOWEST: gst::Fraction = gst::Fraction::new_raw(1, 3600);

#[derive(Clone, Debug)]
struct Settings {
    script: String,
    seed: u64,
    actions: String,
    look: Look,
    duration: gst::ClockTime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            script: String::new(),
            seed: 0,
            actions: String::new(),
            look: Look::Plain,
            duration: DEFAULT_DURATION,
        }
    }
}

/// Between start and stop.
struct State {
    script: Script,
    announcer: Announcer,
    /// From the caps event on.
    picture: Option<Picture>,
    /// Stream time of the next picture.
    position: gst::ClockTime,
    /// Live: the least that a picture came after its time.
    usual_delay: Option<gst::ClockTime>,
}

struct Picture {
    painter: Painter,
    fps: gst::Fraction,
    /// Stream time from which pictures are counted: 0, a new frame rate's first, or a seek's target.
    origin: gst::ClockTime,
    /// Pictures since `origin`.
    count: u64,
}

/// Lock order: never both at once. No lock is held while messages are posted.
#[derive(Default)]
pub struct SceneSrc {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
}

impl Picture {
    /// Stream time of picture `count`.
    fn time(&self, count: u64) -> gst::ClockTime {
        let second = gst::ClockTime::SECOND.nseconds();
        let (fps, per) = (self.fps.numer() as u64, self.fps.denom() as u64);
        let since = count.mul_div_floor(second * per, fps);
        // 1000/s for 500 years: the sum cannot overflow within a script's length.
        self.origin + gst::ClockTime::from_nseconds(since.unwrap_or(u64::MAX / 2))
    }

    /// The picture shown at `time`, at or after `origin`.
    fn at(&self, time: gst::ClockTime) -> u64 {
        let second = gst::ClockTime::SECOND.nseconds();
        let since = time.saturating_sub(self.origin).nseconds();
        let (fps, per) = (self.fps.numer() as u64, self.fps.denom() as u64);
        let count = since.mul_div_floor(fps, second * per).unwrap_or(u64::MAX);
        // Picture times are rounded down, so the quotient may be one short.
        if self.time(count + 1) <= time { count + 1 } else { count }
    }
}

impl Settings {
    fn script(&self) -> Result<Script, gst::ErrorMessage> {
        let text = self.script.trim();
        if text.is_empty() {
            let actions = self.actions()?;
            let look = if self.look == Look::Busy { scene::Look::Busy } else { scene::Look::Plain };
            return Ok(Script::random(self.seed, self.duration.into(), &actions, look));
        }
        // Every script is a YAML mapping, in braces or as `key: value` lines; paths rarely look like that.
        let inline = text.starts_with('{') || text.contains('\n') || text.contains(": ");
        let (text, name) = if inline {
            (text.to_string(), "property `script`".to_string())
        } else {
            let text = std::fs::read_to_string(text).map_err(|error| {
                gst::error_msg!(
                    gst::ResourceError::NotFound,
                    ["property `script`: cannot read file `{text}`: {error}"]
                )
            })?;
            (text, format!("script `{}`", self.script.trim()))
        };
        let parse = |text: &str| {
            Script::parse(text)
                .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ["{name}: {error}"]))
        };
        let script = parse(&text)?;
        match self.seed {
            0 => Ok(script),
            seed => parse(&reseeded(&text, seed).unwrap_or(text)),
        }
    }

    fn actions(&self) -> Result<Vec<Action>, gst::ErrorMessage> {
        let names: Vec<&str> =
            self.actions.split([';', ',']).map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return Ok(Action::ALL.to_vec());
        }
        let known = |name: &&str| {
            Action::parse(name).ok_or_else(|| {
                let all = Action::ALL.map(Action::label).join("; ");
                gst::error_msg!(
                    gst::ResourceError::Settings,
                    ["property `actions`: no action is called `{name}`; there are: {all}"]
                )
            })
        };
        names.iter().map(known).collect()
    }
}

/// The script with another seed, as JSON, which is YAML too. What follows from the seed while a script is
/// read (colours, places) follows from the new one.
fn reseeded(text: &str, seed: u64) -> Option<String> {
    let mut script: serde_json::Map<String, serde_json::Value> = serde_saphyr::from_str(text).ok()?;
    script.insert("seed".into(), seed.into());
    serde_json::to_string(&script).ok()
}

impl SceneSrc {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        // Plain values: whole even if a thread panicked while it held the lock.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts what begins and ends up to stream time `now`.
    fn announce(&self, now: Duration) {
        let messages: Vec<gst::Structure> = match self.state().as_mut() {
            Some(State { announcer, .. }) => {
                let said = announcer.advance(now);
                said.into_iter().map(|(phase, index)| announcer.message(phase, index)).collect()
            }
            None => Vec::new(),
        };
        for structure in messages {
            let message = gst::message::Element::builder(structure).src(&*self.obj()).build();
            // Fails only without a bus: then nobody wants to know.
            let _ = self.obj().post_message(message);
        }
    }

    /// In live mode, the picture of now rather than one that is late.
    fn catch_up(&self, state: &mut State) {
        let (Some(picture), Some(now)) = (&mut state.picture, self.obj().current_running_time()) else {
            return;
        };
        let late = now.saturating_sub(picture.time(picture.count));
        // A source that joins a running pipeline starts late: its script is played all the same.
        let usual = state.usual_delay.map_or(late, |usual| usual.min(late));
        state.usual_delay = Some(usual);
        let target = now.saturating_sub(usual);
        if target > picture.time(picture.count + 1) {
            let count = picture.at(target);
            gst::debug!(CAT, imp = self, "{} pictures left out", count - picture.count);
            picture.count = count;
        }
    }

    /// Draws the next picture; its stream time. EOS at the end of the script.
    fn draw(&self, buffer: &mut gst::BufferRef, live: bool) -> Result<Duration, gst::FlowError> {
        let mut state = self.state();
        let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
        if live {
            self.catch_up(state);
        }
        let picture = state.picture.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
        let time = picture.time(picture.count);
        let end = picture.time(picture.count + 1);
        if Duration::from(time) >= state.script.duration {
            return Err(gst::FlowError::Eos);
        }
        picture.painter.paint(time.into(), buffer).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::CoreError::Failed,
                ["cannot draw the picture at {time}: {error}"]
            );
            gst::FlowError::Error
        })?;
        buffer.set_pts(time);
        buffer.set_duration(end - time);
        buffer.set_offset(picture.count);
        buffer.set_offset_end(picture.count + 1);
        picture.count += 1;
        state.position = end;
        Ok(time.into())
    }
}

#[glib::object_subclass]
impl ObjectSubclass for SceneSrc {
    const NAME: &'static str = "GstXClipSceneSrc";
    type Type = super::SceneSrc;
    // Not PushSrc: its bindings cannot reach the base class's allocation from `fill`.
    type ParentType = gst_base::BaseSrc;
}

impl ObjectImpl for SceneSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("script")
                    .nick("Script")
                    .blurb("YAML script: a file's path or the text itself; empty: one is made up from seed, actions, look, duration")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("seed")
                    .nick("Seed")
                    .blurb("Everything not scripted follows from it; 0: the script's own, else it takes the place of the script's")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("actions")
                    .nick("Actions")
                    .blurb("Actions of a made-up script, separated by semicolons; empty: all twenty")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Look>("look")
                    .nick("Look")
                    .blurb("Background, light and camera of a made-up script")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("duration")
                    .nick("Duration")
                    .blurb("Length of a made-up script in nanoseconds; default 60 s, at most a day")
                    .minimum(1)
                    .maximum(LONGEST_DURATION.nseconds())
                    .default_value(DEFAULT_DURATION.nseconds())
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("is-live")
                    .nick("Is live")
                    .blurb("Behave like a camera: in step with the clock, pictures it has no time to draw left out")
                    .mutable_ready()
                    .build(),
                gst::ParamSpecArray::builder("truth")
                    .nick("Truth")
                    .blurb("All true actions of the script, in order of start, as structures; from PAUSED on")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings();
        let text = || value.get::<Option<String>>().expect("checked by GObject").unwrap_or_default();
        match pspec.name() {
            "script" => settings.script = text(),
            "seed" => settings.seed = value.get().expect("checked by GObject"),
            "actions" => settings.actions = text(),
            "look" => settings.look = value.get().expect("checked by GObject"),
            "duration" => {
                settings.duration = gst::ClockTime::from_nseconds(value.get().expect("checked by GObject"));
            }
            "is-live" => {
                drop(settings);
                self.obj().set_live(value.get().expect("checked by GObject"));
            }
            _ => unreachable!("GObject asks for listed properties only"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings().clone();
        match pspec.name() {
            "script" => settings.script.to_value(),
            "seed" => settings.seed.to_value(),
            "actions" => settings.actions.to_value(),
            "look" => settings.look.to_value(),
            "duration" => settings.duration.nseconds().to_value(),
            "is-live" => self.obj().is_live().to_value(),
            "truth" => self
                .state()
                .as_ref()
                .map_or_else(gst::Array::default, |state| state.announcer.all())
                .to_value(),
            _ => unreachable!("GObject asks for listed properties only"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let src = self.obj();
        src.set_format(gst::Format::Time);
        src.set_live(false);
    }
}

impl GstObjectImpl for SceneSrc {}

impl ElementImpl for SceneSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Drawn scene source",
                "Source/Video",
                "Draws people who act by a script, and posts what is true when",
                concat!(env!("CARGO_PKG_NAME"), " contributors"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list(FORMATS)
                .width_range(1..=LARGEST)
                .height_range(1..=LARGEST)
                .framerate_range(SLOWEST..=FASTEST)
                .pixel_aspect_ratio((1, 1).into())
                .build();
            let template =
                gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps);
            vec![template.expect("a valid name and valid caps make a template")]
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for SceneSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let script = settings.script()?;
        gst::info!(CAT, imp = self, "script of {:?}, {} segments", script.duration, script.segments.len());
        let announcer = Announcer::new(script.truth());
        *self.state() = Some(State {
            script,
            announcer,
            picture: None,
            position: gst::ClockTime::ZERO,
            usual_delay: None,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = None;
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        !self.obj().is_live()
    }

    fn do_seek(&self, segment: &mut gst::Segment) -> bool {
        let Some(segment) = segment.downcast_mut::<gst::ClockTime>() else { return false };
        if segment.rate() < 0.0 {
            gst::info!(CAT, imp = self, "cannot play backwards");
            return false;
        }
        let Some(target) = segment.position().or(segment.start()) else { return false };
        segment.set_time(segment.start());
        let mut state = self.state();
        let Some(state) = state.as_mut() else { return false };
        // The first seek is the base class's own, to the start.
        state.announcer.seek(target.into());
        state.position = target;
        if let Some(picture) = &mut state.picture {
            // The same grid as without the seek, and the picture that covers the target.
            picture.origin = gst::ClockTime::ZERO;
            picture.count = picture.at(target);
        }
        true
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Latency(query) => {
                let live = self.obj().is_live();
                let state = self.state();
                let Some(picture) = state.as_ref().and_then(|state| state.picture.as_ref()) else {
                    return false;
                };
                // A picture is complete when its time is over, like a camera's.
                query.set(live, picture.time(1) - picture.time(0), gst::ClockTime::NONE);
                true
            }
            QueryViewMut::Duration(query) if query.format() == gst::Format::Time => {
                let live = self.obj().is_live();
                let duration = self.state().as_ref().map(|state| state.script.duration);
                let duration = duration.filter(|_| !live).and_then(|d| gst::ClockTime::try_from(d).ok());
                query.set(duration);
                duration.is_some()
            }
            _ => BaseSrcImplExt::parent_query(self, query),
        }
    }

    fn fixate(&self, mut caps: gst::Caps) -> gst::Caps {
        caps.truncate();
        if let Some(caps) = caps.make_mut().structure_mut(0) {
            caps.fixate_field_nearest_int("width", DEFAULT_SIZE.0);
            caps.fixate_field_nearest_int("height", DEFAULT_SIZE.1);
            caps.fixate_field_nearest_fraction("framerate", DEFAULT_RATE);
        }
        self.parent_fixate(caps)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "caps `{caps}` do not describe a picture"))?;
        let mut state = self.state();
        let state = state.as_mut().ok_or_else(|| gst::loggable_error!(CAT, "caps before start"))?;
        let painter = Painter::new(&state.script, &info)
            .map_err(|error| gst::loggable_error!(CAT, "cannot draw as `{caps}`: {error}"))?;
        let mut picture = Picture { painter, fps: info.fps(), origin: gst::ClockTime::ZERO, count: 0 };
        // On the grid where possible: pictures after a seek are those without it.
        picture.count = picture.at(state.position);
        if state.picture.is_some() && picture.time(picture.count) != state.position {
            (picture.origin, picture.count) = (state.position, 0);
        }
        state.picture = Some(picture);
        self.obj().set_blocksize(info.size() as u32);
        Ok(())
    }

    fn times(&self, buffer: &gst::BufferRef) -> (Option<gst::ClockTime>, Option<gst::ClockTime>) {
        let live = self.obj().is_live();
        let start = buffer.pts().filter(|_| live);
        (start, start.zip(buffer.duration()).map(|(start, duration)| start + duration))
    }

    fn fill(
        &self,
        _offset: u64,
        _length: u32,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let drawn = self.draw(buffer, self.obj().is_live());
        match drawn {
            Ok(time) => self.announce(time),
            Err(gst::FlowError::Eos) => self.announce(Duration::MAX),
            Err(_) => (),
        }
        drawn.map(|_| gst::FlowSuccess::Ok)
    }
}
