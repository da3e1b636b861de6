//! The naive references, in any precision.

use super::cpu::{WHITE, XYZ};
use crate::array::{Array, Real};

/// Lab of sRGB values [.., 3].
pub fn rgb_to_lab<T: Real>(x: &Array<T>) -> Array<T> {
    let mut out = Array::zeros(&x.shape);
    let power = |v: T, exponent: f64| (v.ln() * T::of(exponent)).exp();
    for (lab, rgb) in out.data.chunks_mut(3).zip(x.data.chunks(3)) {
        let light: Vec<T> = rgb
            .iter()
            .map(|&v| match v.get() > 0.04045 {
                true => power((v + T::of(0.055)) / T::of(1.055), 2.4),
                false => v / T::of(12.92),
            })
            .collect();
        let f: Vec<T> = (0..3)
            .map(|row| {
                let mut sum = T::ZERO;
                (0..3).for_each(|c| sum += T::of(XYZ[row][c]) * light[c]);
                let t = sum / T::of(WHITE[row]);
                match t.get() > 0.008856 {
                    true => power(t, 1.0 / 3.0),
                    false => T::of(7.787) * t + T::of(16.0 / 116.0),
                }
            })
            .collect();
        lab[0] = T::of(116.0) * f[1] - T::of(16.0);
        lab[1] = T::of(500.0) * (f[0] - f[1]);
        lab[2] = T::of(200.0) * (f[1] - f[2]);
    }
    out
}

/// Targets and nearest bins by sorting all distances.
pub fn soft_encode<T: Real>(
    points: &Array<T>,
    centres: &Array<T>,
    neighbours: usize,
    sigma: f64,
) -> (Array<T>, Vec<i32>) {
    let q = centres.shape[0];
    let mut targets = Array::zeros(&[points.shape[0], q]);
    let mut nearest = Vec::new();
    for (row, point) in targets.data.chunks_mut(q).zip(points.data.chunks(2)) {
        let distance = |bin: usize| {
            let (a, b) = (point[0] - centres.data[2 * bin], point[1] - centres.data[2 * bin + 1]);
            a * a + b * b
        };
        let mut order: Vec<usize> = (0..q).collect();
        // A stable sort: the first of equals stays first.
        order.sort_by(|&i, &j| distance(i).get().total_cmp(&distance(j).get()));
        let weight = |bin: usize| (-distance(bin) / T::of(2.0 * sigma * sigma)).exp();
        let mut total = T::ZERO;
        order[..neighbours].iter().for_each(|&bin| total += weight(bin));
        order[..neighbours].iter().for_each(|&bin| row[bin] = weight(bin) / total);
        nearest.push(order[0] as i32);
    }
    (targets, nearest)
}
