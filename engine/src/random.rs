//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
//! 3", 2011), a pure function of seed, purpose and counter. The same bits on every device and thread.

/// What a stream of random numbers is for. Streams of different purposes never share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; the index is the parameter's position.
    Initialise = 1,
    /// The order of samples; the index is the epoch.
    Shuffle = 2,
    /// Augmentation parameters; the index is made of epoch, sample and view.
    Augment = 3,
    /// Choosing subsets and splits of data.
    Split = 4,
    /// Training a probe or a head.
    Probe = 5,
    /// Making test data.
    Test = 6,
    /// Which residual branches a step drops; the index is made of the step and of the draw in it.
    DropBranch = 7,
    /// Orders of a batch; the index is the step.
    Order = 8,
    /// Masks of patches; the index is the step.
    Mask = 9,
    /// Places and orders of tiles, and rows of dropout; the index is made of the step and of the draw in it.
    Tile = 10,
    /// Choosing a set of permutations; the index is their number.
    Permutations = 11,
    /// Rows of dropout masks; the index is the row's.
    Dropout = 12,
}

/// Ten rounds of Philox4x32 on `counter` under `key`.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        let a = 0xD251_1F53u64 * u64::from(counter[0]);
        let b = 0xCD9E_8D57u64 * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

/// A stream of random numbers for one (seed, purpose, index).
#[derive(Debug, Clone)]
pub struct Philox {
    key: [u32; 2],
    index: u64,
    purpose: u32,
    block: u32,
    ready: [u32; 4],
    left: usize,
}

impl Philox {
    /// The stream at its beginning. Streams are cheap: make one a sample, not one a program.
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Philox {
        Philox {
            key: [seed as u32, (seed >> 32) as u32],
            index,
            purpose: purpose as u32,
            block: 0,
            ready: [0; 4],
            left: 0,
        }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.left == 0 {
            let counter = [self.block, self.index as u32, (self.index >> 32) as u32, self.purpose];
            self.ready = philox4x32_10(counter, self.key);
            self.block = self.block.wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        self.ready[3 - self.left]
    }

    /// Uniform in [0, 1): a multiple of 2^-24, so exact in f32.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0 .. n; 0 if n is 0. Uses 64 bits, so the bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        let bits = u64::from(self.next_u32()) << 32 | u64::from(self.next_u32());
        ((u128::from(bits) * n as u128) >> 64) as usize
    }

    /// Normal with mean 0 and variance 1 (Box-Muller; one value a call, two uniforms consumed).
    pub fn normal(&mut self) -> f32 {
        let u = 1.0 - self.uniform();
        let v = self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }

    /// A uniform permutation of 0 .. n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn published_vectors() {
        let f = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([f; 4], [f; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_index() {
        let first = |s, p, i| Philox::new(s, p, i).next_u32();
        let all = [
            first(1, Purpose::Augment, 0),
            first(2, Purpose::Augment, 0),
            first(1, Purpose::Shuffle, 0),
            first(1, Purpose::Augment, 1),
            first(1, Purpose::Augment, 1 << 32),
        ];
        for i in 0..all.len() {
            assert!(!all[..i].contains(&all[i]), "{all:?}");
        }
        assert_eq!(first(7, Purpose::Split, 9), first(7, Purpose::Split, 9));
    }

    #[test]
    fn moments_and_permutations() {
        let mut g = Philox::new(3, Purpose::Test, 0);
        let n = 100_000;
        let (mut sum, mut squares, mut uniform) = (0.0f64, 0.0, 0.0);
        for _ in 0..n {
            let x = f64::from(g.normal());
            sum += x;
            squares += x * x;
            uniform += f64::from(g.uniform());
        }
        // Five standard errors of each mean.
        let n = f64::from(n);
        assert!((sum / n).abs() < 5.0 / n.sqrt());
        assert!((squares / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((uniform / n - 0.5).abs() < 5.0 / (12.0 * n).sqrt());
        let mut order = g.permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert_eq!(g.below(0), 0);
    }
}
