//! The CUDA kernels against the references: exactly on integers, where the three passes are adjoint too, and within
//! twice the naive error on random values.

use super::cases::{Case, cases};
use super::*;
use crate::array::{Array, Real};
use crate::check::{each, guarded, misaligned, on_device};
use crate::compare;
use crate::norm;

/// n, h, w, c, o, r, s, stride, padding: packs of 4 and 8 channels within windows, weight gradients in parts, kernels
/// that a stride skips, one residue class of several with pixels, padding beyond the stride, larger tiles.
const MORE: &[[usize; 9]] = &[
    [2, 9, 9, 8, 8, 3, 3, 1, 1],
    [1, 8, 7, 12, 24, 3, 3, 2, 1],
    [2, 7, 9, 8, 16, 4, 5, 3, 2],
    [1, 7, 9, 8, 8, 7, 6, 2, 1],
    [1, 5, 5, 8, 8, 1, 1, 3, 0],
    [2, 2, 3, 8, 4, 2, 2, 4, 2],
    [1, 8, 8, 3, 8, 4, 4, 4, 0],
    [2, 20, 21, 4, 9, 3, 3, 1, 1],
    [2, 8, 8, 16, 64, 2, 2, 1, 0],
    [2, 8, 8, 15, 60, 2, 2, 1, 0],
    [2, 8, 8, 60, 12, 2, 2, 1, 0],
    [4, 12, 12, 16, 8, 1, 1, 1, 0],
    [1, 1, 8, 8, 8, 1, 3, 1, 1],
];

/// Multiplications of the largest pass that the emulated device is given: the checks are to take seconds there.
const MOST_EMULATED: usize = 2_000_000;

fn device_cases() -> Result<Vec<Case>> {
    let most = if engine::cuda::extension::is_emulated() { MOST_EMULATED as f64 } else { f64::INFINITY };
    let more = MORE.iter().map(|&[n, h, w, c, o, r, s, stride, padding]| {
        let g = Geometry::new(stride, padding);
        Case { n, h, w, c, o, r, s, g }
    });
    let mut found = Vec::new();
    for case in cases().into_iter().chain(more) {
        if flops(&case.sizes()?) <= 2.0 * most {
            found.push(case);
        }
    }
    Ok(found)
}

/// x, w and dy of a case.
fn operands(z: &Sizes, make: impl Fn([usize; 4], u64) -> Array<f64>) -> [Array<f64>; 3] {
    [make(z.input(), 1), make(z.weight(), 2), make(z.output(), 3)]
}

/// y, dx, dw by the reference.
fn expected<T: Real>(z: &Sizes, [x, w, dy]: &[Array<f64>; 3]) -> [Array<T>; 3] {
    let (x, w, dy) = (x.cast(), w.cast(), dy.cast());
    [
        reference::forward(z, &x, &w),
        reference::input_gradient(z, &dy, &w),
        reference::weight_gradient(z, &x, &dy),
    ]
}

/// y, dx, dw by the kernels, on the CPU.
fn found(
    device: Device,
    case: &Case,
    operands: &[Array<f64>; 3],
    dtype: DType,
    put: Put,
) -> Result<[Tensor; 3]> {
    guarded(device, || {
        let [x, w, dy] = operands;
        let (x, w, dy) = (put(x, dtype, device)?, put(w, dtype, device)?, put(dy, dtype, device)?);
        let back = |y: Tensor| y.to_device(Device::Cpu);
        Ok([
            back(forward(&x, &w, case.g)?)?,
            back(input_gradient(&dy, &w, x.shape(), case.g)?)?,
            back(weight_gradient(&x, &dy, w.shape(), case.g)?)?,
        ])
    })
}

const PASSES: [&str; 3] = ["forward", "dgrad", "wgrad"];

type Put = fn(&Array<f64>, DType, Device) -> Result<Tensor>;

/// Random values, with outliers: twice the naive error, three times for the weights.
fn bounded(device: Device, case: &Case, dtype: DType, put: Put) -> Result<()> {
    let z = case.sizes()?;
    let values = operands(&z, |shape, seed| {
        let x = Array::random(&shape, seed, if seed == 2 { 0.3 } else { 1.0 });
        let x = if seed == 1 { x.map(|v| if v > 2.0 { 40.0 * v } else { v }) } else { x };
        x.rounded_to(dtype)
    });
    let (naive, oracle) = (expected::<f32>(&z, &values), expected::<f64>(&z, &values));
    let found = found(device, case, &values, dtype, put)?;
    for (i, factor) in [2.0, 2.0, 3.0].into_iter().enumerate() {
        found[i].require_dtype(PASSES[i], "result", dtype)?;
        compare::check(&format!("{} {dtype}", PASSES[i]), &found[i], &naive[i], &oracle[i], factor)?;
    }
    Ok(())
}

