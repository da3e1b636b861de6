//! Relative position: labels, pairs, what is done to patches, chance on noise and on patches of other images.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use common::{Drive, accuracy_after, augmented_noise, noise, resnet, round, signal};
use engine::random::Purpose;
use engine::{Device, ErrorKind, Philox, Tensor};
use objectives::DataProfile;
use objectives::draws::Dropout;
use objectives::relative_position::{NEIGHBOURS, pairs};
use objectives::tiles::TILES;

const GREY: DataProfile = DataProfile { height: 18, width: 18, channels: 1, len: 1000 };
const COLOUR: DataProfile = DataProfile { channels: 3, ..GREY };

/// Views of 18 pixels in cells of 6, patches of 4 that move by up to 2.
const SMALL: &str =
    "hidden = 32\nhead_rate = 1.0\nview.size = 18\ntiles.size = 4\ntiles.jitter = 2\ndropout = 0.2";

fn build(profile: &DataProfile, changes: &str) -> Box<dyn objectives::Objective> {
    let mut table: toml::Table = SMALL.parse().unwrap();
    common::merge(&mut table, changes.parse().unwrap());
    common::build("relative-position", profile, &resnet(), &table.to_string())
}

fn drive(profile: &DataProfile, batch: usize, changes: &str) -> Drive {
    Drive::new(build(profile, changes), batch, 4000)
}

/// Label l names the place of the second patch, and the pair with its patches exchanged has 7 - l.
#[test]
fn labels_are_directions_and_exchanged_patches_have_the_opposite_one() {
    let [first, second, labels] = pairs(3, Device::Cpu).unwrap().map(|t| t.to_vec::<i32>().unwrap());
    assert_eq!(labels.len(), 3 * 2 * NEIGHBOURS);
    let names = ["up left", "up", "up right", "left", "right", "down left", "down", "down right"];
    let at = |row: i32| [row % 9 / 3, row % 3];
    for i in 0..labels.len() {
        assert_eq!(
            (first[i] / 9, second[i] / 9),
            ((i / 16) as i32, (i / 16) as i32),
            "both are of one image"
        );
        let ([y, x], [v, u]) = (at(first[i]), at(second[i]));
        let vertical = ["down", "", "up"][(y - v + 1) as usize];
        let horizontal = ["right", "", "left"][(x - u + 1) as usize];
        let name = format!("{vertical} {horizontal}");
        assert_eq!(names[labels[i] as usize], name.trim());
        if i % 2 == 0 {
            assert_eq!(first[i] % 9, 4, "from the centre");
            assert_eq!((first[i], second[i]), (second[i + 1], first[i + 1]));
            assert_eq!(labels[i + 1], 7 - labels[i]);
        }
    }
    let mut counts = [0; 8];
    labels.iter().for_each(|&l| counts[l as usize] += 1);
    assert_eq!(counts, [6; 8], "every direction as often");
}

/// A network that knows nothing pays about ln 8.
#[test]
fn the_first_loss_is_that_of_guessing() {
    let mut drive = drive(&GREY, 16, "");
    let batch = noise(drive.objective.as_ref(), 16, 1, 1);
    let loss = drive.loss(&batch);
    let value = loss.value.value().item().unwrap();
    assert!((value - 8f32.ln()).abs() < 0.4, "{value}");
    assert_eq!(loss.embeddings.shape(), [16 * TILES, 16]);
}

