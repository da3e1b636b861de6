//! Times the kernels that are bound by memory, beside a copy of the same tensor.
//!
//! `cargo run --release -p kernels --example bench_memory [THREADS]` prints, for each, the least time of the
//! repetitions and the bytes that must move divided by it. Inputs are larger than the second-level cache where
//! the shape is; outputs come from the allocator's free list, as in a training step.

use engine::random::Purpose;
use engine::{Device, Result, Tensor};
use kernels::{copy, elementwise, norm, parallel, random, reduce};
use std::hint::black_box;
use std::time::Instant;

/// Least seconds of a call.
fn least<T>(mut f: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 5 || (begin.elapsed().as_secs_f64() < 0.3 && runs < 200) {
        let start = Instant::now();
        black_box(f()?);
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

fn show(what: &str, bytes: usize, seconds: f64) {
    println!("    {what:<34} {:>9.3} ms {:>8.1} GB/s", seconds * 1e3, bytes as f64 / seconds * 1e-9);
}

fn values(shape: &[usize], index: u64) -> Result<Tensor> {
    random::normal(shape, 0.0, 1.0, 1, Purpose::Test, index, Device::Cpu)
}

fn batch(shape: &[usize]) -> Result<()> {
    println!("{shape:?}");
    let (x, dy, r) = (values(shape, 0)?, values(shape, 1)?, values(shape, 2)?);
    let channels = shape[shape.len() - 1];
    let (w, b) = (Tensor::full(&[channels], 1.1, Device::Cpu)?, Tensor::full(&[channels], 0.1, Device::Cpu)?);
    let (w, b, eps) = (Some(&w), Some(&b), 1e-5);
    let n = x.len();
    let (from, mut to) = (x.as_slice::<f32>()?, Tensor::zeros(shape, x.dtype(), Device::Cpu)?);
    let to = to.as_mut_slice::<f32>()?;
    let copied = least(|| {
        parallel::chunks(to, parallel::GRAIN, |at, to| to.copy_from_slice(&from[at..][..to.len()]));
        Ok(())
    })?;
    show("copy", copy::bytes(n, 4), copied);
    show("add", elementwise::bytes(n, 2), least(|| elementwise::add(&x, &dy))?);
    show("relu", elementwise::bytes(n, 1), least(|| elementwise::relu(&x))?);
    show("gelu", elementwise::bytes(n, 1), least(|| elementwise::gelu(&x))?);
    show("sum_rows", reduce::bytes(n, channels), least(|| reduce::sum_rows(&x))?);
    for (what, relu, other) in
        [("", false, None), (" + relu", true, None), (" + residual + relu", true, Some(&r))]
    {
        let forward = || norm::batch_forward(&x, w, b, other, relu, eps);
        let bytes = norm::batch_forward_bytes(n, other.is_some());
        show(&format!("batch norm{what}"), bytes, least(forward)?);
        let out = forward()?;
        let (m, v) = (&out.mean, &out.variance);
        let y = relu.then_some(&out.y);
        let backward = || norm::batch_backward(&dy, &x, y, m, v, w, relu, other.is_some(), true, eps);
        show(&format!("batch norm{what}, backward"), norm::batch_backward_bytes(n, relu), least(backward)?);
    }
    Ok(())
}

fn rows(shape: &[usize]) -> Result<()> {
    println!("{shape:?}");
    let (x, dy) = (values(shape, 0)?, values(shape, 1)?);
    let n = x.len();
    let width = Tensor::full(&shape[1..], 1.1, Device::Cpu)?;
    show("layer norm", 8 * n, least(|| norm::layer_forward(&x, Some(&width), Some(&width), 1e-6))?);
    let (_, m, s) = norm::layer_forward(&x, None, None, 1e-6)?;
    show("layer norm, backward", 12 * n, least(|| norm::layer_backward(&dy, &x, &m, &s, Some(&width)))?);
    show("l2 norm", 8 * n, least(|| norm::l2_forward(&x, 1e-12))?);
    show("gelu", elementwise::bytes(n, 1), least(|| elementwise::gelu(&x))?);
    show("gelu, backward", elementwise::bytes(n, 2), least(|| elementwise::gelu_backward(&dy, &x))?);
    show("transposed", copy::bytes(n, 4), least(|| copy::contiguous(&x.transpose(0, 1)?))?);
    show(
        "uniform",
        random::bytes(n),
        least(|| random::uniform(shape, 0.0, 1.0, 1, Purpose::Test, 0, Device::Cpu))?,
    );
    show(
        "normal",
        random::bytes(n),
        least(|| random::normal(shape, 0.0, 1.0, 1, Purpose::Test, 0, Device::Cpu))?,
    );
    Ok(())
}

fn images(shape: &[usize]) -> Result<()> {
    println!("{shape:?}");
    let x = values(shape, 0)?;
    let bytes = copy::bytes(x.len(), 4);
    show("NCHW to NHWC", bytes, least(|| copy::contiguous(&x.permute(&[0, 2, 3, 1])?))?);
    show("NHWC to NCHW", bytes, least(|| copy::contiguous(&x.permute(&[0, 3, 1, 2])?))?);
    Ok(())
}

fn all() -> Result<()> {
    for shape in [
        [256, 28, 28, 16],
        [256, 14, 14, 32],
        [256, 7, 7, 64],
        [64, 32, 32, 64],
        [64, 16, 16, 128],
        [64, 8, 8, 256],
        [64, 4, 4, 512],
    ] {
        batch(&shape)?;
    }
    rows(&[12_608, 192])?;
    rows(&[3_152, 768])?;
    images(&[256, 3, 32, 32])?;
    images(&[64, 64, 32, 32])
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = std::env::args().nth(1) {
        pool = pool.num_threads(threads.parse()?);
    }
    pool.build()?.install(all)?;
    Ok(())
}
