//! Training steps on a CUDA device take no new memory and do not wait for the host; in the end every byte is given back.
//!
//! One test in a process of its own: the figures are the device's, whoever uses it.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use autograd::module;
use common::methods::{sample, small_config};
use engine::cuda::memory::{Stats, stats};
use engine::cuda::{self, extension};
use engine::{Device, Tensor};
use kernels::array::Array;
use kernels::testing;
use objectives::{METHODS, Objective, Run};
use pretext::train::input::StepInput;
use pretext::train::step::Stepper;
use pretext::train::{build, optimizer};

/// Steps of SimCLR, and of each other method.
const STEPS: u64 = 200;
const FEWER: u64 = 30;

/// What the driver has given out, in bytes, by its own count.
fn given_out() -> usize {
    let (free, total) = cudarc::driver::result::mem_get_info().unwrap();
    total - free
}

/// A method in training: what takes steps, and the input of each.
struct Training {
    objective: Box<dyn Objective>,
    stepper: Stepper,
    inputs: Vec<StepInput>,
}

/// A small method on random images, on the device. The draws of `steps` steps are there before the first.
fn training(method: &str, steps: u64, device: Device) -> Training {
    let config = small_config(method, &["training.warmup_epochs=0"]);
    let (_, profile) = sample(method);
    let mut objective = build(&config, &profile).unwrap();
    module::to_device(objective.networks(), device).unwrap();
    let batch = config.training.batch;
    let run = Run { steps, steps_per_epoch: 1000, batch, device };
    objective.begin(&run).unwrap();
    let view = |(i, v): (usize, &kernels::augment::Recipe)| {
        let image = Array::<f32>::random(&[batch, v.height, v.width, profile.channels], i as u64, 1.0);
        image.to_tensor().unwrap().to_device(device).unwrap()
    };
    let views: Vec<Tensor> = objective.views().iter().enumerate().map(view).collect();
    let draws = objective.draws(&run).unwrap();
    let drawn = |step| {
        let drawn = draws.as_ref().map_or(Vec::new(), |draws| draws(step).unwrap());
        drawn.iter().map(|t| t.to_device(device).unwrap()).collect()
    };
    let inputs = (0..steps).map(|step| StepInput { views: views.clone(), draws: drawn(step) }).collect();
    let optimizer = optimizer(&config.training, objective.as_mut());
    let stepper = Stepper::new(objective.networks(), optimizer, &config.training, steps, 0, false).unwrap();
    Training { objective, stepper, inputs }
}

/// Takes steps, and calls `after` with the number of each, from 0.
fn take(run: &mut Training, steps: u64, mut after: impl FnMut(u64)) {
    for step in 0..steps {
        let input = run.inputs[step as usize].clone();
        run.stepper.step(run.objective.as_mut(), || Ok(input)).unwrap();
        after(step);
    }
}

/// Takes steps of a method, whose figures must stay what they are once `warm` steps are taken.
fn steady(method: &str, warm: u64, steps: u64, device: Device, ordinal: usize) -> Training {
    let mut run = training(method, steps, device);
    let mut settled: Option<Stats> = None;
    take(&mut run, steps, |step| {
        let now = stats(ordinal).unwrap();
        match &settled {
            None if step >= warm => settled = Some(now),
            None => {}
            Some(then) => {
                let figures = |s: &Stats| (s.live, s.peak, s.from_driver, s.uploads, s.read_backs);
                assert_eq!(
                    figures(&now),
                    figures(then),
                    "{method}: live and peak bytes, blocks from the driver, uploads and read-backs after step {}",
                    step + 1
                );
            }
        }
    });
    let events = run.stepper.events(steps - 10..steps, steps).unwrap();
    assert!(events.iter().all(|event| event.figure("loss").is_some_and(f32::is_finite)), "{method}");
    run
}

#[test]
fn steps_take_no_memory_and_do_not_wait() {
    let device = testing::device();
    extension::set_option("SCHEDULES", "one");
    let Device::Cuda(ordinal) = device else { panic!("tests run kernels on a CUDA device") };
    // The first steps load all kernels, whose variables the driver keeps as long as the process lives.
    take(&mut training("simclr", 3, device), 3, |_| {});
    cuda::release().unwrap();
    let before = given_out();
    let run = steady("simclr", 2, STEPS, device, ordinal);

    assert!(given_out() > before);
    drop(run);
    let left = stats(ordinal).unwrap().by_operation;
    assert!(left.iter().all(|(operation, _)| *operation == "constants"), "still live: {left:?}");
    cuda::release().unwrap();
    assert_eq!(stats(ordinal).unwrap().live, 0);
    assert_eq!(given_out(), before, "bytes that the driver counts as given out");

    for method in METHODS {
        drop(steady(method.name, 7, FEWER, device, ordinal));
    }
}
