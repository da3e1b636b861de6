//! The CUDA kernels against the references: exactly on integers, within twice the naive error on random values.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{each, guarded, misaligned, on_device};
use crate::compare;

/// batch, m, n, k: tiles of 16 and 64 rows and their neighbours, packs of 4 and 8 elements, steps of a tile and their
/// neighbours, sums in parts with a ragged last one, many products.
const SIZES: &[[usize; 4]] = &[
    [2, 15, 17, 33],
    [1, 16, 16, 8],
    [1, 63, 65, 31],
    [1, 64, 64, 32],
    [1, 65, 63, 16],
    [1, 127, 20, 48],
    [1, 125, 61, 20],
    [1, 120, 124, 40],
    [1, 52, 52, 520],
    [1, 24, 129, 40],
    [5, 8, 8, 8],
    [1, 16, 24, 1000],
    [2, 17, 9, 777],
    [1, 2, 1, 2049],
    [70, 1, 2, 3],
];

/// Multiplications of the largest product that the emulated device is given: the checks are to take seconds there.
const MOST_EMULATED: usize = 1_450_000;

/// The cases of the CPU and those above, every combination of transposed sides.
fn device_cases() -> Vec<Case> {
    let most = if engine::cuda::extension::is_emulated() { MOST_EMULATED } else { usize::MAX };
    let all =
        SIZES.iter().flat_map(|&[batch, m, n, k]| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(transpose_a, transpose_b)| Case { batch, m, n, k, transpose_a, transpose_b })
        });
    cases().into_iter().chain(all).filter(|c| c.batch * c.m * c.n * c.k <= most).collect()
}

/// A launcher with its reference in f32 and f64.
struct Check<'a> {
    what: &'a str,
    launcher: &'a dyn Fn(&[Tensor]) -> Result<Tensor>,
    naive: &'a dyn Fn(&[Array<f32>]) -> Array<f32>,
    oracle: &'a dyn Fn(&[Array<f64>]) -> Array<f64>,
}

type Put = fn(&Array<f64>, DType, Device) -> Result<Tensor>;

impl Check<'_> {
    fn found(&self, device: Device, inputs: &[Array<f64>], dtype: DType, put: Put) -> Result<Tensor> {
        guarded(device, || {
            let tensors = inputs.iter().map(|x| put(x, dtype, device)).collect::<Result<Vec<_>>>()?;
            (self.launcher)(&tensors)?.to_device(Device::Cpu)
        })
    }

    /// Random values: twice the naive error.
    fn bounded(&self, device: Device, inputs: &[Array<f64>], dtype: DType, put: Put) -> Result<()> {
        let inputs: Vec<_> = inputs.iter().map(|x| x.rounded_to(dtype)).collect();
        let naive = (self.naive)(&inputs.iter().map(Array::cast).collect::<Vec<_>>());
        let found = self.found(device, &inputs, dtype, put)?;
        found.require_dtype(self.what, "result", dtype)?;
        compare::check(&format!("{} {dtype}", self.what), &found, &naive, &(self.oracle)(&inputs), 2.0)
    }

    /// Integers whose sums are exact: the reference rounded once, bit for bit.
    fn exact(&self, device: Device, inputs: &[Array<f64>], dtype: DType, put: Put) -> Result<()> {
        let found = Array::<f32>::from_tensor(&self.found(device, inputs, dtype, put)?)?.to_tensor()?;
        let expected = (self.naive)(&inputs.iter().map(Array::cast).collect::<Vec<_>>());
        let what = format!("{} of integers, {dtype}", self.what);
        compare::check_equal(&what, &found, &expected.rounded_to(dtype).to_tensor()?)
    }

    /// Each type with and without 16-byte access once, on integers or on random values.
    fn all(&self, device: Device, shapes: &[&[usize]]) -> Result<()> {
        let make = |f: &dyn Fn(&[usize], u64) -> Array<f64>| {
            shapes.iter().zip(1..).map(|(shape, seed)| f(shape, seed)).collect::<Vec<_>>()
        };
        let integers = make(&|shape, seed| Array::integers(shape, seed, 3));
        let random = make(&|shape, seed| {
            let x = Array::random(shape, seed, 1.0);
            if seed == 1 { x.map(|v| if v > 2.0 { 40.0 * v } else { v }) } else { x }
        });
        self.exact(device, &integers, DType::F32, on_device)?;
        self.exact(device, &integers, DType::BF16, misaligned)?;
        self.bounded(device, &random, DType::F32, misaligned)?;
        self.bounded(device, &random, DType::BF16, on_device)
    }
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    let (ta, tb) = (case.transpose_a, case.transpose_b);
    let check = Check {
        what: "matmul",
        launcher: &|x| matmul(&x[0], &x[1], ta, tb),
        naive: &|x| reference::matmul(&x[0], &x[1], ta, tb),
        oracle: &|x| reference::matmul(&x[0], &x[1], ta, tb),
    };
    check.all(device, &[&case.a(), &case.b()])
}

/// x `[.., K]`, N.
const LINEAR: &[(&[usize], usize)] =
    &[(&[2, 5, 37], 19), (&[3, 8], 1), (&[40, 64], 64), (&[7, 1032], 12), (&[1, 0], 5), (&[2, 3, 24], 70)];

fn check_linear(device: Device, shape: &[usize], n: usize) -> Result<()> {
    let weight = [n, shape[shape.len() - 1]];
    let check = Check {
        what: "linear",
        launcher: &|x| linear(&x[0], &x[1], x.get(2)),
        naive: &|x| reference::linear(&x[0], &x[1], x.get(2)),
        oracle: &|x| reference::linear(&x[0], &x[1], x.get(2)),
    };
    check.all(device, &[shape, &weight])?;
    check.all(device, &[shape, &weight, &[n]])
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let products = each(&device_cases(), |case| check_case(device, case))?;
    Ok(products + each(LINEAR, |(x, n)| check_linear(device, x, *n))?)
}
