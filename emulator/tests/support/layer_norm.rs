//! Layer normalisation with bf16 activations.

use super::case::Case;
use super::compare::{Bounded, Element, Expected};
use super::random::Stream;
use half::bf16;

const EPSILON: f32 = 1e-5;

pub fn cases() -> Vec<Case> {
    let shapes = [
        (1, 1),
        (1, 8),
        (5, 7),
        (3, 64),
        (5, 100),
        (4, 127),
        (9, 192),
        (6, 384),
        (5, 768),
        (3, 1000),
        (4, 1023),
        (2, 1024),
    ];
    shapes.map(|(rows, width)| case(rows, width)).to_vec()
}

fn case(rows: usize, width: usize) -> Case {
    let mut random = Stream::new((rows * 10_007 + width) as u64);
    // Rows of different scale and offset; row 2 is constant.
    let scale = |row: usize| if row == 2 { 0.0 } else { 0.3 + row as f64 };
    let x: Vec<bf16> = (0..rows * width)
        .map(|i| bf16::from_f64(random.normal() * scale(i / width) + 5.0 * (i / width) as f64))
        .collect();
    let gamma = random.floats(width, 1.0);
    let beta = random.floats(width, 0.5);
    let want = reference(&x, &gamma, &beta, width);
    Case::new(
        "layer_norm.cu",
        include_str!("../kernels/layer_norm.cu"),
        "layer_norm_fwd",
        format!("rows {rows} width {width}"),
    )
    .launch([rows.div_ceil(4) as u32, 1, 1], [128, 1, 1])
    .input("x", &x)
    .input("gamma", &gamma)
    .input("beta", &beta)
    .output("y", rows * width * 2, Expected::Close(Element::Bf16, want.y))
    .output("mean", rows * 4, Expected::Close(Element::F32, want.mean))
    .output("rstd", rows * 4, Expected::Close(Element::F32, want.rstd))
    .value(&(rows as i32))
    .value(&(width as i32))
    .value(&EPSILON)
    .traffic(rows * width * 2 + width * 8, rows * width * 2 + rows * 8)
    .barriers(0)
}

/// Values with their bounds.
struct Reference {
    y: Bounded,
    mean: Bounded,
    rstd: Bounded,
}

fn reference(x: &[bf16], gamma: &[f32], beta: &[f32], width: usize) -> Reference {
    let mut want = Reference { y: Vec::new(), mean: Vec::new(), rstd: Vec::new() };
    for row in x.chunks(width) {
        let row: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width as f64;
        let rstd = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        // A mean is the sum of at most 32 terms a lane and five merges, which are wrong by a unit each; deviations
        // from it are as wrong as the mean, in absolute terms.
        let largest = row.iter().fold(0f64, |a, x| a.max(x.abs()));
        let error = largest * 40.0 * 2f64.powi(-24);
        want.mean.push((mean, error));
        let variance_error = 2.0 * variance.sqrt() * error + error * error;
        let relative = 2f64.powi(-18) + variance_error / (variance + f64::from(EPSILON));
        want.rstd.push((rstd, rstd * relative));
        for ((x, gamma), beta) in row.iter().zip(gamma).zip(beta) {
            let scaled = (x - mean) * rstd * f64::from(*gamma);
            let y = scaled + f64::from(*beta);
            let before_rounding = scaled.abs() * relative + error * rstd * f64::from(gamma.abs());
            let bound = before_rounding + (y.abs() + before_rounding) * 2f64.powi(-8);
            want.y.push((y, bound));
        }
    }
    want
}
