//! Gradients against difference quotients of the float64 reference.
//!
//! The oracle is a central difference of sixth order whose step is [`STEP`] times the input's spread. Its error
//! is far below f32's: the truncation is of order STEP^6 times a seventh derivative, the rounding of order
//! 1e-16 / STEP = 7e-12 of the values. It is checked against the reference run on dual numbers in f64, which catches references
//! that are not differentiable inside the stencil (a kink, a tie) and dual numbers that lost a derivative.
//!
//! The tolerance is `gradient_factor` times the error of the naive gradient in f32 (dual numbers), plus a
//! few units in the last place of what is summed; in bf16 that unit is larger than all else.

use crate::harness::{
    Outcome, Verdict, cotangent_values, differentiable, differentiable_output, near_reference, oracle,
    output_dtype, step, tensors, text, values,
};
use crate::setting::{put, setting, unit};
use autograd::case::Case;
use autograd::dual::{moving, tangents};
use engine::DType;
use kernels::array::Array;

/// Step of the difference quotients, in spreads of the input: small, so that few stencils meet a kink of a ReLU.
const STEP: f64 = 1.0 / 65536.0;
/// Least step relative to the input's largest element, which rounds to 1e-16: 2e-9 of the derivative is lost.
const LEAST_STEP: f64 = 1.0 / (1 << 24) as f64;
/// Largest number of elements of an input or an output whose full Jacobian is taken.
const SMALL: usize = 32;

/// What is wrong where the two oracles differ.
const NOT_SMOOTH: &str = "the reference is not smooth here, or loses derivatives";

/// In bf16 rounding may bring values together, at the kink of a ReLU or in a window of max-pooling; the same reference
/// was seen to be smooth at the values in f32.
fn unless_rounded(found: Result<Directional, String>) -> Result<Option<Directional>, String> {
    match found {
        Err(why) if setting().float == DType::BF16 && why.starts_with(NOT_SMOOTH) => Ok(None),
        found => found.map(Some),
    }
}

/// Derivatives of the differentiable output when input `i` moves in `direction`.
struct Directional {
    /// By difference quotients in f64.
    oracle: Vec<f64>,
    /// By dual numbers in f32.
    naive: Vec<f64>,
}

fn directional(case: &Case, i: usize, direction: &Array<f64>) -> Result<Directional, String> {
    let values = values(case);
    let k = differentiable_output(case, oracle(case).len())?;
    let largest_input = values[i].data.iter().fold(0f64, |m, x| m.max(x.abs()));
    let step = (STEP * spread(&values[i].data)).max(largest_input * LEAST_STEP);
    let at = |t: f64| {
        let mut moved = values.clone();
        moved[i] = values[i].zip(direction, |x, d| x + t * step * d);
        (case.oracle)(&moved).swap_remove(k).data
    };
    let weights = [(1.0, 45.0), (2.0, -9.0), (3.0, 1.0)];
    let mut oracle = vec![0.0; values_len(case, k)?];
    let mut largest = 0f64;
    for (t, weight) in weights {
        for ((sum, plus), minus) in oracle.iter_mut().zip(at(t)).zip(at(-t)) {
            *sum += weight * (plus - minus) / (60.0 * step);
            largest = largest.max(plus.abs());
        }
    }
    let naive_inputs: Vec<_> =
        values.iter().enumerate().map(|(j, x)| moving(x, (j == i).then_some(direction))).collect();
    let naive = tangents(&(case.naive_dual)(&naive_inputs)[k]);
    let exact_inputs: Vec<_> =
        values.iter().enumerate().map(|(j, x)| moving(x, (j == i).then_some(direction))).collect();
    let exact = tangents(&(case.oracle_dual)(&exact_inputs)[k]);
    // Rounding: each of six values is off by a few units of 1e-16, divided by the step. The f32 tolerances begin at
    // 4e-7 of the largest element: a tenth of that is near enough for an oracle.
    let scale = exact.iter().fold(0f64, |m, x| m.max(x.abs()));
    let allowed = 4e-8 * scale + 1e-14 * largest / step;
    match oracle.iter().zip(&exact).position(|(a, b)| !near(*a, *b, allowed)) {
        None => Ok(Directional { oracle, naive }),
        Some(at) => Err(format!(
            "{NOT_SMOOTH}: element {at} of the derivative by input {i} \
             is {:e} by differences and {:e} by dual numbers",
            oracle[at], exact[at]
        )),
    }
}

/// The standard deviation of the values; 1 if they are all equal.
fn spread(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    if deviation > 0.0 { deviation } else { 1.0 }
}

fn values_len(case: &Case, output: usize) -> Result<usize, String> {
    oracle(case).get(output).map(Array::len).ok_or_else(|| format!("the reference has no output {output}"))
}

