//! Random numbers, equal to the bit.

use super::case::Case;
use super::compare::{Bytes, Expected};

pub fn cases() -> Vec<Case> {
    let counts = [1, 2, 3, 4, 5, 127, 128, 511, 512, 513, 1021];
    let settings = [(0, 0), (0x1234_5678_9abc_def0, 0xffff_fffe), (u64::MAX, 7)];
    let mut cases = Vec::new();
    for (i, &count) in counts.iter().enumerate() {
        let (seed, offset) = settings[i % settings.len()];
        let words = words(count, seed, offset);
        cases.push(case("philox_u32", count, seed, offset, words.bytes()));
        let floats: Vec<f32> = words.iter().map(|&word| (word >> 8) as f32 / 16_777_216.0).collect();
        cases.push(case("philox_f32", count, seed, offset, floats.bytes()));
    }
    cases
}

fn case(entry: &'static str, count: usize, seed: u64, offset: u64, want: Vec<u8>) -> Case {
    Case::new("philox.cu", include_str!("../kernels/philox.cu"), entry, format!("count {count}"))
        .launch([count.div_ceil(512) as u32, 1, 1], [128, 1, 1])
        .output("out", count * 4, Expected::Exact(want))
        .value(&(count as i64))
        .value(&seed)
        .value(&offset)
        .traffic(0, count * 4)
        .barriers(0)
}

fn words(count: usize, seed: u64, offset: u64) -> Vec<u32> {
    let blocks = 0..count.div_ceil(4) as u64;
    let key = [seed as u32, (seed >> 32) as u32];
    let mut words: Vec<u32> = blocks
        .flat_map(|block| {
            let counter = offset.wrapping_add(block);
            philox([counter as u32, (counter >> 32) as u32, 0, 0], key)
        })
        .collect();
    words.truncate(count);
    words
}

/// Philox4x32-10 (Salmon et al., SC 2011).
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = u64::from(counter[0]) * 0xd251_1f53;
        let second = u64::from(counter[2]) * 0xcd9e_8d57;
        let high = |product: u64| (product >> 32) as u32;
        counter = [
            high(second) ^ counter[1] ^ key[0],
            second as u32,
            high(first) ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[test]
fn philox_gives_the_known_answers() {
    // The known-answer file of Random123, philox4x32 with 10 rounds.
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let digits = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let want = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(philox(digits, [0xa409_3822, 0x299f_31d0]), want);
}
