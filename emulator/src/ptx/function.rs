//! Function headers (PTX ISA 11.1, 11.4): linkage, parameters, performance directives.

use super::ParseError;
use super::ast::{Function, Registers, Space};
use super::constant::{unsigned, unsigned32};
use super::cursor::{Cursor, shorten};
use super::declaration::{function_attributes, parameters};
use super::lexer::Kind;
use super::module::{Reader, pragma};
use super::scope::{Meaning, Scopes};
use super::statement;

/// Reads a function from `.entry` or `.func` to the end of its body, or to the `;` of a declaration.
pub(super) fn read(reader: &mut Reader, external: bool) -> Result<(), ParseError> {
    let cursor = &mut reader.cursor;
    let entry = cursor.is(".entry");
    cursor.advance();
    function_attributes(cursor)?;
    let returns = if !entry && cursor.is("(") { parameters(cursor)? } else { Vec::new() };
    let line = cursor.line();
    let name = cursor.word("a function's name")?;
    let arguments = if cursor.is("(") { parameters(cursor)? } else { Vec::new() };
    let mut function = Function {
        name: name.to_string(),
        entry,
        external,
        returns: Vec::new(),
        parameters: Vec::new(),
        max_threads: None,
        required_threads: None,
        max_registers: None,
        min_blocks: None,
        cluster: None,
        registers: Vec::new(),
        variables: Vec::new(),
        body: None,
        line,
    };
    performance(cursor, &mut function)?;
    let defined = cursor.is("{");
    reader.name(name, defined, line)?;

    let mut scopes = Scopes::default();
    scopes.open(line)?;
    let counts = [returns.len(), arguments.len()];
    for (name, mut parameter) in returns.into_iter().chain(arguments) {
        if defined {
            parameter.name = scopes.unique(name, false);
            let meaning = match parameter.space {
                Space::Register => Meaning::Register { vector: 1 },
                _ => Meaning::Variable,
            };
            scopes.bind(name, parameter.name.clone(), meaning, parameter.line)?;
            if parameter.space == Space::Register {
                let (name, element) = (parameter.name.clone(), parameter.element);
                function.registers.push(Registers { name, element, count: None, vector: 1 });
            }
        }
        if function.returns.len() < counts[0] {
            function.returns.push(parameter);
        } else {
            function.parameters.push(parameter);
        }
    }
    if defined {
        statement::body(reader, &mut function, scopes)?;
    } else {
        reader.cursor.expect(";")?;
    }
    reader.function(function);
    Ok(())
}

/// Directives between the parameters and the body.
fn performance(cursor: &mut Cursor, function: &mut Function) -> Result<(), ParseError> {
    while cursor.kind() == Kind::Dotted {
        let directive = cursor.peek_text();
        let line = cursor.line();
        cursor.advance();
        match directive {
            ".maxntid" => function.max_threads = Some(extents(cursor)?),
            ".reqntid" => function.required_threads = Some(extents(cursor)?),
            ".reqnctapercluster" => function.cluster = Some(extents(cursor)?),
            ".minnctapersm" => function.min_blocks = Some(unsigned32(cursor, "a number of blocks")?),
            ".maxnreg" => function.max_registers = Some(unsigned32(cursor, "a number of registers")?),
            // Promises to the compiler: they do not change what a kernel does.
            ".maxnctapersm" | ".maxclusterrank" | ".abi_preserve" | ".abi_preserve_control" => {
                unsigned(cursor, "a number")?;
            }
            ".noreturn" | ".explicitcluster" | ".blocksareclusters" => {}
            ".pragma" => pragma(cursor)?,
            _ => {
                let detail =
                    format!("found `{}`, expected a function's directive, `{{` or `;`", shorten(directive));
                return Err(ParseError { line, detail });
            }
        }
    }
    Ok(())
}

/// `128`, `16, 8` or `4, 4, 4`; missing dimensions are 1.
fn extents(cursor: &mut Cursor) -> Result<[u32; 3], ParseError> {
    let mut extents = [1; 3];
    for (index, extent) in extents.iter_mut().enumerate() {
        if index > 0 && !cursor.accept(",") {
            break;
        }
        *extent = unsigned32(cursor, "a number")?;
    }
    Ok(extents)
}
