//! Realistic kernels with cases to run them on: what the emulator's tests and its benchmark share.
//!
//! A [`Case`] is one launch: source, entry, grid, buffers, arguments, and what must come out according to
//! a reference on the CPU in float64 or, where the arithmetic is exact, to the bit.

#![allow(dead_code, unused_imports, reason = "every program that includes this module uses a part of it")]

mod adamw;
mod attention;
pub mod case;
mod compare;
mod conv2d;
mod gelu;
mod histogram;
mod layer_norm;
mod matmul;
mod ntxent;
pub mod nvrtc;
mod philox;
mod random;
mod reduce;
mod run;
mod scan;
mod softmax;
mod softmax_xent;
mod transpose;

pub use adamw::ENTRY;
pub use case::Case;
pub use run::{Ready, every_order};

/// Every case of every kernel.
pub fn cases() -> Vec<Case> {
    [
        adamw::cases(),
        attention::cases(),
        conv2d::cases(),
        gelu::cases(),
        histogram::cases(),
        layer_norm::cases(),
        matmul::cases(),
        ntxent::cases(),
        philox::cases(),
        reduce::cases(),
        scan::cases(),
        softmax::cases(),
        softmax_xent::cases(),
        transpose::cases(),
    ]
    .concat()
}

/// The cases of the kernels in one file, of which there must be some.
pub fn cases_of(file: &str) -> Vec<Case> {
    let found: Vec<Case> = cases().into_iter().filter(|case| case.file == file).collect();
    assert!(!found.is_empty(), "no cases of {file}");
    found
}

/// The launches that the benchmark times.
pub fn benchmarks() -> [Case; 3] {
    [softmax::benchmark(), matmul::benchmark(), attention::benchmark()]
}
