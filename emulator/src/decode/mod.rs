//! Syntax tree to program: names become slots and addresses, device functions are put in place of their calls, every
//! instruction becomes a function pointer with its operands.

mod asynchronous;
mod builder;
mod control;
mod instruction;
mod memory;
mod operand;
mod variables;
mod warp;

use crate::exec::{Image, Kernel, LoadError};
use crate::memory::DeviceMemory;
use crate::ptx::ast::Function;
use crate::ptx::{self, ast};
use builder::Builder;
use std::sync::Arc;
use variables::Globals;

/// Parses PTX, places its variables in device memory, decodes its kernels.
pub fn image(text: &str, memory: &Arc<DeviceMemory>) -> Result<Image, LoadError> {
    let module = ptx::parse(text).map_err(|error| LoadError { line: error.line, detail: error.detail })?;
    if module.address_size != 64 {
        let detail = format!("addresses of {} bits; only 64 are supported", module.address_size);
        return Err(LoadError { line: 0, detail });
    }
    let globals = Globals::place(&module, memory)?;
    let mut image = Image { memory: Arc::clone(memory), kernels: Vec::new(), globals: globals.list() };
    for function in module.functions.iter().filter(|function| function.entry && function.body.is_some()) {
        image.kernels.push(Arc::new(kernel(&module, function, &globals)?));
    }
    Ok(image)
}

fn kernel(module: &ast::Module, function: &Function, globals: &Globals) -> Result<Kernel, LoadError> {
    let parameters = variables::layout(&function.parameters).ok_or_else(|| LoadError {
        line: function.line,
        detail: format!("the parameters of {} take more than 32 KiB", function.name),
    })?;
    let builder = Builder::new(module, globals);
    let (program, static_shared, registers) = builder.build(function, &parameters)?;
    let target = module.target.first().map_or("", String::as_str);
    let digits: String = target.chars().filter(char::is_ascii_digit).collect();
    let product = |sides: [u32; 3]| sides.iter().fold(1u32, |all, side| all.saturating_mul(*side));
    let max_threads = function.required_threads.or(function.max_threads).map_or(1024, product).clamp(1, 1024);
    Ok(Kernel {
        name: function.name.clone(),
        parameters,
        constants: globals.constants(),
        constant_bytes: globals.constant_bytes(),
        static_shared,
        max_threads,
        required_threads: function.required_threads,
        registers,
        version: module.version,
        target: digits.parse().unwrap_or(0),
        program,
    })
}
