//! What DINO, iBOT and DINOv2 share: a student that predicts a teacher's distribution over prototypes.
//!
//! The teacher's logits are centred (or balanced by Sinkhorn-Knopp) and sharpened by a low temperature: centring alone ends
//! in the uniform distribution, sharpening alone in one prototype for all (Caron et al. 2021, section 5.3).

use crate::settings::{positive, require};
use crate::{DeviceSchedule, LinearWarmup, Run};
use autograd::{Buffer, Var, ops};
use engine::{DType, Device, Result, Tensor};
use kernels::distill::{self, Matching};
use kernels::optim;
use kernels::{copy, elementwise, matmul, reduce};
use serde::Deserialize;

/// The temperatures of student and teacher.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperatures {
    /// Divides the student's logits.
    pub student: f32,
    /// Divides the teacher's logits at the first step.
    pub teacher_start: f32,
    /// Divides the teacher's logits from the end of the warm-up on.
    pub teacher: f32,
    /// Epochs in which the teacher's temperature moves from the first to the second.
    pub warmup_epochs: f32,
}

impl Temperatures {
    /// An error that names the first that is out of its range.
    #[track_caller]
    pub fn check(&self, method: &str) -> Result<()> {
        require(
            method,
            &[
                positive("temperatures.student", self.student),
                positive("temperatures.teacher_start", self.teacher_start),
                positive("temperatures.teacher", self.teacher),
                (
                    self.warmup_epochs >= 0.0 && self.warmup_epochs.is_finite(),
                    format!("temperatures.warmup_epochs must not be negative, but is {}", self.warmup_epochs),
                ),
            ],
        )
    }

    /// The teacher's temperature at every step of a run.
    pub fn schedule(&self, run: &Run) -> Result<DeviceSchedule> {
        let line = LinearWarmup {
            start: f64::from(self.teacher_start),
            end: f64::from(self.teacher),
            warmup: run.steps_of(self.warmup_epochs),
        };
        DeviceSchedule::new(run.steps, run.device, |step| line.at(step))
    }
}

/// How the teacher's distribution is kept from collapsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Centering {
    /// A moving average of the logits is subtracted.
    Center,
    /// Three iterations of Sinkhorn-Knopp, which give every prototype the same share of a batch (Caron et al. 2020, SwAV).
    Sinkhorn,
    /// Nothing: for experiments. The teacher ends in one prototype.
    None,
}

/// Iterations of Sinkhorn-Knopp, as facebookresearch/dinov2.
const SINKHORN_ITERATIONS: usize = 3;

/// A teacher's targets, and the centre that they are taken from.
pub struct Teacher {
    centering: Centering,
    momentum: f32,
    /// f32 [K].
    center: Buffer,
    /// The mean logits of a step, until the centre moves.
    fresh: Option<Tensor>,
}

/// `softmax((logits - center) / temperature)`, made again wherever it is asked for.
#[derive(Debug, Clone)]
pub struct Softmax {
    /// [N, K] f32 or bf16.
    pub logits: Tensor,
    /// f32 [K], where there is one.
    pub center: Option<Tensor>,
    /// f32 \[1\].
    pub temperature: Tensor,
    /// f32 [N, 2], of [`kernels::distill::teacher_rows`].
    pub rows: Tensor,
}

/// The teacher's distributions over prototypes, a row each.
#[derive(Debug, Clone)]
pub enum Distributions {
    /// Not in memory.
    Softmax(Box<Softmax>),
    /// f32 [N, K], as they are.
    Given(Tensor),
}

impl Distributions {
    /// f32 [N, K], to look at: a loss does not need them.
    pub fn probabilities(&self) -> Result<Tensor> {
        match self {
            Distributions::Softmax(of) => {
                Ok(distill::teacher_softmax(&of.logits, of.center.as_ref(), (&of.temperature).into())?.0)
            }
            Distributions::Given(probabilities) => Ok(probabilities.clone()),
        }
    }

