//! Convolutions with their normalisations as one operation, and as the layers one by one.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

use autograd::module::{Path, Visitor, parts, to_device};
use autograd::{Module, Var};
use engine::cuda::memory;
use engine::{DType, Device, Result, Tensor};
use kernels::array::Array;
use kernels::testing;
use models::{Activation, BatchNorm, Conv2d, Initializer, Mode, conv_norms};

/// A branch as in a bottleneck.
struct Branch(Vec<(Conv2d, BatchNorm)>);

impl Module for Branch {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        for (i, (conv, norm)) in self.0.iter_mut().enumerate() {
            conv.visit(&path.child(format!("conv{i}")), visitor);
            norm.visit(&path.child(format!("norm{i}")), visitor);
        }
    }
}

const CHANNELS: usize = 16;

fn branch(device: Device) -> Branch {
    let init = Initializer::new(7);
    let layer = |i: usize, inputs, outputs, kernel| {
        let conv = Conv2d::new(inputs, outputs, kernel, 1, kernel / 2, &init.child(i)).unwrap();
        (conv, BatchNorm::new(outputs).unwrap())
    };
    let mut branch = Branch(vec![layer(0, CHANNELS, 8, 1), layer(1, 8, 8, 3), layer(2, 8, CHANNELS, 1)]);
    to_device(&mut branch, device).unwrap();
    branch
}

type Forward = fn(&mut Branch, &Var, Mode) -> Result<Var>;

fn one_by_one(branch: &mut Branch, x: &Var, mode: Mode) -> Result<Var> {
    let mut y = x.clone();
    for (i, (conv, norm)) in branch.0.iter_mut().enumerate() {
        let residual = (i == 2).then_some(x);
        y = norm.forward(&conv.forward(&y)?, residual, Activation::Relu, mode)?;
    }
    Ok(y)
}

fn together(branch: &mut Branch, x: &Var, mode: Mode) -> Result<Var> {
    let mut layers: Vec<_> = branch.0.iter_mut().map(|(conv, norm)| (&*conv, norm)).collect();
    conv_norms(&mut layers, x, Some(x), Activation::Relu, mode)
}

fn random(shape: &[usize], seed: u64, dtype: DType, device: Device) -> Tensor {
    let x = Array::<f64>::random(shape, seed, 1.0);
    x.to_tensor_of(dtype).unwrap().to_device(device).unwrap()
}

fn images(side: usize, dtype: DType, device: Device) -> Tensor {
    random(&[2, side, side, CHANNELS], 3, dtype, device)
}

fn values(x: &Tensor) -> Vec<f64> {
    Array::<f64>::from_tensor(&x.to_device(Device::Cpu).unwrap()).unwrap().data
}

/// Two steps in training mode, then one in evaluation: results, gradients of x and of all parameters, running statistics.
fn run(forward: Forward, dtype: DType, device: Device) -> Vec<(String, Vec<f64>)> {
    let mut branch = branch(device);
    let mut all = Vec::new();
    for step in 0..2 {
        let x = Var::leaf(images(6, dtype, device));
        let y = forward(&mut branch, &x, Mode::Train).unwrap();
        all.push((format!("y {step}"), values(y.value())));
        y.backward_from(random(y.shape(), 4, dtype, device)).unwrap();
        all.push((format!("gradient of x {step}"), values(&x.gradient().unwrap())));
    }
    let y = forward(&mut branch, &Var::constant(images(6, dtype, device)), Mode::Evaluate).unwrap();
    all.push(("y in evaluation".into(), values(y.value())));
    let parts = parts(&mut branch);
    for (name, param) in &parts.params {
        all.push((format!("gradient of {name}"), values(&param.gradient().unwrap())));
    }
    for (name, buffer) in &parts.buffers {
        all.push((name.clone(), values(buffer.value())));
    }
    all
}

/// The same kernels in the same order: not a bit differs on the CPU, and on a device only what is rounded elsewhere.
#[test]
fn results_are_those_of_the_layers_one_by_one() {
    for (dtype, device, bound) in [
        (DType::F32, Device::Cpu, 0.0),
        (DType::F32, testing::device(), 0.0),
        (DType::BF16, testing::device(), 0.02),
    ] {
        let (found, expected) = (run(together, dtype, device), run(one_by_one, dtype, device));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= bound * largest, "{name}, {dtype} on {device:?}: {a}, not {b}");
            }
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// Rows and columns of larger images.
const SIDE: usize = 24;

/// What is held for the backward pass: a map that a kernel of one element reads is not.
#[test]
fn normalised_maps_are_not_held_on_a_device() {
    let device = testing::device();
    let held = |forward: Forward, dtype| {
        let mut branch = branch(device);
        let x = Var::leaf(images(SIDE, dtype, device));
        // The first pass makes what stays: weights in bf16, modules.
        drop(forward(&mut branch, &x, Mode::Train).unwrap());
        let before = memory::stats(0).unwrap().live;
        let y = forward(&mut branch, &x, Mode::Train).unwrap();
        let held = memory::stats(0).unwrap().live - before;
        drop(y);
        held
    };
    // In bf16.
    let map = 2 * 2 * SIDE * SIDE * 8;
    let (whole, apart) = (held(together, DType::BF16), held(one_by_one, DType::BF16));
    // One map of 8 channels, but for the numbers that make it.
    assert!(whole + map <= apart + 2048, "{whole} and {apart} bytes, a map has {map}");
}
