//! Fine-tuning: what moves and by how much, that it learns, which labels it sees, that it goes on where it stopped, and
//! what it says of wrong input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use autograd::module;
use common::{Stage, stderr, stdout, succeeded};
use data::{Dataset, InMemory, Splits};
use engine::Tensor;
use engine::cuda::nvrtc::testing::nvrtc_for_tests;
use engine::safetensors::{self, Contents};
use kernels::augment::Recipe;
use models::{Arch, ImageShape, Pool};
use objectives::{Objective, Scale, Training};
use pretext::config;
use pretext::evaluate::features::{self, Trained};
use pretext::finetune::labels::{self, Labels};
use pretext::finetune::plan::{self, Plan, Start};
use pretext::finetune::{self, Job, network};
use pretext::output::Output;
use pretext::train::{self, Machine};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const IMAGE: ImageShape = ImageShape { height: 12, width: 12, channels: 1 };
const QUIET: Output = Output { json: false };

fn machine() -> Machine {
    Machine { device: engine::Device::Cpu, workers: 0, graph: false, stop_after: None }
}

fn micro() -> Arch {
    Arch { width: Some(24), depth: Some(2), heads: Some(2), ..Arch::named("vit-micro") }
}

/// An encoder as if it were loaded, and two classes of blobs to classify.
fn stage(arch: &Arch, train: usize, test: usize) -> (Trained, Splits) {
    let set = |n, seed| -> Arc<dyn Dataset> {
        let (pixels, labels) = common::images(n, seed);
        let names = vec!["above".to_string(), "below".to_string()];
        Arc::new(InMemory::new("blobs", pixels, [12, 12, 1], labels, names).unwrap())
    };
    let encoder = models::build(arch, IMAGE, 3).unwrap();
    let input = Recipe::evaluation(12, 12).normalized(&[0.2], &[0.3]);
    let trained = Trained { encoder, input, lightness: false, origin: "mae".into() };
    (trained, Splits { train: set(train, 1), test: set(test, 2), notes: Vec::new() })
}

fn make_plan(trained: &mut Trained, splits: &Splits, set: &[&str]) -> Plan {
    let profile = train::profile(splits.train.as_ref()).unwrap();
    let labelled = splits.train.len();
    let base = Plan::new(trained, Path::new("x"), "blobs", &profile, Labels::All, labelled).unwrap();
    let set = set.iter().map(|s| s.to_string()).collect();
    config::apply(&base, &config::Overrides { set, ..Default::default() }).unwrap()
}

/// Values by name.
type Values = BTreeMap<String, Vec<f32>>;

/// All parameters and buffers.
fn values<M: autograd::Module + ?Sized>(module: &mut M) -> Values {
    let mut contents = Contents::default();
    module::save(module, "", &mut contents).unwrap();
    contents.tensors.into_iter().map(|(name, t)| (name, t.to_vec::<f32>().unwrap())).collect()
}

/// Runs of one seed each from both starts; gives what was found and the networks' values at the end of the first.
fn fine_tune(arch: &Arch, set: &[&str]) -> (Vec<finetune::Found>, Values, Values) {
    let (mut trained, splits) = stage(arch, 96, 40);
    let plan = make_plan(&mut trained, &splits, set);
    let folder = tempfile::tempdir().unwrap();
    let before = values(network(&plan, &mut trained, &splits, Start::Trained, plan.seed).unwrap().networks());
    let weights = features::checksum(trained.encoder.as_mut()).unwrap();
    let mut job =
        Job { plan: &plan, trained: &mut trained, splits: &splits, folder: folder.path(), resume: false };
    let found = finetune::run(&mut job, machine(), &QUIET).unwrap();
    assert_eq!(weights, features::checksum(trained.encoder.as_mut()).unwrap(), "the pre-trained encoder");
    let file = folder.path().join(format!("trained-{}/checkpoint.safetensors", plan.seed));
    let state = safetensors::load(&file).unwrap().tensors.into_iter();
    let after = state.filter_map(|(name, t)| Some((name.strip_prefix("networks.")?.to_string(), t)));
    let after = after.map(|(name, t)| (name, t.to_vec::<f32>().unwrap())).collect();
    (found, before, after)
}

