//! Function bodies (PTX ISA 4.3): blocks, declarations, labels, instructions, made flat.

use std::collections::HashMap;

use super::ParseError;
use super::ast::{Function, Instruction, Registers, Space, Statement};
use super::constant::{integer, unsigned, unsigned32};
use super::cursor::{fail, shorten};
use super::declaration::{REGISTERS, registers, space};
use super::lexer::Kind;
use super::module::{Reader, declared, pragma};
use super::scope::{Meaning, Scopes};

/// The body of one function while it is read.
pub(super) struct Body<'a, 'r> {
    pub reader: &'r mut Reader<'a>,
    pub scopes: Scopes<'a>,
    function: &'r mut Function,
    statements: Vec<Statement>,
    /// The labels of each block, by the place of its `{`: a label is visible before it stands.
    labels: HashMap<usize, Vec<Label<'a>>>,
    /// Registers that may still be declared.
    registers: u32,
}

struct Label<'a> {
    name: &'a str,
    unique: String,
    line: u32,
}

/// Reads a body from `{` to its `}`. The function's parameters are in the open scope, which is the body's.
pub(super) fn body<'a>(
    reader: &mut Reader<'a>,
    function: &mut Function,
    scopes: Scopes<'a>,
) -> Result<(), ParseError> {
    let opened = reader.cursor.line();
    let mut body = Body {
        reader,
        scopes,
        function,
        statements: Vec::new(),
        labels: HashMap::new(),
        registers: REGISTERS,
    };
    body.find_labels();
    body.bind_labels()?;
    body.reader.cursor.expect("{")?;
    loop {
        let cursor = &mut body.reader.cursor;
        match (cursor.kind(), cursor.peek_text()) {
            (Kind::Mark, "{") => {
                body.scopes.open(cursor.line())?;
                body.bind_labels()?;
                body.reader.cursor.advance();
            }
            (Kind::Mark, "}") => {
                cursor.advance();
                if !body.scopes.close() {
                    break;
                }
            }
            (Kind::Dotted, _) => body.directive()?,
            (Kind::Word, _) if cursor.next_is(":") => body.label()?,
            (Kind::Word, _) | (Kind::Mark, "@") => body.instruction()?,
            (Kind::End, _) => {
                let detail =
                    format!("found the end of the text, expected `}}` for the `{{` in line {opened}");
                return cursor.fail(detail);
            }
            _ => return cursor.unexpected("a statement"),
        }
    }
    let statements = body.statements;
    function.body = Some(statements);
    Ok(())
}

