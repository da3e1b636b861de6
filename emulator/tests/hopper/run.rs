//! Launching a source from a test.

use super::nvrtc;
use emulator::exec::{Image, Launch, LoadError, Options, Outcome, launch};
use emulator::memory::DeviceMemory;
use std::sync::Arc;

/// Device memory, and a module in it.
pub struct Device {
    pub memory: Arc<DeviceMemory>,
    image: Image,
}

/// One worker, in order, everything checked.
pub fn plain() -> Options {
    Options { workers: 1, ..Options::default() }
}

/// Orders that a launch must not depend on.
pub fn orders() -> Vec<Options> {
    let order = |seed, late_copies, workers| Options { seed, late_copies, workers, ..Options::default() };
    vec![
        order(None, false, 1),
        order(None, true, 1),
        order(Some(1), false, 1),
        order(Some(2), true, 1),
        order(Some(3), true, 2),
        order(Some(4), false, 2),
    ]
}

impl Device {
    /// Compiles a source for sm_90a and loads it.
    pub fn new(source: &str, file: &str, options: &[&str]) -> Device {
        let ptx = nvrtc::ptx_for("compute_90a", source, file, options);
        Device::of(&ptx).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Loads PTX.
    pub fn of(ptx: &str) -> Result<Device, LoadError> {
        let memory = Arc::new(DeviceMemory::new(1 << 26).unwrap());
        let image = Image::load(ptx, &memory)?;
        Ok(Device { memory, image })
    }

    /// Device memory with these bytes.
    pub fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.memory.allocate(bytes.len() as u64).unwrap();
        self.memory.write(address, bytes).unwrap();
        address
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

    /// Launches an entry whose parameters are tensor maps and 64-bit values, one after another as words.
    pub fn launch(
        &self,
        entry: &str,
        [grid_x, grid_y, block, dynamic_shared]: [u32; 4],
        parameters: &[u64],
        options: &Options,
    ) -> Outcome {
        let kernel = self.image.kernel(entry).unwrap_or_else(|| panic!("no entry {entry}"));
        let parameters: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (grid, block) = ([grid_x, grid_y, 1], [block, 1, 1]);
        let what = Launch { kernel, grid, block, dynamic_shared, parameters: &parameters };
        launch(&self.memory, &what, options)
    }
}
