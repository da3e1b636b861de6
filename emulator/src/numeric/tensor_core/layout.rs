//! From registers to plain matrices and back. All of it is one operation, the transposition of 4 x 4 words: a register holds
//! 8 rows (or columns) of 4 words, one lane after another.
//!
//! The transposition is written with shuffles of 128 bits, which every x86-64 has: left to itself, the compiler makes gathers
//! and scatters of it where it may, and these take ten times as long.

use super::Lanes;

/// A word of 32 bits that means a float or an integer.
pub(super) trait Word: Copy + Default {}
impl Word for u32 {}
impl Word for f32 {}

/// Transposes the 4 x 4 words at `from`, a row each `from_stride`, to `to`, a row each `to_stride`.
///
/// # Panics
/// If a slice ends before the fourth row.
#[inline(always)]
fn transpose4<F: Word, T: Word>(from: &[F], from_stride: usize, to: &mut [T], to_stride: usize) {
    let (from, to) = (&from[..3 * from_stride + 4], &mut to[..3 * to_stride + 4]);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
        use std::arch::x86_64::{
            _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
        };
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        // SAFETY: the slices hold four words at each of 0, 1, 2 and 3 strides (cut to that length above), words are 32 bits
        // of any value, and SSE2 belongs to x86-64.
        unsafe {
            let row = |i: usize| _mm_loadu_si128(from.add(i * from_stride).cast::<__m128i>());
            let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
            let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            let put = |j: usize, words| _mm_storeu_si128(to.add(j * to_stride).cast::<__m128i>(), words);
            put(0, _mm_unpacklo_epi64(ab_low, cd_low));
            put(1, _mm_unpackhi_epi64(ab_low, cd_low));
            put(2, _mm_unpacklo_epi64(ab_high, cd_high));
            put(3, _mm_unpackhi_epi64(ab_high, cd_high));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..4 {
        for j in 0..4 {
            // SAFETY: words are 32 bits of any value.
            to[j * to_stride + i] = unsafe { std::mem::transmute_copy(&from[i * from_stride + j]) };
        }
    }
}

/// A as `[word of the row][row]`: register `i` holds rows `8 * (i % 2)` on and words `4 * (i / 2)` on.
#[inline(always)]
pub(super) fn gather_a<const RA: usize, const WORDS: usize>(a: &[Lanes; RA]) -> [[u32; 16]; WORDS] {
    let mut words = [[0; 16]; WORDS];
    let flat = words.as_flattened_mut();
    for (i, register) in a.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[64 * (i / 2) + 8 * (i % 2) + 4 * half..], 16);
        }
    }
    words
}

/// B as `[word of the column][column]`: register `i` holds words `4 * i` on.
#[inline(always)]
pub(super) fn gather_b<const RB: usize, const WORDS: usize>(b: &[Lanes; RB]) -> [[u32; 8]; WORDS] {
    let mut words = [[0; 8]; WORDS];
    let flat = words.as_flattened_mut();
    for (i, register) in b.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[32 * i + 4 * half..], 8);
        }
    }
    words
}

/// A 32-bit accumulator as `[column][row]`: register `i` holds rows `8 * (i / 2)` on and the columns of parity `i % 2`.
#[inline(always)]
pub(super) fn gather_c<T: Word>(c: &[Lanes; 4]) -> [[T; 16]; 8] {
    let mut matrix = [[T::default(); 16]; 8];
    let flat = matrix.as_flattened_mut();
    for (i, register) in c.iter().enumerate() {
        for half in 0..2 {
            transpose4(&register[16 * half..], 4, &mut flat[16 * (i % 2) + 8 * (i / 2) + 4 * half..], 32);
        }
    }
    matrix
}

/// The reverse of [`gather_c`].
#[inline(always)]
pub(super) fn scatter_d<T: Word>(matrix: &[[T; 16]; 8], d: &mut [Lanes; 4]) {
    let flat = matrix.as_flattened();
    for (i, register) in d.iter_mut().enumerate() {
        for half in 0..2 {
            transpose4(&flat[16 * (i % 2) + 8 * (i / 2) + 4 * half..], 32, &mut register[16 * half..], 4);
        }
    }
}
