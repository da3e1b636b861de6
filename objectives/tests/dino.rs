//! DINO: pairs, centre, temperatures, the frozen last layer, and the two collapses.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use common::{Drive, TINY, noise, resnet, signal};
use engine::{DType, Device, Tensor};
use kernels::array::Array;
use kernels::augment::Recipe;
use objectives::Hold;
use objectives::branch::unit;
use objectives::distillation::{Centering, Distributions, Teacher, collapse, crops, cross_entropy};
use objectives::multicrop::Crops;

const SMALL: &str = "prototypes = 16\nhead_hidden = 16\nhead_bottleneck = 8\nglobal1.size = 12\nglobal2.size = 12\n\
                     local.size = 8\nlocal_crops = 3\n";

fn dino(changes: &str) -> Drive {
    Drive::new(common::build("dino", &TINY, &resnet(), &format!("{SMALL}{changes}")), 8, 40)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

fn one(value: f32) -> Tensor {
    Tensor::from_slice(&[value], &[1]).unwrap()
}

/// With uniform distributions every pair costs ln K, so the loss counts pairs: 2 (2 + L) - 2 of them, 18 for eight small
/// crops, none with a crop's own distribution.
#[test]
fn the_mean_is_over_pairs_of_different_crops() {
    let (images, k) = (3usize, 8usize);
    for local in [0usize, 1, 8] {
        let student = Tensor::zeros(&[(2 + local) * images, k], DType::F32, Device::Cpu).unwrap();
        let teacher = Tensor::full(&[2 * images, k], 1.0 / k as f32, Device::Cpu).unwrap();
        let teacher = Distributions::Given(teacher);
        let loss = crops(&Var::constant(student), &teacher, 0.1).unwrap().value().item().unwrap();
        assert!((loss - (k as f32).ln()).abs() < 1e-5, "{local} small crops: {loss}");
    }
    // The student is sure and right in its own crop, sure and wrong in the other: only the other counts.
    let (mut student, mut teacher) = (vec![0f32; 2 * 2], vec![0f32; 2 * 2]);
    (student[0], student[3], teacher[0], teacher[3]) = (10.0, 10.0, 1.0, 1.0);
    let row = |v: &[f32]| Tensor::from_slice(v, &[2, 2]).unwrap();
    let loss = crops(&Var::constant(row(&student)), &Distributions::Given(row(&teacher)), 1.0)
        .unwrap()
        .value()
        .item()
        .unwrap();
    assert!(
        (loss - 10.0).abs() < 1e-3,
        "crop 1 is compared with crop 2's prototype and the other way round: {loss}"
    );
    // Eighteen pairs for eight small crops: one wrong small crop costs two of them.
    let images = 1;
    let mut logits = vec![0f32; 10 * 2];
    logits.chunks_mut(2).for_each(|l| l[0] = 20.0);
    (logits[4], logits[5]) = (0.0, 20.0);
    let teacher = Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0], &[2 * images, 2]).unwrap();
    let student = Var::constant(Tensor::from_slice(&logits, &[10, 2]).unwrap());
    let loss = crops(&student, &Distributions::Given(teacher), 1.0).unwrap().value().item().unwrap();
    assert!((loss - 2.0 * 20.0 / 18.0).abs() < 1e-3, "{loss}");
}

/// Constant logits v: the centre is v (1 - 0.9^n) after n steps, it moves after its use and once a step, and the teacher
/// ends uniform.
#[test]
fn the_centre_follows_the_logits_and_moves_after_its_use() {
    let v = [3.0f32, -1.0, 0.5, 2.0];
    let logits: Vec<f32> = (0..5).flat_map(|_| v).collect();
    let logits = Tensor::from_slice(&logits, &[5, 4]).unwrap();
    let mut teacher = Teacher::new(Centering::Center, 0.9, 4).unwrap();
    let mut left = 1.0f64;
    for step in 0..80 {
        let expected: Vec<f64> = v.iter().map(|v| f64::from(*v) * (1.0 - left)).collect();
        let targets = teacher.targets(&logits, &one(0.5), None).unwrap();
        for (c, e) in teacher.center().to_vec::<f32>().unwrap().iter().zip(&expected) {
            assert!((f64::from(*c) - e).abs() < 1e-5, "step {step}: {c} for {e}, not moved before its use");
        }
        if step == 0 {
            let p = targets.distributions.probabilities().unwrap().to_vec::<f32>().unwrap();
            let wanted = v.map(|v| (f64::from(v) / 0.5).exp());
            let sum: f64 = wanted.iter().sum();
            assert!(p[..4].iter().zip(wanted).all(|(p, w)| (f64::from(*p) - w / sum).abs() < 1e-6), "{p:?}");
        }
        if step == 79 {
            let entropy = targets.entropy.item().unwrap();
            assert!((entropy - 4f32.ln()).abs() < 1e-3, "{entropy}");
            assert!((targets.concentration.item().unwrap() - 0.25).abs() < 1e-4);
        }
        teacher.after_step().unwrap();
        teacher.after_step().unwrap();
        left *= 0.9;
    }
}