/// Every parameter moves, and the running statistics of batch norm too.
#[test]
fn trunk_and_head_are_trained() {
    for arch in [micro(), Arch::named("resnet-small/4")] {
        let (_, before, after) =
            fine_tune(&arch, &["steps=3", "training.batch=16", "training.warmup_epochs=0"]);
        assert!(before.contains_key("head.weight") && before.len() == after.len());
        let still: Vec<&String> = before.keys().filter(|name| before[*name] == after[*name]).collect();
        assert!(still.is_empty(), "{}: {still:?} did not move", arch.name);
    }
}

/// One step of AdamW from zero moments moves every value by rate * decay^(top - layer), whatever its gradient (which only
/// must not be as small as epsilon): Kingma and Ba 2015, section 2.1.
#[test]
fn each_layer_learns_by_the_factor_slower_than_the_one_above() {
    let (rate, decay) = (0.01f32, 0.5f32);
    let set = [
        "steps=1",
        "training.batch=16",
        "training.rate_scaling=none",
        "training.learning_rate=0.01",
        "training.layer_decay=0.5",
        "training.warmup_epochs=0",
        "training.weight_decay=0",
        "settings.head_std=0.5",
        "arch.drop_path=0",
    ];
    let (_, before, after) = fine_tune(&micro(), &set);
    // Two blocks: layers 0 (embedding), 1, 2 (blocks), 3 (norm and what is above).
    let factor = |name: &str| match name.strip_prefix("encoder.") {
        None => 1.0,
        Some(inner) if inner.starts_with("norm.") => 1.0,
        Some(inner) if inner.starts_with("blocks.1.") => decay,
        Some(inner) if inner.starts_with("blocks.0.") => decay * decay,
        Some(_) => decay * decay * decay,
    };
    for (name, old) in &before {
        let step = old.iter().zip(&after[name]).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        let wanted = rate * factor(name);
        // One rounding of values of about 1, and epsilon beside gradients of at least 1e-5.
        assert!((step - wanted).abs() < 2e-3 * wanted + 2e-7, "{name}: {step}, not {wanted}");
    }
}

/// Forty steps tell blobs above from blobs below.
#[test]
fn it_learns_in_a_few_steps_and_counts_test_images() {
    for (arch, rate) in [(micro(), "0.03"), (Arch::named("resnet-small/4"), "0.4")] {
        let rates = [format!("training.learning_rate={rate}"), format!("scratch.learning_rate={rate}")];
        let set = ["steps=40", "training.batch=24", &rates[0], &rates[1]];
        let (found, ..) = fine_tune(&arch, &set);
        assert_eq!(found.iter().map(|f| f.start.name()).collect::<Vec<_>>(), ["trained", "scratch"]);
        for row in &found {
            // Chance is 50 with a deviation of 7.9 on 40 images.
            assert!(row.top1[0] > 80.0, "{}: {found:?}", arch.name);
        }
    }
}

/// A trunk that was trained on this task already needs fewer steps than one that was not, at a rate that hardly moves it.
#[test]
fn a_trained_trunk_is_kept_and_a_scratch_one_is_not() {
    let (mut trained, splits) = stage(&micro(), 96, 40);
    let folder = tempfile::tempdir().unwrap();
    let common = ["training.batch=24", "training.warmup_epochs=0", "settings.view.crop=[1.0,1.0]"];
    let long = [&common[..], &["steps=40", "training.learning_rate=0.03"]].concat();
    let plan = make_plan(&mut trained, &splits, &long);
    let first = folder.path().join("first");
    let mut job = Job { plan: &plan, trained: &mut trained, splits: &splits, folder: &first, resume: false };
    finetune::run(&mut job, machine(), &QUIET).unwrap();
    let mut better = features::load(&first.join("trained-1/encoder.safetensors")).unwrap();
    assert_eq!(better.origin, "mae, fine-tuned");
    let short =
        [&common[..], &["steps=4", "training.learning_rate=0.01", "scratch.learning_rate=0.01"]].concat();
    let plan = make_plan(&mut better, &splits, &short);
    let second = folder.path().join("second");
    let mut job = Job { plan: &plan, trained: &mut better, splits: &splits, folder: &second, resume: false };
    let found = finetune::run(&mut job, machine(), &QUIET).unwrap();
    assert!(found[0].top1[0] > 90.0 && found[0].top1[0] > found[1].top1[0], "{found:?}");
}

