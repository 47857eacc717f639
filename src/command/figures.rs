//! Events beside the truth of many streams, added up.

use super::matching::{Matching, Reported, Span};

/// Intersection over union above which an event stands for a true action.
pub const OVERLAP: f64 = 0.3;
/// The stricter bound.
const CLOSE: f64 = 0.5;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Stream time, all streams together.
    pub seconds: f64,
    pub actions: usize,
    pub events: usize,
    /// Events that stand for an action, at [`OVERLAP`] and at the stricter bound.
    pub pairs: usize,
    pub close_pairs: usize,
    /// True start to the moment it was known, and the same for ends; of the pairs, sorted.
    pub start_delays: Vec<f64>,
    pub end_delays: Vec<f64>,
    /// Events of one label that overlap each other, beyond the first.
    pub duplicates: usize,
    /// Events that lie within the same action, beyond the first.
    pub splits: usize,
    /// Actions of one label that lie within the same event, beyond the first.
    pub merges: usize,
}

impl Figures {
    /// Of one stream. `truth` may name a label several times at once; together they are one action.
    pub fn of(truth: &[Span], events: &[Reported], seconds: f64) -> Self {
        let truth = united(truth);
        let matching = Matching::new(&truth, events, OVERLAP);
        let mut end_delays: Vec<f64> =
            matching.pairs.iter().map(|&(t, e, _)| events[e].ended - truth[t].end).collect();
        end_delays.sort_by(f64::total_cmp);
        let overlapping = |(i, event): (usize, &Reported)| {
            let earlier = events[..i].iter();
            earlier.filter(|other| common(&other.span, &event.span) > 0.0).count().min(1)
        };
        let spans = || events.iter().map(|event| &event.span);
        Self {
            seconds,
            actions: truth.len(),
            events: events.len(),
            pairs: matching.pairs.len(),
            close_pairs: Matching::new(&truth, events, CLOSE).pairs.len(),
            start_delays: matching.delays,
            end_delays,
            duplicates: events.iter().enumerate().map(overlapping).sum(),
            splits: truth.iter().map(|action| beyond_first(spans(), action)).sum(),
            merges: spans().map(|event| beyond_first(truth.iter(), event)).sum(),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.actions += other.actions;
        self.events += other.events;
        self.pairs += other.pairs;
        self.close_pairs += other.close_pairs;
        self.duplicates += other.duplicates;
        self.splits += other.splits;
        self.merges += other.merges;
        for (mine, others) in
            [(&mut self.start_delays, &other.start_delays), (&mut self.end_delays, &other.end_delays)]
        {
            mine.extend(others);
            mine.sort_by(f64::total_cmp);
        }
    }

    /// 0..=1; 1 without events.
    pub fn precision(&self) -> f64 {
        share(self.pairs, self.events)
    }

    /// 0..=1; 1 without actions.
    pub fn recall(&self) -> f64 {
        share(self.pairs, self.actions)
    }

    /// Harmonic mean of precision and recall at [`OVERLAP`].
    pub fn f1(&self) -> f64 {
        share(2 * self.pairs, self.events + self.actions)
    }

    pub fn close_f1(&self) -> f64 {
        share(2 * self.close_pairs, self.events + self.actions)
    }

    pub fn false_per_hour(&self) -> f64 {
        (self.events - self.pairs) as f64 / self.seconds.max(1e-9) * 3600.0
    }

    /// The rates per hour under which so many false events are neither too few nor too many: in 5 % of such
    /// streams each there are at most so many, or at least so many (exact Poisson interval of 90 %; Garwood
    /// 1936).
    pub fn false_per_hour_interval(&self) -> (f64, f64) {
        let count = self.events - self.pairs;
        let hours = self.seconds.max(1e-9) / 3600.0;
        // The mean under which at most `count` events have this probability; it falls as the mean grows.
        let mean = |count: usize, probability: f64| {
            let (mut low, mut high) = (0.0, 10.0 + 3.0 * count as f64);
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                if at_most(count, middle) > probability { low = middle } else { high = middle }
            }
            f64::midpoint(low, high)
        };
        let low = count.checked_sub(1).map_or(0.0, |fewer| mean(fewer, 0.95));
        (low / hours, mean(count, 0.05) / hours)
    }

    /// Duplicates and splits per 100 actions.
    pub fn repeats(&self) -> f64 {
        (self.duplicates + self.splits) as f64 / self.actions.max(1) as f64 * 100.0
    }
}

/// The value below which `share` of the sorted `values` lie; NaN without any.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    match values.len() {
        0 => f64::NAN,
        n => values[((n - 1) as f64 * share).round() as usize],
    }
}

