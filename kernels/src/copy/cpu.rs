//! Copies of whole rows and conversions, in parallel over the output.

use crate::parallel::{GRAIN, chunks};
use engine::memory::Scratch;
use engine::{Element, Result};
use half::bf16;

/// Copies large runs in parallel, small ones at once.
fn copy_run<T: Element>(from: &[T], to: &mut [T]) {
    chunks(to, 4 * GRAIN, |start, to| to.copy_from_slice(&from[start..][..to.len()]));
}

/// Each part is (elements, run length): the result takes one run of every part in turn.
pub fn cat<T: Element>(parts: &[(&[T], usize)], out: &mut [T]) {
    let total: usize = parts.iter().map(|p| p.1).sum();
    if out.is_empty() {
        return;
    }
    let rows = if total >= 4 * GRAIN { 1 } else { (GRAIN / total).max(1) };
    chunks(out, rows * total, |start, out| {
        for (i, out) in out.chunks_exact_mut(total).enumerate() {
            let mut rest = out;
            for &(from, run) in parts {
                let (to, after) = rest.split_at_mut(run);
                copy_run(&from[(start / total + i) * run..][..run], to);
                rest = after;
            }
        }
    });
}

/// Rows of `width` elements by index. Indices are in range.
pub fn gather<T: Element>(x: &[T], width: usize, index: &[i32], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let rows = (GRAIN / width).max(1);
    chunks(out, rows * width, |start, out| {
        for (out, &i) in out.chunks_exact_mut(width).zip(&index[start / width..]) {
            out.copy_from_slice(&x[i as usize * width..][..width]);
        }
    });
}

/// Rows of `width` elements put at their index, which is in range. As many rows as a queue takes in a step are few.
pub fn put<T: Element>(from: &[T], width: usize, index: &[i32], x: &mut [T]) {
    for (row, &i) in index.iter().enumerate() {
        x[i as usize * width..][..width].copy_from_slice(&from[row * width..][..width]);
    }
}

/// Rows of `width` elements added at their index. Indices are in 0 .. n.
pub fn scatter_add(dy: &[f32], width: usize, index: &[i32], n: usize, out: &mut [f32]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    // The rows of dy by target, in order (counting sort): start[r] .. start[r + 1] of `order` go to row r.
    let mut start = vec![0usize; n + 1];
    index.iter().for_each(|&i| start[i as usize + 1] += 1);
    for r in 0..n {
        start[r + 1] += start[r];
    }
    let mut next = start.clone();
    let mut order = Scratch::<i32>::new(index.len())?;
    for (row, &i) in index.iter().enumerate() {
        order[next[i as usize]] = row as i32;
        next[i as usize] += 1;
    }
    let rows = (GRAIN / width).max(1);
    chunks(out, rows * width, |at, out| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let target = at / width + i;
            out.fill(0.0);
            for &row in &order[start[target]..start[target + 1]] {
                let row = &dy[row as usize * width..][..width];
                out.iter_mut().zip(row).for_each(|(o, &v)| *o += v);
            }
        }
    });
    Ok(())
}

/// An element type that converts through f64, which holds every value of all of them.
pub trait Number: Copy {
    /// This value, exactly.
    fn get(self) -> f64;
    /// The value nearest to `x`, by the rules of [`super::cast`].
    fn of(x: f64) -> Self;
}

macro_rules! number {
    ($t:ty) => {
        impl Number for $t {
            #[inline(always)]
            fn get(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn of(x: f64) -> $t {
                x as $t
            }
        }
    };
}
number!(f32);
number!(i32);
number!(u8);

impl Number for bf16 {
    #[inline(always)]
    fn get(self) -> f64 {
        f64::from(f32::from(self))
    }
    #[inline(always)]
    fn of(x: f64) -> bf16 {
        // Rounded to odd in between, so that the second rounding sees whether digits were lost in the first.
        let near = x as f32;
        let wide = f64::from(near);
        if wide == x || x.is_nan() {
            return bf16::from_f32(near);
        }
        let bits = near.to_bits() - u32::from(wide.abs() > x.abs());
        bf16::from_f32(f32::from_bits(bits | 1))
    }
}

/// Each element in another type.
pub fn cast<S: Number + Element, D: Number + Element>(x: &[S], out: &mut [D]) {
    chunks(out, GRAIN, |start, out| {
        for (o, &v) in out.iter_mut().zip(&x[start..]) {
            *o = D::of(v.get());
        }
    });
}
