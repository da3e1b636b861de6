//! `mma.sync`: products of small matrices whose elements are spread over the registers of a warp. PTX ISA 9.7.14.5.
//!
//! Every 32-bit register of a fragment holds one word of a row: with lane = 4 * group + thread, register `i` of A holds row
//! `group + 8 * (i % 2)` and word `thread + 4 * (i / 2)` of it, whatever the element type (two 16-bit, four 8-bit or one tf32
//! element a word, the lowest first); register `i` of B holds word `thread + 4 * i` of column `group`; register `i` of a
//! 32-bit accumulator holds row `group + 8 * (i / 2)`, column `2 * thread + i % 2`, and of an f16 accumulator the columns
//! `2 * thread` and `2 * thread + 1` of row `group + 8 * i`. So one gather serves all shapes.
//!
//! How the sums are rounded is [`TensorCore`]'s matter; [`tile`] computes them on plain matrices.

mod layout;
mod slow;
pub mod tile;

use super::half::{f16_to_f32, f32_to_f16, pack2};
use super::round::canonical_f64;
use layout::{gather_a, gather_b, gather_c, scatter_d};
use tile::{Accumulator, Format, Operand};

/// Which arithmetic an `mma` of 16-bit floats or tf32 uses. Integers and float64 are exact or IEEE in all of them.
///
/// `Hopper` and `Ampere` are published models of the hardware (arXiv 2511.10909, arXiv 2512.07004); `Hopper` with float32
/// accumulators gives the bits that an H100 gave (`golden/h100`). The products and the accumulator are aligned to the largest exponent among
/// them, cut toward zero below a fixed number of fraction bits, summed exactly, and the sum is cut to float32 (or rounded to
/// nearest even where the accumulators are f16). Exponents are those of the operands before multiplying (a product's
/// significand lies in [1, 4)), subnormal operands have their format's smallest exponent, and a zero accumulator
/// counts with a small fixed one. An overflowing sum is infinite. A sum of zero is +0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum TensorCore {
    /// 25 fraction bits; all of K = 16 (tf32: 8) in one sum.
    #[default]
    Hopper,
    /// 24 fraction bits; steps of K = 8 (tf32: 4), each of which rounds.
    Ampere,
    /// A model, not hardware: products exact, added to the accumulator in float32 (to nearest) one after another in the order
    /// of k. f16 accumulators are rounded once, at the end.
    Float32,
}

/// The shapes and types of `mma.sync.aligned` with one 16 x 8 result. `F64` (m8n8k4) is [`mma_f64`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mma {
    /// `m16n8k16 .f32.bf16.bf16.f32`.
    Bf16K16,
    /// `m16n8k8 .f32.bf16.bf16.f32`.
    Bf16K8,
    /// `m16n8k16 .f32.f16.f16.f32`.
    F16K16,
    /// `m16n8k8 .f32.f16.f16.f32`.
    F16K8,
    /// `m16n8k16 .f16.f16.f16.f16`: f16 accumulators.
    F16K16Half,
    /// `m16n8k8 .f16.f16.f16.f16`: f16 accumulators.
    F16K8Half,
    /// `m16n8k8 .f32.tf32.tf32.f32`: of each operand the upper 19 bits.
    Tf32K8,
    /// `m16n8k4 .f32.tf32.tf32.f32`.
    Tf32K4,
    /// `m16n8k16 .s32.{u8,s8}.{u8,s8}.s32`.
    Int8K16(Int8),
    /// `m16n8k32 .s32.{u8,s8}.{u8,s8}.s32`.
    Int8K32(Int8),
}

/// The variants of an 8-bit `mma`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Int8 {
    /// A is `.s8`, else `.u8`.
    pub a_signed: bool,
    /// B is `.s8`, else `.u8`.
    pub b_signed: bool,
    /// `.satfinite`: the result is clamped to s32; without it, it wraps.
    pub saturate: bool,
}

impl Mma {
    /// Registers of A, of B, and of C and D.
    pub fn registers(self) -> (usize, usize, usize) {
        match self {
            Mma::Bf16K16 | Mma::F16K16 | Mma::Tf32K8 | Mma::Int8K32(_) => (4, 2, 4),
            Mma::Bf16K8 | Mma::F16K8 | Mma::Tf32K4 | Mma::Int8K16(_) => (2, 1, 4),
            Mma::F16K16Half => (4, 2, 2),
            Mma::F16K8Half => (2, 1, 2),
        }
    }
}

/// A register of every lane of a warp.
pub type Lanes = [u32; 32];

