//! Softmax over rows.

use super::case::{Banks, Case};
use super::compare::{Bounded, Element, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (3, 7), (5, 31), (2, 1000), (4, 1024), (3, 1023), (7, 1025), (2, 4096)];
    shapes.map(|(rows, columns)| case(rows, columns, 3)).to_vec()
}

pub fn benchmark() -> Case {
    case(256, 4096, 256)
}

fn case(rows: usize, columns: usize, blocks: usize) -> Case {
    let mut random = Stream::new((rows * 10_007 + columns) as u64);
    let mut x = random.floats(rows * columns, 6.0);
    for (i, value) in x.iter_mut().enumerate() {
        // Some elements are masked, and all of row 1.
        if random.uniform() < 0.02 && columns > 8 || i / columns == 1 {
            *value = f32::NEG_INFINITY;
        }
    }
    let blocks = blocks.min(rows);
    Case::new(
        "softmax.cu",
        include_str!("../kernels/softmax.cu"),
        "softmax_fwd",
        format!("rows {rows} columns {columns}"),
    )
    .launch([blocks as u32, 1, 1], [256, 1, 1])
    .input("x", &x)
    .output("y", rows * columns * 4, Expected::Close(Element::F32, reference(&x, columns)))
    .value(&(rows as i32))
    .value(&(columns as i32))
    .traffic(rows * columns * 4, rows * columns * 4)
    .barriers(2 * rows)
    .banks(Banks::Free)
}

/// Values with their bounds. A sum has a term for every 256th column and some twenty merges, each with two exponentials of
/// two units in the last place; and the argument of an exponential, rounded, is wrong by its own size in units.
fn reference(x: &[f32], columns: usize) -> Bounded {
    let unit = 2f64.powi(-23);
    let row = |x: &[f32]| -> Bounded {
        let maximum = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if maximum == f32::NEG_INFINITY {
            return vec![(0.0, 0.0); columns];
        }
        let distance: Vec<f64> = x.iter().map(|&x| f64::from(maximum) - f64::from(x)).collect();
        let sum: f64 = distance.iter().map(|d| (-d).exp()).sum();
        let steps = 64.0 + columns as f64 / 128.0;
        let value = |d: f64| (-d).exp() / sum;
        distance
            .iter()
            .map(|&d| (value(d), if d.is_finite() { value(d) * unit * (steps + d) + 1e-37 } else { 0.0 }))
            .collect()
    };
    x.chunks(columns).flat_map(row).collect()
}
