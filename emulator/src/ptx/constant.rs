//! Numbers and constant expressions (PTX ISA 4.5).

use super::ParseError;
use super::cursor::{Cursor, fail, shorten};
use super::lexer::Kind;

/// A constant: PTX computes in .s64, .u64 and .f64; a `0f` literal keeps its bits and takes part in no arithmetic.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Value {
    Signed(i64),
    Unsigned(u64),
    Float32(u32),
    Float64(f64),
}

/// How deep the reading of an expression may recurse: three for a parenthesis, one for a sign.
const DEPTH: u32 = 512;

/// The value of WARP_SZ in an expression.
const WARP_SIZE: i64 = 32;

/// Reads a constant expression.
pub(super) fn expression(cursor: &mut Cursor) -> Result<Value, ParseError> {
    conditional(cursor, 0)
}

/// Reads a constant expression that must be an integer, as 64 bits.
pub(super) fn integer(cursor: &mut Cursor, what: &str) -> Result<i64, ParseError> {
    let line = cursor.line();
    match expression(cursor)? {
        Value::Signed(value) => Ok(value),
        Value::Unsigned(value) => Ok(value as i64),
        _ => fail(line, format!("found a floating-point constant, expected {what}, an integer")),
    }
}

/// Reads one integer literal, which is not negative.
pub(super) fn unsigned(cursor: &mut Cursor, what: &str) -> Result<u64, ParseError> {
    if cursor.kind() != Kind::Number {
        return cursor.unexpected(what);
    }
    let line = cursor.line();
    match literal(cursor)? {
        Value::Signed(value) => Ok(value as u64),
        Value::Unsigned(value) => Ok(value),
        _ => fail(line, format!("found a floating-point constant, expected {what}")),
    }
}

/// Reads one integer literal of at most 32 bits.
pub(super) fn unsigned32(cursor: &mut Cursor, what: &str) -> Result<u32, ParseError> {
    let line = cursor.line();
    let value = unsigned(cursor, what)?;
    u32::try_from(value).or_else(|_| fail(line, format!("{what} is {value}, more than 32 bits hold")))
}

/// Reads one literal.
fn literal(cursor: &mut Cursor) -> Result<Value, ParseError> {
    let text = cursor.peek_text();
    let Some(value) = number(text) else {
        return cursor.fail(format!("`{}` is no number, or one that 64 bits do not hold", shorten(text)));
    };
    cursor.advance();
    Ok(value)
}