/// D = A * B + C on fragments as registers hold them: `[register][lane]`, the registers numbered as the instruction lists
/// them. Returns false, and leaves D alone, when a fragment has fewer registers than [`Mma::registers`] says.
#[inline(always)]
pub fn mma(kind: Mma, mode: TensorCore, a: &[Lanes], b: &[Lanes], c: &[Lanes], d: &mut [Lanes]) -> bool {
    let bf16 = Format::Bf16;
    let f16 = Format::F16;
    match kind {
        Mma::Bf16K16 => floats::<4, 2, 8, 16, 2, 16, 8>(bf16, Accumulator::Float32, mode, a, b, c, d),
        Mma::Bf16K8 => floats::<2, 1, 4, 8, 2, 8, 8>(bf16, Accumulator::Float32, mode, a, b, c, d),
        Mma::F16K16 => floats::<4, 2, 8, 16, 2, 16, 8>(f16, Accumulator::Float32, mode, a, b, c, d),
        Mma::F16K8 => floats::<2, 1, 4, 8, 2, 8, 8>(f16, Accumulator::Float32, mode, a, b, c, d),
        Mma::F16K16Half => floats::<4, 2, 8, 16, 2, 16, 8>(f16, Accumulator::Half, mode, a, b, c, d),
        Mma::F16K8Half => floats::<2, 1, 4, 8, 2, 8, 8>(f16, Accumulator::Half, mode, a, b, c, d),
        Mma::Tf32K8 => floats::<4, 2, 8, 8, 1, 8, 4>(Format::Tf32, Accumulator::Float32, mode, a, b, c, d),
        Mma::Tf32K4 => floats::<2, 1, 4, 4, 1, 4, 4>(Format::Tf32, Accumulator::Float32, mode, a, b, c, d),
        Mma::Int8K16(variant) => integers::<2, 1, 4>(variant, a, b, c, d),
        Mma::Int8K32(variant) => integers::<4, 2, 8>(variant, a, b, c, d),
    }
}

/// Words into elements: `[element of the row or column][row or column]`, where the low halves of all words come before the
/// high halves ([`tile::stored`]). One loop over everything, so that it vectorises whatever N is.
#[inline(always)]
fn elements<const WORDS: usize, const K: usize, const N: usize>(
    format: Format,
    words: &[[u32; N]; WORDS],
) -> [[f32; N]; K] {
    let mut values = [[0.0; N]; K];
    let words = words.as_flattened();
    let (low, high) = values.as_flattened_mut().split_at_mut(words.len());
    match format {
        Format::Bf16 => {
            for ((low, high), word) in low.iter_mut().zip(high).zip(words) {
                (*low, *high) = (f32::from_bits(word << 16), f32::from_bits(word & 0xFFFF_0000));
            }
        }
        Format::F16 => {
            for ((low, high), word) in low.iter_mut().zip(high).zip(words) {
                (*low, *high) = (f16_to_f32(*word as u16), f16_to_f32((word >> 16) as u16));
            }
        }
        Format::Tf32 => {
            for (value, word) in low.iter_mut().zip(words) {
                *value = f32::from_bits(word & 0xFFFF_E000);
            }
        }
    }
    values
}

/// The floating-point shapes: registers of A and B, words and elements of a row of A, elements a word, and how many k one sum
/// takes on Hopper and Ampere.
#[inline(always)]
fn floats<
    const RA: usize,
    const RB: usize,
    const WORDS: usize,
    const K: usize,
    const PARTS: usize,
    const HOPPER: usize,
    const AMPERE: usize,
>(
    format: Format,
    accumulator: Accumulator,
    mode: TensorCore,
    a: &[Lanes],
    b: &[Lanes],
    c: &[Lanes],
    d: &mut [Lanes],
) -> bool {
    let (Some(a), Some(b)) = (a.first_chunk::<RA>(), b.first_chunk::<RB>()) else { return false };
    let half = accumulator == Accumulator::Half;
    if d.len() < if half { 2 } else { 4 } {
        return false;
    }
    // f16 accumulators as float32 of the same values.
    let mut sums = match (half, c.first_chunk::<4>(), c.first_chunk::<2>()) {
        (false, Some(c), _) => gather_c(c),
        (true, _, Some(c)) => gather_c(&widen(c)),
        _ => return false,
    };
    let a = elements::<WORDS, K, 16>(format, &gather_a::<RA, WORDS>(a));
    let b = elements::<WORDS, K, 8>(format, &gather_b::<RB, WORDS>(b));
    match mode {
        TensorCore::Float32 => tile::float32::<K, PARTS>(&a, &b, &mut sums),
        TensorCore::Hopper => {
            let (a, b) = (Operand::new(format, &a), Operand::new(format, &b));
            tile::truncating::<K, PARTS, HOPPER, 25>(&a, &b, accumulator, &mut sums);
        }
        TensorCore::Ampere => {
            let (a, b) = (Operand::new(format, &a), Operand::new(format, &b));
            tile::truncating::<K, PARTS, AMPERE, 24>(&a, &b, accumulator, &mut sums);
        }
    }
    if half {
        let mut wide = [[0; 32]; 4];
        scatter_d(&sums, &mut wide);
        if let Some(d) = d.first_chunk_mut::<2>() {
            narrow(&wide, d);
        }
    } else if let Some(d) = d.first_chunk_mut::<4>() {
        scatter_d(&sums, d);
    }
    true
}

