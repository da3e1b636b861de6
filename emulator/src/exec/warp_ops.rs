//! Instructions by which the lanes of a warp talk: shuffles, votes, matches, reductions. `target` is the slot of the
//! member mask; the warp loop has checked that its lanes are all here.

use super::context::{Context, lanes};
use super::lanes::{LANES, Operation};
use crate::program::{Instruction, NONE};

/// What lanes outside the mask hand out: no number that anyone would take for a result.
const UNDEFINED: u32 = 0x7FFF_DEAD;

/// `shfl.sync`: a value, b lane or delta, c clamp and segments, e the predicate; `word` 0 up, 1 down, 2 bfly, 3 idx.
pub struct Shuffle;
/// `vote.sync`: a is a predicate (negated: bit 8 of `word`); `word` 0 all, 1 any, 2 uni, 3 ballot.
pub struct Vote;
/// `match.sync`: `word` 0 any, 1 all; bit 8: 64 bits wide. e is the predicate of `all`.
pub struct Match;
/// `redux.sync`: `word` 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor; bit 8: signed.
pub struct Reduce;
/// `activemask`.
pub struct ActiveMask;
/// `bar.warp.sync`.
pub struct WarpBarrier;
/// `elect.sync`: d the leader, e its predicate.
pub struct Elect;

impl Operation for Shuffle {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let file = context.file;
        // SAFETY: the decoder gave the slots.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) =
                (file.load(i.a), file.load(i.b), file.load(i.c));
            let mut d = [0; LANES];
            let mut valid = 0u32;
            for lane in 0..LANES {
                let me = lane as u32;
                let (step, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
                let highest = me & segment | clamp & !segment;
                let (source, inside) = match i.word {
                    0 => (me.wrapping_sub(step), me as i32 - step as i32 >= highest as i32),
                    1 => (me + step, me + step <= highest),
                    2 => (me ^ step, me ^ step <= highest),
                    _ => {
                        let source = me & segment | step & !segment;
                        (source, source <= highest)
                    }
                };
                let source = if inside { source & 31 } else { me };
                valid |= u32::from(inside) << lane;
                d[lane] = if mask >> source & 1 == 1 { a[source as usize] } else { UNDEFINED };
            }
            if i.d != NONE {
                file.store(i.d, &d, mask);
            }
            context.set_predicate(i.e, valid, mask);
        }
    }
}

impl Operation for Vote {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let votes = context.predicate(i.a);
        let votes = if i.word >> 8 & 1 == 1 { !votes } else { votes } & mask;
        let all = |yes: bool| if yes { u32::MAX } else { 0 };
        match i.word & 3 {
            0 => context.set_predicate(i.d, all(votes == mask), mask),
            1 => context.set_predicate(i.d, all(votes != 0), mask),
            2 => context.set_predicate(i.d, all(votes == mask || votes == 0), mask),
            // SAFETY: the decoder gave the slot.
            _ => unsafe { context.file.store(i.d, &[votes; LANES], mask) },
        }
    }
}

impl Operation for Match {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let file = context.file;
        // SAFETY: the decoder gave the slots.
        unsafe {
            let values: [u64; LANES] =
                if i.word >> 8 & 1 == 1 { file.load(i.a) } else { file.load::<u32>(i.a).map(u64::from) };
            let equal = |lane: usize| {
                lanes(mask)
                    .filter(|&other| values[other] == values[lane])
                    .fold(0u32, |set, other| set | 1 << other)
            };
            let mut d: [u32; LANES] = std::array::from_fn(equal);
            if i.word & 1 == 1 {
                let all = lanes(mask).all(|lane| d[lane] == mask);
                d = [if all { mask } else { 0 }; LANES];
                context.set_predicate(i.e, if all { u32::MAX } else { 0 }, mask);
            }
            if i.d != NONE {
                file.store(i.d, &d, mask);
            }
        }
    }
}

impl Operation for Reduce {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        // SAFETY: the decoder gave the slots.
        unsafe {
            let values: [u32; LANES] = context.file.load(i.a);
            let signed = i.word >> 8 & 1 == 1;
            let step = |a: u32, b: u32| match (i.word & 7, signed) {
                (0, _) => a.wrapping_add(b),
                (1, true) => (a as i32).min(b as i32) as u32,
                (1, false) => a.min(b),
                (2, true) => (a as i32).max(b as i32) as u32,
                (2, false) => a.max(b),
                (3, _) => a & b,
                (4, _) => a | b,
                _ => a ^ b,
            };
            let result = lanes(mask).map(|lane| values[lane]).reduce(step).unwrap_or(0);
            context.file.store(i.d, &[result; LANES], mask);
        }
    }
}

impl Operation for ActiveMask {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        // SAFETY: the decoder gave the slot.
        unsafe { context.file.store(i.d, &[mask; LANES], mask) };
    }
}

impl Operation for WarpBarrier {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, _: &Instruction, _: u32) {
        context.block.clocks.warp_barrier(context.warp);
    }
}

impl Operation for Elect {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let leader = mask.trailing_zeros();
        if i.d != NONE {
            // SAFETY: the decoder gave the slot.
            unsafe { context.file.store(i.d, &[leader; LANES], mask) };
        }
        context.set_predicate(i.e, 1 << leader, mask);
    }
}
