//! Training steps on a CUDA device take no new memory and do not wait for the host; in the end every byte is given back.
//!
//! One test in a process of its own: the figures are the device's, whoever uses it.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use autograd::module;
use autograd::optim::{Algorithm, Optimizer};
use engine::cuda::memory::{Stats, stats};
use engine::cuda::{self, extension};
use engine::{Device, Tensor};
use kernels::array::Array;
use kernels::testing;
use models::{Arch, ImageShape};
use objectives::simclr::{Settings, Simclr};
use objectives::{CosineSchedule, DataProfile, Objective, Progress};
use pretext::train::step::Stepper;

const STEPS: u64 = 200;

/// What the driver has given out, in bytes, by its own count.
fn given_out() -> usize {
    let (free, total) = cudarc::driver::result::mem_get_info().unwrap();
    total - free
}

/// A small network and two views of random images, on the device.
fn training(device: Device) -> (Simclr, Vec<Tensor>, Stepper) {
    let profile = DataProfile { height: 8, width: 8, channels: 1, len: 100 };
    let encoder =
        models::build(&Arch::named("resnet-small/2"), ImageShape { height: 8, width: 8, channels: 1 }, 1)
            .unwrap();
    let given = toml::toml! {
        projector_hidden = 8
        projector_dim = 8
    };
    let settings = Settings::new(&given, &profile).unwrap();
    let mut objective = Simclr::new(settings, &profile, encoder, 1).unwrap();
    module::to_device(objective.networks(), device).unwrap();
    let view = |seed| Array::<f32>::random(&[4, 8, 8, 1], seed, 1.0).to_tensor().unwrap();
    let views = [1, 2].map(|seed| view(seed).to_device(device).unwrap()).to_vec();
    let optimizer = Optimizer::new(Algorithm::AdamW { betas: (0.9, 0.999), eps: 1e-8 }, 0.01);
    let schedule = CosineSchedule { steps: STEPS, warmup: 10, peak: 1e-3, end: 0.0 };
    let stepper = Stepper::new(objective.networks(), optimizer, &schedule, Some(1.0), 0, false).unwrap();
    (objective, views, stepper)
}

/// Takes steps, and calls `after` with the number of each, from 0.
fn take(run: &mut (Simclr, Vec<Tensor>, Stepper), steps: u64, mut after: impl FnMut(u64)) {
    let (objective, views, stepper) = run;
    for step in 0..steps {
        let progress = Progress { step, steps: STEPS, epoch: 0 };
        stepper.step(objective, || Ok(views.clone()), &progress).unwrap();
        after(step);
    }
}

#[test]
fn steps_take_no_memory_and_do_not_wait() {
    let device = testing::device();
    extension::set_option("SCHEDULES", "one");
    let Device::Cuda(ordinal) = device else { panic!("tests run kernels on a CUDA device") };
    // The first steps load all kernels, whose variables the driver keeps as long as the process lives.
    take(&mut training(device), 3, |_| {});
    cuda::release().unwrap();
    let before = given_out();
    let mut run = training(device);
    let mut at_two: Option<Stats> = None;
    take(&mut run, STEPS, |step| {
        let now = stats(ordinal).unwrap();
        match &at_two {
            None if step >= 2 => at_two = Some(now),
            None => {}
            Some(then) => {
                let figures = |s: &Stats| (s.live, s.peak, s.from_driver, s.uploads, s.read_backs);
                assert_eq!(
                    figures(&now),
                    figures(then),
                    "live and peak bytes, blocks from the driver, uploads and read-backs after step {}",
                    step + 1
                );
            }
        }
    });
    let events = run.2.events(STEPS - 10..STEPS, STEPS).unwrap();
    assert!(events.iter().all(|event| event.loss().unwrap().is_finite()));

    assert!(given_out() > before);
    drop(run);
    let left = stats(ordinal).unwrap().by_operation;
    assert!(left.iter().all(|(operation, _)| *operation == "constants"), "still live: {left:?}");
    cuda::release().unwrap();
    assert_eq!(stats(ordinal).unwrap().live, 0);
    assert_eq!(given_out(), before, "bytes that the driver counts as given out");
}
