//! Forward convolution and input gradient as dense passes.

use super::pad::Window;
use super::pass::{Images, Pass};
use super::{GROUP_BYTES, LARGE_WEIGHTS, SHARED_BYTES};
use crate::conv2d::Sizes;
use crate::matmul::cpu::{Job, Mat};
use crate::matmul::micro::Shared;
use crate::matmul::pack::{self, Panels};
use crate::parallel;
use crate::simd::Level;
use engine::memory::{self, Scratch};
use engine::{Error, Result};
use rayon::prelude::*;

/// See [`crate::conv2d::forward`]. One pass whose kernel rows are contiguous runs of the padded image.
pub(in crate::conv2d) fn forward_at(
    level: Level,
    z: &Sizes,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    if z.is_product() {
        let weights = Mat::rows(w, z.c).transposed();
        return product(level, z.n * z.h * z.w, z.o, z.c, Mat::rows(x, z.c), weights, y);
    }
    let window = if z.padding == 0 {
        Window { h: z.h, w: z.w, c: z.c, top: 0, left: 0, rows: z.h, columns: z.w }
    } else {
        let border = -(z.padding as isize);
        let (rows, columns) = ((z.p - 1) * z.stride + z.r, (z.q - 1) * z.stride + z.s);
        Window { h: z.h, w: z.w, c: z.c, top: border, left: border, rows, columns }
    };
    let line = window.columns * z.c;
    let pass = Pass {
        rows: z.p,
        columns: z.q,
        offset: 0,
        line: z.stride * line,
        pixel: z.stride * z.c,
        segments: z.r,
        segment: line,
        len: z.s * z.c,
        out_offset: 0,
        out_line: z.q * z.o,
        out_pixel: z.o,
        weights: 0,
    };
    let panels = Panels::new(level, z.o);
    let mut packed = Scratch::<f32>::new(pass.taps() * panels.padded())?;
    let taps = pass.taps();
    pack_parallel(&panels, taps, &mut packed, |i, width, padded, out| {
        pack::pack(level, w, |k| panels.start(i) * taps + k, taps, width, padded, out);
    });
    let work = Work { level, panels, window, passes: &[pass], packed: &packed };
    work.run(z.n, x, y, z.p * z.q * z.o)
}

/// See [`crate::conv2d::input_gradient`].
///
/// Input row `y` meets output row `i` at kernel row `r` when `y + padding = stride i + r`. Rows of equal
/// `a = (y + padding) mod stride` meet only kernel rows `a, a + stride, ..`: with `y + padding = stride m + a`
/// and `r = a + stride j` the output row is `m - j`. So every (row, column) remainder is one dense stride-1
/// convolution of dy with the flipped kernel rows and columns of that remainder, and nothing is ever multiplied
/// by an inserted zero.
pub(in crate::conv2d) fn input_gradient_at(
    level: Level,
    z: &Sizes,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    if z.is_product() {
        return product(level, z.n * z.h * z.w, z.c, z.o, Mat::rows(dy, z.o), Mat::rows(w, z.c), dx);
    }
    let rows: Vec<Phase> = (0..z.stride).filter_map(|a| Phase::new(z, a, z.r, z.h)).collect();
    let columns: Vec<Phase> = (0..z.stride).filter_map(|a| Phase::new(z, a, z.s, z.w)).collect();
    let (top, bottom) = Phase::range(&rows);
    let (left, right) = Phase::range(&columns);
    let (height, width) = ((bottom - top) as usize, (right - left) as usize);
    let window = Window { h: z.p, w: z.q, c: z.o, top, left, rows: height, columns: width };
    let line = width * z.o;
    let panels = Panels::new(level, z.c);
    let mut passes = Vec::new();
    let mut packed_len = 0;
    for row in &rows {
        for column in &columns {
            // Pixels that no tap meets get zero: a pass without taps.
            let empty = row.taps == 0 || column.taps == 0;
            let offset = match empty {
                true => 0,
                false => (row.first - top) as usize * line + (column.first - left) as usize * z.o,
            };
            let pass = Pass {
                rows: row.count,
                columns: column.count,
                offset,
                line,
                pixel: z.o,
                segments: if empty { 0 } else { row.taps },
                segment: line,
                len: column.taps * z.o,
                out_offset: (row.start * z.w + column.start) * z.c,
                out_line: z.stride * z.w * z.c,
                out_pixel: z.stride * z.c,
                weights: packed_len,
            };
            packed_len += pass.taps() * panels.padded();
            passes.push(pass);
        }
    }
    let mut packed = Scratch::<f32>::new(packed_len)?;
    let phases = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
    for (pass, (row, column)) in passes.iter().zip(phases) {
        let out = &mut packed[pass.weights..][..pass.taps() * panels.padded()];
        pack_parallel(&panels, pass.taps(), out, |i, width, padded, out| {
            let from = |k: usize| {
                let (o, tap) = (k % z.o, k / z.o);
                let r = row.remainder + z.stride * (row.taps - 1 - tap / column.taps);
                let s = column.remainder + z.stride * (column.taps - 1 - tap % column.taps);
                ((o * z.r + r) * z.s + s) * z.c + panels.start(i)
            };
            pack::pack(level, w, from, 1, width, padded, out);
        });
    }
    let work = Work { level, panels, window, passes: &passes, packed: &packed };
    work.run(z.n, dy, dx, z.h * z.w * z.c)
}

