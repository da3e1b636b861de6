//! Every method from the command line on the CPU: it trains, its signals are there, and stopping changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use autograd::module::parts;
use autograd::param::Role;
use common::methods::{SAMPLE, draws_go_on, pretrain, small_config};
use common::{Stage, stderr, stdout, succeeded};
use engine::{Device, Tensor};
use kernels::array::Array;
use objectives::{LearningRate, METHODS, Objective, Run};
use pretext::train::input::StepInput;
use pretext::train::step::Stepper;
use pretext::train::{build, optimizer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that a run leaves, as comparable values.
fn result(folder: &Path) -> (Vec<(String, Vec<u32>)>, String) {
    let mut tensors = Vec::new();
    for file in ["checkpoint.safetensors", "encoder.safetensors"] {
        let contents = engine::safetensors::load(&folder.join(file)).unwrap();
        for (name, tensor) in contents.tensors {
            let bits = tensor.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
            tensors.push((format!("{file} {name}"), bits));
        }
    }
    (tensors, std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap())
}

/// Targets, queues, centres, schedules, masks and dropped branches: all go on where they were, whoever makes the batches.
#[test]
fn every_method_resumes_in_the_bits_of_an_uninterrupted_run() {
    for method in METHODS.iter().map(|m| m.name) {
        let stage = Stage::new();
        // Fourteen steps of eight images: an epoch has twelve.
        let run = ["--steps", "14"];
        succeeded(&pretrain(&stage, method, "whole", &run));
        let whole = result(&stage.path("whole"));
        for stop in ["4", "12"] {
            let out = format!("part{stop}");
            let more = [&run[..], &["--stop-after", stop, "--workers", "2"]].concat();
            let stopped = pretrain(&stage, method, &out, &more);
            assert!(stderr(&stopped).contains("--resume"), "{method}: {}", stderr(&stopped));
            succeeded(&pretrain(&stage, method, &out, &[&run[..], &["--resume", "--workers", "0"]].concat()));
            let part = result(&stage.path(&out));
            assert_eq!(whole.1, part.1, "{method} stopped after {stop}: metrics.jsonl");
            assert_eq!(whole.0.len(), part.0.len(), "{method}");
            for (a, b) in whole.0.iter().zip(&part.0) {
                assert!(a == b, "{method} stopped after {stop}: {} differs", a.0);
            }
        }
        let steps: Vec<Value> = whole.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let losses: Vec<f64> =
            steps.iter().filter(|s| s["event"] == "step").map(|s| s["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 14, "{method}");
        assert!(losses.iter().all(|l| l.is_finite()) && losses.iter().any(|l| *l != losses[0]), "{method}");
        let other = pretrain(&stage, method, "other", &[&run[..], &["--seed", "2"]].concat());
        succeeded(&other);
        assert_ne!(whole.0, result(&stage.path("other")).0, "{method}: another seed is another run");
    }
}

/// What each method watches beside the loss.
#[test]
fn every_method_shows_its_own_signals() {
    let expected: &[(&str, &[&str])] = &[
        ("relative-position", &["accuracy"]),
        ("rotation", &["accuracy"]),
        ("jigsaw", &["accuracy", "hamming_minimum", "hamming_mean"]),
        ("simclr", &["positive_similarity", "negatives"]),
        ("moco-v1", &["positive_similarity", "queue_age"]),
        ("moco-v2", &["positive_similarity", "queue_age"]),
        ("moco-v3", &["positive_similarity"]),
        ("byol", &["positive_similarity"]),
        ("mae", &["zero_prediction"]),
        ("colorization", &["cross_entropy", "constant_loss", "mean_weight"]),
        ("inpainting", &["hole_error", "mean_error", "hole_psnr", "generator_loss", "discriminator_loss"]),
        ("dino", &["teacher_entropy", "divergence", "teacher_concentration", "center_norm"]),
        ("dinov2", &["dino", "ibot", "koleo", "teacher_entropy", "patch_entropy", "center_norm"]),
    ];
    assert_eq!(expected.len(), METHODS.len());
    for (method, signals) in expected {
        let stage = Stage::new();
        let measured =
            ["--steps", "12", "--set", "monitor.every_epochs=1", "--set", "monitor.knn_samples=40"];
        succeeded(&pretrain(&stage, method, "run", &measured));
        let text = std::fs::read_to_string(stage.path("run").join("metrics.jsonl")).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = events.iter().rfind(|e| e["event"] == "step").unwrap();
        for signal in *signals {
            assert!(last[*signal].as_f64().is_some_and(f64::is_finite), "{method}: {signal} in {last}");
        }
        let health = events.iter().find(|e| e["event"] == "health").unwrap();
        for figure in ["std", "rank", "knn"] {
            assert!(health[figure].as_f64().is_some_and(f64::is_finite), "{method}: {figure} in {health}");
        }
    }
}

/// A teacher that is left alone ends in one prototype; the run says so in words.
#[test]
fn a_collapse_is_said_in_words() {
    let stage = Stage::new();
    let collapse =
        ["--steps", "24", "--set", "settings.centering=none", "--set", "training.learning_rate=0.5"];
    let shown =
        [&collapse[..], &["--set", "monitor.every_epochs=1", "--set", "settings.momentum=0.5"]].concat();
    let output = pretrain(&stage, "dino", "run", &shown);
    let said = stdout(succeeded(&output)) + &stderr(&output);
    let metrics = std::fs::read_to_string(stage.path("run").join("metrics.jsonl")).unwrap();
    assert!(said.contains("one-hot collapse") && metrics.contains("\"warning\""), "{said}\n{metrics}");
}

/// A method around an encoder that it cannot use says what to do.
#[test]
fn encoders_that_do_not_suit_a_method_are_refused() {
    let stage = Stage::new();
    for method in ["mae", "dinov2"] {
        let args = ["pretrain", method, "--data", &stage.data(), "--arch", "resnet-small", "--out", "x"];
        let output = stage.run(&args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("vit-micro"), "{}", stderr(&output));
    }
}

#[test]
fn draws_are_of_the_step_of_the_run_and_batches_are_whole() {
    draws_go_on(&Stage::new(), Device::Cpu);
}

/// The parameters and the rate of a small method after step number `step` (from 0) of 24, twelve an epoch, which is the first
/// that is taken: `before` and `after` by name, with their role.
struct OneStep {
    objective: Box<dyn Objective>,
    before: BTreeMap<String, Vec<f32>>,
    rate: f32,
    expected_rate: f64,
}

impl OneStep {
    fn take(method: &str, step: u64, more: &[&str]) -> OneStep {
        let config = small_config(method, more);
        config.training.check().unwrap();
        let mut objective = build(&config, &SAMPLE).unwrap();
        let run = Run { steps: 24, steps_per_epoch: 12, batch: 8, device: Device::Cpu };
        objective.begin(&run).unwrap();
        let view = |(i, v): (usize, &kernels::augment::Recipe)| {
            Array::<f32>::random(&[8, v.height, v.width, 1], i as u64, 1.0).to_tensor().unwrap()
        };
        let views: Vec<Tensor> = objective.views().iter().enumerate().map(view).collect();
        let draws = objective.draws(&run).unwrap().map_or(Vec::new(), |draws| draws(step).unwrap());
        let optimizer = optimizer(&config.training, objective.as_mut());
        let before = values(objective.as_mut());
        let (networks, training) = (objective.networks(), &config.training);
        let mut stepper = Stepper::new(networks, optimizer, training, 24, step, false).unwrap();
        stepper.step(objective.as_mut(), || Ok(StepInput { views, draws })).unwrap();
        let rate = stepper.events(step..step + 1, 12).unwrap()[0].figure("rate").unwrap();
        let expected_rate = LearningRate::new(training, 24).at(step);
        OneStep { objective, before, rate, expected_rate }
    }

    /// How far the trained parameters moved, in units of the rate, by name.
    fn moved(&mut self) -> BTreeMap<String, f64> {
        let after = values(self.objective.as_mut());
        let params = parts(self.objective.networks()).params;
        let trained = params.into_iter().filter(|(_, param)| param.is_trainable());
        let distance = |name: String| {
            let pairs = self.before[&name].iter().zip(&after[&name]);
            let square = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            (name, square.sqrt() / f64::from(self.rate))
        };
        trained.map(|(name, _)| distance(name)).collect()
    }
}

fn values(objective: &mut dyn Objective) -> BTreeMap<String, Vec<f32>> {
    let params = parts(objective.networks()).params;
    params.into_iter().map(|(name, param)| (name, param.value().to_vec().unwrap())).collect()
}

const SGD: &[&str] = &[
    "training.optimiser=sgd",
    "training.rate_scaling=none",
    "training.learning_rate=1000",
    "training.weight_decay=1e-12",
    "training.final_weight_decay=1e-12",
];

/// With gradients cut to a norm of 0.001, one step moves by the rate times that: all parameters together, each backbone and
/// head, or each parameter.
#[test]
fn gradients_are_clipped_in_the_scope_that_is_set() {
    let own = [
        "settings.separate_heads=true",
        "settings.freeze_last_layer_epochs=0",
        "settings.patch_embedding_rate=1",
    ];
    let total = |moved: &BTreeMap<String, f64>, part: &dyn Fn(&str) -> bool| {
        moved.iter().filter(|(name, _)| part(name)).map(|(_, d)| d * d).sum::<f64>().sqrt()
    };
    let near = |found: f64, what: &str| assert!((found / 1e-3 - 1.0).abs() < 0.02, "{what}: {found}");
    for scope in ["global", "group", "parameter"] {
        let scope_is = format!("training.clip_scope={scope}");
        let clip = ["training.clip=0.001", "training.layer_decay=1.0", scope_is.as_str()];
        let moved = OneStep::take("dinov2", 0, &[SGD, &own, &clip].concat()).moved();
        match scope {
            "global" => near(total(&moved, &|_| true), scope),
            "group" => ["encoder.", "head.", "patch_head."]
                .into_iter()
                .for_each(|part| near(total(&moved, &|name: &str| name.starts_with(part)), part)),
            // A gradient that is shorter than the limit is left as it is.
            _ => {
                assert!(moved.values().all(|d| *d < 1.02e-3), "{moved:?}");
                let cut = moved.values().filter(|d| (*d / 1e-3 - 1.0).abs() < 0.02).count();
                assert!(cut > moved.len() / 2, "{cut} of {}: {moved:?}", moved.len());
            }
        }
    }
}

/// The patch embedding learns slower, lower layers slower than higher ones, and a last layer that is held stays.
#[test]
fn rates_and_holds_of_parameters_reach_the_optimiser() {
    let clip = ["training.clip=0.0001", "training.clip_scope=parameter", "training.layer_decay=0.5"];
    let set = ["settings.separate_heads=false", "settings.patch_embedding_rate=0.2"];
    let held = [&["settings.freeze_last_layer_epochs=1"][..], SGD, &clip, &set].concat();
    let moved = OneStep::take("dinov2", 0, &held).moved();
    // Two blocks between what makes tokens and the last normalisation.
    for (name, scale) in [
        ("encoder.norm.weight", 1.0),
        ("encoder.blocks.1.attn.proj.weight", 0.5),
        ("encoder.blocks.0.attn.proj.weight", 0.25),
        ("encoder.patch_embed.proj.weight", 0.2 * 0.125),
        ("head.mlp.0.weight", 1.0),
        ("head.last_layer.weight_v", 0.0),
    ] {
        assert!((moved[name] / 1e-4 - scale).abs() < 0.02, "{name}: {} for {scale}", moved[name] / 1e-4);
    }
    let moved = OneStep::take("dinov2", 12, &held).moved();
    assert!(moved["head.last_layer.weight_v"] > 0.9e-4, "free in the second epoch");
}

/// Rate and weight decay are those of the step; what decays is what the settings say.
#[test]
fn rate_and_decay_are_those_of_the_step() {
    let set = |more: &[&'static str]| {
        let base = ["training.optimiser=sgd", "training.rate_scaling=none", "training.learning_rate=0.1"];
        [&base[..], &["training.warmup_epochs=20", "training.epochs=200", "training.clip=0.000001"], more]
            .concat()
    };
    let rising = ["training.weight_decay=0.1", "training.final_weight_decay=1.0"];
    for step in [0u64, 1, 7, 12, 23] {
        let mut run = OneStep::take("dino", step, &set(&rising));
        assert!(
            (f64::from(run.rate) / run.expected_rate.max(1e-9) - 1.0).abs() < 1e-4
                || run.expected_rate < 1e-9
        );
        if run.rate == 0.0 {
            continue;
        }
        // From 0.1 to 1 along half a cosine over the steps 0 to 23.
        let part = std::f64::consts::PI * step as f64 / 23.0;
        let decay = 1.0 - 0.9 * (1.0 + part.cos()) / 2.0;
        let name = "encoder.conv1.weight";
        let norm = run.before[name].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let found = run.moved()[name] / norm;
        assert!((found / decay - 1.0).abs() < 0.02, "step {step}: {found} for {decay}");
    }
    for scope in ["weights", "all"] {
        let scope_is =
            if scope == "all" { "training.decay_scope=all" } else { "training.decay_scope=weights" };
        let mut run = OneStep::take("dino", 3, &set(&["training.weight_decay=0.5", scope_is]));
        let moved = run.moved();
        for (name, param) in parts(run.objective.networks()).params {
            if let (Some(distance), true) = (moved.get(&name), run.before[&name].iter().any(|v| *v != 0.0)) {
                let decays = scope == "all" || param.role() == Role::Weight;
                assert_eq!(*distance > 1e-3, decays, "{name}, {scope}: {distance}");
            }
        }
    }
}

/// Methods that have something to show leave pictures, at each measurement and at the end, the same in a resumed run.
#[test]
fn pictures_are_left_in_the_runs_folder() {
    let stage = Stage::new();
    for (method, columns) in
        [("colorization", "lightness-predicted_colour-truth"), ("inpainting", "masked-predicted_hole-truth")]
    {
        let measured = ["--steps", "18", "--set", "monitor.every_epochs=1"];
        succeeded(&pretrain(&stage, method, method, &measured));
        for step in ["000012", "000018"] {
            let path = stage.path(method).join("pictures").join(format!("{step}-{columns}.png"));
            let image = data::decode::read(&path).unwrap();
            // Eight images of 12 pixels, with gaps of 2.
            assert_eq!((image.height, image.channels), (8 * 14 + 2, 3), "{method}");
            assert_eq!(image.width, 14 * columns.split('-').count() + 2, "{method}");
        }
    }
    succeeded(&pretrain(&stage, "simclr", "simclr", &["--steps", "12", "--set", "monitor.every_epochs=1"]));
    assert!(!stage.path("simclr").join("pictures").exists(), "SimCLR has nothing to show");
}

/// An encoder that was trained on lightness is evaluated on lightness, and says so where there is no colour.
#[test]
fn an_encoder_of_lightness_is_evaluated_on_lightness() {
    let stage = Stage::new();
    let trained = pretrain(&stage, "colorization", "run", &["--steps", "4"]);
    succeeded(&trained);
    let colour = stage.colour_data();
    let shown = stage.run(&["knn", "run", "--data", &colour]);
    let text = stdout(succeeded(&shown));
    // Pixels are lightness too: one value each.
    assert!(text.lines().any(|line| line.contains("raw pixels") && line.contains(" 144 ")), "{text}");
    succeeded(&stage.run(&["knn", "run", "--data", &colour, "--layer", "best"]));
    let grey = stage.run(&["knn", "run", "--data", &stage.data()]);
    assert!(stderr(&grey).contains("no colour"), "{}", stderr(&grey));
    let refused = stage.run(&["pretrain", "colorization", "--data", &stage.data(), "--out", "x"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("sample-color"), "{}", stderr(&refused));
}
