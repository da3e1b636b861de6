//! Runs a case on the emulator.

use super::case::{Argument, Case, Contents};
use super::nvrtc;
use emulator::exec::{Image, Launch, Options, Outcome, launch};
use emulator::memory::DeviceMemory;
use std::sync::Arc;

/// Device memory of a run: address space, of which pages are used when touched.
const CAPACITY: u64 = 256 << 20;

/// What a run left.
pub struct Run {
    /// Counters, and a report where a check found something.
    pub outcome: Outcome,
    /// The buffers' bytes; empty for buffers that were freed.
    pub buffers: Vec<Vec<u8>>,
}

/// Orders that a launch must not depend on: blocks and warps in order or shuffled, asynchronous copies early or late, one
/// thread or two.
pub fn every_order() -> Vec<Options> {
    let mut orders = Vec::new();
    for seed in [None, Some(1), Some(2), Some(77)] {
        for late_copies in [false, true] {
            for workers in [1, 2] {
                orders.push(Options { seed, late_copies, workers, ..Options::default() });
            }
        }
    }
    orders
}

impl Case {
    /// What failures call the case.
    pub fn name(&self) -> String {
        format!("{} {} [{}]", self.file, self.entry, self.shape)
    }

    /// The kernel's PTX.
    pub fn ptx(&self) -> Arc<str> {
        nvrtc::ptx(&self.source, self.file, &self.options)
    }

    /// Puts the case into fresh device memory, launches it and reads everything back.
    pub fn run(&self, options: &Options) -> Run {
        let ready = Ready::new(self);
        let outcome = ready.launch(options);
        Run { outcome, buffers: ready.read() }
    }

    /// Says what is wrong with the results, if anything is.
    pub fn check(&self, run: &Run) -> Result<(), String> {
        if let Some(report) = &run.outcome.report {
            return Err(format!("report: {report}"));
        }
        for (buffer, bytes) in self.buffers.iter().zip(&run.buffers) {
            buffer.expected.check(bytes).map_err(|wrong| format!("{}: {wrong}", buffer.name))?;
        }
        Ok(())
    }
}

/// A case in device memory, ready to be launched.
pub struct Ready<'a> {
    case: &'a Case,
    memory: Arc<DeviceMemory>,
    image: Image,
    addresses: Vec<u64>,
    parameters: Vec<u8>,
}

impl<'a> Ready<'a> {
    /// Compiles, loads, allocates and writes.
    pub fn new(case: &'a Case) -> Ready<'a> {
        let memory = Arc::new(DeviceMemory::new(CAPACITY).unwrap());
        let image = Image::load(&case.ptx(), &memory)
            .unwrap_or_else(|error| panic!("{}: PTX line {}: {}", case.name(), error.line, error.detail));
        let addresses: Vec<u64> = case
            .buffers
            .iter()
            .map(|buffer| {
                let address = memory.allocate(buffer.contents.size() as u64).unwrap();
                memory.set_tag(address, buffer.name).unwrap();
                address
            })
            .collect();
        for (name, bytes) in &case.variables {
            let (address, size) = image.global(name).unwrap_or_else(|| panic!("no variable {name}"));
            assert!(bytes.len() as u64 <= size, "{name} is too small");
            memory.write(address, bytes).unwrap();
        }
        let kernel = image.kernel(case.entry).unwrap_or_else(|| panic!("no kernel {}", case.entry));
        let mut parameters = vec![0; kernel.parameter_bytes()];
        assert_eq!(kernel.parameters().len(), case.arguments.len(), "{}: number of arguments", case.name());
        for (argument, &(offset, size)) in case.arguments.iter().zip(kernel.parameters()) {
            let bytes = match argument {
                Argument::Buffer(index) => addresses[*index].to_le_bytes().to_vec(),
                Argument::Value(bytes) => bytes.clone(),
            };
            assert_eq!(bytes.len(), size, "{}: size of the argument at {offset}", case.name());
            parameters[offset..offset + size].copy_from_slice(&bytes);
        }
        let ready = Ready { case, memory, image, addresses, parameters };
        ready.write();
        for (buffer, &address) in case.buffers.iter().zip(&ready.addresses) {
            if buffer.freed {
                ready.memory.free(address).unwrap();
            }
        }
        ready
    }

    /// Gives the buffers their contents.
    pub fn write(&self) {
        for (buffer, &address) in self.case.buffers.iter().zip(&self.addresses) {
            match &buffer.contents {
                Contents::Bytes(bytes) => self.memory.write(address, bytes).unwrap(),
                Contents::Pieces(_, pieces) => {
                    for (offset, bytes) in pieces {
                        self.memory.write(address + *offset as u64, bytes).unwrap();
                    }
                }
            }
            for &(offset, other, there) in &buffer.pointers {
                let pointer = (self.addresses[other] + there).to_le_bytes();
                self.memory.write(address + offset as u64, &pointer).unwrap();
            }
        }
    }

    /// Launches.
    pub fn launch(&self, options: &Options) -> Outcome {
        let kernel = self.image.kernel(self.case.entry).unwrap();
        let description = Launch {
            kernel,
            grid: self.case.grid,
            block: self.case.block,
            dynamic_shared: self.case.dynamic_shared,
            parameters: &self.parameters,
        };
        launch(&self.memory, &description, options)
    }

    /// Reads the buffers back.
    pub fn read(&self) -> Vec<Vec<u8>> {
        let buffers = self.case.buffers.iter().zip(&self.addresses);
        buffers
            .map(|(buffer, &address)| {
                let mut bytes = vec![0; if buffer.freed { 0 } else { buffer.contents.size() }];
                if !buffer.freed {
                    self.memory.read(address, &mut bytes).unwrap();
                }
                // Addresses differ from run to run.
                for &(offset, ..) in &buffer.pointers {
                    bytes[offset..offset + 8].fill(0);
                }
                bytes
            })
            .collect()
    }
}
