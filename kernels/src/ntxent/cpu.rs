//! CPU backend: tiles of similarities, a task's own rows against [`STREAMED`] columns at a time, made by the
//! matrix product in a buffer that stays in the second-level cache.
//!
//! Forward keeps a running maximum and sum a row. Backward makes the tile again, turns it into the weights G
//! in place and multiplies it with the streamed vectors; for the columns' gradient the roles are exchanged, so
//! that each task owns what it writes. Where rows and columns are one array, as SimCLR's are, one tile serves
//! both. Tiles depend on R and C alone.

use super::tile::{accumulate, dot, similarities, weights_by_column, weights_by_row};
use crate::softmax_xent::lanes::{exp_sum, maximum};
use engine::Result;
use engine::memory::Scratch;
use rayon::prelude::*;

/// Vectors of the other side in a tile: as many as the matrix product takes in one pass of its inner loop.
const STREAMED: usize = 384;

/// Vectors of its own side in a task: enough to pay for packing the streamed ones, and at least 32 tasks
/// where there are vectors for them. A tile is at most 336 KiB.
fn own_count(n: usize) -> usize {
    n.div_ceil(32).next_multiple_of(16).clamp(16, 224)
}

/// What each row should be near.
#[derive(Clone, Copy)]
pub enum Positive<'a> {
    /// [R] columns.
    Column(&'a [i32]),
    /// [R, D] vectors.
    Vector(&'a [f32]),
}

/// The arguments, checked: every positive is a column that its row may see.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    /// [R, D]
    pub rows: &'a [f32],
    /// [C, D]
    pub columns: &'a [f32],
    /// D
    pub d: usize,
    /// What each row should be near.
    pub positive: Positive<'a>,
    /// Divides the inner products.
    pub temperature: f32,
    /// Row i does not see column i + this.
    pub self_column: Option<usize>,
    /// R
    pub row_count: usize,
    /// C
    pub column_count: usize,
}

/// What comes from above in backward.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    /// [R]
    pub dloss: &'a [f32],
    /// [R], from forward.
    pub lse: &'a [f32],
}

impl Problem<'_> {
    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.d..(row + 1) * self.d]
    }

    /// The column that `row` must not see.
    fn hidden(&self, row: usize) -> Option<usize> {
        self.self_column.and_then(|offset| row.checked_add(offset))
    }

    /// The column that is `row`'s positive.
    fn positive_column(&self, row: usize) -> Option<usize> {
        match self.positive {
            Positive::Column(index) => Some(index[row] as usize),
            Positive::Vector(_) => None,
        }
    }
}

/// `at - start` if `at` lies in `start .. start + len`.
fn within(at: Option<usize>, start: usize, len: usize) -> Option<usize> {
    at.and_then(|at| at.checked_sub(start)).filter(|&at| at < len)
}

/// Sum of exponentials relative to the largest inner product so far.
#[derive(Clone, Copy)]
struct Running {
    /// Largest inner product (before the temperature).
    max: f32,
    /// Sum of exp((product - max) / temperature).
    sum: f64,
    /// The positive's inner product.
    positive: f32,
}

impl Running {
    fn add(&mut self, products: &[f32], inverse: f32) {
        let max = maximum(products);
        if max > self.max {
            self.sum *= ((f64::from(self.max) - f64::from(max)) * f64::from(inverse)).exp();
            self.max = max;
        }
        let shift = if self.max == f32::NEG_INFINITY { 0.0 } else { self.max };
        self.sum += exp_sum(products, shift, inverse);
    }
}

/// `loss` [R] and `lse` [R].
pub fn forward(p: &Problem, loss: &mut [f32], lse: &mut [f32]) -> Result<()> {
    let own = own_count(p.row_count);
    loss.par_chunks_mut(own)
        .zip(lse.par_chunks_mut(own))
        .enumerate()
        .try_for_each(|(i, (loss, lse))| forward_rows(p, i * own, loss, lse))
}

