//! Separable antialiased resampling: rows are combined first (long vectors), then columns.

use super::cpu::Workspace;
use super::{Crop, ImageRef, Interpolation, Pixels};
use crate::multiversion;
use engine::{Error, Result};

/// Values that a pass over rows sums in registers.
const BLOCK: usize = 16;

/// One dimension's weights: output `i` is the sum over k < `taps` of `weights[i taps + k]` times input
/// `starts[i] + k`. Every output has the same number of taps, padded with zeros; all lie inside the input.
#[derive(Debug, Default)]
pub(super) struct Filter {
    taps: usize,
    starts: Vec<usize>,
    weights: Vec<f32>,
}

impl Interpolation {
    /// Half-width of the filter in pixels, before it is stretched.
    pub(super) fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    /// The filter at distance `x`.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Interpolation::Bilinear => (1.0 - x).max(0.0),
            Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Interpolation::Bicubic => 0.0,
        }
    }
}

impl Filter {
    /// Weights from `input` to `output` pixels. Output i looks at the input around `(i + 1/2) input / output`.
    pub(super) fn prepare(&mut self, input: usize, output: usize, interpolation: Interpolation) {
        self.starts.clear();
        self.weights.clear();
        if input == output {
            self.taps = 1;
            self.starts.extend(0..input);
            self.weights.resize(input, 1.0);
            return;
        }
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = interpolation.support() * stretch;
        let bounds = |i: usize| {
            let center = scale * (i as f64 + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            (center, start, end)
        };
        self.taps = (0..output).map(bounds).map(|(_, start, end)| end - start).max().unwrap_or(1);
        self.weights.resize(output * self.taps, 0.0);
        for (i, weights) in self.weights.chunks_exact_mut(self.taps).enumerate() {
            let (center, start, end) = bounds(i);
            let at = |j: usize| interpolation.weight((j as f64 + 0.5 - center) / stretch);
            let total: f64 = (start..end).map(at).sum();
            let first = start.min(input - self.taps);
            for j in start..end {
                weights[j - first] = (at(j) / total) as f32;
            }
            self.starts.push(first);
        }
    }
}

/// The matrix [output, input], row by row, whose product with a line of `input` values is the line resized to `output`,
/// antialiased.
pub fn resize_weights(input: usize, output: usize, interpolation: Interpolation) -> Vec<f32> {
    let mut filter = Filter::default();
    filter.prepare(input, output, interpolation);
    let mut matrix = vec![0f32; input * output];
    let taps = filter.weights.chunks_exact(filter.taps.max(1)).zip(&filter.starts);
    for (row, (weights, &start)) in matrix.chunks_exact_mut(input.max(1)).zip(taps) {
        row[start..start + weights.len()].copy_from_slice(weights);
    }
    matrix
}

/// An error unless the crop lies in the image and neither it nor the output is empty.
#[track_caller]
pub(super) fn check(image: &ImageRef<'_>, crop: Crop, height: usize, width: usize) -> Result<()> {
    let inside = |start: usize, len: usize, size: usize| len > 0 && start <= size && len <= size - start;
    let fits = inside(crop.top, crop.height, image.height) && inside(crop.left, crop.width, image.width);
    if fits && height > 0 && width > 0 {
        return Ok(());
    }
    Err(Error::value(
        "resized_crop",
        "the crop must lie in the image, and neither it nor the output be empty",
    )
    .with("crop", crop)
    .with("image", [image.height, image.width])
    .with("output", [height, width]))
}

/// See [`super::resized_crop`]; mirrored if `flip`. `out` has `size[0] * size[1] * channels` elements and the
/// arguments passed [`check`].
pub(super) fn resized_crop(
    image: &ImageRef<'_>,
    crop: Crop,
    size: [usize; 2],
    interpolation: Interpolation,
    flip: bool,
    workspace: &mut Workspace,
    out: &mut [f32],
) {
    let channels = image.channels;
    workspace.vertical.prepare(crop.height, size[0], interpolation);
    workspace.horizontal.prepare(crop.width, size[1], interpolation);
    let stride = image.width * channels;
    let start = crop.top * stride + crop.left * channels;
    let row = crop.width * channels;
    let space = Workspace::between(&mut workspace.between, size[0] * row + 1);
    let (between, _) = space.split_at_mut(size[0] * row);
    match image.pixels {
        Pixels::U8(pixels) => rows_u8(&pixels[start..], stride, row, &workspace.vertical, between),
        Pixels::F32(pixels) => rows_f32(&pixels[start..], stride, row, &workspace.vertical, between),
    }
    match channels {
        1 => columns_1(between, row, &workspace.horizontal, flip, out),
        3 => columns_3(space, row, &workspace.horizontal, flip, out),
        _ => columns(between, row, channels, &workspace.horizontal, flip, out),
    }
}

multiversion! {
    /// Combines rows of bytes; 255 becomes 1.
    fn rows_u8(source: &[u8], stride: usize, row: usize, filter: &Filter, out: &mut [f32]) {
        rows(source, stride, row, filter, out, f32::from, |sum| sum / 255.0);
    }
}

multiversion! {
    /// Combines rows of floats.
    fn rows_f32(source: &[f32], stride: usize, row: usize, filter: &Filter, out: &mut [f32]) {
        rows(source, stride, row, filter, out, |v| v, |sum| sum);
    }
}

/// Each row of `out` (`row` elements) is a weighted sum of rows of `source`, which lie `stride` apart.
#[inline(always)]
fn rows<T: Copy>(
    source: &[T],
    stride: usize,
    row: usize,
    filter: &Filter,
    out: &mut [f32],
    value: impl Fn(T) -> f32,
    finish: impl Fn(f32) -> f32,
) {
    let weights = filter.weights.chunks_exact(filter.taps);
    for ((out, weights), &first) in out.chunks_exact_mut(row).zip(weights).zip(&filter.starts) {
        let combine = |x: usize, sums: &mut [f32]| {
            for (k, &w) in weights.iter().enumerate() {
                let values = &source[(first + k) * stride + x..][..sums.len()];
                for (sum, &v) in sums.iter_mut().zip(values) {
                    *sum += w * value(v);
                }
            }
        };
        if row < BLOCK {
            out.fill(0.0);
            combine(0, out);
            out.iter_mut().for_each(|o| *o = finish(*o));
            continue;
        }
        // The last block overlaps the one before it and gives the same values there.
        for block in 0..row.div_ceil(BLOCK) {
            let x = (block * BLOCK).min(row - BLOCK);
            let mut sums = [0f32; BLOCK];
            combine(x, &mut sums);
            out[x..x + BLOCK].copy_from_slice(&sums.map(&finish));
        }
    }
}

multiversion! {
    fn columns_1(source: &[f32], row: usize, filter: &Filter, flip: bool, out: &mut [f32]) {
        columns(source, row, 1, filter, flip, out);
    }
}

multiversion! {
    /// RGB: four neighbouring values are one vector, of which the last belongs to the next pixel and is dropped.
    /// `source` has one value more than its rows, for the very last pixel.
    fn columns_3(source: &[f32], row: usize, filter: &Filter, flip: bool, out: &mut [f32]) {
        let width = filter.starts.len();
        for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
            let source = &source[y * row..y * row + row + 1];
            let weights = filter.weights.chunks_exact(filter.taps);
            for (x, (weights, &first)) in weights.zip(&filter.starts).enumerate() {
                let x = if flip { width - 1 - x } else { x };
                let source = &source[first * 3..(first + filter.taps) * 3 + 1];
                let mut sums = [0f32; 4];
                for (&w, v) in weights.iter().zip(source.windows(4).step_by(3)) {
                    for (sum, v) in sums.iter_mut().zip(v) {
                        *sum += w * v;
                    }
                }
                out[x * 3..x * 3 + 3].copy_from_slice(&sums[..3]);
            }
        }
    }
}

/// Each pixel of a row of `out` is a weighted sum of pixels of the same row of `source`.
#[inline(always)]
fn columns(source: &[f32], row: usize, channels: usize, filter: &Filter, flip: bool, out: &mut [f32]) {
    let width = filter.starts.len();
    for (source, out) in source.chunks_exact(row).zip(out.chunks_exact_mut(width * channels)) {
        let weights = filter.weights.chunks_exact(filter.taps);
        for (x, (weights, &first)) in weights.zip(&filter.starts).enumerate() {
            let x = if flip { width - 1 - x } else { x };
            let source = &source[first * channels..(first + filter.taps) * channels];
            for (c, o) in out[x * channels..(x + 1) * channels].iter_mut().enumerate() {
                let mut sum = 0.0;
                for (w, v) in weights.iter().zip(source.chunks_exact(channels)) {
                    sum += w * v[c];
                }
                *o = sum;
            }
        }
    }
}
