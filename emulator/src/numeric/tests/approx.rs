//! Approximations over 2^20 operands each against float64 library functions, within the manual's bounds.

use super::oracle::Random;
use crate::numeric::approx::*;
use crate::numeric::half;

/// The manual's bounds for one instruction: (largest magnitude of the operand, error).
fn bounds(instruction: &str) -> Vec<(f64, Error)> {
    let found: Vec<_> = BOUNDS
        .iter()
        .filter(|bound| bound.0 == instruction)
        .map(|&(_, range, error)| (range, error))
        .collect();
    assert!(!found.is_empty(), "{instruction} has no bound");
    found
}

/// The distance of neighbouring float32 values around a result.
fn ulp(exact: f64) -> f64 {
    let exponent = exact.abs().log2().floor().clamp(-126.0, 127.0);
    2f64.powf(exponent - 23.0)
}

fn within(result: f64, exact: f64, error: Error) -> bool {
    let distance = (result - exact).abs();
    match error {
        _ if result == exact => true,
        // Past the largest finite value, infinity is correct rounding.
        Error::Ulps(_) if exact.abs() >= f32::MAX as f64 => result.abs() >= f32::MAX as f64,
        // From the correctly rounded result.
        Error::Ulps(ulps) => (result - exact as f32 as f64).abs() <= ulps * ulp(exact),
        Error::Relative(power) => distance <= 2f64.powf(power) * exact.abs(),
        Error::Absolute(power) => distance <= 2f64.powf(power),
    }
}

/// 2^20 operands from all float32 bits, and 2^18 from each given interval.
fn operands(intervals: &[(f32, f32)]) -> impl Iterator<Item = f32> {
    let mut random = Random(8);
    let mut values: Vec<f32> = (0..1 << 20).map(|_| f32::from_bits(random.next() as u32)).collect();
    for &(low, high) in intervals {
        values
            .extend((0..1 << 18).map(|_| low + (high - low) * ((random.next() >> 40) as f32 / 16_777_216.0)));
    }
    values.into_iter().filter(|value| value.is_finite())
}

/// `ftz` variants: the plain function with subnormals flushed on both sides.
fn check_flushed(x: f32, plain: fn(f32) -> f32, flushed: fn(f32) -> f32) {
    let flush = |value: f32| if value.is_subnormal() { 0f32.copysign(value) } else { value };
    assert_eq!(flushed(x).to_bits(), flush(plain(flush(x))).to_bits(), "{x:e}");
}

#[test]
fn ex2() {
    for x in operands(&[(-1.0, 1.0), (-150.0, 128.0), (-150.0, -120.0), (0.0, 1e-6)]) {
        let (result, exact) = (ex2_approx(x), (x as f64).exp2());
        assert!(
            bounds("ex2.approx.f32").iter().all(|&(_, error)| within(result as f64, exact, error)),
            "{x:e} {result:e}"
        );
        check_flushed(x, ex2_approx, ex2_approx_ftz);
    }
    // Integers are exact, and the older manuals' bound of 2^-22.5 holds where results are normal.
    for power in -149..128 {
        assert_eq!(ex2_approx(power as f32) as f64, 2f64.powi(power));
    }
    for x in operands(&[(-126.0, 128.0), (-1.0, 1.0)]).filter(|x| (-126.0..128.0).contains(x)) {
        assert!(within(ex2_approx(x) as f64, (x as f64).exp2(), Error::Relative(-22.5)), "{x:e}");
    }
    assert_eq!(
        [ex2_approx(-0.0), ex2_approx(0.0), ex2_approx(-f32::INFINITY), ex2_approx(f32::INFINITY)],
        [1.0, 1.0, 0.0, f32::INFINITY]
    );
}

#[test]
fn lg2() {
    let [(_, near), (_, far)] = bounds("lg2.approx.f32")[..] else { panic!("two bounds") };
    for x in operands(&[(0.5, 2.0), (0.0, 10.0), (0.999, 1.001)]).map(f32::abs).filter(|&x| x > 0.0) {
        let (result, exact) = (lg2_approx(x) as f64, (x as f64).log2());
        assert!(within(result, exact, if x > 0.5 && x < 2.0 { near } else { far }), "{x:e} {result:e}");
        check_flushed(x, lg2_approx, lg2_approx_ftz);
        assert_eq!(lg2_approx(-x).to_bits(), 0x7FFF_FFFF);
    }
    assert_eq!(
        [lg2_approx(0.0), lg2_approx(-0.0), lg2_approx(f32::INFINITY)],
        [-f32::INFINITY, -f32::INFINITY, f32::INFINITY]
    );
    assert_eq!(lg2_approx_ftz(-1e-45), -f32::INFINITY);
    assert_eq!(lg2_approx(1.0).to_bits(), 0);
}

