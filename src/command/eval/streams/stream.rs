//! One scripted stream: what happens in it, what is watched for, and the camera that shows it.

use gst::prelude::*;
use gstreamer as gst;

use crate::command::CommandError;
use crate::command::matching::Span;
use crate::command::recorder::make;
use crate::command::watch::{Recording, watch};
use crate::scene::{Action, Look, Random, Script};

/// Training never draws scripts of these seeds.
const SEED: u64 = 3_000_000;
/// Labels watched for in a stream.
pub const LABELS: usize = 5;

/// One kind of stream.
pub struct Kind {
    pub name: &'static str,
    look: Look,
    /// The labels watched for happen.
    pub listed: bool,
    /// Actions that happen too and nobody watches for.
    unlisted: usize,
}

pub const KINDS: [Kind; 4] = [
    Kind { name: "plain", look: Look::Plain, listed: true, unlisted: 0 },
    Kind { name: "plain, three unlisted", look: Look::Plain, listed: true, unlisted: 3 },
    Kind { name: "whole world", look: Look::Busy, listed: true, unlisted: 0 },
    Kind { name: "whole, nothing listed", look: Look::Busy, listed: false, unlisted: 8 },
];
/// Positions in [`KINDS`].
pub const WHOLE: usize = 2;
pub const QUIET: usize = 3;

/// What the pictures go through on their way to the element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    pub picture: [i32; 2],
    pub frames_per_second: i32,
    /// kbit/s of H.264.
    pub bitrate: u32,
}

impl Default for Camera {
    /// A camera's second stream; wider than the model looks, as cameras are.
    fn default() -> Self {
        Self { picture: [640, 360], frames_per_second: 12, bitrate: 500 }
    }
}

/// What is watched for and what happens.
pub struct Stream {
    /// For messages.
    pub name: String,
    pub labels: Vec<String>,
    /// As the `script` property takes it.
    pub text: String,
    script: Script,
}

impl Stream {
    /// The `number`th of a kind (a position in [`KINDS`]); the same numbers give the same stream.
    pub fn new(kind: usize, number: u64, seconds: f64) -> Self {
        let seed = SEED + 1000 * kind as u64 + number;
        let (watched, actions) = choose(&KINDS[kind], seed);
        let names: Vec<&str> = actions.iter().map(|action| action.label()).collect();
        let look = if KINDS[kind].look == Look::Plain { "plain" } else { "busy" };
        let text = serde_json::json!({ "seed": seed, "duration": seconds, "look": look, "random": names });
        let text = text.to_string();
        let script = Script::parse(&text).expect("names and numbers of our own");
        let labels = watched.iter().map(|action| action.label().to_string()).collect();
        Self { name: format!("{}, stream {number}", KINDS[kind].name), labels, text, script }
    }

    pub fn seconds(&self) -> f64 {
        self.script.duration.as_secs_f64()
    }

    /// What happens of what is watched for, or (`false`) of everything else.
    pub fn truth(&self, watched: bool) -> Vec<Span> {
        let all = self.script.truth().into_iter();
        all.map(|truth| Span { label: truth.label.into(), start: truth.start, end: truth.end })
            .filter(|span| self.labels.contains(&span.label) == watched)
            .collect()
    }

    /// Plays it through `detect`, whose labels are `labels`, as fast as it goes.
    pub fn play(
        &self,
        camera: &Camera,
        detect: &gst::Element,
        labels: &[String],
    ) -> Result<Recording, CommandError> {
        let pipeline = gst::Pipeline::new();
        let size = gst::Caps::builder("video/x-raw")
            .field("width", camera.picture[0])
            .field("height", camera.picture[1])
            .field("framerate", gst::Fraction::new(camera.frames_per_second, 1))
            .build();
        let encoder = make("x264enc", &[("bitrate", &camera.bitrate), ("key-int-max", &50u32)])?;
        encoder.set_property_from_str("speed-preset", "veryfast");
        encoder.set_property_from_str("tune", "zerolatency");
        let source = [
            make("xclipscenesrc", &[("script", &self.text)])?,
            make("capsfilter", &[("caps", &size)])?,
            make("videoconvert", &[])?,
            encoder,
            make("avdec_h264", &[])?,
            // Drawing and encoding use another core.
            make("queue", &[])?,
        ];
        pipeline.add_many(&source)?;
        gst::Element::link_many(&source)?;
        let [.., last] = &source;
        watch(&pipeline, last, detect, labels, &self.name)
    }
}

/// What is watched for and what is played, both from the stream's seed.
fn choose(kind: &Kind, seed: u64) -> (Vec<Action>, Vec<Action>) {
    // Standing and emptiness fill the gaps of every script.
    let fills = |action: &Action| [Action::Stand, Action::Empty].contains(action);
    let mut deck = Action::ALL.to_vec();
    if !kind.listed {
        deck.retain(|action| !fills(action));
    }
    Random::fork(seed, 77).shuffle(&mut deck);
    let rest = deck.split_off(LABELS);
    // Whoever fell lies.
    let taboo = |action: &Action| *action == Action::Fall && deck.contains(&Action::Lie);
    let unlisted = rest.into_iter().filter(|action| !fills(action) && !taboo(action)).take(kind.unlisted);
    let listed = deck.iter().copied().filter(|action| kind.listed && !fills(action));
    let played = listed.chain(unlisted).collect();
    (deck, played)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quiet_streams_show_nothing_that_is_watched_for() {
        for kind in 0..KINDS.len() {
            for number in 0..10 {
                let stream = Stream::new(kind, number, 60.0);
                assert_eq!(stream.labels.len(), LABELS);
                assert_eq!(stream.truth(true).is_empty(), kind == QUIET, "{}", stream.name);
                assert!(stream.truth(true).iter().all(|span| stream.labels.contains(&span.label)));
                assert!(stream.truth(false).iter().all(|span| !stream.labels.contains(&span.label)));
            }
        }
    }
}
