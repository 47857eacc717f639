//! The left side of a product: activations in the product's own layout, written by their producer.
//!
//! Within a tile of rows, lines of one cache line (16 f32 or 64 bytes) of consecutive values of one row,
//! row after row: a producer writes whole lines and the kernel reads forward only. Bytes need the whole
//! row first (see `quantise`): a producer of whole rows hands them over one by one, one of parts stages
//! them as f32.

use std::cell::RefCell;

use super::buffer::{Buffer, LINE, LINE_BYTES, Shared, row_stride};
use super::gemm::Cpu;
use super::kernel::Spot;
use super::linear::{Format, Linear};
use super::quantise::{RowScale, quantise};

#[derive(Default)]
pub struct Lhs {
    /// The product's values, or rows on their way to bytes.
    pub(super) values: Buffer,
    pub(super) bytes: Buffer<u8>,
    /// The second bytes, if the product takes them.
    pub(super) fine: Buffer<u8>,
    pub(super) scales: Vec<RowScale>,
    pub(super) format: Format,
    pub rows: usize,
    pub k: usize,
    pub(super) tiles: Tiles,
}

/// Rows cut into tiles whose heights differ by one at most: a low tile keeps the multipliers idle while
/// it waits for its own sums.
#[derive(Clone, Copy, Default)]
pub(super) struct Tiles {
    /// Rows of each of the first `tall` tiles; the others have one less.
    height: usize,
    tall: usize,
    pub count: usize,
}

/// Where rows and their lines are.
#[derive(Clone, Copy)]
struct Tiling {
    /// Lines of a row.
    lines: usize,
    tiles: Tiles,
}

/// Takes whole rows from parallel tasks.
#[derive(Clone, Copy)]
pub(super) enum RowWriter<'a> {
    F32(Writer<'a>),
    Int8(ByteWriter<'a>),
}

/// Takes f32 values, any part of a row, from parallel tasks.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    values: Shared<'a>,
    tiling: Tiling,
}

/// Takes whole rows and makes bytes of them.
#[derive(Clone, Copy)]
pub(super) struct ByteWriter<'a> {
    bytes: Shared<'a, u8>,
    fine: Option<Shared<'a, u8>>,
    scales: Shared<'a, RowScale>,
    tiling: Tiling,
}

thread_local! {
    /// One row between its producer and its bytes.
    static ROW: RefCell<Buffer> = RefCell::default();
}

impl Lhs {
    fn shape(&mut self, cpu: &Cpu, rows: usize, for_product: &Linear) {
        self.format = for_product.format;
        let most = match self.format {
            Format::F32 => cpu.kernels.rows(),
            Format::Int8 | Format::Int8Fine => cpu.dots.rows(),
        };
        self.tiles = Tiles::new(rows, most);
        (self.rows, self.k) = (rows, for_product.ins);
    }

