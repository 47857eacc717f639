//! The innermost loop: one tile of a matrix product, accumulators in registers.
//!
//! `tile[R][NR] = (tile +) A[R][k] · B[k][NR]`, with A in lines (see `gemm::Lhs`) and B a panel of NR
//! columns (see `gemm::Linear`). Every element is one chain of multiply-adds over k in order, whatever
//! R is: a row's result never depends on the rows beside it.

use super::buffer::{LINE, LINE_BYTES, prefetch};
use super::isa::{Isa, Level};

/// `(k, a, b, tile, add, ahead)`.
///
/// # Safety
/// `a`: ceil(k/16)·R·16 values. `b`: k·NR values, on a cache line. `tile`: R·NR values, on a cache
/// line. `ahead` has its rows' spots. The processor has the kernel's instruction set.
pub type Kernel = unsafe fn(usize, *const f32, *const f32, *mut f32, bool, Ahead);

/// What a kernel asks for on its way, because it is needed next. Asked for all at once it would stand in
/// the way of the sums' own loads.
#[derive(Clone, Copy)]
// The portable kernels ask for nothing.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Ahead {
    /// So many cache lines from here on with every line of A's rows.
    pub at: *const u8,
    pub lines: usize,
    /// Where so many rows of the tile go, one with every line of A's rows, as far as there are lines.
    pub spots: *const Spot,
    pub rows: usize,
}

/// Where a row of a tile goes.
#[derive(Clone, Copy)]
pub struct Spot {
    pub at: *mut f32,
    /// Values from a line to the next.
    pub step: usize,
}

impl Ahead {
    pub const NOTHING: Self = Self { at: std::ptr::null(), lines: 0, spots: std::ptr::null(), rows: 0 };

    /// # Safety
    /// There are `rows` spots.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    #[inline(always)]
    pub(super) unsafe fn step<const NR: usize>(&mut self) {
        for _ in 0..self.lines {
            prefetch::<false>(self.at);
            self.at = self.at.wrapping_add(LINE_BYTES);
        }
        if self.rows > 0 {
            // SAFETY: the caller's promise.
            let spot = unsafe { *self.spots };
            for c in (0..NR).step_by(LINE) {
                prefetch::<true>(spot.column(c));
            }
            (self.spots, self.rows) = (self.spots.wrapping_add(1), self.rows - 1);
        }
    }
}

impl Spot {
    pub const NOWHERE: Self = Self { at: std::ptr::null_mut(), step: 0 };

    /// Column `c` of the panel.
    #[inline(always)]
    pub fn column(&self, c: usize) -> *mut f32 {
        self.at.wrapping_add(c / LINE * self.step + c % LINE)
    }
}

/// `(rounds)`: multiply-adds in registers only, to measure the roof; returns something that depends on
/// all of them.
///
/// # Safety
/// The processor has the instruction set.
pub type Roof = unsafe fn(usize) -> f32;

/// Rows of the tallest tile of any instruction set.
pub const MAX_ROWS: usize = 14;
/// Columns of the widest panel of any instruction set.
pub const MAX_COLS: usize = 32;

/// A tile's memory.
#[repr(C, align(64))]
pub struct Tile<T>(pub [T; MAX_ROWS * MAX_COLS]);

impl<T: Copy + Default> Tile<T> {
    pub fn new() -> Self {
        Tile([T::default(); MAX_ROWS * MAX_COLS])
    }
}

/// The kernels of one instruction set for one kind of numbers: K multiplies, R measures the roof, `()` where
/// nobody asks for it.
#[derive(Clone, Copy)]
pub struct Kernels<K: 'static, R: 'static> {
    /// NR, columns of a panel; a multiple or a divisor of 16.
    pub cols: usize,
    /// Index R-1: the kernel for tiles of R rows.
    pub(super) by_rows: &'static [K],
    /// With its multiply-adds per round.
    pub roof: (R, usize),
}

impl<K: Copy, R> Kernels<K, R> {
    /// MR, rows of the tallest tile.
    pub fn rows(&self) -> usize {
        self.by_rows.len()
    }

    #[inline(always)]
    pub fn for_rows(&self, rows: usize) -> K {
        self.by_rows[rows - 1]
    }
}

pub type F32Kernels = Kernels<Kernel, Roof>;

impl F32Kernels {
    pub fn of(isa: Isa) -> Self {
        let (cols, by_rows, roof): (_, &'static [Kernel], _) = match isa.level() {
            Level::Portable => (portable::NR, &portable::KERNELS, portable::ROOF),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => (avx2::NR, &avx2::KERNELS, avx2::ROOF),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni => (avx512::NR, &avx512::KERNELS, avx512::ROOF),
        };
        Self { cols, by_rows, roof }
    }
}

