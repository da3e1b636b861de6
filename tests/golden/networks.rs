//! torchvision's ResNets with their own state dicts: outputs, running statistics, gradients.

use super::case::{Case, golden};
use autograd::Var;
use autograd::module::parts;
use kernels::optim::global_norm;
use models::{Block, Initializer, Mode, ResNet, ResNetSpec, Stem, load_state};

golden! {
    resnet_of_basic_blocks: "model_resnet_basic" => resnet,
    resnet_of_bottlenecks: "model_resnet_bottleneck" => resnet,
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
    let parts = parts(&mut network);
    let value = |name: &str| f64::from(case.tensor(name).item().unwrap());
    let norms = case.contents.tensors.keys().filter(|k| k.starts_with("gradnorm."));
    let largest = norms.map(|name| value(name)).fold(0.0, f64::max);
    for (name, param) in &parts.params {
        let expected = value(&format!("gradnorm.{name}"));
        let norm = f64::from(global_norm(&[&param.gradient().unwrap()]).unwrap().item().unwrap());
        let error = (norm - expected).abs();
        assert!(error <= BACKWARD * expected + CANCELLED * largest, "{name}: {norm} should be {expected}");
    }
    for (name, buffer) in &parts.buffers {
        case.check_within(&format!("after.{name}"), buffer.value(), FORWARD);
    }
    let counted = |prefix: &str| case.contents.tensors.keys().filter(|k| k.starts_with(prefix)).count();
    assert_eq!(parts.params.len(), counted("gradnorm."));
    assert_eq!(parts.buffers.len(), counted("after."));

    let evaluated = network.forward(&images, Mode::Evaluate).unwrap();
    case.check_within("out_eval", evaluated.value(), FORWARD);
}
