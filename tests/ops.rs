//! Every check of every differentiable operation, and proof that the checks can fail.
//!
//! One test a check; each walks the registry `autograd::ops::OPERATIONS` with all cases and lists every failure
//! as operation, case and check at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "ops/checks.rs"]
mod checks;
#[path = "ops/faults.rs"]
mod faults;
#[path = "ops/gradients.rs"]
mod gradients;
#[path = "ops/harness.rs"]
mod harness;
#[path = "ops/setting.rs"]
mod setting;

use harness::{Check, failures};

macro_rules! tests {
    ($($module:ident::$check:ident),* $(,)?) => {
        /// Every check by name.
        const CHECKS: &[(&str, Check)] = &[$((stringify!($check), $module::$check)),*];

        /// On the CPU, in f32.
        mod cpu {
            $(#[test] fn $check() { super::run(crate::setting::on_cpu(), stringify!($check)); })*
        }
        /// On the device that tests have, in f32.
        mod device_f32 {
            $(#[test] fn $check() { super::on_device(engine::DType::F32, stringify!($check)); })*
        }
        /// On the device that tests have, in bf16.
        mod device_bf16 {
            $(#[test] fn $check() { super::on_device(engine::DType::BF16, stringify!($check)); })*
        }
    };
}

/// The checks that run every launch of the emulated device under all its schedules. In the first each kernel of each case is
/// launched, and every buffer is fenced and poisoned; in the second the kernels that only views need, and the ways that
/// kernels take where an address is not a multiple of 16 bytes. That costs 30 seconds of one core (5 in plain order); a check
/// takes about six times as long this way, and the others launch the same kernels on the same sizes again.
const EVERY_SCHEDULE: [&str; 2] = ["every_element_written_and_none_outside", "strided_and_offset_inputs"];

/// Runs a check on the device that tests have.
fn on_device(float: engine::DType, name: &str) {
    run(setting::on_device(float, EVERY_SCHEDULE.contains(&name)), name);
}

/// Runs a check on all cases of all operations in a setting. `PRETEXT_TEST_OPS=conv2d,linear` keeps to these operations.
fn run(_setting: setting::Scope, name: &str) {
    let (_, check) = CHECKS.iter().find(|c| c.0 == name).expect("a check");
    let only = std::env::var("PRETEXT_TEST_OPS").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|list| list.split(',').any(|one| one == name));
    let mut all = Vec::new();
    for operation in autograd::ops::OPERATIONS.iter().filter(|o| wanted(o.name)) {
        all.extend(failures(operation.name, &(operation.cases)(), name, *check));
    }
    assert!(all.is_empty(), "{} failures:\n  {}", all.len(), all.join("\n  "));
}

tests! {
    checks::inferred_equals_actual,
    checks::values_equal_the_reference,
    gradients::vector_jacobian_product,
    gradients::full_jacobian,
    checks::strided_and_offset_inputs,
    checks::used_twice,
    checks::graph_replay_equals_eager,
    checks::every_element_written_and_none_outside,
    checks::repeated_runs_are_bit_equal,
    checks::live_bytes_stay_constant,
    checks::each_gradient_alone,
}

/// Each planted fault is found by the checks that are there to find it.
#[test]
fn planted_faults_are_found() {
    let mut missed = Vec::new();
    for plant in faults::PLANTS {
        let operation = autograd::ops::OPERATIONS.iter().find(|o| o.name == plant.operation);
        let operation = operation.expect("a registered operation");
        for name in plant.found_by {
            let (_, check) = CHECKS.iter().find(|(n, _)| n == name).expect("a check");
            let found = failures(operation.name, &faults::planted(&plant.fault, operation), name, *check);
            if !found.iter().any(|f| f.contains(plant.operation) && f.contains(name)) {
                missed.push(format!("{name} did not find {:?} in {}", plant.fault, plant.operation));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    for (name, _) in CHECKS.iter().filter(|c| c.0 != "graph_replay_equals_eager") {
        assert!(faults::PLANTS.iter().any(|p| p.found_by.contains(name)), "no fault is planted for {name}");
    }
}
