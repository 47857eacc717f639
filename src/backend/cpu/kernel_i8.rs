//! The innermost loop of int8 products: one tile of 32-bit sums, accumulators in registers.
//!
//! `tile[R][NR] = A[R][k] · B[k][NR]`: A unsigned bytes in lines of 64 (see `lhs`), B signed bytes with
//! four steps of k of one column side by side, `[k/4][NR][4]`: what one lane of a dot-product
//! instruction takes. Sums are exact (see `MAX_K`), so all paths give the same bits. AVX2 has no such
//! instruction; its `vpmaddubsw` saturates at 16 bits, so bytes are widened first.
//! For signed × signed instructions (ARM's `sdot`) the bytes of A would be stored minus 128, and the
//! column sums that `gemm` takes off would count for zero − 128.

use super::isa::{Isa, Level};
use super::kernel::{Ahead, Kernels};

/// Products of 255 and 127 that fit a signed 32-bit sum.
pub const MAX_K: usize = i32::MAX as usize / (255 * 127);

/// `(k/4, a, b, tile, ahead)`.
///
/// # Safety
/// `a`: ceil(k/64)·R·64 bytes, on 4 of them. `b`: ceil(k/4)·4·NR bytes, and `tile`: R·NR values, both on a
/// cache line or on the kernel's vector. `ahead` has its rows' spots. The processor has the kernel's instruction
/// set.
pub type Kernel = unsafe fn(usize, *const u8, *const i8, *mut i32, Ahead);

/// As [`super::kernel::Roof`].
///
/// # Safety
/// The processor has the instruction set.
pub type Roof = unsafe fn(usize) -> i32;

/// Bytes, 32-bit sums.
pub type DotKernels = Kernels<Kernel, Roof>;

impl DotKernels {
    pub fn of(isa: Isa) -> Self {
        let (cols, by_rows, roof): (_, &'static [Kernel], _) = match isa.level() {
            Level::Portable => (portable::NR, &portable::KERNELS, portable::ROOF),
            // AVX-512 without VNNI is of processors that one would not give int8.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => (avx2::NR, avx2::KERNELS, avx2::ROOF),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => (avx_vnni::NR, avx_vnni::KERNELS, avx_vnni::ROOF),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => (avx512_vnni::NR, avx512_vnni::KERNELS, avx512_vnni::ROOF),
        };
        Self { cols, by_rows, roof }
    }
}

