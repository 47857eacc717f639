//! Short clips for training and tests: one random situation each.
//!
//! A clip is a few seconds of a small made-up script, drawn by the same [`Stage`] as a stream, so whatever
//! happens in streams (people who appear, stop, turn round, leave, get up) happens in clips.

use std::time::Duration;

use super::action::Action;
use super::background::Look;
use super::caption::{Colour, Direction, has_direction, held_out};
use super::pose::JOINTS;
use super::random::Random;
use super::render::{People, Stage};
use super::script::{ROAM, Script, Segment};

/// Which clips to draw.
#[derive(Clone, Debug)]
pub struct ClipOptions {
    /// Width and height in pixels.
    pub size: u32,
    /// Frames per clip (T).
    pub frames: usize,
    /// Mean time between frames; each clip has its own, within 10 %.
    pub interval: Duration,
    /// Probability of a hard scene, 0..=1; the others are plain.
    pub hardness: f32,
    /// What hard scenes look like.
    pub hard: Look,
    /// Probability of a clip in which something else happens in up to half of the frames.
    pub mixed: f32,
    /// Only this action.
    pub action: Option<Action>,
    /// Which colours of clothes go with which actions.
    pub pairs: Pairs,
    /// How many people who have nothing to do with each other.
    pub company: Company,
}

/// Which pairs of clothes and action are drawn, see [`held_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    Any,
    /// Only those that may be trained on.
    Seen,
    /// The clip's action, an action of people, in clothes in which it is never trained.
    HeldOut,
}

impl Pairs {
    pub fn parse(name: &str) -> Option<Pairs> {
        match name.trim() {
            "any" => Some(Pairs::Any),
            "seen" => Some(Pairs::Seen),
            "held-out" => Some(Pairs::HeldOut),
            _ => None,
        }
    }
}

/// Whether somebody else does something else beside a single person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Never,
    /// In a fifth of the hard scenes.
    Sometimes,
    Always,
}

impl Default for ClipOptions {
    fn default() -> Self {
        Self {
            size: 96,
            frames: 8,
            interval: Duration::from_millis(250),
            hardness: 0.5,
            hard: Look::Busy,
            mixed: 0.35,
            action: None,
            pairs: Pairs::Any,
            company: Company::Sometimes,
        }
    }
}

impl Company {
    pub fn parse(name: &str) -> Option<Company> {
        match name.trim() {
            "never" => Some(Company::Never),
            "sometimes" => Some(Company::Sometimes),
            "always" => Some(Company::Always),
            _ => None,
        }
    }
}

/// T frames and what is true of them.
#[derive(Clone, Debug)]
pub struct Clip {
    /// T × size × size × 3 bytes, RGB.
    pub frames: Vec<u8>,
    /// What most of the clip shows.
    pub action: Action,
    /// What each frame shows.
    pub actions: Vec<Action>,
    /// Colour of the clothes if everybody in the clip wears the same.
    pub colour: Option<Colour>,
    /// Where the one person goes, kicks or throws, if it is one way only.
    pub direction: Option<Direction>,
    /// Somebody else, what they do all the time, and the colour of their clothes. What the other fields say is of
    /// the person (or the two people) of `action` alone.
    pub other: Option<(Action, Colour)>,
    /// Of a single person: where they face in the first frame.
    pub facing: Option<Direction>,
    pub look: Look,
    /// T × 2 people × 11 joints × (x, y) in fractions of the picture; zeros where there is nobody.
    pub joints: Vec<f32>,
}

/// The number of the other person in scripts of clips.
const OTHER: u32 = 7;

/// Clips begin here in their scripts, so that segments can have begun before.
const BEGIN: f32 = 20.0;

