//! Convolution of an input that is batch-normalised and rectified on the way, so that it is never stored: `x` is what the
//! convolution before it left, and `map` what [`crate::norm::batch_statistics`] made of its channels.
//!
//! On CUDA devices, for bf16 that tensor cores take, the kernels compute `relu(normalised(x))`, rounded to bf16, where their
//! operands lie in shared memory; results have the bits of the two steps one by one. Everywhere else it is those steps.

use super::mma::{self, Beside, Pass, applies};
use super::{Geometry, Sizes, forward_with_sums, weight_gradient};
use crate::norm::{TileSums, batch_map, require_map};
use engine::{Device, Result, Tensor, memory};

/// Whether forward pass and weight gradient normalise x on the way: in kernels of one element. Larger ones would normalise
/// each x once for every element, which by the instructions that it takes costs more than the pass that it saves. Where
/// they do not, it is better to keep `relu(normalised(x))`, which [`crate::norm::batch_map`] gives, than to make it twice.
pub fn takes_map(x: &Tensor, weight: &Tensor, g: Geometry) -> bool {
    let on_device = matches!(x.device(), Device::Cuda(_)) && x.is_contiguous() && weight.is_contiguous();
    Sizes::new("conv2d", x.shape(), weight.shape(), g).is_ok_and(|z| {
        let passes = [Pass::Forward, Pass::WeightGradient];
        on_device
            && z.groups == 1
            && z.r * z.s == 1
            && passes.into_iter().all(|pass| applies(&z, pass, [x, weight]))
    })
}

/// The convolution of `relu(normalised(x))`, and sums of its channels where the kernel leaves them; see
/// [`forward_with_sums`]. x `[N, H, W, C]`, map as for [`batch_map`], weight `[O, R, S, C]`.
#[track_caller]
pub fn forward_of_map(
    x: &Tensor,
    map: &Tensor,
    weight: &Tensor,
    g: Geometry,
) -> Result<(Tensor, Option<TileSums>)> {
    let name = "conv2d";
    if !takes_map(x, weight, g) {
        return forward_with_sums(&batch_map(x, map, None, true)?, weight, g);
    }
    let _op = memory::operation(name);
    let (z, mut y) = super::result(x, weight, g)?;
    require_map(name, map, z.c)?;
    let tile = mma::tile(x.device(), &z, Pass::Forward);
    let sums = mma::forward_with_sums(name, tile, &z, [x, weight], Some(map), &mut y)?;
    Ok((y, Some(sums)))
}

/// The gradient with respect to the weights of [`forward_of_map`]: dy `[N, P, Q, O]`, result `weight_shape`.
#[track_caller]
pub fn weight_gradient_of_map(
    x: &Tensor,
    map: &Tensor,
    dy: &Tensor,
    weight_shape: &[usize],
    g: Geometry,
) -> Result<Tensor> {
    let name = "conv2d_wgrad";
    let on_device = matches!(x.device(), Device::Cuda(_)) && x.is_contiguous() && dy.is_contiguous();
    let z = Sizes::new(name, x.shape(), weight_shape, g)?;
    if !on_device || z.groups > 1 || !applies(&z, Pass::WeightGradient, [x, dy]) {
        return weight_gradient(&batch_map(x, map, None, true)?, dy, weight_shape, g);
    }
    let _op = memory::operation(name);
    require_map(name, map, z.c)?;
    dy.require_shape(name, "dy", &z.output())?;
    engine::device::common(name, &["x", "map", "dy"], &[x, map, dy])?;
    let mut dw = Tensor::empty(weight_shape, x.dtype(), x.device())?;
    let tile = mma::tile(x.device(), &z, Pass::WeightGradient);
    mma::launch(
        name,
        tile,
        &z,
        Pass::WeightGradient,
        [x, dy],
        &mut dw,
        Beside { sums: None, map: Some(map) },
    )?;
    Ok(dw)
}
