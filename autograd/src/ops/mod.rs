//! The differentiable operations, one file each, and their registry.
//!
//! To add one: write its file (shape inference, forward, backward, reference, cases) and add one line to
//! the list below; `tests/ops.rs` then runs every check on it.

use crate::case::Case;

/// A registered operation.
pub struct Entry {
    /// Its name, as [`crate::Op::name`] says.
    pub name: &'static str,
    /// What its checks run on.
    pub cases: fn() -> Vec<Case>,
}

macro_rules! operations {
    ($($file:ident),* $(,)?) => {
        $(pub mod $file;)*
        $(pub use $file::*;)*
        /// Every differentiable operation.
        pub const OPERATIONS: &[Entry] =
            &[$(Entry { name: stringify!($file), cases: $file::cases }),*];
    };
}

mod branch_end;
mod check;

pub use branch_end::Onto;

operations! {
    add,
    sub,
    mul,
    scale,
    relu,
    gelu,
    tanh,
    swiglu,
    add_bias,
    residual_scale,
    matmul,
    linear,
    linear_residual,
    mlp,
    conv2d,
    conv_transpose2d,
    batch_norm,
    conv2d_batch_norm,
    batch_norm_eval,
    batch_norm_split,
    layer_norm,
    attention,
    max_pool2d,
    global_avg_pool,
    l2_normalize,
    softmax_xent,
    ntxent,
    koleo,
    teacher_xent,
    cast,
    reshape,
    permute,
    narrow,
    expand,
    cat,
    gather_rows,
    sum,
    mean,
}
