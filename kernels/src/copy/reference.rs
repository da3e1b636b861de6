//! One element at a time, found through its full index.

use engine::{Element, Result, Tensor};

/// The elements of any view in row-major order, each through its strides.
pub fn contiguous<T: Element>(x: &Tensor) -> Result<Vec<T>> {
    let (all, layout) = (x.storage_slice::<T>()?, x.layout());
    Ok((0..x.len())
        .map(|mut i| {
            let mut at = layout.offset();
            for d in (0..layout.rank()).rev() {
                at += i % layout.dims()[d] * layout.strides()[d];
                i /= layout.dims()[d];
            }
            all[at]
        })
        .collect())
}

/// The elements of `tensors`, of one shape but for dimension `dim`, one after another along it.
pub fn cat<T: Element>(tensors: &[&Tensor], dim: usize) -> Result<Vec<T>> {
    let outer: usize = tensors[0].shape()[..dim].iter().product();
    let mut out = Vec::new();
    for o in 0..outer {
        for t in tensors {
            let run: usize = t.shape()[dim..].iter().product();
            out.extend_from_slice(&t.to_vec::<T>()?[o * run..(o + 1) * run]);
        }
    }
    Ok(out)
}

/// Rows of `width` elements added to row `index[m]` of `n`, in order.
pub fn scatter_add(dy: &[f32], width: usize, index: &[i32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * width];
    for (m, &i) in index.iter().enumerate() {
        for c in 0..width {
            out[i as usize * width + c] += dy[m * width + c];
        }
    }
    out
}

/// Windows of `size` (rows, columns) of planes x of `shape` at (plane, row, column).
pub fn windows<T: Element>(x: &[T], shape: [usize; 3], at: &[i32], size: [usize; 2]) -> Vec<T> {
    let [rows, columns] = size;
    (0..at.len() / 3 * rows * columns)
        .map(|n| {
            let (m, i, j) = (n / (rows * columns), n / columns % rows, n % columns);
            let [plane, top, left] = [0, 1, 2].map(|d| at[3 * m + d] as usize);
            x[(plane * shape[1] + top + i) * shape[2] + left + j]
        })
        .collect()
}
