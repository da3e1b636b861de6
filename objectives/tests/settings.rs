//! Settings, defaults by data, schedules, and which parameters decay.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use autograd::param::Role;
use engine::{ErrorKind, Tensor};
use kernels::array::Array;
use kernels::augment::CropRule;
use kernels::optim::LarsVariant;
use models::{Arch, ImageShape};
use objectives::simclr::{METHOD, Settings};
use objectives::{
    CosineSchedule, DataProfile, METHODS, MomentumSchedule, Objective, Optimiser, Progress, Training, find,
};
use toml::Table;

const GREY: DataProfile = DataProfile { height: 28, width: 28, channels: 1, len: 60_000 };
const CIFAR: DataProfile = DataProfile { height: 32, width: 32, channels: 3, len: 50_000 };
const LARGE: DataProfile = DataProfile { height: 224, width: 224, channels: 3, len: 1_281_167 };

fn image(profile: &DataProfile) -> ImageShape {
    ImageShape { height: profile.height, width: profile.width, channels: profile.channels }
}

fn simclr(given: &str, profile: &DataProfile) -> engine::Result<Box<dyn Objective>> {
    let encoder = models::build(&Arch::named("resnet-small/4"), image(profile), 1)?;
    (METHOD.build)(&given.parse::<Table>().unwrap(), profile, encoder, 1)
}

#[test]
fn every_method_builds_with_its_defaults() {
    for method in METHODS {
        assert_eq!(find(method.name).unwrap().summary, method.summary);
        for profile in [GREY, CIFAR, LARGE] {
            (method.training)(&profile).check().unwrap();
            let (arch, width) = (method.arch)(&profile);
            assert!(models::ARCHS.iter().any(|a| a.name == arch));
            let encoder =
                models::build(&Arch { width, ..Arch::named("resnet-small") }, image(&profile), 1).unwrap();
            let built = (method.build)(&(method.settings)(&profile), &profile, encoder, 1).unwrap();
            assert_eq!(built.name(), method.name);
            for view in built.views() {
                view.check(profile.channels).unwrap();
                assert!(
                    view.normalize.is_none() || method.name != "simclr",
                    "SimCLR's inputs stay in 0 to 1"
                );
            }
        }
    }
    let error = find("simclrr").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(METHODS.iter().all(|m| error.message().contains(m.name)), "{error}");
}

#[test]
fn views_follow_the_paper_and_the_data() {
    let view = |given: &str, profile: &DataProfile| simclr(given, profile).unwrap().views()[0].clone();
    let large = view("", &LARGE);
    let jitter = large.jitter.unwrap();
    assert_eq!([jitter.probability, jitter.brightness, jitter.contrast], [0.8; 3]);
    assert_eq!((jitter.saturation, jitter.hue, large.grayscale), (0.8, 0.2, 0.2));
    assert_eq!(large.blur.unwrap().probability, 0.5);
    let small = view("", &CIFAR);
    assert_eq!(small.jitter.unwrap().brightness, 0.4);
    assert!(small.blur.is_none());
    let grey = view("", &GREY);
    let jitter = grey.jitter.unwrap();
    assert_eq!((jitter.brightness, jitter.saturation, jitter.hue, grey.grayscale), (0.4, 0.0, 0.0, 0.0));
    let set =
        "crop_min = 0.2\ncrop_max = 0.9\nflip = 0\njitter = 0\nblur = 0.25\nsolarize = 0.1\ngrayscale = 0.3";
    let given = view(set, &CIFAR);
    assert!(matches!(given.crop, CropRule::Random { area: [0.2, 0.9], .. }));
    assert_eq!((given.flip, given.jitter, given.solarize, given.grayscale), (0.0, None, 0.1, 0.3));
    assert_eq!(given.blur.unwrap().probability, 0.25);
    assert_eq!((given.height, given.width), (32, 32));
    let smaller = view("view_size = 24", &CIFAR);
    assert_eq!((smaller.height, smaller.width), (24, 24));
    assert_eq!((grey.height, grey.width), (20, 20), "five sevenths of the side");
    assert_eq!(simclr("", &CIFAR).unwrap().views()[0], simclr("", &CIFAR).unwrap().views()[1]);
}

#[test]
fn wrong_settings_are_usage_errors_that_name_the_setting() {
    for (given, named) in [
        ("temprature = 0.5", "temprature"),
        ("temperature = 0", "temperature"),
        ("temperature = -1", "temperature"),
        ("temperature = nan", "temperature"),
        ("temperature = \"hot\"", "temperature"),
        ("projector_layers = 0", "projector_layers"),
        ("projector_dim = 0", "projector_dim"),
        ("crop_min = 0", "crop_min"),
        ("crop_min = 0.9\ncrop_max = 0.5", "crop_max"),
        ("crop_max = 1.5", "crop_max"),
        ("flip = 1.5", "flip"),
        ("jitter = -1", "jitter"),
        ("jitter = 3", "jitter"),
        ("jitter_probability = 2", "jitter_probability"),
        ("grayscale = -0.1", "grayscale"),
        ("blur = 7", "blur"),
        ("solarize = -1", "solarize"),
    ] {
        let error = Settings::new(&given.parse().unwrap(), &CIFAR).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{given}");
        assert!(error.to_string().contains(named), "{given}: {error}");
    }
    let encoder = models::build(&Arch::named("resnet-small/4"), image(&CIFAR), 1).unwrap();
    assert!((METHOD.build)(&Table::new(), &GREY, encoder, 1).is_err(), "channels must agree");
}

