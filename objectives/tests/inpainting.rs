//! Inpainting: what is hidden, what the encoder sees, what counts, and who learns from whom.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use common::{Drive, TINY, noise, resnet, signal};
use engine::{Device, ErrorKind, Tensor};
use models::Arch;
use objectives::holes::{HoleRule, HoleShape};
use objectives::inpainting::{mask, reconstruction, sharpness};
use objectives::{Batch, DataProfile, Objective};

const COLOUR: DataProfile = DataProfile { channels: 3, ..TINY };
const ADVERSARIAL: &str = "adversarial_weight = 0.1\ndiscriminator_width = 4\n";

fn build(profile: &DataProfile, changes: &str) -> Box<dyn Objective> {
    common::build("inpainting", profile, &resnet(), &format!("decoder_width = 16\nview.size = 12\n{changes}"))
}

fn rule(shape: HoleShape, ring: usize) -> HoleRule {
    HoleRule { size: [32, 32], shape, area: 0.25, ring, ring_weight: 10.0 }
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec::<f32>().unwrap()
}

/// The centre as in the reference: a square of half the side is predicted, of which a ring is not hidden and weighs ten times
/// as much.
#[test]
fn the_middle_square_and_its_ring() {
    let holes = rule(HoleShape::Centre, 2).draw(1, 0, 3).unwrap();
    let (hidden, weights) = (values(&holes.hidden), values(&holes.weights));
    let total: f32 = weights.iter().sum();
    assert!((total - 1.0).abs() < 1e-4, "{total}");
    let one = weights[16 * 32 + 16];
    for (i, (hidden, weight)) in hidden.iter().zip(&weights).enumerate() {
        let (y, x) = (i % 1024 / 32, i % 32);
        let inside = |low: usize, high: usize| (low..high).contains(&y) && (low..high).contains(&x);
        assert_eq!(*hidden, f32::from(u8::from(inside(10, 22))), "{y} {x}");
        let expected = if inside(10, 22) { 1.0 } else { 10.0 * f32::from(u8::from(inside(8, 24))) };
        assert!((weight / one - expected).abs() < 1e-4, "{y} {x}: {weight}");
    }
    assert_eq!(rule(HoleShape::Centre, 2).square(), [8, 8, 16, 16]);
}

/// Random regions: a quarter of each image, a few connected blobs, new for every image and step.
#[test]
fn random_regions() {
    let draw = |step| values(&rule(HoleShape::Random, 0).draw(7, step, 4).unwrap().hidden);
    let holes = draw(0);
    for hole in holes.chunks(1024) {
        assert_eq!(hole.iter().sum::<f32>(), 256.0);
        // Noise without smoothness would have about 3/4 of its neighbours of the other kind.
        let edges = (0..1023).filter(|i| i % 32 != 31 && hole[*i] != hole[i + 1]).count();
        assert!(edges < 200, "{edges} edges in rows");
    }
    assert_ne!(holes[..1024], holes[1024..2048]);
    assert_ne!(holes, draw(1));
    assert_eq!(holes, draw(0));
    // A ring is not hidden, and touches the hole.
    let ringed = rule(HoleShape::Random, 1).draw(7, 0, 1).unwrap();
    let (hidden, weights) = (values(&ringed.hidden), values(&ringed.weights));
    let ring: Vec<usize> = (0..1024).filter(|i| hidden[*i] == 0.0 && weights[*i] > 0.0).collect();
    assert!(!ring.is_empty() && ring.len() < 768);
    assert!(ring.iter().all(|i| {
        [i - 33, i - 32, i - 31, i - 1, i + 1, i + 31, i + 32, i + 33]
            .iter()
            .any(|n| hidden.get(*n).is_some_and(|h| *h == 1.0))
            || i % 32 == 0
            || i % 32 == 31
    }));
}

/// Hidden pixels are not seen: what the encoder makes of the image does not change by a bit when they do.
#[test]
fn the_encoder_sees_nothing_of_the_hole() {
    for (profile, shape) in [(&TINY, "centre"), (&COLOUR, "random")] {
        let mut drive = Drive::new(build(profile, &format!("hole = \"{shape}\"")), 4, 20);
        let images = noise(drive.objective.as_ref(), 4, profile.channels, 3).remove(0);
        let draws = drive.drawn();
        let hidden = values(&draws[0]);
        let mut changed = images.clone();
        let pixels = changed.as_mut_slice::<f32>().unwrap();
        for (pixel, hidden) in pixels.chunks_mut(profile.channels).zip(&hidden) {
            if *hidden == 1.0 {
                pixel.iter_mut().for_each(|v| *v = *v * 3.0 - 7.0);
            }
        }
        let before = drive.loss_of(&[images], &draws).unwrap();
        let after = drive.loss_of(&[changed], &draws).unwrap();
        assert_eq!(values(&before.embeddings), values(&after.embeddings), "bit for bit");
        assert_ne!(before.value.value().item().unwrap(), after.value.value().item().unwrap());
    }
}

