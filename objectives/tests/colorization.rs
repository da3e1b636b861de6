//! Colorization: bins, weights, what the encoder sees, what counts, closed forms.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use common::{Drive, TINY, resnet, signal};
use engine::random::Purpose;
use engine::{Device, ErrorKind, Philox, Tensor};
use kernels::color::{lab_to_rgb, rgb_to_lab};
use models::Arch;
use objectives::ab_bins::{BINS, annealed_mean, centres, rebalancing};
use objectives::colorization::{loss, split, targets};
use objectives::{Batch, DataProfile, Objective};

/// Colour images of 12 pixels.
const COLOUR: DataProfile = DataProfile { channels: 3, ..TINY };

fn build(changes: &str) -> Box<dyn Objective> {
    let changes = format!("target_stride = 2\ndecoder_width = 16\nview.size = 12\n{changes}");
    common::build("colorization", &COLOUR, &resnet(), &changes)
}

/// sRGB values [n, side, side, 3] in 0 to 1.
fn images(n: usize, side: usize, seed: u64) -> Tensor {
    let mut random = Philox::new(seed, Purpose::Test, 0);
    let values: Vec<f32> = (0..n * side * side * 3).map(|_| random.uniform()).collect();
    Tensor::from_slice(&values, &[n, side, side, 3]).unwrap()
}

fn grey(n: usize, side: usize) -> Tensor {
    let values: Vec<f32> = (0..n * side * side).flat_map(|i| [(i % 7) as f32 / 7.0; 3]).collect();
    Tensor::from_slice(&values, &[n, side, side, 3]).unwrap()
}

#[test]
fn the_bins_are_the_313_of_the_reference() {
    let all = centres();
    assert_eq!(all.len(), BINS);
    assert_eq!((all[0], all[BINS - 1]), ([-90.0, 50.0], [100.0, 0.0]));
    assert!(all.iter().flatten().all(|v| v % 10.0 == 0.0));
    assert!(all.windows(2).all(|w| w[0][0] < w[1][0] || w[0][0] == w[1][0] && w[0][1] + 10.0 == w[1][1]));
    let run = |a: f32| all.iter().filter(|c| c[0] == a).count();
    assert_eq!([-90, 0, 60, 100].map(|a| run(a as f32)), [5, 18, 20, 10]);
}

/// The mean weight under the prior is 1, and bins that never occur have a finite weight, the largest.
#[test]
fn weights_of_bins() {
    let mut prior = vec![0.0; BINS];
    (prior[7], prior[100], prior[200]) = (0.7, 0.2, 0.1);
    let weights = rebalancing(&prior, 0.5).unwrap();
    let mean: f64 = weights.iter().zip(&prior).map(|(w, p)| f64::from(*w) * p).sum();
    assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    assert!(weights.iter().all(|w| w.is_finite()));
    assert!(weights[7] < weights[100] && weights[100] < weights[200] && weights[200] < weights[0]);
    // (p / 2 + 1 / 626)^-1 up to the scale.
    let raw = |p: f64| 1.0 / (0.5 * p + 0.5 / 313.0);
    assert!((f64::from(weights[7] / weights[0]) - raw(0.7) / raw(0.0)).abs() < 1e-6);
    assert!(rebalancing(&prior, 1.0).unwrap().iter().all(|w| (w - 1.0).abs() < 1e-6));
    for (prior, lambda) in [(&prior, 0.0), (&prior, 1.1), (&vec![1.0; 3], 0.5)] {
        assert!(rebalancing(prior, lambda).is_err(), "{lambda}");
    }
}

/// Ten bins a pixel; back from them, colours of the gamut are less than 5 away.
#[test]
fn encoding_and_decoding_a_colour_is_nearly_the_identity() {
    let (_, points) = split(&images(4, 8, 1), 1).unwrap();
    let (soft, nearest) = targets(&points).unwrap();
    assert_eq!((soft.shape(), nearest.shape()), (&[256, BINS][..], &[256][..]));
    let (points, centres) = (points.to_vec::<f32>().unwrap(), centres());
    for (row, point) in soft.to_vec::<f32>().unwrap().chunks(BINS).zip(points.chunks(2)) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(row.iter().filter(|p| **p > 0.0).count(), 10);
        let logits: Vec<f32> = row.iter().map(|p| p.ln()).collect();
        let back = annealed_mean(&logits, &centres, 1.0);
        let apart = (back[0] - point[0]).hypot(back[1] - point[1]);
        assert!(apart < 5.0, "{point:?} became {back:?}");
    }
}

