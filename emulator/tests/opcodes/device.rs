//! Launching PTX from a test.

use emulator::exec::{Image, Launch, Options, launch};
use emulator::memory::DeviceMemory;
use emulator::report::Report;
use std::sync::Arc;

/// Device memory for one test.
pub struct Device {
    pub memory: Arc<DeviceMemory>,
}

/// The head of a module.
pub const HEAD: &str = ".version 8.8\n.target sm_90a\n.address_size 64\n";

/// One worker, checks on.
pub fn plain() -> Options {
    Options { workers: 1, counters: false, ..Options::default() }
}

impl Device {
    pub fn new() -> Device {
        Device { memory: Arc::new(DeviceMemory::new(1 << 26).unwrap()) }
    }

    /// Device memory with these bytes.
    pub fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.memory.allocate(bytes.len().max(1) as u64).unwrap();
        self.memory.write(address, bytes).unwrap();
        address
    }

    pub fn upload_words(&self, words: &[u32]) -> u64 {
        self.upload(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub fn download(&self, address: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.read(address, &mut bytes).unwrap();
        bytes
    }

    pub fn download_words(&self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.download(address, 4 * count);
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    pub fn load(&self, ptx: &str) -> Image {
        Image::load(ptx, &self.memory).unwrap_or_else(|error| panic!("{error}\n{}", numbered(ptx)))
    }

    /// Runs an entry whose parameters are 64-bit values.
    pub fn run(
        &self,
        image: &Image,
        entry: &str,
        grid: u32,
        block: u32,
        parameters: &[u64],
        options: &Options,
    ) -> Option<Report> {
        let kernel = image.kernel(entry).unwrap_or_else(|| panic!("no entry {entry}"));
        let parameters: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        let what = Launch {
            kernel,
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            dynamic_shared: 0,
            // Some launches wait for their other blocks.
            parameters: &parameters,
        };
        launch(&self.memory, &what, options).report
    }
}

/// PTX with line numbers, for messages.
pub fn numbered(ptx: &str) -> String {
    let lines = ptx.lines().enumerate().take(400);
    lines.map(|(number, line)| format!("{:4} {line}\n", number + 1)).collect()
}
