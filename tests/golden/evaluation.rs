//! Logistic regression beside scikit-learn's.

use super::case::{Case, golden};
use engine::Tensor;
use pretext::evaluate::Labelled;
use pretext::evaluate::lbfgs::Options;
use pretext::evaluate::probe::{Linear, logreg::Problem};

golden! {
    strong_penalty: "logistic_regression_c0.01" => regression,
    penalty: "logistic_regression_c1" => regression,
    weak_penalty: "logistic_regression_c100" => regression,
}

fn regression(case: &Case) {
    let x = case.tensor("x");
    let &[n, dim] = x.shape() else { panic!("x is [N, D]") };
    let labels = case.tensor("labels").to_vec::<i32>().unwrap();
    let problem = Problem::new(&Labelled { features: x.to_vec::<f32>().unwrap(), dim, labels }, 4);
    let mut weights = problem.start();
    let end = problem.fit(
        &mut weights,
        case.number("c"),
        &Options { gradient: 1e-11, iterations: 10_000, ..Options::default() },
    );
    assert!(end.gradient < 1e-10, "{end:?}");
    let Linear::Double { weight, bias } = problem.linear(&weights) else { panic!("float64") };
    let single = |v: &[f64], shape: &[usize]| {
        Tensor::from_slice(&v.iter().map(|v| *v as f32).collect::<Vec<_>>(), shape).unwrap()
    };
    // Both stop at gradients that are rounding; files hold float32.
    let allowed = 4.0 * f64::from(f32::EPSILON);
    case.check_within("coef", &single(&weight, &[4, dim]), allowed);
    case.check_within("intercept", &single(&bias, &[4]), allowed);
    let rows = x.to_vec::<f32>().unwrap();
    let score = |i: usize, v: usize| -> f64 {
        bias[v] + (0..dim).map(|d| f64::from(rows[i * dim + d]) * weight[v * dim + d]).sum::<f64>()
    };
    let scores: Vec<f64> =
        (0..n).flat_map(|i| (0..4).map(move |v| (i, v))).map(|(i, v)| score(i, v)).collect();
    case.check_within("scores", &single(&scores, &[n, 4]), allowed);
}
