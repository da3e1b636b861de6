//! The updates of one chunk, and sums of squares: plain loops, vectorised at every width with the same bits.

use crate::multiversion;
use half::bf16;

/// Factors of an SGD update: u = g scale + decay w; v = momentum v + u; w -= rate v, or rate (u + momentum v).
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    pub scale: f32,
    pub decay: f32,
    pub rate: f32,
    pub momentum: f32,
    pub nesterov: bool,
    /// Whether the buffer is replaced by u.
    pub fresh: bool,
}

multiversion! {
    /// SGD with these factors.
    pub(super) fn sgd(w: &mut [f32], g: &[f32], v: &mut [f32], s: Sgd) {
        // At the first step the old buffer does not matter, even if it is NaN.
        if s.fresh {
            v.fill(0.0);
        }
        if s.nesterov {
            for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
                let u = g * s.scale + s.decay * *w;
                *v = s.momentum * *v + u;
                *w -= s.rate * (u + s.momentum * *v);
            }
        } else {
            for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
                let u = g * s.scale + s.decay * *w;
                *v = s.momentum * *v + u;
                *w -= s.rate * *v;
            }
        }
    }
}

/// Factors of a LARS update: u = g scale + decay w; v = momentum v + inside u; w -= outside v.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaled {
    pub scale: f32,
    pub decay: f32,
    pub momentum: f32,
    pub inside: f32,
    pub outside: f32,
}

multiversion! {
    /// Momentum with these factors.
    pub(super) fn scaled(w: &mut [f32], g: &[f32], v: &mut [f32], s: Scaled) {
        for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
            let u = g * s.scale + s.decay * *w;
            *v = s.momentum * *v + s.inside * u;
            *w -= s.outside * *v;
        }
    }
}

/// Factors of an AdamW update: m and v are moving averages of g scale and its square;
/// w = keep w - rate m / (sqrt(v) root + eps).
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub scale: f32,
    pub betas: (f32, f32),
    /// 1 - beta of each, rounded once.
    pub rest: (f32, f32),
    pub keep: f32,
    pub rate: f32,
    /// 1 / sqrt(1 - beta2^step)
    pub root: f32,
    pub eps: f32,
}

multiversion! {
    /// AdamW with these factors.
    pub(super) fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: Moments) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * s.scale;
            *m = s.betas.0 * *m + s.rest.0 * g;
            *v = s.betas.1 * *v + s.rest.1 * (g * g);
            *w = s.keep * *w - s.rate * (*m / (v.sqrt() * s.root + s.eps));
        }
    }
}

multiversion! {
    /// target = decay target + rest online.
    pub(super) fn ema(target: &mut [f32], online: &[f32], decay: f32, rest: f32) {
        for (t, &o) in target.iter_mut().zip(online) {
            *t = decay * *t + rest * o;
        }
    }
}

/// The values in bf16, rounded to nearest.
pub(super) fn low(value: &[f32], low: &mut [bf16]) {
    for (low, &value) in low.iter_mut().zip(value) {
        *low = bf16::from_f32(value);
    }
}

/// Partial sums side by side.
const LANES: usize = 16;

multiversion! {
    /// Sum of squares, in f64: |g| = 1e30 does not overflow.
    pub(super) fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        for block in blocks {
            for (s, &x) in lanes.iter_mut().zip(block) {
                *s += f64::from(x) * f64::from(x);
            }
        }
        for (s, &x) in lanes.iter_mut().zip(rest) {
            *s += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

multiversion! {
    /// Sums of w^2 and of (g scale + decay w)^2.
    pub(super) fn squares_of_both(w: &[f32], g: &[f32], scale: f32, decay: f32) -> (f64, f64) {
        let (mut a, mut b) = ([0f64; LANES], [0f64; LANES]);
        for (w, g) in w.chunks(LANES).zip(g.chunks(LANES)) {
            for (((a, b), &w), &g) in a.iter_mut().zip(b.iter_mut()).zip(w).zip(g) {
                let u = f64::from(g * scale + decay * w);
                *a += f64::from(w) * f64::from(w);
                *b += u * u;
            }
        }
        (a.iter().sum(), b.iter().sum())
    }
}
