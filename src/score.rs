//! Logits per prompt → one probability per label.

/// What a label is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Competition {
    /// Each label against the background class alone: adding a label moves no other score.
    #[default]
    Background,
    /// Closed softmax over all labels and the background.
    Labels,
}