    /// The cross-entropy of each row of student logits, f32 [M], with what it is matched with.
    #[track_caller]
    fn cross_entropy(&self, student: &Var, temperature: f32, matching: Matching) -> Result<Var> {
        match self {
            Distributions::Softmax(of) => {
                let Softmax { logits, center, temperature: own, rows } = &**of;
                // In bf16 where both are and a device computes in it; what is exponentiated is f32 there too.
                let low = [student.value(), logits].iter().all(|x| x.dtype() == DType::BF16);
                let dtype = if low && logits.device() != Device::Cpu { DType::BF16 } else { DType::F32 };
                let (student, logits) = (ops::cast(student, dtype)?, copy::cast(logits, dtype)?);
                ops::teacher_xent(&student, &logits, rows, own, center.as_ref(), temperature, matching)
            }
            Distributions::Given(p) => {
                let logits = ops::scale(&ops::cast(student, DType::F32)?, 1.0 / temperature)?;
                let targets = match matching {
                    Matching::SameRow => p.clone(),
                    Matching::OtherCrops => of_other_crops(p, student)?,
                };
                ops::softmax_xent(&logits, &Var::constant(targets), 0.0)
            }
        }
    }
}

/// What each of the student's crops should predict [M, K], of a teacher's distributions [2 B, K].
#[track_caller]
fn of_other_crops(teacher: &Tensor, student: &Var) -> Result<Tensor> {
    let images = teacher.shape().first().copied().unwrap_or(0) / 2;
    let crops = student.shape().first().copied().unwrap_or(0) / images.max(1);
    teacher.require_shape("distillation", "teacher", &[2 * images, student.shape()[1]])?;
    student.value().require_shape("distillation", "student", &[crops * images, student.shape()[1]])?;
    let (first, second) = (teacher.narrow(0, 0, images)?, teacher.narrow(0, images, images)?);
    let both = elementwise::add(&first, &second)?;
    let mut targets = vec![&second, &first];
    targets.resize(crops, &both);
    copy::cat(&targets, 0)
}

/// What a teacher asks of a student.
pub struct Targets {
    /// A row for each of the teacher's.
    pub distributions: Distributions,
    /// f32 \[\]: their mean entropy, in nats; with Sinkhorn-Knopp of the distributions before balancing.
    pub entropy: Tensor,
    /// f32 \[\]: the sum of squares of their mean: 1 / K if all prototypes are used alike, 1 if one is.
    pub concentration: Tensor,
}

impl Teacher {
    /// A teacher with `prototypes` logits whose centre keeps `momentum` of itself at a step, and starts at 0.
    pub fn new(centering: Centering, momentum: f32, prototypes: usize) -> Result<Teacher> {
        let center = Buffer::new(Tensor::zeros(&[prototypes], DType::F32, Device::Cpu)?);
        Ok(Teacher { centering, momentum, center, fresh: None })
    }

    /// The centre's buffer, for state dicts.
    pub fn buffer(&mut self) -> &mut Buffer {
        &mut self.center
    }

    /// The centre, f32 [K].
    pub fn center(&self) -> &Tensor {
        self.center.value()
    }

    /// The distributions for logits [N, K] (no history) at a temperature, f32 \[1\]. `rows` are those that count, all where it
    /// is absent; others are given any distribution.
    ///
    /// The centre stays what it is until [`Teacher::after_step`]: it moves after it was used.
    #[track_caller]
    pub fn targets(&mut self, logits: &Tensor, temperature: &Tensor, rows: Option<&Rows>) -> Result<Targets> {
        // The CPU computes in f32 alone.
        let logits = match logits.device() {
            Device::Cpu => copy::cast(logits, DType::F32)?,
            Device::Cuda(_) => copy::contiguous(logits)?,
        };
        let n = logits.shape().first().copied().unwrap_or(0).max(1);
        let mean = |x: &Tensor| match rows {
            None => elementwise::scale(&reduce::sum(x, &[0])?, 1.0 / n as f32),
            Some(rows) => {
                let share = rows.share.reshape(&[1, n])?;
                let width = x.len() / n;
                matmul::matmul(&share, &x.reshape(&[n, width])?, false, false)?.reshape(&x.shape()[1..])
            }
        };
        let center = (self.centering == Centering::Center).then(|| self.center.value());
        let own = distill::Teacher { logits: &logits, center, temperature: temperature.into() };
        // Balanced over a batch, distributions hide a collapse: with Sinkhorn-Knopp what is watched is those before.
        let (numbers, entropy) = distill::teacher_rows(&own)?;
        let (distributions, usage) = match self.centering {
            Centering::Sinkhorn => {
                let count = rows.map(|rows| &rows.count);
                let q = distill::sinkhorn(&logits, own.temperature, SINKHORN_ITERATIONS, count)?;
                let usage = mean(&q)?;
                (Distributions::Given(q), usage)
            }
            Centering::Center | Centering::None => {
                let (fresh, usage) = distill::teacher_means(&own, &numbers, rows.map(|rows| &rows.share))?;
                self.fresh = center.is_some().then_some(fresh);
                let (center, temperature) = (center.cloned(), temperature.clone());
                let softmax = Softmax { logits, center, temperature, rows: numbers };
                (Distributions::Softmax(Box::new(softmax)), usage)
            }
        };
        let concentration = reduce::sum(&elementwise::mul(&usage, &usage)?, &[0])?;
        Ok(Targets { entropy: mean(&entropy)?, concentration, distributions })
    }

