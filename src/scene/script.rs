//! What happens when: the script of a stream and its ground truth.
//!
//! A script is YAML; times are seconds, places are in units of the picture's height from the middle:
//!
//! ```yaml
//! seed: 7               # default 0; people, background and manners follow from it
//! duration: 20          # default: the end of the last segment
//! look: plain           # or busy, or unseen (for evaluation)
//! cuts: [8]             # the camera jumps elsewhere at these seconds
//! segments:
//!   - {action: walking, from: 2, to: 8, colour: red, x: -0.2, direction: right}
//!   - {action: falling down, from: 8, to: 12, actor: 0}
//! ```
//!
//! `actor` says who (default: somebody new); `second` is the colour of the other one of a pair; `height`,
//! `ground` and `roam` (how far from the middle a walker turns round) are chosen when left out. Or a
//! script is made up from a list: `random: [walking, running]` instead of `segments`.
//!
//! Everything a model looks at is its central square, so made-up scripts keep people within ±0.35.

use std::time::Duration;

use serde::Deserialize;

use super::action::Action;
use super::background::Look;
use super::caption::{Colour, Direction};
use super::motion::Travel;
use super::pose::Manner;
use super::random::Random;

/// A scripted stream.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    pub duration: Duration,
    pub look: Look,
    pub segments: Vec<Segment>,
    /// The camera changes its place here: other background, other lens.
    pub cuts: Vec<Duration>,
}

/// Somebody does something for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub action: Action,
    pub start: Duration,
    pub end: Duration,
    /// The same number is the same person in the same clothes.
    pub actor: u32,
    pub colour: Colour,
    /// Clothes of the second person of a pair.
    pub second: Colour,
    /// Place at the start, in picture heights from the middle; negative is left.
    pub x: f32,
    /// Where the person faces at the start.
    pub direction: Direction,
    /// Those who travel turn round this far from the middle. Beyond 0.6 they leave the central square.
    pub roam: f32,
    /// Body height and ground level in picture heights; `None`: the actor's own.
    pub height: Option<f32>,
    pub ground: Option<f32>,
}

