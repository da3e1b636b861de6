//! The matrix product with registers and numbers of its PTX exchanged: maps, barriers, coordinates and descriptors that are
//! anything. It may be refused, it may be reported, it may run; it must not crash or hang.

use super::matmul::{Layout, Matmul};
use super::run::{Device, plain};
use emulator::exec::Options;

/// The text with one or two operands replaced: a register by another one of its class, a number by one that is often trouble.
fn damaged(text: &str, seed: u64) -> String {
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    let mut words: Vec<&str> =
        text.split_inclusive([' ', '\t', '\n', ',', ';', '[', ']', '{', '}']).collect();
    let name = |word: &str| word.trim_end_matches([' ', '\t', '\n', ',', ';', '[', ']', '{', '}']).to_owned();
    let class = |word: &str| name(word).trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    let is_register = |word: &str| ["%r", "%rd", "%f", "%p"].contains(&class(word).as_str());
    let is_number = |word: &str| name(word).parse::<i64>().is_ok();
    // Declarations stand before the first instruction that is one of these.
    let first = words.iter().position(|word| word.starts_with("ld.param")).unwrap_or(0);
    let mut replaced = Vec::new();
    for _ in 0..=below(2) {
        let at = first + below(words.len() - first);
        let candidates: Vec<usize> =
            (at..words.len()).filter(|&i| is_register(words[i]) || is_number(words[i])).collect();
        let Some(&at) = candidates.first() else { continue };
        let new = if is_number(words[at]) {
            ["0", "1", "-1", "64", "131072", "2147483647"][below(6)].to_owned()
        } else {
            let same: Vec<&&str> =
                words[first..].iter().filter(|other| class(other) == class(words[at])).collect();
            name(same[below(same.len())])
        };
        replaced.push((at, words[at].replacen(&name(words[at]), &new, 1)));
    }
    for (at, word) in &replaced {
        words[*at] = word;
    }
    words.concat()
}

#[test]
fn damaged_products_are_refused_or_run_to_an_end() {
    let case = Matmul::new(64, 64, 264, Layout::default());
    let ptx = case.ptx();
    let (mut refused, mut reported, mut ran) = (0, 0, 0);
    for seed in 0..300 {
        let Ok(device) = Device::of(&damaged(&ptx, seed)) else {
            refused += 1;
            continue;
        };
        let options = Options { instruction_limit: 100_000, late_copies: seed % 2 == 1, ..plain() };
        match case.run_on(&device, &options).0.report {
            Some(report) => {
                assert!(!report.detail.is_empty(), "seed {seed}");
                reported += 1;
            }
            None => ran += 1,
        }
    }
    assert!(reported > 60 && ran > 60, "{refused} refused, {reported} reported, {ran} ran");
}
