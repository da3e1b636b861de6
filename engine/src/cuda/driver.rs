//! Chooses the CUDA driver of this process, the machine's or the emulated one, before cudarc loads any, and lists
//! its devices.
//!
//! cudarc opens `libcuda.so` by name at its first call and cannot be given a path. The loader, asked for a name,
//! looks first at the libraries that are loaded already and compares the names which they give themselves: so the
//! emulated driver, which calls itself `libcuda.so`, is loaded by its path first.

use crate::{Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The driver that a process uses for CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// The one that the loader finds: NVIDIA's, on a machine with a GPU.
    System,
    /// The emulated one; the folder holds its `libcuda.so`.
    Emulated(PathBuf),
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Driver::System => f.write_str("the machine's CUDA driver"),
            Driver::Emulated(folder) => write!(f, "the emulated CUDA driver in {}", folder.display()),
        }
    }
}

/// A function that the emulated driver has and no other.
const EMULATED_SYMBOL: &[u8] = b"pretextEmulatedVersion\0";

/// What this process has chosen.
static SELECTED: Mutex<Option<Driver>> = Mutex::new(None);

/// Makes `driver` the one that cudarc uses in this process. Without a call, [`probe`] selects [`Driver::System`].
///
/// # Errors
///
/// The driver is not there, or the process uses another one already: the choice is made once.
pub fn select(driver: Driver) -> Result<()> {
    let operation = "select CUDA driver";
    let mut selected = SELECTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match &*selected {
        Some(same) if *same == driver => return Ok(()),
        Some(other) => {
            let message = format!(
                "this process uses {other} and cannot change to {driver}: start another process for it"
            );
            return Err(Error::new(ErrorKind::Device, operation, message));
        }
        None => {}
    }
    match &driver {
        Driver::System => find_system(operation)?,
        Driver::Emulated(folder) => load_emulated(operation, folder)?,
    }
    *selected = Some(driver);
    Ok(())
}

/// Whether the loader finds a driver by its name.
fn find_system(operation: &str) -> Result<()> {
    // SAFETY: loads and unloads the library; its initialisers are the driver's own.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Device,
        operation,
        "no CUDA driver (libcuda.so.1) is on the library path: it comes with NVIDIA's driver for the GPU. Without a \
         GPU there is the emulated device",
    ))
}

/// Loads the library by its path for the rest of the process, and sees that cudarc's look-up by name finds it.
fn load_emulated(operation: &str, folder: &Path) -> Result<()> {
    let path = folder.join("libcuda.so");
    let fail = |message: String| Error::new(ErrorKind::Device, operation, message).with("library", &path);
    // SAFETY: the library is the caller's choice; the emulated driver has no initialisers that could go wrong.
    let library = unsafe { libloading::Library::new(&path) }
        .map_err(|e| fail(format!("the emulated CUDA driver cannot be loaded: {}", super::explain(&e))))?;
    let address =
        emulated_symbol(&library).ok_or_else(|| fail("it is not the emulated CUDA driver".to_string()))?;
    // cudarc keeps function pointers into the library for as long as the process lives.
    std::mem::forget(library);
    // SAFETY: it does not panic, for a library of that name is loaded; nothing in it is called.
    match emulated_symbol(unsafe { sys::culib() }) {
        Some(same) if same == address => Ok(()),
        Some(_) => {
            Err(fail("another copy of the emulated CUDA driver is in use by this process".to_string()))
        }
        None => Err(fail("this process has loaded the machine's CUDA driver already".to_string())),
    }
}

/// The address of the emulated driver's own function in `library`, if it is that driver.
fn emulated_symbol(library: &libloading::Library) -> Option<usize> {
    // SAFETY: the symbol is looked up as a function and compared, never called.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>(EMULATED_SYMBOL) };
    symbol.ok().map(|symbol| *symbol as usize)
}

