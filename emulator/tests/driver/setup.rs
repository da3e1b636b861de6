//! A context for each test, and short forms of the calls that most tests make.

use emulator::driver::context::{cuCtxCreate_v2, cuCtxDestroy_v2, cuCtxSetCurrent};
use emulator::driver::copy::{cuMemcpyDtoHAsync_v2, cuMemcpyHtoD_v2};
use emulator::driver::device::cuInit;
use emulator::driver::error::{CUDA_SUCCESS, name};
use emulator::driver::event::{cuEventCreate, cuEventRecord};
use emulator::driver::extension::pretextEmulatedSetOption;
use emulator::driver::launch::cuLaunchKernel;
use emulator::driver::memory::{cuMemAlloc_v2, cuMemHostAlloc};
use emulator::driver::module::{cuModuleGetFunction, cuModuleLoadData};
use emulator::driver::stream::{cuStreamCreate, cuStreamSynchronize};
use emulator::driver::{CUresult, Handle};
use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kernels: `add` and `scale` change the first n of 32-bit numbers, the others test what their names say.
pub const PTX: &str = include_str!("kernels.ptx");

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: u32 = 1;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[track_caller]
pub fn ok(code: CUresult) {
    assert_eq!(code, CUDA_SUCCESS, "{}", name(code));
}

/// The device, this test's alone, with a context and default options.
pub struct Device {
    pub context: Handle,
    _turn: MutexGuard<'static, ()>,
}

pub fn set_option(name: &str, value: &str) -> CUresult {
    let (name, value) = (CString::new(name).unwrap(), CString::new(value).unwrap());
    unsafe { pretextEmulatedSetOption(name.as_ptr(), value.as_ptr()) }
}

pub fn device() -> Device {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Refused once the device is there.
    let _ = set_option("MEMORY", "256");
    ok(unsafe { cuInit(0) });
    for (name, value) in [("CHECKS", "on"), ("COUNTERS", "on"), ("STREAMS", "lazy"), ("ARCH", "90")] {
        ok(set_option(name, value));
    }
    let mut context = 0;
    ok(unsafe { cuCtxCreate_v2(Some(&mut context), 0, 0) });
    Device { context, _turn: turn }
}

impl Drop for Device {
    fn drop(&mut self) {
        unsafe {
            cuCtxDestroy_v2(self.context);
            cuCtxSetCurrent(0);
        }
    }
}

pub fn load(text: &str) -> Handle {
    let (text, mut module) = (CString::new(text).unwrap(), 0);
    ok(unsafe { cuModuleLoadData(Some(&mut module), text.as_ptr().cast()) });
    module
}

pub fn function(module: Handle, name: &str) -> Handle {
    let (name, mut function) = (CString::new(name).unwrap(), 0);
    ok(unsafe { cuModuleGetFunction(Some(&mut function), module, name.as_ptr()) });
    function
}

/// A kernel of [`PTX`].
pub fn kernel(name: &str) -> Handle {
    function(load(PTX), name)
}

pub fn stream(flags: u32) -> Handle {
    let mut stream = 0;
    ok(unsafe { cuStreamCreate(Some(&mut stream), flags) });
    stream
}

pub fn event(flags: u32) -> Handle {
    let mut event = 0;
    ok(unsafe { cuEventCreate(Some(&mut event), flags) });
    event
}

/// A new event, recorded.
pub fn mark(stream: Handle) -> Handle {
    let event = event(2);
    ok(unsafe { cuEventRecord(event, stream) });
    event
}

/// Device memory with these numbers in it.
pub fn upload(values: &[u32]) -> u64 {
    let mut address = 0;
    unsafe {
        ok(cuMemAlloc_v2(Some(&mut address), size_of_val(values)));
        ok(cuMemcpyHtoD_v2(address, values.as_ptr().cast(), size_of_val(values)));
    }
    address
}

/// What device memory holds now. Waits for nothing but its own, non-blocking stream.
pub fn peek(address: u64, count: usize) -> Vec<u32> {
    let stream = stream(NON_BLOCKING);
    let mut values = vec![0u32; count];
    unsafe {
        ok(cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), address, 4 * count, stream));
    }
    values
}

/// Page-locked memory for some numbers, all zero.
pub fn pinned(count: usize) -> *mut u32 {
    let mut pointer: *mut c_void = std::ptr::null_mut();
    ok(unsafe { cuMemHostAlloc(Some(&mut pointer), 4 * count, 0) });
    let numbers = pointer.cast::<u32>();
    for i in 0..count {
        unsafe { numbers.add(i).write(0) };
    }
    numbers
}

/// Launches `add` or `scale` over `count` numbers.
pub fn launch(
    function: Handle,
    stream: Handle,
    mut address: u64,
    mut count: u32,
    mut value: u32,
) -> CUresult {
    let mut parameters: [*mut c_void; 3] =
        [(&raw mut address).cast(), (&raw mut count).cast(), (&raw mut value).cast()];
    let parameters = parameters.as_mut_ptr();
    unsafe {
        cuLaunchKernel(
            function,
            count.div_ceil(64).max(1),
            1,
            1,
            64,
            1,
            1,
            0,
            stream,
            parameters,
            std::ptr::null_mut(),
        )
    }
}

pub fn synchronize(stream: Handle) {
    ok(unsafe { cuStreamSynchronize(stream) });
}
