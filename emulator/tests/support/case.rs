//! One launch of one kernel, with its inputs and what must come out.

use super::compare::{Bytes, Expected};

/// What a buffer holds before the launch.
#[derive(Clone, PartialEq, Debug)]
pub enum Contents {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes, these pieces (offset, bytes) of them written and the others not.
    Pieces(usize, Vec<(usize, Vec<u8>)>),
}

impl Contents {
    /// The buffer's size in bytes.
    pub fn size(&self) -> usize {
        match self {
            Contents::Bytes(bytes) => bytes.len(),
            Contents::Pieces(size, _) => *size,
        }
    }
}

/// A buffer in device memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// What reports and failures call it.
    pub name: &'static str,
    /// What it holds before the launch.
    pub contents: Contents,
    /// Addresses of other buffers to be put into it: (offset here, the other's index, offset there).
    pub pointers: Vec<(usize, usize, u64)>,
    /// What it must hold after the launch.
    pub expected: Expected,
    /// Freed before the launch (to plant a bug).
    pub freed: bool,
}

/// A kernel argument.
#[derive(Clone, PartialEq, Debug)]
pub enum Argument {
    /// The address of a buffer.
    Buffer(usize),
    /// A value.
    Value(Vec<u8>),
}

/// What is known of a launch's bank conflicts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Banks {
    /// Nothing.
    Unknown,
    /// There are none.
    Free,
    /// There are some.
    Conflicts,
}

/// What a launch must cost, as far as it can be told without running it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Different bytes of global memory read.
    pub read: Option<u64>,
    /// Different bytes of global memory written.
    pub written: Option<u64>,
    /// Block barriers, each counted once a block.
    pub barriers: Option<u64>,
    /// Tensor core instructions.
    pub tensor: Option<u64>,
    /// Bank conflicts.
    pub banks: Banks,
}

/// One launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The source's file name.
    pub file: &'static str,
    /// The source.
    pub source: String,
    /// The kernel.
    pub entry: &'static str,
    /// Options for NVRTC besides the architecture and line information.
    pub options: Vec<&'static str>,
    /// The sizes, in words.
    pub shape: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Bytes of shared memory that the launch asks for.
    pub dynamic_shared: u32,
    /// Device memory.
    pub buffers: Vec<Buffer>,
    /// What the host writes to the module's variables.
    pub variables: Vec<(&'static str, Vec<u8>)>,
    /// Arguments in order.
    pub arguments: Vec<Argument>,
    /// What it must cost.
    pub cost: Cost,
}

impl Case {
    /// A launch without arguments.
    pub fn new(file: &'static str, source: &str, entry: &'static str, shape: String) -> Case {
        Case {
            file,
            source: source.to_owned(),
            entry,
            options: Vec::new(),
            shape,
            grid: [1; 3],
            block: [1; 3],
            dynamic_shared: 0,
            buffers: Vec::new(),
            variables: Vec::new(),
            arguments: Vec::new(),
            cost: Cost { read: None, written: None, barriers: None, tensor: None, banks: Banks::Unknown },
        }
    }

    /// Sets the launch's size.
    pub fn launch(mut self, grid: [u32; 3], block: [u32; 3]) -> Case {
        (self.grid, self.block) = (grid, block);
        self
    }

    /// Adds a buffer that is no argument (another buffer points to it) and gives its index.
    pub fn add(&mut self, name: &'static str, contents: Contents, expected: Expected) -> usize {
        self.buffers.push(Buffer { name, contents, pointers: Vec::new(), expected, freed: false });
        self.buffers.len() - 1
    }

    /// Adds a buffer as the next argument: one that the launch changes or leaves as it is.
    pub fn buffer(mut self, name: &'static str, contents: Contents, expected: Expected) -> Case {
        let index = self.add(name, contents, expected);
        self.arguments.push(Argument::Buffer(index));
        self
    }

    /// Adds a buffer as the next argument that the launch must leave as it is.
    pub fn input<T: Bytes>(self, name: &'static str, values: &[T]) -> Case {
        let bytes = values.bytes();
        self.buffer(name, Contents::Bytes(bytes.clone()), Expected::Exact(bytes))
    }

    /// Adds a buffer as the next argument that nothing has written before the launch.
    pub fn output(self, name: &'static str, size: usize, expected: Expected) -> Case {
        self.buffer(name, Contents::Pieces(size, Vec::new()), expected)
    }

    /// Adds a value as the next argument.
    pub fn value<T: Bytes + ?Sized>(mut self, value: &T) -> Case {
        self.arguments.push(Argument::Value(value.bytes()));
        self
    }

    /// Sets the bytes that the launch must read and write.
    pub fn traffic(mut self, read: usize, written: usize) -> Case {
        (self.cost.read, self.cost.written) = (Some(read as u64), Some(written as u64));
        self
    }

    /// Sets how often blocks meet at barriers.
    pub fn barriers(mut self, count: usize) -> Case {
        self.cost.barriers = Some(count as u64);
        self
    }

    /// Sets what is known of bank conflicts.
    pub fn banks(mut self, banks: Banks) -> Case {
        self.cost.banks = banks;
        self
    }

    /// The buffer of this name.
    pub fn named(&mut self, name: &str) -> &mut Buffer {
        let found = self.buffers.iter_mut().find(|buffer| buffer.name == name);
        found.unwrap_or_else(|| panic!("no buffer {name}"))
    }
}
