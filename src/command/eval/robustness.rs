//! How much is left of the clip level when pictures get worse, and what each precision and device costs.

use std::time::Instant;

use super::Eval;
use super::clips::{Tally, tally};
use super::judge::Judge;
use crate::backend::{Device, Precision};
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};
use crate::scene::{ClipOptions, Company, Random, clip};

/// Seeds of their own, away from the other figures'.
const OFFSET: u64 = 70_000_000;

const DEVICES: [Device; 2] = [Device::Cpu, Device::Cuda(0)];
/// No device has all of them.
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// Points of top-1 that int8 may lose against f32.
const LOSS: f64 = 0.5;

/// What happens to the pictures, S × S × 3 bytes each.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    None,
    /// All values times this.
    Light(f32),
    /// A grey square over this share of every picture, at one place in each clip.
    Covered(f32),
    /// As few pixels as this on a side.
    Coarse(usize),
}

const HARMS: [Harm; 13] = [
    Harm::None,
    Harm::Light(0.15),
    Harm::Light(0.3),
    Harm::Light(0.6),
    Harm::Light(1.5),
    Harm::Light(2.5),
    Harm::Covered(0.05),
    Harm::Covered(0.1),
    Harm::Covered(0.2),
    Harm::Covered(0.35),
    Harm::Coarse(48),
    Harm::Coarse(32),
    Harm::Coarse(24),
];

impl Harm {
    fn name(self) -> String {
        match self {
            Harm::None => "as they are".into(),
            Harm::Light(factor) => format!("light × {factor}"),
            Harm::Covered(share) => format!("{:.0} % of the picture covered", share * 100.0),
            Harm::Coarse(side) => format!("{side} × {side} pixels, enlarged"),
        }
    }

    /// `frames` of `size`; `seed` places what covers.
    fn apply(self, frames: &mut [u8], size: usize, seed: u64) {
        let place = |x: usize, y: usize| 3 * (y * size + x);
        match self {
            Harm::None => {}
            Harm::Light(factor) => {
                frames.iter_mut().for_each(|value| *value = (f32::from(*value) * factor).min(255.0) as u8);
            }
            Harm::Covered(share) => {
                let side = ((share.sqrt() * size as f32).round() as usize).min(size);
                let mut random = Random::fork(seed, 41);
                let (left, top) = (random.below(size - side + 1), random.below(size - side + 1));
                for frame in frames.chunks_exact_mut(3 * size * size) {
                    for y in top..top + side {
                        frame[place(left, y)..place(left, y) + 3 * side].fill(128);
                    }
                }
            }
            Harm::Coarse(side) => {
                for frame in frames.chunks_exact_mut(3 * size * size) {
                    let small = shrunk(frame, size, side);
                    for (at, value) in frame.iter_mut().enumerate() {
                        let (x, y) = (at / 3 % size, at / 3 / size);
                        *value = small[3 * (y * side / size * side + x * side / size) + at % 3];
                    }
                }
            }
        }
    }
}

/// A picture as the means of `side` × `side` blocks.
fn shrunk(frame: &[u8], size: usize, side: usize) -> Vec<u8> {
    let mut sums = vec![(0u32, 0u32); 3 * side * side];
    for (at, &value) in frame.iter().enumerate() {
        let (x, y) = (at / 3 % size, at / 3 / size);
        let sum = &mut sums[3 * (y * side / size * side + x * side / size) + at % 3];
        *sum = (sum.0 + u32::from(value), sum.1 + 1);
    }
    sums.into_iter().map(|(sum, count)| (sum / count.max(1)) as u8).collect()
}