/// Stamps a kernel generic over R out of vector operations; `$w` vectors of `$lanes` make a panel row.
#[cfg(target_arch = "x86_64")]
macro_rules! simd_kernel {
    ($feature:literal, $lanes:literal, $w:literal, $zero:expr, $load:ident, $store:ident, $set1:ident, $fma:ident, $add:ident, $storeu:ident) => {
        pub const NR: usize = $lanes * $w;

        /// # Safety
        /// See [`super::Kernel`].
        #[target_feature(enable = $feature)]
        unsafe fn kernel<const R: usize>(
            k: usize,
            a: *const f32,
            b: *const f32,
            tile: *mut f32,
            add: bool,
            ahead: Ahead,
        ) {
            // SAFETY: every address below is within the extents that the caller promises.
            unsafe {
                let mut sums = [[$zero; $w]; R];
                let (mut a, mut b, mut ahead) = (a, b, ahead);
                let mut left = k;
                while left > 0 {
                    ahead.step::<NR>();
                    let steps = left.min(LINE);
                    for step in 0..steps {
                        let mut columns = [$zero; $w];
                        for w in 0..$w {
                            columns[w] = $load(b.add(w * $lanes));
                        }
                        for r in 0..R {
                            let x = $set1(*a.add(r * LINE + step));
                            for w in 0..$w {
                                sums[r][w] = $fma(x, columns[w], sums[r][w]);
                            }
                        }
                        b = b.add(NR);
                    }
                    a = a.add(R * LINE);
                    left -= steps;
                }
                for r in 0..R {
                    for w in 0..$w {
                        let to = tile.add(r * NR + w * $lanes);
                        let sum = if add { $add($load(to), sums[r][w]) } else { sums[r][w] };
                        $store(to, sum);
                    }
                }
            }
        }

        /// # Safety
        /// See [`Roof`](super::Roof).
        #[target_feature(enable = $feature)]
        unsafe fn roof(rounds: usize) -> f32 {
            // Twelve chains cover the latency of two multiply-add units.
            let (x, y) = ($set1(0.5), $set1(0.25));
            let mut sums = [$zero; 12];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(*sum, x, y);
                }
            }
            let mut total = $zero;
            for sum in sums {
                total = $add(total, sum);
            }
            let mut lanes = [0f32; 16];
            // SAFETY: 16 lanes hold the widest vector.
            unsafe { $storeu(lanes.as_mut_ptr(), total) };
            lanes.iter().sum()
        }

        pub const ROOF: (super::Roof, usize) = (roof, 12 * $lanes);
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Ahead, Kernel, LINE};
    use std::arch::x86_64::*;

    // 12 × 2 accumulators, 2 columns and a broadcast fit the 32 registers.
    simd_kernel!(
        "avx512f",
        16,
        2,
        _mm512_setzero_ps(),
        _mm512_load_ps,
        _mm512_store_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_storeu_ps
    );

    pub static KERNELS: [Kernel; 12] = [
        kernel::<1>,
        kernel::<2>,
        kernel::<3>,
        kernel::<4>,
        kernel::<5>,
        kernel::<6>,
        kernel::<7>,
        kernel::<8>,
        kernel::<9>,
        kernel::<10>,
        kernel::<11>,
        kernel::<12>,
    ];
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Ahead, Kernel, LINE};
    use std::arch::x86_64::*;

    // 6 × 2 accumulators, 2 columns and a broadcast fit the 16 registers.
    simd_kernel!(
        "avx2,fma",
        8,
        2,
        _mm256_setzero_ps(),
        _mm256_load_ps,
        _mm256_store_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_storeu_ps
    );

    pub static KERNELS: [Kernel; 6] =
        [kernel::<1>, kernel::<2>, kernel::<3>, kernel::<4>, kernel::<5>, kernel::<6>];
}

mod portable {
    use super::{Ahead, Kernel, LINE};

    pub const NR: usize = 8;

    /// # Safety
    /// See [`super::Kernel`].
    unsafe fn kernel<const R: usize>(
        k: usize,
        a: *const f32,
        b: *const f32,
        tile: *mut f32,
        add: bool,
        _: Ahead,
    ) {
        // SAFETY: these are the extents that the caller promises; `tile` overlaps neither input.
        let (a, b, tile) = unsafe {
            (
                std::slice::from_raw_parts(a, k.div_ceil(LINE) * R * LINE),
                std::slice::from_raw_parts(b, k * NR),
                std::slice::from_raw_parts_mut(tile, R * NR),
            )
        };
        let mut sums = [[0f32; NR]; R];
        for (lines, columns) in a.chunks_exact(R * LINE).zip(b.chunks(LINE * NR)) {
            for (step, columns) in columns.chunks_exact(NR).enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = lines[r * LINE + step];
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum += x * column;
                    }
                }
            }
        }
        for (to, sum) in tile.iter_mut().zip(sums.iter().flatten()) {
            *to = if add { *to + sum } else { *sum };
        }
    }

    pub static KERNELS: [Kernel; 4] = [kernel::<1>, kernel::<2>, kernel::<3>, kernel::<4>];

    /// # Safety
    /// None: every processor runs it.
    unsafe fn roof(rounds: usize) -> f32 {
        let mut sums = [0f32; 32];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = *sum * 0.5 + 0.25);
        }
        sums.iter().sum()
    }

    pub const ROOF: (super::Roof, usize) = (roof, 32);
}
