//! What a step of self-distillation does beside its networks, captured in a CUDA graph: a teacher's targets under a
//! temperature that changes, the student's cross-entropy with them, Sinkhorn-Knopp with padding, the running center, a
//! queue of keys, a teacher that follows.
//!
//! What other threads launch while a graph is captured would become a part of it, so there is one test here, which has
//! the process to itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use engine::cuda::graph::Graph;
use engine::cuda::memory;
use engine::{DType, Device, Result, Tensor};
use kernels::array::Array;
use kernels::distill::{Matching, Teacher};
use kernels::optim::{Follower, advance, ema, schedule};
use kernels::{copy, distill, elementwise};

const STEPS: usize = 4;
const KEYS: usize = 8;
const QUEUE: usize = 24;

/// All that a step reads and writes.
struct Training {
    logits: Tensor,
    temperatures: Tensor,
    valid: Tensor,
    step: Tensor,
    center: Tensor,
    queue: Tensor,
    /// i32 [steps, keys]: where each step's keys go.
    places: Tensor,
    teacher: Tensor,
    low: Tensor,
    targets: Tensor,
    entropy: Tensor,
    assigned: Tensor,
    student: Tensor,
    /// The student's cross-entropy with the teacher, and its gradient.
    loss: Tensor,
    gradient: Tensor,
}

fn random(shape: &[usize], seed: u64, device: Device) -> Tensor {
    Array::<f32>::random(shape, seed, 0.3).to_tensor().unwrap().to_device(device).unwrap()
}

impl Training {
    fn new(device: Device) -> Training {
        let put = |x: Tensor| x.to_device(device).unwrap();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).unwrap();
        let places: Vec<i32> = (0..STEPS * KEYS).map(|i| (i % QUEUE) as i32).collect();
        Training {
            logits: random(&[KEYS, 40], 1, device),
            temperatures: put(Tensor::from_slice(&[0.04f32, 0.05, 0.06, 0.07], &[STEPS]).unwrap()),
            valid: put(Tensor::from_slice(&[5i32], &[1]).unwrap()),
            step: Tensor::zeros(&[1], DType::I32, device).unwrap(),
            center: zeros(&[40]),
            queue: zeros(&[QUEUE, 40]),
            places: put(Tensor::from_slice(&places, &[STEPS, KEYS]).unwrap()),
            teacher: random(&[40], 2, device),
            low: Tensor::zeros(&[40], DType::BF16, device).unwrap(),
            targets: zeros(&[KEYS, 40]),
            entropy: zeros(&[KEYS]),
            assigned: zeros(&[KEYS, 40]),
            student: random(&[3 * KEYS / 2, 40], 3, device),
            loss: zeros(&[3 * KEYS / 2]),
            gradient: zeros(&[3 * KEYS / 2, 40]),
        }
    }

    fn step(&mut self) -> Result<()> {
        let temperature = schedule(&self.temperatures, &self.step)?;
        let (targets, entropy) =
            distill::teacher_softmax(&self.logits, Some(&self.center), (&temperature).into())?;
        let assigned = distill::sinkhorn(&self.logits, (&temperature).into(), 3, Some(&self.valid))?;
        let teacher =
            Teacher { logits: &self.logits, center: Some(&self.center), temperature: (&temperature).into() };
        let (rows, _) = distill::teacher_rows(&teacher)?;
        let (mean, _) = distill::teacher_means(&teacher, &rows, None)?;
        let (student, crops) = (&self.student, Matching::OtherCrops);
        let (loss, own) = distill::teacher_xent_forward(student, &teacher, &rows, 0.1, crops)?;
        let gradient = distill::teacher_xent_backward(&loss, student, &teacher, &rows, 0.1, crops, &own)?;
        elementwise::blend_assign(&mut self.center, 0.9, &mean, 0.1)?;
        let places = copy::gather_rows(&self.places, &self.step)?.reshape(&[KEYS])?;
        copy::put_rows(&mut self.queue, &places, &targets)?;
        let follower = Follower { target: &mut self.teacher, online: &mean, low: Some(&mut self.low) };
        ema(&mut [follower], 0.9.into())?;
        // What a graph makes is its own: the results are kept where the next step does not write.
        elementwise::blend_assign(&mut self.targets, 0.5, &targets, 1.0)?;
        elementwise::blend_assign(&mut self.entropy, 0.5, &entropy, 1.0)?;
        elementwise::blend_assign(&mut self.assigned, 0.5, &assigned, 1.0)?;
        elementwise::blend_assign(&mut self.loss, 0.5, &loss, 1.0)?;
        elementwise::blend_assign(&mut self.gradient, 0.5, &gradient, 1.0)?;
        advance(&mut self.step)
    }

    fn bits(&self) -> Vec<u32> {
        let low = copy::cast(&self.low, DType::F32).unwrap();
        let all = [&self.center, &self.queue, &self.teacher, &self.targets, &self.entropy, &self.assigned];
        let all = all.into_iter().chain([&low, &self.loss, &self.gradient]);
        all.flat_map(|x| x.to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
    }
}

#[test]
fn a_captured_step_of_distillation_is_a_step() {
    let device = kernels::testing::device();
    let mut eager = Training::new(device);
    (0..STEPS).for_each(|_| eager.step().unwrap());
    // The queue's end was passed.
    assert_ne!(eager.queue.to_vec::<f32>().unwrap()[..40], [0.0; 40]);

    let mut captured = Training::new(device);
    // Tables of constants are uploaded before.
    captured.step().unwrap();
    let fresh = Training::new(device);
    let (mut graph, ()) = Graph::capture(device, || captured.step()).unwrap();
    for (to, from) in [
        (&mut captured.center, &fresh.center),
        (&mut captured.queue, &fresh.queue),
        (&mut captured.teacher, &fresh.teacher),
        (&mut captured.targets, &fresh.targets),
        (&mut captured.entropy, &fresh.entropy),
        (&mut captured.assigned, &fresh.assigned),
        (&mut captured.loss, &fresh.loss),
        (&mut captured.gradient, &fresh.gradient),
    ] {
        elementwise::blend_assign(to, 0.0, from, 1.0).unwrap();
    }
    let zero = Tensor::zeros(&[1], DType::I32, device).unwrap();
    let first = Tensor::from_slice(&[0i32], &[1]).unwrap().to_device(device).unwrap();
    copy::put_rows(&mut captured.step, &first, &zero).unwrap();
    let before = memory::stats(0).unwrap();
    (0..STEPS).for_each(|_| graph.launch().unwrap());
    let after = memory::stats(0).unwrap();
    assert_eq!((after.uploads, after.read_backs), (before.uploads, before.read_backs));
    assert_eq!(captured.bits(), eager.bits());

    // A target that shares its storage would be written to a copy.
    let shared = captured.center.clone();
    let error = Graph::capture(device, || captured.step()).err().unwrap();
    assert!(error.message().contains("a shares its storage"), "{error}");
    drop(shared);
    let shared = captured.queue.clone();
    let error = Graph::capture(device, || captured.step()).err().unwrap();
    assert!(error.message().contains("x shares its storage"), "{error}");
    drop(shared);
}
