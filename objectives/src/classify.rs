//! What pretext tasks share that are a classification with labels of their own making: loss, accuracy, warnings.

use crate::Run;
use autograd::{Var, ops};
use engine::{DType, Error, Result, Tensor};
use kernels::{copy, elementwise, reduce};

/// Accuracy from which a task is solved, for a warning.
const SOLVED: f32 = 0.999;
/// Part of a run in which solving a task is suspicious.
const EARLY: f32 = 0.1;
/// Part of the loss of guessing above which nothing is learnt.
const GUESSING: f32 = 0.98;

/// The mean cross-entropy of logits [M, V], f32 or bf16, with i32 labels [M]. Guessing costs ln V.
#[track_caller]
pub fn cross_entropy(logits: &Var, labels: &Tensor) -> Result<Var> {
    let rows = ops::softmax_xent(&ops::cast(logits, DType::F32)?, &Var::constant(labels.clone()), 0.0)?;
    ops::mean(&rows, &[0])
}

/// The part of rows of logits [M, V] whose greatest value stands at their i32 label [M]: an f32 scalar on their device.
#[track_caller]
pub fn accuracy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let &[rows, _] = logits.shape() else {
        return Err(Error::shape("accuracy", "logits must be [M, V]").argument("logits", logits));
    };
    let found = copy::cast(&reduce::argmax_last(&copy::cast(logits, DType::F32)?)?, DType::F32)?;
    // Classes are whole numbers, exact in f32: 1 - difference^2 is 1 where they are equal and at most 0 elsewhere.
    let difference = elementwise::sub(&found, &copy::cast(labels, DType::F32)?)?;
    let one = Tensor::constant(&vec![1.0f32; rows], &[rows], logits.device())?;
    let right = elementwise::relu(&elementwise::sub(&one, &elementwise::mul(&difference, &difference)?)?)?;
    elementwise::scale(&reduce::sum(&right, &[0])?, 1.0 / rows as f32)
}

/// What the latest figures (`loss`, `accuracy`, `step`) of a task of `classes` say of it: that it is solved before anything
/// can have been learnt, or not at all. `shortcuts` says what to look for in the first case.
pub fn warning(
    classes: usize,
    run: Option<&Run>,
    shortcuts: &str,
    figures: &dyn Fn(&str) -> Option<f32>,
) -> Option<String> {
    let (run, step) = (run?, figures("step")?);
    let (loss, accuracy) = (figures("loss")?, figures("accuracy")?);
    let early = EARLY * run.steps as f32;
    let guessing = (classes as f32).ln();
    if accuracy >= SOLVED && step <= early {
        return Some(format!(
            "the pretext task is solved ({:.1} % right) after {step} of {} steps: that is faster than learning what images \
             show, so look for a shortcut: {shortcuts}",
            100.0 * accuracy,
            run.steps
        ));
    }
    (loss > GUESSING * guessing && step > early).then(|| {
        format!(
            "the loss {loss:.3} is that of guessing among {classes} ({guessing:.3}), {:.1} % are right: nothing is learnt \
             yet; if it stays there, try another training.learning_rate or an easier task",
            100.0 * accuracy
        )
    })
}
