//! MAE: what the encoder sees, what the loss counts, closed forms.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::Var;
use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use common::{Drive, TINY, noise, signal, vit};
use engine::{Device, Tensor};
use kernels::array::Array;
use models::{Arch, Position, VitInput};
use objectives::DataProfile;
use objectives::mae::{Masks, patchify, reconstruction, targets};

fn arch() -> Arch {
    Arch { position: Some(Position::Sincos), ..vit() }
}

/// Views of 12 pixels: nine patches of 4, of which two stay.
fn mae(changes: &str) -> Drive {
    let changes = format!("decoder_width = 16\ndecoder_depth = 1\ndecoder_heads = 2\n{changes}");
    Drive::new(common::build("mae", &TINY, &arch(), &changes), 8, 20)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

fn numbers(x: &Tensor) -> Vec<i32> {
    x.to_vec::<i32>().unwrap()
}

/// A quarter stays (196 -> 49, 64 -> 16, 49 -> 12, 16 -> 4), every patch is kept or removed, and restoring undoes the order.
#[test]
fn masks_keep_a_quarter_and_put_every_patch_back() {
    for (patches, kept) in [(196usize, 49usize), (64, 16), (49, 12), (16, 4)] {
        assert_eq!((patches as f64 * 0.25) as usize, kept);
        let batch = 5;
        let masks = Masks::draw(7, 3, batch, patches, kept).unwrap();
        let (stay, gone, restore) = (numbers(&masks.kept), numbers(&masks.removed), numbers(&masks.restore));
        assert_eq!(
            (stay.len(), gone.len(), restore.len()),
            (batch * kept, batch * (patches - kept), batch * patches)
        );
        let mut all: Vec<i32> = [stay.clone(), gone.clone()].concat();
        all.sort();
        assert_eq!(all, (0..(batch * patches) as i32).collect::<Vec<_>>());
        for (sample, rows) in stay.chunks(kept).enumerate() {
            assert!(rows.iter().all(|r| *r as usize / patches == sample), "each sample keeps its own");
        }
        // The identity on iota: the token of a kept patch goes back to its place, the others are the mask token.
        for (place, &from) in restore.iter().enumerate() {
            match stay.get(from as usize) {
                Some(&row) => assert_eq!(row as usize, place),
                None => assert!(from as usize == batch * kept && gone.contains(&(place as i32))),
            }
        }
    }
    let rows = |step| numbers(&Masks::draw(7, step, 4, 16, 4).unwrap().kept);
    assert_eq!(rows(0), rows(0));
    assert_ne!(rows(0), rows(1), "every step has other masks");
    let one = rows(0);
    assert_ne!(one[..4], one[4..8].iter().map(|r| r - 16).collect::<Vec<_>>()[..], "every sample too");
}

/// Patches and back is the identity: rows, then columns, then channels.
#[test]
fn patches_have_the_order_row_column_channel() {
    let (h, w, c, p) = (4usize, 6usize, 3usize, 2usize);
    let values: Vec<f32> = (0..2 * h * w * c).map(|v| v as f32).collect();
    let images = Tensor::from_slice(&values, &[2, h, w, c]).unwrap();
    let rows = patchify(&images, p).unwrap();
    assert_eq!(rows.shape(), [2 * 2 * 3, p * p * c]);
    let rows = rows.to_vec::<f32>().unwrap();
    for (row, patch) in rows.chunks(p * p * c).enumerate() {
        let (b, at) = (row / 6, row % 6);
        let (top, left) = (at / 3 * p, at % 3 * p);
        for (i, v) in patch.iter().enumerate() {
            let (y, x, channel) = (top + i / (p * c), left + i / c % p, i % c);
            assert_eq!(*v, (((b * h + y) * w + x) * c + channel) as f32);
        }
    }
    assert!(patchify(&images, 4).is_err());
}

/// Predicting zero for normalised targets costs (d - 1) / d exactly, whatever the image; constant patches cost nothing.
#[test]
fn a_prediction_of_zero_costs_what_the_closed_form_says() {
    for (patch, channels, expected) in
        [(4usize, 1usize, 0.9375f64), (4, 3, 0.97917), (7, 1, 0.97959), (14, 1, 0.99490)]
    {
        let image = Array::<f32>::random(&[3, 2 * patch, 2 * patch, channels], 4, 1.0).to_tensor().unwrap();
        let wanted = targets(&image, patch, true).unwrap();
        let rows = Tensor::from_slice(&(0..12).collect::<Vec<i32>>(), &[12]).unwrap();
        let zero = Var::constant(Tensor::zeros(wanted.shape(), engine::DType::F32, Device::Cpu).unwrap());
        let loss = f64::from(reconstruction(&zero, &wanted, &rows).unwrap().value().item().unwrap());
        let d = (patch * patch * channels) as f64;
        assert!((expected - (d - 1.0) / d).abs() < 1e-5);
        assert!((loss - (d - 1.0) / d).abs() < 2e-5, "{loss} for {}", (d - 1.0) / d);
        let flat = Tensor::full(&[1, patch, patch, channels], 0.7, Device::Cpu).unwrap();
        assert!(targets(&flat, patch, true).unwrap().to_vec::<f32>().unwrap().iter().all(|v| v.abs() < 1e-3));
    }
}

/// The encoder's output does not change by a bit when removed patches do: nothing of them is seen.
#[test]
fn the_encoder_sees_nothing_of_removed_patches() {
    let mut drive = mae("");
    let images = views(&drive, 1).remove(0);
    let draws = drive.drawn();
    let mut changed = images.clone();
    let removed = numbers(&draws[1]);
    let pixels = changed.as_mut_slice::<f32>().unwrap();
    for row in removed {
        let (b, at) = (row as usize / 9, row as usize % 9);
        for y in 0..4 {
            for x in 0..4 {
                pixels[(b * 12 + at / 3 * 4 + y) * 12 + at % 3 * 4 + x] += 5.0 + row as f32;
            }
        }
    }
    let mut features = |images: &Tensor| {
        let images = Var::constant(images.clone());
        let input = VitInput { images: &images, rows: None, kept: Some(&draws[0]), keep: None };
        let tokens = drive.objective.encoder().vit().unwrap().forward(&input).unwrap();
        tokens.x.value().to_vec::<f32>().unwrap()
    };
    assert_eq!(features(&images), features(&changed), "bit for bit");
    let shape = {
        let images = Var::constant(images.clone());
        let input = VitInput { images: &images, rows: None, kept: Some(&draws[0]), keep: None };
        drive.objective.encoder().vit().unwrap().forward(&input).unwrap().x.shape().to_vec()
    };
    assert_eq!(shape, [8, 1 + 2, 24], "the class token and two of nine patches");
    // In a step too; the loss does depend on them: they are what is predicted.
    let (before, after) = (drive.loss(&[images]), drive.loss(&[changed]));
    assert_ne!(before.value.value().item().unwrap(), after.value.value().item().unwrap());
    let embeddings = |loss: &objectives::Loss| loss.embeddings.to_vec::<f32>().unwrap();
    assert_eq!(embeddings(&before), embeddings(&after), "bit for bit");
}

/// The target of a visible patch does not count: predictions there get no gradient and its pixels no weight.
#[test]
fn the_loss_counts_removed_patches_alone() {
    let wanted = Array::<f32>::random(&[6, 4], 1, 1.0).to_tensor().unwrap();
    let removed = Tensor::from_slice(&[1i32, 4], &[2]).unwrap();
    let prediction = Var::leaf(Array::<f32>::random(&[6, 4], 2, 1.0).to_tensor().unwrap());
    let loss = reconstruction(&prediction, &wanted, &removed).unwrap();
    let mut other = wanted.clone();
    other.as_mut_slice::<f32>().unwrap()[..4].iter_mut().for_each(|v| *v += 10.0);
    let same = reconstruction(&prediction, &other, &removed).unwrap();
    assert_eq!(loss.value().item().unwrap(), same.value().item().unwrap());
    loss.backward().unwrap();
    for (row, gradient) in prediction.gradient().unwrap().to_vec::<f32>().unwrap().chunks(4).enumerate() {
        assert_eq!(gradient.iter().any(|g| *g != 0.0), row == 1 || row == 4, "row {row}");
    }
}

/// A decoder that predicts zero costs the mean square of the removed patches, of their pixels as they are or normalised by
/// their own mean and unbiased variance, whatever the visible ones are.
#[test]
fn a_step_counts_the_removed_patches_as_the_settings_say() {
    for normalize in [false, true] {
        let mut drive = mae(&format!("normalize_targets = {normalize}"));
        drive.scale("decoder.decoder_pred.weight", 0.0);
        let mut images = views(&drive, 1).remove(0);
        // Patches of different brightness and contrast.
        let pixels = images.as_mut_slice::<f32>().unwrap();
        pixels
            .iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v = *v * (1.0 + (i / 12 % 12) as f32) + (i % 12) as f32);
        let patches = common::rows(&patchify(&images, 4).unwrap());
        let removed = numbers(&drive.drawn()[1]);
        let square = |row: &i32| {
            let patch = &patches[*row as usize];
            let mean = if normalize { patch.iter().sum::<f64>() / 16.0 } else { 0.0 };
            let sum = patch.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            sum / 16.0 / if normalize { sum / 15.0 } else { 1.0 }
        };
        let expected = removed.iter().map(square).sum::<f64>() / removed.len() as f64;
        let loss = drive.loss(&[images]);
        for value in [loss.value.value().item().unwrap(), signal(&loss, "zero_prediction")] {
            assert!((f64::from(value) / expected - 1.0).abs() < 1e-4, "{value} for {expected}");
        }
    }
}

