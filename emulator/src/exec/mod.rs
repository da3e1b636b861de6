//! Loading PTX and launching kernels: the emulator without a driver around it.

pub(crate) mod access;
pub(crate) mod atomics;
mod barrier;
mod block;
pub(crate) mod bulk;
mod clocks;
pub(crate) mod context;
pub(crate) mod copies;
mod global;
pub(crate) mod lanes;
mod launch;
pub(crate) mod matrix;
pub(crate) mod mbarrier;
pub(crate) mod moves;
pub(crate) mod operations;
mod shared;
mod tally;
mod warp;
pub(crate) mod warp_ops;
pub(crate) mod wgmma;

use crate::counters::Counters;
use crate::decode;
use crate::memory::DeviceMemory;
pub use crate::numeric::tensor_core::TensorCore;
use crate::program::Program;
use crate::report::{Kind, Report};
pub use launch::MULTIPROCESSORS;
use std::fmt;
use std::sync::Arc;

/// PTX that cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    /// PTX line, from 1; 0 where the fault is nowhere in particular.
    pub line: u32,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.detail)
    }
}

impl std::error::Error for LoadError {}

/// A module ready to run: kernels decoded, globals allocated in device memory and initialised.
#[derive(Debug)]
pub struct Image {
    pub(crate) memory: Arc<DeviceMemory>,
    pub(crate) kernels: Vec<Arc<Kernel>>,
    /// Name, address, size.
    pub(crate) globals: Vec<(String, u64, u64)>,
}

impl Image {
    /// Parses, checks and decodes PTX. An instruction that is not known is an error when it is reached, not here.
    ///
    /// # Errors
    /// PTX that is malformed, or does not fit into device memory.
    pub fn load(ptx: &str, memory: &Arc<DeviceMemory>) -> Result<Image, LoadError> {
        decode::image(ptx, memory)
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// All kernels, in the order of the PTX.
    pub fn kernels(&self) -> impl Iterator<Item = &Arc<Kernel>> {
        self.kernels.iter()
    }

    /// Address and size of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.iter().find(|(other, _, _)| other == name).map(|(_, address, size)| (*address, *size))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for (_, address, _) in &self.globals {
            // The program may have freed it itself, by mistake; there is nobody to tell.
            let _ = self.memory.free(*address);
        }
    }
}

/// A kernel, decoded.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) parameters: Vec<(usize, usize)>,
    pub(crate) constants: Vec<(u64, u64)>,
    pub(crate) constant_bytes: u32,
    pub(crate) static_shared: u32,
    pub(crate) max_threads: u32,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) registers: u32,
    pub(crate) version: (u32, u32),
    pub(crate) target: u32,
    pub(crate) program: Program,
}

impl Kernel {
    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Offset and size in bytes of each parameter in the parameter buffer.
    pub fn parameters(&self) -> &[(usize, usize)] {
        &self.parameters
    }

    /// Bytes of the parameter buffer.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |(offset, size)| offset + size)
    }

    /// Shared memory of `__shared__` variables.
    pub fn static_shared_bytes(&self) -> u32 {
        self.static_shared
    }

    /// Local memory a thread.
    pub fn local_bytes(&self) -> u32 {
        self.program.local_bytes
    }

    /// Constant memory of the module.
    pub fn constant_bytes(&self) -> u32 {
        self.constant_bytes
    }

    /// Most threads a block, from `.maxntid` or `.reqntid`, else 1024.
    pub fn max_threads(&self) -> u32 {
        self.max_threads
    }

    /// The block shape that `.reqntid` demands.
    pub fn required_threads(&self) -> Option<[u32; 3]> {
        self.required_threads
    }

    /// Registers a thread, guessed from how many values live at once, at most 255.
    pub fn registers(&self) -> u32 {
        self.registers
    }

    /// PTX version: 8.8 is (8, 8).
    pub fn ptx_version(&self) -> (u32, u32) {
        self.version
    }

    /// The target: sm_90 is 90.
    pub fn target(&self) -> u32 {
        self.target
    }
}

/// A launch. Blocks may wait for each other in any launch, as a cooperative one allows.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// What runs.
    pub kernel: &'a Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Parameter bytes, laid out as [`Kernel::parameters`] says.
    pub parameters: &'a [u8],
}

