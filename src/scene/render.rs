//! Draws a script: the picture at any moment.

use std::time::Duration;

use super::action::Action;
use super::background::{self, Look};
use super::canvas::{Canvas, Point, Rgb};
use super::figure::{Body, Placing};
use super::lens::Lens;
use super::motion::Travel;
use super::pose::{JOINTS, Manner, Pose};
use super::random::Random;
use super::script::Script;

/// A script made ready for drawing at one size. The picture at a time depends on script, size and time only,
/// not on what was drawn before.
pub struct Stage {
    width: u32,
    height: u32,
    backdrop: Canvas,
    canvas: Canvas,
    /// Pixels of backdrop beyond each edge, so that a shaking camera sees no border.
    margin: u32,
    lens: Lens,
    seed: u64,
    intruder: Option<Intruder>,
    acts: Vec<Act>,
}

/// A disc that drifts through busy scenes and means nothing.
struct Intruder {
    travel: Travel,
    y: f32,
    radius: f32,
    colour: Rgb,
}

/// A segment, cast.
struct Act {
    action: Action,
    start: Duration,
    end: Duration,
    ground: f32,
    travel: Travel,
    people: Vec<(Body, Manner)>,
    /// Position of the act whose last pose this one begins with.
    after: Option<usize>,
}

/// Joints of up to two people, in scene units; `None` where there is nobody.
pub type People = [Option<[Point; JOINTS]>; 2];

impl Stage {
    /// Prepares `script` for pictures of `width` × `height` pixels (at least 1 × 1).
    pub fn new(script: &Script, width: u32, height: u32) -> Stage {
        let (width, height) = (width.max(1), height.max(1));
        let mut random = Random::fork(script.seed, 900_001);
        let lens = Lens::new(&mut random, script.look);
        let margin = if script.look == Look::Busy { 1 + height / 20 } else { 0 };
        let intruder = (script.look == Look::Busy && random.chance(0.3)).then(|| Intruder {
            travel: Travel::new(random.between(-0.5, 0.5), random.sign(), random.between(0.02, 0.25), 0.7),
            y: random.unit(),
            radius: random.between(0.015, 0.045),
            colour: std::array::from_fn(|_| random.between(30.0, 230.0)),
        });
        let floor = script.segments.iter().find(|s| s.action != Action::Empty);
        let ground = floor.map_or(0.9, |segment| script.stature(segment).1);
        let mut backdrop = Canvas::new(width, height, margin);
        background::paint(&mut backdrop, margin, &mut random, script.look, ground);
        let acts = (0..script.segments.len()).map(|index| Act::cast(script, index)).collect();
        let canvas = Canvas::new(width, height, 0);
        Stage { width, height, backdrop, canvas, margin, lens, seed: script.seed, intruder, acts }
    }

    /// Draws the picture at `time` into `rgba`: width × height × 4 bytes, rows without padding, alpha 255.
    ///
    /// # Panics
    /// If `rgba` has another length.
    pub fn draw(&mut self, time: Duration, rgba: &mut [u8]) {
        self.draw_people(time, rgba);
    }

    pub(super) fn set_softness(&mut self, softness: f32) {
        self.lens.softness = softness;
    }

    pub(super) fn draw_people(&mut self, time: Duration, rgba: &mut [u8]) -> People {
        assert_eq!(rgba.len(), self.width as usize * self.height as usize * 4, "length of the RGBA buffer");
        let mut random = Random::fork(self.seed ^ 0x7469_6d65, time.as_nanos() as u64);
        let shake = [0, 1].map(|_| {
            let limit = self.margin as f32;
            (self.lens.shake * self.height as f32 * random.normal()).clamp(-limit, limit)
        });
        // The backdrop moves by whole pixels, and so must the people.
        let shake = shake.map(|v| (v + 1000.5).floor() - 1000.0);
        self.copy_backdrop(shake);
        self.canvas.shift_to(self.width, shake.map(|v| v / self.height as f32));
        if let Some(intruder) = &self.intruder {
            let (x, _) = intruder.travel.at(time.as_secs_f32());
            self.canvas.disc([x, intruder.y], intruder.radius, intruder.colour);
        }
        let mut people: People = [None, None];
        for act in &self.acts {
            if act.start <= time && time < act.end {
                act.draw(&self.acts, &mut self.canvas, time, &mut people);
            }
        }
        for joints in people.iter_mut().flatten().flatten() {
            *joints = [joints[0] + shake[0] / self.height as f32, joints[1] + shake[1] / self.height as f32];
        }
        self.lens.take(self.canvas.pixmap.data(), self.width, time, &mut random, rgba);
        people
    }

