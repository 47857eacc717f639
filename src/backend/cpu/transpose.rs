//! Rows → columns of a panel: how attention lays out keys, a key per column. Square blocks as wide as a
//! vector are turned in registers.

use super::isa::{Isa, Level};

/// `(rows, width, panel)`: NR rows of `width` values → `[width][NR]`; an empty row is a column of zeros.
///
/// # Safety
/// `rows` are NR (see `kernel`), each empty or of `width` values. `panel` has width·NR values. The
/// processor has the instruction set.
pub type Transpose = unsafe fn(&[&[f32]], usize, *mut f32);

pub fn of(isa: Isa) -> Transpose {
    match isa.level() {
        Level::Portable => portable,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => avx2::transpose,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Vnni => avx512::transpose,
    }
}

/// # Safety
/// See [`Transpose`].
unsafe fn portable(rows: &[&[f32]], width: usize, panel: *mut f32) {
    // SAFETY: the extent that the caller promises.
    let panel = unsafe { std::slice::from_raw_parts_mut(panel, width * rows.len()) };
    for (k, to) in panel.chunks_exact_mut(rows.len()).enumerate() {
        for (to, row) in to.iter_mut().zip(rows) {
            *to = row.get(k).copied().unwrap_or(0.0);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use crate::backend::cpu::buffer::part;
    use std::arch::x86_64::*;

    const N: usize = 16;

    /// # Safety
    /// See [`super::Transpose`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn transpose(rows: &[&[f32]], width: usize, panel: *mut f32) {
        let nr = rows.len();
        for (block, rows) in rows.chunks_exact(N).enumerate() {
            for at in (0..width).step_by(N) {
                let mut x = [_mm512_setzero_ps(); N];
                for (x, row) in x.iter_mut().zip(rows) {
                    let values: [f32; N] = part(row, at);
                    // SAFETY: the array has a vector's values.
                    *x = unsafe { _mm512_loadu_ps(values.as_ptr()) };
                }
                let x = turn(x);
                for (i, x) in x.iter().enumerate().take(width - at) {
                    // SAFETY: row at + i < width of the panel, columns of this block.
                    unsafe { _mm512_storeu_ps(panel.add((at + i) * nr + block * N), *x) };
                }
            }
        }
    }

    /// Pairs, then quads of values, then quarters of vectors change places.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn turn(x: [__m512; N]) -> [__m512; N] {
        let (mut a, mut b) = (x, x);
        for i in (0..N).step_by(2) {
            a[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
            a[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
        }
        let pd = |v: __m512| _mm512_castps_pd(v);
        for i in (0..N).step_by(4) {
            b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(a[i + 1]), pd(a[i + 3])));
            b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(a[i + 1]), pd(a[i + 3])));
        }
        for i in 0..4 {
            a[i] = _mm512_shuffle_f32x4::<0x88>(b[i], b[i + 4]);
            a[i + 4] = _mm512_shuffle_f32x4::<0x88>(b[i + 8], b[i + 12]);
            a[i + 8] = _mm512_shuffle_f32x4::<0xdd>(b[i], b[i + 4]);
            a[i + 12] = _mm512_shuffle_f32x4::<0xdd>(b[i + 8], b[i + 12]);
        }
        for i in 0..4 {
            b[i] = _mm512_shuffle_f32x4::<0x88>(a[i], a[i + 4]);
            b[i + 8] = _mm512_shuffle_f32x4::<0xdd>(a[i], a[i + 4]);
            b[i + 4] = _mm512_shuffle_f32x4::<0x88>(a[i + 8], a[i + 12]);
            b[i + 12] = _mm512_shuffle_f32x4::<0xdd>(a[i + 8], a[i + 12]);
        }
        b
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use crate::backend::cpu::buffer::part;
    use std::arch::x86_64::*;

    const N: usize = 8;

    /// # Safety
    /// See [`super::Transpose`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn transpose(rows: &[&[f32]], width: usize, panel: *mut f32) {
        let nr = rows.len();
        for (block, rows) in rows.chunks_exact(N).enumerate() {
            for at in (0..width).step_by(N) {
                let mut x = [_mm256_setzero_ps(); N];
                for (x, row) in x.iter_mut().zip(rows) {
                    let values: [f32; N] = part(row, at);
                    // SAFETY: the array has a vector's values.
                    *x = unsafe { _mm256_loadu_ps(values.as_ptr()) };
                }
                let x = turn(x);
                for (i, x) in x.iter().enumerate().take(width - at) {
                    // SAFETY: row at + i < width of the panel, columns of this block.
                    unsafe { _mm256_storeu_ps(panel.add((at + i) * nr + block * N), *x) };
                }
            }
        }
    }

    /// Pairs, then quads of values, then halves of vectors change places.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn turn(x: [__m256; N]) -> [__m256; N] {
        let (mut a, mut b) = (x, x);
        for i in (0..N).step_by(2) {
            a[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
            a[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        let pd = |v: __m256| _mm256_castps_pd(v);
        for i in (0..N).step_by(4) {
            b[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(pd(a[i + 1]), pd(a[i + 3])));
            b[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(pd(a[i + 1]), pd(a[i + 3])));
        }
        for i in 0..4 {
            a[i] = _mm256_permute2f128_ps::<0x20>(b[i], b[i + 4]);
            a[i + 4] = _mm256_permute2f128_ps::<0x31>(b[i], b[i + 4]);
        }
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::Buffer;
    use crate::backend::cpu::kernel::F32Kernels;

    #[test]
    fn every_row_becomes_its_column_for_any_width_and_number_of_rows() {
        for isa in Isa::available() {
            let nr = F32Kernels::of(isa).cols;
            for width in [1, 7, 8, 16, 24, 40, 64, 96] {
                for present in [0, 1, nr / 2 + 1, nr] {
                    let values: Vec<f32> = (0..nr * width).map(|i| i as f32 + 1.0).collect();
                    let rows: Vec<&[f32]> = values
                        .chunks(width)
                        .enumerate()
                        .map(|(i, row)| if i < present { row } else { &[] })
                        .collect();
                    let mut panel = Buffer::zeroed(width * nr);
                    panel.fill(f32::NAN);
                    // SAFETY: NR rows of `width` values or none, and a panel of their size.
                    unsafe { of(isa)(&rows, width, panel.as_mut_ptr()) };
                    for (i, value) in panel.iter().enumerate() {
                        let (k, column) = (i / nr, i % nr);
                        let expected = if column < present { values[column * width + k] } else { 0.0 };
                        assert_eq!(*value, expected, "{} {width}x{present}: {k}, {column}", isa.name());
                    }
                }
            }
        }
    }
}
