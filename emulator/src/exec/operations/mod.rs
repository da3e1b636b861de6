//! The instructions that only compute: what `name.qualifiers` does to a lane's values, for every form of the table in the
//! README. An instruction that is not found here and has no rule in `decode` is unknown.

#![allow(
    clippy::redundant_closure,
    clippy::unnecessary_cast,
    clippy::nonminimal_bool,
    clippy::neg_cmp_op_on_partial_ord,
    clippy::useless_conversion,
    clippy::absurd_extreme_comparisons,
    reason = "one macro body serves all types; closures carry the operation in their type; NaN needs negated comparisons"
)]

mod convert;
mod float;
mod half;
mod integer;
mod logic;

use super::lanes::Level;
use crate::program::{Class, Run};
use crate::ptx::ast::Type;

/// A computation: its function and the types of its operands, by which the decoder finds slots.
#[derive(Clone, Debug)]
pub struct Operation {
    /// How it runs.
    pub run: Run,
    /// What counters call it.
    pub class: Class,
    /// Type of the destination.
    pub destination: Type,
    /// Types of the sources.
    pub sources: Vec<Type>,
    /// What the instruction's `word` carries.
    pub word: u64,
}

/// An opcode taken apart: `mul.wide.s32` is `mul` with qualifiers `wide` and `s32`.
#[derive(Clone, Debug)]
pub struct Name<'a> {
    /// `mul`
    pub base: &'a str,
    /// `wide`, `s32`
    pub qualifiers: Vec<&'a str>,
}

impl<'a> Name<'a> {
    /// Splits an opcode at its dots.
    pub fn new(opcode: &'a str) -> Name<'a> {
        let mut parts = opcode.split('.');
        Name { base: parts.next().unwrap_or_default(), qualifiers: parts.collect() }
    }

    /// A qualifier is there.
    pub fn has(&self, qualifier: &str) -> bool {
        self.qualifiers.contains(&qualifier)
    }

    /// The last qualifier: the type of most instructions.
    pub fn last(&self) -> &'a str {
        self.qualifiers.last().copied().unwrap_or_default()
    }

    /// All qualifiers are among these (or types): anything else is not understood, and must not be ignored.
    pub fn only(&self, allowed: &[&str]) -> bool {
        self.qualifiers.iter().all(|q| allowed.contains(q) || type_of(q).is_some())
    }
}

/// The type that a qualifier names.
pub fn type_of(name: &str) -> Option<Type> {
    Some(match name {
        "pred" => Type::Pred,
        "b8" => Type::B8,
        "b16" => Type::B16,
        "b32" => Type::B32,
        "b64" => Type::B64,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "s8" => Type::S8,
        "s16" => Type::S16,
        "s32" => Type::S32,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "f16x2" => Type::F16x2,
        "bf16" => Type::Bf16,
        "bf16x2" => Type::Bf16x2,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "tf32" => Type::B32,
        "u16x2" | "s16x2" => Type::B32,
        _ => return None,
    })
}

/// A register of this type takes two rows.
pub fn is_wide(element: Type) -> bool {
    matches!(element, Type::B64 | Type::U64 | Type::S64 | Type::F64)
}

/// Finds the computation that an opcode names.
pub fn find(name: &Name<'_>, level: Level) -> Option<Operation> {
    integer::find(name, level)
        .or_else(|| float::find(name, level))
        .or_else(|| half::find(name, level))
        .or_else(|| convert::find(name, level))
        .or_else(|| logic::find(name, level))
}

/// An operation whose sources all have one type, which is the destination's too.
fn same(run: Run, class: Class, element: &str, sources: usize) -> Option<Operation> {
    let element = type_of(element)?;
    Some(Operation { run, class, destination: element, sources: vec![element; sources], word: 0 })
}

/// An operation with types of its own.
fn with(run: Run, class: Class, destination: &str, sources: &[&str]) -> Option<Operation> {
    let sources = sources.iter().map(|name| type_of(name)).collect::<Option<Vec<_>>>()?;
    Some(Operation { run, class, destination: type_of(destination)?, sources, word: 0 })
}

/// For each integer type: `ints!(name, level, L, T => expression with L and T)`; 16-bit forms are rare.
macro_rules! ints {
    (@form $L:ident, $level:expr, $T:ident, $type:ty, $body:expr) => {
        Some({
            let $L = $level;
            type $T = $type;
            $body
        })
    };
    ($name:expr, $level:expr, $L:ident, $T:ident => $body:expr) => {
        match $name {
            "u16" | "b16" => $crate::exec::operations::ints!(@form $L, $crate::exec::lanes::Rare, $T, u16, $body),
            "s16" => $crate::exec::operations::ints!(@form $L, $crate::exec::lanes::Rare, $T, i16, $body),
            "u32" | "b32" => $crate::exec::operations::ints!(@form $L, $level, $T, u32, $body),
            "s32" => $crate::exec::operations::ints!(@form $L, $level, $T, i32, $body),
            "u64" | "b64" => $crate::exec::operations::ints!(@form $L, $level, $T, u64, $body),
            "s64" => $crate::exec::operations::ints!(@form $L, $level, $T, i64, $body),
            _ => None,
        }
    };
}
use ints;