/// 16 rows and 8 columns of a `wgmma` of bf16 with K = 16: A is `[k][row]`, B `[k][column]`, C and D the four registers that
/// hold these columns, laid out as those of `mma`.
#[inline(always)]
pub fn wgmma_tile(mode: TensorCore, a: &[[f32; 16]; 16], b: &[[f32; 8]; 16], c: &[Lanes; 4]) -> [Lanes; 4] {
    let (mut stored_a, mut stored_b) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
    for k in 0..16 {
        stored_a[tile::stored::<16, 2>(k)] = a[k];
        stored_b[tile::stored::<16, 2>(k)] = b[k];
    }
    let mut sums = gather_c(c);
    if mode == TensorCore::Float32 {
        tile::float32::<16, 2>(&stored_a, &stored_b, &mut sums);
    } else {
        let (a, b) = (Operand::new(Format::Bf16, &stored_a), Operand::new(Format::Bf16, &stored_b));
        match mode {
            TensorCore::Ampere => {
                tile::truncating::<16, 2, 8, 24>(&a, &b, Accumulator::Float32, &mut sums);
            }
            _ => tile::truncating::<16, 2, 16, 25>(&a, &b, Accumulator::Float32, &mut sums),
        }
    }
    let mut d = [[0; 32]; 4];
    scatter_d(&sums, &mut d);
    d
}

/// A packed f16 accumulator as float32 in the layout of a 32-bit one.
#[inline(always)]
fn widen(c: &[Lanes; 2]) -> [Lanes; 4] {
    let mut wide = [[0; 32]; 4];
    for (packed, pair) in c.iter().zip(wide.as_chunks_mut::<2>().0) {
        let [low, high] = pair;
        for lane in 0..32 {
            low[lane] = f16_to_f32(packed[lane] as u16).to_bits();
            high[lane] = f16_to_f32((packed[lane] >> 16) as u16).to_bits();
        }
    }
    wide
}

/// The reverse of [`widen`]; rounds to nearest.
#[inline(always)]
fn narrow(wide: &[Lanes; 4], d: &mut [Lanes; 2]) {
    for (packed, [low, high]) in d.iter_mut().zip(wide.as_chunks::<2>().0) {
        for lane in 0..32 {
            let halves = (f32_to_f16(f32::from_bits(low[lane])), f32_to_f16(f32::from_bits(high[lane])));
            packed[lane] = pack2(halves.0, halves.1);
        }
    }
}

/// The 8-bit integer shapes.
#[inline(always)]
fn integers<const RA: usize, const RB: usize, const WORDS: usize>(
    variant: Int8,
    a: &[Lanes],
    b: &[Lanes],
    c: &[Lanes],
    d: &mut [Lanes],
) -> bool {
    let (Some(a), Some(b), Some(c), Some(d)) =
        (a.first_chunk::<RA>(), b.first_chunk::<RB>(), c.first_chunk::<4>(), d.first_chunk_mut::<4>())
    else {
        return false;
    };
    let (a, b) = (gather_a::<RA, WORDS>(a), gather_b::<RB, WORDS>(b));
    let byte = |word: u32, index: usize, signed: bool| {
        let byte = (word >> (8 * index)) as u8;
        if signed { byte as i8 as i32 } else { byte as i32 }
    };
    let mut matrix = gather_c::<u32>(c);
    for column in 0..8 {
        for row in 0..16 {
            // At most 32 products below 2^16: no overflow before the accumulator.
            let mut sum = 0i32;
            for word in 0..WORDS {
                for index in 0..4 {
                    let a = byte(a[word][row], index, variant.a_signed);
                    sum += a * byte(b[word][column], index, variant.b_signed);
                }
            }
            let c = matrix[column][row] as i32;
            let result = if variant.saturate { c.saturating_add(sum) } else { c.wrapping_add(sum) };
            matrix[column][row] = result as u32;
        }
    }
    scatter_d(&matrix, d);
    true
}

/// `mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64`: lane = 4 * group + thread holds A's row `group`, column `thread`, B's row
/// `thread`, column `group`, and of C and D the row `group`, columns `2 * thread` and `2 * thread + 1`. A chain of fused
/// multiply-adds in the order of k, as the published models have it.
#[inline(always)]
pub fn mma_f64(a: &[u64; 32], b: &[u64; 32], c: &[[u64; 32]; 2], d: &mut [[u64; 32]; 2]) {
    for register in 0..2 {
        for lane in 0..32 {
            let (row, column) = (lane / 4, 2 * (lane % 4) + register);
            let mut sum = f64::from_bits(c[register][lane]);
            for k in 0..4 {
                sum = f64::from_bits(a[4 * row + k]).mul_add(f64::from_bits(b[4 * column + k]), sum);
            }
            d[register][lane] = canonical_f64(sum).to_bits();
        }
    }
}
