//! Module level (PTX ISA 11): directives in any order after `.version`, variables, functions.

use std::collections::HashMap;

use super::ParseError;
use super::ast::{Function, Module, Variable};
use super::constant::{unsigned, unsigned32};
use super::cursor::{Cursor, fail, shorten};
use super::declaration::{Rules, space, variables};
use super::function;
use super::lexer::Kind;

/// Bytes that the initial values of a module may take in all.
const INITIAL: u64 = 64 << 20;

/// The names of a module so far; true where it is defined, not only declared.
pub(super) type Names<'a> = HashMap<&'a str, bool>;

/// A module while it is read.
pub(super) struct Reader<'a> {
    pub cursor: Cursor<'a>,
    pub module: Module,
    pub names: Names<'a>,
    /// Bytes of initial values that are left.
    pub budget: u64,
}

/// `.extern` and its like, before a variable or function.
#[derive(Clone, Copy, Default)]
struct Linkage {
    external: bool,
}

/// Reads a whole module.
pub(super) fn parse(cursor: Cursor) -> Result<Module, ParseError> {
    let mut reader = Reader {
        cursor,
        module: Module { address_size: 64, ..Module::default() },
        names: Names::new(),
        budget: INITIAL,
    };
    reader.version()?;
    while reader.cursor.kind() != Kind::End {
        reader.directive()?;
    }
    if reader.module.target.is_empty() {
        return reader.cursor.fail("the module has no `.target`");
    }
    Ok(reader.module)
}

/// Reads `"a", "b";` of a `.pragma`.
pub(super) fn pragma(cursor: &mut Cursor) -> Result<(), ParseError> {
    loop {
        cursor.string("a string")?;
        if !cursor.accept(",") {
            return cursor.expect(";");
        }
    }
}

impl<'a> Reader<'a> {
    fn version(&mut self) -> Result<(), ParseError> {
        self.cursor.expect(".version")?;
        let text = self.cursor.peek_text();
        let Some(version) = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        else {
            return self.cursor.unexpected("a version such as `8.8`");
        };
        self.cursor.advance();
        self.module.version = version;
        Ok(())
    }

    fn directive(&mut self) -> Result<(), ParseError> {
        if self.cursor.kind() != Kind::Dotted {
            return self.cursor.unexpected("a directive");
        }
        if space(&self.cursor).is_some() {
            return self.variables(Linkage::default());
        }
        match self.cursor.peek_text() {
            ".target" => self.target(),
            ".address_size" => self.address_size(),
            ".file" => self.file(),
            ".section" => self.section(),
            ".pragma" => {
                self.cursor.advance();
                pragma(&mut self.cursor)
            }
            ".alias" => self.alias(),
            ".visible" | ".weak" | ".extern" | ".common" => self.linked(),
            ".entry" | ".func" => function::read(self, false),
            ".tex" => self.cursor.fail("`.tex` variables (textures) are not supported"),
            _ => self.cursor.unexpected("a directive of a module"),
        }
    }

    fn target(&mut self) -> Result<(), ParseError> {
        self.cursor.advance();
        loop {
            let word = self.cursor.word("a target such as `sm_80`")?;
            self.module.target.push(word.to_string());
            if !self.cursor.accept(",") {
                return Ok(());
            }
        }
    }

    fn address_size(&mut self) -> Result<(), ParseError> {
        self.cursor.advance();
        let line = self.cursor.line();
        match unsigned(&mut self.cursor, "an address size")? {
            64 => Ok(()),
            size => fail(line, format!("the address size is {size}; only 64 is supported")),
        }
    }

    /// `.file 1 "k.cu", timestamp, size`
    fn file(&mut self) -> Result<(), ParseError> {
        self.cursor.advance();
        let number = unsigned32(&mut self.cursor, "a file's number")?;
        let name = self.cursor.string("a file's name")?;
        if self.cursor.accept(",") {
            unsigned(&mut self.cursor, "a time stamp")?;
            self.cursor.expect(",")?;
            unsigned(&mut self.cursor, "a file's size")?;
        }
        self.module.files.push((number, name.to_string()));
        Ok(())
    }

    /// `.section .debug_info { ... }`: debugging data, skipped.
    fn section(&mut self) -> Result<(), ParseError> {
        let line = self.cursor.line();
        self.cursor.advance();
        if self.cursor.kind() != Kind::Dotted {
            return self.cursor.unexpected("a section's name");
        }
        self.cursor.advance();
        self.cursor.expect("{")?;
        let mut depth = 1u64;
        while depth > 0 {
            if self.cursor.kind() == Kind::End {
                return fail(line, "the section's `{` has no `}`");
            }
            if self.cursor.is("{") {
                depth += 1;
            } else if self.cursor.is("}") {
                depth -= 1;
            }
            self.cursor.advance();
        }
        Ok(())
    }

    /// `.alias name, function;`
    fn alias(&mut self) -> Result<(), ParseError> {
        self.cursor.advance();
        let alias = self.cursor.word("a function's name")?;
        self.cursor.expect(",")?;
        let function = self.cursor.word("a function's name")?;
        self.module.aliases.push((alias.to_string(), function.to_string()));
        self.cursor.expect(";")
    }

    /// A variable or function with linking directives.
    fn linked(&mut self) -> Result<(), ParseError> {
        let mut linkage = Linkage::default();
        loop {
            match self.cursor.peek_text() {
                ".extern" => linkage.external = true,
                ".visible" | ".weak" | ".common" => {}
                ".entry" | ".func" => return function::read(self, linkage.external),
                _ if space(&self.cursor).is_some() => return self.variables(linkage),
                _ => return self.cursor.unexpected("a state space, `.entry` or `.func`"),
            }
            self.cursor.advance();
        }
    }

    /// `.global .u32 a = 1, b;`, the state space next.
    fn variables(&mut self, linkage: Linkage) -> Result<(), ParseError> {
        for (name, variable) in declared(&mut self.cursor, linkage.external, self.budget, &self.names)? {
            self.name(name, !linkage.external, variable.line)?;
            self.keep(variable);
        }
        Ok(())
    }

    /// Adds a variable of the module.
    pub fn keep(&mut self, variable: Variable) {
        self.budget = self.budget.saturating_sub(variable.initial.len() as u64);
        self.module.variables.push(variable);
    }

    /// Declares or defines a name of the module; only one definition may exist.
    pub fn name(&mut self, name: &'a str, defined: bool, line: u32) -> Result<(), ParseError> {
        if name == "_" {
            return fail(line, "`_` is no name for a declaration");
        }
        let entry = self.names.entry(name).or_insert(false);
        if *entry && defined {
            return fail(line, format!("`{}` is defined twice", shorten(name)));
        }
        *entry |= defined;
        Ok(())
    }

    /// Adds a function, whose name is already declared.
    pub fn function(&mut self, function: Function) {
        self.module.functions.push(function);
    }
}

/// Reads variables in memory from their state space to their semicolon, names as written.
pub(super) fn declared<'a>(
    cursor: &mut Cursor<'a>,
    external: bool,
    budget: u64,
    names: &Names,
) -> Result<Vec<(&'a str, Variable)>, ParseError> {
    let Some(space) = space(cursor) else { return cursor.unexpected("a state space") };
    cursor.advance();
    if cursor.is("[") {
        return cursor.fail("banks of constant memory are not supported, nor has PTX had them since 2.2");
    }
    let rules = Rules { space, external, parameter: false, budget };
    let found = variables(cursor, rules, &|name| names.contains_key(name))?;
    cursor.expect(";")?;
    Ok(found)
}
