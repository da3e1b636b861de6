//! SimCLR: closed forms, symmetries, gradients, and what each silent failure would change.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::module::parts;
use autograd::{Var, ops};
use engine::Tensor;
use kernels::array::Array;
use models::Arch;
use objectives::simclr::nt_xent;
use objectives::{Batch, DataProfile, Loss, Objective};

const PROFILE: DataProfile = DataProfile { height: 12, width: 12, channels: 1, len: 100 };

fn random(shape: &[usize], seed: u64) -> Tensor {
    Array::<f32>::random(shape, seed, 1.0).to_tensor().unwrap()
}

/// The loss of two views' projections, which are normalised first.
fn loss(a: &Tensor, b: &Tensor, temperature: f32) -> f32 {
    let both = kernels::copy::cat(&[a, b], 0).unwrap();
    let z = ops::l2_normalize(&Var::constant(both), 1e-12).unwrap();
    nt_xent(&z, temperature).unwrap().value().item().unwrap()
}

fn identity(n: usize) -> Tensor {
    let values: Vec<f32> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    Tensor::from_slice(&values, &[n, n]).unwrap()
}

#[track_caller]
fn near(actual: f32, expected: f64) {
    // A logarithm of a sum of up to 1000 exponentials, in f32.
    assert!((f64::from(actual) - expected).abs() < 4e-6 * expected.abs().max(1.0), "{actual} for {expected}");
}

#[test]
fn closed_forms() {
    near(loss(&identity(2), &identity(2), 0.5), 0.239_544_766_2);
    for (n, all_equal) in [(256usize, 6.23637), (512, 6.93049)] {
        let ones = Tensor::full(&[n, 3], 1.0, engine::Device::Cpu).unwrap();
        near(loss(&ones, &ones, 0.1), (2.0 * n as f64 - 1.0).ln());
        assert!((f64::from(loss(&ones, &ones, 0.5)) - all_equal).abs() < 1e-5);
    }
    // Aligned and mutually orthogonal: ln(1 + (2N - 2) e^(-1 / t)).
    for (n, temperature, published) in [(256, 0.1f32, 0.022890), (256, 0.5, 4.248795)] {
        let expected = (1.0 + (2 * n - 2) as f64 * (-1.0 / f64::from(temperature)).exp()).ln();
        assert!((expected - published).abs() < 1e-6);
        near(loss(&identity(n), &identity(n), temperature), expected);
    }
    for n in [2, 4, 7] {
        let expected = (1.0 + (2 * n - 2) as f64 * (-2f64).exp()).ln();
        near(loss(&identity(n), &identity(n), 0.5), expected);
    }
}

#[test]
fn identical_views_give_less_than_different_ones() {
    let (a, b) = (random(&[16, 8], 1), random(&[16, 8], 2));
    assert!(loss(&a, &a, 0.5) < loss(&a, &b, 0.5));
}

/// The similarity with itself is masked: scaled up, it would change the loss of identical rows.
#[test]
fn the_naive_formula_in_f64_agrees() {
    for (n, d, temperature) in [(2usize, 3usize, 0.1f64), (5, 8, 0.5), (13, 4, 0.07)] {
        let (a, b) = (random(&[n, d], 3), random(&[n, d], 4));
        let z: Vec<Vec<f64>> = [&a, &b]
            .iter()
            .flat_map(|t| t.to_vec::<f32>().unwrap().chunks(d).map(<[f32]>::to_vec).collect::<Vec<_>>())
            .map(|row| {
                let row: Vec<f64> = row.into_iter().map(f64::from).collect();
                let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                row.into_iter().map(|v| v / norm).collect()
            })
            .collect();
        let s = |i: usize, j: usize| z[i].iter().zip(&z[j]).map(|(x, y)| x * y).sum::<f64>() / temperature;
        let mut expected = 0.0;
        for i in 0..2 * n {
            let others: f64 = (0..2 * n).filter(|&k| k != i).map(|k| s(i, k).exp()).sum();
            expected += (others.ln() - s(i, (i + n) % (2 * n))) / (2 * n) as f64;
        }
        near(loss(&a, &b, temperature as f32), expected);
    }
}

