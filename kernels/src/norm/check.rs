//! All launchers against the references, on the CPU and, in f32 and bf16, aligned and not, on CUDA devices.

use super::cases::{Case, device_cases};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, misaligned, on_device};
use crate::compare::check as near;

/// Where tensors are put.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// On which device.
    pub device: Device,
    /// Element type of all but parameters and statistics.
    pub dtype: DType,
    /// One element behind a multiple of 16 bytes.
    pub misaligned: bool,
}

impl Place {
    /// What the CPU computes in.
    #[cfg(test)]
    pub const CPU: Place = Place { device: Device::Cpu, dtype: DType::F32, misaligned: false };

    fn put(&self, x: &Array<f64>, dtype: DType) -> Result<Tensor> {
        match self.misaligned {
            true => misaligned(x, dtype, self.device),
            false => on_device(x, dtype, self.device),
        }
    }
}

/// Values as a kernel takes them, and as the references do.
struct Given {
    tensor: Tensor,
    naive: Array<f32>,
    oracle: Array<f64>,
}

impl Given {
    /// In the place's element type.
    fn new(place: &Place, x: &Array<f64>) -> Result<Given> {
        Given::of(place, x, place.dtype)
    }

    /// In f32.
    fn parameter(place: &Place, x: &Array<f64>) -> Result<Given> {
        Given::of(place, x, DType::F32)
    }

    fn of(place: &Place, x: &Array<f64>, dtype: DType) -> Result<Given> {
        let oracle = x.rounded_to(dtype);
        Ok(Given { tensor: place.put(&oracle, dtype)?, naive: oracle.cast(), oracle })
    }

    /// What a kernel gave, for the next.
    fn result(tensor: &Tensor) -> Result<Given> {
        Ok(Given {
            tensor: tensor.clone(),
            naive: Array::from_tensor(tensor)?,
            oracle: Array::from_tensor(tensor)?,
        })
    }
}

/// The three faces of an argument that may be absent.
type Optional<'a> = (Option<&'a Tensor>, Option<&'a Array<f32>>, Option<&'a Array<f64>>);

fn optional(given: &Given, there: bool) -> Optional<'_> {
    match there {
        true => (Some(&given.tensor), Some(&given.naive), Some(&given.oracle)),
        false => (None, None, None),
    }
}

/// `found` is on the device, of this type, and near enough.
fn compare(
    place: &Place,
    what: &str,
    found: &Tensor,
    dtype: DType,
    naive: &Array<f32>,
    oracle: &Array<f64>,
    factor: f64,
) -> Result<()> {
    found.require_dtype(what, "result", dtype)?;
    if found.device() != place.device {
        return Err(Error::value(what, "the result is on another device"));
    }
    near(what, found, naive, oracle, factor)
}

/// Bit for bit, but for the sign of zero.
fn equal(what: &str, found: &Tensor, expected: &Array<f64>) -> Result<()> {
    let found = Array::<f64>::from_tensor(found)?;
    match found == *expected {
        true => Ok(()),
        false => Err(Error::value(what, "differs from what it must be exactly")),
    }
}