fn forward_rows(p: &Problem, first: usize, loss: &mut [f32], lse: &mut [f32]) -> Result<()> {
    let (m, d, c, inverse) = (loss.len(), p.d, p.column_count, 1.0 / p.temperature);
    let start = |row: usize| match p.positive {
        Positive::Column(_) => Running { max: f32::NEG_INFINITY, sum: 0.0, positive: 0.0 },
        Positive::Vector(v) => {
            let positive = dot(p.row(row), &v[row * d..(row + 1) * d]);
            Running { max: positive, sum: 1.0, positive }
        }
    };
    let mut running: Vec<Running> = (first..first + m).map(start).collect();
    let mut tile = Scratch::<f32>::new(m * STREAMED.min(c))?;
    for start in (0..c).step_by(STREAMED) {
        let n = STREAMED.min(c - start);
        let tile = &mut tile[..m * n];
        similarities(&p.rows[first * d..(first + m) * d], &p.columns[start * d..(start + n) * d], d, tile)?;
        for (i, (products, running)) in tile.chunks_mut(n).zip(&mut running).enumerate() {
            if let Some(at) = within(p.hidden(first + i), start, n) {
                products[at] = f32::NEG_INFINITY;
            }
            if let Some(at) = within(p.positive_column(first + i), start, n) {
                running.positive = products[at];
            }
            running.add(products, inverse);
        }
    }
    for ((loss, lse), r) in loss.iter_mut().zip(lse).zip(running) {
        let (temperature, log_sum) = (f64::from(p.temperature), r.sum.ln());
        *lse = (f64::from(r.max) / temperature + log_sum) as f32;
        *loss = ((f64::from(r.max) - f64::from(r.positive)) / temperature + log_sum) as f32;
    }
    Ok(())
}

/// `out` [A, D]: for each vector of `own` [A, D] the sum over `other` [B, D] of weight times vector.
///
/// `weigh(first, start, n, tile)` turns the inner products of own vectors `first ..` with others
/// `start .. start + n` (a row of `n` for each own vector) into weights, in place.
fn sweep(
    own: &[f32],
    other: &[f32],
    d: usize,
    out: &mut [f32],
    weigh: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) -> Result<()> {
    if d == 0 {
        return Ok(());
    }
    let (count, others) = (own_count(own.len() / d), other.len() / d);
    out.par_chunks_mut(count * d).enumerate().try_for_each(|(i, out)| {
        let (first, m) = (i * count, out.len() / d);
        let mut tile = Scratch::<f32>::new(m * STREAMED.min(others))?;
        out.fill(0.0);
        for start in (0..others).step_by(STREAMED) {
            let n = STREAMED.min(others - start);
            let tile = &mut tile[..m * n];
            let streamed = &other[start * d..(start + n) * d];
            similarities(&own[first * d..(first + m) * d], streamed, d, tile)?;
            weigh(first, start, n, tile);
            accumulate(tile, streamed, d, out)?;
        }
        Ok(())
    })
}

/// Two [`sweep`]s of `x` [A, D] over itself, with the same bits: inner products are symmetric, so one tile of
/// them serves both.
fn sweep_both(
    x: &[f32],
    d: usize,
    out: &mut [f32],
    out2: &mut [f32],
    weigh: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
    weigh2: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) -> Result<()> {
    if d == 0 {
        return Ok(());
    }
    let (count, others) = (own_count(x.len() / d), x.len() / d);
    let chunks = out.par_chunks_mut(count * d).zip(out2.par_chunks_mut(count * d));
    chunks.enumerate().try_for_each(|(i, (out, out2))| {
        let (first, m) = (i * count, out.len() / d);
        let mut tiles = Scratch::<f32>::new(2 * m * STREAMED.min(others))?;
        out.fill(0.0);
        out2.fill(0.0);
        for start in (0..others).step_by(STREAMED) {
            let n = STREAMED.min(others - start);
            let (tile, tile2) = tiles[..2 * m * n].split_at_mut(m * n);
            let streamed = &x[start * d..(start + n) * d];
            similarities(&x[first * d..(first + m) * d], streamed, d, tile)?;
            tile2.copy_from_slice(tile);
            weigh(first, start, n, tile);
            accumulate(tile, streamed, d, out)?;
            weigh2(first, start, n, tile2);
            accumulate(tile2, streamed, d, out2)?;
        }
        Ok(())
    })
}

