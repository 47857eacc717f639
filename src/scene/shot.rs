//! One camera position: what is behind the people, what is in front of them, and the lens.
//!
//! A script with cuts has several shots; only the one being shown is kept.

use std::time::Duration;

use super::background::{self, Look};
use super::canvas::{Canvas, Rgb};
use super::lens::Lens;
use super::motion::Travel;
use super::random::Random;

/// Everything of a picture that is not people.
pub struct Shot {
    /// Position in the script, from 0.
    pub number: usize,
    pub lens: Lens,
    backdrop: Canvas,
    /// Pixels of backdrop beyond each edge, so that a shaking camera sees no border.
    margin: u32,
    intruder: Option<Intruder>,
    occluder: Option<Occluder>,
}

/// A disc that drifts through busy scenes and means nothing.
struct Intruder {
    travel: Travel,
    y: f32,
    radius: f32,
    colour: Rgb,
}

/// Something between camera and people: a rectangle in scene units.
struct Occluder {
    corner: [f32; 2],
    size: [f32; 2],
    colour: Rgb,
}

impl Shot {
    /// The `number`th shot of the script of `seed`; people stand at `ground` in picture heights.
    pub fn new(seed: u64, number: usize, look: Look, ground: f32, [width, height]: [u32; 2]) -> Shot {
        let stream = if number == 0 { 900_001 } else { 910_000 + number as u64 };
        let mut random = Random::fork(seed, stream);
        let busy = look != Look::Plain;
        let lens = Lens::new(&mut random, look);
        let margin = if busy { 1 + height / 20 } else { 0 };
        let intruder = (busy && random.chance(0.3)).then(|| Intruder {
            travel: Travel::new(random.between(-0.5, 0.5), random.sign(), random.between(0.02, 0.25), 0.7),
            y: random.unit(),
            radius: random.between(0.015, 0.045),
            colour: std::array::from_fn(|_| random.between(30.0, 230.0)),
        });
        let mut backdrop = Canvas::new(width, height, margin);
        background::paint(&mut backdrop, margin, &mut random, look, ground);
        let occluder = (busy && random.chance(0.25)).then(|| Occluder::new(&mut random, ground));
        Shot { number, lens, backdrop, margin, intruder, occluder }
    }

    /// How far the shaking camera is off, in whole pixels: the backdrop moves by those, and so must the people.
    pub fn shake(&self, random: &mut Random, height: u32) -> [f32; 2] {
        let limit = self.margin as f32;
        [0, 1]
            .map(|_| (self.lens.shake * height as f32 * random.normal()).clamp(-limit, limit))
            .map(|v| (v + 1000.5).floor() - 1000.0)
    }

    /// Paints what is behind the people onto `canvas`, `width` pixels wide.
    pub fn paint_behind(&self, canvas: &mut Canvas, width: u32, shake: [f32; 2], time: Duration) {
        let from = self.backdrop.pixmap.width() as usize * 4;
        let to = width as usize * 4;
        let left = (self.margin as i64 - shake[0] as i64) as usize * 4;
        let top = (self.margin as i64 - shake[1] as i64) as usize;
        let source = self.backdrop.pixmap.data().chunks_exact(from).skip(top);
        for (row, line) in canvas.pixmap.data_mut().chunks_exact_mut(to).zip(source) {
            row.copy_from_slice(&line[left..left + to]);
        }
        if let Some(intruder) = &self.intruder {
            let (x, _) = intruder.travel.at(time.as_secs_f32());
            canvas.disc([x, intruder.y], intruder.radius, intruder.colour);
        }
    }

    /// Paints what stands in front of the people.
    pub fn paint_before(&self, canvas: &mut Canvas) {
        if let Some(Occluder { corner, size, colour }) = &self.occluder {
            canvas.rectangle(*corner, *size, *colour);
        }
    }
}

impl Occluder {
    /// A post that hides whoever passes, a low wall that hides feet and shins, or a crate.
    fn new(random: &mut Random, ground: f32) -> Self {
        let colour = std::array::from_fn(|_| random.between(40.0, 200.0));
        let (corner, size) = match random.unit() {
            u if u < 0.4 => {
                let top = random.between(-0.4, 0.3);
                ([random.between(-0.4, 0.35), top], [random.between(0.04, 0.1), 2.0])
            }
            u if u < 0.7 => ([-2.0, ground - random.between(0.03, 0.14)], [4.0, 2.0]),
            _ => {
                let (w, h) = (random.between(0.1, 0.22), random.between(0.1, 0.24));
                ([random.between(-0.4, 0.3), ground + 0.03 - h], [w, h + 0.03])
            }
        };
        Self { corner, size, colour }
    }
}
