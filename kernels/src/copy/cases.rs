//! Shapes and views that tests and benchmarks share.

use engine::{Element, Result, Tensor};

/// One case: a shape, the order its dimensions are put in, and a margin cut off every dimension first.
#[derive(Debug, Clone)]
pub struct Case {
    /// Shape before the permutation.
    pub shape: Vec<usize>,
    /// Order of the dimensions in the view.
    pub order: Vec<usize>,
    /// Cut off both ends of every dimension.
    pub margin: usize,
}

impl Case {
    fn new(shape: &[usize], order: &[usize], margin: usize) -> Case {
        Case { shape: shape.to_vec(), order: order.to_vec(), margin }
    }

    /// The view of a tensor whose element i is `value(i)`.
    pub fn view<T: Element>(&self, value: impl Fn(usize) -> T) -> Result<Tensor> {
        let full: Vec<usize> = self.shape.iter().map(|s| s + 2 * self.margin).collect();
        let values: Vec<T> = (0..full.iter().product()).map(value).collect();
        let mut x = Tensor::from_slice(&values, &full)?;
        for (d, &n) in self.shape.iter().enumerate() {
            x = x.narrow(d, self.margin, n)?;
        }
        x.permute(&self.order)
    }
}

/// Transpositions, NCHW to NHWC and back, windows, sizes around a tile, single elements, nothing.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new(&[], &[], 0),
        Case::new(&[1, 1, 1], &[2, 0, 1], 1),
        Case::new(&[0, 3], &[1, 0], 1),
        Case::new(&[5], &[0], 2),
        Case::new(&[3, 5], &[1, 0], 0),
        Case::new(&[15, 17], &[1, 0], 1),
        Case::new(&[16, 16], &[1, 0], 0),
        Case::new(&[33, 31], &[1, 0], 0),
        Case::new(&[257, 129], &[1, 0], 0),
        Case::new(&[3, 1000], &[0, 1], 1),
        Case::new(&[2, 3, 32, 33], &[0, 2, 3, 1], 0),
        Case::new(&[2, 9, 11, 70], &[0, 3, 1, 2], 0),
        // Runs: of the result and of the source, ragged, of 3, 5 and 31 elements; with a margin they are none.
        Case::new(&[2, 3, 17, 31], &[0, 2, 3, 1], 0),
        Case::new(&[2, 17, 31, 3], &[0, 3, 1, 2], 0),
        Case::new(&[2, 3, 17, 31], &[0, 2, 3, 1], 1),
        Case::new(&[2, 17, 31, 3], &[0, 3, 1, 2], 1),
        Case::new(&[5, 300], &[1, 0], 0),
        Case::new(&[300, 5], &[1, 0], 0),
        Case::new(&[31, 100], &[1, 0], 0),
        Case::new(&[100, 31], &[1, 0], 0),
        Case::new(&[2, 7, 5, 3], &[0, 2, 1, 3], 0),
        Case::new(&[4, 17, 3, 8], &[0, 2, 1, 3], 0),
        Case::new(&[4, 3, 5, 18], &[2, 3, 0, 1], 0),
        Case::new(&[3, 4, 5, 6, 7], &[4, 2, 0, 3, 1], 1),
        Case::new(&[2, 3, 2, 5, 2, 3], &[5, 4, 3, 2, 1, 0], 0),
        Case::new(&[40_000, 2], &[1, 0], 0),
        Case::new(&[2, 40_000], &[1, 0], 0),
    ]
}

/// Random shapes of one to four dimensions in a random order, cut or not.
#[cfg(any(test, feature = "testing"))]
pub fn strategy() -> impl proptest::strategy::Strategy<Value = Case> {
    use proptest::prelude::*;
    (proptest::collection::vec(1usize..20, 1..5), 0usize..2).prop_flat_map(|(shape, margin)| {
        let order: Vec<usize> = (0..shape.len()).collect();
        Just(order).prop_shuffle().prop_map(move |order| Case { shape: shape.clone(), order, margin })
    })
}
