//! Who has seen what: vector clocks of a block's warps. A warp's epoch grows at every barrier; an access of an earlier
//! epoch that another warp has seen is ordered before that warp's accesses.
//!
//! The asynchronous proxy (bulk copies, `wgmma`) sees shared memory apart from loads and stores: what these wrote is there for
//! it only after a `fence.proxy.async` that comes after the writes and before the access. So a second vector says which
//! epochs are fenced, and travels with the first one.

/// The clocks of one block.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    epochs: Vec<u32>,
    seen: Vec<[u32; 32]>,
    fenced: Vec<[u32; 32]>,
    floors: Vec<u32>,
}

/// What one thread hands to another: of each warp the last epoch that it has seen, and the last that is fenced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handed {
    seen: [u32; 32],
    fenced: [u32; 32],
}

impl Handed {
    /// Adds what another thread hands on.
    pub fn join(&mut self, other: &Handed) {
        join(&mut self.seen, &other.seen);
        join(&mut self.fenced, &other.fenced);
    }

    /// Adds an epoch of a warp: an asynchronous write of that epoch is complete.
    pub fn add(&mut self, warp: usize, epoch: u32) {
        self.seen[warp] = self.seen[warp].max(epoch);
    }
}

fn join(mine: &mut [u32; 32], theirs: &[u32; 32]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine = (*mine).max(*theirs);
    }
}

impl Clocks {
    /// All warps at epoch 1, having seen nothing.
    pub fn reset(&mut self, warps: usize) {
        self.epochs.clear();
        self.epochs.resize(warps, 1);
        self.seen.clear();
        self.seen.resize(warps, [0; 32]);
        self.fenced.clear();
        self.fenced.resize(warps, [0; 32]);
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

    /// `fence.proxy.async`: what the warp did and has seen is there for the asynchronous proxy.
    pub fn proxy_fence(&mut self, warp: usize) {
        let mut fenced = self.vector(warp);
        join(&mut fenced, &self.fenced[warp]);
        self.fenced[warp] = fenced;
        self.epochs[warp] += 1;
    }

    /// The last epoch of `other` whose writes the asynchronous proxy sees, as far as `warp` knows.
    pub fn fenced(&self, warp: usize, other: usize) -> u32 {
        self.fenced[warp][other & 31]
    }

    /// An epoch for one asynchronous access: nothing that the warp does before or after it belongs to it.
    pub fn apart(&mut self, warp: usize) -> u32 {
        self.epochs[warp] += 2;
        self.epochs[warp] - 1
    }

    /// What the warp hands on by an arrival; what it does afterwards does not belong to that.
    pub fn release(&mut self, warp: usize) -> Handed {
        let handed = Handed { seen: self.vector(warp), fenced: self.fenced[warp] };
        self.epochs[warp] += 1;
        handed
    }

    /// The warp has waited for what was handed on.
    pub fn acquire(&mut self, warp: usize, handed: &Handed) {
        join(&mut self.seen[warp], &handed.seen);
        join(&mut self.fenced[warp], &handed.fenced);
        self.refresh(warp);
    }

    /// `bar.warp.sync`: the lanes of a warp have seen each other.
    pub fn warp_barrier(&mut self, warp: usize) {
        self.seen[warp][warp] = self.epochs[warp];
        self.epochs[warp] += 1;
        self.refresh(warp);
    }

    /// A block barrier: those who wait have seen all that took part.
    pub fn barrier(&mut self, waiting: &[usize], arrived: &[usize]) {
        let (mut joined, mut fenced) = ([0; 32], [0; 32]);
        for &warp in waiting.iter().chain(arrived) {
            join(&mut joined, &self.seen[warp]);
            join(&mut fenced, &self.fenced[warp]);
            joined[warp] = joined[warp].max(self.epochs[warp]);
        }
        for &warp in waiting {
            self.seen[warp] = joined;
            self.fenced[warp] = fenced;
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

    #[test]
    fn a_proxy_fence_holds_for_what_was_seen_before_it() {
        let mut clocks = Clocks::default();
        clocks.reset(2);
        clocks.proxy_fence(0);
        assert_eq!((clocks.fenced(0, 0), clocks.epoch(0)), (1, 2));
        let handed = clocks.release(0);
        clocks.acquire(1, &handed);
        assert_eq!((clocks.seen(1, 0), clocks.fenced(1, 0)), (2, 1), "the arrival's own epoch is not fenced");
        clocks.proxy_fence(1);
        assert_eq!((clocks.fenced(1, 0), clocks.fenced(1, 1)), (2, 1), "a fence of the one who has waited");
        assert_eq!((clocks.apart(0), clocks.epoch(0)), (4, 5));
    }
}
