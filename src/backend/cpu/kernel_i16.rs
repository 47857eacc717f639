//! The innermost loop of attention beside int8 products: as `kernel_i8`, with pairs of 16-bit numbers where
//! that has four bytes. `tile[R][NR] = A[R][k] · B[k][NR]`: A in lines of 16 pairs, B a panel
//! `[k/2][NR][2]`. Twice the rate of f32. Who makes the numbers sees to it that no sum overflows
//! (`attention_i16`), so all paths give the same bits.

use super::isa::{Isa, Level};
use super::kernel::Kernels;
use super::kernel_i8::Kernel;

/// A pair counts as a quad of [`Kernel`].
pub type PairKernels = Kernels<Kernel, ()>;

/// The largest number that either side may have so that a sum of `terms` products stays within ±2^30.
pub fn limit(terms: usize) -> f32 {
    (((1u32 << 30) as f32 / terms.max(1) as f32).sqrt() - 1.0).floor().clamp(1.0, i16::MAX as f32)
}

impl PairKernels {
    pub fn of(isa: Isa) -> Self {
        let (cols, by_rows): (_, &'static [Kernel]) = match isa.level() {
            Level::Portable => (portable::NR, &portable::KERNELS),
            // As in `kernel_i8`.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => (avx2::NR, avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => (avx_vnni::NR, avx_vnni::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => (avx512_vnni::NR, avx512_vnni::KERNELS),
        };
        Self { cols, by_rows, roof: ((), 0) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512_vnni {
    use crate::backend::cpu::buffer::LINE_BYTES;
    use crate::backend::cpu::kernel::Ahead;
    use crate::backend::cpu::kernel_i8::{Kernel, dot_kernel};
    use std::arch::x86_64::*;

    // 12 × 2 accumulators, 2 columns and a broadcast fit the 32 registers.
    dot_kernel!(avx512, "avx512f,avx512vnni", _mm512_dpwssd_epi32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use crate::backend::cpu::buffer::LINE_BYTES;
    use crate::backend::cpu::kernel::Ahead;
    use crate::backend::cpu::kernel_i8::{Kernel, dot_kernel};
    use std::arch::x86_64::*;

    // 6 × 2 accumulators, 2 columns and a broadcast fit the 16 registers.
    dot_kernel!(avx2, "avx2,avxvnni", _mm256_dpwssd_avx_epi32, [1, 2, 3, 4, 5, 6]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use crate::backend::cpu::buffer::LINE_BYTES;
    use crate::backend::cpu::kernel::Ahead;
    use crate::backend::cpu::kernel_i8::{Kernel, dot_kernel};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    #[inline]
    fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
    }

    // 5 × 2 accumulators, 2 columns, a broadcast and its products fit the 16 registers.
    dot_kernel!(avx2, "avx2", dot, [1, 2, 3, 4, 5]);
}

mod portable {
    use crate::backend::cpu::buffer::LINE_BYTES;
    use crate::backend::cpu::kernel::Ahead;
    use crate::backend::cpu::kernel_i8::Kernel;

    pub const NR: usize = 8;

    /// # Safety
    /// See [`Kernel`].
    unsafe fn kernel<const R: usize>(pairs: usize, a: *const u8, b: *const i8, tile: *mut i32, _: Ahead) {
        const PAIRS: usize = LINE_BYTES / 4;
        // SAFETY: these are the extents that the caller promises, on a vector's bytes at least; `tile`
        // overlaps neither input.
        let (a, b, tile) = unsafe {
            (
                std::slice::from_raw_parts(a.cast::<[i16; 2]>(), pairs.div_ceil(PAIRS) * R * PAIRS),
                std::slice::from_raw_parts(b.cast::<[i16; 2]>(), pairs * NR),
                std::slice::from_raw_parts_mut(tile, R * NR),
            )
        };
        let mut sums = [[0i32; NR]; R];
        for (lines, columns) in a.chunks_exact(R * PAIRS).zip(b.chunks(PAIRS * NR)) {
            for (step, columns) in columns.chunks_exact(NR).enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = lines[r * PAIRS + step];
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum +=
                            i32::from(x[0]) * i32::from(column[0]) + i32::from(x[1]) * i32::from(column[1]);
                    }
                }
            }
        }
        tile.iter_mut().zip(sums.iter().flatten()).for_each(|(to, sum)| *to = *sum);
    }

    pub static KERNELS: [Kernel; 4] = [kernel::<1>, kernel::<2>, kernel::<3>, kernel::<4>];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::buffer::{Buffer, LINE};
    use crate::backend::cpu::kernel::{Ahead, Tile};

    fn run(kernels: PairKernels, rows: usize, pairs: usize, a: &Buffer<i32>, b: &Buffer<i32>) -> Vec<i32> {
        let mut tile = Tile::new();
        // SAFETY: the callers' buffers have the extents that the kernel asks for, and start on lines.
        unsafe {
            kernels.for_rows(rows)(
                pairs,
                a.as_ptr().cast(),
                b.as_ptr().cast(),
                tile.0.as_mut_ptr(),
                Ahead::NOTHING,
            )
        };
        tile.0[..rows * kernels.cols].to_vec()
    }

    #[test]
    fn every_instruction_set_gives_the_exact_sums_up_to_the_limit() {
        for pairs in [1, 2, 16, 17, 32, 103] {
            let most = limit(2 * pairs) as i64;
            assert!(2 * pairs as i64 * most * most < 1 << 30 && most > 1000);
            for isa in Isa::available() {
                let kernels = PairKernels::of(isa);
                for (x, w) in [(most, most), (most, -most)] {
                    let pack = |x: i64| i32::from(x as u16) | (x as i32) << 16;
                    let (mut lines, mut panel) =
                        (Buffer::zeroed(pairs.div_ceil(LINE) * LINE), Buffer::zeroed(pairs * kernels.cols));
                    lines.fill(pack(x));
                    panel.fill(pack(w));
                    for sum in run(kernels, 1, pairs, &lines, &panel) {
                        assert_eq!(sum as i64, 2 * pairs as i64 * x * w, "{} {pairs}", isa.name());
                    }
                }
            }
            let number = |i: usize| match i % 5 {
                0 => most,
                1 => -most,
                _ => (i as i64).wrapping_mul(0x9e37_79b9).rem_euclid(2 * most + 1) - most,
            };
            for isa in Isa::available() {
                let kernels = PairKernels::of(isa);
                let nr = kernels.cols;
                for rows in 1..=kernels.rows() {
                    let a = |r: usize, k: usize| number(r * 211 + k + k / 7);
                    let b = |k: usize, c: usize| number(k * 97 + c * 3 + c / 5);
                    let pack = |low: i64, high: i64| i32::from(low as u16) | (high as i32) << 16;
                    let mut lines = Buffer::<i32>::zeroed(pairs.div_ceil(LINE) * rows * LINE);
                    // What lies beyond k is not looked at.
                    lines.fill(0x7fff_7fff);
                    let mut panel = Buffer::<i32>::zeroed(pairs * nr);
                    for k in 0..pairs {
                        for r in 0..rows {
                            lines[(k / LINE * rows + r) * LINE + k % LINE] =
                                pack(a(r, 2 * k), a(r, 2 * k + 1));
                        }
                        for c in 0..nr {
                            panel[k * nr + c] = pack(b(2 * k, c), b(2 * k + 1, c));
                        }
                    }
                    for (i, sum) in run(kernels, rows, pairs, &lines, &panel).iter().enumerate() {
                        let exact: i64 = (0..2 * pairs).map(|k| a(i / nr, k) * b(k, i % nr)).sum();
                        assert_eq!(*sum as i64, exact, "{} {pairs} {rows} {i}", isa.name());
                    }
                }
            }
        }
    }
}
