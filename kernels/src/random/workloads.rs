//! What is profiled and timed: a quarter of a million numbers of each distribution, always f32.

use super::*;
use crate::registry::{Run, Workload};

const SHAPE: [usize; 2] = [512, 512];

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    fn run(f: impl Fn() -> Result<Tensor> + 'static) -> Result<Run> {
        Ok(Box::new(move || f().map(drop)))
    }
    vec![
        Workload {
            label: "uniform 512x512",
            prepare: |device, _| run(move || uniform(&SHAPE, 0.0, 1.0, 1, Purpose::Test, 0, device)),
        },
        Workload {
            label: "normal 512x512",
            prepare: |device, _| run(move || normal(&SHAPE, 0.0, 1.0, 1, Purpose::Test, 0, device)),
        },
        Workload {
            label: "truncated_normal 512x512",
            prepare: |device, _| {
                run(move || truncated_normal(&SHAPE, 0.02, 2.0, 1, Purpose::Test, 0, device))
            },
        },
    ]
}
