//! How kernels that go down the rows of a tensor [rows, channels] are launched: the struct that `common/columns.cuh` takes.

use engine::{DType, Device, Result, Tensor};

/// Threads of a block at most.
const THREADS: usize = 256;
/// Blocks that are enough for a large device.
const BLOCKS: usize = 512;
/// Channels of a block that puts partial numbers together, and its rows of threads at most.
pub const FINISH: usize = 32;

/// Threads of a block that puts the partial numbers of this many blocks together.
pub fn finish_block(blocks: usize) -> [usize; 3] {
    [FINISH, blocks.clamp(1, FINISH), 1]
}

/// `Columns` of `common/columns.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub struct Columns {
    elements: u64,
    wide_rows: u64,
    whole_rows: u64,
    rows_each: u64,
    channels: u32,
    packs: u32,
}
const _: () = assert!(size_of::<Columns>() == 40);

/// The shape of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub columns: Columns,
    /// Pack columns and rows of a block.
    block: [usize; 2],
    /// Blocks down the rows.
    pub blocks: usize,
    /// Blocks across the pack columns.
    across: usize,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Plan {
    /// `least` and `most` are wide rows of a thread: the least for that a block is worth while, and the most before
    /// there are more blocks than a device needs.
    fn new(rows: usize, channels: usize, dtype: DType, least: usize, most: usize) -> Plan {
        let pack = 16 / dtype.size();
        let packs = channels / gcd(channels, pack);
        // A line of 128 bytes a row where lines are whole; rows that are few packs long as they are.
        let x = match packs {
            0..=16 => packs.max(1),
            _ if packs.is_multiple_of(8) => 8,
            17..=64 => packs,
            _ => 32,
        };
        let y = THREADS / x;
        let across = packs.div_ceil(x);
        let (elements, wide) = (rows * channels, (packs * pack).max(1));
        let wide_rows = elements.div_ceil(wide);
        let each = wide_rows.div_ceil((BLOCKS / across.max(1)).max(1)).clamp(y * least, y * most);
        let rows_each = each.next_multiple_of(y * least);
        Plan {
            columns: Columns {
                elements: elements as u64,
                wide_rows: wide_rows as u64,
                whole_rows: (elements / wide) as u64,
                rows_each: rows_each as u64,
                channels: channels as u32,
                packs: packs as u32,
            },
            block: [x, y],
            blocks: wide_rows.div_ceil(rows_each),
            across,
        }
    }

    /// For sums over the rows: few blocks, as each leaves partial numbers.
    pub fn sums(rows: usize, channels: usize, dtype: DType) -> Plan {
        Plan::new(rows, channels, dtype, 8, usize::MAX / THREADS)
    }

    /// For maps of the elements.
    pub fn map(rows: usize, channels: usize, dtype: DType) -> Plan {
        Plan::new(rows, channels, dtype, 4, 16)
    }

    /// For merging what was summed elsewhere over runs of `rows_each` rows; whole packs of channels.
    pub fn merging(rows: usize, channels: usize, dtype: DType, rows_each: usize) -> Plan {
        let plan = Plan::sums(rows, channels, dtype);
        let columns = Columns { rows_each: rows_each as u64, ..plan.columns };
        Plan { columns, blocks: rows.div_ceil(rows_each), ..plan }
    }

    pub fn grid(&self) -> [usize; 3] {
        [self.blocks, self.across, 1]
    }

    pub fn block(&self) -> [usize; 3] {
        [self.block[0], self.block[1], 1]
    }

    /// Room for two f64 of every block and element of a wide row. Each is kept in two elements of f32.
    #[track_caller]
    pub fn partials(&self, dtype: DType, device: Device) -> Result<Tensor> {
        let wide = self.columns.packs as usize * (16 / dtype.size());
        Tensor::empty(&[self.blocks, 2, wide, 2], DType::F32, device)
    }
}

/// Numbers of a row of a map of channels, so that every row starts at a multiple of 16 bytes.
pub fn stride(channels: usize) -> usize {
    channels.next_multiple_of(4)
}

/// Whether all tensors start at a multiple of 16 bytes.
pub fn aligned<'a>(tensors: impl IntoIterator<Item = Option<&'a Tensor>>) -> bool {
    tensors.into_iter().flatten().all(|t| t.is_aligned(16))
}
