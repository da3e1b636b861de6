//! Rules of single parameters in an optimiser: decay, rate, adaptation, waiting, clipping by group.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use autograd::module::{Path, Visitor};
use autograd::optim::{Algorithm, Clip, Hold, Numbers, Optimizer, Rule};
use autograd::param::Role;
use autograd::{Module, Param, ops};
use engine::Tensor;
use engine::safetensors::Contents;
use kernels::optim::{LarsVariant, Scalar, StepCount};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAMES: [&str; 4] = ["weight", "bias", "norm", "token"];
const ROLES: [Role; 4] = [Role::Weight, Role::Bias, Role::Norm, Role::Token];

/// A parameter of each role, of two elements.
struct Network(Vec<Param>);

impl Network {
    fn of(value: f32) -> Network {
        Network(ROLES.iter().map(|&role| Param::new(tensor(value), role)).collect())
    }

    /// Gives each parameter this gradient.
    fn backward(&self, gradients: [f32; 4]) {
        for (param, gradient) in self.0.iter().zip(gradients) {
            ops::scale(&param.var(), 1.0).unwrap().backward_from(tensor(gradient)).unwrap();
        }
    }

    fn values(&self) -> Vec<f32> {
        self.0.iter().map(|p| p.value().to_vec::<f32>().unwrap()[0]).collect()
    }
}

impl Module for Network {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        NAMES.iter().zip(&mut self.0).for_each(|(name, param)| visitor.param(path.name(name), param));
    }
}

fn tensor(value: f32) -> Tensor {
    Tensor::from_slice(&[value; 2], &[2]).unwrap()
}

const PLAIN: Algorithm = Algorithm::Sgd { momentum: 0.0, nesterov: false };
const MOMENTUM: Algorithm = Algorithm::Sgd { momentum: 0.9, nesterov: true };
const ADAMW: Algorithm = Algorithm::AdamW { betas: (0.9, 0.999), eps: 1e-8 };
const LARS: Algorithm = Algorithm::Lars { momentum: 0.9, trust: 1e-3, variant: LarsVariant::Byol };

fn near(found: &[f32], right: &[f32]) {
    assert_eq!(found.len(), right.len());
    assert!(found.iter().zip(right).all(|(f, r)| (f - r).abs() < 1e-6), "{found:?} {right:?}");
}

/// Weights and tokens decay, biases and normalisations do not.
#[test]
fn roles_say_what_decays() {
    let mut network = Network::of(1.0);
    network.backward([0.0; 4]);
    Optimizer::new(PLAIN, 0.5).step(&mut network, 0.1.into(), None).unwrap();
    near(&network.values(), &[0.95, 1.0, 1.0, 0.95]);
}

/// LARS' ratio is 1 where a norm is zero: everything that starts at zero moves at the first step.
#[test]
fn parameters_that_start_at_zero_move_under_lars() {
    let mut network = Network::of(0.0);
    network.backward([1.0; 4]);
    Optimizer::new(LARS, 1e-4).step(&mut network, 0.1.into(), None).unwrap();
    near(&network.values(), &[-0.1; 4]);
}

#[test]
fn decay_and_rate_are_scaled_by_rule_and_by_step() {
    let rules = |name: &str, param: &Param| match name {
        "weight" => Rule { weight_decay: 2.0, ..Rule::of(param) },
        "token" => Rule { weight_decay: 0.0, rate_scale: 0.5, ..Rule::of(param) },
        _ => Rule::of(param),
    };
    let mut optimizer = Optimizer::new(PLAIN, 0.5).with_rules(rules);
    let mut network = Network::of(1.0);
    network.backward([0.0, 0.0, 1.0, 1.0]);
    let scale = Tensor::from_slice(&[3.0f32], &[1]).unwrap();
    let numbers = Numbers {
        rate: Scalar::Value(0.1),
        decay_scale: Scalar::Tensor(&scale),
        before: StepCount::Value(0),
    };
    optimizer.step_after(&mut network, &numbers, None).unwrap();
    // The weight: 1 - 0.1 * (2 * 0.5 * 3).
    near(&network.values(), &[0.7, 1.0, 0.9, 0.95]);
}

/// A parameter with an algorithm of its own moves as in an optimiser of its own, bit for bit, also across a checkpoint, and
/// the others as without it.
#[test]
fn a_parameter_may_have_an_algorithm_of_its_own() {
    let own = |algorithm: Option<Algorithm>| {
        move |name: &str, param: &Param| Rule {
            algorithm: algorithm.filter(|_| name == "weight"),
            ..Rule::of(param)
        }
    };
    let after = |usual: Algorithm, special: Option<Algorithm>, resumed: bool| {
        let mut network = Network::of(0.5);
        let mut optimizer = Optimizer::new(usual, 0.1).with_rules(own(special));
        for step in 0..4 {
            network.backward([1.0, -0.5, 0.25, 2.0].map(|g| g * (step as f32 - 1.5)));
            optimizer.step(&mut network, 0.1.into(), None).unwrap();
            if resumed {
                let mut contents = Contents::default();
                optimizer.save("o.", &mut contents).unwrap();
                optimizer = Optimizer::new(usual, 0.1).with_rules(own(special));
                optimizer.load(&mut network, "o.", &contents, step + 1).unwrap();
            }
        }
        network.values()
    };
    for (usual, special) in [(MOMENTUM, ADAMW), (ADAMW, PLAIN), (LARS, ADAMW)] {
        let mixed = after(usual, Some(special), false);
        assert_eq!(mixed, after(usual, Some(special), true));
        assert_eq!(mixed[0], after(special, None, false)[0]);
        assert_eq!(mixed[1..], after(usual, None, false)[1..]);
        assert_ne!(mixed[0], after(usual, None, false)[0]);
    }
}