/// One true statement about a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    pub action: Action,
    /// Canonical label of the action.
    pub label: &'static str,
    /// Colour of the clothes; none for an empty scene.
    pub colour: Option<Colour>,
    /// Seconds from the start of the stream.
    pub start: f64,
    pub end: f64,
    pub actor: u32,
}

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("the script is not valid: {0}")]
    Syntax(String),
    #[error("segment {index}: unknown action `{action}`; known are: {known}")]
    Action { index: usize, action: String, known: String },
    #[error(
        "segment {index}: unknown colour `{colour}`; known are red, blue, green, yellow, orange, purple, white, black"
    )]
    Colour { index: usize, colour: String },
    #[error("segment {index}: direction is `{direction}`, expected left or right")]
    Direction { index: usize, direction: String },
    #[error("look is `{0}`, expected plain, busy or unseen")]
    Look(String),
    #[error("segment {index}: from {from} to {to} s is no span of time")]
    Span { index: usize, from: f64, to: f64 },
    #[error("segment {index}: {name} is {value}, expected {low} to {high}")]
    Range { index: usize, name: &'static str, value: f32, low: f32, high: f32 },
    #[error("cut {index}: {at} s is no time of a stream")]
    Cut { index: usize, at: f64 },
    #[error("a script needs either `segments` or `random` with a duration")]
    Nothing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    #[serde(default)]
    seed: u64,
    duration: Option<f64>,
    look: Option<String>,
    segments: Option<Vec<SegmentFile>>,
    random: Option<Vec<String>>,
    #[serde(default)]
    cuts: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentFile {
    action: String,
    from: f64,
    to: f64,
    actor: Option<u32>,
    colour: Option<String>,
    second: Option<String>,
    x: Option<f32>,
    direction: Option<String>,
    roam: Option<f32>,
    height: Option<f32>,
    ground: Option<f32>,
}

/// Walkers of made-up scripts turn round here.
pub(super) const ROAM: f32 = 0.33;
/// No stream is longer than a year: durations beyond would overflow.
const LONGEST: f64 = 366.0 * 86_400.0;

impl Script {
    /// Reads a script; see the module for the format.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        let file: ScriptFile =
            serde_saphyr::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?;
        let look = match &file.look {
            Some(name) => Look::parse(name).ok_or_else(|| ScriptError::Look(name.clone()))?,
            None => Look::Plain,
        };
        let duration = file.duration.map(|to| span(0, 0.0, to).map(|(_, end)| end)).transpose()?;
        let cuts = file
            .cuts
            .iter()
            .enumerate()
            .map(|(index, &at)| {
                let known = (0.0..=LONGEST).contains(&at);
                known.then(|| Duration::from_secs_f64(at)).ok_or(ScriptError::Cut { index, at })
            })
            .collect::<Result<Vec<_>, _>>()?;
        match (file.segments, file.random, duration) {
            (Some(segments), None, duration) => {
                let segments: Vec<Segment> = segments
                    .into_iter()
                    .enumerate()
                    .map(|(index, segment)| segment.checked(index, file.seed))
                    .collect::<Result<_, _>>()?;
                let last = segments.iter().map(|segment| segment.end).max().unwrap_or_default();
                Ok(Script { seed: file.seed, duration: duration.unwrap_or(last), look, segments, cuts })
            }
            (None, Some(names), Some(duration)) => {
                let actions: Vec<Action> = names
                    .iter()
                    .enumerate()
                    .map(|(index, name)| known_action(index, name))
                    .collect::<Result<_, _>>()?;
                let mut script = Script::random(file.seed, duration, &actions, look);
                script.cuts.extend(cuts);
                Ok(script)
            }
            _ => Err(ScriptError::Nothing),
        }
    }

    /// Makes up a script: segments of 4 to 9 s of `actions` in turn, with gaps where nobody is there or
    /// somebody stands. Nobody stands in the picture together but pairs.
    pub fn random(seed: u64, duration: Duration, actions: &[Action], look: Look) -> Script {
        super::improvise::script(seed, duration, actions, look)
    }

    /// How the `person`th participant (0 or 1) of a segment moves.
    pub(super) fn manner(&self, index: usize, person: usize) -> Manner {
        let stream = 1_000_000 + 2 * index as u64 + person as u64;
        Manner::new(&mut Random::fork(self.seed, stream), self.segments[index].action)
    }

    /// Body height and ground level of a segment's people, in picture heights.
    pub(super) fn stature(&self, segment: &Segment) -> (f32, f32) {
        let mut random = Random::fork(self.seed, u64::from(segment.actor));
        let (height, ground) = (random.between(0.46, 0.62), random.between(0.87, 0.95));
        (segment.height.unwrap_or(height), segment.ground.unwrap_or(ground))
    }

    /// The path of a segment's first person.
    pub(super) fn travel(&self, index: usize) -> Travel {
        let segment = &self.segments[index];
        let (height, _) = self.stature(segment);
        let speed = segment.action.speed() * height * self.manner(index, 0).pace;
        Travel::new(segment.x, segment.direction.sign(), speed, segment.roam)
    }

    /// What is true when, in order of time. Falling down ends when the body lies still; from then on it is
    /// lying on the ground. Where nothing is scripted, the scene is empty.
    pub fn truth(&self) -> Vec<Truth> {
        let total = self.duration.as_secs_f64();
        let mut truth = Vec::new();
        let mut say = |action: Action, colour, start: f64, end: f64, actor| {
            if end.min(total) > start {
                truth.push(Truth {
                    action,
                    label: action.label(),
                    colour,
                    start,
                    end: end.min(total),
                    actor,
                });
            }
        };
        for (index, segment) in self.segments.iter().enumerate() {
            let (start, end) = (segment.start.as_secs_f64(), segment.end.as_secs_f64());
            let colour = (segment.action != Action::Empty).then_some(segment.colour);
            if segment.action == Action::Fall {
                let down = (start + f64::from(self.manner(index, 0).fall)).min(end);
                say(Action::Fall, colour, start, down, segment.actor);
                say(Action::Lie, colour, down, end, segment.actor);
            } else {
                say(segment.action, colour, start, end, segment.actor);
            }
        }
        for (start, end) in self.unscripted() {
            say(Action::Empty, None, start, end, 0);
        }
        truth.sort_by(|a, b| a.start.total_cmp(&b.start));
        truth.dedup_by(|next, last| {
            let same = next.action == last.action && next.actor == last.actor && next.start <= last.end;
            if same {
                last.end = last.end.max(next.end);
            }
            same
        });
        truth
    }

    /// Spans in which no segment plays.
    fn unscripted(&self) -> Vec<(f64, f64)> {
        let mut spans: Vec<(f64, f64)> =
            self.segments.iter().map(|s| (s.start.as_secs_f64(), s.end.as_secs_f64())).collect();
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = self.duration.as_secs_f64();
        let mut free = Vec::new();
        let mut until = 0.0f64;
        for (start, end) in spans.into_iter().chain([(total, total)]) {
            if start > until {
                free.push((until, start));
            }
            until = until.max(end);
        }
        free
    }

    /// What the person in front does at `time`, `extra` (somebody else's number) left aside.
    pub(super) fn action_at(&self, time: Duration, extra: u32) -> Action {
        let playing = self
            .segments
            .iter()
            .enumerate()
            .rfind(|(_, s)| s.actor != extra && s.start <= time && time < s.end);
        let Some((index, segment)) = playing else { return Action::Empty };
        let since = (time - segment.start).as_secs_f32();
        match segment.action {
            Action::Fall if since >= self.manner(index, 0).fall => Action::Lie,
            action if action.travels() && self.travel(index).at(since).0.abs() > 0.56 => Action::Empty,
            action => action,
        }
    }
}