/// The clip of a seed.
pub fn clip(seed: u64, options: &ClipOptions) -> Clip {
    let mut random = Random::fork(seed, 0x636c_6970);
    let look = if random.chance(options.hardness) { options.hard } else { Look::Plain };
    let interval = options.interval.as_secs_f32() * random.between(0.9, 1.1);
    let mut rehearsal = Rehearsal {
        length: interval * options.frames.saturating_sub(1) as f32,
        interval,
        script: Script {
            seed: random.bits(),
            duration: Duration::from_secs(60),
            look,
            segments: Vec::new(),
            cuts: Vec::new(),
        },
        random,
    };
    let action = match options.action {
        Some(action) => action,
        // An empty scene is soon learned.
        None if rehearsal.random.chance(0.025) && options.pairs != Pairs::HeldOut => Action::Empty,
        None => Action::ALL[rehearsal.random.below(19)],
    };
    rehearsal.plan(action, options.mixed);
    let single = !action.is_pair() && action != Action::Empty;
    let other = (single && rehearsal.has_company(options.company)).then(|| rehearsal.add_other(action));
    rehearsal.dress(action, options.pairs);
    let Rehearsal { script, mut random, .. } = rehearsal;

    let mut stage = Stage::new(&script, options.size, options.size);
    if random.chance(0.5) {
        stage.set_softness(random.unit());
    }
    let times: Vec<Duration> =
        (0..options.frames).map(|i| Duration::from_secs_f32(BEGIN + interval * i as f32)).collect();
    let mut rgba = vec![0u8; (options.size * options.size * 4) as usize];
    let mut frames = Vec::with_capacity(options.frames * (options.size * options.size * 3) as usize);
    let mut joints = Vec::with_capacity(options.frames * 2 * JOINTS * 2);
    for &time in &times {
        let people = stage.draw_people(time, &mut rgba);
        frames.extend(rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]));
        push_joints(&people, &mut joints);
    }
    let actions: Vec<Action> = times.iter().map(|&time| script.action_at(time, OTHER)).collect();
    let action = majority(&actions, action);
    let (facing, direction) = heading(&script, &times, action);
    let colour = common_colour(&script, &times);
    let other = other.zip(script.segments.last().map(|s| s.colour));
    Clip { frames, action, colour, actions, direction, facing, other, look, joints }
}

fn push_joints(people: &People, joints: &mut Vec<f32>) {
    for person in people {
        match person {
            Some(points) => joints.extend(points.iter().flat_map(|[x, y]| [x + 0.5, *y])),
            None => joints.extend([0.0; JOINTS * 2]),
        }
    }
}

/// The action of most frames. A fall is over so soon that its frames count twice.
fn majority(actions: &[Action], intended: Action) -> Action {
    let votes = |action: Action| {
        let frames = actions.iter().filter(|&&seen| seen == action).count();
        let weight = if action == Action::Fall { 4 } else { 2 };
        frames * weight + usize::from(action == intended)
    };
    actions.iter().copied().max_by_key(|&action| votes(action)).unwrap_or(intended)
}

fn playing<'a>(script: &'a Script, times: &'a [Duration]) -> impl Iterator<Item = (usize, &'a Segment)> {
    script.segments.iter().enumerate().filter(|(_, s)| {
        s.action != Action::Empty
            && s.actor != OTHER
            && times.iter().any(|&time| s.start <= time && time < s.end)
    })
}

fn common_colour(script: &Script, times: &[Duration]) -> Option<Colour> {
    let mut worn = playing(script, times)
        .flat_map(|(_, s)| std::iter::once(s.colour).chain(s.action.is_pair().then_some(s.second)));
    let first = worn.next()?;
    worn.all(|colour| colour == first).then_some(first)
}

/// Where the person faces first, and where they go, kick or throw if they never turn round.
fn heading(script: &Script, times: &[Duration], action: Action) -> (Option<Direction>, Option<Direction>) {
    if playing(script, times).any(|(_, s)| s.action.is_pair()) {
        return (None, None);
    }
    let mut facings = times.iter().filter_map(|&time| {
        let (index, segment) = playing(script, std::slice::from_ref(&time)).last()?;
        Some(Direction::of(script.travel(index).at((time - segment.start).as_secs_f32()).1))
    });
    let first = facings.next();
    let steady = facings.all(|facing| Some(facing) == first);
    (first, first.filter(|_| steady && has_direction(action)))
}

/// Writes the script of one clip.
struct Rehearsal {
    random: Random,
    script: Script,
    /// From the first frame to the last, seconds.
    length: f32,
    interval: f32,
}

