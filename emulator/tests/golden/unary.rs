//! Instructions of one float32: conversions and those in IEEE rounding bit for bit; approximations within the manual's
//! bounds on both sides, and at most so far apart as [`APPROXIMATIONS`] says.

use super::device::{Device, HEAD, plain};
use super::recording::Recording;
use emulator::numeric::approx::{BOUNDS, Error};
use std::f64::consts::PI;

/// Same bits.
const EXACT: [&str; 7] = [
    "cvt.rn.bf16x2.f32",
    "cvt.rz.bf16x2.f32",
    "cvt.rn.relu.bf16x2.f32",
    "cvt.rn.f16x2.f32",
    "cvt.rz.f16x2.f32",
    "rcp.rn.f32",
    "sqrt.rn.f32",
];

/// The instruction, the function, and how far hardware and emulator lie apart where the manual promises something.
type Approximation = (&'static str, fn(f64) -> f64, Error);

const APPROXIMATIONS: [Approximation; 12] = [
    ("ex2.approx.f32", f64::exp2, Error::Ulps(2.0)),
    ("ex2.approx.ftz.f32", f64::exp2, Error::Ulps(2.0)),
    ("lg2.approx.f32", f64::log2, Error::Relative(-10.6)),
    ("lg2.approx.ftz.f32", f64::log2, Error::Relative(-10.6)),
    ("rcp.approx.f32", f64::recip, Error::Ulps(1.0)),
    ("rcp.approx.ftz.f32", f64::recip, Error::Ulps(1.0)),
    ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), Error::Ulps(2.0)),
    ("rsqrt.approx.ftz.f32", |x| 1.0 / x.sqrt(), Error::Ulps(2.0)),
    ("sqrt.approx.f32", f64::sqrt, Error::Ulps(1.0)),
    ("sin.approx.f32", f64::sin, Error::Absolute(-14.7)),
    ("cos.approx.f32", f64::cos, Error::Absolute(-14.7)),
    ("tanh.approx.f32", f64::tanh, Error::Relative(-16.5)),
];

/// Runs an instruction over all recorded operands; conversions take them in pairs.
fn results(instruction: &str, recording: &Recording) -> Vec<u32> {
    let x = recording.words("all/x");
    let (operands, text) = match instruction.starts_with("cvt") {
        true => (2, format!("{instruction} %r4, %f0, %f1;\n")),
        false => (1, format!("{instruction} %f2, %f0;\nmov.b32 %r4, %f2;\n")),
    };
    let mut ptx = format!(
        "{HEAD}.visible .entry main(.param .u64 x, .param .u64 y)\n{{\n.reg .b32 %r<8>;\n.reg .f32 %f<4>;\n\
         .reg .b64 %l<4>;\nmov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %tid.x;\nmad.lo.u32 %r3, %r1, 64, %r2;\n\
         ld.param.u64 %l0, [x];\nld.param.u64 %l1, [y];\nmad.wide.u32 %l0, %r3, {}, %l0;\n\
         mad.wide.u32 %l1, %r3, 4, %l1;\n",
        4 * operands
    );
    for operand in 0..operands {
        ptx += &format!("ld.global.f32 %f{operand}, [%l0+{}];\n", 4 * operand);
    }
    ptx += &format!("{text}st.global.u32 [%l1], %r4;\nret;\n}}\n");
    let device = Device::new();
    let image = device.load(&ptx);
    let count = x.len() / operands;
    assert_eq!(count % 64, 0);
    let (from, to) = (device.upload_words(&x), device.upload_words(&vec![0; count]));
    let report = device.run(&image, "main", count as u32 / 64, 64, &[from, to], &plain());
    assert!(report.is_none(), "{instruction}: {}", report.unwrap());
    device.download_words(to, count)
}

