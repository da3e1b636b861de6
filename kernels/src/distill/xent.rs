//! A student's cross-entropy with a teacher's softmax, which is made again from the teacher's logits wherever it is used.
//!
//! With the teacher's `p_j = softmax((t_j - center) / temperature)` and the student's `x = s / student_temperature`,
//!
//! ```text
//! loss_i = sum over the teacher's rows j that belong to i of sum_k p_jk (lse_i - x_ik)       (Caron et al. 2021, eq. 3)
//! d loss_i / d s_ik = (sum_j sum_k' p_jk' softmax(x_i)_k - sum_j p_jk) / student_temperature
//! ```
//!
//! [`teacher_rows`] keeps two numbers of each of the teacher's rows; [`teacher_xent_forward`] and [`teacher_xent_backward`] read
//! student and teacher once each, however many crops there are. Probabilities are never written.

use super::{require_temperature, rows_and_columns, xent_cpu, xent_cuda};
use crate::optim::Scalar;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// A teacher's distributions: what they are made of again.
#[derive(Debug, Clone, Copy)]
pub struct Teacher<'a> {
    /// [N, K] f32, on CUDA devices f32 or bf16.
    pub logits: &'a Tensor,
    /// f32 [K], subtracted from the logits.
    pub center: Option<&'a Tensor>,
    /// Divides what is left.
    pub temperature: Scalar<'a>,
}

/// Which rows of the teacher a row of the student is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// The same row, of as many as the student has.
    SameRow,
    /// The teacher has two crops of each of N / 2 images, crop by crop, the student any number of crops of the same images, of
    /// which the first two are the teacher's: a crop is compared with those of the teacher's that are not the same.
    OtherCrops,
}

/// The sizes of a loss.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem {
    /// Images: a row's image is the row's index modulo this.
    pub images: usize,
    /// The student's crops of an image.
    pub crops: usize,
    /// The teacher's: 1 or 2.
    pub teachers: usize,
    /// Classes.
    pub k: usize,
}

impl Teacher<'_> {
    /// N and K, if logits, centre and temperature fit.
    #[track_caller]
    fn check(&self, operation: &str) -> Result<(usize, usize)> {
        let (n, k) = rows_and_columns(operation, "the teacher's logits", self.logits)?;
        if let Some(center) = self.center {
            common(operation, &["logits", "center"], &[self.logits, center])?;
            center.require_dtype(operation, "center", DType::F32)?;
            center.require_shape(operation, "center", &[k])?;
        }
        require_temperature(operation, self.temperature, self.logits.device())?;
        Ok((n, k))
    }
}

/// `(rows [N, 2], entropy [N])`, both f32, of a teacher's logits: with a row's numbers (shift, factor),
/// `p = e^((logit - center) / temperature - shift) factor`, and its entropy in nats.
///
/// A row of nothing but minus infinity has no probabilities: (0, 0) and entropy 0. NaN stays in its row. Temperatures as
/// [`super::teacher_softmax`].
#[track_caller]
pub fn teacher_rows(teacher: &Teacher) -> Result<(Tensor, Tensor)> {
    let name = "teacher_rows";
    let _op = memory::operation(name);
    let (n, _) = teacher.check(name)?;
    let device = teacher.logits.device();
    let mut rows = Tensor::empty(&[n, 2], DType::F32, device)?;
    let mut entropy = Tensor::empty(&[n], DType::F32, device)?;
    match device {
        Device::Cuda(_) => xent_cuda::rows(teacher, &mut rows, &mut entropy)?,
        Device::Cpu => xent_cpu::rows(name, teacher, rows.as_mut_slice()?, entropy.as_mut_slice()?)?,
    }
    Ok((rows, entropy))
}

/// `(mean [K], usage [K])`, both f32: the mean of a teacher's logits, which its centre follows, and that of its probabilities, how
/// much each class is used, in one read. `rows` is what [`teacher_rows`] returned.
///
/// `share` (f32 [N]) is what each row counts, and should sum to 1; rows that count 0 are not read. 1 / N each where it is absent.
#[track_caller]
pub fn teacher_means(teacher: &Teacher, rows: &Tensor, share: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let name = "teacher_means";
    let _op = memory::operation(name);
    let (n, k) = teacher.check(name)?;
    let device = common(name, &["logits", "rows"], &[teacher.logits, rows])?;
    rows.require_dtype(name, "rows", DType::F32)?;
    rows.require_shape(name, "rows", &[n, 2])?;
    if let Some(share) = share {
        common(name, &["logits", "share"], &[teacher.logits, share])?;
        share.require_dtype(name, "share", DType::F32)?;
        share.require_shape(name, "share", &[n])?;
    }
    let mut mean = Tensor::empty(&[k], DType::F32, device)?;
    let mut usage = Tensor::empty(&[k], DType::F32, device)?;
    match device {
        Device::Cuda(_) => xent_cuda::means(teacher, rows, share, &mut mean, &mut usage)?,
        Device::Cpu => {
            let share = share.map(Tensor::as_slice::<f32>).transpose()?;
            let (mean, usage) = (mean.as_mut_slice()?, usage.as_mut_slice()?);
            xent_cpu::means(name, teacher, rows.as_slice()?, share, mean, usage)?;
        }
    }
    Ok((mean, usage))
}