impl Rehearsal {
    fn plan(&mut self, action: Action, mixed: f32) {
        let person = self.person(0);
        let early = BEGIN - self.random.between(0.0, 6.0);
        let late = BEGIN + self.length + 1.0;
        let middle = BEGIN + self.length / 2.0;
        match action {
            Action::Fall => {
                let before = match self.random.unit() {
                    u if u < 0.7 => Action::Stand,
                    u if u < 0.85 => Action::Walk,
                    _ => Action::Run,
                };
                self.append(before, early.min(BEGIN - 1.0), middle, &person);
                // The duration of the fall follows from the place of its segment in the script.
                self.append(action, middle, late, &person);
                let fall = self.script.manner(1, 0).fall;
                let off = self.random.between(-0.45, 0.45);
                self.move_border(middle - fall / 2.0 + off);
            }
            Action::Lie => {
                self.append(Action::Fall, early, late, &person);
                let fall = self.script.manner(0, 0).fall;
                // Just down, or long since.
                let down = if self.random.chance(0.35) {
                    self.random.between(-0.5, 0.75)
                } else {
                    self.random.between(-8.0, -0.5)
                };
                self.script.segments[0].start = seconds(BEGIN + down - fall);
            }
            Action::Sit | Action::Crouch | Action::RaiseArms if self.random.chance(0.5) => {
                let start = BEGIN + self.random.between(-0.6, 0.6);
                if self.random.chance(0.7) {
                    self.append(Action::Stand, BEGIN - 3.0, start, &person);
                }
                self.append(action, start, late, &person);
            }
            _ if self.random.chance(mixed) => self.plan_mixed(action, &person, early, late),
            _ => self.append(action, early, late, &person),
        }
    }

    /// `action` in most frames, something else in one to four of eight at the beginning or the end.
    fn plan_mixed(&mut self, action: Action, person: &Segment, early: f32, late: f32) {
        let other = match self.random.unit() {
            u if u < 0.35 => Action::Empty,
            u if u < 0.65 => Action::Stand,
            _ => self.random.pick(&Action::ALL),
        };
        let single = |action: Action| !action.is_pair() && action != Action::Empty;
        let stays = single(action) && single(other) && (other == Action::Stand || self.random.chance(0.5));
        let someone = if stays { person.clone() } else { self.person(1) };
        let frames = self.random.between(0.5, 0.45 * self.length / self.interval + 0.9);
        if self.random.chance(0.5) {
            let border = BEGIN + frames * self.interval;
            self.append(other, early, border, &someone);
            self.append(action, border, late, person);
            self.may_cut(border, stays);
        } else {
            let border = BEGIN + self.length - frames * self.interval;
            self.append(action, early, border, person);
            self.append(other, border, late, &someone);
            self.may_cut(border, stays);
        }
    }

    /// The camera may jump where somebody new begins.
    fn may_cut(&mut self, time: f32, stays: bool) {
        if self.script.look != Look::Plain && !stays && self.random.chance(0.4) {
            self.script.cuts.push(seconds(time));
        }
    }

    fn has_company(&mut self, company: Company) -> bool {
        match company {
            Company::Never => false,
            Company::Sometimes => self.script.look != Look::Plain && self.random.chance(0.2),
            Company::Always => true,
        }
    }

    /// Somebody who does something else from before the first frame until after the last.
    fn add_other(&mut self, action: Action) -> Action {
        let apart = [action, Action::Fall, Action::Empty];
        let beside: Vec<Action> = Action::ALL
            .into_iter()
            .filter(|other| !other.is_pair() && !apart.contains(other))
            .filter(|other| !self.script.segments.iter().any(|s| s.action == *other))
            // Who has fallen lies.
            .filter(|other| action != Action::Fall || *other != Action::Lie)
            .collect();
        let other = self.random.pick(&beside);
        let side = self.random.sign();
        let gap = self.random.between(0.15, 0.28);
        // Who stays in one place makes room; who walks passes by.
        if self.script.segments.iter().all(|s| s.action.speed() == 0.0) {
            for segment in &mut self.script.segments {
                segment.height = segment.height.map(|height| height.min(0.56));
                segment.x = -side * gap + 0.2 * segment.x;
            }
        }
        let person = Segment {
            actor: OTHER,
            x: side * gap,
            height: Some(self.random.between(0.38, 0.56)),
            roam: ROAM,
            ..self.person(OTHER)
        };
        let (start, end) = (BEGIN - self.random.between(1.0, 6.0), BEGIN + self.length + 1.0);
        self.append(other, start, end, &person);
        other
    }

