use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;

use super::Position;
use super::draw::{self, Content, Layout, Panel};
use super::negotiate;
use super::open::Open;
use crate::element::meta;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("xclipoverlay", gst::DebugColorFlags::empty(), Some("Drawn action events"))
});

/// Largest em that is drawn: a third of an 8K picture's height.
const LARGEST_FONT: u32 = 1440;

#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    font_size: u32,
    position: Position,
    show_scores: bool,
}

/// Between start and stop.
#[derive(Default)]
struct State {
    info: Option<gst_video::VideoInfo>,
    open: Open,
    /// Running time of the last buffer that had one.
    now: gst::ClockTime,
    /// Whether the panel is attached instead of drawn; None: not asked yet.
    attach: Option<bool>,
    /// What was drawn last, and from what.
    last: Option<(Content, Layout, Option<gst_video::VideoOverlayComposition>)>,
}

/// Lock order: never both at once.
#[derive(Default)]
pub struct Overlay {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

impl Overlay {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        // Plain values: whole even if a thread panicked while it held the lock.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether downstream composes; asked once per negotiation, when there is something to show.
    fn ask_for_attach(&self) -> bool {
        let pad = self.obj().src_pad().clone();
        let attach = pad.current_caps().is_some_and(|caps| negotiate::attaches(&pad, &caps));
        gst::debug!(
            CAT,
            imp = self,
            "events are {} the picture",
            if attach { "attached to" } else { "drawn into" }
        );
        self.state().attach = Some(attach);
        attach
    }
}

impl State {
    /// Brings what is drawn up to date; whether there is anything.
    fn update(&mut self, settings: Settings) -> bool {
        let Some(info) = &self.info else { return false };
        let Settings { font_size, position, show_scores } = settings;
        let layout = Layout { width: info.width(), height: info.height(), font_size, position };
        let content = self.open.content(self.now.into(), show_scores);
        if !matches!(&self.last, Some((old, at, _)) if *old == content && *at == layout) {
            let composition = draw::panel(&content, &layout).and_then(composition);
            self.last = Some((content, layout, composition));
        }
        self.composition().is_some()
    }

    fn composition(&self) -> Option<&gst_video::VideoOverlayComposition> {
        self.last.as_ref().and_then(|(.., composition)| composition.as_ref())
    }
}

/// The panel in the form GStreamer blends.
fn composition(panel: Panel) -> Option<gst_video::VideoOverlayComposition> {
    let (width, height) = (panel.pixels.width(), panel.pixels.height());
    let mut pixels = panel.pixels.take();
    for pixel in pixels.chunks_exact_mut(4) {
        let [r, g, b, a] = [pixel[0], pixel[1], pixel[2], pixel[3]];
        // GStreamer's overlay format: a native-endian word, alpha in its highest byte.
        pixel.copy_from_slice(&u32::from_be_bytes([a, r, g, b]).to_ne_bytes());
    }
    let mut buffer = gst::Buffer::from_mut_slice(pixels);
    let format =
        if cfg!(target_endian = "big") { gst_video::VideoFormat::Argb } else { gst_video::VideoFormat::Bgra };
    let flags = gst_video::VideoFrameFlags::empty();
    gst_video::VideoMeta::add(buffer.get_mut()?, flags, format, width, height).ok()?;
    let rectangle = gst_video::VideoOverlayRectangle::new_raw(
        &buffer,
        panel.x as i32,
        panel.y as i32,
        width,
        height,
        gst_video::VideoOverlayFormatFlags::PREMULTIPLIED_ALPHA,
    );
    gst_video::VideoOverlayComposition::new([&rectangle]).ok()
}

#[glib::object_subclass]
impl ObjectSubclass for Overlay {
    const NAME: &'static str = "GstXClipOverlay";
    type Type = super::Overlay;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for Overlay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecUInt::builder("font-size")
                    .nick("Font size")
                    .blurb("Size of an em in pixels; 0: 1/27 of the picture's smaller side, at least 11")
                    .maximum(LARGEST_FONT)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<Position>("position")
                    .nick("Position")
                    .blurb("The corner of the picture where events are drawn")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("show-scores")
                    .nick("Show scores")
                    .blurb("Also draw a table of the best labels of the last scored window, for tuning thresholds")
                    .mutable_playing()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings();
        match pspec.name() {
            "font-size" => settings.font_size = value.get().expect("checked by GObject"),
            "position" => settings.position = value.get().expect("checked by GObject"),
            "show-scores" => settings.show_scores = value.get().expect("checked by GObject"),
            _ => unreachable!("GObject asks for listed properties only"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match pspec.name() {
            "font-size" => settings.font_size.to_value(),
            "position" => settings.position.to_value(),
            "show-scores" => settings.show_scores.to_value(),
            _ => unreachable!("GObject asks for listed properties only"),
        }
    }
}

impl GstObjectImpl for Overlay {}

impl ElementImpl for Overlay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "X-CLIP event overlay",
                "Filter/Editor/Video",
                "Draws open action events with label, score and duration into the picture",
                concat!(env!("CARGO_PKG_NAME"), " contributors"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = negotiate::template();
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                        .expect("a valid name and valid caps make a template")
                })
                .into()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for Overlay {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = State::default();
        self.obj().set_passthrough(true);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = State::default();
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let other = negotiate::transformed(direction, caps);
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }

    fn fixate_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        candidates: gst::Caps,
    ) -> gst::Caps {
        let candidates = match direction {
            gst::PadDirection::Sink => {
                negotiate::preferred(candidates, &self.obj().src_pad().peer_query_caps(None))
            }
            _ => candidates,
        };
        self.parent_fixate_caps(direction, caps, candidates)
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "caps `{incaps}` do not describe a picture"))?;
        let mut state = self.state();
        state.info = Some(info);
        state.attach = None;
        Ok(())
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        self.parent_propose_allocation(decide_query, query)?;
        // Also while drawing, when the base class does not ask downstream.
        if query.find_allocation_meta::<gst_video::VideoMeta>().is_none() {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        match event.view() {
            EventView::CustomDownstream(custom) => {
                if let Some(structure) = custom.structure().filter(|s| s.name() == meta::EVENT)
                    && let Err(error) = self.state().open.tell(structure)
                {
                    gst::warning!(CAT, imp = self, "ignored: {error}");
                }
            }
            EventView::FlushStop(_) | EventView::Eos(_) | EventView::StreamStart(_) => {
                self.state().open.clear()
            }
            _ => (),
        }
        self.parent_sink_event(event)
    }

    // Called for every buffer, before it is decided whether it must be writable.
    fn before_transform(&self, buffer: &gst::BufferRef) {
        let settings = *self.settings();
        let segment = self.obj().segment();
        let mut state = self.state();
        if let Some(time) =
            segment.downcast_ref::<gst::ClockTime>().and_then(|s| s.to_running_time(buffer.pts()))
        {
            state.now = time;
        }
        state.open.see(meta::read(buffer));
        let draw = state.update(settings);
        drop(state);
        self.obj().set_passthrough(!draw);
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (info, composition, attach) = {
            let state = self.state();
            let (Some(info), Some(composition)) = (&state.info, state.composition()) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            (info.clone(), composition.clone(), state.attach)
        };
        let attach = attach.unwrap_or_else(|| self.ask_for_attach());
        if attach {
            gst_video::VideoOverlayCompositionMeta::add(buffer, &composition);
            return Ok(gst::FlowSuccess::Ok);
        }
        let size = buffer.size();
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info).map_err(|_| {
            let (format, width, height) = (info.format(), info.width(), info.height());
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                [
                    "a buffer of {size} bytes is no picture in {format:?} {width}×{height}, which has {}",
                    info.size()
                ]
            );
            gst::FlowError::Error
        })?;
        composition.blend(&mut frame).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ["cannot draw on {:?}: {error}", info.format()]
            );
            gst::FlowError::Error
        })?;
        Ok(gst::FlowSuccess::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::meta::{Marks, OpenEvent};
    use crate::event::Stamp;

    #[test]
    fn the_panel_is_rendered_again_only_when_it_looks_different() {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 320, 240).build().unwrap();
        let mut state = State { info: Some(info), ..State::default() };
        let zero = std::time::Duration::ZERO;
        let start = Stamp { timestamp: zero, stream_time: zero, running_time: zero, utc: None };
        let mut show = |ms: u64, score: f32| {
            let event = OpenEvent {
                instance: "d".into(),
                view: "frame".into(),
                id: "a".into(),
                label: "waving".into(),
                severity: None,
                score,
                start,
            };
            state.now = gst::ClockTime::from_mseconds(ms);
            state.open.see(Marks { windows: Vec::new(), events: vec![event] });
            assert!(state.update(Settings::default()));
            state.composition().unwrap().as_ptr() as usize
        };
        let first = show(3000, 0.70);
        assert_eq!(show(3900, 0.701), first, "the same whole second and percent");
        let next = show(4000, 0.70);
        assert_ne!(next, first, "a second later");
        assert_ne!(show(4000, 0.75), next, "another score");
    }
}