impl SegmentFile {
    fn checked(self, index: usize, seed: u64) -> Result<Segment, ScriptError> {
        let action = known_action(index, &self.action)?;
        let (start, end) = span(index, self.from, self.to)?;
        let actor = self.actor.unwrap_or(1000 + index as u32);
        let mut random = Random::fork(seed, 500_000 + u64::from(actor));
        let mut colour = |name: Option<String>| match name {
            Some(name) => Colour::parse(&name).ok_or(ScriptError::Colour { index, colour: name }),
            None => Ok(random.pick(&Colour::ALL)),
        };
        let (first, second) = (colour(self.colour)?, colour(self.second)?);
        let direction = match self.direction.as_deref() {
            Some("left") => Direction::Left,
            Some("right") => Direction::Right,
            Some(other) => return Err(ScriptError::Direction { index, direction: other.to_string() }),
            None => Direction::of(random.sign()),
        };
        let ranged = |name, value: Option<f32>, low: f32, high: f32| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(ScriptError::Range { index, name, value, low, high })
            }
            value => Ok(value),
        };
        Ok(Segment {
            action,
            start,
            end,
            actor,
            colour: first,
            second,
            x: ranged("x", self.x, -2.0, 2.0)?.unwrap_or_else(|| random.between(-0.15, 0.15)),
            direction,
            roam: ranged("roam", self.roam, 0.05, 4.0)?.unwrap_or(ROAM),
            height: ranged("height", self.height, 0.05, 1.5)?,
            ground: ranged("ground", self.ground, 0.1, 1.5)?,
        })
    }
}

fn span(index: usize, from: f64, to: f64) -> Result<(Duration, Duration), ScriptError> {
    if 0.0 <= from && from < to && to <= LONGEST {
        Ok((Duration::from_secs_f64(from), Duration::from_secs_f64(to)))
    } else {
        Err(ScriptError::Span { index, from, to })
    }
}

fn known_action(index: usize, name: &str) -> Result<Action, ScriptError> {
    Action::parse(name).ok_or_else(|| ScriptError::Action {
        index,
        action: name.to_string(),
        known: Action::ALL.map(Action::label).join(", "),
    })
}
