//! Sums of products on plain matrices: 16 rows, 8 columns. A is `[k][row]`, B `[k][column]` with k in the order of [`stored`],
//! the accumulators `[column][row]`, so that vectors run over rows.
//!
//! The truncating sum needs no integers as long as exponents are tame: a product of two 11-bit significands is exact in
//! float32, scaling it by a power of two too, and the conversion to an integer cuts toward zero, which is the model's
//! alignment. Whatever is not tame (NaN, infinities, very small or large operands) goes to [`super::slow`].

use super::slow;
use crate::numeric::half::{f16_to_f32, f64_to_f16};
use crate::numeric::round::canonical_f32;

/// The element types of A and B whose sums are floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// 1.8.7 bits.
    Bf16,
    /// 1.5.10 bits.
    F16,
    /// 1.8.10 bits.
    Tf32,
}

/// The type of C and D; the sums in memory are float32 values either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accumulator {
    /// Sums are cut to float32.
    Float32,
    /// Sums are rounded to nearest f16.
    Half,
}

/// Where element k of a row is kept, when a word holds `PARTS` elements: the first elements of all words come first.
#[inline(always)]
pub const fn stored<const K: usize, const PARTS: usize>(k: usize) -> usize {
    k % PARTS * (K / PARTS) + k / PARTS
}

/// The exponent that zero operands carry: no sum with it reaches a real exponent.
pub(super) const ZERO: i32 = -4096;

/// A matrix with the exponents that the model aligns by.
pub struct Operand<'a, const K: usize, const N: usize> {
    pub(super) values: &'a [[f32; N]; K],
    pub(super) exponents: [[i32; N]; K],
    /// All elements are zero or of magnitude 2^-50 to below 2^64.
    tame: bool,
}

/// The exponent of a value; `smallest` for subnormals of its format, `zero` for zero.
#[inline(always)]
pub(super) fn exponent(value: f32, smallest: i32, zero: i32) -> i32 {
    let magnitude = value.to_bits() & 0x7FFF_FFFF;
    let exponent = (magnitude >> 23) as i32 - 127;
    let floored = if exponent < smallest { smallest } else { exponent };
    if magnitude == 0 { zero } else { floored }
}

/// Whether all values are zero or of magnitude 2^(low - 127) to below 2^(high - 127); false if any is NaN.
#[inline(always)]
fn all_within(values: &[f32], low: u32, high: u32) -> bool {
    let (mut least, mut most) = (u32::MAX, 0);
    for value in values {
        let magnitude = value.to_bits() & 0x7FFF_FFFF;
        // Zero becomes the largest number and passes.
        least = least.min(magnitude.wrapping_sub(1));
        most = most.max(magnitude);
    }
    least >= (low << 23) - 1 && most < high << 23
}

impl<'a, const K: usize, const N: usize> Operand<'a, K, N> {
    /// Elements of a format, as float32.
    #[inline(always)]
    pub fn new(format: Format, values: &'a [[f32; N]; K]) -> Self {
        let smallest = if format == Format::F16 { -14 } else { -126 };
        let mut exponents = [[0; N]; K];
        let flat = values.as_flattened();
        for (exponent_of, &value) in exponents.as_flattened_mut().iter_mut().zip(flat) {
            *exponent_of = exponent(value, smallest, ZERO);
        }
        Operand { values, exponents, tame: all_within(flat, 127 - 50, 127 + 64) }
    }
}

/// Products exact, added in float32 in the order of k. The loop over k lies inside the loop over rows, here and below: it is
/// unrolled, and the compiler then vectorises the rows.
#[inline(always)]
pub fn float32<const K: usize, const PARTS: usize>(
    a: &[[f32; 16]; K],
    b: &[[f32; 8]; K],
    sums: &mut [[f32; 16]; 8],
) {
    for column in 0..8 {
        for row in 0..16 {
            let mut sum = sums[column][row];
            for k in 0..K {
                let k = stored::<K, PARTS>(k);
                sum = a[k][row].mul_add(b[k][column], sum);
            }
            sums[column][row] = canonical_f32(sum);
        }
    }
}

/// The truncating model: sums of `BLOCK` products and the accumulator, aligned with `FRACTION` fraction bits.
#[inline(always)]
pub fn truncating<const K: usize, const PARTS: usize, const BLOCK: usize, const FRACTION: i32>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    accumulator: Accumulator,
    sums: &mut [[f32; 16]; 8],
) {
    for start in (0..K).step_by(BLOCK) {
        let tame = a.tame && b.tame && all_within(sums.as_flattened(), 127 - 77, 127 + 128);
        if !tame {
            slow::block::<K, PARTS>(a, b, start, BLOCK, FRACTION, accumulator, sums);
        } else if accumulator == Accumulator::Half {
            block_half::<K, PARTS, BLOCK, FRACTION>(a, b, start, sums);
        } else if !block::<K, PARTS, BLOCK, FRACTION>(a, b, start, sums) {
            block_wide::<K, PARTS, BLOCK, FRACTION>(a, b, start, sums);
        }
    }
}

/// The exponent with which a zero accumulator counts (arXiv 2511.10909's implementation). A zero product counts with it, too,
/// but that changes nothing: the accumulator has at least this exponent, zero or not.
pub(super) fn zero_exponent(fraction: i32, accumulator: Accumulator) -> i32 {
    match accumulator {
        Accumulator::Float32 => -108 - fraction,
        Accumulator::Half => 3 - fraction,
    }
}

/// 2^power as float32, for powers from -126 to 127.
#[inline(always)]
fn power(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}

