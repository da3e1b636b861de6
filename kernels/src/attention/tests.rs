use super::cases::{Case, Values, cases, strategy};
use super::check::{actual, compare_all, expected};
use super::*;
use crate::array::Array;
use crate::compare::check_equal;
use proptest::prelude::*;

/// Results of a case on the CPU.
fn run(case: &Case, qkv: &Array<f64>, dout: &Array<f64>) -> Result<[Tensor; 5]> {
    actual(&qkv.to_tensor()?, &dout.to_tensor()?, case.scores_on(Device::Cpu)?.scores())
}

fn agrees(case: &Case) -> Result<()> {
    let (qkv, dout) = (case.qkv(), case.dout());
    let (naive, oracle) = (expected(case, &qkv, &dout), expected(case, &qkv, &dout));
    compare_all(&format!(" of {case:?}"), DType::F32, &run(case, &qkv, &dout)?, &naive, &oracle)
}

#[test]
fn agrees_with_the_reference() {
    for case in cases().into_iter().chain([Case::new(2, 197, 3, 64), Case::new(1, 577, 1, 80)]) {
        agrees(&case).unwrap();
    }
}

proptest! {
    // A naive gradient may be exact by luck, which no tolerance made of its error allows for: the cases are fixed.
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]
    #[test]
    fn agrees_on_random_problems(case in strategy()) {
        agrees(&case).unwrap();
    }
}

/// The reference's gradient against its own differences.
#[test]
fn the_reference_is_its_own_derivative() {
    let case = Case { padded: true, masked: Some([1, 2]), ..Case::new(3, 4, 2, 3) };
    let (qkv, dout, valid, mask) = (case.qkv(), case.dout(), case.valid(), case.mask());
    let (valid, mask) = (valid.as_deref(), mask.as_ref());
    let problem = reference::Problem { qkv: &qkv, valid, mask, scale: case.scale() };
    let dqkv = reference::backward(&dout, problem);
    let value = |qkv: &Array<f64>| -> f64 {
        let (out, _) = reference::forward(reference::Problem { qkv, ..problem });
        out.zip(&dout, |a, b| a * b).data.iter().sum()
    };
    for i in 0..qkv.len() {
        let moved = |step: f64| {
            let mut qkv = qkv.clone();
            qkv.data[i] += step;
            value(&qkv)
        };
        // Central differences: error of order step^2 and 1e-16 / step.
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - dqkv.data[i]).abs() < 1e-8, "{slope} {}", dqkv.data[i]);
    }
}

/// Queries of zeros weigh all keys alike: sums of integers over 2^n keys are exact.
#[test]
fn equal_scores_give_the_exact_mean() {
    let case = Case { values: Values::Integers, ..Case::new(2, 16, 2, 8) };
    let mut qkv = case.qkv();
    let row = case.heads * case.size;
    qkv.data.chunks_mut(3 * row).for_each(|token| token[..row].fill(0.0));
    let [out, lse, ..] = run(&case, &qkv, &case.dout()).unwrap();
    let (oracle, _) =
        reference::forward(reference::Problem { qkv: &qkv, valid: None, mask: None, scale: case.scale() });
    assert_eq!(Array::<f64>::from_tensor(&out).unwrap(), oracle);
    assert!(lse.to_vec::<f32>().unwrap().iter().all(|&x| (x - 16f32.ln()).abs() < 1e-6));
}

/// What lies in the padding, NaN included, reaches no other token; its own gradient is what its query gives.
#[test]
fn padding_is_not_seen() {
    let case = Case { padded: true, ..Case::new(3, 21, 2, 16) };
    let valid = case.valid().unwrap();
    let (clean, dout) = (case.qkv(), case.dout());
    let mut dirty = clean.clone();
    let row = case.heads * case.size;
    for (i, token) in dirty.data.chunks_mut(3 * row).enumerate() {
        if i % case.tokens >= valid[i / case.tokens] {
            token[row..].fill(f64::NAN);
        }
    }
    let (a, b) = (run(&case, &clean, &dout).unwrap(), run(&case, &dirty, &dout).unwrap());
    for (a, b) in a.iter().zip(&b) {
        check_equal("padding", b, a).unwrap();
    }
    let [out, lse, dquery, dkey, dvalue] = &a;
    let last = |x: &Tensor| x.narrow(0, 2, 1).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(valid[2], 0);
    assert!(last(lse).iter().all(|&x| x == f32::NEG_INFINITY));
    for x in [out, dquery, dkey, dvalue] {
        assert!(last(x).iter().all(|&x| x == 0.0));
    }
    let unseen = dkey.narrow(0, 1, 1).unwrap().narrow(1, valid[1], case.tokens - valid[1]).unwrap();
    assert!(unseen.to_vec::<f32>().unwrap().iter().all(|&x| x == 0.0));
}

