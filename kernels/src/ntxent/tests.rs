use super::cases::{Case, Data, Values, cases, positive, strategy};
use super::check::expected;
use super::*;
use crate::array::Array;
use crate::compare::check_equal;
use proptest::prelude::*;

/// Loss, lse, drows, dcolumns, and dpositive of positives that are vectors.
fn run(case: &Case, data: &Data) -> Result<Vec<Tensor>> {
    super::check::run(case, data, Array::to_tensor)
}

fn agrees(case: &Case) -> Result<()> {
    let data = case.data();
    super::check::Expected::new(case, &data, false)
        .require(&run(case, &data)?)
        .map_err(|e| e.with("case", format!("{case:?}")))
}

#[test]
fn agrees_with_the_reference() {
    for case in cases() {
        agrees(&case).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_on_random_problems(case in strategy()) {
        agrees(&case).unwrap();
    }
}

/// The loss of SimCLR's arrangement for given unit vectors: the mean over rows.
fn simclr_loss(z: &Array<f64>, temperature: f32, positives: &[i32]) -> f64 {
    let z = z.to_tensor().unwrap();
    let index = Tensor::from_slice(positives, &[positives.len()]).unwrap();
    let spec = Spec { temperature, self_column: Some(0) };
    let (loss, _) = forward(&z, &z, Positive::Column(&index), spec).unwrap();
    let loss = loss.to_vec::<f32>().unwrap();
    loss.iter().map(|&l| f64::from(l)).sum::<f64>() / loss.len() as f64
}

/// Row i's partner when views are stacked: i + N mod 2N.
fn stacked(n: usize) -> Vec<i32> {
    (0..2 * n).map(|i| ((i + n) % (2 * n)) as i32).collect()
}

/// Two copies of the first `n` axes of `d`.
fn orthogonal_pairs(n: usize, d: usize) -> Array<f64> {
    let mut z = Array::zeros(&[2 * n, d]);
    for i in 0..2 * n {
        z.data[i * d + i % n] = 1.0;
    }
    z
}

#[test]
fn closed_forms() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 2e-6 * b.max(0.1), "{a} should be {b}");
    near(simclr_loss(&orthogonal_pairs(2, 2), 0.5, &stacked(2)), 0.2395447662);
    for (n, loss) in [(256, 6.23637), (512, 6.93049)] {
        let same = Array::zeros(&[2 * n, 4]).map(|_: f64| 0.5);
        near(simclr_loss(&same, 0.1, &stacked(n)), ((2 * n - 1) as f64).ln());
        assert!((simclr_loss(&same, 0.1, &stacked(n)) - loss).abs() < 1e-5);
    }
    // Planted: a temperature that is missing, applied twice, or the wrong one shows here.
    for (temperature, loss) in [(0.1, 0.022890), (0.5, 4.248795)] {
        let found = simclr_loss(&orthogonal_pairs(256, 256), temperature, &stacked(256));
        near(found, (1.0 + 510.0 * (-1.0 / f64::from(temperature)).exp()).ln());
        assert!((found - loss).abs() < 1e-6, "{found}");
    }
    // MoCo collapsed: ln(K + 1).
    let one = Tensor::from_slice(&[0.6f32, 0.8], &[1, 2]).unwrap();
    let queue = Tensor::from_slice(&[0.6f32, 0.8].repeat(4096), &[4096, 2]).unwrap();
    let spec = Spec { temperature: 0.07, self_column: None };
    let (loss, _) = forward(&one, &queue, Positive::Vector(&one), spec).unwrap();
    near(f64::from(loss.as_slice::<f32>().unwrap()[0]), 8.31801);
}

/// Views interleaved instead of stacked, or the wrong offset, change the loss as they should.
#[test]
fn the_positive_is_the_partner_and_nothing_else() {
    let (n, t) = (4, 0.5f32);
    let right = (1.0 + 6.0 * (-1.0 / f64::from(t)).exp()).ln();
    let z = orthogonal_pairs(n, 8);
    assert!((simclr_loss(&z, t, &stacked(n)) - right).abs() < 1e-6);
    let interleaved: Vec<i32> = (0..8).map(|i| i ^ 1).collect();
    assert!((simclr_loss(&z, t, &interleaved) - right - 1.0 / f64::from(t)).abs() < 1e-6);
    // Swapping the views keeps the loss, shifting the second one raises it.
    let swapped = Array::new(&[8, 8], [&z.data[32..], &z.data[..32]].concat());
    assert_eq!(simclr_loss(&swapped, t, &stacked(n)), simclr_loss(&z, t, &stacked(n)));
    let shifted = Array::new(&[8, 8], [&z.data[..32], &z.data[40..], &z.data[32..40]].concat());
    assert!(simclr_loss(&shifted, t, &stacked(n)) > right + 1.0);
}

