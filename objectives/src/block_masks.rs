//! Masks of blocks of patches (Bao et al. 2022, BEiT) for iBOT and DINOv2: facebookresearch/dinov2's generator and shares.

use engine::random::Purpose;
use engine::{Philox, Result, Tensor};

/// Least patches of a block.
const LEAST: f32 = 4.0;
/// Height / width of a block lies between this and its inverse.
const ASPECT: f32 = 0.3;
/// Blocks that are tried before a mask stays smaller than wanted.
const TRIES: usize = 10;

/// Which patches of which crops are hidden from the student.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockMasks {
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Part of the crops that get a mask.
    pub crops: f32,
    /// Least and greatest part of a masked crop's patches. The masked crops of a batch are spread evenly between them.
    pub ratio: [f32; 2],
    /// Of the generator.
    pub seed: u64,
}

/// The masks of a step, as tensors whose sizes depend on the batch alone.
#[derive(Debug, Clone)]
pub struct Masks {
    /// i32 [N L]: for each patch of the crops its own row, or N L, the mask token.
    pub rows: Tensor,
    /// i32 [M]: rows of the masked patches, then padding (row 0).
    pub masked: Tensor,
    /// f32 [M]: 1 / (masked patches of the crop), 0 for padding.
    pub weight: Tensor,
    /// f32 [M]: 1 / (masked patches of the batch), 0 for padding.
    pub share: Tensor,
    /// i32 \[1\]: masked patches of the batch.
    pub count: Tensor,
}

