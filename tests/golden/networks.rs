//! torchvision's ResNets and timm's ViTs with their own state dicts: outputs, running statistics, gradients.

use super::case::{Case, golden};
use autograd::module::parts;
use autograd::{Module, Var, ops};
use engine::{DType, Device, Tensor};
use kernels::copy::cat;
use kernels::optim::global_norm;
use models::{
    Block, FeedForward, ImageShape, Init, Initializer, Mode, Pool, Position, ResNet, ResNetSpec, Stem,
    VisionTransformer, VitInput, VitSpec, load_state,
};

golden! {
    resnet_of_basic_blocks: "model_resnet_basic" => resnet,
    resnet_of_bottlenecks: "model_resnet_bottleneck" => resnet,
    vision_transformer: "model_vit_timm" => vit,
    vision_transformer_with_registers: "model_vit_dinov2_reg" => vit,
}

/// f32 against f64 through the whole network. PyTorch's own f32 run differs from its f64 run by up to 6.3e-7 of
/// the largest element, in outputs and in running statistics; 4 times that is allowed.
const FORWARD: f64 = 2.5e-6;
/// As [`FORWARD`], for norms of gradients: PyTorch's differ by 8.4e-7 of themselves.
const BACKWARD: f64 = 3.4e-6;
/// Where terms cancel (the stem's shift in the bottleneck network goes through linear layers into another
/// normalisation, so its gradient is 0) the error is a part of the largest norm instead: PyTorch's is 3.4e-8.
const CANCELLED: f64 = 1.4e-7;

fn resnet(case: &Case) {
    let spec = ResNetSpec {
        block: if case.text("block") == "basic" { Block::Basic } else { Block::Bottleneck },
        stages: vec![1; 4],
        width: 8,
        stem_width: 64,
        stem: Stem::ImageNet,
        channels: 3,
        classes: Some(10),
        zero_init_residual: false,
        norm_splits: 1,
    };
    let mut network = ResNet::new(spec, &Initializer::new(0)).unwrap();
    load_state(&mut network, "state.", &case.contents, &[]).unwrap();
    let images = Var::constant(case.inside("images"));

    let out = network.forward(&images, Mode::Train).unwrap();
    case.check_within("out", out.value(), FORWARD);
    out.backward_from(case.tensor("grad_out")).unwrap();
    gradient_norms(case, &mut network);
    let parts = parts(&mut network);
    for (name, buffer) in &parts.buffers {
        case.check_within(&format!("after.{name}"), buffer.value(), FORWARD);
    }
    let counted = |prefix: &str| case.contents.tensors.keys().filter(|k| k.starts_with(prefix)).count();
    assert_eq!(parts.buffers.len(), counted("after."));

    let evaluated = network.forward(&images, Mode::Evaluate).unwrap();
    case.check_within("out_eval", evaluated.value(), FORWARD);
}

/// The norm of every parameter's gradient, of all that the file has and no other.
fn gradient_norms(case: &Case, network: &mut dyn Module) {
    let parts = parts(network);
    let value = |name: &str| f64::from(case.tensor(name).item().unwrap());
    let norms = case.contents.tensors.keys().filter(|k| k.starts_with("gradnorm."));
    let largest = norms.map(|name| value(name)).fold(0.0, f64::max);
    for (name, param) in &parts.params {
        let expected = value(&format!("gradnorm.{name}"));
        let norm = f64::from(global_norm(&[&param.gradient().unwrap()]).unwrap().item().unwrap());
        let error = (norm - expected).abs();
        assert!(error <= BACKWARD * expected + CANCELLED * largest, "{name}: {norm} should be {expected}");
    }
    assert_eq!(
        parts.params.len(),
        case.contents.tensors.keys().filter(|k| k.starts_with("gradnorm.")).count()
    );
}