#[test]
fn swapping_the_views_changes_nothing_and_shuffling_one_raises_the_loss() {
    let a = random(&[9, 16], 5);
    let b = Array::<f32>::from_tensor(&a).unwrap();
    let b = b.zip(&Array::random(&[9, 16], 6, 0.2), |x, y| x + y).to_tensor().unwrap();
    let together = loss(&a, &b, 0.2);
    // The same terms in another order.
    assert!((together - loss(&b, &a, 0.2)).abs() < 1e-5);
    let rotated = kernels::copy::cat(&[&b.narrow(0, 1, 8).unwrap(), &b.narrow(0, 0, 1).unwrap()], 0).unwrap();
    assert!(loss(&a, &rotated, 0.2) > together + 1.0);
    // Both views shuffled alike: the same pairs.
    let alike = kernels::copy::cat(&[&a.narrow(0, 1, 8).unwrap(), &a.narrow(0, 0, 1).unwrap()], 0).unwrap();
    assert!((together - loss(&alike, &rotated, 0.2)).abs() < 1e-5);
}

/// Against central differences of the naive loss in every coordinate: no row is cut off from the gradient, and
/// the masked diagonal has none.
#[test]
fn every_projection_has_the_right_gradient() {
    let (n, d, temperature) = (3, 5, 0.1f32);
    let start = random(&[2 * n, d], 7);
    let value = |z: &Tensor| {
        let z = ops::l2_normalize(&Var::constant(z.clone()), 1e-12).unwrap();
        f64::from(nt_xent(&z, temperature).unwrap().value().item().unwrap())
    };
    let leaf = Var::leaf(start.clone());
    nt_xent(&ops::l2_normalize(&leaf, 1e-12).unwrap(), temperature).unwrap().backward().unwrap();
    let gradient = leaf.gradient().unwrap().to_vec::<f32>().unwrap();
    let step = 1e-2f32;
    for i in 0..2 * n * d {
        let moved = |by: f32| {
            let mut z = start.clone();
            z.as_mut_slice::<f32>().unwrap()[i] += by;
            value(&z)
        };
        let difference = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        // The difference quotient is wrong by step^2 / 6 times a third derivative of up to 1 / t^3 = 1000.
        assert!((difference - f64::from(gradient[i])).abs() < 3e-2, "{i}: {difference} for {}", gradient[i]);
    }
    for row in gradient.chunks(d) {
        assert!(row.iter().any(|g| g.abs() > 1e-3), "a projection without gradient: {row:?}");
    }
}

fn simclr(changes: &str, width: usize) -> Box<dyn Objective> {
    common::build("simclr", &PROFILE, &Arch { width: Some(width), ..common::resnet() }, changes)
}

/// The loss of views, as the trainer asks for it.
fn step(method: &mut Box<dyn Objective>, views: &[Tensor]) -> engine::Result<Loss> {
    let clock = objectives::draws::clock(0, engine::Device::Cpu)?;
    method.loss(&Batch { views, draws: &[], clock: &clock })
}

fn views(count: usize, seed: u64) -> Vec<Tensor> {
    (0..2).map(|v| random(&[count, 12, 12, 1], seed + v)).collect()
}

