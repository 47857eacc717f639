//! Draws a script: the picture at any moment.

use std::time::Duration;

use super::action::Action;
use super::background::Look;
use super::canvas::{Canvas, Point};
use super::figure::{Body, Placing};
use super::motion::Travel;
use super::pose::{JOINTS, Manner, Pose};
use super::random::Random;
use super::script::Script;
use super::shot::Shot;

/// A script made ready for drawing at one size. The picture at a time depends on script, size and time only,
/// not on what was drawn before.
pub struct Stage {
    width: u32,
    height: u32,
    look: Look,
    /// Ground level of the first person, in picture heights.
    ground: f32,
    cuts: Vec<Duration>,
    canvas: Canvas,
    shot: Shot,
    softness: f32,
    seed: u64,
    acts: Vec<Act>,
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
        let floor = script.segments.iter().find(|s| s.action != Action::Empty);
        let ground = floor.map_or(0.9, |segment| script.stature(segment).1);
        let shot = Shot::new(script.seed, 0, script.look, ground, [width, height]);
        let acts = (0..script.segments.len()).map(|index| Act::cast(script, index)).collect();
        let canvas = Canvas::new(width, height, 0);
        let (look, cuts, seed) = (script.look, script.cuts.clone(), script.seed);
        Stage { width, height, look, ground, cuts, canvas, shot, softness: 0.0, seed, acts }
    }

    /// Draws the picture at `time` into `rgba`: width × height × 4 bytes, rows without padding, alpha 255.
    ///
    /// # Panics
    /// If `rgba` has another length.
    pub fn draw(&mut self, time: Duration, rgba: &mut [u8]) {
        self.draw_people(time, rgba);
    }

    pub(super) fn set_softness(&mut self, softness: f32) {
        self.softness = softness;
    }

    pub(super) fn draw_people(&mut self, time: Duration, rgba: &mut [u8]) -> People {
        assert_eq!(rgba.len(), self.width as usize * self.height as usize * 4, "length of the RGBA buffer");
        let number = self.cuts.iter().filter(|cut| **cut <= time).count();
        if number != self.shot.number {
            self.shot = Shot::new(self.seed, number, self.look, self.ground, [self.width, self.height]);
        }
        let mut random = Random::fork(self.seed ^ 0x7469_6d65, time.as_nanos() as u64);
        let shake = self.shot.shake(&mut random, self.height);
        self.canvas.shift_to(self.width, shake.map(|v| v / self.height as f32));
        self.shot.paint_behind(&mut self.canvas, self.width, shake, time);
        let mut people: People = [None, None];
        for act in &self.acts {
            if act.start <= time && time < act.end {
                act.draw(&self.acts, &mut self.canvas, time, &mut people);
            }
        }
        for joints in people.iter_mut().flatten().flatten() {
            *joints = [joints[0] + shake[0] / self.height as f32, joints[1] + shake[1] / self.height as f32];
        }
        self.shot.paint_before(&mut self.canvas);
        self.shot.lens.softness = self.softness;
        self.shot.lens.take(self.canvas.pixmap.data(), self.width, time, &mut random, rgba);
        people
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