    /// Gives everybody clothes that `pairs` allows.
    fn dress(&mut self, action: Action, pairs: Pairs) {
        if pairs == Pairs::Any {
            return;
        }
        let first = self.random.below(Colour::ALL.len());
        let choices = |turn: usize| Colour::ALL[(first + turn) % Colour::ALL.len()];
        for index in 0..self.script.segments.len() {
            let actor = self.script.segments[index].actor;
            let done: Vec<Action> = self
                .script
                .segments
                .iter()
                .filter(|s| s.actor == actor)
                .flat_map(|s| [s.action, if s.action == Action::Fall { Action::Lie } else { s.action }])
                .collect();
            let wanted = |colour: Colour| match pairs {
                Pairs::HeldOut if done.contains(&action) && actor != OTHER => held_out(action, colour),
                _ => !done.iter().any(|&action| held_out(action, colour)),
            };
            let segment = &mut self.script.segments[index];
            let together = segment.colour == segment.second || pairs == Pairs::HeldOut;
            if !wanted(segment.colour) {
                segment.colour = (0..8).map(choices).find(|&c| wanted(c)).unwrap_or(segment.colour);
            }
            if together {
                segment.second = segment.colour;
            } else if !wanted(segment.second) {
                segment.second = (0..8).map(choices).find(|&c| wanted(c)).unwrap_or(segment.second);
            }
        }
    }

    /// Somebody somewhere, as a segment without action and time.
    fn person(&mut self, actor: u32) -> Segment {
        let random = &mut self.random;
        let plain = self.script.look == Look::Plain;
        let ground = if plain { random.between(0.84, 0.96) } else { random.between(0.74, 0.97) };
        let height = if plain { random.between(0.44, 0.72) } else { random.between(0.3, 0.74) };
        let colour = random.pick(&Colour::ALL);
        let second = if random.chance(0.6) { colour } else { random.pick(&Colour::ALL) };
        Segment {
            action: Action::Stand,
            start: Duration::ZERO,
            end: Duration::ZERO,
            actor,
            colour,
            second,
            x: random.between(-0.25, 0.25),
            direction: Direction::of(random.sign()),
            // Some walkers come in and go out, the others turn round in the picture.
            roam: if random.chance(0.6) {
                random.between(0.28, ROAM + 0.05)
            } else {
                random.between(0.5, 0.8)
            },
            height: Some(height),
            ground: Some(ground),
        }
    }

    fn append(&mut self, action: Action, start: f32, end: f32, person: &Segment) {
        let mut segment = Segment { action, start: seconds(start), end: seconds(end), ..person.clone() };
        // Raised hands and the top of a fence stay in plain pictures.
        let reach = if matches!(action, Action::Climb | Action::Jump) { 1.42 } else { 1.15 };
        if let (Look::Plain, Some(height), Some(ground)) = (self.script.look, segment.height, segment.ground)
        {
            segment.height = Some(height.min((ground - 0.02) / reach));
        }
        let last = self.script.segments.last();
        let x = match last {
            Some(last) if last.actor == person.actor => {
                let index = self.script.segments.len() - 1;
                Some(self.script.travel(index).at((last.end - last.start).as_secs_f32()))
            }
            _ => None,
        };
        if let Some((x, facing)) = x {
            (segment.x, segment.direction) = (x, Direction::of(facing));
        }
        self.script.segments.push(segment);
    }

    /// Moves the border between the first two segments.
    fn move_border(&mut self, time: f32) {
        let [before, after] = &mut self.script.segments[..] else { return };
        before.end = seconds(time);
        after.start = seconds(time);
        let segment = &self.script.segments[0];
        let span = (segment.end - segment.start).as_secs_f32();
        let (x, facing) = self.script.travel(0).at(span);
        // Nobody falls outside the picture.
        self.script.segments[1].x = x.clamp(-0.3, 0.3);
        self.script.segments[0].x += x.clamp(-0.3, 0.3) - x;
        self.script.segments[1].direction = Direction::of(facing);
    }
}

fn seconds(time: f32) -> Duration {
    Duration::from_secs_f32(time.max(0.0))
}