#[test]
fn holes_are_filled_and_the_rest_is_left_as_it_is() {
    let images = Tensor::from_slice(&[-0.5f32, 0.25, 1.0, -1.0], &[1, 2, 1, 2]).unwrap();
    let hidden = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0], &[1, 2, 1, 2]).unwrap();
    let fill = Tensor::from_slice(&[0.1f32, -0.2], &[2]).unwrap();
    assert_eq!(values(&mask(&images, &hidden, &fill).unwrap()), [0.1, -0.2, 1.0, -1.0]);
}

/// Only pixels with a weight count, each as its weight says.
#[test]
fn the_loss_counts_what_the_weights_say() {
    let truth = Tensor::from_slice(&[0.0f32, 1.0, 2.0, 3.0], &[1, 2, 2, 1]).unwrap();
    let prediction = Var::leaf(Tensor::from_slice(&[1.0f32, 1.5, 5.0, 3.0], &[1, 2, 2, 1]).unwrap());
    let weights = Tensor::from_slice(&[0.1f32, 0.4, 0.0, 0.5], &[1, 2, 2, 1]).unwrap();
    let loss = reconstruction(&prediction, &truth, &weights).unwrap();
    assert!((loss.value().item().unwrap() - 0.2).abs() < 1e-6, "0.1 x 1 + 0.4 x 0.25");
    loss.backward().unwrap();
    assert_eq!(values(&prediction.gradient().unwrap()), [0.2, 0.4, 0.0, 0.0]);
}

/// Constant images: predicting the mean colour costs nothing once it is known; figures are of the hole alone.
#[test]
fn the_mean_colour_comes_from_training_images() {
    let mut method = build(&COLOUR, "");
    let image = |value: [f32; 3]| Tensor::from_slice(&value.repeat(144), &[1, 12, 12, 3]).unwrap();
    let shown = [[0.5, -0.25, 0.0], [-0.5, 0.75, 1.0]].map(image);
    method.prepare(&mut shown.into_iter().map(Ok)).unwrap();
    let mut drive = Drive::new(method, 1, 20);
    assert_eq!(drive.value("fill"), [0.0, 0.25, 0.5]);
    let loss = drive.loss(&[image([0.0, 0.25, 0.5])]);
    assert_eq!(signal(&loss, "mean_error"), 0.0);
    let loss = drive.loss(&[image([0.3, 0.25, 0.5])]);
    assert!((signal(&loss, "mean_error") - 0.03).abs() < 1e-6, "0.09 in one channel of three");
    let (error, psnr) = (signal(&loss, "hole_error"), signal(&loss, "hole_psnr"));
    assert!((psnr - 10.0 * (4.0 / error).log10()).abs() < 1e-3, "{psnr} for {error}");
}

fn moved(before: &[(String, Vec<f32>)], drive: &mut Drive) -> Vec<String> {
    let after = state(drive);
    before.iter().zip(&after).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0.clone()).collect()
}

fn state(drive: &mut Drive) -> Vec<(String, Vec<f32>)> {
    let names = drive.names();
    names.into_iter().map(|(name, _)| (name.clone(), drive.value(&name))).collect()
}

/// Without a weight there is no discriminator; with one everything is trained, and the discriminator's own loss moves nothing
/// else: with a weight of 1 and a discriminator that cannot tell (its last layer is 0) nothing else gets a gradient.
#[test]
fn the_discriminator_and_the_rest_do_not_mix() {
    let mut plain = Drive::new(build(&TINY, ""), 4, 20);
    assert!(plain.names().iter().all(|n| !n.0.starts_with("discriminator")));
    for hole in ["centre", "random"] {
        let changes = format!("{ADVERSARIAL}hole = \"{hole}\"\nring = 1");
        let mut drive = Drive::new(build(&TINY, &changes), 4, 20);
        let views = noise(drive.objective.as_ref(), 4, 1, 1);
        let before = state(&mut drive);
        drive.step(&views);
        assert_eq!(moved(&before, &mut drive).len(), before.len(), "{hole}: all moved");

        let changes = changes.replace("0.1", "1.0");
        let mut drive = Drive::new(build(&TINY, &changes), 4, 20);
        for (name, param) in parts(drive.objective.networks()).params {
            if name.starts_with("discriminator.out") {
                let zero = Tensor::zeros(param.value().shape(), engine::DType::F32, Device::Cpu).unwrap();
                param.set(zero).unwrap();
            }
        }
        let loss = drive.loss(&views);
        let chance = std::f32::consts::LN_2;
        assert!((signal(&loss, "generator_loss") - chance).abs() < 1e-6);
        assert!((signal(&loss, "discriminator_loss") - chance).abs() < 1e-6);
        loss.value.backward().unwrap();
        for (name, param) in parts(drive.objective.networks()).params {
            let gradient = values(&param.gradient().unwrap());
            let last = name == "discriminator.out.weight";
            assert_eq!(gradient.iter().any(|g| *g != 0.0), last, "{hole}: {name}");
        }
    }
}