/// How launches run.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Check memory, races, initialisation. Bounds of the device's whole memory and barriers are always checked.
    pub checks: bool,
    /// Count costs.
    pub counters: bool,
    /// Threads that run blocks.
    pub workers: usize,
    /// Seed of the order of blocks and warps; None: in order, each warp until it has to wait.
    pub seed: Option<u64>,
    /// Asynchronous copies (`cp.async`, bulk copies) land at the last legal moment instead of at issue.
    pub late_copies: bool,
    /// Run under all schedules, from the same memory, and compare the bits.
    pub every_schedule: bool,
    /// How `mma` accumulates.
    pub tensor_core: TensorCore,
    /// Warp instructions a block before it is called a hang.
    pub instruction_limit: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            checks: true,
            counters: true,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            seed: None,
            late_copies: false,
            every_schedule: false,
            tensor_core: TensorCore::Hopper,
            instruction_limit: 1 << 32,
        }
    }
}

/// What came of a launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// What it cost (until the fault, where there is one).
    pub counters: Counters,
    /// The first fault.
    pub report: Option<Report>,
}

/// The schedules that [`Options::every_schedule`] runs, after the plain one: (seed, late copies).
pub const SCHEDULES: [(Option<u64>, bool); 5] =
    [(None, true), (Some(1), false), (Some(2), true), (Some(3), false), (Some(4), true)];

/// Most shared memory a block (sm_90), in bytes.
pub const MAX_SHARED: u32 = 227 * 1024;

/// Runs a launch to its end.
pub fn launch(memory: &Arc<DeviceMemory>, launch: &Launch<'_>, options: &Options) -> Outcome {
    if let Some(report) = limits(launch) {
        return Outcome { counters: Counters::default(), report: Some(report) };
    }
    let spare = launch::Spare::default();
    if !options.every_schedule {
        let (counters, report) =
            launch::run(memory, launch, options, options.seed, options.late_copies, &spare);
        return Outcome { counters, report };
    }
    let before = memory.snapshot();
    let (counters, report) = launch::run(memory, launch, options, None, false, &spare);
    if report.is_some() {
        return Outcome { counters, report };
    }
    let first = memory.snapshot();
    let uncounted = Options { counters: false, ..options.clone() };
    for (seed, late) in SCHEDULES {
        memory.restore(&before);
        let (_, report) = launch::run(memory, launch, &uncounted, seed, late, &spare);
        if report.is_some() {
            return Outcome { counters, report };
        }
        if let Some(address) = memory.first_difference(&first) {
            let detail = format!(
                "{} differs between the plain schedule and seed {seed:?} with {} copies",
                memory.describe(address),
                if late { "late" } else { "early" },
            );
            let report = whole(launch.kernel, Kind::ScheduleDependent, detail);
            return Outcome { counters, report: Some(report) };
        }
    }
    memory.restore(&first);
    Outcome { counters, report: None }
}

/// A report about the launch as a whole.
fn whole(kernel: &Kernel, kind: Kind, detail: String) -> Report {
    Report {
        kind,
        kernel: kernel.name.clone(),
        block: [0; 3],
        thread: [0; 3],
        instruction: String::new(),
        source: None,
        detail,
    }
}

/// What a device would refuse to launch.
fn limits(launch: &Launch<'_>) -> Option<Report> {
    let kernel = launch.kernel;
    let threads = launch.block.iter().map(|side| u64::from(*side)).product::<u64>();
    let shared = u64::from(kernel.static_shared) + u64::from(launch.dynamic_shared);
    let detail = if launch.grid.contains(&0) || launch.block.contains(&0) {
        format!("a grid of {:?} blocks of {:?} threads is empty", launch.grid, launch.block)
    } else if threads > u64::from(kernel.max_threads) || launch.block[2] > 64 {
        format!("{:?} = {threads} threads a block; this kernel may have {}", launch.block, kernel.max_threads)
    } else if kernel.required_threads.is_some_and(|required| required != launch.block) {
        format!("{:?} threads a block; the kernel requires {:?}", launch.block, kernel.required_threads)
    } else if launch.grid[0] > i32::MAX as u32 || launch.grid[1] > 65_535 || launch.grid[2] > 65_535 {
        format!("a grid of {:?}; at most 2147483647 x 65535 x 65535", launch.grid)
    } else if shared > u64::from(MAX_SHARED) {
        format!("{shared} bytes of shared memory a block; the device has {MAX_SHARED}")
    } else if launch.parameters.len() != kernel.parameter_bytes() {
        format!("{} parameter bytes; the kernel takes {}", launch.parameters.len(), kernel.parameter_bytes())
    } else {
        return None;
    };
    Some(whole(kernel, Kind::LaunchLimits, detail))
}
