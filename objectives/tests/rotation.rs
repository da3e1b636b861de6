//! Rotation: which way pixels go, the order of flip and rotation, chance on noise, and what a shortcut looks like.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::optim::{Algorithm, Numbers, Optimizer};
use common::{Drive, TINY, accuracy_after, augmented_noise, noise, resnet, signal};
use engine::{Device, Tensor};
use kernels::array::Array;
use kernels::augment::{horizontal_flip, normalize};
use kernels::optim::{Scalar, StepCount};
use models::{Encoder, Initializer, Linear, Mode};
use objectives::classify::{accuracy, cross_entropy};
use objectives::rotation::{labels, rotations};
use std::collections::BTreeSet;

fn drive(batch: usize, changes: &str) -> Drive {
    Drive::new(common::build("rotation", &TINY, &resnet(), changes), batch, 400)
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
}

/// The images of a batch, as comparable values.
fn images(x: &Tensor) -> Vec<Vec<u32>> {
    let len = x.len() / x.shape()[0];
    bits(x).chunks(len).map(<[u32]>::to_vec).collect()
}

fn mirrored(x: &Tensor) -> Tensor {
    let [_, h, w, c] = *x.shape() else { panic!("images") };
    let mut values = x.to_vec::<f32>().unwrap();
    values.chunks_exact_mut(h * w * c).for_each(|image| horizontal_flip(image, h, w, c).unwrap());
    Tensor::from_slice(&values, x.shape()).unwrap()
}

fn random(batch: usize, side: usize, channels: usize) -> Tensor {
    Array::<f32>::random(&[batch, side, side, channels], 3, 1.0).to_tensor().unwrap()
}

/// A numbered grid: label 1 is a quarter turn counter-clockwise, and four of them are none.
#[test]
fn label_one_is_a_quarter_turn_counter_clockwise_and_turns_add_up() {
    let grid = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[1, 2, 2, 1]).unwrap();
    let turned = rotations(&grid).unwrap().to_vec::<f32>().unwrap();
    let expected = [[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 1.0, 3.0], [4.0, 3.0, 2.0, 1.0], [3.0, 1.0, 4.0, 2.0]];
    assert_eq!(turned, expected.concat());
    assert_eq!(labels(2, Device::Cpu).unwrap().to_vec::<i32>().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3]);
    for (side, channels) in [(1, 1), (5, 3), (12, 1), (7, 2)] {
        let x = random(3, side, channels);
        let all = rotations(&x).unwrap();
        let part =
            |x: &Tensor, turn: usize| kernels::copy::contiguous(&x.narrow(0, 3 * turn, 3).unwrap()).unwrap();
        assert_eq!(bits(&part(&all, 0)), bits(&x));
        for turn in 0..4 {
            for more in 0..4 {
                let twice = part(&rotations(&part(&all, turn)).unwrap(), more);
                assert_eq!(bits(&twice), bits(&part(&all, (turn + more) % 4)), "{turn} and {more}");
            }
        }
    }
    assert!(rotations(&Tensor::zeros(&[1, 2, 3, 1], engine::DType::F32, Device::Cpu).unwrap()).is_err());
}

/// The trap: with a mirrored copy of everything in the data, a flip after the rotation makes the classes 90 and 270 the same
/// set of images. In our order, flip first, no image is in two classes.
#[test]
fn a_flip_after_the_rotation_would_make_two_classes_alike() {
    let x = random(4, 6, 1);
    let class = |all: &Tensor, turn: usize| -> BTreeSet<Vec<u32>> {
        images(all)[4 * turn..4 * turn + 4].iter().cloned().collect()
    };
    let (plain, flipped) = (rotations(&x).unwrap(), rotations(&mirrored(&x)).unwrap());
    let ours = |turn| -> BTreeSet<Vec<u32>> { &class(&plain, turn) | &class(&flipped, turn) };
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        assert!(ours(a).is_disjoint(&ours(b)), "{a} and {b}");
    }
    let after = mirrored(&plain);
    let (after_of_flipped, trap) = (mirrored(&flipped), |turn: usize, all: &Tensor| class(all, turn));
    let planted = |turn| -> BTreeSet<Vec<u32>> {
        let both = &class(&plain, turn) | &trap(turn, &after);
        &both | &(&class(&flipped, turn) | &trap(turn, &after_of_flipped))
    };
    assert_eq!(planted(1), planted(3), "90 and 270 degrees are one class");
    assert!(planted(0).is_disjoint(&planted(1)));
}