/// dloss / temperature, the factor before every weight of a row.
fn coefficients(p: &Problem, up: &Upstream) -> Result<Scratch<f32>> {
    let mut out = Scratch::<f32>::new(p.row_count)?;
    for (out, &dloss) in out.iter_mut().zip(up.dloss) {
        *out = dloss / p.temperature;
    }
    Ok(out)
}

/// Turns inner products of rows `first ..` with columns `start .. start + n` into G, in place.
fn weigh_rows(
    p: &Problem,
    up: &Upstream,
    coefficient: &[f32],
    first: usize,
    start: usize,
    n: usize,
    tile: &mut [f32],
) {
    for (i, tile) in tile.chunks_mut(n).enumerate() {
        let row = first + i;
        weights_by_row(tile, p.temperature, up.lse[row], coefficient[row]);
        if let Some(at) = within(p.hidden(row), start, n) {
            tile[at] = 0.0;
        }
        if let Some(at) = within(p.positive_column(row), start, n) {
            tile[at] -= coefficient[row];
        }
    }
}

/// Turns inner products of columns `first ..` with rows `start .. start + n` into G transposed, in place.
fn weigh_columns(
    p: &Problem,
    up: &Upstream,
    coefficient: &[f32],
    first: usize,
    start: usize,
    n: usize,
    tile: &mut [f32],
) {
    let rows = start..start + n;
    let m = tile.len() / n;
    for tile in tile.chunks_mut(n) {
        weights_by_column(tile, p.temperature, &up.lse[rows.clone()], &coefficient[rows.clone()]);
    }
    for (k, row) in rows.enumerate() {
        if let Some(at) = within(p.hidden(row), first, m) {
            tile[at * n + k] = 0.0;
        }
        if let Some(at) = within(p.positive_column(row), first, m) {
            tile[at * n + k] -= coefficient[row];
        }
    }
}

/// `drows` [R, D], and `dcolumns` [C, D] if it is wanted.
pub fn gradients(p: &Problem, up: &Upstream, drows: &mut [f32], dcolumns: Option<&mut [f32]>) -> Result<()> {
    let coefficient = coefficients(p, up)?;
    let by_row = |first, start, n, tile: &mut [f32]| weigh_rows(p, up, &coefficient, first, start, n, tile);
    let by_column =
        |first, start, n, tile: &mut [f32]| weigh_columns(p, up, &coefficient, first, start, n, tile);
    match dcolumns {
        None => sweep(p.rows, p.columns, p.d, drows, by_row)?,
        Some(dcolumns) if std::ptr::eq(p.rows, p.columns) => {
            sweep_both(p.rows, p.d, drows, dcolumns, by_row, by_column)?;
        }
        Some(dcolumns) => {
            sweep(p.rows, p.columns, p.d, drows, by_row)?;
            sweep(p.columns, p.rows, p.d, dcolumns, by_column)?;
        }
    }
    if let Positive::Vector(vectors) = p.positive {
        add_positive(p, up, vectors, vectors, drows);
    }
    Ok(())
}

/// `dpositive` [R, D], zero where the positives are columns.
pub fn positive_gradient(p: &Problem, up: &Upstream, dpositive: &mut [f32]) {
    dpositive.fill(0.0);
    if let Positive::Vector(vectors) = p.positive {
        add_positive(p, up, vectors, p.rows, dpositive);
    }
}

/// Adds to each row of `out` [R, D] its positive's weight times the row of `other` [R, D].
fn add_positive(p: &Problem, up: &Upstream, vectors: &[f32], other: &[f32], out: &mut [f32]) {
    let d = p.d;
    crate::parallel::chunks(out, own_count(p.row_count) * d, |start, out| {
        for (i, out) in out.chunks_mut(d).enumerate() {
            let row = start / d + i;
            let range = row * d..(row + 1) * d;
            let s = dot(p.row(row), &vectors[range.clone()]) / p.temperature;
            let weight = (s - up.lse[row]).exp_m1() * up.dloss[row] / p.temperature;
            for (out, &other) in out.iter_mut().zip(&other[range]) {
                *out += weight * other;
            }
        }
    });
}
