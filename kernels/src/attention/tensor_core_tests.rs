//! The kernels on tensor cores, which take bf16 in head sizes that are a multiple of 8: those that hold whole heads and
//! those that stream, each at the lengths where tiles end.

use super::cases::{Case, OwnedScores, Values};
use super::check::{compare_all, expected, on_the_cpu};
use super::tensor_core::{Choice, Plan};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;
use engine::cuda::profile::{self, Counters};

const BF16: DType = DType::BF16;

/// All results of one kind of kernels for values that are rounded to bf16; memory is fenced and poisoned.
pub(super) fn run(case: &Case, qkv: &Array<f64>, dout: &Array<f64>, choice: Choice) -> [Tensor; 5] {
    run_with(qkv, dout, || case.scores_on(device()), choice)
        .unwrap_or_else(|e| panic!("{case:?} {choice:?}: {e}"))
}

pub(super) fn run_with(
    qkv: &Array<f64>,
    dout: &Array<f64>,
    scores: impl FnOnce() -> Result<OwnedScores>,
    choice: Choice,
) -> Result<[Tensor; 5]> {
    guarded(device(), || {
        let (qkv, dout) = (on_device(qkv, BF16, device())?, on_device(dout, BF16, device())?);
        let owned = scores()?;
        let scores = owned.scores();
        let (sizes, factor) = checked("attention", &qkv, scores)?;
        let mut out = Tensor::empty(&sizes.out(), BF16, device())?;
        let mut lse = Tensor::empty(&sizes.lse(), DType::F32, device())?;
        let mut dqkv = Tensor::empty(&sizes.qkv(), BF16, device())?;
        let plan = Plan::new(sizes, factor, &[&qkv, &out, &dout, &dqkv], choice).expect("they take it");
        plan.forward(&qkv, scores, &mut out, &mut lse)?;
        let of = Forward { qkv: &qkv, scores, out: &out, lse: &lse };
        plan.backward(&dout, of, &mut dqkv)?;
        on_the_cpu(out, lse, dqkv)
    })
}

/// Numbers of valid tokens.
fn lengths(valid: &[i32]) -> Result<OwnedScores> {
    let valid = Some(Tensor::from_slice(valid, &[valid.len()])?.to_device(device())?);
    Ok(OwnedScores { valid, mask: None, scale: None })
}

pub(super) fn inputs(case: &Case) -> (Array<f64>, Array<f64>) {
    (case.qkv().rounded_to(BF16), case.dout().rounded_to(BF16))
}

pub(super) fn values(x: &Tensor) -> Vec<f32> {
    Array::<f32>::from_tensor(x).unwrap().data
}

/// Both kinds against the references, with twice the naive error.
pub(super) fn agree(case: &Case) {
    let (qkv, dout) = inputs(case);
    let (naive, oracle) = (expected(case, &qkv, &dout), expected(case, &qkv, &dout));
    for choice in [Choice::Best, Choice::Stream] {
        let results = run(case, &qkv, &dout, choice);
        compare_all("", BF16, &results, &naive, &oracle)
            .unwrap_or_else(|e| panic!("{case:?} {choice:?}: {e}"));
    }
}

/// Lengths at which tiles of 16, 32 and 64, blocks of several heads, and what fits into shared memory end.
#[test]
fn every_length_agrees_with_the_reference() {
    for (samples, tokens, heads, size) in [
        (3, 1, 3, 64),
        (1, 7, 5, 16),
        (1, 16, 1, 128),
        (3, 17, 3, 8),
        (1, 37, 3, 64),
        (2, 48, 1, 64),
        (1, 50, 1, 88),
        (1, 63, 3, 32),
        (1, 64, 1, 128),
        (1, 65, 1, 80),
        (1, 197, 1, 64),
        (1, 208, 1, 16),
        (1, 225, 1, 32),
        (1, 257, 1, 48),
        (1, 272, 1, 64),
        (1, 320, 1, 64),
        (1, 321, 1, 24),
        (1, 161, 1, 128),
        (1, 577, 1, 16),
    ] {
        agree(&Case::new(samples, tokens, heads, size));
    }
}

