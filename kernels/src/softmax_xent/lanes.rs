//! The vectorised loops over one piece of a row: sums kept in fixed lanes, so every vector width and every
//! run gives the same bits.

use crate::math::exp;
use crate::multiversion;

/// Partial sums side by side: one vector of 512 bits.
const LANES: usize = 16;
/// Partial maxima side by side: comparing has latency and little else to hide it.
const WIDE: usize = 64;

/// Sums over soft targets t with shifted logits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Soft {
    /// Sum of t.
    pub weight: f64,
    /// Sum of t (x - shift), where t = 0 adds zero whatever x is.
    pub product: f64,
}

multiversion! {
    /// Largest element, minus infinity for none. NaN is passed over here: it shows in the sum.
    pub(crate) fn maximum(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; WIDE];
        let (blocks, rest) = x.as_chunks::<WIDE>();
        for block in blocks {
            for (m, &v) in lanes.iter_mut().zip(block) {
                *m = if v > *m { v } else { *m };
            }
        }
        for (m, &v) in lanes.iter_mut().zip(rest) {
            *m = if v > *m { v } else { *m };
        }
        lanes.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    }
}

multiversion! {
    /// Sum of exp((x - shift) scale), in f64: a loss near zero is the logarithm of 1 and many small terms.
    pub(crate) fn exp_sum(x: &[f32], shift: f32, scale: f32) -> f64 {
        let mut lanes = [0f64; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        for block in blocks {
            for (s, &v) in lanes.iter_mut().zip(block) {
                *s += f64::from(exp((v - shift) * scale));
            }
        }
        for (s, &v) in lanes.iter_mut().zip(rest) {
            *s += f64::from(exp((v - shift) * scale));
        }
        lanes.iter().sum()
    }
}

multiversion! {
    /// Sum of x - shift.
    pub(crate) fn shifted_sum(x: &[f32], shift: f32) -> f64 {
        let mut lanes = [0f64; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        for block in blocks {
            for (s, &v) in lanes.iter_mut().zip(block) {
                *s += f64::from(v) - f64::from(shift);
            }
        }
        for (s, &v) in lanes.iter_mut().zip(rest) {
            *s += f64::from(v) - f64::from(shift);
        }
        lanes.iter().sum()
    }
}

multiversion! {
    /// The sums of [`Soft`].
    pub(crate) fn soft_sum(x: &[f32], t: &[f32], shift: f32) -> Soft {
        let (mut weight, mut product) = ([0f64; LANES], [0f64; LANES]);
        for (x, t) in x.chunks(LANES).zip(t.chunks(LANES)) {
            for (((w, p), &x), &t) in weight.iter_mut().zip(product.iter_mut()).zip(x).zip(t) {
                let t = f64::from(t);
                let term = t * (f64::from(x) - f64::from(shift));
                *w += t;
                *p += if t == 0.0 { 0.0 } else { term };
            }
        }
        Soft { weight: weight.iter().sum(), product: product.iter().sum() }
    }
}

multiversion! {
    /// y = (exp(x - shift) scale - even) factor.
    pub(crate) fn exp_scaled(x: &[f32], shift: f32, scale: f32, even: f32, factor: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (exp(x - shift) * scale - even) * factor;
        }
    }
}

multiversion! {
    /// y -= t factor.
    pub(crate) fn subtract_soft(t: &[f32], factor: f32, y: &mut [f32]) {
        for (y, &t) in y.iter_mut().zip(t) {
            *y -= t * factor;
        }
    }
}