/// Predictions in bf16 are compared in f32.
#[test]
fn predictions_in_bf16_are_compared_in_f32() {
    let wanted = Array::<f32>::random(&[6, 4], 1, 1.0).to_tensor().unwrap();
    let removed = Tensor::from_slice(&[1i32, 4], &[2]).unwrap();
    let random = Array::<f32>::random(&[6, 4], 2, 1.0).to_tensor().unwrap();
    let low = kernels::copy::cast(&random, engine::DType::BF16).unwrap();
    let same = kernels::copy::cast(&low, engine::DType::F32).unwrap();
    let loss =
        |x: Tensor| reconstruction(&Var::constant(x), &wanted, &removed).unwrap().value().item().unwrap();
    assert_eq!(loss(low), loss(same));
}

/// Positions are fixed; everything else is trained, the mask token too.
#[test]
fn positions_have_no_gradient_and_all_else_has() {
    let mut drive = mae("");
    let batch = views(&drive, 1);
    drive.loss(&batch).value.backward().unwrap();
    for (name, param) in parts(drive.objective.networks()).params {
        assert_eq!(param.gradient().is_some(), param.is_trainable(), "{name}");
        assert_eq!(param.is_trainable(), !name.ends_with("pos_embed"), "{name}");
    }
    assert!(drive.names().iter().any(|n| n.0 == "decoder.mask_token"));
}

