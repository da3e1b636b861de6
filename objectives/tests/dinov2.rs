//! DINOv2: masked patches, KoLeo, Sinkhorn, registers, who is clipped and held with whom.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use common::{Drive, TINY, log_softmax, noise, signal, vit};
use engine::{Device, Tensor};
use kernels::array::Array;
use models::{Arch, DinoHead, DinoHeadSpec, Initializer, Mode, VitInput};
use objectives::dinov2::{koleo, masked_patches};
use objectives::distillation::{Centering, Distributions, Rows, Teacher};
use objectives::draws::DroppedBranches;
use objectives::{Hold, Run};

const SMALL: &str = "prototypes = 16\nhead_hidden = 16\nhead_bottleneck = 8\nglobal1.size = 12\nglobal2.size = 12\n\
                     local.size = 8\nlocal_crops = 2\nmask_ratio = [0.3, 0.6]\n";

fn dinov2(arch: &Arch, changes: &str) -> Drive {
    Drive::new(common::build("dinov2", &TINY, arch, &format!("{SMALL}{changes}")), 8, 40)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

fn rows(x: &Tensor, from: usize, n: usize) -> Tensor {
    kernels::copy::contiguous(&x.narrow(0, from, n).unwrap()).unwrap()
}

fn item(x: &Var) -> f32 {
    x.value().item().unwrap()
}

/// A changed pixel behind a mask changes the teacher's target and not the student's output: the prediction is of what is
/// hidden, and the target of what is there.
#[test]
fn the_student_does_not_see_masked_patches_and_the_teacher_does() {
    let mut drive = dinov2(&vit(), "centering = \"center\"");
    let batch = views(&drive, 1);
    let draws = drive.drawn();
    let masked = draws[1].to_vec::<i32>().unwrap();
    let count = draws[4].to_vec::<i32>().unwrap()[0] as usize;
    assert!(count > 2);
    let mut changed = batch.clone();
    for &row in &masked[..count] {
        let (crop, at) = (row as usize / 9, row as usize % 9);
        let pixels = changed[crop / 8].as_mut_slice::<f32>().unwrap();
        for y in 0..4 {
            for x in 0..4 {
                pixels[((crop % 8) * 12 + at / 3 * 4 + y) * 12 + at % 3 * 4 + x] += 3.0 + row as f32;
            }
        }
    }
    // The embeddings are the student's class tokens of the large crops.
    let (a, b) = (drive.loss_of(&batch, &draws).unwrap(), drive.loss_of(&changed, &draws).unwrap());
    assert_eq!(a.embeddings.to_vec::<f32>().unwrap(), b.embeddings.to_vec::<f32>().unwrap(), "bit for bit");
    assert_ne!(signal(&a, "teacher_entropy"), signal(&b, "teacher_entropy"));
    assert_ne!(signal(&a, "ibot"), signal(&b, "ibot"));
}

/// The mask token, and with the weight of iBOT alone everything that leads to it, gets a gradient; the teacher gets none and
/// has no mask token.
#[test]
fn the_gradient_reaches_the_mask_token_and_not_the_teacher() {
    let mut drive = dinov2(&vit(), "");
    let batch = views(&drive, 1);
    drive.loss(&batch).value.backward().unwrap();
    let mut seen = false;
    for (name, param) in parts(drive.objective.networks()).params {
        assert_eq!(param.gradient().is_some(), !name.starts_with("teacher."), "{name}");
        assert!(name != "teacher.encoder.mask_token");
        if name == "encoder.mask_token" {
            seen = true;
            assert!(param.gradient().unwrap().to_vec::<f32>().unwrap().iter().any(|g| *g != 0.0));
            assert!(param.value().to_vec::<f32>().unwrap().iter().all(|v| *v == 0.0), "zero at first");
        }
    }
    assert!(seen);
}

/// The sum over masked patches is divided by each crop's number of them and by the number of crops, masked or not; padding
/// has no part in it.
#[test]
fn masked_patches_are_averaged_by_crop_and_summed_over_all() {
    let random = |seed, n: usize| Array::<f32>::random(&[n, 6], seed, 1.0).to_tensor().unwrap();
    let target = |seed, n| kernels::softmax_xent::softmax(&random(seed, n)).unwrap();
    let weight = |w: &[f32]| Tensor::from_slice(w, &[w.len()]).unwrap();
    let (student, teacher) = (random(1, 4), target(2, 4));
    let loss = |s: &Tensor, t: &Tensor, w: &[f32], crops| {
        let t = Distributions::Given(t.clone());
        item(&masked_patches(&Var::constant(s.clone()), &t, &weight(w), crops, 0.1).unwrap())
    };
    // Crop 1 has three masked patches, crop 2 one, crops 3 and 4 none.
    let third = 1.0 / 3.0;
    let all = loss(&student, &teacher, &[third, third, third, 1.0], 4);
    let first = loss(&rows(&student, 0, 3), &rows(&teacher, 0, 3), &[third; 3], 1);
    let second = loss(&rows(&student, 3, 1), &rows(&teacher, 3, 1), &[1.0], 1);
    assert!((all - (first + second) / 4.0).abs() < 1e-5, "{all} for {first} and {second}");
    assert_eq!(loss(&student, &teacher, &[third, third, third, 0.0], 4), first / 4.0);
}

/// Rows beyond the count are padding: they change neither the other rows' targets nor the centre, in both ways of centring.
#[test]
fn padding_changes_no_target() {
    let logits = Array::<f32>::random(&[5, 8], 3, 1.0).to_tensor().unwrap();
    let mut other = logits.clone();
    other.as_mut_slice::<f32>().unwrap()[3 * 8..].iter_mut().for_each(|v| *v += 7.0);
    let rows = Rows {
        count: Tensor::from_slice(&[3i32], &[1]).unwrap(),
        share: Tensor::from_slice(&[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0], &[5]).unwrap(),
    };
    let temperature = Tensor::from_slice(&[0.1f32], &[1]).unwrap();
    for centering in [Centering::Center, Centering::Sinkhorn] {
        let mut results = Vec::new();
        for logits in [&logits, &other, &logits.narrow(0, 0, 3).unwrap()] {
            let mut teacher = Teacher::new(centering, 0.9, 8).unwrap();
            let whole = logits.shape()[0] == 3;
            let logits = kernels::copy::contiguous(logits).unwrap();
            let targets = teacher.targets(&logits, &temperature, (!whole).then_some(&rows)).unwrap();
            let figures = [targets.entropy.item().unwrap(), targets.concentration.item().unwrap()];
            let first =
                targets.distributions.probabilities().unwrap().to_vec::<f32>().unwrap()[..24].to_vec();
            teacher.after_step().unwrap();
            results.push((first, figures, teacher.center().to_vec::<f32>().unwrap()));
        }
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        for (p, figures, center) in &results[1..] {
            assert!(near(p, &results[0].0) && near(figures, &results[0].1), "{centering:?}");
            assert!(near(center, &results[0].2), "{centering:?}");
        }
    }
}

/// Features before the head, each large crop by itself: two views of one image are no neighbours.
#[test]
fn koleo_is_of_normalised_class_tokens_of_one_crop() {
    let x = Array::<f32>::random(&[6, 12], 4, 1.0).to_tensor().unwrap();
    let value = item(&koleo(&Var::constant(x.clone())).unwrap());
    let scaled = kernels::elementwise::scale(&x, 5.0).unwrap();
    assert!((item(&koleo(&Var::constant(scaled)).unwrap()) - value).abs() < 1e-5, "lengths do not count");
    let twice = kernels::copy::cat(&[&x, &x], 0).unwrap();
    assert!(
        item(&koleo(&Var::constant(twice)).unwrap()) > 10.0,
        "duplicates cost much, but not infinitely much"
    );
    let mut drive = dinov2(&vit(), "");
    let mut batch = views(&drive, 1);
    batch[1] = batch[0].clone();
    let spread = signal(&drive.loss(&batch), "koleo");
    assert!(spread.is_finite() && spread < 12.0, "equal crops are no duplicates of each other: {spread}");
    // Of the student's class tokens, one large crop after the other.
    let loss = drive.loss(&views(&drive, 2));
    let crop = |i: usize| item(&koleo(&Var::constant(rows(&loss.embeddings, 8 * i, 8))).unwrap());
    assert!((signal(&loss, "koleo") - crop(0) - crop(1)).abs() < 1e-5);
    let mut other = dinov2(&vit(), "koleo_weight = 0.0");
    let batch = views(&other, 1);
    assert!(other.loss(&batch).signals.iter().all(|s| s.0 != "koleo"));
    let run = Run { steps: 10, steps_per_epoch: 10, batch: 1, device: Device::Cpu };
    let error = common::build("dinov2", &TINY, &vit(), SMALL).begin(&run).unwrap_err();
    assert!(error.message().contains("at least 2"), "{error}");
}

/// The loss is the sum of its parts with their weights.
#[test]
fn the_parts_are_added_with_their_weights() {
    let mut drive = dinov2(&vit(), "ibot_weight = 0.7\nkoleo_weight = 0.3");
    let loss = drive.loss(&views(&drive, 1));
    let part = |name| signal(&loss, name);
    let expected = part("dino") + 0.7 * part("ibot") + 0.3 * part("koleo");
    assert!((item(&loss.value) - expected).abs() < 1e-5, "{expected}");
}

/// Register tokens change what the network computes; they are no patches, and nothing is asked of them.
#[test]
fn registers_take_no_part_in_the_losses() {
    let mut drive = dinov2(&Arch { registers: Some(4), ..vit() }, "");
    let loss = drive.loss(&views(&drive, 1));
    assert_eq!(loss.embeddings.shape(), [16, 24]);
    loss.value.backward().unwrap();
    let names = drive.names();
    assert!(names.iter().any(|n| n.0 == "encoder.reg_token"));
    // Patch rows are counted without them: the mask indices of nine patches a crop fit.
    assert!(drive.drawn()[0].len() == 16 * 9);
}

/// Gradients of backbone and heads are clipped apart; the last layers stand still for an epoch, their moments do not; the
/// patch embedding learns slower.
#[test]
fn parameters_have_the_groups_rates_and_holds_of_the_reference() {
    let changes = "separate_heads = true\nfreeze_last_layer_epochs = 1.0\npatch_embedding_rate = 0.2";
    let mut drive = dinov2(&vit(), changes);
    for (name, _) in drive.names() {
        let special = drive.objective.special(&name);
        let group = match name.split('.').next().unwrap() {
            "head" => 1,
            "patch_head" => 2,
            _ => 0,
        };
        assert_eq!(special.group, group, "{name}");
        let last = name.contains("head.last_layer.") && !name.starts_with("teacher.");
        assert_eq!(special.hold, if last { Hold::Still(10) } else { Hold::None }, "{name}");
        let slow = name.starts_with("encoder.patch_embed.");
        assert_eq!(special.rate_scale, if slow { 0.2 } else { 1.0 }, "{name}");
    }
    let last = "patch_head.last_layer.weight_v";
    let start = drive.value(last);
    for step in 0..10 {
        drive.step(&views(&drive, step));
        assert_eq!(drive.value(last), start, "step {step}");
    }
    drive.step(&views(&drive, 10));
    assert_ne!(drive.value(last), start);
    let shared = dinov2(&vit(), "separate_heads = false").names();
    assert!(shared.iter().all(|n| !n.0.contains("patch_head")));
}

/// With Sinkhorn there is no centre that moves; with centring there are two, of classes and of patches.
#[test]
fn centres_move_where_they_are_used() {
    for (centering, moves) in [("sinkhorn", false), ("center", true)] {
        let mut drive = dinov2(&vit(), &format!("centering = \"{centering}\""));
        drive.step(&views(&drive, 1));
        for name in ["center", "patch_center"] {
            assert_eq!(drive.value(name).iter().any(|v| *v != 0.0), moves, "{centering}: {name}");
        }
    }
}

/// iBOT's part of a step: at every masked patch the cross-entropy of what the student says there, which does not see it, with
/// what the teacher says at the same patch; averaged in each crop and over all sixteen crops, the half without a mask too.
#[test]
fn a_step_asks_for_the_masked_patches_at_their_places() {
    let changes = "centering = \"center\"\nseparate_heads = false\nhead_layers = 3\ntemperatures.student = 0.2\n\
                   temperatures.teacher_start = 0.05\ntemperatures.teacher = 0.05";
    let mut drive = dinov2(&vit(), changes);
    let (batch, draws) = (views(&drive, 1), drive.drawn());
    let value = f64::from(signal(&drive.loss_of(&batch, &draws).unwrap(), "ibot"));
    let spec = DinoHeadSpec {
        inputs: 24,
        hidden: 16,
        bottleneck: 8,
        outputs: 16,
        layers: 3,
        norm: false,
        fixed_lengths: false,
    };
    let mut head = DinoHead::new(spec, &Initializer::new(1).child("head")).unwrap();
    let large = Var::constant(kernels::copy::cat(&[&batch[0], &batch[1]], 0).unwrap());
    // Teacher and student start equal.
    let mut logits = |rows: Option<&Tensor>| {
        let vit = drive.objective.encoder().vit().unwrap();
        // The teacher has none; the student's is zero at first, as this one.
        vit.add_mask_token().unwrap();
        let tokens = vit.forward(&VitInput { rows, ..VitInput::whole(&large) }).unwrap();
        let patches = autograd::ops::reshape(&tokens.patches().unwrap(), &[16 * 9, 24]).unwrap();
        common::rows(head.forward(&patches, Mode::Evaluate).unwrap().value())
    };
    let (student, teacher) = (logits(Some(&draws[0])), logits(None));
    let masked: Vec<usize> =
        draws[0].to_vec::<i32>().unwrap().iter().enumerate().filter(|r| *r.1 == 144).map(|r| r.0).collect();
    let in_crop = |crop: usize| masked.iter().filter(|row| **row / 9 == crop).count() as f64;
    let cost = |&row: &usize| {
        let (p, q) = (log_softmax(&teacher[row], 0.05), log_softmax(&student[row], 0.2));
        p.iter().zip(q).map(|(p, q)| -p.exp() * q).sum::<f64>() / in_crop(row / 9)
    };
    let expected = masked.iter().map(cost).sum::<f64>() / 16.0;
    let crops = (0..16).filter(|crop| in_crop(*crop) > 0.0).count();
    assert!(crops > 3 && crops <= 8 && masked.len() > 2 * crops, "{masked:?}");
    assert!((value - expected).abs() < 1e-4, "{value} for {expected}");
}

/// The rows behind the masked ones fill the tensor up: what lies there changes no figure.
#[test]
fn a_step_leaves_padding_out() {
    for centering in ["center", "sinkhorn"] {
        let mut drive = dinov2(&vit(), &format!("centering = \"{centering}\""));
        let count = |draws: &[Tensor]| draws[4].to_vec::<i32>().unwrap()[0] as usize;
        while count(&drive.drawn()) == drive.drawn()[1].len() {
            drive.step += 1;
        }
        let (batch, draws) = (views(&drive, 1), drive.drawn());
        let mut other = draws.clone();
        other[1].as_mut_slice::<i32>().unwrap()[count(&draws)..].fill(100);
        let (a, b) = (drive.loss_of(&batch, &draws).unwrap(), drive.loss_of(&batch, &other).unwrap());
        for name in ["ibot", "patch_entropy"] {
            assert!((signal(&a, name) - signal(&b, name)).abs() < 1e-6, "{centering}: {name}");
        }
    }
}

/// The teacher is `m` of itself and `1 - m` of the student after the step, with the momentum of that step.
#[test]
fn the_teacher_follows_after_the_step() {
    let mut drive = dinov2(&vit(), "momentum = 0.5");
    let (online, target) = ("head.mlp.0.weight", "teacher.head.mlp.0.weight");
    drive.scale(target, 0.5);
    let schedule = objectives::MomentumSchedule { start: 0.5, end: 1.0, steps: 40 };
    for step in 0..4 {
        let old = drive.value(target);
        drive.step(&views(&drive, step));
        let m = schedule.at(step) as f32;
        for ((t, o), n) in drive.value(target).iter().zip(&old).zip(&drive.value(online)) {
            assert!((t - (m * o + (1.0 - m) * n)).abs() < 1e-6, "step {step}: {t}");
        }
    }
}

/// A branch is dropped for one sample and kept for another; kept ones make up for the dropped, and every step and pass has its
/// own draw.
#[test]
fn branches_are_drawn_for_each_sample_and_keep_their_mean() {
    let arch = Arch { drop_path: Some(0.4), drop_path_uniform: Some(true), ..vit() };
    let encoder = models::build(&arch, common::image(&TINY), 1).unwrap();
    let draw = |which: u64, step: u64| {
        let dropped = DroppedBranches::of(encoder.as_ref(), 1, which).unwrap();
        dropped.draw(step, 400).unwrap().to_vec::<f32>().unwrap()
    };
    let keep = draw(0, 3);
    for branch in keep.chunks(400) {
        assert!(branch.iter().all(|f| *f == 0.0 || (f - 1.0 / 0.6).abs() < 1e-6));
        let mean = branch.iter().sum::<f32>() / 400.0;
        assert!((mean - 1.0).abs() < 0.15, "{mean}");
    }
    assert!(keep[..400] != keep[400..800] && keep == draw(0, 3));
    assert!(keep != draw(0, 4) && keep != draw(1, 3));
}

/// Dropped branches are the student's alone, and another for each pass.
#[test]
fn branches_are_dropped_in_the_student_alone() {
    let arch = Arch { drop_path: Some(0.5), drop_path_uniform: Some(true), ..vit() };
    let mut drive = dinov2(&arch, "");
    let (batch, draws) = (views(&drive, 1), drive.drawn());
    assert_eq!(draws.len(), 7, "five of the masks, and one for each pass");
    assert_eq!((draws[5].shape(), draws[6].shape()), (&[4, 16][..], &[4, 16][..]));
    let before = drive.loss_of(&batch, &draws).unwrap();
    let mut other = draws.clone();
    other[5] = Tensor::full(&[4, 16], 1.0, Device::Cpu).unwrap();
    let after = drive.loss_of(&batch, &other).unwrap();
    assert_eq!(signal(&before, "teacher_entropy"), signal(&after, "teacher_entropy"));
    assert_ne!(item(&before.value), item(&after.value));
}

#[test]
fn settings_out_of_range_are_refused() {
    for wrong in [
        "prototypes = 0",
        "momentum = 1.5",
        "masked_crops = 2.0",
        "mask_ratio = [0.5, 0.1]",
        "mask_ratio = [0.5, 1.5]",
        "ibot_weight = -1.0",
        "koleo_weight = -1.0",
        "patch_embedding_rate = 2.0",
        "temperatures.teacher_start = 0.0",
    ] {
        let error = common::try_build("dinov2", &TINY, &vit(), wrong).err().unwrap();
        assert_eq!(error.kind(), engine::ErrorKind::Usage, "{wrong}: {error}");
    }
    let error = common::try_build("dinov2", &TINY, &common::resnet(), "").err().unwrap();
    assert!(error.message().contains("take a ViT"), "{error}");
}
