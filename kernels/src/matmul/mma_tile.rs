//! How a product on tensor cores is cut: the tile of results that a block computes, from a fixed table, and the parts of a
//! long sum. Both follow from the sizes, and from whether the device has warpgroups: results have the same bits on every device
//! of an architecture.

use engine::Device;
use engine::cuda::{Kernel, Module, Nvrtc, context, tensor_map};
use std::sync::OnceLock;

/// The architecture whose warpgroups multiply: Hopper, and no later one.
const WARPGROUPS: u32 = 90;

/// A block's tile of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaTile {
    /// 128 rows, 256 columns: 8 warps of 64 x 64.
    T128x256,
    /// 128 rows, 128 columns: 4 warps of 64 x 64.
    T128x128,
    /// 128 rows, 64 columns: 2 warps of 64 x 64.
    T128x64,
    /// 64 rows, 128 columns: 2 warps of 64 x 64.
    T64x128,
    /// 64 rows, 64 columns: 4 warps of 64 x 64, each with a quarter of the steps.
    T64x64,
    /// 128 rows, 256 columns: 2 warpgroups of 64 rows.
    W128x256,
    /// 128 rows, 128 columns: 2 warpgroups of 64 rows.
    W128x128,
    /// 128 rows, 64 columns: 2 warpgroups of 64 rows.
    W128x64,
}

/// What the choice knows of a tile.
struct Entry {
    rows: usize,
    columns: usize,
    threads: usize,
    /// Tiles of an operand in shared memory: `STAGES` of `common/mma_tile.cuh`.
    stages: usize,
    /// Blocks that a multiprocessor holds at a time, of warpgroups: `BLOCKS` of `common/mma_tile.cuh`.
    together: usize,
    /// Time of a result's step in a full device, in 0.012 ps of a multiprocessor. As timed on an H100 (benches/results/h100): 64
    /// steps of the first three tiles take 1.10, 0.54 and 0.51 us, since blocks of two warps leave tensor cores idle. The
    /// last one is what shared memory allows: not timed.
    cost: usize,
    /// The same of a block that has a multiprocessor to itself, as those of the first tile always have.
    alone: usize,
    /// Steps that take as long as what a block does before and behind its loop: 3.6, 1.6 and 1.2 us of a multiprocessor on an
    /// H100, and in the last tile adding up the sums of its warps.
    ends: usize,
}

const fn entry(
    [rows, columns]: [usize; 2],
    [threads, stages, together]: [usize; 3],
    [cost, alone]: [usize; 2],
    ends: usize,
) -> Entry {
    Entry { rows, columns, threads, stages, together, cost, alone, ends }
}

/// In the order of [`MmaTile`].
const TILES: [Entry; 8] = [
    entry([128, 256], [256, 3, 1], [44, 44], 209),
    entry([128, 128], [128, 3, 2], [45, 52], 186),
    entry([128, 64], [64, 3, 3], [82, 100], 150),
    entry([64, 128], [64, 3, 3], [82, 100], 150),
    entry([64, 64], [128, 3, 2], [64, 64], 290),
    entry([128, 256], [256, 4, 1], [27, 27], 423),
    entry([128, 128], [256, 3, 2], [31, 60], 230),
    entry([128, 64], [256, 3, 3], [48, 70], 300),
];
/// How many of them are of warps.
const OF_WARPS: usize = 5;
/// Tiles that each block has at least where blocks compute several.
const TURNS: usize = 4;
/// Tiles of operands that a warpgroups' block copies ahead: `AHEAD` of `common/mma_tile.cuh`.
const AHEAD: usize = 2;

/// Multiprocessors of the device that the table is for.
const PROCESSORS: usize = 132;
/// Steps of a sum that a part has at least.
const LEAST: usize = 256;
/// Parts of a sum at most: each needs room for all results in float32. So many however many results there are, and more where
/// the room for all parts has at most so many results.
const MOST: usize = 32;
const MOST_OF_FEW: usize = 256;
const ROOM: usize = 1 << 22;
/// What a result of a part takes to be written and read again, and what the launch that adds them takes, in the units of
/// [`Entry::cost`]: 8 bytes at 3 TB/s and 3 us, where an H100 takes 290 us for the product of two 4096 x 4096 matrices.
const PARTIAL: usize = 208;
const LAUNCH: usize = 240_000_000;
/// What a part takes besides where results are few: a thread that adds parts waits for four at once. 0.07 us, not timed.
const WAIT: usize = 6_000_000;
/// Steps of a tile.
pub(crate) const STEPS: usize = 64;
/// Rows of tiles that are computed together: `GROUP` of `mma.cu`.
pub(crate) const GROUP: usize = 8;

