//! Launches of `attention_fwd.cu` and `attention_bwd.cu`, which take every head size up to 128 in float32 arithmetic. In bf16
//! the tensor cores take what they can ([`super::tensor_core`]).
//!
//! Head sizes are padded with zeros to 32, 64 or 128, each a variant of its own that is compiled at its first use.

use super::tensor_core::{Choice, Plan as TensorCorePlan};
use super::{Forward, Scores, Sizes};
use crate::cuda::{HEADERS, Typed};
use engine::cuda::{Kernel, Launch, Module};
use engine::{DType, Error, Result, Tensor};

/// The largest head size.
const LARGEST: usize = 128;

/// Rows of a tile for head sizes up to `head`.
const fn tile(head: usize) -> usize {
    if head > 64 { 32 } else { 64 }
}

/// Bytes of shared memory for `vectors` tiles of vectors, one of weights and `scalars` numbers a row.
const fn shared(head: usize, vectors: usize, scalars: usize) -> usize {
    4 * tile(head) * (vectors * (head + 4) + tile(head) + 4 + scalars)
}

/// The kernels for head sizes up to `head`.
struct Variant {
    head: usize,
    forward: Typed,
    backward_query: Typed,
    backward_key_value: Typed,
}

macro_rules! variants {
    ($($name:ident: $head:literal),*) => {
        $(static $name: Variant = {
            use engine::cuda::Kernel;
            const fn module(
                file: &'static str, source: &'static str, defines: &'static [&'static str],
            ) -> Module {
                Module::new("attention", file, source, HEADERS, defines, &[])
            }
            const FORWARD: &str = include_str!("attention_fwd.cu");
            const BACKWARD: &str = include_str!("attention_bwd.cu");
            const FORWARD_FILE: &str = "kernels/src/attention/attention_fwd.cu";
            const BACKWARD_FILE: &str = "kernels/src/attention/attention_bwd.cu";
            const F32: &[&str] = &["ELEMENT_F32", concat!("HEAD=", $head)];
            const BF16: &[&str] = &["ELEMENT_BF16", concat!("HEAD=", $head)];
            static FORWARD_F32: Module = module(FORWARD_FILE, FORWARD, F32);
            static FORWARD_BF16: Module = module(FORWARD_FILE, FORWARD, BF16);
            static BACKWARD_F32: Module = module(BACKWARD_FILE, BACKWARD, F32);
            static BACKWARD_BF16: Module = module(BACKWARD_FILE, BACKWARD, BF16);
            Variant {
                head: $head,
                forward: Typed {
                    f32: Kernel::new(&FORWARD_F32, concat!("attention_fwd_d", $head, "_f32"))
                        .with_dynamic_shared(shared($head, 3, 0)),
                    bf16: Kernel::new(&FORWARD_BF16, concat!("attention_fwd_d", $head, "_bf16"))
                        .with_dynamic_shared(shared($head, 3, 0)),
                },
                backward_query: Typed {
                    f32: Kernel::new(&BACKWARD_F32, concat!("attention_bwd_q_d", $head, "_f32"))
                        .with_dynamic_shared(shared($head, 4, 0)),
                    bf16: Kernel::new(&BACKWARD_BF16, concat!("attention_bwd_q_d", $head, "_bf16"))
                        .with_dynamic_shared(shared($head, 4, 0)),
                },
                backward_key_value: Typed {
                    f32: Kernel::new(&BACKWARD_F32, concat!("attention_bwd_kv_d", $head, "_f32"))
                        .with_dynamic_shared(shared($head, 4, 2)),
                    bf16: Kernel::new(&BACKWARD_BF16, concat!("attention_bwd_kv_d", $head, "_bf16"))
                        .with_dynamic_shared(shared($head, 4, 2)),
                },
            }
        };)*
        /// Every kernel, every variant.
        pub(crate) static KERNELS: &[&Kernel] = &[$(
            &$name.forward.f32, &$name.forward.bf16,
            &$name.backward_query.f32, &$name.backward_query.bf16,
            &$name.backward_key_value.f32, &$name.backward_key_value.bf16,
        )*];
    };
}

variants!(D32: 32, D64: 64, D128: 128);

/// As `Problem` in `problem.cuh`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Problem {
    pub tokens: u32,
    pub heads: u32,
    pub size: u32,
    pub tiles: u32,
    pub aligned: u32,
    pub scale: f32,
}
const _: () = assert!(size_of::<Problem>() == 24);

/// As `MaskStrides` in `problem.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::NoUninit)]
pub(super) struct MaskStrides {
    sample: u64,
    head: u64,
}