/// The positive control: eight images are learnt by heart.
#[test]
fn eight_images_are_learnt_by_heart() {
    let profile = DataProfile { height: 8, width: 8, channels: 1, len: 8 };
    let arch = Arch { width: Some(48), patch: Some(4), heads: Some(4), ..arch() };
    let changes = "mask_ratio = 0.5\ndecoder_width = 48\ndecoder_depth = 2\ndecoder_heads = 4\n\
                   normalize_targets = false";
    let method = common::build("mae", &profile, &arch, changes);
    let adam = Optimizer::new(Algorithm::AdamW { betas: (0.9, 0.95), eps: 1e-8 }, 0.0);
    let mut drive = Drive::new(method, 8, 1000).with(adam, 3e-3);
    // Stripes of eight widths and phases.
    let values: Vec<f32> = (0..8 * 64)
        .map(|i| {
            let (image, y, x) = (i / 64, i / 8 % 8, i % 8);
            ((x as f32) * (0.4 + 0.2 * image as f32) + (y as f32) * 0.3 * image as f32).sin()
        })
        .collect();
    let batch = [Tensor::from_slice(&values, &[8, 8, 8, 1]).unwrap()];
    let first = drive.loss(&batch);
    let (start, zero) = (first.value.value().item().unwrap(), signal(&first, "zero_prediction"));
    drop(first);
    assert!((0.4..0.6).contains(&zero), "{zero}: the mean square of a sine");
    let mut last = start;
    for _ in 0..600 {
        last = drive.step(&batch);
    }
    assert!(last < 0.05, "from {start} to {last}");
}

