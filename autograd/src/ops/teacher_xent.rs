//! `teacher_xent`: a student's cross-entropy with a teacher's softmax, row by row.

use super::check::{arity, element_type, float, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::distill::{self as kernel, Matching, Teacher};

/// The operation of [`teacher_xent`].
#[derive(Clone)]
pub struct TeacherXent {
    /// Divides the student's logits.
    pub student_temperature: f32,
    /// Who is compared with whom.
    pub matching: Matching,
    /// Whether the fifth input is there.
    pub has_center: bool,
}

/// Cross-entropy [M] of each row of the student's logits [M, K], over its temperature, with the sum of the teacher's
/// `softmax((logits - center) / temperature)` that it is matched with (Caron et al. 2021, eq. 3). No mean is taken.
///
/// The teacher's logits are [N, K] of the student's type, `rows` f32 [N, 2] what [`kernels::distill::teacher_rows`] gives for them,
/// the temperature f32 \[1\], the center f32 [K]. None of these gets a gradient. The loss is f32. Probabilities are in memory neither
/// forward nor backward.
#[track_caller]
pub fn teacher_xent(
    student: &Var,
    teacher: &Tensor,
    rows: &Tensor,
    temperature: &Tensor,
    center: Option<&Tensor>,
    student_temperature: f32,
    matching: Matching,
) -> Result<Var> {
    let op = TeacherXent { student_temperature, matching, has_center: center.is_some() };
    let known: Vec<Var> =
        [teacher, rows, temperature].into_iter().chain(center).cloned().map(Var::constant).collect();
    apply_one(op, &[student].into_iter().chain(&known).collect::<Vec<_>>())
}

/// The teacher among inputs or what was saved of them.
fn teacher<'a>(tensors: &[&'a Tensor]) -> Teacher<'a> {
    Teacher { logits: tensors[1], center: tensors.get(4).copied(), temperature: tensors[3].into() }
}

impl Op for TeacherXent {
    fn name(&self) -> &'static str {
        "teacher_xent"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["student", "teacher", "rows", "temperature", "center"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 4 + usize::from(self.has_center))?;
        float(self, 0, &inputs[0])?;
        element_type(self, 1, &inputs[1], inputs[0].dtype)?;
        let (&[m, k], &[n, _]) = (&inputs[0].shape[..], &inputs[1].shape[..]) else {
            return Err(wrong_shapes(self, inputs, "the student's logits must be [M, K], the teacher's [N, K]"));
        };
        shape(self, 1, &inputs[1], &[n, k], "[N, K] with as many classes as the student's")?;
        shape(self, 2, &inputs[2], &[n, 2], "two numbers a row of the teacher's [N, 2]")?;
        shape(self, 3, &inputs[3], &[1], "one number [1]")?;
        if self.has_center {
            shape(self, 4, &inputs[4], &[k], "one number a class [K]")?;
        }
        (2..inputs.len()).try_for_each(|i| element_type(self, i, &inputs[i], DType::F32))?;
        Ok(vec![Spec::f32(&[m])])
    }

    /// Saves all inputs, and two numbers of each of the student's rows.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let all = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let at: Vec<&Tensor> = all.iter().collect();
        let (loss, rows) =
            kernel::teacher_xent_forward(at[0], &teacher(&at), at[2], self.student_temperature, self.matching)?;
        save.save(&rows);
        all.iter().for_each(|x| save.save(x));
        Ok(vec![loss])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dloss = contiguous(at.gradient()?)?;
        let (rows, inputs) = (&at.saved[0], at.saved[1..].iter().collect::<Vec<_>>());
        let (tau, matching) = (self.student_temperature, self.matching);
        let of = teacher(&inputs);
        let dstudent = at.when(0, || {
            kernel::teacher_xent_backward(&dloss, inputs[0], &of, inputs[2], tau, matching, rows)
        })?;
        Ok([dstudent].into_iter().chain(inputs[1..].iter().map(|_| None)).collect())
    }

    fn has_gradient(&self, input: usize) -> bool {
        input == 0
    }
}

impl Reference for TeacherXent {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        use kernel::reference::{matched, teacher_probabilities, teacher_xent};
        let (student, teacher) = (&inputs[0], &inputs[1]);
        let p = teacher_probabilities(teacher, inputs.get(4), inputs[3].data[0], &inputs[2]);
        let targets = matched(&p, student.shape[0], self.matching);
        vec![teacher_xent(student, T::of(f64::from(self.student_temperature)), &targets)]
    }
}

/// Cases of the operation's checks: rows that are matched one to one and crops with other crops, with and without a center,
/// whole packs and not. The teacher's logits are exact in bf16, so that its rows' numbers fit both types.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (images, crops, k) in [(1, 1, 1), (3, 1, 5), (2, 4, 8), (2, 3, 19), (3, 5, 264)] {
        for has_center in [false, true] {
            let matching = if crops == 1 { Matching::SameRow } else { Matching::OtherCrops };
            let n = if crops == 1 { images } else { 2 * images };
            let teacher = Array::<f64>::random(&[n, k], 171, 1.0).rounded_to(DType::BF16);
            let center = has_center.then(|| Array::<f64>::random(&[k], 172, 0.5));
            let temperature = Array::new(&[1], vec![0.5]);
            let rows = kernel::reference::teacher_rows(&teacher, center.as_ref(), 0.5).rounded_to(DType::F32);
            let mut inputs = vec![Input::random(&[crops * images, k], 173, 1.0), Input::constant(teacher)];
            let known = [rows, temperature].into_iter().chain(center);
            inputs.extend(known.map(|x| Input::constant(x).in_f32()));
            let op = TeacherXent { student_temperature: 0.25, matching, has_center };
            let label = format!("{crops} crops of {images} images, {k} classes, center {has_center}");
            cases.push(Case::new(label, op, inputs));
        }
    }
    cases
}
