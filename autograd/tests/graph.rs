//! The graph: order, depth, accumulation, and what is an error.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use autograd::op::{Backward, Saver, apply, apply_one};
use autograd::param::Role;
use autograd::{Op, Param, Spec, Var, is_recording, no_grad, ops};
use engine::{DType, Device, ErrorKind, Result, Tensor, memory};
use kernels::array::Array;

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

fn gradient(x: &Var) -> Vec<f32> {
    values(&x.gradient().expect("a gradient"))
}

/// `y = x + 1`, with what a test wants wrong about it.
#[derive(Clone, Copy, Default)]
struct Successor {
    no_gradient: bool,
    too_few: bool,
    wrong_shape: bool,
    missing: bool,
}

impl Op for Successor {
    fn name(&self) -> &'static str {
        "successor"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        Ok(inputs.to_vec())
    }

    fn forward(&self, inputs: &[&Tensor], _: &mut Saver) -> Result<Vec<Tensor>> {
        let y: Vec<f32> = inputs[0].to_vec::<f32>()?.into_iter().map(|v| v + 1.0).collect();
        Ok(vec![Tensor::from_slice(&y, inputs[0].shape())?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = at.gradient()?;
        Ok(match self {
            Successor { too_few: true, .. } => Vec::new(),
            Successor { missing: true, .. } => vec![None],
            Successor { wrong_shape: true, .. } => vec![Some(dy.reshape(&[1, dy.len()])?)],
            _ => vec![Some(dy.clone())],
        })
    }

    fn has_gradient(&self, _: usize) -> bool {
        !self.no_gradient
    }
}

#[test]
fn a_chain_of_a_million_operations() {
    // A small stack: recursion over the chain, forward, backward or dropping, could not fit.
    let work = || {
        let before = memory::thread_live();
        {
            let x = Var::leaf(tensor(&[1.0]));
            let y = (0..1_000_000).fold(x.clone(), |y, _| ops::scale(&y, 1.0).unwrap());
            y.backward().unwrap();
            assert_eq!(gradient(&x), [1.0]);
            let unwalked = (0..1_000_000).fold(x.clone(), |y, _| ops::permute(&y, &[0]).unwrap());
            drop(unwalked);
        }
        assert_eq!(memory::thread_live(), before);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_second_backward_is_an_error() {
    let x = Var::leaf(tensor(&[2.0]));
    let y = ops::mul(&x, &x).unwrap();
    y.backward().unwrap();
    assert_eq!(gradient(&x), [4.0]);
    let e = y.backward().unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::Graph, "mul"));
    assert!(e.message().contains("already walked"), "{e}");
    assert_eq!(gradient(&x), [4.0], "the failed walk adds nothing");
}

#[test]
fn a_parameter_written_before_backward_is_an_error() {
    let mut weight = Param::new(tensor(&[2.0, 3.0]), Role::Weight);
    let x = Var::leaf(tensor(&[1.0, 1.0]));
    let y = ops::mul(&x, &weight.var()).unwrap();
    weight.value_mut().as_mut_slice::<f32>().unwrap()[0] = 9.0;
    let e = y.backward_from(tensor(&[1.0, 1.0])).unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::Graph, "mul"));
    assert!(e.message().contains("in place"), "{e}");
    // The sum saves nothing: writing is no matter to it.
    let y = ops::add(&x, &weight.var()).unwrap();
    weight.value_mut().as_mut_slice::<f32>().unwrap()[0] = 8.0;
    y.backward_from(tensor(&[1.0, 1.0])).unwrap();
    // Nor is replacing the value, which leaves the saved one as it was.
    weight.clear_gradient();
    let y = ops::mul(&x, &weight.var()).unwrap();
    weight.set(tensor(&[5.0, 5.0])).unwrap();
    y.backward_from(tensor(&[1.0, 1.0])).unwrap();
    assert_eq!(values(&weight.gradient().unwrap()), [1.0, 1.0]);
}

#[test]
fn a_history_without_a_gradient_is_an_error_when_recorded() {
    let op = Successor { no_gradient: true, ..Successor::default() };
    let x = Var::leaf(tensor(&[1.0]));
    let e = apply(op, &[&x]).unwrap_err();
    assert_eq!((e.kind(), e.operation()), (ErrorKind::Graph, "successor"));
    assert!(e.message().contains("'x'") && e.message().contains("detach"), "{e}");
    assert!(!apply_one(op, &[&x.detach()]).unwrap().has_history());
    let _off = no_grad();
    assert!(!apply_one(op, &[&x]).unwrap().has_history());
}

#[test]
fn no_grad_records_nothing_and_ends() {
    let x = Var::leaf(tensor(&[1.0, 2.0]));
    {
        let _off = no_grad();
        {
            let _again = no_grad();
        }
        assert!(!is_recording(), "the inner scope's end is not the outer one's");
        let before = memory::thread_live();
        let y = ops::gelu(&ops::mul(&x, &x).unwrap()).unwrap();
        assert!(!y.has_history());
        assert_eq!(memory::thread_live() - before, memory::ALIGNMENT, "nothing but the result is held");
    }
    assert!(is_recording());
    let e = x.detach().backward_from(tensor(&[1.0, 1.0])).unwrap_err();
    assert!(e.message().contains("no history"), "{e}");
    assert!(x.gradient().is_none());
    assert!(ops::mul(&x, &x).unwrap().has_history());
}