/// The oracle's gradient against its own differences, the launcher against both: a self-similarity that is
/// subtracted instead of masked has the right value and fails here, and so does a wrong temperature.
#[test]
fn gradients_are_derivatives() {
    for (vector, self_column) in [(false, Some(0)), (false, None), (true, Some(1))] {
        for temperature in [0.1, 0.5] {
            let spec = Spec { temperature, self_column };
            let case = Case { r: 4, c: 4, d: 3, vector, spec, values: Values::Unit };
            let data = case.data();
            let exact = expected::<f64>(&case, &data);
            let value = |data: &Data| -> f64 {
                expected::<f64>(&case, data)[0].zip(&data.dloss, |a, b| a * b).data.iter().sum()
            };
            let found = run(&case, &data).unwrap();
            let field = |data: &mut Data, which: usize, at: usize, by: f64| match (which, &mut data.positive)
            {
                (2, _) => data.rows.data[at] += by,
                (3, _) => data.columns.data[at] += by,
                (_, reference::Positive::Vector(v)) => v.data[at] += by,
                (_, reference::Positive::Column(_)) => panic!("columns have no gradient of their own"),
            };
            for (which, gradient) in found.iter().enumerate().skip(2) {
                for at in 0..exact[which].len() {
                    let moved = |by: f64| {
                        let mut data = data.clone();
                        field(&mut data, which, at, by);
                        value(&data)
                    };
                    // Central differences: third derivatives grow as temperature^-3.
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((slope - exact[which].data[at]).abs() < 1e-6, "{slope} {case:?}");
                    let found = f64::from(gradient.as_slice::<f32>().unwrap()[at]);
                    assert!((slope - found).abs() < 2e-5, "{which} {at}: {found} for {slope} {case:?}");
                }
            }
        }
    }
}

/// What a row must not see moves neither its loss nor its gradient, however large or strange.
#[test]
fn the_hidden_column_is_not_there() {
    let case = Case::simclr(6, 5, 0.1, Values::Unit);
    let mut data = case.data();
    data.columns = Case { values: Values::Normal(0.4), ..case }.data().columns;
    let before = run(&case, &data).unwrap();
    for value in [1e3, -1e3, 3e37, f64::NAN] {
        // Row 2 alone: the others see column 2.
        let one = |data: &Data| {
            let rows = Array::new(&[1, 5], data.rows.data[10..15].to_vec()).to_tensor().unwrap();
            let index = Tensor::from_slice(&[8i32], &[1]).unwrap();
            let spec = Spec { temperature: 0.1, self_column: Some(2) };
            let columns = data.columns.to_tensor().unwrap();
            let (loss, lse) = forward(&rows, &columns, Positive::Column(&index), spec).unwrap();
            let dloss = Tensor::from_slice(&[1f32], &[1]).unwrap();
            let g = backward(&dloss, &rows, &columns, Positive::Column(&index), spec, &lse, true).unwrap();
            (loss, g)
        };
        let (loss, _) = one(&data);
        assert_eq!(loss.as_slice::<f32>().unwrap()[0], before[0].as_slice::<f32>().unwrap()[2]);
        let mut strange = data.clone();
        strange.columns.data[10..15].fill(value);
        let (strange_loss, g) = one(&strange);
        check_equal("loss", &strange_loss, &loss).unwrap();
        let dcolumns = g.dcolumns.unwrap();
        assert!(dcolumns.as_slice::<f32>().unwrap()[10..15].iter().all(|&x| x == 0.0));
        if value.is_finite() {
            check_equal("drows", &g.drows, &one(&data).1.drows).unwrap();
        }
    }
}

