//! The twenty actions of the drawn world and the words for them.

/// What happens in a scene. The order is the class index of the training data and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Stand,
    Walk,
    Run,
    Jump,
    Wave,
    Fall,
    Lie,
    Sit,
    Crouch,
    Climb,
    Throw,
    Kick,
    Dribble,
    Carry,
    RaiseArms,
    Dance,
    Fight,
    Hug,
    ShakeHands,
    Empty,
}

use Action::*;

impl Action {
    pub const ALL: [Action; 20] = [
        Stand, Walk, Run, Jump, Wave, Fall, Lie, Sit, Crouch, Climb, Throw, Kick, Dribble, Carry, RaiseArms,
        Dance, Fight, Hug, ShakeHands, Empty,
    ];

    /// Position in [`Action::ALL`], 0..20.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The canonical phrase, the first of [`Action::phrasings`].
    pub fn label(self) -> &'static str {
        self.phrasings()[0]
    }

    /// The phrases a model trained on this world has read.
    pub fn phrasings(self) -> &'static [&'static str] {
        match self {
            Stand => &[
                "standing",
                "standing still",
                "standing upright",
                "just standing there",
                "standing around",
                "standing there",
                "standing without moving",
            ],
            Walk => &[
                "walking",
                "taking a walk",
                "strolling",
                "going on foot",
                "walking along",
                "walking slowly",
                "going slowly",
                "out for a walk",
            ],
            Run => &[
                "running",
                "jogging",
                "sprinting",
                "running fast",
                "jogging fast",
                "running along",
                "going fast",
                "moving fast",
                "going for a run",
            ],
            Jump => &["jumping", "jumping up and down", "hopping", "leaping up", "leaping", "jumping high"],
            Wave => &[
                "waving",
                "waving a hand",
                "waving hello",
                "greeting with a hand",
                "waving one hand",
                "waving to someone",
            ],
            Fall => &[
                "falling down",
                "falling",
                "collapsing",
                "falling to the ground",
                "falling over",
                "falling to the floor",
            ],
            Lie => &[
                "lying on the ground",
                "lying down",
                "lying on the floor",
                "resting on the floor",
                "lying still",
                "lying on the back",
            ],
            Sit => &[
                "sitting down",
                "taking a seat",
                "sitting on a chair",
                "sitting",
                "sitting down on a chair",
                "sitting still",
            ],
            Crouch => &[
                "crouching",
                "squatting",
                "crouching down low",
                "squatting down",
                "crouching down",
                "crouching low",
            ],
            Climb => &[
                "climbing a fence",
                "climbing",
                "climbing over a fence",
                "going over a fence",
                "climbing the fence",
            ],
            Throw => &[
                "throwing",
                "throwing a ball",
                "tossing a ball",
                "pitching a ball",
                "throwing the ball",
                "pitching",
            ],
            Kick => &[
                "kicking",
                "kicking a ball",
                "kicking the ball",
                "shooting a ball with the foot",
                "shooting a ball",
                "kicking with the foot",
            ],
            Dribble => &[
                "dribbling a ball",
                "bouncing a ball",
                "dribbling",
                "bouncing the ball",
                "bouncing a ball on the floor",
            ],
            Carry => &[
                "carrying a box",
                "carrying",
                "walking with a box",
                "holding a box",
                "carrying the box",
                "going with a box",
            ],
            RaiseArms => &[
                "raising both arms",
                "holding both arms up",
                "hands up",
                "both hands in the air",
                "both arms up",
                "holding up both hands",
            ],
            Dance => &[
                "dancing",
                "doing a dance",
                "moving to music",
                "dancing to music",
                "dancing around",
                "moving to the music",
            ],
            Fight => &[
                "two people fighting",
                "fighting",
                "punching each other",
                "boxing",
                "having a fight",
                "fighting each other",
                "punching",
            ],
            Hug => &[
                "hugging",
                "hugging each other",
                "embracing",
                "in a hug",
                "holding each other",
                "having a hug",
            ],
            ShakeHands => &[
                "shaking hands",
                "giving a handshake",
                "doing a handshake",
                "shaking hands with each other",
                "a handshake",
            ],
            Empty => &[
                "an empty scene",
                "nobody",
                "no one in view",
                "a scene with nobody",
                "nobody in view",
                "no person",
            ],
        }
    }

    /// Phrases never used in training: known words in a new order. The first was looked at when phrasings to
    /// train were chosen, the second was not.
    pub fn held_out_phrasings(self) -> &'static [&'static str] {
        match self {
            Stand => &["standing there upright", "just standing around"],
            Walk => &["going for a walk", "strolling along"],
            Run => &["going fast on foot", "sprinting along"],
            Jump => &["hopping up and down", "leaping high"],
            Wave => &["waving with a hand up", "waving with one hand"],
            Fall => &["collapsing to the ground", "collapsing to the floor"],
            Lie => &["resting on the ground", "lying still on the floor"],
            Sit => &["taking a seat on a chair", "sitting still on a chair"],
            Crouch => &["squatting down low", "squatting low"],
            Climb => &["climbing up a fence", "going up and over a fence"],
            Throw => &["tossing a ball up", "pitching the ball"],
            Kick => &["shooting the ball with a foot", "kicking a ball with the foot"],
            Dribble => &["dribbling the ball", "bouncing the ball on the ground"],
            Carry => &["walking holding a box", "going on foot with a box"],
            RaiseArms => &["raising both hands up", "holding both arms in the air"],
            Dance => &["doing a dance to music", "doing a dance to the music"],
            Fight => &["boxing each other", "punching and fighting"],
            Hug => &["embracing each other", "having a hug with each other"],
            ShakeHands => &["giving each other a handshake", "doing a handshake with each other"],
            Empty => &["a scene with no one", "nobody in the scene"],
        }
    }

    /// The action a phrase stands for; case and surrounding space do not matter.
    pub fn parse(phrase: &str) -> Option<Action> {
        let phrase = phrase.trim().to_lowercase();
        Self::ALL.into_iter().find(|action| {
            action.phrasings().iter().chain(action.held_out_phrasings()).any(|known| *known == phrase)
        })
    }

    /// Two people take part.
    pub fn is_pair(self) -> bool {
        matches!(self, Fight | Hug | ShakeHands)
    }

    /// The person moves through the picture.
    pub fn travels(self) -> bool {
        matches!(self, Walk | Run | Carry)
    }

    /// Speed through the picture, in body heights per second.
    pub fn speed(self) -> f32 {
        match self {
            Walk => 0.42,
            Run => 0.95,
            Carry => 0.3,
            _ => 0.0,
        }
    }

    /// Cycles per second of the movement, before each person's own factor of 0.8 to 1.25.
    pub fn tempo(self) -> f32 {
        match self {
            Walk => 0.85,
            Run => 1.45,
            Carry => 0.7,
            Jump => 0.8,
            Wave => 1.1,
            Climb => 0.75,
            Dribble => 1.3,
            Dance => 0.8,
            Fight => 1.3,
            ShakeHands => 1.2,
            Hug => 0.3,
            RaiseArms => 0.4,
            Crouch => 0.3,
            _ => 0.25,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_means_one_action() {
        let mut seen = std::collections::HashMap::new();
        for action in Action::ALL {
            assert_eq!(Action::ALL[action.index()], action);
            for phrase in action.phrasings().iter().chain(action.held_out_phrasings()) {
                assert!(seen.insert(*phrase, action).is_none(), "`{phrase}` stands for two actions");
                assert_eq!(Action::parse(&format!(" {} ", phrase.to_uppercase())), Some(action));
            }
        }
        assert_eq!(Action::parse("swimming"), None);
    }
}