#[test]
fn detach_cuts() {
    let x = Var::leaf(tensor(&[3.0]));
    let y = ops::mul(&x, &x).unwrap();
    let z = ops::mul(&y.detach(), &x).unwrap();
    z.backward().unwrap();
    assert_eq!(gradient(&x), [9.0], "x^2 counts as a constant");
}

#[test]
fn diamonds_add_up() {
    // z = (2x)(3x) + x, and a second walk adds to the leaf.
    let x = Var::leaf(tensor(&[1.0, -2.0]));
    for walk in [1.0, 2.0] {
        let (a, b) = (ops::scale(&x, 2.0).unwrap(), ops::scale(&x, 3.0).unwrap());
        let z = ops::add(&ops::mul(&a, &b).unwrap(), &x).unwrap();
        z.backward_from(tensor(&[1.0, 1.0])).unwrap();
        assert_eq!(gradient(&x), [walk * 13.0, walk * -23.0]);
    }
    // Sixty doublings by y + y: nodes are visited once, not once a path, or this would not end.
    let x = Var::leaf(tensor(&[1.0]));
    let y = (0..60).fold(x.clone(), |y, _| ops::add(&y, &y).unwrap());
    y.backward().unwrap();
    assert_eq!(gradient(&x), [f32::powi(2.0, 60)]);
}

#[test]
fn gradients_given_and_kept_are_not_written() {
    // `add` hands one gradient to both inputs; what is added to one must not reach the other or the caller.
    let (a, b) = (Var::leaf(tensor(&[1.0])), Var::leaf(tensor(&[1.0])));
    let given = tensor(&[1.0]);
    let y = ops::add(&ops::add(&a, &b).unwrap(), &a).unwrap();
    y.backward_from(given.clone()).unwrap();
    assert_eq!((gradient(&a), gradient(&b), values(&given)), (vec![2.0], vec![1.0], vec![1.0]));
    let kept = a.gradient().unwrap();
    ops::scale(&a, 5.0).unwrap().backward().unwrap();
    assert_eq!((values(&kept), gradient(&a)), (vec![2.0], vec![7.0]));
}

#[test]
fn an_unused_branch_gets_nothing() {
    let (x, unused) = (Var::leaf(tensor(&[1.0, 2.0])), Var::leaf(tensor(&[1.0, 2.0])));
    let _branch = ops::mul(&x, &unused).unwrap();
    let y = ops::sum(&ops::scale(&x, 2.0).unwrap(), &[0]).unwrap();
    y.backward().unwrap();
    assert!(unused.gradient().is_none());
    assert_eq!(gradient(&x), [2.0, 2.0]);
}

#[test]
fn a_leaf_keeps_a_contiguous_gradient() {
    let x = Var::leaf(Array::<f32>::random(&[3, 2], 1, 1.0).to_tensor().unwrap());
    ops::sum(&ops::permute(&x, &[1, 0]).unwrap(), &[0, 1]).unwrap().backward().unwrap();
    assert!(x.gradient().unwrap().is_contiguous(), "an expanded view is no gradient for an optimiser");
    assert_eq!(gradient(&x), [1.0; 6]);
}

#[test]
fn wrong_gradients_of_an_operation_are_errors() {
    for (op, expected) in [
        (Successor { missing: true, ..Successor::default() }, "no gradient for input 0"),
        (Successor { too_few: true, ..Successor::default() }, "0 of 1 gradients"),
        (Successor { wrong_shape: true, ..Successor::default() }, "must have shape [2]"),
    ] {
        let x = Var::leaf(tensor(&[1.0, 2.0]));
        let y = apply_one(op, &[&x]).unwrap();
        let e = y.backward_from(tensor(&[1.0, 1.0])).unwrap_err();
        assert!(format!("{e}").contains(expected), "{e}");
        assert_eq!(e.operation(), "successor");
    }
    let x = Var::leaf(tensor(&[1.0, 2.0]));
    let y = apply_one(Successor::default(), &[&x]).unwrap();
    assert!(y.backward().unwrap_err().message().contains("scalar"));
    assert!(y.backward_from(tensor(&[1.0])).is_err(), "a gradient of another shape");
    y.backward_from(tensor(&[1.0, 1.0])).unwrap();
    assert_eq!(gradient(&x), [1.0, 1.0]);
}

/// The gradient that backward begins with has the value's own type.
#[test]
fn backward_starts_from_a_value_of_any_float_type() {
    let device = kernels::testing::device();
    for dtype in [DType::F32, DType::BF16] {
        let x = Tensor::from_slice(&[3.0f32, 1.0, 2.0, 2.0], &[4]).unwrap().to_device(device).unwrap();
        let x = Var::leaf(x);
        ops::mean(&ops::cast(&x, dtype).unwrap(), &[0]).unwrap().backward().unwrap();
        let gradient = x.gradient().unwrap().to_device(Device::Cpu).unwrap();
        assert_eq!(gradient.to_vec::<f32>().unwrap(), [0.25; 4]);
    }
}
