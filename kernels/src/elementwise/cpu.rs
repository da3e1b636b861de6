//! Vectorised loops over chunks of [`GRAIN`] elements, in parallel.

use crate::math::{exp, normal_cdf, normal_density};
use crate::multiversion;
use crate::parallel::{GRAIN, chunks};

macro_rules! unary {
    ($(#[$meta:meta])* $name:ident, $x:ident => $value:expr) => {
        $(#[$meta])*
        pub fn $name(x: &[f32], out: &mut [f32]) {
            multiversion! {
                fn part(x: &[f32], out: &mut [f32]) {
                    for (o, &$x) in out.iter_mut().zip(x) {
                        *o = $value;
                    }
                }
            }
            chunks(out, GRAIN, |start, out| part(&x[start..][..out.len()], out));
        }
    };
}

macro_rules! binary {
    ($(#[$meta:meta])* $name:ident, $a:ident, $b:ident => $value:expr) => {
        $(#[$meta])*
        pub fn $name(a: &[f32], b: &[f32], out: &mut [f32]) {
            multiversion! {
                fn part(a: &[f32], b: &[f32], out: &mut [f32]) {
                    for ((o, &$a), &$b) in out.iter_mut().zip(a).zip(b) {
                        *o = $value;
                    }
                }
            }
            chunks(out, GRAIN, |start, out| {
                let n = out.len();
                part(&a[start..][..n], &b[start..][..n], out);
            });
        }
    };
}

binary!(
    /// a + b.
    add, a, b => a + b
);
binary!(
    /// a - b.
    sub, a, b => a - b
);
binary!(
    /// a * b.
    mul, a, b => a * b
);
unary!(
    /// max(x, 0), NaN kept.
    relu, x => if x < 0.0 { 0.0 } else { x }
);
binary!(
    /// dy where y > 0.
    relu_backward, dy, y => if y > 0.0 { dy } else { 0.0 }
);
unary!(
    /// x Phi(x).
    gelu, x => x * normal_cdf(x)
);
binary!(
    /// dy (Phi(x) + x phi(x)).
    gelu_backward, dy, x => dy * (normal_cdf(x) + x * normal_density(x))
);

unary!(
    /// tanh(x), by (1 - e) / (1 + e) with e = exp(-2 |x|), which does not overflow.
    tanh, x => {
        let e = exp(-2.0 * x.abs());
        ((1.0 - e) / (1.0 + e)).copysign(x)
    }
);
binary!(
    /// dy 4 e / (1 + e)^2 with e = exp(-2 |x|): 1 - tanh(x)^2 would cancel.
    tanh_backward, dy, x => {
        let e = exp(-2.0 * x.abs());
        dy * (4.0 * e / ((1.0 + e) * (1.0 + e)))
    }
);
unary!(
    /// The natural logarithm.
    ln, x => x.ln()
);

/// s * x.
pub fn scale(x: &[f32], s: f32, out: &mut [f32]) {
    multiversion! {
        fn part(x: &[f32], s: f32, out: &mut [f32]) {
            for (o, &x) in out.iter_mut().zip(x) {
                *o = s * x;
            }
        }
    }
    chunks(out, GRAIN, |start, out| part(&x[start..][..out.len()], s, out));
}

/// a + s * b.
pub fn add_scaled(a: &[f32], b: &[f32], s: f32, out: &mut [f32]) {
    multiversion! {
        fn part(a: &[f32], b: &[f32], s: f32, out: &mut [f32]) {
            for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *o = a + s * b;
            }
        }
    }
    chunks(out, GRAIN, |start, out| {
        let n = out.len();
        part(&a[start..][..n], &b[start..][..n], s, out);
    });
}

/// a += b.
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    multiversion! {
        fn part(a: &mut [f32], b: &[f32]) {
            for (a, &b) in a.iter_mut().zip(b) {
                *a += b;
            }
        }
    }
    chunks(a, GRAIN, |start, a| part(a, &b[start..][..a.len()]));
}

/// a = keep a + factor b.
pub fn blend_assign(a: &mut [f32], keep: f32, b: &[f32], factor: f32) {
    multiversion! {
        fn part(a: &mut [f32], keep: f32, b: &[f32], factor: f32) {
            for (a, &b) in a.iter_mut().zip(b) {
                *a = keep * *a + factor * b;
            }
        }
    }
    chunks(a, GRAIN, |start, a| part(a, keep, &b[start..][..a.len()], factor));
}

/// x + bias for every row of `bias.len()` elements.
pub fn add_bias(x: &[f32], bias: &[f32], out: &mut [f32]) {
    multiversion! {
        fn part(x: &[f32], bias: &[f32], out: &mut [f32]) {
            for (o, x) in out.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                for ((o, &x), &b) in o.iter_mut().zip(x).zip(bias) {
                    *o = x + b;
                }
            }
        }
    }
    if out.is_empty() {
        return;
    }
    let step = (GRAIN / bias.len()).max(1) * bias.len();
    chunks(out, step, |start, out| part(&x[start..][..out.len()], bias, out));
}

/// Calls `part` for pieces of whole rows of `width` elements.
fn by_rows(width: usize, out: &mut [f32], part: impl Fn(usize, &mut [f32]) + Sync) {
    if !out.is_empty() {
        chunks(out, (GRAIN / width).max(1) * width, part);
    }
}

/// gelu(x + bias) for every row, and x + bias.
pub fn bias_gelu(x: &[f32], bias: &[f32], y: &mut [f32], pre: &mut [f32]) {
    add_bias(x, bias, pre);
    gelu(pre, y);
}

/// relu(x + bias) for every row.
pub fn bias_relu(x: &[f32], bias: &[f32], out: &mut [f32]) {
    multiversion! {
        fn part(x: &[f32], bias: &[f32], out: &mut [f32]) {
            for (o, x) in out.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                for ((o, &x), &b) in o.iter_mut().zip(x).zip(bias) {
                    let pre = x + b;
                    *o = if pre < 0.0 { 0.0 } else { pre };
                }
            }
        }
    }
    by_rows(bias.len(), out, |start, out| part(&x[start..][..out.len()], bias, out));
}