/// The driver's library, if this process uses the emulated one.
pub(super) fn library() -> Option<&'static libloading::Library> {
    let selected = SELECTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if selected.is_none() {
        return None;
    }
    drop(selected);
    static EMULATED: OnceLock<bool> = OnceLock::new();
    // SAFETY: a driver was selected, so that its library is loaded; nothing is called.
    let library = unsafe { sys::culib() };
    EMULATED.get_or_init(|| emulated_symbol(library).is_some()).then_some(library)
}

/// Whether the driver has a function. A driver must have been selected.
pub(super) fn has(name: &[u8]) -> bool {
    // SAFETY: the symbol is looked up as a function, never called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name) }.is_ok()
}

/// A device as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name that the driver gives it.
    pub name: String,
    /// Compute capability, major and minor: (9, 0) for Hopper.
    pub compute_capability: (i32, i32),
    /// Its memory in bytes, free or not.
    pub memory: usize,
    /// The newest CUDA version that the driver supports, major and minor.
    pub driver_version: (i32, i32),
    /// Whether it is emulated: not hardware.
    pub emulated: bool,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceInfo { name, compute_capability: (major, minor), driver_version, .. } = self;
        let memory = self.memory as f64 / (1u64 << 30) as f64;
        write!(f, "{name}, compute capability {major}.{minor}, {memory:.1} GiB, ")?;
        write!(f, "driver for CUDA {}.{}", driver_version.0, driver_version.1)?;
        if self.emulated { f.write_str(", emulated: not hardware") } else { Ok(()) }
    }
}

/// The devices of the selected driver; none where the driver is there and no device is.
///
/// # Errors
///
/// There is no driver, or it does not work.
pub fn probe() -> Result<Vec<DeviceInfo>> {
    if SELECTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_none() {
        select(Driver::System)?;
    }
    match devices() {
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(Vec::new()),
        answer => answer.map_err(|e| {
            let message = format!("the CUDA driver is there and does not work: {e}");
            Error::new(ErrorKind::Device, "probe CUDA devices", message)
        }),
    }
}

fn devices() -> std::result::Result<Vec<DeviceInfo>, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    result::init()?;
    let mut version = 0;
    // SAFETY: the driver is loaded, and writes one int.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    // SAFETY: the driver is loaded; nothing is called.
    let emulated = emulated_symbol(unsafe { sys::culib() }).is_some();
    let one = |ordinal| {
        let device = result::device::get(ordinal)?;
        // SAFETY: the driver has just given the device.
        let (memory, major, minor) = unsafe {
            let attribute = |which| result::device::get_attribute(device, which);
            (result::device::total_mem(device)?, attribute(MAJOR)?, attribute(MINOR)?)
        };
        Ok(DeviceInfo {
            name: result::device::get_name(device)?,
            compute_capability: (major, minor),
            memory,
            driver_version: (version / 1000, version % 1000 / 10),
            emulated,
        })
    };
    (0..result::device::get_count()?).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With or without a GPU here: an error says what is wrong, and nothing panics.
    #[test]
    fn what_cannot_be_selected_is_named_and_leaves_the_choice_open() {
        let folder = tempfile::tempdir().unwrap();
        let said = || select(Driver::Emulated(folder.path().to_path_buf())).unwrap_err().to_string();
        assert!(said().contains("cannot be loaded") && said().contains("No such file"), "{}", said());
        let libc =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];
        if let Some(libc) = libc.iter().find(|path| Path::new(path).exists()) {
            std::fs::copy(libc, folder.path().join("libcuda.so")).unwrap();
            assert!(said().contains("is not the emulated CUDA driver"), "{}", said());
        }
        assert_eq!(*SELECTED.lock().unwrap(), None);
        match probe() {
            Ok(devices) => devices.iter().for_each(|device| assert!(device.memory > 0, "{device}")),
            Err(error) => assert!(error.message().contains("driver"), "{error}"),
        }
    }
}
