//! Settings, defaults by data, schedules, and which parameters decay.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use autograd::module::parts;
use autograd::optim::{Algorithm, Optimizer};
use autograd::param::Role;
use common::Drive;
use engine::ErrorKind;
use kernels::augment::CropRule;
use kernels::optim::LarsVariant;
use models::Arch;
use objectives::simclr::{METHOD, Settings};
use objectives::{
    CosineSchedule, DataProfile, LearningRate, METHODS, MomentumSchedule, Objective, Optimiser, RateSchedule,
    Scale, Training, find,
};
use toml::Table;

const GREY: DataProfile = DataProfile { height: 28, width: 28, channels: 1, len: 60_000 };
const CIFAR: DataProfile = DataProfile { height: 32, width: 32, channels: 3, len: 50_000 };
const LARGE: DataProfile = DataProfile { height: 224, width: 224, channels: 3, len: 1_281_167 };

const MEDIUM: DataProfile = DataProfile { height: 96, width: 96, channels: 3, len: 100_000 };

fn simclr(changes: &str, profile: &DataProfile) -> Box<dyn Objective> {
    common::build("simclr", profile, &common::resnet(), changes)
}

fn training(profile: &DataProfile) -> Training {
    METHOD.defaults(profile).unwrap().training
}

/// A small architecture of the family that a recipe names.
fn small(arch: &Arch) -> Arch {
    match arch.name.starts_with("vit") {
        true => {
            Arch { name: "vit-micro".into(), width: Some(24), depth: Some(1), heads: Some(2), ..arch.clone() }
        }
        false => Arch { name: "resnet-small".into(), width: Some(4), ..arch.clone() },
    }
}

