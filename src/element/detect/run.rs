//! What lives between start (READY→PAUSED) and stop (PAUSED→READY): the engine's share, the detector,
//! the outlet; and how settings reach them while they run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use super::CAT;
use super::choices::Sync;
use super::imp::XClipDetect;
use super::outlet::Outlet;
use super::settings::{Change, Settings, SettingsError};
use crate::detector::{self, Detector, DetectorError, Mode};
use crate::element::meta;
use crate::engine::{self, Engine, EngineError, Serving};
use crate::event::{Reason, Source};
use crate::image::ImageInfo;
use crate::model::labels::Labels;

/// Where buffers lie in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Timeline {
    #[default]
    None,
    /// A segment in bytes or frames: nothing can be dated.
    Foreign,
    /// Rate < 0.
    Reverse,
    Forward(gst::FormattedSegment<gst::ClockTime>),
}

/// What streaming changes; `run` is there between start and stop.
#[derive(Default)]
pub struct State {
    pub run: Option<Run>,
    pub timeline: Timeline,
    pub picture: Option<(gst_video::VideoInfo, ImageInfo)>,
    /// Upstream's stream id.
    pub stream: String,
    pub buffers: u64,
    /// Buffers that passed unseen, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    pub last_seek: Option<gst::Seqnum>,
    /// What sync mode adds to a live pipeline's latency.
    pub latency: gst::ClockTime,
    /// The last run's counts, after it stopped.
    last: Option<detector::Stats>,
}

impl State {
    pub fn skip(&mut self, reason: &'static str) -> u64 {
        let count = self.skipped.entry(reason).or_default();
        *count += 1;
        *count
    }
}

#[derive(Clone)]
pub struct Run {
    pub engine: Arc<Engine>,
    pub detector: Arc<Detector>,
    pub outlet: Arc<Outlet>,
    pub mode: Mode,
    pub live: bool,
    /// Mode and liveness are known once upstream can be asked: at the first buffer. Until then, async.
    settled: bool,
    flags: Arc<Flags>,
}

#[derive(Default)]
pub struct Flags {
    enabled: AtomicBool,
    /// An error was posted; the stream ends with it.
    failed: AtomicBool,
    stopped: AtomicBool,
    /// What the user was told of.
    told: Mutex<Option<Arc<Serving>>>,
}

impl Run {
    pub fn has_failed(&self) -> bool {
        self.flags.failed.load(Ordering::SeqCst)
    }

    pub fn is_enabled(&self) -> bool {
        self.flags.enabled.load(Ordering::SeqCst)
    }

    pub fn fail(&self, element: &gst::Element, message: &str) {
        self.flags.fail(element, message);
    }
}

impl Flags {
    /// Posts the run's one error; the next buffer ends the stream.
    pub fn fail(&self, element: &gst::Element, message: &str) {
        if !self.failed.swap(true, Ordering::SeqCst) {
            gst::element_error!(element, gst::LibraryError::Failed, ("{message}"));
        }
    }

