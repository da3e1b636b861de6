//! BYOL: closed forms, the target, and the collapse that its predictor prevents.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use common::{Drive, TINY, cosines, noise, resnet, vit};
use engine::Tensor;
use kernels::array::Array;
use models::{Arch, MlpSpec, Mode};
use objectives::MomentumSchedule;
use objectives::branch::{Twins, unit};
use objectives::byol::regression;

fn byol(changes: &str) -> Drive {
    let changes = format!("hidden = 16\ndim = 8\n{changes}");
    Drive::new(common::build("byol", &TINY, &resnet(), &changes), 8, 20)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

/// Equal vectors cost 0, opposite ones 4, random ones 2; a step sums both directions, so random ones are near 4.
#[test]
fn closed_forms() {
    let random = |seed| Array::<f32>::random(&[512, 64], seed, 1.0).to_tensor().unwrap();
    let rows = |seed| unit(&Var::constant(random(seed))).unwrap();
    let (a, b) = (rows(1), rows(2));
    let item = |x: &Var| x.value().item().unwrap();
    let opposite = autograd::ops::scale(&a, -1.0).unwrap();
    assert!(item(&regression(&a, &a).unwrap()).abs() < 1e-5);
    assert!((item(&regression(&a, &opposite).unwrap()) - 4.0).abs() < 1e-5);
    assert!((item(&regression(&a, &b).unwrap()) - 2.0).abs() < 0.05);
    let mut drive = byol("");
    let value = item(&drive.loss(&views(&drive, 1)).value);
    assert!((0.5..7.5).contains(&value), "{value}");
    let twice = views(&drive, 1).remove(0);
    // With the same view twice both directions are the same number: their sum, not their mean.
    let mut once = byol("predictor = false");
    let same = item(&once.loss(&[twice.clone(), twice]).value);
    assert!(same.abs() < 1e-4, "online and target start equal: {same}");
}

/// What the online network has and the target lacks is the predictor, and nothing else.
#[test]
fn the_target_lacks_the_predictor_alone() {
    let mut drive = byol("");
    let names = drive.names();
    let target: Vec<&str> = names.iter().filter_map(|n| n.0.strip_prefix("target.")).collect();
    let online: Vec<&str> =
        names.iter().map(|n| n.0.as_str()).filter(|n| !n.starts_with("target.")).collect();
    let lacking: Vec<&&str> = online.iter().filter(|n| !target.contains(n)).collect();
    assert!(!lacking.is_empty() && lacking.iter().all(|n| n.starts_with("predictor.")), "{lacking:?}");
    assert!(target.iter().all(|n| online.contains(n)));
    let predictor: Vec<&&str> = lacking.iter().filter(|n| n.starts_with("predictor.")).copied().collect();
    let expected = [
        "predictor.0.weight",
        "predictor.0.bias",
        "predictor.1.weight",
        "predictor.1.bias",
        "predictor.3.weight",
    ];
    assert_eq!(predictor.into_iter().copied().collect::<Vec<_>>(), expected);
}

/// No gradient reaches the target; it moves after the optimiser's step, towards the new weights.
#[test]
fn the_target_follows_after_the_step_and_gets_no_gradient() {
    let mut drive = byol("momentum = 0.9");
    let (online, target) = ("projector.3.weight", "target.projector.3.weight");
    let before = drive.value(target);
    assert_eq!(before, drive.value(online));
    let batch = views(&drive, 1);
    drive.loss(&batch).value.backward().unwrap();
    for (name, param) in parts(drive.objective.networks()).params {
        assert_eq!(param.gradient().is_none(), name.starts_with("target."), "{name}");
        param.clear_gradient();
    }
    drive.step(&batch);
    let new = drive.value(online);
    let (m, rest) = (0.9f32, (1.0 - f64::from(0.9f32)) as f32);
    for ((t, b), n) in drive.value(target).iter().zip(&before).zip(&new) {
        let wanted = m * b + rest * n;
        assert!((t - wanted).abs() <= 2.0 * f32::EPSILON * wanted.abs(), "{t} for {wanted}");
    }
    assert_ne!(drive.value("target.encoder.bn1.running_mean"), vec![0.0; 4]);
    let (a, b) = (drive.value("encoder.bn1.running_var"), drive.value("target.encoder.bn1.running_var"));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.5), "both see batches of the same images");
}

/// With a target of zeros and an online network that stands still the target is 1 - (product of the momenta) of it.
#[test]
fn the_momentum_rises_by_the_step_along_a_cosine() {
    let mut drive = byol("momentum = 0.5");
    let target = "target.projector.3.weight";
    for (name, param) in parts(drive.objective.networks()).params {
        if name == target {
            let zeros =
                Tensor::zeros(param.value().shape(), engine::DType::F32, engine::Device::Cpu).unwrap();
            param.set(zeros).unwrap();
        }
    }
    drive.rate = 0.0;
    let online = drive.value("projector.3.weight");
    let schedule = MomentumSchedule { start: 0.5, end: 1.0, steps: 20 };
    let mut left = 1.0;
    for step in 0..6 {
        drive.step(&views(&drive, step));
        left *= schedule.at(step);
        for (t, o) in drive.value(target).iter().zip(&online) {
            assert!((f64::from(*t) - (1.0 - left) * f64::from(*o)).abs() < 1e-5, "step {step}: {t} of {o}");
        }
    }
    assert!(schedule.at(0) < schedule.at(5) && schedule.at(20) == 1.0);
}

