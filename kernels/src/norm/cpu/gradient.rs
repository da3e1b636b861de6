//! Backward of batch normalisation: sums of g and g (x - mean) in one pass, dx in another; g is dy behind the
//! ReLU's mask.

use super::{BLOCK, Lanes, inverse_deviation};
use crate::multiversion;
use crate::parallel::{GRAIN, chunks};
use crate::reduce::Partials;
use engine::Result;
use engine::memory::Scratch;
use rayon::prelude::*;

/// Sums over all rows, of every channel.
pub struct Sums {
    /// Sum of g.
    pub gradient: Vec<f64>,
    /// Sum of g (x - mean).
    pub product: Vec<f64>,
}

impl Sums {
    /// dweight = sum of g (x - mean) / deviation, dbias = sum of g.
    pub fn store(&self, variance: &[f32], eps: f32, dweight: &mut [f32], dbias: &mut [f32]) {
        for j in 0..variance.len() {
            dweight[j] = (self.product[j] * inverse_deviation(variance[j].into(), eps)) as f32;
            dbias[j] = self.gradient[j] as f32;
        }
    }
}

multiversion! {
    fn sums_plain(dy: &[f32], x: &[f32], mean: &[f32], sum: &mut [f32], product: &mut [f32]) {
        let width = sum.len();
        let (mean, product) = (&mean[..width], &mut product[..width]);
        for (dy, x) in dy.chunks_exact(width).zip(x.chunks_exact(width)) {
            for j in 0..width {
                sum[j] += dy[j];
                product[j] += dy[j] * (x[j] - mean[j]);
            }
        }
    }
}

multiversion! {
    fn sums_masked(dy: &[f32], x: &[f32], y: &[f32], mean: &[f32], sum: &mut [f32], product: &mut [f32]) {
        let width = sum.len();
        let (mean, product) = (&mean[..width], &mut product[..width]);
        for ((dy, x), y) in dy.chunks_exact(width).zip(x.chunks_exact(width)).zip(y.chunks_exact(width)) {
            for j in 0..width {
                let g = if y[j] > 0.0 { dy[j] } else { 0.0 };
                sum[j] += g;
                product[j] += g * (x[j] - mean[j]);
            }
        }
    }
}

multiversion! {
    fn sums_stored(
        dy: &[f32], x: &[f32], y: &[f32], mean: &[f32], sum: &mut [f32], product: &mut [f32], out: &mut [f32]
    ) {
        let width = sum.len();
        let (mean, product) = (&mean[..width], &mut product[..width]);
        let rows = dy.chunks_exact(width).zip(x.chunks_exact(width)).zip(y.chunks_exact(width));
        for (((dy, x), y), out) in rows.zip(out.chunks_exact_mut(width)) {
            for j in 0..width {
                let g = if y[j] > 0.0 { dy[j] } else { 0.0 };
                out[j] = g;
                sum[j] += g;
                product[j] += g * (x[j] - mean[j]);
            }
        }
    }
}

multiversion! {
    /// Adds f32 sums to f64 totals and clears them.
    fn drain(total: &mut [f64], sums: &mut [f32]) {
        for (t, s) in total.iter_mut().zip(sums) {
            *t += f64::from(*s);
            *s = 0.0;
        }
    }
}

/// One piece's inputs, of one length, and where to keep the masked gradient.
struct Piece<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    y: Option<&'a [f32]>,
    store: Option<&'a mut [f32]>,
}

impl Piece<'_> {
    /// Adds the sums over elements `from .. to`, rows of `sum.len()`.
    fn add(&mut self, from: usize, to: usize, mean: &[f32], sum: &mut [f32], product: &mut [f32]) {
        let (dy, x) = (&self.dy[from..to], &self.x[from..to]);
        match (self.y, &mut self.store) {
            (None, _) => sums_plain(dy, x, mean, sum, product),
            (Some(y), None) => sums_masked(dy, x, &y[from..to], mean, sum, product),
            (Some(y), Some(out)) => {
                sums_stored(dy, x, &y[from..to], mean, sum, product, &mut out[from..to]);
            }
        }
    }

    /// Both sums of the piece, [C] each, to `out`.
    fn run(mut self, lanes: Lanes, mean: &[f32], out: &mut [f64], sums: &mut [f32], totals: &mut [f64]) {
        let Lanes { channels, repeat, width } = lanes;
        sums.fill(0.0);
        totals.fill(0.0);
        let len = self.x.len();
        let whole = len / width * width;
        for from in (0..whole).step_by(BLOCK * width) {
            let to = (from + BLOCK * width).min(whole);
            let (sum, product) = sums.split_at_mut(width);
            self.add(from, to, mean, sum, product);
            drain(totals, sums);
        }
        if whole < len {
            let (sum, product) = sums.split_at_mut(width);
            self.add(whole, len, mean, &mut sum[..len - whole], product);
            drain(totals, sums);
        }
        out.fill(0.0);
        for (out, total) in out.chunks_exact_mut(channels).zip(totals.chunks_exact(width)) {
            for i in 0..repeat {
                out.iter_mut().zip(&total[i * channels..]).for_each(|(o, &t)| *o += t);
            }
        }
    }
}

