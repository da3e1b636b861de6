//! Shapes and values of the cross-entropy with a teacher that tests and benchmarks share.

use super::Matching;
use crate::array::Array;

/// One problem.
#[derive(Debug, Clone)]
pub struct XentCase {
    /// Images, of which the student has `crops` and the teacher two (or as many rows as the student, of one crop).
    pub images: usize,
    /// The student's crops of an image.
    pub crops: usize,
    /// Classes.
    pub k: usize,
    /// Who is compared with whom.
    pub matching: Matching,
    /// Standard deviation of the logits.
    pub scale: f32,
    /// What is added to a third of the student's rows.
    pub offset: f32,
    /// The teacher's and the student's.
    pub temperatures: [f32; 2],
    /// Whether there is a center.
    pub center: bool,
    /// Whether the last row counts nothing in means, and the others each something else.
    pub shares: bool,
}

impl XentCase {
    /// DINO's temperatures, a center, no shares.
    pub fn new(images: usize, crops: usize, k: usize) -> XentCase {
        XentCase {
            images,
            crops,
            k,
            matching: if crops == 1 { Matching::SameRow } else { Matching::OtherCrops },
            scale: 0.3,
            offset: 0.0,
            temperatures: [0.07, 0.1],
            center: true,
            shares: false,
        }
    }

    /// The teacher's rows.
    pub fn n(&self) -> usize {
        self.images * if self.matching == Matching::OtherCrops { 2 } else { 1 }
    }

    /// The student's rows.
    pub fn m(&self) -> usize {
        self.images * self.crops
    }

    /// The student's logits [M, K].
    pub fn student(&self) -> Array<f64> {
        let mut x = Array::random(&[self.m(), self.k], 21, self.scale);
        for row in x.data.chunks_mut(self.k).step_by(3) {
            row.iter_mut().for_each(|x| *x = f64::from((*x + f64::from(self.offset)) as f32));
        }
        x
    }

    /// The teacher's logits [N, K].
    pub fn teacher(&self) -> Array<f64> {
        Array::random(&[self.n(), self.k], 22, self.scale)
    }

    /// The center [K], if there is one.
    pub fn center_values(&self) -> Option<Array<f64>> {
        self.center.then(|| Array::random(&[self.k], 23, self.scale))
    }

    /// What rows count, if not the same [N].
    pub fn share(&self) -> Option<Array<f64>> {
        let n = self.n();
        let share = |i: usize| if i + 1 == n { 0.0 } else { f64::from((1 + i % 3) as f32 / n as f32) };
        self.shares.then(|| Array::new(&[n], (0..n).map(share).collect()))
    }

    /// The gradient of the losses [M].
    pub fn dloss(&self) -> Array<f64> {
        Array::random(&[self.m()], 24, 1.0)
    }
}

/// Hand-picked: one class, numbers around a pack, a warp's classes and a piece; no image; one and many crops; more than 32 of
/// them; rows that are matched one to one; logits that leave one probability, and that lie far from zero.
pub fn xent_cases() -> Vec<XentCase> {
    let mut all = Vec::new();
    for k in [1, 3, 4, 8, 24, 31, 256, 257, 264, 1000, 1024, 1032, 2056] {
        all.push(XentCase::new(2, 4, k));
        all.push(XentCase::new(3, 1, k));
    }
    for (images, crops) in [(0, 1), (1, 2), (1, 10), (5, 3), (1, 35), (67, 1)] {
        all.push(XentCase { shares: images > 1, ..XentCase::new(images, crops, 40) });
    }
    for (scale, temperatures) in [(3.0, [0.04, 0.1]), (1.0, [1.0, 1.0]), (0.1, [10.0, 5.0])] {
        all.push(XentCase { scale, temperatures, center: false, ..XentCase::new(3, 4, 72) });
    }
    all.push(XentCase { offset: 100.0, ..XentCase::new(3, 3, 48) });
    all.push(XentCase { matching: Matching::OtherCrops, ..XentCase::new(2, 1, 16) });
    all.push(XentCase::new(1, 3, 17_000));
    all
}

/// Random problems.
#[cfg(any(test, feature = "testing"))]
pub fn xent_strategy() -> impl proptest::strategy::Strategy<Value = XentCase> {
    use proptest::prelude::*;
    (1..6usize, 1..6usize, 1..300usize, 1..20u8, any::<bool>(), any::<bool>()).prop_map(
        |(images, crops, k, temperature, center, shares)| {
            let temperatures = [f32::from(temperature) / 50.0, 0.1];
            XentCase { temperatures, center, shares, ..XentCase::new(images, crops, k) }
        },
    )
}