/// A 1x1 convolution is a product of all pixels with the weights.
fn product(level: Level, m: usize, n: usize, k: usize, a: Mat, b: Mat, out: &mut [f32]) -> Result<()> {
    Job::new(level, m, n, k, a, b, false, out, n)?.parallel(out)
}

/// Input rows (or columns) of one remainder; see [`input_gradient_at`].
#[derive(Debug)]
struct Phase {
    remainder: usize,
    /// Kernel rows that they meet.
    taps: usize,
    /// The first of them, and how many there are, one stride apart.
    start: usize,
    count: usize,
    /// Output row that the first one meets at its last kernel row; may lie outside.
    first: isize,
}

impl Phase {
    /// `None` if no input row has this remainder.
    fn new(z: &Sizes, remainder: usize, kernel: usize, size: usize) -> Option<Phase> {
        let m = z.padding.saturating_sub(remainder).div_ceil(z.stride);
        let start = z.stride * m + remainder - z.padding;
        if start >= size {
            return None;
        }
        let taps = kernel.saturating_sub(remainder).div_ceil(z.stride);
        let count = (size - 1 - start) / z.stride + 1;
        Some(Phase { remainder, taps, start, count, first: m as isize + 1 - taps as isize })
    }

    /// Output rows that any of the phases meets: first, and one behind the last.
    fn range(phases: &[Phase]) -> (isize, isize) {
        let met = || phases.iter().filter(|p| p.taps > 0);
        let first = met().map(|p| p.first).min().unwrap_or(0);
        let last = met().map(|p| p.first + (p.count + p.taps) as isize - 1).max().unwrap_or(0);
        (first, last)
    }
}

/// Calls `pack(panel, its columns, with filling, its part of out)` for every panel.
fn pack_parallel(
    panels: &Panels,
    taps: usize,
    out: &mut [f32],
    pack: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) {
    let step = pack::VECTORS * panels.lanes * taps;
    parallel::chunks(out, step, |start, out| {
        let i = start / step;
        pack(i, panels.width(i), panels.vectors(i) * panels.lanes, out);
    });
}

/// Passes over windows of the same images.
struct Work<'a> {
    level: Level,
    panels: Panels,
    window: Window,
    passes: &'a [Pass],
    packed: &'a [f32],
}

