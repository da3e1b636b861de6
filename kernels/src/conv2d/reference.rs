//! Convolution and its gradients as their definition says, in any precision.

use super::Sizes;
use crate::array::{Array, Real};

/// Calls `f(x index, w index, y index)` for every product of the convolution, in row-major order of y, then
/// of the kernel.
fn each_product(z: &Sizes, mut f: impl FnMut(usize, usize, usize)) {
    for n in 0..z.n {
        for p in 0..z.p {
            for q in 0..z.q {
                for o in 0..z.o {
                    for r in 0..z.r {
                        for s in 0..z.s {
                            let (i, j) = (p * z.stride + r * z.dilation, q * z.stride + s * z.dilation);
                            if i < z.padding || j < z.padding || i - z.padding >= z.h || j - z.padding >= z.w
                            {
                                continue;
                            }
                            let (i, j) = (i - z.padding, j - z.padding);
                            let first = o / z.outer() * z.inner(); // of the group's input channels
                            for c in 0..z.inner() {
                                f(
                                    ((n * z.h + i) * z.w + j) * z.c + first + c,
                                    ((o * z.r + r) * z.s + s) * z.inner() + c,
                                    ((n * z.p + p) * z.q + q) * z.o + o,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `y[n, p, q, o] = sum x[n, p stride + r dilation - padding, q stride + s dilation - padding, c] w[o, r, s, c]`, over the input channels of o's group.
pub fn forward<T: Real>(z: &Sizes, x: &Array<T>, w: &Array<T>) -> Array<T> {
    let mut y = Array::zeros(&z.output());
    each_product(z, |i, j, k| y.data[k] += x.data[i] * w.data[j]);
    y
}

/// The transpose of [`forward`] as a linear map of x.
pub fn input_gradient<T: Real>(z: &Sizes, dy: &Array<T>, w: &Array<T>) -> Array<T> {
    let mut dx = Array::zeros(&z.input());
    each_product(z, |i, j, k| dx.data[i] += dy.data[k] * w.data[j]);
    dx
}

/// The transpose of [`forward`] as a linear map of w.
pub fn weight_gradient<T: Real>(z: &Sizes, x: &Array<T>, dy: &Array<T>) -> Array<T> {
    let mut dw = Array::zeros(&z.weight());
    each_product(z, |i, j, k| dw.data[j] += x.data[i] * dy.data[k]);
    dw
}
