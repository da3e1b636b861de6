//! Each update as written in its paper or in the code it is named after, one parameter at a time.

use super::LarsVariant;
use crate::array::Real;

/// One parameter and its state.
#[derive(Debug, Clone)]
pub struct State<T> {
    /// The parameter.
    pub w: Vec<T>,
    /// Momentum or first moment.
    pub first: Vec<T>,
    /// Second moment.
    pub second: Vec<T>,
    /// Weight decay.
    pub decay: T,
    /// Learning rate of this parameter.
    pub rate: T,
    /// Whether the trust ratio applies.
    pub adapt: bool,
}

/// PyTorch's SGD.
pub fn sgd<T: Real>(s: &mut State<T>, g: &[T], momentum: T, nesterov: bool, first_step: bool) {
    for i in 0..s.w.len() {
        let u = g[i] + s.decay * s.w[i];
        s.first[i] = if first_step { u } else { momentum * s.first[i] + u };
        let step = if nesterov { u + momentum * s.first[i] } else { s.first[i] };
        s.w[i] = s.w[i] - s.rate * step;
    }
}

fn norm<T: Real>(x: &[T]) -> T {
    let mut sum = T::ZERO;
    for &x in x {
        sum += x * x;
    }
    sum.sqrt()
}

/// The three LARS of [`LarsVariant`].
pub fn lars<T: Real>(s: &mut State<T>, g: &[T], momentum: T, trust: T, variant: LarsVariant) {
    let decayed: Vec<T> = g.iter().zip(&s.w).map(|(&g, &w)| g + s.decay * w).collect();
    let w = norm(&s.w);
    let (mut u, mut ratio) = (decayed.clone(), T::ONE);
    match variant {
        LarsVariant::Simclr | LarsVariant::Byol => {
            let n = norm(&decayed);
            if s.adapt && w > T::ZERO && n > T::ZERO {
                ratio = trust * w / n;
            }
        }
        LarsVariant::Lightly => {
            let n = norm(g);
            if s.adapt && s.decay != T::ZERO {
                if w != T::ZERO && n != T::ZERO {
                    ratio = trust * w / (n + s.decay * w + T::of(1e-8));
                } else {
                    u = g.to_vec();
                }
            }
        }
    }
    for i in 0..s.w.len() {
        let inside = if variant == LarsVariant::Simclr { s.rate } else { T::ONE };
        let outside = if variant == LarsVariant::Simclr { T::ONE } else { s.rate };
        s.first[i] = momentum * s.first[i] + inside * ratio * u[i];
        s.w[i] = s.w[i] - outside * s.first[i];
    }
}

/// PyTorch's AdamW. The powers of the betas are taken in f64 whatever the precision.
pub fn adamw<T: Real>(s: &mut State<T>, g: &[T], betas: (T, T), eps: T, step: u64) {
    let correction = |beta: T| T::of(1.0 - beta.get().powf(step as f64));
    for i in 0..s.w.len() {
        s.w[i] = s.w[i] * (T::ONE - s.rate * s.decay);
        s.first[i] = betas.0 * s.first[i] + (T::ONE - betas.0) * g[i];
        s.second[i] = betas.1 * s.second[i] + (T::ONE - betas.1) * g[i] * g[i];
        let root = s.second[i].sqrt() / correction(betas.1).sqrt() + eps;
        s.w[i] = s.w[i] - s.rate * (s.first[i] / correction(betas.0)) / root;
    }
}

/// Moving average.
pub fn ema<T: Real>(target: &mut [T], online: &[T], decay: T) {
    for (t, &o) in target.iter_mut().zip(online) {
        *t = decay * *t + (T::ONE - decay) * o;
    }
}

/// Norm of all arrays together.
pub fn global_norm<T: Real>(gradients: &[Vec<T>]) -> T {
    norm(&gradients.concat())
}
