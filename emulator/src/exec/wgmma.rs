//! `wgmma`: products of matrices by four warps, A and B in shared memory (PTX ISA 9.7.15). A warp computes its own 16 of the
//! 64 rows when it comes to the instruction: while the operands are in use nobody may write them, which is checked, so that
//! the other warps find the same. Where elements lie was compared with an H100 for every swizzle, transposition and offset of
//! the recording (`golden/h100`).

use super::bulk::place_of;
use super::context::Context;
use super::lanes::{LANES, Operation};
use super::shared::asynchronous;
use crate::numeric::tensor_core;
use crate::program::{Instruction, WgmmaForm};
use crate::report::Kind;
use crate::tensor_map::swizzled;
use std::collections::VecDeque;

/// `wgmma.mma_async`: d is the list of accumulators, a the descriptor of A or a list of registers, b the descriptor of B, c
/// the predicate of scale-d (negated where `target` is 1), `word` the form.
pub struct MatrixProduct;
/// `wgmma.fence`.
pub struct WgmmaFence;
/// `wgmma.commit_group`.
pub struct WgmmaCommit;
/// `wgmma.wait_group`: `word` groups may stay in flight.
pub struct WgmmaWait;

/// What a warp has in flight.
#[derive(Debug, Default)]
pub struct Products {
    /// The warp has executed a `wgmma.fence`.
    fenced: bool,
    committed: u32,
    pending: Vec<Reading>,
}

/// One product, and the chunks of 16 bytes that it reads.
#[derive(Debug)]
struct Reading {
    pc: u32,
    group: u32,
    chunks: Vec<u64>,
}

impl Products {
    /// The first product that was not waited for: its instruction.
    pub fn unfinished(&self) -> Option<u32> {
        self.pending.first().map(|reading| reading.pc)
    }
}

/// The products that the warps of a warpgroup have executed: they must be the same.
#[derive(Debug, Default)]
pub struct Warpgroup {
    /// Instruction and descriptors of those that some warp has not executed yet.
    products: VecDeque<(u32, u64, u64)>,
    /// How many each warp has executed.
    counts: [u64; 4],
}

impl Warpgroup {
    /// A warp executes a product; false where another one executed another as its product of that number.
    fn executes(&mut self, warp: usize, product: (u32, u64, u64)) -> bool {
        let first = self.counts.iter().copied().max().unwrap_or(0) - self.products.len() as u64;
        let index = (self.counts[warp] - first) as usize;
        self.counts[warp] += 1;
        match self.products.get(index) {
            Some(other) if *other != product => return false,
            Some(_) => {}
            None => self.products.push_back(product),
        }
        let last = self.counts.iter().copied().max().unwrap_or(0);
        let least = self.counts.iter().copied().min().unwrap_or(0);
        self.products.drain(..self.products.len() - (last - least) as usize);
        true
    }

    /// A product that not all four warps have executed: its instruction.
    pub fn unfinished(&self) -> Option<u32> {
        self.products.front().map(|(pc, ..)| *pc)
    }
}

/// A descriptor of a matrix in shared memory (PTX ISA 9.7.15.5.1).
#[derive(Clone, Copy, Debug)]
struct Matrix {
    start: u64,
    leading: u64,
    stride: u64,
    /// 0, or the bytes of the swizzle.
    span: u64,
    transposed: bool,
}

impl Matrix {
    fn new(descriptor: u64, transposed: bool) -> Result<Matrix, String> {
        let field = |bit: u32| (descriptor >> bit & 0x3FFF) << 4;
        // Bits 14, 15, 30, 31, 46 to 48 and 52 to 61 mean nothing; 49 to 51 are the base offset.
        let rest = descriptor & 0x3FF1_C000_C000_C000;
        if rest != 0 {
            return Err(format!(
                "the descriptor {descriptor:#018x} has bits set that mean nothing: {rest:#018x}"
            ));
        }
        if descriptor >> 49 & 7 != 0 {
            return Err(format!("the descriptor {descriptor:#018x} has a base offset; only 0 is supported"));
        }
        let span = [0, 128, 64, 32][(descriptor >> 62) as usize];
        Ok(Matrix { start: field(0), leading: field(16), stride: field(32), span, transposed })
    }

