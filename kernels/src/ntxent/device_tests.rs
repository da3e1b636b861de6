//! The CUDA kernels on the device that tests have.

use super::cases::{Case, Data, Values, positive};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, on_device};
use crate::compare::check_equal;
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// Loss, lse, drows, dcolumns, and dpositive of positives that are vectors.
fn run(case: &Case, data: &Data, dtype: DType) -> Vec<Tensor> {
    check::run(case, data, |x| on_device(x, dtype, device())).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    Array::<f32>::from_tensor(x).unwrap().data
}

fn index(values: &[i32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap().to_device(device()).unwrap()
}

/// What the plain kernels take, and what goes to the tensor cores.
const KINDS: [(DType, usize); 2] = [(DType::F32, 6), (DType::BF16, 8)];

const PLAIN: Spec = Spec { temperature: 0.1, self_column: None };

#[test]
fn runs_are_equal_bit_for_bit() {
    for (dtype, vector) in [(DType::F32, false), (DType::BF16, true)] {
        let case = Case { r: 3, c: 140, d: 9, vector, spec: PLAIN, values: Values::Unit };
        let data = case.data();
        let first = run(&case, &data, dtype);
        for _ in 0..20 {
            for (again, first) in run(&case, &data, dtype).iter().zip(&first) {
                assert_eq!(values(again), values(first));
            }
        }
    }
}

/// Rows and columns in one tensor give what two equal tensors give.
#[test]
fn one_tensor_or_two() {
    let case = Case::simclr(5, 12, 0.1, Values::Unit);
    let data = case.data();
    let z = on_device(&data.rows, DType::F32, device()).unwrap();
    let of = data.positive_tensor().unwrap().0.to_device(device()).unwrap();
    let (loss, lse) = forward(&z, &z, Positive::Column(&of), case.spec).unwrap();
    let dloss = on_device(&data.dloss, DType::F32, device()).unwrap();
    let g = backward(&dloss, &z, &z, Positive::Column(&of), case.spec, &lse, true).unwrap();
    let one = [loss, lse, g.drows, g.dcolumns.unwrap()];
    for (one, two) in one.iter().zip(run(&case, &data, DType::F32)) {
        check_equal("one tensor", one, &two).unwrap();
    }
    let rows = backward(&dloss, &z, &z, Positive::Column(&of), case.spec, &one[1], false).unwrap();
    assert!(rows.dcolumns.is_none() && rows.dpositive.is_none());
    check_equal("rows alone", &rows.drows, &one[2]).unwrap();
}

#[test]
fn no_negatives_is_no_loss() {
    for dtype in FLOATS {
        // Two views of one image: each sees only its partner, however large the similarity.
        let case = Case::simclr(1, 7, 0.01, Values::Normal(9.0));
        assert_eq!(values(&run(&case, &case.data(), dtype)[0]), [0.0; 2]);
        // A queue that is empty.
        let case = Case { r: 3, c: 0, d: 4, vector: true, spec: PLAIN, values: Values::Normal(2.0) };
        let out = run(&case, &case.data(), dtype);
        assert_eq!(values(&out[0]), [0.0; 3]);
        assert_eq!(values(&out[2]), [0.0; 12]);
        assert_eq!(out[3].shape(), [0, 4]);
        // No rows: columns get zeros. No dimensions: every similarity is zero.
        let case = Case { r: 0, c: 3, d: 4, vector: false, spec: PLAIN, values: Values::Unit };
        assert_eq!(values(&run(&case, &case.data(), dtype)[3]), [0.0; 12]);
        let case = Case { r: 2, c: 3, d: 0, vector: false, spec: PLAIN, values: Values::Zero };
        assert!(values(&run(&case, &case.data(), dtype)[0]).iter().all(|l| (l - 3f32.ln()).abs() < 1e-6));
    }
}

/// One similarity that dominates has the weight one exactly, at any size: its gradient is zero, not rounding.
#[test]
fn a_dominant_positive_has_no_gradient() {
    let mut data = Case { r: 2, c: 3, d: 3, vector: false, spec: PLAIN, values: Values::Unit }.data();
    data.rows.data = vec![77.3, 0.0, 0.0, 0.0, 91.7, 0.0];
    data.columns.data = vec![88.1, 0.0, 0.0, 0.0, 63.9, 0.0, 0.0, 0.0, 50.0];
    data.positive = reference::Positive::Column(vec![0, 1]);
    for temperature in [0.01, 0.03, 0.07, 0.1, 0.3] {
        let spec = Spec { temperature, self_column: None };
        let case = Case { r: 2, c: 3, d: 3, vector: false, spec, values: Values::Unit };
        for dtype in FLOATS {
            let out = run(&case, &data, dtype);
            assert_eq!(values(&out[0]), [0.0; 2], "{temperature}");
            assert!(values(&out[2]).iter().chain(&values(&out[3])).all(|&g| g == 0.0), "{temperature}");
        }
    }
}

/// What a row must not see changes nothing for it, whatever it is.
#[test]
fn the_hidden_column_is_not_there() {
    for (dtype, d) in KINDS {
        let spec = Spec { temperature: 0.1, self_column: Some(1) };
        let case = Case { r: 1, c: 4, d, vector: false, spec, values: Values::Unit };
        let mut data = case.data();
        data.positive = reference::Positive::Column(vec![3]);
        let before = run(&case, &data, dtype);
        for value in [f64::NAN, f64::INFINITY, 1e6] {
            let mut strange = data.clone();
            strange.columns.data[d..2 * d].fill(value);
            let out = run(&case, &strange, dtype);
            assert_eq!((values(&out[0]), values(&out[1])), (values(&before[0]), values(&before[1])));
            assert!(values(&out[3])[d..2 * d].iter().all(|&g| g == 0.0));
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    for ((dtype, d), vector) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let case = Case { r: 70, c: 140, d, vector, spec: PLAIN, values: Values::Unit };
        let mut data = case.data();
        data.rows.data[d * 66 + 2] = f64::NAN;
        let out = run(&case, &data, dtype);
        let (loss, drows) = (values(&out[0]), values(&out[2]));
        for row in 0..70 {
            let nan = row == 66;
            assert_eq!(loss[row].is_nan(), nan, "row {row}");
            assert!(drows[d * row..d * (row + 1)].iter().all(|g| g.is_nan() == nan), "row {row}");
        }
    }
}

/// Positives that are no columns, or hidden ones, make their rows NaN, leave the columns' gradients alone and are no
/// addresses.
#[test]
fn wrong_positives_are_nan_in_their_row() {
    const R: usize = 70;
    let hidden = Spec { temperature: 0.1, self_column: Some(3) };
    for ((dtype, d), (c, spec)) in
        KINDS.into_iter().flat_map(|kind| [(kind, (140, hidden)), (kind, (1, PLAIN))])
    {
        let case = Case { r: R, c, d, vector: false, spec, values: Values::Unit };
        let data = case.data();
        let mut good: Vec<i32> = (0..R).map(|i| if c == 1 { 0 } else { i as i32 }).collect();
        let wrong =
            [(0, -1), (1, c as i32), (2, i32::MAX), (65, i32::MIN), (69, if c == 1 { 1 } else { 72 })];
        let run = |index_of: &[i32], dloss: &Array<f64>| {
            guarded(device(), || {
                let rows = on_device(&data.rows, dtype, device())?;
                let columns = on_device(&data.columns, dtype, device())?;
                let of = index(index_of);
                let (loss, lse) = forward(&rows, &columns, Positive::Column(&of), spec)?;
                let dloss = on_device(dloss, DType::F32, device())?;
                let g = backward(&dloss, &rows, &columns, Positive::Column(&of), spec, &lse, true)?;
                Ok([loss, lse, g.drows, g.dcolumns.unwrap()].map(|x| values(&x)))
            })
            .unwrap()
        };
        // Rows without a part in the loss add nothing to the columns' gradients.
        let mut dloss = data.dloss.clone();
        wrong.iter().for_each(|&(row, _)| dloss.data[row] = 0.0);
        let expected = run(&good, &dloss);
        wrong.iter().for_each(|&(row, to)| good[row] = to);
        let found = run(&good, &data.dloss);
        for row in 0..R {
            let bad = wrong.iter().any(|w| w.0 == row);
            let range = d * row..d * (row + 1);
            if bad {
                assert!(found[0][row].is_nan() && found[2][range].iter().all(|g| g.is_nan()), "row {row}");
            } else {
                assert_eq!(found[0][row], expected[0][row], "row {row}");
                assert_eq!(found[2][range.clone()], expected[2][range], "row {row}");
            }
        }
        assert_eq!(found[1], expected[1]);
        assert_eq!(found[3], expected[3]);
    }
}

#[test]
fn wrong_arguments_are_named() {
    let z = on_device(&Array::<f64>::zeros(&[4, 3]), DType::F32, device()).unwrap();
    let half = on_device(&Array::<f64>::zeros(&[4, 3]), DType::BF16, device()).unwrap();
    let good = index(&[2, 3, 0, 1]);
    let error = |rows: &Tensor, columns: &Tensor, of: Positive| {
        forward(rows, columns, of, PLAIN).unwrap_err().to_string()
    };
    assert!(error(&z, &half, Positive::Column(&good)).contains("columns"));
    assert!(error(&half, &half, Positive::Vector(&z)).contains("positive"));
    assert!(error(&good.reshape(&[4, 1]).unwrap(), &z, Positive::Column(&good)).contains("same D"));
    let host = Tensor::from_slice(&[2i32, 3, 0, 1], &[4]).unwrap();
    assert!(error(&z, &z, Positive::Column(&host)).contains("positive"));
}

/// Forward and backward take no more memory than their results and a few floats a row, let alone the similarities.
#[test]
fn the_similarities_are_never_in_memory() {
    // In a process of its own: the figures are the device's, and other tests run beside this one.
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "ntxent::device_tests::peak_memory"])
        .env("PRETEXT_TEST_SCHEDULES", "one")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
    let maker = cuda::plain_forward(DType::F32).unwrap();
    for r in [512, 4096, 16_384, 1 << 20] {
        // Five parts of the columns at most where there are rows enough for a similarity matrix to hurt.
        assert!(cuda::workspace(maker, r, r) <= 2 * r * 264usize.div_ceil(r / 64) + r);
    }
    // 16,384 views: 320 KiB instead of 1 GiB.
    assert_eq!(4 * cuda::workspace(maker, 16_384, 16_384), 320 << 10);
}

