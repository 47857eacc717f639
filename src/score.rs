//! Logits per prompt → one probability per label.
//!
//! A class (a label, or the background) stands for its prompts: its logit is the log of the mean of
//! their exponentials, so a second phrasing helps when it fits and costs little when it does not.

use std::ops::Range;

/// What a label is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Competition {
    /// Each label against the background class alone: adding a label moves no other score.
    #[default]
    Background,
    /// Closed softmax over all labels and the background.
    Labels,
}

/// ln(mean(exp(x))), stable for large x; −∞ for no values.
pub fn log_mean_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return max;
    }
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    max + (sum / logits.len() as f64).ln() as f32
}

/// How prompt logits become label probabilities. Built once per label set.
#[derive(Clone, Debug, PartialEq)]
pub struct Scorer {
    /// Each label's prompts among a window's logits.
    pub labels: Vec<Range<usize>>,
    /// The background's prompts; empty only with [`Competition::Labels`].
    pub background: Range<usize>,
    pub competition: Competition,
    /// Logits are divided by this first; > 0.
    pub temperature: f32,
}

impl Scorer {
    /// One logit per prompt (K) → one probability per label, 0..1.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let scaled: Vec<f32> = logits.iter().map(|x| x / self.temperature).collect();
        let class = |range: &Range<usize>| log_mean_exp(&scaled[range.clone()]);
        let labels: Vec<f32> = self.labels.iter().map(class).collect();
        let background = class(&self.background);
        match self.competition {
            Competition::Background => labels.iter().map(|x| sigmoid(x - background)).collect(),
            Competition::Labels => {
                let max = labels.iter().copied().fold(background, f32::max);
                let odds: Vec<f64> = labels.iter().map(|x| f64::from(x - max).exp()).collect();
                let total = odds.iter().sum::<f64>() + f64::from(background - max).exp();
                odds.iter().map(|x| (x / total) as f32).collect()
            }
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-x).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One prompt per label, the background last.
    fn single(labels: usize, competition: Competition) -> Scorer {
        let background = labels..labels + 1;
        Scorer { labels: (0..labels).map(|i| i..i + 1).collect(), background, competition, temperature: 1.0 }
    }

    #[test]
    fn a_label_level_with_the_background_scores_one_half() {
        assert_eq!(single(1, Competition::Background).probabilities(&[3.5, 3.5]), [0.5]);
    }

    #[test]
    fn two_true_labels_both_pass_against_the_background_and_share_in_a_softmax() {
        let logits = [20.0, 20.0, 10.0];
        let open = single(2, Competition::Background).probabilities(&logits);
        assert!(open.iter().all(|&p| p > 0.99), "{open:?}");
        let closed = single(2, Competition::Labels).probabilities(&logits);
        assert!(closed.iter().all(|&p| (p - 0.5).abs() < 1e-3), "{closed:?}");
    }

    #[test]
    fn a_class_is_the_log_mean_exp_of_its_prompts() {
        assert_eq!(log_mean_exp(&[2.0]), 2.0);
        assert!((log_mean_exp(&[0.0, 1.0]) - ((1.0f64 + 1f64.exp()) / 2.0).ln() as f32).abs() < 1e-6);
        assert_eq!(log_mean_exp(&[100.0, 100.0]), 100.0, "no overflow");
        let scorer = Scorer {
            labels: std::iter::once(0..2).collect(),
            background: 2..4,
            competition: Competition::Background,
            temperature: 2.0,
        };
        let by_hand = sigmoid(log_mean_exp(&[1.0, 2.0]) - log_mean_exp(&[0.5, 1.5]));
        assert_eq!(scorer.probabilities(&[2.0, 4.0, 1.0, 3.0]), [by_hand]);
    }

    #[test]
    fn an_empty_background_leaves_a_softmax_over_the_labels() {
        let mut scorer = single(2, Competition::Labels);
        scorer.background = 2..2;
        let p = scorer.probabilities(&[1.0, 1.0]);
        assert!(p.iter().all(|p| (p - 0.5).abs() < 1e-6), "{p:?}");
    }

    proptest! {
        #[test]
        fn adding_a_label_moves_no_other_score(
            labels in prop::collection::vec(-50f32..50.0, 1..20), background in -50f32..50.0, extra in -50f32..50.0
        ) {
            let mut logits = labels.clone();
            logits.push(background);
            let before = single(labels.len(), Competition::Background).probabilities(&logits);
            logits.insert(labels.len(), extra);
            let after = single(labels.len() + 1, Competition::Background).probabilities(&logits);
            prop_assert_eq!(&before[..], &after[..labels.len()]);
        }

        #[test]
        fn a_softmax_and_its_background_sum_to_one(logits in prop::collection::vec(-80f32..80.0, 2..20)) {
            let labels = logits.len() - 1;
            let p = single(labels, Competition::Labels).probabilities(&logits);
            prop_assert!(p.iter().all(|p| (0.0..=1.0).contains(p)));
            prop_assert!(p.iter().sum::<f32>() <= 1.0 + 1e-5);
            let mut closed = single(labels, Competition::Labels);
            closed.labels.push(labels..labels + 1);
            closed.background = labels + 1..labels + 1;
            let all: f32 = closed.probabilities(&logits).iter().sum();
            prop_assert!((all - 1.0).abs() < 1e-5);
        }

        #[test]
        fn the_order_of_prompts_in_a_class_does_not_matter(mut logits in prop::collection::vec(-50f32..50.0, 1..20)) {
            let a = log_mean_exp(&logits);
            logits.reverse();
            prop_assert!((a - log_mean_exp(&logits)).abs() < 1e-5 * a.abs().max(1.0));
        }
    }
}
