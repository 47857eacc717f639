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
        script: Script { seed, duration, look, segments: Vec::new(), cuts: Vec::new() },
        actor: 0,
        time: 0.0,
    };
    let mut deck: Vec<Action> = Vec::new();
    let mut last = None;
    let total = duration.as_secs_f32();
    while writer.time < total && !actions.is_empty() {
        if deck.is_empty() {
            deck = actions.to_vec();
            writer.random.shuffle(&mut deck);
            // The same action twice in a row would look like one long segment.
            if deck.len() > 1 && deck.last().copied() == last {
                deck.rotate_left(1);
            }
        }
        let Some(action) = deck.pop() else { break };
        writer.perform(action);
        last = Some(action);
    }
    if look != Look::Plain {
        writer.add_cuts();
        writer.add_company(actions);
    }
    writer.script
}

fn is_single(action: Action) -> bool {
    !action.is_pair() && action != Action::Empty
}

struct Writer {
    random: Random,
    script: Script,
    actor: u32,
    /// Written so far, seconds.
    time: f32,
}

impl Writer {
    /// Here and there somebody else does something else beside a single person.
    fn add_company(&mut self, actions: &[Action]) {
        let scripted = self.script.segments.clone();
        for (index, segment) in scripted.iter().enumerate() {
            let sociable = is_single(segment.action) && segment.action != Action::Stand;
            if !sociable || !self.random.chance(0.15) {
                continue;
            }
            // What happens just before or after is no second event.
            let around = &scripted[index.saturating_sub(2)..scripted.len().min(index + 3)];
            let free = |action: Action| {
                is_single(action)
                    && action != Action::Fall
                    && !around
                        .iter()
                        .any(|s| s.action == action || (s.action == Action::Fall && action == Action::Lie))
            };
            let choices: Vec<Action> = actions.iter().copied().filter(|&action| free(action)).collect();
            if choices.is_empty() {
                continue;
            }
            self.actor += 1;
            let action = self.random.pick(&choices);
            let colour = self.random.pick(&Colour::ALL);
            let side = if segment.x < 0.0 { 1.0 } else { -1.0 };
            self.script.segments.push(Segment {
                action,
                actor: self.actor,
                colour,
                second: colour,
                x: side * self.random.between(0.15, 0.28),
                direction: Direction::of(self.random.sign()),
                ..segment.clone()
            });
        }
    }

    /// Cuts fall where somebody new begins.
    fn add_cuts(&mut self) {
        for pair in 1..self.script.segments.len() {
            let (last, next) = (&self.script.segments[pair - 1], &self.script.segments[pair]);
            if last.end == next.start && last.actor != next.actor && self.random.chance(0.2) {
                self.script.cuts.push(next.start);
            }
        }
    }

    /// A gap, then the action.
    fn perform(&mut self, action: Action) {
        let single = is_single(action);
        let last = self.script.segments.last();
        let may_stay = single && last.is_some_and(|s| is_single(s.action));
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
