//! exp and QuickGELU over lanes: a polynomial that the compiler vectorises, within 2 units in the last
//! place of the exact exp.

use super::isa::{ROUND, mul_add};

/// e^x for x ≤ 88; exactly 0 below −87.3, where the result would leave the normal range.
///
/// 2^n·e^r with n = round(x/ln 2) and |r| ≤ ln 2 / 2; ln 2 is split in two parts so that r is exact to
/// the last place. Coefficients: Cephes' expf.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, clamped);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let y = mul_add::<FMA>(p * r, r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { y * power }
}

/// 2^(x·rate − n) for one rate and one n, the least whole number that leaves no result above 1 but for the
/// rounding of the largest x·rate (1.0906 below 2^22); within 8e-5 of it: what becomes 16 bits needs no more.
/// Results below 2^-120 are about that.
///
/// As in [`quick_gelu`]; the polynomial has the least largest relative error.
#[derive(Clone, Copy)]
pub(super) struct Power {
    rate: f32,
    round: f32,
    least: f32,
}

impl Power {
    /// `largest`: of all x. `rate`: so small that no x·rate is beyond 2^22, but not 0.
    #[inline(always)]
    pub fn new(rate: f32, largest: f32) -> Self {
        let largest = largest * rate;
        Self { rate, round: ROUND - largest.ceil(), least: (largest - 120.0) / rate }
    }

    #[inline(always)]
    pub fn of<const FMA: bool>(&self, x: f32) -> f32 {
        let x = if x > self.least { x } else { self.least };
        let shifted = mul_add::<FMA>(x, self.rate, self.round);
        let f = mul_add::<FMA>(x, self.rate, self.round - shifted);
        let mut p = 5.517_167e-2;
        for c in [2.426_111_3e-1, 6.932_61e-1, 9.999_28e-1] {
            p = mul_add::<FMA>(p, f, c);
        }
        f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
    }
}

/// x·sigmoid(1.702·x), the activation of every MLP of the model; within 4e-7·|x|.
///
/// x/(1 + 2^t) with t = −1.702·log2(e)·x, and 2^t = 2^n·2^f with n = round(t) and |f| ≤ ½. The
/// polynomial in f, exact at 0 to the first order, has the least largest relative error: 1.1e-7. Beyond
/// |x| = 50 the sigmoid stays what it is there, below 1e-36 or 1.
#[inline(always)]
pub(super) fn quick_gelu<const FMA: bool>(x: f32) -> f32 {
    const RATE: f32 = -1.702 * std::f32::consts::LOG2_E;
    let near = if x > -50.0 { x } else { -50.0 };
    let near = if near < 50.0 { near } else { 50.0 };
    let shifted = mul_add::<FMA>(near, RATE, ROUND);
    let f = mul_add::<FMA>(near, RATE, ROUND - shifted);
    let mut p = 1.330_060_5e-3;
    for c in [9.669_691e-3, 5.550_558_5e-2, 2.402_228_3e-1, std::f32::consts::LN_2, 1.0] {
        p = mul_add::<FMA>(p, f, c);
    }
    // n is in the low bits of `shifted`: into the exponent of p.
    let power = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    x * reciprocal::<FMA>(1.0 + power)
}

