//! The syntax tree of a PTX module, flat: scopes are resolved, so every name is unique in its function.

/// A PTX module.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Module {
    /// `.version 8.8` is (8, 8).
    pub version: (u32, u32),
    /// `.target sm_90a, texmode_independent`: the words.
    pub target: Vec<String>,
    /// `.address_size`, 64.
    pub address_size: u32,
    /// `.file` directives: number and name.
    pub files: Vec<(u32, String)>,
    /// Module-scope variables, `.extern .shared` included.
    pub variables: Vec<Variable>,
    /// Entries and device functions, in order; declarations without a body have `body: None`.
    pub functions: Vec<Function>,
    /// `.alias name, function;`: another name of a function with a body.
    pub aliases: Vec<(String, String)>,
}

/// State spaces of variables and parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// `.reg`
    Register,
    /// `.global`
    Global,
    /// `.const`
    Constant,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.param`
    Parameter,
}

/// Fundamental types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "PTX's own names")]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

/// A variable, or a parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Variable {
    /// Where it lives.
    pub space: Space,
    /// `.align`, else the element's (or vector's) size.
    pub align: u32,
    /// Element type.
    pub element: Type,
    /// Its name, unique in the module or (mangled by scope) in the function.
    pub name: String,
    /// Size in bytes; 0 for `.extern .shared .b8 name[]`.
    pub size: u64,
    /// `.extern`
    pub external: bool,
    /// The initial bytes, little endian, `size` long; empty where there is no initialiser (zeros for .global and .const).
    pub initial: Vec<u8>,
    /// Places in `initial` that hold another variable's or function's address: byte offset, symbol, addend, generic().
    pub addresses: Vec<(u64, String, i64, bool)>,
    /// PTX line.
    pub line: u32,
}

/// A register, or `count` of them (`.reg .f32 %f<200>` is written out: name "%f0" ... by the parser as one entry).
#[derive(Clone, PartialEq, Debug)]
pub struct Registers {
    /// Name, or the prefix of a numbered family.
    pub name: String,
    /// Element type.
    pub element: Type,
    /// Some(n): the registers `name0 .. name(n-1)`.
    pub count: Option<u32>,
    /// 1, or 2 and 4 for `.v2` and `.v4`.
    pub vector: u32,
}

/// An entry (kernel) or a device function.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// `.entry`
    pub entry: bool,
    /// `.extern` (such as vprintf).
    pub external: bool,
    /// Return parameters of a `.func`.
    pub returns: Vec<Variable>,
    /// Parameters.
    pub parameters: Vec<Variable>,
    /// `.maxntid` (missing dimensions 1).
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// `.maxnreg`
    pub max_registers: Option<u32>,
    /// `.minnctapersm`
    pub min_blocks: Option<u32>,
    /// `.reqnctapercluster` / `.explicitcluster`
    pub cluster: Option<[u32; 3]>,
    /// Declared registers of all scopes, names made unique.
    pub registers: Vec<Registers>,
    /// `.shared`, `.local`, `.param` (for calls) variables of all scopes, names made unique.
    pub variables: Vec<Variable>,
    /// The body, flat; None for a declaration.
    pub body: Option<Vec<Statement>>,
    /// PTX line of the name.
    pub line: u32,
}

/// One line of a body.
#[derive(Clone, PartialEq, Debug)]
pub enum Statement {
    /// A label, unique in the function.
    Label(String),
    /// `.loc file line column [, function_name label(+n), inlined_at file line column]`: the innermost place.
    Location {
        /// Number of the file.
        file: u32,
        /// Line; 0 means that the compiler had none (the previous line stays in force).
        line: u32,
    },
    /// `.branchtargets`-like directive of an indirect branch: name and labels.
    BranchTargets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
}

/// An instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct Instruction {
    /// `@%p1` or `@!%p1`: register, negated.
    pub guard: Option<(String, bool)>,
    /// The opcode with all its qualifiers, as written: "ld.global.nc.v4.f32".
    pub opcode: String,
    /// Operands in order. `call (ret), name, (a, b), proto` gives three or four operands, lists as `Operand::List`.
    pub operands: Vec<Operand>,
    /// PTX line.
    pub line: u32,
}

/// An operand.
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// A declared register, by its unique name.
    Register(String),
    /// A special register such as `%tid.x` (or a constant such as `WARP_SZ`).
    Special(String),
    /// An integer constant (or constant expression, evaluated), as 64 bits.
    Integer(i64),
    /// `0f3F800000`: the bits of a float32.
    Float32(u32),
    /// `0d3FF0...` or a decimal such as `1.5`: the bits of a float64.
    Float64(u64),
    /// A variable, label or function used as a value, plus a byte offset: `mov.u64 %rd, table+8`.
    Symbol(String, i64),
    /// `[base + offset]`; `tensor` holds the coordinates of `[map, {x, y}]`, empty otherwise.
    Address {
        /// Where it starts.
        base: Base,
        /// Byte offset.
        offset: i64,
        /// Coordinates of a tensor operand.
        tensor: Vec<Operand>,
    },
    /// `{a, b, c, d}`
    Vector(Vec<Operand>),
    /// `p|q`: two destinations of one instruction.
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`
    Not(Box<Operand>),
    /// `-x` where x is no constant, which some instructions allow.
    Negated(Box<Operand>),
    /// `x.x`: an element of a vector register, by its index.
    Element(Box<Operand>, u32),
    /// `_`
    Sink,
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}

/// The base of an address.
#[derive(Clone, PartialEq, Debug)]
pub enum Base {
    /// A register.
    Register(String),
    /// A variable or parameter.
    Symbol(String),
    /// An absolute address: the offset alone.
    None,
}
