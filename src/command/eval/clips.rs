//! Clip level: which of the twenty labels fits best, and what the open score says.

use std::path::Path;

use indicatif::ProgressBar;

use super::Eval;
use super::confusion;
use super::judge::Judge;
use crate::command::reliability::Reliability;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::scene::{Action, Clip, ClipOptions, Company, Look, clip};

/// Training draws from lower seeds only.
pub const SEED: u64 = 3_000_000_000;

pub const ACTIONS: usize = Action::ALL.len();

/// What one world's clips gave.
#[derive(Default)]
pub struct Tally {
    clips: usize,
    top1: usize,
    top5: [usize; ACTIONS],
    /// By each of an action's two phrasings never trained.
    held_out: [usize; 2],
    /// Scores of the true labels over 0.6, and of the other labels under 0.4.
    present: usize,
    absent: usize,
    labels: [usize; 2],
    /// Two people: clips, and those in which both actions score over one half.
    company: [usize; 2],
    /// Rows: the true action; columns: what it was taken for.
    pub confusion: Vec<[usize; ACTIONS]>,
    /// Probabilities of the true label, by action.
    scores: Vec<Vec<f32>>,
    /// Of every label in every clip.
    reliability: Reliability,
}

struct World {
    name: &'static str,
    file: &'static str,
    hardness: f32,
    hard: Look,
    company: Company,
}

const WORLDS: [World; 4] = [
    World {
        name: "plain backgrounds",
        file: "plain",
        hardness: 0.0,
        hard: Look::Busy,
        company: Company::Never,
    },
    World {
        name: "whole world",
        file: "whole",
        hardness: 1.0,
        hard: Look::Busy,
        company: Company::Sometimes,
    },
    World {
        name: "whole world, backgrounds never trained",
        file: "unseen",
        hardness: 1.0,
        hard: Look::Unseen,
        company: Company::Sometimes,
    },
    World {
        name: "whole world, always two people with two actions",
        file: "company",
        hardness: 1.0,
        hard: Look::Busy,
        company: Company::Always,
    },
];

/// Prints each world's figures, and draws them into `out`; returns top-1 on plain backgrounds.
pub fn measure(judge: &mut Judge, arguments: &Eval) -> Result<f64, CommandError> {
    let mut plain = None;
    for world in &WORLDS {
        let tally = measure_world(judge, arguments, world)?;
        print_tally(world.name, &tally)?;
        if let Some(folder) = &arguments.out {
            let path = folder.join(format!("confusion_{}.png", world.file));
            confusion::draw(&path, world.name, &tally.confusion)?;
            write_table(&path.with_extension("csv"), &tally.confusion)?;
        }
        plain.get_or_insert(tally.top1());
    }
    Ok(plain.unwrap_or(0.0))
}

fn measure_world(judge: &mut Judge, arguments: &Eval, world: &World) -> Result<Tally, CommandError> {
    let (hardness, hard, company) = (world.hardness, world.hard, world.company);
    let options = ClipOptions { hardness, hard, company, ..judge.options() };
    tally(judge, arguments.seed, arguments.clips, &options, |_, _| ())
}

/// What `count` clips from `seed` on give. `spoil` may change a clip's frames (T × S × S × 3 bytes) before
/// they are seen; it knows the clip's number.
pub fn tally(
    judge: &mut Judge,
    first: u64,
    count: u32,
    options: &ClipOptions,
    spoil: impl Fn(&mut [u8], u64),
) -> Result<Tally, CommandError> {
    let held_out = |which: usize| Action::ALL.map(|action| action.held_out_phrasings()[which]);
    let background = judge.background().to_vec();
    let prompts: Vec<&str> = Action::ALL
        .map(Action::label)
        .into_iter()
        .chain(held_out(0))
        .chain(held_out(1))
        .chain(background.iter().map(String::as_str))
        .collect();
    let scorer = judge.scorer(ACTIONS, prompts.len());
    let prompts = judge.texts(&prompts)?;
    let mut tally = Tally {
        confusion: vec![[0; ACTIONS]; ACTIONS],
        scores: vec![Vec::new(); ACTIONS],
        ..Tally::default()
    };
    let bar = ProgressBar::new(count.into());
    for number in 0..u64::from(count) {
        let mut clip = clip(first.wrapping_add(number), options);
        spoil(&mut clip.frames, number);
        let features = judge.watch(&clip.frames)?;
        let logits = judge.compare(&features, &prompts)?;
        tally.add(&clip, &logits, &scorer.probabilities(&logits));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tally)
}

impl Tally {
    /// Share of the clips in which the best label is true.
    pub fn top1(&self) -> f64 {
        share(self.top1, self.clips)
    }

    /// Share of the true labels that score over onset, and of the others that score under offset.
    pub fn passed(&self) -> (f64, f64) {
        (share(self.present, self.labels[1]), share(self.absent, self.labels[0]))
    }

    pub fn calibration_error(&self) -> f64 {
        self.reliability.error()
    }