#[test]
fn the_annealed_mean_goes_from_the_mode_to_the_mean() {
    let centres = [[0.0, 10.0], [20.0, -10.0], [-40.0, 0.0]];
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    let near =
        |found: [f32; 2], right: [f32; 2]| (0..2).for_each(|i| assert!((found[i] - right[i]).abs() < 1e-4));
    near(annealed_mean(&logits, &centres, 1.0), [-2.0, 2.0]);
    near(annealed_mean(&logits, &centres, 1e-3), [0.0, 10.0]);
    let part = annealed_mean(&logits, &centres, 0.38);
    assert!(part[1] > 2.0 && part[1] < 10.0, "{part:?}");
}

/// Points are picked, the first of each square, not averaged; lightness is (L - 50) / 100.
#[test]
fn what_is_seen_and_what_is_predicted() {
    let image = images(2, 6, 3);
    let lab = rgb_to_lab(&image).unwrap().to_vec::<f32>().unwrap();
    let (light, points) = split(&image, 3).unwrap();
    assert_eq!((light.shape(), points.shape()), (&[2, 6, 6, 1][..], &[2, 4, 2][..]));
    for (found, lab) in light.to_vec::<f32>().unwrap().iter().zip(lab.chunks(3)) {
        assert!((found - (lab[0] - 50.0) / 100.0).abs() < 1e-6);
    }
    for (i, point) in points.to_vec::<f32>().unwrap().chunks(2).enumerate() {
        let (b, y, x) = (i / 4, i / 2 % 2 * 3, i % 2 * 3);
        assert_eq!(point, &lab[((b * 6 + y) * 6 + x) * 3 + 1..][..2]);
    }
}

/// Colours that change while lightness stays change the loss, not what the encoder makes of the image.
#[test]
fn the_encoder_sees_lightness_alone() {
    let mut drive = Drive::new(build(""), 4, 20);
    assert_eq!(drive.objective.encoder().channels(), 1);
    // Muted colours, whose opposites are in the gamut too.
    let lab: Vec<f32> = (0..4 * 144)
        .flat_map(|i| [40.0 + (i % 23) as f32, (i % 11) as f32 * 2.0 - 10.0, (i % 7) as f32 * 3.0 - 9.0])
        .collect();
    let opposite: Vec<f32> = lab.chunks(3).flat_map(|p| [p[0], -p[1], -p[2]]).collect();
    let image = |lab: &[f32]| Tensor::from_slice(&lab_to_rgb(lab), &[4, 12, 12, 3]).unwrap();
    let (a, b) = (drive.loss(&[image(&lab)]), drive.loss(&[image(&opposite)]));
    let (seen, other) = (a.embeddings.to_vec::<f32>().unwrap(), b.embeddings.to_vec::<f32>().unwrap());
    let scale = seen.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(seen.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-3 * scale), "{seen:?} {other:?}");
    assert!((a.value.value().item().unwrap() - b.value.value().item().unwrap()).abs() > 1e-3);
}

/// Uniform predictions cost ln 313 a pixel; a grey image contributes nothing, not to the loss nor to a gradient.
#[test]
fn grey_images_contribute_exactly_nothing() {
    let zeros = Tensor::zeros(&[6, BINS], engine::DType::F32, Device::Cpu).unwrap();
    let one = Tensor::full(&[6], 1.0, Device::Cpu).unwrap();
    let (soft, _) = targets(&split(&images(6, 1, 5), 1).unwrap().1).unwrap();
    let chance = loss(&Var::constant(zeros), &soft, &one).unwrap().0.value().item().unwrap();
    assert!((f64::from(chance) - 313f64.ln()).abs() < 1e-5, "{chance}");

    let mut drive = Drive::new(build(""), 4, 20);
    let all_grey = drive.loss(&[grey(4, 12)]);
    assert_eq!((all_grey.value.value().item().unwrap(), signal(&all_grey, "mean_weight")), (0.0, 0.0));
    all_grey.value.backward().unwrap();
    for (name, param) in parts(drive.objective.networks()).params {
        assert!(param.gradient().unwrap().to_vec::<f32>().unwrap().iter().all(|g| *g == 0.0), "{name}");
    }
    // One grey image of two has half of the pixels, and weight 0.
    let mixed = [images(1, 12, 1), grey(1, 12)].map(|x| x.to_vec::<f32>().unwrap()).concat();
    let mixed = Tensor::from_slice(&mixed, &[2, 12, 12, 3]).unwrap();
    let mut drive = Drive::new(build(""), 2, 20);
    assert_eq!(signal(&drive.loss(&[mixed]), "mean_weight"), 0.5);
}

