//! Inputs that look random and are the same in every run.

use half::bf16;

/// A stream of numbers (SplitMix64).
pub struct Stream(u64);

impl Stream {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Stream {
        Stream(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly normal, standard deviation 1: the sum of twelve uniforms, centred.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// `count` roughly normal numbers of the given standard deviation.
    pub fn floats(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        (0..count).map(|_| (self.normal() * deviation) as f32).collect()
    }

    /// The same, rounded to bf16.
    pub fn halves(&mut self, count: usize, deviation: f64) -> Vec<bf16> {
        self.floats(count, deviation).into_iter().map(bf16::from_f32).collect()
    }

    /// `count` whole numbers in -limit ..= limit.
    pub fn integers(&mut self, count: usize, limit: i32) -> Vec<f32> {
        let values = 2 * limit as u64 + 1;
        (0..count).map(|_| (self.bits() % values) as f32 - limit as f32).collect()
    }
}
