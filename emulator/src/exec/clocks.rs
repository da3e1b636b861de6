//! Who has seen what: vector clocks of a block's warps. A warp's epoch grows at every barrier; an access of an earlier
//! epoch that another warp has seen is ordered before that warp's accesses.

/// The clocks of one block.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    epochs: Vec<u32>,
    seen: Vec<[u32; 32]>,
    floors: Vec<u32>,
}

impl Clocks {
    /// All warps at epoch 1, having seen nothing.
    pub fn reset(&mut self, warps: usize) {
        self.epochs.clear();
        self.epochs.resize(warps, 1);
        self.seen.clear();
        self.seen.resize(warps, [0; 32]);
        self.floors.clear();
        self.floors.resize(warps, 0);
    }

    /// A warp's epoch.
    #[inline(always)]
    pub fn epoch(&self, warp: usize) -> u32 {
        self.epochs[warp]
    }

    /// The last epoch of `other` that `warp` has seen whole.
    #[inline(always)]
    pub fn seen(&self, warp: usize, other: usize) -> u32 {
        self.seen[warp][other & 31]
    }

    /// The last epoch that `warp` has seen of every warp.
    #[inline(always)]
    pub fn floor(&self, warp: usize) -> u32 {
        self.floors[warp]
    }

    /// What a warp has seen, its own epoch included.
    pub fn vector(&self, warp: usize) -> [u32; 32] {
        let mut seen = self.seen[warp];
        seen[warp] = self.epochs[warp];
        seen
    }

    fn refresh(&mut self, warp: usize) {
        let warps = self.epochs.len();
        self.floors[warp] = self.seen[warp][..warps].iter().copied().min().unwrap_or(0);
    }

    /// `bar.warp.sync`: the lanes of a warp have seen each other.
    pub fn warp_barrier(&mut self, warp: usize) {
        self.seen[warp][warp] = self.epochs[warp];
        self.epochs[warp] += 1;
        self.refresh(warp);
    }

    /// A block barrier: those who wait have seen all that took part.
    pub fn barrier(&mut self, waiting: &[usize], arrived: &[usize]) {
        let mut joined = [0u32; 32];
        for &warp in waiting.iter().chain(arrived) {
            for (mine, theirs) in joined.iter_mut().zip(self.seen[warp]) {
                *mine = (*mine).max(theirs);
            }
            joined[warp] = joined[warp].max(self.epochs[warp]);
        }
        for &warp in waiting {
            self.seen[warp] = joined;
            self.epochs[warp] += 1;
            self.refresh(warp);
        }
        for &warp in arrived {
            self.epochs[warp] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_orders_what_came_before_it() {
        let mut clocks = Clocks::default();
        clocks.reset(3);
        clocks.barrier(&[0, 1], &[]);
        assert_eq!((clocks.epoch(0), clocks.epoch(2)), (2, 1));
        assert_eq!((clocks.seen(0, 1), clocks.seen(0, 2), clocks.floor(0)), (1, 0, 0));
        clocks.barrier(&[0], &[2]);
        assert_eq!((clocks.seen(0, 2), clocks.seen(2, 0)), (1, 0), "who only arrives learns nothing");
        assert_eq!(clocks.floor(0), 1);
        clocks.warp_barrier(1);
        assert_eq!((clocks.seen(1, 1), clocks.epoch(1), clocks.floor(1)), (2, 3, 0));
    }
}