#[test]
fn training_settings_round_trip_and_are_checked() {
    let training = (METHOD.training)(&CIFAR);
    let table = Table::try_from(&training).unwrap();
    assert_eq!(table["learning_rate"].as_float(), Some(0.12), "plain decimals");
    assert_eq!(table.try_into::<Training>().unwrap(), training);
    type Spoil = fn(&mut Training);
    let wrong: [(&str, Spoil); 6] = [
        ("learning_rate", |t| t.learning_rate = 0.0),
        ("batch", |t| t.batch = 0),
        ("warmup_epochs", |t| t.warmup_epochs = Some(1000.0)),
        ("momentum", |t| t.momentum = 1.0),
        ("clip", |t| t.clip = Some(0.0)),
        ("nesterov", |t| (t.optimiser, t.nesterov) = (Optimiser::Lars, true)),
    ];
    for (name, spoil) in wrong {
        let mut training = training.clone();
        spoil(&mut training);
        assert!(training.check().unwrap_err().message().contains(name), "{name}");
    }
}

#[test]
fn rates_follow_the_batch_and_the_warmup_the_run() {
    let small = Training { batch: 128, ..(METHOD.training)(&CIFAR) };
    assert!((small.peak_rate() - 0.06).abs() < 1e-7, "0.06 for a batch of 128");
    let large = (METHOD.training)(&LARGE);
    for batch in [256usize, 1024, 4096] {
        let expected = 0.075 * (batch as f32).sqrt();
        assert!((Training { batch, ..large.clone() }.peak_rate() - expected).abs() < 1e-5);
    }
    assert_eq!(small.warmup_steps(400), 40);
    let set = Training { warmup_epochs: Some(25.0), epochs: 100, ..small };
    assert_eq!((set.warmup_steps(400), set.warmup_steps(0)), (100, 0));
    let schedule = CosineSchedule::learning_rate(&set, 400);
    let peak = f64::from(set.peak_rate());
    assert!((schedule.at(0) - peak / 100.0).abs() < 1e-12);
    assert!((schedule.at(99) - peak).abs() < 1e-12 && (schedule.at(100) - peak).abs() < 1e-12);
    let middle = CosineSchedule { steps: 301, warmup: 0, peak, end: 0.0 };
    assert!((middle.at(150) - peak / 2.0).abs() < 1e-12);
    assert!(schedule.at(399).abs() < 1e-12 && schedule.at(1000).abs() < 1e-12);
    for (steps, warmup) in [(0, 0), (1, 0), (1, 1), (2, 2)] {
        let schedule = CosineSchedule { steps, warmup, peak, end: 0.0 };
        assert!((0..3).all(|i| schedule.at(i).is_finite() && schedule.at(i) <= peak));
    }
    let momentum = MomentumSchedule { start: 0.9, end: 1.0, steps: 10 };
    assert_eq!((momentum.at(0), momentum.at(10), momentum.at(11)), (0.9, 1.0, 1.0));
}

/// One step without any gradient moves exactly what decays: matrices and kernels, no bias, no normalisation.
#[test]
fn only_weights_decay_and_biases_that_start_at_zero_can_move() {
    let mut method = simclr("", &GREY).unwrap();
    let view = |seed| Array::<f32>::random(&[4, 28, 28, 1], seed, 1.0).to_tensor().unwrap();
    let views: Vec<Tensor> = vec![view(1), view(2)];
    let at = Progress { step: 0, steps: 1, epoch: 0 };
    let mut values = Vec::new();
    let lars = Algorithm::Lars { momentum: 0.9, trust: 1e-3, variant: LarsVariant::Simclr };
    for decay in [0.0, 100.0] {
        let mut fresh = simclr("", &GREY).unwrap();
        fresh.loss(&views, &at).unwrap().value.backward().unwrap();
        Optimizer::new(Algorithm::Sgd { momentum: 0.0, nesterov: false }, decay)
            .step(fresh.networks(), 1e-3.into(), None)
            .unwrap();
        let all = parts(fresh.networks()).params;
        values.push(all.iter().map(|(_, p)| p.value().to_vec::<f32>().unwrap()).collect::<Vec<_>>());
    }
    method.loss(&views, &at).unwrap().value.backward().unwrap();
    Optimizer::new(lars, 1e-4).step(method.networks(), 0.1.into(), None).unwrap();
    for (i, (name, param)) in parts(method.networks()).params.iter().enumerate() {
        let is_matrix = param.value().rank() > 1;
        assert_eq!(param.role() == Role::Weight, is_matrix, "{name}");
        assert_eq!(values[0][i] != values[1][i], is_matrix, "{name} decays");
        if name.ends_with("bias") {
            assert!(
                param.value().to_vec::<f32>().unwrap().iter().any(|&v| v != 0.0),
                "{name} is stuck at zero"
            );
        }
    }
}