fn dot(a: &Array<f64>, b: &Array<f64>) -> f64 {
    a.data.iter().zip(&b.data).map(|(x, y)| x * y).sum()
}

/// Integers: the reference rounded once, bit for bit. In f32 `<y, dy> = <x, dx> = <w, dw>` of the kernels' own results.
fn exact(device: Device, case: &Case, dtype: DType, put: Put) -> Result<()> {
    let z = case.sizes()?;
    let values = operands(&z, |shape, seed| Array::integers(&shape, seed, 3));
    let expected = expected::<f32>(&z, &values);
    let [y, dx, dw] = found(device, case, &values, dtype, put)?.map(|y| Array::<f64>::from_tensor(&y));
    let found = [y?, dx?, dw?];
    for i in 0..3 {
        let what = format!("{} of integers, {dtype}", PASSES[i]);
        compare::check_equal(&what, &found[i].to_tensor()?, &expected[i].rounded_to(dtype).to_tensor()?)?;
    }
    let [x, w, dy] = &values;
    let products = [dot(&found[0], dy), dot(x, &found[1]), dot(w, &found[2])];
    if dtype == DType::F32 && products.iter().any(|p| *p != products[0]) {
        return Err(Error::value("conv2d", "the passes are not adjoint").with("products", products));
    }
    Ok(())
}

/// Batch normalisation in the launches around it: what normalises x on the way has the bits of the steps one by one, and
/// statistics from the sums beside y are those of reading it, within 2 units in the last place of the largest.
fn normalised(device: Device, case: &Case) -> Result<()> {
    let z = case.sizes()?;
    let [x, w, dy] = operands(&z, |shape, seed| Array::random(&shape, seed, 1.0).map(|v: f64| v + 0.5));
    guarded(device, || {
        let put = |x: &Array<f64>| on_device(x, DType::BF16, device);
        let (x, w, dy) = (put(&x)?, put(&w)?, put(&dy)?);
        let same = |what: &str, a: &Tensor, b: &Tensor| {
            let cpu = |x: &Tensor| Array::<f64>::from_tensor(&x.to_device(Device::Cpu)?)?.to_tensor();
            compare::check_equal(what, &cpu(a)?, &cpu(b)?)
        };
        let of = |x: &Tensor, sums: Option<&TileSums>| norm::batch_statistics(x, sums, None, None, 1e-5);
        let map = of(&x, None)?.map;
        let stored = norm::batch_map(&x, &map, None, true)?;
        let (y, sums) = forward_of_map(&x, &map, &w, case.g)?;
        same("forward of normalised x", &y, &forward(&stored, &w, case.g)?)?;
        let dw = weight_gradient_of_map(&x, &map, &dy, w.shape(), case.g)?;
        same("wgrad of normalised x", &dw, &weight_gradient(&stored, &dy, w.shape(), case.g)?)?;
        let (y, sums_beside) = forward_with_sums(&stored, &w, case.g)?;
        same("forward with sums", &y, &forward(&stored, &w, case.g)?)?;
        for sums in sums.iter().chain(&sums_beside) {
            let (found, expected) = (of(&y, Some(sums))?, of(&y, None)?);
            for (found, expected) in [(found.mean, expected.mean), (found.variance, expected.variance)] {
                let oracle = Array::<f64>::from_tensor(&expected.to_device(Device::Cpu)?)?;
                let found = found.to_device(Device::Cpu)?;
                compare::check("statistics from sums", &found, &oracle.cast(), &oracle, 2.0)?;
            }
        }
        Ok(())
    })
}

/// Each type with and without 16-byte access once, on integers or on random values.
fn check_case(device: Device, case: &Case) -> Result<()> {
    exact(device, case, DType::F32, on_device)?;
    exact(device, case, DType::BF16, misaligned)?;
    bounded(device, case, DType::F32, misaligned)?;
    bounded(device, case, DType::BF16, on_device)?;
    normalised(device, case)
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    each(&device_cases()?, |case| check_case(device, case))
}
