//! Launches of the bf16 kernels on tensor cores: `row_fwd.cu` and `row_bwd.cu` for heads that fit into shared memory,
//! `stream_fwd.cu` and `stream_bwd.cu` for all others, and wherever there is a mask.
//!
//! Head sizes that are a multiple of 8 are padded with zeros to 32, 64 or 128, each a variant of its own that is
//! compiled at its first use.

use super::cuda::{MaskStrides, Problem, number};
use super::{Forward, Scores, Sizes};
use engine::cuda::{Kernel, Launch, context};
use engine::{DType, Device, Result, Tensor};

/// The largest head size.
const LARGEST: usize = 128;
/// Dynamic shared memory of a block of `row_fwd.cu` at most: every device from sm_80 on has as much.
const FORWARD_SHARED: usize = 96 << 10;
/// The most tokens of `row_fwd.cu`: more would leave a multiprocessor few warps, for small heads too.
const ROW_TOKENS: usize = 320;
/// Dynamic shared memory of a block of `row_bwd.cu` at most, on devices that have as much.
const BACKWARD_SHARED: usize = 160 << 10;
/// Warps of a block, but in `row_bwd.cu`.
const WARPS: usize = 4;
/// Rows of a tile in `stream_bwd.cu`, and of a tile of keys in `stream_fwd.cu`.
const TILE: usize = 64;

/// Queries that a warp of `row_fwd.cu` and `stream_fwd.cu` has at once.
const fn queries(head: usize, masked: bool) -> usize {
    if head > 64 || masked { 16 } else { 32 }
}

/// Bytes in shared memory of what belongs to `rows` rows in backward, beside their vectors.
const fn scalars(head: usize, rows: usize) -> usize {
    if head > 32 { 8 * rows } else { 16 * rows }
}

/// Keys, or queries, that a warp of `row_bwd.cu` has at once.
const fn backward_rows(head: usize) -> usize {
    if head > 32 { 16 } else { 32 }
}

/// Rows of a block of `stream_fwd.cu`.
const fn own_rows(head: usize, masked: bool) -> usize {
    WARPS * queries(head, masked)
}

/// Bytes of `rows` vectors of a head size.
const fn vectors(head: usize, rows: usize) -> usize {
    2 * head * rows
}

/// The kernels for head sizes up to `head`.
struct Variant {
    head: usize,
    row: &'static Kernel,
    row_backward: &'static Kernel,
    /// Warps of a block of it at most.
    row_backward_warps: usize,
    stream: Stream,
    /// With a mask.
    masked: Stream,
}

/// The kernels that stream.
struct Stream {
    forward: &'static Kernel,
    backward_query: &'static Kernel,
    backward_key_value: &'static Kernel,
}

macro_rules! stream {
    ($name:ident: $head:literal, $masked:literal, $is_masked:literal, $defines:expr) => {
        mod $name {
            use super::{HEADERS, Kernel, Module, Stream, TILE, own_rows, scalars, vectors};

            static FORWARD_FILE: Module = Module::new(
                "attention",
                "kernels/src/attention/stream_fwd.cu",
                include_str!("stream_fwd.cu"),
                HEADERS,
                $defines,
                &[],
            );
            static BACKWARD_FILE: Module = Module::new(
                "attention",
                "kernels/src/attention/stream_bwd.cu",
                include_str!("stream_bwd.cu"),
                HEADERS,
                $defines,
                &[],
            );
            static FORWARD: Kernel =
                Kernel::new(&FORWARD_FILE, concat!("attention_fwd_stream", $masked, "_d", $head, "_bf16"))
                    .with_dynamic_shared(vectors($head, own_rows($head, $is_masked) + 4 * TILE));
            static BACKWARD_QUERY: Kernel =
                Kernel::new(&BACKWARD_FILE, concat!("attention_bwd_stream", $masked, "_q_d", $head, "_bf16"))
                    .with_dynamic_shared(vectors($head, 6 * TILE) + scalars($head, 2 * TILE));
            static BACKWARD_KEY_VALUE: Kernel = Kernel::new(
                &BACKWARD_FILE,
                concat!("attention_bwd_stream", $masked, "_kv_d", $head, "_bf16"),
            )
            .with_dynamic_shared(vectors($head, 6 * TILE) + scalars($head, 2 * TILE));
            pub(super) const STREAM: Stream = Stream {
                forward: &FORWARD,
                backward_query: &BACKWARD_QUERY,
                backward_key_value: &BACKWARD_KEY_VALUE,
            };
            pub(super) const KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD_QUERY, &BACKWARD_KEY_VALUE];
        }
    };
}

