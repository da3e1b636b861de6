//! The CUDA kernels on the device that tests have.

use super::cases::{Case, Values};
use super::*;
use crate::array::Array;
use crate::check::{FLOATS, guarded, on_device};
use crate::compare::{check as near, check_equal};
use crate::testing::device;
use engine::cuda::profile;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// A head of 131,072 classes in both types, with labels, soft targets and smoothing: right, and every logit asked for
/// once forward and once backward, soft targets once and, for their sum, twice; every gradient written once. (Its lse
/// is 12; above 16 backward reads logits twice.)
#[test]
fn many_classes_are_read_once() {
    let (m, v) = (2, 131_072);
    for (soft, smoothing, dtype) in [
        (false, 0.0, DType::F32),
        (false, 0.1, DType::BF16),
        (true, 0.0, DType::F32),
        (true, 0.1, DType::BF16),
    ] {
        let case = Case { m, v, soft, smoothing, values: Values::Normal(1.0) };
        let inputs = check::Inputs::new(&case, dtype);
        let device = device(); // from here on no other test launches anything
        profile::start().unwrap();
        let results = check::run(&case, &inputs, device, |x| on_device(x, dtype, device));
        let records = profile::stop().unwrap();
        let (naive, oracle) = (inputs.expected::<f32>(smoothing), inputs.expected::<f64>(smoothing));
        for (i, result) in results.unwrap().iter().enumerate() {
            near(&format!("{dtype}, result {i}"), result, &naive[i], &oracle[i], 2.0).unwrap();
        }
        let matrix = m * v * dtype.size();
        for (kernel, read, written) in [
            ("softmax_xent_fwd_long", 1 + usize::from(soft), 0),
            ("softmax_xent_bwd_long", 1 + 2 * usize::from(soft), 1),
        ] {
            let record = records.iter().find(|r| r.launch.kernel.starts_with(kernel)).unwrap();
            let Some(counters) = record.counters else { continue }; // hardware counts nothing
            // Every warp of a row reads the row's label, loss and lse.
            let near = |sectors: u64, matrices: usize| {
                50 * (32 * sectors).abs_diff((matrices * matrix) as u64) < matrix as u64
            };
            assert!(near(counters.global_load_sectors, read), "{kernel} {dtype}: {counters:?}");
            assert!(near(counters.global_store_sectors, written), "{kernel} {dtype}: {counters:?}");
        }
    }
}

fn labels(values: &[i32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap().to_device(device()).unwrap()
}

fn matrix(rows: &[[f64; 3]], dtype: DType) -> Tensor {
    on_device(&Array::new(&[rows.len(), 3], rows.as_flattened().to_vec()), dtype, device()).unwrap()
}

fn ones(m: usize) -> Tensor {
    Tensor::full(&[m], 1.0, Device::Cpu).unwrap().to_device(device()).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    Array::<f32>::from_tensor(x).unwrap().data
}

#[test]
fn extremes_stay_in_their_row() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows = [
        [3e38, -3e38, 0.0],
        [-inf, -inf, -inf],
        [1.0, nan, 2.0],
        [0.0, -inf, 0.0],
        [nan, nan, nan],
        [inf, 0.0, 1.0],
        [1e-40, 0.0, -1e-40],
    ];
    for dtype in FLOATS {
        let x = matrix(&rows, dtype);
        let label = labels(&[0; 7]);
        let (loss, lse) = forward(&x, Target::Labels(&label), 0.0).unwrap();
        let dx = backward(&ones(7), &x, Target::Labels(&label), 0.0, &lse).unwrap();
        let (loss, lse, dx) = (values(&loss), values(&lse), values(&dx));
        let dx = dx.as_chunks::<3>().0;
        // 3e38 is not exact in bf16.
        assert_eq!((loss[0], lse[0], dx[0]), (0.0, values(&x)[0], [0.0; 3]));
        assert_eq!((loss[1], lse[1], dx[1]), (0.0, f32::NEG_INFINITY, [0.0; 3]));
        let half = 2f32.ln();
        assert!((loss[3] - half).abs() < 1e-7 && (lse[3] - half).abs() < 1e-7);
        assert!((dx[3][0] + 0.5).abs() < 1e-6 && dx[3][1] == 0.0 && (dx[3][2] - 0.5).abs() < 1e-6);
        for row in [2, 4, 5] {
            assert!(loss[row].is_nan() && dx[row].iter().all(|d| d.is_nan()), "row {row}: {:?}", dx[row]);
        }
        assert!((loss[6] - 3f32.ln()).abs() < 1e-6);
        let y = values(&softmax(&x).unwrap());
        let y = y.as_chunks::<3>().0;
        assert_eq!((y[0], y[1], y[3]), ([1.0, 0.0, 0.0], [0.0; 3], [0.5, 0.0, 0.5]));
        assert!([2, 4, 5].iter().all(|&row: &usize| y[row].iter().all(|p| p.is_nan())));
    }
}

