//! Where variables lie: globals and constants in device memory, parameters in their buffer, shared variables in the
//! block's memory with gaps between them.

use crate::exec::LoadError;
use crate::exec::context::SHARED_START;
use crate::memory::{DeviceMemory, MemoryError};
use crate::ptx::ast::{Module, Space, Type, Variable};
use std::collections::HashMap;

/// Bytes of an element of a type.
pub fn size_of(element: Type) -> u64 {
    match element {
        Type::Pred | Type::B8 | Type::U8 | Type::S8 => 1,
        Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 2,
        Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
        Type::B128 => 16,
        _ => 4,
    }
}

/// Offset and size of each parameter; None where they take more than 32 KiB (the limit of CUDA 12).
pub fn layout(parameters: &[Variable]) -> Option<Vec<(usize, usize)>> {
    let mut end = 0usize;
    let mut places = Vec::new();
    for parameter in parameters {
        let start = end.next_multiple_of(parameter.align.max(1) as usize);
        let size = usize::try_from(parameter.size).ok()?;
        end = start.checked_add(size).filter(|end| *end <= 32 * 1024)?;
        places.push((start, size));
    }
    Some(places)
}

/// The module's variables in device memory.
#[derive(Debug)]
pub struct Globals {
    places: HashMap<String, (u64, u64, Space)>,
}

impl Globals {
    /// Allocates and initialises them.
    pub fn place(module: &Module, memory: &DeviceMemory) -> Result<Globals, LoadError> {
        let mut places = HashMap::new();
        let placed = module.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Constant));
        let undo = |places: &HashMap<String, (u64, u64, Space)>| {
            for (address, _, _) in places.values() {
                // Just allocated here, so the free succeeds.
                let _ = memory.free(*address);
            }
        };
        for variable in placed.clone() {
            let fail = |error: MemoryError| LoadError {
                line: variable.line,
                detail: format!("variable {}: {error}", variable.name),
            };
            if variable.external {
                undo(&places);
                let detail = format!(
                    "variable {} is defined in another module; linking is not supported",
                    variable.name
                );
                return Err(LoadError { line: variable.line, detail });
            }
            let result = memory.allocate(variable.size.max(1)).and_then(|address| {
                memory.set_tag(address, &variable.name)?;
                memory.fill(address, &[0], variable.size)?;
                memory.write(address, &variable.initial)?;
                Ok(address)
            });
            match result {
                Ok(address) => places.insert(variable.name.clone(), (address, variable.size, variable.space)),
                Err(error) => {
                    undo(&places);
                    return Err(fail(error));
                }
            };
        }
        for variable in placed {
            let Some(&(address, size, _)) = places.get(&variable.name) else { continue };
            for (offset, symbol, addend, _) in &variable.addresses {
                let target = places.get(symbol).map(|(target, _, _)| target.wrapping_add(*addend as u64));
                let written = target
                    .filter(|_| offset + 8 <= size)
                    .is_some_and(|target| memory.write(address + offset, &target.to_le_bytes()).is_ok());
                if !written {
                    undo(&places);
                    let detail =
                        format!("the initialiser of {} names {symbol}, which is no variable", variable.name);
                    return Err(LoadError { line: variable.line, detail });
                }
            }
        }
        Ok(Globals { places })
    }

    /// Address and space of a variable.
    pub fn find(&self, name: &str) -> Option<(u64, Space)> {
        self.places.get(name).map(|(address, _, space)| (*address, *space))
    }

    /// Name, address and size of all.
    pub fn list(&self) -> Vec<(String, u64, u64)> {
        self.places.iter().map(|(name, (address, size, _))| (name.clone(), *address, *size)).collect()
    }

    /// Address and size of the `.const` ones.
    pub fn constants(&self) -> Vec<(u64, u64)> {
        let constants = self.places.values().filter(|(_, _, space)| *space == Space::Constant);
        constants.map(|(address, size, _)| (*address, *size)).collect()
    }

    /// Bytes of the `.const` ones.
    pub fn constant_bytes(&self) -> u32 {
        self.constants().iter().map(|(_, size)| *size as u32).sum()
    }
}

/// Places shared variables. Each gets a gap behind it, so that an access beyond its end is found; the gaps are whole
/// rows of banks, so that bank conflicts are those of variables packed one behind the other.
#[derive(Debug)]
pub struct SharedLayout {
    packed: u64,
    gaps: u64,
    /// (offset, size) so far.
    pub places: Vec<(u32, u32)>,
}

const GAP: u64 = 128;

impl SharedLayout {
    /// Nothing placed.
    pub fn new() -> SharedLayout {
        SharedLayout { packed: u64::from(SHARED_START), gaps: 0, places: Vec::new() }
    }

    /// Places a variable; None: it does not fit in 32 bits.
    pub fn place(&mut self, align: u32, size: u64) -> Option<u32> {
        let align = u64::from(align.max(1));
        self.gaps = self.gaps.next_multiple_of(align.max(GAP));
        self.packed = self.packed.next_multiple_of(align);
        let offset = u32::try_from(self.packed + self.gaps).ok()?;
        self.packed = self.packed.checked_add(size)?;
        self.gaps += GAP;
        self.places.push((offset, u32::try_from(size).ok()?));
        (self.packed + self.gaps < 1 << 30).then_some(offset)
    }

    /// Bytes that a device would need.
    pub fn bytes(&self) -> u32 {
        (self.packed - u64::from(SHARED_START)) as u32
    }
}
