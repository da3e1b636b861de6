//! Any strided view to contiguous memory.
//!
//! Dimensions that step together are merged first. Then either the innermost ones lie in order and runs are copied, or
//! the view is a transposition: the dimension whose elements are neighbours in the source is walked together with the
//! last one in square tiles, so that each cache line read is used whole while it is in the cache.

use crate::parallel::{GRAIN, chunks};
use engine::{Element, Layout};
use rayon::prelude::*;

/// Side of a tile: a cache line of f32, and no more lines than a first-level cache has ways to spare.
const TILE: usize = 16;

/// A dimension: how many, and how far apart in the source.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dim {
    size: usize,
    stride: usize,
}

/// Dimensions of more than one element, neighbours that step together merged.
fn merged(layout: &Layout) -> Vec<Dim> {
    let mut dims: Vec<Dim> = Vec::new();
    for (&size, &stride) in layout.dims().iter().zip(layout.strides()) {
        match dims.last_mut() {
            _ if size == 1 => {}
            Some(last) if last.stride == size * stride => *last = Dim { size: last.size * size, stride },
            _ => dims.push(Dim { size, stride }),
        }
    }
    dims
}

/// Source position of the `index`-th element in row-major order of `dims`.
fn position(dims: &[Dim], mut index: usize) -> usize {
    let mut at = 0;
    for d in dims.iter().rev() {
        at += index % d.size * d.stride;
        index /= d.size;
    }
    at
}

/// Copies the elements of a view of `source` to `out`, in row-major order.
pub fn copy<T: Element>(source: &[T], layout: &Layout, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let source = &source[layout.offset()..];
    let dims = merged(layout);
    let Some((&last, leading)) = dims.split_last() else {
        out[0] = source[0];
        return;
    };
    if last.stride <= 1 {
        return runs(source, leading, last, out);
    }
    let near = (0..leading.len()).rev().filter(|&d| leading[d].stride > 0).min_by_key(|&d| leading[d].stride);
    match near {
        Some(d) if leading[d].stride < last.stride => transpose(source, leading, d, last, out),
        _ => runs(source, leading, last, out),
    }
}

/// One run of the last dimension after another.
fn runs<T: Element>(source: &[T], leading: &[Dim], last: Dim, out: &mut [T]) {
    let rows = (GRAIN / last.size).max(1);
    chunks(out, rows * last.size, |start, out| {
        for (i, out) in out.chunks_exact_mut(last.size).enumerate() {
            let from = &source[position(leading, start / last.size + i)..];
            match last.stride {
                0 => out.fill(from[0]),
                1 => out.copy_from_slice(&from[..last.size]),
                stride => out.iter_mut().zip(from.iter().step_by(stride)).for_each(|(o, &v)| *o = v),
            }
        }
    });
}

/// Dimension `near` of `leading` has a smaller step than the last: both are walked in tiles.
fn transpose<T: Element>(source: &[T], leading: &[Dim], near: usize, last: Dim, out: &mut [T]) {
    let (outer, dim, middle) = (&leading[..near], leading[near], &leading[near + 1..]);
    let repeats: usize = middle.iter().map(|d| d.size).product();
    let step = repeats * last.size;
    let plane = dim.size * step;
    let block = TILE * (GRAIN / (TILE * step)).max(1);
    let planes = (GRAIN / plane).max(1);
    let one_plane = |index: usize, out: &mut [T]| {
        let at = position(outer, index);
        chunks(out, block * step, |start, out| {
            let source = &source[at + start / step * dim.stride..];
            for m in 0..repeats {
                let offset = position(middle, m);
                tiles(&source[offset..], dim.stride, last, step, &mut out[m * last.size..]);
            }
        });
    };
    out.par_chunks_mut(planes * plane).enumerate().for_each(|(i, out)| {
        for (j, out) in out.chunks_exact_mut(plane).enumerate() {
            one_plane(i * planes + j, out);
        }
    });
}

/// Row i of `out`, `step` apart, takes `last.size` elements from `i * near` on.
fn tiles<T: Element>(source: &[T], near: usize, last: Dim, step: usize, out: &mut [T]) {
    for (block, rows) in out.chunks_mut(TILE * step).enumerate() {
        for column in (0..last.size).step_by(TILE) {
            let n = TILE.min(last.size - column);
            for (i, row) in rows.chunks_mut(step).enumerate() {
                let from = &source[(block * TILE + i) * near + column * last.stride..];
                for (j, o) in row[column..column + n].iter_mut().enumerate() {
                    *o = from[j * last.stride];
                }
            }
        }
    }
}
