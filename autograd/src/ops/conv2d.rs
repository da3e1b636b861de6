//! `conv2d`: two-dimensional convolution (cross-correlation, as everywhere in the field), channels last.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Result, Tensor};
use kernels::array::{Array, Real};
use kernels::conv2d as kernel;
use kernels::copy::contiguous;

pub use kernels::conv2d::Geometry;

/// The operation of [`conv2d`]: stride, padding, dilation and groups.
#[derive(Clone)]
pub struct Conv2d(pub Geometry);

/// Convolution of images [N, H, W, I] with kernels [O, R, S, I / groups] -> [N, P, Q, O].
#[track_caller]
pub fn conv2d(x: &Var, weight: &Var, geometry: Geometry) -> Result<Var> {
    apply_one(Conv2d(geometry), &[x, weight])
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "weight"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        let shape = kernel::output_shape(&inputs[0].shape, &inputs[1].shape, self.0)?;
        Ok(vec![inputs[0].with_shape(&shape)])
    }

    /// Saves the weight if the gradient of x is needed, then x if that of the weight is.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (x, weight) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        if save.needs(0) {
            save.save(&weight);
        }
        if save.needs(1) {
            save.save(&x);
        }
        Ok(vec![kernel::forward(&x, &weight, self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let dx = at.when(0, || kernel::input_gradient(&dy, &at.saved[0], &at.inputs[0].shape, self.0))?;
        let dweight = at.when(1, || {
            let x = &at.saved[usize::from(at.needs[0])];
            kernel::weight_gradient(x, &dy, &at.inputs[1].shape, self.0)
        })?;
        Ok(vec![dx, dweight])
    }
}

impl Reference for Conv2d {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let Geometry { stride, padding, dilation, groups } = self.0;
        let &[n, h, w, _] = &x.shape[..] else { return Vec::new() };
        let &[o, r, s, inner] = &weight.shape[..] else { return Vec::new() };
        let places = |size: usize, kernel: usize| (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        let (p, q) = (places(h, r), places(w, s));
        let mut y = Array::zeros(&[n, p, q, o]);
        for at in 0..y.len() {
            let (k, j, i, b) = (at % o, at / o % q, at / o / q % p, at / o / q / p);
            let mut sum = T::ZERO;
            for (u, v) in (0..r).flat_map(|u| (0..s).map(move |v| (u, v))) {
                let at = |i: usize, u: usize| (i * stride + u * dilation).wrapping_sub(padding);
                let (row, column) = (at(i, u), at(j, v));
                if row < h && column < w {
                    let first = k / (o / groups) * inner;
                    for c in 0..inner {
                        sum += x.get(&[b, row, column, first + c]) * weight.get(&[k, u, v, c]);
                    }
                }
            }
            y.data[at] = sum;
        }
        vec![y]
    }
}

/// Cases of the operation's checks: 1x1, 3x3 and 7x7 kernels, strides that do not divide, wide padding, dilation, groups.
pub(crate) fn cases() -> Vec<Case> {
    [
        ([1, 1, 1, 1], [1, 1, 1], 1, 0),
        ([1, 3, 4, 2], [2, 2, 2], 1, 0),
        ([2, 3, 3, 1], [2, 3, 3], 2, 1),
        ([2, 2, 2, 2], [2, 1, 1], 1, 0),
        ([1, 5, 4, 1], [3, 3, 2], 3, 1),
        ([2, 7, 6, 3], [5, 3, 3], 1, 1),
        ([2, 8, 9, 3], [4, 3, 3], 2, 1),
        ([1, 9, 9, 3], [4, 7, 7], 2, 3),
        ([3, 5, 5, 8], [17, 1, 1], 2, 0),
        ([2, 6, 6, 16], [16, 3, 3], 1, 1),
    ]
    .into_iter()
    .map(|(input, kernel, stride, padding)| (input, kernel, Geometry::new(stride, padding)))
    .chain([
        ([1, 5, 4, 2], [3, 3, 2], Geometry { dilation: 2, ..Geometry::new(1, 1) }),
        ([2, 7, 8, 8], [4, 3, 3], Geometry { dilation: 3, ..Geometry::new(1, 3) }),
        ([1, 5, 4, 4], [6, 3, 2], Geometry::new(2, 1).in_groups(2)),
        ([1, 4, 5, 16], [16, 3, 3], Geometry::new(1, 1).in_groups(2)),
        ([2, 5, 4, 3], [6, 3, 3], Geometry::new(1, 1).in_groups(3)),
        ([1, 6, 5, 8], [8, 3, 3], Geometry::new(2, 1).in_groups(8)),
    ])
    .map(|(input, [o, r, s], geometry)| {
        let Geometry { stride, padding, dilation, groups } = geometry;
        let weight = Input::random(&[o, r, s, input[3] / groups], 72, 0.3);
        let inputs = vec![Input::random(&input, 71, 1.0), weight];
        let label =
            format!("{input:?} with {o} of {r}x{s} stride {stride} padding {padding} dilation {dilation} groups {groups}");
        Case { gradient_factor: 3.0, ..Case::new(label, Conv2d(geometry), inputs) }
    })
    .collect()
}
