use super::cases::{Case, Values, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::{check, check_equal};
use proptest::prelude::*;

/// Loss, lse and gradient of a case.
fn run(case: &Case) -> Result<[Tensor; 3]> {
    let x = case.logits().to_tensor()?;
    let labels = Tensor::from_slice(&case.labels(), &[case.m])?;
    let soft = case.probabilities().to_tensor()?;
    let target = if case.soft { Target::Probabilities(&soft) } else { Target::Labels(&labels) };
    let (loss, lse) = forward(&x, target, case.smoothing)?;
    let dx = backward(&case.dloss().to_tensor()?, &x, target, case.smoothing, &lse)?;
    Ok([loss, lse, dx])
}

fn targets(case: &Case) -> Array<f64> {
    if case.soft { case.probabilities() } else { reference::one_hot(&case.labels(), case.v) }
}

fn agrees(case: &Case) -> Result<()> {
    let (x, t, dloss) = (case.logits(), targets(case), case.dloss());
    let oracle = reference::forward(&x, &t, case.smoothing);
    let naive = reference::forward(&x.cast::<f32>(), &t.cast(), case.smoothing);
    let [loss, lse, dx] = run(case)?;
    check(&format!("loss of {case:?}"), &loss, &naive.0, &oracle.0, 2.0)?;
    check(&format!("lse of {case:?}"), &lse, &naive.1, &oracle.1, 2.0)?;
    let oracle = reference::backward(&dloss, &x, &t, case.smoothing);
    let naive = reference::backward(&dloss.cast::<f32>(), &x.cast(), &t.cast(), case.smoothing);
    check(&format!("dx of {case:?}"), &dx, &naive, &oracle, 2.0)?;
    let (naive, oracle) = (reference::softmax(&x.cast::<f32>()), reference::softmax(&x));
    check(&format!("softmax of {case:?}"), &softmax(&x.to_tensor()?)?, &naive, &oracle, 2.0)
}

#[test]
fn agrees_with_the_reference() {
    for case in cases() {
        agrees(&case).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_on_random_problems(case in strategy()) {
        agrees(&case).unwrap();
    }
}

/// The reference's gradient against its own differences.
#[test]
fn the_reference_is_its_own_derivative() {
    for soft in [false, true] {
        let case = Case { m: 3, v: 5, soft, smoothing: 0.3, values: Values::Normal(1.0) };
        let (x, t, dloss) = (case.logits(), targets(&case), case.dloss());
        let dx = reference::backward(&dloss, &x, &t, case.smoothing);
        let value = |x: &Array<f64>| -> f64 {
            let (loss, _) = reference::forward(x, &t, case.smoothing);
            loss.zip(&dloss, |a, b| a * b).data.iter().sum()
        };
        for i in 0..x.len() {
            let moved = |step: f64| {
                let mut x = x.clone();
                x.data[i] += step;
                value(&x)
            };
            // Central differences: error of order step^2 and 1e-16 / step.
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - dx.data[i]).abs() < 1e-9, "{slope} {}", dx.data[i]);
        }
    }
}

#[test]
fn closed_forms() {
    for v in [4usize, 100, 1000, 2048, 65_536, 131_072] {
        let x = Tensor::full(&[2, v], 3.5, Device::Cpu).unwrap();
        let labels = Tensor::from_slice(&[0i32, v as i32 - 1], &[2]).unwrap();
        let (loss, _) = forward(&x, Target::Labels(&labels), 0.0).unwrap();
        for &l in loss.as_slice::<f32>().unwrap() {
            assert!((l - (v as f32).ln()).abs() <= 2.0 * f32::EPSILON * l, "{l} for {v} classes");
        }
    }
}

#[test]
fn targets_may_add_up_to_two_or_to_nothing() {
    check::check_sums_of_targets(Device::Cpu).unwrap();
}

#[test]
fn extremes_stay_in_their_row() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = [
        [3e38, -3e38, 0.0],
        [-inf, -inf, -inf],
        [1.0, nan, 2.0],
        [0.0, -inf, 0.0],
        [nan, nan, nan],
        [inf, 0.0, 1.0],
        [1e-40, 0.0, -1e-40],
    ];
    let m = x.len();
    let x = Tensor::from_slice(x.as_flattened(), &[m, 3]).unwrap();
    let labels = Tensor::from_slice(&vec![0i32; m], &[m]).unwrap();
    let (loss, lse) = forward(&x, Target::Labels(&labels), 0.0).unwrap();
    let dloss = Tensor::full(&[m], 1.0, Device::Cpu).unwrap();
    let dx = backward(&dloss, &x, Target::Labels(&labels), 0.0, &lse).unwrap();
    let (loss, lse, dx) = (
        loss.as_slice::<f32>().unwrap(),
        lse.as_slice::<f32>().unwrap(),
        dx.as_slice::<f32>().unwrap().as_chunks::<3>().0,
    );
    assert_eq!((loss[0], lse[0], dx[0]), (0.0, 3e38, [0.0; 3]));
    assert_eq!((loss[1], lse[1], dx[1]), (0.0, -inf, [0.0; 3]));
    let half = 2f32.ln();
    assert!((loss[3] - half).abs() < 1e-7 && (lse[3] - half).abs() < 1e-7);
    assert!((dx[3][0] + 0.5).abs() < 1e-7 && dx[3][1] == 0.0 && (dx[3][2] - 0.5).abs() < 1e-7);
    for row in [2, 4, 5] {
        assert!(loss[row].is_nan() && dx[row].iter().all(|d| d.is_nan()), "row {row}: {:?}", dx[row]);
    }
    assert!((loss[6] - 3f32.ln()).abs() < 1e-6);
    let y = softmax(&x).unwrap();
    let y = y.as_slice::<f32>().unwrap().as_chunks::<3>().0;
    assert_eq!((y[0], y[1], y[3]), ([1.0, 0.0, 0.0], [0.0; 3], [0.5, 0.0, 0.5]));

    // A soft target of zero at minus infinity adds nothing; a positive one makes the loss infinite.
    let x = Tensor::from_slice(&[0.0, -inf, 0.0, -inf], &[2, 2]).unwrap();
    let t = Tensor::from_slice(&[1f32, 0.0, 0.5, 0.5], &[2, 2]).unwrap();
    let (loss, _) = forward(&x, Target::Probabilities(&t), 0.0).unwrap();
    assert_eq!(loss.as_slice::<f32>().unwrap(), [0.0, inf]);
}

