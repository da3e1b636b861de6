//! Matrix products on the tensor cores, exact on whole numbers and bounded on others.

use super::case::{Banks, Case, Contents};
use super::compare::{Bounded, Bytes, Element, Expected};
use super::random::Stream;
use half::bf16;

/// What the operands are.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    /// Small whole numbers: every sum is exact in float32, in any order, however it is truncated.
    Whole,
    /// Normal.
    Normal,
}

pub fn cases() -> Vec<Case> {
    let shapes = [
        (1, 1, 1),
        (7, 5, 3),
        (16, 8, 16),
        (63, 65, 31),
        (64, 64, 32),
        (65, 63, 33),
        (100, 72, 96),
        (129, 64, 64),
        (37, 130, 97),
        (1, 64, 128),
    ];
    let mut cases = Vec::new();
    for (i, &(m, n, k)) in shapes.iter().enumerate() {
        for nt in [false, true] {
            let numbers = if (i % 2 == 0) == nt { Numbers::Whole } else { Numbers::Normal };
            cases.push(case(m, n, k, nt, numbers, i % 3 != 0));
        }
    }
    cases
}

pub fn benchmark() -> Case {
    case(512, 512, 512, true, Numbers::Normal, false)
}

fn case(m: usize, n: usize, k: usize, nt: bool, numbers: Numbers, with_bias: bool) -> Case {
    let mut random = Stream::new((m * 1_000_003 + n * 1009 + k) as u64);
    let mut operand = |rows: usize, columns: usize| -> Vec<bf16> {
        match numbers {
            Numbers::Whole => random.integers(rows * columns, 3).into_iter().map(bf16::from_f32).collect(),
            Numbers::Normal => random.halves(rows * columns, 1.0),
        }
    };
    let a = operand(m, k);
    let (b_rows, b_columns) = if nt { (n, k) } else { (k, n) };
    let b = operand(b_rows, b_columns);
    let bias: Vec<f32> = if with_bias { random.integers(n, 7) } else { Vec::new() };

    let pitch = |columns: usize| columns.next_multiple_of(8);
    let rows = |values: &[bf16], columns: usize| -> Vec<(usize, Vec<u8>)> {
        values
            .chunks(columns)
            .enumerate()
            .map(|(row, values)| (row * pitch(columns) * 2, values.bytes()))
            .collect()
    };
    let padded = |values: &[bf16], columns: usize| {
        Contents::Pieces(values.len() / columns * pitch(columns) * 2, rows(values, columns))
    };
    // What lies between the rows of C must stay as it is.
    let filler = bf16::from_f32(-77.0);
    let c = reference(&a, &b, &bias, [m, n, k], nt, numbers, filler);
    let entry = if nt { "matmul_nt" } else { "matmul_nn" };
    let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
    let blocks = (grid[0] * grid[1]) as usize;
    let slices = k.div_ceil(32);
    let case = Case::new(
        "matmul_mma.cu",
        include_str!("../kernels/matmul_mma.cu"),
        entry,
        format!("m {m} n {n} k {k}{}", if with_bias { " bias" } else { "" }),
    )
    .launch(grid, [128, 1, 1])
    .buffer("a", padded(&a, k), Expected::Pieces(rows(&a, k)))
    .buffer("b", padded(&b, b_columns), Expected::Pieces(rows(&b, b_columns)));
    let case = if with_bias { case.input("bias", &bias) } else { case.value(&0u64) };
    let mut case = case
        .buffer("c", Contents::Bytes(vec![filler; m * pitch(n)].bytes()), Expected::Close(Element::Bf16, c))
        .value(&(pitch(k) as i32))
        .value(&(pitch(b_columns) as i32))
        .value(&(pitch(n) as i32))
        .value(&(m as i32))
        .value(&(n as i32))
        .value(&(k as i32))
        .traffic((m * k + k * n) * 2 + bias.len() * 4, m * n * 2)
        .barriers(blocks * (slices + 1))
        .banks(Banks::Free);
    // Four warps, two steps of 16 a slice, 2 x 4 products of 16 x 8.
    case.cost.tensor = Some((blocks * 4 * slices * 2 * 8) as u64);
    case
}

/// Values with bounds. Tensor cores truncate: two units of float32 a product, of the sum of magnitudes; then bf16 rounds.
fn reference(
    a: &[bf16],
    b: &[bf16],
    bias: &[f32],
    [m, n, k]: [usize; 3],
    nt: bool,
    numbers: Numbers,
    filler: bf16,
) -> Bounded {
    let a: Vec<f64> = a.iter().map(|x| x.to_f64()).collect();
    let b: Vec<f64> = b.iter().map(|x| x.to_f64()).collect();
    let mut c = Vec::new();
    for i in 0..m {
        for j in 0..n.next_multiple_of(8) {
            if j >= n {
                c.push((filler.to_f64(), 0.0));
                continue;
            }
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for l in 0..k {
                let product = a[i * k + l] * if nt { b[j * k + l] } else { b[l * n + j] };
                sum += product;
                magnitude += product.abs();
            }
            sum += bias.get(j).map_or(0.0, |&bias| f64::from(bias));
            c.push(match numbers {
                Numbers::Whole => (bf16::from_f32(sum as f32).to_f64(), 0.0),
                Numbers::Normal => {
                    let bound = magnitude * 2.0 * (k + 1) as f64 * 2f64.powi(-23);
                    (sum, bound + (sum.abs() + bound) * 2f64.powi(-8))
                }
            });
        }
    }
    c
}
