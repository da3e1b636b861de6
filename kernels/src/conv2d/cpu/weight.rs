//! Weight gradient: sums over all output pixels, kept in registers.
//!
//! For one kernel row the (column, channel) pairs that an output pixel meets are one contiguous run of the
//! image. A tile is either output channels x a part of the run ([`Orientation::Channels`]: the result has the
//! weights' layout) or, for short runs such as an RGB stem's, run x output channels ([`Orientation::Run`]).

use super::pad::Window;
use super::{GROUP_BYTES, SHARED_BYTES};
use crate::conv2d::Sizes;
use crate::matmul::micro::{self, GROUPS, Panel, Shared, Tile, Walk};
use crate::matmul::pack::{self, Panels, VECTORS};
use crate::parallel;
use crate::simd::Level;
use engine::memory::{self, Scratch};
use engine::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of partial sums that may exist beside the result.
const PARTIAL_BYTES: usize = 5 << 19;

/// Bytes of the gradient above which threads share out the gradient rather than the images: more would not
/// stay in the second-level cache beside a group of images.
const LARGE_GRADIENT: usize = 600 << 10;

/// Output pixels whose part of a panel stays in the first-level cache.
const PIXELS: usize = 256;

/// Output channels of a block of dy when it is copied.
const CHANNELS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orientation {
    /// Rows are output channels, vectors run over (column, channel).
    Channels,
    /// Rows run over (column, channel), vectors are output channels.
    Run,
}

/// What all tasks share.
struct Job<'a> {
    level: Level,
    z: &'a Sizes,
    window: Window,
    orientation: Orientation,
    /// Columns of a tile: the run, or the output channels.
    panels: Panels,
}

/// Padded images and their dy, from output row `top` to before `bottom`.
#[derive(Clone, Copy)]
struct Group<'a> {
    top: usize,
    bottom: usize,
    x: &'a [f32],
    x_image: usize,
    dy: &'a [f32],
    /// Elements of dy from one pixel to the next.
    dy_pixel: usize,
    count: usize,
}

/// See [`crate::conv2d::weight_gradient`].
pub(in crate::conv2d) fn weight_gradient_at(
    level: Level,
    z: &Sizes,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) -> Result<()> {
    if dw.is_empty() {
        return Ok(());
    }
    if x.is_empty() || dy.is_empty() {
        dw.fill(0.0);
        return Ok(());
    }
    let window = if z.padding == 0 {
        Window { h: z.h, w: z.w, c: z.c, top: 0, left: 0, rows: z.h, columns: z.w }
    } else {
        let border = -(z.padding as isize);
        let (rows, columns) = ((z.p - 1) * z.stride + z.r, (z.q - 1) * z.stride + z.s);
        Window { h: z.h, w: z.w, c: z.c, top: border, left: border, rows, columns }
    };
    let run = z.s * z.c;
    let (orientation, columns) = match run % micro::lanes(level) {
        0 => (Orientation::Channels, run),
        _ => (Orientation::Run, z.o),
    };
    let job = Job { level, z, window, orientation, panels: Panels::new(level, columns) };
    match orientation == Orientation::Channels && 4 * dw.len() > LARGE_GRADIENT {
        true => job.by_weights(x, dy, dw),
        false => job.by_images(x, dy, dw),
    }
}

