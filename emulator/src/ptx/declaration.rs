//! Declarations of registers, variables and parameters (PTX ISA 5): types, vectors, arrays, alignment, sizes.

use super::ParseError;
use super::ast::{Registers, Space, Type, Variable};
use super::constant::{unsigned, unsigned32};
use super::cursor::{Cursor, fail};
use super::initialiser::{Initial, initialiser};
use super::lexer::Kind;

/// The largest variable, in bytes. More than any device has.
const LARGEST: u64 = 1 << 40;

/// The most dimensions of an array.
const DIMENSIONS: usize = 16;

/// Registers in one declaration, and in one function.
pub(super) const REGISTERS: u32 = 1 << 20;

/// What a declaration may have, by the place where it stands.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub space: Space,
    /// `.extern`
    pub external: bool,
    /// A function's parameter: one name, may be `.ptr`.
    pub parameter: bool,
    /// How many bytes its initialiser may still make.
    pub budget: u64,
}

/// The fundamental type of a name such as `.f32`.
fn fundamental(dotted: &str) -> Option<Type> {
    Some(match dotted {
        ".pred" => Type::Pred,
        ".b8" => Type::B8,
        ".b16" => Type::B16,
        ".b32" => Type::B32,
        ".b64" => Type::B64,
        ".b128" => Type::B128,
        ".u8" => Type::U8,
        ".u16" => Type::U16,
        ".u32" => Type::U32,
        ".u64" => Type::U64,
        ".s8" => Type::S8,
        ".s16" => Type::S16,
        ".s32" => Type::S32,
        ".s64" => Type::S64,
        ".f16" => Type::F16,
        ".f16x2" => Type::F16x2,
        ".bf16" => Type::Bf16,
        ".bf16x2" => Type::Bf16x2,
        ".f32" => Type::F32,
        ".f64" => Type::F64,
        _ => return None,
    })
}

/// The size of an element in bytes. Predicates have no place in memory.
pub(super) fn bytes(element: Type) -> u64 {
    match element {
        Type::Pred | Type::B8 | Type::U8 | Type::S8 => 1,
        Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 2,
        Type::B32 | Type::U32 | Type::S32 | Type::F16x2 | Type::Bf16x2 | Type::F32 => 4,
        Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
        Type::B128 => 16,
    }
}

fn element(cursor: &mut Cursor) -> Result<Type, ParseError> {
    let text = cursor.peek_text();
    if let Some(element) = fundamental(text) {
        cursor.advance();
        return Ok(element);
    }
    if matches!(text, ".texref" | ".samplerref" | ".surfref") {
        return cursor.fail(format!("`{text}` variables (textures, samplers, surfaces) are not supported"));
    }
    cursor.unexpected("a type such as `.b32`")
}

/// `.v2`, `.v4` or nothing.
fn vector(cursor: &mut Cursor) -> u64 {
    if cursor.accept(".v2") {
        2
    } else if cursor.accept(".v4") {
        4
    } else {
        1
    }
}

/// The number after `.align`.
fn align(cursor: &mut Cursor) -> Result<u32, ParseError> {
    let line = cursor.line();
    let align = unsigned32(cursor, "an alignment")?;
    if align.is_power_of_two() {
        Ok(align)
    } else {
        fail(line, format!("alignment {align} is no power of two"))
    }
}

/// `(.managed)` or `(.unified(a, b))` after `.attribute`: where the bytes lie is one memory here.
fn attributes(cursor: &mut Cursor) -> Result<(), ParseError> {
    cursor.expect("(")?;
    loop {
        if cursor.accept(".unified") {
            cursor.expect("(")?;
            unsigned(cursor, "a number")?;
            cursor.expect(",")?;
            unsigned(cursor, "a number")?;
            cursor.expect(")")?;
        } else if !cursor.accept(".managed") {
            return cursor.unexpected("`.managed` or `.unified`");
        }
        if !cursor.accept(",") {
            return cursor.expect(")");
        }
    }
}

/// Skips a function's `.attribute(...)`.
pub(super) fn function_attributes(cursor: &mut Cursor) -> Result<(), ParseError> {
    while cursor.accept(".attribute") {
        attributes(cursor)?;
    }
    Ok(())
}

/// What stands before a variable's name.
struct Prefix {
    align: Option<u32>,
    vector: u64,
    element: Type,
}

fn prefix(cursor: &mut Cursor, parameter: bool) -> Result<Prefix, ParseError> {
    let mut explicit = None;
    loop {
        if cursor.accept(".align") {
            explicit = Some(align(cursor)?);
        } else if cursor.accept(".attribute") {
            attributes(cursor)?;
        } else {
            break;
        }
    }
    let vector = vector(cursor);
    let element = element(cursor)?;
    if parameter && cursor.accept(".ptr") {
        // The space and alignment of what is pointed to are promises that nothing here needs.
        if matches!(cursor.peek_text(), ".const" | ".global" | ".local" | ".shared" | ".param") {
            cursor.advance();
        }
        if cursor.accept(".align") {
            align(cursor)?;
        }
    } else if parameter && cursor.accept(".align") {
        explicit = Some(align(cursor)?);
    }
    Ok(Prefix { align: explicit, vector, element })
}

/// `[4][2]` after a name. A first dimension `[]` is 0.
fn dimensions(cursor: &mut Cursor) -> Result<Vec<u64>, ParseError> {
    let mut dimensions = Vec::new();
    while cursor.accept("[") {
        if dimensions.len() >= DIMENSIONS {
            return cursor.fail(format!("the array has more than {DIMENSIONS} dimensions"));
        }
        if dimensions.is_empty() && cursor.accept("]") {
            dimensions.push(0);
            continue;
        }
        let line = cursor.line();
        let size = unsigned(cursor, "an array size")?;
        if size == 0 {
            return fail(line, "the array size is 0");
        }
        dimensions.push(size);
        cursor.expect("]")?;
    }
    Ok(dimensions)
}