    fn copy_backdrop(&mut self, shake: [f32; 2]) {
        let from = self.backdrop.pixmap.width() as usize * 4;
        let to = self.width as usize * 4;
        let left = (self.margin as i64 - shake[0] as i64) as usize * 4;
        let top = (self.margin as i64 - shake[1] as i64) as usize;
        let source = self.backdrop.pixmap.data().chunks_exact(from).skip(top);
        for (row, line) in self.canvas.pixmap.data_mut().chunks_exact_mut(to).zip(source) {
            row.copy_from_slice(&line[left..left + to]);
        }
    }
}

impl Act {
    fn cast(script: &Script, index: usize) -> Act {
        let segment = &script.segments[index];
        let (height, ground) = script.stature(segment);
        let mut people = Vec::new();
        let mut random = Random::fork(script.seed, 2_000_000 + u64::from(segment.actor));
        let count = match segment.action {
            Action::Empty => 0,
            action if action.is_pair() => 2,
            _ => 1,
        };
        for person in 0..count {
            let (colour, height) = match person {
                0 => (segment.colour, height),
                _ => (segment.second, height * random.between(0.93, 1.07)),
            };
            let mut manner = script.manner(index, person);
            if segment.action == Action::ShakeHands && person == 1 {
                // Hands that shake each other move together.
                let first = script.manner(index, 0);
                (manner.tempo, manner.phase) = (first.tempo, first.phase);
            }
            people.push((Body::new(&mut random, colour, height), manner));
        }
        let after = index.checked_sub(1).filter(|&before| {
            let last = &script.segments[before];
            last.actor == segment.actor && last.end == segment.start && !last.action.is_pair() && count == 1
        });
        Act {
            action: segment.action,
            start: segment.start,
            end: segment.end,
            ground,
            travel: script.travel(index),
            people,
            after: after.filter(|&before| script.segments[before].action != Action::Empty),
        }
    }

    fn draw(&self, acts: &[Act], canvas: &mut Canvas, time: Duration, people: &mut People) {
        let since = (time - self.start).as_secs_f32();
        let (x, facing) = self.travel.at(since);
        for (person, (body, manner)) in self.people.iter().enumerate() {
            let (x, facing) = match (self.people.len(), person) {
                (2, 0) => (x - self.apart(), 1.0),
                (2, _) => (x + self.apart(), -1.0),
                _ => (x, facing),
            };
            let mut pose = Pose::of(self.action, since, manner);
            if let Some(last) = self.after.map(|before| &acts[before])
                && let Some((_, manner)) = last.people.first()
            {
                let pose_before = Pose::of(last.action, (last.end - last.start).as_secs_f32(), manner);
                // Getting up takes longer than lowering an arm.
                let change = if pose_before.roll.abs() > 0.5 { 0.8 } else { 0.3 };
                if since < change {
                    pose = pose_before.mixed(&pose, since / change);
                }
            }
            let at = Placing { action: self.action, time: since, pose, ground: [x, self.ground], facing };
            let joints = body.draw(canvas, &at, manner);
            if let Some(slot) = people.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some(joints);
            }
        }
    }

    /// Half the distance between two people who have to do with each other.
    fn apart(&self) -> f32 {
        let Some((body, manner)) = self.people.first() else { return 0.0 };
        let gap = match self.action {
            Action::Fight => 0.27,
            Action::Hug => 0.12,
            _ => 0.3,
        };
        gap * body.height * (0.92 + 0.18 * manner.variant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_of_made_up_scripts_stay_in_the_central_square() {
        for seed in 0..30 {
            let actions =
                [Action::Walk, Action::Run, Action::Carry, Action::Climb, Action::Jump, Action::Fight];
            let script = Script::random(seed, Duration::from_secs(60), &actions, Look::Plain);
            let mut stage = Stage::new(&script, 32, 32);
            let mut rgba = vec![0; 32 * 32 * 4];
            for step in 0..240 {
                let people = stage.draw_people(Duration::from_millis(250 * step), &mut rgba);
                for [hip, _, head, ..] in people.into_iter().flatten() {
                    for [x, y] in [hip, head] {
                        assert!(x.abs() < 0.5 && (0.0..1.0).contains(&y), "seed {seed}: {x} {y}");
                    }
                }
            }
        }
    }
}
