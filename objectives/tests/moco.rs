//! MoCo v1 and v2: closed forms, the queue, the key encoder, and what each silent failure would change.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::module::parts;
use autograd::{Var, no_grad};
use common::{Drive, TINY, cosines, log_softmax, noise, resnet, signal};
use engine::{Device, Tensor};
use kernels::array::Array;
use models::{Arch, MlpSpec, Mode};
use objectives::branch::Branch;
use objectives::moco::info_nce;
use objectives::momentum::follow;
use objectives::queue::KeyQueue;
use objectives::{Run, draws};

/// A ResNet whose batch norm sees halves of a batch.
fn split() -> Arch {
    Arch { norm_splits: Some(2), ..resnet() }
}

fn moco(method: &str, changes: &str) -> Drive {
    let changes = format!("queue = 32\ndim = 8\n{changes}");
    Drive::new(common::build(method, &TINY, &split(), &changes), 8, 20)
}

fn views(drive: &Drive, seed: u64) -> Vec<Tensor> {
    noise(drive.objective.as_ref(), drive.run.batch, 1, seed)
}

/// Collapsed vectors are as similar to the key as to each of the queue: ln(K + 1).
#[test]
fn collapsed_vectors_cost_the_logarithm_of_the_number_of_keys() {
    for (keys, expected) in [(65536usize, 11.09037), (4096, 8.31801)] {
        let same = |rows: usize| {
            let values: Vec<f32> = (0..rows).flat_map(|_| [0.6, 0.8]).collect();
            Tensor::from_slice(&values, &[rows, 2]).unwrap()
        };
        let q = Var::constant(same(3));
        let loss = info_nce(&q, &q, &same(keys), 0.07).unwrap().value().item().unwrap();
        assert!((f64::from(loss) - expected).abs() < 1e-4, "{loss} for {expected}");
    }
}

