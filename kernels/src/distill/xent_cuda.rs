//! Launches of `teacher_rows.cu`, `teacher_xent.cu` and `teacher_xent_rows.cu`.

use super::cuda::{MANY, MOST};
use super::xent::{Problem, Teacher};
use crate::cuda::{THREADS, access};
use crate::elementwise;
use crate::optim::cuda::{Number, number};
use engine::cuda::Launch;
use engine::{DType, Error, Result, Tensor};

/// Kernels of `teacher_rows.cu`.
pub(crate) mod teacher_rows {
    crate::cuda::typed_kernels! {
        family: "distill", file: "teacher_rows.cu", options: [];
        ROWS = "distill_teacher_rows";
        COLUMNS = "distill_teacher_columns";
    }
}

/// Kernels of `teacher_xent.cu`.
pub(crate) mod xent {
    crate::cuda::typed_kernels! {
        family: "distill", file: "teacher_xent.cu", options: [];
        FORWARD = "distill_xent_fwd";
        BACKWARD = "distill_xent_bwd";
    }
}

/// Kernels of `teacher_xent_rows.cu`.
pub(crate) mod xent_rows {
    crate::cuda::kernels! {
        family: "distill", file: "teacher_xent_rows.cu", options: [];
        ROWS = "distill_xent_rows";
    }
}

/// Warps of a block of `distill_teacher_columns`.
const SLICES: usize = 8;
/// Warps of a block of the losses' kernels, and classes of a lane in whole packs and in single elements.
const WARPS: usize = 4;
const WHOLE: usize = 32;
const SINGLE: usize = 8;

/// x where its packs can be read: these kernels read whole packs at multiples of 16 bytes alone.
#[track_caller]
fn aligned(x: &Tensor) -> Result<Tensor> {
    if x.is_aligned(16) { Ok(x.clone()) } else { elementwise::scale(x, 1.0) }
}

/// How rows of K classes are read, and elements of a pack.
fn packs(k: usize, dtype: DType) -> (u32, usize) {
    let pack = 16 / dtype.size();
    let whole = k.is_multiple_of(pack);
    (access(whole, true), if whole { pack } else { 1 })
}

#[track_caller]
fn require_size(operation: &str, x: &Tensor) -> Result<()> {
    match x.shape().iter().all(|&n| n <= MOST) {
        true => Ok(()),
        false => {
            let text = format!("rows and classes are at most {MOST} on CUDA devices");
            Err(Error::shape(operation, text).argument("x", x))
        }
    }
}

/// A teacher as the kernels read it.
struct Aligned {
    logits: Tensor,
    center: Option<Tensor>,
    temperature: Number,
}

impl Aligned {
    #[track_caller]
    fn new(operation: &str, teacher: &Teacher) -> Result<Aligned> {
        require_size(operation, teacher.logits)?;
        Ok(Aligned {
            logits: aligned(teacher.logits)?,
            center: teacher.center.map(aligned).transpose()?,
            temperature: number(operation, teacher.temperature)?,
        })
    }
}

/// See [`super::teacher_rows`].
#[track_caller]
pub fn rows(teacher: &Teacher, rows: &mut Tensor, entropy: &mut Tensor) -> Result<()> {
    let name = "teacher_rows";
    let Aligned { logits, center, temperature } = Aligned::new(name, teacher)?;
    let (n, k) = (logits.shape()[0], logits.shape()[1]);
    let (access, pack) = packs(k, logits.dtype());
    Launch::new(teacher_rows::ROWS.of(name, logits.dtype())?, logits.device())?
        .read(&logits)?
        .read_optional(center.as_ref())?
        .write(rows)?
        .write(entropy)?
        .value(k as u32)
        .value(temperature)
        .value(access)
        .flops(8.0 * logits.len() as f64)
        .grid(n)
        .block(k.div_ceil(2 * pack).next_multiple_of(32).clamp(32, MANY))
        .run()
}

