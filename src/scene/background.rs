//! What is behind the people: from a plain gradient to textures and clutter.

use super::canvas::{Canvas, Rgb, shade};
use super::random::Random;

/// How much goes on behind the people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// A gradient, perhaps with a floor; steady camera and light.
    #[default]
    Plain,
    /// Textures, objects, something that moves; noise, shaking, changing light, night, things in front of people.
    Busy,
    /// Like busy, on a family of backgrounds that no training clip has: for evaluation only.
    Unseen,
}

impl Look {
    pub fn parse(name: &str) -> Option<Look> {
        match name.trim() {
            "plain" => Some(Look::Plain),
            "busy" => Some(Look::Busy),
            "unseen" => Some(Look::Unseen),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Look::Plain => "plain",
            Look::Busy => "busy",
            Look::Unseen => "unseen",
        }
    }
}

/// Paints the whole pixmap of `canvas`, which covers `width` × `height` pixels and `margin` beyond each edge.
/// `ground` is where people stand, in scene units.
pub fn paint(canvas: &mut Canvas, margin: u32, random: &mut Random, look: Look, ground: f32) {
    let grey = random.between(40.0, 220.0) * 0.4;
    let from: Rgb = std::array::from_fn(|_| random.between(40.0, 220.0) * 0.6 + grey);
    let to: Rgb = from.map(|v| v + 35.0 * random.normal());
    let vertical = random.chance(0.6);
    let texture = match look {
        Look::Plain => None,
        Look::Busy => random.chance(0.75).then(|| Texture::new(random)),
        Look::Unseen => Some(Texture::checks(random)),
    };
    let floor = random.chance(0.5).then(|| {
        let light = random.between(0.5, 1.3);
        from.map(|v| v * light)
    });
    let horizon = ground - 0.04;

    let (width, height) = (canvas.pixmap.width(), canvas.pixmap.height());
    let unit = 1.0 / (height - 2 * margin) as f32;
    let bytes = canvas.pixmap.data_mut();
    for (row, line) in bytes.chunks_exact_mut(width as usize * 4).enumerate() {
        let y = (row as f32 - margin as f32 + 0.5) * unit;
        for (column, pixel) in line.chunks_exact_mut(4).enumerate() {
            let x = (column as f32 + 0.5 - width as f32 / 2.0) * unit;
            let u = if vertical { y } else { x + 0.5 };
            let spot = texture.as_ref().map_or([0.0; 3], |texture| texture.at(x, y));
            for c in 0..3 {
                let mut v = from[c] + (to[c] - from[c]) * u + spot[c];
                if let Some(floor) = floor
                    && y > horizon
                {
                    v = 0.4 * v + 0.6 * floor[c];
                }
                pixel[c] = v.clamp(0.0, 255.0) as u8;
            }
            pixel[3] = 255;
        }
    }
    if look != Look::Plain {
        clutter(canvas, random);
    }
}

/// Boxes, discs and lines that stand still.
fn clutter(canvas: &mut Canvas, random: &mut Random) {
    for _ in 0..random.below(5) {
        let (x, y) = (random.between(-0.6, 0.6), random.unit());
        let (w, h) = (random.between(0.04, 0.3), random.between(0.04, 0.3));
        let colour = std::array::from_fn(|_| random.between(30.0, 230.0));
        match random.unit() {
            u if u < 0.6 => canvas.rectangle([x, y], [w, h], colour),
            u if u < 0.8 => canvas.disc([x, y], w / 3.0, colour),
            _ => canvas.line([x, y], [x + w, y + h], random.between(0.005, 0.03), shade(colour, 0.9)),
        }
    }
}

/// Brightness that varies over the plane, added to the gradient.
enum Texture {
    /// Smooth blobs: random values on a grid of `cells` per unit, one or three channels.
    Blobs {
        seed: u64,
        cells: f32,
        strength: f32,
        coloured: bool,
    },
    /// Stripes across (`dx`, `dy`), so many per unit.
    Stripes {
        dx: f32,
        dy: f32,
        strength: f32,
    },
    Bricks {
        seed: u64,
        width: f32,
        height: f32,
    },
    /// A turned chessboard, cells (`dx`, `dy`) apart along one side: the family that training never sees.
    Checks {
        dx: f32,
        dy: f32,
        strength: f32,
    },
}

impl Texture {
    fn new(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Texture::Blobs {
                seed: random.bits(),
                cells: random.between(3.0, 14.0),
                strength: random.between(8.0, 26.0),
                coloured: random.chance(0.3),
            },
            1 => {
                let angle = random.between(0.0, std::f32::consts::PI);
                let count = random.between(6.0, 32.0);
                Texture::Stripes {
                    dx: libm::cosf(angle) * count,
                    dy: libm::sinf(angle) * count,
                    strength: random.between(3.0, 14.0),
                }
            }
            2 => Texture::Bricks {
                seed: random.bits(),
                width: random.between(0.07, 0.2),
                height: random.between(0.04, 0.12),
            },
            // Grain: blobs as small as a pixel of the smallest pictures.
            _ => Texture::Blobs {
                seed: random.bits(),
                cells: random.between(40.0, 96.0),
                strength: random.between(3.0, 12.0),
                coloured: false,
            },
        }
    }

    fn checks(random: &mut Random) -> Self {
        let angle = random.between(0.0, std::f32::consts::PI);
        let count = random.between(4.0, 14.0);
        Texture::Checks {
            dx: libm::cosf(angle) * count,
            dy: libm::sinf(angle) * count,
            strength: random.between(6.0, 20.0),
        }
    }

    fn at(&self, x: f32, y: f32) -> Rgb {
        match *self {
            Texture::Blobs { seed, cells, strength, coloured } => {
                // Far enough from zero that cells never change sign.
                let (x, y) = (x * cells + 512.0, y * cells + 512.0);
                let (column, row) = (x as u32, y as u32);
                let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
                let (u, v) = (smooth(x - column as f32), smooth(y - row as f32));
                let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, j)| hash(seed, column + i, row + j));
                let weights = [(1.0 - u) * (1.0 - v), u * (1.0 - v), (1.0 - u) * v, u * v];
                let channel = |shift: u32| {
                    let mut sum = 0.0;
                    for (corner, weight) in corners.iter().zip(weights) {
                        sum += ((corner >> shift) & 0xff) as f32 * weight;
                    }
                    (sum - 127.5) / 74.0 * strength
                };
                if coloured { [channel(0), channel(8), channel(16)] } else { [channel(0); 3] }
            }
            Texture::Stripes { dx, dy, strength } => {
                let t = x * dx + y * dy;
                let wave = 4.0 * (t - t.floor() - 0.5).abs() - 1.0;
                [wave * strength; 3]
            }
            Texture::Checks { dx, dy, strength } => {
                let odd = ((x * dx + y * dy).floor() + (x * dy - y * dx).floor()) as i32 & 1;
                [if odd == 1 { strength } else { -strength }; 3]
            }
            Texture::Bricks { seed, width, height } => {
                let row = (y / height + 64.0) as u32;
                let column = (x / width + 64.0 + 0.5 * (row % 2) as f32) as u32;
                let bits = hash(seed, column, row);
                [0, 8, 16].map(|shift| (((bits >> shift) & 0xff) as f32 - 127.5) / 74.0 * 8.0)
            }
        }
    }
}

fn hash(seed: u64, x: u32, y: u32) -> u32 {
    let mut z = seed ^ ((u64::from(x) << 32) | u64::from(y));
    z = (z ^ (z >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z >> 32) as u32
}
