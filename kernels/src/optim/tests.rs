mod clip;
mod hold;

use super::cases::{Case, cases, strategy};
use super::check::{self, EPS, Held, Place, RATE, Rule, TRUST, rules, widened};
use super::reference::State;
use super::*;
use crate::array::{Array, Real};
use crate::compare;
use proptest::prelude::*;

/// Parameters and their state after the case's steps, on the CPU.
fn run(case: &Case, rule: Rule, gradient_scale: f32) -> Result<Vec<Held>> {
    check::run(case, rule, gradient_scale, Place::cpu(DType::F32))
}

/// The same from the references.
fn expected<T: Real>(case: &Case, rule: Rule, gradient_scale: f32) -> Vec<State<T>> {
    let (of, mut states) = (|x: f32| T::of(f64::from(x)), case.states::<T>(RATE));
    for step in 0..case.steps {
        for (i, (s, g)) in states.iter_mut().zip(case.gradients::<T>(step)).enumerate() {
            let scale = of(gradient_scale) * of(case.gradient_scale(i));
            let g: Vec<T> = g.iter().map(|&g| g * scale).collect();
            let (before, hold, kept) = (step as u64, case.hold(i), s.clone());
            let own = match hold {
                Hold::Untouched(start) if before < u64::from(start) => continue,
                Hold::Untouched(start) => before - u64::from(start),
                Hold::None | Hold::Still(_) => before,
            };
            let still = matches!(hold, Hold::Still(start) if before < u64::from(start));
            s.decay = s.decay * of(case.decay_scale(step));
            s.rate = if still { T::ZERO } else { s.rate };
            match rule {
                Rule::Sgd { momentum, nesterov } => {
                    reference::sgd(s, &g, of(momentum), nesterov, own == 0);
                }
                Rule::Lars(variant) => reference::lars(s, &g, of(0.9), of(TRUST), variant),
                Rule::AdamW { betas } => {
                    reference::adamw(s, &g, (of(betas.0), of(betas.1)), of(EPS), own + 1);
                }
            }
            (s.decay, s.rate) = (kept.decay, kept.rate);
            assert!(!still || s.w == kept.w);
        }
    }
    states
}

fn agrees(case: &Case, rule: Rule, gradient_scale: f32) -> Result<()> {
    let (naive, oracle) =
        (expected::<f32>(case, rule, gradient_scale), expected::<f64>(case, rule, gradient_scale));
    for (i, out) in run(case, rule, gradient_scale)?.iter().enumerate() {
        let array = |x: &[f64]| Array::new(&[x.len()], x.to_vec());
        let naive_array = |x: &[f32]| Array::new(&[x.len()], x.to_vec());
        let what = |name: &str| format!("{name} of parameter {i}, {rule:?}, {case:?}");
        let (n, o) = (&naive[i], &oracle[i]);
        compare::check(&what("value"), &out.value, &naive_array(&n.w), &array(&o.w), 2.0)?;
        compare::check(&what("first"), &out.first, &naive_array(&n.first), &array(&o.first), 2.0)?;
        compare::check(&what("second"), &out.second, &naive_array(&n.second), &array(&o.second), 2.0)?;
    }
    Ok(())
}