impl MmaTile {
    /// All tiles, in the order of their numbers.
    pub(crate) const ALL: [MmaTile; 8] = [
        Self::T128x256,
        Self::T128x128,
        Self::T128x64,
        Self::T64x128,
        Self::T64x64,
        Self::W128x256,
        Self::W128x128,
        Self::W128x64,
    ];

    /// The tiles that a device has kernels of.
    pub(crate) fn of(device: Device) -> &'static [MmaTile] {
        if Self::has_warpgroups(device) { &Self::ALL } else { &Self::ALL[..OF_WARPS] }
    }

    /// Whether a device has tensor cores that multiply for warpgroups, and driver and compiler are new enough for them.
    pub(crate) fn has_warpgroups(device: Device) -> bool {
        /// Whether NVRTC knows their instructions. Where there is none, kernels come from the cache, of any compiler.
        static COMPILED: OnceLock<bool> = OnceLock::new();
        let are_compiled =
            || *COMPILED.get_or_init(|| Nvrtc::find().map_or(true, |nvrtc| nvrtc.version() >= (12, 0)));
        match device {
            Device::Cuda(ordinal) => {
                context(ordinal).is_ok_and(|context| context.architecture() == WARPGROUPS)
                    && tensor_map::is_supported()
                    && are_compiled()
            }
            Device::Cpu => false,
        }
    }

    /// Whether warpgroups multiply.
    pub(crate) const fn is_of_warpgroups(self) -> bool {
        self as usize >= OF_WARPS
    }

    /// The module of a kernel of this tile.
    pub(crate) const fn module(self, module: Module) -> Module {
        if self.is_of_warpgroups() { module.with_specific_instructions() } else { module }
    }

    /// A kernel of this tile.
    pub(crate) const fn kernel(self, kernel: Kernel) -> Kernel {
        let kernel = kernel.with_dynamic_shared(self.shared());
        if self.is_of_warpgroups() { kernel.with_arch_min(WARPGROUPS) } else { kernel }
    }

    /// The tile that takes least time for `batch` results of `m x n` and sums of `k`: a round of blocks over the
    /// device takes as long as a block, whether the device is full or not.
    pub(crate) fn for_result(device: Device, batch: usize, m: usize, n: usize, k: usize) -> MmaTile {
        Self::best_of(Self::of(device), batch, m, n, k)
    }

    /// The best of some tiles for that.
    pub(crate) fn best_of<'a>(
        tiles: impl IntoIterator<Item = &'a MmaTile>,
        batch: usize,
        m: usize,
        n: usize,
        k: usize,
    ) -> MmaTile {
        let time = |tile: &&MmaTile| {
            let blocks = batch.saturating_mul(tile.down(m)).saturating_mul(tile.across(n));
            let (count, steps) = tile.parts(blocks, k);
            tile.time(blocks, count, steps.min(k))
        };
        tiles.into_iter().min_by_key(time).copied().unwrap_or(MmaTile::T128x128)
    }

    fn entry(self) -> &'static Entry {
        &TILES[self as usize]
    }

    /// Rows of a tile.
    pub(crate) fn rows(self) -> usize {
        self.entry().rows
    }

    /// Steps that take as long as what a block does before and behind its loop.
    pub(crate) fn ends(self) -> usize {
        self.entry().ends
    }

    /// Columns of a tile.
    pub(crate) fn columns(self) -> usize {
        self.entry().columns
    }

    /// Tiles that cover `m` rows.
    pub(crate) fn down(self, m: usize) -> usize {
        m.div_ceil(self.entry().rows)
    }

    /// Tiles that cover `n` columns.
    pub(crate) fn across(self, n: usize) -> usize {
        n.div_ceil(self.entry().columns)
    }

    /// Threads of a block.
    pub(crate) fn threads(self) -> usize {
        self.entry().threads
    }

    /// Blocks for so many tiles: one each; or of warpgroups as many as a device holds, each for one tile after the other. Where
    /// a multiprocessor holds several blocks they may all have a tile more than others': only where that is little of all.
    pub(crate) fn blocks(self, device: Device, tiles: usize) -> usize {
        match device {
            Device::Cuda(ordinal) if self.is_of_warpgroups() => {
                let processors = context(ordinal).map_or(1, |context| context.limits().multiprocessors);
                let (held, turns) = match self.entry().together {
                    1 => (processors, 1),
                    several => (processors * several, TURNS),
                };
                #[cfg(test)]
                let (held, turns) = tests::HELD.get().map_or((held, turns), |held| (held, 1));
                if tiles > turns * held { held } else { tiles }
            }
            _ => tiles,
        }
    }

    /// Bytes of shared memory of a block: [`MmaTile::room`], and a bias.
    pub(crate) const fn shared(self) -> usize {
        self.room() + TILES[self as usize].columns * 4
    }

    /// Bytes of shared memory for the operands' tiles, in whose place the result's lies later. A warpgroups' block copies
    /// operands of its next tile meanwhile. `ROOM_BYTES` of `common/mma_result.cuh`.
    pub(crate) const fn room(self) -> usize {
        let entry = &TILES[self as usize];
        let (all, stage) = (self.shared_of_loop(), (entry.rows + entry.columns) * STEPS * 2);
        let with_result = AHEAD * stage + entry.rows * (entry.columns + 8) * 2 + entry.threads * 8 * 4;
        if self.is_of_warpgroups() && with_result > all { with_result } else { all }
    }

    /// Bytes of shared memory that the operands' tiles take.
    pub(crate) const fn shared_of_loop(self) -> usize {
        let entry = &TILES[self as usize];
        entry.stages * (entry.rows + entry.columns) * STEPS * 2
    }

    /// How long `blocks` blocks of `steps` take, each with what takes as long as `ends` steps before and behind its loop, in the
    /// units of [`Entry::cost`].
    pub(crate) fn time_of(self, blocks: usize, steps: usize, ends: usize) -> usize {
        let entry = self.entry();
        // Blocks that share a multiprocessor share its tensor cores.
        let rounds = blocks.div_ceil(PROCESSORS);
        let cost = if rounds == 1 { entry.alone } else { entry.cost };
        let steps = steps.next_multiple_of(STEPS) + ends;
        rounds.saturating_mul(entry.rows * entry.columns * cost).saturating_mul(steps)
    }

    /// How long `blocks` tiles in `count` parts of `steps` each take, in those units.
    fn time(self, blocks: usize, count: usize, steps: usize) -> usize {
        let entry = self.entry();
        let results = blocks.saturating_mul(entry.rows * entry.columns);
        let products = self.time_of(blocks.saturating_mul(count), steps, entry.ends);
        let adding = results.saturating_mul(PARTIAL).saturating_add(WAIT).saturating_mul(count);
        let adding = adding.saturating_add(LAUNCH);
        products.saturating_add(if count > 1 { adding } else { 0 })
    }

    /// The parts of a sum of `k` steps for `blocks` tiles: how many, and the steps of each. As many as let the last round
    /// of blocks fill the device best, less what adding them takes.
    pub(crate) fn parts(self, blocks: usize, k: usize) -> (usize, usize) {
        let cut = |wanted: usize| {
            let steps = k.div_ceil(wanted).next_multiple_of(STEPS).max(STEPS);
            (k.div_ceil(steps).max(1), steps)
        };
        let results = blocks.saturating_mul(self.entry().rows * self.entry().columns);
        let most = (ROOM / results.max(1)).clamp(MOST, MOST_OF_FEW);
        let all = (1..=(k / LEAST).clamp(1, most)).map(cut);
        all.min_by_key(|&(count, steps)| self.time(blocks, count, steps.min(k))).unwrap_or_else(|| cut(1))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// The blocks that this thread's launches take a device to hold, however many tiles there are.
        pub(crate) static HELD: Cell<Option<usize>> = const { Cell::new(None) };
    }

    #[test]
    fn tiles_suit_the_result() {
        for (m, n, k, tile) in [
            (1, 1, 8, MmaTile::T64x64),
            (64, 512, 128, MmaTile::T64x64),
            (256, 2048, 2048, MmaTile::T64x64),
            (2048, 2048, 2048, MmaTile::T128x256),
            (8192, 8192, 8192, MmaTile::T128x256),
            (256 * 197, 384, 384, MmaTile::T128x128),
            (256 * 197, 768, 3072, MmaTile::T128x256),
            (256 * 197, 1536, 384, MmaTile::T128x128),
            (256 * 56 * 56, 256, 64, MmaTile::T128x128),
            (256 * 56 * 56, 64, 256, MmaTile::T128x64),
            (64, 100_000, 64, MmaTile::T64x128),
            (64, 100_000, 512, MmaTile::T64x64),
        ] {
            assert_eq!(MmaTile::for_result(Device::Cpu, 1, m, n, k), tile, "{m} x {n} x {k}");
        }
    }

    /// With warpgroups: what an H100 took least time for, of these tiles.
    #[test]
    fn tiles_of_warpgroups_suit_the_result() {
        for (m, n, k, tile) in [
            (4096, 4096, 4096, MmaTile::W128x256),
            (256 * 197, 768, 3072, MmaTile::W128x256),
            (256 * 197, 2304, 768, MmaTile::W128x128),
            (256 * 197, 384, 384, MmaTile::W128x128),
            (256 * 28 * 28, 512, 128, MmaTile::W128x128),
            (256 * 56 * 56, 64, 256, MmaTile::W128x64),
            (3072, 768, 256 * 197, MmaTile::W128x256),
            (1536, 384, 256 * 197, MmaTile::W128x128),
        ] {
            assert_eq!(MmaTile::best_of(&MmaTile::ALL, 1, m, n, k), tile, "{m} x {n} x {k}");
        }
    }

    /// Weight gradients of 1x1 convolutions of 256 images.
    #[test]
    fn few_results_of_long_sums_are_cut_in_many_parts() {
        let pixels = |side: usize| 256 * side * side;
        for (m, n, k, tile, parts) in [
            (64, 64, pixels(56), MmaTile::T64x64, 131),
            (128, 256, pixels(56), MmaTile::T128x256, 128),
            (256, 512, pixels(28), MmaTile::T128x256, 32),
            (512, 1024, pixels(14), MmaTile::T128x256, 8),
        ] {
            assert_eq!(MmaTile::for_result(Device::Cpu, 1, m, n, k), tile, "{m} x {n} x {k}");
            assert_eq!(tile.parts(tile.down(m) * tile.across(n), k).0, parts, "{m} x {n} x {k}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_fits_a_multiprocessor() {
        for (number, (entry, tile)) in TILES.iter().zip(MmaTile::ALL).enumerate() {
            assert_eq!(tile as usize, number);
            assert_eq!(format!("{tile:?}")[1..], format!("{}x{}", entry.rows, entry.columns));
            let most = if tile.is_of_warpgroups() { 227 } else { 163 };
            assert!(tile.shared() <= most * 1024, "sm_90, or sm_80, has less");
        }
    }

    /// Weight gradients: 72 or 144 tiles leave half of the last round idle unless their sums are cut.
    #[test]
    fn sums_are_cut_where_that_fills_the_last_round() {
        for (tile, blocks, k) in [(MmaTile::T128x256, 72, 50_432), (MmaTile::T128x128, 144, 12_544)] {
            let (count, steps) = tile.parts(blocks, k);
            let (whole, cut) = (tile.time(blocks, 1, k), tile.time(blocks, count, steps));
            assert!(count > 1 && 10 * cut < 8 * whole, "{count} parts take {cut}, one takes {whole}");
        }
        assert_eq!(MmaTile::T128x256.parts(512, 4096).0, 1, "a full device");
    }

    #[test]
    fn parts_cover_the_sum_once() {
        for tile in MmaTile::ALL {
            for blocks in [0, 1, 7, 131, 133, 264, 265] {
                for k in [1, 31, 64, 255, 256, 511, 512, 513, 10_000, 1_000_000] {
                    let (count, steps) = tile.parts(blocks, k);
                    assert!(count * steps >= k && (count - 1) * steps < k, "{blocks}, {k}");
                    assert!(steps.is_multiple_of(STEPS) && (count == 1 || steps >= LEAST));
                }
            }
        }
    }
}