/// The sum (not the mean) over both directions of 2 - 2 cos, each prediction with the target's projection of the other view,
/// which has gone through no predictor.
#[test]
fn the_loss_is_the_sum_over_predictions_of_the_other_views_target() {
    let mut drive = byol("");
    let batch = views(&drive, 1);
    let encoder = models::build(&resnet(), common::image(&TINY), 1).unwrap();
    let (projector, predictor) = (MlpSpec::byol(encoder.dim(), 16, 8), MlpSpec::byol(8, 16, 8));
    let mut twins = Twins::new(encoder, projector, Some(predictor), 1).unwrap();
    let mut direction = |from: usize, to: usize| {
        let z = twins.online.project(&batch[from], None).unwrap();
        let p = twins.predictor.as_mut().unwrap().forward(&z, Mode::Train).unwrap();
        let t = twins.target.project(&batch[to], None).unwrap();
        let all = cosines(p.value(), t.value());
        (0..8).map(|i| 2.0 - 2.0 * all[i][i]).sum::<f64>() / 8.0
    };
    let expected = direction(0, 1) + direction(1, 0);
    let value = f64::from(drive.loss(&batch).value.value().item().unwrap());
    assert!((value - expected).abs() < 1e-4, "{value} for {expected}");
}

/// Branches are dropped in the online network, for each view by its own draw.
#[test]
fn branches_are_dropped_as_drawn() {
    let arch = Arch { drop_path: Some(0.5), drop_path_uniform: Some(true), ..vit() };
    let changes = "hidden = 16\ndim = 8\nview1.size = 12\nview2.size = 12";
    let mut drive = Drive::new(common::build("byol", &TINY, &arch, changes), 8, 20);
    let (batch, draws) = (views(&drive, 1), drive.drawn());
    assert_ne!(draws[0].to_vec::<f32>().unwrap(), draws[1].to_vec::<f32>().unwrap());
    let mut value = |draws: &[Tensor]| drive.loss_of(&batch, draws).unwrap().value.value().item().unwrap();
    let drawn = value(&draws);
    for view in 0..2 {
        let mut other = draws.clone();
        other[view] = Tensor::full(&[4, 8], 1.0, engine::Device::Cpu).unwrap();
        assert_ne!(value(&other), drawn, "view {view}");
    }
}

/// The spread of the projections: the mean over dimensions of the deviation of unit vectors, times sqrt(dim); 1 is random.
fn spread(drive: &mut Drive, batch: &[Tensor]) -> f32 {
    let rows = drive.loss(batch).embeddings;
    let (n, d) = (rows.shape()[0], rows.shape()[1]);
    let values = rows.to_vec::<f32>().unwrap();
    let deviation = |j: usize| {
        let mean = (0..n).map(|i| values[i * d + j]).sum::<f32>() / n as f32;
        ((0..n).map(|i| (values[i * d + j] - mean).powi(2)).sum::<f32>() / n as f32).sqrt()
    };
    (0..d).map(deviation).sum::<f32>() / d as f32 * (d as f32).sqrt()
}

/// The positive control: trained alike, the network without a predictor collapses and the one with it does not.
#[test]
fn without_the_predictor_it_collapses_and_with_it_it_does_not() {
    let steps = 150;
    let trained = |predictor: bool| {
        let changes = format!("hidden = 32\ndim = 16\nmomentum = 0.9\npredictor = {predictor}");
        let method = common::build("byol", &TINY, &resnet(), &changes);
        let sgd = Optimizer::new(Algorithm::Sgd { momentum: 0.9, nesterov: false }, 1e-4);
        let mut drive = Drive::new(method, 32, steps).with(sgd, 0.1);
        for step in 0..steps {
            // Two views of an image: one pattern, two noises.
            let image = noise(drive.objective.as_ref(), 32, 1, 1000 + step % 8).remove(0);
            let shape = image.shape().to_vec();
            let view = |seed| {
                let other = Array::<f32>::random(&shape, seed, 0.5).to_tensor().unwrap();
                kernels::elementwise::add(&image, &other).unwrap()
            };
            drive.step(&[view(2 * step), view(2 * step + 1)]);
        }
        let batch = noise(drive.objective.as_ref(), 32, 1, 5000);
        spread(&mut drive, &batch)
    };
    let (with, without) = (trained(true), trained(false));
    assert!(with > 0.3, "with a predictor projections still differ: {with}");
    assert!(without < 0.1 * with, "without one they collapse: {without} of {with}");
}

#[test]
fn settings_out_of_range_are_refused() {
    for wrong in ["momentum = -0.1", "hidden = 0", "dim = 0", "view1.flip = 2.0", "view2.crop = [0.0, 1.0]"] {
        let error = common::try_build("byol", &TINY, &resnet(), wrong).err().unwrap();
        assert_eq!(error.kind(), engine::ErrorKind::Usage, "{wrong}: {error}");
    }
    let mut method = common::build("byol", &TINY, &resnet(), "");
    let batch = noise(method.as_ref(), 4, 1, 1);
    let clock = objectives::draws::clock(0, engine::Device::Cpu).unwrap();
    let batch = objectives::Batch { views: &batch, draws: &[], clock: &clock };
    let _ = method.loss(&batch).unwrap();
    assert!(method.after_step(&batch).unwrap_err().message().contains("begin"));
}
