//! MoCo v3: closed forms, what is frozen, who follows whom.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use common::{Drive, TINY, cosines, log_softmax, noise, resnet, scale, vit};
use engine::Tensor;
use kernels::array::Array;
use models::{Arch, Init, MlpSpec, Mode, Position};
use objectives::branch::{Twins, unit};
use objectives::moco_v3::contrast;

fn moco(arch: &Arch, changes: &str) -> Drive {
    let changes = format!("hidden = 16\ndim = 8\n{changes}");
    Drive::new(common::build("moco-v3", &TINY, arch, &changes), 8, 20)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

/// Collapsed: each direction costs 2 t ln B, both 4 t ln B. There are B - 1 negatives, those of the other view alone.
#[test]
fn collapsed_vectors_cost_twice_the_temperature_times_the_logarithm_of_the_batch() {
    for (rows, temperature) in [(16usize, 1.0f32), (64, 0.2)] {
        let values: Vec<f32> = (0..rows).flat_map(|_| [0.6, 0.8]).collect();
        let q = Var::constant(Tensor::from_slice(&values, &[rows, 2]).unwrap());
        let loss = contrast(&q, &q, temperature).unwrap().value().item().unwrap();
        let expected = 2.0 * temperature * (rows as f32).ln();
        assert!((loss - expected).abs() < 1e-5 * expected, "{loss} for {expected}");
    }
    let drive = &mut moco(&resnet(), "temperature = 1.0");
    let value = drive.loss(&views(drive, 1)).value.value().item().unwrap();
    assert!((value - 4.0 * 8f32.ln()).abs() < 1.5, "random vectors are near it: {value}");
}

/// Against central differences of the naive formula, with the factor 2 t.
#[test]
fn the_gradient_has_the_factor_of_the_loss() {
    let (rows, dim, temperature) = (4usize, 5usize, 0.3f32);
    let raw = |seed| Array::<f32>::random(&[rows, dim], seed, 1.0).to_tensor().unwrap();
    let (start, keys) = (raw(1), unit(&Var::constant(raw(2))).unwrap());
    let value = |q: &Tensor| {
        let q = unit(&Var::constant(q.clone())).unwrap();
        f64::from(contrast(&q, &keys, temperature).unwrap().value().item().unwrap())
    };
    let leaf = Var::leaf(start.clone());
    contrast(&unit(&leaf).unwrap(), &keys, temperature).unwrap().backward().unwrap();
    let gradient = leaf.gradient().unwrap().to_vec::<f32>().unwrap();
    for (i, &g) in gradient.iter().enumerate() {
        let moved = |by: f32| {
            let mut q = start.clone();
            q.as_mut_slice::<f32>().unwrap()[i] += by;
            value(&q)
        };
        let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((difference - f64::from(g)).abs() < 2e-3, "{i}: {difference} for {g}");
    }
}

/// The momentum encoder has no predictor, gets no gradient, and moves before the keys are computed.
#[test]
fn the_momentum_encoder_lacks_the_predictor_and_moves_first() {
    let mut drive = moco(&resnet(), "momentum = 0.5");
    let names = drive.names();
    assert!(names.iter().any(|n| n.0.starts_with("predictor.")));
    assert!(names.iter().all(|n| !n.0.starts_with("target.predictor.")));
    let target = "target.projector.0.weight";
    let batch = views(&drive, 1);
    drive.step(&batch);
    let (old, online) = (drive.value(target), drive.value("projector.0.weight"));
    drive.loss(&batch).value.backward().unwrap();
    let m = objectives::MomentumSchedule { start: 0.5, end: 1.0, steps: 20 }.at(1) as f32;
    for ((t, o), n) in drive.value(target).iter().zip(&old).zip(&online) {
        assert!((t - (m * o + (1.0 - m) * n)).abs() < 1e-6, "{t}");
    }
    for (name, param) in parts(drive.objective.networks()).params {
        assert_eq!(param.gradient().is_none(), name.starts_with("target."), "{name}");
    }
}

/// 2 t times the cross-entropy over the other view's keys, in both directions, at the temperature that is set. The keys are
/// those of the momentum encoder after it has moved: one that keeps nothing of itself is the online network.
#[test]
fn the_loss_is_that_of_the_other_views_keys_after_the_encoder_moved() {
    let (turned, temperature) = ("projector.3.weight", 0.3);
    let changes = "temperature = 0.3\nmomentum = 0.0\nprojector_layers = 2\npredictor_norm = false";
    let mut drive = moco(&resnet(), changes);
    drive.scale(turned, -1.0);
    let batch = views(&drive, 1);
    let encoder = models::build(&resnet(), common::image(&TINY), 1).unwrap();
    let projector = MlpSpec::moco_v3(encoder.dim(), 16, 8, 2, true);
    let predictor = MlpSpec::moco_v3(8, 16, 8, 2, false);
    let mut twins = Twins::new(encoder, projector, Some(predictor), 1).unwrap();
    scale(&mut twins.online, turned, -1.0);
    scale(&mut twins.target, turned, -1.0);
    let mut direction = |from: usize, to: usize| {
        let z = twins.online.project(&batch[from], None).unwrap();
        let q = twins.predictor.as_mut().unwrap().forward(&z, Mode::Train).unwrap();
        let k = twins.target.project(&batch[to], None).unwrap();
        let all = cosines(q.value(), k.value());
        let row = |(i, row): (usize, &Vec<f64>)| -log_softmax(row, temperature)[i];
        2.0 * temperature * all.iter().enumerate().map(row).sum::<f64>() / 8.0
    };
    let expected = direction(0, 1) + direction(1, 0);
    let value = f64::from(drive.loss(&batch).value.value().item().unwrap());
    assert!((value - expected).abs() < 1e-4, "{value} for {expected}");
}

/// A ViT's patch embedding stays as it was drawn, bit for bit, and the rest is trained.
#[test]
fn the_patch_embedding_of_a_vit_stays_as_it_was_drawn() {
    let arch = Arch { position: Some(Position::Sincos), init: Some(Init::XavierSplit), ..vit() };
    let changes = "freeze_patch_embedding = true\nprojector_layers = 3\npredictor_norm = true\nview1.size = 12\nview2.size = 12";
    let mut drive = moco(&arch, changes);
    let name = "encoder.patch_embed.proj.weight";
    let (patch, block) = (drive.value(name), drive.value("encoder.blocks.0.attn.qkv.weight"));
    for step in 0..3 {
        drive.step(&views(&drive, step));
    }
    assert_eq!(drive.value(name), patch);
    assert_ne!(drive.value("encoder.blocks.0.attn.qkv.weight"), block);
    let wrong =
        common::try_build("moco-v3", &TINY, &resnet(), "freeze_patch_embedding = true").err().unwrap();
    assert!(wrong.message().contains("is for ViTs"), "{wrong}");
    // Neither scale nor shift after the predictor's last layer.
    assert!(drive.names().iter().all(|n| !n.0.starts_with("predictor.4.")));
    assert!(drive.value("predictor.4.running_var").iter().any(|v| *v != 1.0));
}

#[test]
fn settings_out_of_range_are_refused() {
    for wrong in ["temperature = 0.0", "momentum = 2.0", "hidden = 0", "dim = 0", "projector_layers = 0"] {
        let error = common::try_build("moco-v3", &TINY, &resnet(), wrong).err().unwrap();
        assert_eq!(error.kind(), engine::ErrorKind::Usage, "{wrong}: {error}");
    }
}

#[test]
fn descending_lowers_the_loss() {
    let mut drive = moco(&resnet(), "temperature = 0.5\nmomentum = 0.9");
    let batch = views(&drive, 7);
    let losses: Vec<f32> = (0..15).map(|_| drive.step(&batch)).collect();
    assert!(losses[14] < losses[0] - 0.3, "{losses:?}");
}
