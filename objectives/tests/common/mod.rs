//! Objectives outside the trainer: settings from recipes with changes, and steps one by one.

#![allow(dead_code, reason = "each test file uses its part")]

use autograd::Module;
use autograd::module::parts;
use autograd::optim::{Algorithm, Numbers, Optimizer, Rule};
use engine::{Device, Result, Tensor};
use kernels::array::Array;
use kernels::optim::{Scalar, StepCount};
use models::{Arch, ImageShape};
use objectives::{Batch, DataProfile, Draws, Loss, Objective, Run, Special, find};
use toml::{Table, Value};

/// Grey images of 12 pixels.
pub const TINY: DataProfile = DataProfile { height: 12, width: 12, channels: 1, len: 1000 };

/// The images of a profile.
pub fn image(profile: &DataProfile) -> ImageShape {
    ImageShape { height: profile.height, width: profile.width, channels: profile.channels }
}

/// Puts changes into a table, deeper tables entry by entry.
pub fn merge(into: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(a)), Value::Table(b)) => merge(a, b),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The settings of a method's recipe, changed by TOML.
pub fn settings(method: &str, profile: &DataProfile, changes: &str) -> Table {
    let mut table = find(method).unwrap().defaults(profile).unwrap().settings;
    merge(&mut table, changes.parse().unwrap());
    table
}

/// A method with its recipe's settings, changed by TOML, around an encoder.
pub fn try_build(
    method: &str,
    profile: &DataProfile,
    arch: &Arch,
    changes: &str,
) -> Result<Box<dyn Objective>> {
    let channels = find(method)?.encoder_channels(profile.channels);
    let encoder = models::build(arch, ImageShape { channels, ..image(profile) }, 1)?;
    (find(method).unwrap().build)(&settings(method, profile, changes), profile, encoder, 1)
}

/// As [`try_build`].
pub fn build(method: &str, profile: &DataProfile, arch: &Arch, changes: &str) -> Box<dyn Objective> {
    try_build(method, profile, arch, changes).unwrap()
}

/// A ResNet of three blocks, 4 channels wide.
pub fn resnet() -> Arch {
    Arch { width: Some(4), ..Arch::named("resnet-small") }
}

/// A ViT of two blocks with patches of 4.
pub fn vit() -> Arch {
    Arch { width: Some(24), depth: Some(2), heads: Some(2), patch: Some(4), ..Arch::named("vit-micro") }
}

/// Views of noise, one a recipe of the objective, for `batch` images.
pub fn noise(objective: &dyn Objective, batch: usize, channels: usize, seed: u64) -> Vec<Tensor> {
    let view = |(i, v): (usize, &kernels::augment::Recipe)| {
        let shape = [batch, v.height, v.width, channels];
        Array::<f32>::random(&shape, seed * 100 + i as u64, 1.0).to_tensor().unwrap()
    };
    objective.views().iter().enumerate().map(view).collect()
}

/// Takes steps with an objective as the trainer does.
pub struct Drive {
    pub objective: Box<dyn Objective>,
    pub optimizer: Optimizer,
    pub run: Run,
    draws: Option<Draws>,
    pub step: u64,
    pub rate: f32,
}

impl Drive {
    /// A run of `steps` steps of `batch` images on the CPU, ten steps an epoch, SGD with momentum.
    pub fn new(objective: Box<dyn Objective>, batch: usize, steps: u64) -> Drive {
        Drive::on(Device::Cpu, objective, batch, steps)
    }

