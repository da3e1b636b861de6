//! The arithmetic of the emulated GPU as pure functions, as the PTX ISA manual defines it. Nothing here knows of warps,
//! registers or memory; the executor calls these functions in loops over 32 lanes that are compiled for the vector units
//! of the host, hence selects instead of branches and no library calls where it is hot.
//!
//! - [`half`]: f16, bf16 and tf32: conversions and arithmetic on their bits.
//! - [`round`]: float32 and float64 in the four rounding modes, flushing, saturation, minimum, maximum, `testp`.
//! - [`convert`]: `cvt` between floats and integers.
//! - [`approx`]: the `.approx` functions, within the manual's bounds.
//! - [`tensor_core`]: `mma.sync`, bit for bit as an H100, or after other models.
//!
//! Results do not depend on the host: the same bits with and without FMA hardware. A NaN result is the GPU's canonical one
//! (`0x7FFFFFFF`, `0x7FFF`), save where an instruction only moves bits (neg, abs, copysign).

pub mod approx;
pub mod convert;
mod exact;
mod extrema;
pub mod half;
mod half_arithmetic;
pub mod round;
pub mod tensor_core;

pub use round::Rounding;
pub use tensor_core::{Mma, TensorCore, mma, mma_f64};

#[cfg(test)]
mod tests;
