//! `ntxent`: the contrastive loss of SimCLR and every InfoNCE of its kind, row by row.

use super::check::{arity, element_type, float, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::ntxent as kernel;

/// What each row should be near.
#[derive(Clone, Copy)]
pub enum Positive<'a> {
    /// i32 [R]: which column is the row's positive. Gets no gradient.
    Column(&'a Var),
    /// f32 [R, D]: a positive that is not among the columns, such as MoCo's key.
    Vector(&'a Var),
}

/// The operation of [`ntxent`].
#[derive(Clone)]
pub struct NtXent {
    spec: kernel::Spec,
    vectors: bool,
}

/// `loss_i = log sum_j exp(s_ij) - s_i+` [R], `s_ij = rows_i . columns_j / temperature`, over the columns that
/// row i may see and its positive.
///
/// rows [R, D], columns [C, D]; normalise them before. With `self_column`, row i never sees column
/// i + `self_column`, its own copy. rows and columns may be the same value: its gradient is the sum.
#[track_caller]
pub fn ntxent(
    rows: &Var,
    columns: &Var,
    positive: Positive<'_>,
    temperature: f32,
    self_column: Option<usize>,
) -> Result<Var> {
    let (positive, vectors) = match positive {
        Positive::Column(index) => (index, false),
        Positive::Vector(vectors) => (vectors, true),
    };
    let spec = kernel::Spec { temperature, self_column };
    apply_one(NtXent { spec, vectors }, &[rows, columns, positive])
}

impl NtXent {
    fn positive<'a>(&self, tensor: &'a Tensor) -> kernel::Positive<'a> {
        match self.vectors {
            true => kernel::Positive::Vector(tensor),
            false => kernel::Positive::Column(tensor),
        }
    }
}

impl Op for NtXent {
    fn name(&self) -> &'static str {
        "ntxent"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["rows", "columns", "positive"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 3)?;
        float(self, 0, &inputs[0])?;
        element_type(self, 1, &inputs[1], inputs[0].dtype)?;
        let (&[r, d], &[_, inner]) = (&inputs[0].shape[..], &inputs[1].shape[..]) else {
            return Err(wrong_shapes(self, inputs, "rows must be [R, D] and columns [C, D]"));
        };
        if d != inner {
            return Err(wrong_shapes(self, inputs, "rows and columns must have the same D"));
        }
        if self.vectors {
            element_type(self, 2, &inputs[2], inputs[0].dtype)?;
            shape(self, 2, &inputs[2], &[r, d], "one vector a row [R, D]")?;
        } else {
            element_type(self, 2, &inputs[2], DType::I32)?;
            shape(self, 2, &inputs[2], &[r], "one column a row [R]")?;
        }
        Ok(vec![Spec::f32(&[r])])
    }

    /// Saves rows, columns, positives and the log-sum-exp of each row.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (rows, columns) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        let positive = contiguous(inputs[2])?;
        let (loss, lse) = kernel::forward(&rows, &columns, self.positive(&positive), self.spec)?;
        [&rows, &columns, &positive, &lse].into_iter().for_each(|t| save.save(t));
        Ok(vec![loss])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dloss = contiguous(at.gradient()?)?;
        let (rows, columns, positive, lse) = (&at.saved[0], &at.saved[1], &at.saved[2], &at.saved[3]);
        let wants_columns = at.needs[1] || at.needs[2];
        let positive = self.positive(positive);
        let back = kernel::backward(&dloss, rows, columns, positive, self.spec, lse, wants_columns)?;
        let all = [Some(back.drows), back.dcolumns, back.dpositive];
        Ok(all.into_iter().zip(at.needs).map(|(g, &needed)| g.filter(|_| needed)).collect())
    }

    fn has_gradient(&self, input: usize) -> bool {
        input < 2 || self.vectors
    }
}

impl Reference for NtXent {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let positive = match self.vectors {
            true => kernel::reference::Positive::Vector(inputs[2].clone()),
            false => {
                let index = inputs[2].data.iter().map(|v| v.get() as usize).collect();
                kernel::reference::Positive::Column(index)
            }
        };
        vec![kernel::reference::forward(&inputs[0], &inputs[1], &positive, self.spec).0]
    }
}

/// Cases of the operation's checks: the layouts of SimCLR, MoCo, MoCo v3 and of one rank among several; lengths
/// far from one.
pub(crate) fn cases() -> Vec<Case> {
    let columns = |r: usize, c: usize, shift: usize| {
        Input::index(&[r], &(0..r).map(|i| ((i + shift) % c) as i32).collect::<Vec<_>>())
    };
    let mut cases = Vec::new();
    let mut add = |label: &str,
                   r: usize,
                   c: usize,
                   d: usize,
                   scale: f32,
                   temperature: f32,
                   self_column,
                   positive: Input| {
        let vectors = positive.dtype == DType::F32;
        let inputs = vec![Input::random(&[r, d], 151, scale), Input::random(&[c, d], 152, scale), positive];
        let op = NtXent { spec: kernel::Spec { temperature, self_column }, vectors };
        let label = format!("{label} [{r}, {d}] [{c}, {d}] times {scale} temperature {temperature}");
        cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
    };
    add("only the positive", 2, 2, 3, 1.0, 0.5, Some(0), columns(2, 2, 1));
    add("simclr", 4, 4, 3, 1.0, 0.5, Some(0), columns(4, 4, 2));
    add("simclr", 34, 34, 19, 0.3, 0.07, Some(0), columns(34, 34, 17));
    add("long vectors", 8, 8, 5, 5.0, 0.1, Some(0), columns(8, 8, 4));
    add("moco v3", 5, 5, 4, 1.0, 0.2, None, columns(5, 5, 0));
    add("second rank", 4, 8, 3, 1.0, 0.2, Some(4), columns(4, 8, 1));
    add("moco", 4, 5, 3, 1.0, 0.2, None, Input::random(&[4, 3], 153, 1.0));
    add("moco", 17, 129, 33, 0.3, 0.07, None, Input::random(&[17, 33], 154, 0.3));
    cases
}
