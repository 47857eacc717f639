//! Clothes and action together: pairs that were trained, and pairs that never were.

use super::Eval;
use super::clips::share;
use super::judge::{Judge, best};
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::scene::{Action, ClipOptions, Colour, Company, Pairs, clip};

/// Seeds of their own, away from the other figures'.
const OFFSET: u64 = 50_000_000;

/// How the best of the 152 sentences `a person in COLOUR ACTION` fits.
#[derive(Default)]
struct Hits {
    clips: usize,
    action: usize,
    colour: usize,
    joint: usize,
}

pub fn measure(judge: &mut Judge, arguments: &Eval) -> Result<(), CommandError> {
    let people: Vec<Action> = Action::ALL.into_iter().filter(|action| *action != Action::Empty).collect();
    let claims: Vec<(Action, Colour)> =
        people.iter().flat_map(|&action| Colour::ALL.map(|colour| (action, colour))).collect();
    let sentences: Vec<String> = claims.iter().map(|&(action, colour)| sentence(action, colour)).collect();
    let texts = judge.texts(&sentences)?;
    let mut table = Table::new([
        ("clothes and action", Align::Left),
        ("clips", Align::Right),
        ("action", Align::Right),
        ("colour", Align::Right),
        ("both", Align::Right),
    ]);
    for (world, hardness) in [("plain", 0.0), ("whole world", 1.0)] {
        for (name, pairs) in [("trained pairs", Pairs::Seen), ("held-out pairs", Pairs::HeldOut)] {
            let options = ClipOptions { hardness, pairs, company: Company::Never, ..judge.options() };
            let mut hits = Hits::default();
            for number in 0..u64::from(arguments.clips) {
                let clip = clip(arguments.seed.wrapping_add(OFFSET + number), &options);
                let Some(colour) = clip.colour else { continue };
                let features = judge.watch(&clip.frames)?;
                let (action_said, colour_said) = claims[best(&judge.compare(&features, &texts)?)];
                hits.clips += 1;
                hits.action += usize::from(action_said == clip.action);
                hits.colour += usize::from(colour_said == colour);
                hits.joint += usize::from((action_said, colour_said) == (clip.action, colour));
            }
            let of = |count: usize| format!("{:.3}", share(count, hits.clips));
            let count = hits.clips.to_string();
            table.row([format!("{world}, {name}"), count, of(hits.action), of(hits.colour), of(hits.joint)]);
        }
    }
    say!("\nbest of {} sentences like `{}`", sentences.len(), sentences[8]);
    say!("{table}");
    Ok(())
}

fn sentence(action: Action, colour: Colour) -> String {
    let phrase = action.label().trim_start_matches("two people ");
    let who = if action.is_pair() { "two people" } else { "a person" };
    format!("{who} in {} {phrase}", colour.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_one_sentence() {
        assert_eq!(sentence(Action::Walk, Colour::Red), "a person in red walking");
        assert_eq!(sentence(Action::Fight, Colour::Blue), "two people in blue fighting");
    }
}