/// One result of a block before rounding.
struct Aligned {
    /// The sum of the products in units of 2^(largest - FRACTION): below 64 * 2^25 in magnitude.
    products: i32,
    /// The accumulator in these units: below 2 * 2^25.
    accumulator: i32,
    /// The exponent that everything is aligned to.
    largest: i32,
}

/// Aligns and sums the products of one result; `floor` is the least exponent to align to.
#[inline(always)]
fn aligned_sum<const K: usize, const PARTS: usize, const BLOCK: usize, const FRACTION: i32>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    start: usize,
    [column, row]: [usize; 2],
    c: f32,
    floor: i32,
) -> Aligned {
    let mut largest = floor;
    for k in start..start + BLOCK {
        let k = stored::<K, PARTS>(k);
        let sum = a.exponents[k][row] + b.exponents[k][column];
        largest = if sum > largest { sum } else { largest };
    }
    let scale = power(FRACTION - largest);
    let mut products = 0i32;
    for k in start..start + BLOCK {
        let k = stored::<K, PARTS>(k);
        let aligned = a.values[k][row] * b.values[k][column] * scale;
        // SAFETY: a tame product is finite and its exponent at most `largest`, so that |aligned| < 4 * 2^FRACTION.
        products += unsafe { aligned.to_int_unchecked::<i32>() };
    }
    // SAFETY: as above, |aligned| < 2 * 2^FRACTION.
    let accumulator = unsafe { (c * scale).to_int_unchecked::<i32>() };
    Aligned { products, accumulator, largest }
}

/// The sum, exactly: it may need 33 bits.
#[inline(always)]
fn exact<const FRACTION: i32>(sum: &Aligned) -> f64 {
    (sum.products as f64 + sum.accumulator as f64) * power_f64(sum.largest - FRACTION)
}

/// 2^power as float64.
#[inline(always)]
fn power_f64(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

/// The exponent to align to where all terms are zero. Terms of tame operands have at least this one, so that it changes no
/// sum; it keeps the powers of two finite.
const FLOOR: i32 = -101;

/// The exponent of a tame accumulator; [`FLOOR`] for zero.
#[inline(always)]
fn floored_exponent(c: f32) -> i32 {
    let exponent = ((c.to_bits() & 0x7FFF_FFFF) >> 23) as i32 - 127;
    exponent.max(FLOOR)
}

/// A tame block with float32 accumulators. False, and nothing done, when a sum may not fit 31 bits.
#[inline(always)]
fn block<const K: usize, const PARTS: usize, const BLOCK: usize, const FRACTION: i32>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    start: usize,
    sums: &mut [[f32; 16]; 8],
) -> bool {
    let mut results = [[0.0; 16]; 8];
    let mut peaks = [0i32; 16];
    for column in 0..8 {
        for row in 0..16 {
            let c = sums[column][row];
            let floor = floored_exponent(c);
            let sum = aligned_sum::<K, PARTS, BLOCK, FRACTION>(a, b, start, [column, row], c, floor);
            peaks[row] = peaks[row].max(sum.products.abs());
            let total = sum.products.wrapping_add(sum.accumulator);
            // Where a peak forbids these results, the limit keeps the conversion back in range.
            let magnitude = total.wrapping_abs().min(0x7FFF_FF00);
            let nearest = magnitude as f32;
            // SAFETY: |nearest| <= 0x7FFFFF00 (or 2^31 below zero), which i32 holds.
            let back = unsafe { nearest.to_int_unchecked::<i32>() };
            let cut = nearest.to_bits().wrapping_sub((back > magnitude) as u32);
            // A multiple of 2^-126, so that the product is exact.
            let value = f32::from_bits(cut) * power(sum.largest - FRACTION);
            results[column][row] = f32::from_bits(value.to_bits() | total as u32 & 0x8000_0000);
        }
    }
    let fits = peaks.iter().fold(0, |peak, &next| peak.max(next)) < 1 << 30;
    if fits {
        *sums = results;
    }
    fits
}

/// A tame block with float32 accumulators, the sums in float64.
#[inline(never)]
fn block_wide<const K: usize, const PARTS: usize, const BLOCK: usize, const FRACTION: i32>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    start: usize,
    sums: &mut [[f32; 16]; 8],
) {
    for column in 0..8 {
        for row in 0..16 {
            let c = sums[column][row];
            let floor = floored_exponent(c);
            let value = exact::<FRACTION>(&aligned_sum::<K, PARTS, BLOCK, FRACTION>(
                a,
                b,
                start,
                [column, row],
                c,
                floor,
            ));
            // A multiple of 2^-126: cutting 29 bits leaves a float32.
            sums[column][row] = f64::from_bits(value.to_bits() & !((1 << 29) - 1)) as f32;
        }
    }
}

/// A tame block with f16 accumulators.
#[inline(always)]
fn block_half<const K: usize, const PARTS: usize, const BLOCK: usize, const FRACTION: i32>(
    a: &Operand<'_, K, 16>,
    b: &Operand<'_, K, 8>,
    start: usize,
    sums: &mut [[f32; 16]; 8],
) {
    let zero = zero_exponent(FRACTION, Accumulator::Half);
    for column in 0..8 {
        for row in 0..16 {
            let c = sums[column][row];
            let floor = exponent(c, -14, zero);
            let sum = aligned_sum::<K, PARTS, BLOCK, FRACTION>(a, b, start, [column, row], c, floor);
            sums[column][row] = f16_to_f32(f64_to_f16(exact::<FRACTION>(&sum)));
        }
    }
}
