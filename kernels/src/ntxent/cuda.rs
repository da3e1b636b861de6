//! Launches of `forward.cu` and `backward.cu`, and of what [`super::tensor_core`] has instead for bf16.

use super::tensor_core::Variant;
use super::{Positive, Spec};
use engine::cuda::{Kernel, Launch};
use engine::{DType, Error, Result, Tensor};

/// Kernels of `forward.cu`.
pub(crate) mod forward {
    crate::cuda::typed_kernels! {
        family: "ntxent", file: "forward.cu", options: [];
        TILES = "ntxent_fwd_tiles";
        MERGE = "ntxent_fwd_merge";
    }
}

/// Kernels of `backward.cu`.
pub(crate) mod backward {
    crate::cuda::typed_kernels! {
        family: "ntxent", file: "backward.cu", options: [];
        ROWS = "ntxent_bwd_rows";
        COLUMNS = "ntxent_bwd_columns";
        POSITIVE = "ntxent_bwd_positive";
    }
}

/// A kernel that makes tiles of inner products: threads of a block, vectors that it owns, vectors that it meets at a
/// time, and elements of a gradient that it owns.
#[derive(Clone, Copy)]
pub(super) struct Maker {
    pub kernel: &'static Kernel,
    pub threads: usize,
    pub own: usize,
    pub other: usize,
    pub width: usize,
}

impl Maker {
    /// As in `tile.cuh` and `backward.cu`.
    const fn plain(kernel: &'static Kernel) -> Maker {
        Maker { kernel, threads: 128, own: 64, other: 128, width: 128 }
    }

    /// How many parts the columns of R rows and C columns are shared out in, and tiles of each but the last.
    pub fn splits(&self, r: usize, c: usize) -> (usize, usize) {
        let (row_tiles, column_tiles) = (r.div_ceil(self.own).max(1), c.div_ceil(self.other));
        let wanted = BLOCKS.div_ceil(row_tiles);
        let tiles = column_tiles.div_ceil(wanted).max(1);
        (column_tiles.div_ceil(tiles), tiles)
    }
}

/// Threads of a block whose warps have rows of their own, and in `ntxent_bwd_positive` one each.
const ROW_THREADS: usize = 256;
const ROWS: usize = ROW_THREADS / 32;
/// The same of `ntxent_fwd_merge`, whose warps have 8 rows each, the numbers in a sector of floats.
const MERGE_THREADS: usize = 128;
const MERGE_ROWS: usize = MERGE_THREADS / 32 * SECTOR;
const SECTOR: usize = 8;
/// Blocks that forward wants at least: two for each processor of the largest devices. A fixed number, so that the bits
/// do not depend on the device.
const BLOCKS: usize = 264;

/// `struct Problem` of `problem.cuh`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Problem {
    temperature: f32,
    inverse: f32,
    rows: i32,
    columns: i32,
    pub d: i32,
    self_offset: i32,
    pub aligned: u32,
}

const _: () = assert!(size_of::<Problem>() == 28);

impl Problem {
    #[track_caller]
    pub fn new(
        operation: &str,
        rows: &Tensor,
        columns: &Tensor,
        positive: Positive,
        spec: Spec,
    ) -> Result<Problem> {
        /// So that numbers of vectors and elements, with those of a tile more, fit an i32.
        const MOST: usize = 1 << 30;
        let (r, c, d) = (rows.shape()[0], columns.shape()[0], rows.shape()[1]);
        if r.max(c).max(d) > MOST {
            let text = format!("R, C and D are at most {MOST} on CUDA devices");
            return Err(Error::shape(operation, text).argument("rows", rows).argument("columns", columns));
        }
        let vectors = positive.vectors().is_none_or(|v| v.is_aligned(16));
        let aligned =
            (d * rows.dtype().size()).is_multiple_of(16) && rows.is_aligned(16) && columns.is_aligned(16);
        Ok(Problem {
            temperature: spec.temperature,
            inverse: 1.0 / spec.temperature,
            rows: r as i32,
            columns: c as i32,
            d: d as i32,
            // A column behind the last is none, whatever the row.
            self_offset: spec
                .self_column
                .filter(|&offset| offset < c)
                .map_or(i32::MIN, |offset| offset as i32),
            aligned: u32::from(aligned && vectors),
        })
    }

