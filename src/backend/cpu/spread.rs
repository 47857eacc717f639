//! How the frames of a window go round the threads.
//!
//! Where they go round evenly every thread takes its own frames through a whole block: what one core
//! writes no other has to fetch, which costs a fifth where the cores lie apart, and messages are all that
//! threads wait for each other for. Else all threads share every product of a group of frames.

use std::ops::Range;
use std::sync::Mutex;

use super::block::Scratch;
use super::gemm::Cpu;

/// Rows of the residual stream, about, that pass a block together on all threads: enough to hide the
/// weights' way from memory, few enough that the MLP's hidden rows stay in the cache.
const GROUP_ROWS: usize = 512;
/// The same for one thread by itself, at least a frame: with more, a slow core holds the others up for
/// longer; with fewer, the weights come from the third-level cache more often.
const OWN_ROWS: usize = 96;

/// Working memory of threads that take frames by themselves, while none uses it.
pub(super) type Spare = Mutex<Vec<Scratch>>;

/// Runs `step` on ranges of frames of `tokens` rows; every frame is in exactly one of them.
pub(super) fn spread(
    cpu: &Cpu,
    scratch: &mut Scratch,
    spare: &Spare,
    tokens: usize,
    frames: usize,
    step: impl Fn(&Cpu, &mut Scratch, Range<usize>) + Sync,
) {
    let Some(share) = share(tokens, cpu.pool.threads(), frames) else {
        let group = (GROUP_ROWS / tokens).max(1);
        for first in (0..frames).step_by(group) {
            step(cpu, scratch, first..(first + group).min(frames));
        }
        return;
    };
    let spare = || spare.lock().unwrap_or_else(|e| e.into_inner());
    cpu.pool.run(frames.div_ceil(share), |i| {
        let mut own = spare().pop().unwrap_or_default();
        step(cpu.alone(), &mut own, i * share..((i + 1) * share).min(frames));
        spare().push(own);
    });
}

/// Frames that a thread takes at a time, if that loses no more than a quarter of the threads' time and
/// leaves a second turn, which goes to whoever is done first: a core that others use takes fewer.
fn share(tokens: usize, threads: usize, frames: usize) -> Option<usize> {
    let most = OWN_ROWS.div_ceil(tokens).min(frames.div_ceil(threads)).max(1);
    let turns = |share: usize| frames.div_ceil(share).div_ceil(threads);
    let time = |share: &usize| share * turns(*share);
    let shares = (1..=most).rev().filter(|share| threads == 1 || turns(*share) > 1);
    shares.min_by_key(time).filter(|share| 4 * frames >= 3 * time(share) * threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::isa::Isa;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_take_their_own_frames_only_where_little_time_is_lost() {
        for (tokens, threads, frames, expected) in [
            (50, 2, 8, Some(2)),
            (197, 2, 8, Some(1)),
            (50, 1, 8, Some(2)),
            (50, 4, 8, Some(1)),
            (50, 4, 12, Some(1)),
            (50, 2, 1, None),
            (50, 8, 8, None),
            (50, 12, 8, None),
        ] {
            assert_eq!(share(tokens, threads, frames), expected, "{tokens} {threads} {frames}");
        }
        for tokens in [1, 17, 50, 197, 577] {
            for (threads, frames) in (1..=33).flat_map(|threads| (0..=64).map(move |f| (threads, f))) {
                let Some(share) = share(tokens, threads, frames) else { continue };
                let time = share * frames.div_ceil(share).div_ceil(threads);
                assert!(3 * time * threads <= 4 * frames, "{tokens} {threads} {frames}: {share}");
            }
        }
    }

    #[test]
    fn every_frame_is_in_one_range_also_after_a_panic() {
        for threads in [1, 2, 3, 7] {
            let cpu = Cpu::new(Isa::best(), threads);
            let (mut scratch, spare) = (Scratch::default(), Spare::default());
            for frames in [0, 1, 2, 8, 13, 32] {
                let all = |scratch: &mut Scratch| {
                    let seen: Vec<AtomicUsize> = (0..frames).map(|_| AtomicUsize::new(0)).collect();
                    spread(&cpu, scratch, &spare, 50, frames, |_, _, range| {
                        range.for_each(|t| {
                            seen[t].fetch_add(1, Ordering::Relaxed);
                        });
                    });
                    assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {frames}");
                };
                all(&mut scratch);
                for bad in 0..frames {
                    let broken = catch_unwind(AssertUnwindSafe(|| {
                        spread(&cpu, &mut scratch, &spare, 50, frames, |_, _, range| {
                            assert!(!range.contains(&bad), "as meant");
                        });
                    }));
                    assert!(broken.is_err());
                }
                all(&mut scratch);
            }
        }
    }
}
