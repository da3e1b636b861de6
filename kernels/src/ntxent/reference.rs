//! The definition with all similarities in memory, in any precision.

use super::Spec;
use crate::array::{Array, Real};
use crate::softmax_xent::reference::log_sum_exp;

/// What each row should be near.
#[derive(Debug, Clone)]
pub enum Positive<T> {
    /// [R] columns.
    Column(Vec<usize>),
    /// [R, D] vectors.
    Vector(Array<T>),
}

/// All gradients; those of the positives are zeros where they are columns.
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// [R, D]
    pub drows: Array<T>,
    /// [C, D]
    pub dcolumns: Array<T>,
    /// [R, D]
    pub dpositive: Array<T>,
}

/// What row `i` sees: each candidate's similarity over temperature, and its column (`None`: the vector).
fn seen<T: Real>(
    rows: &Array<T>,
    columns: &Array<T>,
    positive: &Positive<T>,
    spec: Spec,
    i: usize,
) -> Vec<(T, Option<usize>)> {
    let d = rows.shape[1];
    let temperature = T::of(f64::from(spec.temperature));
    let similarity = |other: &[T]| {
        let mut s = T::ZERO;
        for k in 0..d {
            s += rows.data[i * d + k] * other[k];
        }
        s / temperature
    };
    let mut out = Vec::new();
    if let Positive::Vector(v) = positive {
        out.push((similarity(&v.data[i * d..(i + 1) * d]), None));
    }
    for j in 0..columns.shape[0] {
        if spec.self_column.is_none_or(|offset| j != i + offset) {
            out.push((similarity(&columns.data[j * d..(j + 1) * d]), Some(j)));
        }
    }
    out
}

fn positive_of<T>(positive: &Positive<T>, i: usize) -> Option<usize> {
    match positive {
        Positive::Column(index) => Some(index[i]),
        Positive::Vector(_) => None,
    }
}

/// `(loss [R], lse [R])`.
pub fn forward<T: Real>(
    rows: &Array<T>,
    columns: &Array<T>,
    positive: &Positive<T>,
    spec: Spec,
) -> (Array<T>, Array<T>) {
    let r = rows.shape[0];
    let (mut loss, mut lse) = (Array::zeros(&[r]), Array::zeros(&[r]));
    for i in 0..r {
        let seen = seen(rows, columns, positive, spec, i);
        let all: Vec<T> = seen.iter().map(|s| s.0).collect();
        lse.data[i] = log_sum_exp(&all);
        let own = positive_of(positive, i);
        for (s, _) in seen.iter().filter(|s| s.1 == own) {
            loss.data[i] = lse.data[i] - *s;
        }
    }
    (loss, lse)
}

/// One element of G: the row, the column (`None`: the row's own positive vector), its value.
pub type Weight<T> = (usize, Option<usize>, T);

/// All of G that is not masked, times `dloss` [R].
pub fn weights<T: Real>(
    dloss: &Array<T>,
    rows: &Array<T>,
    columns: &Array<T>,
    positive: &Positive<T>,
    spec: Spec,
) -> Vec<Weight<T>> {
    let temperature = T::of(f64::from(spec.temperature));
    let (_, lse) = forward(rows, columns, positive, spec);
    let mut out = Vec::new();
    for i in 0..rows.shape[0] {
        let own = positive_of(positive, i);
        for (s, j) in seen(rows, columns, positive, spec, i) {
            let one = if j == own { T::ONE } else { T::ZERO };
            out.push((i, j, dloss.data[i] * ((s - lse.data[i]).exp() - one) / temperature));
        }
    }
    out
}

/// What a G gives: both products with the vectors.
pub fn products<T: Real>(
    weights: &[Weight<T>],
    rows: &Array<T>,
    columns: &Array<T>,
    positive: &Positive<T>,
) -> Gradients<T> {
    let d = rows.shape[1];
    let mut out = Gradients {
        drows: Array::zeros(&rows.shape),
        dcolumns: Array::zeros(&columns.shape),
        dpositive: Array::zeros(&rows.shape),
    };
    for &(i, j, g) in weights {
        for k in 0..d {
            let row = rows.data[i * d + k];
            match (j, positive) {
                (None, Positive::Vector(v)) => {
                    out.drows.data[i * d + k] += g * v.data[i * d + k];
                    out.dpositive.data[i * d + k] += g * row;
                }
                (None, Positive::Column(_)) => {}
                (Some(j), _) => {
                    out.drows.data[i * d + k] += g * columns.data[j * d + k];
                    out.dcolumns.data[j * d + k] += g * row;
                }
            }
        }
    }
    out
}

/// Gradients of the sum of `dloss` [R] times loss.
pub fn backward<T: Real>(
    dloss: &Array<T>,
    rows: &Array<T>,
    columns: &Array<T>,
    positive: &Positive<T>,
    spec: Spec,
) -> Gradients<T> {
    products(&weights(dloss, rows, columns, positive, spec), rows, columns, positive)
}