/// The last layer stays bit for bit what it was for the first epoch, momentum and decay included, and moves after it. The
/// teacher's follows it.
#[test]
fn the_last_layer_is_left_alone_for_the_first_epoch() {
    let mut drive = dino("freeze_last_layer_epochs = 1.0");
    let (last, hidden) = ("head.last_layer.weight_v", "head.mlp.0.weight");
    let (start, first) = (drive.value(last), drive.value(hidden));
    for step in 0..10 {
        drive.step(&views(&drive, step));
        assert_eq!(drive.value(last), start, "step {step}");
    }
    assert_ne!(drive.value(hidden), first);
    drive.step(&views(&drive, 10));
    assert_ne!(drive.value(last), start, "free from the second epoch on");
    // Its gradient is as if it were not there: neither decay nor momentum sees it.
    for (name, _) in drive.names() {
        let last = name.starts_with("head.last_layer.");
        let hold = if last { Hold::Untouched(10) } else { Hold::None };
        assert_eq!(drive.objective.special(&name).hold, hold, "{name}");
    }
    let mut free = dino("freeze_last_layer_epochs = 0.0");
    free.step(&views(&free, 0));
    assert_ne!(free.value(last), start);
}

/// The teacher sees large crops alone, gets no gradient, and follows after the step.
#[test]
fn the_teacher_sees_large_crops_and_follows() {
    let mut drive = dino("momentum = 0.5\nfreeze_last_layer_epochs = 0.0");
    let batch = views(&drive, 1);
    let before = signal(&drive.loss(&batch), "teacher_entropy");
    let mut other = batch.clone();
    other[3] = views(&drive, 9).remove(3);
    let changed = drive.loss(&other);
    assert_eq!(signal(&changed, "teacher_entropy"), before, "a small crop means nothing to the teacher");
    changed.value.backward().unwrap();
    for (name, param) in parts(drive.objective.networks()).params {
        let follows = name.starts_with("teacher.");
        assert_eq!(param.gradient().is_some(), param.is_trainable(), "{name}");
        assert!(!follows || !param.is_trainable(), "{name}");
        param.clear_gradient();
    }
    let target = "teacher.head.mlp.0.weight";
    let old = drive.value(target);
    assert_eq!(old, drive.value("head.mlp.0.weight"), "the teacher starts as the student");
    drive.step(&batch);
    let new = drive.value("head.mlp.0.weight");
    for ((t, o), n) in drive.value(target).iter().zip(&old).zip(&new) {
        assert!((t - (0.5 * o + 0.5 * n)).abs() < 1e-6, "{t}");
    }
}

/// The teacher is `m` of itself and `1 - m` of the student after the step, with the momentum of that step; the centre moves
/// then too, a tenth of the way to the mean of the logits.
#[test]
fn the_teacher_and_the_centre_move_once_a_step() {
    let mut drive = dino("momentum = 0.5\nfreeze_last_layer_epochs = 0.0\ncenter_momentum = 0.9");
    let (online, target) = ("head.mlp.0.weight", "teacher.head.mlp.0.weight");
    drive.scale(target, 0.5);
    let schedule = objectives::MomentumSchedule { start: 0.5, end: 1.0, steps: 40 };
    for step in 0..4 {
        let (old, center) = (drive.value(target), drive.value("center"));
        let batch = views(&drive, step);
        drive.loss(&batch);
        assert_eq!(
            (drive.value(target), drive.value("center")),
            (old.clone(), center.clone()),
            "not in the loss"
        );
        drive.step(&batch);
        let m = schedule.at(step) as f32;
        for ((t, o), n) in drive.value(target).iter().zip(&old).zip(&drive.value(online)) {
            assert!((t - (m * o + (1.0 - m) * n)).abs() < 1e-6, "step {step}: {t}");
        }
        assert_ne!(drive.value("center"), center, "step {step}");
    }
}

