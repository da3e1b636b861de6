//! Matrix products as their definition says, in any precision.

use crate::array::{Array, Real};

/// `[.., M, K] x [.., K, N]`, either side transposed, sums in order of k.
pub fn matmul<T: Real>(a: &Array<T>, b: &Array<T>, transpose_a: bool, transpose_b: bool) -> Array<T> {
    let rank = a.shape.len();
    let batch = &a.shape[..rank - 2];
    let (a0, a1) = (a.shape[rank - 2], a.shape[rank - 1]);
    let (b0, b1) = (b.shape[rank - 2], b.shape[rank - 1]);
    let (m, k) = if transpose_a { (a1, a0) } else { (a0, a1) };
    let n = if transpose_b { b0 } else { b1 };
    let mut shape = batch.to_vec();
    shape.extend([m, n]);
    let mut out = Array::zeros(&shape);
    for batch in 0..batch.iter().product() {
        let (a_at, b_at, out_at) = (batch * m * k, batch * k * n, batch * m * n);
        for i in 0..m {
            for j in 0..n {
                for l in 0..k {
                    let x = a.data[a_at + if transpose_a { l * m + i } else { i * k + l }];
                    let y = b.data[b_at + if transpose_b { j * k + l } else { l * n + j }];
                    out.data[out_at + i * n + j] += x * y;
                }
            }
        }
    }
    out
}

/// `x Wᵀ + b`: x `[.., K]`, weight `[N, K]`, bias `[N]`.
pub fn linear<T: Real>(x: &Array<T>, weight: &Array<T>, bias: Option<&Array<T>>) -> Array<T> {
    let (n, k) = (weight.shape[0], weight.shape[1]);
    let mut shape = x.shape.clone();
    shape.pop();
    let m = shape.iter().product();
    shape.push(n);
    let flat = Array::new(&[m, k], x.data.clone());
    let mut out = matmul(&flat, weight, false, true);
    out.shape = shape;
    if let Some(bias) = bias {
        for (i, v) in out.data.iter_mut().enumerate() {
            *v += bias.data[i % n];
        }
    }
    out
}
