//! The panel: open events, and if wanted a table of scores, as one picture with transparency.
//!
//! Sizes follow from the font size (em), so the panel looks the same from 320×240 to 4K.

use tiny_skia::{Color, FillRule, Paint, PathBuilder, Pixmap, Rect, Transform};

use super::Position;
use super::text::Typeface;

/// What is to be seen. Equal contents look equal, so the picture is made again only when this changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Open events, oldest first.
    pub events: Vec<EventLine>,
    /// Labels and their scores, best first.
    pub scores: Vec<(String, Percent)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    pub label: String,
    pub score: Percent,
    /// Whole seconds since the event's start.
    pub seconds: u64,
}

/// A probability in whole percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

/// Where and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of the video, pixels.
    pub width: u32,
    pub height: u32,
    /// em in pixels; 0: by the picture's size.
    pub font_size: u32,
    pub position: Position,
}

/// A piece of picture with premultiplied alpha and its place in the video.
pub struct Panel {
    /// Multiples of 8 and 4: whole chroma samples in every subsampled format, so that blending leaves
    /// the pixels beside the panel as they were.
    pub x: u32,
    pub y: u32,
    pub pixels: Pixmap,
}

const BACKGROUND: [u8; 4] = [13, 17, 23, 184];
const TEXT: [u8; 3] = [255, 255, 255];
const FAINT: [u8; 3] = [201, 209, 217];
const TRACK: [u8; 4] = [255, 255, 255, 46];
/// One colour per label, chosen by its text. Light enough for the dark panel.
const ACCENTS: [[u8; 3]; 8] = [
    [88, 196, 255],
    [255, 196, 77],
    [126, 231, 135],
    [255, 123, 114],
    [210, 168, 255],
    [86, 224, 208],
    [255, 166, 87],
    [247, 120, 186],
];

/// Longest label in em, where the picture is wide enough: the panel leaves the picture to be seen.
const LABEL: f32 = 22.0;
/// Rows of events above this number are summed up in a last line.
const EVENTS: usize = 8;
const SCORES: usize = 10;

impl Percent {
    /// Of a probability; what is not a number is none.
    pub fn of(probability: f32) -> Self {
        Self((probability.clamp(0.0, 1.0) * 100.0).round() as u8)
    }
}

impl Layout {
    /// em in pixels. The smaller side decides, so a portrait picture is as readable as a landscape one;
    /// below 11 pixels letters run together.
    fn em(&self) -> f32 {
        match self.font_size {
            0 => (self.width.min(self.height) as f32 / 27.0).max(11.0),
            size => size as f32,
        }
    }
}

/// The panel for `content`, or none where there is nothing to show or no room for a single line.
pub fn panel(content: &Content, layout: &Layout) -> Option<Panel> {
    let em = layout.em();
    // Whole pixels keep edges crisp.
    let unit = |ems: f32| (ems * em).round().max(1.0);
    let margin = unit(0.8).min((layout.width.min(layout.height) / 16) as f32);
    let room = (layout.width as f32 - 2.0 * margin, layout.height as f32 - 2.0 * margin);

    let mut blocks: Vec<Block> = Vec::new();
    let mut left = room.1;
    for block in [events(content, em, room), scores(content, em, room)].into_iter().flatten() {
        let gap = if blocks.is_empty() { 0.0 } else { unit(0.4) };
        if let Some(block) = block.cut_to(left - gap) {
            left -= gap + block.height();
            blocks.push(block);
        }
    }
    let gaps = blocks.len().checked_sub(1)? as f32 * unit(0.4);
    let width = blocks.iter().map(|block| block.width).fold(0.0, f32::max);
    blocks.iter_mut().for_each(|block| block.width = width);
    let height = blocks.iter().map(Block::height).sum::<f32>() + gaps;

    let (right, low) = match layout.position {
        Position::TopLeft => (false, false),
        Position::TopRight => (true, false),
        Position::BottomLeft => (false, true),
        Position::BottomRight => (true, true),
    };
    // The panel's own size is in whole samples too, unless the picture ends before.
    let x = if right { layout.width as f32 - margin - width } else { margin } as u32 / 8 * 8;
    let y = if low { layout.height as f32 - margin - height } else { margin } as u32 / 4 * 4;
    let full = ((width as u32).next_multiple_of(8), (height as u32).next_multiple_of(4));
    let size = (full.0.min(layout.width - x), full.1.min(layout.height - y));
    let mut pixels = Pixmap::new(size.0, size.1)?;
    let mut top = if low { size.1 as f32 - height } else { 0.0 };
    for block in &blocks {
        let x = if right { size.0 as f32 - block.width } else { 0.0 };
        block.draw(&mut pixels, x.floor(), top.floor());
        top += block.height() + unit(0.4);
    }
    Some(Panel { x, y, pixels })
}