/// Sums of g and g (x - mean). `y` is the mask; `store` keeps g where the caller wants it.
pub fn gradient_sums(
    dy: &[f32],
    x: &[f32],
    y: Option<&[f32]>,
    mean: &[f32],
    store: Option<&mut [f32]>,
) -> Result<Sums> {
    let channels = mean.len();
    let lanes = Lanes::new(channels);
    let mut all = Sums { gradient: vec![0.0; channels], product: vec![0.0; channels] };
    if x.is_empty() {
        return Ok(all);
    }
    let spread = lanes.spread(|j| f64::from(mean[j]))?;
    let step = lanes.piece();
    let count = x.len().div_ceil(step);
    let mut partials = Partials::new(count, 2 * channels)?;
    let stores: Vec<Option<&mut [f32]>> = match store {
        Some(s) => s.chunks_mut(step).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    };
    partials.par_chunks_exact_mut(2 * channels).zip(stores).enumerate().for_each_init(
        || (vec![0f32; 2 * lanes.width], vec![0f64; 2 * lanes.width]),
        |(sums, totals), (i, (out, store))| {
            let range = i * step..((i + 1) * step).min(x.len());
            let y = y.map(|y| &y[range.clone()]);
            let piece = Piece { dy: &dy[range.clone()], x: &x[range], y, store };
            piece.run(lanes, &spread, out, sums, totals);
        },
    );
    for partial in partials.chunks_exact(2 * channels) {
        let (gradient, product) = partial.split_at(channels);
        all.gradient.iter_mut().zip(gradient).for_each(|(a, &p)| *a += p);
        all.product.iter_mut().zip(product).for_each(|(a, &p)| *a += p);
    }
    Ok(all)
}

/// The map of every lane: dx = (g - average - (x - mean) * slope) * scale; without training g * scale.
///
/// The subtraction comes before the scaling, as in g * scale + offset rounded products would not cancel where they
/// should.
pub struct GradientMap {
    lanes: Lanes,
    training: bool,
    mean: Scratch<f32>,
    scale: Scratch<f32>,
    slope: Scratch<f32>,
    average: Scratch<f32>,
}

impl GradientMap {
    /// From the sums over `rows` rows and f32 statistics (mean, variance).
    pub fn new(
        sums: &Sums,
        (mean, variance): (&[f32], &[f32]),
        weight: Option<&[f32]>,
        training: bool,
        rows: usize,
        eps: f32,
    ) -> Result<GradientMap> {
        let lanes = Lanes::new(mean.len());
        let inverse = |j: usize| inverse_deviation(variance[j].into(), eps);
        let scale = |j: usize| weight.map_or(1.0, |w| f64::from(w[j])) * inverse(j);
        let n = rows as f64;
        Ok(GradientMap {
            lanes,
            training,
            mean: lanes.spread(|j| f64::from(mean[j]))?,
            scale: lanes.spread(scale)?,
            slope: lanes.spread(|j| inverse(j) * inverse(j) * sums.product[j] / n)?,
            average: lanes.spread(|j| sums.gradient[j] / n)?,
        })
    }
}

multiversion! {
    fn dx_plain(
        dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], slope: &[f32], average: &[f32], out: &mut [f32]
    ) {
        let width = mean.len();
        for ((out, dy), x) in out.chunks_mut(width).zip(dy.chunks(width)).zip(x.chunks(width)) {
            let n = out.len();
            let (dy, x, mean) = (&dy[..n], &x[..n], &mean[..n]);
            let (scale, slope, average) = (&scale[..n], &slope[..n], &average[..n]);
            for j in 0..n {
                out[j] = (dy[j] - average[j] - (x[j] - mean[j]) * slope[j]) * scale[j];
            }
        }
    }
}

multiversion! {
    fn dx_masked(
        dy: &[f32], x: &[f32], y: &[f32],
        mean: &[f32], scale: &[f32], slope: &[f32], average: &[f32], out: &mut [f32]
    ) {
        let width = mean.len();
        let rows = dy.chunks(width).zip(x.chunks(width)).zip(y.chunks(width));
        for (out, ((dy, x), y)) in out.chunks_mut(width).zip(rows) {
            let n = out.len();
            let (dy, x, y, mean) = (&dy[..n], &x[..n], &y[..n], &mean[..n]);
            let (scale, slope, average) = (&scale[..n], &slope[..n], &average[..n]);
            for j in 0..n {
                let g = if y[j] > 0.0 { dy[j] } else { 0.0 };
                out[j] = (g - average[j] - (x[j] - mean[j]) * slope[j]) * scale[j];
            }
        }
    }
}

multiversion! {
    fn dx_constant(dy: &[f32], scale: &[f32], out: &mut [f32]) {
        let width = scale.len();
        for (out, dy) in out.chunks_mut(width).zip(dy.chunks(width)) {
            for ((o, &dy), &s) in out.iter_mut().zip(dy).zip(scale) {
                *o = dy * s;
            }
        }
    }
}

multiversion! {
    fn dx_constant_masked(dy: &[f32], y: &[f32], scale: &[f32], out: &mut [f32]) {
        let width = scale.len();
        for ((out, dy), y) in out.chunks_mut(width).zip(dy.chunks(width)).zip(y.chunks(width)) {
            for (((o, &dy), &y), &s) in out.iter_mut().zip(dy).zip(y).zip(scale) {
                *o = if y > 0.0 { dy * s } else { 0.0 };
            }
        }
    }
}

/// dx from dy, x and the mask y, all of one length.
pub fn gradient_apply(dy: &[f32], x: &[f32], y: Option<&[f32]>, map: &GradientMap, dx: &mut [f32]) {
    let width = map.lanes.width.max(1);
    let GradientMap { mean, scale, slope, average, .. } = map;
    chunks(dx, (GRAIN / width).max(1) * width, |start, dx| {
        let range = start..start + dx.len();
        let (dy, x) = (&dy[range.clone()], &x[range.clone()]);
        match (map.training, y) {
            (true, None) => dx_plain(dy, x, mean, scale, slope, average, dx),
            (true, Some(y)) => dx_masked(dy, x, &y[range], mean, scale, slope, average, dx),
            (false, None) => dx_constant(dy, scale, dx),
            (false, Some(y)) => dx_constant_masked(dy, &y[range], scale, dx),
        }
    });
}
