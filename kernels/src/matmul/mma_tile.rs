//! How a product on tensor cores is cut: the tile of results that a block computes, from a fixed table, and the parts of a
//! long sum. Both follow from the sizes alone, so that results have the same bits on every device.

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
    /// 64 rows, 64 columns: 4 warps of 32 x 32.
    T64x64,
}

/// What the choice knows of a tile.
struct Entry {
    tile: MmaTile,
    rows: usize,
    columns: usize,
    threads: usize,
    /// Blocks that a multiprocessor of 228 KB of shared memory and 65,536 registers holds.
    resident: usize,
    /// Time of a product in a full device, in relative terms: the bytes that a warp's and a block's tile must read from
    /// shared memory for it, 128 / WARP_M + 128 / WARP_N + 128 / TILE_M + 128 / TILE_N, in halves of the least.
    cost: usize,
}

const fn entry(
    tile: MmaTile,
    rows: usize,
    columns: usize,
    threads: usize,
    resident: usize,
    cost: usize,
) -> Entry {
    Entry { tile, rows, columns, threads, resident, cost }
}

/// From the most to the least efficient.
const TILES: [Entry; 5] = [
    entry(MmaTile::T128x256, 128, 256, 256, 1, 11),
    entry(MmaTile::T128x128, 128, 128, 128, 2, 12),
    entry(MmaTile::T128x64, 128, 64, 64, 3, 14),
    entry(MmaTile::T64x128, 64, 128, 64, 3, 14),
    entry(MmaTile::T64x64, 64, 64, 128, 4, 24),
];

/// Multiprocessors of the device that the table is for.
const PROCESSORS: usize = 132;
/// Steps of a sum below which a part does not pay for the second pass.
const LEAST: usize = 256;
/// Steps of a tile.
pub(crate) const STEPS: usize = 64;
/// Rows of tiles that are computed together: `GROUP` of `mma.cu`.
pub(crate) const GROUP: usize = 8;
/// Tiles of an operand in shared memory: `STAGES` of `common/mma_tile.cuh`.
const STAGES: usize = 3;

impl MmaTile {
    /// All tiles, in the order of their numbers.
    #[cfg(test)]
    pub(crate) const ALL: [MmaTile; 5] =
        [Self::T128x256, Self::T128x128, Self::T128x64, Self::T64x128, Self::T64x64];

    /// The tile that takes least time for `batch` results of `m x n` and sums of `k`: a round of blocks over the
    /// device takes as long as a block, whether the device is full or not.
    pub(crate) fn for_result(batch: usize, m: usize, n: usize, k: usize) -> MmaTile {
        Self::best_of(&TILES.each_ref().map(|entry| entry.tile), batch, m, n, k)
    }

    /// The best of some tiles for that.
    pub(crate) fn best_of(tiles: &[MmaTile], batch: usize, m: usize, n: usize, k: usize) -> MmaTile {
        let time = |tile: &&MmaTile| {
            let entry = tile.entry();
            let blocks = batch.saturating_mul(tile.down(m)).saturating_mul(tile.across(n));
            let (count, steps) = tile.parts(blocks, k);
            // Blocks that share a multiprocessor share its tensor cores.
            let rounds = blocks.saturating_mul(count).div_ceil(PROCESSORS);
            let block = (entry.rows * entry.columns * entry.cost).saturating_mul(steps.min(k));
            rounds.saturating_mul(block)
        };
        tiles.iter().min_by_key(time).copied().unwrap_or(MmaTile::T128x128)
    }

    fn entry(self) -> &'static Entry {
        &TILES[self as usize]
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

    /// Bytes of shared memory of a block: the operands' tiles, in whose place the result's lies later, and the bias.
    pub(crate) const fn shared(self) -> usize {
        let entry = &TILES[self as usize];
        STAGES * (entry.rows + entry.columns) * STEPS * 2 + entry.columns * 4
    }

    /// The parts of a sum of `k` steps where `blocks` tiles do not fill a device: how many, and the steps of each.
    pub(crate) fn parts(self, blocks: usize, k: usize) -> (usize, usize) {
        let full = PROCESSORS * self.entry().resident;
        let wanted = (full / blocks.max(1)).min(k / LEAST).max(1);
        let steps = k.div_ceil(wanted).next_multiple_of(STEPS).max(STEPS);
        (k.div_ceil(steps).max(1), steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_suit_the_result() {
        for (m, n, k, tile) in [
            (1, 1, 8, MmaTile::T64x64),
            (64, 512, 128, MmaTile::T64x64),
            (8192, 8192, 8192, MmaTile::T128x256),
            (256 * 197, 384, 384, MmaTile::T128x128),
            (256 * 197, 768, 3072, MmaTile::T128x256),
            (256 * 56 * 56, 64, 256, MmaTile::T128x64),
            (64, 100_000, 512, MmaTile::T64x128),
        ] {
            assert_eq!(MmaTile::for_result(1, m, n, k), tile, "{m} x {n} x {k}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_fits_a_multiprocessor() {
        for (number, entry) in TILES.iter().enumerate() {
            assert_eq!(entry.tile as usize, number);
            assert_eq!(MmaTile::ALL[number], entry.tile);
            assert!(entry.resident * (entry.tile.shared() + 1024) <= 228 * 1024);
            assert!(entry.tile.shared() <= 163 * 1024, "sm_80 has less");
            assert!(entry.resident * entry.threads <= 512, "at 128 registers or more a thread");
        }
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
