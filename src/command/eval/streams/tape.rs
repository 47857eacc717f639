//! Logits recorded once, scored in many ways.
//!
//! The element tells probabilities. Against a background of one prompt, at a temperature so high that none
//! saturates, they are logits less that prompt's, and only differences of logits count in any score.

use std::path::PathBuf;

use gst::prelude::*;
use gstreamer as gst;

use super::stream::{Camera, Stream};
use crate::command::CommandError;
use crate::command::watch::{Recording, Window};
use crate::model::labels::{Label, Labels};
use crate::score::{Competition, Scorer};

/// Differences of logits of up to 100 stay within ±5, where a probability of f32 has its five digits.
const TEMPERATURE: f32 = 20.0;
/// Its logit is taken as 0; which words it has does not matter.
const ORIGIN: &str = "a scene";

/// What makes probabilities of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Scoring {
    pub competition: Competition,
    /// Prompts of the background class.
    pub background: Vec<String>,
    pub temperature: f32,
}

/// A stream's logits: of its labels, and of every prompt that may stand in a background.
pub struct Tape {
    labels: Vec<String>,
    /// The labels, then the other prompts.
    prompts: Vec<String>,
    /// Its scores are logits.
    logits: Recording,
}

impl Tape {
    /// Plays `stream` through `detect`; `candidates` are recorded beside its labels.
    pub fn record(
        stream: &Stream,
        camera: &Camera,
        candidates: &[String],
        detect: &gst::Element,
    ) -> Result<Self, CommandError> {
        let mut prompts = stream.labels.clone();
        for candidate in candidates {
            if !prompts.contains(candidate) {
                prompts.push(candidate.clone());
            }
        }
        // Numbers as names: two prompts may differ in case only.
        let names: Vec<String> = (0..prompts.len()).map(|number| format!("prompt {number}")).collect();
        let label = |(name, prompt): (&String, &String)| Label {
            prompts: vec![prompt.clone()],
            ..Label::named(name.as_str())
        };
        let asked = Labels {
            labels: names.iter().zip(&prompts).map(label).collect(),
            background: vec![ORIGIN.into()],
            temperature: Some(TEMPERATURE),
        };
        let file = label_file(&asked)?;
        detect.set_property("labels-file", file.display().to_string());
        let mut logits = stream.play(camera, detect, &names)?;
        // They were made of other scores.
        logits.events.clear();
        for score in logits.windows.iter_mut().flat_map(|window| &mut window.scores) {
            let p = f64::from(*score);
            *score = TEMPERATURE * (p / (1.0 - p)).ln() as f32;
        }
        Ok(Self { labels: stream.labels.clone(), prompts, logits })
    }

    /// What the element would have recorded; without events. Every prompt of the background must have been a
    /// candidate, or be a label.
    pub fn scored(&self, scoring: &Scoring) -> Recording {
        let position = |prompt: &String| {
            let found = self.prompts.iter().position(|known| known == prompt);
            found.expect("all candidates were recorded")
        };
        let background: Vec<usize> = scoring.background.iter().map(position).collect();
        let labels = self.labels.len();
        let scorer = Scorer {
            labels: (0..labels).map(|label| label..label + 1).collect(),
            background: labels..labels + background.len(),
            competition: scoring.competition,
            temperature: scoring.temperature,
        };
        let score = |window: &Window| {
            let chosen = (0..labels).chain(background.iter().copied());
            let logits: Vec<f32> = chosen.map(|prompt| window.scores[prompt]).collect();
            Window { scores: scorer.probabilities(&logits), ..*window }
        };
        Recording {
            labels: self.labels.clone(),
            windows: self.logits.windows.iter().map(score).collect(),
            events: Vec::new(),
            last: self.logits.last,
        }
    }
}

/// `labels` as a file that lasts as long as the path.
fn label_file(labels: &Labels) -> Result<tempfile::TempPath, CommandError> {
    let failed = |source| CommandError::Io { path: std::env::temp_dir(), source };
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().map_err(failed)?.into_temp_path();
    let path: PathBuf = file.to_path_buf();
    std::fs::write(&path, labels.to_yaml()).map_err(|source| CommandError::Io { path, source })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::eval::streams::stream::WHOLE;
    use crate::command::recorder::make;

    #[test]
    fn recorded_logits_give_the_elements_scores() {
        crate::command::start_gstreamer().unwrap();
        let stream = Stream::new(WHOLE, 0, 20.0);
        let camera = Camera { picture: [160, 96], frames_per_second: 8, bitrate: 200 };
        let background = ["someone doing something else", "walking"].map(String::from);
        let detect = || make("xclipdetect", &[("hop", &4u32), ("precision", &"f32")]).unwrap();
        let tape = Tape::record(&stream, &camera, &background, &detect()).unwrap();
        for (competition, name) in [(Competition::Background, "background"), (Competition::Labels, "labels")]
        {
            let element = detect();
            element.set_property("labels", stream.labels.join("\n"));
            element.set_property("background", background.join("\n"));
            element.set_property_from_str("competition", name);
            let own = stream.play(&camera, &element, &stream.labels).unwrap();
            let scoring = Scoring { competition, background: background.to_vec(), temperature: 1.0 };
            let again = tape.scored(&scoring);
            assert_eq!((own.windows.len(), again.windows.len()), (19, 19));
            let pairs = own.windows.iter().zip(&again.windows);
            for (a, b) in pairs.flat_map(|(own, again)| own.scores.iter().zip(&again.scores)) {
                assert!((a - b).abs() < 1e-3, "{name}: {a} and {b}");
            }
        }
    }
}
