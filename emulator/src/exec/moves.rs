//! Operations on whole registers and predicates: packing, selection, predicate logic, clocks, fences.

use super::context::Context;
use super::global;
use super::lanes::{LANES, Lane, Operation};
use crate::program::{Instruction, NONE};

/// `mov` of a vector into one register: list `e` of slots, `word` bits each; d is wide where bit 8 of `word` is set.
pub struct Pack;
/// `mov` of one register into a vector.
pub struct Unpack;
/// `selp`: c is the predicate, negated by bit 8 of `word`.
pub struct Select<T>(std::marker::PhantomData<T>);
/// Logic of predicates: `word` 0 and, 1 or, 2 xor, 3 not, 4 move, 5 set by register a (0 or not); bits 8 and 9 negate a and b.
pub struct PredicateLogic;
/// `%clock`, `%clock64`: what the warp has run; `word` 1: 64 bits wide.
pub struct Clock;
/// `membar`, `fence` of device scope or wider.
pub struct Fence;
/// `fence.proxy.async`, and `fence.mbarrier_init`: between what threads wrote and the asynchronous proxy.
pub struct ProxyFence;

impl Operation for Pack {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (bits, wide) = (i.word & 255, i.word >> 8 & 1 == 1);
        let slots = &context.program.lists[i.e as usize];
        let file = context.file;
        let ones = if bits == 32 { u64::from(u32::MAX) } else { (1 << bits) - 1 };
        let mut packed = [0u64; LANES];
        // SAFETY: the decoder gave the slots.
        unsafe {
            for (element, &slot) in slots.iter().enumerate() {
                for (lane, value) in packed.iter_mut().enumerate() {
                    *value |= (u64::from(u32::get(file, slot, lane)) & ones) << (bits * element as u64);
                }
            }
            if wide {
                file.store(i.d, &packed, mask);
            } else {
                file.store(i.d, &packed.map(|value| value as u32), mask);
            }
        }
    }
}

impl Operation for Unpack {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (bits, wide) = (i.word & 255, i.word >> 8 & 1 == 1);
        let slots = &context.program.lists[i.e as usize];
        let file = context.file;
        let ones = if bits == 32 { u64::from(u32::MAX) } else { (1 << bits) - 1 };
        // SAFETY: the decoder gave the slots.
        unsafe {
            let packed: [u64; LANES] =
                if wide { file.load(i.a) } else { file.load::<u32>(i.a).map(u64::from) };
            for (element, &slot) in slots.iter().enumerate() {
                if slot != NONE {
                    let part = packed.map(|value| (value >> (bits * element as u64) & ones) as u32);
                    file.store(slot, &part, mask);
                }
            }
        }
    }
}

impl<T: Lane> Operation for Select<T> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let bits = context.predicate(i.c);
        let bits = if i.word >> 8 & 1 == 1 { !bits } else { bits };
        // SAFETY: the decoder gave the slots.
        unsafe {
            let mut d = [T::default(); LANES];
            for (lane, d) in d.iter_mut().enumerate() {
                let (a, b) = (T::get(context.file, i.a, lane), T::get(context.file, i.b, lane));
                *d = if bits >> lane & 1 == 1 { a } else { b };
            }
            context.file.store(i.d, &d, mask);
        }
    }
}

impl Operation for PredicateLogic {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let read = |context: &Context<'_>, index: u32, negate: bool| {
            let bits = context.predicate(index);
            if negate { !bits } else { bits }
        };
        let a = if i.word & 7 == 5 {
            // SAFETY: the decoder gave the slot.
            let values: [u32; LANES] = unsafe { context.file.load(i.a) };
            values.iter().enumerate().fold(0, |bits, (lane, value)| bits | u32::from(*value != 0) << lane)
        } else {
            read(context, i.a, i.word >> 8 & 1 == 1)
        };
        let bits = match i.word & 7 {
            0 => a & read(context, i.b, i.word >> 9 & 1 == 1),
            1 => a | read(context, i.b, i.word >> 9 & 1 == 1),
            2 => a ^ read(context, i.b, i.word >> 9 & 1 == 1),
            3 => !a,
            _ => a,
        };
        context.set_predicate(i.d, bits, mask);
    }
}

impl Operation for Clock {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        // SAFETY: the decoder gave the slot.
        unsafe {
            if i.word == 1 {
                context.file.store(i.d, &[context.clock; LANES], mask);
            } else {
                context.file.store(i.d, &[context.clock as u32; LANES], mask);
            }
        }
    }
}

impl Operation for Fence {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, _: u32) {
        global::fence(context);
    }
}

impl Operation for ProxyFence {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, _: u32) {
        context.block.clocks.proxy_fence(context.warp);
    }
}
