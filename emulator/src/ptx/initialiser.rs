//! Initial values of variables (PTX ISA 5.4.4), as bytes and places for addresses.

use super::ParseError;
use super::ast::Type;
use super::constant::{Value, expression, integer};
use super::cursor::{Cursor, fail};
use super::declaration::bytes;
use super::lexer::Kind;

/// What an initialiser says.
#[derive(Default)]
pub(super) struct Initial {
    /// The bytes, little endian, zeros where the initialiser says nothing.
    pub bytes: Vec<u8>,
    /// Byte offset, symbol, addend, generic().
    pub addresses: Vec<(u64, String, i64, bool)>,
}

/// Reads `5` or `{{1, 2}, {3}}`. `extents` are the array's dimensions; a first one of 0 takes as many as there are.
/// With `vector` the last one counts the elements of a vector, which must all be given. At most `budget` bytes.
///
/// A list that is shorter than its dimension must be the last: what follows another one, `ptxas` puts next to it,
/// where the manual has zeros between.
pub(super) fn initialiser(
    cursor: &mut Cursor,
    element: Type,
    extents: &[u64],
    vector: bool,
    budget: u64,
    known: &dyn Fn(&str) -> bool,
) -> Result<Initial, ParseError> {
    let single = bytes(element);
    // The bytes of one item of the outermost list.
    let outer = extents.iter().skip(1).fold(single, |size, &extent| size.saturating_mul(extent));
    let fixed = outer.saturating_mul(extents.first().copied().unwrap_or(1));
    let exceeded = format!("the initial values of a module take more than the {budget} bytes left");
    if fixed.max(outer) > budget {
        return cursor.fail(exceeded);
    }

    let mut initial = Initial { bytes: vec![0; usize::try_from(fixed).unwrap_or(0)], addresses: Vec::new() };
    // The items of each open brace, the current one included.
    let mut open: Vec<u64> = Vec::new();
    let mut offset = 0u64;
    let mut short = false;
    loop {
        if cursor.kind() == Kind::Text {
            return cursor.fail(
                "strings as initial values are not supported, nor are they PTX: write an array of .b8",
            );
        }
        if open.len() < extents.len() {
            cursor.expect("{")?;
            let empty = cursor.is("}");
            open.push(u64::from(!empty));
            if !empty {
                continue;
            }
        } else {
            if short {
                return cursor
                    .fail("a list of initial values that is not the last is shorter than its dimension");
            }
            leaf(cursor, element, offset, &mut initial, known)?;
            offset = offset.saturating_add(single);
        }
        // An item is complete, or a brace is empty: go to the next item, or out of braces.
        loop {
            let level = open.len();
            let Some(items) = open.last_mut() else { return Ok(initial) };
            let extent = extents.get(level - 1).copied().unwrap_or(0);
            if cursor.is("}") {
                if vector && level == extents.len() && *items != extent {
                    return cursor
                        .fail(format!("found {items} initial values, expected a vector of {extent}"));
                }
                if extent == 0 {
                    let size = items.saturating_mul(outer);
                    initial.bytes.resize(usize::try_from(size).unwrap_or(0), 0);
                }
                short |= *items < extent;
                open.pop();
                cursor.advance();
                continue;
            }
            if *items == 0 {
                return cursor.unexpected("`}`");
            }
            if !cursor.accept(",") {
                return cursor.unexpected("`,` or `}`");
            }
            *items += 1;
            if extent != 0 && *items > extent {
                return cursor.fail(format!("more than {extent} initial values in braces for {extent}"));
            }
            if items.saturating_mul(outer) > budget && extent == 0 {
                return cursor.fail(exceeded);
            }
            break;
        }
    }
}

/// One value, written at `offset`.
fn leaf(
    cursor: &mut Cursor,
    element: Type,
    offset: u64,
    initial: &mut Initial,
    known: &dyn Fn(&str) -> bool,
) -> Result<(), ParseError> {
    let line = cursor.line();
    if cursor.kind() == Kind::Number && cursor.next_is("(") {
        return cursor.fail("masks such as `0xFF(symbol)` in initial values are not supported");
    }
    let value = if cursor.kind() == Kind::Word && !cursor.is("WARP_SZ") {
        let (symbol, addend, generic) = address(cursor)?;
        if !known(&symbol) {
            return fail(line, format!("the initial value `{symbol}` names nothing declared before"));
        }
        if !matches!(element, Type::B64 | Type::U64 | Type::S64) {
            return fail(
                line,
                format!("the address of `{symbol}` as initial value needs an element of 64 bits"),
            );
        }
        initial.addresses.push((offset, symbol, addend, generic));
        [0; 8]
    } else {
        encode(expression(cursor)?, element, line)?
    };
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes(element) as usize);
    if initial.bytes.len() < end {
        initial.bytes.resize(end, 0);
    }
    for (to, from) in initial.bytes.iter_mut().skip(start).zip(value).take(end - start) {
        *to = from;
    }
    Ok(())
}

/// `symbol`, `symbol+4`, `generic(symbol)`, `generic(symbol+4)`, `generic(symbol)+4`.
fn address(cursor: &mut Cursor) -> Result<(String, i64, bool), ParseError> {
    let generic = cursor.is("generic") && cursor.next_is("(");
    if generic {
        cursor.advance();
        cursor.advance();
    }
    let symbol = cursor.word("a symbol")?.to_string();
    let mut addend = addition(cursor)?;
    if generic {
        cursor.expect(")")?;
        addend = addend.wrapping_add(addition(cursor)?);
    }
    Ok((symbol, addend, generic))
}

/// `+ 4` or nothing.
fn addition(cursor: &mut Cursor) -> Result<i64, ParseError> {
    if cursor.accept("+") { integer(cursor, "a byte offset") } else { Ok(0) }
}

/// A constant's bytes in an element's type; the first `bytes(element)` count.
fn encode(value: Value, element: Type, line: u32) -> Result<[u8; 8], ParseError> {
    use Type::{B8, B16, B32, B64, F32, F64, S8, S16, S32, S64, U8, U16, U32, U64};
    let bits = match (element, value) {
        (B8 | B16 | B32 | B64 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64, Value::Signed(value)) => {
            value as u64
        }
        (B8 | B16 | B32 | B64 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64, Value::Unsigned(value)) => value,
        (B32 | F32, Value::Float32(bits)) => u64::from(bits),
        (B32 | F32, Value::Float64(value)) => u64::from((value as f32).to_bits()),
        (B64 | F64, Value::Float64(value)) => value.to_bits(),
        (_, Value::Signed(_) | Value::Unsigned(_)) => {
            return fail(line, format!("an integer cannot be the initial value of type {element:?}"));
        }
        _ => {
            return fail(
                line,
                format!("a floating-point constant cannot be the initial value of type {element:?}"),
            );
        }
    };
    Ok(bits.to_le_bytes())
}