#[test]
fn a_constant_changes_nothing_and_gradients_add_up_to_zero() {
    let case = Case { m: 6, v: 777, soft: false, smoothing: 0.1, values: Values::Constant(0.0) };
    // Multiples of 1/8 stay exact when 1024 is added.
    let x = Array::<f64>::integers(&[case.m, case.v], 9, 40).map(|x| x / 8.0);
    let labels = Tensor::from_slice(&case.labels(), &[case.m]).unwrap();
    let dloss = case.dloss().to_tensor().unwrap();
    let run = |x: &Array<f64>| {
        let x = x.to_tensor().unwrap();
        let (loss, lse) = forward(&x, Target::Labels(&labels), 0.1).unwrap();
        (loss, backward(&dloss, &x, Target::Labels(&labels), 0.1, &lse).unwrap())
    };
    let (loss, dx) = run(&x);
    let (moved_loss, moved_dx) = run(&x.map(|x| x + 1024.0));
    check_equal("loss", &moved_loss, &loss).unwrap();
    let (a, b) = (dx.to_vec::<f32>().unwrap(), moved_dx.to_vec::<f32>().unwrap());
    for (row_a, row_b) in a.chunks(case.v).zip(b.chunks(case.v)) {
        // Elements are below 1 and carry a few units of rounding each.
        assert!(row_a.iter().zip(row_b).all(|(a, b)| (a - b).abs() < 4e-7));
        assert!(row_a.iter().map(|&x| f64::from(x)).sum::<f64>().abs() < 1e-6);
    }
}

#[test]
fn bits_do_not_depend_on_threads_and_bounds_hold() {
    let shapes = [(100, 1000), (3, 50_000), (1, 8192), (2, 8193)];
    for (m, v) in shapes {
        for soft in [false, true] {
            let case = Case { m, v, soft, smoothing: 0.1, values: Values::Normal(5.0) };
            let mut first: Option<[Tensor; 3]> = None;
            for threads in [1, 2, 3, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let out = pool.install(|| {
                    let scope = memory::guard();
                    let out = run(&case).unwrap();
                    let plain =
                        out.map(|t| Tensor::from_slice(&t.to_vec::<f32>().unwrap(), t.shape()).unwrap());
                    scope.finish().unwrap();
                    plain
                });
                assert!(out.iter().all(|t| t.as_slice::<f32>().unwrap().iter().all(|x| x.is_finite())));
                match &first {
                    None => first = Some(out),
                    Some(first) => {
                        for (a, b) in out.iter().zip(first) {
                            check_equal("threads", a, b).unwrap();
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let x = Tensor::zeros(&[2, 3], DType::F32, Device::Cpu).unwrap();
    let labels = |values: &[i32]| Tensor::from_slice(values, &[values.len()]).unwrap();
    let error = |x: &Tensor, t: Target, s: f32| forward(x, t, s).unwrap_err().to_string();
    for bad in [3, -1] {
        let text = error(&x, Target::Labels(&labels(&[0, bad])), 0.0);
        assert!(text.contains(&format!("label of row 1 is {bad}")), "{text}");
    }
    assert!(error(&x, Target::Labels(&labels(&[0])), 0.0).contains("labels must have shape [2]"));
    assert!(error(&x, Target::Labels(&x), 0.0).contains("labels"));
    assert!(error(&x, Target::Probabilities(&labels(&[0, 1])), 0.0).contains("probabilities"));
    assert!(error(&x, Target::Labels(&labels(&[0, 1])), 1.5).contains("smoothing"));
    assert!(
        error(&x.transpose(0, 1).unwrap(), Target::Labels(&labels(&[0, 1, 1])), 0.0).contains("contiguous")
    );
    let none = Tensor::zeros(&[0, 3], DType::F32, Device::Cpu).unwrap();
    let (loss, lse) = forward(&none, Target::Labels(&labels(&[])), 0.0).unwrap();
    assert!(loss.is_empty());
    assert!(backward(&loss, &none, Target::Labels(&labels(&[])), 0.0, &lse).unwrap().is_empty());
    assert!(softmax(&none).unwrap().is_empty());
}