/// Every recipe is read, builds its method (around a small encoder of the same family), and says where it is from.
#[test]
fn every_recipe_of_every_method_is_complete_and_has_a_source() {
    for method in METHODS {
        assert_eq!(find(method.name).unwrap().summary, method.summary);
        for (profile, scale) in [GREY, CIFAR, MEDIUM, LARGE].iter().zip(Scale::ALL) {
            assert_eq!(Scale::of(profile), scale);
            let what = format!("{} {scale:?}", method.name);
            assert!(method.recipe(scale).contains("# Source: "), "{what}");
            let defaults = method.defaults(profile).unwrap();
            defaults.training.check().unwrap();
            models::ARCHS.iter().find(|a| a.name == defaults.arch.name).unwrap();
            let channels = method.encoder_channels(profile.channels);
            let image = models::ImageShape { channels, ..common::image(profile) };
            let encoder = models::build(&small(&defaults.arch), image, 1).unwrap();
            let mut settings = defaults.settings.clone();
            // Heads for a thousand classes and more are as right when small.
            for (key, most) in [("prototypes", 64), ("queue", 512), ("hidden", 32), ("head_hidden", 32)] {
                if let Some(value) = settings.get_mut(key) {
                    *value = toml::Value::Integer(most);
                }
            }
            let built = (method.build)(&settings, profile, encoder, 1);
            if method.lightness && profile.channels == 1 {
                assert!(built.err().unwrap().message().contains("sample-color"), "{what}");
                continue;
            }
            let built = built.unwrap();
            assert_eq!(built.name(), method.name, "{what}");
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
    let view = |given: &str, profile: &DataProfile| simclr(given, profile).views()[0].clone();
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
    let set = "view.crop = [0.2, 0.9]\nview.flip = 0.0\nview.jitter = [0.0, 0.0, 0.0, 0.0]\nview.blur = 0.25\n\
               view.solarize = 0.1\nview.grayscale = 0.3";
    let given = view(set, &CIFAR);
    assert!(matches!(given.crop, CropRule::Random { area: [0.2, 0.9], .. }));
    assert_eq!((given.flip, given.jitter, given.solarize, given.grayscale), (0.0, None, 0.1, 0.3));
    assert_eq!(given.blur.unwrap().probability, 0.25);
    assert_eq!((given.height, given.width), (32, 32));
    let smaller = view("view.size = 24", &CIFAR);
    assert_eq!((smaller.height, smaller.width), (24, 24));
    assert_eq!((grey.height, grey.width), (20, 20), "five sevenths of the side");
    assert_eq!(simclr("", &CIFAR).views()[0], simclr("", &CIFAR).views()[1]);
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
        ("view.crop = [0.0, 1.0]", "view.crop"),
        ("view.crop = [0.9, 0.5]", "view.crop"),
        ("view.crop = [0.5, 1.5]", "view.crop"),
        ("view.flip = 1.5", "view.flip"),
        ("view.jitter = [-1.0, 0.0, 0.0, 0.0]", "view.jitter"),
        ("view.jitter = [0.0, 0.0, 0.0, 0.6]", "view.jitter"),
        ("view.jitter_probability = 2.0", "view.jitter_probability"),
        ("view.grayscale = -0.1", "view.grayscale"),
        ("view.blur = 7.0", "view.blur"),
        ("view.solarize = -1.0", "view.solarize"),
        ("view.sharpen = 1.0", "sharpen"),
    ] {
        let error = common::try_build("simclr", &CIFAR, &common::resnet(), given).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{given}");
        assert!(error.to_string().contains(named), "{given}: {error}");
    }
    let error = Settings::new(&Table::new()).unwrap_err();
    assert!(error.to_string().contains("temperature"), "a missing setting is named: {error}");
    let encoder = models::build(&common::resnet(), common::image(&CIFAR), 1).unwrap();
    let settings = common::settings("simclr", &GREY, "");
    assert!((METHOD.build)(&settings, &GREY, encoder, 1).is_err(), "channels must agree");
}

#[test]
fn training_settings_round_trip_and_are_checked() {
    let training = training(&CIFAR);
    let table = Table::try_from(&training).unwrap();
    assert_eq!(table["learning_rate"].as_float(), Some(0.12), "plain decimals");
    assert_eq!(table.try_into::<Training>().unwrap(), training);
    type Spoil = fn(&mut Training);
    let wrong: [(&str, Spoil); 13] = [
        ("milestones", |t| t.milestones = vec![0.5]),
        ("milestones", |t| (t.rate_schedule, t.milestones) = (RateSchedule::Steps, vec![0.8, 0.6])),
        ("lars", |t| t.lars = Some(objectives::LarsRule::Byol)),
        ("final_weight_decay", |t| t.final_weight_decay = Some(-0.1)),
        ("layer_decay", |t| t.layer_decay = Some(1.5)),
        ("clip_scope", |t| t.clip_scope = objectives::ClipScope::Parameter),
        ("final_weight_decay", |t| (t.weight_decay, t.final_weight_decay) = (0.0, Some(0.1))),
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
    let small = Training { batch: 128, ..training(&CIFAR) };
    assert!((small.peak_rate() - 0.06).abs() < 1e-7, "0.06 for a batch of 128");
    let large = training(&LARGE);
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
    let falling = Training { rate_schedule: RateSchedule::Steps, milestones: vec![0.6, 0.8], ..set.clone() };
    let rate = LearningRate::new(&falling, 400);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(near(rate.at(0), peak / 100.0) && near(rate.at(239), peak) && near(rate.at(240), peak / 10.0));
    assert!(near(rate.at(319), peak / 10.0) && near(rate.at(320), peak / 100.0));
    let decay = Training { weight_decay: 0.04, final_weight_decay: Some(0.4), ..set.clone() }.decay_scale(11);
    assert!(near(decay.at(0), 1.0) && (decay.at(5) - 5.5).abs() < 1e-5 && (decay.at(10) - 10.0).abs() < 1e-5);
    assert!(near(set.decay_scale(11).at(7), 1.0));
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

/// Decay moves exactly what decays: matrices and kernels, no bias, no normalisation.
#[test]
fn only_weights_decay_and_biases_that_start_at_zero_can_move() {
    let driven = |optimizer, rate| {
        let method = simclr("", &GREY);
        let views = common::noise(method.as_ref(), 4, 1, 1);
        let mut drive = Drive::new(method, 4, 10).with(optimizer, rate);
        drive.step(&views);
        drive
    };
    let sgd = |decay| Optimizer::new(Algorithm::Sgd { momentum: 0.0, nesterov: false }, decay);
    let (mut without, mut with) = (driven(sgd(0.0), 1e-3), driven(sgd(100.0), 1e-3));
    let lars = Algorithm::Lars { momentum: 0.9, trust: 1e-3, variant: LarsVariant::Simclr };
    let mut adapted = driven(Optimizer::new(lars, 1e-4), 0.1);
    for (name, _) in adapted.names() {
        let values = adapted.value(&name);
        let params = parts(adapted.objective.networks()).params;
        let (_, param) = params.iter().find(|p| p.0 == name).unwrap();
        let is_matrix = param.value().rank() > 1;
        assert_eq!(param.role() == Role::Weight, is_matrix, "{name}");
        assert_eq!(without.value(&name) != with.value(&name), is_matrix, "{name} decays");
        if name.ends_with("bias") {
            assert!(values.iter().any(|&v| v != 0.0), "{name} is stuck at zero");
        }
    }
}