impl MaskStrides {
    /// Of a mask [1 or B, 1 or H, T, T].
    pub fn of(mask: Option<&Tensor>) -> MaskStrides {
        let Some(&[samples, heads, t, s]) = mask.map(|mask| mask.shape()) else {
            return MaskStrides::default();
        };
        let stride = |count: usize, n: usize| if count > 1 { n as u64 } else { 0 };
        MaskStrides { sample: stride(samples, heads * t * s), head: stride(heads, t * s) }
    }
}

/// A number that kernels count with.
#[track_caller]
pub(super) fn number(name: &str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::shape("attention", "too large").with(name, n))
}

/// What all launches of a call share.
struct Plan {
    variant: &'static Variant,
    problem: Problem,
    blocks: usize,
}

impl Plan {
    /// `tensors` are all that hold vectors of D elements.
    #[track_caller]
    fn new(operation: &str, sizes: Sizes, scale: f32, tensors: &[&Tensor]) -> Result<Plan> {
        let variant = match sizes.size {
            0..=32 => &D32,
            33..=64 => &D64,
            65..=LARGEST => &D128,
            size => {
                let text = format!("CUDA kernels take head sizes up to {LARGEST}");
                return Err(Error::shape(operation, text).with("head size", size));
            }
        };
        let tiles = sizes.tokens.div_ceil(tile(variant.head));
        let row = sizes.size * tensors[0].dtype().size();
        let aligned = row.is_multiple_of(16) && tensors.iter().all(|t| t.is_aligned(16));
        let problem = Problem {
            tokens: number("tokens", sizes.tokens)?,
            heads: number("heads", sizes.heads)?,
            size: number("head size", sizes.size)?,
            tiles: number("tiles", tiles)?,
            aligned: u32::from(aligned),
            scale,
        };
        Ok(Plan { variant, problem, blocks: sizes.pairs() * tiles })
    }

    #[track_caller]
    fn run(&self, launch: Launch, kernel: &Kernel, mask: Option<&Tensor>) -> Result<()> {
        launch
            .read_optional(mask)?
            .value(self.problem)
            .value(MaskStrides::of(mask))
            .grid(self.blocks)
            .block(4 * tile(self.variant.head))
            .shared(kernel.dynamic_shared)
            .run()
    }
}

/// `out` and `lse` of `qkv`.
#[track_caller]
pub fn forward(
    qkv: &Tensor,
    scores: Scores,
    sizes: Sizes,
    scale: f32,
    out: &mut Tensor,
    lse: &mut Tensor,
) -> Result<()> {
    if let Some(plan) = TensorCorePlan::new(sizes, scale, &[qkv, out], Choice::Best) {
        return plan.forward(qkv, scores, out, lse);
    }
    let plan = Plan::new("attention", sizes, scale, &[qkv, out])?;
    let kernel = plan.variant.forward.of("attention", qkv.dtype())?;
    let launch = Launch::new(kernel, qkv.device())?
        .read(qkv)?
        .read_optional(scores.valid)?
        .write(out)?
        .write(lse)?
        .flops(sizes.flops(2.0));
    plan.run(launch, kernel, scores.mask)
}

/// `dqkv`: the queries' third and delta first, then the others.
#[track_caller]
pub fn backward(dout: &Tensor, of: Forward, sizes: Sizes, scale: f32, dqkv: &mut Tensor) -> Result<()> {
    const OP: &str = "attention_backward";
    let Forward { qkv, scores: Scores { valid, mask, .. }, out, lse } = of;
    if let Some(plan) = TensorCorePlan::new(sizes, scale, &[dout, qkv, out, dqkv], Choice::Best) {
        return plan.backward(dout, of, dqkv);
    }
    let plan = Plan::new(OP, sizes, scale, &[dout, qkv, out, dqkv])?;
    let mut delta = Tensor::empty(lse.shape(), DType::F32, qkv.device())?;
    // One of the three parts of qkv, and a number for each row and head.
    let (part, scalars) = (out.len() * out.dtype().size(), 4 * lse.len());
    let lengths = valid.map_or(0, |valid| 4 * valid.len()) + mask.map_or(0, |mask| 4 * mask.len());

    let kernel = plan.variant.backward_query.of(OP, qkv.dtype())?;
    let launch = Launch::new(kernel, qkv.device())?
        .read(qkv)?
        .read_optional(valid)?
        .read(out)?
        .read(dout)?
        .read(lse)?
        .write(dqkv)?
        .write(&mut delta)?
        .bytes(6 * part + 2 * scalars + lengths)
        .flops(sizes.flops(3.0));
    plan.run(launch, kernel, mask)?;

    let kernel = plan.variant.backward_key_value.of(OP, qkv.dtype())?;
    let launch = Launch::new(kernel, qkv.device())?
        .read(qkv)?
        .read_optional(valid)?
        .read(dout)?
        .read(lse)?
        .read(&delta)?
        .write(dqkv)?
        .bytes(6 * part + 2 * scalars + lengths)
        .flops(sizes.flops(4.0));
    plan.run(launch, kernel, mask)
}
