//! Structure, initial weights and statistics of the networks.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

use autograd::module::{self, Parts, parts};
use autograd::param::Role;
use autograd::{Module, Var};
use engine::Tensor;
use engine::safetensors::Contents;
use kernels::array::Array;
use models::{
    ARCHS, Activation, Arch, BatchNorm, Block, ImageShape, Initializer, Mlp, MlpSpec, Mode, ResNet,
    ResNetSpec, Stem, build, duplicate, load_state,
};

fn names<M: Module + ?Sized>(module: &mut M) -> Vec<String> {
    parts(module).params.into_iter().map(|(name, _)| name).collect()
}

fn images(shape: [usize; 4], seed: u64) -> Var {
    Var::constant(Array::<f32>::random(&shape, seed, 1.0).to_tensor().unwrap())
}

fn shape(side: usize, channels: usize) -> ImageShape {
    ImageShape { height: side, width: side, channels }
}

fn tiny(block: Block, stem: Stem) -> ResNetSpec {
    ResNetSpec {
        block,
        stages: vec![2, 1],
        width: 4,
        stem_width: 4,
        stem,
        channels: 1,
        classes: None,
        zero_init_residual: false,
        norm_splits: 1,
    }
}

/// torchvision's counts for 1000 classes (11,689,512; 21,797,672; 25,557,032) without their `fc`; and for the
/// small one by hand: 144 + 32 for the stem, 4,672, 14,528 and 57,728 for the blocks.
#[test]
fn parameter_counts_are_the_published_ones() {
    let counts = [
        ("resnet18", 3, 11_689_512 - 513_000),
        ("resnet34", 3, 21_797_672 - 513_000),
        ("resnet50", 3, 25_557_032 - 2_049_000),
        ("resnet18-cifar", 3, 11_689_512 - 513_000 - 64 * 3 * (49 - 9)),
        ("resnet-small", 1, 144 + 32 + 4_672 + 14_528 + 57_728),
    ];
    for (name, channels, count) in counts {
        let mut network = build(&Arch::named(name), shape(32, channels), 1).unwrap();
        assert_eq!(module::count(&mut *network), count, "{name}");
    }
}

