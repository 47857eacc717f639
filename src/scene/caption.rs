//! The grammar: sentences about a scene, for training and tests.

use super::action::Action;
use super::random::Random;

/// Colour of the clothes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    Red,
    Blue,
    Green,
    Yellow,
    Orange,
    Purple,
    White,
    Black,
}

impl Colour {
    pub const ALL: [Colour; 8] = [
        Colour::Red,
        Colour::Blue,
        Colour::Green,
        Colour::Yellow,
        Colour::Orange,
        Colour::Purple,
        Colour::White,
        Colour::Black,
    ];

    pub fn index(self) -> usize {
        self as usize
    }

    pub fn name(self) -> &'static str {
        ["red", "blue", "green", "yellow", "orange", "purple", "white", "black"][self.index()]
    }

    pub fn parse(name: &str) -> Option<Colour> {
        Self::ALL.into_iter().find(|colour| colour.name() == name.trim())
    }

    /// Mean sRGB of the cloth, 0..=255.
    pub fn rgb(self) -> [f32; 3] {
        [
            [205.0, 40.0, 40.0],
            [45.0, 80.0, 215.0],
            [40.0, 160.0, 60.0],
            [235.0, 215.0, 50.0],
            [240.0, 130.0, 30.0],
            [140.0, 50.0, 170.0],
            [240.0, 240.0, 240.0],
            [25.0, 25.0, 28.0],
        ][self.index()]
    }
}

/// Where a person faces and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Left,
    Right,
}

impl Direction {
    /// -1 for left, 1 for right.
    pub fn sign(self) -> f32 {
        if self == Direction::Left { -1.0 } else { 1.0 }
    }

    pub fn of(sign: f32) -> Direction {
        if sign < 0.0 { Direction::Left } else { Direction::Right }
    }

    pub fn opposite(self) -> Direction {
        Direction::of(-self.sign())
    }

    pub fn name(self) -> &'static str {
        if self == Direction::Left { "left" } else { "right" }
    }
}

/// What a caption says. `None` leaves the matter open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub action: Action,
    pub colour: Option<Colour>,
    pub direction: Option<Direction>,
}

impl Claim {
    pub fn of(action: Action) -> Self {
        Self { action, colour: None, direction: None }
    }
}

const SUBJECTS: [&str; 7] = ["a person", "someone", "a human", "somebody", "a figure", "a man", "a woman"];
const PAIRS: [&str; 5] = ["two people", "two persons", "a pair of people", "two figures", "people"];

/// Captions true of any scene with people in it: the material of a background class.
pub const GENERIC: [&str; 12] = [
    "a person",
    "someone",
    "someone in view",
    "people",
    "a scene",
    "a video of a person",
    "someone doing something else",
    "a person doing something",
    "something else is happening",
    "something else",
    "another action",
    "an ordinary scene",
];

/// A sentence that says `claim` in one of the trained phrasings.
pub fn caption(random: &mut Random, claim: &Claim) -> String {
    let phrase = random.pick(claim.action.phrasings());
    sentence(random, claim, phrase)
}

/// A sentence around `phrase`, which names the action.
pub fn sentence(random: &mut Random, claim: &Claim, phrase: &str) -> String {
    let mut said = phrase.to_string();
    if claim.action == Action::Empty {
        return said;
    }
    if let Some(direction) = claim.direction {
        said += random.pick(&[" to the ", " ", " towards the "]);
        said += direction.name();
    }
    let bare = claim.colour.is_none() && (random.chance(0.35) || phrase.starts_with("two people"));
    if !bare {
        let pair = claim.action.is_pair();
        let mut subject = if pair { random.pick(&PAIRS) } else { random.pick(&SUBJECTS) }.to_string();
        if let Some(colour) = claim.colour {
            subject += random.pick(&[" in ", " wearing ", " dressed in "]);
            subject += colour.name();
        }
        let link = match () {
            () if random.chance(0.8) || phrase == "hands up" => " ",
            () if pair => " who are ",
            () => " who is ",
        };
        // "two people in red two people fighting" is no sentence.
        let phrase = said.strip_prefix("two people ").unwrap_or(&said);
        said = format!("{subject}{link}{phrase}");
    }
    match random.unit() {
        u if u < 0.85 => said,
        u if u < 0.95 => format!("a video of {said}"),
        _ => format!("{said} outdoors"),
    }
}

/// Only these are said with a direction.
pub fn has_direction(action: Action) -> bool {
    matches!(action, Action::Walk | Action::Run | Action::Carry | Action::Kick | Action::Throw)
}

/// A movement that is another one when the clip runs backwards: only the order of frames tells them apart.
pub struct Movement {
    pub action: Action,
    /// Phrases of the movement itself; other phrasings of the action may be true of both orders.
    pub forwards: &'static [&'static str],
    pub backwards: &'static [&'static str],
}

/// All such movements. What they are backwards is none of the twenty actions.
pub const MOVEMENTS: [Movement; 4] = [
    Movement {
        action: Action::Sit,
        forwards: &["sitting down", "taking a seat"],
        backwards: &["standing up", "standing up from a chair", "getting up from a chair"],
    },
    Movement {
        action: Action::Fall,
        forwards: &["falling down", "falling", "collapsing", "falling to the ground"],
        backwards: &["getting up", "getting up from the ground", "standing up from the floor"],
    },
    Movement {
        action: Action::Crouch,
        forwards: &["squatting down", "crouching down low"],
        backwards: &["standing up from a crouch", "coming up from down low"],
    },
    Movement {
        action: Action::RaiseArms,
        forwards: &["raising both arms"],
        backwards: &["lowering both arms", "taking both arms down"],
    },
];

/// Pairs of clothes and action that are never trained, neither drawn nor said: 23 of 152, so that every colour
/// and every action is in one at least.
pub fn held_out(action: Action, colour: Colour) -> bool {
    let (a, c) = (action.index(), colour.index());
    action != Action::Empty && (c == (3 * a + 1) % 8 || (a % 5 == 0 && c == (3 * a + 4) % 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seventh_of_the_pairs_is_held_out_and_no_action_or_colour_wholly() {
        let held = |a: Action, c: Colour| usize::from(held_out(a, c));
        let per_action = Action::ALL.map(|a| Colour::ALL.iter().map(|&c| held(a, c)).sum::<usize>());
        let per_colour = Colour::ALL.map(|c| Action::ALL.iter().map(|&a| held(a, c)).sum::<usize>());
        assert_eq!(per_action.iter().sum::<usize>(), 23);
        assert!(per_action[..19].iter().all(|held| (1..=2).contains(held)), "{per_action:?}");
        assert!(per_colour.iter().all(|held| (2..=4).contains(held)), "{per_colour:?}");
    }

    #[test]
    fn captions_say_their_claim() {
        let mut random = Random::new(3);
        for action in Action::ALL {
            let claim = Claim { action, colour: Some(Colour::Red), direction: None };
            for _ in 0..50 {
                let said = caption(&mut random, &claim);
                assert!(said.len() < 80 && said.is_ascii(), "{said}");
                assert_eq!(said.contains("red"), action != Action::Empty, "{said}");
                assert!(!said.contains("two people in red two"), "{said}");
            }
        }
        let left = Claim { action: Action::Walk, colour: None, direction: Some(Direction::Left) };
        assert!(caption(&mut random, &left).contains("left"));
    }
}
