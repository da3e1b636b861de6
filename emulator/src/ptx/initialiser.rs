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

/// An open brace: where its first item starts, and how many items it has, the current one included.
struct Brace {
    start: u64,
    items: u64,
}

/// Reads `5` or `{{1, 2}, {3}}`. `extents` are the array's dimensions, the vector's last; a first one of 0 takes as
/// many as there are. At most `budget` bytes.
pub(super) fn initialiser(
    cursor: &mut Cursor,
    element: Type,
    extents: &[u64],
    budget: u64,
    known: &dyn Fn(&str) -> bool,
) -> Result<Initial, ParseError> {
    let single = bytes(element);
    // strides[n]: the bytes of one item inside n + 1 braces. The caller knows that the product fits.
    let mut strides: Vec<u64> = extents
        .iter()
        .rev()
        .scan(single, |size, &extent| {
            let stride = *size;
            *size = size.saturating_mul(extent);
            Some(stride)
        })
        .collect();
    strides.reverse();
    let outer = strides.first().copied().unwrap_or(single);
    let fixed = outer.saturating_mul(extents.first().copied().unwrap_or(1));
    let exceeded = format!("the initial values of a module take more than the {budget} bytes left");
    if fixed.max(outer) > budget {
        return cursor.fail(exceeded);
    }

    let mut initial = Initial { bytes: vec![0; usize::try_from(fixed).unwrap_or(0)], addresses: Vec::new() };
    let mut open: Vec<Brace> = Vec::new();
    let mut offset = 0;
    loop {
        if open.len() < extents.len() {
            cursor.expect("{")?;
            let empty = cursor.is("}");
            open.push(Brace { start: offset, items: u64::from(!empty) });
            if !empty {
                continue;
            }
        } else {
            leaf(cursor, element, offset, &mut initial, known)?;
        }
        // An item is complete, or a brace is empty: go to the next item, or out of braces.
        loop {
            let level = open.len();
            let Some(brace) = open.last_mut() else { return Ok(initial) };
            let extent = extents.get(level - 1).copied().unwrap_or(0);
            if cursor.accept("}") {
                if extent == 0 {
                    let size = brace.items.saturating_mul(outer);
                    initial.bytes.resize(usize::try_from(size).unwrap_or(0), 0);
                }
                open.pop();
                continue;
            }
            if brace.items == 0 {
                return cursor.unexpected("`}`");
            }
            cursor.expect(",")?;
            if extent != 0 && brace.items >= extent {
                return cursor.fail(format!("more than {extent} initial values in braces for {extent}"));
            }
            let stride = strides.get(level - 1).copied().unwrap_or(single);
            offset = brace.start.saturating_add(brace.items.saturating_mul(stride));
            brace.items += 1;
            if offset.saturating_add(stride) > budget {
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
    if cursor.kind() == Kind::Text {
        return cursor.fail("strings as initial values are not supported; PTX has arrays of .b8");
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
        (F32, Value::Float64(value)) => u64::from((value as f32).to_bits()),
        (B64 | F64, Value::Float64(value)) => value.to_bits(),
        (F64, Value::Float32(bits)) => f64::from(f32::from_bits(bits)).to_bits(),
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