/// The value of a literal; None where it is malformed or too large.
fn number(text: &str) -> Option<Value> {
    let (head, tail) = text.split_at_checked(2).unwrap_or((text, ""));
    let hexadecimal = |digits: usize| {
        let good = tail.len() == digits && tail.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good { u64::from_str_radix(tail, 16).ok() } else { None }
    };
    match head {
        "0f" | "0F" => return hexadecimal(8).map(|bits| Value::Float32(bits as u32)),
        "0d" | "0D" => return hexadecimal(16).map(|bits| Value::Float64(f64::from_bits(bits))),
        _ => {}
    }
    let (digits, radix) = match head {
        "0x" | "0X" => (tail, 16),
        "0b" | "0B" => (tail, 2),
        _ if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => {
            let good = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
            return if good { text.parse().ok().map(Value::Float64) } else { None };
        }
        _ if text.len() > 1 && text.starts_with('0') && head != "0U" => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    let (digits, wants_unsigned) = match digits.strip_suffix('U') {
        Some(digits) => (digits, true),
        None => (digits, false),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    Some(match i64::try_from(value) {
        Ok(value) if !wants_unsigned => Value::Signed(value),
        _ => Value::Unsigned(value),
    })
}

fn conditional(cursor: &mut Cursor, depth: u32) -> Result<Value, ParseError> {
    if depth > DEPTH {
        return cursor.fail(format!("the constant expression nests deeper than {DEPTH}"));
    }
    let line = cursor.line();
    let condition = binary(cursor, 1, depth + 1)?;
    if !cursor.accept("?") {
        return Ok(condition);
    }
    let yes = conditional(cursor, depth + 1)?;
    cursor.expect(":")?;
    let no = conditional(cursor, depth + 1)?;
    Ok(if truth(condition, line)? { yes } else { no })
}

/// How tightly a binary operator binds, 1 the least; None where the mark is no binary operator.
fn precedence(mark: &str) -> Option<u32> {
    Some(match mark {
        "||" => 1,
        "&&" => 2,
        "|" => 3,
        "^" => 4,
        "&" => 5,
        "==" | "!=" => 6,
        "<" | "<=" | ">" | ">=" => 7,
        "<<" | ">>" => 8,
        "+" | "-" => 9,
        "*" | "/" | "%" => 10,
        _ => return None,
    })
}

/// Operators that bind at least as tightly as `least`, left to right.
fn binary(cursor: &mut Cursor, least: u32, depth: u32) -> Result<Value, ParseError> {
    let mut left = unary(cursor, depth + 1)?;
    while cursor.kind() == Kind::Mark
        && let mark = cursor.peek_text()
        && let Some(binds) = precedence(mark)
        && binds >= least
    {
        let line = cursor.line();
        cursor.advance();
        let right = binary(cursor, binds + 1, depth + 1)?;
        left = apply(mark, left, right, line)?;
    }
    Ok(left)
}

fn unary(cursor: &mut Cursor, depth: u32) -> Result<Value, ParseError> {
    if depth > DEPTH {
        return cursor.fail(format!("the constant expression nests deeper than {DEPTH}"));
    }
    let line = cursor.line();
    match (cursor.kind(), cursor.peek_text()) {
        (Kind::Mark, mark @ ("-" | "+" | "~" | "!")) => {
            cursor.advance();
            let value = unary(cursor, depth + 1)?;
            match (mark, value) {
                (_, Value::Float32(_)) => fail(line, format!("`{mark}` does not apply to a 0f constant")),
                ("+", value) => Ok(value),
                ("-", Value::Signed(value)) => Ok(Value::Signed(value.wrapping_neg())),
                ("-", Value::Unsigned(value)) => Ok(Value::Unsigned(value.wrapping_neg())),
                ("-", Value::Float64(value)) => Ok(Value::Float64(-value)),
                ("~", Value::Signed(value)) => Ok(Value::Unsigned(!value as u64)),
                ("~", Value::Unsigned(value)) => Ok(Value::Unsigned(!value)),
                ("!", value) => Ok(Value::Signed(i64::from(!truth(value, line)?))),
                _ => fail(line, format!("`{mark}` does not apply to a floating-point constant")),
            }
        }
        (Kind::Mark, "(") => {
            cursor.advance();
            let cast = cursor.peek_text();
            if !matches!(cast, ".s64" | ".u64") {
                let value = conditional(cursor, depth + 1)?;
                cursor.expect(")")?;
                return Ok(value);
            }
            cursor.advance();
            cursor.expect(")")?;
            match (cast, unary(cursor, depth + 1)?) {
                (".s64", Value::Unsigned(value)) => Ok(Value::Signed(value as i64)),
                (".u64", Value::Signed(value)) => Ok(Value::Unsigned(value as u64)),
                (_, value @ (Value::Signed(_) | Value::Unsigned(_))) => Ok(value),
                _ => fail(line, format!("`({cast})` does not apply to a floating-point constant")),
            }
        }
        (Kind::Number, _) => literal(cursor),
        (Kind::Word, "WARP_SZ") => {
            cursor.advance();
            Ok(Value::Signed(WARP_SIZE))
        }
        // `.5` is a number, where `.x` is not.
        (Kind::Dotted, text) if text.bytes().skip(1).all(|byte| byte.is_ascii_digit()) => literal(cursor),
        _ => cursor.unexpected("a constant"),
    }
}

fn truth(value: Value, line: u32) -> Result<bool, ParseError> {
    match value {
        Value::Signed(value) => Ok(value != 0),
        Value::Unsigned(value) => Ok(value != 0),
        _ => fail(line, "found a floating-point constant, expected an integer as a condition"),
    }
}

/// A binary operator on constants: floating point on both sides, or integers, unsigned where either is. `%` (and `~`)
/// are unsigned always, a shift has the type of its left side.
fn apply(mark: &str, left: Value, right: Value, line: u32) -> Result<Value, ParseError> {
    match (left, right) {
        (Value::Float64(left), Value::Float64(right)) => match float(mark, left, right) {
            Some(value) => Ok(value),
            None => fail(line, format!("`{mark}` does not apply to floating-point constants")),
        },
        (Value::Signed(left), Value::Signed(right)) if mark != "%" => signed(mark, left, right, line),
        (Value::Signed(left), Value::Unsigned(right)) if matches!(mark, "<<" | ">>") => {
            signed(mark, left, right as i64, line)
        }
        (Value::Signed(left), Value::Signed(right)) => unsigned_apply(mark, left as u64, right as u64, line),
        (Value::Signed(left), Value::Unsigned(right)) => unsigned_apply(mark, left as u64, right, line),
        (Value::Unsigned(left), Value::Signed(right)) => unsigned_apply(mark, left, right as u64, line),
        (Value::Unsigned(left), Value::Unsigned(right)) => unsigned_apply(mark, left, right, line),
        _ => fail(line, format!("the two sides of `{mark}` are constants of different types")),
    }
}

fn float(mark: &str, left: f64, right: f64) -> Option<Value> {
    Some(match mark {
        "+" => Value::Float64(left + right),
        "-" => Value::Float64(left - right),
        "*" => Value::Float64(left * right),
        "/" => Value::Float64(left / right),
        "<" => Value::Signed(i64::from(left < right)),
        "<=" => Value::Signed(i64::from(left <= right)),
        ">" => Value::Signed(i64::from(left > right)),
        ">=" => Value::Signed(i64::from(left >= right)),
        "==" => Value::Signed(i64::from(left == right)),
        "!=" => Value::Signed(i64::from(left != right)),
        _ => return None,
    })
}

/// What the operators give whose bits do not depend on the sign; None for the others.
fn common(mark: &str, left: u64, right: u64) -> Option<u64> {
    Some(match mark {
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        "&" => left & right,
        "|" => left | right,
        "^" => left ^ right,
        // `ptxas` counts shifts modulo 64.
        "<<" => left.wrapping_shl(right as u32),
        _ => return None,
    })
}

/// Comparisons and logic: 0 or 1.
fn compare(mark: &str, order: std::cmp::Ordering, left: bool, right: bool) -> Option<Value> {
    let holds = match mark {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "&&" => left && right,
        "||" => left || right,
        _ => return None,
    };
    Some(Value::Signed(i64::from(holds)))
}

fn signed(mark: &str, left: i64, right: i64, line: u32) -> Result<Value, ParseError> {
    if let Some(value) = common(mark, left as u64, right as u64) {
        return Ok(Value::Signed(value as i64));
    }
    if let Some(value) = compare(mark, left.cmp(&right), left != 0, right != 0) {
        return Ok(value);
    }
    match mark {
        ">>" => Ok(Value::Signed(left.wrapping_shr(right as u32))),
        _ if right == 0 => fail(line, "the constant expression divides by zero"),
        _ => Ok(Value::Signed(left.wrapping_div(right))),
    }
}

fn unsigned_apply(mark: &str, left: u64, right: u64, line: u32) -> Result<Value, ParseError> {
    if let Some(value) = common(mark, left, right) {
        return Ok(Value::Unsigned(value));
    }
    if let Some(value) = compare(mark, left.cmp(&right), left != 0, right != 0) {
        return Ok(value);
    }
    match mark {
        ">>" => Ok(Value::Unsigned(left.wrapping_shr(right as u32))),
        _ if right == 0 => fail(line, "the constant expression divides by zero"),
        "/" => Ok(Value::Unsigned(left / right)),
        _ => Ok(Value::Unsigned(left % right)),
    }
}