    /// Operations of `count` products of the size of the similarities.
    fn flops(&self, count: usize) -> f64 {
        2.0 * f64::from(self.rows) * f64::from(self.columns) * f64::from(self.d) * count as f64
    }
}

/// Bytes of a tensor.
fn size(tensor: &Tensor) -> usize {
    tensor.len() * tensor.dtype().size()
}

/// Bytes of two tensors, those that are of both counted once: the rows are often the columns too.
#[track_caller]
fn together(operation: &str, a: &Tensor, b: &Tensor) -> Result<usize> {
    let (a_start, b_start) = (a.device_address(operation)?, b.device_address(operation)?);
    let (a_end, b_end) = (a_start + size(a) as u64, b_start + size(b) as u64);
    let shared = a_end.min(b_end).saturating_sub(a_start.max(b_start));
    Ok(size(a) + size(b) - shared as usize)
}

impl<'a> Positive<'a> {
    fn columns(self) -> Option<&'a Tensor> {
        match self {
            Positive::Column(index) => Some(index),
            Positive::Vector(_) => None,
        }
    }

    fn vectors(self) -> Option<&'a Tensor> {
        match self {
            Positive::Column(_) => None,
            Positive::Vector(vectors) => Some(vectors),
        }
    }
}

/// The kernel that makes forward's tiles.
#[track_caller]
pub(super) fn forward_maker(dtype: DType, problem: &Problem) -> Result<Maker> {
    match Variant::of(dtype, problem) {
        Some(variant) => Ok(variant.forward()),
        None => plain_forward(dtype),
    }
}

#[track_caller]
pub(super) fn plain_forward(dtype: DType) -> Result<Maker> {
    Ok(Maker::plain(forward::TILES.of("ntxent", dtype)?))
}

/// Floats that forward needs beside its results: the reference and the sum of each part, in whole sectors, and the
/// positive's product, a row. Backward needs one a row where positives are vectors.
#[cfg(test)]
pub(super) fn workspace(maker: Maker, r: usize, c: usize) -> usize {
    2 * maker.splits(r, c).0 * r.next_multiple_of(SECTOR) + r
}

/// `loss` [R] and `lse` [R], f32.
#[track_caller]
pub fn loss(
    rows: &Tensor,
    columns: &Tensor,
    positive: Positive,
    spec: Spec,
    loss: &mut Tensor,
    lse: &mut Tensor,
) -> Result<()> {
    const OP: &str = "ntxent";
    let (dtype, device) = (rows.dtype(), rows.device());
    let problem = Problem::new(OP, rows, columns, positive, spec)?;
    let r = rows.shape()[0];
    let maker = forward_maker(dtype, &problem)?;
    let (splits, tiles) = maker.splits(r, columns.shape()[0]);
    let stride = r.next_multiple_of(SECTOR);
    let mut part_max = Tensor::empty(&[splits, stride], DType::F32, device)?;
    let mut part_sum = Tensor::empty(&[splits, stride], DType::F32, device)?;
    let mut positive_product = Tensor::empty(&[r], DType::F32, device)?;
    let both = together(OP, rows, columns)?;
    let parts = 2 * 4 * splits * r;
    // Positive columns' products go from one kernel to the other; positive vectors meet the rows in the second.
    let products = positive.columns().map_or(0, |index| size(index) + size(&positive_product));
    let vectors = positive.vectors().map_or(0, |vectors| size(rows) + size(vectors));
    Launch::new(maker.kernel, device)?
        .read(rows)?
        .read(columns)?
        .read_optional(positive.columns())?
        .write(&mut part_max)?
        .write(&mut part_sum)?
        .write(&mut positive_product)?
        .value(problem)
        .value(tiles as i32)
        .value(stride as i32)
        .bytes(both + parts + products)
        .flops(problem.flops(1))
        .grid3([r.div_ceil(maker.own), splits, 1])
        .block(maker.threads)
        .shared(maker.kernel.dynamic_shared)
        .run()?;
    Launch::new(forward::MERGE.of(OP, dtype)?, device)?
        .read(rows)?
        .read_optional(positive.columns())?
        .read_optional(positive.vectors())?
        .read(&part_max)?
        .read(&part_sum)?
        .read(&positive_product)?
        .write(loss)?
        .write(lse)?
        .value(problem)
        .value(splits as i32)
        .value(stride as i32)
        .bytes(products + vectors + parts + 8 * r)
        .grid(r.div_ceil(MERGE_ROWS))
        .block(MERGE_THREADS)
        .run()
}

