//! Made-up scripts: who does what after what.

use std::time::Duration;

use super::action::Action;
use super::background::Look;
use super::caption::{Colour, Direction};
use super::random::Random;
use super::script::{ROAM, Script, Segment};

pub(super) fn script(seed: u64, duration: Duration, actions: &[Action], look: Look) -> Script {
    let mut writer = Writer {
        random: Random::fork(seed, 900_000),
        script: Script { seed, duration, look, segments: Vec::new() },
        actor: 0,
        time: 0.0,
    };
    let mut deck: Vec<Action> = Vec::new();
    let mut last = None;
    let total = duration.as_secs_f32();
    while writer.time < total && !actions.is_empty() {
        if deck.is_empty() {
            deck = actions.to_vec();
            for i in (1..deck.len()).rev() {
                deck.swap(i, writer.random.below(i + 1));
            }
            // The same action twice in a row would look like one long segment.
            if deck.len() > 1 && deck.last().copied() == last {
                deck.rotate_left(1);
            }
        }
        let Some(action) = deck.pop() else { break };
        writer.perform(action);
        last = Some(action);
    }
    writer.script
}

struct Writer {
    random: Random,
    script: Script,
    actor: u32,
    /// Written so far, seconds.
    time: f32,
}

impl Writer {
    /// A gap, then the action.
    fn perform(&mut self, action: Action) {
        let single = !action.is_pair() && action != Action::Empty;
        let last = self.script.segments.last();
        let may_stay = single && last.is_some_and(|s| !s.action.is_pair() && s.action != Action::Empty);
        let stays = may_stay && self.random.chance(0.4);
        if !stays {
            if self.random.chance(0.6) && action != Action::Empty {
                let gap = self.random.between(1.5, 3.0);
                self.append(Action::Empty, gap);
            }
            self.actor += 1;
        }
        // Nobody falls out of nothing.
        let stands = action == Action::Fall || self.random.chance(0.35);
        if single && stands && action != Action::Stand {
            let gap = self.random.between(1.2, 2.5);
            self.append(Action::Stand, gap);
        }
        let length = self.random.between(4.0, 9.0);
        self.append(action, length);
    }

    fn append(&mut self, action: Action, length: f32) {
        let total = self.script.duration.as_secs_f32();
        let (start, end) = (self.time, (self.time + length).min(total));
        self.time += length;
        if end - start < 0.05 {
            return;
        }
        let before = self.script.segments.len().checked_sub(1).map(|i| (i, self.script.segments[i].clone()));
        let (x, direction, colour, second) = match before {
            Some((index, last)) if last.actor == self.actor && last.action != Action::Empty => {
                let (x, facing) = self.script.travel(index).at((last.end - last.start).as_secs_f32());
                (x, Direction::of(facing), last.colour, last.second)
            }
            _ => {
                let colour = self.random.pick(&Colour::ALL);
                let second = if self.random.chance(0.6) { colour } else { self.random.pick(&Colour::ALL) };
                let reach = if action.travels() { 0.3 } else { 0.2 };
                (self.random.between(-reach, reach), Direction::of(self.random.sign()), colour, second)
            }
        };
        self.script.segments.push(Segment {
            action,
            start: Duration::from_secs_f32(start),
            end: Duration::from_secs_f32(end),
            actor: self.actor,
            colour,
            second,
            x,
            direction,
            roam: ROAM,
            height: None,
            ground: None,
        });
    }
}