#[test]
fn roots_and_reciprocals() {
    let [rcp, sqrt, rsqrt] =
        ["rcp.approx.f32", "sqrt.approx.f32", "rsqrt.approx.f32"].map(|name| bounds(name)[0].1);
    for x in operands(&[(0.5, 4.0)]) {
        let wide = x as f64;
        if x != 0.0 {
            assert!(within(rcp_approx(x) as f64, 1.0 / wide, rcp), "{x:e}");
        }
        if x > 0.0 {
            assert!(within(sqrt_approx(x) as f64, wide.sqrt(), sqrt), "{x:e}");
            assert!(within(rsqrt_approx(x) as f64, 1.0 / wide.sqrt(), rsqrt), "{x:e}");
        } else if x < 0.0 {
            assert_eq!([sqrt_approx(x), rsqrt_approx(x)].map(f32::to_bits), [0x7FFF_FFFF; 2]);
        }
        check_flushed(x, rcp_approx, rcp_approx_ftz);
        check_flushed(x, sqrt_approx, sqrt_approx_ftz);
        check_flushed(x, rsqrt_approx, rsqrt_approx_ftz);
    }
    let inf = f32::INFINITY;
    assert_eq!(
        [rcp_approx(-inf), rcp_approx(inf), sqrt_approx(-0.0), rsqrt_approx(inf)].map(f32::to_bits),
        [1 << 31, 0, 1 << 31, 0]
    );
    assert_eq!(
        [rcp_approx(-0.0), rcp_approx(0.0), rsqrt_approx(-0.0), rsqrt_approx(0.0)],
        [-inf, inf, -inf, inf]
    );
    assert_eq!([rcp_approx_ftz(1e-45), rcp_approx_ftz(3e38), sqrt_approx(inf)], [inf, 0.0, inf]);
}

#[test]
fn sine_and_cosine() {
    for (name, approx, exact) in [
        ("sin.approx.f32", sin_approx as fn(f32) -> f32, f64::sin as fn(f64) -> f64),
        ("cos.approx.f32", cos_approx, f64::cos),
    ] {
        let bounds = bounds(name);
        for x in operands(&[(-6.2831855, 6.2831855), (-314.0, 314.0), (-0.01, 0.01)]) {
            let result = approx(x);
            assert!(result.abs() <= 1.000_000_1, "{x:e} {result}");
            for &(range, error) in bounds.iter().filter(|&&(range, _)| (x.abs() as f64) <= range) {
                assert!(within(result as f64, exact(x as f64), error), "{name} {x:e} {result:e} {range}");
            }
        }
        assert!(
            [f32::INFINITY, -f32::INFINITY, f32::NAN].iter().all(|&x| approx(x).to_bits() == 0x7FFF_FFFF)
        );
    }
    for x in operands(&[(-6.0, 6.0)]) {
        check_flushed(x, sin_approx, sin_approx_ftz);
        check_flushed(x, cos_approx, cos_approx_ftz);
    }
    assert_eq!([sin_approx(-0.0), sin_approx(0.0)].map(f32::to_bits), [1 << 31, 0]);
    assert_eq!([cos_approx(-0.0), cos_approx(0.0), cos_approx_ftz(1e-45)], [1.0; 3]);
}

#[test]
fn hyperbolic_tangent() {
    for x in operands(&[(-1.0, 1.0), (-10.0, 10.0), (0.54, 0.56)]) {
        let (result, exact) = (tanh_approx(x), (x as f64).tanh());
        assert!(within(result as f64, exact, bounds("tanh.approx.f32")[0].1), "{x:e} {result:e}");
        // Accurate enough for the 16-bit forms, too.
        assert!(within(result as f64, exact, Error::Relative(-21.0)), "{x:e} {result:e}");
        assert!(!x.is_subnormal() || result == x);
    }
    let inf = f32::INFINITY;
    assert_eq!([tanh_approx(inf), tanh_approx(-inf), tanh_approx(0.0)], [1.0, -1.0, 0.0]);
    assert_eq!([tanh_approx(-0.0), tanh_approx(f32::NAN)].map(f32::to_bits), [1 << 31, 0x7FFF_FFFF]);
}

