//! The differentiable operations with their gradients.

use super::case::{Case, golden};
use autograd::module::{load, parts};
use autograd::{Var, ops};
use engine::{DType, Device, Tensor};
use kernels::conv2d::Geometry;
use kernels::copy::{cat, contiguous};
use models::{Activation, BatchNorm, Mode};

golden! {
    conv2d_k1s2p0: "conv2d_k1s2p0" => conv2d,
    conv2d_k3s1p1: "conv2d_k3s1p1" => conv2d,
    conv2d_k3s1p2d2: "conv2d_k3s1p2d2" => conv2d,
    conv2d_k3s2p1g3: "conv2d_k3s2p1g3" => conv2d,
    conv2d_k3s1p1g8: "conv2d_k3s1p1g8" => conv2d,
    conv2d_k3s2p1: "conv2d_k3s2p1" => conv2d,
    conv2d_k4s4p0: "conv2d_k4s4p0" => conv2d,
    conv2d_k5s1p2: "conv2d_k5s1p2" => conv2d,
    conv2d_k7s2p3: "conv2d_k7s2p3" => conv2d,
    conv_transpose2d_k4s2p1: "conv_transpose2d_k4s2p1" => conv_transpose2d,
    batch_norm_train_images: "batch_norm_train_4d" => batch_norm,
    batch_norm_train_vectors: "batch_norm_train_2d" => batch_norm,
    batch_norm_eval_images: "batch_norm_eval_4d" => batch_norm,
    batch_norm_eval_vectors: "batch_norm_eval_2d" => batch_norm,
    layer_norm_1e6: "layer_norm" => layer_norm,
    attention_17: "attention_17x17x16" => attention,
    attention_65: "attention_65x65x64" => attention,
    attention_7_queries_33_keys: "attention_7x33x32" => attention,
    gelu_erf: "gelu_erf" => gelu,
    linear_rank_3: "linear" => linear,
    l2_normalize_rows: "normalize" => l2_normalize,
    max_pool_k3s2p1: "max_pool_k3s2p1" => max_pool,
    global_average: "avg_pool_global" => global_average_pool,
}

fn conv2d(case: &Case) {
    let mut geometry = Geometry::new(case.count("stride"), case.count("padding"));
    if case.has("dilation") {
        geometry.dilation = case.count("dilation");
    }
    if case.has("groups") {
        geometry.groups = case.count("groups");
    }
    let (x, weight) = (case.leaf("x"), case.leaf("weight"));
    let out = ops::conv2d(&x, &weight, geometry).unwrap();
    // The longest sum is the weight's gradient: over all images and output pixels.
    let terms = (out.value().len() / out.shape()[3]).max(weight.value().len() / weight.shape()[0]);
    case.check_operation(&out, &[("x", &x), ("weight", &weight)], terms);
}

fn conv_transpose2d(case: &Case) {
    let geometry = Geometry::new(case.count("stride"), case.count("padding"));
    let (x, weight, bias) = (case.leaf("x"), case.leaf("weight"), case.leaf("bias"));
    let out = ops::add_bias(&ops::conv_transpose2d(&x, &weight, geometry).unwrap(), &bias).unwrap();
    // The longest sum is the bias' gradient: over all images and output pixels.
    let terms = out.value().len() / out.shape()[3];
    case.check_operation(&out, &[("x", &x), ("weight", &weight), ("bias", &bias)], terms);
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

/// The files hold queries, keys and values apart, as [B, H, T, D]; the operation takes them packed, as [B, T, 3 H D]. Where
/// there are fewer queries than keys, the missing ones are zeros without an upstream gradient.
fn attention(case: &Case) {
    let [b, heads, tokens, size] = *case.tensor("k").shape() else { panic!("keys must be [B, H, T, D]") };
    let queries = case.tensor("q").shape()[2];
    // [B, H, N, D] -> [B, T, H D]
    let packed = |name: &str| -> Tensor {
        let x = contiguous(&case.tensor(name).transpose(1, 2).unwrap()).unwrap();
        let n = x.shape()[1];
        let x = x.reshape(&[b, n, heads * size]).unwrap();
        let missing = Tensor::zeros(&[b, tokens - n, heads * size], DType::F32, Device::Cpu).unwrap();
        cat(&[&x, &missing], 1).unwrap()
    };
    let qkv = Var::leaf(cat(&[&packed("q"), &packed("k"), &packed("v")], 2).unwrap());
    let out = ops::attention(&qkv, heads, None, ops::SeenKeys::default()).unwrap();
    out.backward_from(packed("grad_out")).unwrap();
    let dqkv = qkv.gradient().unwrap();
    // Part of [B, T, parts H D] -> [B, N, D, H], which is what the checks make of [B, H, N, D].
    let check = |name: &str, x: &Tensor, part: usize, n: usize| {
        let x = x.narrow(2, part * heads * size, heads * size).unwrap().narrow(1, 0, n).unwrap();
        let x = contiguous(&x).unwrap().reshape(&[b, n, heads, size]).unwrap();
        // A weight has the error of a score, a sum over D; an element of a result is a sum over T of products with weights.
        case.check(name, &x.transpose(2, 3).unwrap(), size + tokens);
    };
    check("out", out.value(), 0, queries);
    check("grad.q", &dqkv, 0, queries);
    check("grad.k", &dqkv, 1, tokens);
    check("grad.v", &dqkv, 2, tokens);
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
