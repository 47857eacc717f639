//! The fast reduction: filter tables of one geometry, and the loops that use them.
//!
//! Four output lines at a time. Per plane, a vertical pass sums raw rows in 16-bit fixed point; the
//! four lines are interleaved as f32, so that the horizontal pass works on four lanes without a
//! reduction, and its sums go through the colour matrix at once. Only rows and columns that reach the
//! crop are read, and intermediates are four lines, whatever the picture's size. The loops are plain
//! safe code in shapes that LLVM vectorises for any target.
//!
//! Not `fast_image_resize`: it rounds to u8 between its passes and after each plane, which puts Y'CbCr
//! up to 3 levels off, has no filter for sited chroma, and takes no rows whose stride is not whole
//! pixels, nor 16-bit samples at odd addresses.

use std::ops::Range;

use super::Rule;
use super::convert::{Colour, round};
use super::filter::{Axis, Siting, Taps};
use super::layout::{Band, Channel, Depth, bands};
use super::tables::{Entry, Table};
use crate::image::{Image, ImageInfo, Plane, Rectangle};

/// Output lines in work together.
const LINES: usize = 4;

/// All tables of one picture description, roi and rule.
pub(super) struct Plan {
    /// Planes with the range of samples that is read of their rows.
    bands: Vec<(Band, Range<usize>)>,
    /// For planes at full and at half resolution.
    vertical: [Table; 2],
    horizontal: [Table; 2],
    columns: [[f32; 3]; 3],
    offset: [f32; 3],
    /// Output pixels and lines that the picture covers, of `size`.
    covered: (Range<usize>, Range<usize>),
    size: usize,
}

/// Line buffers, kept from picture to picture.
#[derive(Default)]
pub(super) struct Scratch {
    sums: [Vec<u16>; LINES],
    lines: Vec<[f32; LINES]>,
    /// Red, green, blue of each output pixel, of all lines.
    pixels: Vec<[[f32; LINES]; 3]>,
    levels: Vec<[[u8; LINES]; 3]>,
}