#[test]
fn every_architecture_gives_features_of_its_size() {
    for named in ARCHS {
        let width = if named.name.starts_with("vit") { 48 } else { 4 };
        let arch = Arch { width: Some(width), ..Arch::named(named.name) };
        let mut network = build(&arch, shape(32, 3), 1).unwrap();
        assert_eq!((network.arch(), network.image()), (&arch, shape(32, 3)));
        let features = network.features(&images([2, 32, 32, 3], 1), Mode::Train).unwrap();
        assert_eq!(features.shape(), [2, network.dim()], "{}", named.name);
        assert!(features.value().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn an_architecture_is_built_again_from_what_it_says() {
    for (name, width, dim) in
        [("resnet-small", None, 64), ("resnet-small/8", None, 32), ("resnet-small/4", Some(8), 32)]
    {
        let network = build(&Arch { width, ..Arch::named(name) }, shape(32, 1), 1).unwrap();
        let again = build(network.arch(), network.image(), 1).unwrap();
        assert_eq!((network.dim(), again.dim(), again.arch()), (dim, dim, network.arch()));
    }
    let error = build(&Arch::named("resnet19"), shape(32, 3), 1).err().unwrap();
    for arch in ARCHS {
        assert!(error.message().contains(arch.name), "{error}");
    }
    for (name, channels, width) in [("resnet18/x", 3, None), ("resnet18", 0, None), ("resnet18", 3, Some(0))]
    {
        assert!(build(&Arch { width, ..Arch::named(name) }, shape(32, channels), 1).is_err());
    }
    assert!(build(&Arch::named("resnet18"), ImageShape { height: 0, width: 8, channels: 1 }, 1).is_err());
}

#[test]
fn a_field_of_another_family_is_an_error_that_names_it() {
    let error = build(&Arch { patch: Some(4), ..Arch::named("resnet18") }, shape(32, 3), 1).err().unwrap();
    assert_eq!(error.kind(), engine::ErrorKind::Usage);
    assert!(error.message().contains("'patch'") && error.message().contains("norm_splits"), "{error}");
}

#[test]
fn a_duplicate_is_equal_and_shares_nothing() {
    let arch = Arch { norm_splits: Some(2), ..Arch::named("resnet-small/4") };
    let mut network = build(&arch, shape(8, 1), 1).unwrap();
    let x = images([4, 8, 8, 1], 1);
    network.features(&x, Mode::Train).unwrap();
    parts(&mut *network).params[1].1.set_trainable(false);
    let mut copy = duplicate(&mut *network).unwrap();
    assert_eq!((copy.arch(), copy.image()), (network.arch(), shape(8, 1)));
    let out = |network: &mut dyn models::Encoder| {
        network.features(&x, Mode::Evaluate).unwrap().value().to_vec::<f32>().unwrap()
    };
    let before = out(&mut *network);
    assert_eq!(before, out(&mut *copy));
    let (a, b) = (parts(&mut *network), parts(&mut *copy));
    for ((name, a), (_, b)) in a.params.iter().zip(&b.params) {
        assert!(!a.value().shares_storage(b.value()), "{name}");
        assert_eq!(a.is_trainable(), b.is_trainable(), "{name}");
    }
    for ((name, a), (_, b)) in a.buffers.iter().zip(&b.buffers) {
        assert!(!a.value().shares_storage(b.value()), "{name}");
    }
    copy.features(&x, Mode::Train).unwrap();
    assert_eq!(out(&mut *network), before, "the other's statistics are its own");
}

#[test]
fn layers_are_the_stem_and_the_stages() {
    let mut network = build(&Arch::named("resnet18-cifar/4"), shape(8, 1), 1).unwrap();
    assert_eq!(network.layers(), 5);
    for name in names(&mut *network) {
        let expected = match name.strip_prefix("layer") {
            Some(rest) => rest[..1].parse().unwrap(),
            None => 0,
        };
        assert_eq!(network.layer_of(&name), expected, "{name}");
    }
}

#[test]
fn names_and_order_are_torchvisions() {
    let spec = ResNetSpec { stages: vec![1, 1], classes: Some(3), ..tiny(Block::Bottleneck, Stem::ImageNet) };
    let mut network = ResNet::new(spec, &Initializer::new(1)).unwrap();
    let mut expected: Vec<String> = ["conv1.weight", "bn1.weight", "bn1.bias"].map(String::from).into();
    for block in ["layer1.0", "layer2.0"] {
        for i in 1..=3 {
            for part in [format!("conv{i}.weight"), format!("bn{i}.weight"), format!("bn{i}.bias")] {
                expected.push(format!("{block}.{part}"));
            }
        }
        for part in ["0.weight", "1.weight", "1.bias"] {
            expected.push(format!("{block}.downsample.{part}"));
        }
    }
    expected.extend(["fc.weight", "fc.bias"].map(String::from));
    assert_eq!(names(&mut network), expected);
    let mut network = ResNet::new(tiny(Block::Basic, Stem::Cifar), &Initializer::new(1)).unwrap();
    let all = names(&mut network);
    // At equal size and stride 1 the shortcut is the identity.
    assert!(!all.iter().any(|n| n.starts_with("layer1") && n.contains("downsample")), "{all:?}");
    assert!(all.iter().any(|n| n == "layer2.0.downsample.0.weight"), "{all:?}");
}

#[test]
fn each_stage_halves_the_image_and_the_imagenet_stem_quarters_it() {
    // Batch statistics of a single image need a map of at least two pixels, so the smallest image that can be
    // trained on shows by how much all stages together shrink it.
    for (stem, smallest) in [(Stem::Cifar, 3), (Stem::ImageNet, 9)] {
        let mut network = ResNet::new(tiny(Block::Basic, stem), &Initializer::new(1)).unwrap();
        network.forward(&images([1, smallest, smallest, 1], 1), Mode::Train).unwrap();
        let error = network.forward(&images([1, smallest - 1, smallest - 1, 1], 1), Mode::Train).unwrap_err();
        assert!(error.message().contains("two values"), "{stem:?}: {error}");
    }
}

#[test]
fn initial_weights_depend_on_name_and_seed_alone() {
    let values = |spec: ResNetSpec, seed: u64| {
        let mut network = ResNet::new(spec, &Initializer::new(seed)).unwrap();
        let Parts { params, .. } = parts(&mut network);
        let value = |wanted: &str| {
            let (_, param) = params.iter().find(|(name, _)| name == wanted).unwrap();
            param.value().to_vec::<f32>().unwrap()
        };
        (value("layer1.0.conv1.weight"), value("layer2.0.conv1.weight"), value("layer1.0.conv2.weight"))
    };
    let base = values(tiny(Block::Basic, Stem::Cifar), 1);
    let deeper = values(ResNetSpec { stages: vec![3, 2, 1], ..tiny(Block::Basic, Stem::ImageNet) }, 1);
    assert_eq!(base, deeper, "other layers change nothing");
    assert_ne!(base.0, values(tiny(Block::Basic, Stem::Cifar), 2).0);
    assert_ne!(base.0, base.2, "layers of one shape differ");
}

/// Kaiming-normal with fan-out, PyTorch's uniform for linear layers, ones and zeros for normalisation.
#[test]
fn initial_values_have_the_right_spread() {
    let mut network = build(&Arch::named("resnet18-cifar"), shape(32, 3), 1).unwrap();
    for (name, param) in parts(&mut *network).params {
        let shape = param.value().shape().to_vec();
        let values = param.value().to_vec::<f32>().unwrap();
        if param.role() == Role::Norm {
            let expected = if name.ends_with("weight") { 1.0 } else { 0.0 };
            assert!(values.iter().all(|&v| v == expected), "{name}");
            continue;
        }
        let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let variance = squares / values.len() as f64;
        let expected = 2.0 / (shape[0] * shape[1] * shape[2]) as f64;
        // Six standard errors of a normal sample's variance.
        let allowed = 6.0 * (2.0 / values.len() as f64).sqrt();
        assert!((variance / expected - 1.0).abs() < allowed, "{name}: {variance} for {expected}");
    }
    let mut head = models::Linear::new(100, 300, true, &Initializer::new(1)).unwrap();
    for (name, param) in parts(&mut head).params {
        let values = param.value().to_vec::<f32>().unwrap();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest <= 0.1 && largest > 0.098, "{name}: {largest}");
    }
}

#[test]
fn zero_init_residual_starts_blocks_as_the_identity() {
    for block in [Block::Basic, Block::Bottleneck] {
        let spec = ResNetSpec { zero_init_residual: true, ..tiny(block, Stem::Cifar) };
        let mut network = ResNet::new(spec, &Initializer::new(1)).unwrap();
        let last = if block == Block::Basic { "bn2.weight" } else { "bn3.weight" };
        for (name, param) in parts(&mut network).params {
            let zero = param.value().to_vec::<f32>().unwrap().iter().all(|&v| v == 0.0);
            assert_eq!(zero, name.ends_with(last) || name.ends_with("bias"), "{name}");
        }
    }
}

#[test]
fn evaluation_uses_running_statistics_and_leaves_them() {
    let mut network = ResNet::new(tiny(Block::Basic, Stem::Cifar), &Initializer::new(1)).unwrap();
    let statistics = |network: &mut ResNet| -> Vec<Vec<f32>> {
        parts(network).buffers.iter().map(|(_, b)| b.value().to_vec().unwrap()).collect()
    };
    let fresh = statistics(&mut network);
    let (one, two) = (images([4, 8, 8, 1], 1), images([4, 8, 8, 1], 2));
    network.features(&one, Mode::Train).unwrap();
    let trained = statistics(&mut network);
    assert!(fresh.iter().zip(&trained).all(|(a, b)| a != b), "every layer's statistics move in training");
    let together = network.features(&two, Mode::Evaluate).unwrap().value().to_vec::<f32>().unwrap();
    let first = Var::constant(two.value().narrow(0, 0, 1).unwrap());
    let alone = network.features(&first, Mode::Evaluate).unwrap().value().to_vec::<f32>().unwrap();
    let error = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0f32, f32::max);
    // The same sums, perhaps in another order.
    assert!(error(&together[..alone.len()], &alone) < 1e-5, "in evaluation other images do not matter");
    assert_eq!(statistics(&mut network), trained);
}

#[test]
fn running_variance_is_unbiased() {
    let mut norm = BatchNorm::new(1).unwrap();
    let x = Var::constant(Tensor::from_slice(&[1f32, 3.0], &[2, 1]).unwrap());
    norm.forward(&x, None, Activation::None, Mode::Train).unwrap();
    let buffers = parts(&mut norm).buffers;
    assert!((buffers[0].1.value().item().unwrap() - 0.2).abs() < 1e-7);
    // The variance of 1 and 3 is 2 without bias: 0.9 * 1 + 0.1 * 2.
    assert!((buffers[1].1.value().item().unwrap() - 1.1).abs() < 1e-6);
    let one = Var::constant(Tensor::from_slice(&[1f32], &[1, 1]).unwrap());
    assert!(norm.forward(&one, None, Activation::None, Mode::Train).is_err());
}

#[test]
fn state_dicts_round_trip_and_counters_are_ignored() {
    let spec = ResNetSpec { classes: Some(3), ..tiny(Block::Bottleneck, Stem::ImageNet) };
    let mut network = ResNet::new(spec.clone(), &Initializer::new(1)).unwrap();
    network.forward(&images([2, 32, 32, 1], 1), Mode::Train).unwrap();
    let mut contents = Contents::default();
    module::save(&mut network, "encoder.", &mut contents).unwrap();
    contents.insert("encoder.bn1.num_batches_tracked", &Tensor::from_slice(&[1i32], &[]).unwrap()).unwrap();
    let mut other = ResNet::new(spec, &Initializer::new(2)).unwrap();
    load_state(&mut other, "encoder.", &contents, &[]).unwrap();
    let x = images([2, 32, 32, 1], 3);
    let out = |n: &mut ResNet| n.forward(&x, Mode::Evaluate).unwrap().value().to_vec::<f32>().unwrap();
    assert_eq!(out(&mut network), out(&mut other));
    // Without an fc its two names are unexpected, unless the caller says otherwise.
    let mut bare = ResNet::new(tiny(Block::Bottleneck, Stem::ImageNet), &Initializer::new(2)).unwrap();
    let error = load_state(&mut bare, "encoder.", &contents, &[]).unwrap_err();
    assert!(error.message().contains("unexpected: fc.weight"), "{error}");
    load_state(&mut bare, "encoder.", &contents, &["fc.weight", "fc.bias"]).unwrap();
}

#[test]
fn every_parameter_gets_a_gradient() {
    for (block, stem) in [(Block::Basic, Stem::Cifar), (Block::Bottleneck, Stem::ImageNet)] {
        let mut network = ResNet::new(tiny(block, stem), &Initializer::new(1)).unwrap();
        let features = network.features(&images([3, 16, 16, 1], 1), Mode::Train).unwrap();
        let upstream = Array::<f32>::random(features.shape(), 5, 1.0).to_tensor().unwrap();
        features.backward_from(upstream).unwrap();
        for (name, param) in parts(&mut network).params {
            let gradient = param.gradient().unwrap().to_vec::<f32>().unwrap();
            assert!(gradient.iter().any(|&g| g != 0.0), "{name}");
        }
    }
}

#[test]
fn wrong_images_are_refused_with_what_is_needed() {
    let mut network = build(&Arch::named("resnet-small/4"), shape(8, 3), 1).unwrap();
    let error = network.features(&images([2, 8, 8, 1], 1), Mode::Train).unwrap_err();
    assert!(error.message().contains("[B, H, W, 3]"), "{error}");
}

#[test]
fn the_projector_is_simclrs() {
    let spec = MlpSpec::simclr(6, 5, 4, 3);
    let mut head = Mlp::new(spec, &Initializer::new(1)).unwrap();
    // No linear layer has a bias; the last normalisation has no shift.
    let expected =
        ["0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias", "6.weight", "7.weight"];
    assert_eq!(names(&mut head), expected);
    let x = Var::constant(Array::<f32>::random(&[7, 6], 1, 1.0).to_tensor().unwrap());
    let z = head.forward(&x, Mode::Train).unwrap().value().to_vec::<f32>().unwrap();
    // The last step is a normalisation without ReLU: zero mean, both signs.
    for c in 0..4 {
        let mean: f32 = (0..7).map(|i| z[i * 4 + c]).sum::<f32>() / 7.0;
        assert!(mean.abs() < 1e-6, "{mean}");
    }
    assert!(Mlp::new(MlpSpec { layers: 0, ..spec }, &Initializer::new(1)).is_err());
}

/// What two devices would do: each half by itself. Differs from the whole batch, and from a shuffled one.
#[test]
fn split_normalisation_is_that_of_the_parts() {
    let x = images([6, 2, 2, 3], 7);
    let run = |norm: &mut BatchNorm, x: &Var| {
        norm.forward(x, None, Activation::None, Mode::Train).unwrap().value().to_vec::<f32>().unwrap()
    };
    let half = |i: usize| Var::constant(x.value().narrow(0, 3 * i, 3).unwrap());
    let mut split = BatchNorm::new(3).unwrap().in_splits(2);
    let out = run(&mut split, &x);
    let mut apart: Vec<BatchNorm> = (0..2).map(|_| BatchNorm::new(3).unwrap()).collect();
    let expected: Vec<f32> = (0..2).flat_map(|i| run(&mut apart[i], &half(i))).collect();
    assert_eq!(out, expected);
    for buffer in 0..2 {
        let of = |norm: &mut BatchNorm| parts(norm).buffers[buffer].1.value().to_vec::<f32>().unwrap();
        let [one, two] = [0, 1].map(|i| of(&mut apart[i]));
        for ((got, a), b) in of(&mut split).into_iter().zip(one).zip(two) {
            assert!((got - (a + b) / 2.0).abs() < 1e-6, "{got} is not the average of {a} and {b}");
        }
    }
    assert_ne!(out, run(&mut BatchNorm::new(3).unwrap(), &x), "a whole batch has other statistics");
    assert!(split.forward(&half(0), None, Activation::None, Mode::Train).is_err(), "3 samples in 2 parts");
    let evaluated = split.forward(&half(0), None, Activation::None, Mode::Evaluate).unwrap();
    assert_eq!(evaluated.shape(), [3, 2, 2, 3]);
}

/// Shuffling a batch that is normalised as a whole hides nothing: the outputs are the same in another order. In splits
/// they are not, which is what MoCo's shuffled keys rely on.
#[test]
fn a_shuffle_matters_to_split_normalisation_alone() {
    let x = images([8, 8, 8, 1], 9);
    let order = [3, 7, 0, 4, 6, 1, 5, 2];
    let rows: Vec<Tensor> = order.iter().map(|&i| x.value().narrow(0, i, 1).unwrap()).collect();
    let shuffled = Var::constant(kernels::copy::cat(&rows.iter().collect::<Vec<_>>(), 0).unwrap());
    let difference = |splits: usize| {
        let arch = Arch { norm_splits: Some(splits), ..Arch::named("resnet-small/4") };
        let features = |x: &Var| {
            let mut network = build(&arch, shape(8, 1), 1).unwrap();
            network.features(x, Mode::Train).unwrap().value().to_vec::<f32>().unwrap()
        };
        let (plain, other) = (features(&x), features(&shuffled));
        let row = |i: usize| plain[i * 16..][..16].iter();
        let pairs = order.iter().enumerate().flat_map(|(at, &i)| row(i).zip(&other[at * 16..][..16]));
        pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    };
    assert!(difference(1) < 1e-5 && difference(4) > 0.05, "{} and {}", difference(1), difference(4));
}

#[test]
fn momentum_is_the_weight_of_the_newest_batch_and_plain_has_no_parameters() {
    let mut norm = BatchNorm::plain(1).unwrap().with_momentum(0.5);
    let x = Var::constant(Tensor::from_slice(&[1f32, 3.0], &[2, 1]).unwrap());
    let y = norm.forward(&x, None, Activation::None, Mode::Train).unwrap();
    let y = y.value().to_vec::<f32>().unwrap();
    assert!((y[0] + 1.0).abs() < 1e-4 && (y[1] - 1.0).abs() < 1e-4, "{y:?}");
    let parts = parts(&mut norm);
    assert!(parts.params.is_empty());
    assert_eq!(parts.buffers[0].1.value().item().unwrap(), 1.0);
    assert_eq!(parts.buffers[1].1.value().item().unwrap(), 1.5);
}
