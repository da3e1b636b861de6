//! `atom` and `red`: read-modify-write on global and shared memory, one lane after another in lane order.

use super::access::{by_space, writable};
use super::context::{Context, lanes};
use super::global::{self, Mode, Request};
use super::lanes::{LANES, Lane, Operation};
use super::shared;
use crate::numeric::half;
use crate::numeric::round::{canonical_f32, ftz_f32};
use crate::program::{Access, AccessSpace, Instruction, NONE};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// What is done to the old value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the instruction's own names")]
pub enum Change {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

/// The type of the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "PTX's own names")]
pub enum Value {
    B16,
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
}

/// `atom` and `red`: the access's slots hold the operand (one a vector element), d the old value's first slot or
/// [`NONE`], b the second operand of `cas`, `e` the list of destinations of a vector form or [`NONE`], `target` the
/// change and value.
pub struct Atomic;

/// Packs what `target` carries.
pub fn code(change: Change, value: Value) -> u32 {
    change as u32 | (value as u32) << 8
}

const CHANGES: [Change; 10] = [
    Change::Add,
    Change::Min,
    Change::Max,
    Change::And,
    Change::Or,
    Change::Xor,
    Change::Exchange,
    Change::CompareAndSwap,
    Change::Increment,
    Change::Decrement,
];
const VALUES: [Value; 11] = [
    Value::B16,
    Value::U32,
    Value::S32,
    Value::U64,
    Value::S64,
    Value::F32,
    Value::F64,
    Value::F16,
    Value::Bf16,
    Value::F16x2,
    Value::Bf16x2,
];

impl Operation for Atomic {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let program = context.program;
        let access = &program.accesses[i.word as usize];
        let addresses = context.addresses(i.a, access.narrow, access.offset);
        by_space(context, access, &addresses, mask, |context, space, addresses, mask| {
            atomic(context, i, access, space, addresses, mask);
        });
    }
}

fn atomic(
    context: &mut Context<'_>,
    i: &Instruction,
    access: &Access,
    space: AccessSpace,
    addresses: &[u64; LANES],
    mask: u32,
) {
    let bytes = access.bytes();
    if !global::aligned(context, addresses, mask, bytes) {
        return;
    }
    let request = Request { addresses, mask, bytes, mode: Mode::Atomic, strong: true, data: None };
    let origin = match space {
        AccessSpace::Shared => {
            if !shared::check(context, &request, false) {
                return;
            }
            context.block.shared_mut().as_mut_ptr()
        }
        AccessSpace::Global | AccessSpace::Generic => {
            if !writable(context, addresses, mask, bytes) {
                return;
            }
            if access.release {
                global::fence(context);
            }
            global::release(context, addresses, mask);
            let Some(view) = global::check(context, &request) else { return };
            view.data.wrapping_sub(view.base as usize)
        }
        _ => {
            let text = "an atomic on local, parameter or constant memory".to_owned();
            context.fail(crate::report::Kind::OutOfBounds, mask.trailing_zeros(), text);
            return;
        }
    };
    let change = CHANGES[(i.target & 0xFF) as usize % CHANGES.len()];
    let value = VALUES[(i.target >> 8) as usize % VALUES.len()];
    let file = context.file;
    let flush = space != AccessSpace::Shared;
    for lane in lanes(mask) {
        for (element, &slot) in access.slots.iter().enumerate() {
            let place = origin.wrapping_add(addresses[lane] as usize + element * access.element as usize);
            let destination = match i.e {
                NONE => i.d,
                list => context.program.lists[list as usize][element],
            };
            // SAFETY: the place was checked and is aligned; slots are the decoder's.
            unsafe {
                let load = |slot: u32| match (slot, access.wide) {
                    (NONE, _) => 0,
                    (slot, true) => u64::get(file, slot, lane),
                    (slot, false) => u64::from(u32::get(file, slot, lane)),
                };
                let (operand, second) = (load(slot), load(i.b));
                let old =
                    modify(place, access.element, |old| apply(change, value, old, operand, second, flush));
                if destination != NONE {
                    if access.wide {
                        u64::set(file, destination, lane, old);
                    } else {
                        u32::set(file, destination, lane, old as u32);
                    }
                }
            }
        }
    }
    if !matches!(space, AccessSpace::Shared) {
        global::acquire(context, addresses, mask);
    }
}

