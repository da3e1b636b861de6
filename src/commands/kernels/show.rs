//! `pretext kernels show`: a kernel's source, PTX, resources and machine code.

use super::sass::Disassembler;
use super::{all, resources};
use crate::cli::KernelsShow;
use crate::output::Output;
use engine::cuda::{Kernel, compile, nvrtc::Code};
use engine::{Error, ErrorKind, Result};
use serde_json::json;

/// Runs the command.
pub fn run(args: &KernelsShow, output: &Output) -> Result<()> {
    let kernel = find(&args.entry)?;
    let wanted = |part: &str| args.part.as_deref().is_none_or(|only| only == part);
    let show = |part: &str, text: &str| {
        output.event(&json!({
            "event": "kernel", "entry": kernel.entry, "arch": args.arch, "part": part, "text": text,
        }));
        match args.part {
            Some(_) => output.result(text.trim_end()),
            None => output.result(&format!("== {part} of {}\n{}\n", kernel.entry, text.trim_end())),
        }
    };
    if wanted("source") {
        show("source", kernel.module.source);
    }
    if wanted("ptx") {
        let compiled = compile::cached(kernel.module, &format!("compute_{}", args.arch))?;
        if let Code::Ptx(text) = &compiled.code {
            show("ptx", entry_of(text, kernel.entry).unwrap_or(text));
        }
    }
    if !wanted("resources") && !wanted("sass") {
        return Ok(());
    }
    let compiled = compile::cached(kernel.module, &format!("sm_{}", args.arch))?;
    if let Some(used) = resources::parse(&compiled.log).get(kernel.entry).filter(|_| wanted("resources")) {
        show(
            "resources",
            &format!(
                "{} registers, {} bytes spilled, {} bytes read back, {} bytes of stack, {} bytes of static shared \
                 memory",
                used.registers, used.spill_stores, used.spill_loads, used.stack, used.shared
            ),
        );
    }
    if let Code::Cubin(bytes) = &compiled.code
        && wanted("sass")
    {
        match Disassembler::find() {
            Ok(found) => {
                let functions = found.disassemble(bytes)?;
                show("sass", functions.get(kernel.entry).map_or("", String::as_str));
            }
            // It was asked for by name.
            Err(error) if args.part.is_some() => return Err(error),
            Err(error) => output.say(&format!("no machine code: {}", error.message())),
        }
    }
    Ok(())
}

/// The kernel with this entry.
fn find(entry: &str) -> Result<&'static Kernel> {
    if let Some((_, kernel)) = all().find(|(_, kernel)| kernel.entry == entry) {
        return Ok(kernel);
    }
    let near: Vec<&str> =
        all().map(|(_, kernel)| kernel.entry).filter(|other| other.contains(entry)).take(8).collect();
    let hint = match near.is_empty() {
        true => "pretext kernels list shows all".to_string(),
        false => format!("there are {}", near.join(", ")),
    };
    Err(Error::new(ErrorKind::Usage, "kernels show", format!("'{entry}' is no kernel's entry: {hint}")))
}

/// The part of PTX that is the entry: from its directive to the brace that closes it.
fn entry_of<'a>(ptx: &'a str, entry: &str) -> Option<&'a str> {
    let name = ptx.find(&format!(".entry {entry}("))?;
    let start = ptx[..name].rfind('\n').map_or(0, |at| at + 1);
    let end = ptx[name..].find("\n}").map_or(ptx.len(), |at| name + at + 2);
    Some(&ptx[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_cut_out_of_its_module() {
        let ptx = ".version 8.8\n\n.visible .entry a(\n)\n{\n{\n\tret;\n}\n}\n.visible .entry ab(\n)\n{\n\texit;\n}\n";
        assert_eq!(entry_of(ptx, "ab"), Some(".visible .entry ab(\n)\n{\n\texit;\n}"));
        assert!(entry_of(ptx, "a").unwrap().starts_with(".visible .entry a(\n"));
        assert_eq!(entry_of(ptx, "b"), None);
    }

    #[test]
    fn a_wrong_entry_is_answered_with_what_is_near() {
        let error = find("elementwise_add_f").err().unwrap();
        assert!(error.message().contains("elementwise_add_f32"), "{error}");
        assert!(find("nothing").err().unwrap().message().contains("kernels list"));
    }
}