/// Each temperature divides its own logits, once: logits that are longer by a factor have the same distributions at a
/// temperature that is higher by it.
#[test]
fn each_temperature_divides_its_own_logits_once() {
    let with = |student: f32, teacher: f32| {
        let changes = format!(
            "temperatures.student = {student}\ntemperatures.teacher_start = {teacher}\ntemperatures.teacher = {teacher}"
        );
        let mut drive = dino(&changes);
        drive.scale("head.last_layer.weight_g", student / 0.1);
        drive.scale("teacher.head.last_layer.weight_g", teacher / 0.04);
        let batch = views(&drive, 1);
        let loss = drive.loss(&batch);
        [loss.value.value().item().unwrap(), signal(&loss, "teacher_entropy")]
    };
    let (one, other) = (with(0.1, 0.04), with(0.2, 0.12));
    assert!(one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4), "{one:?} and {other:?}");
    assert!(one[1] < 0.9 * 16f32.ln(), "the teacher is sharp: {one:?}");
}

/// What is exponentiated or divided by a norm is f32, whatever the networks compute in.
#[test]
fn distributions_and_unit_vectors_of_bf16_are_computed_in_f32() {
    let random = |seed| Array::<f32>::random(&[4, 8], seed, 3.0).to_tensor().unwrap();
    let low = kernels::copy::cast(&random(1), DType::BF16).unwrap();
    let same = kernels::copy::cast(&low, DType::F32).unwrap();
    let values = |x: &Tensor| x.to_vec::<f32>().unwrap();
    let targets = |x: &Tensor| {
        let mut teacher = Teacher::new(Centering::Center, 0.9, 8).unwrap();
        values(&teacher.targets(x, &one(0.1), None).unwrap().distributions.probabilities().unwrap())
    };
    assert_eq!(targets(&low), targets(&same));
    let wanted = Distributions::Given(kernels::softmax_xent::softmax(&random(2)).unwrap());
    let losses = |x: &Tensor| values(cross_entropy(&Var::constant(x.clone()), &wanted, 0.1).unwrap().value());
    assert_eq!(losses(&low), losses(&same));
    let lengths = |x: &Tensor| values(unit(&Var::constant(x.clone())).unwrap().value());
    assert_eq!(lengths(&low), lengths(&same));
}

/// Crops of one size go through the backbone together: two passes, whatever the number of crops.
#[test]
fn crops_of_one_size_share_a_pass() {
    let encoder = models::build(&resnet(), common::image(&TINY), 1).unwrap();
    let large = Recipe::crop_and_flip(12, 12, [0.4, 1.0]);
    let small = Recipe::crop_and_flip(8, 8, [0.1, 0.4]);
    let crops =
        Crops::new("dino", [large.clone(), large.clone()], small.clone(), 6, encoder.as_ref(), 1).unwrap();
    assert_eq!(crops.views().len(), 8);
    let views: Vec<Tensor> = crops
        .views()
        .iter()
        .map(|v| Array::<f32>::random(&[4, v.height, v.width, 1], 1, 1.0).to_tensor().unwrap())
        .collect();
    let passes = crops.passes("dino", &views, &[]).unwrap();
    let shapes: Vec<&[usize]> = passes.iter().map(|p| p.images.shape()).collect();
    assert_eq!(shapes, [&[8, 12, 12, 1][..], &[24, 8, 8, 1]]);
    assert!(crops.passes("dino", &views[..7], &[]).is_err());
    let odd = Recipe::crop_and_flip(10, 10, [0.4, 1.0]);
    assert!(Crops::new("dino", [large, odd], small, 6, encoder.as_ref(), 1).is_err());
}

