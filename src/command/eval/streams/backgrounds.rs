//! Competitions and background prompts, compared on the same recorded logits.

use super::stream::{KINDS, QUIET, Stream, WHOLE};
use super::tape::Scoring;
use super::{Played, delay, false_per_hour, figures, scores, sweep};
use crate::command::figures::Figures;
use crate::command::reliability::Reliability;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::scene::{Action, GENERIC};
use crate::score::Competition;

/// Onsets at which the quiet streams are asked again.
const ONSETS: [f32; 14] = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Where the prompts of a background come from.
enum Prompts {
    Fixed(Vec<String>),
    /// The fixed ones, and every action of the drawn world that is not watched for: an upper bound, since
    /// nobody can name all that happens before a camera.
    AndUnlisted(Vec<String>),
}

impl Prompts {
    fn of(&self, stream: &Stream) -> Vec<String> {
        match self {
            Prompts::Fixed(prompts) => prompts.clone(),
            Prompts::AndUnlisted(prompts) => {
                let others = Action::ALL.iter().map(|action| action.label().to_string());
                prompts.iter().cloned().chain(others.filter(|label| !stream.labels.contains(label))).collect()
            }
        }
    }
}

fn sets(checkpoint: &[String]) -> Vec<(String, Prompts)> {
    let own = || checkpoint.to_vec();
    let fixed = |prompts: &[&str]| Prompts::Fixed(prompts.iter().map(ToString::to_string).collect());
    let alone = ["a person", "someone doing something else", "something else is happening", "a scene"];
    let mut sets = vec![("the checkpoint's".to_string(), Prompts::Fixed(own()))];
    sets.extend(alone.map(|prompt| (format!("`{prompt}`"), fixed(&[prompt]))));
    sets.extend([
        ("all 12 generic ones".into(), fixed(&GENERIC)),
        ("8 of them, people".into(), fixed(&GENERIC[..8])),
        ("4 of them, something else".into(), fixed(&GENERIC[6..10])),
        ("the checkpoint's, unlisted actions".into(), Prompts::AndUnlisted(own())),
        ("unlisted actions".into(), Prompts::AndUnlisted(Vec::new())),
    ]);
    sets
}

/// Every prompt that may stand in a background.
pub fn candidates(checkpoint: &[String]) -> Vec<String> {
    let actions = Action::ALL.iter().map(|action| action.label());
    let all = checkpoint.iter().map(String::as_str).chain(GENERIC).chain(actions);
    all.map(String::from).collect()
}

/// Scores all streams again, each as the function says.
pub type Replay<'a> = dyn Fn(&dyn Fn(&Stream) -> Scoring) -> Vec<Played> + 'a;

/// Prints a row for each competition and background, with the gate's defaults and with an onset of its own.
pub fn compare(base: &Scoring, scored: &Replay<'_>) -> Result<(), CommandError> {
    let mut table = Table::new([
        ("competition", Align::Left),
        ("background", Align::Left),
        ("F1 plain", Align::Right),
        ("F1 unlisted", Align::Right),
        ("F1 whole", Align::Right),
        ("delay p50/p90, whole", Align::Right),
        ("false/h (90 %), nothing listed", Align::Right),
        ("calibration error, whole", Align::Right),
        ("onset for 2 false/h", Align::Right),
        ("F1 whole", Align::Right),
        ("delay p50/p90, whole", Align::Right),
    ]);
    for (competition, name) in [(Competition::Background, "background"), (Competition::Labels, "labels")] {
        let none = ("none".to_string(), Prompts::Fixed(Vec::new()));
        let none = (competition == Competition::Labels).then_some(none);
        for (background, prompts) in sets(&base.background).into_iter().chain(none) {
            let played = scored(&|stream| Scoring {
                competition,
                background: prompts.of(stream),
                temperature: base.temperature,
            });
            let at = |onset: Option<f32>| gated(&played, onset);
            let all = at(None);
            let quiet = ONSETS.into_iter().find(|&onset| at(Some(onset))[QUIET].false_per_hour() <= 2.0);
            let (onset, f1, delays) = match quiet {
                None => ("-".into(), "-".into(), "-".into()),
                Some(onset) => {
                    let whole = &at(Some(onset))[WHOLE];
                    (format!("{onset}"), format!("{:.3}", whole.f1()), delay(&whole.start_delays))
                }
            };
            table.row([
                name.into(),
                background,
                format!("{:.3}", all[0].f1()),
                format!("{:.3}", all[1].f1()),
                format!("{:.3}", all[WHOLE].f1()),
                delay(&all[WHOLE].start_delays),
                false_per_hour(&all[QUIET]),
                format!("{:.3}", whole_world(&played).error()),
                onset,
                f1,
                delays,
            ]);
        }
    }
    const { assert!(KINDS.len() == 4 && WHOLE == 2) };
    say!("\nwhat labels are measured against; right: the lowest onset with 2 false events per hour at most");
    say!("{table}");
    Ok(())
}

/// The default gate, or one of another onset with the offset in the same ratio to it.
fn gated(played: &[Played], onset: Option<f32>) -> Vec<Figures> {
    let mut settings = sweep::Settings::default();
    if let Some(onset) = onset {
        settings.gate.offset *= onset / settings.gate.onset;
        settings.gate.onset = onset;
    }
    figures(played, |played| settings.events(&played.recording))
}

fn whole_world(played: &[Played]) -> Reliability {
    let whole = played.iter().filter(|stream| stream.kind == WHOLE);
    Reliability::of(&whole.flat_map(scores::samples).collect::<Vec<_>>())
}