    /// Gives it the shape of the product's left side; the rows are arbitrary until written.
    pub(super) fn reset(&mut self, cpu: &Cpu, rows: usize, for_product: &Linear) -> RowWriter<'_> {
        self.shape(cpu, rows, for_product);
        match self.format {
            Format::F32 => RowWriter::F32(self.lines(self.tiles, self.k.div_ceil(LINE))),
            Format::Int8 | Format::Int8Fine => RowWriter::Int8(self.byte_lines()),
        }
    }

    /// As [`Lhs::reset`], for a producer of parts of rows, which calls [`Lhs::complete`] in the end.
    pub(super) fn stage(&mut self, cpu: &Cpu, rows: usize, for_product: &Linear) -> Writer<'_> {
        self.shape(cpu, rows, for_product);
        match self.format {
            Format::F32 => self.lines(self.tiles, self.k.div_ceil(LINE)),
            // A tile of one row is a row-major row.
            Format::Int8 | Format::Int8Fine => self.lines(Tiles::new(rows, 1), row_stride(self.k) / LINE),
        }
    }

    /// Makes bytes of staged rows where the product takes bytes.
    pub(super) fn complete(&mut self, cpu: &Cpu) {
        if self.format == Format::F32 {
            return;
        }
        let values = std::mem::take(&mut self.values);
        let (rows, k, stride) = (self.rows, self.k, row_stride(self.k));
        let writer = self.byte_lines();
        cpu.run_ranges(rows, 8, |range| {
            // SAFETY: each row is written by one task.
            range.for_each(|row| unsafe { writer.put(cpu, row, &values[row * stride..][..k]) });
        });
        self.values = values;
    }

    fn lines(&mut self, tiles: Tiles, lines: usize) -> Writer<'_> {
        let values = Shared::new(self.values.fit(self.rows * lines * LINE));
        Writer { values, tiling: Tiling { lines, tiles } }
    }

    fn byte_lines(&mut self) -> ByteWriter<'_> {
        let lines = self.k.div_ceil(LINE_BYTES);
        if self.scales.len() < self.rows {
            self.scales.resize(self.rows, RowScale::default());
        }
        let size = self.rows * lines * LINE_BYTES;
        let fine = self.format == Format::Int8Fine;
        ByteWriter {
            bytes: Shared::new(self.bytes.fit(size)),
            fine: fine.then(|| Shared::new(self.fine.fit(size))),
            scales: Shared::new(&mut self.scales),
            tiling: Tiling { lines, tiles: self.tiles },
        }
    }

    /// Copies a row-major matrix with `stride` values from row to row.
    pub fn copy_from(&mut self, cpu: &Cpu, rows: usize, from: &[f32], stride: usize, for_product: &Linear) {
        let (k, writer) = (for_product.ins, self.reset(cpu, rows, for_product));
        cpu.run_ranges(rows, 8, |range| {
            for row in range {
                let from = &from[row * stride..][..k];
                // SAFETY: each row is written by one task.
                unsafe {
                    match writer {
                        RowWriter::F32(writer) => writer.put(writer.row(row), 0, from),
                        RowWriter::Int8(writer) => writer.put(cpu, row, from),
                    }
                }
            }
        });
    }
}

impl Tiles {
    pub fn new(rows: usize, most: usize) -> Self {
        let count = rows.div_ceil(most);
        let height = rows.div_ceil(count.max(1)).max(1);
        Self { height, tall: rows - count * (height - 1), count }
    }

    /// First row and height of a tile.
    #[inline(always)]
    pub fn at(&self, index: usize) -> (usize, usize) {
        match index.checked_sub(self.tall) {
            None => (index * self.height, self.height),
            Some(index) => (self.tall * self.height + index * (self.height - 1), self.height - 1),
        }
    }

    /// The tile that holds a row, one of those there are.
    #[inline(always)]
    fn of(&self, row: usize) -> usize {
        match row.checked_sub(self.tall * self.height) {
            None => row / self.height,
            Some(row) => self.tall + row / (self.height - 1),
        }
    }
}

impl Tiling {
    /// Where `row` starts, and the distance between its lines, in lines.
    #[inline(always)]
    fn row(&self, row: usize) -> (usize, usize) {
        let (first, height) = self.tiles.at(self.tiles.of(row));
        (first * self.lines + row - first, height)
    }
}

impl<'a> Writer<'a> {
    /// Where `row` starts, and the distance between its lines.
    #[inline(always)]
    pub fn row(&self, row: usize) -> (usize, usize) {
        let (start, step) = self.tiling.row(row);
        (start * LINE, step * LINE)
    }

    /// As [`Writer::row`], of the rows from `first` on.
    #[inline(always)]
    pub fn rows(&self, first: usize, at: &mut [(usize, usize)]) {
        if at.is_empty() {
            return;
        }
        let Tiling { lines, tiles } = self.tiling;
        let (mut index, mut left) = (tiles.of(first), &mut at[..]);
        let mut row = first;
        while !left.is_empty() {
            let (top, height) = tiles.at(index);
            let (now, later) = left.split_at_mut((top + height - row).min(left.len()));
            for at in now {
                *at = ((top * lines + row - top) * LINE, height * LINE);
                row += 1;
            }
            (index, left) = (index + 1, later);
        }
    }

