//! `conv_transpose2d`: transposed convolution, channels last: the map that takes a convolution's gradient back to its input.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Error, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::conv2d::{self as kernel, Geometry};
use kernels::copy::contiguous;

/// The operation of [`conv_transpose2d`]: stride, padding and dilation of the convolution that it transposes.
#[derive(Clone)]
pub struct ConvTranspose2d(pub Geometry);

/// Transposed convolution of images [N, H, W, I] with kernels [I, R, S, O] ->
/// [N, (H - 1) stride - 2 padding + dilation (R - 1) + 1, .., O].
///
/// It is the transpose of `conv2d` from [N, .., .., O] to [N, H, W, I] with the same kernels and geometry.
#[track_caller]
pub fn conv_transpose2d(x: &Var, weight: &Var, geometry: Geometry) -> Result<Var> {
    apply_one(ConvTranspose2d(geometry), &[x, weight])
}

impl ConvTranspose2d {
    /// The shape of the result.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<[usize; 4]> {
        let Geometry { stride, padding, .. } = self.0;
        let wrong = |rule: &str| {
            let error = Error::shape("conv_transpose2d", rule);
            Err(error.with("x", inputs[0]).with("weight", inputs[1]).with("geometry", self.0))
        };
        if self.0.groups != 1 {
            return wrong("groups are not supported here: transpose each group by itself");
        }
        let (&[n, h, w, channels], &[i, r, s, o]) = (inputs[0], inputs[1]) else {
            return wrong("x must be [N, H, W, I] and the weight [I, R, S, O]");
        };
        if channels != i {
            return wrong("x and weight must have equally many input channels");
        }
        let size = |n: usize, kernel: usize| ((n.max(1) - 1) * stride + self.0.reach(kernel)).saturating_sub(2 * padding);
        let (height, width) = (size(h, r), size(w, s));
        if stride == 0 || h == 0 || w == 0 || height == 0 || width == 0 {
            return wrong("the stride must be at least 1, and neither images nor results empty");
        }
        // Without this the convolution of the result would not give back the size of x.
        kernel::output_shape(&[n, height, width, o], inputs[1], self.0)?;
        Ok([n, height, width, o])
    }
}

impl Op for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "weight"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 2)?;
        let shape = self.output_shape(&[&inputs[0].shape, &inputs[1].shape])?;
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
        let shape = self.output_shape(&[x.shape(), weight.shape()])?;
        Ok(vec![kernel::input_gradient(&x, &weight, &shape, self.0)?])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let dx = at.when(0, || kernel::forward(&dy, &at.saved[0], self.0))?;
        let dweight = at.when(1, || {
            let x = &at.saved[usize::from(at.needs[0])];
            kernel::weight_gradient(&dy, x, &at.inputs[1].shape, self.0)
        })?;
        Ok(vec![dx, dweight])
    }
}

impl Reference for ConvTranspose2d {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let Geometry { stride, padding, dilation, .. } = self.0;
        let &[n, h, w, channels] = &x.shape[..] else { return Vec::new() };
        let &[_, r, s, o] = &weight.shape[..] else { return Vec::new() };
        let size = |n: usize, kernel: usize| (n - 1) * stride + dilation * (kernel - 1) + 1 - 2 * padding;
        let (height, width) = (size(h, r), size(w, s));
        let mut y = Array::zeros(&[n, height, width, o]);
        // Every pixel paints its kernel.
        for (b, i, j) in (0..n).flat_map(|b| (0..h).flat_map(move |i| (0..w).map(move |j| (b, i, j)))) {
            for (u, v) in (0..r).flat_map(|u| (0..s).map(move |v| (u, v))) {
                let row = (i * stride + u * dilation).wrapping_sub(padding);
                let column = (j * stride + v * dilation).wrapping_sub(padding);
                if row >= height || column >= width {
                    continue;
                }
                for k in 0..o {
                    let at = y.at(&[b, row, column, k]);
                    for c in 0..channels {
                        y.data[at] += x.get(&[b, i, j, c]) * weight.get(&[c, u, v, k]);
                    }
                }
            }
        }
        vec![y]
    }
}

/// Cases of the operation's checks: kernels that overlap and that leave gaps, padding, dilation, one pixel.
pub(crate) fn cases() -> Vec<Case> {
    [
        ([1, 1, 1, 1], [1, 1, 1], 1, 0),
        ([1, 2, 3, 2], [2, 2, 2], 2, 0),
        ([2, 3, 2, 3], [4, 4, 2], 2, 1),
        ([1, 3, 3, 2], [3, 3, 3], 1, 1),
        ([2, 2, 3, 4], [1, 1, 3], 3, 0),
        ([1, 4, 4, 8], [4, 4, 17], 2, 1),
        ([2, 5, 3, 16], [3, 3, 5], 2, 1),
    ]
    .into_iter()
    .map(|(input, kernel, stride, padding)| (input, kernel, Geometry::new(stride, padding)))
    .chain([([2, 3, 4, 3], [3, 2, 4], Geometry { dilation: 2, ..Geometry::new(1, 1) })])
    .map(|(input, [r, s, o], geometry)| {
        let inputs = vec![Input::random(&input, 73, 1.0), Input::random(&[input[3], r, s, o], 74, 0.3)];
        let Geometry { stride, padding, dilation, .. } = geometry;
        let label = format!(
            "{input:?} with {r}x{s} to {o}, stride {stride} padding {padding} dilation {dilation}"
        );
        Case { gradient_factor: 3.0, ..Case::new(label, ConvTranspose2d(geometry), inputs) }
    })
    .collect()
}