impl Job<'_> {
    /// Chunks of images, which depend on the sizes alone, have partial sums that are added in order.
    fn by_images(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let z = self.z;
        let size = match self.orientation {
            Orientation::Channels => dw.len(),
            Orientation::Run => z.r * z.s * z.c * self.panels.padded(),
        };
        let chunks = (PARTIAL_BYTES / (4 * size)).clamp(2, 16).min(z.n);
        let chunk = z.n.div_ceil(chunks);
        let chunks = z.n.div_ceil(chunk);
        let (image, pixels) = (self.window.image(), z.p * z.q);
        let fill = self.orientation == Orientation::Run && self.panels.padded() != z.o;
        let dy_pixel = if fill { self.panels.padded() } else { z.o };
        let copied = !self.window.is_inside();
        let bytes = 4 * (self.window.len().max(image) + pixels * dy_pixel);
        let group = (GROUP_BYTES / bytes.max(1)).clamp(1, chunk);
        let mut partial = Scratch::<f32>::new(chunks * size)?;
        partial.par_chunks_mut(size).enumerate().try_for_each(|(i, partial)| {
            let _op = memory::operation("conv2d_wgrad");
            let images = i * chunk..((i + 1) * chunk).min(z.n);
            let mut padded = Scratch::<f32>::new(if copied { group * self.window.len() } else { 0 })?;
            let mut filled = Scratch::<f32>::new(if fill { group * pixels * dy_pixel } else { 0 })?;
            for first in images.clone().step_by(group) {
                let count = group.min(images.end - first);
                let mut x = &x[first * image..(first + count) * image];
                let mut dy = &dy[first * pixels * z.o..(first + count) * pixels * z.o];
                if copied {
                    self.window.copy(x, &mut padded);
                    x = &padded;
                }
                if fill {
                    for (from, to) in dy.chunks_exact(z.o).zip(filled.chunks_exact_mut(dy_pixel)) {
                        to[..z.o].copy_from_slice(from);
                        to[z.o..].fill(0.0);
                    }
                    dy = &filled;
                }
                let x_image = if copied { self.window.len() } else { image };
                let out = Shared::new(partial);
                // Bands of a large image stay in the second-level cache.
                let height = (GROUP_BYTES * z.p / bytes.max(1)).clamp(1, z.p);
                for top in (0..z.p).step_by(height) {
                    let bottom = (top + height).min(z.p);
                    let group = Group { top, bottom, x, x_image, dy, dy_pixel, count };
                    let accumulate = first > images.start || top > 0;
                    match self.orientation {
                        // SAFETY: this task owns `partial`.
                        Orientation::Channels => unsafe { self.channels(group, accumulate, out) },
                        // SAFETY: as above.
                        Orientation::Run => unsafe { self.run(group, accumulate, out) },
                    }
                }
            }
            Ok::<(), Error>(())
        })?;
        let taps = z.r * z.s * z.c;
        parallel::chunks(dw, parallel::GRAIN, |start, dw| match self.orientation {
            Orientation::Channels => {
                dw.copy_from_slice(&partial[start..start + dw.len()]);
                for partial in partial.chunks_exact(size).skip(1) {
                    dw.iter_mut().zip(&partial[start..]).for_each(|(sum, &x)| *sum += x);
                }
            }
            Orientation::Run => {
                for (i, sum) in dw.iter_mut().enumerate() {
                    let (o, tap) = ((start + i) / taps, (start + i) % taps);
                    let at = tap * self.panels.padded() + o;
                    *sum = partial.chunks_exact(size).map(|p| p[at]).fold(0.0, |a, b| a + b);
                }
            }
        });
        Ok(())
    }

    /// Tasks share out kernel rows and parts of the run, and each sees all images.
    fn by_weights(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let z = self.z;
        let (image, pixels) = (self.window.image(), z.p * z.q);
        let copied = !self.window.is_inside();
        let x_image = if copied { self.window.len() } else { image };
        let shared = (SHARED_BYTES / (4 * x_image).max(1)).clamp(1, z.n);
        let mut padded = Scratch::<f32>::new(if copied { shared * x_image } else { 0 })?;
        let parts = (if z.r > 1 { 2 } else { 4 }).min(self.panels.count());
        let part = self.panels.count().div_ceil(parts);
        let group = (PIXELS / pixels).clamp(1, shared);
        let out = Shared::new(dw);
        for start in (0..z.n).step_by(shared) {
            let end = (start + shared).min(z.n);
            let mut x = &x[start * image..end * image];
            if copied {
                let padded = &mut padded[..(end - start) * x_image];
                self.window.copy_parallel(x, padded);
                x = padded;
            }
            (0..parts * z.r).into_par_iter().try_for_each(|task| {
                let _op = memory::operation("conv2d_wgrad");
                let (r, first) = (task / parts, task % parts * part);
                let panels = first.min(self.panels.count())..(first + part).min(self.panels.count());
                let mut space = Scratch::<f32>::new(group * pixels * (z.o + VECTORS * self.panels.lanes))?;
                for first in (start..end).step_by(group) {
                    let count = group.min(end - first);
                    let x = &x[(first - start) * x_image..(first - start + count) * x_image];
                    let dy = &dy[first * pixels * z.o..(first + count) * pixels * z.o];
                    let group = Group { top: 0, bottom: z.p, x, x_image, dy, dy_pixel: z.o, count };
                    // SAFETY: tasks differ in kernel row or panels.
                    unsafe { self.row(group, r, panels.clone(), first > 0, &mut space, out) };
                }
                Ok::<(), Error>(())
            })?;
        }
        Ok(())
    }

    /// The whole gradient in the weights' layout.
    ///
    /// # Safety
    /// No other thread may access `out` meanwhile.
    unsafe fn channels(&self, group: Group, accumulate: bool, out: Shared) {
        let z = self.z;
        let line = self.window.columns * z.c;
        let run = z.s * z.c;
        let walk = Walk {
            a_rows: micro::row_multiples(1),
            a_outer: z.p * z.q * group.dy_pixel,
            a_segment: z.q * group.dy_pixel,
            a_step: group.dy_pixel,
            b_outer: group.x_image,
            b_segment: z.stride * line,
            b_step: z.stride * z.c,
            out_row: z.r * run,
            accumulate,
            ..self.steps(&group)
        };
        let a = group.dy[group.top * z.q * group.dy_pixel..].as_ptr();
        for r in 0..z.r {
            for i in 0..self.panels.count() {
                let out = out.get().wrapping_add(r * run + self.panels.start(i));
                let b = group.x[(group.top * z.stride + r) * line + self.panels.start(i)..].as_ptr();
                // SAFETY: the window holds every pixel that a tap meets, the run is whole vectors, and the
                // caller vouches for the output.
                unsafe { self.panel(i, z.o).run(&walk, a, b, out) };
            }
        }
    }

    /// Panel `i` of `rows` adjacent rows.
    fn panel(&self, i: usize, rows: usize) -> Panel {
        let (vectors, columns) = (self.panels.vectors(i), self.panels.width(i));
        Panel { level: self.level, vectors, columns, rows, a_row: 1 }
    }

    /// Some panels of kernel row `r` of the gradient, `out` in the weights' layout. Both operands are copied to
    /// one place first: with many channels the pixels' distance is a power of two that maps them all to a few
    /// cache sets. `space` is room for all channels of dy and one panel of every pixel.
    ///
    /// # Safety
    /// No other thread may access these elements of `out` meanwhile.
    unsafe fn row(
        &self,
        group: Group,
        r: usize,
        panels: Range<usize>,
        accumulate: bool,
        space: &mut [f32],
        out: Shared,
    ) {
        let z = self.z;
        let line = self.window.columns * z.c;
        let run = z.s * z.c;
        let pixels = group.count * z.p * z.q;
        // dy as [block of channels][pixel][channel].
        let (dy, x) = space.split_at_mut(pixels * z.o);
        for (i, dy) in dy.chunks_mut(pixels * CHANNELS).enumerate() {
            let width = dy.len() / pixels;
            pack::pack(self.level, group.dy, |k| k * z.o + i * CHANNELS, 1, width, width, dy);
        }
        for i in panels {
            let width = self.panels.vectors(i) * self.panels.lanes;
            let x = &mut x[..pixels * width];
            for (k, row) in x.chunks_exact_mut(z.q * width).enumerate() {
                let from = k / z.p * group.x_image + (k % z.p * z.stride + r) * line + self.panels.start(i);
                pack::pack(self.level, group.x, |q| from + q * z.stride * z.c, 1, width, width, row);
            }
            for (block, dy) in dy.chunks(pixels * CHANNELS).enumerate() {
                let channels = dy.len() / pixels;
                let walk = Walk {
                    a_rows: micro::row_multiples(1),
                    outer: 1,
                    segments: 1,
                    len: pixels,
                    a_step: channels,
                    b_step: width,
                    out_row: z.r * run,
                    accumulate,
                    ..Walk::default()
                };
                let start = (block * CHANNELS * z.r + r) * run + self.panels.start(i);
                let out = out.get().wrapping_add(start);
                // SAFETY: both copies hold all pixels, and the caller vouches for the output.
                unsafe { self.panel(i, channels).run(&walk, dy.as_ptr(), x.as_ptr(), out) };
            }
        }
    }

    /// The whole gradient as `[R, S, C, O with filling]`.
    ///
    /// # Safety
    /// No other thread may access `out` meanwhile.
    unsafe fn run(&self, group: Group, accumulate: bool, out: Shared) {
        let z = self.z;
        let line = self.window.columns * z.c;
        let run = z.s * z.c;
        let padded = self.panels.padded();
        let walk = Walk {
            a_rows: micro::row_multiples(1),
            a_outer: group.x_image,
            a_segment: z.stride * line,
            a_step: z.stride * z.c,
            b_outer: z.p * z.q * group.dy_pixel,
            b_segment: z.q * group.dy_pixel,
            b_step: group.dy_pixel,
            out_row: padded,
            accumulate,
            ..self.steps(&group)
        };
        for i in 0..self.panels.count() {
            let vectors = self.panels.vectors(i);
            let b = group.dy[group.top * z.q * group.dy_pixel + self.panels.start(i)..].as_ptr();
            let columns = vectors * self.panels.lanes;
            let panel = Panel { level: self.level, vectors, columns, rows: run, a_row: 1 };
            let first = |r: usize| group.x[(group.top * z.stride + r) * line..].as_ptr();
            let to = |r: usize| out.get().wrapping_add(r * run * padded + self.panels.start(i));
            // Runs of one or three channels make small tiles: all kernel rows go into one.
            let whole = if z.r <= GROUPS { micro::kernel(self.level, z.r, run, vectors) } else { None };
            if whole.is_some() {
                let row = |g: usize| g.min(z.r - 1);
                let a = std::array::from_fn(|g| first(row(g)));
                let tile = Tile { a, b, out: std::array::from_fn(|g| to(row(g))), columns };
                // SAFETY: as below.
                unsafe { micro::call(whole, &walk, &tile) };
                continue;
            }
            for r in 0..z.r {
                // SAFETY: the window holds every pixel that a tap meets, dy's rows are whole vectors, and the
                // caller vouches for the output.
                unsafe { panel.run(&walk, first(r), b, to(r)) };
            }
        }
    }

    /// Loop counts over the pixels of a group; one long loop where pixels of both sides are evenly spaced.
    fn steps(&self, group: &Group) -> Walk {
        let z = self.z;
        let rows = group.bottom - group.top;
        if z.is_product() && (rows == z.p || group.count == 1) {
            return Walk { outer: 1, segments: 1, len: group.count * rows * z.q, ..Walk::default() };
        }
        Walk { outer: group.count, segments: rows, len: z.q, ..Walk::default() }
    }
}
