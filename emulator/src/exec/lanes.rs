//! How one instruction runs on the 32 lanes of a warp: registers as rows of 32 values, operations as closures that the
//! compiler turns into vector loops, once for each level of vector instructions.

use super::context::Context;
use crate::program::{Instruction, Run};
use std::marker::PhantomData;

/// Lanes in a warp.
pub const LANES: usize = 32;

/// One 32-bit register of a warp: a value a lane. A 64-bit register takes two rows, as `[u64; 32]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct Row(pub [u32; LANES]);

/// The registers of a warp. Slots were given out by the decoder and lie inside the file.
#[derive(Clone, Copy, Debug)]
pub struct File(pub *mut Row);

/// A type that registers hold. 8- and 16-bit values take the low bits of a 32-bit row.
pub trait Lane: Copy + Default {
    /// Reads lane `lane` of the register.
    ///
    /// # Safety
    /// `slot` must lie in the file with `ROWS` rows; `lane` < 32.
    unsafe fn get(file: File, slot: u32, lane: usize) -> Self;
    /// Writes lane `lane`.
    ///
    /// # Safety
    /// As `get`, and no other reference to the row may exist.
    unsafe fn set(file: File, slot: u32, lane: usize, value: Self);
    /// Writes lane `lane` where `on`; else all its bits, also those beyond a narrow type's, stay as they are.
    ///
    /// # Safety
    /// As `set`.
    unsafe fn blend(file: File, slot: u32, lane: usize, value: Self, on: bool);
}

macro_rules! lane {
    ($type:ty, $raw:ty, $get:expr, $set:expr) => {
        impl Lane for $type {
            #[inline(always)]
            unsafe fn get(file: File, slot: u32, lane: usize) -> Self {
                // SAFETY: the caller's promise.
                let raw = unsafe { *file.0.add(slot as usize).cast::<$raw>().add(lane) };
                ($get)(raw)
            }
            #[inline(always)]
            unsafe fn set(file: File, slot: u32, lane: usize, value: Self) {
                // SAFETY: the caller's promise.
                unsafe { *file.0.add(slot as usize).cast::<$raw>().add(lane) = ($set)(value) };
            }
            #[inline(always)]
            unsafe fn blend(file: File, slot: u32, lane: usize, value: Self, on: bool) {
                // SAFETY: the caller's promise. A select, not a branch.
                unsafe {
                    let place = file.0.add(slot as usize).cast::<$raw>().add(lane);
                    *place = if on { ($set)(value) } else { *place };
                }
            }
        }
    };
}

lane!(u8, u32, |raw| raw as u8, u32::from);
lane!(i8, u32, |raw| raw as i8, |value| value as i32 as u32);
lane!(u16, u32, |raw| raw as u16, u32::from);
lane!(i16, u32, |raw| raw as i16, |value| value as i32 as u32);
lane!(u32, u32, |raw| raw, |value| value);
lane!(i32, u32, |raw| raw as i32, |value| value as u32);
lane!(f32, u32, f32::from_bits, f32::to_bits);
lane!(u64, u64, |raw| raw, |value| value);
lane!(i64, u64, |raw| raw as i64, |value| value as u64);
lane!(f64, u64, f64::from_bits, f64::to_bits);

impl File {
    /// All lanes of a register.
    ///
    /// # Safety
    /// As [`Lane::get`].
    #[inline(always)]
    pub unsafe fn load<T: Lane>(self, slot: u32) -> [T; LANES] {
        let mut row = [T::default(); LANES];
        for (lane, value) in row.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *value = unsafe { T::get(self, slot, lane) };
        }
        row
    }

    /// Writes the lanes that `mask` names.
    ///
    /// # Safety
    /// As [`Lane::set`].
    #[inline(always)]
    pub unsafe fn store<T: Lane>(self, slot: u32, row: &[T; LANES], mask: u32) {
        if mask == u32::MAX {
            for (lane, value) in row.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { T::set(self, slot, lane, *value) };
            }
        } else {
            for (lane, value) in row.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { T::blend(self, slot, lane, *value, mask >> lane & 1 == 1) };
            }
        }
    }
}

/// How an instruction without control flow runs.
pub trait Operation {
    /// Runs on the lanes of `mask`.
    ///
    /// # Safety
    /// The context's file and predicates hold every slot of the instruction.
    unsafe fn run(context: &mut Context<'_>, instruction: &Instruction, mask: u32);
}

/// Levels of vector instructions that operations are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// What every machine of the target has.
    Baseline,
}

impl Level {
    /// The best level of this machine. `PRETEXT_SIMD=baseline|avx2|avx512` lowers it, for tests.
    pub fn best() -> Level {
        static LEVEL: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
        *LEVEL.get_or_init(|| match (std::env::var("PRETEXT_SIMD").as_deref(), Level::detect()) {
            (Ok("baseline"), _) => Level::Baseline,
            (Ok("avx2"), Level::Avx512) => Level::Avx2,
            (_, detected) => detected,
        })
    }

    fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let v4 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let v3 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            if v3 && v4 {
                return Level::Avx512;
            }
            if v3 {
                return Level::Avx2;
            }
        }
        Level::Baseline
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512<O: Operation>(context: &mut Context<'_>, instruction: &Instruction, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run(context, instruction, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<O: Operation>(context: &mut Context<'_>, instruction: &Instruction, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run(context, instruction, mask) }
}

unsafe fn baseline<O: Operation>(context: &mut Context<'_>, instruction: &Instruction, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run(context, instruction, mask) }
}

/// For which levels an operation is compiled.
pub trait Compile: Copy {
    /// The function that runs the operation on this machine.
    fn compiled<O: Operation>(self) -> Run;
}