/// False for NaN.
fn near(a: f64, b: f64, allowed: f64) -> bool {
    (a - b).abs() <= allowed
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn magnitude(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x * y).abs()).sum()
}

/// u^T J d for random u and d, one input at a time, at every size.
pub fn vector_jacobian_product(case: &Case) -> Verdict {
    const DRAWS: u64 = 3;
    let (inputs, which) = (tensors(case)?, differentiable(case));
    let mut seen = vec![Vec::new(); inputs.len()];
    for draw in 0..DRAWS {
        let u = cotangent_values(case, 900 + draw)?;
        let run = step(case, &inputs, &put(&u, output_dtype(case)?)?, &which)?;
        for (i, gradient) in run.gradients.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let gradient = Array::<f64>::from_tensor(gradient).map_err(text)?;
            let direction = Array::random(&gradient.shape, 950 + draw, 1.0);
            let Some(d) = unless_rounded(directional(case, i, &direction))? else {
                return Ok(Outcome::Skipped("rounded to bf16 the values are at a kink"));
            };
            seen[i].push((
                dot(&gradient.data, &direction.data),
                dot(&u.data, &d.oracle),
                dot(&u.data, &d.naive),
                // The sums' magnitudes: each term is rounded to f32 several times on either way.
                magnitude(&gradient.data, &direction.data).max(magnitude(&u.data, &d.oracle)),
            ));
        }
    }
    for (i, draws) in seen.iter().enumerate() {
        let worst = |f: fn(&(f64, f64, f64, f64)) -> f64| draws.iter().map(f).fold(0f64, f64::max);
        let naive = worst(|(_, oracle, naive, _)| (naive - oracle).abs());
        // Where the gradient is zero the terms that cancel are taken to be of order 1, as in `compare`.
        let sums = match worst(|s| s.3) {
            sums if draws.iter().all(|s| s.1 == 0.0) => sums.max(1.0),
            sums => sums,
        };
        let allowed = case.gradient_factor * naive + unit() * sums;
        for (actual, oracle, ..) in draws {
            if !near(*actual, *oracle, allowed) {
                return Err(format!(
                    "gradient of input {i} times a direction is {actual:e}, should be {oracle:e} within {allowed:.1e}"
                ));
            }
        }
        // A naive gradient that is wrong would allow anything.
        if naive > 1e-2 * sums {
            return Err(format!("the naive gradient of input {i} is off by {naive:e} of {sums:e}"));
        }
    }
    Ok(Outcome::Passed)
}

/// Every element of the Jacobian, at tiny sizes.
pub fn full_jacobian(case: &Case) -> Verdict {
    let which = differentiable(case);
    let outputs = oracle(case);
    let output = &outputs[differentiable_output(case, outputs.len())?];
    let small = case.inputs.iter().filter(|i| i.differentiable).all(|i| i.values.len() <= SMALL);
    if !small || output.len() > SMALL {
        return Ok(Outcome::Skipped("no case is small enough"));
    }
    let inputs = tensors(case)?;
    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); inputs.len()];
    for k in 0..output.len() {
        let mut one_hot = Array::<f64>::zeros(&output.shape);
        one_hot.data[k] = 1.0;
        let run = step(case, &inputs, &put(&one_hot, output_dtype(case)?)?, &which)?;
        for (row, gradient) in rows.iter_mut().zip(&run.gradients) {
            if let Some(gradient) = gradient {
                row.extend(Array::<f64>::from_tensor(gradient).map_err(text)?.data);
            }
        }
    }
    for (i, rows) in rows.iter().enumerate().filter(|(i, _)| which[*i]) {
        let n = case.inputs[i].values.len();
        let shape = [output.len(), n];
        let (mut exact, mut naive) = (Array::<f64>::zeros(&shape), Array::<f32>::zeros(&shape));
        for j in 0..n {
            let mut direction = Array::zeros(&case.inputs[i].values.shape);
            direction.data[j] = 1.0;
            let Some(d) = unless_rounded(directional(case, i, &direction))? else {
                return Ok(Outcome::Skipped("rounded to bf16 the values are at a kink"));
            };
            for k in 0..output.len() {
                exact.data[k * n + j] = d.oracle[k];
                naive.data[k * n + j] = d.naive[k] as f32;
            }
        }
        let actual = Array::new(&shape, rows.clone()).to_tensor_of(inputs[i].dtype()).map_err(text)?;
        let what = format!("Jacobian by input {i}");
        near_reference(case, &what, &actual, &naive, &exact, case.gradient_factor)?;
    }
    Ok(Outcome::Passed)
}
