//! Projectors, predictors, DINO's head and MAE's decoder.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

use autograd::module::parts;
use autograd::{Module, Var};
use engine::Tensor;
use kernels::array::Array;
use models::{
    DinoHead, DinoHeadSpec, Initializer, MaeDecoder, MaeDecoderSpec, Mlp, MlpSpec, Mode, Tokens, Upsampler,
    UpsamplerSpec,
};

fn names<M: Module + ?Sized>(module: &mut M) -> Vec<String> {
    parts(module).params.into_iter().map(|(name, _)| name).collect()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Array::<f32>::random(shape, seed, 1.0).to_tensor().unwrap()
}

fn values(x: &Var) -> Vec<f32> {
    x.value().to_vec().unwrap()
}

#[test]
fn each_method_has_its_own_projector() {
    let cases: [(MlpSpec, &str, bool); 7] = [
        (MlpSpec::simclr(6, 5, 4, 2), "0.weight 1.weight 1.bias 3.weight 4.weight", true),
        (MlpSpec::moco_v1(6, 4), "0.weight 0.bias", false),
        (MlpSpec::moco_v2(6, 4), "0.weight 0.bias 2.weight 2.bias", false),
        (
            MlpSpec::moco_v3(6, 5, 4, 3, true),
            "0.weight 1.weight 1.bias 3.weight 4.weight 4.bias 6.weight",
            true,
        ),
        (MlpSpec::moco_v3(6, 5, 4, 2, true), "0.weight 1.weight 1.bias 3.weight", true),
        (MlpSpec::moco_v3(6, 5, 4, 2, false), "0.weight 1.weight 1.bias 3.weight", false),
        (MlpSpec::byol(6, 5, 4), "0.weight 0.bias 1.weight 1.bias 3.weight", false),
    ];
    for (spec, expected, centred) in cases {
        let mut head = Mlp::new(spec, &Initializer::new(1)).unwrap();
        assert_eq!(names(&mut head).join(" "), expected, "{spec:?}");
        let out = head.forward(&Var::constant(random(&[7, 6], 1)), Mode::Train).unwrap();
        assert_eq!(out.shape(), [7, 4]);
        let out = values(&out);
        let mean = |c: usize| (0..7).map(|i| out[i * 4 + c]).sum::<f32>() / 7.0;
        assert_eq!((0..4).all(|c| mean(c).abs() < 1e-5), centred, "{spec:?}");
        assert!(out.iter().any(|&v| v < 0.0), "no ReLU at the end of {spec:?}");
    }
    let hidden =
        |spec| parts(&mut Mlp::new(spec, &Initializer::new(1)).unwrap()).params[0].1.value().shape()[0];
    assert_eq!(hidden(MlpSpec::moco_v2(6, 4)), 6, "as wide as the features");
}

const DINO: DinoHeadSpec = DinoHeadSpec {
    inputs: 6,
    hidden: 8,
    bottleneck: 5,
    outputs: 9,
    layers: 3,
    norm: false,
    fixed_lengths: true,
};