#[test]
fn rules_are_asked_for_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let mut optimizer = Optimizer::new(ADAMW, 0.1).with_rules(move |_, param| {
        count.fetch_add(1, Ordering::Relaxed);
        Rule::of(param)
    });
    let mut network = Network::of(1.0);
    optimizer.prepare(&mut network).unwrap();
    for _ in 0..3 {
        network.backward([1.0; 4]);
        optimizer.step(&mut network, 0.1.into(), None).unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

/// The weight waits for three steps, as the last layer of DINO's head.
fn waiting(algorithm: Algorithm, hold: Hold) -> Optimizer {
    Optimizer::new(algorithm, 0.1).with_rules(move |name, param| Rule {
        hold: if name == "weight" { hold } else { Hold::None },
        ..Rule::of(param)
    })
}

/// Neither momentum nor decay moves a parameter that waits, from the first step on, also across a checkpoint.
#[test]
fn a_held_parameter_keeps_its_bits_until_its_start_and_moves_then() {
    for algorithm in [PLAIN, MOMENTUM, ADAMW, LARS] {
        for hold in [Hold::Untouched(3), Hold::Still(3)] {
            for resumes_after in [None, Some(2)] {
                let mut network = Network::of(0.3);
                let mut optimizer = waiting(algorithm, hold);
                for step in 0..5 {
                    network.backward([1.0, 1.0, 1.0, 1.0]);
                    optimizer.step(&mut network, 0.1.into(), None).unwrap();
                    let moved = network.values()[0].to_bits() != 0.3f32.to_bits();
                    assert_eq!(moved, step >= 3, "{algorithm:?}, {hold:?}, step {step}");
                    assert_ne!(network.values()[1], 0.3);
                    if resumes_after == Some(step) {
                        let mut contents = Contents::default();
                        optimizer.save("o.", &mut contents).unwrap();
                        optimizer = waiting(algorithm, hold);
                        optimizer.load(&mut network, "o.", &contents, step + 1).unwrap();
                    }
                }
            }
        }
    }
}

/// The norm that comes back is of all gradients, whatever is clipped; groups are those of the rules.
#[test]
fn groups_are_clipped_together() {
    // Norms of [x, x] are sqrt 2 |x|: 3 and 4 together in group 5 have 5 sqrt 2, the others 1 and 12 times sqrt 2.
    let root = 2f32.sqrt();
    let groups = |name: &str, param: &Param| Rule {
        group: if ["weight", "norm"].contains(&name) { 5 } else { 0 },
        weight_decay: 0.0,
        ..Rule::of(param)
    };
    let after = |clip: Option<Clip>| {
        let mut network = Network::of(0.0);
        network.backward([3.0, 1.0, 4.0, 12.0]);
        let mut optimizer = Optimizer::new(PLAIN, 0.1).with_rules(groups);
        let norm = optimizer.step(&mut network, 1.0.into(), clip).unwrap();
        assert!((norm.item().unwrap() - 170f32.sqrt() * root).abs() < 1e-4);
        network.values()
    };
    near(&after(None), &[-3.0, -1.0, -4.0, -12.0]);
    let other = root / (145f32.sqrt() * root);
    near(&after(Some(Clip::group(root))), &[-0.6, -other, -0.8, -12.0 * other]);
    near(&after(Some(Clip::parameter(2.0 * root))), &[-2.0, -1.0, -2.0, -2.0]);
    let all = root / (170f32.sqrt() * root);
    near(&after(Some(Clip::global(root))), &[-3.0 * all, -all, -4.0 * all, -12.0 * all]);
}

/// Rules are not a part of what is saved.
#[test]
fn a_checkpoint_holds_moments_only() {
    let mut network = Network::of(1.0);
    let mut optimizer = waiting(ADAMW, Hold::Untouched(3));
    network.backward([1.0; 4]);
    optimizer.step(&mut network, 0.1.into(), None).unwrap();
    let mut contents = Contents::default();
    optimizer.save("o.", &mut contents).unwrap();
    let names: Vec<&str> = contents.tensors.keys().map(String::as_str).collect();
    let mut right: Vec<String> =
        NAMES.iter().flat_map(|n| [format!("o.{n}.first"), format!("o.{n}.second")]).collect();
    right.sort();
    assert_eq!(names, right);
}