#[test]
fn no_negatives_is_no_loss() {
    // Two views of one image: each sees only its partner.
    let case = Case::simclr(1, 7, 0.05, Values::Unit);
    let out = run(&case, &case.data()).unwrap();
    assert_eq!(out[0].as_slice::<f32>().unwrap(), [0.0, 0.0]);
    // The weights are exp(s - lse) - 1 with lse = s, rounded: a few units of 20, over the temperature.
    assert!(out[2].as_slice::<f32>().unwrap().iter().all(|g| g.abs() < 1e-4));
    // A queue that is empty.
    let spec = Spec { temperature: 0.1, self_column: None };
    let case = Case { r: 3, c: 0, d: 4, vector: true, spec, values: Values::Normal(2.0) };
    let out = run(&case, &case.data()).unwrap();
    assert_eq!(out[0].as_slice::<f32>().unwrap(), [0.0; 3]);
    assert_eq!(out[3].shape(), [0, 4]);
    // No rows: columns get zeros. No dimensions: every similarity is zero.
    let spec = Spec { temperature: 0.1, self_column: None };
    let case = Case { r: 0, c: 3, d: 4, vector: false, spec, values: Values::Unit };
    assert_eq!(run(&case, &case.data()).unwrap()[3].as_slice::<f32>().unwrap(), [0.0; 12]);
    let case = Case { r: 2, c: 3, d: 0, vector: false, spec, values: Values::Zero };
    let loss = run(&case, &case.data()).unwrap()[0].to_vec::<f32>().unwrap();
    assert!(loss.iter().all(|l| (l - 3f32.ln()).abs() < 1e-6));
}

#[test]
fn a_vector_is_a_column_of_its_own() {
    let spec = Spec { temperature: 0.1, self_column: None };
    let case = Case { r: 1, c: 400, d: 16, vector: true, spec, values: Values::Unit };
    let data = case.data();
    let out = run(&case, &data).unwrap();
    let reference::Positive::Vector(v) = &data.positive else { panic!("asked for vectors") };
    let mut appended = data.clone();
    appended.columns = Array::new(&[401, 16], [&data.columns.data[..], &v.data[..]].concat());
    appended.positive = reference::Positive::Column(vec![400]);
    let other = run(&Case { vector: false, c: 401, ..case }, &appended).unwrap();
    let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
    let near = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        // Of the order of one over the temperature, a few units in the last place.
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
    };
    for i in 0..3 {
        near(&values(&out[i]), &values(&other[i]));
    }
    near(&[values(&out[3]), values(&out[4])].concat(), &values(&other[3]));
}

#[test]
fn the_order_of_columns_does_not_matter() {
    let spec = Spec { temperature: 0.2, self_column: None };
    let case = Case { r: 40, c: 700, d: 12, vector: false, spec, values: Values::Unit };
    let (data, d) = (case.data(), 12);
    let order = engine::Philox::new(8, engine::random::Purpose::Test, 0).permutation(700);
    let mut moved = data.clone();
    let mut place = vec![0; 700];
    for (to, &from) in order.iter().enumerate() {
        place[from] = to;
        moved.columns.data[to * d..(to + 1) * d]
            .copy_from_slice(&data.columns.data[from * d..(from + 1) * d]);
    }
    let reference::Positive::Column(index) = &data.positive else { panic!("asked for columns") };
    moved.positive = reference::Positive::Column(index.iter().map(|&i| place[i]).collect());
    let (a, b) = (run(&case, &data).unwrap(), run(&case, &moved).unwrap());
    let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
    for i in 0..3 {
        assert!(values(&a[i]).iter().zip(values(&b[i])).all(|(x, y)| (x - y).abs() < 1e-5));
    }
    let (a, b) = (values(&a[3]), values(&b[3]));
    for (from, &to) in place.iter().enumerate() {
        assert!((0..d).all(|k| (a[from * d + k] - b[to * d + k]).abs() < 1e-5), "column {from}");
    }
}