/// The queue starts as unit vectors; then its rows are the newest keys, in order, and go around the end.
#[test]
fn the_queue_holds_the_newest_keys_in_order_and_wraps() {
    let mut queue = KeyQueue::new(6, 5, 3).unwrap();
    for row in queue.keys().to_vec::<f32>().unwrap().chunks(5) {
        assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    for step in 0..5u64 {
        let values: Vec<f32> = (0..20).map(|i| 100.0 * step as f32 + i as f32).collect();
        let rows = KeyQueue::rows(6, step, 4).unwrap();
        queue.put(&rows, &Tensor::from_slice(&values, &[4, 5]).unwrap()).unwrap();
    }
    // Key number n (0 to 19) starts with 100 (n / 4) + 5 (n mod 4) and lies in row n mod 6: the newest six are 14 to 19.
    let first: Vec<f32> = queue.keys().to_vec::<f32>().unwrap().chunks(5).map(|row| row[0]).collect();
    assert_eq!(first, [410.0, 415.0, 310.0, 315.0, 400.0, 405.0]);
}

/// Keys enter after the logits: the loss of a step does not see its own keys, the next one does.
#[test]
fn keys_enter_the_queue_after_the_step_and_are_unit_vectors() {
    let mut drive = moco("moco-v2", "");
    let before = drive.value("queue");
    let batch = views(&drive, 1);
    let loss = drive.loss(&batch).value.value().item().unwrap();
    assert_eq!(drive.value("queue"), before, "the queue is as it was when the loss is computed");
    assert_eq!(drive.step(&batch), loss);
    let after = drive.value("queue");
    assert_ne!(after[..8 * 8], before[..8 * 8]);
    assert_eq!(after[8 * 8..], before[8 * 8..]);
    for row in after.chunks(8) {
        assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    // Four batches of eight fill the queue of 32; the fifth goes to the first rows again.
    for step in 1..5 {
        let before = drive.value("queue");
        drive.step(&views(&drive, step as u64 + 1));
        let after = drive.value("queue");
        for (i, (a, b)) in after.chunks(8 * 8).zip(before.chunks(8 * 8)).enumerate() {
            assert_eq!(a != b, i == step % 4, "rows of batch {i} at step {step}");
        }
    }
}

/// InfoNCE of each query with its key and the queue as it was before the step, at the temperature that is set.
#[test]
fn the_loss_is_that_of_the_keys_and_the_queue() {
    for temperature in [0.2, 0.7] {
        let mut drive = moco("moco-v2", &format!("temperature = {temperature}"));
        let tensor = |values: &[f32]| Tensor::from_slice(values, &[values.len() / 8, 8]).unwrap();
        let (batch, queue) = (views(&drive, 1), tensor(&drive.value("queue")));
        let queries = drive.loss(&batch).embeddings;
        let value = f64::from(drive.step(&batch));
        let keys = tensor(&drive.value("queue")[..8 * 8]);
        let (positive, negative) = (cosines(&queries, &keys), cosines(&queries, &queue));
        let row = |i: usize| -log_softmax(&[&[positive[i][i]], &negative[i][..]].concat(), temperature)[0];
        let expected = (0..8).map(row).sum::<f64>() / 8.0;
        assert!((value - expected).abs() < 1e-4, "{value} for {expected}");
    }
}

/// Every step has its own order, and the second index undoes the first.
#[test]
fn orders_differ_by_the_step_and_come_with_their_inverse() {
    let order = |step| draws::order(3, step, 16).unwrap().map(|x| x.to_vec::<i32>().unwrap());
    let iota: Vec<i32> = (0..16).collect();
    for step in 0..4 {
        let [forward, back] = order(step);
        assert_ne!(forward, iota);
        assert_eq!(back.iter().map(|&i| forward[i as usize]).collect::<Vec<_>>(), iota);
        assert_eq!(order(step), [forward.clone(), back]);
        assert_ne!(order(step + 1)[0], forward);
    }
}

/// The key encoder gets no gradient, starts as the query encoder, and moves to m k + (1 - m) q at the next loss.
#[test]
fn the_key_encoder_follows_and_is_not_trained() {
    let mut drive = moco("moco-v1", "momentum = 0.9");
    let online = "projector.0.weight";
    let target = "key.projector.0.weight";
    assert_eq!(drive.value(online), drive.value(target));
    let batch = views(&drive, 1);
    drive.step(&batch);
    let (q, k) = (drive.value(online), drive.value(target));
    assert_ne!(q, k, "the query encoder moved alone: the key encoder moves before the next keys");
    drive.loss(&batch).value.backward().unwrap();
    let (m, rest) = (0.9f32, (1.0 - f64::from(0.9f32)) as f32);
    let expected: Vec<f32> = k.iter().zip(&q).map(|(k, q)| m * k + rest * q).collect();
    for (value, wanted) in drive.value(target).iter().zip(&expected) {
        assert!((value - wanted).abs() <= f32::EPSILON * wanted.abs(), "{value} for {wanted}");
    }
    for (name, param) in parts(drive.objective.networks()).params {
        let follows = name.starts_with("key.");
        assert_eq!(param.is_trainable(), !follows, "{name}");
        assert_eq!(param.gradient().is_some(), !follows, "{name}");
    }
}

/// Statistics of the key encoder are its own: they are not moved by momentum, but by its batches.
#[test]
fn batch_norm_statistics_do_not_follow() {
    let mut drive = moco("moco-v2", "momentum = 1.0");
    let name = "encoder.bn1.running_mean";
    drive.step(&views(&drive, 1));
    let key = drive.value(&format!("key.{name}"));
    assert!(key.iter().any(|v| *v != 0.0), "the key encoder sees its batches in training mode");
    assert_ne!(drive.value(name), key);
    // A follower that keeps nothing of itself takes over every parameter and no statistic.
    let encoder = models::build(&resnet(), common::image(&TINY), 1).unwrap();
    let spec = MlpSpec::simclr(encoder.dim(), 16, 8, 2);
    let mut online = Branch::new(encoder, spec, 1).unwrap();
    let mut key = online.follower(spec).unwrap();
    online.project(&Array::<f32>::random(&[8, 12, 12, 1], 5, 1.0).to_tensor().unwrap(), None).unwrap();
    common::scale(&mut online, "projector.0.weight", 2.0);
    follow(&mut key, &mut online, &Tensor::from_slice(&[0f32], &[1]).unwrap()).unwrap();
    let values = |x: &Tensor| x.to_vec::<f32>().unwrap();
    let (online, key) = (parts(&mut online), parts(&mut key));
    for ((name, a), (_, b)) in online.params.iter().zip(&key.params) {
        assert_eq!(values(a.value()), values(b.value()), "{name}");
    }
    for ((name, a), (_, b)) in online.buffers.iter().zip(&key.buffers) {
        let start = if name.ends_with("running_var") { 1.0 } else { 0.0 };
        assert!(values(b.value()).iter().all(|v| *v == start), "{name} followed");
        assert_ne!(values(a.value()), values(b.value()), "{name}");
    }
}

/// v1 has one linear layer, v2 two; neither is normalised.
#[test]
fn the_projectors_are_those_of_the_papers() {
    let names = |method: &str| -> Vec<String> {
        let all = moco(method, "").names();
        all.into_iter().map(|n| n.0).filter(|n| n.starts_with("projector.")).collect()
    };
    assert_eq!(names("moco-v1"), ["projector.0.weight", "projector.0.bias"]);
    let v2 = ["projector.0.weight", "projector.0.bias", "projector.2.weight", "projector.2.bias"];
    assert_eq!(names("moco-v2"), v2);
}

/// Why batch norm needs parts: with whole batches a shuffle changes nothing but the order, with parts it does.
#[test]
fn shuffling_protects_only_where_parts_are_normalised() {
    let images = Array::<f32>::random(&[8, 12, 12, 1], 5, 1.0).to_tensor().unwrap();
    let order = Tensor::from_slice(&[3i32, 6, 0, 5, 2, 7, 1, 4], &[8]).unwrap();
    let rows = images.reshape(&[8, 144]).unwrap();
    let shuffled = kernels::copy::gather_rows(&rows, &order).unwrap().reshape(&[8, 12, 12, 1]).unwrap();
    for (arch, protected) in [(resnet(), false), (split(), true)] {
        let mut encoder = models::build(&arch, common::image(&TINY), 1).unwrap();
        let _off = no_grad();
        let mut features =
            |x: &Tensor| encoder.features(&Var::constant(x.clone()), Mode::Train).unwrap().into_value();
        let plain = kernels::copy::gather_rows(&features(&images), &order).unwrap();
        let (a, b) = (plain.to_vec::<f32>().unwrap(), features(&shuffled).to_vec::<f32>().unwrap());
        let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(largest > 1e-3, protected, "difference {largest}");
    }
}

/// The loss does see the keys in the images' order again: without the way back it is that of wrong pairs.
#[test]
fn keys_return_to_the_order_of_their_queries() {
    let mut drive = moco("moco-v2", "temperature = 0.1");
    let view = views(&drive, 3).remove(0);
    let twice = [view.clone(), view];
    let right = signal(&drive.loss(&twice), "positive_similarity");
    let mut draws = drive.drawn();
    draws[1] = Tensor::from_slice(&[0i32, 1, 2, 3, 4, 5, 6, 7], &[8]).unwrap();
    let wrong = signal(&drive.loss_of(&twice, &draws).unwrap(), "positive_similarity");
    assert!(right > wrong + 1e-3, "{right} and {wrong}");
}

#[test]
fn runs_that_do_not_suit_the_queue_are_refused_and_risks_are_said() {
    let run = |batch| Run { steps: 10, steps_per_epoch: 5, batch, device: Device::Cpu };
    let mut method = common::build("moco-v2", &TINY, &split(), "queue = 32");
    let error = method.begin(&run(12)).unwrap_err();
    assert!(error.message().contains("multiple of training.batch"), "{error}");
    let mut odd = common::build("moco-v2", &TINY, &Arch { norm_splits: Some(8), ..resnet() }, "queue = 36");
    assert!(odd.begin(&run(12)).unwrap_err().message().contains("norm_splits"));
    method.begin(&run(8)).unwrap();
    assert_eq!(method.warning(&|_| None), None);
    let mut long = common::build("moco-v2", &TINY, &split(), "queue = 1000");
    long.begin(&run(8)).unwrap();
    assert!(long.warning(&|_| None).unwrap().contains("shorter settings.queue"));
    let mut open = common::build("moco-v2", &TINY, &resnet(), "queue = 32");
    open.begin(&run(8)).unwrap();
    assert!(open.warning(&|_| None).unwrap().contains("norm_splits"));
    for wrong in ["temperature = 0.0", "momentum = 1.5", "queue = 0", "dim = 0", "view.flip = 2.0"] {
        assert!(common::try_build("moco-v1", &TINY, &split(), wrong).is_err(), "{wrong}");
    }
}

/// The loss starts low, where all negatives are noise, and rises as keys of images replace it; it stays below the loss of a
/// collapse.
#[test]
fn the_loss_rises_while_keys_replace_the_noise_and_stays_below_a_collapse() {
    let mut drive = moco("moco-v2", "temperature = 0.5\nmomentum = 0.5");
    let losses: Vec<f32> = (0..12).map(|step| drive.step(&views(&drive, step))).collect();
    assert!(losses[0] < losses[4] && losses.iter().all(|l| *l < 33f32.ln()), "{losses:?}");
}