impl BlockMasks {
    fn patches(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// The largest number of masked patches of each of the masked crops among `crops`.
    fn limits(&self, crops: usize) -> Vec<[f32; 2]> {
        let masked = (crops as f32 * self.crops) as usize;
        let [low, high] = self.ratio;
        let at = |i: usize| low + (high - low) * i as f32 / masked.max(1) as f32;
        (0..masked).map(|i| [at(i), at(i + 1)]).collect()
    }

    /// M, the rows that the masked patches of `crops` crops have at most.
    pub fn capacity(&self, crops: usize) -> usize {
        let limits = self.limits(crops);
        let most = limits.iter().map(|[_, high]| (self.patches() as f32 * high) as usize).sum::<usize>();
        most.max(1)
    }

    /// The masks of a step for `crops` crops.
    pub fn draw(&self, step: u64, crops: usize) -> Result<Masks> {
        let mut random = Philox::new(self.seed, Purpose::Mask, step);
        let patches = self.patches();
        let mut masks: Vec<Vec<bool>> = self
            .limits(crops)
            .iter()
            .map(|[low, high]| {
                let ratio = low + (high - low) * random.uniform();
                self.mask((patches as f32 * ratio) as usize, &mut random)
            })
            .collect();
        masks.resize(crops, vec![false; patches]);
        let order = random.permutation(crops);
        let none = (crops * patches) as i32;
        let mut rows: Vec<i32> = (0..none).collect();
        let (mut masked, mut weight) = (Vec::new(), Vec::new());
        for (crop, &which) in order.iter().enumerate() {
            let hidden: Vec<usize> = (0..patches).filter(|&p| masks[which][p]).collect();
            for &patch in &hidden {
                let row = crop * patches + patch;
                rows[row] = none;
                masked.push(row as i32);
                weight.push(1.0 / hidden.len() as f32);
            }
        }
        let (count, capacity) = (masked.len(), self.capacity(crops));
        let mut share = vec![1.0 / count.max(1) as f32; count];
        masked.resize(capacity, 0);
        weight.resize(capacity, 0.0);
        share.resize(capacity, 0.0);
        Ok(Masks {
            rows: Tensor::from_slice(&rows, &[rows.len()])?,
            masked: Tensor::from_slice(&masked, &[capacity])?,
            weight: Tensor::from_slice(&weight, &[capacity])?,
            share: Tensor::from_slice(&share, &[capacity])?,
            count: Tensor::from_slice(&[count as i32], &[1])?,
        })
    }

    /// A mask of blocks with up to `wanted` patches: fewer where no further block fits.
    fn mask(&self, wanted: usize, random: &mut Philox) -> Vec<bool> {
        let mut mask = vec![false; self.patches()];
        let mut count = 0;
        while count < wanted {
            match self.add_block(&mut mask, wanted - count, random) {
                0 => break,
                added => count += added,
            }
        }
        mask
    }

    /// Adds a block that hides between one and `most` more patches, and gives their number; 0 if none was found.
    fn add_block(&self, mask: &mut [bool], most: usize, random: &mut Philox) -> usize {
        let [rows, columns] = self.grid;
        // A block has at most half of all patches.
        let largest = most.min(self.patches() / 2) as f32;
        for _ in 0..TRIES {
            let area = LEAST + (largest - LEAST) * random.uniform();
            let span = -2.0 * ASPECT.ln();
            let aspect = (ASPECT.ln() + span * random.uniform()).exp();
            let (h, w) = ((area * aspect).max(0.0).sqrt().round(), (area / aspect).max(0.0).sqrt().round());
            let (h, w) = (h as usize, w as usize);
            if h == 0 || w == 0 || h >= rows || w >= columns {
                continue;
            }
            let top = random.below(rows - h + 1);
            let left = random.below(columns - w + 1);
            let block = (top..top + h).flat_map(|y| (left..left + w).map(move |x| y * columns + x));
            let fresh: Vec<usize> = block.filter(|&p| !mask[p]).collect();
            if !fresh.is_empty() && fresh.len() <= most {
                fresh.iter().for_each(|&p| mask[p] = true);
                return fresh.len();
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASKS: BlockMasks = BlockMasks { grid: [14, 14], crops: 0.5, ratio: [0.1, 0.5], seed: 3 };

    #[test]
    fn half_of_the_crops_hide_a_tenth_to_a_half_of_their_patches() {
        let (crops, patches) = (32, 196);
        let mut filled = 0.0;
        for step in 0..8 {
            let masks = MASKS.draw(step, crops).unwrap();
            let rows = masks.rows.to_vec::<i32>().unwrap();
            let hidden: Vec<usize> = rows
                .chunks(patches)
                .map(|rows| rows.iter().filter(|r| **r == (crops * patches) as i32).count())
                .collect();
            assert_eq!(hidden.iter().filter(|n| **n > 0).count(), crops / 2);
            assert!(hidden.iter().all(|n| *n <= patches / 2), "{hidden:?}");
            let count = masks.count.to_vec::<i32>().unwrap()[0] as usize;
            assert_eq!(count, hidden.iter().sum::<usize>());
            assert_eq!(masks.masked.len(), MASKS.capacity(crops));
            assert!(count <= MASKS.capacity(crops));
            filled += count as f32 / MASKS.capacity(crops) as f32;
            // A crop's weights sum to 1, the batch's shares too.
            let sum = |x: &Tensor| x.to_vec::<f32>().unwrap().iter().sum::<f32>();
            assert!((sum(&masks.weight) - (crops / 2) as f32).abs() < 1e-4);
            assert!((sum(&masks.share) - 1.0).abs() < 1e-4);
            let masked = masks.masked.to_vec::<i32>().unwrap();
            let hit = |r: &i32| rows[*r as usize] == (crops * patches) as i32;
            assert!(masked[..count].iter().all(hit) && masked[count..].iter().all(|r| *r == 0));
        }
        assert!(filled / 8.0 > 0.8, "generators fill most of what was asked for: {filled}");
    }

    #[test]
    fn small_grids_and_steps_differ_and_repeat() {
        let small = BlockMasks { grid: [5, 5], ..MASKS };
        let rows = |step| small.draw(step, 8).unwrap().rows.to_vec::<i32>().unwrap();
        assert_eq!(rows(1), rows(1));
        assert_ne!(rows(1), rows(2));
        let tiny = BlockMasks { grid: [1, 1], ..MASKS };
        assert_eq!(tiny.draw(0, 4).unwrap().count.to_vec::<i32>().unwrap(), [0]);
    }
}
