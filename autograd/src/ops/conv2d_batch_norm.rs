//! `conv2d_batch_norm`: a convolution and the batch normalisation behind it (He et al. 2016, section 3.3), with a residual
//! and a ReLU. As one operation, so that a device can sum the channels where the convolution ends; results are those of
//! `conv2d` and `batch_norm`.

use super::batch_norm::{BatchNorm, BatchNormOutput, around, normalise, statistics};
use super::check::{arity, element_type, floats, shape};
use super::conv2d::{Conv2d, Geometry};
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply};
use crate::{Op, Spec, Var};
use engine::{DType, Error, ErrorKind, Result, Tensor};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::{conv2d, norm};

/// The operation of [`conv2d_batch_norm`].
#[derive(Clone)]
pub struct Conv2dBatchNorm {
    geometry: Geometry,
    settings: BatchNorm,
    residual: bool,
}

/// `relu?(normalised(conv2d(x, weight)) * scale + shift + residual)` with the statistics of this batch.
///
/// x [N, H, W, I], weight [O, R, S, I] -> [N, P, Q, O], which is the residual's shape too; scale and shift [O] of f32.
#[track_caller]
pub fn conv2d_batch_norm(
    x: &Var,
    weight: &Var,
    affine: [&Var; 2],
    residual: Option<&Var>,
    geometry: Geometry,
    settings: BatchNorm,
) -> Result<BatchNormOutput> {
    let op = Conv2dBatchNorm { geometry, settings, residual: residual.is_some() };
    let inputs: Vec<&Var> = [x, weight, affine[0], affine[1]].into_iter().chain(residual).collect();
    match <[Var; 3]>::try_from(apply(op, &inputs)?) {
        Ok([y, mean, variance]) => {
            Ok(BatchNormOutput { y, mean: mean.into_value(), variance: variance.into_value() })
        }
        Err(_) => Err(Error::new(ErrorKind::Graph, "conv2d_batch_norm", "does not have three outputs")),
    }
}

impl Op for Conv2dBatchNorm {
    fn name(&self) -> &'static str {
        "conv2d_batch_norm"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x", "weight", "scale", "shift", "residual"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        arity(self, inputs, 4 + usize::from(self.residual))?;
        floats(self, &inputs[..2], 2)?;
        let y = conv2d::output_shape(&inputs[0].shape, &inputs[1].shape, self.geometry)?;
        for (i, input) in inputs.iter().enumerate().take(4).skip(2) {
            element_type(self, i, input, DType::F32)?;
            shape(self, i, input, &y[3..], "one value an output channel [O]")?;
        }
        if let Some(residual) = inputs.get(4) {
            element_type(self, 4, residual, inputs[0].dtype)?;
            shape(self, 4, residual, &y, "of the result's shape")?;
        }
        let channels = Spec::f32(&y[3..]);
        Ok(vec![inputs[0].with_shape(&y), channels.clone(), channels])
    }

    /// Saves the convolution's result, its statistics, the scale, the result if there is a ReLU; then the weight if the
    /// gradient of x is needed, then x if that of the weight is.
    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let inputs = inputs.iter().map(|x| contiguous(x)).collect::<Result<Vec<_>>>()?;
        let [x, weight, scale, shift] = [0, 1, 2, 3].map(|i| &inputs[i]);
        let BatchNorm { relu, eps } = self.settings;
        let (convolved, sums) = conv2d::forward_with_sums(x, weight, self.geometry)?;
        let residual = inputs.get(4);
        let out =
            norm::batch_forward_of(&convolved, sums.as_ref(), Some(scale), Some(shift), residual, relu, eps)?;
        for tensor in [&convolved, &out.mean, &out.variance, scale] {
            save.save(tensor);
        }
        if relu {
            save.save(&out.y);
        }
        for (input, tensor) in [(0, weight), (1, x)] {
            if save.needs(input) {
                save.save(tensor);
            }
        }
        Ok(vec![out.y, out.mean, out.variance])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let BatchNorm { relu, eps } = self.settings;
        let mut saved = at.saved.iter();
        let mut take = |there: bool| if there { saved.next() } else { None };
        let [Some(convolved), Some(mean), Some(variance), Some(scale)] = [(); 4].map(|()| take(true)) else {
            return Err(Error::new(ErrorKind::Graph, self.name(), "the forward pass has saved too little"));
        };
        let y = take(relu);
        let (weight, x) = (take(at.needs[0]), take(at.needs[1]));
        let wants_residual = at.needs.get(4) == Some(&true);
        let (scale, weight_shape) = (Some(scale), &at.inputs[1].shape);
        let back =
            norm::batch_backward(&dy, convolved, y, mean, variance, scale, relu, wants_residual, true, eps)?;
        let dx = weight.map(|w| conv2d::input_gradient(&back.dx, w, &at.inputs[0].shape, self.geometry));
        let dweight = x.map(|x| conv2d::weight_gradient(x, &back.dx, weight_shape, self.geometry));
        let mut all = vec![
            dx.transpose()?,
            dweight.transpose()?,
            Some(back.dweight).filter(|_| at.needs[2]),
            Some(back.dbias).filter(|_| at.needs[3]),
        ];
        if self.residual {
            all.push(back.dresidual);
        }
        Ok(all)
    }

    fn is_differentiable(&self, output: usize) -> bool {
        output == 0
    }
}