#[test]
fn sixteen_bits() {
    use half::{bf16_to_f32, f16_to_f32};
    type Case = (&'static str, fn(u16) -> u16, fn(u16) -> f32, fn(f64) -> f64, f64);
    let cases: [Case; 4] = [
        ("ex2.approx.f16", half::f16_ex2, f16_to_f32, f64::exp2, 65504.0),
        ("tanh.approx.f16", half::f16_tanh, f16_to_f32, f64::tanh, 2.0),
        ("ex2.approx.ftz.bf16", half::bf16_ex2, bf16_to_f32, f64::exp2, 3.38e38),
        ("tanh.approx.bf16", half::bf16_tanh, bf16_to_f32, f64::tanh, 2.0),
    ];
    for (name, function, wide, exact, largest) in cases {
        for bits in 0..=u16::MAX {
            let x = wide(bits);
            let result = wide(function(bits)) as f64;
            if x.is_nan() {
                assert_eq!(function(bits), 0x7FFF, "{name}");
                continue;
            }
            let expected = exact(x as f64);
            // Results that are subnormal have fewer bits than a relative bound asks for, and infinity is beyond it.
            let smallest = if name.ends_with("bf16") { f32::MIN_POSITIVE as f64 } else { 6.2e-5 };
            let bounded =
                expected.abs() <= largest && (expected.abs() >= smallest || name.starts_with("tanh"));
            if bounded {
                assert!(within(result, expected, bounds(name)[0].1), "{name} {x:e}: {result:e}");
            } else if expected > largest {
                assert!(result.is_infinite() || result >= largest * 0.99, "{name} {x:e}: {result:e}");
            } else {
                assert!((result - expected).abs() <= smallest, "{name} {x:e}: {result:e}");
            }
        }
    }
    assert_eq!([half::bf16_ex2(0x8001), half::bf16_ex2(0xFF80), half::bf16_ex2(0x7F80)], [0x3F80, 0, 0x7F80]);
    assert_eq!([half::f16_ex2(0x8000), half::f16_ex2(0xFC00), half::f16_ex2(0x7C00)], [0x3C00, 0, 0x7C00]);
    assert_eq!(
        [half::f16_tanh(0x8000), half::f16_tanh(0xFC00), half::bf16_tanh(0x7F80)],
        [0x8000, 0xBC00, 0x3F80]
    );
}

#[test]
fn division() {
    let values: Vec<f32> = operands(&[]).collect();
    let [approx, full] = ["div.approx.f32", "div.full.f32"].map(|name| bounds(name)[0].1);
    let normal = 2f32.powi(-126)..=2f32.powi(126);
    for pair in values.chunks_exact(2) {
        let (a, b) = (pair[0], pair[1]);
        if b == 0.0 {
            continue;
        }
        let exact = a as f64 / b as f64;
        assert!(within(div_full(a, b) as f64, exact, full), "{a:e} {b:e}");
        if normal.contains(&b.abs()) {
            assert!(within(div_approx(a, b) as f64, exact, approx), "{a:e} / {b:e} = {:e}", div_approx(a, b));
        } else if b.abs() > 2f32.powi(126) {
            assert_eq!(div_approx(a, b).to_bits(), (a.to_bits() ^ b.to_bits()) & 1 << 31);
            assert_eq!(div_approx(f32::INFINITY, b).to_bits(), 0x7FFF_FFFF);
        }
        let flush = |value: f32| if value.is_subnormal() { 0f32.copysign(value) } else { value };
        assert_eq!(div_approx_ftz(a, b).to_bits(), flush(div_approx(flush(a), flush(b))).to_bits());
        assert_eq!(div_full_ftz(a, b).to_bits(), flush(div_full(flush(a), flush(b))).to_bits());
    }
    assert_eq!(
        [div_approx(0.0, 0.0), div_approx(1.0, f32::NAN), div_full(0.0, 0.0)].map(f32::to_bits),
        [0x7FFF_FFFF; 3]
    );
    assert_eq!(
        [div_approx(1.0, 0.0), div_approx(-1.0, 0.0), div_approx(1.0, f32::INFINITY)],
        [f32::INFINITY, -f32::INFINITY, 0.0]
    );
}

#[test]
fn float64_approximations() {
    let mut random = Random(9);
    for _ in 0..1 << 18 {
        let x = f64::from_bits(random.next());
        let upper = f64::from_bits(x.to_bits() >> 32 << 32);
        for (result, exact) in
            [(rcp_approx_ftz_f64(x), 1.0 / upper), (rsqrt_approx_ftz_f64(x), 1.0 / upper.sqrt())]
        {
            assert_eq!(result.to_bits() as u32, 0);
            if exact.is_normal() && upper.is_normal() {
                assert!(((result - exact) / exact).abs() <= 2f64.powi(-20), "{x:e}");
            }
        }
    }
    let inf = f64::INFINITY;
    let tiny = f64::MIN_POSITIVE / 4.0;
    assert_eq!(
        [-inf, -tiny, -0.0, 0.0, tiny, inf].map(rcp_approx_ftz_f64),
        [-0.0, -inf, -inf, inf, inf, 0.0]
    );
    assert_eq!([-tiny, -0.0, 0.0, tiny, inf].map(rsqrt_approx_ftz_f64), [-inf, -inf, inf, inf, 0.0]);
    let nans = [rcp_approx_ftz_f64(f64::NAN), rsqrt_approx_ftz_f64(-1.0), rsqrt_approx_ftz_f64(-inf)];
    assert_eq!(nans.map(f64::to_bits), [0x7FFF_FFFF_0000_0000; 3]);
    assert_eq!(rcp_approx_ftz_f64(f64::MAX), 0.0);
}
