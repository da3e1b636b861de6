//! How a product is cut for the blocks of a launch: the tile of results that a block computes, and the parts of a
//! long sum. Both follow from the sizes alone, so that results have the same bits on every device.

/// A block's tile of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// 64 rows, 64 columns: 256 threads of 4 x 4 sums.
    Large,
    /// 64 rows, 16 columns: 64 threads of 4 x 4.
    Tall,
    /// 16 rows, 64 columns: 64 threads of 4 x 4.
    Wide,
    /// 16 rows, 16 columns: 32 threads of 4 x 2.
    Small,
}

/// Every tile with its rows, columns, threads, and the instructions that a product of its sums takes, in relative terms:
/// small tiles copy more to shared memory for each.
const TILES: [(Tile, usize, usize, usize, usize); 4] = [
    (Tile::Large, 64, 64, 256, 16),
    (Tile::Tall, 64, 16, 64, 20),
    (Tile::Wide, 16, 64, 64, 20),
    (Tile::Small, 16, 16, 32, 28),
];

/// Blocks that fill the largest device: two for each of 132 multiprocessors.
const FULL: usize = 264;
/// Steps of a sum below which a part does not pay for the second pass.
const LEAST: usize = 256;
/// Parts begin at multiples of the steps of a tile, in either type.
const STEPS: usize = 32;

impl Tile {
    /// The tile that wastes least on an `m x n` result.
    pub(crate) fn for_result(m: usize, n: usize) -> Tile {
        let cost = |&(_, rows, columns, _, each): &(Tile, usize, usize, usize, usize)| {
            m.next_multiple_of(rows).saturating_mul(n.next_multiple_of(columns)).saturating_mul(each)
        };
        TILES.iter().min_by_key(|tile| cost(tile)).map_or(Tile::Large, |tile| tile.0)
    }

    fn entry(self) -> (Tile, usize, usize, usize, usize) {
        TILES[self as usize]
    }

    /// Tiles that cover `m` rows.
    pub(crate) fn down(self, m: usize) -> usize {
        m.div_ceil(self.entry().1)
    }

    /// Tiles that cover `n` columns.
    pub(crate) fn across(self, n: usize) -> usize {
        n.div_ceil(self.entry().2)
    }

    /// Threads of a block.
    pub(crate) fn threads(self) -> usize {
        self.entry().3
    }
}

/// The parts of a sum of `k` steps where `blocks` tiles do not fill a device: how many, and the steps of each.
///
/// Partial results take at most `FULL` tiles of float32, 4.3 MB.
pub(crate) fn parts(blocks: usize, k: usize) -> (usize, usize) {
    let wanted = (FULL / blocks.max(1)).min(k / LEAST).max(1);
    let steps = k.div_ceil(wanted).next_multiple_of(STEPS).max(STEPS);
    (k.div_ceil(steps).max(1), steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_suit_the_result() {
        for (m, n, tile) in [
            (1, 1, Tile::Small),
            (16, 8, Tile::Small),
            (33, 17, Tile::Tall),
            (64, 64, Tile::Large),
            (1000, 65, Tile::Tall),
            (1000, 48, Tile::Tall),
            (1000, 1000, Tile::Large),
            (10, 784, Tile::Wide),
        ] {
            assert_eq!(Tile::for_result(m, n), tile, "{m} x {n}");
        }
        for (i, entry) in TILES.iter().enumerate() {
            assert_eq!(entry.0 as usize, i);
        }
    }

    #[test]
    fn parts_cover_the_sum_once() {
        for blocks in [0, 1, 7, 132, 133, 264, 265] {
            for k in [0, 1, 31, 255, 256, 511, 512, 513, 10_000, 1_000_000] {
                let (count, steps) = parts(blocks, k);
                assert!(count >= 1 && count * steps >= k && (count - 1) * steps < k.max(1), "{blocks}, {k}");
                assert!(
                    steps.is_multiple_of(STEPS) && (count == 1 || steps >= LEAST && count * blocks <= FULL)
                );
            }
        }
    }
}