    /// The same on a device.
    pub fn on(device: Device, mut objective: Box<dyn Objective>, batch: usize, steps: u64) -> Drive {
        autograd::module::to_device(objective.networks(), device).unwrap();
        let run = Run { steps, steps_per_epoch: 10, batch, device };
        objective.begin(&run).unwrap();
        let names: Vec<String> = parts(objective.networks()).params.into_iter().map(|p| p.0).collect();
        let specials: Vec<(String, Special)> =
            names.into_iter().map(|n| (n.clone(), objective.special(&n))).collect();
        let rules = move |name: &str, param: &autograd::Param| {
            let special = specials.iter().find(|s| s.0 == name).unwrap().1;
            let Special { rate_scale, hold, group, optimiser } = special;
            let usual = Rule::of(param);
            let weight_decay = if optimiser.is_some() { 0.0 } else { usual.weight_decay };
            Rule { weight_decay, rate_scale, hold, group, algorithm: optimiser, ..usual }
        };
        let algorithm = Algorithm::Sgd { momentum: 0.9, nesterov: false };
        let optimizer = Optimizer::new(algorithm, 1e-4).with_rules(rules);
        let draws = objective.draws(&run).unwrap();
        Drive { objective, optimizer, run, draws, step: 0, rate: 0.05 }
    }

    /// Another update rule.
    pub fn with(mut self, optimizer: Optimizer, rate: f32) -> Drive {
        (self.optimizer, self.rate) = (optimizer, rate);
        self
    }

    /// What the objective draws for the step that comes next.
    pub fn drawn(&self) -> Vec<Tensor> {
        let drawn = self.draws.as_ref().map_or(Vec::new(), |draws| draws(self.step).unwrap());
        drawn.iter().map(|t| t.to_device(self.run.device).unwrap()).collect()
    }

    /// The loss of views, with gradients not yet computed and nothing moved.
    pub fn loss(&mut self, views: &[Tensor]) -> Loss {
        let draws = self.drawn();
        self.loss_of(views, &draws).unwrap()
    }

    /// The loss of views with given draws.
    pub fn loss_of(&mut self, views: &[Tensor], draws: &[Tensor]) -> Result<Loss> {
        let views: Vec<Tensor> = views.iter().map(|t| t.to_device(self.run.device).unwrap()).collect();
        let clock = objectives::draws::clock(self.step, self.run.device).unwrap();
        self.objective.loss(&Batch { views: &views, draws, clock: &clock })
    }

    /// A whole step; gives the loss before it.
    pub fn step(&mut self, views: &[Tensor]) -> f32 {
        let draws = self.drawn();
        let views: Vec<Tensor> = views.iter().map(|t| t.to_device(self.run.device).unwrap()).collect();
        let clock = objectives::draws::clock(self.step, self.run.device).unwrap();
        let batch = Batch { views: &views, draws: &draws, clock: &clock };
        let loss = self.objective.loss(&batch).unwrap();
        let value = loss.value.value().item().unwrap();
        loss.value.backward().unwrap();
        drop(loss);
        self.optimise();
        self.objective.after_step(&batch).unwrap();
        self.step += 1;
        value
    }

    /// What follows the gradients of a loss that was computed with its own draws.
    pub fn update(&mut self) {
        self.optimise();
        self.step += 1;
    }

    fn optimise(&mut self) {
        let numbers = Numbers {
            rate: Scalar::Value(self.rate),
            decay_scale: Scalar::Value(1.0),
            before: StepCount::Value(self.step),
        };
        self.optimizer.step_after(self.objective.networks(), &numbers, None).unwrap();
    }

    /// The value of the parameter or buffer called `name`.
    pub fn value(&mut self, name: &str) -> Vec<f32> {
        let all = parts(self.objective.networks());
        let params = all.params.iter().map(|(n, p)| (n, p.value()));
        let mut both = params.chain(all.buffers.iter().map(|(n, b)| (n, b.value())));
        both.find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name}")).1.to_vec::<f32>().unwrap()
    }

    /// Multiplies the values of the parameter called `name`.
    pub fn scale(&mut self, name: &str, by: f32) {
        scale(self.objective.networks(), name, by);
    }

    /// Names of all parameters with whether they are trained.
    pub fn names(&mut self) -> Vec<(String, bool)> {
        let params = parts(self.objective.networks()).params;
        params.into_iter().map(|(name, p)| (name, p.is_trainable())).collect()
    }
}

/// Multiplies the values of the parameter of `network` called `name`.
pub fn scale(network: &mut dyn Module, name: &str, by: f32) {
    let mut params = parts(network).params;
    let (_, param) = params.iter_mut().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
    let value = kernels::elementwise::scale(param.value(), by).unwrap();
    param.set(value).unwrap();
}