/// `drows` [R, D], `dcolumns` [C, D] if it is wanted, and `dpositive` [R, D] where positives are vectors.
#[track_caller]
pub fn gradients(
    dloss: &Tensor,
    rows: &Tensor,
    columns: &Tensor,
    positive: Positive,
    spec: Spec,
    lse: &Tensor,
    drows: &mut Tensor,
    dcolumns: Option<&mut Tensor>,
    dpositive: Option<&mut Tensor>,
) -> Result<()> {
    const OP: &str = "ntxent_backward";
    let (dtype, device) = (rows.dtype(), rows.device());
    let problem = Problem::new(OP, rows, columns, positive, spec)?;
    let (r, c, d) = (rows.shape()[0], columns.shape()[0], rows.shape()[1]);
    let mut weights = None;
    if let (Some(vectors), Some(dpositive)) = (positive.vectors(), dpositive) {
        let weights = weights.insert(Tensor::empty(&[r], DType::F32, device)?);
        Launch::new(backward::POSITIVE.of(OP, dtype)?, device)?
            .read(rows)?
            .read(vectors)?
            .read(dloss)?
            .read(lse)?
            .write(weights)?
            .write(dpositive)?
            .value(problem)
            .grid(r.div_ceil(ROWS))
            .block(ROW_THREADS)
            .run()?;
    }
    let variant = Variant::of(dtype, &problem);
    let maker = match variant {
        Some(variant) => variant.rows(),
        None => Maker::plain(backward::ROWS.of(OP, dtype)?),
    };
    let widths = d.div_ceil(maker.width);
    let read = together(OP, rows, columns)? + positive.columns().map_or(0, size) + size(dloss) + size(lse);
    let vectors = positive.vectors().map_or(0, size) + weights.as_ref().map_or(0, size);
    Launch::new(maker.kernel, device)?
        .read(rows)?
        .read(columns)?
        .read_optional(positive.columns())?
        .read(dloss)?
        .read(lse)?
        .read_optional(positive.vectors())?
        .read_optional(weights.as_ref())?
        .write(drows)?
        .value(problem)
        .bytes(read + vectors + size(rows))
        .flops(problem.flops(widths + 1))
        .grid3([r.div_ceil(maker.own), widths, 1])
        .block(maker.threads)
        .shared(maker.kernel.dynamic_shared)
        .run()?;
    let Some(dcolumns) = dcolumns else { return Ok(()) };
    let maker = match variant {
        Some(variant) => variant.columns(),
        None => Maker::plain(backward::COLUMNS.of(OP, dtype)?),
    };
    Launch::new(maker.kernel, device)?
        .read(rows)?
        .read(columns)?
        .read_optional(positive.columns())?
        .read(dloss)?
        .read(lse)?
        .write(dcolumns)?
        .value(problem)
        .bytes(read + size(columns))
        .flops(problem.flops(widths + 1))
        .grid3([c.div_ceil(maker.own), widths, 1])
        .block(maker.threads)
        .shared(maker.kernel.dynamic_shared)
        .run()
}