/// Mixed batches, soft labels, erasing and dropped branches together: on the emulated device as on the CPU, and captured as a
/// graph bit for bit as launched.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_emulated_device_trains_as_the_cpu_does() {
    let folder = Stage::new();
    let arch = Arch { depth: Some(1), ..micro() };
    let (mut trained, _) = stage(&arch, 8, 8);
    let contents = features::contents(trained.encoder.as_mut(), &trained.input, false, "mae").unwrap();
    safetensors::save(&folder.path("vit.safetensors"), &contents).unwrap();
    let settings = [
        "settings.mixup=0.8",
        "settings.cutmix=1",
        "settings.mix_probability=1",
        "settings.erase=0.5",
        "settings.head_std=0.5",
        "arch.drop_path=0.2",
        "arch.drop_path_uniform=true",
        "training.optimiser=sgd",
        "training.learning_rate=0.1",
    ];
    let run = |out: &str, more: &[&str]| {
        let data = folder.data();
        let mut args = vec!["finetune", "vit.safetensors", "--data", &data, "--out", out];
        args.extend(["--steps", "4", "--batch", "4"]);
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        args.extend(more);
        let mut command = folder.command(&args);
        command.env("PRETEXT_CUDA_LIB_DIR", nvrtc_for_tests().path().parent().unwrap());
        succeeded(&command.output().unwrap());
        let state = safetensors::load(&folder.path(out).join("trained-1/checkpoint.safetensors")).unwrap();
        let all = state.tensors.into_iter().map(|(name, t)| (name, t.to_vec::<f32>().unwrap()));
        all.collect::<Values>()
    };
    let cpu = run("cpu", &[]);
    let emulated = run("emulated", &["--device", "emulated"]);
    let captured = run("captured", &["--device", "emulated", "--graph"]);
    assert!(emulated == captured, "a captured step differs");
    assert!(cpu.keys().eq(emulated.keys()));
    for (name, wanted) in cpu.iter().filter(|(name, _)| name.starts_with("optimiser.")) {
        // The moments sum gradients: another order of additions changes them by a part in a thousand of the largest.
        let size = wanted.iter().fold(0.0f32, |size, v| size.max(v.abs()));
        let off = wanted.iter().zip(&emulated[name]).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(size > 0.0 && off <= 1e-3 * size, "{name}: off by {off} of {size}");
    }
}

/// Testing leaves weights and running statistics as they are, and an image's class does not depend on its batch.
#[test]
fn testing_changes_nothing() {
    let (mut trained, splits) = stage(&Arch::named("resnet-small/4"), 96, 40);
    let plan = make_plan(&mut trained, &splits, &["settings.head_std=1"]);
    let mut objective = network(&plan, &mut trained, &splits, Start::Trained, 1).unwrap();
    let before = values(objective.networks());
    let whole = objective.accuracy(&trained.input, &splits.test).unwrap();
    let part = |range: std::ops::Range<usize>| -> Arc<dyn Dataset> {
        Arc::new(data::Subset::new(splits.test.clone(), range.collect()).unwrap())
    };
    let parts = (0..4).map(|i| objective.accuracy(&trained.input, &part(10 * i..10 * i + 10)).unwrap());
    assert!((parts.sum::<f32>() / 4.0 - whole).abs() < 1e-4, "{whole}");
    assert!(values(objective.networks()) == before);
}

/// Both starts see the same labelled images, and no test image is among any subset.
#[test]
fn test_images_are_never_trained_on() {
    let splits = data::open("sample", None).unwrap();
    for text in ["1%", "10/class"] {
        let part = labels::choose(&splits.train, text.parse().unwrap(), 7).unwrap();
        assert_eq!(part.len(), 100, "{text}");
        for class in 0..10 {
            let count = (0..part.len()).filter(|&i| part.label(i) == Some(class)).count();
            assert_eq!(count, 10, "{text}: class {class}");
        }
        assert!(data::overlap(part.as_ref(), splits.test.as_ref()).unwrap().is_empty());
    }
}