/// The same where a row belongs to a block: NaN, infinities and nothing but minus infinity in rows of several warps.
#[test]
fn extremes_stay_in_long_rows() {
    const V: usize = 2500;
    let inf = f64::INFINITY;
    let mut x = Array::<f64>::random(&[5, V], 1, 1.0);
    x.data[V..2 * V].fill(-inf);
    x.data[2 * V + 1700] = f64::NAN;
    x.data[3 * V + 9] = inf;
    x.data[4 * V..5 * V].fill(-3e38);
    x.data[4 * V + 2400] = 3e38;
    let x = on_device(&x, DType::F32, device()).unwrap();
    let label = labels(&[0, 0, 0, 0, 2400]);
    let (loss, lse) = forward(&x, Target::Labels(&label), 0.0).unwrap();
    let dx = values(&backward(&ones(5), &x, Target::Labels(&label), 0.0, &lse).unwrap());
    let (loss, lse) = (values(&loss), values(&lse));
    assert!(loss[0].is_finite() && dx[..V].iter().all(|d| d.is_finite()));
    assert_eq!((loss[1], lse[1]), (0.0, f32::NEG_INFINITY));
    assert!(dx[V..2 * V].iter().all(|&d| d == 0.0));
    assert!(loss[2].is_nan() && loss[3].is_nan() && dx[2 * V..4 * V].iter().all(|d| d.is_nan()));
    assert_eq!((loss[4], lse[4]), (0.0, 3e38));
    assert!(dx[4 * V..].iter().all(|&d| d == 0.0));
}

/// A weight of zero at minus infinity adds nothing, a positive one makes the loss infinite.
#[test]
fn impossible_classes() {
    let x = matrix(&[[0.0, f64::NEG_INFINITY, f64::NEG_INFINITY]; 2], DType::F32);
    let t = matrix(&[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], DType::F32);
    let (loss, _) = forward(&x, Target::Probabilities(&t), 0.0).unwrap();
    assert_eq!(values(&loss), [0.0, f32::INFINITY]);
}

/// Losses near zero keep their digits: 1 + e^-20 is 1 in f32.
#[test]
fn small_losses_are_accurate() {
    let x = matrix(&[[20.0, 0.0, 0.0], [0.0, 20.0, 19.0]], DType::F32);
    let (loss, _) = forward(&x, Target::Labels(&labels(&[0, 1])), 0.0).unwrap();
    let loss = values(&loss);
    for (found, exact) in
        [(loss[0], (2.0 * (-20f64).exp()).ln_1p()), (loss[1], ((-1f64).exp() + (-20f64).exp()).ln_1p())]
    {
        assert!((f64::from(found) - exact).abs() < 1e-6 * exact, "{found} should be {exact}");
    }
}

/// Labels outside the classes make their rows NaN and are no addresses.
#[test]
fn wrong_labels_are_nan_in_their_row() {
    for v in [3usize, 40, 2500] {
        let wrong = [-1, v as i32, i32::MAX, i32::MIN];
        let all: Vec<i32> = wrong.iter().copied().chain([0, v as i32 - 1]).collect();
        for smoothing in [0.0, 0.3, 1.0] {
            let (loss, dx) = guarded(device(), || {
                let mut x = Array::random(&[6, v], 1, 1.0);
                x.data[3 * v..4 * v].fill(f64::NEG_INFINITY);
                let x = on_device(&x, DType::F32, device())?;
                let label = labels(&all);
                let (loss, lse) = forward(&x, Target::Labels(&label), smoothing)?;
                let dx = backward(&ones(6), &x, Target::Labels(&label), smoothing, &lse)?;
                Ok((values(&loss), values(&dx)))
            })
            .unwrap();
            assert!(
                loss[..4].iter().all(|l| l.is_nan()) && loss[4..].iter().all(|l| l.is_finite()),
                "{loss:?}"
            );
            assert!(dx[..4 * v].iter().all(|d| d.is_nan()) && dx[4 * v..].iter().all(|d| d.is_finite()));
        }
    }
}

#[test]
fn runs_are_equal_bit_for_bit() {
    for (m, v) in [(13, 300), (2, 5001)] {
        let case = Case { m, v, soft: true, smoothing: 0.1, values: Values::Normal(5.0) };
        let x = on_device(&case.logits(), DType::F32, device()).unwrap();
        let t = on_device(&case.probabilities(), DType::F32, device()).unwrap();
        let run = || {
            let (loss, lse) = forward(&x, Target::Probabilities(&t), 0.1).unwrap();
            let dx = backward(&loss, &x, Target::Probabilities(&t), 0.1, &lse).unwrap();
            [loss, lse, dx, softmax(&x).unwrap()]
        };
        let first = run();
        for _ in 0..20 {
            for (again, first) in run().iter().zip(&first) {
                check_equal("repeated", again, first).unwrap();
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let x = matrix(&[[0.0; 3]; 2], DType::F32);
    let error = |x: &Tensor, t: Target| forward(x, t, 0.0).unwrap_err().to_string();
    let half = matrix(&[[0.0; 3]; 2], DType::BF16);
    assert!(error(&x, Target::Probabilities(&half)).contains("probabilities"));
    assert!(error(&x, Target::Labels(&labels(&[0]))).contains("labels must have shape [2]"));
    let host = Tensor::from_slice(&[0i32, 1], &[2]).unwrap();
    assert!(error(&x, Target::Labels(&host)).contains("target"));
    assert!(
        softmax(&labels(&[0, 1]).reshape(&[1, 2]).unwrap()).unwrap_err().to_string().contains("f32 or bf16")
    );
    let none = Tensor::zeros(&[0, 3], DType::BF16, device()).unwrap();
    let (loss, lse) = forward(&none, Target::Labels(&labels(&[])), 0.0).unwrap();
    assert!(loss.is_empty());
    assert!(backward(&loss, &none, Target::Labels(&labels(&[])), 0.0, &lse).unwrap().is_empty());
    assert!(softmax(&none).unwrap().is_empty());
}
