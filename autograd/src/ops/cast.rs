//! `cast`: the same values in the other float type. Master weights in f32 enter bf16 computations through it.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Error, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy;

/// The operation of [`cast`]: the type of the result.
#[derive(Clone)]
pub struct Cast(DType);

/// `x` in the element type `dtype`, f32 or bf16 (rounded to nearest, ties to even). The gradient is cast back.
#[track_caller]
pub fn cast(x: &Var, dtype: DType) -> Result<Var> {
    match x.value().dtype() == dtype {
        true => Ok(x.clone()),
        false => apply_one(Cast(dtype), &[x]),
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        match self.0 {
            DType::F32 | DType::BF16 => Ok(vec![Spec { shape: inputs[0].shape.clone(), dtype: self.0 }]),
            DType::I32 | DType::U8 => {
                Err(Error::dtype("cast", "the result must be f32 or bf16").with("to", self.0))
            }
        }
    }

    fn forward(&self, inputs: &[&Tensor], _save: &mut Saver) -> Result<Vec<Tensor>> {
        Ok(vec![copy::cast(&copy::contiguous(inputs[0])?, self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = copy::contiguous(at.gradient()?)?;
        Ok(vec![at.when(0, || copy::cast(&dy, at.inputs[0].dtype))?])
    }
}

impl Reference for Cast {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].clone()]
    }
}

/// Cases of the operation's checks. One of the two types is the inputs' own.
pub(crate) fn cases() -> Vec<Case> {
    let shapes: [&[usize]; 4] = [&[1], &[7], &[3, 17], &[2, 3, 4, 5]];
    let types = [DType::F32, DType::BF16];
    let each = shapes.into_iter().flat_map(|shape| types.map(|dtype| (shape, dtype)));
    each.map(|(shape, dtype)| {
        Case::new(format!("{shape:?} to {dtype}"), Cast(dtype), vec![Input::random(shape, 171, 1.0)])
    })
    .collect()
}
