//! Instructions on the emulated device against what an NVIDIA H100 gave for the same operands: `golden/h100/` holds the
//! recordings and says how they were made. Nothing here knows a layout or a rounding; operands go in as they were
//! recorded, and results are compared with those recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "opcodes/device.rs"]
#[allow(dead_code, reason = "shared with opcodes.rs, which uses more of it")]
mod device;
#[path = "golden/math.rs"]
mod math;
#[path = "golden/matrix.rs"]
mod matrix;
#[path = "golden/mma.rs"]
mod mma;
#[path = "support/nvrtc.rs"]
mod nvrtc;
#[path = "golden/recording.rs"]
mod recording;
#[path = "golden/tma.rs"]
mod tma;
#[path = "golden/unary.rs"]
mod unary;
#[path = "golden/wgmma.rs"]
mod wgmma;
