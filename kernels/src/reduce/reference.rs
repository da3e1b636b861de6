//! One element at a time, in f32 (naive) or f64 (oracle).

use crate::array::{Array, Real};

/// Sum over `dims`, in row-major order.
pub fn sum<T: Real>(x: &Array<T>, dims: &[usize]) -> Array<T> {
    let kept: Vec<usize> = (0..x.shape.len()).filter(|d| !dims.contains(d)).collect();
    let mut out = Array::zeros(&kept.iter().map(|&d| x.shape[d]).collect::<Vec<_>>());
    let mut index = vec![0; x.shape.len()];
    for (i, &v) in x.data.iter().enumerate() {
        let mut rest = i;
        for d in (0..x.shape.len()).rev() {
            index[d] = rest % x.shape[d];
            rest /= x.shape[d];
        }
        let at = out.at(&kept.iter().map(|&d| index[d]).collect::<Vec<_>>());
        out.data[at] += v;
    }
    out
}

/// Position of the maximum of every row, the first on ties; NaN is the largest.
pub fn argmax_last<T: Real>(x: &Array<T>) -> Vec<i32> {
    let n = x.shape[x.shape.len() - 1];
    let nan = |v: T| v.get().is_nan();
    let best = |row: &[T]| {
        (1..row.len()).fold(0, |b, i| if !nan(row[b]) && (nan(row[i]) || row[i] > row[b]) { i } else { b })
    };
    x.data.chunks(n.max(1)).map(|row| best(row) as i32).collect()
}