/// Replaces the value at `place` in one step that other workers cannot come between.
unsafe fn modify(place: *mut u8, bytes: u32, mut change: impl FnMut(u64) -> u64) -> u64 {
    // SAFETY: the caller gives an aligned place of that many bytes that only atomics and racing kernels touch.
    unsafe {
        match bytes {
            2 => {
                let cell = AtomicU16::from_ptr(place.cast());
                let result = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                    Some(change(u64::from(old)) as u16)
                });
                u64::from(result.unwrap_or_default())
            }
            4 => {
                let cell = AtomicU32::from_ptr(place.cast());
                let result = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                    Some(change(u64::from(old)) as u32)
                });
                u64::from(result.unwrap_or_default())
            }
            _ => {
                let cell = AtomicU64::from_ptr(place.cast());
                cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(change(old)))
                    .unwrap_or_default()
            }
        }
    }
}

fn apply(change: Change, value: Value, old: u64, operand: u64, second: u64, flush: bool) -> u64 {
    match change {
        Change::And => old & operand,
        Change::Or => old | operand,
        Change::Xor => old ^ operand,
        Change::Exchange => operand,
        Change::CompareAndSwap => {
            if old == operand {
                second
            } else {
                old
            }
        }
        Change::Increment => u64::from(if old as u32 >= operand as u32 { 0 } else { old as u32 + 1 }),
        Change::Decrement => {
            let (old, limit) = (old as u32, operand as u32);
            u64::from(if old == 0 || old > limit { limit } else { old - 1 })
        }
        Change::Add | Change::Min | Change::Max => arithmetic(change, value, old, operand, flush),
    }
}

fn arithmetic(change: Change, value: Value, old: u64, operand: u64, flush: bool) -> u64 {
    macro_rules! integer {
        ($type:ty, $add:expr) => {{
            let (a, b) = (old as $type, operand as $type);
            match change {
                Change::Min => a.min(b) as u64,
                Change::Max => a.max(b) as u64,
                _ => a.wrapping_add(b) as u64,
            }
        }};
    }
    let halves = |f: fn(u16, u16) -> u16| {
        u64::from(f(old as u16, operand as u16))
            | u64::from(f((old >> 16) as u16, (operand >> 16) as u16)) << 16
    };
    let half = |add: fn(u16, u16) -> u16, min: fn(u16, u16) -> u16, max: fn(u16, u16) -> u16| match change {
        Change::Min => min,
        Change::Max => max,
        _ => add,
    };
    match value {
        Value::U32 | Value::B16 => integer!(u32, u32::wrapping_add),
        Value::S32 => u64::from(integer!(i32, i32::wrapping_add) as u32),
        Value::U64 => integer!(u64, u64::wrapping_add),
        Value::S64 => integer!(i64, i64::wrapping_add),
        // On global memory subnormal operands and results are flushed to zero, on shared memory they are not.
        Value::F32 => {
            let input = |bits: u64| {
                let value = f32::from_bits(bits as u32);
                if flush { ftz_f32(value) } else { value }
            };
            let sum = input(old) + input(operand);
            u64::from(canonical_f32(if flush { ftz_f32(sum) } else { sum }).to_bits())
        }
        Value::F64 => (f64::from_bits(old) + f64::from_bits(operand)).to_bits(),
        Value::F16 => {
            u64::from(half(half::f16_add, half::f16_min, half::f16_max)(old as u16, operand as u16))
        }
        Value::Bf16 => {
            u64::from(half(half::bf16_add, half::bf16_min, half::bf16_max)(old as u16, operand as u16))
        }
        Value::F16x2 => halves(half(half::f16_add, half::f16_min, half::f16_max)),
        Value::Bf16x2 => halves(half(half::bf16_add, half::bf16_min, half::bf16_max)),
    }
}
