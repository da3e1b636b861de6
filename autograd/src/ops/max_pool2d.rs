//! `max_pool2d`: the maximum of each window, channels last.

use super::check::floats;
use crate::case::{Case, Input, Reference};
use crate::op::{Backward, Saver, apply_one};
use crate::{Op, Spec, Var};
use engine::{Philox, Result, Tensor, random::Purpose};
use kernels::array::{Array, Real};
use kernels::copy::contiguous;
use kernels::pool;

/// The operation of [`max_pool2d`].
#[derive(Clone)]
pub struct MaxPool2d {
    /// Rows and columns of a window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Rows and columns around the image that never win.
    pub padding: usize,
}

/// Maximum over square windows of images [N, H, W, C]. The gradient goes to the first maximum of a window.
#[track_caller]
pub fn max_pool2d(x: &Var, kernel: usize, stride: usize, padding: usize) -> Result<Var> {
    apply_one(MaxPool2d { kernel, stride, padding }, &[x])
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        floats(self, inputs, 1)?;
        let sizes = pool::Sizes::new(&inputs[0].shape, self.kernel, self.stride, self.padding)?;
        Ok(vec![inputs[0].with_shape(&[sizes.n, sizes.p, sizes.q, sizes.c])])
    }

    fn forward(&self, inputs: &[&Tensor], save: &mut Saver) -> Result<Vec<Tensor>> {
        let (y, index) = pool::max_forward(&contiguous(inputs[0])?, self.kernel, self.stride, self.padding)?;
        save.save(&index);
        Ok(vec![y])
    }

    fn backward(&self, at: &Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = contiguous(at.gradient()?)?;
        let MaxPool2d { kernel, stride, padding } = *self;
        let shape = &at.inputs[0].shape;
        Ok(vec![at.when(0, || pool::max_backward(&dy, &at.saved[0], shape, kernel, stride, padding))?])
    }
}

impl Reference for MaxPool2d {
    fn reference<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let &[n, h, w, c] = &x.shape[..] else { return Vec::new() };
        let outputs = |size: usize| (size + 2 * self.padding - self.kernel) / self.stride + 1;
        let (p, q) = (outputs(h), outputs(w));
        let mut y = Array::zeros(&[n, p, q, c]);
        for at in 0..y.len() {
            let (k, j, i, b) = (at % c, at / c % q, at / c / q % p, at / c / q / p);
            let window = |first: usize, size: usize| {
                let first = first * self.stride;
                (first..first + self.kernel)
                    .filter_map(move |v| v.checked_sub(self.padding))
                    .filter(move |&v| v < size)
            };
            let mut best: Option<T> = None;
            for (row, column) in window(i, h).flat_map(|u| window(j, w).map(move |v| (u, v))) {
                let value = x.get(&[b, row, column, k]);
                best = Some(best.map_or(value, |best| best.max(value)));
            }
            y.data[at] = best.unwrap_or(T::ZERO);
        }
        vec![y]
    }
}

/// Cases of the operation's checks. All values differ by at least 1/8: no difference quotient crosses a tie.
pub(crate) fn cases() -> Vec<Case> {
    [
        ([1, 1, 1, 1], 1, 1, 0),
        ([1, 4, 4, 2], 2, 2, 0),
        ([1, 5, 5, 1], 3, 2, 1),
        ([2, 7, 6, 3], 3, 2, 1),
        ([2, 5, 9, 17], 3, 1, 1),
        ([1, 8, 8, 16], 2, 2, 0),
    ]
    .into_iter()
    .map(|(shape, kernel, stride, padding)| {
        let n: usize = shape.iter().product();
        let order = Philox::new(81, Purpose::Test, 0).permutation(n);
        let values = order.into_iter().map(|v| (v as f64 - n as f64 / 2.0) / 8.0).collect();
        let inputs = vec![Input::new(Array::new(&shape, values))];
        let label = format!("{shape:?} kernel {kernel} stride {stride} padding {padding}");
        Case::new(label, MaxPool2d { kernel, stride, padding }, inputs)
    })
    .collect()
}