    #[inline(always)]
    pub fn values(&self) -> &Shared<'a> {
        &self.values
    }

    /// Asks for a row's columns `col..col + width`, to write them soon.
    #[inline(always)]
    pub fn expect(&self, at: (usize, usize), col: usize, width: usize) {
        for line in col / LINE..(col + width).div_ceil(LINE) {
            self.values.expect(at.0 + line * at.1);
        }
    }

    /// Where columns `col..col + width` of a row are, which start a line or stay within one; `at`: see
    /// [`Writer::row`].
    #[inline(always)]
    pub fn spot(&self, at: (usize, usize), col: usize, width: usize) -> Spot {
        debug_assert!(col.is_multiple_of(LINE) || col % LINE + width <= LINE);
        let (first, last) = (at.0 + col / LINE * at.1 + col % LINE, width - 1);
        Spot { at: self.values.run(first, last / LINE * at.1 + last % LINE + 1), step: at.1 }
    }

    /// Writes values of a row from column `col` on; `at`: see [`Writer::row`].
    ///
    /// # Safety
    /// No other task writes these elements.
    #[inline(always)]
    pub unsafe fn put(&self, at: (usize, usize), col: usize, values: &[f32]) {
        let (start, step) = at;
        let (mut col, mut rest) = (col, values);
        while !rest.is_empty() {
            let (now, later) = rest.split_at((LINE - col % LINE).min(rest.len()));
            // SAFETY: the caller holds that these elements are ours.
            unsafe { self.values.part(start + col / LINE * step + col % LINE, now.len()) }
                .copy_from_slice(now);
            (col, rest) = (col + now.len(), later);
        }
    }
}

impl ByteWriter<'_> {
    /// Writes a whole row.
    ///
    /// # Safety
    /// No other task writes this row.
    pub unsafe fn put(&self, cpu: &Cpu, row: usize, values: &[f32]) {
        let (start, step) = self.tiling.row(row);
        // SAFETY: the caller holds that the row is ours.
        let scale = unsafe { &mut self.scales.part(row, 1)[0] };
        let (start, step) = (start * LINE_BYTES, step * LINE_BYTES);
        quantise(cpu.isa, values, &self.bytes, self.fine.as_ref(), start, step, scale);
    }

    /// As [`ByteWriter::put`], of the `width` values that `make` writes.
    ///
    /// # Safety
    /// As for [`ByteWriter::put`].
    pub unsafe fn make(&self, cpu: &Cpu, row: usize, width: usize, make: impl FnOnce(&mut [f32])) {
        ROW.with_borrow_mut(|values| {
            make(values.fit(width));
            // SAFETY: the caller holds that the row is ours.
            unsafe { self.put(cpu, row, values) }
        });
    }

    /// Writes bytes of `row` from column `col` on as they are, with what they mean; for a product that
    /// takes no second bytes.
    ///
    /// # Safety
    /// No other task writes this row.
    pub unsafe fn put_bytes(&self, row: usize, col: usize, bytes: &[u8], scale: RowScale) {
        let (start, step) = self.tiling.row(row);
        // SAFETY (all): the caller holds that the row is ours.
        unsafe { self.scales.part(row, 1)[0] = scale };
        let (mut col, mut rest) = (col, bytes);
        while !rest.is_empty() {
            let (now, later) = rest.split_at((LINE_BYTES - col % LINE_BYTES).min(rest.len()));
            let at = (start + col / LINE_BYTES * step) * LINE_BYTES + col % LINE_BYTES;
            unsafe { self.bytes.part(at, now.len()) }.copy_from_slice(now);
            (col, rest) = (col + now.len(), later);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_tile_and_tiles_differ_by_one_row_at_most() {
        for most in [1, 4, 6, 12, 14] {
            for rows in 0..420 {
                let tiles = Tiles::new(rows, most);
                let mut next = 0;
                for index in 0..tiles.count {
                    let (first, height) = tiles.at(index);
                    assert!(first == next && height <= most, "{rows} {most}: tile {index}");
                    assert!(height + 1 >= tiles.at(0).1 && height > 0, "{rows} {most}: tile {index}");
                    assert!((first..first + height).all(|row| tiles.of(row) == index), "{rows} {most}");
                    next += height;
                }
                assert!(next == rows && tiles.count == rows.div_ceil(most), "{rows} {most}");
                let mut values = Buffer::zeroed(1);
                let writer = Writer { values: Shared::new(&mut values), tiling: Tiling { lines: 3, tiles } };
                for first in 0..=rows {
                    let mut at = [(0, 0); 30];
                    let at = &mut at[..(rows - first).min(30)];
                    writer.rows(first, at);
                    assert!((first..).zip(at).all(|(row, at)| writer.row(row) == *at), "{rows} {most}");
                }
            }
        }
    }
}
