//! The ground that everything stands on: tensors, devices, memory, errors, random numbers, files.
//!
//! A [`Tensor`] is a strided view ([`Layout`]) of untyped bytes in a reference-counted storage on a
//! [`Device`]. This crate knows no mathematics: computations live in `kernels`, gradients in `autograd`.

pub mod cuda;
pub mod device;
pub mod dtype;
pub mod error;
pub mod files;
pub mod layout;
pub mod memory;
pub mod random;
pub mod safetensors;
mod storage;
pub mod tensor;

pub use device::Device;
pub use dtype::{DType, Element};
pub use error::{Error, ErrorKind, Result};
pub use layout::{Layout, MAX_RANK};
pub use random::Philox;
pub use tensor::Tensor;
