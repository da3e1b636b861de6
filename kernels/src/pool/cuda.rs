//! Launches of `pool.cu`.

use super::Sizes;
use crate::cuda::{THREADS, typed_kernels};
use crate::divisor::Divisor;
use crate::reduce;
use engine::cuda::Launch;
use engine::{Result, Tensor};

typed_kernels! {
    family: "pool", file: "pool.cu", options: [];
    MAX_FWD = "pool_max_fwd";
    MAX_BWD = "pool_max_bwd";
    AVERAGE_BWD = "pool_average_bwd";
}

/// Blocks in y, which go over the images.
const IMAGES: usize = 65_535;

/// Channels of a thread of the maximum, `FEW` of `pool.cu`.
const FEW: usize = 4;

/// `Sizes` of `pool.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Parameters {
    images: u32,
    h: u32,
    w: u32,
    c: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    p: u32,
    q: u32,
    channels: Divisor,
    width: Divisor,
    step: Divisor,
}

const _: () = assert!(size_of::<Parameters>() == 72);

/// How a launch goes over images of `rows` by `columns` results.
struct Cover {
    parameters: Parameters,
    vector: bool,
    /// Threads of an image.
    items: usize,
    grid: [usize; 3],
}

impl Cover {
    /// For tensors with channels innermost, of which a thread takes `few` where they allow it. Sizes that are no size of
    /// an image of 2^31 elements are an error.
    #[track_caller]
    fn new(
        name: &str,
        z: &Sizes,
        [rows, columns]: [usize; 2],
        few: usize,
        tensors: &[&Tensor],
    ) -> Result<Cover> {
        let vector = z.c.is_multiple_of(few) && tensors.iter().all(|t| t.is_aligned(few * t.dtype().size()));
        let channels = if vector { z.c / few } else { z.c };
        let items = rows * columns * channels;
        // Every product of sizes of an image stays below 2^31.
        let largest = (z.h * z.w).max(z.p * z.q).max(z.kernel.max(z.stride)) * z.c;
        Divisor::new(name, largest + z.kernel + z.stride)?;
        let parameters = Parameters {
            images: z.n as u32,
            h: z.h as u32,
            w: z.w as u32,
            c: z.c as u32,
            kernel: z.kernel as u32,
            stride: z.stride as u32,
            padding: z.padding as u32,
            p: z.p as u32,
            q: z.q as u32,
            channels: Divisor::new(name, channels)?,
            width: Divisor::new(name, columns)?,
            step: Divisor::new(name, z.stride)?,
        };
        let grid = [items.div_ceil(THREADS), z.n.min(IMAGES), 1];
        Ok(Cover { parameters, vector, items, grid })
    }
}

/// Maximum of windows; see [`super::max_forward`].
#[track_caller]
pub fn max_forward(z: &Sizes, x: &Tensor, y: &mut Tensor, index: &mut Tensor) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let name = "max_pool";
    let cover = Cover::new(name, z, [z.p, z.q], FEW, &[x, &*y, &*index])?;
    Launch::new(MAX_FWD.of(name, x.dtype())?, x.device())?
        .read(x)?
        .write(y)?
        .write(index)?
        .value(cover.items as u32)
        .value(cover.parameters)
        .value(u32::from(cover.vector))
        .grid3(cover.grid)
        .block(THREADS)
        .run()
}

/// Gradient of the maximum; see [`super::max_backward`].
#[track_caller]
pub fn max_backward(z: &Sizes, dy: &Tensor, index: &Tensor, dx: &mut Tensor) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let name = "max_pool_bwd";
    let cover = Cover::new(name, z, [z.h, z.w], FEW, &[dy, index, &*dx])?;
    Launch::new(MAX_BWD.of(name, dy.dtype())?, dy.device())?
        .read(dy)?
        .read(index)?
        .write(dx)?
        .value(cover.items as u32)
        .value(cover.parameters)
        .value(u32::from(cover.vector))
        .grid3(cover.grid)
        .block(THREADS)
        .flops(dy.len() as f64)
        .run()
}

/// Average over the pixels of x `[n, pixels, c]`.
#[track_caller]
pub fn global_average_forward(x: &Tensor, [n, pixels, c]: [usize; 3]) -> Result<Tensor> {
    match n * c {
        0 => Tensor::empty(&[n, c], x.dtype(), x.device()),
        _ => {
            let name = "global_average_pool";
            reduce::cuda::sum_middle(name, x, [n, pixels, c], pixels as f32, &[n, c], x.dtype())
        }
    }
}

/// Gradient of the average; see [`super::global_average_backward`].
#[track_caller]
pub fn global_average_backward(dy: &Tensor, dx: &mut Tensor) -> Result<()> {
    let &[n, h, w, c] = dx.shape() else { return Ok(()) };
    if dx.is_empty() {
        return Ok(());
    }
    let name = "global_average_pool_bwd";
    let z = Sizes { n, h, w, c, kernel: 1, stride: 1, padding: 0, p: 1, q: 1 };
    let pack = 16 / dy.dtype().size();
    let cover = Cover::new(name, &z, [h, w], pack, &[dy, &*dx])?;
    Launch::new(AVERAGE_BWD.of(name, dy.dtype())?, dy.device())?
        .read(dy)?
        .write(dx)?
        .value(cover.items as u32)
        .value(cover.parameters)
        .value(u32::from(cover.vector))
        .grid3(cover.grid)
        .block(THREADS)
        .run()
}
