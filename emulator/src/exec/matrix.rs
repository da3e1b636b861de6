//! `ldmatrix`, `stmatrix` and `mma`: instructions of the whole warp on small matrices.

use super::access::by_space;
use super::context::{Context, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{LANES, Lane, Operation};
use super::shared;
use crate::numeric::tensor_core;
use crate::program::{AccessSpace, Instruction};
use crate::report::Kind;

/// `ldmatrix` of 8x8 matrices of 16-bit elements: a is the row address, `word` the access whose slots are the
/// destinations, e 1 where transposed.
pub struct LoadMatrix;
/// `stmatrix`, likewise; the slots are the sources.
pub struct StoreMatrix;
/// `mma`: d, a, b, c are lists of slots, `word` an index of `Program::shapes`.
pub struct MultiplyAccumulate;

/// Row addresses of `count` matrices: lanes 0-7 give those of the first, and so on.
fn rows(context: &mut Context<'_>, i: &Instruction, mode: Mode, mask: u32) -> Option<([u64; LANES], u32)> {
    let program = context.program;
    let access = &program.accesses[i.word as usize];
    let count = access.slots.len();
    let addresses = context.addresses(i.a, access.narrow, access.offset);
    let part = if count >= 4 { mask } else { mask & ((1 << (8 * count)) - 1) };
    let mut found = None;
    by_space(context, access, &addresses, part, |context, space, addresses, in_space| {
        if space != AccessSpace::Shared || in_space != part {
            let detail = "a row address outside shared memory".to_owned();
            context.fail(Kind::OutOfBounds, in_space.trailing_zeros(), detail);
            return;
        }
        let request = Request { addresses, mask: part, bytes: 16, mode, strong: false, data: None };
        if global::aligned(context, addresses, part, 16) && shared::check(context, &request, false) {
            if context.launch.checks {
                for lane in lanes(part) {
                    shared::by_whole_warp(context, addresses[lane], 16, mode);
                }
            }
            found = Some((*addresses, part));
        }
    });
    found
}

/// Byte offsets, in a row of 8 elements, of the two elements that a lane holds: (row, element) pairs.
fn elements(lane: usize, transposed: bool) -> [(usize, usize); 2] {
    let (major, minor) = (lane / 4, 2 * (lane % 4));
    if transposed { [(minor, major), (minor + 1, major)] } else { [(major, minor), (major, minor + 1)] }
}

impl Operation for LoadMatrix {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let Some((addresses, _)) = rows(context, i, Mode::Read, mask) else { return };
        let program = context.program;
        let memory = context.block.shared();
        for (matrix, &slot) in program.accesses[i.word as usize].slots.iter().enumerate() {
            let mut halves = [0u16; 64];
            for (row, halves) in halves.chunks_exact_mut(8).enumerate() {
                let at = addresses[8 * matrix + row] as usize;
                for (half, bytes) in halves.iter_mut().zip(memory[at..at + 16].chunks_exact(2)) {
                    *half = u16::from_le_bytes([bytes[0], bytes[1]]);
                }
            }
            for lane in 0..LANES {
                let [low, high] =
                    elements(lane, i.e == 1).map(|(row, element)| u32::from(halves[8 * row + element]));
                // SAFETY: the decoder gave the slot.
                unsafe { u32::set(context.file, slot, lane, low | high << 16) };
            }
        }
    }
}

impl Operation for StoreMatrix {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let Some((addresses, _)) = rows(context, i, Mode::Write, mask) else { return };
        let program = context.program;
        for (matrix, &slot) in program.accesses[i.word as usize].slots.iter().enumerate() {
            for lane in 0..LANES {
                // SAFETY: the decoder gave the slot.
                let value = unsafe { u32::get(context.file, slot, lane) };
                let memory = context.block.shared_mut();
                for ((row, element), half) in elements(lane, i.e == 1).into_iter().zip([value, value >> 16]) {
                    let at = addresses[8 * matrix + row] as usize + 2 * element;
                    memory[at] = half as u8;
                    memory[at + 1] = (half >> 8) as u8;
                }
            }
        }
    }
}

impl Operation for MultiplyAccumulate {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, _: u32) {
        let program = context.program;
        let file = context.file;
        let list = |index: u32| &program.lists[index as usize];
        let gather = |index: u32, into: &mut [[u32; LANES]; 8]| {
            let slots = list(index);
            for (row, &slot) in into.iter_mut().zip(slots) {
                // SAFETY: the decoder gave the slot.
                *row = unsafe { file.load(slot) };
            }
            slots.len().min(8)
        };
        let (mut a, mut b, mut c) = ([[0; LANES]; 8], [[0; LANES]; 8], [[0; LANES]; 8]);
        let (na, nb, nc) = (gather(i.a, &mut a), gather(i.b, &mut b), gather(i.c, &mut c));
        let mut d = [[0; LANES]; 8];
        let shape = program.shapes[i.word as usize];
        let nd = list(i.d).len().min(8);
        tensor_core::mma(shape, context.launch.tensor_core, &a[..na], &b[..nb], &c[..nc], &mut d[..nd]);
        for (row, &slot) in d.iter().zip(list(i.d)) {
            // SAFETY: the decoder gave the slot.
            unsafe { file.store(slot, row, u32::MAX) };
        }
    }
}
