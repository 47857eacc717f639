//! INPUT → decode → `xclipdetect` → (overlay → encode → file).

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use super::Detect;
use super::input::Input;
use crate::command::CommandError;
use crate::command::recorder::{make, recorder};

/// The elements that the run talks to.
pub struct Built {
    pub pipeline: gst::Pipeline,
    pub detect: gst::Element,
    /// What comes after it: the recorder, or nothing but a sink.
    pub tail: Vec<gst::Element>,
    /// Where the events' JSON lines arrive.
    pub events: gst::Pad,
}

/// Builds the pipeline, stopped.
///
/// # Errors
/// A missing element, with the command that installs it; a property that `xclipdetect` does not have.
pub fn build(arguments: &Detect, input: &Input) -> Result<Built, CommandError> {
    let pipeline = gst::Pipeline::new();
    let convert = make("videoconvert", &[])?;
    let detect = detector(arguments, input)?;
    pipeline.add_many([&convert, &detect])?;
    convert.link(&detect)?;
    add_source(&pipeline, input, &convert)?;

    let tail = match &arguments.annotate {
        // The queue lets drawing and encoding use another core.
        Some(path) => [make("queue", &[])?, make("xclipoverlay", &[])?]
            .into_iter()
            .chain(recorder(path, input.is_live())?)
            .collect(),
        None => vec![make("fakesink", &[("sync", &false), ("enable-last-sample", &false)])?],
    };
    pipeline.add_many(&tail)?;
    gst::Element::link_many(std::iter::once(&detect).chain(&tail))?;

    // Events never hold up the start or the video: the sink takes them as they come.
    let sink = make("fakesink", &[("sync", &false), ("async", &false), ("enable-last-sample", &false)])?;
    pipeline.add(&sink)?;
    detect.link_pads(Some("events"), &sink, Some("sink"))?;
    let events = sink.static_pad("sink").expect("a sink has a sink pad");
    Ok(Built { pipeline, detect, tail, events })
}

fn detector(arguments: &Detect, input: &Input) -> Result<gst::Element, CommandError> {
    let detect = make("xclipdetect", &[("name", &"xclipdetect")])?;
    // Cameras: buffers never wait. The rest: nothing is dropped.
    set_property(&detect, "sync", if input.is_live() { "false" } else { "true" })?;
    let files = arguments.labels_file.as_ref().map(|path| path.display().to_string());
    let named = [
        ("model", Some(arguments.model.clone())),
        ("labels-file", files),
        ("labels", arguments.labels.clone()),
    ];
    let set = arguments.set.iter().map(|(name, value)| (name.as_str(), Some(value.clone())));
    for (name, value) in named.into_iter().chain(set) {
        let Some(value) = value else { continue };
        set_property(&detect, name, &value)?;
    }
    Ok(detect)
}

/// Sets a property from text, with an error instead of GStreamer's panic or silence.
pub(in crate::command) fn set_property(
    element: &gst::Element,
    name: &str,
    text: &str,
) -> Result<(), CommandError> {
    let refused = |problem: String| {
        let mend = "`gst-inspect-1.0 xclipdetect` lists properties, ranges and defaults";
        Err(CommandError::unusable(format!("property `{name}`"), problem, mend))
    };
    let Some(property) = element.find_property(name) else {
        return refused("xclipdetect does not have it".into());
    };
    if !property.flags().contains(glib::ParamFlags::WRITABLE) {
        return refused("it can only be read".into());
    }
    // Strings are taken as they are: GStreamer's own syntax would strip quotes and escapes.
    if property.value_type() == String::static_type() {
        element.set_property(name, text);
        return Ok(());
    }
    match glib::Value::deserialize_with_pspec(text, &property) {
        Ok(value) => match out_of_range(&property, &value) {
            Some(range) => refused(format!("{text} is out of its range {range}")),
            None => {
                element.set_property_from_value(name, &value);
                Ok(())
            }
        },
        Err(_) => refused(format!("`{text}` is no value of type {}", property.value_type())),
    }
}

