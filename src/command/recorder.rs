//! Elements by name, and the end of a pipeline that writes a video file.

use std::path::Path;
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

use super::{CommandError, packages};

/// An element with properties set.
///
/// # Errors
/// The element is missing; the message says which package brings it.
pub fn make(factory: &str, properties: &[(&str, &dyn ToValue)]) -> Result<gst::Element, CommandError> {
    let element = gst::ElementFactory::make(factory).build().map_err(|_| {
        let subject = format!("GStreamer element `{factory}`");
        CommandError::unusable(subject, "is missing", packages::mend(factory))
    })?;
    for (name, value) in properties {
        element.set_property(name, value.to_value());
    }
    Ok(element)
}

/// Raw video → H.264 in a file of the kind that its extension names. `live`: frames come in real time,
/// the encoder must not hold them back.
///
/// # Errors
/// An extension other than .mp4, .m4v, .mov, .mkv; a missing element.
pub fn recorder(path: &Path, live: bool) -> Result<Vec<gst::Element>, CommandError> {
    let muxer = match path.extension().and_then(|extension| extension.to_str()) {
        Some("mp4" | "m4v" | "mov") => make("mp4mux", &[])?,
        Some("mkv") => make("matroskamux", &[])?,
        _ => {
            let shown = path.display().to_string();
            return Err(CommandError::unusable(shown, "unknown kind of video file", "use .mp4 or .mkv"));
        }
    };
    let encoder = make("x264enc", &[("quantizer", &23u32)])?;
    encoder.set_property_from_str("speed-preset", "veryfast");
    encoder.set_property_from_str("pass", "qual");
    if live {
        encoder.set_property_from_str("tune", "zerolatency");
    }
    // Players decode nothing but 4:2:0 reliably.
    let caps = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    Ok(vec![
        make("videoconvert", &[])?,
        make("capsfilter", &[("caps", &caps)])?,
        encoder,
        make("h264parse", &[])?,
        muxer,
        make("filesink", &[("location", &path.display().to_string()), ("sync", &false)])?,
    ])
}

/// Plays a pipeline to its end and stops it; `progress` hears the position every tenth of a second.
///
/// # Errors
/// The pipeline's first error, as one about `subject`.
pub fn run_to_end(
    pipeline: &gst::Pipeline,
    subject: &str,
    mut progress: impl FnMut(Duration),
) -> Result<(), CommandError> {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let started = pipeline.set_state(gst::State::Playing);
    let result = loop {
        let message = bus.timed_pop_filtered(
            gst::ClockTime::from_mseconds(100),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        );
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => {
                break Err(CommandError::unusable(subject, error.error().message(), ""));
            }
            Some(_) => break Ok(()),
            None if started.is_err() => {
                break Err(CommandError::unusable(subject, "the pipeline does not start", ""));
            }
            None => {
                let position = pipeline.query_position::<gst::ClockTime>();
                progress(position.map(Duration::from).unwrap_or_default());
            }
        }
    };
    let _ = pipeline.set_state(gst::State::Null);
    result
}
