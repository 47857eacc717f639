//! Lines of text as coverage: the embedded font, laid out left to right with kerning.
//!
//! No shaping: Arabic letters stay unjoined and right-to-left scripts are not reordered. A character the
//! font lacks (an emoji, a Chinese character) shows as the font's box.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, GlyphId, PxScaleFont, ScaleFont, point};

/// DejaVu Sans covers Latin, Greek, Cyrillic and many more; its licence lies beside it.
static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("DejaVuSans.ttf")).expect("the embedded font is a valid font")
});

/// The font at one size.
pub struct Typeface {
    font: PxScaleFont<&'static FontRef<'static>>,
}

impl Typeface {
    /// `em` is the font size in pixels.
    pub fn new(em: f32) -> Self {
        let per_em = FONT.units_per_em().unwrap_or(2048.0);
        Self { font: FONT.as_scaled(em * FONT.height_unscaled() / per_em) }
    }

    /// Height of a capital letter, pixels.
    pub fn cap_height(&self) -> f32 {
        let glyph = self.font.scaled_glyph('H');
        self.font.outline_glyph(glyph).map_or(0.0, |outline| outline.px_bounds().height())
    }

    /// Width of `text`, pixels.
    pub fn width(&self, text: &str) -> f32 {
        self.place(text).1
    }

    /// `text` cut so that it is at most `width` wide, an ellipsis in place of what was cut. Empty if
    /// not even the ellipsis fits.
    pub fn fit(&self, text: &str, width: f32) -> String {
        let text = visible(text);
        if self.width(&text) <= width {
            return text;
        }
        // Widths grow with the text but for kerning, so the longest fitting prefix is found by halving.
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let cut = |end: usize| format!("{}…", text[..end].trim_end());
        let fitting = ends.partition_point(|&end| self.width(&cut(end)) <= width);
        match fitting {
            0 => String::new(),
            n => cut(ends[n - 1]),
        }
    }

    /// Calls `paint` with column, row and coverage (0..1) of every pixel the text touches; `x` is the
    /// left edge, `baseline` the row letters stand on.
    pub fn draw(&self, text: &str, x: f32, baseline: f32, mut paint: impl FnMut(i32, i32, f32)) {
        for mut glyph in self.place(&visible(text)).0 {
            glyph.position.x += x;
            glyph.position.y += baseline;
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, coverage| {
                paint(corner.x as i32 + column as i32, corner.y as i32 + row as i32, coverage.min(1.0));
            });
        }
    }

    fn place(&self, text: &str) -> (Vec<Glyph>, f32) {
        let mut pen = 0.0;
        let mut last: Option<GlyphId> = None;
        let mut glyphs = Vec::new();
        for character in text.chars() {
            let mut glyph = self.font.scaled_glyph(character);
            pen += last.map_or(0.0, |last| self.font.kern(last, glyph.id));
            last = Some(glyph.id);
            glyph.position = point(pen, 0.0);
            pen += self.font.h_advance(glyph.id);
            glyphs.push(glyph);
        }
        (glyphs, pen)
    }
}

/// One line: line breaks become spaces, and characters without a picture of their own go (joiners,
/// variation selectors, direction marks), lest each shows as a box.
fn visible(text: &str) -> String {
    let shown = |c: &char| {
        !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    text.trim()
        .chars()
        .filter(shown)
        .map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_ends_in_an_ellipsis_and_fits() {
        let face = Typeface::new(20.0);
        let text = "eine Person klettert über einen sehr hohen Zaun";
        for width in [25.0, 40.0, 99.5, 200.0, 333.0] {
            let cut = face.fit(text, width);
            assert!(cut.ends_with('…'), "{cut}");
            assert!(face.width(&cut) <= width, "{cut}");
        }
        assert_eq!(face.fit(text, 10_000.0), text);
        assert_eq!(face.fit(text, 3.0), "");
    }

    #[test]
    fn size_is_the_em_in_pixels() {
        // An em space is one em wide.
        assert!((Typeface::new(32.0).width("\u{2003}") - 32.0).abs() < 0.1);
    }

    #[test]
    fn missing_glyphs_show_as_boxes() {
        let face = Typeface::new(40.0);
        let mut ink = 0.0;
        face.draw("跌", 0.0, 40.0, |_, _, coverage| ink += coverage);
        assert!(ink > 20.0, "{ink}");
        assert!(face.width("跌") > 10.0);
    }

    #[test]
    fn invisible_characters_take_no_room() {
        let face = Typeface::new(20.0);
        assert_eq!(face.fit("a\u{200d}\u{fe0f}b\n\tc ", 1000.0), "ab  c");
    }
}
