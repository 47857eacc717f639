//! Clip level: which of the twenty labels fits best, and what the open score says.

use indicatif::ProgressBar;

use super::Eval;
use crate::backend::{self, Backend, Device, Precision, TextFeatures};
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::model::{Heads, Model};
use crate::preprocess::Reduced;
use crate::scene::{Action, ClipOptions, clip};
use crate::score::{Competition, Scorer};

/// Training draws from lower seeds only.
pub const SEED: u64 = 3_000_000_000;

const ACTIONS: usize = Action::ALL.len();

/// What one world's clips gave.
#[derive(Default)]
struct Tally {
    clips: usize,
    top1: usize,
    top5: usize,
    held_out: usize,
    /// Scores of the true label over onset, and of the other labels under offset.
    present: usize,
    absent: usize,
    /// Rows: the true action; columns: what it was taken for.
    confusion: Vec<[usize; ACTIONS]>,
    /// Probabilities of the true label, by action.
    scores: Vec<Vec<f32>>,
}

/// A loaded checkpoint that answers with logits of fixed prompts.
pub struct Judge {
    pub fingerprint: String,
    backend: Box<dyn Backend>,
    frames: usize,
    size: u32,
    prompts: Vec<TextFeatures>,
    scorer: Scorer,
}

/// Prints both worlds' figures; returns top-1 on plain backgrounds.
pub fn measure(arguments: &Eval) -> Result<f64, CommandError> {
    let mut judge = Judge::new(&arguments.model, arguments.precision, arguments.threads)?;
    say!("{}", judge.describe());
    let mut plain = None;
    for (world, hardness) in [("plain backgrounds", 0.0), ("busy backgrounds", 1.0)] {
        let tally = judge.world(arguments, hardness)?;
        print_tally(world, &tally)?;
        plain.get_or_insert(tally.top1 as f64 / tally.clips.max(1) as f64);
    }
    Ok(plain.unwrap_or(0.0))
}

impl Judge {
    /// Prompts in this order: the actions' labels, their held-out phrasings, the background.
    pub fn new(name: &str, precision: Precision, threads: usize) -> Result<Self, CommandError> {
        let model = Model::open(name, Heads::Hf)?;
        let mut backend = backend::open(&model, Device::Auto, precision, threads)?;
        let labels = Action::ALL.map(Action::label);
        let held_out = Action::ALL.map(|action| action.held_out_phrasings()[0]);
        let background = model.extra.background.iter().map(String::as_str);
        let prompts = labels.into_iter().chain(held_out).chain(background);
        let tokens = prompts.map(|prompt| model.tokenizer.encode(prompt)).collect::<Result<Vec<_>, _>>()?;
        let prompts = backend.encode_text(&tokens)?;
        let scorer = Scorer {
            labels: (0..ACTIONS).map(|i| i..i + 1).collect(),
            background: 2 * ACTIONS..prompts.len(),
            competition: Competition::Background,
            temperature: model.extra.temperature,
        };
        let (fingerprint, frames, size) =
            (model.fingerprint().to_string(), model.config.num_frames, model.rule.size);
        Ok(Self { fingerprint, backend, frames, size, prompts, scorer })
    }

    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// How many of `count` clips on plain backgrounds get the right label.
    pub fn try_out(&mut self, count: u64) -> Result<usize, CommandError> {
        let options = self.options(0.0);
        let mut right = 0;
        for seed in SEED..SEED + count {
            let clip = clip(seed, &options);
            let logits = self.logits(&clip.frames)?;
            let truth = logits[clip.action.index()];
            right += usize::from(logits[..ACTIONS].iter().all(|&logit| logit <= truth));
        }
        Ok(right)
    }

    fn options(&self, hardness: f32) -> ClipOptions {
        ClipOptions { size: self.size, frames: self.frames, hardness, mixed: 0.0, ..ClipOptions::default() }
    }

    fn world(&mut self, arguments: &Eval, hardness: f32) -> Result<Tally, CommandError> {
        let mut tally = Tally {
            confusion: vec![[0; ACTIONS]; ACTIONS],
            scores: vec![Vec::new(); ACTIONS],
            ..Tally::default()
        };
        let options = ClipOptions {
            size: self.size,
            frames: self.frames,
            hardness,
            mixed: 0.0,
            ..ClipOptions::default()
        };
        let bar = ProgressBar::new(arguments.clips.into());
        for seed in 0..u64::from(arguments.clips) {
            let clip = clip(arguments.seed.wrapping_add(seed), &options);
            let logits = self.logits(&clip.frames)?;
            tally.add(clip.action, &logits, &self.scorer.probabilities(&logits));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(tally)
    }

    /// T × S × S × 3 bytes → one logit per prompt.
    fn logits(&mut self, frames: &[u8]) -> Result<Vec<f32>, CommandError> {
        let size = self.size;
        let frames: Vec<Reduced> = frames
            .chunks_exact((3 * size * size) as usize)
            .map(|rgb| Reduced { size, rgb: rgb.to_vec() })
            .collect();
        let prepared = self.backend.prepare(&frames.iter().collect::<Vec<_>>())?;
        let features = self.backend.encode(&[&prepared])?;
        let rows = self.backend.compare(&features.iter().collect::<Vec<_>>(), &self.prompts)?;
        Ok(rows.into_iter().next().expect("one clip gives one row"))
    }
}

impl Tally {
    fn add(&mut self, action: Action, logits: &[f32], probabilities: &[f32]) {
        let truth = action.index();
        let (labels, held_out) = (&logits[..ACTIONS], &logits[ACTIONS..2 * ACTIONS]);
        let better = |values: &[f32]| values.iter().filter(|&&value| value > values[truth]).count();
        self.clips += 1;
        self.top1 += usize::from(better(labels) == 0);
        self.top5 += usize::from(better(labels) < 5);
        self.held_out += usize::from(better(held_out) == 0);
        self.present += usize::from(probabilities[truth] > 0.6);
        self.absent += (0..ACTIONS).filter(|&other| other != truth && probabilities[other] < 0.4).count();
        let best = (0..ACTIONS).max_by(|&a, &b| labels[a].total_cmp(&labels[b])).unwrap_or(0);
        self.confusion[truth][best] += 1;
        self.scores[truth].push(probabilities[truth]);
    }
}

fn print_tally(world: &str, tally: &Tally) -> Result<(), CommandError> {
    let share = |count: usize, all: usize| count as f64 / all.max(1) as f64;
    let clips = tally.clips;
    say!(
        "\n{world}, {clips} clips: top-1 {:.3}, top-5 {:.3} of {ACTIONS} labels; held-out phrasings top-1 {:.3}",
        share(tally.top1, clips),
        share(tally.top5, clips),
        share(tally.held_out, clips),
    );
    say!(
        "score of the true label over 0.6: {:.3}; of the others under 0.4: {:.3}",
        share(tally.present, clips),
        share(tally.absent, clips * (ACTIONS - 1)),
    );
    let mut table = Table::new([
        ("action", Align::Left),
        ("clips", Align::Right),
        ("top-1", Align::Right),
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
            format!("{:.2}", scores[scores.len() / 2]),
            taken.join(", "),
        ]);
    }
    say!("{table}");
    Ok(())
}
