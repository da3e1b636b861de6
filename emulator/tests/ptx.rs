//! The PTX parser: each construct, the constants as `ptxas` evaluates them, what NVRTC emits, and any text at all.
//!
//! The `.ptx` files beside the modules are NVRTC 12.9's for the `.cu` files of the same name, with `-lineinfo`
//! (softmax for sm_75, gemm and sine for sm_80, calls for sm_90, tma for sm_90a); only the path in `.file` was shortened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "ptx/constants.rs"]
mod constants;
#[path = "ptx/declarations.rs"]
mod declarations;
#[path = "ptx/errors.rs"]
mod errors;
#[path = "ptx/fixtures.rs"]
mod fixtures;
#[path = "ptx/fuzz.rs"]
mod fuzz;
#[path = "ptx/invariants.rs"]
mod invariants;
#[path = "ptx/operands.rs"]
mod operands;
#[path = "ptx/scopes.rs"]
mod scopes;
#[path = "ptx/text.rs"]
mod text;
