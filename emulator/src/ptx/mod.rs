//! PTX text to a syntax tree. Knows the grammar (PTX ISA 8.8), not what instructions mean.
//!
//! [`parse`] reads the text once into tokens (`lexer`), then module directives (`module`), function headers
//! (`function`) and bodies (`statement`, `operand`). `declaration` and `initialiser` read variables, `constant`
//! evaluates constant expressions, `scope` gives every name of a function a unique one.
//!
//! Work is linear in the text, nesting uses explicit stacks or a depth limit, sizes are checked: no text makes the
//! parser overflow its stack, hang or panic. What `ptxas` refuses as a syntax error is refused here too.

use std::fmt;

pub mod ast;

mod constant;
mod cursor;
mod declaration;
mod function;
mod initialiser;
mod lexer;
mod module;
mod operand;
mod scope;
mod special;
mod statement;

/// Why a text is not a PTX module that the emulator can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What was found and what was expected.
    pub detail: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.detail)
    }
}

impl std::error::Error for ParseError {}

/// Parses a PTX module.
///
/// Names in the result are unique in their function: where an inner scope declares a name again, the later one gets
/// a suffix with `#`, which no PTX identifier contains. An operand that names nothing declared in the function is
/// an [`ast::Operand::Symbol`]: a function or module variable, which this does not check.
pub fn parse(source: &str) -> Result<ast::Module, ParseError> {
    module::parse(cursor::Cursor::new(source)?)
}
