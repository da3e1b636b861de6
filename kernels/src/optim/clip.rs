//! Norms of gradients, and clipping by them: of all parameters together, of groups, or of each by itself.

use super::{cpu, norms_cuda};
use crate::cuda::require_float;
use engine::device::common;
use engine::{DType, Device, Error, Result, Tensor, memory};

/// Which gradients a norm is taken of when gradients are clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Of all together.
    Global,
    /// Of each group of parameters, as DINOv2 does with the parts of its network.
    Group,
    /// Of each parameter, as DINO does.
    Parameter,
}

/// Gradients whose norm is above a limit are scaled down to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The largest norm.
    pub limit: f32,
    /// Of what.
    pub scope: Scope,
}

impl Clip {
    /// The norm of all gradients together.
    pub fn global(limit: f32) -> Clip {
        Clip { limit, scope: Scope::Global }
    }

    /// The norm of each group.
    pub fn group(limit: f32) -> Clip {
        Clip { limit, scope: Scope::Group }
    }

    /// The norm of each parameter.
    pub fn parameter(limit: f32) -> Clip {
        Clip { limit, scope: Scope::Parameter }
    }
}

/// What [`clip_scales`] finds.
#[derive(Debug)]
pub struct Clipped {
    /// Norm of all gradients together, before they are clipped: f32 [1].
    pub norm: Tensor,
    /// What each gradient is multiplied by ([`super::Step::gradient_scales`]): f32, one a gradient.
    pub scales: Tensor,
}

/// The gradients in an order in which those whose norm is one lie side by side, and how many each norm is of.
pub(super) struct Sets {
    /// Places of gradients; those of one set keep their order.
    pub(super) order: Vec<usize>,
    /// Gradients of each set, in that order.
    pub(super) counts: Vec<usize>,
}

impl Sets {
    /// One set of all.
    pub(super) fn one(n: usize) -> Sets {
        Sets { order: (0..n).collect(), counts: vec![n] }
    }

    fn of(n: usize, groups: &[u32], scope: Scope) -> Sets {
        match scope {
            Scope::Global => Sets::one(n),
            Scope::Parameter => Sets { order: (0..n).collect(), counts: vec![1; n] },
            Scope::Group => {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by_key(|&i| groups[i]);
                let counts = order.chunk_by(|&a, &b| groups[a] == groups[b]).map(<[usize]>::len).collect();
                Sets { order, counts }
            }
        }
    }
}

/// The device of all gradients, f32 or (on CUDA devices) bf16. There is at least one.
#[track_caller]
fn checked(name: &str, gradients: &[&Tensor]) -> Result<Device> {
    for gradient in gradients {
        require_float(name, "gradient", gradient)?;
    }
    common(name, &vec!["gradient"; gradients.len()], gradients)
}

/// min(1, limit / (norm + 1e-6)), as PyTorch's `clip_grad_norm_`. A norm that is not a number clips nothing.
fn scale(norm: f32, limit: f32) -> f32 {
    (limit / (norm + 1e-6)).min(1.0)
}

/// Euclidean norm of all gradients together: f32 [1] on their device; zero, on the CPU, for none. Gradients are f32, on
/// CUDA devices f32 or bf16.
#[track_caller]
pub fn global_norm(gradients: &[&Tensor]) -> Result<Tensor> {
    let name = "global_norm";
    let _op = memory::operation(name);
    if gradients.is_empty() {
        return Tensor::zeros(&[1], DType::F32, Device::Cpu);
    }
    match checked(name, gradients)? {
        Device::Cuda(ordinal) => norms_cuda::global_norm(name, ordinal, gradients),
        Device::Cpu => {
            let sum: f64 = cpu::squares(gradients)?.iter().sum();
            Tensor::from_slice(&[sum.sqrt() as f32], &[1])
        }
    }
}

/// What gradients are multiplied by so that their norms are at most a limit: min(1, limit / (norm + 1e-6)), as PyTorch's
/// `clip_grad_norm_`, with the norm of what [`Scope`] says. A norm that is not a number clips nothing.
///
/// Gradients are f32, on CUDA devices f32 or bf16. `groups` has a group for each of them, any numbers; it is read under
/// [`Scope::Group`] alone. Both results lie on the gradients' device, on the CPU for none.
///
/// Errors if the limit is not positive, if there is not a group for each gradient, and if gradients lie on different
/// devices.
#[track_caller]
pub fn clip_scales(gradients: &[&Tensor], groups: &[u32], clip: Clip) -> Result<Clipped> {
    let name = "clip_scales";
    let _op = memory::operation(name);
    if clip.limit.is_nan() || clip.limit <= 0.0 {
        return Err(Error::value(name, "the limit must be above 0").with("limit", clip.limit));
    }
    if clip.scope == Scope::Group && groups.len() != gradients.len() {
        let text = format!("{} gradients need a group each, not {}", gradients.len(), groups.len());
        return Err(Error::value(name, text));
    }
    if gradients.is_empty() {
        let none = |n| Tensor::zeros(&[n], DType::F32, Device::Cpu);
        return Ok(Clipped { norm: none(1)?, scales: none(0)? });
    }
    let sets = Sets::of(gradients.len(), groups, clip.scope);
    match checked(name, gradients)? {
        Device::Cuda(ordinal) => {
            let (norm, scales) = norms_cuda::clip_scales(name, ordinal, gradients, &sets, clip.limit)?;
            Ok(Clipped { norm, scales })
        }
        Device::Cpu => {
            let squares = cpu::squares(gradients)?;
            let mut scales = vec![0.0; gradients.len()];
            let mut rest = &sets.order[..];
            for &count in &sets.counts {
                let (set, others) = rest.split_at(count);
                rest = others;
                let sum: f64 = set.iter().map(|&i| squares[i]).sum();
                let scale = scale(sum.sqrt() as f32, clip.limit);
                set.iter().for_each(|&i| scales[i] = scale);
            }
            let sum: f64 = squares.iter().sum();
            Ok(Clipped {
                norm: Tensor::from_slice(&[sum.sqrt() as f32], &[1])?,
                scales: Tensor::from_slice(&scales, &[scales.len()])?,
            })
        }
    }
}
