//! Sums of columns.

use super::case::{Case, Contents};
use super::compare::{Bytes, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let shapes = [
        (1, 1, 1),
        (7, 3, 2),
        (64, 128, 4),
        (100, 129, 3),
        (33, 130, 5),
        (257, 200, 8),
        (31, 1000, 2),
        (5, 127, 7),
    ];
    shapes.map(|(rows, columns, splits)| case(rows, columns, splits)).to_vec()
}

fn case(rows: usize, columns: usize, splits: usize) -> Case {
    // Sums of whole numbers are exact in any order.
    let x = Stream::new((rows * 10_007 + columns) as u64).integers(rows * columns, 1000);
    let total: Vec<f32> = (0..columns).map(|c| (0..rows).map(|r| x[r * columns + c]).sum()).collect();
    let stripes = columns.div_ceil(128);
    let zeros = vec![0u32; stripes].bytes();
    Case::new(
        "reduce.cu",
        include_str!("../kernels/reduce.cu"),
        "column_sum",
        format!("rows {rows} columns {columns} splits {splits}"),
    )
    .launch([stripes as u32, splits as u32, 1], [256, 1, 1])
    .input("x", &x)
    .output("partial", splits * columns * 4, Expected::Any)
    .buffer("arrived", Contents::Bytes(zeros.clone()), Expected::Exact(zeros))
    .output("total", columns * 4, Expected::Exact(total.bytes()))
    .value(&(rows as i32))
    .value(&(columns as i32))
    .traffic((rows * columns + splits * columns + stripes) * 4, (splits * columns + columns + stripes) * 4)
    .barriers(3 * stripes * splits)
}
