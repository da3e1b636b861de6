//! Launches of `gather.cu`, `scatter.cu` and `cast.cu`.

use crate::cuda::{THREADS, address_mut};
use crate::divisor::Divisor;
use crate::reduce;
use engine::cuda::{Kernel, Launch};
use engine::{DType, Result, Tensor};

pub(crate) mod gather {
    crate::cuda::kernels! {
        family: "copy", file: "gather.cu", options: [];
        GATHER_16 = "copy_gather_16";
        GATHER_8 = "copy_gather_8";
        GATHER_4 = "copy_gather_4";
        GATHER_2 = "copy_gather_2";
        GATHER_1 = "copy_gather_1";
        PUT_16 = "copy_put_16";
        PUT_8 = "copy_put_8";
        PUT_4 = "copy_put_4";
        PUT_2 = "copy_put_2";
        PUT_1 = "copy_put_1";
    }
}
pub(crate) mod scatter {
    crate::cuda::typed_kernels! {
        family: "copy", file: "scatter.cu", options: [];
        SCATTER_ADD = "copy_scatter_add";
        SCATTER_ADD_PARTIAL = "copy_scatter_add_partial";
        HOT_ROWS = "copy_scatter_hot_rows";
        HOT = "copy_scatter_hot";
        HOT_SUM = "copy_scatter_hot_sum";
    }
}
pub(crate) mod cast {
    crate::cuda::kernels! {
        family: "copy", file: "cast.cu", options: [];
        F32_BF16 = "copy_cast_f32_bf16";
        F32_I32 = "copy_cast_f32_i32";
        F32_U8 = "copy_cast_f32_u8";
        BF16_F32 = "copy_cast_bf16_f32";
        BF16_I32 = "copy_cast_bf16_i32";
        BF16_U8 = "copy_cast_bf16_u8";
        I32_F32 = "copy_cast_i32_f32";
        I32_BF16 = "copy_cast_i32_bf16";
        I32_U8 = "copy_cast_i32_u8";
        U8_F32 = "copy_cast_u8_f32";
        U8_BF16 = "copy_cast_u8_bf16";
        U8_I32 = "copy_cast_u8_i32";
    }
}

