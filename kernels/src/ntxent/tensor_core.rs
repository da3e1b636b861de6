//! The bf16 kernels on tensor cores, `mma_forward.cu` and `mma_backward.cu`, and the calls that they take: vectors of
//! up to 256 elements, a multiple of 8, at addresses that are a multiple of 16. Vectors are padded with zeros to 128 or
//! 256, each a variant of its own that is compiled at its first use.

use super::cuda::{Maker, Problem};
use engine::DType;
use engine::cuda::Kernel;

/// Columns that forward meets at a time.
const OTHER: usize = 64;

/// The kernels for vectors of up to `dim` elements.
pub(super) struct Variant {
    dim: usize,
    forward: &'static Kernel,
    rows: &'static Kernel,
    columns: &'static Kernel,
}

/// Rows of a block of `mma_forward.cu`.
const fn own_rows(dim: usize) -> usize {
    if dim > 128 { 64 } else { 128 }
}

/// Bytes of a vector.
const fn bytes(dim: usize) -> usize {
    2 * dim
}

/// `CHUNK` of `mma_backward.cu`.
const fn chunk(dim: usize) -> usize {
    if dim > 128 { 128 } else { 1024 }
}

macro_rules! variant {
    ($name:ident: $dim:literal) => {
        pub(crate) mod $name {
            use super::{OTHER, Variant, bytes, chunk, own_rows};
            use crate::cuda::HEADERS;
            use engine::cuda::{Kernel, Module};

            const fn module(file: &'static str, source: &'static str) -> Module {
                Module::new("ntxent", file, source, HEADERS, &["ELEMENT_BF16", concat!("DIM=", $dim)], &[])
            }
            static FORWARD_FILE: Module =
                module("kernels/src/ntxent/mma_forward.cu", include_str!("mma_forward.cu"));
            static BACKWARD_FILE: Module =
                module("kernels/src/ntxent/mma_backward.cu", include_str!("mma_backward.cu"));
            static FORWARD: Kernel = Kernel::new(&FORWARD_FILE, concat!("ntxent_fwd_mma_d", $dim, "_bf16"))
                .with_dynamic_shared(bytes($dim) * (own_rows($dim) + 2 * OTHER));
            // 64 own vectors, and twice as many others as are 32 KiB; beside others that are rows, lse, coefficient and
            // positive of a chunk.
            static ROWS: Kernel =
                Kernel::new(&BACKWARD_FILE, concat!("ntxent_bwd_mma_rows_d", $dim, "_bf16"))
                    .with_dynamic_shared(bytes($dim) * 64 + (64 << 10));
            static COLUMNS: Kernel =
                Kernel::new(&BACKWARD_FILE, concat!("ntxent_bwd_mma_columns_d", $dim, "_bf16"))
                    .with_dynamic_shared(bytes($dim) * 64 + (64 << 10) + 12 * chunk($dim));
            pub(super) static VARIANT: Variant =
                Variant { dim: $dim, forward: &FORWARD, rows: &ROWS, columns: &COLUMNS };
            /// Every kernel for vectors of this size.
            pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &ROWS, &COLUMNS];
        }
    };
}

variant!(d128: 128);
variant!(d256: 256);

impl Variant {
    /// The kernels for a call, if there are any.
    pub fn of(dtype: DType, problem: &Problem) -> Option<&'static Variant> {
        let variant = match problem.d {
            1..=128 => &d128::VARIANT,
            129..=256 => &d256::VARIANT,
            _ => return None,
        };
        // Aligned vectors are a multiple of 16 bytes.
        (dtype == DType::BF16 && problem.aligned != 0).then_some(variant)
    }

    pub fn forward(&self) -> Maker {
        Maker { kernel: self.forward, own: own_rows(self.dim), other: OTHER, width: self.dim, threads: 128 }
    }

    pub fn rows(&self) -> Maker {
        Maker { kernel: self.rows, own: 64, other: 0, width: self.dim, threads: 256 }
    }

    pub fn columns(&self) -> Maker {
        Maker { kernel: self.columns, ..self.rows() }
    }
}
