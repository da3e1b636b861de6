//! Operands of instructions (PTX ISA 6).

use super::ParseError;
use super::ast::{Base, Operand};
use super::constant::{Value, expression, integer};
use super::cursor::{fail, shorten};
use super::lexer::Kind;
use super::scope::Meaning;
use super::special;
use super::statement::Body;

impl<'a> Body<'a, '_> {
    /// Reads one operand; only a call has lists in parentheses.
    pub fn operand(&mut self, call: bool) -> Result<Operand, ParseError> {
        let cursor = &mut self.reader.cursor;
        match (cursor.kind(), cursor.peek_text()) {
            (Kind::Mark, "{") => Ok(Operand::Vector(self.elements("}")?)),
            (Kind::Mark, "(") if call => Ok(Operand::List(self.elements(")")?)),
            (Kind::Mark, "[") => self.address(),
            _ => {
                let first = self.simple()?;
                if !self.reader.cursor.accept("|") {
                    return Ok(first);
                }
                Ok(Operand::Pair(Box::new(first), Box::new(self.simple()?)))
            }
        }
    }

    /// `{a, b}` or `(a, b)`, the opening mark next.
    fn elements(&mut self, close: &str) -> Result<Vec<Operand>, ParseError> {
        self.reader.cursor.advance();
        let mut elements = Vec::new();
        if self.reader.cursor.accept(close) {
            return Ok(elements);
        }
        loop {
            elements.push(self.simple()?);
            if !self.reader.cursor.accept(",") {
                break;
            }
        }
        if !self.reader.cursor.accept(close) {
            return self.reader.cursor.unexpected(&format!("`,` or `{close}`"));
        }
        Ok(elements)
    }

    /// A register, symbol, constant or `_`, perhaps with a sign.
    fn simple(&mut self) -> Result<Operand, ParseError> {
        let cursor = &mut self.reader.cursor;
        // After a sign, a name makes an operand; a number makes an expression.
        let next = cursor.token(cursor.place() + 1);
        let signed_name = next.kind == Kind::Word && cursor.text(next) != "WARP_SZ";
        match (cursor.kind(), cursor.peek_text()) {
            (Kind::Mark, "!") if signed_name => {
                cursor.advance();
                Ok(Operand::Not(Box::new(self.named(false)?)))
            }
            (Kind::Mark, "-") if signed_name => {
                cursor.advance();
                Ok(Operand::Negated(Box::new(self.named(false)?)))
            }
            (Kind::Word, "_") => {
                cursor.advance();
                Ok(Operand::Sink)
            }
            (Kind::Word, "WARP_SZ") if matches!(cursor.text(next), "," | ";" | ")" | "}" | "]") => {
                cursor.advance();
                Ok(Operand::Special("WARP_SZ".into()))
            }
            (Kind::Word, name) if name != "WARP_SZ" => self.named(true),
            (Kind::Number | Kind::Word | Kind::Dotted, _) | (Kind::Mark, "(" | "-" | "+" | "~" | "!") => {
                Ok(match expression(cursor)? {
                    Value::Signed(value) => Operand::Integer(value),
                    Value::Unsigned(value) => Operand::Integer(value as i64),
                    Value::Float32(bits) => Operand::Float32(bits),
                    Value::Float64(value) => Operand::Float64(value.to_bits()),
                })
            }
            _ => cursor.unexpected("an operand"),
        }
    }

    /// What a name stands for: a register, an element of one, a special register, or a symbol (`addend`: with `+ 8`).
    fn named(&mut self, addend: bool) -> Result<Operand, ParseError> {
        let cursor = &mut self.reader.cursor;
        let line = cursor.line();
        let name = cursor.word("an operand")?;
        let found = self.scopes.find(name, line)?;
        if let Some((unique, Meaning::Register { vector })) = found {
            return self.component(name, unique, vector);
        }
        if found.is_none() && special::is_special(name) {
            return self.special(name);
        }
        let symbol = match found {
            Some((unique, _)) => unique,
            None => self.outer(name, line)?,
        };
        let cursor = &mut self.reader.cursor;
        if cursor.is("[") {
            return cursor
                .fail(format!("subscripts are not supported: write `{}+offset` in bytes", shorten(name)));
        }
        let offset = if addend && cursor.accept("+") { integer(cursor, "a byte offset")? } else { 0 };
        Ok(Operand::Symbol(symbol, offset))
    }

    /// A name that the function does not declare: the module's.
    fn outer(&mut self, name: &'a str, line: u32) -> Result<String, ParseError> {
        if name.starts_with('%') {
            return fail(line, format!("`{}` is neither declared nor a special register", shorten(name)));
        }
        if !self.reader.names.contains_key(name) && !self.scopes.use_outer(name) {
            let name = shorten(name);
            return fail(
                line,
                format!("`{name}` is not visible here: it is declared in another block, or later"),
            );
        }
        Ok(name.to_string())
    }

    /// A register, or `.x` of a vector register.
    fn component(&mut self, name: &str, unique: String, vector: u32) -> Result<Operand, ParseError> {
        let register = Operand::Register(unique);
        let cursor = &mut self.reader.cursor;
        if cursor.kind() != Kind::Dotted {
            return Ok(register);
        }
        let dotted = cursor.peek_text();
        match special::component(dotted) {
            Some(index) if vector > 1 && index < vector => {
                cursor.advance();
                Ok(Operand::Element(Box::new(register), index))
            }
            _ if matches!(dotted, ".b0" | ".b1" | ".b2" | ".b3" | ".h0" | ".h1") => cursor
                .fail(format!("parts of registers such as `{}{dotted}` are not supported", shorten(name))),
            _ => cursor.fail(format!("register `{}` has no element `{}`", shorten(name), shorten(dotted))),
        }
    }

    /// `%tid.x`, `%laneid`
    fn special(&mut self, name: &str) -> Result<Operand, ParseError> {
        let cursor = &mut self.reader.cursor;
        if cursor.kind() != Kind::Dotted {
            return Ok(Operand::Special(name.to_string()));
        }
        let dotted = cursor.peek_text();
        let component = special::component(dotted).filter(|_| special::is_vector(name));
        let Some(letter) = component.and_then(|index| ["x", "y", "z", "w"].get(index as usize)) else {
            return cursor.fail(format!("special register `{name}` has no element `{}`", shorten(dotted)));
        };
        cursor.advance();
        Ok(Operand::Special(format!("{name}.{letter}")))
    }

    /// `[%rd1+-8]`, `[symbol+4]`, `[16]`, `[%map, {%r1, %r2}]`
    fn address(&mut self) -> Result<Operand, ParseError> {
        let cursor = &mut self.reader.cursor;
        cursor.advance();
        let line = cursor.line();
        let (mut base, mut offset) = (Base::None, 0);
        if cursor.kind() == Kind::Word && !cursor.is("WARP_SZ") {
            let name = cursor.peek_text();
            base = match self.named(false)? {
                Operand::Register(register) => Base::Register(register),
                Operand::Symbol(symbol, _) => Base::Symbol(symbol),
                _ => return fail(line, format!("`{}` cannot be the base of an address", shorten(name))),
            };
            if self.reader.cursor.accept("+") {
                offset = integer(&mut self.reader.cursor, "a byte offset")?;
            }
        } else {
            offset = integer(cursor, "an address")?;
        }
        let mut tensor = Vec::new();
        if self.reader.cursor.accept(",") {
            tensor = if self.reader.cursor.is("{") { self.elements("}")? } else { vec![self.simple()?] };
        }
        if self.reader.cursor.is("-") {
            return self.reader.cursor.fail("found `-`, expected `]`: PTX writes a negative offset as `+-8`");
        }
        if !self.reader.cursor.accept("]") {
            return self.reader.cursor.unexpected("`+`, `,` or `]`");
        }
        Ok(Operand::Address { base, offset, tensor })
    }
}
