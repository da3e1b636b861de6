//! How near is near enough: at most twice the error of a naive implementation in the same precision.

use crate::array::Array;
use engine::{DType, Error, Result, Tensor};

/// Largest error of `actual` against `oracle`, relative to the oracle's largest magnitude, and where it is.
pub fn error(actual: &[f64], oracle: &[f64]) -> (f64, usize) {
    let scale = oracle.iter().fold(0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
    let scale = if scale > 0.0 { scale } else { 1.0 };
    let mut worst = (0.0, 0);
    for (i, (&a, &o)) in actual.iter().zip(oracle).enumerate() {
        let same = a == o || (a.is_nan() && o.is_nan());
        let e = if same { 0.0 } else { (a - o).abs() / scale };
        if e > worst.0 || e.is_nan() {
            worst = (if e.is_nan() { f64::INFINITY } else { e }, i);
        }
    }
    worst
}

/// An error unless `actual` is within `factor` times the naive error of the f64 oracle. `what` names the value in the
/// message.
///
/// The naive result is computed in f32 and, for an `actual` in bf16, rounded to that. It may be exact by luck, so four
/// units in the last place of the largest element are always allowed; in bf16 one, for its last rounding is nearly all
/// of its error.
#[track_caller]
pub fn check(
    what: &str,
    actual: &Tensor,
    naive: &Array<f32>,
    oracle: &Array<f64>,
    factor: f64,
) -> Result<()> {
    if actual.shape() != oracle.shape || naive.shape != oracle.shape {
        return Err(Error::shape(
            what,
            format!("shape {:?} where the reference has {:?}", actual.shape(), oracle.shape),
        ));
    }
    let least = match actual.dtype() {
        DType::BF16 => f64::from(half::bf16::EPSILON),
        _ => 4.0 * f64::from(f32::EPSILON),
    };
    let naive = naive.cast::<f64>().rounded_to(actual.dtype());
    let allowed = factor * error(&naive.data, &oracle.data).0 + least;
    let actual = Array::<f64>::from_tensor(actual)?.data;
    let (found, at) = error(&actual, &oracle.data);
    if found <= allowed {
        return Ok(());
    }
    Err(Error::value(
        what,
        format!(
            "error {found:.3e} of the largest element, allowed {allowed:.3e}; element {at} of {:?} is {} and \
             should be {}",
            oracle.shape, actual[at], oracle.data[at]
        ),
    ))
}

/// An error unless every element is equal, bit for bit (NaN equals NaN).
#[track_caller]
pub fn check_equal(what: &str, actual: &Tensor, expected: &Tensor) -> Result<()> {
    actual.require_shape(what, "actual", expected.shape())?;
    let (a, b) = (actual.to_vec::<f32>()?, expected.to_vec::<f32>()?);
    match a.iter().zip(&b).position(|(x, y)| x.to_bits() != y.to_bits() && !(x.is_nan() && y.is_nan())) {
        None => Ok(()),
        Some(i) => Err(Error::value(what, format!("element {i} is {:?}, expected {:?}", a[i], b[i]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_element_and_a_nan_are_found() {
        let oracle = Array::<f64>::new(&[3], vec![1.0, 2.0, 3.0]);
        let naive = oracle.cast::<f32>();
        let good = Tensor::from_slice(&[1f32, 2.0, 3.0], &[3]).unwrap();
        check("x", &good, &naive, &oracle, 2.0).unwrap();
        for bad in [[1f32, 2.0, 3.0001], [f32::NAN, 2.0, 3.0], [f32::INFINITY, 2.0, 3.0]] {
            let bad = Tensor::from_slice(&bad, &[3]).unwrap();
            assert!(check("x", &bad, &naive, &oracle, 2.0).is_err());
        }
        let other = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[4]).unwrap();
        assert!(check("x", &other, &naive, &oracle, 2.0).is_err());
    }
}
