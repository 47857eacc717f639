//! Whether a probability means what it says: scores beside what was true.
//!
//! Source: expected calibration error and reliability diagram as in Guo et al. 2017 (arXiv 1706.04599).

use super::table::{Align, Table};

/// Bins of equal width.
const BINS: usize = 10;

/// A probability for a label, and whether the label was true.
pub type Sample = (f32, bool);

/// How often what was given a probability was true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    /// Per bin: samples, sum of their probabilities, how many were true.
    bins: [(usize, f64, usize); BINS],
}

impl Reliability {
    pub fn of(samples: &[Sample]) -> Self {
        let mut all = Self::default();
        samples.iter().for_each(|&sample| all.add(sample));
        all
    }

    pub fn add(&mut self, (score, is_true): Sample) {
        let bin = &mut self.bins[((score * BINS as f32) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + f64::from(score), bin.2 + usize::from(is_true));
    }

    /// Expected calibration error: the mean distance between probability and truth, by sample; NaN
    /// without any.
    pub fn error(&self) -> f64 {
        let (mut count, mut distance) = (0, 0.0);
        for (n, sum, is_true) in self.bins {
            count += n;
            distance += (sum - is_true as f64).abs();
        }
        distance / count as f64
    }

    /// (mean probability, share that was true) of every bin with samples.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let filled = self.bins.iter().filter(|(n, ..)| *n > 0);
        filled.map(|&(n, sum, is_true)| (sum / n as f64, is_true as f64 / n as f64)).collect()
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new([
            ("score", Align::Left),
            ("samples", Align::Right),
            ("mean score", Align::Right),
            ("were true", Align::Right),
        ]);
        for (i, &(n, sum, is_true)) in self.bins.iter().enumerate().filter(|(_, (n, ..))| *n > 0) {
            let edge = |i: usize| i as f64 / BINS as f64;
            let mean = |sum: f64| format!("{:.3}", sum / n as f64);
            table.row([
                format!("{:.1}-{:.1}", edge(i), edge(i + 1)),
                n.to_string(),
                mean(sum),
                mean(is_true as f64),
            ]);
        }
        table
    }
}

/// The factor on the temperature under which the samples are likeliest: 1 if there are none of a kind.
/// Least mean negative log-likelihood, by golden-section search over its logarithm.
pub fn temperature(samples: &[Sample]) -> f64 {
    let both = [true, false].map(|kind| samples.iter().filter(|(_, is_true)| *is_true == kind).count());
    if both.contains(&0) {
        return 1.0;
    }
    let logits: Vec<(f64, bool)> = samples.iter().map(|&(p, is_true)| (logit(p), is_true)).collect();
    let loss = |ln_t: f64| -> f64 {
        let scale = (-ln_t).exp();
        // ln(1 + exp(-z)), stable on both sides.
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let one = |&(z, is_true): &(f64, bool)| softplus(if is_true { -z * scale } else { z * scale });
        logits.iter().map(one).sum()
    };
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = ((0.05f64).ln(), (20f64).ln());
    while high - low > 1e-4 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if loss(a) < loss(b) { high = b } else { low = a }
    }
    f64::midpoint(low, high).exp()
}

fn logit(p: f32) -> f64 {
    let p = f64::from(p).clamp(1e-7, 1.0 - 1e-7);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `score` at a temperature `factor` times as high. For scores against the background alone.
    fn rescale(score: f32, factor: f64) -> f32 {
        (1.0 / (1.0 + (-logit(score) / factor).exp())) as f32
    }

    #[test]
    fn scores_that_mean_what_they_say_have_no_error_and_keep_their_temperature() {
        let honest: Vec<Sample> = (0..1000)
            .flat_map(|i| [0.1, 0.3, 0.5, 0.8].map(|p: f32| (p, (i % 10) < (p * 10.0) as i32)))
            .collect();
        assert!(Reliability::of(&honest).error() < 1e-6);
        assert!((temperature(&honest) - 1.0).abs() < 0.02, "{}", temperature(&honest));
    }

    #[test]
    fn the_temperature_undoes_a_scale_of_the_logits() {
        let samples: Vec<Sample> = (0..1000)
            .flat_map(|i| [0.1, 0.3, 0.5, 0.8].map(|p: f32| (rescale(p, 0.25), (i % 10) < (p * 10.0) as i32)))
            .collect();
        let factor = temperature(&samples);
        assert!((factor - 4.0).abs() < 0.1, "{factor}");
        let cured: Vec<Sample> = samples.iter().map(|&(p, t)| (rescale(p, factor), t)).collect();
        assert!(Reliability::of(&cured).error() < 0.01 && Reliability::of(&samples).error() > 0.05);
        assert_eq!(temperature(&[(0.3, false)]), 1.0, "one kind says nothing");
    }
}