/// The prior is that of the images' colours: common colours weigh less, constant predictions cost what the signal says.
#[test]
fn the_prior_comes_from_training_images() {
    let mut method = build("");
    // Three pixels of four are red, one is blue; and a grey image, which says nothing.
    let pixel = |i: usize| if i.is_multiple_of(4) { [0.0, 0.0, 1.0] } else { [1.0f32, 0.0, 0.0] };
    let colours: Vec<f32> = (0..144).flat_map(|i| pixel(i / 2 % 6 + i / 24)).collect();
    let batch = || Tensor::from_slice(&colours, &[1, 12, 12, 3]);
    let mut prepare = |images: Vec<Tensor>| method.prepare(&mut images.into_iter().map(Ok));
    let error = prepare(vec![grey(3, 12)]).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Usage && error.message().contains("no training image has colour"),
        "{error}"
    );
    prepare(vec![batch().unwrap(), grey(3, 12)]).unwrap();
    let mut drive = Drive::new(method, 1, 20);
    let weights = drive.value("weights");
    let (_, nearest) = targets(&split(&batch().unwrap(), 2).unwrap().1).unwrap();
    let bins = nearest.to_vec::<i32>().unwrap();
    let count = |bin: i32| bins.iter().filter(|b| **b == bin).count();
    let (often, rarely) = match count(bins[0]) * 2 > bins.len() {
        true => (bins[0], *bins.iter().find(|b| **b != bins[0]).unwrap()),
        false => (*bins.iter().find(|b| **b != bins[0]).unwrap(), bins[0]),
    };
    assert!(weights[often as usize] < weights[rarely as usize], "{} {}", count(often), count(rarely));
    let constants: f64 = drive.value("log_constant").iter().map(|l| f64::from(*l).exp()).sum();
    assert!((constants - 1.0).abs() < 1e-4, "{constants}");
    // The best constant prediction is better than a uniform one.
    let loss = drive.loss(&[batch().unwrap()]);
    let (constant, weight) = (signal(&loss, "constant_loss"), signal(&loss, "mean_weight"));
    assert!(constant > 0.5 && constant < 0.8 * weight * 313f32.ln(), "{constant} {weight}");
}

#[test]
fn everything_is_trained() {
    let mut drive = Drive::new(build(""), 4, 20);
    drive.loss(&[images(4, 12, 1)]).value.backward().unwrap();
    for (name, param) in parts(drive.objective.networks()).params {
        assert!(param.gradient().is_some() && param.is_trainable(), "{name}");
    }
}

/// The positive control: the colours of eight images are learnt by heart.
#[test]
fn eight_images_are_learnt_by_heart() {
    let adam = Optimizer::new(Algorithm::AdamW { betas: (0.9, 0.99), eps: 1e-8 }, 0.0);
    let mut drive = Drive::new(build(""), 8, 1000).with(adam, 1e-2);
    // Every image has a lightness pattern and a colour of its own.
    let lab: Vec<f32> = (0..8 * 144)
        .flat_map(|i| {
            let (image, y, x) = (i / 144, (i / 12 % 12) as f32, (i % 12) as f32);
            let turn = image as f32 * 0.8;
            [
                55.0 + 15.0 * (x * (0.3 + 0.2 * image as f32) + y * turn).sin(),
                30.0 * turn.cos(),
                30.0 * turn.sin(),
            ]
        })
        .collect();
    let batch = [Tensor::from_slice(&lab_to_rgb(&lab), &[8, 12, 12, 3]).unwrap()];
    let start = drive.loss(&batch).value.value().item().unwrap();
    assert!((4.5..8.0).contains(&start), "{start}: about ln 313 at random");
    (0..150).for_each(|_| {
        drive.step(&batch);
    });
    // Soft targets of ten bins have an entropy that no prediction gets below.
    let (soft, _) = targets(&split(&batch[0], 2).unwrap().1).unwrap();
    let entropy: f32 = soft.to_vec::<f32>().unwrap().iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
    let floor = entropy / soft.shape()[0] as f32;
    let last = drive.loss(&batch).value.value().item().unwrap();
    assert!(last < floor + 0.2, "from {start} to {last}, at best {floor}");
}