/// Lines on a common background.
struct Block {
    face: Typeface,
    em: f32,
    width: f32,
    line: f32,
    padding: f32,
    lines: Vec<Line>,
    /// Width of the column of bars beside the label; 0: the bar runs below the text.
    bar: f32,
}

struct Line {
    label: String,
    accent: [u8; 3],
    /// Columns right of the label, each with its right edge's distance from the block's.
    columns: Vec<(String, f32)>,
    score: Option<Percent>,
}

fn events(content: &Content, em: f32, room: (f32, f32)) -> Option<Block> {
    let face = Typeface::new(em);
    let (padding, line, gap) = ((0.55 * em).round(), (1.9 * em).round(), 0.9 * em);
    let fitting = ((room.1 - padding) / line).max(0.0) as usize;
    let shown = content.events.len().min(EVENTS).min(fitting);
    // The last line says how many more there are.
    let shown = if shown < content.events.len() { shown.saturating_sub(1).max(1) } else { shown };
    let seen: Vec<_> = content.events.iter().take(shown).collect();
    let times: Vec<String> = seen.iter().map(|event| duration(event.seconds)).collect();

    // Columns keep their width while digits change, and go where they would leave the label no room.
    let score_width = face.width("100%");
    let time_width = times.iter().map(|t| face.width(&zeros(t))).fold(0.0, f32::max);
    let edge = 2.0 * padding + 0.5 * em;
    let fits = |columns: f32| room.0 - edge - columns >= 5.0 * em;
    let both = score_width + time_width + 2.0 * gap;
    let (score, time) = (fits(score_width + gap), fits(both));
    let columns = if time {
        both
    } else if score {
        score_width + gap
    } else {
        0.0
    };

    let mut lines = Vec::new();
    for (event, time_text) in seen.iter().zip(times) {
        let mut row = Vec::new();
        if time {
            row.push((time_text, 0.0));
        }
        if score {
            row.push((format!("{}%", event.score.0), if time { time_width + gap } else { 0.0 }));
        }
        lines.push(Line {
            label: face.fit(&event.label, (room.0 - edge - columns).min(LABEL * em)),
            accent: accent(&event.label),
            columns: row,
            score: Some(event.score),
        });
    }
    if shown < content.events.len() && fitting > shown {
        let label = face.fit(&format!("+{} more", content.events.len() - shown), room.0 - edge);
        lines.push(Line { label, accent: FAINT, columns: Vec::new(), score: None });
    }
    let text = lines.iter().map(|line| face.width(&line.label)).fold(0.0, f32::max);
    let width = (edge + text + columns).max(9.0 * em).min(room.0).floor();
    let readable = lines.iter().any(|line| !line.label.is_empty());
    readable.then_some(Block { face, em, width, line, padding, lines, bar: 0.0 })
}

fn scores(content: &Content, em: f32, room: (f32, f32)) -> Option<Block> {
    let em = (0.8 * em).max(10.0);
    let face = Typeface::new(em);
    let (padding, line) = ((0.5 * em).round(), (1.45 * em).round());
    let score_width = face.width("100%") + 0.7 * em;
    let bar = 5.0 * em;
    let edge = 2.0 * padding + score_width + bar + 0.8 * em;
    if room.0 - edge < 3.0 * em {
        return None;
    }
    let lines: Vec<Line> = content
        .scores
        .iter()
        .take(SCORES)
        .map(|(label, score)| Line {
            label: face.fit(label, (room.0 - edge).min(LABEL * em)),
            accent: accent(label),
            columns: vec![(format!("{}%", score.0), 0.0)],
            score: Some(*score),
        })
        .collect();
    let text = lines.iter().map(|line| face.width(&line.label)).fold(0.0, f32::max);
    let width = (edge + text).min(room.0).floor();
    (!lines.is_empty()).then_some(Block { face, em, width, line, padding, lines, bar })
}