#[test]
fn bits_do_not_depend_on_threads_and_bounds_hold() {
    let moco = Spec { temperature: 0.07, self_column: None };
    for case in [
        Case::simclr(300, 32, 0.1, Values::Unit),
        Case { r: 37, c: 1100, d: 19, vector: true, spec: moco, values: Values::Unit },
    ] {
        let data = case.data();
        let mut first: Option<Vec<Tensor>> = None;
        for threads in [1, 2, 3, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let out = pool.install(|| {
                let scope = memory::guard();
                let copy = |t: &Tensor| Tensor::from_slice(&t.to_vec::<f32>().unwrap(), t.shape()).unwrap();
                let out: Vec<Tensor> = run(&case, &data).unwrap().iter().map(copy).collect();
                scope.finish().unwrap();
                out
            });
            assert!(out.iter().all(|t| t.as_slice::<f32>().unwrap().iter().all(|x| x.is_finite())));
            for (a, b) in first.iter().flatten().zip(&out) {
                check_equal("threads", a, b).unwrap();
            }
            first.get_or_insert(out);
        }
    }
}

/// Rows and columns in one tensor take a path of their own; its bits are the same.
#[test]
fn one_tensor_or_two() {
    for (n, d, self_column) in [(300, 33, Some(0)), (5, 8, None), (20, 64, Some(3)), (1, 1, Some(0))] {
        let mut case = Case::simclr(n, d, 0.1, Values::Unit);
        let data = case.data();
        case.spec.self_column = self_column;
        let (z, copy) = (data.rows.to_tensor().unwrap(), data.rows.to_tensor().unwrap());
        let positive_rows: Vec<i32> = (0..2 * n).map(|i| ((i + n) % (2 * n)) as i32).collect();
        let index = Tensor::from_slice(&positive_rows, &[2 * n]).unwrap();
        let dloss = data.dloss.to_tensor().unwrap();
        let run = |columns: &Tensor| {
            let (_, lse) = forward(&z, columns, Positive::Column(&index), case.spec).unwrap();
            backward(&dloss, &z, columns, Positive::Column(&index), case.spec, &lse, true).unwrap()
        };
        let (one, two) = (run(&z), run(&copy));
        check_equal("drows", &one.drows, &two.drows).unwrap();
        check_equal("dcolumns", &one.dcolumns.unwrap(), &two.dcolumns.unwrap()).unwrap();
    }
}

#[test]
fn constants_get_no_gradient() {
    let case = Case::simclr(3, 4, 0.5, Values::Unit);
    let data = case.data();
    let (z, of) = (data.rows.to_tensor().unwrap(), data.positive_tensor().unwrap());
    let (_, lse) = forward(&z, &z, positive(&of), case.spec).unwrap();
    let dloss = data.dloss.to_tensor().unwrap();
    let both = backward(&dloss, &z, &z, positive(&of), case.spec, &lse, true).unwrap();
    let rows = backward(&dloss, &z, &z, positive(&of), case.spec, &lse, false).unwrap();
    assert!(rows.dcolumns.is_none() && rows.dpositive.is_none() && both.dcolumns.is_some());
    check_equal("drows", &rows.drows, &both.drows).unwrap();
}

#[test]
fn wrong_arguments_are_named() {
    let z = Tensor::zeros(&[4, 3], DType::F32, Device::Cpu).unwrap();
    let index = |values: &[i32]| Tensor::from_slice(values, &[values.len()]).unwrap();
    let spec = Spec { temperature: 0.5, self_column: Some(0) };
    let error = |columns: &Tensor, positive: Positive, spec: Spec| {
        forward(&z, columns, positive, spec).unwrap_err().to_string()
    };
    let good = index(&[2, 3, 0, 1]);
    assert!(forward(&z, &z, Positive::Column(&good), spec).is_ok());
    let text = error(&z, Positive::Column(&index(&[2, 1, 0, 1])), spec);
    assert!(text.contains("row 1 is column 1, which it must not see"), "{text}");
    for bad in [4, -1] {
        let text = error(&z, Positive::Column(&index(&[2, 3, bad, 1])), spec);
        assert!(text.contains(&format!("row 2 is column {bad}, outside the 4 columns")), "{text}");
    }
    for temperature in [0.0, -0.1, f32::NAN, f32::INFINITY] {
        let spec = Spec { temperature, self_column: None };
        assert!(error(&z, Positive::Column(&good), spec).contains("temperature"));
    }
    let narrow = Tensor::zeros(&[4, 2], DType::F32, Device::Cpu).unwrap();
    assert!(error(&narrow, Positive::Column(&good), spec).contains("same D"));
    assert!(error(&z, Positive::Vector(&narrow), spec).contains("positive must have shape [4, 3]"));
    assert!(error(&z, Positive::Vector(&good), spec).contains("positive"));
}