/// Units (or groups of elements) of a thread: see the `.cu` files.
pub(super) const UNITS: usize = 4;
/// Elements of `size` bytes of the widest unit, up to 16 bytes, in which `whole` numbers of elements and the addresses of
/// `tensors` come.
pub(super) fn unit(size: usize, tensors: &[&Tensor], whole: impl Fn(usize) -> bool) -> usize {
    let fits = |n: &usize| n * size <= 16 && whole(*n) && tensors.iter().all(|t| t.is_aligned(n * size));
    [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Rows of x by index, as a tensor of `shape`.
#[track_caller]
pub fn gather(x: &Tensor, index: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let name = "gather_rows";
    let size = x.dtype().size();
    let mut out = Tensor::empty(shape, x.dtype(), x.device())?;
    if out.is_empty() {
        return Ok(out);
    }
    let (rows, width) = (x.shape()[0], out.len() / index.len());
    let n = unit(size, &[x, &out], |n| width.is_multiple_of(n));
    let kernel: &'static Kernel = match n * size {
        16 => &gather::GATHER_16,
        8 => &gather::GATHER_8,
        4 => &gather::GATHER_4,
        2 => &gather::GATHER_2,
        _ => &gather::GATHER_1,
    };
    let missing: u32 = match x.dtype() {
        DType::F32 => 0x7fc0_0000,
        DType::BF16 => 0x7fc0_7fc0,
        DType::I32 | DType::U8 => 0,
    };
    let units = out.len() / n;
    let bytes = super::bytes(out.len(), size) + 4 * index.len();
    Launch::new(kernel, x.device())?
        .read(x)?
        .read(index)?
        .write(&mut out)?
        .value(units as u64)
        .value(rows as u64)
        .value(Divisor::new(name, width / n)?)
        .value(missing)
        .bytes(bytes)
        .grid(units.div_ceil(UNITS * THREADS))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// x[index[m]] = rows[m], in place.
#[track_caller]
pub fn put(x: &mut Tensor, index: &Tensor, rows: &Tensor) -> Result<()> {
    let name = "put_rows";
    if rows.is_empty() || x.is_empty() {
        return Ok(());
    }
    let (size, count, device) = (x.dtype().size(), x.shape()[0], x.device());
    let at = address_mut(name, "x", x)?;
    let width = rows.len() / index.len();
    let n = unit(size, &[x, rows], |n| width.is_multiple_of(n));
    let kernel: &'static Kernel = match n * size {
        16 => &gather::PUT_16,
        8 => &gather::PUT_8,
        4 => &gather::PUT_4,
        2 => &gather::PUT_2,
        _ => &gather::PUT_1,
    };
    let units = rows.len() / n;
    Launch::new(kernel, device)?
        .read(rows)?
        .read(index)?
        .value(at)
        .value(units as u64)
        .value(count as u64)
        .value(Divisor::new(name, width / n)?)
        .bytes(super::bytes(rows.len(), size) + 4 * index.len())
        .grid(units.div_ceil(UNITS * THREADS))
        .block(THREADS)
        .run()
}

/// Rows of dy `[m, ..]` added at their index in `n` rows, as a tensor of `shape`.
#[track_caller]
pub fn scatter_add(dy: &Tensor, index: &Tensor, n: usize, shape: &[usize]) -> Result<Tensor> {
    let name = "scatter_add_rows";
    let (dtype, device) = (dy.dtype(), dy.device());
    let m = index.len();
    if m == 0 || dy.is_empty() || n == 0 {
        return Tensor::zeros(shape, dtype, device);
    }
    let (pack, width) = (16 / dtype.size(), dy.len() / m);
    let vector = dy.is_aligned(16) && width.is_multiple_of(pack);
    let tiles = width.div_ceil(32 * pack);
    // A warp takes 16 rows; as many pieces as fill a large device, of four indices a row and of 256 at least.
    let warps = n.div_ceil(16) * tiles;
    let pieces = (2048 / warps).min(m / (4 * n)).min(m / 256).max(1);
    let step = m.div_ceil(pieces);
    let pieces = m.div_ceil(step);
    let (kernel, mut out) = match pieces {
        1 => (&scatter::SCATTER_ADD, Tensor::empty(shape, dtype, device)?),
        _ => (&scatter::SCATTER_ADD_PARTIAL, Tensor::empty(&[pieces, n, width], DType::F32, device)?),
    };
    // Many rows among which some may receive very many: see scatter.cu.
    let mut hot = match pieces == 1 && m >= 4 * LIMIT {
        true => Some(Tensor::empty(&[n], DType::I32, device)?),
        false => None,
    };
    Launch::new(kernel.of(name, dtype)?, device)?
        .read(dy)?
        .read(index)?
        .write(&mut out)?
        .value(m as u64)
        .value(width as u64)
        .value(n as u64)
        .value(step as u64)
        .value(pieces as u32)
        .value(tiles as u32)
        .value(u32::from(vector))
        .write_optional(hot.as_mut())?
        .flops(dy.len() as f64)
        .grid((warps * pieces).div_ceil(16 / pack))
        .block(2 * THREADS / pack)
        .run()?;
    if let Some(hot) = hot {
        add_hot(dy, index, &hot, tiles, vector, &mut out)?;
    }
    match pieces {
        1 => Ok(out),
        _ => reduce::cuda::sum_middle(name, &out, [1, pieces, n * width], 1.0, shape, dtype),
    }
}

/// Rows that one row receives before it is hot, as scatter.cu has it.
const LIMIT: usize = 512;
/// Pieces of the indices of a hot row.
const HOT_PIECES: usize = 64;

/// Rows of `out` [n, width] that `hot` [n] names, again from all rows of dy.
#[track_caller]
fn add_hot(
    dy: &Tensor,
    index: &Tensor,
    hot: &Tensor,
    tiles: usize,
    vector: bool,
    out: &mut Tensor,
) -> Result<()> {
    let name = "scatter_add_rows";
    let (dtype, device, m) = (dy.dtype(), dy.device(), index.len());
    let width = dy.len() / m;
    // Each has more than LIMIT of the m rows.
    let most = m / (LIMIT + 1);
    let step = m.div_ceil(HOT_PIECES);
    let pieces = m.div_ceil(step);
    let mut rows = Tensor::empty(&[most], DType::I32, device)?;
    let mut partial = Tensor::empty(&[most, pieces, width], DType::F32, device)?;
    Launch::new(scatter::HOT_ROWS.of(name, dtype)?, device)?
        .read(hot)?
        .write(&mut rows)?
        .value(hot.len() as u64)
        .value(most as u32)
        .grid(1)
        .block(1024)
        .run()?;
    // How many rows are hot, and how much is moved for them, the device alone knows.
    Launch::new(scatter::HOT.of(name, dtype)?, device)?
        .read(dy)?
        .read(index)?
        .read(&rows)?
        .write(&mut partial)?
        .value(m as u64)
        .value(width as u64)
        .value(step as u64)
        .value(pieces as u32)
        .value(tiles as u32)
        .value(most as u32)
        .value(u32::from(vector))
        .bytes(4 * (m + most))
        .grid((pieces * tiles).div_ceil(4))
        .block(128)
        .run()?;
    Launch::new(scatter::HOT_SUM.of(name, dtype)?, device)?
        .read(&partial)?
        .read(&rows)?
        .write(out)?
        .value(width as u64)
        .value(pieces as u32)
        .value(most as u32)
        .bytes(4 * most)
        .grid(width.div_ceil(THREADS))
        .block(THREADS)
        .run()
}

/// Each element in another type, which is not x's.
#[track_caller]
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let kernel: &'static Kernel = match (x.dtype(), dtype) {
        (DType::F32, DType::BF16) => &cast::F32_BF16,
        (DType::F32, DType::I32) => &cast::F32_I32,
        (DType::F32, _) => &cast::F32_U8,
        (DType::BF16, DType::F32) => &cast::BF16_F32,
        (DType::BF16, DType::I32) => &cast::BF16_I32,
        (DType::BF16, _) => &cast::BF16_U8,
        (DType::I32, DType::F32) => &cast::I32_F32,
        (DType::I32, DType::BF16) => &cast::I32_BF16,
        (DType::I32, _) => &cast::I32_U8,
        (DType::U8, DType::F32) => &cast::U8_F32,
        (DType::U8, DType::BF16) => &cast::U8_BF16,
        (DType::U8, _) => &cast::U8_I32,
    };
    let mut out = Tensor::empty(x.shape(), dtype, x.device())?;
    let aligned = x.is_aligned(16);
    Launch::new(kernel, x.device())?
        .read(x)?
        .write(&mut out)?
        .value(x.len() as u64)
        .value(u32::from(aligned))
        .grid(x.len().div_ceil(4 * UNITS * THREADS))
        .block(THREADS)
        .run()?;
    Ok(out)
}
