//! Transposition through a tile in shared memory, padded and, to see bank conflicts, not.

use super::case::{Banks, Case};
use super::compare::{Bytes, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (31, 33), (32, 32), (5, 97), (64, 65), (100, 3)];
    let mut cases = shapes.map(|(rows, columns)| case(rows, columns).banks(Banks::Free)).to_vec();
    let mut unpadded = case(64, 65).banks(Banks::Conflicts);
    unpadded.options.push("-DPADDING=0");
    unpadded.shape.push_str(" unpadded");
    cases.push(unpadded);
    cases
}

fn case(rows: usize, columns: usize) -> Case {
    let x = Stream::new((rows * 10_007 + columns) as u64).floats(rows * columns, 1.0);
    let y: Vec<f32> = (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect();
    let grid = [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1];
    Case::new(
        "transpose.cu",
        include_str!("../kernels/transpose.cu"),
        "transpose",
        format!("rows {rows} columns {columns}"),
    )
    .launch(grid, [32, 8, 1])
    .input("x", &x)
    .output("y", rows * columns * 4, Expected::Exact(y.bytes()))
    .value(&(rows as i32))
    .value(&(columns as i32))
    .traffic(rows * columns * 4, rows * columns * 4)
    .barriers((grid[0] * grid[1]) as usize)
}
