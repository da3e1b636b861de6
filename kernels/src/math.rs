//! Branch-free scalar functions that the compiler can vectorise: call them in the loops of a
//! [`multiversion!`](crate::multiversion) function. All are `inline(always)`, use no table and no fused
//! multiply-add, and give the same bits at every vector width.
//!
//! Polynomials are least-squares fits at Chebyshev nodes, weighted by the relative error of the result.

/// Adding and taking away 1.5 * 2^23 rounds an f32 of magnitude below 2^22 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// `a` if `condition`, else `b`, as a mask: both sides are always computed.
#[inline(always)]
fn select(condition: bool, a: f32, b: f32) -> f32 {
    let mask = 0u32.wrapping_sub(u32::from(condition));
    f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// e^x, within 2 units in the last place, subnormal results included.
///
/// Exactly 0 from -104 down (e^x is then below half the smallest subnormal), infinity where f32 overflows,
/// 1 at 0, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 is split in two so that n times its first part is exact
/// (Cody and Waite, "Software Manual for the Elementary Functions", 1980, section 6).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const HIGH: f32 = 355.0 / 512.0;
    const LOW: f32 = -2.121_944_4e-4;
    // Comparisons with NaN are false, so NaN passes through.
    let x = select(x < -104.0, -104.0, x);
    let x = select(x > 89.0, 89.0, x);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * HIGH) - n * LOW;
    let q = 1.394_613_4e-3 + r * 1.982_646e-4;
    let q = 8.333_431e-3 + r * q;
    let q = 4.166_627e-2 + r * q;
    let q = 1.666_666_6e-1 + r * q;
    let q = 0.5 + r * q;
    let p = 1.0 + (r + (r * r) * q);
    // Two factors, since 2^n itself may be subnormal or infinite. The first product is exact.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// The error function 2/sqrt(pi) * integral of e^(-t^2) from 0 to x, within 2 units in the last place.
///
/// Odd, exactly 1 in magnitude from 4 on, NaN for NaN. Below 1 it is x + x P(x^2); above, 1 - e^(Q(|x|)) with
/// Q a polynomial for ln erfc.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let p = 1.127_473_8e-4 + s * -9.689_741e-6;
    let p = -8.485_439e-4 + s * p;
    let p = 5.221_138_7e-3 + s * p;
    let p = -2.686_547_5e-2 + s * p;
    let p = 1.128_378_36e-1 + s * p;
    let p = -3.761_263_8e-1 + s * p;
    let p = 1.283_791_7e-1 + s * p;
    let small = x + x * p;

    let t = select(t > 4.0, 4.0, t);
    let q = 4.425_816_4e-4 + t * -2.178_802_2e-5;
    let q = -4.210_991e-3 + t * q;
    let q = 2.522_631_2e-2 + t * q;
    let q = -1.084_483_7e-1 + t * q;
    let q = -6.331_91e-1 + t * q;
    let q = -1.129_593_7 + t * q;
    let q = 1.914_383_5e-4 + t * q;
    let large = (1.0 - exp(q)).copysign(x);
    select(t > 1.0, large, small)
}

/// The normal distribution function: the probability that a standard normal value is at most x.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// The standard normal density e^(-x^2/2) / sqrt(2 pi).
#[inline(always)]
pub fn normal_density(x: f32) -> f32 {
    const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
    exp(-0.5 * x * x) * INVERSE_ROOT_TAU
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::reference::erf as erf_reference;

    fn units(actual: f32, oracle: f64) -> f64 {
        let ulp = (oracle.abs() as f32).max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000;
        let ulp = f64::from(f32::from_bits(ulp)) * f64::from(f32::EPSILON);
        (f64::from(actual) - oracle).abs() / ulp
    }

    /// Every 501st f32 in the range of interest.
    fn sweep(limit: f32) -> impl Iterator<Item = f32> {
        (0..limit.to_bits()).step_by(501).map(f32::from_bits).flat_map(|x| [x, -x])
    }

    #[test]
    fn exp_is_within_two_units() {
        let worst =
            sweep(110.0).filter(|x| *x < 88.7).map(|x| units(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        for x in [-104.0, -1e10, f32::NEG_INFINITY] {
            assert_eq!(exp(x).to_bits(), 0, "exp({x})");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_two_units() {
        let mut worst = (0.0, 0.0);
        for x in sweep(6.0) {
            let e = units(erf(x), erf_reference(f64::from(x)));
            if e > worst.0 {
                worst = (e, x);
            }
        }
        assert!(worst.0 <= 2.0, "{worst:?}");
        assert_eq!(erf(f32::INFINITY), 1.0);
        assert_eq!(erf(-1e30), -1.0);
        assert_eq!(erf(-0.0).to_bits(), (-0.0f32).to_bits());
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn normal_distribution() {
        assert_eq!(normal_cdf(0.0), 0.5);
        assert!((normal_cdf(1.0) - 0.841_344_7).abs() < 2e-7);
        assert!((normal_density(1.0) - 0.241_970_72).abs() < 1e-7);
    }
}
