//! A training step captured in a CUDA graph: replays are steps, bit for bit, and need nothing from the host.
//!
//! What other threads launch while a graph is captured would become a part of it, so there is one test here, which has
//! the process to itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use autograd::module::{Path, Visitor};
use autograd::optim::{Algorithm, Clip, Hold, Numbers, Optimizer, Rule};
use autograd::param::Role;
use autograd::{Module, Param, ops};
use engine::cuda::graph::{Graph, capturing};
use engine::cuda::{self, memory};
use engine::safetensors::Contents;
use engine::{DType, Device, Result, Tensor};
use kernels::array::Array;
use kernels::optim::{LarsVariant, Scalar, StepCount, advance, record, schedule};

const STEPS: usize = 5;

fn random(shape: &[usize], seed: u64, device: Device) -> Tensor {
    Array::<f32>::random(shape, seed, 1.0).to_tensor().unwrap().to_device(device).unwrap()
}

/// Parameters of two chunks and of a few elements.
struct Network {
    weight: Param,
    bias: Param,
}

impl Module for Network {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.name("weight"), &mut self.weight);
        visitor.param(path.name("bias"), &mut self.bias);
    }
}

/// All that a step reads and writes.
struct Training {
    network: Network,
    optimizer: Optimizer,
    clip: Clip,
    upstream: [Tensor; 2],
    rates: Tensor,
    step: Tensor,
    /// Norm and rate of each step.
    history: Tensor,
}

impl Training {
    /// The bias waits until the graph was replayed twice.
    fn new(algorithm: Algorithm, hold: fn(u32) -> Hold, clip: Clip, device: Device) -> Training {
        let sizes = [[150, 120], [1, 7]];
        let value = |i: usize| random(&sizes[i], 1 + i as u64, device);
        Training {
            network: Network {
                weight: Param::new(value(0), Role::Weight),
                bias: Param::new(value(1), Role::Bias),
            },
            optimizer: Optimizer::new(algorithm, 0.1).with_rules(move |name, param| {
                let rule = Rule::of(param);
                Rule { hold: if name == "bias" { hold(2) } else { Hold::None }, ..rule }
            }),
            clip,
            upstream: [random(&sizes[0], 3, device), random(&sizes[1], 4, device)],
            rates: Tensor::from_slice(&[0.1f32, 0.05, 0.02, 0.01], &[4]).unwrap().to_device(device).unwrap(),
            step: Tensor::zeros(&[1], DType::I32, device).unwrap(),
            history: Tensor::zeros(&[STEPS, 2], DType::F32, device).unwrap(),
        }
    }

    /// Forward, backward and optimiser: each parameter's gradient is twice itself times `upstream`.
    fn step(&mut self) -> Result<()> {
        for (param, upstream) in [&self.network.weight, &self.network.bias].into_iter().zip(&self.upstream) {
            ops::mul(&param.var(), &param.var())?.backward_from(upstream.clone())?;
        }
        let rate = schedule(&self.rates, &self.step)?;
        let before = StepCount::Tensor(&self.step);
        let numbers = Numbers { rate: Scalar::Tensor(&rate), decay_scale: Scalar::Tensor(&rate), before };
        let norm = self.optimizer.step_after(&mut self.network, &numbers, Some(self.clip))?;
        record(&mut self.history, &self.step, &[&norm, &rate])?;
        advance(&mut self.step)
    }

    /// Parameters, optimiser state, history and step, as bits.
    fn bits(&self) -> Vec<u32> {
        let mut contents = Contents::default();
        self.optimizer.save("", &mut contents).unwrap();
        let mut all = vec![self.network.weight.value(), self.network.bias.value(), &self.history];
        all.extend(contents.tensors.values());
        let floats = all.into_iter().flat_map(|x| x.to_vec::<f32>().unwrap()).map(f32::to_bits);
        floats.chain(self.step.to_vec::<i32>().unwrap().into_iter().map(|i| i as u32)).collect()
    }
}

fn uploads() -> usize {
    memory::stats(0).unwrap().uploads
}