    /// Says what computes, once; a warning where that is not what precision=auto is for.
    pub fn tell(&self, element: &gst::Element, serving: Option<Arc<Serving>>) {
        let Some(serving) = serving else { return };
        let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(serving.clone());
        if before.is_some_and(|before| Arc::ptr_eq(&before, &serving)) {
            return;
        }
        gst::info!(CAT, obj = element, "{serving}");
        if let Some(choice) = serving.choice.as_ref().filter(|choice| choice.differs) {
            gst::element_warning!(
                element,
                gst::LibraryError::Settings,
                ("{}", choice.why),
                ["precision=auto; with precision=f32 nothing is checked"]
            );
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Detector(#[from] DetectorError),
}

impl XClipDetect {
    pub(super) fn start(&self) -> Result<(), gst::StateChangeError> {
        self.try_start().map_err(|error| {
            match &error {
                StartError::Settings(_) | StartError::Detector(DetectorError::Labels(_)) => {
                    gst::element_error!(self.obj(), gst::LibraryError::Settings, ("{error}"));
                }
                _ => gst::element_error!(self.obj(), gst::ResourceError::OpenRead, ("{error}")),
            }
            gst::StateChangeError
        })
    }

    fn try_start(&self) -> Result<(), StartError> {
        let settings = self.settings().clone();
        let labels = settings.labels()?;
        if let Some(folder) = &settings.cuda_lib_dir {
            crate::backend::look_for_cuda_in(folder.as_ref());
        }
        let engine = Engine::open(&settings.spec()?)?;
        let mode = if settings.sync == Sync::True { Mode::Sync } else { Mode::Async };
        let flags = Arc::new(Flags { enabled: AtomicBool::new(settings.enabled), ..Flags::default() });
        let outlet = Outlet::new(self.obj().upcast_ref(), engine.clone(), flags.clone(), self.lines.clone());
        let outlet = Arc::new(outlet);
        outlet.set_post_messages(settings.post_messages);
        outlet.set_lossless(mode == Mode::Sync);
        let detector = Detector::new(
            engine.clone(),
            self.source(),
            settings.detector(engine.model())?,
            labels.clone(),
            mode,
            outlet.clone(),
        )?;
        self.lines.reset();
        let run = Run { engine, detector, outlet, mode, live: false, settled: false, flags };
        *self.state() = State { run: Some(run.clone()), ..State::default() };
        self.welcome(&run, &labels, true);
        self.watch_engine(&run);
        Ok(())
    }

    /// Wakes whatever waits in the detector; called while streaming threads may still be in it.
    pub(super) fn interrupt(&self) {
        self.stall.disarm();
        self.lines.close();
        let run = self.state().run.take();
        if let Some(run) = run {
            run.flags.stopped.store(true, Ordering::SeqCst);
            run.detector.interrupt(true);
            run.detector.flush(Reason::Flush);
            self.state().last = Some(run.detector.stats());
        }
    }

    /// The pads are inactive: nobody streams.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.timeline = Timeline::None;
        state.picture = None;
        state.stream.clear();
        state.latency = gst::ClockTime::ZERO;
    }

    pub(super) fn source(&self) -> Source {
        let own = self.settings().stream_id.clone();
        let stream = own.unwrap_or_else(|| self.state().stream.clone());
        Source { instance: self.obj().name().into(), stream }
    }

    /// The run, its mode settled: for the streaming thread with a buffer in hand.
    pub(super) fn begin(&self) -> Option<Run> {
        let run = self.state().run.clone()?;
        if run.settled {
            if run.live && !self.stall.is_armed() {
                self.arm_stall();
            }
            return Some(run);
        }
        let mut query = gst::query::Latency::new();
        let live = self.sinkpad.peer_query(&mut query) && query.result().0;
        let mode = match self.settings().sync {
            Sync::True => Mode::Sync,
            Sync::False => Mode::Async,
            Sync::Auto if live => Mode::Async,
            Sync::Auto => Mode::Sync,
        };
        gst::info!(CAT, imp = self, "{mode:?}: upstream is {}live", if live { "" } else { "not " });
        run.detector.set_mode(mode);
        run.outlet.set_lossless(mode == Mode::Sync);
        let run = Run { mode, live, settled: true, ..run };
        // None: stopped meanwhile.
        self.state().run.as_mut()?.clone_from(&run);
        self.arm_stall();
        Some(run)
    }

    /// Starts the stall timer where the stream is live and the pipeline plays.
    pub(super) fn arm_stall(&self) {
        let run = self.state().run.clone();
        let (Some(run), Some(clock)) = (run.filter(|run| run.live), self.obj().clock()) else { return };
        if !self.playing.load(Ordering::SeqCst) {
            return;
        }
        let timeout = run.detector.stall_timeout();
        let Ok(timeout) = gst::ClockTime::try_from(timeout) else { return };
        let element = self.obj().downgrade();
        let stalled = move || {
            if let Some(element) = element.upgrade() {
                gst::warning!(CAT, obj = element, "no buffer for {timeout}: open events end");
                run.detector.flush(Reason::Stalled);
            }
        };
        self.stall.arm(clock, timeout, Arc::new(stalled));
    }

    /// Loading goes on in the background; its steps are progress messages.
    fn watch_engine(&self, run: &Run) {
        // Not the run itself: the engine keeps observers while it loads.
        let (element, flags) = (self.obj().downgrade(), run.flags.clone());
        let mut started = false;
        let model = run.engine.model().name.clone();
        let engine = Arc::downgrade(&run.engine);
        run.engine.observe(Box::new(move |state| {
            let Some(element) = element.upgrade() else { return false };
            let progress = |kind, text: String| {
                let message = gst::message::Progress::builder(kind, "load", &text).src(&element).build();
                let _ = element.post_message(message);
            };
            if flags.stopped.load(Ordering::SeqCst) {
                if started {
                    progress(gst::ProgressType::Canceled, format!("stopped while {model} was loading"));
                }
                return false;
            }
            match state {
                engine::State::Loading => {
                    started = true;
                    progress(gst::ProgressType::Start, format!("loading {model}"));
                    true
                }
                engine::State::Ready => {
                    let serving = engine.upgrade().and_then(|engine| engine.serving());
                    if started {
                        let on = serving.as_ref().map_or("", |serving| &serving.backend);
                        progress(gst::ProgressType::Complete, format!("{model} is loaded: {on}"));
                    }
                    flags.tell(element.upcast_ref(), serving);
                    false
                }
                engine::State::Failed(error) => {
                    if started {
                        progress(gst::ProgressType::Error, format!("{model} cannot be loaded"));
                    }
                    flags.fail(element.upcast_ref(), &error.to_string());
                    false
                }
            }
        }));
    }

    /// Says once what a label set is and, for the bundled model, what it cannot know.
    fn welcome(&self, run: &Run, labels: &Labels, start: bool) {
        let names: Vec<&str> = labels.labels.iter().map(|label| label.name.as_str()).collect();
        gst::info!(CAT, imp = self, "{} labels as parsed: {names:?}", names.len());
        if names.is_empty() {
            gst::warning!(CAT, imp = self, "no labels: nothing is detected; set `labels` or `labels-file`");
            return;
        }
        let model = run.engine.model();
        if model.name != "demo" {
            return;
        }
        if start {
            gst::element_warning!(
                self.obj(),
                gst::LibraryError::Settings,
                ("model=demo knows drawn scenes only (figures of xclipscenesrc), no camera pictures; set model=FOLDER to a real checkpoint"),
                ["it is bundled for trying out the pipeline"]
            );
        }
        let strange = labels.labels.iter().filter_map(|label| {
            let prompts =
                if label.prompts.is_empty() { std::slice::from_ref(&label.name) } else { &label.prompts };
            let words: Vec<String> =
                prompts.iter().flat_map(|prompt| model.tokenizer.unknown_words(prompt)).collect();
            (!words.is_empty()).then(|| format!("`{}` ({})", label.name, words.join(", ")))
        });
        let strange: Vec<String> = strange.collect();
        if !strange.is_empty() {
            gst::element_warning!(
                self.obj(),
                gst::LibraryError::Settings,
                (
                    "model=demo has never seen words of these labels, their scores mean nothing: {}",
                    strange.join("; ")
                ),
                ["its vocabulary is that of the drawn world"]
            );
        }
    }

    /// Brings a changed setting to what runs. What the new value does wrong is a warning, and the old
    /// value, in `before`, comes back.
    pub(super) fn apply(&self, change: Change, property: &str, before: &Settings) {
        let run = self.state().run.clone();
        let Some(run) = run else { return };
        let result = match change {
            Change::AtStart => Ok(()),
            Change::Labels => self.apply_labels(&run),
            // The stall time follows the sample rate.
            Change::Detector => self.apply_detector(&run).inspect(|()| self.arm_stall()),
            Change::Source => {
                run.detector.set_source(self.source());
                Ok(())
            }
            Change::Enabled => {
                let enabled = self.settings().enabled;
                let was = run.flags.enabled.swap(enabled, Ordering::SeqCst);
                if was && !enabled {
                    run.detector.flush(Reason::Disabled);
                } else if enabled && !was {
                    run.detector.restart(None);
                }
                Ok(())
            }
            Change::Messages => {
                run.outlet.set_post_messages(self.settings().post_messages);
                Ok(())
            }
        };
        if let Err(error) = result {
            match change {
                Change::Labels => self.settings().labels = before.labels.clone(),
                _ => {
                    if let Some(value) = before.get(property) {
                        self.settings().set(property, &value);
                    }
                }
            }
            gst::element_warning!(
                self.obj(),
                gst::LibraryError::Settings,
                ("{error}; the old value of {property} stays"),
                ["property {property} while playing"]
            );
        }
    }

    fn apply_labels(&self, run: &Run) -> Result<(), StartError> {
        let labels = self.settings().labels()?;
        let generation = run.detector.set_labels(labels.clone())?;
        gst::info!(CAT, imp = self, "labels generation {generation}");
        self.welcome(run, &labels, false);
        self.obj().notify("labels-generation");
        Ok(())
    }

    /// Two threads may set two properties: whoever comes last applies all that is set by then.
    fn apply_detector(&self, run: &Run) -> Result<(), StartError> {
        loop {
            let settings = self.settings().clone();
            run.detector.set_settings(settings.detector(run.engine.model())?)?;
            if *self.settings() == settings {
                return Ok(());
            }
        }
    }

    /// In a live pipeline, sync mode makes buffers as late as windows take: the sinks are told.
    pub(super) fn note_latency(&self, run: &Run) {
        if run.mode != Mode::Sync || !run.live {
            return;
        }
        let measured = run.detector.stats().delay_p95;
        let Ok(measured) = gst::ClockTime::try_from(measured) else { return };
        let grown = {
            let mut state = self.state();
            // Steps of a quarter, so that a sink does not follow every twitch.
            let grown = measured > state.latency + state.latency / 4;
            if grown {
                state.latency = measured + measured / 4;
            }
            grown
        };
        if grown {
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    pub(super) fn labels_generation(&self) -> u64 {
        let run = self.state().run.clone();
        run.map_or(0, |run| run.detector.labels_generation())
    }

    pub(super) fn active_events(&self) -> gst::Array {
        let run = self.state().run.clone();
        meta::active(&run.map(|run| run.outlet.open()).unwrap_or_default())
    }

    pub(super) fn stats(&self) -> gst::Structure {
        let run = self.state().run.clone();
        let running = run.as_ref().map(|run| run.detector.stats());
        let serving = run.as_ref().and_then(|run| run.engine.serving());
        let state = self.state();
        let stats = running.or_else(|| state.last.clone()).unwrap_or_default();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counts = |name, counts: &BTreeMap<&'static str, u64>| {
            gst::Structure::from_iter(name, counts.iter().map(|(reason, n)| (*reason, n.to_send_value())))
        };
        gst::Structure::builder("xclip-stats")
            .field(
                "mode",
                run.as_ref().filter(|run| run.settled).map_or("", |run| match run.mode {
                    Mode::Async => "async",
                    Mode::Sync => "sync",
                }),
            )
            .field(
                "engine",
                run.as_ref().map_or("stopped", |run| match run.engine.state() {
                    engine::State::Loading => "loading",
                    engine::State::Ready => "ready",
                    engine::State::Failed(_) => "failed",
                }),
            )
            .field("backend", serving.as_ref().map_or("", |serving| serving.backend.as_str()))
            .field("buffers", state.buffers)
            .field("unseen", counts("unseen", &state.skipped))
            .field("frames", stats.frames)
            .field("sampled", stats.sampled)
            .field("uploaded", stats.uploaded)
            .field("restarts", stats.restarts)
            .field("windows", stats.windows)
            .field("dropped", counts("dropped", &stats.dropped))
            .field("queue", stats.queue as u64)
            .field("inference-p50", nanos(stats.inference_p50))
            .field("inference-p95", nanos(stats.inference_p95))
            .field("delay-p50", nanos(stats.delay_p50))
            .field("delay-p95", nanos(stats.delay_p95))
            .field("starts", stats.starts)
            .field("updates", stats.updates)
            .field("ends", stats.ends)
            .field("lines-dropped", self.lines.dropped())
            .build()
    }
}
