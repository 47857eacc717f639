//! Asking for a product's next weights while it works.

use super::buffer::{LINE_BYTES, Number};
use super::kernel::Ahead;

/// The panel after this one, most likely this thread's next: asked for while this one is at work, a share
/// with every tile.
pub(super) struct Next {
    at: *const u8,
    /// Lines not asked for yet.
    left: usize,
    /// Lines of a row of the left side, and how many are asked for with each.
    row: usize,
    lines: usize,
}

impl Next {
    #[inline(always)]
    pub fn new<T: Number>(panels: &[T], start: usize, size: usize, tiles: usize, row: usize) -> Self {
        let there = start + size <= panels.len();
        let left = if there { (size * size_of::<T>()).div_ceil(LINE_BYTES) } else { 0 };
        let lines = left.div_ceil(tiles.max(1)).div_ceil(row);
        Self { at: panels.as_ptr().wrapping_add(start).cast(), left, row, lines }
    }

    /// For the next tile.
    #[inline(always)]
    pub fn tile(&mut self) -> Ahead {
        let lines = if self.left == 0 { 0 } else { self.lines };
        let ahead = Ahead { at: self.at, lines, ..Ahead::NOTHING };
        let asked = ahead.lines * self.row;
        self.at = self.at.wrapping_add(asked * LINE_BYTES);
        self.left = self.left.saturating_sub(asked);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::{Buffer, LINE};

    #[test]
    fn the_next_panel_is_asked_for_once_and_nothing_beyond() {
        fn check<T: Number>(panels: &Buffer<T>, size: usize, tiles: usize, row: usize) {
            let (start, bytes) = (panels.as_ptr().addr(), size * size_of::<T>());
            for panel in 1..3 {
                let mut next = Next::new(panels, panel * size, size, tiles, row);
                let mut expected = start + panel * bytes;
                for _ in 0..tiles {
                    let mut ahead = next.tile();
                    for _ in 0..row * ahead.lines {
                        assert_eq!(ahead.at.addr(), expected, "{size} {tiles} {row}");
                        ahead.at = ahead.at.wrapping_add(LINE_BYTES);
                        expected += LINE_BYTES;
                    }
                }
                let end = start + (panel + 1) * bytes;
                if panel == 2 {
                    assert_eq!(expected, start + panel * bytes, "there is no panel after the last");
                } else {
                    assert!(expected >= end && expected - end < row * next.lines * LINE_BYTES + LINE_BYTES);
                }
            }
        }
        for tiles in [1, 2, 3, 9, 60, 228] {
            for (k, cols) in [(17, 16), (600, 32), (768, 32), (1100, 8)] {
                check(&Buffer::<f32>::zeroed(2 * k * cols), k * cols, tiles, k.div_ceil(LINE));
                let quads = k.next_multiple_of(4);
                check(&Buffer::<i8>::zeroed(2 * quads * cols), quads * cols, tiles, k.div_ceil(LINE_BYTES));
            }
        }
    }
}
