//! Momentum encoders: networks that follow others as a moving average of their parameters.
//!
//! Parameters alone follow (He et al. 2020, eq. 2): batch-norm statistics of the follower are its own, because it sees its
//! batches in training mode, as in the reference code of MoCo, MoCo v3, BYOL and DINO.

use autograd::{Module, Param, Var, module};
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::optim::{self, Scalar};
use std::collections::BTreeMap;

/// `target = momentum target + (1 - momentum) online` for every parameter of `target`, in place, in one launch.
///
/// `momentum` is f32 \[1\] on their device. Errors if a parameter of the target has no counterpart of its name online.
#[track_caller]
pub fn follow(target: &mut dyn Module, online: &mut dyn Module, momentum: &Tensor) -> Result<()> {
    let mut sources: BTreeMap<String, &mut Param> = module::parts(online).params.into_iter().collect();
    let targets = module::parts(target).params;
    let mut pairs = Vec::with_capacity(targets.len());
    for (name, param) in targets {
        let Some(source) = sources.remove(&name).map(|p| &*p) else {
            let text = format!("the target's {name} has no counterpart in the network that it follows");
            return Err(Error::value("momentum encoder", text));
        };
        pairs.push((param, source));
    }
    let mut slots: Vec<optim::Follower> = pairs
        .iter_mut()
        .map(|(param, source)| {
            let (target, low) = param.parts_mut();
            optim::Follower { target, low, online: source.value() }
        })
        .collect();
    optim::ema(&mut slots, Scalar::Tensor(momentum))
}

/// The value of what a target computed; an error if a gradient could flow into it.
#[track_caller]
pub fn without_history(method: &str, x: Var) -> Result<Var> {
    match x.has_history() {
        false => Ok(x),
        true => Err(Error::new(
            ErrorKind::Graph,
            method,
            "a gradient would flow into the target network: compute it under no_grad",
        )),
    }
}
