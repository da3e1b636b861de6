//! What self-distillation computes without a gradient, targets from a teacher, and the regulariser KoLeo.
//!
//! - [`teacher_softmax`]: DINO's targets, `p = softmax((logits - center) / temperature)` of each row, with its entropy
//!   `-sum p log p` (Caron et al. 2021, section 3.1).
//! - [`sinkhorn`]: DINOv2's and SwAV's targets, `exp(scores / temperature)` scaled so that rows and, nearly, columns have
//!   equal sums (Caron et al. 2020, section 3; Cuturi 2013).
//! - [`koleo_forward`], [`koleo_backward`]: `loss_i = -log(|x_i - x_n + eps| + eps)` for the row x_n nearest to x_i, which
//!   spreads rows out (Sablayrolles et al. 2019, equation 4).
//!
//! - [`teacher_xent_forward`], [`teacher_xent_backward`]: the student's cross-entropy with a teacher's softmax, which is made again
//!   from its logits and two numbers a row ([`teacher_rows`], [`teacher_means`]): what a step of DINO asks for.
//!
//! The student's cross-entropy with Sinkhorn-Knopp's targets is [`crate::softmax_xent`] with soft targets. The running center
//! is [`teacher_means`]' mean and [`crate::elementwise::blend_assign`]: no host is asked, so that it can be captured in a CUDA
//! graph. So can everything here; temperatures are read when the step runs.
//!
//! Must move, in elements: the softmax N K read and written; the rows' numbers N K read, the means N K read; the cross-entropy of M rows
//! (M + N) K read, backward M K written too; Sinkhorn-Knopp N K read for the maxima and twice an iteration,
//! and written once; KoLeo N D and N N read, 2 N D backward. See README.md.

pub mod cases;
pub(crate) mod check;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod device_tests;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;
mod xent;
pub mod xent_cases;
mod xent_check;
mod xent_cpu;
pub(crate) mod xent_cuda;
#[cfg(test)]
mod xent_tests;

pub use xent::{Matching, Teacher, teacher_means, teacher_rows, teacher_xent_backward, teacher_xent_forward};

use crate::cuda::require_float;
use crate::matmul::matmul;
use crate::optim::Scalar;
use engine::device::common;
use engine::{DType, Device, Error, ErrorKind, Result, Tensor, memory};

/// N and K of a matrix of at least one column.
#[track_caller]
fn rows_and_columns(operation: &str, name: &str, x: &Tensor) -> Result<(usize, usize)> {
    require_float(operation, name, x)?;
    match *x.shape() {
        [n, k] if k > 0 => Ok((n, k)),
        _ => {
            Err(Error::shape(operation, format!("{name} must be [N, K] with K of at least 1"))
                .argument(name, x))
        }
    }
}

/// The temperature on the CPU, which must be positive there.
#[track_caller]
fn positive(operation: &str, temperature: Scalar) -> Result<f32> {
    match temperature.read(operation)? {
        t if t > 0.0 && t.is_finite() => Ok(t),
        t => Err(Error::value(operation, "the temperature must be positive").with("temperature", t)),
    }
}

/// An error if the temperature cannot be read on the device, or is known and not positive.
#[track_caller]
fn require_temperature(operation: &str, temperature: Scalar, device: Device) -> Result<()> {
    temperature.require(operation, "temperature", device)?;
    match temperature {
        Scalar::Value(_) => positive(operation, temperature).map(drop),
        Scalar::Tensor(_) => Ok(()),
    }
}