/// Prints a table of worse pictures, and one of precisions and devices; both of the whole world.
pub fn measure(judge: &mut Judge, arguments: &Eval) -> Result<(), CommandError> {
    let count = arguments.clips.div_ceil(2);
    let first = arguments.seed.wrapping_add(OFFSET);
    let options = ClipOptions { hardness: 1.0, company: Company::Never, ..judge.options() };
    let size = options.size as usize;
    let mut table = Table::new(columns("pictures"));
    for harm in HARMS {
        let spoil = |frames: &mut [u8], number| harm.apply(frames, size, number);
        let tally = tally(judge, first, count, &options, spoil)?;
        table.row(row(harm.name(), &tally, "".into()));
    }
    say!("\nworse pictures, whole world, one person, {count} clips each");
    say!("{table}");

    let mut table = Table::new(columns("device and precision"));
    let mut missing = Vec::new();
    let (mut exact, mut rounded) = (None, None);
    for device in DEVICES {
        let mut fault = None;
        let mut opened = 0;
        for precision in PRECISIONS {
            let mut judge = match Judge::on(&arguments.model, device, precision, arguments.threads) {
                Ok(judge) => judge,
                Err(error) => {
                    fault = Some(error);
                    continue;
                }
            };
            opened += 1;
            let tally = tally(&mut judge, first, count, &options, |_, _| ())?;
            match (device, precision) {
                (Device::Cpu, Precision::F32) => exact = Some(tally.top1()),
                (Device::Cpu, Precision::Int8) => rounded = Some(tally.top1()),
                _ => {}
            }
            let time = format!("{:.1}", milliseconds(&mut judge, &options)?);
            table.row(row(format!("{device}, {precision}"), &tally, time));
        }
        missing.extend(fault.filter(|_| opened == 0).map(|error| format!("without {device}: {error}")));
    }
    say!("the same clips in every precision and on every device of this machine");
    say!("{table}");
    if let (Some(exact), Some(rounded)) = (exact, rounded) {
        let lost = 100.0 * (exact - rounded);
        let verdict = if lost <= LOSS { "met" } else { "MISSES" };
        say!("int8 on the cpu loses {lost:.2} points of top-1 against f32 (bar: at most {LOSS}: {verdict})");
    }
    for line in missing {
        say!("{line}");
    }
    Ok(())
}

fn columns(what: &str) -> [(&str, Align); 6] {
    [
        (what, Align::Left),
        ("top-1", Align::Right),
        ("present over 0.6", Align::Right),
        ("absent under 0.4", Align::Right),
        ("calibration error", Align::Right),
        ("ms a window of new frames", Align::Right),
    ]
}

fn row(name: String, tally: &Tally, time: String) -> [String; 6] {
    let (present, absent) = tally.passed();
    let numbers = [tally.top1(), present, absent, tally.calibration_error()];
    let [top1, present, absent, error] = numbers.map(|number| format!("{number:.3}"));
    [name, top1, present, absent, error, time]
}

/// Median time from T frames to what the text side sees.
fn milliseconds(judge: &mut Judge, options: &ClipOptions) -> Result<f64, CommandError> {
    let frames = clip(OFFSET, options).frames;
    let mut times = Vec::new();
    for _ in 0..15 {
        let begun = Instant::now();
        judge.watch(&frames)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harms_change_the_pictures_as_they_say() {
        let size = 8;
        let frames: Vec<u8> = (0..2 * 3 * size * size).map(|at| (at % 200) as u8).collect();
        let harmed = |harm: Harm| {
            let mut frames = frames.clone();
            harm.apply(&mut frames, size, 3);
            frames
        };
        assert_eq!(harmed(Harm::None), frames);
        assert_eq!(harmed(Harm::Light(2.0))[150], 255);
        assert_eq!(harmed(Harm::Light(0.5))[100], 50);
        let covered = harmed(Harm::Covered(0.25));
        let grey = covered.iter().zip(&frames).filter(|(now, before)| **now == 128 && now != before).count();
        assert!((90..=2 * 3 * 16).contains(&grey), "{grey} of two frames' quarters");
        let coarse = harmed(Harm::Coarse(4));
        assert_eq!(coarse[0], coarse[3], "two pixels of one block");
        assert_ne!(coarse[0], coarse[6]);
        assert_eq!(harmed(Harm::Coarse(8)), frames, "as many pixels as before");
    }
}