/// Pictures show lightness, predicted colours at the true lightness, the truth; and change nothing.
#[test]
fn pictures_change_nothing_and_keep_lightness() {
    let mut drive = Drive::new(build(""), 4, 20);
    let batch = images(4, 12, 9);
    drive.step(std::slice::from_ref(&batch));
    let before = drive.value("encoder.bn1.running_mean");
    let clock = objectives::draws::clock(0, Device::Cpu).unwrap();
    let given = Batch { views: std::slice::from_ref(&batch), draws: &[], clock: &clock };
    let pictures = drive.objective.pictures(&given).unwrap().unwrap();
    let names: Vec<_> = pictures.columns.iter().map(|c| c.0).collect();
    assert_eq!(names, ["lightness", "predicted_colour", "truth"]);
    assert_eq!(drive.value("encoder.bn1.running_mean"), before);
    let grey = pictures.columns[0].1.to_vec::<f32>().unwrap();
    assert!(grey.chunks(3).all(|p| (p[0] - p[1]).abs() < 2e-3 && (p[0] - p[2]).abs() < 2e-3));
    assert_eq!(pictures.columns[2].1.to_vec::<f32>().unwrap(), batch.to_vec::<f32>().unwrap());
    assert_ne!(pictures.columns[1].1.to_vec::<f32>().unwrap(), grey);
}

#[test]
fn what_does_not_suit_is_refused_with_advice() {
    let error = common::try_build("colorization", &TINY, &resnet(), "").err().unwrap();
    assert!(error.kind() == ErrorKind::Usage && error.message().contains("sample-color"), "{error}");
    for (wrong, named) in [
        ("target_stride = 0", "target_stride"),
        ("target_stride = 5", "does not divide"),
        ("target_stride = 32", "doubled"),
        ("lambda = 0.0", "lambda"),
        ("lambda = 1.5", "lambda"),
        ("temperature = 0.0", "temperature"),
        ("decoder_width = 0", "decoder_width"),
        ("view.size = 12\nview.flip = 2.0", "flip"),
    ] {
        let error = common::try_build("colorization", &COLOUR, &resnet(), wrong).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}: {error}");
        assert!(error.message().contains(named), "{wrong}: {error}");
    }
    let dropping = Arch { drop_path: Some(0.1), ..common::vit() };
    let error = common::try_build("colorization", &COLOUR, &dropping, "target_stride = 4\nview.size = 12")
        .err()
        .unwrap();
    assert!(error.message().contains("drop_path"), "{error}");
    let method = build("");
    let figures = |loss: f32| move |name: &str| Some(if name == "loss" { loss } else { 5.0 });
    assert!(method.warning(&figures(5.0)).unwrap().contains("nothing is learnt"));
    assert_eq!(method.warning(&figures(4.0)), None);
}

/// A ViT's patches are places too.
#[test]
fn a_vit_learns_as_well() {
    let changes = "target_stride = 2\ndecoder_width = 16\nview.size = 12";
    let method = common::build("colorization", &COLOUR, &common::vit(), changes);
    let mut drive = Drive::new(method, 4, 20);
    let batch = images(4, 12, 1);
    let losses: Vec<f32> = (0..20).map(|_| drive.step(std::slice::from_ref(&batch))).collect();
    assert!(losses[19] < losses[0] - 0.1, "{losses:?}");
}

/// Colours that are drawn for each pixel, all of one lightness, cannot be told from it: nothing beats the best constant
/// distribution.
#[test]
fn noise_of_one_lightness_stays_at_chance() {
    let noise = |seed| {
        let mut random = Philox::new(seed, Purpose::Test, 0);
        let pixel = |i: usize| if i == 0 { [60.0f32, 40.0, 20.0] } else { [60.0, -30.0, 30.0] };
        let lab: Vec<f32> = (0..16 * 144).flat_map(|_| pixel(random.below(2))).collect();
        Tensor::from_slice(&lab_to_rgb(&lab), &[16, 12, 12, 3]).unwrap()
    };
    let mut method = build("");
    method.prepare(&mut (500..520).map(noise).map(Ok)).unwrap();
    let mut drive = Drive::new(method, 16, 100);
    for step in 0..60 {
        drive.step(&[noise(step)]);
    }
    let loss = drive.loss(&[noise(999)]);
    let (reached, constant) = (loss.value.value().item().unwrap(), signal(&loss, "constant_loss"));
    // The two colours are as frequent as in the prior to a few per cent in one batch.
    assert!(reached > 0.97 * constant, "{reached} beats the constant {constant}");
    assert!(reached < 1.5 * constant, "but it is learnt: {reached}, {constant}");
}