impl Block {
    fn height(&self) -> f32 {
        self.line * self.lines.len() as f32 + self.padding
    }

    /// Without the lines for which `height` has no room; none if there is room for no line.
    fn cut_to(mut self, height: f32) -> Option<Block> {
        let fitting = ((height - self.padding) / self.line).max(0.0) as usize;
        self.lines.truncate(fitting);
        (!self.lines.is_empty()).then_some(self)
    }

    fn draw(&self, pixels: &mut Pixmap, x: f32, y: f32) {
        let em = self.em;
        rounded(pixels, [x, y, self.width, self.height()], 0.4 * em, BACKGROUND);
        for (index, line) in self.lines.iter().enumerate() {
            let top = y + (self.padding / 2.0).round() + index as f32 * self.line;
            self.draw_line(pixels, line, x, top);
        }
    }

    fn draw_line(&self, pixels: &mut Pixmap, line: &Line, x: f32, top: f32) {
        let em = self.em;
        let (left, right) = (x + self.padding, x + self.width - self.padding);
        let below = self.bar == 0.0;
        // The mark in the label's colour, beside event lines only.
        let indent = if below { 0.5 * em } else { 0.0 };
        let thick = (0.16 * em).round().max(2.0);
        let [r, g, b] = line.accent;
        let cap = self.face.cap_height();
        let centre = top + self.line * if below && line.score.is_some() { 0.43 } else { 0.5 };
        let baseline = (centre + cap / 2.0).round();
        if below && line.score.is_some() {
            let track = [left + indent, (top + self.line - thick - 0.14 * em).round()];
            let length = right - track[0];
            self.bar(pixels, line, track, length, thick);
            rounded(
                pixels,
                [left, baseline - cap - 0.1 * em, thick, cap + 0.2 * em],
                thick / 2.0,
                [r, g, b, 255],
            );
        } else if !below {
            let length = self.bar;
            let score_width = self.face.width("100%") + 0.7 * em;
            let track = [right - score_width - length, (centre - 0.2 * em).round()];
            self.bar(pixels, line, track, length, (0.4 * em).round());
        }
        let colour = if below && line.score.is_some() { TEXT } else { FAINT };
        self.write(pixels, &line.label, left + indent, baseline, colour);
        for (text, distance) in &line.columns {
            let at = right - distance - self.face.width(text);
            self.write(pixels, text, at.round(), baseline, if below { FAINT } else { TEXT });
        }
    }

    fn bar(&self, pixels: &mut Pixmap, line: &Line, [x, y]: [f32; 2], length: f32, thick: f32) {
        let [r, g, b] = line.accent;
        let filled = length * f32::from(line.score.map_or(0, |score| score.0)) / 100.0;
        rounded(pixels, [x, y, length, thick], thick / 2.0, TRACK);
        if filled >= 1.0 {
            rounded(pixels, [x, y, filled, thick], thick / 2.0, [r, g, b, 255]);
        }
    }

    fn write(&self, pixels: &mut Pixmap, text: &str, x: f32, baseline: f32, colour: [u8; 3]) {
        let (width, height) = (pixels.width() as i32, pixels.height() as i32);
        let bytes = pixels.data_mut();
        self.face.draw(text, x.round(), baseline, |column, row, coverage| {
            if (0..width).contains(&column) && (0..height).contains(&row) {
                let at = (row * width + column) as usize * 4;
                let [r, g, b] = colour;
                for (sample, ink) in bytes[at..at + 4].iter_mut().zip([r, g, b, 255]) {
                    let mixed = f32::from(*sample) * (1.0 - coverage) + f32::from(ink) * coverage;
                    *sample = mixed.round() as u8;
                }
            }
        });
    }
}

