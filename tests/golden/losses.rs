//! Losses with their gradients: cross-entropy, NT-Xent, InfoNCE with a queue.

use super::case::{Case, golden};
use autograd::{Var, ops};
use objectives::simclr::nt_xent;

golden! {
    cross_entropy_labels: "softmax_cross_entropy_ls0.0" => cross_entropy,
    cross_entropy_smoothed: "softmax_cross_entropy_ls0.1" => cross_entropy,
    cross_entropy_probabilities: "softmax_cross_entropy_soft" => cross_entropy,
    cross_entropy_extreme: "softmax_cross_entropy_extreme" => cross_entropy,
    nt_xent_temperature_05: "ntxent_n8_t0.5" => simclr,
    nt_xent_temperature_01: "ntxent_n33_t0.1" => simclr,
    nt_xent_temperature_007: "ntxent_n5_t0.07" => simclr,
    moco_queue: "moco_queue" => queue,
    cosine_of_pairs: "cosine_pairs" => cosines,
}

fn cross_entropy(case: &Case) {
    let x = case.leaf("x");
    let target = Var::constant(case.tensor("target"));
    let rows = ops::softmax_xent(&x, &target, case.number("label_smoothing") as f32).unwrap();
    let loss = ops::mean(&rows, &[0]).unwrap();
    case.check("out", loss.value(), 10);
    loss.backward().unwrap();
    case.check_gradients(&[("x", &x)], 10);
}

/// Lightly takes the two views apart and normalises them itself.
fn simclr(case: &Case) {
    let (z0, z1) = (case.leaf("z0"), case.leaf("z1"));
    let temperature = case.number("temperature");
    let z = ops::l2_normalize(&ops::cat(&[&z0, &z1], 0).unwrap(), 1e-12).unwrap();
    let loss = nt_xent(&z, temperature as f32).unwrap();
    // Cosines are sums of D products, and their errors are divided by the temperature before the exponential.
    let [_, d] = *z0.shape() else { panic!() };
    let allowed = 4.0 * f64::from(f32::EPSILON) * (d as f64).sqrt() / temperature;
    case.check_within("out", loss.value(), allowed);
    loss.backward().unwrap();
    case.check_within("grad.z0", &z0.gradient().unwrap(), allowed);
    case.check_within("grad.z1", &z1.gradient().unwrap(), allowed);
}

fn queue(case: &Case) {
    let q = case.leaf("q");
    let normal = |x: &Var| ops::l2_normalize(x, 1e-12).unwrap();
    let key = normal(&Var::constant(case.tensor("k")));
    let queue = Var::constant(case.tensor("queue"));
    let temperature = case.number("temperature") as f32;
    let rows = ops::ntxent(&normal(&q), &queue, ops::Positive::Vector(&key), temperature, None).unwrap();
    let loss = ops::mean(&rows, &[0]).unwrap();
    // As for NT-Xent: 16 products, divided by 0.2, is 4 * 5 units; 16 * 25 is their square.
    case.check("out", loss.value(), 16 * 25);
    loss.backward().unwrap();
    case.check_gradients(&[("q", &q)], 16 * 25);
}

fn cosines(case: &Case) {
    let normal = |name: &str| ops::l2_normalize(&Var::constant(case.tensor(name)), 1e-12).unwrap();
    for (other, name) in [("positive", "cos_positive"), ("negative", "cos_negative")] {
        let cosine = ops::matmul(&normal("a"), &normal(other), false, true).unwrap();
        case.check(name, &cosine.value().reshape(&[1]).unwrap(), 2);
    }
}