/// `(p [N, K], entropy [N])`, both f32: `p = softmax((logits - center) / temperature)` of each row and its entropy in nats.
///
/// logits are [N, K] f32, on CUDA devices bf16 too; the center is f32 [K]. A row of nothing but minus infinity becomes
/// zeros; NaN stays in its row. A temperature that is not positive is an error where the host knows it, and makes
/// everything NaN where a CUDA device reads it.
#[track_caller]
pub fn teacher_softmax(
    logits: &Tensor,
    center: Option<&Tensor>,
    temperature: Scalar,
) -> Result<(Tensor, Tensor)> {
    let name = "teacher_softmax";
    let _op = memory::operation(name);
    let (n, k) = rows_and_columns(name, "logits", logits)?;
    let device = logits.device();
    if let Some(center) = center {
        common(name, &["logits", "center"], &[logits, center])?;
        center.require_dtype(name, "center", DType::F32)?;
        center.require_shape(name, "center", &[k])?;
    }
    require_temperature(name, temperature, device)?;
    let mut p = Tensor::empty(&[n, k], DType::F32, device)?;
    let mut entropy = Tensor::empty(&[n], DType::F32, device)?;
    match device {
        Device::Cuda(_) => cuda::softmax(logits, center, temperature, &mut p, &mut entropy)?,
        Device::Cpu => {
            let center = center.map(Tensor::as_slice::<f32>).transpose()?;
            let temperature = positive(name, temperature)?;
            let logits = logits.as_slice()?;
            cpu::softmax(logits, k, center, temperature, p.as_mut_slice()?, entropy.as_mut_slice()?);
        }
    }
    Ok((p, entropy))
}

/// Sinkhorn-Knopp: targets f32 [N, K] whose rows add up to 1 and whose columns, the better the more iterations, to N / K.
///
/// With `q = exp(scores / temperature)`, an iteration divides columns by their sums and then rows by theirs. scores are
/// [N, K] f32, on CUDA devices bf16 too. Adding a number to all scores changes nothing: only the largest score of all is
/// a reference, never a row's own, which would be another result after few iterations.
///
/// Rows from `valid` on (i32 [1] on the scores' device, read when the step runs) are padding: they take no part and are
/// zeros. A column that float32 cannot tell from zero beside the rest stays zero instead of being scaled up to
/// infinity.
///
/// Errors: no iteration; a temperature as [`teacher_softmax`]; on the CPU a `valid` outside 0 to N, which a CUDA device
/// takes for the nearest of these.
#[track_caller]
pub fn sinkhorn(
    scores: &Tensor,
    temperature: Scalar,
    iterations: usize,
    valid: Option<&Tensor>,
) -> Result<Tensor> {
    let name = "sinkhorn";
    let _op = memory::operation(name);
    let (n, k) = rows_and_columns(name, "scores", scores)?;
    let device = scores.device();
    require_temperature(name, temperature, device)?;
    if iterations == 0 {
        return Err(Error::value(name, "needs at least one iteration"));
    }
    if let Some(valid) = valid {
        common(name, &["scores", "valid"], &[scores, valid])?;
        valid.require_dtype(name, "valid", DType::I32)?;
        valid.require_shape(name, "valid", &[1])?;
    }
    match device {
        Device::Cuda(_) => cuda::sinkhorn(scores, temperature, iterations, valid),
        Device::Cpu => {
            let temperature = positive(name, temperature)?;
            let valid = match valid.map(Tensor::as_slice::<i32>).transpose()? {
                None => n,
                Some(valid) => match usize::try_from(valid[0]) {
                    Ok(valid) if valid <= n => valid,
                    _ => {
                        return Err(
                            Error::value(name, format!("valid must be 0 to {n}")).with("valid", valid[0])
                        );
                    }
                },
            };
            let mut out = Tensor::zeros(&[n, k], DType::F32, Device::Cpu)?;
            let (scores, out_rows) =
                (&scores.as_slice()?[..valid * k], &mut out.as_mut_slice()?[..valid * k]);
            cpu::sinkhorn(scores, k, temperature, iterations, out_rows);
            Ok(out)
        }
    }
}