#[test]
fn bits_do_not_depend_on_threads_and_bounds_hold() {
    for case in [Case::new(2, 197, 3, 64), Case { padded: true, ..Case::new(4, 50, 5, 20) }] {
        let (qkv, dout) = (case.qkv(), case.dout());
        let mut first: Option<[Tensor; 5]> = None;
        for threads in [1, 2, 3, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let results = pool.install(|| {
                let scope = memory::guard();
                let results = run(&case, &qkv, &dout).unwrap();
                let plain =
                    results.map(|t| Tensor::from_slice(&t.to_vec::<f32>().unwrap(), t.shape()).unwrap());
                scope.finish().unwrap();
                plain
            });
            match &first {
                None => first = Some(results),
                Some(first) => {
                    for (a, b) in results.iter().zip(first) {
                        check_equal("threads", a, b).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_row() {
    let case = Case::new(1, 5, 1, 4);
    let mut qkv = case.qkv();
    // The query of token 1 is NaN; that of token 3 has a score of minus infinity with every key.
    let row = case.size;
    qkv.data[3 * row..4 * row].fill(f64::NAN);
    qkv.data[9 * row..10 * row].copy_from_slice(&[f64::NEG_INFINITY, 0.0, 0.0, 0.0]);
    for token in 0..5 {
        qkv.data[(3 * token + 1) * row] = 1.0;
    }
    let (out, lse) = forward(&qkv.to_tensor().unwrap(), Scores::default()).unwrap();
    let (out, lse) = (out.to_vec::<f32>().unwrap(), lse.to_vec::<f32>().unwrap());
    for token in [0, 2, 4] {
        assert!(lse[token].is_finite() && out[token * row..][..row].iter().all(|x| x.is_finite()));
    }
    assert!(lse[1].is_nan() && out[row..2 * row].iter().all(|x| x.is_nan()));
    assert!(lse[3] == f32::NEG_INFINITY && out[3 * row..4 * row].iter().all(|&x| x == 0.0));
}

#[test]
fn wrong_arguments_are_named() {
    let qkv = Tensor::zeros(&[2, 3, 3, 1, 4], DType::F32, Device::Cpu).unwrap();
    let lengths = |values: &[i32]| Tensor::from_slice(values, &[values.len()]).unwrap();
    let error = |qkv: &Tensor, valid: Option<&Tensor>, scale| {
        forward(qkv, Scores { valid, scale, mask: None }).unwrap_err().to_string()
    };
    for bad in [4, -1] {
        let text = error(&qkv, Some(&lengths(&[0, bad])), None);
        assert!(text.contains(&format!("sample 1 has {bad} valid tokens")), "{text}");
    }
    assert!(error(&qkv, Some(&lengths(&[1])), None).contains("valid must have shape [2]"));
    assert!(error(&qkv, Some(&qkv), None).contains("valid"));
    let masked = |shape: &[usize], dtype| {
        let mask = Tensor::zeros(shape, dtype, Device::Cpu).unwrap();
        forward(&qkv, Scores { mask: Some(&mask), ..Scores::default() }).unwrap_err().to_string()
    };
    assert!(masked(&[1, 1, 3, 4], DType::F32).contains("[1 or B, 1 or H, T, T]"));
    assert!(masked(&[3, 1, 3, 3], DType::F32).contains("[1 or B, 1 or H, T, T]"));
    assert!(masked(&[1, 1, 3, 3], DType::I32).contains("mask"));
    assert!(error(&qkv, None, Some(f32::NAN)).contains("scale must be finite"));
    let split = qkv.reshape(&[2, 3, 3, 4]).unwrap();
    assert!(error(&split, None, None).contains("[B, T, 3, H, D]"));
    let none = Tensor::zeros(&[2, 3, 3, 1, 0], DType::F32, Device::Cpu).unwrap();
    assert!(error(&none, None, None).contains("head size"));
    assert!(error(&qkv.transpose(0, 1).unwrap(), None, None).contains("contiguous"));
    let (out, lse) = forward(&qkv, Scores::default()).unwrap();
    let of = Forward { qkv: &qkv, scores: Scores::default(), out: &out, lse: &lse };
    let text = backward(&lse, of).unwrap_err().to_string();
    assert!(text.contains("dout"), "{text}");
    let text = backward(&out, Forward { lse: &out, ..of }).unwrap_err().to_string();
    assert!(text.contains("lse"), "{text}");
}