/// Learned positions at other sizes are PyTorch's bicubic, antialiased resizing of the grid: the file's channels are put
/// in as positions, and images, patch weights and the class token are zero, so that the tokens in front of the first block
/// are the positions. A block of zeros and the last normalisation leave them normalised, which the expected ones are too.
#[test]
fn positions_at_other_sizes() {
    let case = Case::load("resize_bicubic_antialias");
    let x = case.inside("x");
    let [rows, columns, width] = [1, 2, 3].map(|d| x.shape()[d]);
    let spec =
        VitSpec { image: ImageShape { height: 2 * rows, width: 2 * columns, channels: 1 }, ..tiny(width) };
    let mut network = VisionTransformer::new(spec, &Initializer::new(0)).unwrap();
    for (name, param) in parts(&mut network).params {
        let value = match name.as_str() {
            "pos_embed" => {
                let class = Tensor::zeros(&[1, 1, width], DType::F32, Device::Cpu).unwrap();
                cat(&[&class, &x.reshape(&[1, rows * columns, width]).unwrap()], 1).unwrap()
            }
            "norm.weight" => continue,
            _ => Tensor::zeros(param.value().shape(), DType::F32, Device::Cpu).unwrap(),
        };
        param.set(value).unwrap();
    }
    for name in ["out", "up"] {
        let expected = case.inside(name);
        let [h, w] = [expected.shape()[1], expected.shape()[2]];
        let images = Tensor::zeros(&[1, 2 * h, 2 * w, 1], DType::F32, Device::Cpu).unwrap();
        let tokens = network.forward(&VitInput::whole(&Var::constant(images))).unwrap();
        let actual = tokens.patches().unwrap();
        let normal =
            ops::layer_norm(&Var::constant(expected.reshape(&[1, h * w, width]).unwrap()), None, None, 1e-6);
        let pairs = actual
            .value()
            .to_vec::<f32>()
            .unwrap()
            .into_iter()
            .zip(normal.unwrap().value().to_vec::<f32>().unwrap());
        // Sums of up to 64 weights in f32, then divided by a deviation of no less than a fifth.
        let error = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(error < 2e-5, "{name}: {error}");
    }
}

/// A ViT of one block.
fn tiny(width: usize) -> VitSpec {
    VitSpec {
        image: ImageShape { height: 2, width: 2, channels: 1 },
        patch: 2,
        width,
        depth: 1,
        heads: 1,
        registers: 0,
        layer_scale: None,
        drop_path: 0.0,
        drop_path_uniform: false,
        position: Position::Learned,
        feed_forward: FeedForward::Mlp,
        pool: Pool::Token,
        init: Init::Normal,
        classes: None,
    }
}

/// f32 against PyTorch's f32: each within rounding of the exact value, which both are as far from as ResNets are; and
/// large weights (deviation 0.2) make sharp attention, which multiplies errors.
const VIT: f64 = 4.0 * FORWARD;

fn vit(case: &Case) {
    let registers = case.contents.tensors.get("state.reg_token").map_or(0, |t| t.shape()[1]);
    let classes = case.contents.tensors.get("state.head.bias").map(|t| t.len());
    let side = case.count("img_size");
    let spec = VitSpec {
        image: ImageShape { height: side, width: side, channels: 3 },
        patch: case.count("patch"),
        depth: case.count("depth"),
        heads: case.count("heads"),
        registers,
        layer_scale: (registers > 0).then_some(0.1),
        classes,
        ..tiny(case.count("dim"))
    };
    let mut network = VisionTransformer::new(spec, &Initializer::new(0)).unwrap();
    load_state(&mut network, "state.", &case.contents, &[]).unwrap();
    let images = Var::constant(case.inside("images"));
    let tokens = network.forward(&VitInput::whole(&images)).unwrap();
    case.check_within("tokens", tokens.x.value(), VIT);
    assert_eq!(tokens.prefix, 1 + registers);
    let out = network.classify(&images).unwrap();
    case.check_within("out", out.value(), VIT);
    if case.contents.tensors.contains_key("grad_out") {
        out.backward_from(case.tensor("grad_out")).unwrap();
        gradient_norms(case, &mut network);
    }
}
