//! The Vision Transformer: what it sees, positions, dropped branches, names and initial values.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

use autograd::module::{self, parts};
use autograd::{Module, Var, no_grad};
use engine::Tensor;
use kernels::array::Array;
use models::{
    Arch, Encoder, FeedForward, ImageShape, Init, Mode, Pool, Position, VisionTransformer, VitInput, build,
    duplicate,
};

const SIDE: usize = 16;
const WIDTH: usize = 24;
/// Patches of an image.
const LEN: usize = 16;

fn arch() -> Arch {
    Arch { width: Some(WIDTH), depth: Some(2), ..Arch::named("vit-micro") }
}

fn image(side: usize) -> ImageShape {
    ImageShape { height: side, width: side, channels: 1 }
}

fn encoder(arch: &Arch) -> Box<dyn Encoder> {
    build(arch, image(SIDE), 3).unwrap()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Array::<f32>::random(shape, seed, 1.0).to_tensor().unwrap()
}

fn images(seed: u64) -> Var {
    Var::constant(random(&[2, SIDE, SIDE, 1], seed))
}

fn index(values: &[i32]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn values(x: &Var) -> Vec<f32> {
    x.value().to_vec().unwrap()
}

/// Gives everything that starts as zero or one value, so that no test passes because of that.
fn shake<M: Module + ?Sized>(network: &mut M) {
    for (i, (_, param)) in parts(network).params.into_iter().enumerate() {
        let noise = Array::<f32>::random(param.value().shape(), 100 + i as u64, 0.1).to_tensor().unwrap();
        param.set(kernels::elementwise::add(param.value(), &noise).unwrap()).unwrap();
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
}

/// `images` with other pixels in one patch of the first image.
fn other_patch(images: &Var, patch: usize) -> Var {
    let mut pixels = values(images);
    let row = patch / 4 * 4 * SIDE + patch % 4 * 4;
    for y in 0..4 {
        pixels[row + y * SIDE..][..4].fill(9.0);
    }
    Var::constant(Tensor::from_slice(&pixels, images.shape()).unwrap())
}

/// Rows that leave every patch but `masked` of the first image alone.
fn masked_rows(masked: usize) -> Tensor {
    let row = |i: i32| if i == masked as i32 { 2 * LEN as i32 } else { i };
    index(&(0..2 * LEN as i32).map(row).collect::<Vec<_>>())
}

#[test]
fn parameter_counts_are_timms() {
    // timm 1.0: vit_{tiny,small,base}_patch16_224 without their heads of 1000 classes.
    for (name, count) in [
        ("vit-tiny", 5_717_416 - 193_000),
        ("vit-small", 22_050_664 - 385_000),
        ("vit-base", 86_567_656 - 769_000),
    ] {
        let image = ImageShape { height: 224, width: 224, channels: 3 };
        let mut network = build(&Arch::named(name), image, 1).unwrap();
        assert_eq!(module::count(&mut *network), count, "{name}");
    }
}

#[test]
fn a_masked_patch_is_not_seen() {
    let mut encoder = encoder(&arch());
    let vit = encoder.vit().unwrap();
    let (x, rows) = (images(1), masked_rows(5));
    let with = |vit: &mut VisionTransformer, x: &Var| {
        values(&vit.forward(&VitInput { rows: Some(&rows), ..VitInput::whole(x) }).unwrap().x)
    };
    let error = vit.forward(&VitInput { rows: Some(&rows), ..VitInput::whole(&x) }).unwrap_err();
    assert!(error.message().contains("mask token"), "{error}");
    vit.add_mask_token().unwrap();
    shake(vit);
    let masked = with(vit, &x);
    assert_eq!(masked, with(vit, &other_patch(&x, 5)), "bit-equal");
    assert_ne!(masked, with(vit, &other_patch(&x, 6)));
    assert_ne!(masked, values(&vit.forward(&VitInput::whole(&x)).unwrap().x));
    let out = vit.forward(&VitInput { rows: Some(&rows), ..VitInput::whole(&x) }).unwrap();
    out.x.backward_from(random(out.x.shape(), 2)).unwrap();
    let parts = parts(vit);
    let (_, token) = parts.params.iter().find(|(name, _)| name == "mask_token").unwrap();
    assert!(token.gradient().unwrap().to_vec::<f32>().unwrap().iter().any(|&g| g != 0.0));
}

/// A mask token stands where its patch was: positions are added to it.
#[test]
fn masked_patches_keep_their_positions() {
    let mut encoder = encoder(&arch());
    let vit = encoder.vit().unwrap();
    vit.add_mask_token().unwrap();
    let all = index(&[2 * LEN as i32; 2 * LEN]);
    let x = images(1);
    let tokens = vit.forward(&VitInput { rows: Some(&all), ..VitInput::whole(&x) }).unwrap();
    let patches = values(&tokens.patches().unwrap());
    assert!(largest_difference(&patches[..WIDTH], &patches[WIDTH..2 * WIDTH]) > 1e-3);
}

/// Those of image 0, out of order, then those of image 1.
const KEPT: [i32; 8] = [7, 2, 11, 4, 16, 31, 20, 25];

#[test]
fn a_dropped_patch_is_not_seen() {
    let mut encoder = encoder(&arch());
    let vit = encoder.vit().unwrap();
    shake(vit);
    let (x, kept) = (images(1), index(&KEPT));
    let with = |vit: &mut VisionTransformer, x: &Var, kept: &Tensor| {
        vit.forward(&VitInput { kept: Some(kept), ..VitInput::whole(x) }).unwrap()
    };
    let out = with(vit, &x, &kept);
    assert_eq!((out.x.shape(), out.prefix), (&[2, 5, WIDTH][..], 1));
    assert_eq!(out.patches().unwrap().shape(), [2, 4, WIDTH]);
    assert_eq!(out.class().unwrap().shape(), [2, WIDTH]);
    assert_eq!(values(&out.x), values(&with(vit, &other_patch(&x, 5), &kept).x), "bit-equal");
    assert_ne!(values(&out.x), values(&with(vit, &other_patch(&x, 7), &kept).x));
    // All of them in order is the whole image.
    let all = index(&(0..2 * LEN as i32).collect::<Vec<_>>());
    let whole = vit.forward(&VitInput::whole(&x)).unwrap();
    assert_eq!(values(&whole.x), values(&with(vit, &x, &all).x));
    let odd = with_error(vit, &x, &index(&KEPT[..7]));
    assert!(odd.contains("the same K"), "{odd}");
}

/// A kept patch has the position of its place in the image, wherever it stands among the kept ones: their order means nothing.
#[test]
fn kept_patches_keep_their_positions() {
    let mut encoder = encoder(&arch());
    let vit = encoder.vit().unwrap();
    shake(vit);
    let x = images(1);
    let mut class = |kept: &[i32]| {
        let kept = index(kept);
        let tokens = vit.forward(&VitInput { kept: Some(&kept), ..VitInput::whole(&x) }).unwrap();
        values(&tokens.class().unwrap())
    };
    let other = class(&[4, 11, 7, 2, 25, 16, 31, 20]);
    assert!(largest_difference(&class(&KEPT), &other) < 1e-5);
    assert!(largest_difference(&class(&[7, 2, 11, 5, 16, 31, 20, 26]), &other) > 1e-3);
}

fn with_error(vit: &mut VisionTransformer, x: &Var, kept: &Tensor) -> String {
    vit.forward(&VitInput { kept: Some(kept), ..VitInput::whole(x) }).unwrap_err().to_string()
}

#[test]
fn dropped_branches_are_gone_and_kept_ones_are_as_they_were() {
    let arch = Arch { layer_scale: Some(0.5), drop_path: Some(0.4), ..arch() };
    let mut encoder = encoder(&arch);
    shake(&mut *encoder);
    assert_eq!(encoder.drop_rates(), [0.0, 0.0, 0.4, 0.4]);
    let x = images(1);
    let plain = values(&encoder.features(&x, Mode::Train).unwrap());
    let keep = |values: [f32; 8]| Tensor::from_slice(&values, &[4, 2]).unwrap();
    let mut dropped = |values_: [f32; 8]| values(&encoder.dropped_features(&x, &keep(values_)).unwrap());
    assert_eq!(dropped([1.0; 8]), plain);
    // Image 1 loses its last block, image 0 nothing.
    let one = dropped([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(one[..WIDTH], plain[..WIDTH]);
    assert_ne!(one[WIDTH..], plain[WIDTH..]);
    // Each row of factors has a branch of its own.
    let without = |row: usize| std::array::from_fn(|i| if i == 2 * row + 1 { 0.0 } else { 1.0 });
    let outs: Vec<Vec<f32>> = (0..4).map(|row| dropped(without(row))).collect();
    for (row, out) in outs.iter().enumerate() {
        assert_ne!(*out, plain, "branch {row}");
        assert!(outs[..row].iter().all(|other| other != out), "branch {row} is another's too");
    }
    let vit = encoder.vit().unwrap();
    let blocks = vit.last_blocks(&x, 2).unwrap();
    assert_eq!(one[WIDTH..], values(&blocks[0].class().unwrap())[WIDTH..], "as after the first block");
    assert_eq!(plain, values(&blocks[1].class().unwrap()));
    for (block, tokens) in blocks.iter().enumerate() {
        let same = vit.block_tokens(&x, block + 1).unwrap();
        assert_eq!(same.x.value().to_vec::<f32>().unwrap(), tokens.x.value().to_vec::<f32>().unwrap());
    }
    assert!(vit.block_tokens(&x, 0).is_err() && vit.block_tokens(&x, 3).is_err());
    assert!(vit.last_blocks(&x, 3).is_err() && vit.last_blocks(&x, 0).is_err());
    let short = Tensor::from_slice(&[1f32; 6], &[3, 2]).unwrap();
    assert!(encoder.dropped_features(&x, &short).is_err());
    let uniform = build(&Arch { drop_path_uniform: Some(true), ..arch }, image(SIDE), 1).unwrap();
    assert_eq!(uniform.drop_rates(), [0.4; 4]);
}

/// The values are held against torch's `interpolate` in `tests/golden`; here every position gets a share of the gradient.
#[test]
fn positions_are_resized_with_their_gradient() {
    let mut encoder = encoder(&arch());
    let large = Var::constant(random(&[2, 24, 12, 1], 1));
    let tokens = encoder.vit().unwrap().forward(&VitInput::whole(&large)).unwrap();
    assert_eq!(tokens.x.shape(), [2, 1 + 6 * 3, WIDTH]);
    tokens.x.backward_from(random(tokens.x.shape(), 2)).unwrap();
    let all = parts(&mut *encoder);
    let (_, positions) = all.params.iter().find(|(name, _)| name == "pos_embed").unwrap();
    let gradient = positions.gradient().unwrap();
    assert_eq!(gradient.shape(), [1, 1 + LEN, WIDTH]);
    for row in gradient.to_vec::<f32>().unwrap().chunks(WIDTH) {
        assert!(row.iter().any(|&g| g != 0.0));
    }
    let odd = Var::constant(random(&[2, 18, 12, 1], 1));
    let error = encoder.features(&odd, Mode::Evaluate).unwrap_err();
    assert!(error.message().contains("multiples of the patch, 4"), "{error}");
}

/// MAE's and MoCo v3's: the first half is of the column, the class token's is zero, and no gradient reaches them.
#[test]
fn fixed_positions_are_sines_and_cosines_and_not_trained() {
    let arch = Arch { position: Some(Position::Sincos), ..arch() };
    let mut encoder = encoder(&arch);
    let all = parts(&mut *encoder);
    assert!(all.params.iter().all(|(name, _)| name != "pos_embed"));
    let (name, buffer) = &all.buffers[0];
    assert_eq!((name.as_str(), buffer.value().shape()), ("pos_embed", &[1, 1 + LEN, WIDTH][..]));
    let table = buffer.value().to_vec::<f32>().unwrap();
    assert_eq!(table[..WIDTH], [0.0; WIDTH]);
    // Patch 6 is in row 1, column 2; six frequencies a coordinate.
    let row = &table[(1 + 6) * WIDTH..][..WIDTH];
    for (half, place) in [(0, 2.0f64), (12, 1.0)] {
        for i in 0..6 {
            let angle = place / 10000f64.powf(i as f64 / 6.0);
            assert!((f64::from(row[half + i]) - angle.sin()).abs() < 1e-6);
            assert!((f64::from(row[half + 6 + i]) - angle.cos()).abs() < 1e-6);
        }
    }
    let odd = Arch { width: Some(30), position: Some(Position::Sincos), ..Arch::named("vit-micro") };
    assert!(build(&odd, image(SIDE), 1).err().unwrap().message().contains("multiple of 4"));
}

#[test]
fn names_are_timms_and_layers_follow_them() {
    let arch = Arch { registers: Some(4), layer_scale: Some(1e-5), ..arch() };
    let mut network = encoder(&arch);
    network.vit().unwrap().add_mask_token().unwrap();
    let mut expected: Vec<String> = [
        "cls_token",
        "reg_token",
        "mask_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    ]
    .map(String::from)
    .into();
    for i in 0..2 {
        let names = "norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.proj.weight attn.proj.bias ls1.gamma \
                     norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias ls2.gamma";
        expected.extend(names.split_whitespace().map(|name| format!("blocks.{i}.{name}")));
    }
    expected.extend(["norm.weight", "norm.bias"].map(String::from));
    let names: Vec<String> = parts(&mut *network).params.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected);
    assert_eq!(network.layers(), 4);
    for name in &names {
        let layer = match name.strip_prefix("blocks.") {
            Some(rest) => 1 + rest[..1].parse::<usize>().unwrap(),
            None if name.starts_with("norm") => 3,
            None => 0,
        };
        assert_eq!(network.layer_of(name), layer, "{name}");
    }
}

#[test]
fn every_form_trains_every_parameter() {
    for arch in [
        arch(),
        Arch { registers: Some(2), layer_scale: Some(0.1), ..arch() },
        Arch { feed_forward: Some(FeedForward::Swiglu), pool: Some(Pool::Average), ..arch() },
        Arch { position: Some(Position::Sincos), init: Some(Init::XavierSplit), heads: Some(4), ..arch() },
    ] {
        let mut network = encoder(&arch);
        shake(&mut *network);
        let features = network.features(&images(1), Mode::Train).unwrap();
        assert_eq!(features.shape(), [2, WIDTH]);
        features.backward_from(random(&[2, WIDTH], 4)).unwrap();
        for (name, param) in parts(&mut *network).params {
            let gradient = param.gradient().unwrap().to_vec::<f32>().unwrap();
            assert!(gradient.iter().any(|&g| g != 0.0), "{name} of {arch:?}");
        }
    }
}

#[test]
fn initial_values_are_those_of_the_reference_code() {
    let spread = |init: Init, name: &str| {
        let arch = Arch { init: Some(init), width: Some(96), ..arch() };
        let mut network = encoder(&arch);
        let all = parts(&mut *network);
        let (_, param) = all.params.iter().find(|(n, _)| n == name).unwrap();
        let values = param.value().to_vec::<f32>().unwrap();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        ((squares / values.len() as f64).sqrt(), f64::from(largest))
    };
    let qkv = "blocks.0.attn.qkv.weight";
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.05, "{a} for {b}");
    near(spread(Init::Normal, qkv).0, 0.02);
    near(spread(Init::Normal, "patch_embed.proj.weight").1, 0.25);
    near(spread(Init::Xavier, qkv).1, (6.0 / (4.0 * 96.0f64)).sqrt());
    near(spread(Init::XavierSplit, qkv).1, (6.0 / (2.0 * 96.0f64)).sqrt());
    near(spread(Init::Xavier, "patch_embed.proj.weight").1, (6.0 / (16.0 + 96.0f64)).sqrt());
    assert!(spread(Init::XavierSplit, "cls_token").1 < 1e-5 && spread(Init::Xavier, "cls_token").1 > 1e-2);
    assert_eq!(spread(Init::Xavier, "blocks.0.mlp.fc1.bias").1, 0.0);
}

#[test]
fn attention_maps_are_those_of_the_last_block() {
    let mut network = encoder(&arch());
    shake(&mut *network);
    let x = images(1);
    let maps = network.vit().unwrap().attention_maps(&x).unwrap();
    assert_eq!(maps.shape(), [2, 3, 17, 17]);
    for row in maps.to_vec::<f32>().unwrap().chunks(17) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|&w| w >= 0.0));
    }
    // A patch that is not seen does not move them.
    assert_ne!(maps.to_vec::<f32>().unwrap(), {
        let other = network.vit().unwrap().attention_maps(&other_patch(&x, 3)).unwrap();
        other.to_vec::<f32>().unwrap()
    });
}

