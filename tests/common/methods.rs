//! Every method at a size that tests can afford.

#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use super::{Stage, write_mnist};
use engine::{Device, Tensor};
use objectives::{DataProfile, Run};
use pretext::config::{self, Config, Overrides};
use pretext::train::Machine;
use pretext::train::input::Input;
use std::process::{Command, Output};

/// What `sample` looks like.
pub const SAMPLE: DataProfile = DataProfile { height: 28, width: 28, channels: 1, len: 10_000 };
/// What `sample-color` looks like.
pub const SAMPLE_COLOR: DataProfile = DataProfile { height: 32, width: 32, channels: 3, len: 10_000 };

/// Whether a method needs images in colour.
pub fn wants_colour(method: &str) -> bool {
    method == "colorization"
}

/// The images inside the program that suit a method: their name, and what they look like.
pub fn sample(method: &str) -> (&'static str, DataProfile) {
    if wants_colour(method) { ("sample-color", SAMPLE_COLOR) } else { ("sample", SAMPLE) }
}

/// `key=value` settings that make a method small: a narrow network on small views. Rates are so low that rounding does not
/// grow from step to step.
pub fn small(method: &str) -> Vec<String> {
    let resnet = ["arch.name=resnet-small", "arch.width=4"];
    let vit = ["arch.width=24", "arch.depth=2", "arch.heads=2", "arch.drop_path=0.2"];
    let crops = ["global1.size=12", "global2.size=12", "local.size=8"];
    let head = ["prototypes=32", "head_hidden=16", "head_bottleneck=8", "freeze_last_layer_epochs=0.003"];
    let pair = ["view1.size=12", "view2.size=12", "hidden=16", "dim=16"];
    let queue = ["view.size=12", "queue=32", "dim=16", "temperature=0.5"];
    let (arch, settings): (Vec<&str>, Vec<&str>) = match method {
        "simclr" => (
            resnet.to_vec(),
            vec!["view.size=12", "projector_hidden=16", "projector_dim=16", "temperature=0.5"],
        ),
        "moco-v1" | "moco-v2" => ([&resnet[..], &["arch.norm_splits=2"]].concat(), queue.to_vec()),
        "moco-v3" => (resnet.to_vec(), [&pair[..], &["temperature=0.5"]].concat()),
        "byol" => (resnet.to_vec(), pair.to_vec()),
        "mae" => {
            (vit.to_vec(), vec!["view.size=12", "decoder_width=16", "decoder_depth=1", "decoder_heads=2"])
        }
        "jigsaw" => (resnet.to_vec(), vec!["permutations=10", "tile_features=8", "hidden=16", "orders=2"]),
        "relative-position" => (resnet.to_vec(), vec!["hidden=16"]),
        "rotation" => (resnet.to_vec(), vec!["view.size=12"]),
        "colorization" => (resnet.to_vec(), vec!["view.size=12", "decoder_width=8", "target_stride=2"]),
        "inpainting" => (
            resnet.to_vec(),
            vec![
                "view.size=12",
                "decoder_width=8",
                "adversarial_weight=0.1",
                "discriminator_width=4",
                "ring=1",
            ],
        ),
        "dino" => (resnet.to_vec(), [&crops[..], &head].concat()),
        "dinov2" => (vit.to_vec(), [&crops[..], &head].concat()),
        other => panic!("no small settings for {other}: add them here"),
    };
    let mut all: Vec<String> = arch.into_iter().map(String::from).collect();
    all.extend(settings.into_iter().map(|s| format!("settings.{s}")));
    let rate =
        if ["mae", "dinov2", "colorization", "inpainting"].contains(&method) { "0.001" } else { "0.06" };
    all.push(format!("training.learning_rate={rate}"));
    all.push("training.batch=8".into());
    all.push("monitor.every_epochs=0".into());
    all
}

/// The configuration of a small method, changed by further settings.
pub fn small_config(method: &str, more: &[&str]) -> Config {
    let (data, profile) = sample(method);
    let base = config::defaults(objectives::find(method).unwrap(), data, &profile).unwrap();
    let set = small(method).into_iter().chain(more.iter().map(|s| s.to_string())).collect();
    config::apply(&base, &Overrides { set, ..Overrides::default() }).unwrap()
}

/// What a method draws depends on the step of the run: a second epoch goes on where the first ended. Of 97 images in batches of
/// eight the last one is left out of an epoch.
pub fn draws_go_on(stage: &Stage, device: Device) {
    write_mnist(&stage.path("odd"), 97, 8);
    let config = small_config("moco-v2", &["training.epochs=3"]);
    let splits = data::open(&format!("mnist:{}", stage.path("odd").display()), None).unwrap();
    let profile = pretext::train::profile(splits.train.as_ref()).unwrap();
    let objective = pretext::train::build(&config, &profile).unwrap();
    let machine = Machine { device, workers: 0, graph: false, stop_after: None };
    let mut input = Input::new(&config, objective.as_ref(), &splits.train, false, machine).unwrap();
    let Run { steps, steps_per_epoch, batch, .. } = *input.run();
    assert_eq!((steps, steps_per_epoch, batch), (36, 12, 8));
    let draws = objective.draws(input.run()).unwrap().unwrap();
    let numbers = |x: &Tensor| x.to_device(Device::Cpu).unwrap().to_vec::<i32>().unwrap();
    let mut step = 0;
    for epoch in 0..2 {
        input.begin(epoch, 0).unwrap();
        while input.advance().unwrap() {
            let given = input.current().unwrap();
            assert!(given.views.iter().all(|view| view.shape()[0] == 8), "step {step}");
            let given: Vec<Vec<i32>> = given.draws.iter().map(numbers).collect();
            let drawn: Vec<Vec<i32>> = draws(step).unwrap().iter().map(numbers).collect();
            assert_eq!(given, drawn, "step {step}");
            step += 1;
        }
    }
    assert_eq!(step, 24);
}

/// Runs `pretext pretrain METHOD` on a stage's data at the small size, into `out`.
pub fn pretrain(stage: &Stage, method: &str, out: &str, more: &[&str]) -> Output {
    let data = if wants_colour(method) { stage.colour_data() } else { stage.data() };
    command(stage, method, &data, out, more).output().unwrap()
}

/// `pretext pretrain METHOD` on `data` at the small size, into `out`.
pub fn command(stage: &Stage, method: &str, data: &str, out: &str, more: &[&str]) -> Command {
    let mut args = vec!["pretrain", method, "--data", data, "--out", out, "--no-table"];
    let settings = small(method);
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    args.extend(more);
    stage.command(&args)
}