impl Reference for Conv2dBatchNorm {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let convolved = Conv2d(self.geometry).reference(&inputs[..2]);
        let (mean, variance) = statistics(&convolved[0]);
        let channels = [mean.len()];
        let normal: Vec<Array<T>> = convolved.into_iter().chain(inputs[2..].iter().cloned()).collect();
        let positions = [Some(1), Some(2), self.residual.then_some(3)];
        let y = normalise(&normal, self.settings, positions, &mean, &variance);
        vec![y, Array::new(&channels, mean), Array::new(&channels, variance)]
    }
}

/// Cases of the operation's checks: what tensor cores take (whole packs of channels) and what they do not, one pixel to
/// one pixel, strides, dilation; with and without a residual and a ReLU.
pub(crate) fn cases() -> Vec<Case> {
    let dilated = Geometry { stride: 1, padding: 2, dilation: 2 };
    [
        ([2, 3, 4, 2], [3, 2, 2], Geometry::new(1, 0), false, false),
        ([2, 5, 4, 3], [4, 3, 3], Geometry::new(2, 1), true, true),
        ([2, 4, 4, 2], [5, 3, 3], dilated, false, true),
        ([2, 4, 5, 8], [8, 3, 3], Geometry::new(1, 1), false, true),
        ([2, 5, 5, 8], [16, 3, 3], Geometry::new(2, 1), true, false),
        ([3, 4, 4, 16], [24, 1, 1], Geometry::new(1, 0), true, true),
        ([2, 6, 6, 8], [64, 2, 2], Geometry::new(1, 0), false, false),
    ]
    .into_iter()
    .map(|(input, [o, r, s], geometry, residual, relu)| {
        let op = Conv2dBatchNorm { geometry, settings: BatchNorm { relu, eps: 1e-5 }, residual };
        let weight = [o, r, s, input[3]];
        let mut inputs = vec![
            Input::random(&input, 151, 1.0),
            Input::random(&weight, 152, 0.3),
            Input::new(around(&[o], 153, 1.0, 0.5)).in_f32(),
            Input::random(&[o], 154, 0.5).in_f32(),
        ];
        if let (true, Ok(shape)) = (residual, conv2d::output_shape(&input, &weight, geometry)) {
            inputs.push(Input::random(&shape, 155, 1.0));
        }
        let label = format!("{input:?} with {weight:?}, {geometry:?}, residual, relu: {residual}, {relu}");
        Case { gradient_factor: 3.0, ..Case::new(label, op, inputs) }
    })
    .collect()
}