/// The sizes of a loss whose tensors fit.
#[track_caller]
fn problem(
    operation: &str,
    student: &Tensor,
    teacher: &Teacher,
    rows: &Tensor,
    student_temperature: f32,
    matching: Matching,
) -> Result<Problem> {
    let names = ["student", "teacher", "rows"];
    common(operation, &names, &[student, teacher.logits, rows])?;
    let (m, k) = rows_and_columns(operation, "the student's logits", student)?;
    let (n, _) = teacher.check(operation)?;
    teacher.logits.require_dtype(operation, "the teacher's logits", student.dtype())?;
    teacher.logits.require_shape(operation, "the teacher's logits", &[n, k])?;
    rows.require_dtype(operation, "rows", DType::F32)?;
    rows.require_shape(operation, "rows", &[n, 2])?;
    if !(student_temperature > 0.0 && student_temperature.is_finite()) {
        let text = "the student's temperature must be positive";
        return Err(Error::value(operation, text).with("temperature", student_temperature));
    }
    let refuse = |text: &str| {
        let error = Error::shape(operation, text).argument("student", student);
        Err(error.argument("teacher", teacher.logits))
    };
    let problem = |images: usize, teachers| Problem { images, crops: m / images.max(1), teachers, k };
    match matching {
        Matching::SameRow if m == n => Ok(problem(n, 1)),
        Matching::SameRow => refuse("student and teacher must have as many rows"),
        Matching::OtherCrops if !n.is_multiple_of(2) => {
            refuse("the teacher must have two crops of each image")
        }
        Matching::OtherCrops if m == 0 && n == 0 || n > 0 && m.is_multiple_of(n / 2) => Ok(problem(n / 2, 2)),
        Matching::OtherCrops => refuse("the student must have whole crops of the teacher's images"),
    }
}

/// `(loss [M], rows [M, 2])`, both f32, of the student's logits [M, K] (see the module's formula). `teacher_rows` is what
/// [`teacher_rows`] returned for the same teacher; `rows` is for [`teacher_xent_backward`].
///
/// Student and teacher are of one type, f32, on CUDA devices f32 or bf16. A probability of zero costs nothing even where the
/// student's logit is minus infinity; a student's row of nothing but minus infinity costs nothing. NaN stays in the images that
/// have it.
///
/// Errors: shapes, types or devices that do not fit, rows that cannot be matched, temperatures that are not positive.
#[track_caller]
pub fn teacher_xent_forward(
    student: &Tensor,
    teacher: &Teacher,
    teacher_rows: &Tensor,
    student_temperature: f32,
    matching: Matching,
) -> Result<(Tensor, Tensor)> {
    let name = "teacher_xent";
    let _op = memory::operation(name);
    let problem = problem(name, student, teacher, teacher_rows, student_temperature, matching)?;
    let (m, device) = (student.shape()[0], student.device());
    let mut loss = Tensor::empty(&[m], DType::F32, device)?;
    let mut rows = Tensor::empty(&[m, 2], DType::F32, device)?;
    let inverse = 1.0 / student_temperature;
    match device {
        Device::Cuda(_) => {
            xent_cuda::forward(problem, student, teacher, teacher_rows, inverse, &mut loss, &mut rows)?;
        }
        Device::Cpu => {
            let targets = xent_cpu::Targets::new(name, problem, teacher, teacher_rows)?;
            let (loss, rows) = (loss.as_mut_slice()?, rows.as_mut_slice()?);
            xent_cpu::forward(&targets, student.as_slice()?, inverse, loss, rows);
        }
    }
    Ok((loss, rows))
}

/// Gradient of `sum_i dloss_i loss_i` with respect to the student's logits: [M, K] of their type. `rows` is what
/// [`teacher_xent_forward`] returned for the same arguments; dloss is f32 [M]. Errors as there.
#[track_caller]
pub fn teacher_xent_backward(
    dloss: &Tensor,
    student: &Tensor,
    teacher: &Teacher,
    teacher_rows: &Tensor,
    student_temperature: f32,
    matching: Matching,
    rows: &Tensor,
) -> Result<Tensor> {
    let name = "teacher_xent_backward";
    let _op = memory::operation("teacher_xent");
    let problem = problem(name, student, teacher, teacher_rows, student_temperature, matching)?;
    let m = student.shape()[0];
    let device = common(name, &["dloss", "student", "rows"], &[dloss, student, rows])?;
    dloss.require_dtype(name, "dloss", DType::F32)?;
    dloss.require_shape(name, "dloss", &[m])?;
    rows.require_dtype(name, "rows", DType::F32)?;
    rows.require_shape(name, "rows", &[m, 2])?;
    let mut dx = Tensor::empty(student.shape(), student.dtype(), device)?;
    let inverse = 1.0 / student_temperature;
    match device {
        Device::Cuda(_) => {
            xent_cuda::backward(problem, dloss, student, teacher, teacher_rows, inverse, rows, &mut dx)?;
        }
        Device::Cpu => {
            let targets = xent_cpu::Targets::new(name, problem, teacher, teacher_rows)?;
            let (dloss, rows) = (dloss.as_slice()?, rows.as_slice()?);
            xent_cpu::backward(&targets, dloss, student.as_slice()?, inverse, rows, dx.as_mut_slice()?);
        }
    }
    Ok(dx)
}
