//! Operands to slots.

use super::builder::Builder;
use crate::exec::LoadError;
use crate::exec::operations::is_wide;
use crate::program::{NONE, Special};
use crate::ptx::ast::{Base, Operand, Space, Type};

/// Where a variable lies: an address in its state space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which state space.
    pub space: Space,
    /// Offset, or device address.
    pub address: u64,
}

/// An address operand: register (or [`NONE`]), whether it has 32 bits, offset, and the space of a named variable.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Slot of the register, or [`NONE`].
    pub slot: u32,
    /// The register has 32 bits.
    pub narrow: bool,
    /// Byte offset.
    pub offset: i64,
    /// Space of the variable, where one is named.
    pub space: Option<Space>,
}

impl Builder<'_> {
    /// Where a variable lies.
    pub fn place(&self, name: &str) -> Option<Place> {
        if let Some(place) = self.scope.places.get(name) {
            return Some(*place);
        }
        self.shared_place(name)
            .or_else(|| self.globals.find(name).map(|(address, space)| Place { space, address }))
    }

    /// The slot of a source of the given type.
    pub fn source(&mut self, operand: &Operand, element: Type) -> Result<u32, LoadError> {
        let wide = is_wide(element);
        match operand {
            Operand::Register(name) => {
                let Some(&register) = self.scope.registers.get(name) else {
                    return self.error(format!("{name} is not declared"));
                };
                if register.element == Type::Pred {
                    return self.error(format!("{name} is a predicate, where a value is needed"));
                }
                if wide != is_wide(register.element) {
                    return self.error(format!(
                        "{name} is {:?}, the instruction takes {element:?}",
                        register.element
                    ));
                }
                Ok(register.slot)
            }
            Operand::Integer(value) => {
                let value = match element {
                    Type::F32 => u64::from((*value as f32).to_bits()),
                    Type::F64 => (*value as f64).to_bits(),
                    Type::B16 | Type::U16 | Type::S16 => *value as u64 & 0xFFFF,
                    _ => *value as u64,
                };
                self.constant(value, wide)
            }
            Operand::Float32(bits) => match element {
                Type::F64 => self.constant(f64::from(f32::from_bits(*bits)).to_bits(), true),
                _ => self.constant(u64::from(*bits), wide),
            },
            Operand::Float64(bits) => match element {
                Type::F32 => self.constant(u64::from((f64::from_bits(*bits) as f32).to_bits()), false),
                _ => self.constant(*bits, wide),
            },
            Operand::Special(name) => {
                if name == "WARP_SZ" {
                    return self.constant(32, wide);
                }
                let Some(special) = special(name) else {
                    return self.error(format!("the special register {name} is not supported"));
                };
                let slot = self.special(special)?;
                if wide { self.widened(slot) } else { Ok(slot) }
            }
            Operand::Symbol(name, offset) => match self.place(name) {
                Some(place) => self.constant(place.address.wrapping_add(*offset as u64), wide),
                None => self.error(format!("{name} is no variable of this module")),
            },
            other => self.error(format!("{other:?} cannot stand here")),
        }
    }

    /// A 64-bit copy of a 32-bit special register, made where it is used.
    fn widened(&mut self, slot: u32) -> Result<u32, LoadError> {
        let wide = self.rows(2)?;
        let run = crate::exec::lanes::unary(self.level, |a: u32| u64::from(a));
        self.push(crate::program::Instruction {
            run,
            class: crate::program::Class::Integer,
            d: wide,
            a: slot,
            ..crate::program::Instruction::NOTHING
        });
        Ok(wide)
    }

    /// The slot of a destination; `_` is a register that nobody reads.
    pub fn destination(&mut self, operand: &Operand, element: Type) -> Result<u32, LoadError> {
        match operand {
            Operand::Sink => self.rows(2),
            Operand::Register(_) => self.source(operand, element),
            other => self.error(format!("{other:?} cannot be written")),
        }
    }

    /// Number of a predicate, and whether it is negated.
    pub fn predicate(&mut self, operand: &Operand) -> Result<(u32, bool), LoadError> {
        match operand {
            Operand::Register(name) => match self.scope.registers.get(name) {
                Some(register) if register.element == Type::Pred => Ok((register.slot, false)),
                _ => self.error(format!("{name} is no predicate")),
            },
            Operand::Not(inner) => self.predicate(inner).map(|(slot, negated)| (slot, !negated)),
            // A constant predicate: predicate 0 is never written, so it is false.
            Operand::Integer(value) => Ok((0, *value != 0)),
            other => self.error(format!("{other:?} is no predicate")),
        }
    }

    /// Number of a predicate that is written; [`NONE`] for `_`.
    pub fn written_predicate(&mut self, operand: &Operand) -> Result<u32, LoadError> {
        match operand {
            Operand::Sink => Ok(NONE),
            Operand::Register(_) => self.predicate(operand).map(|(slot, _)| slot),
            other => self.error(format!("{other:?} cannot be written")),
        }
    }

    /// Width of a register operand, by its declaration.
    pub fn declared_wide(&self, operand: &Operand) -> Option<bool> {
        match operand {
            Operand::Register(name) => {
                self.scope.registers.get(name).map(|register| is_wide(register.element))
            }
            _ => None,
        }
    }

    /// An address.
    pub fn address(&mut self, operand: &Operand) -> Result<Address, LoadError> {
        let Operand::Address { base, offset, tensor } = operand else {
            return self.error(format!("{operand:?} is no address"));
        };
        if !tensor.is_empty() {
            return self.error("tensor coordinates cannot stand here");
        }
        let offset = *offset;
        match base {
            Base::None => Ok(Address { slot: NONE, narrow: false, offset, space: None }),
            Base::Register(name) => {
                let Some(&register) = self.scope.registers.get(name) else {
                    return self.error(format!("{name} is not declared"));
                };
                let narrow = !is_wide(register.element);
                Ok(Address { slot: register.slot, narrow, offset, space: None })
            }
            Base::Symbol(name) => match self.place(name) {
                Some(place) => {
                    let offset = offset.wrapping_add(place.address as i64);
                    Ok(Address { slot: NONE, narrow: false, offset, space: Some(place.space) })
                }
                None => self.error(format!("{name} is no variable of this module")),
            },
        }
    }

    /// The operand at a position.
    pub fn operand<'o>(&self, operands: &'o [Operand], index: usize) -> Result<&'o Operand, LoadError> {
        match operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.error(format!("operand {} is missing", index + 1)),
        }
    }

    /// The parts of a vector operand, or the operand alone.
    pub fn parts<'o>(&self, operand: &'o Operand) -> Vec<&'o Operand> {
        match operand {
            Operand::Vector(parts) => parts.iter().collect(),
            other => vec![other],
        }
    }
}

/// Special registers that do not change while a thread runs.
fn special(name: &str) -> Option<Special> {
    let axis = |axis: &str| match axis {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, component)) = name.split_once('.') {
        return match (base, axis(component)) {
            ("%tid", Some(axis)) => Some(Special::Tid(axis)),
            ("%ntid", Some(axis)) => Some(Special::Ntid(axis)),
            ("%ctaid" | "%clusterid", Some(axis)) => Some(Special::Ctaid(axis)),
            ("%nctaid" | "%nclusterid", Some(axis)) => Some(Special::Nctaid(axis)),
            ("%cluster_ctaid", Some(_)) => Some(Special::Zero),
            ("%cluster_nctaid", Some(_)) => Some(Special::One),
            _ => None,
        };
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NumWarps,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NumSms,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%dynamic_smem_size" => Special::DynamicSharedSize,
        "%total_smem_size" | "%aggr_smem_size" => Special::TotalSharedSize,
        "%cluster_ctarank" | "%is_explicit_cluster" => Special::Zero,
        "%cluster_nctarank" => Special::One,
        _ => return None,
    })
}