/// Stamps a kernel generic over R out of vector operations; `$w` vectors of `$lanes` sums make a panel
/// row, as the first two arms fill in; `$dot(sums, a, b)` adds to every lane the products of its four bytes (or two 16-bit halves, see
/// `kernel_i16`).
#[cfg(target_arch = "x86_64")]
macro_rules! dot_kernel {
    (avx512, $feature:literal, $dot:ident, $heights:tt) => {
        dot_kernel!(
            $feature,
            16,
            2,
            _mm512_setzero_si512(),
            _mm512_load_si512,
            _mm512_store_si512,
            _mm512_set1_epi32,
            $dot,
            $heights
        );
    };
    (avx2, $feature:literal, $dot:ident, $heights:tt) => {
        dot_kernel!(
            $feature,
            8,
            2,
            _mm256_setzero_si256(),
            _mm256_load_si256,
            _mm256_store_si256,
            _mm256_set1_epi32,
            $dot,
            $heights
        );
    };
    ($feature:literal, $lanes:literal, $w:literal, $zero:expr, $load:ident, $store:ident, $set1:ident, $dot:ident, [$($height:literal),+]) => {
        /// Index R-1: the kernel for tiles of R rows.
        pub static KERNELS: &[Kernel] = &[$(kernel::<$height>),+];

        pub const NR: usize = $lanes * $w;

        /// # Safety
        /// See [`super::Kernel`].
        #[target_feature(enable = $feature)]
        unsafe fn kernel<const R: usize>(
            quads: usize,
            a: *const u8,
            b: *const i8,
            tile: *mut i32,
            ahead: Ahead,
        ) {
            // SAFETY: every address below is within the extents that the caller promises.
            unsafe {
                let mut sums = [[$zero; $w]; R];
                let (mut a, mut b, mut ahead) = (a, b, ahead);
                let mut left = quads;
                while left > 0 {
                    ahead.step::<NR>();
                    let steps = left.min(LINE_BYTES / 4);
                    for step in 0..steps {
                        let mut columns = [$zero; $w];
                        for w in 0..$w {
                            columns[w] = $load(b.add(w * $lanes * 4).cast());
                        }
                        for r in 0..R {
                            let x = $set1(a.add(r * LINE_BYTES + step * 4).cast::<i32>().read());
                            for w in 0..$w {
                                sums[r][w] = $dot(sums[r][w], x, columns[w]);
                            }
                        }
                        b = b.add(NR * 4);
                    }
                    a = a.add(R * LINE_BYTES);
                    left -= steps;
                }
                for r in 0..R {
                    for w in 0..$w {
                        $store(tile.add(r * NR + w * $lanes).cast(), sums[r][w]);
                    }
                }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use dot_kernel;

/// Stamps the roof of such a kernel.
#[cfg(target_arch = "x86_64")]
macro_rules! dot_roof {
    (avx512, $feature:literal, $dot:ident) => {
        dot_roof!(
            $feature,
            16,
            _mm512_setzero_si512(),
            _mm512_store_si512,
            _mm512_set1_epi32,
            _mm512_add_epi32,
            $dot
        );
    };
    (avx2, $feature:literal, $dot:ident) => {
        dot_roof!(
            $feature,
            8,
            _mm256_setzero_si256(),
            _mm256_store_si256,
            _mm256_set1_epi32,
            _mm256_add_epi32,
            $dot
        );
    };
    ($feature:literal, $lanes:literal, $zero:expr, $store:ident, $set1:ident, $add:ident, $dot:ident) => {
        /// # Safety
        /// See [`Roof`](super::Roof).
        #[target_feature(enable = $feature)]
        unsafe fn roof(rounds: usize) -> i32 {
            // Twelve chains cover the latency of two multiply-add units.
            let x = $set1(std::hint::black_box(0x0102_0304));
            let mut sums = [$zero; 12];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $dot(*sum, x, *sum);
                }
            }
            let mut total = $zero;
            for sum in sums {
                total = $add(total, sum);
            }
            let mut lanes = crate::backend::cpu::kernel::Tile::<i32>::new();
            // SAFETY: the tile holds the widest vector and is on a cache line.
            unsafe { $store(lanes.0.as_mut_ptr().cast(), total) };
            lanes.0.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
        }

        pub const ROOF: (super::Roof, usize) = (roof, 12 * $lanes * 4);
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512_vnni {
    use super::{Ahead, Kernel};
    use crate::backend::cpu::buffer::LINE_BYTES;
    use std::arch::x86_64::*;

    // 12 × 2 accumulators, 2 columns and a broadcast fit the 32 registers.
    dot_kernel!(avx512, "avx512f,avx512vnni", _mm512_dpbusd_epi32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    dot_roof!(avx512, "avx512f,avx512vnni", _mm512_dpbusd_epi32);
}

#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use super::{Ahead, Kernel};
    use crate::backend::cpu::buffer::LINE_BYTES;
    use std::arch::x86_64::*;

    // 6 × 2 accumulators, 2 columns and a broadcast fit the 16 registers.
    dot_kernel!(avx2, "avx2,avxvnni", _mm256_dpbusd_avx_epi32, [1, 2, 3, 4, 5, 6]);
    dot_roof!(avx2, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Ahead, Kernel};
    use crate::backend::cpu::buffer::LINE_BYTES;
    use std::arch::x86_64::*;

    /// Four products per lane, exact: even and odd bytes become 16 bits, and a pair of their products
    /// fits 32.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        let even = _mm256_madd_epi16(
            _mm256_and_si256(a, _mm256_set1_epi16(0xff)),
            _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)),
        );
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
        _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
    }

    // 4 × 2 accumulators, 2 columns as two halves each, and a row's two halves fit the 16 registers.
    dot_kernel!(avx2, "avx2", dot, [1, 2, 3, 4]);
    dot_roof!(avx2, "avx2", dot);
}

mod portable {
    use super::{Ahead, Kernel};
    use crate::backend::cpu::buffer::LINE_BYTES;

    pub const NR: usize = 8;

