//! A confusion matrix as a picture.

use std::path::Path;

use ab_glyph::{Font, FontRef, ScaleFont, point};
use tiny_skia::{Color, Paint, Pixmap, Rect, Transform};

use super::clips::ACTIONS;
use crate::command::CommandError;
use crate::scene::Action;

const CELL: u32 = 30;
/// Room for the names on the left and on top, pixels.
const NAMES: u32 = 150;
const TITLE: u32 = 34;
const TEXT: f32 = 13.0;

/// Writes `counts` (rows: what was true; columns: what it was taken for) as a PNG: darker is a larger share of the
/// row, with the share in percent where it is 1 or more.
pub fn draw(path: &Path, title: &str, counts: &[[usize; ACTIONS]]) -> Result<(), CommandError> {
    let side = NAMES + CELL * ACTIONS as u32 + 10;
    let mut picture = Pixmap::new(side, side + TITLE).expect("a picture of fixed size");
    picture.fill(Color::WHITE);
    write(
        &mut picture,
        &format!("{title}: true action (row), taken for (column), percent"),
        [10.0, 22.0],
        false,
    );
    let corner = |index: usize| (NAMES + CELL * index as u32) as f32;
    for (row, action) in Action::ALL.into_iter().enumerate() {
        let baseline = corner(row) + TITLE as f32 + CELL as f32 / 2.0 + 5.0;
        write(&mut picture, action.label(), [8.0, baseline], false);
        write(
            &mut picture,
            action.label(),
            [corner(row) + CELL as f32 / 2.0 + 5.0, (NAMES + TITLE) as f32 - 6.0],
            true,
        );
        let total: usize = counts[row].iter().sum();
        for (column, &count) in counts[row].iter().enumerate() {
            let share = count as f32 / total.max(1) as f32;
            let [x, y] = [corner(column), corner(row) + TITLE as f32];
            let cell =
                Rect::from_xywh(x, y, CELL as f32 - 1.0, CELL as f32 - 1.0).expect("a cell has an area");
            let shade = |strength: f32| 1.0 - strength * share.sqrt();
            let colour =
                Color::from_rgba(shade(0.95), shade(0.7), shade(0.35), 1.0).expect("shares are 0 to 1");
            let mut paint = Paint::default();
            paint.set_color(colour);
            picture.fill_rect(cell, &paint, Transform::identity(), None);
            let percent = (100.0 * share).round();
            if percent >= 1.0 {
                write(
                    &mut picture,
                    &percent.to_string(),
                    [x + if percent < 10.0 { 10.0 } else { 5.0 }, y + 20.0],
                    false,
                );
            }
        }
    }
    picture.save_png(path).map_err(|error| {
        CommandError::unusable(path.display().to_string(), error.to_string(), "is the folder writable?")
    })
}

/// Black letters on what is there, from `start` (left end of the baseline) to the right, or upwards.
fn write(picture: &mut Pixmap, text: &str, start: [f32; 2], upwards: bool) {
    let font = FontRef::try_from_slice(include_bytes!("../../element/overlay/DejaVuSans.ttf"))
        .expect("the embedded font is a valid font");
    let font = font.as_scaled(TEXT);
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    let pixels = picture.data_mut();
    let mut pen = 0.0;
    for letter in text.chars() {
        let id = font.glyph_id(letter);
        let glyph = id.with_scale_and_position(TEXT, point(pen, 0.0));
        pen += font.h_advance(id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|column, row, coverage| {
            let (along, across) = (bounds.min.x + column as f32, bounds.min.y + row as f32);
            let [dx, dy] = if upwards { [across, -along] } else { [along, across] };
            let (x, y) = ((start[0] + dx) as i32, (start[1] + dy) as i32);
            if (0..width).contains(&x) && (0..height).contains(&y) {
                let at = (y * width + x) as usize * 4;
                for byte in &mut pixels[at..at + 3] {
                    *byte = (f32::from(*byte) * (1.0 - coverage.min(1.0))) as u8;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_darker_where_more_clips_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.png");
        let mut counts = vec![[0; ACTIONS]; ACTIONS];
        (counts[3][3], counts[3][7]) = (99, 1);
        draw(&path, "test", &counts).unwrap();
        let picture = Pixmap::load_png(&path).unwrap();
        let corner = |row: u32, column: u32| {
            let pixel = picture.pixel(NAMES + CELL * column + 1, TITLE + NAMES + CELL * row + 1).unwrap();
            u32::from(pixel.red()) + u32::from(pixel.green()) + u32::from(pixel.blue())
        };
        assert!(corner(3, 3) < corner(3, 7) && corner(3, 7) < corner(3, 8));
        assert_eq!(corner(3, 8), 3 * 255);
        let missing = draw(Path::new("/no/such/folder/x.png"), "test", &counts).unwrap_err();
        assert!(missing.to_string().contains("/no/such/folder/x.png"));
    }
}