#[test]
fn dinos_scores_are_cosines_times_lengths() {
    for (norm, fixed_lengths) in [(false, true), (true, true), (false, false)] {
        let spec = DinoHeadSpec { norm, fixed_lengths, ..DINO };
        let mut head = DinoHead::new(spec, &Initializer::new(1)).unwrap();
        let mlp = match norm {
            false => "mlp.0.weight mlp.0.bias mlp.2.weight mlp.2.bias mlp.4.weight mlp.4.bias",
            true => {
                "mlp.0.weight mlp.0.bias mlp.1.weight mlp.1.bias mlp.3.weight mlp.3.bias mlp.4.weight mlp.4.bias \
                 mlp.6.weight mlp.6.bias"
            }
        };
        let expected = format!("{mlp} last_layer.weight_g last_layer.weight_v");
        assert_eq!(names(&mut head).join(" "), expected);
        let x = Var::constant(random(&[7, 6], 2));
        let score = |head: &mut DinoHead| head.forward(&x, Mode::Evaluate).unwrap();
        let before = score(&mut head);
        assert_eq!(before.shape(), [7, 9]);
        assert!(values(&before).iter().all(|v| v.abs() <= 1.0 + 1e-6));
        score(&mut head).backward_from(random(&[7, 9], 3)).unwrap();
        let scaled = |head: &mut DinoHead, name: &str, by: f32| {
            for (n, param) in parts(head).params.into_iter().filter(|(n, _)| n == name) {
                let value = kernels::elementwise::scale(param.value(), by).unwrap();
                assert_eq!(param.gradient().is_some(), !(n.ends_with("weight_g") && fixed_lengths), "{n}");
                param.set(value).unwrap();
            }
        };
        // Neither the length of what the MLP makes nor of a direction counts; the length beside it does.
        scaled(&mut head, if norm { "mlp.6.weight" } else { "mlp.4.weight" }, 3.0);
        scaled(&mut head, "last_layer.weight_v", 4.0);
        let same = score(&mut head);
        assert!(values(&before).iter().zip(values(&same)).all(|(a, b)| (a - b).abs() < 1e-6));
        scaled(&mut head, "last_layer.weight_g", 2.0);
        let doubled = score(&mut head);
        assert!(values(&before).iter().zip(values(&doubled)).all(|(a, b)| (2.0 * a - b).abs() < 1e-5));
    }
    assert!(DinoHead::new(DinoHeadSpec { layers: 0, ..DINO }, &Initializer::new(1)).is_err());
}

const MAE: MaeDecoderSpec =
    MaeDecoderSpec { inputs: 6, width: 8, depth: 1, heads: 2, grid: [2, 3], outputs: 12 };

/// Kept patches of two images, in the order in which the encoder saw them.
const KEPT: [[usize; 2]; 2] = [[4, 1], [0, 5]];

fn restore() -> Tensor {
    let rows = (0..12).map(|i| {
        let (image, patch) = (i / 6, i % 6);
        KEPT[image].iter().position(|&p| p == patch).map_or(4, |at| (image * 2 + at) as i32)
    });
    Tensor::from_slice(&rows.collect::<Vec<i32>>(), &[12]).unwrap()
}

#[test]
fn the_decoder_puts_tokens_where_they_were() {
    // Gathering by `restore` after keeping is the identity on what was kept.
    let iota =
        Var::constant(Tensor::from_slice(&(0..12).map(|i| i as f32).collect::<Vec<_>>(), &[12, 1]).unwrap());
    let kept: Vec<i32> = (0..2).flat_map(|b| KEPT[b].map(|p| (b * 6 + p) as i32)).collect();
    let kept = Var::constant(Tensor::from_slice(&kept, &[4]).unwrap());
    let visible = autograd::ops::gather_rows(&iota, &kept).unwrap();
    let mask = Var::constant(Tensor::from_slice(&[-1f32], &[1, 1]).unwrap());
    let table = autograd::ops::cat(&[&visible, &mask], 0).unwrap();
    let restored = values(&autograd::ops::gather_rows(&table, &Var::constant(restore())).unwrap());
    for (i, value) in restored.into_iter().enumerate() {
        let expected = if KEPT[i / 6].contains(&(i % 6)) { i as f32 } else { -1.0 };
        assert_eq!(value, expected);
    }
    let mut decoder = MaeDecoder::new(&MAE, &Initializer::new(1)).unwrap();
    let x = random(&[2, 3, 6], 5);
    let run = |decoder: &mut MaeDecoder, x: &Tensor, restore: &Tensor| {
        let tokens = Tokens { x: Var::constant(x.clone()), prefix: 1 };
        values(&decoder.forward(&tokens, restore).unwrap())
    };
    let out = run(&mut decoder, &x, &restore());
    assert_eq!(out.len(), 2 * 6 * 12);
    // The same tokens kept in another order, and restored from there, are the same picture.
    let rows = |order: [usize; 6]| {
        let rows: Vec<Tensor> =
            order.iter().map(|&i| x.reshape(&[6, 6]).unwrap().narrow(0, i, 1).unwrap()).collect();
        let all = kernels::copy::cat(&rows.iter().collect::<Vec<_>>(), 0).unwrap();
        all.reshape(&[2, 3, 6]).unwrap()
    };
    let swapped = restore().to_vec::<i32>().unwrap().into_iter().map(|r| [1, 0, 2, 3, 4][r as usize]);
    let swapped = Tensor::from_slice(&swapped.collect::<Vec<i32>>(), &[12]).unwrap();
    assert_eq!(out, run(&mut decoder, &rows([0, 2, 1, 3, 4, 5]), &swapped));
    assert_ne!(out, run(&mut decoder, &rows([0, 2, 1, 3, 4, 5]), &restore()));
    // Masked places differ by their positions alone, and they do differ.
    assert_ne!(out[..12], out[24..36]);
    assert!(
        decoder
            .forward(&Tokens { x: Var::constant(x.clone()), prefix: 1 }, &swapped.narrow(0, 0, 6).unwrap())
            .is_err()
    );
}