/// N and D of KoLeo's rows, of which there are at least two.
#[track_caller]
fn koleo_rows(operation: &str, x: &Tensor, eps: f32) -> Result<(usize, usize)> {
    let &[n, d] = x.shape() else {
        return Err(Error::shape(operation, "x must be [N, D]").argument("x", x));
    };
    if x.dtype() != DType::F32 {
        let text = "x must be f32: in bf16 near rows become equal and their loss is of rounding alone";
        return Err(Error::dtype(operation, text).argument("x", x));
    }
    if n == 1 {
        let text = "a single row has no nearest neighbour: KoLeo needs a batch of at least 2";
        return Err(Error::shape(operation, text).argument("x", x));
    }
    if d == 0 {
        return Err(Error::shape(operation, "rows need at least one element").argument("x", x));
    }
    match eps > 0.0 && eps.is_finite() {
        true => Ok((n, d)),
        false => Err(Error::value(operation, "eps must be positive").with("eps", eps)),
    }
}

/// KoLeo's loss of each row and the row nearest to it: `(loss f32 [N], nearest i32 [N])`.
///
/// x is [N, D] f32, of unit rows (normalising them is the caller's affair). The nearest is the other row with the largest
/// inner product, the first of several; `loss = -log(|x - nearest + eps| + eps)`, where eps, usually 1e-8, is added to each
/// difference (PyTorch's `pairwise_distance`) and to the distance, so that equal rows have a finite loss:
/// `-log(eps (sqrt(D) + 1))`. Take the mean for Sablayrolles' loss.
///
/// Errors: a single row, rows without elements, another type than f32, eps that is not positive.
#[track_caller]
pub fn koleo_forward(x: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let name = "koleo";
    let _op = memory::operation(name);
    let (n, d) = koleo_rows(name, x, eps)?;
    let device = x.device();
    let mut loss = Tensor::empty(&[n], DType::F32, device)?;
    let mut nearest = Tensor::empty(&[n], DType::I32, device)?;
    if n == 0 {
        return Ok((loss, nearest));
    }
    let similar = matmul(x, x, false, true)?;
    match device {
        Device::Cuda(_) => cuda::koleo(&similar, x, eps, &mut loss, &mut nearest)?,
        Device::Cpu => {
            let (similar, x) = (similar.as_slice()?, x.as_slice()?);
            cpu::koleo(similar, x, d, eps, loss.as_mut_slice()?, nearest.as_mut_slice()?);
        }
    }
    Ok((loss, nearest))
}

/// Gradient of `sum_i dloss_i loss_i` of [`koleo_forward`]: [N, D] f32, to each row and to its nearest. What several rows
/// give to one neighbour is added in their order.
///
/// dloss is f32 [N], `nearest` what forward returned. An index outside 0 to N is an error on the CPU; on CUDA devices
/// the gradient of its row is NaN.
#[track_caller]
pub fn koleo_backward(dloss: &Tensor, x: &Tensor, nearest: &Tensor, eps: f32) -> Result<Tensor> {
    let name = "koleo_backward";
    let _op = memory::operation("koleo");
    let (n, d) = koleo_rows(name, x, eps)?;
    let device = common(name, &["dloss", "x", "nearest"], &[dloss, x, nearest])?;
    dloss.require_dtype(name, "dloss", DType::F32)?;
    dloss.require_shape(name, "dloss", &[n])?;
    nearest.require_dtype(name, "nearest", DType::I32)?;
    nearest.require_shape(name, "nearest", &[n])?;
    let mut dx = Tensor::empty(&[n, d], DType::F32, device)?;
    match device {
        Device::Cuda(_) => cuda::koleo_backward(dloss, x, nearest, eps, &mut dx)?,
        Device::Cpu => {
            let nearest = nearest.as_slice::<i32>()?;
            if let Some(row) = nearest.iter().position(|&i| !(0..n as i32).contains(&i)) {
                let text = format!("the nearest of row {row} is {}, outside 0 to {}", nearest[row], n - 1);
                return Err(Error::new(ErrorKind::Value, name, text).argument("x", x));
            }
            cpu::koleo_backward(dloss.as_slice()?, x.as_slice()?, d, nearest, eps, dx.as_mut_slice()?);
        }
    }
    Ok(dx)
}