/// Normalising is done to each pixel by itself: before or after the rotation, the bits are the same.
#[test]
fn normalising_commutes_with_rotating() {
    let x = random(3, 8, 3);
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let normalised = |x: &Tensor| {
        let mut values = x.to_vec::<f32>().unwrap();
        normalize(&mut values, &mean, &std).unwrap();
        Tensor::from_slice(&values, x.shape()).unwrap()
    };
    assert_eq!(bits(&rotations(&normalised(&x)).unwrap()), bits(&normalised(&rotations(&x).unwrap())));
}

/// Logits that know nothing cost ln 4; the accuracy is the part of rows whose greatest logit is the label's.
#[test]
fn closed_forms_of_loss_and_accuracy() {
    let labels = Tensor::from_slice(&[0i32, 1, 2, 3], &[4]).unwrap();
    for classes in [4usize, 8, 30, 100, 1000] {
        let even = Var::constant(Tensor::full(&[4, classes], 0.3, Device::Cpu).unwrap());
        let loss = cross_entropy(&even, &labels).unwrap().value().item().unwrap();
        assert!((f64::from(loss) - (classes as f64).ln()).abs() < 1e-5, "{loss} for {classes}");
    }
    let mut logits = vec![0.0f32; 4 * 1000];
    for (row, best) in [0usize, 1, 999, 2].into_iter().enumerate() {
        logits[row * 1000 + best] = 1.0;
    }
    let logits = Tensor::from_slice(&logits, &[4, 1000]).unwrap();
    assert_eq!(accuracy(&logits, &labels).unwrap().item().unwrap(), 0.5);
    let mut drive = drive(64, "");
    let batch = noise(drive.objective.as_ref(), 64, 1, 1);
    let loss = drive.loss(&batch).value.value().item().unwrap();
    assert!((loss - 4f32.ln()).abs() < 0.3, "{loss} at the start");
}

/// Noise has no direction, whatever the augmentations do to it: a network that says which way it was turned has found a cue
/// that is not in the images.
#[test]
fn noise_stays_at_chance() {
    let mut drive = drive(16, "view.size = 8");
    let objective = common::build("rotation", &TINY, &resnet(), "view.size = 8");
    let views = |step| augmented_noise(objective.as_ref(), &TINY, 16, 1000 + step);
    let (right, error) = accuracy_after(&mut drive, 200, 40, 64, 4, views);
    assert!((right - 0.25).abs() < 4.0 * error, "{right} where chance is 0.25 +- {error}");
}

/// Noisy images with a bright top and a brighter corner at its left: rotations and mirror images can be told.
fn sided(batch: usize, seed: u64) -> Tensor {
    let mut values = Array::<f32>::random(&[batch, 12, 12, 1], seed, 0.3).data;
    for image in values.chunks_exact_mut(144) {
        image[..24].iter_mut().for_each(|v| *v += 1.0);
        image.chunks_exact_mut(12).take(4).for_each(|row| row[..4].iter_mut().for_each(|v| *v += 1.0));
    }
    Tensor::from_slice(&values, &[batch, 12, 12, 1]).unwrap()
}

/// Every second image mirrored.
fn half_mirrored(x: &Tensor) -> Tensor {
    let flipped = mirrored(x);
    let n = x.shape()[0];
    let pick: Vec<i32> = (0..n).map(|i| (if i % 2 == 0 { i } else { n + i }) as i32).collect();
    let both = kernels::copy::cat(&[x, &flipped], 0).unwrap();
    kernels::copy::gather_rows(&both, &Tensor::from_slice(&pick, &[n]).unwrap()).unwrap()
}

