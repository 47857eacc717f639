//! QuickGELU of what becomes bytes: a parabola for each of 32 ranges, looked up in registers; half the
//! instructions of the exact one.
//!
//! x·sigmoid(1.702·x) = x/2 + e(|x|); the parabolas have the least largest error to e. All is within 5e-5, a
//! hundredth of a row's step where its largest value is 1, and within 9e-5 beyond |x| = 6.6, where the result
//! is taken for x or 0. Instruction sets without such a lookup take the exact function.

use super::buffer::LINE;
use super::isa::{Isa, Level};

/// QuickGELU of every value, in place; near enough for bytes.
pub type Function = fn(&mut [[f32; LINE]]);

/// The function for this instruction set, if it has one.
pub fn quick_gelu(isa: Isa) -> Option<Function> {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level exists only after detection (see Isa).
        Level::Avx512 | Level::Avx512Vnni => Some(|lines| unsafe { avx512::quick_gelu(lines) }),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => None,
        Level::Portable => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use crate::backend::cpu::buffer::LINE;
    use crate::backend::cpu::isa::ROUND;
    use std::arch::x86_64::*;

    /// Range i is that of i = round(RATE·|x|), the last one has no end.
    const RATE: f32 = 4.6;
    /// Any |x| of the last range.
    const LAST: f32 = 6.7;
    /// e(|x|) = a + |x|·(b + |x|·c)
    static A: [[f32; LINE]; 2] = [
        [
            0.0,
            -0.000_552_633_1,
            -0.008_792_909,
            -0.036_866_02,
            -0.089_130_27,
            -0.157_424_4,
            -0.226_805_3,
            -0.283_769_8,
            -0.320_757_6,
            -0.336_341_1,
            -0.333_214_9,
            -0.315_988_9,
            -0.289_531_1,
            -0.258_096_1,
            -0.224_984_2,
            -0.192_523,
        ],
        [
            -0.162_202_1,
            -0.134_855_9,
            -0.110_843_3,
            -0.090_199_42,
            -0.072_755_11,
            -0.058_224_91,
            -0.046_268_99,
            -0.036_534_42,
            -0.028_681_21,
            -0.022_397_14,
            -0.017_405_08,
            -0.013_465_19,
            -0.010_374_04,
            -0.007_961_802,
            -0.006_088_609,
            0.0,
        ],
    ];
    static B: [[f32; LINE]; 2] = [
        [
            0.0,
            0.007_899_9,
            0.056_836_55,
            0.159_553_9,
            0.297_152_6,
            0.437_396_9,
            0.554_132_2,
            0.635_317_6,
            0.681_077_6,
            0.698_181_6,
            0.695_282_3,
            0.680_246_4,
            0.659_096_3,
            0.635_954_6,
            0.613_374,
            0.592_759_4,
        ],
        [
            0.574_744_4,
            0.559_480_7,
            0.546_843_3,
            0.536_566_2,
            0.528_327_3,
            0.521_799_6,
            0.516_678_3,
            0.512_694,
            0.509_616_6,
            0.507_254_6,
            0.505_451_9,
            0.504_082_9,
            0.503_047_8,
            0.502_268_5,
            0.501_683_8,
            0.5,
        ],
    ];
    static C: [[f32; LINE]; 2] = [
        [
            0.424_497_8,
            0.396_126_2,
            0.322_887_7,
            0.228_624,
            0.137_906_1,
            0.065_834_57,
            0.016_699_57,
            -0.012_239_72,
            -0.026_397_28,
            -0.031_091_07,
            -0.030_420_05,
            -0.027_138_44,
            -0.022_910_99,
            -0.018_651_33,
            -0.014_801_2,
            -0.011_528_04,
        ],
        [
            -0.008_851_918,
            -0.006_721_843,
            -0.005_059_036,
            -0.003_779_884,
            -0.002_807_033,
            -0.002_073_859,
            -0.001_525_42,
            -0.001_117_709,
            -0.000_816_208_4,
            -0.000_594_254_3,
            -0.000_431_500_4,
            -0.000_312_567_7,
            -0.000_225_922_8,
            -0.000_162_972_5,
            -0.000_117_349_2,
            0.0,
        ],
    ];

    #[target_feature(enable = "avx512f")]
    pub fn quick_gelu(lines: &mut [[f32; LINE]]) {
        // SAFETY (all): the arrays have a vector's values.
        let table = |t: &[[f32; LINE]; 2]| unsafe {
            (_mm512_loadu_ps(t[0].as_ptr()), _mm512_loadu_ps(t[1].as_ptr()))
        };
        let (a, b, c) = (table(&A), table(&B), table(&C));
        let (rate, last) = (_mm512_set1_ps(RATE), _mm512_set1_ps(LAST));
        // A lookup takes the low bits.
        let (round, half) = (_mm512_set1_ps(ROUND), _mm512_set1_ps(0.5));
        for line in lines {
            let x = unsafe { _mm512_loadu_ps(line.as_ptr()) };
            let far = _mm512_abs_ps(x);
            let range = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_min_ps(far, last), rate, round));
            let of = |(low, high)| _mm512_permutex2var_ps(low, range, high);
            let e = _mm512_fmadd_ps(_mm512_fmadd_ps(of(c), far, of(b)), far, of(a));
            unsafe { _mm512_storeu_ps(line.as_mut_ptr(), _mm512_fmadd_ps(x, half, e)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_near_the_exact_function_everywhere_and_keeps_what_is_no_number() {
        let inputs: Vec<[f32; LINE]> = (0..50_000)
            .map(|i| std::array::from_fn(|lane| ((i * LINE + lane) as f32 - 400_000.0) * 1e-4))
            .collect();
        for isa in Isa::available() {
            let Some(quick_gelu) = quick_gelu(isa) else {
                println!("{} has none", isa.name());
                continue;
            };
            let mut values = inputs.clone();
            quick_gelu(&mut values);
            for (x, y) in inputs.iter().flatten().zip(values.iter().flatten()) {
                let exact = *x as f64 / (1.0 + (-1.702 * *x as f64).exp());
                let bound = if x.abs() < 6.6 { (2.5e-4 * x.abs() as f64).min(5e-5) } else { 9e-5 };
                assert!(
                    (*y as f64 - exact).abs() <= bound + 1e-9,
                    "{}: {x} → {y}, exact {exact}",
                    isa.name()
                );
            }
            let mut odd = [[f32::NAN; LINE], [f32::INFINITY; LINE], [-f32::NAN; LINE], [3e38; LINE]];
            quick_gelu(&mut odd);
            assert!(odd[..3].iter().flatten().all(|y| !y.is_finite()), "{}: {odd:?}", isa.name());
            assert_eq!(odd[3], [3e38; LINE]);
        }
    }
}