fn replays_are_steps(algorithm: Algorithm, hold: fn(u32) -> Hold, clip: Clip, device: Device) {
    let mut eager = Training::new(algorithm, hold, clip, device);
    let mut counts = Vec::new();
    for _ in 0..STEPS {
        let before = uploads();
        eager.step().unwrap();
        counts.push(uploads() - before);
    }
    // The first step takes memory for its state; from the second on the same addresses come again.
    assert!(counts[0] > 0 && counts[2..].iter().all(|&n| n == 0), "{algorithm:?}: {counts:?} uploads");

    let mut captured = Training::new(algorithm, hold, clip, device);
    captured.optimizer.prepare(&mut captured.network).unwrap();
    let before_capture = captured.bits();
    let (mut graph, ()) = Graph::capture(device, || captured.step()).unwrap();
    assert_eq!(captured.bits(), before_capture, "a capture runs nothing");
    let bias_at_start = captured.network.bias.value().to_vec::<f32>().unwrap();
    for i in 0..STEPS {
        let before = uploads();
        graph.launch().unwrap();
        assert_eq!(uploads(), before);
        let bias_moved = captured.network.bias.value().to_vec::<f32>().unwrap() != bias_at_start;
        assert_eq!(bias_moved, i >= 2, "{algorithm:?} after replay {i}");
        if i == 1 {
            // The constants of others push the graph's tables out of the cache, and their memory is written.
            let context = cuda::context(0).unwrap();
            for n in 0..=cuda::constant::KEPT {
                cuda::constant(context, &[n as u8; 512]).unwrap();
            }
            for size in [7, 160, 512, 18_000] {
                let _other = Tensor::full(&[size], f32::NAN, device).unwrap();
            }
        }
    }
    assert_eq!(captured.bits(), eager.bits(), "{algorithm:?}");
}

/// What would make replays differ from steps is an error of the capture.
fn wrong_captures_are_refused(device: Device) {
    let adamw = Algorithm::AdamW { betas: (0.9, 0.999), eps: 1e-8 };
    let mut training = Training::new(adamw, Hold::Still, Clip::global(0.5), device);
    let error = Graph::capture(device, || training.step()).err().unwrap();
    assert!(error.message().contains("call prepare first"), "{error}");
    assert!(!capturing(device));
    let mut training = Training::new(adamw, Hold::Still, Clip::global(0.5), device);
    training.optimizer.prepare(&mut training.network).unwrap();
    let shared = training.network.weight.value().clone();
    let error = Graph::capture(device, || training.step()).err().unwrap();
    assert!(error.message().contains("value shares its storage"), "{error}");
    drop(shared);
    // Outside a capture the same is a step.
    let mut training = Training::new(adamw, Hold::Still, Clip::global(0.5), device);
    let shared = training.network.weight.value().clone();
    training.step().unwrap();
    assert_ne!(shared.to_vec::<f32>().unwrap(), training.network.weight.value().to_vec::<f32>().unwrap());
}

/// The state that is saved goes back to the parameters' device.
fn state_is_loaded_where_the_parameters_are(device: Device) {
    let adamw = Algorithm::AdamW { betas: (0.9, 0.999), eps: 1e-8 };
    let mut whole = Training::new(adamw, Hold::Still, Clip::global(0.5), device);
    whole.step().unwrap();
    let mut contents = Contents::default();
    whole.optimizer.save("", &mut contents).unwrap();
    let on_cpu = |x: &Tensor| x.to_device(Device::Cpu).unwrap();
    let tensors = contents.tensors.iter().map(|(name, x)| (name.clone(), on_cpu(x))).collect();
    let contents = Contents { tensors, ..contents };
    let mut resumed = Training::new(adamw, Hold::Still, Clip::global(0.5), device);
    resumed.optimizer.load(&mut resumed.network, "", &contents, 1).unwrap();
    for (to, from) in [
        (&mut resumed.network.weight, &whole.network.weight),
        (&mut resumed.network.bias, &whole.network.bias),
    ] {
        to.set(on_cpu(from.value()).to_device(device).unwrap()).unwrap();
    }
    resumed.step = on_cpu(&whole.step).to_device(device).unwrap();
    resumed.history = on_cpu(&whole.history).to_device(device).unwrap();
    whole.step().unwrap();
    resumed.step().unwrap();
    assert_eq!(resumed.bits(), whole.bits());
    assert_eq!(resumed.optimizer.steps(), 2);
}

#[test]
fn a_captured_step_is_a_step() {
    let device = kernels::testing::device();
    let untouched: fn(u32) -> Hold = Hold::Untouched;
    for (algorithm, hold, clip) in [
        (Algorithm::AdamW { betas: (0.9, 0.999), eps: 1e-8 }, untouched, Clip::parameter(0.5)),
        (Algorithm::Sgd { momentum: 0.9, nesterov: true }, untouched, Clip::global(0.5)),
        (Algorithm::Sgd { momentum: 0.9, nesterov: true }, Hold::Still, Clip::group(0.5)),
        (
            Algorithm::Lars { momentum: 0.9, trust: 0.01, variant: LarsVariant::Byol },
            Hold::Still,
            Clip::global(0.5),
        ),
    ] {
        replays_are_steps(algorithm, hold, clip, device);
    }
    wrong_captures_are_refused(device);
    state_is_loaded_where_the_parameters_are(device);
}
