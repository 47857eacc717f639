//! The GObject: pads, properties, states. [`stream`](super::stream) has the data flow,
//! [`run`](super::run) what lives between start and stop.
//!
//! Lock order: `settings`, then `state`, then those inside `lines`, `stall` and the outlet. None is held
//! while the detector works, a message is posted or a pad pushes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use super::CAT;
use super::events_pad;
use super::lines::Lines;
use super::picture::FORMATS;
use super::run::State;
use super::settings::{PROPERTIES, Settings};
use super::stall::Stall;

pub struct XClipDetect {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    pub(super) events_pad: Mutex<Option<gst::Pad>>,
    pub(super) lines: Arc<Lines>,
    pub(super) stall: Arc<Stall>,
    pub(super) playing: AtomicBool,
}

impl XClipDetect {
    // A panic is caught where GStreamer calls us and turned into an element error; what it left locked
    // is still whole, since nothing under these locks is changed in steps.
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events_pad(&self) -> Option<gst::Pad> {
        self.events_pad.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn activate_events_pad(&self, pad: &gst::Pad, active: bool) -> Result<(), gst::LoggableError> {
        if active {
            self.lines.open();
            self.start_events_task(pad)
        } else {
            self.lines.close();
            pad.stop_task().map_err(|_| gst::loggable_error!(CAT, "the events task does not stop"))
        }
    }

    pub(super) fn start_events_task(&self, pad: &gst::Pad) -> Result<(), gst::LoggableError> {
        let (element, weak) = (self.obj().downgrade(), pad.downgrade());
        let (lines, sinkpad) = (self.lines.clone(), self.sinkpad.clone());
        let task = move || {
            let (Some(element), Some(pad)) = (element.upgrade(), weak.upgrade()) else { return };
            if !events_pad::turn(&pad, element.upcast_ref(), &sinkpad, &lines) {
                // Fails only while the pad is being stopped anyway.
                let _ = pad.pause_task();
            }
        };
        pad.start_task(task).map_err(|_| gst::loggable_error!(CAT, "the events task does not start"))
    }
}

#[glib::object_subclass]
impl ObjectSubclass for XClipDetect {
    const NAME: &'static str = "GstXClipDetect";
    type Type = super::XClipDetect;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let links = |wanted: fn(&Self) -> gst::Pad| {
            // GStreamer's defaults forward along these: sink to src and back; `events` looks upstream only.
            move |_: &gst::Pad, parent: Option<&gst::Object>| {
                let pads = match parent.and_then(|parent| parent.downcast_ref::<super::XClipDetect>()) {
                    Some(element) => vec![wanted(element.imp())],
                    None => vec![],
                };
                gst::Iterator::from_vec(pads)
            }
        };
        let template = |name| class.pad_template(name).expect("pad_templates lists it");
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(pad, buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_query(pad, query))
            })
            .iterate_internal_links_function(links(|this| this.srcpad.clone()))
            .flags(
                gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING,
            )
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
            })
            .iterate_internal_links_function(links(|this| this.sinkpad.clone()))
            .flags(
                gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING,
            )
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::default(),
            events_pad: Mutex::default(),
            lines: Arc::default(),
            stall: Arc::default(),
            playing: AtomicBool::new(false),
        }
    }
}

impl ObjectImpl for XClipDetect {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let (before, change) = {
            let mut settings = self.settings();
            let before = settings.clone();
            (before, settings.set(pspec.name(), value))
        };
        if let Some(change) = change {
            self.apply(change, pspec.name(), &before);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            "active-events" => self.active_events().to_value(),
            "labels-generation" => self.labels_generation().to_value(),
            name => {
                let value = self.settings().get(name);
                value.unwrap_or_else(|| pspec.default_value().clone())
            }
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.add_pad(&self.sinkpad).expect("the first pad of this name");
        element.add_pad(&self.srcpad).expect("the first pad of this name");
    }
}

impl GstObjectImpl for XClipDetect {}

impl ElementImpl for XClipDetect {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "X-CLIP action detector",
                "Inference/Classification/Video",
                "Reports actions given in plain words as events with start and end (zero-shot, X-CLIP); video passes through untouched",
                "The gst-plugin-xclip authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let video = gst_video::VideoCapsBuilder::new()
                .format_list(FORMATS.iter().map(|(format, _)| *format))
                .build();
            let lines = gst::Caps::new_empty_simple("application/x-ndjson");
            let template = |name, direction, presence, caps| {
                gst::PadTemplate::new(name, direction, presence, caps).expect("names and caps are valid")
            };
            vec![
                template("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &video),
                template("src", gst::PadDirection::Src, gst::PadPresence::Always, &video),
                template("events", gst::PadDirection::Src, gst::PadPresence::Request, &lines),
            ]
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let mut place = self.events_pad.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            gst::error!(CAT, imp = self, "there is one pad `events`, and it is taken; put a tee behind it");
            return None;
        }
        let pad = gst::Pad::builder_from_template(template)
            .name("events")
            .activatemode_function(|pad, parent, _mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panic while the events pad was activated")),
                    |this| this.activate_events_pad(pad, active),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.events_pad_event(pad, event))
            })
            .iterate_internal_links_function(|_, parent| {
                let element = parent.and_then(|parent| parent.downcast_ref::<super::XClipDetect>());
                gst::Iterator::from_vec(
                    element.map(|element| element.imp().sinkpad.clone()).into_iter().collect(),
                )
            })
            .build();
        *place = Some(pad.clone());
        drop(place);
        // Activated by the element's state; add_pad does it where the element already runs.
        if self.obj().add_pad(&pad).is_err() {
            self.events_pad.lock().unwrap_or_else(PoisonError::into_inner).take();
            return None;
        }
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        // Joins the task.
        let _ = pad.set_active(false);
        self.events_pad.lock().unwrap_or_else(PoisonError::into_inner).take_if(|own| own == pad);
        let _ = self.obj().remove_pad(pad);
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PausedToPlaying => self.playing.store(true, Ordering::SeqCst),
            gst::StateChange::PlayingToPaused => {
                self.playing.store(false, Ordering::SeqCst);
                self.stall.disarm();
            }
            // Before the pads are deactivated, which waits for the streaming threads.
            gst::StateChange::PausedToReady => self.interrupt(),
            _ => (),
        }
        let success = self.parent_change_state(transition).inspect_err(|_| {
            if transition == gst::StateChange::ReadyToPaused {
                self.interrupt();
                self.stop();
            }
        })?;
        match transition {
            gst::StateChange::PausedToPlaying => self.arm_stall(),
            gst::StateChange::PausedToReady => self.stop(),
            _ => (),
        }
        Ok(success)
    }
}