/// Probability of at most `count` events where `mean` are expected (Poisson).
fn at_most(count: usize, mean: f64) -> f64 {
    let mut ln_factorial = 0.0;
    let one = |k: usize| {
        ln_factorial += (k.max(1) as f64).ln();
        (k as f64 * mean.ln() - mean - ln_factorial).exp()
    };
    (0..=count).map(one).sum()
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Seconds that two spans of the same label have in common.
fn common(a: &Span, b: &Span) -> f64 {
    if a.label == b.label { (a.end.min(b.end) - a.start.max(b.start)).max(0.0) } else { 0.0 }
}

/// How many of `inner` lie for more than half of their time within `outer`, less one.
fn beyond_first<'a>(inner: impl Iterator<Item = &'a Span>, outer: &Span) -> usize {
    let within = inner.filter(|span| common(span, outer) > 0.5 * (span.end - span.start));
    within.count().saturating_sub(1)
}

/// Spans of one label that touch become one.
pub fn united(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_by(|a, b| a.label.cmp(&b.label).then(a.start.total_cmp(&b.start)));
    let mut united: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match united.last_mut() {
            Some(last) if last.label == span.label && span.start <= last.end => {
                last.end = last.end.max(span.end);
            }
            _ => united.push(span),
        }
    }
    united.sort_by(|a, b| a.start.total_cmp(&b.start));
    united
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(label: &str, start: f64, end: f64) -> Span {
        Span { label: label.into(), start, end }
    }

    fn event(label: &str, start: f64, end: f64) -> Reported {
        Reported { span: span(label, start, end), detected: start + 1.0, ended: end + 2.0 }
    }

    #[test]
    fn an_action_told_in_two_parts_is_a_split_and_two_told_as_one_a_merge() {
        let truth = [span("a", 0.0, 10.0), span("b", 0.0, 4.0), span("b", 5.0, 9.0)];
        let events = [event("a", 0.0, 4.0), event("a", 5.0, 9.0), event("b", 0.0, 9.0)];
        let figures = Figures::of(&truth, &events, 3600.0);
        assert_eq!((figures.splits, figures.merges, figures.duplicates), (1, 1, 0));
        assert_eq!((figures.pairs, figures.actions, figures.events), (2, 3, 3));
        assert_eq!(figures.close_pairs, 0);
        assert_eq!(figures.false_per_hour(), 1.0);
    }

    #[test]
    fn events_of_one_label_at_the_same_time_are_duplicates() {
        let truth = [span("a", 0.0, 10.0)];
        let events = [event("a", 0.0, 9.0), event("a", 8.0, 12.0), event("b", 0.0, 10.0)];
        let figures = Figures::of(&truth, &events, 60.0);
        assert_eq!(figures.duplicates, 1);
        assert_eq!((figures.precision(), figures.recall()), (1.0 / 3.0, 1.0));
        assert_eq!((figures.f1(), figures.repeats()), (0.5, 100.0));
    }

    #[test]
    fn a_rate_comes_with_the_interval_its_count_allows() {
        let of = |events: usize| Figures { seconds: 3600.0, events, ..Figures::default() };
        // Half of the quantiles of chi squared with 2n and 2n + 2 degrees of freedom.
        for (events, low, high) in
            [(0, 0.0, 2.996), (1, 0.0513, 4.744), (4, 1.366, 9.154), (100, 84.14, 118.1)]
        {
            let (a, b) = of(events).false_per_hour_interval();
            assert!((a - low).abs() < 0.01 && (b - high).abs() < 0.05, "{events}: {a} to {b}");
        }
    }

    #[test]
    fn delays_are_from_the_true_time_to_the_moment_it_was_known() {
        let figures = Figures::of(&[span("a", 2.0, 6.0)], &[event("a", 3.0, 6.5)], 60.0);
        assert_eq!((figures.start_delays, figures.end_delays), (vec![2.0], vec![2.5]));
    }

    #[test]
    fn one_label_told_by_two_people_at_once_is_one_action() {
        let truth = [span("a", 0.0, 5.0), span("a", 4.0, 9.0), span("a", 9.5, 12.0), span("b", 4.0, 6.0)];
        let united = united(&truth);
        assert_eq!(united, [span("a", 0.0, 9.0), span("b", 4.0, 6.0), span("a", 9.5, 12.0)]);
    }

    #[test]
    fn streams_add_up() {
        let mut sum = Figures::of(&[span("a", 2.0, 6.0)], &[event("a", 3.0, 6.5)], 60.0);
        sum.add(&Figures::of(&[span("a", 2.0, 6.0)], &[event("a", 2.0, 6.5), event("a", 20.0, 21.0)], 60.0));
        assert_eq!((sum.seconds, sum.actions, sum.events, sum.pairs), (120.0, 2, 3, 2));
        assert_eq!(sum.start_delays, [1.0, 2.0]);
        assert_eq!(quantile(&sum.start_delays, 0.9), 2.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
