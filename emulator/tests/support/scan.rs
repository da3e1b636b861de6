//! Prefix sums and compaction.

use super::case::{Case, Contents};
use super::compare::{Bytes, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let scans = [(1, 1), (2, 5), (3, 31), (2, 1000), (1, 1023), (2, 1024), (1, 1025), (1, 2500)];
    let compactions = [(1, 1), (5, 31), (9, 64), (8, 100), (17, 33)];
    let scans = scans.map(|(rows, columns)| scan(rows, columns));
    let compactions = compactions.map(|(rows, columns)| compaction(rows, columns));
    scans.into_iter().chain(compactions).collect()
}

fn words(rows: usize, columns: usize) -> Vec<u32> {
    let mut random = Stream::new((rows * 10_007 + columns) as u64);
    (0..rows * columns).map(|_| random.bits() as u32).collect()
}

fn scan(rows: usize, columns: usize) -> Case {
    let x = words(rows, columns);
    let row = |row: &[u32]| -> Vec<u32> {
        let mut sum = 0u32;
        row.iter()
            .map(|x| {
                sum = sum.wrapping_add(*x);
                sum.wrapping_sub(*x)
            })
            .collect()
    };
    let y: Vec<u32> = x.chunks(columns).flat_map(row).collect();
    Case::new(
        "scan.cu",
        include_str!("../kernels/scan.cu"),
        "scan_rows",
        format!("rows {rows} columns {columns}"),
    )
    .launch([rows as u32, 1, 1], [256, 1, 1])
    .input("x", &x)
    .output("y", rows * columns * 4, Expected::Exact(y.bytes()))
    .value(&(columns as i32))
    .traffic(rows * columns * 4, rows * columns * 4)
    .barriers(2 * rows * columns.div_ceil(1024))
}

fn compaction(rows: usize, columns: usize) -> Case {
    let x = words(rows, columns);
    let threshold = 0x6000_0000u32;
    let mut positions = Vec::new();
    let (mut kept, mut largest, mut groups) = (Vec::new(), Vec::new(), vec![0u32; rows * 8]);
    for (r, row) in x.chunks(columns).enumerate() {
        let kept_here: Vec<u32> = (0..columns as u32).filter(|&c| row[c as usize] >= threshold).collect();
        for &c in &kept_here {
            groups[r * 8 + row[c as usize] as usize % 8] += 1;
        }
        kept.push(kept_here.len() as u32);
        largest.push(kept_here.iter().map(|&c| row[c as usize]).max().unwrap_or(0));
        positions.push((r * columns * 4, kept_here.bytes()));
    }
    let written: usize = positions.iter().map(|(_, bytes)| bytes.len()).sum();
    Case::new(
        "scan.cu",
        include_str!("../kernels/scan.cu"),
        "compact_rows",
        format!("rows {rows} columns {columns}"),
    )
    .launch([rows.div_ceil(8) as u32, 1, 1], [256, 1, 1])
    .input("x", &x)
    .buffer("positions", Contents::Pieces(rows * columns * 4, Vec::new()), Expected::Pieces(positions))
    .output("kept", rows * 4, Expected::Exact(kept.bytes()))
    .output("largest", rows * 4, Expected::Exact(largest.bytes()))
    .output("groups", rows * 32, Expected::Exact(groups.bytes()))
    .value(&(rows as i32))
    .value(&(columns as i32))
    .value(&threshold)
    .traffic(rows * columns * 4, written + rows * 40)
    .barriers(0)
}