/// Every recipe is whole: training, scratch and settings are in range, with all labels and with few.
#[test]
fn recipes_are_whole() {
    for (vit, arch) in [(true, micro()), (false, Arch::named("resnet-small/4"))] {
        for scale in Scale::ALL {
            for kind in [Labels::All, Labels::PerClass(10)] {
                let sections = plan::sections(vit, scale, kind).unwrap();
                let known = ["arch", "training", "scratch", "settings"];
                assert!(sections.keys().all(|key| known.contains(&key.as_str())), "{sections}");
                let (mut trained, splits) = stage(&arch, 96, 40);
                let mut plan = make_plan(&mut trained, &splits, &[]);
                plan.training = config::from_table(sections["training"].clone().try_into().unwrap()).unwrap();
                plan.scratch = sections["scratch"].clone().try_into().unwrap();
                plan.settings = sections["settings"].clone().try_into().unwrap();
                let rate = |start| -> Training { plan.training(start).unwrap() };
                let (tuned, scratch) = (rate(Start::Trained), rate(Start::Scratch));
                assert!(scratch.learning_rate >= tuned.learning_rate, "{scale:?}");
                assert!(scratch.warmup_epochs >= tuned.warmup_epochs, "{scale:?}");
                assert_eq!((scratch.epochs, scratch.batch), (tuned.epochs, tuned.batch));
                network(&plan, &mut trained, &splits, Start::Scratch, 1).unwrap();
            }
        }
    }
    let (mut trained, splits) = stage(&micro(), 96, 40);
    let (mut split, _) = stage(&Arch { norm_splits: Some(8), ..Arch::named("resnet-small/4") }, 8, 8);
    assert_eq!(make_plan(&mut split, &splits, &[]).arch.norm_splits, None);
    let plan = make_plan(&mut trained, &splits, &[]);
    assert_eq!((plan.arch.pool, plan.arch.drop_path), (Some(Pool::Average), Some(0.1)));
    assert_eq!(plan.training.batch, 96, "no larger than the images there are");
}

const SHORT: &[&str] = &["--steps", "7", "--batch", "8", "--set", "checkpoint_epochs=1"];

fn pretrained(stage: &Stage) {
    succeeded(&stage.pretrain("run", &["--steps", "2", "--no-table"]));
}

fn command(stage: &Stage, out: &str, more: &[&str]) -> std::process::Output {
    let data = stage.data();
    stage.run(&[&["finetune", "run", "--data", &data, "--out", out], more].concat())
}

fn results(text: &str) -> Vec<Value> {
    let events = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    events.filter(|e| e["event"] == "result").collect()
}

/// Everything that runs leave: checkpoints bit for bit, and metrics.
fn left(stage: &Stage, out: &str) -> Vec<(String, Vec<u32>, String)> {
    ["trained-1", "trained-2", "scratch-1", "scratch-2"]
        .iter()
        .flat_map(|run| {
            let folder = stage.path(out).join(run);
            let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
            let all = safetensors::load(&folder.join("checkpoint.safetensors")).unwrap().tensors.into_iter();
            let bits = |t: Tensor| t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
            all.map(move |(name, t)| (format!("{run} {name}"), bits(t), metrics.clone())).collect::<Vec<_>>()
        })
        .collect()
}

