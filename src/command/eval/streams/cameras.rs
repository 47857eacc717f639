//! The whole world's streams from better and worse cameras: one property changed at a time.

use indicatif::ProgressBar;

use super::stream::{Camera, Stream, WHOLE};
use super::{play, print};
use crate::command::eval::Eval;
use crate::command::figures::Figures;
use crate::command::{CommandError, say};

const RESOLUTIONS: [[i32; 2]; 4] = [[160, 90], [320, 180], [1280, 720], [1920, 1080]];
const FRAME_RATES: [i32; 5] = [2, 4, 6, 25, 30];
const BITRATES: [u32; 5] = [50, 100, 200, 1000, 4000];

fn cameras() -> Vec<(String, Camera)> {
    let usual = Camera::default();
    let [width, height] = usual.picture;
    let resolution = |picture: [i32; 2]| {
        let [w, h] = picture;
        // As much for a pixel: a larger picture at the same bitrate would be a worse one.
        let bitrate =
            (i64::from(usual.bitrate) * i64::from(w * h) / i64::from(width * height)).max(32) as u32;
        (format!("{w}×{h}, {bitrate} kbit/s"), Camera { picture, bitrate, ..usual })
    };
    let rate = |rate: i32| {
        let bitrate = (usual.bitrate * rate.unsigned_abs() / usual.frames_per_second.unsigned_abs()).max(32);
        (format!("{rate} pictures/s, {bitrate} kbit/s"), Camera { frames_per_second: rate, bitrate, ..usual })
    };
    let bits = |bitrate: u32| (format!("{bitrate} kbit/s"), Camera { bitrate, ..usual });
    let mut all = vec![("as above".to_string(), usual)];
    all.extend(RESOLUTIONS.map(resolution));
    all.extend(FRAME_RATES.map(rate));
    all.extend(BITRATES.map(bits));
    all
}

/// Prints a row for each camera.
pub fn measure(arguments: &Eval) -> Result<(), CommandError> {
    let (cameras, count) = (cameras(), u64::from(arguments.streams.div_ceil(4)));
    let bar = ProgressBar::new(count * cameras.len() as u64);
    let mut rows = Vec::new();
    for (name, camera) in &cameras {
        let mut sum = Figures::default();
        for number in 0..count {
            let stream = Stream::new(WHOLE, u64::from(arguments.skip_streams) + number, arguments.seconds);
            let recording = play(arguments, &stream, camera)?;
            sum.add(&Figures::of(&stream.truth(true), &recording.events, stream.seconds()));
            bar.inc(1);
        }
        rows.push((name, sum));
    }
    bar.finish_and_clear();
    say!("\nthe first {count} streams of the whole world from other cameras");
    print(rows.iter().map(|(name, figures)| (name.as_str(), figures)))
}
