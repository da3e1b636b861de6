//! The CPU's side.

use super::Spread;
use rayon::prelude::*;

/// Linear sRGB to XYZ (D65), rows X, Y, Z.
pub(super) const XYZ: [[f64; 3]; 3] =
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]];
/// XYZ of white: D65, 2 degrees.
pub(super) const WHITE: [f64; 3] = [0.95047, 1.0, 1.08883];

/// Pixels or points of a task.
const CHUNK: usize = 1024;

/// The light that an sRGB value stands for.
fn linear(v: f32) -> f32 {
    if v > 0.04045 { ((v + 0.055) / 1.055).powf(2.4) } else { v / 12.92 }
}

/// A cube root with a straight piece near 0.
fn root(t: f32) -> f32 {
    if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 }
}

/// See [`super::rgb_to_lab`].
pub fn rgb_to_lab(x: &[f32], lab: &mut [f32]) {
    lab.par_chunks_mut(3 * CHUNK).zip(x.par_chunks(3 * CHUNK)).for_each(|(lab, x)| {
        for (lab, rgb) in lab.chunks_exact_mut(3).zip(x.chunks_exact(3)) {
            let light = [linear(rgb[0]), linear(rgb[1]), linear(rgb[2])];
            let part = |row: usize| {
                let sum: f32 = (0..3).map(|c| (XYZ[row][c] / WHITE[row]) as f32 * light[c]).sum();
                root(sum)
            };
            let (fx, fy, fz) = (part(0), part(1), part(2));
            lab.copy_from_slice(&[116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)]);
        }
    });
}

/// sRGB values in 0 to 1 of Lab values, three a pixel; what lies outside the gamut is cut off.
pub fn lab_to_rgb(lab: &[f32]) -> Vec<f32> {
    let back = inverse(XYZ);
    let pixel = |lab: &[f32]| {
        let [l, a, b] = [lab[0], lab[1], lab[2]].map(f64::from);
        let fy = (l + 16.0) / 116.0;
        let cube = |f: f64| if f > 0.2068966 { f.powi(3) } else { (f - 16.0 / 116.0) / 7.787 };
        let xyz = [a / 500.0 + fy, fy, (fy - b / 200.0).max(0.0)];
        let xyz: [f64; 3] = std::array::from_fn(|i| cube(xyz[i]) * WHITE[i]);
        back.map(|row| {
            let light: f64 = row.iter().zip(xyz).map(|(m, v)| m * v).sum();
            let v = if light > 0.0031308 { 1.055 * light.powf(1.0 / 2.4) - 0.055 } else { 12.92 * light };
            v.clamp(0.0, 1.0) as f32
        })
    };
    lab.chunks_exact(3).flat_map(pixel).collect()
}

/// The inverse of a 3 x 3 matrix, by its cofactors.
fn inverse(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let cofactor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    std::array::from_fn(|r| std::array::from_fn(|c| cofactor(c, r) / determinant))
}

/// See [`super::soft_encode`].
pub fn soft_encode(
    points: &[f32],
    centres: &[f32],
    spread: Spread,
    targets: &mut [f32],
    nearest: &mut [i32],
) {
    let q = centres.len() / 2;
    let factor = -1.0 / (2.0 * spread.sigma * spread.sigma);
    targets
        .par_chunks_mut(CHUNK * q)
        .zip(nearest.par_chunks_mut(CHUNK))
        .zip(points.par_chunks(CHUNK * 2))
        .for_each(|((targets, nearest), points)| {
            // The bins found so far, nearest first.
            let mut found: Vec<(f32, usize)> = Vec::with_capacity(spread.neighbours + 1);
            for ((row, nearest), point) in
                targets.chunks_exact_mut(q).zip(nearest).zip(points.chunks_exact(2))
            {
                found.clear();
                for (bin, centre) in centres.chunks_exact(2).enumerate() {
                    let (a, b) = (point[0] - centre[0], point[1] - centre[1]);
                    let distance = a * a + b * b;
                    if found.len() < spread.neighbours || distance < found[found.len() - 1].0 {
                        let place = found.partition_point(|f| f.0 <= distance);
                        found.insert(place, (distance, bin));
                        found.truncate(spread.neighbours);
                    }
                }
                row.fill(0.0);
                // Relative to the nearest, so that points far from all bins do not underflow.
                let weight = |distance: f32| ((distance - found[0].0) * factor).exp();
                let total: f32 = found.iter().map(|f| weight(f.0)).sum();
                found.iter().for_each(|f| row[f.1] = weight(f.0) / total);
                *nearest = found[0].1 as i32;
            }
        });
}

/// See [`super::pixel_weights`].
pub fn pixel_weights(
    points: &[f32],
    nearest: &[i32],
    weights: &[f32],
    least: f32,
    pixels: usize,
    out: &mut [f32],
) {
    if pixels == 0 {
        return;
    }
    for ((out, points), nearest) in
        out.chunks_exact_mut(pixels).zip(points.chunks_exact(2 * pixels)).zip(nearest.chunks_exact(pixels))
    {
        let coloured = points.iter().any(|v| v.abs() > least);
        for (out, &bin) in out.iter_mut().zip(nearest) {
            *out = if coloured { weights[bin as usize] } else { 0.0 };
        }
    }
}