/// Pictures have the input's pixels wherever a patch was seen. A normalised prediction b becomes b times the deviation plus the
/// mean of the true patch, in the image's own values; a prediction of nothing is then what the means give away.
#[test]
fn pictures_show_removed_patches_alone_as_predicted() {
    // Two values of every pixel, three channels, normalised by channel.
    let profile = DataProfile { channels: 3, ..TINY };
    for (normalised, bias) in [(true, 0.0f32), (true, 0.5), (false, 0.5)] {
        let changes = format!(
            "decoder_width = 16\ndecoder_depth = 1\ndecoder_heads = 2\nnormalize = \"cifar\"\nnormalize_targets = {normalised}"
        );
        let mut drive = Drive::new(common::build("mae", &profile, &arch(), &changes), 4, 20);
        for (name, param) in parts(drive.objective.networks()).params {
            if name.starts_with("decoder.decoder_pred.") {
                let value = if name.ends_with("bias") { bias } else { 0.0 };
                param.set(Tensor::full(param.value().shape(), value, Device::Cpu).unwrap()).unwrap();
            }
        }
        let images = noise(drive.objective.as_ref(), 4, 3, 5).remove(0);
        let draws = drive.drawn();
        let clock = objectives::draws::clock(0, Device::Cpu).unwrap();
        let batch = objectives::Batch { views: std::slice::from_ref(&images), draws: &draws, clock: &clock };
        let pictures = drive.objective.pictures(&batch).unwrap().unwrap();
        let names: Vec<&str> = pictures.columns.iter().map(|c| c.0).collect();
        let wanted: &[&str] = match normalised {
            true => &["masked", "leaked_means", "predicted_removed", "truth"],
            false => &["masked", "predicted_removed", "truth"],
        };
        assert_eq!(names, wanted);
        let column = |name: &str| {
            let tensor = &pictures.columns.iter().find(|c| c.0 == name).unwrap().1;
            patchify(tensor, 4).unwrap().to_vec::<f32>().unwrap()
        };
        let (masked, predicted, truth) = (column("masked"), column("predicted_removed"), column("truth"));
        let (mean, std) = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
        let seen = patchify(&images, 4).unwrap().to_vec::<f32>().unwrap();
        let removed = numbers(&draws[1]);
        let d = 48;
        for row in 0..seen.len() / d {
            let patch = &seen[row * d..(row + 1) * d];
            let average = patch.iter().sum::<f32>() / d as f32;
            let deviation =
                (patch.iter().map(|v| (v - average).powi(2)).sum::<f32>() / (d - 1) as f32).sqrt();
            let gone = removed.contains(&(row as i32));
            for i in 0..d {
                let (at, c) = (row * d + i, i % 3);
                let pixel = |v: f32| v * std[c] + mean[c];
                let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{normalised} {row} {i}: {a} {b}");
                near(truth[at], pixel(patch[i]));
                near(masked[at], if gone { 0.5 } else { truth[at] });
                let prediction = if normalised { bias * deviation + average } else { bias };
                near(predicted[at], if gone { pixel(prediction) } else { truth[at] });
                if normalised {
                    near(column("leaked_means")[at], if gone { pixel(average) } else { truth[at] });
                }
            }
        }
    }
}

#[test]
fn settings_out_of_range_are_refused_and_a_stuck_loss_is_said() {
    for (wrong, named) in [
        ("mask_ratio = 1.0", "mask_ratio"),
        ("mask_ratio = 0.0", "leaves 9"),
        ("mask_ratio = 0.95", "leaves 0"),
        ("decoder_width = 0", "decoder_width"),
        ("view.size = 10", "patches of 4"),
    ] {
        let error = common::try_build("mae", &TINY, &arch(), wrong).err().unwrap();
        assert_eq!(error.kind(), engine::ErrorKind::Usage, "{wrong}: {error}");
        assert!(error.message().contains(named), "{wrong}: {error}");
    }
    let error = common::try_build("mae", &TINY, &common::resnet(), "").err().unwrap();
    assert!(error.message().contains("take a ViT"), "{error}");
    let method = common::build("mae", &TINY, &arch(), "");
    let figures = |loss: f32| move |name: &str| Some(if name == "loss" { loss } else { 0.9 });
    assert!(method.warning(&figures(0.9)).unwrap().contains("nothing is learnt"));
    assert_eq!(method.warning(&figures(0.5)), None);
}