/// Reads `.align 4 .b8 a[16] = {...}, b;` after the state space, up to and without what follows (`;`, `,` or `)`).
/// Names are as written; `known` says which symbols an initialiser may name.
pub(super) fn variables<'a>(
    cursor: &mut Cursor<'a>,
    mut rules: Rules,
    known: &dyn Fn(&str) -> bool,
) -> Result<Vec<(&'a str, Variable)>, ParseError> {
    let line = cursor.line();
    let prefix = prefix(cursor, rules.parameter)?;
    if prefix.element == Type::Pred && rules.space != Space::Register {
        return fail(line, "a predicate cannot be a variable in memory");
    }
    let mut found = Vec::new();
    loop {
        let (name, variable) = variable(cursor, &prefix, rules, known)?;
        rules.budget = rules.budget.saturating_sub(variable.initial.len() as u64);
        found.push((name, variable));
        if rules.parameter || !cursor.accept(",") {
            return Ok(found);
        }
    }
}

fn variable<'a>(
    cursor: &mut Cursor<'a>,
    prefix: &Prefix,
    rules: Rules,
    known: &dyn Fn(&str) -> bool,
) -> Result<(&'a str, Variable), ParseError> {
    let line = cursor.line();
    let name = cursor.word("a variable's name")?;
    let mut extents = dimensions(cursor)?;
    let open = extents.first() == Some(&0);
    if prefix.vector > 1 {
        extents.push(prefix.vector);
    }
    let single = bytes(prefix.element);
    let Some(mut size) = total(&extents, single).filter(|&size| size <= LARGEST) else {
        return fail(line, format!("`{name}` is larger than {LARGEST} bytes"));
    };
    let mut initial = Initial::default();
    if cursor.is("=") {
        if rules.external || rules.parameter || !matches!(rules.space, Space::Global | Space::Constant) {
            return cursor
                .fail(format!("`{name}` cannot have an initial value: only .global and .const can"));
        }
        cursor.advance();
        initial = initialiser(cursor, prefix.element, &extents, prefix.vector > 1, rules.budget, known)?;
        size = initial.bytes.len() as u64;
        if size == 0 {
            return fail(line, format!("`{name}[]` has no size: its initial value is empty"));
        }
    } else if open && !rules.external && !rules.parameter {
        return fail(
            line,
            format!("`{name}[]` has no size: only .extern and initialised variables may leave it out"),
        );
    }
    let natural = u32::try_from(single * prefix.vector).unwrap_or(u32::MAX);
    let variable = Variable {
        space: rules.space,
        align: prefix.align.unwrap_or(natural),
        element: prefix.element,
        name: name.to_string(),
        size,
        external: rules.external,
        initial: initial.bytes,
        addresses: initial.addresses,
        line,
    };
    Ok((name, variable))
}

/// The bytes of an array; 0 where its first dimension is open, None where 64 bits do not hold the number.
fn total(extents: &[u64], single: u64) -> Option<u64> {
    extents.iter().try_fold(single, |size, &extent| size.checked_mul(extent))
}

/// Reads `.v4 .f32 q, %f<8>;` after `.reg`, the semicolon included. Names are as written, with their lines.
pub(super) fn registers<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<(&'a str, Registers, u32)>, ParseError> {
    let vector = vector(cursor) as u32;
    let element = element(cursor)?;
    let mut found = Vec::new();
    loop {
        let line = cursor.line();
        let name = cursor.word("a register's name")?;
        let mut count = None;
        if cursor.accept("<") {
            let number = unsigned(cursor, "a number of registers")?;
            match u32::try_from(number).ok().filter(|&number| number <= REGISTERS) {
                Some(number) => count = Some(number),
                None => return fail(line, format!("`{name}<{number}>`: more than {REGISTERS} registers")),
            }
            cursor.expect(">")?;
        }
        found.push((name, Registers { name: name.to_string(), element, count, vector }, line));
        if !cursor.accept(",") {
            cursor.expect(";")?;
            return Ok(found);
        }
    }
}

/// Reads a parenthesised list of parameters, the opening parenthesis next. A `.reg` parameter is a `Variable` in
/// the space `Register`.
pub(super) fn parameters<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<(&'a str, Variable)>, ParseError> {
    cursor.expect("(")?;
    let mut found = Vec::new();
    if cursor.accept(")") {
        return Ok(found);
    }
    loop {
        let space = match cursor.peek_text() {
            ".param" => Space::Parameter,
            ".reg" => Space::Register,
            _ => return cursor.unexpected("`.param`"),
        };
        cursor.advance();
        let rules = Rules { space, external: false, parameter: true, budget: 0 };
        found.extend(variables(cursor, rules, &|_| false)?);
        if !cursor.accept(",") {
            cursor.expect(")")?;
            return Ok(found);
        }
    }
}

/// The state space of a directive that declares a variable in memory.
pub(super) fn space(cursor: &Cursor) -> Option<Space> {
    match (cursor.kind(), cursor.peek_text()) {
        (Kind::Dotted, ".global") => Some(Space::Global),
        (Kind::Dotted, ".const") => Some(Space::Constant),
        (Kind::Dotted, ".shared") => Some(Space::Shared),
        (Kind::Dotted, ".local") => Some(Space::Local),
        (Kind::Dotted, ".param") => Some(Space::Parameter),
        _ => None,
    }
}
