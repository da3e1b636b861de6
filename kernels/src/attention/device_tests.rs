//! The CUDA kernels on the device that tests have.

use super::cases::{Case, Values};
use super::check::actual;
use super::*;
use crate::array::Array;
use crate::check::on_device;
use crate::testing::device;

/// Results of a case on the device, in f32 or bf16.
fn run(case: &Case, qkv: &Array<f64>, dtype: DType) -> [Tensor; 5] {
    let scores = case.scores_on(device()).unwrap();
    let (qkv, dout) = (on_device(qkv, dtype, device()), on_device(&case.dout(), dtype, device()));
    actual(&qkv.unwrap(), &dout.unwrap(), scores.scores()).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    Array::<f32>::from_tensor(x).unwrap().data
}

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

#[test]
fn the_same_bits_every_time() {
    let case = Case { padded: true, ..Case::new(2, 35, 1, 72) };
    for dtype in [DType::F32, DType::BF16] {
        let first = run(&case, &case.qkv(), dtype).map(|x| values(&x));
        for _ in 0..20 {
            assert!(run(&case, &case.qkv(), dtype).map(|x| values(&x)) == first);
        }
    }
}

/// Queries of zeros weigh all keys alike: sums of integers over 2^n keys are exact.
#[test]
fn equal_scores_give_the_exact_mean() {
    let case = Case { values: Values::Integers, ..Case::new(1, 64, 1, 32) };
    let mut qkv = case.qkv();
    qkv.data.chunks_mut(3 * case.size).for_each(|token| token[..case.size].fill(0.0));
    let (oracle, _) =
        reference::forward(reference::Problem { qkv: &qkv, valid: None, mask: None, scale: case.scale() });
    assert_eq!(values(&run(&case, &qkv, DType::F32)[0]), oracle.cast::<f32>().data);
}

/// What lies in the padding, NaN included, reaches no other token.
#[test]
fn padding_is_not_seen() {
    let case = Case { padded: true, ..Case::new(3, 70, 1, 16) };
    let valid = case.valid().unwrap();
    let clean = case.qkv();
    let mut dirty = clean.clone();
    for (i, token) in dirty.data.chunks_mut(3 * case.size).enumerate() {
        if i % case.tokens >= valid[i / case.tokens] {
            token[case.size..].fill(f64::NAN);
        }
    }
    for dtype in [DType::F32, DType::BF16] {
        let (a, b) = (run(&case, &clean, dtype), run(&case, &dirty, dtype));
        assert!(a.map(|x| values(&x)) == b.map(|x| values(&x)));
    }
}

/// All scores are -256: what lies behind the last key in a tile would weigh infinitely much beside them with a score of 0.
#[test]
fn the_end_of_a_tile_weighs_nothing_beside_low_scores() {
    let case = Case { values: Values::Integers, ..Case::new(1, 33, 1, 16) };
    let mut qkv = case.qkv();
    for token in qkv.data.chunks_mut(3 * case.size) {
        token[..case.size].fill(8.0);
        token[case.size..2 * case.size].fill(-8.0);
    }
    let oracle = check::expected::<f64>(&case, &qkv, &case.dout());
    for (actual, oracle) in run(&case, &qkv, DType::F32).iter().zip(&oracle) {
        let allowed = |o: f64| 1e-2 * (1.0 + o.abs());
        // A weight's own error is that of lse: 256 x 2^-24 of it.
        for (a, o) in values(actual).into_iter().zip(&oracle.data) {
            assert!((f64::from(a) - o).abs() < allowed(*o), "{a} should be {o}");
        }
    }
}

/// Scores of every key minus infinity: result 0, lse minus infinity. NaN in a query stays in its row.
#[test]
fn nan_and_infinity_stay_in_their_row() {
    let case = Case::new(1, 5, 1, 4);
    let mut qkv = case.qkv();
    let row = case.size;
    qkv.data[3 * row..4 * row].fill(f64::NAN);
    qkv.data[9 * row..10 * row].copy_from_slice(&[f64::NEG_INFINITY, 0.0, 0.0, 0.0]);
    (0..5).for_each(|token| qkv.data[(3 * token + 1) * row] = 1.0);
    let [out, lse, ..] = run(&case, &qkv, DType::F32).map(|x| values(&x));
    for token in [0, 2, 4] {
        assert!(lse[token].is_finite() && out[token * row..][..row].iter().all(|x| x.is_finite()));
    }
    assert!(lse[1].is_nan() && out[row..2 * row].iter().all(|x| x.is_nan()));
    assert!(lse[3] == f32::NEG_INFINITY && out[3 * row..4 * row].iter().all(|&x| x == 0.0));
}

/// A number of valid tokens that cannot be makes its sample NaN and no other.
#[test]
fn a_wrong_number_of_tokens_makes_its_sample_nan() {
    let case = Case::new(3, 6, 1, 8);
    let qkv = on_device(&case.qkv(), DType::F32, device()).unwrap();
    let dout = on_device(&case.dout(), DType::F32, device()).unwrap();
    for wrong in [7, -1] {
        let valid = Tensor::from_slice(&[6i32, wrong, 3], &[3]).unwrap().to_device(device()).unwrap();
        for result in actual(&qkv, &dout, Scores { valid: Some(&valid), ..Scores::default() }).unwrap() {
            let values = values(&result);
            for (i, sample) in values.chunks(values.len() / 3).enumerate() {
                assert!(sample.iter().all(|x| x.is_nan() == (i == 1)), "sample {i}: {sample:?}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, device()).unwrap();
    let error = |qkv: &Tensor, valid: Option<&Tensor>| {
        forward(qkv, Scores { valid, ..Scores::default() }).unwrap_err().to_string()
    };
    assert!(error(&zeros(&[1, 2, 3, 1, 129], DType::F32), None).contains("head sizes up to 128"));
    assert!(error(&zeros(&[1, 2, 3, 1, 8], DType::I32), None).contains("f32 or bf16"));
    let elsewhere = Tensor::from_slice(&[1i32], &[1]).unwrap();
    let text = error(&zeros(&[1, 2, 3, 1, 8], DType::F32), Some(&elsewhere));
    assert!(text.contains("valid"), "{text}");
    let qkv = zeros(&[1, 2, 3, 1, 8], DType::BF16);
    let (out, lse) = forward(&qkv, Scores::default()).unwrap();
    let of = Forward { qkv: &qkv, scores: Scores::default(), out: &out, lse: &lse };
    let text = backward(&zeros(&[1, 2, 1, 8], DType::F32), of).unwrap_err().to_string();
    assert!(text.contains("dout"), "{text}");
}
