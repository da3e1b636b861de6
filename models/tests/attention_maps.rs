//! Attention maps of a ViT against the same from its parameters, in float64 and without any of the network's code.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used)]

use autograd::Var;
use autograd::module::parts;
use kernels::array::Array;
use models::{Arch, ImageShape, build};

const SIDE: usize = 8;
const PATCH: usize = 4;
const WIDTH: usize = 24;
const HEADS: usize = 3;

#[test]
fn attention_maps_are_softmax_of_scaled_queries_and_keys() {
    for registers in [None, Some(2)] {
        let arch = Arch {
            width: Some(WIDTH),
            depth: Some(1),
            heads: Some(HEADS),
            patch: Some(PATCH),
            registers,
            ..Arch::named("vit-micro")
        };
        let mut network = build(&arch, ImageShape { height: SIDE, width: SIDE, channels: 3 }, 3).unwrap();
        // Biases and gains that are not 0 and 1, and weights so large that attention is far from uniform.
        for (i, (_, param)) in parts(network.as_mut()).params.into_iter().enumerate() {
            param
                .set(Array::<f32>::random(param.value().shape(), 50 + i as u64, 1.0).to_tensor().unwrap())
                .unwrap();
        }
        let images = Array::<f32>::random(&[2, SIDE, SIDE, 3], 9, 1.0).to_tensor().unwrap();
        let found = network.vit().unwrap().attention_maps(&Var::constant(images.clone())).unwrap();
        let params: Vec<(String, Vec<f64>)> = parts(network.as_mut())
            .params
            .iter()
            .map(|(n, p)| {
                (n.clone(), p.value().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect())
            })
            .collect();
        let get = |name: &str| &params.iter().find(|p| p.0 == name).unwrap().1;
        let (kernel, bias) = (get("patch_embed.proj.weight"), get("patch_embed.proj.bias"));
        let registers = registers.unwrap_or(0);
        let grid = SIDE / PATCH;
        let tokens = 1 + registers + grid * grid;
        assert_eq!(found.shape(), [2, HEADS, tokens, tokens]);
        let pixels = images.to_vec::<f32>().unwrap();
        let positions = get("pos_embed");
        for image in 0..2 {
            // Positions: of the class token too, unless there are registers.
            let with_class = registers == 0;
            let position = |t: usize, j: usize| positions[(t + usize::from(with_class)) * WIDTH + j];
            let class = |j: usize| get("cls_token")[j] + if with_class { positions[j] } else { 0.0 };
            let mut rows: Vec<Vec<f64>> = vec![(0..WIDTH).map(class).collect()];
            rows.extend((0..registers).map(|r| get("reg_token")[r * WIDTH..(r + 1) * WIDTH].to_vec()));
            for patch in 0..grid * grid {
                let (top, left) = (patch / grid * PATCH, patch % grid * PATCH);
                let value = |j: usize| {
                    let mut sum = bias[j] + position(patch, j);
                    for i in 0..PATCH * PATCH * 3 {
                        let (y, x, c) = (i / (3 * PATCH), i / 3 % PATCH, i % 3);
                        let pixel = pixels[((image * SIDE + top + y) * SIDE + left + x) * 3 + c];
                        sum += f64::from(pixel) * kernel[j * PATCH * PATCH * 3 + i];
                    }
                    sum
                };
                rows.push((0..WIDTH).map(value).collect());
            }
            let normalised = rows.iter().map(|row| {
                let mean = row.iter().sum::<f64>() / WIDTH as f64;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / WIDTH as f64;
                let unit = |j: usize| (row[j] - mean) / (variance + 1e-6).sqrt();
                let (gain, shift) = (get("blocks.0.norm1.weight"), get("blocks.0.norm1.bias"));
                (0..WIDTH).map(|j| unit(j) * gain[j] + shift[j]).collect::<Vec<f64>>()
            });
            let (weight, shift) = (get("blocks.0.attn.qkv.weight"), get("blocks.0.attn.qkv.bias"));
            let qkv: Vec<Vec<f64>> = normalised
                .map(|x| {
                    let value =
                        |o: usize| shift[o] + (0..WIDTH).map(|j| weight[o * WIDTH + j] * x[j]).sum::<f64>();
                    (0..3 * WIDTH).map(value).collect()
                })
                .collect();
            let size = WIDTH / HEADS;
            let maps = found.to_vec::<f32>().unwrap();
            for head in 0..HEADS {
                for t in 0..tokens {
                    let score = |s: usize| {
                        let products =
                            (0..size).map(|i| qkv[t][head * size + i] * qkv[s][WIDTH + head * size + i]);
                        products.sum::<f64>() / (size as f64).sqrt()
                    };
                    let scores: Vec<f64> = (0..tokens).map(score).collect();
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                    for s in 0..tokens {
                        let want = (scores[s] - most).exp() / sum;
                        let got = f64::from(maps[((image * HEADS + head) * tokens + t) * tokens + s]);
                        // Scores of some tens in f32: their rounding is a relative error of the weights.
                        assert!((got - want).abs() < 1e-4, "{image} {head} {t} {s}: {got} for {want}");
                    }
                }
            }
        }
    }
}