    /// With two people either action is right, and the clip is counted in the row of the first person's.
    fn add(&mut self, clip: &Clip, logits: &[f32], probabilities: &[f32]) {
        let truth = clip.action.index();
        let other = clip.other.map(|(action, _)| action.index());
        let is_true = |label: usize| label == truth || Some(label) == other;
        let (labels, held_out) = (&logits[..ACTIONS], &logits[ACTIONS..3 * ACTIONS]);
        let best = |values: &[f32]| {
            let mut order: Vec<usize> = (0..ACTIONS).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order
        };
        let order = best(labels);
        self.clips += 1;
        let right = is_true(order[0]);
        self.top1 += usize::from(right);
        self.top5[truth] += usize::from(order[..5].iter().any(|&label| is_true(label)));
        for (right, phrasing) in self.held_out.iter_mut().zip(held_out.chunks(ACTIONS)) {
            *right += usize::from(is_true(best(phrasing)[0]));
        }
        for (label, &p) in probabilities.iter().enumerate().take(ACTIONS) {
            let true_label = is_true(label);
            self.labels[usize::from(true_label)] += 1;
            self.present += usize::from(true_label && p > 0.6);
            self.absent += usize::from(!true_label && p < 0.4);
            self.reliability.add((p, true_label));
        }
        if let Some(other) = other {
            self.company[0] += 1;
            self.company[1] += usize::from(probabilities[truth].min(probabilities[other]) > 0.5);
        }
        self.confusion[truth][if right { truth } else { order[0] }] += 1;
        self.scores[truth].push(probabilities[truth]);
    }
}

pub fn share(count: usize, all: usize) -> f64 {
    count as f64 / all.max(1) as f64
}

fn print_tally(world: &str, tally: &Tally) -> Result<(), CommandError> {
    let clips = tally.clips;
    say!(
        "\n{world}, {clips} clips: top-1 {:.3}, top-5 {:.3} of {ACTIONS} labels; held-out phrasings top-1 {:.3} and {:.3}",
        tally.top1(),
        share(tally.top5.iter().sum(), clips),
        share(tally.held_out[0], clips),
        share(tally.held_out[1], clips),
    );
    let (present, absent) = tally.passed();
    say!(
        "score of the true label over 0.6: {present:.3}; of the others under 0.4: {absent:.3}; calibration error {:.3}",
        tally.calibration_error(),
    );
    if tally.company[0] > 0 {
        let [clips, both] = tally.company;
        say!("two people with two actions, {clips} clips: both score over 0.5 in {:.3}", share(both, clips));
    }
    let mut table = Table::new([
        ("action", Align::Left),
        ("clips", Align::Right),
        ("top-1", Align::Right),
        ("top-5", Align::Right),
        ("median score", Align::Right),
        ("taken for", Align::Left),
    ]);
    for action in Action::ALL {
        let row = &tally.confusion[action.index()];
        let count: usize = row.iter().sum();
        if count == 0 {
            continue;
        }
        let mut scores = tally.scores[action.index()].clone();
        scores.sort_by(f32::total_cmp);
        let mut wrong: Vec<_> =
            Action::ALL.into_iter().filter(|other| *other != action && row[other.index()] > 0).collect();
        wrong.sort_by_key(|other| std::cmp::Reverse(row[other.index()]));
        let taken: Vec<_> =
            wrong.iter().take(3).map(|other| format!("{other} {}", row[other.index()])).collect();
        table.row([
            action.label().into(),
            count.to_string(),
            format!("{:.2}", share(row[action.index()], count)),
            format!("{:.2}", share(tally.top5[action.index()], count)),
            format!("{:.2}", scores[scores.len() / 2]),
            taken.join(", "),
        ]);
    }
    say!("{table}");
    Ok(())
}

/// Counts as comma-separated values: a row per true action.
fn write_table(path: &Path, confusion: &[[usize; ACTIONS]]) -> Result<(), CommandError> {
    let heading = Action::ALL.map(Action::label).join(",");
    let mut text = format!("true action,{heading}\n");
    for (action, row) in Action::ALL.into_iter().zip(confusion) {
        let counts: Vec<String> = row.iter().map(usize::to_string).collect();
        text += &format!("{action},{}\n", counts.join(","));
    }
    std::fs::write(path, text).map_err(|source| CommandError::Io { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Colour;

    fn sample(action: Action, other: Option<Action>) -> Clip {
        let options = ClipOptions { size: 8, frames: 1, action: Some(action), ..ClipOptions::default() };
        Clip { action, other: other.map(|action| (action, Colour::Red)), ..clip(1, &options) }
    }

    fn tally() -> Tally {
        Tally {
            confusion: vec![[0; ACTIONS]; ACTIONS],
            scores: vec![Vec::new(); ACTIONS],
            ..Tally::default()
        }
    }

    #[test]
    fn either_of_two_actions_is_right_and_a_third_is_not() {
        let mut tally = tally();
        let mut logits = vec![0.0; 3 * ACTIONS];
        logits[Action::Wave.index()] = 1.0;
        let scores = vec![0.0; ACTIONS];
        for (action, other) in
            [(Action::Wave, None), (Action::Kick, Some(Action::Wave)), (Action::Kick, Some(Action::Run))]
        {
            tally.add(&sample(action, other), &logits, &scores);
        }
        assert_eq!((tally.top1, tally.clips), (2, 3));
        assert_eq!(tally.confusion[Action::Kick.index()][Action::Kick.index()], 1);
        assert_eq!(tally.confusion[Action::Kick.index()][Action::Wave.index()], 1);
    }
}
