//! The differentiable operations with their gradients.

use super::case::{Case, golden};
use autograd::module::{load, parts};
use autograd::{Var, ops};
use kernels::conv2d::Geometry;
use models::{Activation, BatchNorm, Mode};

golden! {
    conv2d_k1s2p0: "conv2d_k1s2p0" => conv2d,
    conv2d_k3s1p1: "conv2d_k3s1p1" => conv2d,
    conv2d_k3s2p1: "conv2d_k3s2p1" => conv2d,
    conv2d_k4s4p0: "conv2d_k4s4p0" => conv2d,
    conv2d_k5s1p2: "conv2d_k5s1p2" => conv2d,
    conv2d_k7s2p3: "conv2d_k7s2p3" => conv2d,
    batch_norm_train_images: "batch_norm_train_4d" => batch_norm,
    batch_norm_train_vectors: "batch_norm_train_2d" => batch_norm,
    batch_norm_eval_images: "batch_norm_eval_4d" => batch_norm,
    batch_norm_eval_vectors: "batch_norm_eval_2d" => batch_norm,
    layer_norm_1e6: "layer_norm" => layer_norm,
    gelu_erf: "gelu_erf" => gelu,
    linear_rank_3: "linear" => linear,
    l2_normalize_rows: "normalize" => l2_normalize,
    max_pool_k3s2p1: "max_pool_k3s2p1" => max_pool,
    global_average: "avg_pool_global" => global_average_pool,
}

fn conv2d(case: &Case) {
    let geometry = Geometry { stride: case.count("stride"), padding: case.count("padding") };
    let (x, weight) = (case.leaf("x"), case.leaf("weight"));
    let out = ops::conv2d(&x, &weight, geometry).unwrap();
    // The longest sum is the weight's gradient: over all images and output pixels.
    let terms = (out.value().len() / out.shape()[3]).max(weight.value().len() / weight.shape()[0]);
    case.check_operation(&out, &[("x", &x), ("weight", &weight)], terms);
}

/// Through the layer, which keeps the running statistics.
fn batch_norm(case: &Case) {
    let x = case.leaf("x");
    let channels = *x.shape().last().unwrap();
    let rows = x.value().len() / channels;
    let mut layer = BatchNorm::new(channels).unwrap();
    let mode = if case.flag("train") { Mode::Train } else { Mode::Evaluate };
    match mode {
        // The file's running statistics are those after the step.
        Mode::Train => {
            for (name, param) in parts(&mut layer).params {
                param.set(case.tensor(&name)).unwrap();
            }
        }
        Mode::Evaluate => load(
            &mut layer,
            "",
            &case.contents,
            &["x", "out", "grad_out", "grad.x", "grad.weight", "grad.bias"],
        )
        .unwrap(),
    }
    let out = layer.forward(&x, None, Activation::None, mode).unwrap();
    case.check_operation(&out, &[("x", &x)], rows);
    let parts = parts(&mut layer);
    for (name, param) in &parts.params {
        case.check(&format!("grad.{name}"), &param.gradient().unwrap(), rows);
    }
    for (name, buffer) in &parts.buffers {
        case.check(name, buffer.value(), rows);
    }
}

fn layer_norm(case: &Case) {
    let (x, weight, bias) = (case.leaf("x"), case.leaf("weight"), case.leaf("bias"));
    let out = ops::layer_norm(&x, Some(&weight), Some(&bias), case.number("eps") as f32).unwrap();
    case.check_operation(&out, &[("x", &x), ("weight", &weight), ("bias", &bias)], 37);
}

fn gelu(case: &Case) {
    let x = case.leaf("x");
    case.check_operation(&ops::gelu(&x).unwrap(), &[("x", &x)], 1);
}

fn linear(case: &Case) {
    let (x, weight, bias) = (case.leaf("x"), case.leaf("weight"), case.leaf("bias"));
    let out = ops::linear(&x, &weight, Some(&bias)).unwrap();
    case.check_operation(&out, &[("x", &x), ("weight", &weight), ("bias", &bias)], 17);
}

fn l2_normalize(case: &Case) {
    let x = case.leaf("x");
    let out = ops::l2_normalize(&x, case.number("eps") as f32).unwrap();
    case.check_operation(&out, &[("x", &x)], 13);
}

fn max_pool(case: &Case) {
    let x = case.leaf("x");
    let size = |key| case.count(key);
    let out = ops::max_pool2d(&x, size("kernel"), size("stride"), size("padding")).unwrap();
    // Choosing rounds nothing; up to four overlapping windows add their gradients.
    case.check_operation(&out, &[("x", &x)], 4);
}

fn global_average_pool(case: &Case) {
    let x: Var = case.leaf("x");
    case.check_operation(&ops::global_avg_pool(&x).unwrap(), &[("x", &x)], 35);
}
