//! From registers to plain matrices and back. All of it is one operation, the transposition of 4 x 4 words: a register holds
//! 8 rows (or columns) of 4 words, one lane after another.
//!
//! These functions stay out of line on purpose: compiled for the host's wider vectors they become gathers and scatters, which
//! take ten times as long as the shuffles of the plain form.

use super::Lanes;

/// Writes the 4 x 4 words that start at `from`, `from_stride` apart, to places `to_stride` apart, transposed.
#[inline(always)]
fn transpose4<F: Copy, T: Copy>(
    from: &[F],
    from_stride: usize,
    to: &mut [T],
    to_stride: usize,
    convert: impl Fn(F) -> T + Copy,
) {
    let (from, to) = (&from[..3 * from_stride + 4], &mut to[..3 * to_stride + 4]);
    let row = |i: usize| [0, 1, 2, 3].map(|j| convert(from[i * from_stride + j]));
    let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
    for j in 0..4 {
        to[j * to_stride..j * to_stride + 4].copy_from_slice(&[a[j], b[j], c[j], d[j]]);
    }
}

/// A as `[word of the row][row]`: register `i` holds rows `8 * (i % 2)` on and words `4 * (i / 2)` on.
#[inline(never)]
pub(super) fn gather_a<const RA: usize, const WORDS: usize>(a: &[Lanes; RA]) -> [[u32; 16]; WORDS] {
    let mut words = [[0; 16]; WORDS];
    let flat = words.as_flattened_mut();
    for (i, register) in a.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[64 * (i / 2) + 8 * (i % 2) + 4 * half..], 16, |word| word);
        }
    }
    words
}

/// B as `[word of the column][column]`: register `i` holds words `4 * i` on.
#[inline(never)]
pub(super) fn gather_b<const RB: usize, const WORDS: usize>(b: &[Lanes; RB]) -> [[u32; 8]; WORDS] {
    let mut words = [[0; 8]; WORDS];
    let flat = words.as_flattened_mut();
    for (i, register) in b.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[32 * i + 4 * half..], 8, |word| word);
        }
    }
    words
}

/// A 32-bit accumulator as `[column][row]`: register `i` holds rows `8 * (i / 2)` on and the columns of parity `i % 2`.
#[inline(never)]
pub(super) fn gather_c(c: &[Lanes; 4]) -> [[f32; 16]; 8] {
    let mut matrix = [[0.0; 16]; 8];
    let flat = matrix.as_flattened_mut();
    for (i, register) in c.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[16 * (i % 2) + 8 * (i / 2) + 4 * half..], 32, f32::from_bits);
        }
    }
    matrix
}

/// The reverse of [`gather_c`].
#[inline(never)]
pub(super) fn scatter_d(matrix: &[[f32; 16]; 8], d: &mut [Lanes; 4]) {
    let flat = matrix.as_flattened();
    for (i, register) in d.iter_mut().enumerate() {
        for half in 0..2 {
            transpose4(&flat[16 * (i % 2) + 8 * (i / 2) + 4 * half..], 32, &mut register[16 * half..], 4, f32::to_bits);
        }
    }
}
