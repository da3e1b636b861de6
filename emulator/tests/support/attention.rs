//! Flash attention, forward.

use super::case::{Banks, Case};
use super::compare::{Bounded, Element, Expected};
use super::random::Stream;
use half::bf16;

const FEATURES: usize = 64;

pub fn cases() -> Vec<Case> {
    let shapes = [(1, 1), (2, 16), (1, 37), (2, 50), (1, 63), (1, 64), (1, 65), (1, 128), (2, 197)];
    shapes.map(|(heads, tokens)| case(heads, tokens)).to_vec()
}

pub fn benchmark() -> Case {
    case(2, 512)
}

fn case(heads: usize, tokens: usize) -> Case {
    let mut random = Stream::new((heads * 10_007 + tokens) as u64);
    let size = heads * tokens * FEATURES;
    let query = random.halves(size, 1.5);
    let key = random.halves(size, 1.5);
    let value = random.halves(size, 1.0);
    let scale_log2 = (std::f64::consts::LOG2_E / (FEATURES as f64).sqrt()) as f32;
    let (output, lse) = reference(&query, &key, &value, tokens);
    let tiles = tokens.div_ceil(64);
    let mut case = Case::new(
        "attention.cu",
        include_str!("../kernels/attention.cu"),
        "attention_fwd",
        format!("heads {heads} tokens {tokens}"),
    )
    .launch([tiles as u32, heads as u32, 1], [128, 1, 1])
    .input("query", &query)
    .input("key", &key)
    .input("value", &value)
    .output("output", size * 2, Expected::Close(Element::Bf16, output))
    .output("lse", heads * tokens * 4, Expected::Close(Element::F32, lse))
    .value(&(tokens as i32))
    .value(&scale_log2)
    .traffic(3 * size * 2, size * 2 + heads * tokens * 4)
    .barriers(2 * heads * tiles * tiles)
    .banks(Banks::Free);
    // Four warps, for each pair of tiles 4 steps of 16 by 8 results of 16 x 8, twice.
    case.cost.tensor = Some((heads * tiles * tiles * 4 * 4 * 8 * 2) as u64);
    case
}

/// Outputs and log-sum-exps with bounds. Weights are rounded to bf16 (half a unit, 2^-9, relative to each), the output
/// again; scores are float32 sums of 64 products, wrong by some 2^-17 in the exponent, which the same bound covers twice.
fn reference(query: &[bf16], key: &[bf16], value: &[bf16], tokens: usize) -> (Bounded, Bounded) {
    let wide = |values: &[bf16]| -> Vec<f64> { values.iter().map(|x| x.to_f64()).collect() };
    let (query, key, value) = (wide(query), wide(key), wide(value));
    let (mut output, mut lse) = (Vec::new(), Vec::new());
    for (row, q) in query.chunks(FEATURES).enumerate() {
        let head = row / tokens * tokens * FEATURES;
        let keys = key[head..head + tokens * FEATURES].chunks(FEATURES);
        let scores: Vec<f64> = keys
            .map(|k| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (FEATURES as f64).sqrt())
            .collect();
        let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - maximum).exp()).sum();
        lse.push((maximum + sum.ln(), 2f64.powi(-16) * (1.0 + maximum.abs())));
        for feature in 0..FEATURES {
            let (mut result, mut magnitude) = (0.0, 0.0);
            for (score, v) in scores.iter().zip(value[head..].chunks(FEATURES)) {
                let weighted = (score - maximum).exp() / sum * v[feature];
                result += weighted;
                magnitude += weighted.abs();
            }
            output.push((result, magnitude * 2f64.powi(-8) + result.abs() * 2f64.powi(-8)));
        }
    }
    (output, lse)
}