#[test]
#[ignore = "the_similarities_are_never_in_memory runs it in a process of its own"]
fn peak_memory() {
    use engine::cuda::memory::{ALIGNMENT, reset_peak, stats};
    let blocks = |floats: &[usize]| floats.iter().map(|n| (4 * n).next_multiple_of(ALIGNMENT)).sum::<usize>();
    let (r, d) = (512, 20);
    for vector in [false, true] {
        let case = Case { r, c: r, d, vector, spec: PLAIN, values: Values::Unit };
        let data = case.data();
        let rows = on_device(&data.rows, DType::F32, device()).unwrap();
        let columns = on_device(&data.columns, DType::F32, device()).unwrap();
        let (of, is_column) = data.positive_tensor().unwrap();
        let of = (of.to_device(device()).unwrap(), is_column);
        let dloss = on_device(&data.dloss, DType::F32, device()).unwrap();
        let peak = || {
            let stats = stats(0).unwrap();
            (stats.peak, stats.read_backs, stats.uploads)
        };
        reset_peak(0).unwrap();
        let (before, start) = (stats(0).unwrap().live, peak());
        let (loss, lse) = forward(&rows, &columns, positive(&of), PLAIN).unwrap();
        let parts = cuda::plain_forward(DType::F32).unwrap().splits(r, r).0 * r;
        assert_eq!(peak().0 - before, blocks(&[r, r, parts, parts, r]));
        drop(loss);
        reset_peak(0).unwrap();
        let before = stats(0).unwrap().live;
        let g = backward(&dloss, &rows, &columns, positive(&of), PLAIN, &lse, true).unwrap();
        let vectors = if vector { vec![r, r * d] } else { Vec::new() };
        assert_eq!(peak().0 - before, blocks(&[&[r * d, r * d], &vectors[..]].concat()));
        // Neither copies anything from or to the host, so that a step can be captured in a graph.
        assert_eq!((peak().1, peak().2), (start.1, start.2));
        drop(g);
    }
}
