//! What is queued, captured and put into graphs: launches, copies, fills and host functions, and how each is done.

use super::error::{
    CUDA_ERROR_ASSERT, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_MISALIGNED_ADDRESS,
};
use super::extension::counters_line;
use super::state::HostCall;
use super::{CUresult, Handle};
use crate::exec::{self, Image, Kernel};
use crate::memory::{DeviceMemory, MemoryError};
use crate::report::{Kind, Report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A kernel launch with its parameters' bytes.
pub(super) struct KernelLaunch {
    pub function: Handle,
    /// Keeps the module's variables alive while the launch is queued.
    pub _image: Arc<Image>,
    pub kernel: Arc<Kernel>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub parameters: Box<[u8]>,
}

/// One end of a copy.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Device(u64),
    /// Host memory; page-locked, or the program keeps it alive.
    Host(usize),
    /// Bytes taken when the copy was asked for, rows packed.
    Staged(Arc<[u8]>),
}

/// One end of a copy and how its rows lie.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub place: Place,
    /// Bytes from row to row and from slice to slice.
    pub pitch: u64,
    pub slice: u64,
}

/// A copy of `depth` slices of `height` rows of `width` bytes.
#[derive(Clone, Debug)]
pub(super) struct CopyTask {
    pub name: &'static str,
    pub to: Side,
    pub from: Side,
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

/// `height` rows of `width` elements, all of one value.
#[derive(Clone, Debug)]
pub(super) struct FillTask {
    pub name: &'static str,
    pub address: u64,
    pub pitch: u64,
    pub value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub element: usize,
    pub width: u64,
    pub height: u64,
}

/// What a stream or graph can be asked to do.
#[derive(Clone)]
pub(super) enum Task {
    Launch(Arc<KernelLaunch>),
    Copy(Arc<CopyTask>),
    Fill(Arc<FillTask>),
    Host(HostCall),
}

/// Why the context is lost.
pub(super) struct Fault {
    pub code: CUresult,
    pub text: String,
}

impl Side {
    pub fn linear(place: Place) -> Side {
        Side { place, pitch: 0, slice: 0 }
    }

    /// Bytes from the first to the last of `height` x `depth` rows, last included; None beyond the address space.
    pub fn extent(&self, width: u64, height: u64, depth: u64) -> Option<u64> {
        let rows = height.saturating_sub(1).checked_mul(self.pitch)?;
        let slices = depth.saturating_sub(1).checked_mul(self.slice)?;
        rows.checked_add(slices)?.checked_add(width)
    }

    /// No gaps between rows of `width` bytes.
    fn dense(&self, width: u64, height: u64, depth: u64) -> bool {
        (height <= 1 || self.pitch == width) && (depth <= 1 || self.slice == width * height)
    }

    fn offset(&self, row: u64, slice: u64) -> u64 {
        row * self.pitch + slice * self.slice
    }
}

impl CopyTask {
    /// The copy's source as it is now, packed.
    pub fn stage(&self, memory: &DeviceMemory) -> Result<Place, MemoryError> {
        let mut bytes = vec![0u8; (self.width * self.height * self.depth) as usize];
        let packed = CopyTask {
            to: Side {
                place: Place::Host(bytes.as_mut_ptr() as usize),
                pitch: self.width,
                slice: self.width * self.height,
            },
            ..self.clone()
        };
        packed.run(memory)?;
        Ok(Place::Staged(bytes.into()))
    }

    /// Copies.
    pub fn run(&self, memory: &DeviceMemory) -> Result<(), MemoryError> {
        let (width, height, depth) = (self.width, self.height, self.depth);
        if self.to.dense(width, height, depth) && self.from.dense(width, height, depth) {
            return self.row(memory, 0, 0, width * height * depth);
        }
        for slice in 0..depth {
            for row in 0..height {
                self.row(memory, self.to.offset(row, slice), self.from.offset(row, slice), width)?;
            }
        }
        Ok(())
    }

