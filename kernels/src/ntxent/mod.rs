//! NT-Xent, the contrastive loss of SimCLR, and every InfoNCE of its kind: MoCo's with a queue of keys and a
//! positive outside it, CLIP's and MoCo v3's with rows against columns.
//!
//! With `s_ij = rows_i . columns_j / temperature` over all columns that row i may see, and the positive's
//! `s_i+`, the loss is `loss_i = lse_i - s_i+`, where `lse_i = log sum_j exp(s_ij)` (the positive is one of
//! the summands, once). With `G_ij = dloss_i (exp(s_ij - lse_i) - [j is i's positive]) / temperature`
//!
//! ```text
//! drows = G columns          dcolumns = G^T rows
//! ```
//!
//! The similarities [R, C] are never in memory: forward and backward make them a tile at a time, and keep lse
//! [R] between the two. Must move, in floats: (R + C) D read forward; the same read and written backward.
//! Needs 2 R C D operations forward and 8 R C D backward, where each gradient makes the tiles for itself, or 6
//! where rows and columns are the same tensor and one tile serves both. See README.md.

pub mod cases;
pub(crate) mod check;
pub mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
pub(crate) mod tensor_core;
#[cfg(test)]
mod tensor_core_tests;
#[cfg(test)]
mod tests;
mod tile;
pub(crate) mod workloads;

use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// What each row should be near.
#[derive(Debug, Clone, Copy)]
pub enum Positive<'a> {
    /// i32 [R]: which column is the row's positive.
    Column(&'a Tensor),
    /// [R, D] of the rows' type: a positive that is not among the columns, such as MoCo's key.
    Vector(&'a Tensor),
}

impl Positive<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Positive::Column(t) | Positive::Vector(t) => t,
        }
    }
}

/// Temperature and mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Divides the inner products. Positive.
    pub temperature: f32,
    /// Row i never sees column i + this, its own copy. `None`: every row sees every column.
    pub self_column: Option<usize>,
}

/// R, C and D.
#[track_caller]
fn checked(
    operation: &str,
    rows: &Tensor,
    columns: &Tensor,
    positive: Positive,
    spec: Spec,
) -> Result<[usize; 3]> {
    let (&[r, d], &[c, d2]) = (rows.shape(), columns.shape()) else {
        return Err(Error::shape(operation, "rows must be [R, D] and columns [C, D]")
            .argument("rows", rows)
            .argument("columns", columns));
    };
    if d != d2 {
        return Err(Error::shape(operation, "rows and columns must have the same D")
            .argument("rows", rows)
            .argument("columns", columns));
    }
    require_float(operation, "rows", rows)?;
    columns.require_dtype(operation, "columns", rows.dtype())?;
    if !(spec.temperature > 0.0 && spec.temperature.is_finite()) {
        return Err(
            Error::value(operation, "the temperature must be positive").with("temperature", spec.temperature)
        );
    }
    match positive {
        Positive::Vector(vectors) => {
            vectors.require_shape(operation, "positive", &[r, d])?;
            vectors.require_dtype(operation, "positive", rows.dtype())?;
        }
        Positive::Column(index) => {
            index.require_shape(operation, "positive", &[r])?;
            index.require_dtype(operation, "positive", DType::I32)?;
        }
    }
    Ok([r, c, d])
}

/// The arguments' elements on the CPU, where positives are looked at before they are used.
#[track_caller]
fn problem_on_cpu<'a>(
    operation: &str,
    rows: &'a Tensor,
    columns: &'a Tensor,
    positive: Positive<'a>,
    spec: Spec,
) -> Result<cpu::Problem<'a>> {
    let (r, c) = (rows.shape()[0], columns.shape()[0]);
    let positive = match positive {
        Positive::Vector(vectors) => cpu::Positive::Vector(vectors.as_slice()?),
        Positive::Column(index) => {
            let index = index.as_slice::<i32>()?;
            for (row, &column) in index.iter().enumerate() {
                if column < 0 || column as usize >= c {
                    let text =
                        format!("the positive of row {row} is column {column}, outside the {c} columns");
                    return Err(Error::value(operation, text).argument("columns", columns));
                }
                if spec.self_column.is_some_and(|offset| row.checked_add(offset) == Some(column as usize)) {
                    let text = format!("the positive of row {row} is column {column}, which it must not see");
                    return Err(Error::value(operation, text).with("self_column", spec.self_column));
                }
            }
            cpu::Positive::Column(index)
        }
    };
    Ok(cpu::Problem {
        rows: rows.as_slice()?,
        columns: columns.as_slice()?,
        d: rows.shape()[1],
        positive,
        temperature: spec.temperature,
        self_column: spec.self_column,
        row_count: r,
        column_count: c,
    })
}

