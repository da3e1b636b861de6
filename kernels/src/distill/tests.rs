//! Against the references, and what must hold whatever the numbers.

use super::cases::{Case, Rows, cases, rows, strategy};
use super::check::{EPS, require, require_koleo, run, run_koleo};
use super::*;
use crate::array::Array;
use crate::elementwise::tests::same_on_any_number_of_threads;
use proptest::prelude::*;

fn check_case(case: &Case) {
    let (scores, center) = (case.scores(), case.center());
    let center_tensor = center.as_ref().map(|c| c.to_tensor().unwrap());
    for by_value in [true, false] {
        let guard = memory::guard();
        let results = run(case, &scores.to_tensor().unwrap(), center_tensor.as_ref(), by_value).unwrap();
        require(case, &results, &scores, center.as_ref()).map_err(|e| e.with("case", case)).unwrap();
        drop(results);
        guard.finish().unwrap();
    }
}

#[test]
fn targets_agree_with_the_references() {
    cases().iter().for_each(check_case);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn targets_agree_on_random_problems(case in strategy()) {
        check_case(&case);
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn tensor(shape: &[usize], x: &[f32]) -> Tensor {
    Tensor::from_slice(x, shape).unwrap()
}

fn near(found: f64, right: f64, allowed: f64) {
    assert!((found - right).abs() <= allowed, "{found} should be {right}");
}

/// Scores of 24 samples and 10 prototypes.
fn scores() -> Tensor {
    Array::<f32>::random(&[24, 10], 3, 0.2).to_tensor().unwrap()
}

/// Rows add up to 1 after any number of iterations, columns to N / K the better the more there are.
#[test]
fn sinkhorn_rows_and_columns() {
    let mut before = f64::INFINITY;
    for iterations in [1, 3, 30, 300] {
        let q = values(&sinkhorn(&scores(), 0.05.into(), iterations, None).unwrap());
        q.chunks(10).for_each(|row| near(row.iter().sum(), 1.0, 1e-6));
        let off =
            (0..10).map(|j| (q.iter().skip(j).step_by(10).sum::<f64>() - 2.4).abs()).fold(0.0, f64::max);
        assert!(off < before, "{iterations} iterations leave {off}");
        before = off;
    }
    assert!(before < 1e-5, "{before}");
}

/// A number added to all scores changes nothing; one added to a row would after few iterations, if the row's own largest
/// were taken away.
#[test]
fn sinkhorn_has_one_reference_for_all() {
    let close = |a: &Tensor, b: &Tensor| {
        let pairs = values(a).into_iter().zip(values(b));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let run = |x: &Tensor| sinkhorn(x, 0.05.into(), 3, None).unwrap();
    let x = scores();
    let moved: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|x| x + 100.0).collect();
    // What 100 leaves of the scores is a multiple of 2^-17, which 0.05 makes 1.5e-4.
    assert!(close(&run(&x), &run(&tensor(&[24, 10], &moved))) < 1e-3);
    let exact: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|x| (x * 256.0).round() / 256.0).collect();
    let moved: Vec<f32> = exact.iter().map(|x| x + 64.0).collect();
    assert_eq!(close(&run(&tensor(&[24, 10], &exact)), &run(&tensor(&[24, 10], &moved))), 0.0);
    let rows: Vec<f32> = exact.iter().enumerate().map(|(i, x)| x + 0.1 * (i / 10 % 3) as f32).collect();
    assert!(close(&run(&tensor(&[24, 10], &exact)), &run(&tensor(&[24, 10], &rows))) > 1e-3);
}

/// Padding changes no target and is zero, whatever it holds.
#[test]
fn sinkhorn_leaves_padding_out() {
    let x = scores();
    let alone = sinkhorn(&x, 0.05.into(), 3, None).unwrap().to_vec::<f32>().unwrap();
    for fill in [0.0, 1e9, -1e9, f32::NAN, f32::INFINITY] {
        let mut padded = x.to_vec::<f32>().unwrap();
        padded.resize(300, fill);
        let valid = Tensor::from_slice(&[24i32], &[1]).unwrap();
        let found = sinkhorn(&tensor(&[30, 10], &padded), 0.05.into(), 3, Some(&valid)).unwrap();
        let found = found.to_vec::<f32>().unwrap();
        assert_eq!(found[..240], alone[..], "{fill}");
        assert!(found[240..].iter().all(|&x| x == 0.0), "{fill}");
    }
}

/// Where float32 has no exponentials, of rows far below others or of columns, nothing becomes infinite or NaN.
#[test]
fn sinkhorn_of_scores_far_apart_is_finite() {
    let mut x = scores().to_vec::<f32>().unwrap();
    x[..10].iter_mut().for_each(|x| *x -= 20.0); // a row at exp(-400)
    x.iter_mut().skip(3).step_by(10).for_each(|x| *x -= 20.0); // a column too
    let q = values(&sinkhorn(&tensor(&[24, 10], &x), 0.05.into(), 3, None).unwrap());
    assert!(q.iter().all(|x| x.is_finite()));
    q.chunks(10).for_each(|row| near(row.iter().sum(), 1.0, 1e-6));
    assert!(q.iter().skip(3).step_by(10).all(|&x| x == 0.0));
    // A row of its own with what is left.
    let infinite = vec![f32::NEG_INFINITY; 20];
    let q = values(&sinkhorn(&tensor(&[2, 10], &infinite), 0.05.into(), 3, None).unwrap());
    assert_eq!(q, [0.0; 20]);
}

/// exp(s) of [[0, ln 2], [ln 3, 0]] by hand, one iteration: columns 1 + 3 and 2 + 1, then rows.
#[test]
fn sinkhorn_closed_form() {
    let x = tensor(&[2, 2], &[0.0, 2f32.ln(), 3f32.ln(), 0.0]);
    let q = values(&sinkhorn(&x, 1.0.into(), 1, None).unwrap());
    let (a, b) = ([0.25, 2.0 / 3.0], [0.75, 1.0 / 3.0]);
    let right = [a[0] / (a[0] + a[1]), a[1] / (a[0] + a[1]), b[0] / (b[0] + b[1]), b[1] / (b[0] + b[1])];
    q.iter().zip(right).for_each(|(&q, right)| near(q, right, 1e-6));
}

/// Entropies: ln K of equal logits, 0 of a single one, and the center takes away what rows have in common.
#[test]
fn teacher_closed_forms() {
    let k = 4096;
    let (p, entropy) =
        teacher_softmax(&Tensor::full(&[2, k], 3.0, Device::Cpu).unwrap(), None, 0.04.into()).unwrap();
    assert!(values(&p).iter().all(|p| (p - 1.0 / 4096.0).abs() < 1e-10));
    values(&entropy).iter().for_each(|&h| near(h, 4096f64.ln(), 1e-6));
    let x = tensor(&[1, 3], &[5.0, f32::NEG_INFINITY, 0.0]);
    let (p, entropy) = teacher_softmax(&x, None, 0.01.into()).unwrap();
    assert_eq!((values(&p), values(&entropy)), (vec![1.0, 0.0, 0.0], vec![0.0]));
    let center = tensor(&[3], &[5.0, f32::NEG_INFINITY, 0.0]);
    let (p, _) = teacher_softmax(&tensor(&[1, 3], &[6.0, 0.0, 1.0]), Some(&center), 1.0.into()).unwrap();
    assert!(values(&p)[1].is_nan());
    let (p, entropy) = teacher_softmax(&x, Some(&tensor(&[3], &[5.0, 0.0, 0.0])), 1.0.into()).unwrap();
    values(&p).iter().zip([0.5, 0.0, 0.5]).for_each(|(&p, right)| near(p, right, 1e-7));
    near(values(&entropy)[0], 2f64.ln(), 1e-7);
    let (p, entropy) =
        teacher_softmax(&Tensor::full(&[1, 5], f32::NEG_INFINITY, Device::Cpu).unwrap(), None, 1.0.into())
            .unwrap();
    assert_eq!((values(&p), values(&entropy)), (vec![0.0; 5], vec![0.0]));
}

#[test]
fn koleo_agrees_with_the_reference() {
    for case in rows() {
        let dloss = Array::<f64>::random(&[case.n], 14, 1.0);
        let results = run_koleo(&case.x().to_tensor().unwrap(), &dloss.to_tensor().unwrap()).unwrap();
        require_koleo(&case, &results, &dloss).map_err(|e| e.with("case", &case)).unwrap();
    }
}

/// Equal rows: -log(1e-8 (sqrt(D) + 1)), 15.396 for D = 384, and a finite gradient.
#[test]
fn equal_rows_have_a_finite_loss_and_gradient() {
    for (d, right) in [(192, 15.722), (384, 15.396), (768, 15.063)] {
        let case = Rows { n: 4, d, copies: 2 };
        let dloss = Tensor::full(&[4], 0.25, Device::Cpu).unwrap();
        let [loss, nearest, dx] = run_koleo(&case.x().to_tensor().unwrap(), &dloss).unwrap();
        values(&loss).iter().for_each(|&loss| near(loss, right, 1e-3));
        assert_eq!(nearest.to_vec::<i32>().unwrap(), [2, 3, 0, 1]);
        assert!(values(&dx).iter().all(|x| x.is_finite()));
    }
    // 256 rows of no pattern: about -0.27.
    let case = Rows { n: 256, d: 384, copies: 0 };
    let (loss, _) = koleo_forward(&case.x().to_tensor().unwrap(), EPS).unwrap();
    near(values(&loss).iter().sum::<f64>() / 256.0, -0.27, 0.02);
}

/// The gradient is that of the loss: central differences in f64 along a random direction.
#[test]
fn koleo_gradient_is_the_slope() {
    let case = Rows { n: 9, d: 12, copies: 0 };
    let (x, along) = (case.x(), Array::<f64>::random(&[9, 12], 15, 1.0));
    let loss = |t: f64| {
        let moved = x.zip(&along, |x, a| x + t * a);
        reference::koleo(&moved, &reference::nearest(&moved), 1e-8).data.iter().sum::<f64>()
    };
    let slope = (loss(1e-6) - loss(-1e-6)) / 2e-6;
    let ones = Tensor::full(&[9], 1.0, Device::Cpu).unwrap();
    let [_, _, dx] = run_koleo(&x.to_tensor().unwrap(), &ones).unwrap();
    let found: f64 = values(&dx).iter().zip(&along.data).map(|(g, a)| g * a).sum();
    near(found, slope, 1e-5 * slope.abs().max(1.0));
}

#[test]
fn threads_do_not_matter() {
    let case =
        Case { n: 50, k: 5000, scale: 0.3, temperature: 0.07, center: true, iterations: 3, valid: None };
    let (x, center) = (case.scores().to_tensor().unwrap(), case.center().unwrap().to_tensor().unwrap());
    let rows = Rows { n: 90, d: 300, copies: 0 }.x().to_tensor().unwrap();
    let dloss = Array::<f64>::random(&[90], 14, 1.0).to_tensor().unwrap();
    same_on_any_number_of_threads("distill", || {
        let mut all = run(&case, &x, Some(&center), true).unwrap();
        let [loss, _, dx] = run_koleo(&rows, &dloss).unwrap();
        all.extend([loss, dx]);
        all
    });
}

#[test]
fn wrong_arguments_are_named() {
    let x = scores();
    let says = |result: Result<Tensor>, text: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "'{text}' is not in: {error}");
    };
    let p = |x: &Tensor, center: Option<&Tensor>, t: f32| teacher_softmax(x, center, t.into()).map(|r| r.0);
    says(p(&tensor(&[3], &[0.0; 3]), None, 1.0), "[N, K]");
    says(p(&x, Some(&tensor(&[3], &[0.0; 3])), 1.0), "center");
    for t in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        says(p(&x, None, t), "must be positive");
        says(sinkhorn(&x, (&Tensor::scalar(t).unwrap()).into(), 3, None), "must be positive");
    }
    says(p(&Tensor::from_slice(&[1i32], &[1, 1]).unwrap(), None, 1.0), "f32");
    says(sinkhorn(&x, 1.0.into(), 0, None), "at least one iteration");
    for valid in [-1, 25] {
        let valid = Tensor::from_slice(&[valid], &[1]).unwrap();
        says(sinkhorn(&x, 1.0.into(), 3, Some(&valid)), "valid must be 0 to 24");
    }
    says(sinkhorn(&x, 1.0.into(), 3, Some(&x)), "valid");
    let koleo = |x: &Tensor, eps: f32| koleo_forward(x, eps).map(|r| r.0);
    says(koleo(&tensor(&[1, 3], &[0.0; 3]), EPS), "at least 2");
    says(koleo(&crate::copy::cast(&x, DType::BF16).unwrap(), EPS), "must be f32");
    says(koleo(&x, 0.0), "eps must be positive");
    says(koleo(&tensor(&[3], &[0.0; 3]), EPS), "[N, D]");
    let nearest = Tensor::from_slice(&[24i32; 24], &[24]).unwrap();
    let dloss = Tensor::full(&[24], 1.0, Device::Cpu).unwrap();
    says(koleo_backward(&dloss, &x, &nearest, EPS), "the nearest of row 0 is 24, outside 0 to 23");
}