/// What the discriminator learns from what was made does not reach its maker: with next to no weight of the adversarial term
/// the encoder's gradient is that of the reconstruction.
#[test]
fn the_discriminators_own_loss_does_not_reach_the_generator() {
    let gradient = |changes: &str| {
        let mut drive = Drive::new(build(&TINY, changes), 4, 20);
        let views = noise(drive.objective.as_ref(), 4, 1, 1);
        drive.loss(&views).value.backward().unwrap();
        let params = parts(drive.objective.networks()).params;
        let (_, param) = params.into_iter().find(|(name, _)| name == "encoder.conv1.weight").unwrap();
        values(&param.gradient().unwrap())
    };
    let (plain, with) = (
        gradient("hole = \"centre\""),
        gradient(&format!("{ADVERSARIAL}hole = \"centre\"").replace("0.1", "1e-6")),
    );
    let largest = plain.iter().fold(0f32, |m, g| m.max(g.abs()));
    assert!(plain.iter().zip(&with).all(|(a, b)| (a - b).abs() < 1e-3 * largest), "{plain:?} and {with:?}");
}

/// Half of the loss is one term or the other as the weight says, and the discriminator learns at its own rate.
#[test]
fn weights_and_rates() {
    let mut drive = Drive::new(build(&TINY, ADVERSARIAL), 4, 20);
    let views = noise(drive.objective.as_ref(), 4, 1, 1);
    let (all, mut plain) = (drive.loss(&views), Drive::new(build(&TINY, ""), 4, 20));
    let reconstruction = plain.loss(&views).value.value().item().unwrap();
    let (generator, own) = (signal(&all, "generator_loss"), signal(&all, "discriminator_loss"));
    let expected = 0.9 * reconstruction + 0.1 * generator + own;
    assert!((all.value.value().item().unwrap() - expected).abs() < 1e-5);
    let method = build(&TINY, &format!("{ADVERSARIAL}discriminator_rate = 0.2"));
    assert_eq!(method.special("discriminator.out.weight").rate_scale, 0.2);
    assert_eq!(method.special("encoder.conv1.weight").rate_scale, 1.0);
    let adam = Algorithm::AdamW { betas: (0.5, 0.999), eps: 1e-8 };
    assert_eq!(method.special("discriminator.out.weight").optimiser, Some(adam));
    assert_eq!(method.special("encoder.conv1.weight").optimiser, None);
}

/// Half as high edges have a quarter of the energy, -6.02 dB; what is seen, and across the hole's border, does not count.
#[test]
fn sharpness_is_the_energy_of_edges_in_holes() {
    let of = |f: &dyn Fn(usize, usize) -> f32| {
        let values: Vec<f32> = (0..64).map(|i| f(i / 8, i % 8)).collect();
        Tensor::from_slice(&values, &[1, 8, 8, 1]).unwrap()
    };
    let inside = |y: usize, x: usize| (2..6).contains(&y) && (3..7).contains(&x);
    let hidden = of(&|y, x| if inside(y, x) { 1.0 } else { 0.0 });
    let edges = |y: usize, x: usize| ((3 * y + 5 * x) as f32).sin();
    let truth = of(&|y, x| edges(y, x));
    let half = of(&|y, x| if inside(y, x) { 0.5 * edges(y, x) - 7.0 } else { 100.0 * edges(x, y) });
    let decibel = |a, b| sharpness(a, b, &hidden).unwrap().item().unwrap();
    assert!(decibel(&truth, &truth).abs() < 1e-5);
    assert!((decibel(&half, &truth) + 20.0 * 2f32.log10()).abs() < 1e-3);
}

/// A discriminator that trains against a fixed generator tells real from made.
#[test]
fn the_discriminator_learns() {
    let changes =
        format!("{ADVERSARIAL}discriminator_rate = 10.0\nhole = \"centre\"").replace("0.1", "0.001");
    let mut drive = Drive::new(build(&TINY, &changes), 8, 200);
    drive.rate = 0.005;
    let views = noise(drive.objective.as_ref(), 8, 1, 2);
    let before = signal(&drive.loss(&views), "discriminator_loss");
    (0..40).for_each(|_| {
        drive.step(&views);
    });
    let after = signal(&drive.loss(&views), "discriminator_loss");
    assert!(after < 0.5 * before, "from {before} to {after}");
}

