//! Filled, anti-aliased shapes on a pixmap, in scene units.
//!
//! One unit is the height of the picture; x runs from -width/2 to width/2 (0 is the middle), y from 0 (top) to
//! 1. Curves are polygons from a fixed table: no trigonometry while drawing, and fast at small sizes.

use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Shader, Transform};

/// A point in scene units.
pub type Point = [f32; 2];
/// sRGB, 0..=255.
pub type Rgb = [f32; 3];

/// Half circle from -90° to 90° in 8 steps: (cos, sin).
const ARC: [Point; 9] = [
    [0.0, -1.0],
    [0.382_683_43, -0.923_879_5],
    [0.707_106_77, -0.707_106_77],
    [0.923_879_5, -0.382_683_43],
    [1.0, 0.0],
    [0.923_879_5, 0.382_683_43],
    [0.707_106_77, 0.707_106_77],
    [0.382_683_43, 0.923_879_5],
    [0.0, 1.0],
];

/// A pixmap and where the scene lies on it.
pub struct Canvas {
    pub pixmap: Pixmap,
    /// Pixels per unit.
    scale: f32,
    /// Pixel of the scene's point (0, 0).
    origin: Point,
    spare: Option<PathBuilder>,
}

impl Canvas {
    /// `margin` in pixels is drawn beyond each edge of the picture of `width` × `height` pixels.
    pub fn new(width: u32, height: u32, margin: u32) -> Self {
        let pixmap = Pixmap::new((width + 2 * margin).max(1), (height + 2 * margin).max(1))
            .expect("a picture size is checked by the caller to fit in memory");
        Self {
            pixmap,
            scale: height as f32,
            origin: [width as f32 / 2.0 + margin as f32, margin as f32],
            spare: None,
        }
    }

    /// Moves the scene by `shift` units, as a shaking camera does.
    pub fn shift_to(&mut self, width: u32, shift: Point) {
        self.origin = [width as f32 / 2.0 + shift[0] * self.scale, shift[1] * self.scale];
    }

    fn place(&self, [x, y]: Point) -> Point {
        [self.origin[0] + x * self.scale, self.origin[1] + y * self.scale]
    }

    fn builder(&mut self) -> PathBuilder {
        self.spare.take().unwrap_or_default()
    }

    fn fill(&mut self, builder: PathBuilder, colour: Rgb) {
        // A path without area (a shape off the float range) is not drawn.
        let Some(path) = builder.finish() else { return };
        self.fill_path(&path, colour);
        self.spare = Some(path.clear());
    }

    fn fill_path(&mut self, path: &Path, colour: Rgb) {
        let paint = Paint { shader: Shader::SolidColor(solid(colour)), anti_alias: true, ..Paint::default() };
        self.pixmap.fill_path(path, &paint, FillRule::Winding, Transform::identity(), None);
    }

    /// A line with round ends through `points`, `widths[i]` wide between point i and i+1.
    pub fn limb(&mut self, points: &[Point], widths: &[f32], colour: Rgb) {
        let mut path = self.builder();
        for (ends, width) in points.windows(2).zip(widths) {
            self.capsule(&mut path, ends[0], ends[1], *width);
        }
        self.fill(path, colour);
    }

    pub fn line(&mut self, a: Point, b: Point, width: f32, colour: Rgb) {
        self.limb(&[a, b], &[width], colour);
    }

    /// Several lines of one colour.
    pub fn lines(&mut self, lines: impl IntoIterator<Item = (Point, Point)>, width: f32, colour: Rgb) {
        let mut path = self.builder();
        for (a, b) in lines {
            self.capsule(&mut path, a, b, width);
        }
        self.fill(path, colour);
    }

    fn capsule(&self, path: &mut PathBuilder, a: Point, b: Point, width: f32) {
        let (a, b) = (self.place(a), self.place(b));
        // Thinner than a pixel would fade; keep at least one.
        let radius = (width * self.scale).max(1.0) / 2.0;
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = (dx * dx + dy * dy).sqrt();
        let (ux, uy) =
            if length > 1e-3 { (dx / length * radius, dy / length * radius) } else { (radius, 0.0) };
        let mut first = true;
        for (centre, sign) in [(b, 1.0), (a, -1.0)] {
            for [c, s] in ARC {
                let (c, s) = (c * sign, s * sign);
                let (x, y) = (centre[0] + ux * c - uy * s, centre[1] + uy * c + ux * s);
                if first {
                    path.move_to(x, y)
                } else {
                    path.line_to(x, y)
                }
                first = false;
            }
        }
        path.close();
    }

    pub fn disc(&mut self, centre: Point, radius: f32, colour: Rgb) {
        let mut path = self.builder();
        let [x, y] = self.place(centre);
        let radius = (radius * self.scale).max(0.5);
        for (i, sign) in [1.0, -1.0].into_iter().enumerate() {
            // Each arc gives up its last point, which the other begins with.
            for (j, [c, s]) in ARC[..8].iter().enumerate() {
                let (px, py) = (x + c * sign * radius, y + s * sign * radius);
                if i + j == 0 { path.move_to(px, py) } else { path.line_to(px, py) }
            }
        }
        path.close();
        self.fill(path, colour);
    }

    /// A rectangle from its upper left corner.
    pub fn rectangle(&mut self, corner: Point, size: Point, colour: Rgb) {
        let mut path = self.builder();
        let (a, b) = (self.place(corner), self.place([corner[0] + size[0], corner[1] + size[1]]));
        path.move_to(a[0], a[1]);
        path.line_to(b[0], a[1]);
        path.line_to(b[0], b[1]);
        path.line_to(a[0], b[1]);
        path.close();
        self.fill(path, colour);
    }
}

fn solid(colour: Rgb) -> Color {
    let byte = |v: f32| v.clamp(0.0, 255.0) as u8;
    Color::from_rgba8(byte(colour[0]), byte(colour[1]), byte(colour[2]), 255)
}

/// `colour` with its light multiplied by `factor`.
pub fn shade(colour: Rgb, factor: f32) -> Rgb {
    colour.map(|v| (v * factor).clamp(0.0, 255.0))
}
