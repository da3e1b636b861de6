//! CUDA's functions of one float32, compiled from `math.cu`: the same bits where the compiler's expansion has no `.approx`
//! instruction, else a few units in the last place apart; and both within the errors that the CUDA programming guide gives.

use super::device::{Device, plain};
use super::nvrtc;
use super::recording::Recording;

/// A function, its value, how many units in the last place hardware and emulator are apart, and how many the guide allows
/// (CUDA C++ Programming Guide 12, mathematical functions; `__expf` adds to them by its operand).
type Function = (&'static str, fn(f64) -> f64, i64, i64);

///
/// `x * x + x` is rounded twice: the other functions use `x * x` too, and then the compiler does not fuse it.
const FUNCTIONS: [Function; 12] = [
    ("expf", f64::exp, 1, 2),
    ("logf", f64::ln, 0, 1),
    ("tanhf", f64::tanh, 2, 2),
    ("erff", erf, 1, 2),
    ("sqrtf", f64::sqrt, 0, 0),
    ("1 / x", f64::recip, 0, 0),
    ("sinf", f64::sin, 0, 2),
    ("cosf", f64::cos, 0, 2),
    ("fmaf(x, x, -x)", |x| fused(x, -x), 0, 0),
    ("x * x + x", |x| f64::from((x as f32) * (x as f32) + x as f32), 0, 0),
    ("powf(|x|, 1.7f)", |x| x.abs().powf(f64::from(1.7f32)), 1, 9),
    ("__expf", f64::exp, 2, 2),
];

/// x * x + c, rounded once, to float32.
fn fused(x: f64, c: f64) -> f64 {
    f64::from((x as f32).mul_add(x as f32, c as f32))
}

/// The error function by a series of positive terms (Abramowitz and Stegun 7.1.6).
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 || x.is_nan() {
        return x.signum() * if x.is_nan() { x } else { 1.0 };
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// A float32's place in the order of all of them; infinities are the neighbours of the largest numbers.
fn place(bits: u32) -> i64 {
    let magnitude = i64::from(bits & 0x7FFF_FFFF);
    if bits >> 31 == 1 { -magnitude } else { magnitude }
}

fn is_nan(bits: u32) -> bool {
    bits & 0x7FFF_FFFF > 0x7F80_0000
}

#[test]
fn functions_are_as_on_hardware() {
    let recording = Recording::open("math");
    let (operands, hardware) = (recording.words("functions/x"), recording.words("functions/y"));
    let count = operands.len();
    let device = Device::new();
    let image = device.load(&nvrtc::ptx(include_str!("math.cu"), "math.cu", &[]));
    let (from, to) = (device.upload_words(&operands), device.upload_words(&vec![0; 12 * count]));
    let report = device.run(&image, "functions", 64, 256, &[from, to, count as u64], &plain());
    assert!(report.is_none(), "{}", report.unwrap());
    let results = device.download_words(to, 12 * count);
    let mut wrong = Vec::new();
    for (row, (name, function, apart, allowed)) in FUNCTIONS.into_iter().enumerate() {
        let mut farthest = 0;
        for (i, &x) in operands.iter().enumerate() {
            let pair = [results[row * count + i], hardware[row * count + i]];
            let [got, want] = pair;
            if is_nan(got) || is_nan(want) {
                if got != want {
                    wrong.push(format!("{name} of {x:#010x}: {got:#010x}, not {want:#010x}"));
                }
                continue;
            }
            farthest = farthest.max((place(got) - place(want)).abs());
            let x = f32::from_bits(x);
            // The guide's bound of __expf: 2 + floor(abs(1.173 x)).
            let more = if name == "__expf" { (1.173 * f64::from(x)).abs().min(1e3) as i64 } else { 0 };
            let rounded = (function(f64::from(x)) as f32).to_bits();
            for (who, bits) in ["the emulator", "hardware"].iter().zip(pair) {
                let distance = (place(bits) - place(rounded)).abs();
                if distance > allowed + more {
                    wrong.push(format!("{name} of {x:e}: {who} is {distance} units from {rounded:#010x}"));
                }
            }
        }
        if farthest != apart {
            wrong.push(format!("{name}: hardware and emulator are {farthest} units apart, not {apart}"));
        }
    }
    assert!(wrong.is_empty(), "{} disagree:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
