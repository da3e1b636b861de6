//! Bias and GELU in its three forms.

use super::case::Case;
use super::compare::{Bounded, Bytes, Element, Expected};
use super::random::Stream;
use half::bf16;

/// A form of GELU in float64.
type Form = fn(f64) -> f64;

pub fn cases() -> Vec<Case> {
    let forms: [(&str, Form); 3] = [
        ("bias_gelu_erf_fwd", exact),
        ("bias_gelu_tanh_fwd", by_tanh),
        ("bias_gelu_sigmoid_fwd", by_sigmoid),
    ];
    let shapes = [(1, 1), (1, 7), (2, 4), (5, 64), (100, 10), (13, 61), (4, 1031)];
    forms
        .iter()
        .flat_map(|&(entry, form)| shapes.map(|(rows, width)| case(entry, form, rows, width)))
        .collect()
}

fn case(entry: &'static str, form: Form, rows: usize, width: usize) -> Case {
    let mut random = Stream::new((rows * 10_007 + width) as u64);
    let count = rows * width;
    let mut x = random.halves(count, 2.0);
    let bias = random.floats(width, 1.0);
    // Far out, where the function is 0 or x.
    for (i, far) in [(3, 40.0), (11, -40.0), (17, 1e30), (18, -1e30)] {
        if i < count {
            x[i] = bf16::from_f32(far);
        }
    }
    // The sum in float32, rounded: the same bits.
    let z: Vec<bf16> = (0..count).map(|i| bf16::from_f32(x[i].to_f32() + bias[i % width])).collect();
    // Half a unit of bf16 for the result, and float32's error relative to z: 1 + erf(z) cancels for negative z.
    let bound = |z: f64, y: f64| y.abs() * 2f64.powi(-8) + z.abs().min(16.0) * 2f64.powi(-20);
    let y: Bounded = z.iter().map(|z| (form(z.to_f64()), bound(z.to_f64(), form(z.to_f64())))).collect();
    Case::new("gelu.cu", include_str!("../kernels/gelu.cu"), entry, format!("rows {rows} width {width}"))
        .launch([2, 1, 1], [64, 1, 1])
        .input("x", &x)
        .input("bias", &bias)
        .output("z", count * 2, Expected::Exact(z.bytes()))
        .output("y", count * 2, Expected::Close(Element::Bf16, y))
        .value(&(count as i64))
        .value(&(width as i32))
        .traffic(count * 2 + width * 4, count * 4)
        .barriers(0)
}

fn exact(z: f64) -> f64 {
    0.5 * z * erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

fn by_tanh(z: f64) -> f64 {
    // Like the kernel, whose cube overflows to an infinity of which tanh is 1.
    0.5 * z * (1.0 + (0.797_884_56 * (z + 0.044715 * z * z * z)).tanh())
}

fn by_sigmoid(z: f64) -> f64 {
    z / (1.0 + (-1.702 * z).exp())
}

/// The complementary error function: its Taylor series near zero, its continued fraction (Lentz) elsewhere.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let root_pi = std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let mut term = x;
        let mut sum = x;
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / root_pi * sum;
    }
    let fraction = (1..=60).rev().fold(x, |tail, k| x + f64::from(k) / 2.0 / tail);
    (-x * x).exp() / root_pi / fraction
}

#[test]
fn erfc_is_right() {
    // Abramowitz and Stegun, tables 7.1 and 7.3, and continuity where the two methods meet.
    for (x, want) in [
        (0.0, 1.0),
        (0.5, 0.479_500_122_2),
        (1.0, 0.157_299_207_1),
        (-1.0, 1.842_700_792_9),
        (2.5, 4.069_520_174e-4),
    ] {
        assert!((erfc(x) - want).abs() < 1e-9, "erfc({x}) = {}", erfc(x));
    }
    assert!((erfc(2.0 - 1e-9) / erfc(2.0) - 1.0).abs() < 1e-7);
}