/// See [`super::teacher_means`].
#[track_caller]
pub fn means(
    teacher: &Teacher,
    rows: &Tensor,
    share: Option<&Tensor>,
    mean: &mut Tensor,
    usage: &mut Tensor,
) -> Result<()> {
    let name = "teacher_means";
    let Aligned { logits, center, temperature } = Aligned::new(name, teacher)?;
    let (n, k) = (logits.shape()[0], logits.shape()[1]);
    let (access, pack) = packs(k, logits.dtype());
    Launch::new(teacher_rows::COLUMNS.of(name, logits.dtype())?, logits.device())?
        .read(&logits)?
        .read_optional(center.as_ref())?
        .read(rows)?
        .read_optional(share)?
        .value(1.0 / n.max(1) as f32)
        .write(mean)?
        .write(usage)?
        .value(n as u32)
        .value(k as u32)
        .value(temperature)
        .value(access)
        .flops(8.0 * logits.len() as f64)
        .grid(k.div_ceil(32 * pack))
        .block(32 * SLICES)
        .run()
}

/// How a loss is cut into warps.
struct Cut {
    access: u32,
    /// Parts of a row.
    chunks: usize,
    blocks: usize,
}

impl Cut {
    #[track_caller]
    fn new(operation: &str, problem: Problem, student: &Tensor) -> Result<Cut> {
        require_size(operation, student)?;
        let (access, _) = packs(problem.k, student.dtype());
        let classes = 32 * if access == 0 { SINGLE } else { WHOLE };
        let chunks = problem.k.div_ceil(classes);
        let warps = problem.images * chunks;
        if warps > MOST {
            let text = format!("images times classes / {classes} are at most {MOST} on CUDA devices");
            return Err(Error::shape(operation, text).argument("student", student));
        }
        Ok(Cut { access, chunks, blocks: warps.div_ceil(WARPS) })
    }

    /// Runs a launch that has its tensors: a warp an image and a run of classes.
    #[track_caller]
    fn run(&self, launch: Launch, problem: Problem, inverse: f32, temperature: Number) -> Result<()> {
        launch
            .value(problem.images as u32)
            .value(problem.crops as u32)
            .value(problem.teachers as u32)
            .value(problem.k as u32)
            .value(self.chunks as u32)
            .value(inverse)
            .value(temperature)
            .value(self.access)
            .grid(self.blocks)
            .block(32 * WARPS)
            .run()
    }
}

/// See [`super::teacher_xent_forward`].
#[track_caller]
pub fn forward(
    problem: Problem,
    student: &Tensor,
    teacher: &Teacher,
    teacher_rows: &Tensor,
    inverse: f32,
    loss: &mut Tensor,
    rows: &mut Tensor,
) -> Result<()> {
    let name = "teacher_xent";
    let student = aligned(student)?;
    let Aligned { logits, center, temperature } = Aligned::new(name, teacher)?;
    let cut = Cut::new(name, problem, &student)?;
    let m = student.shape()[0];
    let mut partial = Tensor::empty(&[m, cut.chunks, 4], DType::F32, student.device())?;
    let launch = Launch::new(xent::FORWARD.of(name, student.dtype())?, student.device())?
        .read(&student)?
        .read(&logits)?
        .read_optional(center.as_ref())?
        .read(teacher_rows)?
        .write(&mut partial)?
        .flops(8.0 * (student.len() + logits.len()) as f64);
    cut.run(launch, problem, inverse, temperature)?;
    Launch::new(&xent_rows::ROWS, student.device())?
        .read(&partial)?
        .write(loss)?
        .write(rows)?
        .value(m as u32)
        .value(cut.chunks as u32)
        .grid(m.div_ceil(THREADS / 32))
        .block(THREADS)
        .run()
}

/// See [`super::teacher_xent_backward`].
#[track_caller]
pub fn backward(
    problem: Problem,
    dloss: &Tensor,
    student: &Tensor,
    teacher: &Teacher,
    teacher_rows: &Tensor,
    inverse: f32,
    rows: &Tensor,
    dstudent: &mut Tensor,
) -> Result<()> {
    let name = "teacher_xent_backward";
    let student = aligned(student)?;
    let Aligned { logits, center, temperature } = Aligned::new(name, teacher)?;
    let cut = Cut::new(name, problem, &student)?;
    let launch = Launch::new(xent::BACKWARD.of(name, student.dtype())?, student.device())?
        .read(dloss)?
        .read(&student)?
        .read(&logits)?
        .read_optional(center.as_ref())?
        .read(teacher_rows)?
        .read(rows)?
        .write(dstudent)?
        .flops(8.0 * (student.len() + logits.len()) as f64);
    cut.run(launch, problem, inverse, temperature)
}
