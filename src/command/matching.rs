//! Events beside the truth: which event stands for which true action.
//!
//! A pair has the same label and overlaps in time: intersection over union above a bound. Pairs are
//! taken greedily, best overlap first, one to one. What is left over is missed or false.

use std::fmt;

use super::table::{Align, Table, clock};

/// A span of time in which an action is true, or was reported. Seconds on any common clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub label: String,
    pub start: f64,
    pub end: f64,
}

impl Span {
    /// Intersection over union with `other`, 0..=1.
    pub fn overlap(&self, other: &Span) -> f64 {
        let common = self.end.min(other.end) - self.start.max(other.start);
        let all = self.end.max(other.end) - self.start.min(other.start);
        if common > 0.0 { common / all } else { 0.0 }
    }
}

/// A reported event.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    pub span: Span,
    /// When the start and the end were known, in seconds of the stream.
    pub detected: f64,
    pub ended: f64,
}

/// Who matches whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// (position in the truth, position in the events, overlap), in order of the truth.
    pub pairs: Vec<(usize, usize, f64)>,
    pub missed: Vec<usize>,
    pub spurious: Vec<usize>,
    /// From the true start to the moment it was known, of every pair; sorted, seconds.
    pub delays: Vec<f64>,
}

impl Matching {
    pub fn new(truth: &[Span], events: &[Reported], least_overlap: f64) -> Self {
        let mut candidates: Vec<(usize, usize, f64)> = truth
            .iter()
            .enumerate()
            .flat_map(|(t, span)| events.iter().enumerate().map(move |(e, event)| (t, e, span, event)))
            .filter(|(_, _, span, event)| span.label == event.span.label)
            .map(|(t, e, span, event)| (t, e, span.overlap(&event.span)))
            .filter(|(_, _, overlap)| *overlap > least_overlap)
            .collect();
        candidates.sort_by(|a, b| b.2.total_cmp(&a.2));
        let (mut missed, mut spurious) = (vec![true; truth.len()], vec![true; events.len()]);
        let mut pairs = Vec::new();
        for (t, e, overlap) in candidates {
            if missed[t] && spurious[e] {
                (missed[t], spurious[e]) = (false, false);
                pairs.push((t, e, overlap));
            }
        }
        pairs.sort_by_key(|(t, ..)| *t);
        let mut delays: Vec<f64> =
            pairs.iter().map(|&(t, e, _)| events[e].detected - truth[t].start).collect();
        delays.sort_by(f64::total_cmp);
        let positions = |left: Vec<bool>| (0..left.len()).filter(|&i| left[i]).collect();
        Self { pairs, missed: positions(missed), spurious: positions(spurious), delays }
    }

    /// Share of the events that stand for something true, 0..=1; 1 without events.
    pub fn precision(&self) -> f64 {
        share(self.pairs.len(), self.spurious.len())
    }

    /// Share of the true actions that were reported, 0..=1; 1 without any.
    pub fn recall(&self) -> f64 {
        share(self.pairs.len(), self.missed.len())
    }

    /// Median start delay in seconds.
    pub fn median_delay(&self) -> Option<f64> {
        self.delays.get(self.delays.len() / 2).copied()
    }

    /// Truth and events side by side, in order of time.
    pub fn table(&self, truth: &[Span], events: &[Reported]) -> Table {
        let mut rows: Vec<(f64, [String; 6])> = Vec::new();
        let times = |span: &Span| format!("{}-{}", clock(span.start), clock(span.end));
        for &(t, e, overlap) in &self.pairs {
            let (span, event) = (&truth[t], &events[e]);
            let delay = format!("{:.1} s", event.detected - span.start);
            let overlap = format!("{overlap:.2}");
            let cells = [span.label.clone(), times(span), times(&event.span), overlap, delay, "match".into()];
            rows.push((span.start, cells));
        }
        let none = String::new;
        for &t in &self.missed {
            let cells = [truth[t].label.clone(), times(&truth[t]), none(), none(), none(), "missed".into()];
            rows.push((truth[t].start, cells));
        }
        for &e in &self.spurious {
            let span = &events[e].span;
            let cells = [span.label.clone(), none(), times(span), none(), none(), "false".into()];
            rows.push((span.start, cells));
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut table = Table::new([
            ("label", Align::Left),
            ("truth", Align::Left),
            ("event", Align::Left),
            ("overlap", Align::Right),
            ("delay", Align::Right),
            ("", Align::Left),
        ]);
        for (_, cells) in rows {
            table.row(cells);
        }
        table
    }
}

/// The figures in one line.
impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (precision, recall) = (self.precision(), self.recall());
        let (events, truths) = (self.pairs.len() + self.spurious.len(), self.pairs.len() + self.missed.len());
        write!(f, "precision {precision:.2} of {events} events, recall {recall:.2} of {truths} actions")?;
        match self.median_delay() {
            Some(delay) => write!(f, ", median start delay {delay:.1} s"),
            None => Ok(()),
        }
    }
}

fn share(yes: usize, no: usize) -> f64 {
    if yes + no == 0 { 1.0 } else { yes as f64 / (yes + no) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(label: &str, start: f64, end: f64) -> Span {
        Span { label: label.into(), start, end }
    }

    fn event(label: &str, start: f64, end: f64) -> Reported {
        Reported { span: span(label, start, end), detected: start + 1.0, ended: end + 1.0 }
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let a = span("a", 0.0, 4.0);
        assert_eq!(a.overlap(&span("a", 2.0, 6.0)), 2.0 / 6.0);
        assert_eq!(a.overlap(&span("a", 4.0, 6.0)), 0.0);
        assert_eq!(a.overlap(&a), 1.0);
    }

    #[test]
    fn each_truth_takes_one_event_of_its_label_the_best_first() {
        let truth = [span("a", 0.0, 4.0), span("b", 0.0, 4.0), span("a", 10.0, 12.0)];
        let events =
            [event("a", 2.0, 6.0), event("a", 0.5, 4.0), event("b", 3.5, 9.0), event("a", 10.0, 12.0)];
        let matching = Matching::new(&truth, &events, 0.3);
        assert_eq!(matching.pairs.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(0, 1), (2, 3)]);
        assert_eq!((matching.missed.as_slice(), matching.spurious.as_slice()), (&[1][..], &[0, 2][..]));
        assert_eq!((matching.precision(), matching.recall()), (0.5, 2.0 / 3.0));
        assert_eq!(matching.median_delay(), Some(1.5));
        let table = matching.table(&truth, &events).to_string();
        assert_eq!(table.lines().count(), 6, "{table}");
        assert_eq!(table.matches("missed").count(), 1);
        assert_eq!(table.matches("false").count(), 2);
    }

    #[test]
    fn nothing_against_nothing_is_perfect() {
        let matching = Matching::new(&[], &[], 0.3);
        assert_eq!((matching.precision(), matching.recall(), matching.median_delay()), (1.0, 1.0, None));
    }
}