/// Masks of all, of a sample's and of a head's own, beside padding, with rows that see nothing.
#[test]
fn masks_agree_with_the_reference() {
    for (masked, tokens, heads, size) in
        [([1, 1], 35, 1, 64), ([2, 1], 70, 2, 32), ([1, 2], 17, 2, 128), ([2, 2], 130, 2, 8)]
    {
        agree(&Case { masked: Some(masked), ..Case::new(2, tokens, heads, size) });
        agree(&Case { masked: Some(masked), padded: true, ..Case::new(2, tokens, heads, size) });
    }
}

/// A mask of zeros changes no bit of the streaming kernels, nor does one that hides what padding hides: the sums that a
/// hidden key takes part in get zeros more.
#[test]
fn a_mask_hides_as_padding_does() {
    let case = Case::new(1, 70, 1, 64);
    let (qkv, dout) = inputs(&case);
    let with = |valid: Option<i32>, mask: Option<usize>| {
        let scores = || {
            let element = |seen: usize| move |i: usize| if i % 70 < seen { 0.0 } else { f64::NEG_INFINITY };
            let array =
                |seen: usize| Array::<f64>::new(&[1, 1, 70, 70], (0..4900).map(element(seen)).collect());
            let mask = mask.map(|seen| array(seen).to_tensor()?.to_device(device())).transpose()?;
            Ok(OwnedScores { mask, ..lengths(&[valid.unwrap_or(70)])? })
        };
        run_with(&qkv, &dout, scores, Choice::Stream).unwrap().map(|x| values(&x))
    };
    assert!(with(None, Some(70)) == with(None, None));
    assert!(with(None, Some(41)) == with(Some(41), None));
}

/// Samples with fewer keys, one without any; scales that are negative, 0 and large.
#[test]
fn padding_and_scales_agree_with_the_reference() {
    for (samples, tokens, heads, size) in [(5, 37, 1, 64), (3, 30, 2, 24), (3, 100, 1, 128), (2, 280, 1, 16)]
    {
        agree(&Case { padded: true, ..Case::new(samples, tokens, heads, size) });
    }
    for scale in [0.0, -0.5, 2.0] {
        agree(&Case { scale: Some(scale), ..Case::new(1, 67, 1, 32) });
        agree(&Case { padded: true, scale: Some(scale), ..Case::new(3, 20, 1, 32) });
    }
}

/// Tokens in another order give the same results in that order: to the bit where one key has all the weight, else but for
/// the order of sums.
#[test]
fn tokens_may_be_permuted() {
    for (kind, allowed) in [(Values::Dominant, 0.0), (Values::Normal(1.0), 1.0 / 128.0)] {
        let case = Case { values: kind, ..Case::new(1, 77, 1, 16) };
        let (qkv, dout) = inputs(&case);
        let place = |i: usize| i * 31 % case.tokens;
        let permuted = |x: &Array<f64>| {
            let width = x.data.len() / case.tokens;
            let rows = (0..case.tokens).flat_map(|i| &x.data[place(i) * width..][..width]);
            Array::new(&x.shape, rows.copied().collect())
        };
        for choice in [Choice::Best, Choice::Stream] {
            let plain = run(&case, &qkv, &dout, choice);
            let moved = run(&case, &permuted(&qkv), &permuted(&dout), choice);
            for (plain, moved) in plain.iter().zip(&moved) {
                let (plain, moved) = (values(plain), values(moved));
                let largest = plain.iter().fold(0f32, |m, x| m.max(x.abs()));
                let width = plain.len() / case.tokens;
                for (i, x) in moved.iter().enumerate() {
                    let y = plain[place(i / width) * width + i % width];
                    assert!((x - y).abs() <= allowed * largest, "{choice:?} {kind:?} {x} {y}");
                }
            }
        }
    }
}