impl Work<'_> {
    /// `out_image` is the number of output elements of an image.
    fn run(&self, n: usize, input: &[f32], out: &mut [f32], out_image: usize) -> Result<()> {
        if input.is_empty() {
            out.fill(0.0);
            return Ok(());
        }
        let image_bytes = 4 * self.window.len().max(self.window.image());
        if 4 * self.packed.len() <= LARGE_WEIGHTS && n >= 4 {
            let images = (GROUP_BYTES / image_bytes.max(1)).clamp(1, n.div_ceil(8));
            return self.by_images(n, images, input, out, out_image);
        }
        let images = (SHARED_BYTES / image_bytes.max(1)).clamp(1, n);
        for first in (0..n).step_by(images) {
            let count = images.min(n - first);
            let input = &input[first * self.window.image()..(first + count) * self.window.image()];
            let out = &mut out[first * out_image..(first + count) * out_image];
            self.by_weights(count, input, out, out_image)?;
        }
        Ok(())
    }

    /// Every task takes some images through all passes and panels.
    fn by_images(
        &self,
        n: usize,
        images: usize,
        input: &[f32],
        out: &mut [f32],
        out_image: usize,
    ) -> Result<()> {
        let shared = Shared::new(out);
        (0..n.div_ceil(images)).into_par_iter().try_for_each(|task| {
            let _op = memory::operation("conv2d");
            let first = task * images;
            let count = images.min(n - first);
            let input = &input[first * self.window.image()..(first + count) * self.window.image()];
            let copied = !self.window.is_inside();
            let mut copy = Scratch::<f32>::new(if copied { count * self.window.len() } else { 0 })?;
            let (input, input_step) = if copied {
                self.window.copy(input, &mut copy);
                (&copy[..], self.window.len())
            } else {
                (input, self.window.image())
            };
            let images = Images {
                input,
                input_step,
                count,
                out: shared,
                out_start: first * out_image,
                out_step: out_image,
            };
            for pass in self.passes {
                let panels = 0..self.panels.count();
                // SAFETY: each task writes its own images' output.
                unsafe { pass.run(self.level, &self.panels, self.packed, images, 0..pass.rows, panels) };
            }
            Ok::<(), Error>(())
        })
    }

    /// All windows first, then every task takes one panel of a pass over some rows of all images.
    fn by_weights(&self, n: usize, input: &[f32], out: &mut [f32], out_image: usize) -> Result<()> {
        let copied = !self.window.is_inside();
        let mut copy = Scratch::<f32>::new(if copied { n * self.window.len() } else { 0 })?;
        let (input, input_step) = if copied {
            self.window.copy_parallel(input, &mut copy);
            (&copy[..], self.window.len())
        } else {
            (input, self.window.image())
        };
        let count = self.panels.count();
        // Parts of the images, then of an image's rows, until there are enough tasks.
        let parts = 16usize.div_ceil(count * self.passes.len()).min(n);
        let bands = if n < 4 { 16usize.div_ceil(count * self.passes.len() * parts) } else { 1 };
        let each = n.div_ceil(parts);
        let shared = Shared::new(out);
        (0..self.passes.len() * count * parts * bands).into_par_iter().for_each(|task| {
            let (band, part) = (task % bands, task / bands % parts);
            let (panel, pass) = (task / bands / parts % count, &self.passes[task / bands / parts / count]);
            let first = (part * each).min(n);
            let images = Images {
                input: &input[first * input_step..],
                input_step,
                count: each.min(n - first),
                out: shared,
                out_start: first * out_image,
                out_step: out_image,
            };
            let height = pass.rows.div_ceil(bands);
            let rows = (band * height).min(pass.rows)..((band + 1) * height).min(pass.rows);
            // SAFETY: tasks differ in pass (other pixels), panel (other channels), images or rows.
            unsafe { pass.run(self.level, &self.panels, self.packed, images, rows, panel..panel + 1) };
        });
        Ok(())
    }
}