/// Loss of each row and its log-sum-exp: `(loss [R], lse [R])`. No mean is taken.
///
/// `rows` is [R, D], `columns` [C, D], both f32 or on CUDA devices both bf16; loss and lse are f32. Normalising the
/// vectors is the caller's affair, and any finite similarities are handled. Errors: shapes, types or devices that do
/// not fit; a temperature that is not positive; on the CPU a positive outside the columns, or one that its row must not
/// see (both named). A CUDA device does not look at positives beforehand: with such a one the row's loss and gradient
/// are NaN, and the row adds nothing to the columns' gradients.
#[track_caller]
pub fn forward(rows: &Tensor, columns: &Tensor, positive: Positive, spec: Spec) -> Result<(Tensor, Tensor)> {
    let _op = memory::operation("ntxent");
    let names = ["rows", "columns", "positive"];
    let device = common("ntxent", &names, &[rows, columns, positive.tensor()])?;
    let [r, _, _] = checked("ntxent", rows, columns, positive, spec)?;
    let mut loss = Tensor::empty(&[r], DType::F32, device)?;
    let mut lse = Tensor::empty(&[r], DType::F32, device)?;
    match device {
        Device::Cuda(_) => cuda::loss(rows, columns, positive, spec, &mut loss, &mut lse)?,
        Device::Cpu => {
            let problem = problem_on_cpu("ntxent", rows, columns, positive, spec)?;
            cpu::forward(&problem, loss.as_mut_slice()?, lse.as_mut_slice()?)?;
        }
    }
    Ok((loss, lse))
}

/// Gradients of the losses, of the rows' element type.
#[derive(Debug)]
pub struct Backward {
    /// [R, D], with respect to the rows (as rows only, also where they are the columns' storage).
    pub drows: Tensor,
    /// [C, D], with respect to the columns, if it was asked for.
    pub dcolumns: Option<Tensor>,
    /// [R, D], with respect to [`Positive::Vector`]'s positives, if that is what they are.
    pub dpositive: Option<Tensor>,
}

/// Gradients of `sum_i dloss_i loss_i`; `dloss` [R] is f32, and `lse` [R] what [`forward`] returned for the same
/// arguments.
///
/// Without `want_columns` the columns are constants, as MoCo's queue is. Types, errors and positives out of range as
/// [`forward`].
#[track_caller]
pub fn backward(
    dloss: &Tensor,
    rows: &Tensor,
    columns: &Tensor,
    positive: Positive,
    spec: Spec,
    lse: &Tensor,
    want_columns: bool,
) -> Result<Backward> {
    const OP: &str = "ntxent_backward";
    let _op = memory::operation("ntxent");
    let names = ["dloss", "rows", "columns", "positive", "lse"];
    let device = common(OP, &names, &[dloss, rows, columns, positive.tensor(), lse])?;
    let [r, _, _] = checked(OP, rows, columns, positive, spec)?;
    for (name, x) in [("dloss", dloss), ("lse", lse)] {
        x.require_shape(OP, name, &[r])?;
        x.require_dtype(OP, name, DType::F32)?;
    }
    let mut drows = Tensor::empty(rows.shape(), rows.dtype(), device)?;
    let mut dcolumns = match want_columns {
        true => Some(Tensor::empty(columns.shape(), rows.dtype(), device)?),
        false => None,
    };
    let mut dpositive = match positive {
        Positive::Vector(v) => Some(Tensor::empty(v.shape(), rows.dtype(), device)?),
        Positive::Column(_) => None,
    };
    match device {
        Device::Cuda(_) => {
            let (dcolumns, dpositive) = (dcolumns.as_mut(), dpositive.as_mut());
            cuda::gradients(dloss, rows, columns, positive, spec, lse, &mut drows, dcolumns, dpositive)?;
        }
        Device::Cpu => {
            let problem = problem_on_cpu(OP, rows, columns, positive, spec)?;
            let upstream = cpu::Upstream { dloss: dloss.as_slice()?, lse: lse.as_slice()? };
            let dcolumns = dcolumns.as_mut().map(Tensor::as_mut_slice).transpose()?;
            cpu::gradients(&problem, &upstream, drows.as_mut_slice()?, dcolumns)?;
            if let Some(dpositive) = &mut dpositive {
                cpu::positive_gradient(&problem, &upstream, dpositive.as_mut_slice()?);
            }
        }
    }
    Ok(Backward { drows, dcolumns, dpositive })
}
