//! What only sm_90 has: mbarriers, bulk copies by tensor map, `wgmma`. A matrix product that uses them all must give exact
//! numbers in every order of execution, and every planted misuse must be reported as what it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "hopper/barriers.rs"]
mod barriers;
#[path = "hopper/bulk.rs"]
mod bulk;
#[path = "hopper/damaged.rs"]
mod damaged;
#[path = "hopper/map.rs"]
mod map;
#[path = "hopper/matmul.rs"]
mod matmul;
#[path = "hopper/misuse.rs"]
mod misuse;
#[path = "support/nvrtc.rs"]
#[allow(dead_code, reason = "kernels for sm_90a alone")]
mod nvrtc;
#[path = "hopper/run.rs"]
mod run;