#[test]
fn the_decoder_has_maes_names_and_trains_them() {
    let mut decoder = MaeDecoder::new(&MAE, &Initializer::new(1)).unwrap();
    let all = names(&mut decoder);
    for name in [
        "mask_token",
        "decoder_embed.weight",
        "decoder_blocks.0.attn.qkv.weight",
        "decoder_norm.bias",
        "decoder_pred.bias",
    ] {
        assert!(all.iter().any(|n| n == name), "{name} in {all:?}");
    }
    let buffers: Vec<String> = parts(&mut decoder).buffers.into_iter().map(|(name, _)| name).collect();
    assert_eq!(buffers, ["decoder_pos_embed"]);
    let tokens = Tokens { x: Var::constant(random(&[2, 3, 6], 5)), prefix: 1 };
    let out = decoder.forward(&tokens, &restore()).unwrap();
    assert_eq!(out.shape(), [2, 6, 12]);
    out.backward_from(random(&[2, 6, 12], 6)).unwrap();
    for (name, param) in parts(&mut decoder).params {
        assert!(param.gradient().unwrap().to_vec::<f32>().unwrap().iter().any(|&g| g != 0.0), "{name}");
    }
    assert!(MaeDecoder::new(&MaeDecoderSpec { heads: 3, ..MAE }, &Initializer::new(1)).is_err());
}

/// A pixel of the map reaches as far as the layers' kernels: 1 for each of the two ordinary ones, 2 more a dilated one.
#[test]
fn dilated_layers_of_a_decoder_see_further() {
    for (dilated, reach) in [(0, 2), (1, 4), (2, 6)] {
        let spec = UpsamplerSpec { inputs: 3, dilated, width: 8, doublings: 0, outputs: 2 };
        let mut decoder = Upsampler::new(&spec, &Initializer::new(1)).unwrap();
        assert_eq!(names(&mut decoder).iter().filter(|n| n.starts_with("dilated")).count(), 3 * dilated);
        let x = Array::<f32>::random(&[1, 17, 17, 3], 1, 1.0);
        let mut other = x.clone();
        let middle = (8 * 17 + 8) * 3;
        other.data[middle..middle + 3].iter_mut().for_each(|v| *v += 50.0);
        let mut places = |x: &Array<f32>| {
            let out = decoder.forward(&Var::constant(x.to_tensor().unwrap()), Mode::Evaluate).unwrap();
            assert_eq!(out.shape(), [1, 17, 17, 2]);
            values(&out)
        };
        let (a, b) = (places(&x), places(&other));
        let moved = (0..17 * 17).filter(|i| a[2 * i..2 * i + 2] != b[2 * i..2 * i + 2]);
        let furthest = moved.map(|i| (i / 17).abs_diff(8).max((i % 17).abs_diff(8))).max();
        assert_eq!(furthest, Some(reach), "{dilated} dilated layers");
    }
}