    /// Shared address of a chunk of 8 elements: 8 consecutive k from `8 * k` on of row `row` (a row of A, a column of B), or
    /// where transposed 8 consecutive rows from `8 * row` on of `k`.
    fn chunk(&self, row: u64, k: u64) -> u64 {
        let Matrix { start, leading, stride, span, transposed } = *self;
        let address = match (span, transposed) {
            // Core matrices of 8 times 16 bytes, one behind the other.
            (0, false) => row / 8 * stride + k * leading + row % 8 * 16,
            (0, true) => row * stride + k / 8 * leading + k % 8 * 16,
            // Eight rows of `span` bytes are a unit of the swizzle.
            (_, false) => row / 8 * stride + row % 8 * span + 16 * k,
            (_, true) => {
                let chunks = span / 16;
                row / chunks * leading + row % chunks * 16 + k / 8 * stride + k % 8 * span
            }
        };
        swizzled(start + address, span)
    }

    /// Elements of `rows` rows from `first` on, a multiple of 8, as `[k][row]`; the chunks are noted. None after a fault.
    fn gather<const ROWS: usize>(
        &self,
        context: &mut Context<'_>,
        first: u64,
        negated: bool,
        chunks: &mut Vec<u64>,
    ) -> Option<[[f32; ROWS]; 16]> {
        let mut values = [[0.0; ROWS]; 16];
        let sign = if negated { 0x8000_0000 } else { 0 };
        let rows = ROWS as u64;
        let outer = if self.transposed { (rows / 8, 16) } else { (rows, 2) };
        for i in 0..outer.0 {
            for k in 0..outer.1 {
                let row = if self.transposed { first / 8 + i } else { first + i };
                let address = self.chunk(row, k);
                if !asynchronous::reads(context, 0, address, 16) {
                    return None;
                }
                chunks.push(address);
                let bytes = context.block.shared().get(address as usize..address as usize + 16)?;
                for (element, pair) in bytes.chunks_exact(2).enumerate() {
                    let bits = u32::from(pair[0]) << 16 | u32::from(pair[1]) << 24;
                    let (i, k) = (i as usize, k as usize);
                    let place = match self.transposed {
                        true => &mut values[k][8 * i + element],
                        false => &mut values[8 * k + element][i],
                    };
                    *place = f32::from_bits(bits ^ sign);
                }
            }
        }
        Some(values)
    }
}

/// A's 16 rows of a warp from its registers, as `[k][row]`: lane 4 g + t holds in register i the row g + 8 (i % 2), columns
/// 2 t + 8 (i / 2) and the next.
fn from_registers(registers: &[[u32; LANES]; 4], negated: bool) -> [[f32; 16]; 16] {
    let mut values = [[0.0; 16]; 16];
    let sign = if negated { 0x8000_0000 } else { 0 };
    for (i, register) in registers.iter().enumerate() {
        for (lane, word) in register.iter().enumerate() {
            let (row, k) = (lane / 4 + 8 * (i % 2), 2 * (lane % 4) + 8 * (i / 2));
            values[k][row] = f32::from_bits(word << 16 ^ sign);
            values[k + 1][row] = f32::from_bits(word & 0xFFFF_0000 ^ sign);
        }
    }
    values
}