/// A network trained on batches that `turned` makes: of 100 images of each label, how many are given each class.
fn confusion(turned: impl Fn(&Tensor) -> Tensor) -> [[f32; 4]; 4] {
    let mut encoder = models::build(&resnet(), common::image(&TINY), 1).unwrap();
    let mut head = Linear::new(encoder.dim(), 4, true, &Initializer::new(2)).unwrap();
    let sgd = || Optimizer::new(Algorithm::Sgd { momentum: 0.9, nesterov: false }, 1e-4);
    let mut optimizers = [sgd(), sgd()];
    let target = labels(16, Device::Cpu).unwrap();
    let logits = |encoder: &mut dyn Encoder, head: &Linear, seed| {
        let images = Var::constant(turned(&sided(16, seed)));
        head.forward(&encoder.features(&images, Mode::Train).unwrap()).unwrap()
    };
    for step in 0..100 {
        let out = logits(encoder.as_mut(), &head, step);
        cross_entropy(&out, &target).unwrap().backward().unwrap();
        let numbers = Numbers {
            rate: Scalar::Value(0.05),
            decay_scale: Scalar::Value(1.0),
            before: StepCount::Value(step),
        };
        optimizers[0].step_after(encoder.as_mut(), &numbers, None).unwrap();
        optimizers[1].step_after(&mut head, &numbers, None).unwrap();
    }
    let mut counts = [[0.0; 4]; 4];
    for test in 0..25 {
        let out = logits(encoder.as_mut(), &head, 1000 + test).into_value();
        let found = kernels::reduce::argmax_last(&out).unwrap().to_vec::<i32>().unwrap();
        for (row, class) in found.into_iter().enumerate() {
            counts[row / 16][class as usize] += 100.0 / (16.0 * 25.0);
        }
    }
    counts
}

/// The trap in training: flipped first all four classes are told; flipped after the rotation 90 and 270 are guessed.
#[test]
fn flipped_after_the_rotation_half_of_90_is_taken_for_270() {
    let right = confusion(|x| rotations(&half_mirrored(x)).unwrap());
    assert!((0..4).all(|label| right[label][label] > 97.0), "{right:?}");
    let trap = confusion(|x| half_mirrored(&rotations(&half_mirrored(x)).unwrap()));
    assert!(trap[0][0] > 97.0 && trap[2][2] > 97.0, "{trap:?}");
    for (label, other) in [(1, 3), (3, 1)] {
        assert!(trap[label][label] + trap[label][other] > 97.0, "{trap:?}");
    }
    let told = trap[1][1] + trap[3][3];
    assert!((85.0..115.0).contains(&told), "of two classes one is as likely as the other: {trap:?}");
}

/// The positive control, through the objective.
#[test]
fn what_can_be_told_is_learnt() {
    let mut drive = drive(16, "");
    let (right, _) = accuracy_after(&mut drive, 60, 8, 64, 4, |step| vec![sided(16, step)]);
    assert!(right > 0.98, "{right}");
}

#[test]
fn wrong_settings_are_refused_and_shortcuts_are_said() {
    let wide = objectives::DataProfile { width: 14, ..TINY };
    let error = common::try_build("rotation", &wide, &resnet(), "view.size = 0").err().unwrap();
    assert_eq!(error.kind(), engine::ErrorKind::Usage);
    assert!(error.message().contains("view.size"), "{error}");
    let mut drive = drive(8, "");
    assert!(drive.loss_of(&[], &[]).err().unwrap().message().contains("one view"));
    let said = |loss: f32, accuracy: f32, step: f32| {
        let figures = move |name: &str| match name {
            "loss" => Some(loss),
            "accuracy" => Some(accuracy),
            _ => Some(step),
        };
        drive.objective.warning(&figures)
    };
    assert!(said(0.001, 1.0, 30.0).unwrap().contains("shortcut"), "solved in 30 of 400 steps");
    assert_eq!(said(0.001, 1.0, 300.0), None, "late it is success");
    assert!(said(1.386, 0.25, 300.0).unwrap().contains("guessing"));
    assert_eq!(said(1.386, 0.25, 30.0), None, "at the start everyone guesses");
    assert_eq!(said(0.9, 0.6, 300.0), None);
    let loss = {
        let batch = noise(drive.objective.as_ref(), 8, 1, 1);
        drive.loss(&batch)
    };
    assert_eq!(loss.embeddings.shape(), [32, 16]);
    assert!((0.0..=1.0).contains(&signal(&loss, "accuracy")));
}
