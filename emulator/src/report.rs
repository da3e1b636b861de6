//! What a check says: one [`Report`] names the fault, the kernel, the thread, the address and the source line.

use std::fmt;

/// The kinds of fault that the emulator tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An address outside every live allocation (or beyond a block's shared or a thread's local memory).
    OutOfBounds,
    /// An address inside an allocation that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of global memory that nothing has written.
    UninitialisedGlobal,
    /// A read of shared memory that nothing has written.
    UninitialisedShared,
    /// A read of local memory that nothing has written.
    UninitialisedLocal,
    /// Two threads touch the same shared memory, one of them writing, with no barrier between.
    SharedRace,
    /// Two threads touch the same global memory, one of them writing, with nothing that orders them.
    GlobalRace,
    /// Threads of one block wait at different barriers, or some never arrive.
    DivergentBarrier,
    /// Threads named in a shuffle's, vote's or other warp instruction's mask do not execute it together.
    DivergentWarp,
    /// No thread of the launch can go on.
    Deadlock,
    /// Bytes of an asynchronous copy are used before the copy was waited for.
    AsyncCopyNotAwaited,
    /// Shared memory that loads and stores have written is used by the asynchronous proxy with no `fence.proxy.async`
    /// between.
    MissingProxyFence,
    /// An `mbarrier`, a tensor map or a descriptor of a matrix is not what the instruction needs.
    AsyncMisuse,
    /// An instruction that the emulator does not know.
    UnknownInstruction,
    /// A write to memory that a kernel may not write (constant memory, parameters).
    ReadOnly,
    /// The kernel executed `trap`, or a device-side assertion failed.
    Trap,
    /// The launch asks for more threads, shared memory or blocks than the device has.
    LaunchLimits,
    /// Two schedules of the same launch left different bits in memory.
    ScheduleDependent,
}

impl Kind {
    /// The kind's name, as reports print it and tests match it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out of bounds",
            Kind::UseAfterFree => "use after free",
            Kind::Misaligned => "misaligned address",
            Kind::UninitialisedGlobal => "uninitialised global read",
            Kind::UninitialisedShared => "uninitialised shared read",
            Kind::UninitialisedLocal => "uninitialised local read",
            Kind::SharedRace => "shared memory race",
            Kind::GlobalRace => "global memory race",
            Kind::DivergentBarrier => "divergent barrier",
            Kind::DivergentWarp => "divergent warp instruction",
            Kind::Deadlock => "deadlock",
            Kind::AsyncCopyNotAwaited => "asynchronous copy not awaited",
            Kind::MissingProxyFence => "missing proxy fence",
            Kind::AsyncMisuse => "misused asynchronous instruction",
            Kind::UnknownInstruction => "unknown instruction",
            Kind::ReadOnly => "write to read-only memory",
            Kind::Trap => "trap",
            Kind::LaunchLimits => "launch limits exceeded",
            Kind::ScheduleDependent => "result depends on the schedule",
        }
    }
}

/// A line of the kernel's source, from the PTX `.loc` directives (NVRTC's `-lineinfo`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceLine {
    /// The file's name as given to the compiler.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One fault found while a kernel ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What kind of fault.
    pub kind: Kind,
    /// The kernel's entry name.
    pub kernel: String,
    /// Block index of the thread, where one thread is at fault.
    pub block: [u32; 3],
    /// Thread index within the block.
    pub thread: [u32; 3],
    /// The instruction as the PTX has it, with its PTX line.
    pub instruction: String,
    /// The `.cu` line, where the PTX has line information.
    pub source: Option<SourceLine>,
    /// What happened, in a sentence: address, allocation, the other thread of a race.
    pub detail: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(f, "{} in {}", self.kind.name(), self.kernel)?;
        if let Some(source) = &self.source {
            write!(f, " at {source}")?;
        }
        write!(f, ", block ({bx},{by},{bz}) thread ({tx},{ty},{tz}): {}", self.detail)?;
        if !self.instruction.is_empty() {
            write!(f, " [{}]", self.instruction)?;
        }
        Ok(())
    }
}
