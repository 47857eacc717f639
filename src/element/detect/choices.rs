//! Properties that are one of a few words.

use gst::glib;
use gstreamer as gst;

/// Whether buffers wait for their scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstXClipSync")]
pub enum Sync {
    #[default]
    #[enum_value(name = "Async if upstream is live, sync otherwise", nick = "auto")]
    Auto,
    #[enum_value(
        name = "Sync: buffers wait, results land on the buffer that completes the window",
        nick = "true"
    )]
    True,
    #[enum_value(
        name = "Async: buffers never wait, the newest window wins, drops are counted",
        nick = "false"
    )]
    False,
}

/// What a label is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstXClipCompetition")]
pub enum Competition {
    #[default]
    #[enum_value(
        name = "Each label against the background alone: labels move no other label's score",
        nick = "background"
    )]
    Background,
    #[enum_value(name = "All labels and the background share a probability of 1", nick = "labels")]
    Labels,
}

/// How the picture becomes the model's square input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstXClipResize")]
pub enum Resize {
    #[default]
    #[enum_value(name = "As the checkpoint says", nick = "checkpoint")]
    Checkpoint,
    #[enum_value(
        name = "The paper's evaluation: short side 256/224 of the input, centre crop",
        nick = "videox"
    )]
    Videox,
    #[enum_value(
        name = "Both sides to the input's, aspect ratio ignored: nothing is cut off",
        nick = "stretch"
    )]
    Stretch,
}

/// Attention heads of the published large checkpoints' converted parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstXClipHeads")]
pub enum Heads {
    #[default]
    #[enum_value(name = "As config.json says", nick = "hf")]
    Hf,
    #[enum_value(name = "As the original: width / 64", nick = "videox")]
    Videox,
}