/// White noise says nothing of what is hidden in it: after many steps the best that is reached is the mean's error, within
/// a twentieth (the error of a mean over the hidden pixels of 16 images, and what the network still adds to it).
#[test]
fn noise_is_not_predicted() {
    let mut drive = Drive::new(build(&TINY, "hole = \"centre\""), 16, 200);
    for step in 0..60 {
        drive.step(&noise(drive.objective.as_ref(), 16, 1, 100 + step));
    }
    let loss = drive.loss(&noise(drive.objective.as_ref(), 16, 1, 999));
    let (error, mean) = (signal(&loss, "hole_error"), signal(&loss, "mean_error"));
    assert!(error > 0.95 * mean, "{error} is less than the mean's {mean}");
}

/// The positive control: the middles of eight images are learnt by heart.
#[test]
fn eight_images_are_learnt_by_heart() {
    let adam = Optimizer::new(Algorithm::AdamW { betas: (0.5, 0.999), eps: 1e-8 }, 0.0);
    let mut drive = Drive::new(build(&TINY, "hole = \"centre\""), 8, 1000).with(adam, 5e-3);
    let values: Vec<f32> = (0..8 * 144)
        .map(|i| {
            let (image, y, x) = (i / 144, (i / 12 % 12) as f32, (i % 12) as f32);
            0.9 * (x * (0.4 + 0.2 * image as f32) + y * 0.3 * image as f32).sin()
        })
        .collect();
    let batch = [Tensor::from_slice(&values, &[8, 12, 12, 1]).unwrap()];
    let mean = signal(&drive.loss(&batch), "mean_error");
    assert!((0.3..0.5).contains(&mean), "{mean}: the mean square of a sine of 0.9");
    (0..200).for_each(|_| {
        drive.step(&batch);
    });
    let error = signal(&drive.loss(&batch), "hole_error");
    assert!(error < 0.05 * mean, "{error} for a mean's {mean}");
}

/// Only the hole is predicted in pictures, which change nothing.
#[test]
fn pictures_show_the_hole_filled_in() {
    let mut drive = Drive::new(build(&COLOUR, ""), 4, 20);
    let (images, draws) = (noise(drive.objective.as_ref(), 4, 3, 5).remove(0), drive.drawn());
    let before = drive.value("encoder.bn1.running_mean");
    let clock = objectives::draws::clock(0, Device::Cpu).unwrap();
    let given = Batch { views: std::slice::from_ref(&images), draws: &draws, clock: &clock };
    let pictures = drive.objective.pictures(&given).unwrap().unwrap();
    assert_eq!(
        pictures.columns.iter().map(|c| c.0).collect::<Vec<_>>(),
        ["masked", "predicted_hole", "truth"]
    );
    assert_eq!(drive.value("encoder.bn1.running_mean"), before);
    let [masked, filled, truth] = [0, 1, 2].map(|i| values(&pictures.columns[i].1));
    for (i, hidden) in values(&draws[0]).iter().flat_map(|h| [h; 3]).enumerate() {
        match *hidden == 1.0 {
            true => assert!(masked[i] == 0.5 && filled[i] != truth[i]),
            false => assert!((masked[i] - truth[i]).abs() < 1e-6 && (filled[i] - truth[i]).abs() < 1e-6),
        }
    }
}

#[test]
fn settings_out_of_range_are_refused_and_a_stuck_loss_is_said() {
    for (wrong, named) in [
        ("area = 0.0", "area"),
        ("area = 1.0", "some must be hidden and some left"),
        ("hole = \"centre\"\nring = 9", "some must be hidden"),
        ("ring_weight = -1.0", "ring_weight"),
        ("adversarial_weight = 1.5", "adversarial_weight"),
        ("discriminator_width = 0", "discriminator_width"),
        ("discriminator_rate = 0.0", "discriminator_rate"),
        ("decoder_width = 0", "decoder_width"),
        ("view.size = 13", "view.size"),
        ("hole = \"corner\"", "corner"),
    ] {
        let size = if wrong.starts_with("view") { "" } else { "view.size = 12\n" };
        let error =
            common::try_build("inpainting", &TINY, &resnet(), &format!("{size}{wrong}")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}: {error}");
        assert!(error.message().contains(named), "{wrong}: {error}");
    }
    let dropping = Arch { drop_path: Some(0.1), ..common::vit() };
    let error = common::try_build("inpainting", &TINY, &dropping, "view.size = 12").err().unwrap();
    assert!(error.message().contains("drop_path"), "{error}");
    let method = build(&TINY, "");
    let figures = |error: f32| move |name: &str| Some(if name == "hole_error" { error } else { 0.4 });
    assert!(method.warning(&figures(0.4)).unwrap().contains("nothing is learnt"));
    assert_eq!(method.warning(&figures(0.3)), None);
}