    /// # Safety
    /// See [`super::Kernel`].
    unsafe fn kernel<const R: usize>(quads: usize, a: *const u8, b: *const i8, tile: *mut i32, _: Ahead) {
        // SAFETY: these are the extents that the caller promises; `tile` overlaps neither input.
        let (a, b, tile) = unsafe {
            (
                std::slice::from_raw_parts(a, (quads * 4).div_ceil(LINE_BYTES) * R * LINE_BYTES),
                std::slice::from_raw_parts(b, quads * 4 * NR),
                std::slice::from_raw_parts_mut(tile, R * NR),
            )
        };
        let mut sums = [[0i32; NR]; R];
        for (lines, columns) in a.chunks_exact(R * LINE_BYTES).zip(b.chunks(LINE_BYTES * NR)) {
            for (step, columns) in columns.chunks_exact(4 * NR).enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = &lines[r * LINE_BYTES + step * 4..][..4];
                    for (sum, column) in sums.iter_mut().zip(columns.chunks_exact(4)) {
                        for (x, w) in x.iter().zip(column) {
                            *sum += i32::from(*x) * i32::from(*w);
                        }
                    }
                }
            }
        }
        tile.iter_mut().zip(sums.iter().flatten()).for_each(|(to, sum)| *to = *sum);
    }

    pub static KERNELS: [Kernel; 4] = [kernel::<1>, kernel::<2>, kernel::<3>, kernel::<4>];

    /// # Safety
    /// None: every processor runs it.
    unsafe fn roof(rounds: usize) -> i32 {
        let mut sums = [0i32; 32];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(3).wrapping_add(1));
        }
        sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
    }

    pub const ROOF: (super::Roof, usize) = (roof, 32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::{Buffer, LINE_BYTES};
    use crate::backend::cpu::kernel::Tile;
    use crate::model::recipe;

    /// Bytes of a fixed pattern.
    fn noise(name: &str, len: usize) -> Vec<u8> {
        let seed = recipe::fnv1a64(name.as_bytes());
        (0..len as u64)
            .map(|i| ((seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) >> 13) as u8)
            .collect()
    }

    /// Row-major bytes through a kernel's layout, row by column.
    fn multiply(isa: Isa, a: &[u8], b: &[i8], rows: usize, k: usize, cols: usize) -> Vec<i32> {
        let kernels = DotKernels::of(isa);
        let (nr, quads, lines) = (kernels.cols, k.div_ceil(4), k.div_ceil(LINE_BYTES));
        let mut out = vec![0; rows * cols];
        let mut tile = Tile::new();
        for top in (0..rows).step_by(kernels.rows()) {
            let height = kernels.rows().min(rows - top);
            let mut packed_a = Buffer::<u8>::zeroed(lines * height * LINE_BYTES);
            // What lies beyond k must not matter, since B is zero there.
            packed_a.fill(0xa5);
            for r in 0..height {
                for i in 0..k {
                    packed_a[(i / LINE_BYTES * height + r) * LINE_BYTES + i % LINE_BYTES] =
                        a[(top + r) * k + i];
                }
            }
            for left in (0..cols).step_by(nr) {
                let mut packed_b = Buffer::<i8>::zeroed(quads * 4 * nr);
                for c in left..cols.min(left + nr) {
                    for i in 0..k {
                        packed_b[(i / 4 * nr + c - left) * 4 + i % 4] = b[c * k + i];
                    }
                }
                // SAFETY: the buffers have the extents that the kernel asks for.
                unsafe {
                    kernels.for_rows(height)(
                        quads,
                        packed_a.as_ptr(),
                        packed_b.as_ptr(),
                        tile.0.as_mut_ptr(),
                        Ahead::NOTHING,
                    )
                };
                for r in 0..height {
                    for c in left..cols.min(left + nr) {
                        out[(top + r) * cols + c] = tile.0[r * nr + c - left];
                    }
                }
            }
        }
        out
    }

    #[test]
    fn every_instruction_set_gives_the_portable_sums_bit_by_bit() {
        let shapes =
            [(1, 1, 1), (1, 768, 33), (2, 17, 5), (5, 64, 32), (13, 131, 31), (37, 600, 64), (50, 3, 7)];
        let portable = *Isa::available().last().unwrap();
        for (rows, k, cols) in shapes {
            let a = noise("a", rows * k);
            let b: Vec<i8> = noise("b", cols * k).iter().map(|v| (*v as i8).max(-127)).collect();
            let mut exact = vec![0i32; rows * cols];
            for (i, sum) in exact.iter_mut().enumerate() {
                let (row, column) = (&a[i / cols * k..][..k], &b[i % cols * k..][..k]);
                *sum = row.iter().zip(column).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum();
            }
            assert_eq!(multiply(portable, &a, &b, rows, k, cols), exact, "portable {rows}x{k}x{cols}");
            for isa in Isa::available() {
                assert_eq!(multiply(isa, &a, &b, rows, k, cols), exact, "{} {rows}x{k}x{cols}", isa.name());
            }
        }
    }

    #[test]
    fn no_path_saturates_at_the_largest_bytes() {
        // The longest row that a published model has, and beyond.
        let (rows, k, cols) = (7, 5000, 19);
        for isa in Isa::available() {
            for (x, w) in [(255, 127), (255, -127), (1, -127), (0, 127), (128, -128)] {
                let sums = multiply(isa, &vec![x; rows * k], &vec![w; cols * k], rows, k, cols);
                let exact = i32::from(x) * i32::from(w) * k as i32;
                assert!(sums.iter().all(|sum| *sum == exact), "{} {x}·{w}", isa.name());
            }
            // Opposite signs side by side: where 16-bit pairs would saturate and cancel wrongly.
            let w: Vec<i8> = (0..cols * k).map(|i| if i % 4 < 2 { 127 } else { -127 }).collect();
            let sums = multiply(isa, &vec![255; rows * k], &w, rows, k, cols);
            assert!(sums.iter().all(|sum| *sum == 0), "{}", isa.name());
        }
    }
}
