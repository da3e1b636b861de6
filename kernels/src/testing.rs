//! The device that tests run kernels on: hardware where there is some, else the emulated device, under all its schedules.
//!
//! `PRETEXT_TEST_DEVICE=emulated` keeps tests off the hardware; `PRETEXT_TEST_SCHEDULES=one` runs each launch once.

use engine::cuda::{self, Driver, driver, extension, nvrtc::testing::nvrtc_for_tests};
use engine::{Device, Error, ErrorKind, Result};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The device that tests run kernels on. The first call chooses the driver of the process.
///
/// From its first call on a thread has the device to itself until it ends: tests, each on a thread of its own, take turns.
/// A launch that the emulated device runs under all schedules starts each from the same memory, which no one else may
/// change meanwhile.
///
/// # Panics
///
/// There is neither, or it does not work: tests of kernels cannot go on.
#[allow(clippy::panic, reason = "this is for tests")]
pub fn device() -> Device {
    static TURN: Mutex<()> = Mutex::new(());
    thread_local! {
        static MINE: MutexGuard<'static, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    }
    MINE.with(|_| {});
    static CHOSEN: OnceLock<Result<Device>> = OnceLock::new();
    match CHOSEN.get_or_init(choose) {
        Ok(device) => *device,
        Err(error) => panic!("tests of kernels need a device: {error}"),
    }
}

fn choose() -> Result<Device> {
    nvrtc_for_tests();
    let wanted = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    let hardware = !wanted("PRETEXT_TEST_DEVICE", "emulated")
        && driver::select(Driver::System).is_ok()
        && driver::probe().is_ok_and(|devices| !devices.is_empty());
    if !hardware {
        let folder = emulator::library::folder()
            .map_err(|e| Error::new(ErrorKind::Device, "emulated device", e.to_string()))?;
        driver::select(Driver::Emulated(folder))?;
        driver::probe()?;
        if !wanted("PRETEXT_TEST_SCHEDULES", "one") {
            extension::set_option("SCHEDULES", "all");
        }
    }
    cuda::context(0)?;
    Ok(Device::Cuda(0))
}