/// Fills a rectangle (x, y, width, height) with round corners.
fn rounded(pixels: &mut Pixmap, [x, y, w, h]: [f32; 4], radius: f32, [r, g, b, a]: [u8; 4]) {
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, a));
    let radius = radius.min(w / 2.0).min(h / 2.0);
    // A quarter circle as a cubic curve.
    let k = radius * (1.0 - 0.552_284_8);
    let (right, bottom) = (x + w, y + h);
    let mut path = PathBuilder::new();
    path.move_to(x + radius, y);
    path.line_to(right - radius, y);
    path.cubic_to(right - k, y, right, y + k, right, y + radius);
    path.line_to(right, bottom - radius);
    path.cubic_to(right, bottom - k, right - k, bottom, right - radius, bottom);
    path.line_to(x + radius, bottom);
    path.cubic_to(x + k, bottom, x, bottom - k, x, bottom - radius);
    path.line_to(x, y + radius);
    path.cubic_to(x, y + k, x + k, y, x + radius, y);
    path.close();
    match path.finish() {
        Some(path) => pixels.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None),
        None => {
            if let Some(rect) = Rect::from_xywh(x, y, w, h) {
                pixels.fill_rect(rect, &paint, Transform::identity(), None);
            }
        }
    }
}

/// Seconds as people read them: `7 s`, `2:05`, `1:00:00`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

/// The text with every digit a zero: the width of a column must not tremble. DejaVu's digits are equally
/// wide, so this costs no room.
fn zeros(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    // Room for a second digit from the start.
    if text == "0 s" { "00 s".into() } else { text }
}

/// The same label has the same colour in every picture of every run.
fn accent(label: &str) -> [u8; 3] {
    // FNV-1a.
    let hash =
        label.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    ACCENTS[(hash >> 16) as usize % ACCENTS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(labels: &[&str]) -> Content {
        let line = |label: &&str| EventLine { label: label.to_string(), score: Percent(87), seconds: 3 };
        Content { events: labels.iter().map(line).collect(), scores: Vec::new() }
    }

    fn layout(width: u32, height: u32, position: Position) -> Layout {
        Layout { width, height, font_size: 0, position }
    }

    #[test]
    fn a_panel_stays_inside_every_picture() {
        let many =
            ["walking", "a person climbs over a very high fence with great effort, then falls", "跌倒 🤸"];
        let mut content = content(&many.repeat(7));
        content.scores = many.iter().map(|label| (label.to_string(), Percent::of(0.31))).collect();
        let positions = [Position::TopLeft, Position::TopRight, Position::BottomLeft, Position::BottomRight];
        for position in positions {
            for (w, h) in
                [(1, 1), (7, 300), (300, 7), (64, 48), (161, 121), (320, 240), (1080, 1920), (3840, 2160)]
            {
                for font_size in [0, 1, 16, 200, 5000] {
                    let layout = Layout { font_size, ..layout(w, h, position) };
                    if let Some(panel) = panel(&content, &layout) {
                        assert_eq!((panel.x % 8, panel.y % 4), (0, 0));
                        assert!(panel.x + panel.pixels.width() <= w, "{w}×{h} {position:?}");
                        assert!(panel.y + panel.pixels.height() <= h, "{w}×{h} {position:?}");
                    }
                }
            }
        }
        assert!(panel(&content, &layout(64, 48, Position::TopLeft)).is_some());
    }

    #[test]
    fn nothing_open_is_no_panel() {
        assert!(panel(&Content::default(), &layout(640, 480, Position::TopLeft)).is_none());
    }

    #[test]
    fn a_panel_has_samples_of_its_own_whole_size_unless_the_picture_ends() {
        let panel = panel(&content(&["running"]), &layout(640, 480, Position::BottomRight)).unwrap();
        assert_eq!((panel.pixels.width() % 8, panel.pixels.height() % 4), (0, 0));
    }

    #[test]
    fn digits_do_not_move_the_panel() {
        let face = Typeface::new(20.0);
        assert!("123456789".chars().all(|c| face.width(&c.to_string()) == face.width("0")));
        let mut a = content(&["running"]);
        let wide = |content: &Content| {
            panel(content, &layout(640, 480, Position::TopLeft)).map(|panel| panel.pixels.width())
        };
        let first = wide(&a);
        a.events[0].score = Percent(100);
        a.events[0].seconds = 59;
        assert_eq!(wide(&a), first);
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!([7, 125, 3600].map(duration), ["7 s", "2:05", "1:00:00"]);
    }

    #[test]
    fn percent_is_whole_and_bounded() {
        assert_eq!(
            [0.0, 0.874, 0.876, 1.0, 7.0, f32::NAN].map(Percent::of).map(|p| p.0),
            [0, 87, 88, 100, 100, 0]
        );
    }
}