/// 1/d for 1 ≤ d < 2^125, within 2 units in the last place; a vector's own division takes four times as
/// long.
///
/// The guess, bits taken from a constant, leaves e = 1 − d·r of at most 0.051; r·(1 + e) leaves e², and
/// r·(1 + e + e²) the cube of that.
#[inline(always)]
fn reciprocal<const FMA: bool>(d: f32) -> f32 {
    let r = f32::from_bits(0x7ef3_11c3u32.wrapping_sub(d.to_bits()));
    let r = mul_add::<FMA>(r, mul_add::<FMA>(-d, r, 1.0), r);
    let e = mul_add::<FMA>(-d, r, 1.0);
    mul_add::<FMA>(r, mul_add::<FMA>(e, e, e), r)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::isa::{Isa, per_isa};

    per_isa! { fn exp_all(values: &mut [f32]) = exp_all_body }
    #[inline(always)]
    fn exp_all_body<const FMA: bool>(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = exp::<FMA>(*v));
    }

    per_isa! { fn gelu_all(values: &mut [f32]) = gelu_all_body }
    #[inline(always)]
    fn gelu_all_body<const FMA: bool>(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = quick_gelu::<FMA>(*v));
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let inputs: Vec<f32> = (0..400_000).map(|i| -87.0 + i as f32 * 4.37e-4).collect();
        for isa in Isa::available() {
            let mut values = inputs.clone();
            exp_all(isa, &mut values);
            for (x, y) in inputs.iter().zip(&values) {
                let exact = (*x as f64).exp();
                let relative = (*y as f64 - exact).abs() / exact;
                assert!(relative < 2.4e-7, "{}: exp({x}) = {y}, exact {exact}", isa.name());
            }
            let mut extremes = [f32::NEG_INFINITY, -1e30, -88.0, -0.0, 0.0];
            exp_all(isa, &mut extremes);
            assert_eq!(extremes, [0.0, 0.0, 0.0, 1.0, 1.0], "{}", isa.name());
        }
    }

    per_isa! { fn power_all(values: &mut [f32], power: Power) = power_all_body }
    #[inline(always)]
    fn power_all_body<const FMA: bool>(values: &mut [f32], power: Power) {
        values.iter_mut().for_each(|v| *v = power.of::<FMA>(*v));
    }

    #[test]
    fn powers_are_within_their_bound_and_at_most_one() {
        for (rate, largest) in
            [(1.0, 0.0), (0.125, 900.1), (2.3e-3, -1e6), (1e-30, 1e9), (1.0 / 256.0, 1.07e9)]
        {
            let inputs: Vec<f32> = (0..400_000).map(|i| largest - i as f32 * 2.9e-4 / rate).collect();
            let whole = (largest as f64 * rate as f64).ceil();
            for isa in Isa::available() {
                let mut values = inputs.clone();
                power_all(isa, &mut values, Power::new(rate, largest));
                assert!(values[0] > 0.499 && values[0] < 1.0001, "{}: {rate} {largest}", isa.name());
                for (x, y) in inputs.iter().zip(&values) {
                    // Without a fused multiply-add, the product's own rounding too.
                    let (product, fused) = (*x as f64 * rate as f64, isa.name() != "portable");
                    let bound = 8e-5 + if fused { 0.0 } else { product.abs() * 6e-8 };
                    let exact = (product - whole).exp2();
                    assert!((*y as f64 - exact).abs() < bound * exact, "{}: {rate}·{x}: {y}", isa.name());
                }
                let mut far = [f32::NEG_INFINITY, largest - 1e4 / rate];
                power_all(isa, &mut far, Power::new(rate, largest));
                assert!(far.iter().all(|y| *y > 0.0 && *y < 1e-35), "{}: {far:?}", isa.name());
            }
        }
    }

    per_isa! { fn reciprocals(values: &mut [f32]) = reciprocals_body }
    #[inline(always)]
    fn reciprocals_body<const FMA: bool>(values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = reciprocal::<FMA>(*v));
    }

    #[test]
    fn a_reciprocal_is_within_two_units_in_the_last_place() {
        // Every mantissa's neighbourhood, at exponents from 0 to the largest that a sigmoid takes.
        let inputs: Vec<f32> = (0..0x3e80_0000u32)
            .step_by(0x1235)
            .chain(0..300)
            .map(|i| f32::from_bits(1f32.to_bits() + i))
            .collect();
        for isa in Isa::available() {
            let mut values = inputs.clone();
            reciprocals(isa, &mut values);
            for (d, r) in inputs.iter().zip(&values) {
                let relative = (f64::from(*r) * f64::from(*d) - 1.0).abs();
                assert!(relative < 2.4e-7, "{}: 1/{d} = {r}, off by {relative}", isa.name());
            }
        }
    }

    #[test]
    fn quick_gelu_is_finite_and_right_from_far_below_to_far_above() {
        for isa in Isa::available() {
            let inputs = [-1e30f32, -1000.0, -60.0, -5.0, -1.0, -1e-20, 0.0, 0.5, 3.0, 60.0, 1e30];
            let mut values = inputs;
            gelu_all(isa, &mut values);
            for (x, y) in inputs.iter().zip(values) {
                let x = *x as f64;
                let exact = x / (1.0 + (-1.702 * x).exp());
                assert!((y as f64 - exact).abs() <= 4e-7 * x.abs().min(1e30), "{}: {x} → {y}", isa.name());
            }
            let mut extremes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            gelu_all(isa, &mut extremes);
            assert!(extremes[0].is_nan() && extremes[1] == f32::INFINITY && !extremes[2].is_finite());
        }
    }
}
