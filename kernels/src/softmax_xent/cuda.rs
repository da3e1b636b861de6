//! Launches of `softmax_xent.cu`.

use super::Target;
use crate::cuda::{THREADS, Typed, typed_kernels};
use engine::cuda::Launch;
use engine::{Error, Result, Tensor};

typed_kernels! {
    family: "softmax_xent", file: "softmax_xent.cu", options: [];
    FORWARD_SHORT = "softmax_xent_fwd_short";
    FORWARD_LONG = "softmax_xent_fwd_long";
    BACKWARD_SHORT = "softmax_xent_bwd_short";
    BACKWARD_LONG = "softmax_xent_bwd_long";
    SOFTMAX_SHORT = "softmax_xent_softmax_short";
    SOFTMAX_LONG = "softmax_xent_softmax_long";
}

/// Classes up to which a row belongs to a warp: 8 or 16 packs of 16 bytes a thread.
const SHORT: usize = 2048;
/// Warps, each with a row of its own, in a block for short rows: few, so that few rows fill many processors.
const ROWS: usize = 4;
/// Classes from which a row's block has [`MANY`] threads: where there are few rows, a block must keep enough loads in
/// flight for its processor.
const VERY_LONG: usize = 16_384;
const MANY: usize = 1024;

impl Target<'_> {
    fn labels(&self) -> Option<&Tensor> {
        match self {
            Target::Labels(labels) => Some(labels),
            Target::Probabilities(_) => None,
        }
    }

    fn probabilities(&self) -> Option<&Tensor> {
        match self {
            Target::Labels(_) => None,
            Target::Probabilities(weights) => Some(weights),
        }
    }
}

/// Rows `x` [M, V] and how a launch treats them.
struct Rows<'a> {
    x: &'a Tensor,
    m: usize,
    v: i32,
    /// How rows are read (`common/element.cuh`).
    access: u32,
}

impl<'a> Rows<'a> {
    /// `others` are of x's element type and shape.
    #[track_caller]
    fn new(operation: &str, x: &'a Tensor, others: &[&Tensor]) -> Result<Rows<'a>> {
        /// So that an index and a stride over a row fit an i32.
        const MOST: usize = 1 << 30;
        let (m, v) = (x.shape()[0], x.shape()[1]);
        if v > MOST {
            let text = format!("rows have at most {MOST} elements on CUDA devices");
            return Err(Error::shape(operation, text).argument("x", x));
        }
        let whole = (v * x.dtype().size()).is_multiple_of(16);
        let aligned = x.is_aligned(16) && others.iter().all(|t| t.is_aligned(16));
        Ok(Rows { x, m, v: v as i32, access: crate::cuda::access(whole, aligned) })
    }

    /// The kernel for rows of this length, with its grid and block.
    #[track_caller]
    fn launch(&self, operation: &str, short: &'static Typed, long: &'static Typed) -> Result<Launch> {
        let (v, dtype, device) = (self.v as usize, self.x.dtype(), self.x.device());
        if v <= SHORT {
            let launch = Launch::new(short.of(operation, dtype)?, device)?;
            return Ok(launch.grid(self.m.div_ceil(ROWS)).block(32 * ROWS));
        }
        let threads = if v < VERY_LONG { THREADS } else { MANY };
        Ok(Launch::new(long.of(operation, dtype)?, device)?.grid(self.m).block(threads))
    }
}

/// `loss` [M] and `lse` [M], f32, of `x` [M, V].
#[track_caller]
pub fn forward(
    x: &Tensor,
    target: Target,
    smoothing: f32,
    loss: &mut Tensor,
    lse: &mut Tensor,
) -> Result<()> {
    let soft = target.probabilities();
    let rows = Rows::new("softmax_xent", x, soft.as_slice())?;
    rows.launch("softmax_xent", &FORWARD_SHORT, &FORWARD_LONG)?
        .read(x)?
        .read_optional(target.labels())?
        .read_optional(soft)?
        .write(loss)?
        .write(lse)?
        .value(rows.m as u64)
        .value(rows.v)
        .value(smoothing)
        .value(rows.access)
        .run()
}

/// `dx` [M, V] from `dloss` [M], `x` [M, V] and forward's `lse` [M].
#[track_caller]
pub fn backward(
    dloss: &Tensor,
    x: &Tensor,
    target: Target,
    smoothing: f32,
    lse: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let soft = target.probabilities();
    let rows = Rows::new("softmax_xent_backward", x, soft.as_slice())?;
    rows.launch("softmax_xent_backward", &BACKWARD_SHORT, &BACKWARD_LONG)?
        .read(dloss)?
        .read(x)?
        .read_optional(target.labels())?
        .read_optional(soft)?
        .read(lse)?
        .write(dx)?
        .value(rows.m as u64)
        .value(rows.v)
        .value(smoothing)
        .value(rows.access)
        .run()
}

/// `y` [M, V], the softmax of each row of `x` [M, V].
#[track_caller]
pub fn softmax(x: &Tensor, y: &mut Tensor) -> Result<()> {
    let rows = Rows::new("softmax", x, &[])?;
    rows.launch("softmax", &SOFTMAX_SHORT, &SOFTMAX_LONG)?
        .read(x)?
        .write(y)?
        .value(rows.m as u64)
        .value(rows.v)
        .value(rows.access)
        .run()
}
