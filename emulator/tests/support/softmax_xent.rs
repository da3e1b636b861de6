//! Softmax cross-entropy over rows of any length and alignment.

use super::case::Case;
use super::compare::{Element, Expected};
use super::random::Stream;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (3, 2), (4, 7), (2, 10), (3, 257), (2, 1000), (2, 1001), (1, 4099)];
    shapes.map(|(batch, classes)| case(batch, classes)).to_vec()
}

fn case(batch: usize, classes: usize) -> Case {
    let mut random = Stream::new((batch * 10_007 + classes) as u64);
    let logits = random.halves(batch * classes, 4.0);
    let label: Vec<i32> = (0..batch).map(|_| (random.bits() % classes as u64) as i32).collect();
    // A thread rescales its sum a few times and adds an element at most every 32nd; the approximate exponential and
    // logarithm are right to 2^-20 relative to 1 in this range; the results are float32 of their size.
    let bound = |lse: f64| 2f64.powi(-17) + lse.abs() * 2f64.powi(-22);
    let lse: Vec<f64> = logits
        .chunks(classes)
        .map(|row| {
            let maximum = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
            maximum + row.iter().map(|x| (x.to_f64() - maximum).exp()).sum::<f64>().ln()
        })
        .collect();
    let loss = (0..batch)
        .map(|b| (lse[b] - logits[b * classes + label[b] as usize].to_f64(), bound(lse[b])))
        .collect();
    Case::new(
        "softmax_xent.cu",
        include_str!("../kernels/softmax_xent.cu"),
        "softmax_xent_fwd",
        format!("batch {batch} classes {classes}"),
    )
    .launch([batch as u32, 1, 1], [256, 1, 1])
    .input("logits", &logits)
    .input("label", &label)
    .output("loss", batch * 4, Expected::Close(Element::F32, loss))
    .output(
        "lse",
        batch * 4,
        Expected::Close(Element::F32, lse.iter().map(|&lse| (lse, bound(lse))).collect()),
    )
    .value(&(classes as i32))
    .traffic(batch * classes * 2 + batch * 4, batch * 8)
    .barriers(batch)
}
