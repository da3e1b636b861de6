//! Times convolutions, matrix products and pooling on the CPU: `cargo run --release -p kernels --example
//! bench_conv [FILTER]` (`RAYON_NUM_THREADS` sets the threads). Prints the best of several runs in milliseconds and GFLOP/s; the first line
//! is the machine's measured peak of fused multiply-adds.

use engine::{DType, Device, Result, Tensor};
use kernels::array::Array;
use kernels::conv2d::{self, Geometry, Sizes};
use kernels::{matmul, pool};
use std::time::Instant;

/// Best time of one call in seconds: at least 5 calls, at least 0.3 s.
fn best(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let (begin, mut best, mut calls) = (Instant::now(), f64::INFINITY, 0);
    while calls < 5 || begin.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    Ok(best)
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Array::<f32>::random(shape, 1, 1.0).to_tensor()
}

/// Name; images, height and width, in, out, kernel, stride, padding.
const CONVOLUTIONS: &[(&str, [usize; 7])] = &[
    ("small stem", [256, 28, 1, 16, 3, 1, 1]),
    ("small 28x28x16", [256, 28, 16, 16, 3, 1, 1]),
    ("small 28>14 16>32", [256, 28, 16, 32, 3, 2, 1]),
    ("small 28>14 1x1", [256, 28, 16, 32, 1, 2, 0]),
    ("small 14x14x32", [256, 14, 32, 32, 3, 1, 1]),
    ("small 14>7 32>64", [256, 14, 32, 64, 3, 2, 1]),
    ("small 14>7 1x1", [256, 14, 32, 64, 1, 2, 0]),
    ("small 7x7x64", [256, 7, 64, 64, 3, 1, 1]),
    ("r18 stem", [64, 32, 3, 64, 3, 1, 1]),
    ("r18 32x32x64", [64, 32, 64, 64, 3, 1, 1]),
    ("r18 32>16 64>128", [64, 32, 64, 128, 3, 2, 1]),
    ("r18 32>16 1x1", [64, 32, 64, 128, 1, 2, 0]),
    ("r18 16x16x128", [64, 16, 128, 128, 3, 1, 1]),
    ("r18 16>8 128>256", [64, 16, 128, 256, 3, 2, 1]),
    ("r18 8x8x256", [64, 8, 256, 256, 3, 1, 1]),
    ("r18 8>4 256>512", [64, 8, 256, 512, 3, 2, 1]),
    ("r18 4x4x512", [64, 4, 512, 512, 3, 1, 1]),
    ("r50 14x14 1x1", [32, 14, 1024, 256, 1, 1, 0]),
    ("r50 stem 7x7", [8, 224, 3, 64, 7, 2, 3]),
];

/// Name, M, N, K, transpose a, transpose b.
const PRODUCTS: &[(&str, usize, usize, usize, bool, bool)] = &[
    ("square", 1024, 1024, 1024, false, false),
    ("square NT", 1024, 1024, 1024, false, true),
    ("square TN", 1024, 1024, 1024, true, false),
    ("head 512", 256, 512, 512, false, true),
    ("head 512 wgrad", 512, 512, 256, true, false),
    ("probe", 10_000, 10, 784, false, true),
    ("probe wgrad", 10, 784, 10_000, true, false),
    ("vit mlp", 6272, 768, 192, false, true),
    ("ntxent tile", 64, 512, 128, false, true),
];

fn line(kind: &str, name: &str, seconds: f64, flops: f64) {
    println!("{kind:8} {name:20} {:9.3} ms {:8.1} GFLOP/s", seconds * 1e3, flops / seconds / 1e9);
}

fn main() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let wanted = |kind: &str, name: &str| format!("{kind} {name}").contains(&filter);
    // A product whose operands stay in the first-level cache is bound by multiply-adds alone.
    let peak = matmul::cpu::peak(rayon::current_num_threads());
    println!("threads {}, peak {:.1} GFLOP/s", rayon::current_num_threads(), peak / 1e9);
    for &(name, [n, size, c, o, kernel, stride, padding]) in CONVOLUTIONS {
        if !wanted("conv", name) {
            continue;
        }
        let g = Geometry::new(stride, padding);
        let (x, w) = (random(&[n, size, size, c])?, random(&[o, kernel, kernel, c])?);
        let sizes = Sizes::new("bench", x.shape(), w.shape(), g)?;
        let dy = random(&sizes.output())?;
        let flops = conv2d::flops(&sizes);
        line("forward", name, best(|| conv2d::forward(&x, &w, g).map(drop))?, flops);
        if c > 3 {
            line("dgrad", name, best(|| conv2d::input_gradient(&dy, &w, x.shape(), g).map(drop))?, flops);
        }
        line("wgrad", name, best(|| conv2d::weight_gradient(&x, &dy, w.shape(), g).map(drop))?, flops);
    }
    for &(name, m, n, k, ta, tb) in PRODUCTS {
        if !wanted("matmul", name) {
            continue;
        }
        let a = random(&if ta { [k, m] } else { [m, k] })?;
        let b = random(&if tb { [n, k] } else { [k, n] })?;
        line("matmul", name, best(|| matmul::matmul(&a, &b, ta, tb).map(drop))?, matmul::flops(m, n, k));
    }
    if wanted("pool", "max 112x112x64") {
        let x = random(&[16, 112, 112, 64])?;
        let (y, index) = pool::max_forward(&x, 3, 2, 1)?;
        let ones = Tensor::full(y.shape(), 1.0, Device::Cpu)?;
        line(
            "pool",
            "max 112x112x64",
            best(|| pool::max_forward(&x, 3, 2, 1).map(drop))?,
            9.0 * y.len() as f64,
        );
        let back = best(|| pool::max_backward(&ones, &index, x.shape(), 3, 2, 1).map(drop))?;
        line("pool", "max bwd", back, y.len() as f64);
        let x = random(&[256, 7, 7, 64])?;
        line("pool", "average", best(|| pool::global_average_forward(&x).map(drop))?, x.len() as f64);
        let dy = Tensor::zeros(&[256, 64], DType::F32, Device::Cpu)?;
        let back = best(|| pool::global_average_backward(&dy, x.shape()).map(drop))?;
        line("pool", "average bwd", back, x.len() as f64);
    }
    Ok(())
}
