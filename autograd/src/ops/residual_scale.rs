//! `residual_scale`: the end of a residual block, with LayerScale and stochastic depth.

use super::check::{arity, element_type, float, shape, wrong_shapes};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::elementwise;

/// The operation of [`residual_scale`]: which of its optional inputs there are.
#[derive(Clone)]
pub struct ResidualScale {
    scale: bool,
    keep: bool,
}

/// `x + scale keep branch`: x and branch [N, .., C] of rank 2 or more -> [N, .., C].
///
/// `scale` [C] is a factor a channel (LayerScale; Touvron et al., "Going deeper with image transformers", 2021, equation 4),
/// `keep` [N] one a sample (stochastic depth; Huang et al., 2016: 0, or one over the probability of keeping), which gets no
/// gradient. Both are f32 beside f32 or bf16, and 1 if absent.
#[track_caller]
pub fn residual_scale(x: &Var, branch: &Var, scale: Option<&Var>, keep: Option<&Var>) -> Result<Var> {
    let inputs: Vec<&Var> = [x, branch].into_iter().chain(scale).chain(keep).collect();
    apply_one(ResidualScale { scale: scale.is_some(), keep: keep.is_some() }, &inputs)
}

impl ResidualScale {
    /// Positions of scale and keep among the inputs.
    fn positions(&self) -> [Option<usize>; 2] {
        [self.scale.then_some(2), self.keep.then_some(2 + usize::from(self.scale))]
    }
}

impl Op for ResidualScale {
    fn name(&self) -> &'static str {
        "residual_scale"
    }

    fn inputs(&self) -> &'static [&'static str] {
        if self.scale { &["x", "branch", "scale", "keep"] } else { &["x", "branch", "keep"] }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 2 + usize::from(self.scale) + usize::from(self.keep))?;
        float(self, 0, &inputs[0])?;
        element_type(self, 1, &inputs[1], inputs[0].dtype)?;
        shape(self, 1, &inputs[1], &inputs[0].shape, "of the shape of x")?;
        let &[samples, .., channels] = &inputs[0].shape[..] else {
            return Err(wrong_shapes(self, inputs, "x must be [N, .., C]"));
        };
        let [scale, keep] = self.positions();
        for (at, size, rule) in
            [(scale, channels, "one value a channel [C]"), (keep, samples, "one value a sample [N]")]
        {
            if let Some(i) = at {
                element_type(self, i, &inputs[i], DType::F32)?;
                shape(self, i, &inputs[i], &[size], rule)?;
            }
        }
        Ok(vec![inputs[0].clone()])
    }

    /// Saves the branch if there is a scale (else a tensor of its shape serves as well: its values are not read), the
    /// scale and the keep, each if there is one.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (x, branch) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        let [scale, keep] = self.positions().map(|at| at.map(|i| contiguous(inputs[i])).transpose());
        let (scale, keep) = (scale?, keep?);
        [scale.as_ref().map(|_| &branch), scale.as_ref(), keep.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|t| save.save(t));
        Ok(vec![elementwise::residual_scale(&x, &branch, scale.as_ref(), keep.as_ref())?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let mut all = vec![at.when(0, || Ok(dy.clone()))?];
        if !self.scale && !self.keep {
            all.push(at.when(1, || Ok(dy))?);
            return Ok(all);
        }
        let mut saved = at.saved.iter();
        let branch = if self.scale { saved.next() } else { None };
        let scale = if self.scale { saved.next() } else { None };
        let keep = saved.next();
        let (dbranch, dscale) =
            elementwise::residual_scale_backward(&dy, branch.unwrap_or(&dy), scale, keep)?;
        all.push(Some(dbranch).filter(|_| at.needs[1]));
        all.extend(self.scale.then(|| dscale.filter(|_| at.needs[2])));
        all.extend(self.keep.then_some(None));
        Ok(all)
    }

    fn has_gradient(&self, input: usize) -> bool {
        Some(input) != self.positions()[1]
    }
}

impl Reference for ResidualScale {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let [scale, keep] = self.positions().map(|at| at.map(|i| &inputs[i]));
        vec![elementwise::reference::residual_scale(&inputs[0], &inputs[1], scale, keep)]
    }
}

/// Cases of the operation's checks: with and without either factor, all samples dropped among them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dims, keeps) in [
        (&[1, 1][..], &[2.0][..]),
        (&[2, 5], &[0.0, 1.25]),
        (&[3, 2, 4], &[1.5, 0.0, 1.5]),
        (&[2, 17, 12], &[1.25, 1.25]),
    ] {
        for (scale, keep) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut inputs = vec![Input::random(dims, 31, 1.0), Input::random(dims, 32, 1.0)];
            if scale {
                inputs.push(Input::random(&dims[dims.len() - 1..], 33, 1.0).in_f32());
            }
            if keep {
                inputs.push(Input::constant(Array::new(&dims[..1], keeps.to_vec())).in_f32());
            }
            let label = format!("{dims:?} scale {scale} keep {keeps:?} {keep}");
            let op = ResidualScale { scale, keep };
            cases.push(Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) });
        }
    }
    cases
}