impl<'a> Body<'a, '_> {
    /// Notes the labels of every block of the body, whose `{` is next. No other construct than a label has an
    /// identifier before a colon, except WARP_SZ in a conditional expression.
    fn find_labels(&mut self) {
        let cursor = &self.reader.cursor;
        let mut blocks = Vec::new();
        let mut place = cursor.place();
        loop {
            let token = cursor.token(place);
            match (token.kind, cursor.text(token)) {
                (Kind::End, _) => return,
                (Kind::Mark, "{") => blocks.push(place),
                (Kind::Mark, "}") => {
                    blocks.pop();
                    if blocks.is_empty() {
                        return;
                    }
                }
                (Kind::Word, name) if cursor.is_at(place + 1, ":") && name != "WARP_SZ" => {
                    let unique = self.scopes.unique(name, self.reader.names.contains_key(name));
                    let block = blocks.last().copied().unwrap_or(0);
                    self.labels.entry(block).or_default().push(Label { name, unique, line: token.line });
                }
                _ => {}
            }
            place += 1;
        }
    }

    /// Binds the labels of the block whose `{` is next in the innermost scope.
    fn bind_labels(&mut self) -> Result<(), ParseError> {
        let place = self.reader.cursor.place();
        for label in self.labels.remove(&place).unwrap_or_default() {
            self.scopes.bind(label.name, label.unique, Meaning::Label, label.line)?;
        }
        Ok(())
    }

    /// `name :`, and what may follow it only: `.branchtargets`, `.callprototype`, `.calltargets`.
    fn label(&mut self) -> Result<(), ParseError> {
        let cursor = &mut self.reader.cursor;
        let line = cursor.line();
        let name = cursor.word("a label")?;
        cursor.expect(":")?;
        let unique = match self.scopes.find(name, line)? {
            Some((unique, Meaning::Label)) => unique,
            _ => return fail(line, format!("`{}` is not a label here", shorten(name))),
        };
        match cursor.peek_text() {
            ".branchtargets" => {
                cursor.advance();
                let mut targets = Vec::new();
                loop {
                    let line = self.reader.cursor.line();
                    let name = self.reader.cursor.word("a label")?;
                    match self.scopes.find(name, line)? {
                        Some((unique, Meaning::Label)) => targets.push(unique),
                        _ => return fail(line, format!("`{}` is not a label here", shorten(name))),
                    }
                    if !self.reader.cursor.accept(",") {
                        self.statements.push(Statement::BranchTargets(unique, targets));
                        return self.reader.cursor.expect(";");
                    }
                }
            }
            // What an indirect call may reach: nothing that executing it needs.
            ".callprototype" | ".calltargets" => {
                while !cursor.is(";") {
                    if cursor.kind() == Kind::End || cursor.is("{") || cursor.is("}") {
                        return cursor.unexpected("`;`");
                    }
                    cursor.advance();
                }
                cursor.advance();
                Ok(())
            }
            _ => {
                self.statements.push(Statement::Label(unique));
                Ok(())
            }
        }
    }

    fn directive(&mut self) -> Result<(), ParseError> {
        if space(&self.reader.cursor).is_some() {
            return self.variables();
        }
        match self.reader.cursor.peek_text() {
            ".reg" => self.registers(),
            ".loc" => self.location(),
            ".pragma" => {
                self.reader.cursor.advance();
                pragma(&mut self.reader.cursor)
            }
            _ => self.reader.cursor.unexpected("a statement"),
        }
    }

    fn registers(&mut self) -> Result<(), ParseError> {
        self.reader.cursor.advance();
        for (name, declared, line) in registers(&mut self.reader.cursor)? {
            let count = declared.count.unwrap_or(1).saturating_mul(declared.vector);
            let Some(left) = self.registers.checked_sub(count) else {
                return fail(line, format!("the function declares more than {REGISTERS} registers"));
            };
            self.registers = left;
            let unique = match declared.count {
                Some(count) => self.scopes.family(name, count, declared.vector, line)?,
                None => {
                    let unique = self.scopes.unique(name, false);
                    let meaning = Meaning::Register { vector: declared.vector };
                    self.scopes.bind(name, unique.clone(), meaning, line)?;
                    unique
                }
            };
            self.function.registers.push(Registers { name: unique, ..declared });
        }
        Ok(())
    }

    /// Variables in memory. Those in .global and .const live as long as the module: they become the module's, under
    /// a name that holds the function's.
    fn variables(&mut self) -> Result<(), ParseError> {
        let reader = &mut *self.reader;
        for (name, mut variable) in declared(&mut reader.cursor, false, reader.budget, &reader.names)? {
            variable.name = self.scopes.unique(name, reader.names.contains_key(name));
            let persistent = matches!(variable.space, Space::Global | Space::Constant);
            if persistent {
                variable.name = format!("{}#{}", self.function.name, variable.name);
            }
            self.scopes.bind(name, variable.name.clone(), Meaning::Variable, variable.line)?;
            if persistent {
                reader.keep(variable);
            } else {
                self.function.variables.push(variable);
            }
        }
        Ok(())
    }

    /// `.loc 1 20 5, function_name $L__info_string0+4, inlined_at 1 23 4`: the first place is the innermost.
    fn location(&mut self) -> Result<(), ParseError> {
        let cursor = &mut self.reader.cursor;
        cursor.advance();
        let file = unsigned32(cursor, "a file's number")?;
        let line = unsigned32(cursor, "a line")?;
        unsigned(cursor, "a column")?;
        if cursor.accept(",") {
            cursor.expect("function_name")?;
            cursor.word("a label of .debug_str")?;
            if cursor.accept("+") {
                integer(cursor, "an offset")?;
            }
            cursor.expect(",")?;
            cursor.expect("inlined_at")?;
            for what in ["a file's number", "a line", "a column"] {
                unsigned(cursor, what)?;
            }
        }
        self.statements.push(Statement::Location { file, line });
        Ok(())
    }

    fn instruction(&mut self) -> Result<(), ParseError> {
        let guard = if self.reader.cursor.accept("@") { Some(self.guard()?) } else { None };
        let cursor = &mut self.reader.cursor;
        let token = cursor.peek();
        let mut opcode = cursor.word("an instruction")?.to_string();
        if !opcode.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return fail(token.line, format!("found `{}`, expected an instruction", shorten(&opcode)));
        }
        while cursor.kind() == Kind::Dotted {
            opcode.push_str(cursor.peek_text());
            cursor.advance();
        }
        let call = opcode == "call" || opcode.starts_with("call.");
        let mut operands = Vec::new();
        if !cursor.is(";") {
            loop {
                operands.push(self.operand(call)?);
                if !self.reader.cursor.accept(",") {
                    break;
                }
            }
        }
        if !self.reader.cursor.accept(";") {
            return self.reader.cursor.unexpected("`,` or `;`");
        }
        self.statements.push(Statement::Instruction(Instruction {
            guard,
            opcode,
            operands,
            line: token.line,
        }));
        Ok(())
    }

    /// `%p1` or `!%p1` after `@`.
    fn guard(&mut self) -> Result<(String, bool), ParseError> {
        let negated = self.reader.cursor.accept("!");
        let line = self.reader.cursor.line();
        let name = self.reader.cursor.word("a predicate")?;
        match self.scopes.find(name, line)? {
            Some((unique, Meaning::Register { .. })) => Ok((unique, negated)),
            _ => fail(line, format!("the guard `{}` is not a declared register", shorten(name))),
        }
    }
}
