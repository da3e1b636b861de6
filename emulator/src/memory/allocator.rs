//! Where allocations lie in a range of addresses: red zones between them, freed ones kept out of use as long as the
//! range lasts, so that a use after free meets no stranger's data.

use std::collections::BTreeMap;

/// Allocations start at multiples of this.
pub const ALIGNMENT: u64 = 512;
/// Unallocated bytes in front of the first allocation.
const FIRST: u64 = 4096;

/// Unallocated bytes behind (and so before the next) allocation: as many as it has, so that an index which is wrong by a
/// row is found, within limits.
fn red_zone(size: u64) -> u64 {
    size.clamp(4096, 1 << 20)
}

/// One allocation, by offset in the range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// First byte.
    pub offset: u64,
    /// Bytes asked for.
    pub size: u64,
    /// The program's name for it.
    pub tag: String,
}

/// The table of a range.
#[derive(Debug)]
pub struct Allocator {
    range: u64,
    next: u64,
    live: BTreeMap<u64, Block>,
    freed: BTreeMap<u64, Block>,
    /// Freed offsets, oldest first.
    order: std::collections::VecDeque<u64>,
    /// Holes that may be used again: offset to size.
    holes: BTreeMap<u64, u64>,
}

fn span(size: u64) -> u64 {
    (size + red_zone(size)).next_multiple_of(ALIGNMENT)
}

impl Allocator {
    /// A range of `range` bytes; its first bytes are a red zone.
    pub fn new(range: u64) -> Allocator {
        Allocator {
            range,
            next: FIRST,
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
            order: std::collections::VecDeque::new(),
            holes: BTreeMap::new(),
        }
    }

    /// The offset of a new allocation, or None where the range is full.
    pub fn allocate(&mut self, size: u64) -> Option<u64> {
        let needed = span(size);
        let offset = if self.range - self.next >= needed {
            let offset = self.next;
            self.next += needed;
            offset
        } else {
            loop {
                if let Some((&offset, &length)) = self.holes.iter().find(|(_, length)| **length >= needed) {
                    self.holes.remove(&offset);
                    if length > needed {
                        self.holes.insert(offset + needed, length - needed);
                    }
                    break offset;
                }
                self.recycle()?;
            }
        };
        self.live.insert(offset, Block { offset, size, tag: String::new() });
        Some(offset)
    }

    /// Turns the oldest freed block into a hole, merged with its neighbours.
    fn recycle(&mut self) -> Option<()> {
        let oldest = self.order.pop_front()?;
        let block = self.freed.remove(&oldest)?;
        let (mut offset, mut length) = (block.offset, span(block.size));
        if let Some((&before, &size)) = self.holes.range(..offset).next_back()
            && before + size == offset
        {
            self.holes.remove(&before);
            (offset, length) = (before, length + size);
        }
        if let Some(size) = self.holes.remove(&(offset + length)) {
            length += size;
        }
        self.holes.insert(offset, length);
        Some(())
    }

    /// Frees the allocation that starts at `offset`.
    pub fn free(&mut self, offset: u64) -> Option<Block> {
        let block = self.live.remove(&offset)?;
        self.freed.insert(offset, block.clone());
        self.order.push_back(offset);
        Some(block)
    }

    /// The live allocation that contains the offset.
    pub fn find(&self, offset: u64) -> Option<&Block> {
        let (_, block) = self.live.range(..=offset).next_back()?;
        (offset - block.offset < block.size).then_some(block)
    }

    /// The live allocation that starts here, to be changed.
    pub fn get_mut(&mut self, offset: u64) -> Option<&mut Block> {
        self.live.get_mut(&offset)
    }

    /// The freed allocation that contains the offset.
    pub fn find_freed(&self, offset: u64) -> Option<&Block> {
        let (_, block) = self.freed.range(..=offset).next_back()?;
        (offset - block.offset < block.size).then_some(block)
    }

    /// The live allocations that begin at or before the offset and after it.
    pub fn neighbours(&self, offset: u64) -> (Option<&Block>, Option<&Block>) {
        let before = self.live.range(..=offset).next_back().map(|(_, block)| block);
        let after = self.live.range(offset.saturating_add(1)..).next().map(|(_, block)| block);
        (before, after)
    }

    /// All live allocations in order of address.
    pub fn live(&self) -> impl Iterator<Item = &Block> {
        self.live.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_is_used_again_only_when_the_range_is_full() {
        let mut table = Allocator::new(FIRST + 4 * span(1000));
        let first = table.allocate(1000).unwrap();
        let second = table.allocate(1000).unwrap();
        assert!(second >= first + 1000 + red_zone(1000));
        assert!(table.free(first).is_some());
        assert!(table.free(first).is_none(), "a second free is refused");
        let third = table.allocate(1000).unwrap();
        assert!(third > second);
        assert_eq!(table.find_freed(first + 999).map(|block| block.size), Some(1000));
        table.allocate(1000).unwrap();
        assert_eq!(table.allocate(1000), Some(first), "the hole comes back when nothing else is left");
        assert_eq!(table.allocate(1000), None);
    }

    #[test]
    fn neighbouring_holes_merge() {
        let mut table = Allocator::new(FIRST + 4 * span(512));
        let blocks: Vec<u64> = (0..4).map(|_| table.allocate(512).unwrap()).collect();
        assert_eq!(table.allocate(1), None);
        for &block in &[blocks[1], blocks[3], blocks[2]] {
            table.free(block).unwrap();
        }
        let size = 3 * span(512) - red_zone(4096) - 4096;
        assert_eq!(table.allocate(size), Some(blocks[1]));
    }
}