    /// Moves the centre: `c = m c + (1 - m) mean` (eq. 4), with the mean of the logits that it was last used for.
    #[track_caller]
    pub fn after_step(&mut self) -> Result<()> {
        match self.fresh.take() {
            Some(mean) => {
                elementwise::blend_assign(self.center.value_mut(), self.momentum, &mean, 1.0 - self.momentum)
            }
            None => Ok(()),
        }
    }

    /// The Euclidean norm of the centre, f32 \[1\].
    pub fn center_norm(&self) -> Result<Tensor> {
        optim::global_norm(&[self.center.value()])
    }
}

/// Which rows of a padded matrix count.
#[derive(Debug, Clone)]
pub struct Rows {
    /// i32 \[1\]: how many; they come first.
    pub count: Tensor,
    /// f32 [N]: 1 / count for those, 0 for others.
    pub share: Tensor,
}

/// The cross-entropy of each row of student logits [N, K] with the teacher's row of the same number, f32 [N].
#[track_caller]
pub fn cross_entropy(student: &Var, teacher: &Distributions, temperature: f32) -> Result<Var> {
    teacher.cross_entropy(student, temperature, Matching::SameRow)
}

/// DINO's loss over crops (Caron et al. 2021, eq. 3): the mean cross-entropy over all pairs of a teacher's crop and another
/// crop of the student.
///
/// Student logits [(2 + L) B, K], crop by crop; the teacher's distributions [2 B, K] are of the student's first two crops. So
/// there are 2 (2 + L) - 2 pairs of each image.
#[track_caller]
pub fn crops(student: &Var, teacher: &Distributions, temperature: f32) -> Result<Var> {
    let losses = teacher.cross_entropy(student, temperature, Matching::OtherCrops)?;
    let rows = |x: &Tensor| x.shape().first().copied().unwrap_or(0);
    let large = rows(match teacher {
        Distributions::Softmax(of) => &of.logits,
        Distributions::Given(probabilities) => probabilities,
    });
    let pairs = 2 * rows(student.value()) - large;
    ops::scale(&ops::sum(&losses, &[0])?, 1.0 / pairs as f32)
}

/// A warning if the teacher's figures show one of the two collapses; `loss` is a cross-entropy in nats.
pub fn collapse(prototypes: usize, entropy: f32, concentration: f32) -> Option<String> {
    let uniform = (prototypes as f32).ln();
    if entropy > 0.99 * uniform {
        return Some(format!(
            "the teacher's entropy {entropy:.3} is that of the uniform distribution over {prototypes} prototypes (ln K = \
             {uniform:.3}): a uniform collapse; lower settings.temperatures.teacher or lengthen the warm-up"
        ));
    }
    (concentration > 0.9 && prototypes > 1).then(|| {
        format!(
            "the teacher gives nearly all images the same prototype (concentration {concentration:.2}): a one-hot collapse; \
             raise settings.temperatures.teacher or move the centre faster (settings.center_momentum)"
        )
    })
}