#[test]
fn agrees_with_the_reference() {
    for case in cases() {
        for rule in rules() {
            for gradient_scale in [1.0, 0.25] {
                agrees(&case, rule, gradient_scale).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_on_random_problems(case in strategy(), rule in 0..8usize) {
        agrees(&case, rules()[rule], 0.5).unwrap();
    }
}

/// One parameter through one step: (value, momentum) after it.
fn one_step(w: &[f32], g: &[f32], v: &[f32], decay: f32, adapt: bool, variant: LarsVariant) -> [Vec<f32>; 2] {
    let tensor = |x: &[f32]| Tensor::from_slice(x, &[x.len()]).unwrap();
    let (mut value, gradient, mut first) = (tensor(w), tensor(g), tensor(v));
    let slot = Slot {
        value: &mut value,
        gradient: &gradient,
        first: &mut first,
        second: None,
        low: None,
        average: None,
        weight_decay: decay,
        rate_scale: 1.0,
        adapt,
        hold: Hold::None,
    };
    lars(&mut [slot], &Step::at(0.5), 0.9, 0.1, variant, StepCount::Value(0)).unwrap();
    [value.to_vec().unwrap(), first.to_vec().unwrap()]
}

fn near(found: &[f32], right: &[f64]) {
    assert_eq!(found.len(), right.len());
    assert!(found.iter().zip(right).all(|(&f, &r)| (f64::from(f) - r).abs() < 1e-6), "{found:?} {right:?}");
}

/// |w| = 5, |g| = 10, momentum already 1: worked by hand for rate 0.5, momentum 0.9, trust 0.1.
#[test]
fn lars_closed_forms() {
    let (w, g, v) = ([3.0, 4.0], [6.0, 8.0], [1.0, 1.0]);
    // No decay: ratio 0.1 * 5 / 10 = 0.05. Inside: v = 0.9 + 0.5 * 0.05 * g; w -= v.
    let [value, first] = one_step(&w, &g, &v, 0.0, true, LarsVariant::Simclr);
    near(&first, &[0.9 + 0.15, 0.9 + 0.2]);
    near(&value, &[3.0 - 1.05, 4.0 - 1.1]);
    // Outside: v = 0.9 + 0.05 * g; w -= 0.5 v.
    let [value, first] = one_step(&w, &g, &v, 0.0, true, LarsVariant::Byol);
    near(&first, &[0.9 + 0.3, 0.9 + 0.4]);
    near(&value, &[3.0 - 0.6, 4.0 - 0.65]);
    // Decay 2 is added before the norm: u = g + 2 w = (12, 16), |u| = 20, ratio 0.025.
    let [value, first] = one_step(&w, &g, &v, 2.0, true, LarsVariant::Byol);
    near(&first, &[0.9 + 0.3, 0.9 + 0.4]);
    near(&value, &[3.0 - 0.6, 4.0 - 0.65]);
    // A gradient at right angles tells the norm of the sum from the sum of norms: u = (6, 8) + (8, -6).
    let across = [8.0, -6.0];
    let ratio = 0.1 * 5.0 / 200f64.sqrt();
    let [_, first] = one_step(&w, &across, &v, 2.0, true, LarsVariant::Simclr);
    near(&first, &[0.9 + 0.5 * ratio * 14.0, 0.9 + 0.5 * ratio * 2.0]);
    // lightly: ratio = 0.1 * 5 / (10 + 2 * 5).
    let [_, first] = one_step(&w, &across, &v, 2.0, true, LarsVariant::Lightly);
    near(&first, &[0.9 + 0.025 * 14.0, 0.9 + 0.025 * 2.0]);
    // lightly leaves slots without decay alone: ratio 1.
    let [_, first] = one_step(&w, &g, &v, 0.0, true, LarsVariant::Lightly);
    near(&first, &[0.9 + 6.0, 0.9 + 8.0]);
    // Excluded: plain momentum in every variant.
    for variant in [LarsVariant::Simclr, LarsVariant::Byol, LarsVariant::Lightly] {
        near(&one_step(&w, &g, &[0.0; 2], 0.0, false, variant)[0], &[0.0, 0.0]);
    }
}

/// The ratio is 1, not 0, while a norm is zero: a bias that starts at zero moves.
#[test]
fn zeros_move() {
    for variant in [LarsVariant::Simclr, LarsVariant::Byol, LarsVariant::Lightly] {
        for (adapt, decay) in [(true, 0.0), (true, 0.1), (false, 0.0)] {
            let [value, _] = one_step(&[0.0; 3], &[1.0, -2.0, 4.0], &[0.0; 3], decay, adapt, variant);
            near(&value, &[-0.5, 1.0, -2.0]);
        }
        // Without a gradient the decay alone acts, save in lightly's.
        let [value, _] = one_step(&[2.0], &[0.0], &[0.0], 0.1, true, variant);
        let right = match variant {
            LarsVariant::Lightly => 2.0,
            // u = 0.2, ratio = 0.1 * 2 / 0.2 = 1.
            LarsVariant::Simclr | LarsVariant::Byol => 1.9,
        };
        near(&value, &[right]);
    }
}

#[test]
fn huge_gradients_and_stale_buffers() {
    let big = vec![1e30f32; 100];
    let [value, _] = one_step(&[1.0; 100], &big, &[0.0; 100], 0.0, true, LarsVariant::Byol);
    // ratio = 0.1 * 10 / 1e31; the step is 0.5 * ratio * 1e30.
    near(&value, &[0.95; 100]);
    // The first step of SGD does not read the buffer.
    let (mut w, g) = (
        Tensor::zeros(&[2], DType::F32, Device::Cpu).unwrap(),
        Tensor::full(&[2], 3.0, Device::Cpu).unwrap(),
    );
    let mut first = Tensor::full(&[2], f32::NAN, Device::Cpu).unwrap();
    let slot = Slot {
        value: &mut w,
        gradient: &g,
        first: &mut first,
        second: None,
        low: None,
        average: None,
        weight_decay: 0.0,
        rate_scale: 1.0,
        adapt: false,
        hold: Hold::None,
    };
    sgd(&mut [slot], &Step::at(1.0), 0.9, false, StepCount::Value(0)).unwrap();
    assert_eq!((w.to_vec::<f32>().unwrap(), first.to_vec::<f32>().unwrap()), (vec![-3.0; 2], vec![3.0; 2]));
}

#[test]
fn adamw_without_gradient_only_decays_and_late_steps_are_finite() {
    let tensor = |x: f32| Tensor::full(&[5], x, Device::Cpu).unwrap();
    for step in [0, 999_999] {
        let (mut value, zero, mut first, mut second) = (tensor(2.0), tensor(0.0), tensor(0.0), tensor(0.0));
        let slot = Slot {
            value: &mut value,
            gradient: &zero,
            first: &mut first,
            second: Some(&mut second),
            low: None,
            average: None,
            weight_decay: 0.5,
            rate_scale: 1.0,
            adapt: true,
            hold: Hold::None,
        };
        adamw(&mut [slot], &Step::at(0.1), (0.9, 0.999), 1e-8, StepCount::Value(step)).unwrap();
        near(&value.to_vec::<f32>().unwrap(), &[2.0 * (1.0 - 0.05); 5]);
    }
}

fn followers<'a>(targets: &'a mut [Tensor], online: &'a [Tensor]) -> Vec<Follower<'a>> {
    let pairs = targets.iter_mut().zip(online);
    pairs.map(|(target, online)| Follower { target, online, low: None }).collect()
}

#[test]
fn moving_average_closed_form() {
    let sizes = [1usize, 17, 40_000];
    let make = |x: f32| sizes.map(|n| Tensor::full(&[n], x, Device::Cpu).unwrap());
    let (mut targets, online) = (make(0.0), make(1.0));
    for _ in 0..10 {
        ema(&mut followers(&mut targets, &online), 0.9.into()).unwrap();
    }
    for t in &targets {
        let right = 1.0 - f64::from(0.9f32).powi(10);
        assert!(t.to_vec::<f32>().unwrap().iter().all(|&x| (f64::from(x) - right).abs() < 5e-7));
    }
    // 1 and 0 are exact.
    for (decay, value) in [(1.0, 3.0), (0.0, 1.0)] {
        let mut targets = make(3.0);
        ema(&mut followers(&mut targets, &online), decay.into()).unwrap();
        assert!(targets[2].as_slice::<f32>().unwrap().iter().all(|&x| x == value));
    }
    ema(&mut [], 0.5.into()).unwrap();
}

#[test]
fn bits_do_not_depend_on_threads_and_bounds_hold() {
    let case = Case {
        sizes: vec![70_000, 5, 16_385, 33],
        scale: 1.0,
        decay: 0.1,
        zeros: false,
        steps: 2,
        holds: false,
    };
    for rule in rules() {
        let mut first: Option<Vec<u32>> = None;
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bits = pool.install(|| {
                let scope = memory::guard();
                let out = run(&case, rule, 1.0).unwrap();
                let norm =
                    global_norm(&out.iter().map(|o| &o.value).collect::<Vec<_>>()).unwrap().item().unwrap();
                let values = out
                    .iter()
                    .flat_map(|o| [&o.value, &o.first, &o.second, &o.average])
                    .flat_map(|t| t.to_vec::<f32>().unwrap());
                let bits: Vec<u32> = values.chain([norm]).map(f32::to_bits).collect();
                drop(out);
                scope.finish().unwrap();
                bits
            });
            assert_eq!(*first.get_or_insert_with(|| bits.clone()), bits, "{rule:?} with {threads} threads");
        }
    }
}

/// The bf16 copy is the value rounded, and the average what `ema` makes of it.
#[test]
fn copies_and_averages_follow_the_value() {
    let case = Case { sizes: vec![3, 20_000], scale: 1.0, decay: 0.1, zeros: false, steps: 1, holds: false };
    for rule in rules() {
        for (held, before) in run(&case, rule, 1.0).unwrap().iter().zip(case.states::<f32>(RATE)) {
            let rounded = Array::<f64>::from_tensor(&held.value).unwrap().rounded_to(DType::BF16);
            assert_eq!(Array::<f64>::from_tensor(&widened(&held.low).unwrap()).unwrap().data, rounded.data);
            let mut average = Tensor::from_slice(&before.w, &[before.w.len()]).unwrap();
            let mut low = Tensor::full(&[before.w.len()], f32::NAN, Device::Cpu).unwrap();
            low = crate::copy::cast(&low, DType::BF16).unwrap();
            let follower = Follower { target: &mut average, online: &held.value, low: Some(&mut low) };
            ema(&mut [follower], 0.9.into()).unwrap();
            let rounded = Array::<f64>::from_tensor(&average).unwrap().rounded_to(DType::BF16);
            assert_eq!(Array::<f64>::from_tensor(&widened(&low).unwrap()).unwrap().data, rounded.data);
            compare::check_equal("average", &held.average, &average).unwrap();
        }
    }
}

/// Numbers from tensors and by value are the same, and numbers that are not numbers are refused.
#[test]
fn numbers_from_tensors() {
    let case = Case { sizes: vec![5, 33], scale: 1.0, decay: 0.1, zeros: false, steps: 3, holds: false };
    for rule in rules() {
        let from_tensors = Place { misaligned: Some(0), ..Place::cpu(DType::F32) };
        let found = check::run(&case, rule, 0.5, from_tensors).unwrap();
        check::same("from tensors", &found, &run(&case, rule, 0.5).unwrap()).unwrap();
    }
    let values = Tensor::from_slice(&[3f32, 2.0, 1.0], &[3]).unwrap();
    let mut step = Tensor::from_slice(&[-1i32], &[1]).unwrap();
    let mut history = Tensor::zeros(&[2, 2], DType::F32, Device::Cpu).unwrap();
    let one = Tensor::scalar(1.0).unwrap();
    assert!(schedule(&values, &step).unwrap_err().message().contains("count from 0"));
    assert!(record(&mut history, &step, &[&one, &one]).is_err());
    assert!(record(&mut history, &step, &[&one]).unwrap_err().message().contains("[rows, 1]"));
    assert!(record(&mut history, &step, &[&one, &values]).unwrap_err().message().contains("one element"));
    let mut rates = Vec::new();
    for _ in 0..4 {
        advance(&mut step).unwrap();
        let rate = schedule(&values, &step).unwrap();
        record(&mut history, &step, &[&rate, &one]).unwrap();
        rates.push(rate.item().unwrap());
    }
    assert_eq!(rates, [3.0, 2.0, 1.0, 1.0]);
    assert_eq!(history.to_vec::<f32>().unwrap(), [1.0; 4]);
    assert!(advance(&mut history).is_err());
}

#[test]
fn wrong_slots_are_named() {
    let tensor = |n: usize| Tensor::zeros(&[n], DType::F32, Device::Cpu).unwrap();
    let integers = Tensor::from_slice(&[1i32, 2], &[2]).unwrap();
    let step = |gradient: &Tensor, n_first: usize, n_second: Option<usize>| {
        let (mut good, good_gradient, mut good_first) = (tensor(1), tensor(1), tensor(1));
        let (mut value, mut first, mut second) = (tensor(2), tensor(n_first), n_second.map(tensor));
        let mut good_second = tensor(1);
        let slot = |value, gradient, first, second| Slot {
            value,
            gradient,
            first,
            second,
            low: None,
            average: None,
            weight_decay: 0.0,
            rate_scale: 1.0,
            adapt: false,
            hold: Hold::None,
        };
        let mut slots = [
            slot(&mut good, &good_gradient, &mut good_first, Some(&mut good_second)),
            slot(&mut value, gradient, &mut first, second.as_mut()),
        ];
        adamw(&mut slots, &Step::at(0.1), (0.9, 0.999), 1e-8, StepCount::Value(0)).map_err(|e| e.to_string())
    };
    let two = tensor(2);
    step(&two, 2, Some(2)).unwrap();
    assert!(step(&tensor(3), 2, Some(2)).unwrap_err().contains("gradient of slot 1"));
    assert!(step(&two, 3, Some(2)).unwrap_err().contains("first of slot 1"));
    assert!(step(&two, 2, Some(3)).unwrap_err().contains("second of slot 1"));
    assert!(step(&two, 2, None).unwrap_err().contains("slot 1 has no second moment"));
    assert!(step(&integers, 2, Some(2)).unwrap_err().contains("gradient must be f32"));
    let mut target = tensor(2);
    let mut follow = |online: &Tensor, low: Option<&mut Tensor>| {
        ema(&mut [Follower { target: &mut target, online, low }], 0.5.into()).unwrap_err().to_string()
    };
    assert!(follow(&tensor(3), None).contains("follower 0"));
    assert!(follow(&two, Some(&mut tensor(2))).contains("low must be bf16"));
    let mut short = crate::copy::cast(&tensor(1), DType::BF16).unwrap();
    assert!(follow(&two, Some(&mut short)).contains("follower 0"));
}
