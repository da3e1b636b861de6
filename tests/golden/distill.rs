//! What self-distillation adds to other losses: Sinkhorn-Knopp's targets and KoLeo.

use super::case::{Case, golden};
use autograd::ops;
use kernels::distill;

golden! {
    targets_of_dinov2: "sinkhorn_knopp" => sinkhorn,
    regulariser_of_dinov2: "koleo" => koleo,
}

/// Scores are rounded to f32 before they are divided by the temperature: up to 3.5 / 0.06 = 58 units in the exponent.
fn sinkhorn(case: &Case) {
    let temperature = case.number("temperature") as f32;
    let out = distill::sinkhorn(&case.tensor("scores"), temperature.into(), case.count("iterations"), None);
    case.check_within("out", &out.unwrap(), 58.0 * f64::from(f32::EPSILON));
}

/// Lightly normalises rows itself.
fn koleo(case: &Case) {
    let x = case.leaf("x");
    let unit = ops::l2_normalize(&x, 1e-12).unwrap();
    let loss = ops::mean(&ops::koleo(&unit, case.number("eps") as f32).unwrap(), &[0]).unwrap();
    case.check("out", loss.value(), 12);
    loss.backward().unwrap();
    case.check_gradients(&[("x", &x)], 12);
}