macro_rules! variant {
    ($name:ident: $head:literal, backward $warps:literal) => {
        pub(crate) mod $name {
            use super::{BACKWARD_SHARED, FORWARD_SHARED, Stream, TILE, Variant, own_rows, scalars, vectors};
            use crate::cuda::HEADERS;
            use engine::cuda::{Kernel, Module};

            static ROW_FORWARD: Module = Module::new(
                "attention",
                "kernels/src/attention/row_fwd.cu",
                include_str!("row_fwd.cu"),
                HEADERS,
                &["ELEMENT_BF16", concat!("HEAD=", $head)],
                &[],
            );
            static FORWARD: Kernel = Kernel::new(&ROW_FORWARD, concat!("attention_fwd_row_d", $head, "_bf16"))
                .with_dynamic_shared(FORWARD_SHARED);
            static ROW_BACKWARD: Module = Module::new(
                "attention",
                "kernels/src/attention/row_bwd.cu",
                include_str!("row_bwd.cu"),
                HEADERS,
                &["ELEMENT_BF16", concat!("HEAD=", $head)],
                &[],
            );
            static BACKWARD: Kernel = Kernel::new(&ROW_BACKWARD, concat!("attention_bwd_row_d", $head, "_bf16"))
                .with_dynamic_shared(BACKWARD_SHARED);
            stream!(stream: $head, "", false, &["ELEMENT_BF16", concat!("HEAD=", $head)]);
            stream!(masked: $head, "_masked", true, &["ELEMENT_BF16", concat!("HEAD=", $head), "MASKED"]);

            pub(super) static VARIANT: Variant = Variant {
                head: $head,
                row: &FORWARD,
                row_backward: &BACKWARD,
                row_backward_warps: $warps,
                stream: stream::STREAM,
                masked: masked::STREAM,
            };
            /// Every kernel for this head size, but those that stream.
            const ROW_KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];
            /// Every kernel for this head size.
            pub(crate) static KERNELS: [&[&Kernel]; 3] = [ROW_KERNELS, stream::KERNELS, masked::KERNELS];
        }
    };
}

variant!(d32: 32, backward 6);
variant!(d64: 64, backward 6);
variant!(d128: 128, backward 4);

/// Which of the two kinds of kernels: those that hold whole heads, where they can, or those that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Whole heads where they fit.
    Best,
    /// Always streaming: for tests of that.
    #[cfg(test)]
    Stream,
}

/// How a call is launched.
pub(super) struct Plan {
    variant: &'static Variant,
    sizes: Sizes,
    scale: f32,
    choice: Choice,
    device: Device,
}

/// Launch of a kernel whose blocks have whole heads.
struct WholeHeads {
    kernel: &'static Kernel,
    /// Heads of a block.
    together: usize,
    /// Rows of a warp's task.
    rows: usize,
    warps: usize,
    shared: usize,
}

impl Plan {
    /// The plan, if these kernels take such a call: bf16, head sizes that are a multiple of 8 up to 128, and addresses
    /// that are a multiple of 16. `tensors` are all that hold vectors of D elements.
    pub fn new(sizes: Sizes, scale: f32, tensors: &[&Tensor], choice: Choice) -> Option<Plan> {
        let variant = match sizes.size {
            0..=32 => &d32::VARIANT,
            33..=64 => &d64::VARIANT,
            65..=LARGEST => &d128::VARIANT,
            _ => return None,
        };
        let fits = sizes.size.is_multiple_of(8)
            && tensors.iter().all(|t| t.dtype() == DType::BF16 && t.is_aligned(16));
        fits.then(|| Plan { variant, sizes, scale, choice, device: tensors[0].device() })
    }

    #[track_caller]
    fn problem(&self, rows: usize) -> Result<Problem> {
        let Sizes { tokens, heads, size, .. } = self.sizes;
        Ok(Problem {
            tokens: number("tokens", tokens)?,
            heads: number("heads", heads)?,
            size: number("head size", size)?,
            tiles: number("tiles", tokens.div_ceil(rows))?,
            aligned: 1,
            scale: self.scale,
        })
    }

    /// Heads that a block has together: several where one has few tiles of 16 rows, so that there is work for its warps.
    fn together(&self) -> usize {
        match self.sizes.tokens {
            0..=32 => 4,
            33..=64 => 2,
            _ => 1,
        }
    }

    /// `tasks` of a block shared out evenly over `most` warps.
    fn warps(tasks: usize, most: usize) -> usize {
        tasks.div_ceil(tasks.div_ceil(most).max(1)).max(1)
    }

    fn rows(&self) -> usize {
        self.sizes.tokens.next_multiple_of(16)
    }

