//! NT-Xent without its similarity matrix.

use super::case::{Banks, Case};
use super::compare::{Element, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (1, 33), (2, 8), (3, 31), (16, 32), (17, 33), (33, 64), (50, 128)];
    shapes.map(|(images, features)| case(images, features, if images % 2 == 0 { 0.5 } else { 0.1 })).to_vec()
}

fn case(images: usize, features: usize, temperature: f32) -> Case {
    let rows = 2 * images;
    let mut u = Stream::new((images * 10_007 + features) as u64).floats(rows * features, 1.0);
    for row in u.chunks_mut(features) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    let inverse = 1.0 / temperature;
    let similarity = |i: usize, j: usize| -> f64 {
        let (a, b) = (&u[i * features..][..features], &u[j * features..][..features]);
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(inverse)
    };
    // A dot product of unit vectors is wrong by at most a unit of 1 a feature; float32 results and a few dozen
    // exponentials add as much again.
    let bound = f64::from(inverse) * (features + 8) as f64 * 2f64.powi(-23) + 2f64.powi(-17);
    let (mut loss, mut lse) = (Vec::new(), Vec::new());
    for i in 0..rows {
        let maximum = f64::from(inverse);
        let sum: f64 = (0..rows).filter(|&j| j != i).map(|j| (similarity(i, j) - maximum).exp()).sum();
        let value = maximum + sum.ln();
        lse.push((value, bound));
        loss.push((value - similarity(i, (i + images) % rows), 2.0 * bound));
    }
    let blocks = rows.div_ceil(32);
    Case::new(
        "ntxent.cu",
        include_str!("../kernels/ntxent.cu"),
        "ntxent_fwd",
        format!("images {images} features {features}"),
    )
    .launch([blocks as u32, 1, 1], [256, 1, 1])
    .input("u", &u)
    .output("loss", rows * 4, Expected::Close(Element::F32, loss))
    .output("lse", rows * 4, Expected::Close(Element::F32, lse))
    .value(&(rows as i32))
    .value(&(features as i32))
    .value(&inverse)
    .traffic(rows * features * 4, rows * 8)
    .barriers(2 * blocks * blocks * features.div_ceil(32))
    .banks(Banks::Free)
}