/// The range of a number's property if `value` is not within; setting it would panic.
fn out_of_range(property: &glib::ParamSpec, value: &glib::Value) -> Option<String> {
    macro_rules! check {
        ($($spec:ty: $number:ty),*) => {$(
            if let (Some(spec), Ok(number)) = (property.downcast_ref::<$spec>(), value.get::<$number>()) {
                let (low, high) = (spec.minimum(), spec.maximum());
                return (!(low..=high).contains(&number)).then(|| format!("{low} to {high}"));
            }
        )*};
    }
    check!(
        glib::ParamSpecInt: i32, glib::ParamSpecUInt: u32, glib::ParamSpecInt64: i64,
        glib::ParamSpecUInt64: u64, glib::ParamSpecFloat: f32, glib::ParamSpecDouble: f64
    );
    None
}

fn add_source(pipeline: &gst::Pipeline, input: &Input, convert: &gst::Element) -> Result<(), CommandError> {
    let source = match input {
        Input::File(path) => make("filesrc", &[("location", &path.display().to_string())])?,
        Input::Device(path) => make("v4l2src", &[("device", &path.display().to_string())])?,
        Input::Rtsp(address) => return add_camera(pipeline, address, convert),
        Input::Scene { script, seed } => {
            let scene = make("xclipscenesrc", &[])?;
            if let Some(script) = script {
                scene.set_property("script", script.display().to_string());
            }
            if let Some(seed) = seed {
                scene.set_property("seed", *seed);
            }
            pipeline.add(&scene)?;
            return Ok(scene.link(convert)?);
        }
    };
    let decode = decoder(convert)?;
    pipeline.add_many([&source, &decode])?;
    Ok(source.link(&decode)?)
}

/// Decodes the first video stream into `convert`; audio and subtitles are left alone.
pub(in crate::command) fn decoder(convert: &gst::Element) -> Result<gst::Element, CommandError> {
    // Any memory: decoders whose caps are a mixture would be passed over.
    let raw = gst::Caps::builder("video/x-raw").any_features().build();
    let decode = make("decodebin", &[("caps", &raw), ("expose-all-streams", &false)])?;
    let sink = convert.static_pad("sink").expect("a converter has a sink pad");
    let weak = sink.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let Some(sink) = weak.upgrade().filter(|sink| !sink.is_linked()) else { return };
        if let Err(error) = pad.link(&sink) {
            tracing::warn!("cannot use the stream {}: {error}", pad.name());
        }
    });
    let weak = sink.downgrade();
    decode.connect_no_more_pads(move |decode| {
        if weak.upgrade().is_some_and(|sink| !sink.is_linked()) {
            gst::element_error!(decode, gst::StreamError::WrongType, ("it has no video stream"));
        }
    });
    Ok(decode)
}

fn add_camera(pipeline: &gst::Pipeline, address: &str, convert: &gst::Element) -> Result<(), CommandError> {
    let source = make(
        "rtspsrc",
        &[
            ("location", &address),
            ("latency", &200u32),
            ("drop-on-latency", &true),
            ("tcp-timeout", &10_000_000u64),
            // Events get the camera's own time where it tells it.
            ("add-reference-timestamp-meta", &true),
        ],
    )?;
    fn is_video(caps: &gst::CapsRef) -> bool {
        caps.structure(0).and_then(|s| s.get::<&str>("media").ok()) == Some("video")
    }
    source.connect("select-stream", false, |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        Some(caps.is_none_or(|caps| is_video(&caps)).to_value())
    });
    let decode = decoder(convert)?;
    pipeline.add_many([&source, &decode])?;
    let sink = decode.static_pad("sink").expect("decodebin has a sink pad").downgrade();
    source.connect_pad_added(move |_, pad| {
        let Some(sink) = sink.upgrade().filter(|sink| !sink.is_linked()) else { return };
        let video = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if is_video(&video)
            && let Err(error) = pad.link(&sink)
        {
            tracing::warn!("cannot use the camera's stream {}: {error}", pad.name());
        }
    });
    Ok(())
}
