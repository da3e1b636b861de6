//! A kernel as the executor runs it: a flat list of instructions whose operands are slots of the register file.

use crate::exec::context::Context;
use crate::numeric::tensor_core::Mma;
use crate::report::SourceLine;

/// How an instruction runs on the lanes of a mask.
pub type Run = unsafe fn(&mut Context<'_>, &Instruction, u32);

/// No operand, no guard.
pub const NONE: u32 = u32::MAX;

/// What the warp loop has to do around an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Registers in, registers out.
    Plain,
    /// May fault, through `Context::fault`.
    Memory,
    /// Jump to `target`.
    Branch,
    /// Jump to one of `Program::tables[e]` by register a.
    BranchIndexed,
    /// The lanes are done.
    Exit,
    /// All lanes of the mask in register a must be here (`shfl.sync`, `bar.warp.sync`, ...).
    WarpMask,
    /// All lanes of the warp that have not exited must be here (`ldmatrix`, `mma`).
    WarpAligned,
    /// As [`Kind::Memory`]; a wait that was in vain (`Context::waits`) lets others run.
    Wait,
    /// A barrier of the block.
    Barrier,
    /// `trap`.
    Trap,
    /// Not known: a report when it is reached.
    Unknown,
}

/// What counters call an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the fields of `counters::Instructions`")]
pub enum Class {
    Integer,
    Float,
    Half,
    Special,
    Tensor,
    /// `wgmma.mma_async`, counted as the `mma` m16n8k16 that a warp would take for it.
    Warpgroup,
    Global,
    Shared,
    Local,
    Constant,
    Warp,
    Barrier,
    Control,
}

/// A decoded instruction. What `a` to `e` and `word` mean is told where the operation is defined.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// How it runs.
    pub run: Run,
    /// What the warp loop does around it.
    pub kind: Kind,
    /// What counters call it.
    pub class: Class,
    /// Predicate that guards it, or [`NONE`].
    pub guard: u32,
    /// `@!p`.
    pub guard_negated: bool,
    /// Destination.
    pub d: u32,
    /// First operand.
    pub a: u32,
    /// Second operand.
    pub b: u32,
    /// Third operand.
    pub c: u32,
    /// A further slot, predicate or index.
    pub e: u32,
    /// Jump target.
    pub target: u32,
    /// Flags, an immediate offset, an index of a side table.
    pub word: u64,
}

/// How the block-wide barrier instruction works; `Program::barriers[word]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierForm {
    /// Waits (`sync`, `red`), or only arrives.
    pub waits: bool,
    /// Every lane of the warp must be there.
    pub aligned: bool,
    /// The reduction of `bar.red`.
    pub reduction: Option<BarrierReduction>,
}

/// `bar.red`'s operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the instruction's own names")]
pub enum BarrierReduction {
    Popc,
    And,
    Or,
}

/// What an `mbarrier` instruction does; `Program::mbarriers[e]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MbarrierForm {
    /// Which of them it is.
    pub operation: MbarrierOperation,
    /// `.relaxed`: it orders nothing.
    pub relaxed: bool,
}

/// The `mbarrier` instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MbarrierOperation {
    /// `init`: b is the count of arrivals.
    Initialise,
    /// `inval`.
    Invalidate,
    /// `expect_tx`: b is the number of bytes.
    Expect,
    /// `complete_tx`, simulated: b is the number of bytes.
    Complete,
    /// `arrive`, `arrive_drop`: b is the count, or the bytes of `.expect_tx`; d is the state.
    Arrive {
        /// `.expect_tx`
        expects: bool,
        /// `arrive_drop`
        drops: bool,
    },
    /// `test_wait`, `try_wait`: b is the state, or the parity; d is the predicate.
    Wait {
        /// `.parity`
        parity: bool,
    },
}

/// An address operand of a known space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Slot of the register, or [`NONE`].
    pub slot: u32,
    /// The register has 32 bits.
    pub narrow: bool,
    /// Byte offset.
    pub offset: i64,
}

/// A bulk copy; `Program::bulks[e]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkForm {
    /// The place in shared memory.
    pub shared: Reference,
    /// The place in global memory, or the tensor map (a generic address).
    pub global: Reference,
    /// Into shared memory, completed at this mbarrier; else out of it, in a bulk group.
    pub mbarrier: Option<Reference>,
    /// A tile of a tensor: `values` are its coordinates; else so many bytes one after another.
    pub tensor: bool,
    /// Slots.
    pub values: Vec<u32>,
}

/// A `wgmma.mma_async`; `Program::wgmmas[word]`. All are of bf16 with float32 accumulators, 64 rows and K = 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WgmmaForm {
    /// Columns: a multiple of 8 up to 256.
    pub n: usize,
    /// A comes in registers: a is a list of slots, else a descriptor.
    pub a_in_registers: bool,
    /// A and B lie transposed (M and N run fastest) in shared memory.
    pub transposed: [bool; 2],
    /// A and B are negated.
    pub negated: [bool; 2],
}

