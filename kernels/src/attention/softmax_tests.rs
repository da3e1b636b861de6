//! The softmax of the kernels on tensor cores, whose exponents have a reference that need not be the largest score.

use super::cases::{Case, OwnedScores, Values};
use super::check::{compare_all, expected, part};
use super::reference;
use super::tensor_core::Choice;
use super::tensor_core_tests::{agree, inputs, run, run_with, values};
use crate::array::{Array, Real};
use crate::compare::check;
use crate::testing::device;
use engine::DType;

/// Scores of hundreds, and of tens of thousands with one key that has all the weight.
#[test]
fn large_scores_agree_with_the_reference() {
    for (tokens, size) in [(129, 32), (70, 64)] {
        agree(&Case { values: Values::Normal(6.0), ..Case::new(1, tokens, 1, size) });
    }
    for (tokens, size) in [(37, 16), (66, 32), (70, 64), (40, 128)] {
        agree(&Case { values: Values::Dominant, ..Case::new(1, tokens, 1, size) });
    }
}

/// Where one key has all the weight, out is its value to the bit, nothing moves queries or keys, and dout is the value's
/// gradient: lse, of 10486 here, and its product with log2 e are rounded in float32, which is less than the half unit of
/// bf16 below 1 as long as lse is less than 2^14.
#[test]
fn a_dominant_key_has_the_weight_one() {
    let case = Case { values: Values::Dominant, scale: Some(0.02), ..Case::new(1, 70, 1, 128) };
    let (qkv, dout) = inputs(&case);
    let oracle = expected::<f64>(&case, &qkv, &dout);
    for choice in [Choice::Best, Choice::Stream] {
        let results = run(&case, &qkv, &dout, choice);
        for i in [0, 2, 3, 4] {
            assert_eq!(values(&results[i]), oracle[i].cast::<f32>().data, "{choice:?} {i}");
        }
    }
}

/// Scores of 10^8, and of 10^10, which are taken for infinite.
#[test]
fn scores_may_have_any_size() {
    for (scale, is_finite) in [(1e3, true), (1e5, false)] {
        let case = Case { values: Values::Dominant, scale: Some(scale), ..Case::new(1, 70, 1, 16) };
        let (qkv, dout) = inputs(&case);
        let oracle = expected::<f64>(&case, &qkv, &dout)[0].cast::<f32>().data;
        for choice in [Choice::Best, Choice::Stream] {
            let out = values(&run(&case, &qkv, &dout, choice)[0]);
            assert!(if is_finite { out == oracle } else { out.iter().all(|x| x.is_nan()) }, "{choice:?}");
        }
    }
}

/// All scores are -256: zeros behind the last key, with a score of 0, would weigh infinitely much beside them.
#[test]
fn the_end_of_a_tile_weighs_nothing_beside_low_scores() {
    for tokens in [33, 70] {
        let case = Case { values: Values::Integers, ..Case::new(1, tokens, 1, 16) };
        let mut qkv = case.qkv();
        for token in qkv.data.chunks_mut(3 * case.size) {
            token[..case.size].fill(8.0);
            token[case.size..2 * case.size].fill(-8.0);
        }
        let oracle = expected::<f64>(&case, &qkv, &case.dout());
        for choice in [Choice::Best, Choice::Stream] {
            for (actual, oracle) in run(&case, &qkv, &case.dout(), choice).iter().zip(&oracle) {
                // A unit of bf16, and queries' gradients, which are 0, of sums of products of sizes up to 30 with
                // weights that are rounded to it.
                for (a, o) in values(actual).into_iter().zip(&oracle.data) {
                    assert!((f64::from(a) - o).abs() < 0.1 + 0.01 * o.abs(), "{choice:?}: {a} should be {o}");
                }
            }
        }
    }
}

/// Scores that rise or fall by 4 from key to key, by a hundred within what is taken in together: a reference that stayed would
/// let weights overflow.
#[test]
fn rising_scores_agree_with_the_reference() {
    for (tokens, size, rise) in
        [(96, 16, 4.0), (70, 16, -4.0), (131, 16, 4.0), (131, 64, 4.0), (67, 128, 4.0)]
    {
        let scale = Some(rise / size as f32);
        let case = Case { values: Values::Integers, scale, ..Case::new(1, tokens, 1, size) };
        let mut qkv = case.qkv();
        for (i, token) in qkv.data.chunks_mut(3 * case.size).enumerate() {
            token[..case.size].fill(1.0);
            token[case.size..2 * case.size].fill(i as f64);
        }
        let dout = case.dout();
        let (naive, oracle) = (expected(&case, &qkv, &dout), expected(&case, &qkv, &dout));
        for choice in [Choice::Best, Choice::Stream] {
            let results = run(&case, &qkv, &dout, choice);
            // Queries' gradients are small differences of large keys, times weights that are rounded to bf16.
            for (i, name) in [(0, "out"), (1, "lse"), (4, "dvalue")] {
                check(name, &results[i], &naive[i], &oracle[i], 2.0)
                    .unwrap_or_else(|e| panic!("{case:?} {choice:?}: {e}"));
            }
        }
    }
}

/// A query sees the keys from its own on: whole tiles of others come first, of which no reference can be made. They are
/// hidden by minus infinity, or by a number as large as is usual.
#[test]
fn the_first_keys_may_be_hidden() {
    fn results<T: Real>(
        case: &Case,
        qkv: &Array<f64>,
        dout: &Array<f64>,
        mask: &Array<f64>,
    ) -> [Array<T>; 5] {
        let (qkv, dout, mask) = (qkv.cast(), dout.cast(), mask.cast());
        let problem = reference::Problem { qkv: &qkv, valid: None, mask: Some(&mask), scale: case.scale() };
        let (out, lse) = reference::forward(problem);
        let dqkv = reference::backward(&dout, problem);
        [out, lse, part(&dqkv, 0), part(&dqkv, 1), part(&dqkv, 2)]
    }
    for (tokens, size, hidden) in [(130, 16, f64::NEG_INFINITY), (75, 128, f64::NEG_INFINITY), (75, 64, -1e9)]
    {
        let case = Case::new(1, tokens, 1, size);
        let (qkv, dout) = inputs(&case);
        let element = |i: usize| if i % tokens < i / tokens { hidden } else { 0.0 };
        let mask = Array::new(&[1, 1, tokens, tokens], (0..tokens * tokens).map(element).collect());
        let scores = || {
            let mask = Some(mask.to_tensor()?.to_device(device())?);
            Ok(OwnedScores { valid: None, mask, scale: None })
        };
        let actual = run_with(&qkv, &dout, scores, Choice::Stream).unwrap();
        let (naive, oracle) = (results(&case, &qkv, &dout, &mask), results(&case, &qkv, &dout, &mask));
        compare_all("", DType::BF16, &actual, &naive, &oracle).unwrap();
    }
}