/// Stopped in the first run, in an epoch's middle, and again in each that follows: the same bits as without; so are other
/// numbers of threads. Results are one event a start, with mean and deviation over seeds.
#[test]
fn stopping_and_threads_change_nothing() {
    let stage = Stage::new();
    pretrained(&stage);
    let random =
        ["settings.mixup=0.8", "settings.cutmix=1", "settings.mix_probability=0.9", "settings.erase=0.5"];
    let random: Vec<&str> = random.iter().flat_map(|setting| ["--set", setting]).collect();
    let args = [SHORT, &random, &["--labels", "10/class", "--seeds", "2", "--json"]].concat();
    let whole = results(&stdout(succeeded(&command(&stage, "whole", &args))));
    assert_eq!(whole.len(), 2);
    for (row, features) in whole.iter().zip(["trained", "scratch"]) {
        assert_eq!((row["features"].as_str(), row["probe"].as_str()), (Some(features), Some("finetune")));
        assert_eq!((row["labels"].as_str(), row["method"].as_str()), (Some("10/class"), Some("simclr")));
        assert_eq!((row["images"].as_u64(), row["seeds"].as_u64()), (Some(20), Some(2)));
        assert!(row["top1"].is_number() && row["std"].is_number());
    }
    let encoder = std::fs::read(stage.path("run/encoder.safetensors")).unwrap();
    let first = command(&stage, "part", &[&args[..], &["--stop-after", "3"]].concat());
    assert_eq!(first.status.code(), Some(1));
    assert!(
        stderr(&first).contains("--resume") && stderr(&first).contains("trained-1"),
        "{}",
        stderr(&first)
    );
    let second = command(&stage, "part", &["--resume", "--stop-after", "5", "--threads", "1"]);
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    let rest = ["--resume", "--json", "--threads", "3", "--workers", "2"];
    assert_eq!(results(&stdout(succeeded(&command(&stage, "part", &rest)))), whole);
    assert!(left(&stage, "whole") == left(&stage, "part"), "a resumed run differs");
    // Runs that are missing are done again, and those that are there are left alone.
    for run in ["trained-2", "scratch-1"] {
        std::fs::remove_dir_all(stage.path("part").join(run)).unwrap();
    }
    let third = command(&stage, "part", &["--resume", "--stop-after", "5"]);
    assert!(stderr(&third).contains("after step 5 of trained-2"), "{}", stderr(&third));
    assert_eq!(results(&stdout(succeeded(&command(&stage, "part", &rest)))), whole);
    assert!(left(&stage, "whole") == left(&stage, "part"), "a resumed run differs");
    assert_eq!(encoder, std::fs::read(stage.path("run/encoder.safetensors")).unwrap());
    let other = command(&stage, "whole", &["--resume", "--set", "training.learning_rate=0.7"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("training.learning_rate"), "{}", stderr(&other));
    succeeded(&stage.run(&["knn", "whole/trained-1", "--data", &stage.data()]));
}

fn failed(output: &std::process::Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("panicked"), "{parts:?}: {text}");
}

#[test]
fn mistakes_are_named_and_leave_nothing() {
    let stage = Stage::new();
    pretrained(&stage);
    let say = |more: &[&str], code, parts: &[&str]| {
        failed(&command(&stage, "out", &[SHORT, more].concat()), code, parts);
        assert!(!stage.path("out").exists(), "{more:?} left a folder");
    };
    say(&["--labels", "some"], 2, &["some", "10/class", "1%"]);
    say(&["--labels", "49/class"], 2, &["49", "48"]);
    say(&["--seeds", "0"], 2, &["seeds"]);
    say(&["--set", "scratch.epochs=3"], 2, &["scratch.epochs", "budget"]);
    say(&["--set", "scratch.learningrate=3"], 2, &["learningrate"]);
    say(&["--set", "settings.erase=2"], 2, &["erase"]);
    say(&["--set", "settings.mix=2"], 2, &["mix"]);
    say(&["--set", "arch.width=5"], 2, &["arch", "weights"]);
    failed(&stage.run(&["finetune", "nothing.safetensors", "--data", "sample"]), 1, &["nothing.safetensors"]);
}

/// Colour images for a grey encoder, and images without labels, through the library: no source on disk has them here.
#[test]
fn data_that_does_not_fit_is_refused() {
    let (mut trained, splits) = stage(&micro(), 96, 40);
    let plan = make_plan(&mut trained, &splits, &[]);
    let of = |pixels: usize, channels: usize, labels: Vec<u8>| -> Arc<dyn Dataset> {
        let names = vec!["a".to_string(), "b".to_string()];
        Arc::new(InMemory::new("odd", vec![7; pixels], [12, 12, channels], labels, names).unwrap())
    };
    let colour =
        Splits { train: of(4 * 432, 3, vec![0, 1, 0, 1]), test: splits.test.clone(), notes: Vec::new() };
    let error = network(&plan, &mut trained, &colour, Start::Trained, 1).err().unwrap();
    assert!(error.to_string().contains("channels"), "{error}");
    for (train, test) in
        [(of(288, 1, vec![]), splits.test.clone()), (splits.train.clone(), of(288, 1, vec![]))]
    {
        let error =
            network(&plan, &mut trained, &Splits { train, test, notes: Vec::new() }, Start::Trained, 1)
                .err()
                .unwrap();
        assert!(error.to_string().contains("odd") && error.to_string().contains("labels"), "{error}");
    }
    assert!(labels::choose(&of(288, 1, vec![]), Labels::PerClass(1), 1).is_err());
}
