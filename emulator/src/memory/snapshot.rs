//! What all live allocations hold at one moment, to put it back and to compare with it later.

use super::{DeviceMemory, WRITTEN};
use std::ops::Range;

/// Contents and state of all live allocations, copied out.
#[derive(Debug)]
pub struct Snapshot {
    /// Address of each allocation, rising in each region, and its bytes' place in the two below.
    blocks: Vec<(u64, Range<usize>)>,
    data: Vec<u8>,
    shadow: Vec<u8>,
}

impl DeviceMemory {
    /// Calls `f` with address, contents and state of each live allocation, in an order that stays while they live.
    fn each_live(&self, mut f: impl FnMut(u64, &mut [u8], &mut [u8])) {
        for region in self.regions() {
            for block in region.table().live() {
                // SAFETY: a live allocation lies inside both mappings, and nobody else is handed their memory as a slice.
                let [data, shadow] = [&region.data, &region.shadow].map(|mapping| unsafe {
                    let start = mapping.start().add(block.offset as usize);
                    std::slice::from_raw_parts_mut(start, block.size as usize)
                });
                f(region.base + block.offset, data, shadow);
            }
        }
    }

    /// Copies the contents and state of all live allocations.
    pub fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot { blocks: Vec::new(), data: Vec::new(), shadow: Vec::new() };
        self.each_live(|address, data, shadow| {
            all.blocks.push((address, all.data.len()..all.data.len() + data.len()));
            all.data.extend_from_slice(data);
            all.shadow.extend_from_slice(shadow);
        });
        all
    }

    /// Puts a snapshot back, where its allocations still live.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut blocks = snapshot.blocks.iter();
        self.each_live(|address, data, shadow| {
            let Some(kept) = place(&mut blocks, address, data.len()) else { return };
            data.copy_from_slice(&snapshot.data[kept.clone()]);
            shadow.copy_from_slice(&snapshot.shadow[kept]);
        });
    }

    /// The first address of which memory holds another byte than the snapshot, and it was written here or there.
    pub fn first_difference(&self, snapshot: &Snapshot) -> Option<u64> {
        let mut blocks = snapshot.blocks.iter();
        let mut found = None;
        self.each_live(|address, data, shadow| {
            if found.is_some() {
                return;
            }
            let Some(kept) = place(&mut blocks, address, data.len()) else { return };
            let (old, old_state) = (&snapshot.data[kept.clone()], &snapshot.shadow[kept]);
            if data != old {
                found = (0..data.len())
                    .find(|&i| data[i] != old[i] && (shadow[i] == WRITTEN || old_state[i] == WRITTEN))
                    .map(|i| address + i as u64);
            }
        });
        found
    }
}

/// The place of an allocation's bytes, if it is one of `blocks`: those behind the last that was asked for.
fn place(
    blocks: &mut std::slice::Iter<'_, (u64, Range<usize>)>,
    address: u64,
    size: usize,
) -> Option<Range<usize>> {
    let ahead = blocks.clone().position(|(known, kept)| *known == address && kept.len() == size)?;
    blocks.nth(ahead).map(|(_, kept)| kept.clone())
}