    fn row(&self, memory: &DeviceMemory, to: u64, from: u64, size: u64) -> Result<(), MemoryError> {
        let (Ok(bytes), Ok(to_offset), Ok(from_offset)) =
            (usize::try_from(size), usize::try_from(to), usize::try_from(from))
        else {
            return Err(MemoryError::Invalid { detail: "a copy beyond the address space".to_owned() });
        };
        match (&self.to.place, &self.from.place) {
            (Place::Device(target), Place::Device(source)) => memory.copy(target + to, source + from, size),
            (Place::Device(target), Place::Host(source)) => {
                // SAFETY: the caller of the copy vouches for the host range until the stream has passed it.
                let source =
                    unsafe { std::slice::from_raw_parts((source + from_offset) as *const u8, bytes) };
                memory.write(target + to, source)
            }
            (Place::Device(target), Place::Staged(source)) => {
                match source.get(from_offset..from_offset + bytes) {
                    Some(source) => memory.write(target + to, source),
                    None => Err(MemoryError::Invalid { detail: "a staged copy is too short".to_owned() }),
                }
            }
            (Place::Host(target), Place::Device(source)) => {
                // SAFETY: as above.
                let target =
                    unsafe { std::slice::from_raw_parts_mut((target + to_offset) as *mut u8, bytes) };
                memory.read(source + from, target)
            }
            (Place::Host(target), Place::Host(source)) => {
                let source = (source + from_offset) as *const u8;
                // SAFETY: as above; the ranges may overlap, which `copy_to` allows.
                unsafe { source.copy_to((target + to_offset) as *mut u8, bytes) };
                Ok(())
            }
            (Place::Host(target), Place::Staged(source)) => {
                match source.get(from_offset..from_offset + bytes) {
                    Some(source) => {
                        // SAFETY: as above; the staged bytes are the driver's own.
                        unsafe { source.as_ptr().copy_to((target + to_offset) as *mut u8, bytes) };
                        Ok(())
                    }
                    None => Err(MemoryError::Invalid { detail: "a staged copy is too short".to_owned() }),
                }
            }
            (Place::Staged(_), _) => Err(MemoryError::Invalid { detail: "a copy to nowhere".to_owned() }),
        }
    }
}

impl FillTask {
    /// Fills.
    pub fn run(&self, memory: &DeviceMemory) -> Result<(), MemoryError> {
        let value = self.value.to_le_bytes();
        let element = &value[..self.element];
        let row = self.width * self.element as u64;
        if self.height <= 1 || self.pitch == row {
            return memory.fill(self.address, element, self.width * self.height);
        }
        (0..self.height).try_for_each(|y| memory.fill(self.address + y * self.pitch, element, self.width))
    }
}

impl Task {
    /// Does it, and returns the line of the counters where it was a launch. Host functions are the caller's to run.
    pub fn run(&self, memory: &Arc<DeviceMemory>, options: &exec::Options) -> Result<Option<String>, Fault> {
        let moved = |name: &str, result: Result<(), MemoryError>| match result {
            Ok(()) => Ok(None),
            Err(error) => Err(Fault {
                code: CUDA_ERROR_ILLEGAL_ADDRESS,
                text: format!("illegal address in {name}: {error}"),
            }),
        };
        match self {
            Task::Launch(launch) => launch.run(memory, options),
            Task::Copy(copy) => moved(copy.name, copy.run(memory)),
            Task::Fill(fill) => moved(fill.name, fill.run(memory)),
            Task::Host(_) => Ok(None),
        }
    }
}

impl KernelLaunch {
    fn run(&self, memory: &Arc<DeviceMemory>, options: &exec::Options) -> Result<Option<String>, Fault> {
        let launch = exec::Launch {
            kernel: &self.kernel,
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.shared,
            parameters: &self.parameters,
        };
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| exec::launch(memory, &launch, options))) else {
            let text = format!("the emulator itself failed in {}; this is its bug", self.kernel.name());
            return Err(Fault { code: CUDA_ERROR_LAUNCH_FAILED, text });
        };
        if let Some(report) = outcome.report {
            return Err(Fault { code: code_of(&report), text: report.to_string() });
        }
        Ok(options.counters.then(|| counters_line(self, &outcome.counters)))
    }
}

/// The code by which a real device would report the fault, or the nearest.
fn code_of(report: &Report) -> CUresult {
    match report.kind {
        Kind::OutOfBounds | Kind::UseAfterFree | Kind::ReadOnly => CUDA_ERROR_ILLEGAL_ADDRESS,
        Kind::Misaligned => CUDA_ERROR_MISALIGNED_ADDRESS,
        Kind::UnknownInstruction => CUDA_ERROR_ILLEGAL_INSTRUCTION,
        Kind::Trap if report.detail.contains("assert") => CUDA_ERROR_ASSERT,
        Kind::Deadlock => CUDA_ERROR_LAUNCH_TIMEOUT,
        Kind::LaunchLimits => CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
        Kind::Trap
        | Kind::UninitialisedGlobal
        | Kind::UninitialisedShared
        | Kind::UninitialisedLocal
        | Kind::SharedRace
        | Kind::GlobalRace
        | Kind::DivergentBarrier
        | Kind::DivergentWarp
        | Kind::AsyncCopyNotAwaited
        | Kind::MissingProxyFence
        | Kind::AsyncMisuse
        | Kind::ScheduleDependent => CUDA_ERROR_LAUNCH_FAILED,
    }
}