#[test]
fn conversions_and_ieee_roundings_are_the_hardwares_bits() {
    let recording = Recording::open("unary");
    for instruction in EXACT {
        let (got, want) = (results(instruction, &recording), recording.words(&format!("{instruction}/y")));
        let differ = (0..want.len()).find(|&i| got[i] != want[i]);
        let words = differ.map(|i| format!("result {i}: {:#010x}, not {:#010x}", got[i], want[i]));
        assert!(differ.is_none(), "{instruction}: {words:?}");
    }
}

/// A float32's unit in the last place; subnormals have the smallest normal number's.
fn unit(value: f64) -> f64 {
    let exponent = f64::from_bits(value.abs().to_bits() & 0x7FF0_0000_0000_0000);
    exponent.max(f64::from(f32::MIN_POSITIVE)) * 2f64.powi(-23)
}

/// Two values' distance in the error's terms, as a part of it.
fn part(error: Error, value: f64, exact: f64) -> f64 {
    let distance = (value - exact).abs();
    if distance == 0.0 {
        return 0.0;
    }
    match error {
        Error::Ulps(ulps) => distance / unit(exact) / ulps,
        Error::Relative(power) => distance / exact.abs() / power.exp2(),
        Error::Absolute(power) => distance / power.exp2(),
    }
}

/// What the manual promises at an operand, if anything.
fn promised(instruction: &str, x: f64) -> Option<Error> {
    let name = instruction.replace(".ftz", "");
    let mut bounds = BOUNDS.iter().filter(|(other, ..)| *other == name);
    let inside = |(_, largest, error): &&(&str, f64, Error)| {
        let near_one = matches!(error, Error::Absolute(_)) && name.starts_with("lg2");
        x.abs() <= *largest && (!near_one || x >= 0.5)
    };
    bounds.find(inside).map(|(.., error)| *error)
}

#[test]
fn approximations_keep_the_manuals_bounds_on_both_sides() {
    let recording = Recording::open("unary");
    let operands = recording.words("all/x");
    let mut wrong = Vec::new();
    for (instruction, function, apart) in APPROXIMATIONS {
        let got = results(instruction, &recording);
        let hardware = recording.words(&format!("{instruction}/y"));
        let (mut farthest, mut worst) = (0.0, [0.0f64; 2]);
        for ((&x, &got), &hardware) in operands.iter().zip(&got).zip(&hardware) {
            let x = f32::from_bits(x);
            let flushed = if instruction.contains("ftz") && x.is_subnormal() { 0f32.copysign(x) } else { x };
            let (operand, pair) = (f64::from(flushed), [got, hardware].map(f32::from_bits));
            let exact = function(operand);
            let periodic = instruction.starts_with("sin") || instruction.starts_with("cos");
            if periodic && x.is_finite() && x.abs() > (100.0 * PI) as f32 {
                // The manual promises nothing.
                continue;
            }
            // Which results are NaN, infinite or zero is the manual's matter; sines near zero have an absolute bound.
            let special = |y: f32| y.is_nan() || y.is_infinite() || (y == 0.0 && !periodic);
            if pair.into_iter().any(special) {
                if got != hardware {
                    wrong.push(format!("{instruction} {x:e}: {got:#010x}, not {hardware:#010x}"));
                }
                continue;
            }
            let bound = promised(instruction, operand).unwrap();
            for (y, worst) in pair.iter().zip(&mut worst) {
                *worst = worst.max(part(bound, f64::from(*y), exact));
            }
            farthest = f64::max(farthest, part(apart, f64::from(pair[0]), f64::from(pair[1])));
        }
        for (who, worst) in ["the emulator", "hardware"].iter().zip(worst) {
            // The manual rounds its powers of two to a tenth.
            if worst > 2f64.powf(0.05) {
                wrong.push(format!("{instruction}: {who} is wrong by {worst:.3} of the manual's bound"));
            }
        }
        if !(0.5..=1.0).contains(&farthest) {
            wrong.push(format!("{instruction}: the two are {farthest:.3} of {apart:?} apart"));
        }
    }
    assert!(wrong.is_empty(), "{} disagree:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
