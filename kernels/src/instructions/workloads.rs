//! Nothing to profile: instructions are recorded, not timed.

use crate::registry::Workload;

/// None.
pub fn workloads() -> Vec<Workload> {
    Vec::new()
}
