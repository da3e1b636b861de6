//! Loading PTX and launching kernels: the emulator without a driver around it.

/// A module ready to run: kernels decoded, globals allocated in device memory and initialised.
pub struct Image;
impl Image {
    /// Parses, checks and decodes PTX. Unknown instructions are an error here, by name and line.
    pub fn load(ptx: &str, memory: &Arc<DeviceMemory>) -> Result<Image, LoadError>;
    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>>;
    pub fn kernels(&self) -> impl Iterator<Item = &Arc<Kernel>>;
    /// Address and size of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)>;
}   // Drop frees the globals
/// PTX that cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError { pub line: u32, pub detail: String }

pub struct Kernel { .. }
impl Kernel {
    pub fn name(&self) -> &str;
    /// Offset and size in bytes of each parameter in the parameter buffer.
    pub fn parameters(&self) -> &[(usize, usize)];
    pub fn parameter_bytes(&self) -> usize;
    pub fn static_shared_bytes(&self) -> u32;
    pub fn local_bytes(&self) -> u32;
    pub fn constant_bytes(&self) -> u32;
    pub fn max_threads(&self) -> u32;       // from .maxntid / .reqntid, else 1024
    pub fn registers(&self) -> u32;          // estimate, at most 255: what function attributes report
    pub fn ptx_version(&self) -> (u32, u32); // 8.8 -> (8, 8)
    pub fn target(&self) -> u32;             // sm_90 -> 90
}

#[derive(Clone, PartialEq, Debug)]
pub struct Launch<'a> { pub kernel: &'a Kernel, pub grid: [u32; 3], pub block: [u32; 3], pub dynamic_shared: u32, pub cooperative: bool, pub parameters: &'a [u8] }

/// How launches run.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    pub checks: bool,            // default true
    pub counters: bool,          // default true
    pub workers: usize,          // threads that run blocks; default: the machine's
    pub seed: Option<u64>,       // order of blocks and warps; None: in order
    pub late_copies: bool,       // asynchronous copies land at the last legal moment instead of at issue
    pub every_schedule: bool,    // run under all schedules and compare bits
    pub tensor_core: TensorCore, // Truncate (Hopper), TruncateAmpere, Float32
    pub instruction_limit: u64,  // warp instructions a block before it is called a hang
}

pub struct Outcome { pub counters: Counters, pub report: Option<Report> }

/// Runs a launch to its end.
pub fn launch(memory: &Arc<DeviceMemory>, launch: &Launch<'_>, options: &Options) -> Outcome;