impl Operation for MatrixProduct {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, _: u32) {
        let form = context.program.wgmmas[i.word as usize];
        let file = context.file;
        // SAFETY: the decoder gave the slots.
        let (a, b): ([u64; LANES], [u64; LANES]) =
            unsafe { (if form.a_in_registers { [0; LANES] } else { file.load(i.a) }, file.load(i.b)) };
        if let Err(detail) = may_run(context, i, (a, b)) {
            return context.fail(Kind::AsyncMisuse, 0, detail);
        }
        let matrices = Matrix::new(a[0], form.transposed[0])
            .and_then(|a| Ok((a, Matrix::new(b[0], form.transposed[1])?)));
        let (a, b) = match matrices {
            Ok(matrices) => matrices,
            Err(detail) => return context.fail(Kind::AsyncMisuse, 0, detail),
        };
        let mut chunks = Vec::with_capacity(32 + 2 * form.n);
        let program = context.program;
        let rows = if form.a_in_registers {
            let mut registers = [[0; LANES]; 4];
            for (register, slot) in registers.iter_mut().zip(&program.lists[i.a as usize]) {
                // SAFETY: the decoder gave the slot.
                *register = unsafe { file.load(*slot) };
            }
            Some(from_registers(&registers, form.negated[0]))
        } else {
            a.gather::<16>(context, 16 * (context.warp as u64 % 4), form.negated[0], &mut chunks)
        };
        let Some(rows) = rows else { return };
        if multiply(context, i, form, &rows, &b, &mut chunks).is_some() {
            let products = &mut context.block.products[context.warp];
            products.pending.push(Reading { pc: place_of(program, i), group: products.committed, chunks });
        }
    }
}

/// Whether the warp, the warpgroup and the descriptors are such that the product may run.
fn may_run(
    context: &mut Context<'_>,
    i: &Instruction,
    (a, b): ([u64; LANES], [u64; LANES]),
) -> Result<(), String> {
    let (warp, warps) = (context.warp, context.block.products.len());
    if warp / 4 * 4 + 4 > warps {
        return Err(format!("warp {warp} of {warps} warps belongs to no whole warpgroup of four warps"));
    }
    if a != [a[0]; LANES] || b != [b[0]; LANES] {
        return Err("the lanes of the warp give different descriptors".to_owned());
    }
    if !context.block.products[warp].fenced {
        return Err("no wgmma.fence comes before the warp's first wgmma.mma_async".to_owned());
    }
    let product = (place_of(context.program, i), a[0], b[0]);
    match context.block.warpgroups[warp / 4].executes(warp % 4, product) {
        true => Ok(()),
        false => Err(format!(
            "warp {warp} executes another product than the other warps of its warpgroup, or with other descriptors"
        )),
    }
}

/// Eight columns after the other. None after a fault.
fn multiply(
    context: &mut Context<'_>,
    i: &Instruction,
    form: WgmmaForm,
    rows: &[[f32; 16]; 16],
    b: &Matrix,
    chunks: &mut Vec<u64>,
) -> Option<()> {
    let (program, file, mode) = (context.program, context.file, context.launch.tensor_core);
    let keeps = context.predicate(i.c) & 1 == 1;
    let keeps = keeps != (i.target == 1);
    for (tile, slots) in program.lists[i.d as usize].chunks_exact(4).enumerate() {
        let columns = b.gather::<8>(context, 8 * tile as u64, form.negated[1], chunks)?;
        let mut c = [[0; LANES]; 4];
        if keeps {
            for (c, slot) in c.iter_mut().zip(slots) {
                // SAFETY: the decoder gave the slot.
                *c = unsafe { file.load(*slot) };
            }
        }
        let d = tensor_core::wgmma_tile(mode, rows, &columns, &c);
        for (d, slot) in d.iter().zip(slots) {
            // SAFETY: as above.
            unsafe { file.store(*slot, d, u32::MAX) };
        }
    }
    Some(())
}

impl Operation for WgmmaFence {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, _: u32) {
        context.block.products[context.warp].fenced = true;
    }
}

impl Operation for WgmmaCommit {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, _: u32) {
        context.block.products[context.warp].committed += 1;
    }
}

impl Operation for WgmmaWait {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, _: u32) {
        let products = &mut context.block.products[context.warp];
        let committed = u64::from(products.committed);
        let over = |reading: &mut Reading| u64::from(reading.group) + i.word < committed;
        let done: Vec<Reading> = products.pending.extract_if(.., over).collect();
        if context.launch.checks {
            for chunk in done.iter().flat_map(|reading| &reading.chunks) {
                asynchronous::was_read(context, 0, *chunk, 16);
            }
            // All lanes have waited: for each of them the reads are over.
            context.block.clocks.warp_barrier(context.warp);
        }
    }
}