impl Plan {
    pub fn new(rule: &Rule, info: ImageInfo, roi: Rectangle) -> Self {
        let (horizontal, vertical) = Axis::pair(rule, roi);
        let halved = |taps: &[Taps], siting, length: u32| -> Vec<Taps> {
            let length = length.div_ceil(2) as usize;
            taps.iter().map(|t| t.subsampled(siting, length)).collect()
        };
        let (x, y) = (horizontal.taps(), vertical.taps());
        let half_x = halved(&x, Siting::Cosited, info.width);
        let half_y = halved(&y, Siting::Centred, info.height);
        let samples = |channel: &Channel| {
            let taps = if channel.halved { &half_x } else { &x };
            let start = taps.iter().map(|t| t.start).min()?;
            let last = taps.iter().map(|t| t.start + t.weights.len() - 1).max()?;
            Some(channel.offset + channel.step * start..channel.offset + channel.step * last + 1)
        };
        let with_samples = |band: Band| {
            let all = band.channels.iter().filter_map(samples);
            let union = all.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0);
            (band, union)
        };
        let colour = Colour::of(&info);
        Self {
            bands: bands(info.format).into_iter().map(with_samples).collect(),
            vertical: [Table::new(&y), Table::new(&half_y)],
            horizontal: [Table::new(&x), Table::new(&half_x)],
            columns: colour.columns.map(|column| column.map(|v| v as f32)),
            offset: colour.offset.map(|v| v as f32),
            covered: (horizontal.output, vertical.output),
            size: rule.size as usize,
        }
    }

    /// `image` has the description the plan was made for; `rgb` is S·S·3 bytes of black.
    pub fn run(&self, image: &Image<'_>, scratch: &mut Scratch, rgb: &mut [u8]) {
        let (columns, rows) = self.covered.clone();
        let stride = 3 * self.size;
        let (mut full, mut half) = (self.vertical[0].entries(), self.vertical[1].entries());
        scratch.levels.resize(columns.len(), Default::default());
        for out in rgb[stride * rows.start..stride * rows.end].chunks_mut(LINES * stride.max(1)) {
            let lines = out.len() / stride;
            let full: [Option<Entry<'_>>; LINES] = std::array::from_fn(|_| full.next());
            let half: [Option<Entry<'_>>; LINES] = std::array::from_fn(|_| half.next());
            scratch.pixels.clear();
            scratch.pixels.resize(columns.len(), self.offset.map(|v| [v; LINES]));
            for (band, samples) in &self.bands {
                let entries = if band.halved { &half } else { &full };
                vertical_pass(image.plane(band.plane), band.depth, samples, entries, scratch);
                for channel in &band.channels {
                    let start = channel.offset as isize - samples.start as isize;
                    let table = &self.horizontal[channel.halved as usize];
                    let column = &self.columns[channel.column];
                    let (lines, pixels) = (&scratch.lines, &mut scratch.pixels);
                    match channel.step {
                        1 => horizontal_pass::<1>(table, lines, start, column, pixels),
                        2 => horizontal_pass::<2>(table, lines, start, column, pixels),
                        3 => horizontal_pass::<3>(table, lines, start, column, pixels),
                        _ => horizontal_pass::<4>(table, lines, start, column, pixels),
                    }
                }
            }
            round(&scratch.pixels, &mut scratch.levels);
            for (l, out) in out.chunks_exact_mut(stride).enumerate().take(lines) {
                let out = out[3 * columns.start..3 * columns.end].as_chunks_mut::<3>().0;
                for (out, levels) in out.iter_mut().zip(&scratch.levels) {
                    *out = [levels[0][l], levels[1][l], levels[2][l]];
                }
            }
        }
    }
}

/// Four output lines at the plane's own width into `scratch.lines`. A line that is `None` is left.
fn vertical_pass(
    plane: Plane<'_>,
    depth: Depth,
    samples: &Range<usize>,
    entries: &[Option<Entry<'_>>; LINES],
    scratch: &mut Scratch,
) {
    // Room for the last pixel's whole step, and for a pair at an odd end.
    scratch.lines.resize(samples.len() + 4, [0.0; LINES]);
    let width = if matches!(depth, Depth::Bits8) { 1 } else { 2 };
    let bytes = width * samples.start..width * samples.end;
    let mut lost = [0.0; LINES];
    let pairs = bytes.len().div_ceil(2);
    for (l, entry) in entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let row = |i: usize| &plane.data[(entry.start + i) * plane.stride..][bytes.clone()];
        let sums = &mut scratch.sums[l];
        sums.clear();
        sums.resize(2 * pairs, 0);
        match (entry.fixed, depth) {
            (Some(weights), Depth::Bits8) => {
                let (even, odd) = sums.split_at_mut(pairs);
                sum(row, weights, first_byte, even);
                sum(row, weights, second_byte, odd);
            }
            (Some(weights), Depth::Low10) => sum(row, weights, low_10, &mut sums[..pairs]),
            (Some(weights), Depth::High10) => sum(row, weights, high_10, &mut sums[..pairs]),
            (None, Depth::Bits8) => {
                sum_float(row, entry.weights, |[s]| (s as u16) << 8, l, &mut scratch.lines)
            }
            (None, Depth::Low10) => sum_float(row, entry.weights, word(low_10), l, &mut scratch.lines),
            (None, Depth::High10) => sum_float(row, entry.weights, word(high_10), l, &mut scratch.lines),
        }
        lost[l] = 0.5 * entry.weights.len() as f32;
    }
    // All lines of a table are of one kind.
    if entries.iter().flatten().all(|entry| entry.fixed.is_some()) {
        match depth {
            Depth::Bits8 => interleave::<2>(&scratch.sums, pairs, lost, &mut scratch.lines),
            Depth::Low10 | Depth::High10 => interleave::<1>(&scratch.sums, pairs, lost, &mut scratch.lines),
        }
    }
}

/// The even samples of 8-bit rows taken two at a time, times 256.
fn first_byte(pair: u16) -> u16 {
    pair << 8
}

/// The odd ones, times 256.
fn second_byte(pair: u16) -> u16 {
    pair & 0xff00
}

/// A 10-bit code times 64; the unused bits may hold anything.
fn low_10(word: u16) -> u16 {
    word << 6
}

fn high_10(word: u16) -> u16 {
    word & 0xffc0
}

fn word(widen: impl Fn(u16) -> u16) -> impl Fn([u8; 2]) -> u16 {
    move |bytes| widen(u16::from_le_bytes(bytes))
}

/// `sums` = Σ weight × row over rows of byte pairs.
fn sum<'a>(
    row: impl Fn(usize) -> &'a [u8],
    weights: &[u16],
    widen: impl Fn(u16) -> u16 + Copy,
    sums: &mut [u16],
) {
    let (fours, rest) = weights.as_chunks::<4>();
    for (i, weights) in fours.iter().enumerate() {
        add([0, 1, 2, 3].map(|k| row(4 * i + k)), weights, widen, sums);
    }
    for (i, weight) in rest.iter().enumerate() {
        add([row(4 * fours.len() + i)], &[*weight], widen, sums);
    }
}

