//! Operands of every recorded instruction.

use super::{Exactness, Vector};
use engine::Philox;
use engine::random::Purpose;

/// Products of a tensor-core instruction.
const PRODUCTS: usize = 64;
/// Operands of a function of one number.
const POINTS: usize = 8192;

/// A number in one of four regimes: ordinary, of very different magnitudes, few digits (so that sums cancel exactly), and now and
/// then zero, infinity, NaN or a denormal.
fn number(random: &mut Philox, regime: usize) -> f32 {
    const SPECIAL: [f32; 7] = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, -1e-40];
    let x = random.normal();
    match regime {
        0 => x,
        1 => x * 2f32.powi(random.below(80) as i32 - 40),
        2 => (8.0 * x).round() / 8.0,
        _ if random.below(256) == 0 => SPECIAL[random.below(SPECIAL.len())],
        _ => x,
    }
}

/// Fragments of [`PRODUCTS`] products: `registers` words of 32 lanes each, of two bf16 or one float.
fn fragments(seed: u64, registers: usize, halves: bool) -> Vec<u32> {
    let mut random = Philox::new(seed, Purpose::Test, 0);
    let count = PRODUCTS * registers * 32;
    let word = |i: usize, random: &mut Philox| {
        let regime = 4 * i / count;
        let upper = number(random, regime).to_bits();
        if halves { (number(random, regime).to_bits() >> 16) | (upper & 0xffff_0000) } else { upper }
    };
    (0..count).map(|i| word(i, &mut random)).collect()
}

fn product(name: &'static str, seed: u64, halves: bool) -> Vector {
    let fragment = |name, seed, registers, halves| {
        (name, vec![PRODUCTS, registers, 32], fragments(seed, registers, halves))
    };
    let mut c = fragment("c", seed + 2, 4, false);
    // Half of all products are added to nothing.
    let half = c.2.len() / 2;
    c.2[..half].fill(0);
    Vector {
        name,
        operands: vec![fragment("a", seed, 4, halves), fragment("b", seed + 1, 2, halves), c],
        result: vec![PRODUCTS, 4, 32],
        exactness: Exactness::Bits,
    }
}

/// Each lane names a row of 16 bytes, all different.
fn matrices(name: &'static str, seed: u64) -> Vector {
    let mut random = Philox::new(seed, Purpose::Test, 0);
    let source = (0..1024).map(|_| random.next_u32()).collect();
    let rows = random.permutation(256);
    let offset = rows.iter().take(32).map(|&row| 16 * row as u32).collect();
    Vector {
        name,
        operands: vec![("source", vec![1024], source), ("offset", vec![32], offset)],
        result: vec![4, 32],
        exactness: Exactness::Bits,
    }
}

/// Numbers over all of float32's range, over the range that softmax and GELU meet, and the special ones.
fn points() -> Vec<u32> {
    const SPECIAL: [f32; 16] = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1.0,
        -1.0,
        2.0,
        0.5,
        1e-40,
        -1e-40,
        3.4e38,
        f32::MIN_POSITIVE,
        88.7,
        -104.0,
        126.0,
    ];
    let mut random = Philox::new(7, Purpose::Test, 0);
    let mut points: Vec<u32> = SPECIAL.iter().map(|x| x.to_bits()).collect();
    points.extend((0..POINTS / 2).map(|_| random.next_u32()));
    points.extend((0..POINTS / 4).map(|_| (4.0 * random.normal()).to_bits()));
    let rest = POINTS - points.len();
    points.extend((0..rest).map(|i| (40.0 * i as f32 / rest as f32 - 20.0).to_bits()));
    points
}

/// Everything that is recorded, in the order of the kernels.
pub fn vectors() -> Vec<Vector> {
    let any = f32::INFINITY;
    let within = |relative: f64, absolute: f64, largest| Exactness::Within { relative, absolute, largest };
    let power = |p: f64| 2f64.powf(p);
    // PTX ISA 9.7.3.8 to 9.7.3.22: relative and absolute error, and up to which operand.
    let approximations = [
        ("ex2", within(power(-22.0), power(-149.0), any)),
        ("ex2_ftz", within(power(-22.0), power(-126.0), any)),
        ("lg2", within(power(-22.0), power(-22.0), any)),
        ("rcp", within(power(-23.0), power(-149.0), any)),
        ("rsqrt", within(power(-22.9), 0.0, any)),
        ("sqrt", within(power(-23.0), 0.0, any)),
        ("sin", within(0.0, power(-20.5), std::f32::consts::TAU)),
        ("cos", within(0.0, power(-20.5), std::f32::consts::TAU)),
        ("tanh", within(power(-11.0), 0.0, any)),
    ];
    // CUDA's mathematical functions: the largest error in units of the last place (CUDA C++ Programming Guide), for which
    // 2^-23 times as much is an upper bound; results near the least float by one or two of it.
    let ulps = |n: f64| within(n * power(-23.0), 2.0 * power(-149.0), any);
    let functions = [
        ("expf", ulps(2.0)),
        ("logf", ulps(1.0)),
        ("tanhf", ulps(2.0)),
        ("erff", ulps(2.0)),
        ("cbrtf", ulps(1.0)),
        ("sinf", ulps(2.0)),
        ("cosf", ulps(2.0)),
    ];
    let conversions = [("cvt_bf16x2", Exactness::Bits), ("cvt_tf32", Exactness::Bits)];
    let of_one = |(name, exactness)| Vector {
        name,
        operands: vec![("x", vec![POINTS], points())],
        result: vec![POINTS],
        exactness,
    };
    let warps = [
        product("mma_bf16", 1, true),
        product("mma_tf32", 4, false),
        matrices("ldmatrix", 8),
        matrices("ldmatrix_trans", 9),
    ];
    let ones = approximations.into_iter().chain(conversions).chain(functions);
    warps.into_iter().chain(ones.map(of_one)).collect()
}