/// scale[j] keep[s] branch[r, j] for row r of sample s = r / `rows`; without a scale or a keep that factor is 1.
pub fn scale_rows(
    branch: &[f32],
    (scale, keep): (Option<&[f32]>, Option<&[f32]>),
    width: usize,
    rows: usize,
    out: &mut [f32],
) {
    multiversion! {
        fn row(branch: &[f32], scale: Option<&[f32]>, keep: f32, out: &mut [f32]) {
            match scale {
                Some(scale) => {
                    for ((o, &b), &s) in out.iter_mut().zip(branch).zip(scale) {
                        *o = s * keep * b;
                    }
                }
                None => {
                    for (o, &b) in out.iter_mut().zip(branch) {
                        *o = keep * b;
                    }
                }
            }
        }
    }
    by_rows(width, out, |start, out| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let r = start / width + i;
            row(&branch[r * width..][..width], scale, keep.map_or(1.0, |keep| keep[r / rows]), out);
        }
    });
}

/// silu(a) b for every row of x, a its first `half` elements, b the rest.
pub fn swiglu(x: &[f32], half: usize, out: &mut [f32]) {
    multiversion! {
        fn row(a: &[f32], b: &[f32], out: &mut [f32]) {
            for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *o = a * (b / (1.0 + exp(-a)));
            }
        }
    }
    by_rows(half, out, |start, out| {
        for (out, x) in out.chunks_exact_mut(half).zip(x[2 * start..].chunks_exact(2 * half)) {
            let (a, b) = x.split_at(half);
            row(a, b, out);
        }
    });
}

/// dy b silu'(a), then dy silu(a), for every row of x.
pub fn swiglu_backward(dy: &[f32], x: &[f32], half: usize, out: &mut [f32]) {
    multiversion! {
        fn row(dy: &[f32], a: &[f32], b: &[f32], da: &mut [f32], db: &mut [f32]) {
            let inputs = dy.iter().zip(a).zip(b);
            for ((((&dy, &a), &b), da), db) in inputs.zip(da.iter_mut()).zip(db.iter_mut()) {
                let s = 1.0 / (1.0 + exp(-a));
                *da = dy * b * (s * (1.0 + a * (1.0 - s)));
                *db = dy * (a * s);
            }
        }
    }
    by_rows(2 * half, out, |start, out| {
        let rows = out.chunks_exact_mut(2 * half).zip(x[start..].chunks_exact(2 * half));
        for ((out, x), dy) in rows.zip(dy[start / 2..].chunks_exact(half)) {
            let ((a, b), (da, db)) = (x.split_at(half), out.split_at_mut(half));
            row(dy, a, b, da, db);
        }
    });
}
