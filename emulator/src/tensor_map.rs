//! Tensor maps: what `cuTensorMapEncodeTiled` puts into its 128 opaque bytes, and which bytes of global and shared memory a
//! tile has. The encoding is this emulator's own. Tiled mode, elements of 1 to 8 bytes, no interleaving.

/// A tensor in global memory, and the box that one copy moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// Address of the first element; a multiple of 16.
    pub address: u64,
    /// Dimensions, 1 to 5; the first runs fastest.
    pub rank: usize,
    /// Bytes of an element.
    pub element: u64,
    /// Elements in each dimension.
    pub size: [u64; 5],
    /// Bytes from one index to the next; `stride[0]` is an element.
    pub stride: [u64; 5],
    /// Elements of the box in each dimension, at most 256.
    pub box_size: [u64; 5],
    /// Bytes that the swizzle permutes: 0 (none), 32, 64 or 128.
    pub swizzle: u64,
}

/// Bytes of an encoded map.
pub const BYTES: usize = 128;

/// What an encoded map begins with.
const MARK: u32 = 0x7465_6E31;

/// 16 bytes of a tile in shared memory, and the bytes of them that the tensor has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Shared address.
    pub shared: u64,
    /// Global address of the first byte that the tensor has.
    pub global: u64,
    /// First of these bytes in the chunk, and how many they are; the others are out of bounds.
    pub inside: (u64, u64),
}

/// Swizzles a shared address: of each stretch of 1024 bytes (512, 256 for the smaller swizzles) the 16-byte chunks of row r
/// of 128 bytes change places by r. `span` is 0 (nothing changes), 32, 64 or 128 bytes.
pub fn swizzled(address: u64, span: u64) -> u64 {
    let mask = span.saturating_sub(1) >> 4;
    address ^ (address >> 7 & mask) << 4
}

impl TensorMap {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let put = |bytes: &mut [u8; BYTES], at: usize, part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
        };
        put(&mut bytes, 0, &MARK.to_le_bytes());
        put(&mut bytes, 4, &[self.rank as u8, self.element as u8, self.swizzle as u8]);
        put(&mut bytes, 8, &self.address.to_le_bytes());
        for dimension in 0..5 {
            put(&mut bytes, 16 + 8 * dimension, &self.size[dimension].to_le_bytes());
            put(&mut bytes, 56 + 8 * dimension, &self.stride[dimension].to_le_bytes());
            put(&mut bytes, 96 + 2 * dimension, &(self.box_size[dimension] as u16).to_le_bytes());
        }
        let sum = check(&bytes);
        put(&mut bytes, 106, &sum.to_le_bytes());
        bytes
    }

    /// The map of 128 bytes; None where they hold none.
    pub fn decode(bytes: &[u8; BYTES]) -> Option<TensorMap> {
        let word =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let short = |at: usize| u64::from(bytes[at]) | u64::from(bytes[at + 1]) << 8;
        let rank = usize::from(bytes[4]);
        let marked = word(0) as u32 == MARK && short(106) == u64::from(check(bytes));
        (marked && (1..=5).contains(&rank)).then(|| TensorMap {
            address: word(8),
            rank,
            element: u64::from(bytes[5]),
            size: std::array::from_fn(|dimension| word(16 + 8 * dimension)),
            stride: std::array::from_fn(|dimension| word(56 + 8 * dimension)),
            box_size: std::array::from_fn(|dimension| short(96 + 2 * dimension)),
            swizzle: u64::from(bytes[6]),
        })
    }

    /// Bytes of a box in shared memory.
    pub fn box_bytes(&self) -> u64 {
        self.box_size[..self.rank].iter().product::<u64>() * self.element
    }

    /// The tile whose first element has these coordinates, laid out from shared address `base` on: rows of the box one after
    /// another, the first dimension within a row, swizzled by their addresses.
    pub fn tile(&self, coordinates: &[i32], base: u64) -> Vec<Chunk> {
        let row_bytes = self.box_size[0] * self.element;
        let rows: u64 = self.box_size[1..self.rank].iter().product();
        let mut chunks = Vec::with_capacity((rows * row_bytes / 16) as usize);
        for row in 0..rows {
            let (mut rest, mut start, mut inside) = (row, self.address, true);
            for dimension in 1..self.rank {
                let index = i64::from(coordinates[dimension]) + (rest % self.box_size[dimension]) as i64;
                rest /= self.box_size[dimension];
                inside &= index >= 0 && (index as u64) < self.size[dimension];
                start = start.wrapping_add((index as u64).wrapping_mul(self.stride[dimension]));
            }
            // Bytes of the row's tensor elements, from the box's first element on.
            let first = i64::from(coordinates[0]) * self.element as i64;
            let end = (self.size[0] * self.element) as i64 - first;
            for offset in (0..row_bytes).step_by(16) {
                let from = (-first).clamp(offset as i64, offset as i64 + 16) as u64 - offset;
                let to = end.clamp(offset as i64, offset as i64 + 16) as u64 - offset;
                let bytes = if inside { to.saturating_sub(from) } else { 0 };
                chunks.push(Chunk {
                    shared: swizzled(base + row * row_bytes + offset, self.swizzle),
                    global: start.wrapping_add((first + (offset + from) as i64) as u64),
                    inside: (from, bytes),
                });
            }
        }
        chunks
    }
}

/// A sum over the bytes before it, so that bytes which only begin like a map are none.
fn check(bytes: &[u8; BYTES]) -> u16 {
    bytes[..106].iter().fold(0x1D0F, |sum: u16, byte| sum.rotate_left(3) ^ u16::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            address: 0x1000,
            rank: 2,
            element: 2,
            size: [20, 3, 1, 1, 1],
            stride: [2, 48, 0, 0, 0],
            box_size: [16, 2, 1, 1, 1],
            swizzle: 32,
        }
    }

    #[test]
    fn a_map_survives_its_encoding_and_nothing_else_is_one() {
        let bytes = map().encode();
        assert_eq!(TensorMap::decode(&bytes), Some(map()));
        for at in 0..108 {
            let mut damaged = bytes;
            damaged[at] ^= 16;
            assert_eq!(TensorMap::decode(&damaged), None, "byte {at}");
        }
        assert_eq!(TensorMap::decode(&[0; BYTES]), None);
    }

    #[test]
    fn a_tile_has_what_the_tensor_has_and_holes_elsewhere() {
        // Columns -3 to 12 of rows 2 and 3, of which row 3 is not there.
        let chunks = map().tile(&[-3, 2], 0x400 + 128);
        let inside: Vec<(u64, u64)> = chunks.iter().map(|chunk| chunk.inside).collect();
        assert_eq!(inside[..2], [(6, 10), (0, 16)]);
        assert!(inside[2..].iter().all(|(_, bytes)| *bytes == 0));
        assert_eq!((chunks[0].global, chunks[1].global), (0x1000 + 96, 0x1000 + 96 + 10));
        // Address bit 7 is set: the two chunks of a row change places.
        let shared: Vec<u64> = chunks.iter().map(|chunk| chunk.shared - 0x480).collect();
        assert_eq!(shared, [16, 0, 48, 32]);
        // Columns 16 to 31 of two rows: four are there.
        assert_eq!(map().tile(&[16, 0], 0).iter().map(|chunk| chunk.inside.1).sum::<u64>(), 2 * 8);
    }
}