/// Dropout keeps the mean, drops its part, gives each row a mask of its own, and passes gradients where values pass.
#[test]
fn dropout_drops_its_part_and_keeps_the_mean() {
    assert!(Dropout::of(0.0, 4, 1).is_none());
    let mut dropout = Dropout::of(0.25, 40, 1).unwrap();
    let mut random = Philox::new(1, Purpose::Test, 0);
    let rows = dropout.draw(&mut random, 500).unwrap();
    let x = Var::leaf(Tensor::full(&[500, 40], 1.0, Device::Cpu).unwrap());
    assert!(dropout.apply("test", &x, &rows).unwrap_err().message().contains("begin"));
    dropout.begin(Device::Cpu).unwrap();
    let y = dropout.apply("test", &x, &rows).unwrap();
    let values = y.value().to_vec::<f32>().unwrap();
    assert!(values.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    let dropped = values.iter().filter(|v| **v == 0.0).count() as f64 / 20_000.0;
    // Four standard errors of 20,000 draws.
    assert!((dropped - 0.25).abs() < 4.0 * (0.25f64 * 0.75 / 20_000.0).sqrt(), "{dropped}");
    assert_ne!(values[..40], values[40..80]);
    autograd::ops::sum(&y, &[0, 1]).unwrap().backward().unwrap();
    assert_eq!(x.gradient().unwrap().to_vec::<f32>().unwrap(), values);
}

/// What is drawn for a step, by what it is.
fn drawn(drive: &Drive) -> Vec<Vec<i32>> {
    drive.drawn().iter().map(|t| t.to_vec::<i32>().unwrap()).collect()
}

/// Dropped colours are noise of a hundredth of the kept one's deviation; the kept one is as it was. On grey images nothing is
/// dropped and nothing is drawn for it.
#[test]
fn all_colours_but_one_become_noise() {
    let plain = drive(&COLOUR, 12, "drop_colors = 0.0\nshrink = 0.0\ndropout = 0.0");
    assert_eq!(plain.drawn().len(), 1);
    let grey = drive(&GREY, 12, "drop_colors = 1.0\nshrink = 0.0\ndropout = 0.0");
    assert_eq!(grey.drawn().len(), 1);
    let dropping = drive(&COLOUR, 12, "drop_colors = 0.5\nshrink = 0.0\ndropout = 0.0");
    let rows = drawn(&dropping).remove(1);
    let planes = 12 * TILES * 3;
    let mut patches = 0;
    for (patch, rows) in rows.chunks_exact(3).enumerate() {
        let kept: Vec<usize> = (0..3).filter(|&c| rows[c] as usize == 3 * patch + c).collect();
        assert!(rows.iter().all(|&r| (r as usize) < planes + 1024));
        assert!(kept.len() == 3 || kept.len() == 1, "{rows:?}");
        patches += usize::from(kept.len() == 1);
    }
    assert!((30..78).contains(&patches), "{patches} of 108");
    // Through the method: a network that is given three equal channels sees them differ.
    let mut all = drive(&COLOUR, 12, "drop_colors = 1.0\nshrink = 0.0\ndropout = 0.0");
    let mut none = drive(&COLOUR, 12, "drop_colors = 0.0\nshrink = 0.0\ndropout = 0.0");
    let batch = noise(all.objective.as_ref(), 12, 3, 1);
    let (a, b) = (all.loss(&batch), none.loss(&batch));
    assert_ne!(a.embeddings.to_vec::<f32>().unwrap(), b.embeddings.to_vec::<f32>().unwrap());
}

/// A patch that is shrunk and enlarged loses detail; one that is not is the same, bit for bit.
#[test]
fn shrunk_patches_lose_detail_and_others_nothing() {
    let never = "drop_colors = 0.0\nshrink = 1e-9\ndropout = 0.0";
    let mut plain = drive(&GREY, 8, "drop_colors = 0.0\nshrink = 0.0\ndropout = 0.0");
    let mut whole = drive(&GREY, 8, never);
    let batch = noise(plain.objective.as_ref(), 8, 1, 1);
    let places = plain.drawn().remove(0);
    let rows = |side: i32| Tensor::from_slice(&[side - 1; 8 * TILES], &[8 * TILES]).unwrap();
    let mut seen = |side: i32| {
        let loss = whole.loss_of(&batch, &[places.clone(), rows(side)]).unwrap();
        loss.embeddings.to_vec::<f32>().unwrap()
    };
    let expected =
        plain.loss_of(&batch, std::slice::from_ref(&places)).unwrap().embeddings.to_vec::<f32>().unwrap();
    assert_eq!(seen(4), expected);
    assert_ne!(seen(2), expected);
    assert_ne!(seen(1), seen(2));
    let sides = drawn(&drive(&GREY, 64, "drop_colors = 0.0\nshrink = 0.33\ndropout = 0.0")).remove(1);
    let shrunk = sides.iter().filter(|s| **s != 3).count() as f64 / sides.len() as f64;
    assert!((0.2..0.4).contains(&shrunk), "{shrunk}: a third, of which some keep their side");
    assert!(sides.iter().all(|s| (0..4).contains(s)));
}

/// Noise has no neighbours.
#[test]
fn noise_stays_at_chance() {
    let mut drive = drive(&GREY, 16, "");
    let objective = build(&GREY, "");
    let views = |step| augmented_noise(objective.as_ref(), &GREY, 16, 1000 + step);
    let (right, error) = accuracy_after(&mut drive, 300, 30, 256, 8, views);
    assert!((right - 0.125).abs() < 4.0 * error, "{right} where chance is 0.125 +- {error}");
}

/// The positive control and its counterpart: where patches of one image lie is learnt, of two images it is guessed.
#[test]
fn patches_of_different_images_lie_nowhere() {
    let train = |mixed: bool| {
        let batch = 16;
        let mut drive = drive(&GREY, batch, "dropout = 0.0");
        let mut right = 0.0;
        for step in 0..250 {
            let views = [round(batch, step)];
            let mut draws = drive.drawn();
            if mixed {
                // Patch i of an image is taken from the i-th image after it.
                let places = draws[0].as_mut_slice::<i32>().unwrap();
                for (tile, place) in places.chunks_exact_mut(3).enumerate() {
                    place[0] = ((tile / TILES + tile % TILES) % batch) as i32;
                }
            }
            let loss = drive.loss_of(&views, &draws).unwrap();
            if step >= 200 {
                right += f64::from(signal(&loss, "accuracy")) / 50.0;
            }
            loss.value.backward().unwrap();
            drop(loss);
            drive.update();
        }
        right
    };
    let (one, many) = (train(false), train(true));
    // The sixteen pairs of an image share nine patches: errors of guesses are at most those of as many images.
    let error = (0.125f64 * 0.875 / (50.0 * 16.0)).sqrt();
    assert!(one > 0.3, "{one}");
    assert!((many - 0.125).abs() < 4.0 * error, "{many} where chance is 0.125 +- {error}");
}

/// Layers behind the encoder learn faster by as much as is set.
#[test]
fn the_head_has_a_rate_of_its_own() {
    let objective = build(&GREY, "head_rate = 5.0");
    assert_eq!(objective.special("encoder.conv1.weight").rate_scale, 1.0);
    for name in ["hidden.weight", "norm.bias", "head.weight"] {
        assert_eq!(objective.special(name).rate_scale, 5.0);
    }
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    for (wrong, named) in [
        ("hidden = 0", "hidden"),
        ("dropout = 1.0", "dropout"),
        ("head_rate = 0.0", "head_rate"),
        ("drop_colors = 1.5", "drop_colors"),
        ("shrink = -0.1", "shrink"),
        ("tiles.size = 9", "tiles.size"),
    ] {
        let mut table: toml::Table = SMALL.parse().unwrap();
        common::merge(&mut table, wrong.parse().unwrap());
        let error =
            common::try_build("relative-position", &GREY, &resnet(), &table.to_string()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}: {error}");
        assert!(error.message().contains(named), "{wrong}: {error}");
    }
    let mut method = build(&GREY, "");
    let batch = noise(method.as_ref(), 4, 1, 1);
    let clock = objectives::draws::clock(0, Device::Cpu).unwrap();
    let batch = objectives::Batch { views: &batch, draws: &[], clock: &clock };
    assert!(method.loss(&batch).err().unwrap().message().contains("begin"));
}