/// Adds N weighted rows. Weights sum to at most 2¹⁶, so the sums fit. Not inlined, and on 16-bit
/// words only: in this form LLVM multiplies eight 16-bit lanes at once, in others it widens to 32.
#[inline(never)]
fn add<const N: usize>(rows: [&[u8]; N], weights: &[u16; N], widen: impl Fn(u16) -> u16, sums: &mut [u16]) {
    let whole = rows[0].len() / 2;
    let pairs = rows.map(|row| &row.as_chunks::<2>().0[..whole]);
    let add = |mut sum: u16, pair: [[u8; 2]; N]| {
        for k in 0..N {
            let sample = widen(u16::from_le_bytes(pair[k])) as u32;
            sum = sum.wrapping_add(((sample * weights[k] as u32) >> 16) as u16);
        }
        sum
    };
    let (body, end) = sums.split_at_mut(whole);
    for (x, s) in body.iter_mut().enumerate() {
        *s = add(*s, std::array::from_fn(|k| pairs[k][x]));
    }
    // An odd end: half a pair.
    for s in end {
        *s = add(*s, rows.map(|row| [row[2 * whole], 0]));
    }
}

/// Line `l` of `lines` = Σ weight × row, in f32. For more rows than fixed point can hold.
fn sum_float<'a, const BYTES: usize>(
    row: impl Fn(usize) -> &'a [u8],
    weights: &[f32],
    widen: impl Fn([u8; BYTES]) -> u16,
    l: usize,
    lines: &mut [[f32; LINES]],
) {
    lines.iter_mut().for_each(|line| line[l] = 0.0);
    for (i, weight) in weights.iter().enumerate() {
        for (line, &sample) in lines.iter_mut().zip(row(i).as_chunks::<BYTES>().0) {
            line[l] += weight * widen(sample) as f32;
        }
    }
}

/// Sums to f32, plus what the cut products lost on average. Each line holds PHASES runs of `length`
/// sums, for every PHASES-th sample.
fn interleave<const PHASES: usize>(
    sums: &[Vec<u16>; LINES],
    length: usize,
    lost: [f32; LINES],
    lines: &mut [[f32; LINES]],
) {
    let lines = &mut lines.as_chunks_mut::<PHASES>().0[..length];
    // A line that does not exist has no sums; any other's stand in.
    let sums: [[&[u16]; PHASES]; LINES] = std::array::from_fn(|l| {
        let line = if sums[l].len() >= PHASES * length { &sums[l] } else { &sums[0] };
        std::array::from_fn(|phase| &line[phase * length..][..length])
    });
    for (x, lines) in lines.iter_mut().enumerate() {
        for phase in 0..PHASES {
            for l in 0..LINES {
                lines[phase][l] = sums[l][phase][x] as f32 + lost[l];
            }
        }
    }
}

/// Adds one channel's colour to each output pixel. Sample i of the channel is at `start + STEP·i`.
#[inline(never)]
fn horizontal_pass<const STEP: usize>(
    table: &Table,
    lines: &[[f32; LINES]],
    start: isize,
    column: &[f32; 3],
    pixels: &mut [[[f32; LINES]; 3]],
) {
    for (entry, pixel) in table.entries().zip(pixels) {
        let first = start + (STEP * entry.start) as isize;
        let samples = lines[first as usize..].as_chunks::<STEP>().0;
        let mut sum = [0.0; LINES];
        for (sample, weight) in samples.iter().zip(entry.weights) {
            for l in 0..LINES {
                sum[l] += sample[0][l] * weight;
            }
        }
        for (pixel, factor) in pixel.iter_mut().zip(column) {
            for l in 0..LINES {
                pixel[l] += sum[l] * factor;
            }
        }
    }
}
