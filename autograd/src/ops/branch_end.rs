//! The end of a residual block as the last part of another operation: `residual + scale keep branch`, as
//! [`super::residual_scale`](mod@super::residual_scale) has it.

use super::check::{element_type, shape, wrong_shapes};
use crate::op::{Backward, Saver};
use crate::{Op, Spec, Var};
use engine::{DType, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::elementwise;
use kernels::matmul::Residual;

/// What the result of a layer, the branch of a residual block, is added to: `x + scale keep branch`.
#[derive(Clone, Copy)]
pub struct Onto<'a> {
    /// [N, .., C] of rank 2 or more.
    pub x: &'a Var,
    /// f32 [C]: a factor a channel (LayerScale); 1 if there is none.
    pub scale: Option<&'a Var>,
    /// f32 [N]: a factor a sample (stochastic depth), which gets no gradient; 1 if there is none.
    pub keep: Option<&'a Var>,
}

impl<'a> Onto<'a> {
    /// The inputs of the operation that end it, and which of them there are. `before` inputs lie before them.
    pub(super) fn inputs(&self, before: usize) -> (BranchEnd, impl Iterator<Item = &'a Var>) {
        let end = BranchEnd { before, scale: self.scale.is_some(), keep: self.keep.is_some() };
        (end, std::iter::once(self.x).chain(self.scale).chain(self.keep))
    }
}

/// Which inputs there are behind those of the branch: the residual, then the scale and the keep, each if there is one.
#[derive(Clone, Copy)]
pub(super) struct BranchEnd {
    /// Inputs of the branch.
    pub before: usize,
    pub scale: bool,
    pub keep: bool,
}

impl BranchEnd {
    /// Inputs in all.
    pub fn count(&self) -> usize {
        self.before + 1 + usize::from(self.scale) + usize::from(self.keep)
    }

    /// Positions of scale and keep.
    fn positions(&self) -> [Option<usize>; 2] {
        let first = self.before + 1;
        [self.scale.then_some(first), self.keep.then_some(first + usize::from(self.scale))]
    }

    pub fn is_keep(&self, input: usize) -> bool {
        self.positions()[1] == Some(input)
    }

    /// An error unless the inputs fit a branch like `branch`.
    pub fn infer(&self, op: &dyn Op, inputs: &[Spec], branch: &Spec) -> Result<()> {
        element_type(op, self.before, &inputs[self.before], branch.dtype)?;
        shape(op, self.before, &inputs[self.before], &branch.shape, "of the shape of the branch")?;
        let &[samples, .., channels] = &branch.shape[..] else {
            return Err(wrong_shapes(op, inputs, "the branch must be [N, .., C]"));
        };
        let [scale, keep] = self.positions();
        for (at, size, rule) in
            [(scale, channels, "one value a channel [C]"), (keep, samples, "one value a sample [N]")]
        {
            if let Some(i) = at {
                element_type(op, i, &inputs[i], DType::F32)?;
                shape(op, i, &inputs[i], &[size], rule)?;
            }
        }
        Ok(())
    }

    /// The contiguous inputs as kernels take them.
    pub fn residual<'a>(&self, inputs: &'a [Tensor]) -> Residual<'a> {
        let [scale, keep] = self.positions().map(|at| at.map(|i| &inputs[i]));
        Residual { x: &inputs[self.before], scale, keep }
    }

    /// Whether backward reads the branch.
    pub fn needs_branch(&self, save: &Saver) -> bool {
        self.positions()[0].is_some_and(|i| save.needs(i))
    }

    /// Saves the branch where the scale's gradient is needed, the scale and the keep, each if there is one.
    pub fn save(&self, residual: &Residual<'_>, branch: Option<&Tensor>, save: &mut Saver) {
        [branch, residual.scale, residual.keep].into_iter().flatten().for_each(|t| save.save(t));
    }

    /// The gradient of the branch, and those of the inputs that end the operation. `saved` gives what
    /// [`BranchEnd::save`] saved.
    pub fn backward<'a>(
        &self,
        at: &Backward<'_>,
        dy: &Tensor,
        saved: &mut impl Iterator<Item = &'a Tensor>,
    ) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let mut ends = vec![at.when(self.before, || Ok(dy.clone()))?];
        if !self.scale && !self.keep {
            return Ok((dy.clone(), ends));
        }
        let needs_scale = self.positions()[0].is_some_and(|i| at.needs[i]);
        let branch = if needs_scale { saved.next() } else { None };
        let scale = if self.scale { saved.next() } else { None };
        let keep = if self.keep { saved.next() } else { None };
        // Where nobody asks for the scale's gradient, another tensor of the branch's shape serves as well.
        let (dbranch, dscale) = elementwise::residual_scale_backward(dy, branch.unwrap_or(dy), scale, keep)?;
        ends.extend(self.scale.then(|| dscale.filter(|_| needs_scale)));
        ends.extend(self.keep.then_some(None));
        Ok((dbranch, ends))
    }

    /// The reference of `residual + scale keep branch`.
    pub fn reference<T: Real>(&self, inputs: &[Array<T>], branch: &Array<T>) -> Array<T> {
        let [scale, keep] = self.positions().map(|at| at.map(|i| &inputs[i]));
        elementwise::reference::residual_scale(&inputs[self.before], branch, scale, keep)
    }
}