impl Compile for Level {
    fn compiled<O: Operation>(self) -> Run {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<O>,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<O>,
            _ => baseline::<O>,
        }
    }
}

/// Operations that kernels seldom execute: compiled once, for what every machine has, to keep the library small.
#[derive(Clone, Copy, Debug)]
pub struct Rare;

impl Compile for Rare {
    fn compiled<O: Operation>(self) -> Run {
        baseline::<O>
    }
}

/// The function that runs an operation.
pub fn compiled<O: Operation>(level: impl Compile) -> Run {
    level.compiled::<O>()
}

/// A function without state, by its type: how an operation's closure reaches the loop that runs it.
#[inline(always)]
fn stateless<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "the closure must capture nothing") };
    // SAFETY: F has no bytes, so there is nothing to read; a closure that captures nothing can be made at will.
    unsafe { std::mem::transmute_copy(&()) }
}

/// d = f(a).
pub struct Unary<D, A, F>(PhantomData<(D, A, F)>);
/// d = f(a, b).
pub struct Binary<D, A, B, F>(PhantomData<(D, A, B, F)>);
/// d = f(a, b, c).
pub struct Ternary<D, A, B, C, F>(PhantomData<(D, A, B, C, F)>);
/// predicate d = f(a, b).
pub struct Compare<A, F>(PhantomData<(A, F)>);

impl<D: Lane, A: Lane, F: Fn(A) -> D + Copy> Operation for Unary<D, A, F> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (f, file) = (stateless::<F>(), context.file);
        let mut d = [D::default(); LANES];
        // SAFETY: the decoder gave the slots; the result is written after all reads.
        unsafe {
            for (lane, d) in d.iter_mut().enumerate() {
                *d = f(A::get(file, i.a, lane));
            }
            file.store(i.d, &d, mask);
        }
    }
}

impl<D: Lane, A: Lane, B: Lane, F: Fn(A, B) -> D + Copy> Operation for Binary<D, A, B, F> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (f, file) = (stateless::<F>(), context.file);
        let mut d = [D::default(); LANES];
        // SAFETY: as in `Unary`.
        unsafe {
            for (lane, d) in d.iter_mut().enumerate() {
                *d = f(A::get(file, i.a, lane), B::get(file, i.b, lane));
            }
            file.store(i.d, &d, mask);
        }
    }
}

impl<D: Lane, A: Lane, B: Lane, C: Lane, F: Fn(A, B, C) -> D + Copy> Operation for Ternary<D, A, B, C, F> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (f, file) = (stateless::<F>(), context.file);
        let mut d = [D::default(); LANES];
        // SAFETY: as in `Unary`.
        unsafe {
            for (lane, d) in d.iter_mut().enumerate() {
                *d = f(A::get(file, i.a, lane), B::get(file, i.b, lane), C::get(file, i.c, lane));
            }
            file.store(i.d, &d, mask);
        }
    }
}

/// How a comparison is combined with a predicate operand (`setp.lt.and`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Combine {
    /// Not at all.
    None,
    /// And.
    And,
    /// Or.
    Or,
    /// Exclusive or.
    Xor,
}

impl Combine {
    /// The number that instructions carry.
    pub fn of(word: u64) -> Combine {
        match word & 3 {
            1 => Combine::And,
            2 => Combine::Or,
            3 => Combine::Xor,
            _ => Combine::None,
        }
    }

    fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Combine::None => a,
            Combine::And => a & b,
            Combine::Or => a | b,
            Combine::Xor => a ^ b,
        }
    }
}

/// `setp`: d and, where `e` is a predicate, its complement; `c` is the predicate to combine with, negated by bit 8 of
/// `word`, how by bits 0-1.
impl<A: Lane, F: Fn(A, A) -> bool + Copy> Operation for Compare<A, F> {
    #[inline(always)]
    unsafe fn run(context: &mut Context<'_>, i: &Instruction, mask: u32) {
        let (f, file) = (stateless::<F>(), context.file);
        let mut bits = 0u32;
        // SAFETY: the decoder gave the slots.
        unsafe {
            for lane in 0..LANES {
                bits |= u32::from(f(A::get(file, i.a, lane), A::get(file, i.b, lane))) << lane;
            }
        }
        let combine = Combine::of(i.word);
        let other = if combine == Combine::None { 0 } else { context.predicate(i.c) };
        let other = if i.word >> 8 & 1 == 1 { !other } else { other };
        context.set_predicate(i.d, combine.apply(bits, other), mask);
        if i.e != u32::MAX {
            context.set_predicate(i.e, combine.apply(!bits, other), mask);
        }
    }
}

/// The function for `d = f(a)`.
pub fn unary<D: Lane, A: Lane, F: Fn(A) -> D + Copy>(level: impl Compile, _f: F) -> Run {
    compiled::<Unary<D, A, F>>(level)
}

/// The function for `d = f(a, b)`.
pub fn binary<D: Lane, A: Lane, B: Lane, F: Fn(A, B) -> D + Copy>(level: impl Compile, _f: F) -> Run {
    compiled::<Binary<D, A, B, F>>(level)
}

/// The function for `d = f(a, b, c)`.
pub fn ternary<D: Lane, A: Lane, B: Lane, C: Lane, F: Fn(A, B, C) -> D + Copy>(
    level: impl Compile,
    _f: F,
) -> Run {
    compiled::<Ternary<D, A, B, C, F>>(level)
}

/// The function for a comparison.
pub fn compare<A: Lane, F: Fn(A, A) -> bool + Copy>(level: impl Compile, _f: F) -> Run {
    compiled::<Compare<A, F>>(level)
}
