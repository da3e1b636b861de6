//! Launches of `depthwise.cu`: convolutions whose groups have one input channel each.

use super::Sizes;
use crate::cuda::access;
use crate::divisor::{Divisor, side};
use crate::elementwise;
use engine::cuda::Launch;
use engine::{DType, Result, Tensor};

crate::cuda::typed_kernels! {
    family: "conv2d", file: "depthwise.cu", options: [];
    WEIGHTS = "conv2d_depthwise_weights";
    FORWARD = "conv2d_depthwise_fwd";
    FORWARD_WIDE = "conv2d_depthwise_fwd_wide";
    INPUT_GRADIENT = "conv2d_depthwise_dgrad";
    WEIGHT_GRADIENT = "conv2d_depthwise_wgrad";
    SUM = "conv2d_depthwise_sum";
}

/// Neighbouring pixels of a thread, and threads of a block.
const RUN: usize = 4;
const THREADS: usize = 256;
/// Kernel columns of which a thread of the weight gradient keeps the sums.
const COLUMNS_TOGETHER: usize = 4;
/// Blocks that a weight gradient wants at least: two for each processor of the largest devices. A fixed number, so that
/// the bits do not depend on the device.
const BLOCKS: usize = 264;

/// `Depthwise` of `depthwise.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Depthwise {
    /// N, H, W, C, R, S, O, P, Q, stride, dilation, multiplier.
    sizes: [u32; 12],
    /// Padding above and to the left.
    corner: [i32; 2],
    runs: u32,
    part: u32,
    across: Divisor,
    down: Divisor,
    by_stride: Divisor,
}
const _: () = assert!(size_of::<Depthwise>() == 100);

/// Who writes a pass's pixels: rows and columns of an image, and channels.
struct Plan {
    rows: usize,
    columns: usize,
    channels: usize,
    access: u32,
    /// Channels of a thread.
    pack: usize,
}

impl Plan {
    fn new(z: &Sizes, dtype: DType, [rows, columns, channels]: [usize; 3]) -> Plan {
        let pack = 16 / dtype.size();
        let whole = z.o == z.c && z.c.is_multiple_of(pack);
        Plan { rows, columns, channels, access: access(whole, true), pack: if whole { pack } else { 1 } }
    }

    /// Runs of all images.
    fn runs(&self, z: &Sizes) -> usize {
        z.n * self.rows * self.columns.div_ceil(RUN)
    }

    /// Threads of a block: packs of channels, and runs.
    fn block(&self) -> [usize; 2] {
        let packs = self.channels.div_ceil(self.pack).next_power_of_two().clamp(1, 32);
        [packs, THREADS / packs]
    }

    /// Blocks that all channels take.
    fn across(&self) -> usize {
        self.channels.div_ceil(self.pack * self.block()[0])
    }

    #[track_caller]
    fn sizes(&self, name: &str, z: &Sizes, corner: [isize; 2], part: usize) -> Result<Depthwise> {
        let sizes = [z.n, z.h, z.w, z.c, z.r, z.s, z.o, z.p, z.q, z.stride, z.dilation, z.o / z.c.max(1)];
        // What kernels count in 32 bits: runs, elements of a packed kernel and of a row of pixels, a padded image's coordinates.
        side(name, self.runs(z))?;
        side(name, (z.r * z.s).max(z.q + RUN) * z.o)?;
        side(name, (z.w + RUN) * z.c)?;
        side(name, 2 * (z.h.max(z.w) + 2 * z.padding + RUN * z.stride + z.dilation * z.r.max(z.s)))?;
        let mut small = [0; 12];
        for (small, size) in small.iter_mut().zip(sizes) {
            *small = side(name, size)?;
        }
        Ok(Depthwise {
            sizes: small,
            corner: corner.map(|c| c as i32),
            runs: self.runs(z) as u32,
            part: side(name, part)?,
            across: Divisor::new(name, self.columns.div_ceil(RUN))?,
            down: Divisor::new(name, self.rows)?,
            by_stride: Divisor::new(name, z.stride)?,
        })
    }
}

/// x where its packs can be read: these kernels read whole packs at multiples of 16 bytes alone.
#[track_caller]
fn aligned(x: &Tensor) -> Result<Tensor> {
    if x.is_aligned(16) { Ok(x.clone()) } else { elementwise::scale(x, 1.0) }
}

