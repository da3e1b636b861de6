//! Optimisers over five steps, and schedules at every step.

use super::case::{Case, golden, zeros_like};
use engine::Tensor;
use kernels::optim::{self, Hold, LarsVariant, Slot, Step, StepCount};
use objectives::{CosineSchedule, MomentumSchedule};

golden! {
    sgd_momentum: "sgd_momentum" => optimiser,
    sgd_nesterov: "sgd_nesterov" => optimiser,
    adamw: "adamw" => optimiser,
    lars_lightly: "lars" => optimiser,
    cosine_after_warmup: "cosine_schedule_50_10" => cosine,
    cosine_without_warmup: "cosine_schedule_7_0" => cosine,
    momentum_of_the_average: "ema_momentum_schedule" => momentum,
}

/// Weight and bias together, so that one call handles tensors of different shapes and settings.
fn optimiser(case: &Case) {
    let which = case.text("opt");
    let number = |key: &str| case.number(key) as f32;
    let mut values: [Tensor; 2] = [case.tensor("w0"), case.tensor("b0")];
    let mut first = [zeros_like(&values[0]), zeros_like(&values[1])];
    let mut second = [zeros_like(&values[0]), zeros_like(&values[1])];
    for step in 1..=5u64 {
        let gradients = [case.tensor(&format!("gw{step}")), case.tensor(&format!("gb{step}"))];
        let mut slots = Vec::new();
        let state = values.iter_mut().zip(&mut first).zip(&mut second);
        for (i, (((value, first), second), gradient)) in state.zip(&gradients).enumerate() {
            // In lightly's LARS tensors without weight decay are the excluded ones; the others decay both.
            let excluded = which == "lars" && i == 1;
            slots.push(Slot {
                value,
                gradient,
                first,
                second: (which == "adamw").then_some(second),
                low: None,
                average: None,
                weight_decay: if excluded { 0.0 } else { number("weight_decay") },
                rate_scale: 1.0,
                adapt: true,
                hold: Hold::None,
            });
        }
        let (at, before) = (Step::at(number("lr")), StepCount::Value(step - 1));
        match which {
            "sgd" => optim::sgd(&mut slots, &at, number("momentum"), case.flag("nesterov"), before),
            "lars" => {
                let (momentum, trust) = (number("momentum"), number("trust"));
                optim::lars(&mut slots, &at, momentum, trust, LarsVariant::Lightly, before)
            }
            _ => optim::adamw(&mut slots, &at, (number("beta1"), number("beta2")), number("eps"), before),
        }
        .unwrap();
        // Each step adds a handful of roundings to the last one's: under ten a step.
        case.check(&format!("w{step}"), &values[0], 10 * step as usize);
        case.check(&format!("b{step}"), &values[1], 10 * step as usize);
    }
}

/// Schedules are computed in f64: only the file's rounding to f32 is left.
fn check_schedule(case: &Case, at: impl Fn(u64) -> f64) {
    let count = case.tensor("value").len();
    let values: Vec<f32> = (0..count as u64).map(|i| at(i) as f32).collect();
    case.check_within("value", &Tensor::from_slice(&values, &[count]).unwrap(), f64::from(f32::EPSILON));
}

fn cosine(case: &Case) {
    let (steps, warmup) = (case.count("steps") as u64, case.count("warmup") as u64);
    let schedule = CosineSchedule { steps, warmup, peak: case.number("peak"), end: case.number("end") };
    check_schedule(case, |i| schedule.at(i));
}

fn momentum(case: &Case) {
    let steps = case.count("steps") as u64;
    let schedule = MomentumSchedule { start: case.number("start"), end: case.number("end"), steps };
    check_schedule(case, |i| schedule.at(i));
}
