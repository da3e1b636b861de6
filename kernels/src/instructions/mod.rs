//! Single instructions as a device executes them: what the kernels stand on, and the oracle of the emulated device.
//!
//! [`vectors`] are operands for every instruction that kernels of this project use beside ordinary arithmetic: tensor-core
//! products, matrix loads, approximations, conversions, and the functions that the compiler expands. [`run`] executes one on a
//! device. `pretext kernels record` keeps what hardware gave; compared with it ([`compare`]), the emulated device must give the
//! same bits, and for approximations, whose bits no manual states, a result within the error that the manual allows
//! ([`Exactness`]). Without a recording, [`check`](check::check) holds every device against float64.

pub(crate) mod check;
pub(crate) mod cuda;
mod operands;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use engine::{Error, Result};

pub use cuda::run;
pub use operands::vectors;

/// How equal two devices' results must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exactness {
    /// Bit for bit; any NaN is equal to any other.
    Bits,
    /// Each within so much of the exact value, relative to it or absolutely, whichever is more; so twice as much of each other.
    Within {
        /// Of the exact value.
        relative: f64,
        /// In the result's units.
        absolute: f64,
        /// Operands of larger magnitude are outside what the manual states.
        largest: f32,
    },
}

/// An instruction's operands, as words.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// The instruction, as file and kernel call it.
    pub name: &'static str,
    /// Names, shapes and words of the operands, in the kernel's order.
    pub operands: Vec<(&'static str, Vec<usize>, Vec<u32>)>,
    /// Shape of the result.
    pub result: Vec<usize>,
    /// What results must be.
    pub exactness: Exactness,
}

impl Vector {
    /// An error that says where and how `found` and `recorded` differ more than they may.
    pub fn compare(&self, found: &[u32], recorded: &[u32]) -> Result<()> {
        if found.len() != recorded.len() {
            let text = format!("{} has {} results, recorded are {}", self.name, found.len(), recorded.len());
            return Err(Error::shape("instructions", text));
        }
        let mut wrong = 0;
        let mut first = None;
        for (i, (&a, &b)) in found.iter().zip(recorded).enumerate() {
            if !self.near(i, a, b) {
                wrong += 1;
                first.get_or_insert((i, a, b));
            }
        }
        let Some((i, a, b)) = first else { return Ok(()) };
        let operand = self.operand(i).map(|x| format!(" of {x:e}")).unwrap_or_default();
        let text = format!(
            "{}: {wrong} of {} results differ, the first at {i}{operand}: {a:#010x} ({:e}) where {b:#010x} ({:e}) was recorded",
            self.name,
            found.len(),
            f32::from_bits(a),
            f32::from_bits(b)
        );
        Err(Error::value("instructions", text))
    }

    /// The number that result `i` is a function of, where it is one of a single number.
    fn operand(&self, i: usize) -> Option<f32> {
        match &self.operands[..] {
            [(_, _, words)] => words.get(i).map(|&word| f32::from_bits(word)),
            _ => None,
        }
    }

    fn near(&self, i: usize, a: u32, b: u32) -> bool {
        let [x, y] = [a, b].map(f32::from_bits);
        if a == b || (x.is_nan() && y.is_nan()) {
            return true;
        }
        match self.exactness {
            Exactness::Bits => false,
            Exactness::Within { relative, absolute, largest } => {
                if self.operand(i).is_some_and(|v| v.abs() > largest) {
                    return true;
                }
                let [x, y] = [x, y].map(f64::from);
                // Equal infinities and zeros of both signs were equal above or differ by nothing.
                (x - y).abs() <= 2.0 * (relative * x.abs().max(y.abs())).max(absolute)
            }
        }
    }
}
