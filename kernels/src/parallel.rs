//! Splitting work over threads so that results never depend on how many there are.
//!
//! Work is cut into pieces whose bounds depend on the sizes alone; a reduction keeps one partial result a
//! piece and adds them in order.

use rayon::prelude::*;
use std::ops::Range;

/// Elements that are worth a task of their own when each costs about a nanosecond.
pub const GRAIN: usize = 1 << 14;

/// `0 .. n` cut into pieces of `step` (the last may be shorter).
pub fn pieces(n: usize, step: usize) -> impl IndexedParallelIterator<Item = Range<usize>> {
    let step = step.max(1);
    (0..n.div_ceil(step)).into_par_iter().map(move |i| i * step..((i + 1) * step).min(n))
}

/// Calls `f(start, chunk)` for consecutive chunks of `step` elements of `out`, in parallel. A single chunk
/// runs on the calling thread.
pub fn chunks<T: Send>(out: &mut [T], step: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let step = step.max(1);
    if out.len() <= step {
        if !out.is_empty() {
            f(0, out);
        }
        return;
    }
    out.par_chunks_mut(step).enumerate().for_each(|(i, c)| f(i * step, c));
}

/// As [`chunks`] for two outputs that are cut in the same number of pieces.
pub fn chunks2<T: Send, U: Send>(
    a: &mut [T],
    step_a: usize,
    b: &mut [U],
    step_b: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    a.par_chunks_mut(step_a.max(1))
        .zip(b.par_chunks_mut(step_b.max(1)))
        .enumerate()
        .for_each(|(i, (a, b))| f(i, a, b));
}
