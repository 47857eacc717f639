//! What the model knows of time: frames reversed, shuffled, repeated; left and right; sitting down and standing
//! up; and what is lost when frames send each other no messages.

use super::Eval;
use super::clips::share;
use super::judge::{Judge, Messages};
use crate::backend::TextFeatures;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::scene::{
    Action, Clip, ClipOptions, Company, Direction, MOVEMENTS, Movement, Random, clip, has_direction,
};

/// Seeds of their own, away from the other figures'.
const OFFSET: u64 = 60_000_000;

/// What happens to the frames of a clip before the model sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forwards,
    Backwards,
    Shuffled,
    /// The middle frame in place of all.
    Repeated,
}

impl Order {
    const ALL: [Order; 4] = [Order::Forwards, Order::Backwards, Order::Shuffled, Order::Repeated];

    fn name(self) -> &'static str {
        match self {
            Order::Forwards => "as they are",
            Order::Backwards => "reversed",
            Order::Shuffled => "shuffled",
            Order::Repeated => "the middle one repeated",
        }
    }

    /// `count` frames of equal length in this order; `seed` shuffles.
    fn apply(self, frames: &[u8], count: usize, seed: u64) -> Vec<u8> {
        let mut order: Vec<usize> = (0..count).collect();
        match self {
            Order::Forwards => {}
            Order::Backwards => order.reverse(),
            Order::Shuffled => Random::new(seed).shuffle(&mut order),
            Order::Repeated => order.fill(count / 2),
        }
        let length = frames.len() / count.max(1);
        order.iter().flat_map(|&i| &frames[i * length..(i + 1) * length]).copied().collect()
    }
}

/// Right answers out of all.
type Score = (usize, usize);

fn percent((right, all): Score) -> String {
    format!("{:.3}", share(right, all))
}

pub fn measure(judge: &mut Judge, arguments: &Eval) -> Result<(), CommandError> {
    let count = arguments.clips.div_ceil(2);
    say!(
        "\nOrder of frames, {count} clips a figure; left against right and a movement against its reverse by chance: 0.5"
    );
    for (world, hardness) in [("plain", 0.0), ("whole world", 1.0)] {
        let mut table = Table::new([
            ("frames", Align::Left),
            ("top-1 of 20", Align::Right),
            ("left or right", Align::Right),
            ("movement or its reverse", Align::Right),
        ]);
        for order in Order::ALL {
            let mut probe = Probe::new(judge, arguments.seed, hardness)?;
            table.row([
                format!("{world}: {}", order.name()),
                percent(probe.top1(count, order)?),
                percent(sum(&probe.directions(count, order)?)),
                percent(sum(&probe.movements(count, order)?)),
            ]);
        }
        say!("{table}");
    }
    let mut probe = Probe::new(judge, arguments.seed, 1.0)?;
    let name = |direction: &str| direction.to_string();
    let directions = Action::ALL.into_iter().filter(|action| has_direction(*action)).map(|a| name(a.label()));
    let movements = MOVEMENTS.iter().map(|m| format!("{} or {}", m.forwards[0], m.backwards[0]));
    let scores =
        [probe.directions(count, Order::Forwards)?, probe.movements(count, Order::Forwards)?].concat();
    let mut table =
        Table::new([("whole world", Align::Left), ("clips", Align::Right), ("right", Align::Right)]);
    for (name, score) in
        directions.map(|name| format!("{name} to the left or right")).chain(movements).zip(scores)
    {
        table.row([name, score.1.to_string(), percent(score)]);
    }
    say!("{table}");
    messages(arguments, count)
}

/// The same figures with the weights of messages set to zero.
fn messages(arguments: &Eval, count: u32) -> Result<(), CommandError> {
    let mut table = Table::new([
        ("messages between frames (whole world)", Align::Left),
        ("top-1 of 20", Align::Right),
        ("left or right", Align::Right),
        ("movement or its reverse", Align::Right),
    ]);
    for (name, kind) in [
        ("as trained", Messages::All),
        ("each frame reads its own only", Messages::Own),
        ("none", Messages::None),
    ] {
        let mut judge = Judge::with_messages(&arguments.model, arguments.threads, kind)?;
        let mut probe = Probe::new(&mut judge, arguments.seed, 1.0)?;
        table.row([
            name.into(),
            percent(probe.top1(count, Order::Forwards)?),
            percent(sum(&probe.directions(count, Order::Forwards)?)),
            percent(sum(&probe.movements(count, Order::Forwards)?)),
        ]);
    }
    say!("{table}");
    Ok(())
}

fn sum(scores: &[Score]) -> Score {
    scores.iter().fold((0, 0), |(right, all), score| (right + score.0, all + score.1))
}

struct Probe<'a> {
    judge: &'a mut Judge,
    seed: u64,
    options: ClipOptions,
    labels: Vec<TextFeatures>,
    /// Every clip is shuffled in another way.
    shuffles: u64,
}