/// The rows of a matrix in f64.
pub fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    let width = x.shape()[1];
    x.to_vec::<f32>().unwrap().chunks(width).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
}

/// The cosines of every row of `a` with every row of `b`.
pub fn cosines(a: &Tensor, b: &Tensor) -> Vec<Vec<f64>> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let cosine = |x: &[f64], y: &[f64]| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
    let b = rows(b);
    rows(a).iter().map(|x| b.iter().map(|y| cosine(x, y)).collect()).collect()
}

/// The logarithm of the softmax of `logits` divided by `temperature`.
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let sum = logits.iter().map(|v| (v / temperature).exp()).sum::<f64>();
    logits.iter().map(|v| v / temperature - sum.ln()).collect()
}

/// A signal of a loss.
pub fn signal(loss: &Loss, name: &str) -> f32 {
    let found = loss.signals.iter().find(|s| s.0 == name).unwrap_or_else(|| panic!("no signal {name}"));
    found.1.item().unwrap()
}

/// The part of right answers on fresh views after training on others, all from `views(step)`, and its standard error if every
/// answer were a guess among `classes`.
pub fn accuracy_after(
    drive: &mut Drive,
    steps: u64,
    tests: u64,
    answers: usize,
    classes: usize,
    views: impl Fn(u64) -> Vec<Tensor>,
) -> (f64, f64) {
    for step in 0..steps {
        drive.step(&views(step));
    }
    let mut right = 0.0;
    for test in 0..tests {
        drive.step = steps + test;
        let loss = drive.loss(&views(steps + test));
        right += f64::from(signal(&loss, "accuracy"));
    }
    let chance = 1.0 / classes as f64;
    (right / tests as f64, (chance * (1.0 - chance) / (tests as f64 * answers as f64)).sqrt())
}

/// Views of images of noise, each pixel by itself, through the augmentations of the objective's only view.
pub fn augmented_noise(
    objective: &dyn Objective,
    profile: &DataProfile,
    batch: usize,
    seed: u64,
) -> Vec<Tensor> {
    use kernels::augment::{ImageRef, Parameters, Workspace, apply};
    let recipe = &objective.views()[0];
    let (h, w, c) = (profile.height, profile.width, profile.channels);
    let mut values = vec![0.0; batch * recipe.height * recipe.width * c];
    for (i, view) in values.chunks_exact_mut(recipe.height * recipe.width * c).enumerate() {
        let mut random = engine::Philox::new(seed, engine::random::Purpose::Test, i as u64);
        let pixels: Vec<f32> = (0..h * w * c).map(|_| random.uniform()).collect();
        let image = ImageRef::from_f32(&pixels, h, w, c).unwrap();
        let parameters = Parameters::draw(recipe, h, w, &mut random);
        apply(image, &parameters, recipe, &mut Workspace::default(), view).unwrap();
    }
    vec![Tensor::from_slice(&values, &[batch, recipe.height, recipe.width, c]).unwrap()]
}

/// Grey images of 18 pixels with nine textures, one a cell of 6, that go round from a random start: a tile by itself says nothing
/// of its place, two of one image do.
pub fn round(batch: usize, seed: u64) -> Tensor {
    let mut random = engine::Philox::new(seed, engine::random::Purpose::Test, 7);
    let mut values = Vec::with_capacity(batch * 324);
    for _ in 0..batch {
        let start = random.below(9);
        // Phases of their own: with one phase for all, it would tell where a tile lies.
        let phases: Vec<f32> = (0..9).map(|_| random.range(0.0, 6.3)).collect();
        for i in 0..324 {
            let (y, x) = (i / 18, i % 18);
            let cell = y / 6 * 3 + x / 6;
            let texture = (start + cell) % 9;
            // Stripes of three directions and three widths.
            let across = [x, y, x + y][texture % 3] as f32;
            let wave = (across * [0.8, 1.5, 2.6][texture / 3] + phases[cell]).sin();
            values.push(wave + 0.05 * random.normal());
        }
    }
    Tensor::from_slice(&values, &[batch, 18, 18, 1]).unwrap()
}
