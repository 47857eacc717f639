//! Whose turn is next: every stream loses the same share of its windows, whatever it asks for.
//!
//! A stream is due from some time on, and each turn takes that on by the stream's own mean time between two
//! windows. On a machine that does half of what is asked these times run at half speed: a stream with ten
//! windows a second is served five times, one with two once, and streams alike take turns. (Start-time fair
//! queueing, Goyal, Vin and Cheng, SIGCOMM 1996; the weights are the rates asked.)
//!
//! Two bounds hold beside it. A stream that asks much less often than the others waits for at most
//! [`PATIENCE`] turns of all. And one that waits for its answers (`run`) loses nothing and so has no share to
//! even out: it has one turn in as many as there are streams.

use std::cmp::Ordering;
use std::time::Instant;

/// Turns of all streams after which one is next, however seldom it asks.
const PATIENCE: u64 = 8;
/// What the latest time between two windows counts for in the mean.
const LATEST: f64 = 0.125;
/// And how many times the mean at most: a pause is no rate.
const PAUSE: f64 = 8.0;
/// Seconds that the first interval counts for at most and at least, where there is no mean yet.
const FIRST: (f64, f64) = (1e-3, 10.0);

/// One stream's place.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    asked: Option<Instant>,
    /// Mean seconds between two windows; unknown before the second.
    period: Option<f64>,
    /// On the clock of [`Turns`].
    due: f64,
    /// Turns of all when it had its last, and when it began to wait.
    last: u64,
    began: u64,
    /// Its thread waits for the answer.
    waits: bool,
}

impl Turn {
    pub fn period(&self) -> Option<f64> {
        self.period
    }
}

/// How a stream asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// For its newest window, at this time; it does not wait.
    Newest(Instant),
    Waits,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Seconds, as slow as streams are served: when the one served last was due.
    time: f64,
    count: u64,
}

impl Turns {
    /// A stream asks; `idle`: nothing of it waits yet.
    pub fn ask(&self, turn: &mut Turn, ask: Ask, idle: bool) {
        turn.waits = matches!(ask, Ask::Waits);
        if let Ask::Newest(now) = ask
            && let Some(before) = turn.asked.replace(now)
        {
            let latest = now.saturating_duration_since(before).as_secs_f64();
            turn.period = Some(match turn.period {
                Some(mean) => mean + LATEST * (latest.min(PAUSE * mean) - mean),
                None => latest.clamp(FIRST.0, FIRST.1),
            });
        }
        if idle {
            // Time in which it asked for nothing is no credit.
            turn.due = turn.due.max(self.time);
            turn.began = self.count;
        }
    }

    /// Whether a stream counts among those that share the turns; `asks`: something of it waits. One that has
    /// not asked for long takes no turn from the others by being there.
    pub fn shares(&self, turn: &Turn, asks: bool, all: usize) -> bool {
        asks || turn.last > 0 && self.count - turn.last < PATIENCE * all as u64
    }

    fn is_overdue(&self, turn: &Turn, streams: usize) -> bool {
        let patience = if turn.waits { 1 } else { PATIENCE };
        self.count - turn.began.max(turn.last) + 1 >= patience * streams as u64
    }

    /// Who comes first, of two that wait among so many streams. Equal: whoever has the lower number.
    pub fn compare(&self, a: &Turn, b: &Turn, streams: usize) -> Ordering {
        let rank = |turn: &Turn| match self.is_overdue(turn, streams) {
            true => f64::NEG_INFINITY,
            false if turn.waits => f64::INFINITY,
            false => turn.due,
        };
        rank(a).total_cmp(&rank(b)).then(a.last.cmp(&b.last))
    }