/// Batch normalisation with and without what is optional, training and not.
pub fn check_batch(place: &Place, case: &Case, affine: bool, residual: bool, relu: bool) -> Result<()> {
    let eps = 1e-5f32;
    let (wide, dtype) = (f64::from(eps), place.dtype);
    let (weight, bias) = case.affine();
    let x = Given::new(place, &case.input())?;
    let (weight, bias) = (Given::parameter(place, &weight)?, Given::parameter(place, &bias)?);
    let other = Given::new(place, &case.operand(1))?;
    let (tw, w32, w) = optional(&weight, affine);
    let (tb, b32, b) = optional(&bias, affine);
    let (tr, r32, r) = optional(&other, residual);

    let out = batch_forward(&x.tensor, tw, tb, tr, relu, eps)?;
    let (m, v) = reference::batch_statistics(&x.oracle);
    let (m32, v32) = reference::batch_statistics(&x.naive);
    compare(place, "mean", &out.mean, DType::F32, &m32, &m, 2.0)?;
    compare(place, "variance", &out.variance, DType::F32, &v32, &v, 2.0)?;
    let oracle = reference::batch_apply(&x.oracle, (&m, &v), w, b, r, relu, wide);
    let naive = reference::batch_apply(&x.naive, (&m32, &v32), w32, b32, r32, relu, wide);
    compare(place, "y", &out.y, dtype, &naive, &oracle, 2.0)?;

    if relu && !residual {
        halves(&x.tensor, &out, &place.put(&case.operand(2).rounded_to(dtype), dtype)?, tw, tb, eps)?;
    }

    // From here on the statistics are the kernel's, given to all sides alike.
    let (m, v) = (Given::result(&out.mean)?, Given::result(&out.variance)?);
    let y = batch_apply(&x.tensor, &m.tensor, &v.tensor, tw, tb, tr, relu, eps)?;
    let oracle = reference::batch_apply(&x.oracle, (&m.oracle, &v.oracle), w, b, r, relu, wide);
    let naive = reference::batch_apply(&x.naive, (&m.naive, &v.naive), w32, b32, r32, relu, wide);
    compare(place, "y with given statistics", &y, dtype, &naive, &oracle, 2.0)?;

    let dy = Given::new(place, &case.operand(2))?;
    let y = Given::result(&out.y)?;
    let (ty, y32, y) = optional(&y, relu);
    for training in [true, false] {
        let (tm, tv) = (&m.tensor, &v.tensor);
        let found = batch_backward(&dy.tensor, &x.tensor, ty, tm, tv, tw, relu, residual, training, eps)?;
        let (s32, s) = ((&m.naive, &v.naive), (&m.oracle, &v.oracle));
        let naive = reference::batch_backward(&dy.naive, &x.naive, y32, s32, w32, training, wide);
        let oracle = reference::batch_backward(&dy.oracle, &x.oracle, y, s, w, training, wide);
        compare(place, "dx", &found.dx, dtype, &naive[0], &oracle[0], 2.0)?;
        compare(place, "dweight", &found.dweight, DType::F32, &naive[1], &oracle[1], 3.0)?;
        compare(place, "dbias", &found.dbias, DType::F32, &naive[2], &oracle[2], 3.0)?;
        match (&found.dresidual, residual) {
            (Some(found), true) => equal("dresidual", found, &oracle[3])?,
            (None, false) => {}
            _ => return Err(Error::value("dresidual", "must be there with a residual only")),
        }
    }
    Ok(())
}

