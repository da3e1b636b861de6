//! What the assembler says of each kernel of a module: read from the log of a compilation with `--ptxas-options=-v`.

use std::collections::BTreeMap;

/// What a kernel uses, in registers a thread and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of registers written to local memory for want of room, over the whole code.
    pub spill_stores: u32,
    /// Bytes read back.
    pub spill_loads: u32,
    /// Bytes of a thread's stack frame: local arrays and spills.
    pub stack: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
    /// Bytes of constant memory, parameters included; for some architectures the assembler does not say it.
    pub constant: Option<u32>,
}

/// The resources of every entry in a log. Functions that are not entries are passed over.
pub fn parse(log: &str) -> BTreeMap<String, Resources> {
    let mut all = BTreeMap::new();
    let mut entry: Option<String> = None;
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().map(String::from);
            continue;
        }
        if let Some(name) = line.split("Function properties for ").nth(1) {
            // A function that was not inlined has lines of its own.
            entry = entry.filter(|entry| entry == name.trim());
            continue;
        }
        let Some(name) = &entry else { continue };
        let resources: &mut Resources = all.entry(name.clone()).or_default();
        if line.contains("bytes stack frame") {
            resources.stack = before(line, "bytes stack frame");
            resources.spill_stores = before(line, "bytes spill stores");
            resources.spill_loads = before(line, "bytes spill loads");
        } else if line.contains("registers") {
            resources.registers = before(line, "registers");
            resources.shared = before(line, "bytes smem");
            let parts = line.split(", ").filter(|part| part.contains("bytes cmem"));
            let banks: Vec<u32> = parts.map(|part| before(part, "bytes cmem")).collect();
            resources.constant = (!banks.is_empty()).then(|| banks.iter().sum());
        }
    }
    all
}

/// The number in front of `what`; 0 where it is not there.
fn before(line: &str, what: &str) -> u32 {
    let head = line.find(what).map(|at| &line[..at]);
    head.and_then(|head| head.split_whitespace().next_back()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_become_numbers() {
        let log = "ptxas info    : 4 bytes gmem\n\
            ptxas info    : Compiling entry function 'a_f32' for 'sm_80'\n\
            ptxas info    : Function properties for a_f32\n\
            ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 128 bytes smem, \
            392 bytes cmem[0], 8 bytes cmem[2]\n\
            ptxas info    : Compile time = 20.664 ms\n\
            ptxas info    : Compiling entry function 'b_f32' for 'sm_80'\n\
            ptxas info    : Function properties for b_f32\n\
            ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 25 registers, used 0 barriers\n\
            ptxas info    : Function properties for helper\n\
            ptxas         .     99 bytes stack frame, 99 bytes spill stores, 99 bytes spill loads\n";
        let all = parse(log);
        let a = Resources {
            registers: 40,
            spill_stores: 8,
            spill_loads: 12,
            stack: 16,
            shared: 128,
            constant: Some(400),
        };
        assert_eq!(all["a_f32"], a);
        assert_eq!(all["b_f32"], Resources { registers: 25, ..Resources::default() });
        assert_eq!(all.len(), 2);
    }
}
