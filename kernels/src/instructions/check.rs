//! Every vector on a device against float64.

use super::{Exactness, Vector, run, vectors};
use engine::{Device, Error, Result};
use half::bf16;

/// Runs every vector on a CUDA device and gives their number. The error names the instruction.
pub fn check(device: Device) -> Result<usize> {
    let vectors = vectors();
    for vector in &vectors {
        check_vector(vector, &run(vector, device)?)?;
    }
    Ok(vectors.len())
}

/// An error unless `found` is what the definition of the instruction says.
pub(super) fn check_vector(vector: &Vector, found: &[u32]) -> Result<()> {
    match vector.name {
        "mma_bf16" => {
            products(vector, found, 16, |word, half| f64::from(bf16::from_bits((word >> (16 * half)) as u16)))
        }
        // Operands are tf32: of what lies below ten fraction bits nothing counts.
        "mma_tf32" => products(vector, found, 8, |word, _| f64::from(f32::from_bits(word & 0xffff_e000))),
        "ldmatrix" | "ldmatrix_trans" => matrices(vector, found),
        "cvt_bf16x2" => conversions(vector, found, |x| {
            let [low, high] = [x, -x].map(|v| u32::from(bf16::from_f32(v).to_bits()));
            low | high << 16
        }),
        // Half a unit of the tenth bit is added to the magnitude, and what is below cut off.
        "cvt_tf32" => conversions(vector, found, |x| match x.is_finite() {
            true => (x.to_bits() + 0x1000) & 0xffff_e000,
            false => x.to_bits(),
        }),
        _ => functions(vector, found),
    }
}

fn wrong(vector: &Vector, at: usize, found: u32, expected: f64) -> Error {
    let [name, found] = [vector.name.into(), format!("{:e}", f32::from_bits(found))];
    Error::value("instructions", format!("{name}: result {at} is {found} where {expected:e} is right"))
}

/// `d = a b + c` in float64 from the fragments' places (PTX ISA, "Matrix fragments"). `k` elements are added; `element` takes a half
/// (bf16) or all (tf32) of a word.
fn products(vector: &Vector, found: &[u32], k: usize, element: impl Fn(u32, usize) -> f64) -> Result<()> {
    let [(_, _, a), (_, _, b), (_, _, c)] = &vector.operands[..] else {
        return Err(Error::value("instructions", "a product has three operands"));
    };
    // Elements of a word; element k lies in the first or the later register, in this lane of a row's four, in this half.
    let halves = k / 8;
    let place = |k: usize| {
        let (quad, half) = (k / halves % 4, k % halves);
        (k / (4 * halves), quad, half)
    };
    for (case, d) in found.chunks_exact(128).enumerate() {
        for (at, &word) in d.iter().enumerate() {
            let (register, lane) = (at / 32, at % 32);
            let (row, column) = (lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2);
            let start = f64::from(f32::from_bits(c[case * 128 + at]));
            let (mut sum, mut size) = (start, start.abs());
            for k in 0..k {
                let (later, quad, half) = place(k);
                let x = element(a[case * 128 + (2 * later + row / 8) * 32 + row % 8 * 4 + quad], half);
                let y = element(b[case * 64 + later * 32 + column * 4 + quad], half);
                sum += x * y;
                size += (x * y).abs();
            }
            let value = f64::from(f32::from_bits(word));
            // Tensor cores align products to the largest and cut off: up to a unit of the largest for each, and two roundings.
            let near = (value - sum).abs() <= (k as f64 + 2.0) * 2f64.powi(-23) * size + 1e-37;
            let overflown = sum.abs() > f64::from(f32::MAX) && value.is_infinite();
            if !(near || overflown || value == sum || (value.is_nan() && sum.is_nan())) {
                return Err(wrong(vector, case * 128 + at, word, sum));
            }
        }
    }
    Ok(())
}

/// Lane l gets of matrix i the elements (l / 4, 2 (l % 4)) and its right neighbour; transposed, with row and column exchanged.
fn matrices(vector: &Vector, found: &[u32]) -> Result<()> {
    let [(_, _, source), (_, _, offset)] = &vector.operands[..] else {
        return Err(Error::value("instructions", "a matrix load has two operands"));
    };
    let half = |matrix: usize, row: usize, column: usize| {
        let byte = offset[8 * matrix + row] as usize + 2 * column;
        source[byte / 4] >> (8 * (byte % 4)) & 0xffff
    };
    for (at, &word) in found.iter().enumerate() {
        let (matrix, row, column) = (at / 32, at % 32 / 4, 2 * (at % 4));
        let both = [0, 1].map(|right| match vector.name {
            "ldmatrix" => half(matrix, row, column + right),
            _ => half(matrix, column + right, row),
        });
        let expected = both[0] | both[1] << 16;
        if word != expected {
            return Err(wrong(vector, at, word, f64::from(f32::from_bits(expected))));
        }
    }
    Ok(())
}

fn conversions(vector: &Vector, found: &[u32], convert: impl Fn(f32) -> u32) -> Result<()> {
    for (i, &word) in found.iter().enumerate() {
        let Some(x) = vector.operand(i) else { continue };
        let expected = convert(x);
        if word != expected && !x.is_nan() {
            return Err(wrong(vector, i, word, f64::from(f32::from_bits(expected))));
        }
    }
    Ok(())
}

/// The exact function that an approximation is of.
fn exact(name: &str, x: f64) -> Option<f64> {
    Some(match name {
        "ex2" | "ex2_ftz" => x.exp2(),
        "lg2" => x.log2(),
        "rcp" => 1.0 / x,
        "rsqrt" => 1.0 / x.sqrt(),
        "sqrt" => x.sqrt(),
        "sin" | "sinf" => x.sin(),
        "cos" | "cosf" => x.cos(),
        "tanh" | "tanhf" => x.tanh(),
        "expf" => x.exp(),
        "logf" => x.ln(),
        "cbrtf" => x.cbrt(),
        // float64 has no erf in the standard library.
        _ => return None,
    })
}

fn functions(vector: &Vector, found: &[u32]) -> Result<()> {
    let Exactness::Within { relative, absolute, largest } = vector.exactness else {
        return Err(Error::value("instructions", format!("{} has no bound", vector.name)));
    };
    for (i, &word) in found.iter().enumerate() {
        let Some(x) = vector.operand(i) else { continue };
        // Denormal operands may be taken for zero; `lg2` and the reciprocals are steep there.
        if x.abs() > largest || x.is_subnormal() {
            continue;
        }
        let Some(expected) = exact(vector.name, f64::from(x)) else { return Ok(()) };
        let value = f64::from(f32::from_bits(word));
        let rounded = expected as f32;
        let near = (value - expected).abs()
            <= (relative + 2f64.powi(-24)) * expected.abs() + absolute + 2f64.powi(-126);
        let equal = value == f64::from(rounded) || (value.is_nan() && expected.is_nan());
        if !near && !equal {
            return Err(wrong(vector, i, word, expected));
        }
    }
    Ok(())
}