/// Tokens that are padding, NaN in keys and values, change no bit of what the others get where nothing comes back from
/// them.
#[test]
fn padding_changes_nothing() {
    let (short, long) = (50, 70);
    let case = Case::new(1, short, 1, 64);
    let (qkv, dout) = inputs(&case);
    let extended = |x: &Array<f64>, fill: &[f64]| {
        let mut data = x.data.clone();
        (short..long).for_each(|_| fill.iter().for_each(|&f| data.extend([f; 64])));
        let mut shape = x.shape.clone();
        shape[1] = long;
        Array::<f64>::new(&shape, data)
    };
    for choice in [Choice::Best, Choice::Stream] {
        let alone = run(&case, &qkv, &dout, choice);
        let qkv = extended(&qkv, &[3.0, f64::NAN, f64::NAN]);
        let padded = run_with(&qkv, &extended(&dout, &[0.0]), || lengths(&[short as i32]), choice).unwrap();
        for (alone, padded) in alone.iter().zip(&padded) {
            let (alone, padded) = (values(alone), values(padded));
            assert_eq!(alone, padded[..alone.len()], "{choice:?}");
        }
    }
}

/// NaN in a query stays in its row; a row of scores that are all minus infinity has result 0 and lse minus infinity; a
/// number of keys that cannot be makes its sample NaN.
#[test]
fn nan_and_infinity_stay_where_they_are() {
    let case = Case::new(1, 5, 1, 8);
    let (mut qkv, dout) = inputs(&case);
    let row = case.size;
    qkv.data[3 * row..4 * row].fill(f64::NAN);
    qkv.data[9 * row..10 * row].fill(0.0);
    qkv.data[9 * row] = f64::NEG_INFINITY;
    (0..5).for_each(|token| qkv.data[(3 * token + 1) * row] = 1.0);
    for choice in [Choice::Best, Choice::Stream] {
        let [out, lse, ..] = run(&case, &qkv, &dout, choice).map(|x| values(&x));
        for token in [0, 2, 4] {
            assert!(lse[token].is_finite() && out[token * row..][..row].iter().all(|x| x.is_finite()));
        }
        assert!(lse[1].is_nan() && out[row..2 * row].iter().all(|x| x.is_nan()));
        assert!(lse[3] == f32::NEG_INFINITY && out[3 * row..4 * row].iter().all(|&x| x == 0.0));

        let case = Case::new(3, 6, 1, 8);
        let (qkv, dout) = inputs(&case);
        for wrong in [7, -1] {
            for result in run_with(&qkv, &dout, || lengths(&[6, wrong, 3]), choice).unwrap() {
                let values = values(&result);
                for (i, sample) in values.chunks(values.len() / 3).enumerate() {
                    assert!(sample.iter().all(|x| x.is_nan() == (i == 1)), "{choice:?} {i}: {sample:?}");
                }
            }
        }
    }
}

/// Both kinds of backward kernels add in the same order; and 20 runs of each give the same bits.
#[test]
fn the_same_bits_in_whatever_tiles() {
    for (tokens, size, runs) in [(150, 32, 1), (35, 64, 20)] {
        let case = Case { padded: true, ..Case::new(2, tokens, 1, size) };
        let (qkv, dout) = inputs(&case);
        // The forward kernels differ in the order of sums: rows of equal scores make their results exact.
        let mut flat = qkv.clone();
        flat.data.chunks_mut(3 * size).for_each(|token| token[..size].fill(0.0));
        let gradients = |choice| run(&case, &flat, &dout, choice).map(|x| values(&x));
        let (best, stream) = (gradients(Choice::Best), gradients(Choice::Stream));
        assert!(best[2..] == stream[2..], "{tokens}");
        for choice in [Choice::Best, Choice::Stream] {
            let first = run(&case, &qkv, &dout, choice).map(|x| values(&x));
            for _ in 1..runs {
                assert!(run(&case, &qkv, &dout, choice).map(|x| values(&x)) == first, "{choice:?}");
            }
        }
    }
}

