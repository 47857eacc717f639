//! GStreamer's errors → one message with the mend.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use super::input::Input;
use crate::command::CommandError;
use crate::command::packages::{self, Family, Install};

/// What went wrong in a pipeline that reads `input`. `missing`: the formats for which GStreamer found no
/// plugin, in its words.
pub fn explain(input: &Input, error: &gst::message::Error, missing: &[String]) -> CommandError {
    let cause = error.error();
    let place = error.src().map(|element| element.name().to_string()).unwrap_or_default();
    tracing::debug!("{place}: {cause}: {}", error.debug().unwrap_or_default());
    if !missing.is_empty() {
        return CommandError::unusable(
            input.to_string(),
            format!("no plugin for {}", missing.join(", ")),
            format!("install decoders: {}", Install(Family::here(), &[packages::LIBAV, packages::BAD])),
        );
    }
    if place == "xclipdetect" {
        // About the model, the labels, a property: not the input's fault.
        return CommandError::unusable("xclipdetect", cause.message(), "");
    }
    // After the line that names source file and element.
    let detail = error.debug().and_then(|debug| Some(debug.split_once('\n')?.1.trim().to_string()));
    let (problem, mend) = words(input, &cause, detail.filter(|detail| !detail.is_empty()));
    CommandError::unusable(input.to_string(), problem, mend)
}

/// A file whose reading stopped without a word.
pub fn silent(input: &Input) -> CommandError {
    CommandError::unusable(input.to_string(), "nothing in it can be played", DAMAGED)
}

const DAMAGED: &str = "the file is damaged or incomplete; try to copy it again";

/// The problem and its mend. `detail`: what GStreamer adds for developers, often the real cause.
fn words(input: &Input, error: &glib::Error, detail: Option<String>) -> (String, String) {
    let said = error.message().trim_end_matches('.').to_string();
    let (problem, mend) = if let Some(resource) = error.kind::<gst::ResourceError>() {
        match (resource, input) {
            (gst::ResourceError::NotAuthorized, _) => (
                "the camera refuses user and password".into(),
                "give them in the address: rtsp://USER:PASSWORD@HOST/PATH, special characters as %XX",
            ),
            (gst::ResourceError::NotFound, Input::Rtsp(_)) => {
                (said, "check the path of the address in the camera's manual")
            }
            (_, Input::Rtsp(_)) => (
                format!("cannot read from the camera ({})", detail.unwrap_or(said)),
                "check address and port, that it is on and reachable, and that nobody else holds its streams",
            ),
            (gst::ResourceError::Busy, Input::Device(_)) => {
                (said, "another program uses the device; `fuser /dev/video*` tells which")
            }
            (gst::ResourceError::Settings, _) => (detail.unwrap_or(said), ""),
            (gst::ResourceError::NoSpaceLeft, _) => (said, "free some space and run again"),
            _ => (said, ""),
        }
    } else if let Some(stream) = error.kind::<gst::StreamError>() {
        match stream {
            gst::StreamError::TypeNotFound | gst::StreamError::WrongType => {
                (said, "expected a video file; `gst-discoverer-1.0 FILE` tells what it is")
            }
            gst::StreamError::Decrypt | gst::StreamError::DecryptNokey => {
                (said, "encrypted video cannot be read")
            }
            gst::StreamError::Decode | gst::StreamError::Demux => (said, DAMAGED),
            _ => (said, ""),
        }
    } else if error.matches(gst::CoreError::MissingPlugin) {
        // Of those without a missing decoder for pictures.
        ("it has no video stream".into(), "expected a video; `gst-discoverer-1.0 FILE` tells what it is")
    } else {
        (said, "")
    };
    (problem, mend.to_string())
}
