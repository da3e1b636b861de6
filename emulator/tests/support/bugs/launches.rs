//! What the host does wrong, and traps.

use super::Bug;
use crate::support::ENTRY;
use crate::support::case::{Buffer, Contents};
use emulator::report::Kind;

const XENT: [&str; 3] = ["softmax_xent.cu", "softmax_xent_fwd", "batch 3 classes 257"];
const LAYER_NORM: [&str; 3] = ["layer_norm.cu", "layer_norm_fwd", "rows 9 width 192"];
const ADAMW: [&str; 3] = ["adamw.cu", "adamw_step", "sizes [1000, 5, 1023, 1024] step 10"];
const SOFTMAX: [&str; 3] = ["softmax.cu", "softmax_fwd", "rows 4 columns 1024"];

/// Bytes of the table's entry before the count.
const COUNT: usize = 48;

/// The bytes of a buffer that is written whole.
fn bytes_of(buffer: &mut Buffer) -> &mut Vec<u8> {
    match &mut buffer.contents {
        Contents::Bytes(bytes) => bytes,
        Contents::Pieces(..) => panic!("{} is not written whole", buffer.name),
    }
}

pub fn bugs() -> Vec<Bug> {
    vec![
        Bug::new(
            "scale freed before the launch",
            LAYER_NORM,
            &[Kind::UseAfterFree],
            &[],
            &["const float4 g0 =", "const float4 g1 ="],
        )
        .alter(|case| case.named("gamma").freed = true),
        Bug::new(
            "output freed before the launch",
            SOFTMAX,
            &[Kind::UseAfterFree],
            &[],
            &["((float4*)out)[i] = result;"],
        )
        .alter(|case| case.named("y").freed = true),
        Bug::new(
            "offset never written",
            LAYER_NORM,
            &[Kind::UninitialisedGlobal],
            &[],
            &["const float4 b0 =", "const float4 b1 ="],
        )
        .alter(|case| case.named("beta").contents = Contents::Pieces(192 * 4, Vec::new())),
        Bug::new(
            "last elements of the input never written",
            SOFTMAX,
            &[Kind::UninitialisedGlobal],
            &[(
                "four = ((const float4*)in)[i];\n                mine",
                "four = ((const float4*)in)[i];  // BUG\n                mine",
            )],
            &[],
        )
        .alter(|case| {
            let buffer = case.named("x");
            let mut bytes = bytes_of(buffer).clone();
            let size = bytes.len();
            bytes.truncate(size - 4);
            buffer.contents = Contents::Pieces(size, vec![(0, bytes)]);
        }),
        Bug::new(
            "a chunk longer than its tensor",
            ADAMW,
            &[Kind::OutOfBounds],
            &[],
            &["float4 p = *(float4*)(chunk.parameter + first);"],
        )
        .alter(|case| {
            let table = bytes_of(case.named("table"));
            table[COUNT..COUNT + 4].copy_from_slice(&1004i32.to_le_bytes());
        }),
        Bug::new(
            "two chunks of the same elements",
            ADAMW,
            &[Kind::GlobalRace],
            &[],
            &["float4 p =", "float4 m =", "float4 v =", "+ first) = p;", "+ first) = m;", "+ first) = v;"],
        )
        .alter(|case| {
            let table = case.named("table");
            let first: Vec<(usize, usize, u64)> =
                table.pointers.iter().copied().filter(|(offset, ..)| *offset < ENTRY).collect();
            table.pointers.retain(|(offset, ..)| !(ENTRY..2 * ENTRY).contains(offset));
            let moved = first.iter().map(|(offset, buffer, there)| (offset + ENTRY, *buffer, *there));
            table.pointers.extend(moved);
            bytes_of(table).copy_within(0..ENTRY, ENTRY);
        }),
        Bug::new(
            "a label that is no class",
            XENT,
            &[Kind::Trap],
            &[("target = label[row];", "target = label[row];\n    if (target >= classes) __trap();  // BUG")],
            &[],
        )
        .alter(|case| {
            bytes_of(case.named("label"))[8..12].copy_from_slice(&257i32.to_le_bytes());
        }),
        Bug::new("more shared memory than a block may have", SOFTMAX, &[Kind::LaunchLimits], &[], &[])
            .alter(|case| case.dynamic_shared = 300 << 10),
        Bug::new("more threads than the kernel was compiled for", SOFTMAX, &[Kind::LaunchLimits], &[], &[])
            .alter(|case| case.block = [512, 1, 1]),
        Bug::new(
            "more threads than a block may have",
            ["transpose.cu", "transpose", "rows 32 columns 32"],
            &[Kind::LaunchLimits],
            &[("__launch_bounds__(TILE * STEP) ", "")],
            &[],
        )
        .alter(|case| case.block = [32, 64, 1]),
    ]
}