/// Weights sum to one, so the values' gradients sum to dout; scores only matter up to a constant a row, so the keys'
/// gradients sum to zero; and both sides of a score's gradient are one sum: <q, dq> = <k, dk>.
#[test]
fn gradients_have_the_sums_of_a_softmax() {
    for (tokens, size) in [(197, 64), (90, 128), (61, 24)] {
        let case = Case::new(1, tokens, 1, size);
        let (qkv, dout) = inputs(&case);
        let part = |i| super::check::part(&qkv, i).data;
        for choice in [Choice::Best, Choice::Stream] {
            let [_, _, dquery, dkey, dvalue] =
                run(&case, &qkv, &dout, choice).map(|x| Array::<f64>::from_tensor(&x).unwrap().data);
            // Each summand is rounded to bf16, and is made of weights that are: at most 1 % of its size, of random sign.
            let close = |what: &str, a: f64, b: f64, summands: &mut dyn Iterator<Item = f64>| {
                let allowed = 0.01 * summands.map(|x| x * x).sum::<f64>().sqrt();
                assert!(
                    (a - b).abs() < allowed,
                    "{what} {choice:?}: {a} and {b} differ by more than {allowed}"
                );
            };
            for c in 0..size {
                let column = |x: &[f64]| x.iter().skip(c).step_by(size).copied().collect::<Vec<_>>();
                let (dv, dk, g) = (column(&dvalue), column(&dkey), column(&dout.data));
                close("dvalue", dv.iter().sum(), g.iter().sum(), &mut g.iter().copied());
                close("dkey", dk.iter().sum(), 0.0, &mut dk.iter().map(|x| 3.0 * x));
            }
            let products = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
            let (q, k) = (products(&part(0), &dquery), products(&part(1), &dkey));
            close("inner products", q.iter().sum(), k.iter().sum(), &mut q.iter().chain(&k).copied());
        }
    }
}

/// The counters of each launch of `f`, by kernel.
fn counted(f: impl FnOnce()) -> Vec<(&'static str, u64, Counters)> {
    device(); // from here on no other test launches anything
    profile::start().unwrap();
    f();
    let records = profile::stop().unwrap();
    records.into_iter().filter_map(|r| Some((r.launch.kernel, r.launch.bytes, r.counters?))).collect()
}

/// At a ViT's 197 tokens of head size 64: forward reads q, k, v and writes out and lse, backward reads q, k, v, out,
/// dout, lse and writes three gradients, each once; whole sectors; no bank conflicts. (Counters are the emulated
/// device's.)
#[test]
fn a_vit_moves_the_least_bytes() {
    let case = Case::new(1, 197, 2, 64);
    let (qkv, dout) = inputs(&case);
    let launches = counted(|| drop(run(&case, &qkv, &dout, Choice::Best)));
    if launches.is_empty() {
        return; // hardware counts nothing
    }
    let (elements, rows) = (2 * 197 * 64, 2 * 197);
    for (kernel, least) in [
        ("attention_fwd_row_d64_bf16", 4 * 2 * elements + 4 * rows),
        ("attention_bwd_row_d64_bf16", 8 * 2 * elements + 4 * rows),
    ] {
        let found: Vec<_> = launches.iter().filter(|(name, ..)| *name == kernel).collect();
        let &[&(_, bytes, counters)] = found.as_slice() else {
            panic!("{kernel} is launched once: {found:?}")
        };
        println!(
            "{kernel}: {:.4} of the least bytes, {:.4} in half-lines, {:.4} in sectors, {} of {} passes, {} warp \
             instructions, {} of them mma",
            counters.unique_bytes() as f64 / least as f64,
            counters.unique_half_line_bytes() as f64 / least as f64,
            counters.sector_bytes() as f64 / least as f64,
            counters.shared_waves,
            counters.shared_waves_minimum,
            counters.warp_instructions,
            counters.tensor,
        );
        assert_eq!(bytes, least, "{kernel}");
        // Half-lines are what memory moves.
        assert!(10 * counters.unique_bytes() <= 11 * least, "{kernel}");
        assert!(10 * counters.unique_half_line_bytes() <= 11 * least, "{kernel}");
        // Nor is anything asked for twice.
        assert!(10 * counters.sector_bytes() <= 11 * least, "{kernel}");
        assert_eq!(counters.bank_conflicts(), 0, "{kernel}");
    }
    let names: Vec<_> = launches.iter().map(|l| l.0).collect();
    assert_eq!(names.len(), 2, "two launches and no more: {names:?}");
}