/// Statistics and map apart have the bits of both at once, and so have gradients whose mask is made again.
fn halves(
    x: &Tensor,
    whole: &BatchForward,
    dy: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<()> {
    let BatchStatistics { mean, variance, map } = batch_statistics(x, None, weight, bias, eps)?;
    let same = |what: &str, a: &Tensor, b: &Tensor| equal(what, a, &Array::from_tensor(b)?);
    same("mean alone", &mean, &whole.mean)?;
    same("variance alone", &variance, &whole.variance)?;
    same("y by the map", &batch_map(x, &map, None, true)?, &whole.y)?;
    let kept = batch_backward(dy, x, Some(&whole.y), &mean, &variance, weight, true, false, true, eps)?;
    let made = batch_backward_of_map(dy, x, &map, (&mean, &variance), weight, eps)?;
    same("dx by the map", &made.dx, &kept.dx)?;
    same("dweight by the map", &made.dweight, &kept.dweight)?;
    same("dbias by the map", &made.dbias, &kept.dbias)
}

/// Layer normalisation.
pub fn check_layer(place: &Place, case: &Case, affine: bool) -> Result<()> {
    let x = Given::new(place, &case.input())?;
    let (weight, bias) = case.affine();
    let (weight, bias) = (Given::parameter(place, &weight)?, Given::parameter(place, &bias)?);
    let (weight, bias) = (optional(&weight, affine), optional(&bias, affine));
    let out = layer_forward(&x.tensor, weight.0, bias.0, LAYER_EPS)?;
    check_layer_results(place, case, &x, weight, bias, out, None)
}

/// Layer normalisation of a sum.
pub fn check_layer_residual(place: &Place, case: &Case, affine: bool) -> Result<()> {
    let (x, branch) = (Given::new(place, &case.input())?, Given::new(place, &case.operand(3))?);
    let (weight, bias) = case.affine();
    let (weight, bias) = (Given::parameter(place, &weight)?, Given::parameter(place, &bias)?);
    let (weight, bias) = (optional(&weight, affine), optional(&bias, affine));
    let (sum, y, mean, rstd) =
        layer_forward_residual(&x.tensor, &branch.tensor, weight.0, bias.0, LAYER_EPS)?;
    sum.require_dtype("sum", "result", place.dtype)?;
    equal("sum", &sum, &reference::layer_sum(&x.oracle, &branch.oracle, place.dtype))?;
    let dsum = Given::new(place, &case.operand(4))?;
    check_layer_results(place, case, &Given::result(&sum)?, weight, bias, (y, mean, rstd), Some(&dsum))
}

const LAYER_EPS: f32 = 1e-6;

/// Checks what a forward pass of `x` gave, and the backward pass from there.
fn check_layer_results(
    place: &Place,
    case: &Case,
    x: &Given,
    (tw, w32, w): Optional,
    (_, b32, b): Optional,
    (y, mean, rstd): (Tensor, Tensor, Tensor),
    dsum: Option<&Given>,
) -> Result<()> {
    let (wide, dtype) = (f64::from(LAYER_EPS), place.dtype);
    let naive = reference::layer_forward(&x.naive, w32, b32, wide);
    let oracle = reference::layer_forward(&x.oracle, w, b, wide);
    compare(place, "y", &y, dtype, &naive[0], &oracle[0], 2.0)?;
    compare(place, "mean", &mean, DType::F32, &naive[1], &oracle[1], 2.0)?;
    compare(place, "rstd", &rstd, DType::F32, &naive[2], &oracle[2], 2.0)?;
    let (m, s) = (Given::result(&mean)?, Given::result(&rstd)?);
    let dy = Given::new(place, &case.operand(2))?;
    let (dx, dweight, dbias) = match dsum {
        None => layer_backward(&dy.tensor, &x.tensor, &mean, &rstd, tw)?,
        Some(d) => layer_backward_residual(&dy.tensor, &d.tensor, &x.tensor, &mean, &rstd, tw)?,
    };
    let mut naive = reference::layer_backward(&dy.naive, &x.naive, &m.naive, &s.naive, w32);
    let mut oracle = reference::layer_backward(&dy.oracle, &x.oracle, &m.oracle, &s.oracle, w);
    if let Some(d) = dsum {
        naive[0] = naive[0].zip(&d.naive, |a, b| a + b);
        oracle[0] = oracle[0].zip(&d.oracle, |a, b| a + b);
    }
    compare(place, "dx", &dx, dtype, &naive[0], &oracle[0], 2.0)?;
    compare(place, "dweight", &dweight, DType::F32, &naive[1], &oracle[1], 3.0)?;
    compare(place, "dbias", &dbias, DType::F32, &naive[2], &oracle[2], 3.0)
}

/// Rows to unit length, one of them zero and one shorter than eps.
pub fn check_l2(place: &Place, case: &Case) -> Result<()> {
    let eps = 1e-12f32;
    let (wide, dtype, width) = (f64::from(eps), place.dtype, case.channels);
    let mut x = case.input();
    x.data.iter_mut().rev().take(width).for_each(|v| *v = 0.0);
    x.data.iter_mut().rev().skip(width).take(width).for_each(|v| *v = f64::from(1e-20f32));
    let (x, dy) = (Given::new(place, &x)?, Given::new(place, &case.operand(2))?);
    let (y, norm) = l2_forward(&x.tensor, eps)?;
    let (y32, norm32) = reference::l2_forward(&x.naive, wide);
    let (y64, norm64) = reference::l2_forward(&x.oracle, wide);
    compare(place, "unit vectors", &y, dtype, &y32, &y64, 2.0)?;
    compare(place, "norm", &norm, DType::F32, &norm32, &norm64, 2.0)?;
    let dx = l2_backward(&dy.tensor, &y, &norm, eps)?;
    let (y, norm) = (Given::result(&y)?, Given::result(&norm)?);
    let naive = reference::l2_backward(&dy.naive, &y.naive, &norm.naive, wide);
    let oracle = reference::l2_backward(&dy.oracle, &y.oracle, &norm.oracle, wide);
    compare(place, "gradient of unit vectors", &dx, dtype, &naive, &oracle, 2.0)
}

/// Whether there are weight and bias, residual, ReLU.
const COMBINATIONS: [[bool; 3]; 4] =
    [[true, true, true], [true, false, true], [false, true, false], [false, false, false]];

fn check_case(place: &Place, case: &Case, which: usize) -> Result<()> {
    // Every combination on small cases, one on large ones.
    let small = case.rows * case.channels < 100;
    let some = if small { &COMBINATIONS[..] } else { &COMBINATIONS[which % 4..][..1] };
    for &[affine, residual, relu] in some {
        check_batch(place, case, affine, residual, relu)
            .map_err(|e| e.with("affine", affine).with("residual", residual).with("relu", relu))?;
    }
    check_layer(place, case, !which.is_multiple_of(3))?;
    check_layer_residual(place, case, which % 3 != 1)?;
    check_l2(place, case)
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let cases = device_cases();
    for (i, case) in cases.iter().enumerate() {
        for (j, dtype) in FLOATS.into_iter().enumerate() {
            // Misaligned cases in f32 and bf16 in turn, and the smallest in both.
            for misaligned in [false, true] {
                if misaligned && (i + j) % 2 == 1 && case.rows * case.channels > 500 {
                    continue;
                }
                let place = Place { device, dtype, misaligned };
                guarded(device, || check_case(&place, case, i + j + usize::from(misaligned)))
                    .map_err(|e| e.with("case", case).with("place", place))?;
            }
        }
    }
    Ok(cases.len())
}