#[test]
fn the_method_compares_both_views_of_the_whole_batch() {
    let mut method = simclr("projector_dim = 16", 4);
    let out = step(&mut method, &views(6, 1)).unwrap();
    assert_eq!(out.embeddings.shape(), [12, 16]);
    assert_eq!(method.views().len(), 2);
    assert_eq!(out.value.shape(), [0usize; 0]);
    let rows = out.embeddings.to_vec::<f32>().unwrap();
    for row in rows.chunks(16) {
        assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5, "rows are unit vectors");
    }
    let signal = |name: &str| out.signals.iter().find(|s| s.0 == name).unwrap().1.item().unwrap();
    assert_eq!(signal("negatives"), 10.0);
    let cosine: f32 = (0..96).map(|i| rows[i] * rows[96 + i]).sum::<f32>() / 6.0;
    assert!((signal("positive_similarity") - cosine).abs() < 1e-5);
    // The loss is the one of these embeddings at the default temperature of small grey images.
    let z = Var::constant(out.embeddings.clone());
    assert_eq!(nt_xent(&z, 0.1).unwrap().value().item().unwrap(), out.value.value().item().unwrap());
}

/// At the start the loss is near ln(2B - 1), with all 2B - 2 negatives of the batch and not of a part of it.
#[test]
fn the_loss_starts_where_the_number_of_negatives_says() {
    for batch in [16usize, 64] {
        let mut method = simclr("temperature = 1.0", 8);
        let value = step(&mut method, &views(batch, 3)).unwrap().value.value().item().unwrap();
        let expected = (2.0 * batch as f32 - 1.0).ln();
        // Random projections are nearly orthogonal: each summand is within e^(+-0.3) of the others.
        assert!((value - expected).abs() < 0.3, "batch {batch}: {value} for {expected}");
    }
}

/// Both views share one forward pass, so that normalisation sees all 2B images: with a constant second view a
/// pass of its own would give constant features, whose normalised values are all zero.
#[test]
fn normalisation_sees_both_views_together() {
    let mut method = simclr("projector_dim = 8", 4);
    let mut batch = views(4, 9);
    batch[1] = Tensor::zeros(batch[1].shape(), engine::DType::F32, engine::Device::Cpu).unwrap();
    let embeddings = step(&mut method, &batch).unwrap().embeddings.to_vec::<f32>().unwrap();
    let constant = &embeddings[4 * 8..];
    assert!(constant.chunks(8).all(|row| row.iter().map(|v| v * v).sum::<f32>() > 0.99), "{constant:?}");
}

#[test]
fn every_parameter_gets_a_gradient_and_names_are_stable() {
    let mut method = simclr("", 4);
    let out = step(&mut method, &views(4, 11)).unwrap();
    assert!(out.value.has_history());
    out.value.backward().unwrap();
    let params = parts(method.networks()).params;
    for (name, param) in &params {
        assert!(param.gradient().is_some(), "{name}");
        assert!(name.starts_with("encoder.") || name.starts_with("projector."), "{name}");
    }
    let projector: Vec<&str> =
        params.iter().map(|(n, _)| n.as_str()).filter(|n| n.starts_with("projector.")).collect();
    let expected = [
        "projector.0.weight",
        "projector.1.weight",
        "projector.1.bias",
        "projector.3.weight",
        "projector.4.weight",
    ];
    assert_eq!(projector, expected);
}

#[test]
fn batches_that_cannot_be_compared_are_refused() {
    let mut method = simclr("", 4);
    assert!(step(&mut method, &views(1, 1)).err().unwrap().message().contains("larger batch"));
    assert!(step(&mut method, &views(3, 1)[..1]).is_err());
    assert!(step(&mut method, &[random(&[3, 12, 12, 1], 1), random(&[2, 12, 12, 1], 1)]).is_err());
}

/// A few steps of plain descent on one batch must lower the loss: the gradient points the right way.
#[test]
fn descending_lowers_the_loss() {
    use autograd::optim::{Algorithm, Optimizer};
    let method = simclr("temperature = 0.2", 4);
    let batch = views(8, 21);
    let optimizer = Optimizer::new(Algorithm::Sgd { momentum: 0.9, nesterov: false }, 0.0);
    let mut drive = common::Drive::new(method, 8, 30).with(optimizer, 0.1);
    let losses: Vec<f32> = (0..30).map(|_| drive.step(&batch)).collect();
    assert!(losses[29] < losses[0] - 0.5, "{losses:?}");
}