/// A decoded kernel.
#[derive(Debug)]
pub struct Program {
    /// Instructions; the last one is an exit.
    pub code: Vec<Instruction>,
    /// For each instruction its text and PTX line, for reports.
    pub text: Vec<(String, u32)>,
    /// For each instruction its source line.
    pub lines: Vec<Option<SourceLine>>,
    /// Rows of the register file.
    pub rows: u32,
    /// Number of predicates.
    pub predicates: u32,
    /// Rows that hold constants: slot, value, whether 64 bits wide.
    pub constants: Vec<(u32, u64, bool)>,
    /// Rows that hold special registers.
    pub specials: Vec<(u32, Special)>,
    /// Lists of slots for vector operands.
    pub lists: Vec<Vec<u32>>,
    /// Loads, stores and atomics.
    pub accesses: Vec<Access>,
    /// Jump tables of `brx.idx`.
    pub tables: Vec<Vec<u32>>,
    /// Barrier forms.
    pub barriers: Vec<BarrierForm>,
    /// Shapes of `mma`.
    pub shapes: Vec<Mma>,
    /// `mbarrier` instructions.
    pub mbarriers: Vec<MbarrierForm>,
    /// Bulk copies.
    pub bulks: Vec<BulkForm>,
    /// `wgmma` instructions.
    pub wgmmas: Vec<WgmmaForm>,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// Static shared memory: (offset, bytes) of each variable, from the start of the block's shared memory.
    pub shared: Vec<(u32, u32)>,
    /// Where dynamic shared memory begins; its size comes with the launch.
    pub dynamic_shared: u32,
    /// Messages of traps (device-side assertions), by `word`.
    pub strings: Vec<String>,
    /// Some instruction orders memory between blocks (fence, acquire, release).
    pub has_fence: bool,
    /// Some barrier has a number other than 0, or a count of threads, or is an mbarrier: some warps may be ordered and others not.
    pub named_barriers: bool,
}

/// Special registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "PTX's own names")]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NumWarps,
    SmId,
    NumSms,
    GridId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicSharedSize,
    TotalSharedSize,
    Zero,
    One,
}

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessSpace {
    /// Device memory (and page-locked host memory).
    Global,
    /// The block's shared memory.
    Shared,
    /// The thread's local memory.
    Local,
    /// Kernel parameters.
    Parameter,
    /// `.const` variables, which lie in device memory.
    Constant,
    /// Any of global, shared and local, by address.
    Generic,
}

/// A load, a store or an atomic; `Program::accesses[word]`.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it goes.
    pub space: AccessSpace,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub element: u32,
    /// Loads extend the sign.
    pub signed: bool,
    /// Registers of the elements, in order; [`NONE`] for `_`.
    pub slots: Vec<u32>,
    /// The registers are 64 bits wide.
    pub wide: bool,
    /// The address register has 32 bits.
    pub narrow: bool,
    /// Byte offset added to the address register.
    pub offset: i64,
    /// Volatile, relaxed, acquire or release: not a race with another such access.
    pub strong: bool,
    /// Orders what came before it for others.
    pub release: bool,
}

impl Access {
    /// Bytes a lane.
    pub fn bytes(&self) -> u64 {
        u64::from(self.element) * self.slots.len() as u64
    }
}

impl Program {
    /// A program without instructions.
    pub(crate) fn empty() -> Program {
        Program {
            code: Vec::new(),
            text: Vec::new(),
            lines: Vec::new(),
            rows: 1,
            predicates: 1,
            constants: Vec::new(),
            specials: Vec::new(),
            lists: Vec::new(),
            accesses: Vec::new(),
            tables: Vec::new(),
            barriers: Vec::new(),
            shapes: Vec::new(),
            mbarriers: Vec::new(),
            bulks: Vec::new(),
            wgmmas: Vec::new(),
            local_bytes: 0,
            shared: Vec::new(),
            dynamic_shared: 0,
            strings: Vec::new(),
            has_fence: false,
            named_barriers: false,
        }
    }
}

unsafe fn nothing(_: &mut Context<'_>, _: &Instruction, _: u32) {}

impl Instruction {
    /// Does nothing; unused operands name row 0, so that a loop may read them.
    pub const NOTHING: Instruction = Instruction {
        run: nothing,
        kind: Kind::Plain,
        class: Class::Control,
        guard: NONE,
        guard_negated: false,
        d: 0,
        a: 0,
        b: 0,
        c: 0,
        e: NONE,
        target: 0,
        word: 0,
    };
}
