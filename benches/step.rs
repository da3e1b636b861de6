//! The CPU training step beside PyTorch's on the same shapes, in the same run.
//!
//!     cargo bench --bench step
//!
//! PyTorch is used where `python3` (or `$PYTHON`) can import it, and left out with a message elsewhere. Rounds
//! alternate between both; medians over all rounds are compared. Each side runs in processes of its own, and
//! `peak MiB` is the largest resident set of ours.

use autograd::optim::{Algorithm, Optimizer};
use autograd::param::Role;
use autograd::{Module, Param, Var, module, ops};
use engine::random::Purpose;
use engine::{Device, Result, Tensor};
use models::{Arch, Encoder, ImageShape, Mode};
use std::process::Command;
use std::time::Instant;

/// Architecture, width, channels, side, images a step; the name is the peer script's.
struct Case {
    name: &'static str,
    arch: &'static str,
    channels: usize,
    side: usize,
    batch: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "simclr resnet-small w16 1x28 b128",
        arch: "resnet-small",
        channels: 1,
        side: 28,
        batch: 128,
    },
    Case { name: "simclr resnet18-cifar 3x32 b32", arch: "resnet18-cifar", channels: 3, side: 32, batch: 32 },
];

const ROUNDS: usize = 3;
const STEPS: usize = 7;
const THREADS: usize = 2;

/// Encoder and a two-layer head, as the peer script has them.
struct Network {
    encoder: Box<dyn Encoder>,
    head: [Param; 4],
}

impl Module for Network {
    fn visit<'a>(&'a mut self, path: &module::Path, visitor: &mut dyn module::Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        for (i, p) in self.head.iter_mut().enumerate() {
            visitor.param(path.name(&format!("head{i}")), p);
        }
    }
}

fn network(case: &Case) -> Result<Network> {
    let encoder = models::build(
        &Arch::named(case.arch),
        ImageShape { height: case.side, width: case.side, channels: case.channels },
        1,
    )?;
    let d = encoder.dim();
    let normal =
        |shape: &[usize], i| kernels::random::normal(shape, 0.0, 0.05, 1, Purpose::Test, i, Device::Cpu);
    let head = [
        Param::new(normal(&[d, d], 1)?, Role::Weight),
        Param::new(normal(&[d], 2)?, Role::Bias),
        Param::new(normal(&[128, d], 3)?, Role::Weight),
        Param::new(normal(&[128], 4)?, Role::Bias),
    ];
    Ok(Network { encoder, head })
}

/// Seconds of each of [`STEPS`] steps, after two to warm up.
fn steps(case: &Case) -> Result<Vec<f64>> {
    let mut network = network(case)?;
    let mut optimizer = Optimizer::new(Algorithm::Sgd { momentum: 0.9, nesterov: false }, 0.0);
    let shape = [2 * case.batch, case.side, case.side, case.channels];
    let x = Var::constant(kernels::random::normal(&shape, 0.0, 1.0, 1, Purpose::Test, 0, Device::Cpu)?);
    let n = 2 * case.batch as i32;
    let positive: Vec<i32> = (0..n).map(|i| (i + n / 2) % n).collect();
    let positive = Var::constant(Tensor::from_slice(&positive, &[positive.len()])?);
    let mut times = Vec::new();
    for i in 0..STEPS + 2 {
        let start = Instant::now();
        let h = network.encoder.features(&x, Mode::Train)?;
        let [w1, b1, w2, b2] = &network.head;
        let h = ops::relu(&ops::linear(&h, &w1.var(), Some(&b1.var()))?)?;
        let z = ops::l2_normalize(&ops::linear(&h, &w2.var(), Some(&b2.var()))?, 1e-12)?;
        let loss = ops::mean(&ops::ntxent(&z, &z, ops::Positive::Column(&positive), 0.5, Some(0))?, &[0])?;
        loss.backward()?;
        drop((h, z, loss));
        optimizer.step(&mut network, 0.1.into(), None)?;
        if i >= 2 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

/// The largest resident set of this process, in MiB, where the system tells.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse::<f64>().ok());
    kib.map_or(f64::NAN, |k| k / 1024.0)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The peer's median of one round, in milliseconds.
fn peer(python: &str, name: &str) -> Option<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/torch_cpu.py");
    let out = Command::new(python).arg(script).arg(name).env("THREADS", THREADS.to_string()).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|l| l.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--case") {
        rayon::ThreadPoolBuilder::new().num_threads(THREADS).build_global()?;
        let name = args.get(at + 1).map(String::as_str).unwrap_or_default();
        let case = CASES.iter().find(|c| c.name == name).ok_or("no such case")?;
        let times: Vec<String> = steps(case)?.iter().map(|t| format!("{:.4}", t * 1e3)).collect();
        println!("{} {}", peak_mib(), times.join(" "));
        return Ok(());
    }
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python).args(["-c", "import torch; print(torch.__version__)"]).output();
    let version = there.ok().filter(|o| o.status.success());
    match &version {
        Some(v) => println!("PyTorch {}, {THREADS} threads each", String::from_utf8_lossy(&v.stdout).trim()),
        None => println!("{python} cannot import torch: PyTorch is left out ($PYTHON names another)"),
    }
    println!("{:<36}{:>10}{:>14}{:>8}{:>10}", "step", "ours ms", "PyTorch ms", "ratio", "peak MiB");
    for case in CASES {
        let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0f64);
        for _ in 0..ROUNDS {
            let out = Command::new(std::env::current_exe()?).args(["--case", case.name]).output()?;
            if !out.status.success() {
                return Err(String::from_utf8_lossy(&out.stderr).into_owned().into());
            }
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let mut values = text.split_whitespace().filter_map(|v| v.parse::<f64>().ok());
            peak = peak.max(values.next().unwrap_or(f64::NAN));
            ours.extend(values);
            if version.is_some() {
                theirs.extend(peer(&python, case.name));
            }
        }
        let (a, b) = (median(&mut ours), median(&mut theirs));
        println!("{:<36}{a:>10.1}{b:>14.1}{:>8.2}{peak:>10.0}", case.name, a / b);
    }
    Ok(())
}