/// The weights as float32 [R, S, O], turned around where `flip`.
#[track_caller]
fn packed(name: &str, z: &Sizes, w: &Tensor, flip: bool) -> Result<Tensor> {
    let window = z.r * z.s;
    let mut packed = Tensor::empty(&[window, z.o], DType::F32, w.device())?;
    Launch::new(WEIGHTS.of(name, w.dtype())?, w.device())?
        .read(w)?
        .write(&mut packed)?
        .value(side(name, z.o)?)
        .value(side(name, window)?)
        .value(u32::from(flip))
        .grid3([z.o.div_ceil(THREADS), window, 1])
        .block(THREADS)
        .run()?;
    Ok(packed)
}

/// y = x * w.
#[track_caller]
pub(crate) fn forward(z: &Sizes, x: &Tensor, w: &Tensor, y: &mut Tensor) -> Result<()> {
    let packed = packed("conv2d", z, w, false)?;
    let padding = z.padding as isize;
    over_windows("conv2d", z, x, &packed, y, [padding; 2])
}

/// A forward pass, with the padding above and to the left.
#[track_caller]
fn over_windows(
    name: &str,
    z: &Sizes,
    x: &Tensor,
    packed: &Tensor,
    y: &mut Tensor,
    corner: [isize; 2],
) -> Result<()> {
    let plan = Plan::new(z, x.dtype(), [z.p, z.q, z.o]);
    let [packs, runs] = plan.block();
    let wide = plan.access != 0 && (z.stride, z.dilation) == (1, 1) && [5, 7].contains(&z.s);
    let kernel = if wide { &FORWARD_WIDE } else { &FORWARD };
    Launch::new(kernel.of(name, x.dtype())?, x.device())?
        .read(&aligned(x)?)?
        .read(packed)?
        .write(y)?
        .value(plan.sizes(name, z, corner, 0)?)
        .value(plan.access)
        .flops(super::flops(z))
        .grid3([plan.runs(z).div_ceil(runs), plan.across(), 1])
        .block3([packs, runs, 1])
        .run()
}

/// dx from dy: with stride 1 and one output a channel a forward pass over dy with the kernel turned around.
#[track_caller]
pub(crate) fn input_gradient(z: &Sizes, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()> {
    let name = "conv2d_dgrad";
    let turned = z.stride == 1 && z.o == z.c;
    let packed = packed(name, z, w, turned)?;
    let padding = z.padding as isize;
    if turned {
        let back = Sizes { h: z.p, w: z.q, p: z.h, q: z.w, ..*z };
        let corner = [z.r, z.s].map(|size| (z.dilation * (size - 1)) as isize - padding);
        return over_windows(name, &back, dy, &packed, dx, corner);
    }
    let plan = Plan::new(z, dy.dtype(), [z.h, z.w, z.c]);
    let [packs, runs] = plan.block();
    Launch::new(INPUT_GRADIENT.of(name, dy.dtype())?, dy.device())?
        .read(&aligned(dy)?)?
        .read(&packed)?
        .write(dx)?
        .value(plan.sizes(name, z, [padding; 2], 0)?)
        .value(plan.access)
        .flops(super::flops(z))
        .grid3([plan.runs(z).div_ceil(runs), plan.across(), 1])
        .block3([packs, runs, 1])
        .run()
}

/// dw from x and dy: the pixels shared out to parts, whose sums are added in order.
#[track_caller]
pub(crate) fn weight_gradient(z: &Sizes, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
    let name = "conv2d_wgrad";
    let plan = Plan::new(z, x.dtype(), [z.p, z.q, z.o]);
    let [packs, runs] = plan.block();
    let all = plan.runs(z).max(1);
    let taps = z.r * z.s.div_ceil(COLUMNS_TOGETHER);
    let wanted = BLOCKS.div_ceil((plan.across() * taps).max(1)).min(all.div_ceil(runs));
    let part = all.div_ceil(wanted);
    let (parts, window) = (all.div_ceil(part), z.r * z.s);
    let mut partial = Tensor::empty(&[parts, window, z.o], DType::F32, x.device())?;
    Launch::new(WEIGHT_GRADIENT.of(name, x.dtype())?, x.device())?
        .read(&aligned(x)?)?
        .read(&aligned(dy)?)?
        .write(&mut partial)?
        .value(plan.sizes(name, z, [z.padding as isize; 2], part)?)
        .value(plan.access)
        .flops(super::flops(z))
        .grid3([parts, plan.across(), taps])
        .block3([packs, runs, 1])
        .run()?;
    Launch::new(SUM.of(name, x.dtype())?, x.device())?
        .read(&partial)?
        .write(dw)?
        .value(parts as u32)
        .value(side(name, z.o)?)
        .value(side(name, window)?)
        .grid3([z.o.div_ceil(THREADS), window, 1])
        .block(THREADS)
        .run()
}