impl<'a> Probe<'a> {
    fn new(judge: &'a mut Judge, seed: u64, hardness: f32) -> Result<Self, CommandError> {
        let labels = judge.texts(&Action::ALL.map(Action::label))?;
        // Another person's action would be right too.
        let options = ClipOptions { hardness, company: Company::Never, ..judge.options() };
        Ok(Self { judge, seed: seed.wrapping_add(OFFSET), options, labels, shuffles: 0 })
    }

    fn choose(&mut self, clip: &Clip, order: Order, texts: &[TextFeatures]) -> Result<usize, CommandError> {
        self.shuffles += 1;
        let frames = order.apply(&clip.frames, self.options.frames, self.shuffles);
        self.judge.choose(&frames, texts)
    }

    fn top1(&mut self, count: u32, order: Order) -> Result<Score, CommandError> {
        let mut right = 0;
        for seed in 0..u64::from(count) {
            let clip = clip(self.seed.wrapping_add(seed), &self.options);
            let labels = self.labels.clone();
            right += usize::from(self.choose(&clip, order, &labels)? == clip.action.index());
        }
        Ok((right, count as usize))
    }

    /// Per action that has one: its direction, in words, against the other.
    fn directions(&mut self, count: u32, order: Order) -> Result<Vec<Score>, CommandError> {
        let actions: Vec<Action> = Action::ALL.into_iter().filter(|action| has_direction(*action)).collect();
        let each = u64::from(count).div_ceil(actions.len() as u64);
        let mut scores = Vec::new();
        for action in actions {
            let said = [Direction::Left, Direction::Right].map(|d| format!("{action} to the {}", d.name()));
            let texts = self.judge.texts(&said)?;
            let options = ClipOptions { action: Some(action), ..self.options.clone() };
            let mut score = (0, 0);
            // Runners turn round in most clips.
            let first = self.seed;
            let clips = (0..20 * each).map(|seed| clip(first.wrapping_add(seed), &options));
            let directed = clips.filter(|clip| clip.action == action && clip.direction.is_some());
            for clip in directed.take(each as usize) {
                let Some(direction) = clip.direction else { continue };
                let chosen = self.choose(&clip, order, &texts)?;
                score =
                    (score.0 + usize::from((chosen == 1) == (direction == Direction::Right)), score.1 + 1);
            }
            scores.push(score);
        }
        Ok(scores)
    }

    /// Per movement: clips of it and their reverses, two texts. `order` comes on top of either.
    fn movements(&mut self, count: u32, order: Order) -> Result<Vec<Score>, CommandError> {
        let each = u64::from(count).div_ceil(2 * MOVEMENTS.len() as u64);
        let mut scores = Vec::new();
        for movement in &MOVEMENTS {
            let texts = self.judge.texts(&[movement.forwards[0], movement.backwards[0]])?;
            let options = ClipOptions { action: Some(movement.action), ..self.options.clone() };
            let mut score = (0, 0);
            // Half of the clips of some actions begin after the movement.
            let clips = (0..20 * each).map(|seed| clip(self.seed.wrapping_add(seed), &options));
            for clip in clips.filter(|clip| happens_within(clip, movement)).take(each as usize) {
                for (truth, way) in [Order::Forwards, Order::Backwards].into_iter().enumerate() {
                    let frames = way.apply(&clip.frames, self.options.frames, 0);
                    self.shuffles += 1;
                    let frames = order.apply(&frames, self.options.frames, self.shuffles);
                    score =
                        (score.0 + usize::from(self.judge.choose(&frames, &texts)? == truth), score.1 + 1);
                }
            }
            scores.push(score);
        }
        Ok(scores)
    }
}

/// The movement begins after the first frame and has time to end.
fn happens_within(clip: &Clip, movement: &Movement) -> bool {
    let first = clip.actions.iter().position(|action| *action == movement.action);
    clip.action == movement.action && first.is_some_and(|first| first >= 1 && first + 4 <= clip.actions.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_what_they_say() {
        let frames = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6];
        let applied = |order: Order| order.apply(&frames, 6, 9);
        assert_eq!(applied(Order::Forwards), frames);
        assert_eq!(applied(Order::Backwards), [6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]);
        assert_eq!(applied(Order::Repeated), [4; 12]);
        let mut shuffled = applied(Order::Shuffled);
        assert_ne!(shuffled, frames);
        shuffled.sort_unstable();
        assert_eq!(shuffled, frames);
    }

    #[test]
    fn clips_of_every_movement_show_it_from_beginning_to_end() {
        for movement in &MOVEMENTS {
            let options =
                ClipOptions { size: 8, action: Some(movement.action), mixed: 0.0, ..ClipOptions::default() };
            let within = (0..60).filter(|&seed| happens_within(&clip(seed, &options), movement)).count();
            assert!(within >= 10, "{}: {within} of 60", movement.action);
        }
    }
}