    /// The stream that came first has its turn. `usual`: the mean time between windows of the streams where
    /// it is known.
    pub fn take(&mut self, turn: &mut Turn, usual: f64, streams: usize) {
        if !turn.waits && !self.is_overdue(turn, streams) {
            self.time = self.time.max(turn.due);
        }
        // Who was served before it was due does not pay for that twice.
        turn.due = turn.due.min(self.time) + turn.period.unwrap_or(usual);
        self.count += 1;
        (turn.last, turn.began) = (self.count, self.count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What a stream does, and what becomes of it. Times are seconds.
    #[derive(Clone, Default)]
    struct Sim {
        /// Between two windows; `None`: it asks again as soon as it is answered.
        period: Option<f64>,
        /// Its first window.
        from: f64,
        /// How far a window may come late, as a share of the period.
        jitter: f64,
        asked: usize,
        served: usize,
        longest: f64,
        next: f64,
        pending: Option<f64>,
        turn: Turn,
    }

    fn every(period: f64, from: f64) -> Sim {
        Sim { period: Some(period), from, ..Sim::default() }
    }

    fn waiting() -> Sim {
        Sim::default()
    }

    impl Sim {
        fn share(&self) -> f64 {
            self.served as f64 / self.asked as f64
        }
    }

    /// `rate` windows a second are served, for so many seconds.
    fn run(mut streams: Vec<Sim>, rate: f64, seconds: f64) -> Vec<Sim> {
        let (begun, mut turns, all) = (Instant::now(), Turns::default(), streams.len());
        let mut noise = 1u64;
        streams.iter_mut().for_each(|stream| stream.next = stream.from);
        let mut now = 0.0;
        while now < seconds {
            let due = |s: &Sim| s.next <= now;
            while let Some(s) = streams.iter_mut().filter(|s| due(s)).min_by(|a, b| a.next.total_cmp(&b.next))
            {
                let ask = match s.period {
                    Some(_) => Ask::Newest(begun + Duration::from_secs_f64(s.next)),
                    None => Ask::Waits,
                };
                turns.ask(&mut s.turn, ask, s.pending.is_none());
                s.pending = Some(s.next);
                s.asked += 1;
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let late = (noise >> 40) as f64 / (1u64 << 24) as f64 * s.jitter;
                let period = |period: f64| s.from + period * (s.asked as f64 + late);
                s.next = s.period.map_or(f64::MAX, period);
            }
            let shares = |s: &&Sim| turns.shares(&s.turn, s.pending.is_some(), all);
            let count = streams.iter().filter(shares).count();
            let known: Vec<f64> = streams.iter().filter(shares).filter_map(|s| s.turn.period()).collect();
            let usual = known.iter().sum::<f64>() / known.len().max(1) as f64;
            let pending = streams.iter_mut().filter(|s| s.pending.is_some());
            match pending.min_by(|a, b| turns.compare(&a.turn, &b.turn, count)) {
                Some(s) => {
                    turns.take(&mut s.turn, usual, count);
                    s.longest = s.longest.max(now - s.pending.take().unwrap());
                    s.served += 1;
                    now += 1.0 / rate;
                    if s.period.is_none() {
                        s.next = now;
                    }
                }
                None => now = streams.iter().map(|s| s.next).fold(f64::MAX, f64::min).max(now),
            }
        }
        streams
    }

    #[test]
    fn streams_of_equal_rates_are_served_alike() {
        for (jitter, rate) in [(0.0, 16.0), (0.0, 6.4), (0.0, 4.0), (0.5, 16.0), (0.5, 6.4), (0.9, 29.0)] {
            let stream = |i| Sim { jitter, ..every(0.5, 0.5 * f64::from(i) / 16.0) };
            let streams = run((0..16).map(stream).collect(), rate, 300.0);
            let served = || streams.iter().map(|s| s.served);
            let (least, most) = (served().min().unwrap(), served().max().unwrap());
            assert!(most as f64 / least as f64 <= 1.05, "jitter {jitter}, {rate}/s: {least} to {most}");
            // At most until its own next one, or a turn of all and the window in work.
            let longest = streams.iter().map(|s| s.longest).fold(0.0, f64::max);
            assert!(
                longest <= f64::max(0.5 * (1.0 + jitter), 18.0 / rate) + 1e-9,
                "jitter {jitter}, {rate}/s: waited {longest} s"
            );
        }
    }

    #[test]
    fn streams_of_unequal_rates_lose_the_same_share() {
        for rate in [2.5, 4.0, 6.0, 10.0] {
            for jitter in [0.0, 0.5] {
                let of = |period| Sim { jitter, ..every(period, 0.03) };
                let streams = run(vec![of(0.1), of(0.5)], rate, 600.0);
                let expected = rate / 12.0;
                for s in &streams {
                    assert!(
                        (s.share() / expected - 1.0).abs() < 0.05,
                        "{} of {expected}, jitter {jitter}",
                        s.share()
                    );
                    // What is served is never older than the stream's next one.
                    assert!(s.longest <= s.period.unwrap() * (1.0 + jitter) + 1e-9, "waited {} s", s.longest);
                }
            }
        }
        let mixed = (0..12).map(|i| every([0.1, 0.25, 0.5, 0.7][i % 4], 0.01 * i as f64)).collect();
        let streams = run(mixed, 20.0, 600.0);
        let shares: Vec<f64> = streams.iter().map(Sim::share).collect();
        let (least, most) =
            (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(0.0, f64::max));
        assert!(most / least <= 1.1, "{shares:?}");
    }

    #[test]
    fn where_everything_fits_nothing_is_lost() {
        let streams = run(vec![every(0.1, 0.0), every(0.5, 0.07), every(3.0, 0.02)], 20.0, 120.0);
        for s in &streams {
            assert!(s.asked - s.served <= 1, "{} of {}", s.served, s.asked);
            assert!(s.longest <= 0.16, "waited {} s", s.longest);
        }
    }

    #[test]
    fn however_seldom_a_stream_asks_its_turn_comes() {
        let mut streams: Vec<Sim> = (0..7).map(|i| every(0.01, 0.001 * f64::from(i))).collect();
        streams.push(every(30.0, 0.5));
        let streams = run(streams, 10.0, 600.0);
        let seldom = &streams[7];
        assert!(seldom.asked - seldom.served <= 1, "{} of {}", seldom.served, seldom.asked);
        assert!(seldom.longest <= 8.0 * 8.0 / 10.0 + 0.1, "waited {} s", seldom.longest);
    }

    #[test]
    fn a_burst_or_a_pause_is_not_paid_for_long() {
        // All 16 alike but one, which begins with a burst or comes back after a minute.
        let alike = |i| every(0.5, 0.5 * f64::from(i) / 16.0);
        let mut streams: Vec<Sim> = (0..16).map(alike).collect();
        streams[3].turn.period = Some(1e-6);
        streams[3].turn.asked = Some(Instant::now());
        streams[5].from = 60.0;
        let streams = run(streams, 16.0, 120.0);
        let others = streams[0].served;
        assert!(streams[3].served <= others + 12, "{} beside {others}", streams[3].served);
        let half = streams[5].served as f64 / (others as f64 / 2.0);
        assert!((0.85..1.15).contains(&half), "{} in half the time of {others}", streams[5].served);
    }

    #[test]
    fn a_stream_that_waits_for_its_answers_has_one_turn_of_all() {
        let mut streams: Vec<Sim> = (0..3).map(|i| every(0.1, 0.01 * f64::from(i))).collect();
        streams.push(waiting());
        let streams = run(streams, 12.0, 300.0);
        for s in &streams {
            assert!((850..=950).contains(&s.served), "{} of 3600", s.served);
        }
        let alone = run(vec![waiting(), waiting(), waiting()], 12.0, 300.0);
        assert!(alone.iter().all(|s| (1199..=1201).contains(&s.served)));
    }

    #[test]
    fn streams_that_never_ask_take_no_turns() {
        for idle in [0, 14, 100] {
            let mut streams = vec![every(0.05, 0.0), waiting()];
            streams.extend((0..idle).map(|_| every(1.0, 1e9)));
            let streams = run(streams, 10.0, 60.0);
            let (newest, waits) = (streams[0].served as f64, streams[1].served as f64);
            assert!((0.9..1.1).contains(&(newest / waits)), "{idle} idle: {newest} and {waits}");
        }
    }

    #[test]
    fn a_pause_after_the_first_window_is_no_rate() {
        let (turns, mut turn, begun) = (Turns::default(), Turn::default(), Instant::now());
        turns.ask(&mut turn, Ask::Newest(begun), true);
        turns.ask(&mut turn, Ask::Newest(begun + Duration::from_secs(600)), true);
        assert_eq!(turn.period(), Some(FIRST.1));
    }
}
