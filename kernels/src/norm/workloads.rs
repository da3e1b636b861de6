//! What is profiled and timed.

use crate::registry::Workload;

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![]
}