/// Trains a small teacher and student on eight patterns with noise, and gives the teacher's entropy (1 is uniform) and how
/// concentrated it is on one prototype (1 is one-hot).
fn trained(changes: &str, steps: u64) -> (f32, f32) {
    let changes = format!("{SMALL}momentum = 0.8\nfreeze_last_layer_epochs = 0.0\n{changes}");
    let mut drive = Drive::new(common::build("dino", &TINY, &resnet(), &changes), 16, steps);
    drive.rate = 0.2;
    let mut last = (0.0, 0.0);
    for step in 0..steps {
        let batch = views(&drive, 1000 + step % 8);
        let loss = drive.loss(&batch);
        last = (signal(&loss, "teacher_entropy") / 16f32.ln(), signal(&loss, "teacher_concentration"));
        drop(loss);
        drive.step(&batch);
    }
    last
}

/// The positive controls (Caron et al. 2021, section 5.3): sharpening without a centre ends in one prototype, a centre
/// without sharpening in the uniform distribution, both together in neither.
#[test]
fn without_the_centre_it_goes_one_hot_and_without_sharpening_uniform() {
    let sharp = "temperatures.teacher_start = 0.04\ntemperatures.teacher = 0.04\n";
    let flat = "temperatures.teacher_start = 1.0\ntemperatures.teacher = 1.0\n";
    let steps = 120;
    let (entropy, concentration) = trained(&format!("{sharp}centering = \"none\""), steps);
    assert!(concentration > 0.9, "no centre: entropy {entropy}, concentration {concentration}");
    assert!(collapse(16, entropy * 16f32.ln(), concentration).unwrap().contains("one-hot"));
    let (entropy, concentration) = trained(&format!("{flat}centering = \"center\""), steps);
    assert!(entropy > 0.99, "no sharpening: entropy {entropy}, concentration {concentration}");
    assert!(collapse(16, entropy * 16f32.ln(), concentration).unwrap().contains("uniform"));
    let (entropy, concentration) = trained(&format!("{sharp}centering = \"center\""), steps);
    assert!(entropy < 0.95 && concentration < 0.5, "both: entropy {entropy}, concentration {concentration}");
    assert_eq!(collapse(16, entropy * 16f32.ln(), concentration), None);
}

/// The teacher's temperature moves over the warm-up, step by step.
#[test]
fn the_teachers_temperature_warms_up() {
    let line = objectives::LinearWarmup { start: 0.04, end: 0.07, warmup: 30 };
    assert_eq!((line.at(0), line.at(30), line.at(1000)), (0.04, 0.07, 0.07));
    assert!((line.at(15) - 0.055).abs() < 1e-12);
    let run = objectives::Run { steps: 100, steps_per_epoch: 10, batch: 4, device: Device::Cpu };
    assert_eq!((run.steps_of(3.0), run.steps_of(0.0), run.steps_of(0.01)), (30, 0, 1));
    // A step has its own: step 15 of a warm-up of two epochs, ten steps each.
    let entropy = |start: f64, end: f64, step: u64| {
        let mut drive = dino(&format!(
            "temperatures.teacher_start = {start:?}\ntemperatures.teacher = {end:?}\ntemperatures.warmup_epochs = 2.0"
        ));
        drive.step = step;
        signal(&drive.loss(&views(&drive, 1)), "teacher_entropy")
    };
    let halfway = objectives::LinearWarmup { start: 0.04, end: 0.4, warmup: 20 }.at(15);
    for (step, fixed) in [(0, 0.04), (15, halfway), (20, 0.4), (39, 0.4)] {
        let (found, right) = (entropy(0.04, 0.4, step), entropy(fixed, fixed, 0));
        assert!((found - right).abs() < 1e-5, "step {step}: {found} for {right}");
    }
    assert!(entropy(0.04, 0.4, 0) < entropy(0.04, 0.4, 15) - 0.1);
}

#[test]
fn settings_out_of_range_are_refused() {
    for wrong in [
        "prototypes = 0",
        "head_layers = 0",
        "momentum = 1.5",
        "center_momentum = -1.0",
        "temperatures.teacher = 0.0",
        "temperatures.student = -1.0",
        "temperatures.warmup_epochs = -1.0",
        "freeze_last_layer_epochs = -1.0",
        "centering = \"mean\"",
        "global2.size = 8",
    ] {
        let error = common::try_build("dino", &TINY, &resnet(), wrong).err();
        assert_eq!(error.unwrap().kind(), engine::ErrorKind::Usage, "{wrong}");
    }
}