#[test]
fn a_duplicate_has_the_mask_token_too() {
    let mut network = encoder(&arch());
    network.vit().unwrap().add_mask_token().unwrap();
    shake(&mut *network);
    let mut copy = duplicate(&mut *network).unwrap();
    let x = images(1);
    assert_eq!(
        values(&network.features(&x, Mode::Evaluate).unwrap()),
        values(&copy.features(&x, Mode::Evaluate).unwrap())
    );
    let (a, b) = (parts(&mut *network), parts(&mut *copy));
    assert!(b.params.iter().any(|(name, _)| name == "mask_token"));
    for ((name, a), (_, b)) in a.params.iter().zip(&b.params) {
        assert!(!a.value().shares_storage(b.value()), "{name}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    for (arch, side, named) in [
        (Arch { patch: Some(5), ..arch() }, SIDE, "patch"),
        (Arch { heads: Some(5), ..arch() }, SIDE, "heads"),
        (Arch { depth: Some(0), ..arch() }, SIDE, "depth"),
        (Arch { drop_path: Some(1.0), ..arch() }, SIDE, "drop_path"),
        (Arch { norm_splits: Some(2), ..arch() }, SIDE, "'norm_splits'"),
        (arch(), 30, "patch"),
    ] {
        let error = build(&arch, image(side), 1).err().unwrap();
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// On a device, in f32 and bf16, beside the CPU in f32.
#[test]
fn the_device_computes_the_same() {
    let arch = Arch { registers: Some(1), layer_scale: Some(0.5), ..arch() };
    let mut network = encoder(&arch);
    shake(&mut *network);
    let device = kernels::testing::device();
    let mut moved = duplicate(&mut *network).unwrap();
    module::to_device(&mut *moved, device).unwrap();
    let _off = no_grad();
    let kept = index(&KEPT);
    for side in [SIDE, 24] {
        let x = random(&[2, side, side, 1], 1);
        let kept = (side == SIDE).then_some(&kept);
        let input = Var::constant(x.clone());
        let expected = network.vit().unwrap().forward(&VitInput { kept, ..VitInput::whole(&input) }).unwrap();
        let expected = values(&expected.x);
        // bf16 keeps 8 bits: a normalised value of up to 4 through 2 blocks is within a few units of 1/64.
        for (dtype, allowed) in [(engine::DType::F32, 2e-5), (engine::DType::BF16, 0.15)] {
            let x = kernels::copy::cast(&x.to_device(device).unwrap(), dtype).unwrap();
            let kept = kept.map(|kept| kept.to_device(device).unwrap());
            let input = Var::constant(x);
            let input = VitInput { kept: kept.as_ref(), ..VitInput::whole(&input) };
            let out = moved.vit().unwrap().forward(&input).unwrap();
            assert_eq!(out.x.value().dtype(), dtype);
            let out =
                kernels::copy::cast(out.x.value(), engine::DType::F32).unwrap().to_vec::<f32>().unwrap();
            let error = largest_difference(&out, &expected);
            assert!(error < allowed, "{side} {dtype}: {error}");
        }
    }
}