    /// The kernels that stream.
    fn stream(&self, mask: Option<&Tensor>) -> &'static Stream {
        if mask.is_some() { &self.variant.masked } else { &self.variant.stream }
    }

    /// Forward with whole heads in shared memory, if that can be.
    fn row_forward(&self) -> Option<WholeHeads> {
        let (together, head, tokens) = (self.together(), self.variant.head, self.sizes.tokens);
        let queries = queries(head, false);
        let warps = Plan::warps(together * tokens.div_ceil(queries), WARPS);
        let shared = vectors(head, 2 * together * self.rows() + queries * warps);
        (self.choice == Choice::Best && tokens <= ROW_TOKENS && shared <= FORWARD_SHARED)
            .then_some(WholeHeads { kernel: self.variant.row, together, rows: queries, warps, shared })
    }

    /// Backward with whole heads in shared memory, if that can be.
    #[track_caller]
    fn row_backward(&self) -> Result<Option<WholeHeads>> {
        let (together, rows) = (self.together(), self.together() * self.rows());
        let shared = vectors(self.variant.head, 4 * rows) + scalars(self.variant.head, rows);
        let tasks = 2 * together * self.sizes.tokens.div_ceil(backward_rows(self.variant.head));
        let warps = Plan::warps(tasks, self.variant.row_backward_warps);
        let most = match self.device {
            Device::Cuda(ordinal) => context(ordinal)?.limits().shared_per_block.min(BACKWARD_SHARED),
            Device::Cpu => 0,
        };
        let kernel = self.variant.row_backward;
        Ok((self.choice == Choice::Best && shared <= most).then_some(WholeHeads {
            kernel,
            together,
            rows: 16,
            warps,
            shared,
        }))
    }

    #[track_caller]
    fn run_whole_heads(&self, launch: Launch, of: &WholeHeads) -> Result<()> {
        let pairs = self.sizes.pairs();
        launch
            .value(self.problem(of.rows)?)
            .value(number("samples times heads", pairs)?)
            .value(number("heads", of.together)?)
            .grid(if self.sizes.is_empty() { 0 } else { pairs.div_ceil(of.together) })
            .block(32 * of.warps)
            .shared(of.shared)
            .run()
    }

    #[track_caller]
    fn run_stream(&self, launch: Launch, kernel: &Kernel, mask: Option<&Tensor>, rows: usize) -> Result<()> {
        launch
            .read_optional(mask)?
            .value(self.problem(rows)?)
            .value(MaskStrides::of(mask))
            .grid(self.sizes.pairs() * self.sizes.tokens.div_ceil(rows))
            .block(32 * WARPS)
            .shared(kernel.dynamic_shared)
            .run()
    }

    /// `out` and `lse` of `qkv`.
    #[track_caller]
    pub fn forward(&self, qkv: &Tensor, scores: Scores, out: &mut Tensor, lse: &mut Tensor) -> Result<()> {
        let Scores { valid, mask, .. } = scores;
        let whole = if mask.is_none() { self.row_forward() } else { None };
        let kernel = whole.as_ref().map_or(self.stream(mask).forward, |of| of.kernel);
        let launch = Launch::new(kernel, self.device)?
            .read(qkv)?
            .read_optional(valid)?
            .write(out)?
            .write(lse)?
            .flops(self.sizes.flops(2.0));
        match whole {
            Some(of) => self.run_whole_heads(launch, &of),
            None => self.run_stream(launch, kernel, mask, own_rows(self.variant.head, mask.is_some())),
        }
    }

    /// `dqkv`, in one launch where whole heads fit into shared memory; else the queries' third and delta first, then
    /// the others.
    #[track_caller]
    pub fn backward(&self, dout: &Tensor, of: Forward, dqkv: &mut Tensor) -> Result<()> {
        let Forward { qkv, scores: Scores { valid, mask, .. }, out, lse } = of;
        let whole = if mask.is_none() { self.row_backward()? } else { None };
        if let Some(of) = whole {
            let launch = Launch::new(of.kernel, self.device)?
                .read(qkv)?
                .read_optional(valid)?
                .read(out)?
                .read(dout)?
                .read(lse)?
                .write(dqkv)?
                .flops(self.sizes.flops(5.0));
            return self.run_whole_heads(launch, &of);
        }
        let mut delta = Tensor::empty(lse.shape(), DType::F32, self.device)?;
        // One of the three parts of qkv, and a number for each row and head.
        let (part, scalars) = (out.len() * out.dtype().size(), 4 * lse.len());
        let given = valid.map_or(0, |valid| 4 * valid.len()) + mask.map_or(0, |mask| 4 * mask.len());
        let bytes = 6 * part + 2 * scalars + given;
        let kernel = self.stream(mask).backward_query;
        let launch = Launch::new(kernel, self.device)?
            .read(qkv)?
            .read_optional(valid)?
            .read(out)?
            .read(dout)?
            .read(lse)?
            .write(dqkv)?
            .write(&mut delta)?
            .bytes(bytes)
            .flops(self.sizes.flops(3.0));
        self.run_stream(launch, kernel, mask, TILE)?;
        let kernel = self.stream(mask).backward_key_value;
        let launch = Launch::new(kernel, self.device)?
            .read(qkv)?
            .read_optional(valid)?
            .read(dout)?
            .read(lse)?
            .read(&delta)?
            .write(dqkv)?
            .bytes(bytes)
            .flops(self.sizes.flops(4.0));
        self.run_stream(launch, kernel, mask, TILE)
    }
}
