//! Modules, functions, launches and occupancy: what is taken and what is refused.

use crate::setup::*;
use emulator::driver::Handle;
use emulator::driver::abi::{LaunchAttribute, LaunchConfig};
use emulator::driver::copy::cuMemcpyDtoH_v2;
use emulator::driver::error::*;
use emulator::driver::function::*;
use emulator::driver::launch::*;
use emulator::driver::module::*;
use emulator::driver::occupancy::*;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;

#[test]
fn modules_have_kernels_and_variables() {
    let _device = device();
    let module = load(PTX);
    let (mut count, mut address, mut bytes, mut function, mut owner) = (0, 0, 0, 0, 0);
    let mut table = [0u32; 4];
    unsafe {
        ok(cuModuleGetFunctionCount(Some(&mut count), module));
        assert_eq!(count, 7);
        let mut functions = [0; 7];
        ok(cuModuleEnumerateFunctions(functions.as_mut_ptr(), 7, module));
        let mut name = std::ptr::null();
        ok(cuFuncGetName(Some(&mut name), functions[1]));
        assert_eq!(CStr::from_ptr(name), c"scale");
        ok(cuModuleGetFunction(Some(&mut function), module, c"scale".as_ptr()));
        assert_eq!(function, functions[1]);
        ok(cuFuncGetModule(Some(&mut owner), function));
        assert_eq!(owner, module);
        ok(cuModuleGetGlobal_v2(Some(&mut address), Some(&mut bytes), module, c"table".as_ptr()));
        assert_eq!(bytes, 16);
        ok(cuMemcpyDtoH_v2(table.as_mut_ptr().cast(), address, 16));
        assert_eq!(table, [7, 8, 9, 10]);
        assert_eq!(cuModuleGetFunction(Some(&mut function), module, c"none".as_ptr()), CUDA_ERROR_NOT_FOUND);
        assert_eq!(cuModuleGetFunction(Some(&mut function), 99, c"add".as_ptr()), CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(
            cuModuleGetFunction(Some(&mut function), module, std::ptr::null()),
            CUDA_ERROR_INVALID_VALUE
        );
        let missing = cuModuleGetGlobal_v2(Some(&mut address), None, module, c"none".as_ptr());
        assert_eq!(missing, CUDA_ERROR_NOT_FOUND);
        let (mut offset, mut size) = (0, 0);
        ok(cuFuncGetParamInfo(functions[0], 2, Some(&mut offset), Some(&mut size)));
        assert_eq!((offset, size), (12, 4));
        assert_eq!(cuFuncGetParamInfo(functions[0], 3, Some(&mut offset), None), CUDA_ERROR_INVALID_VALUE);
        ok(cuModuleUnload(module));
        assert_eq!(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(launch(functions[0], 0, 0, 1, 1), CUDA_ERROR_INVALID_HANDLE);
    }
}

/// Loads with log buffers: the code, the error log, and its length as the options report it.
fn load_logged(image: *const c_void) -> (u32, String, usize) {
    let (mut info, mut error) = ([1 as c_char; 16], [1 as c_char; 256]);
    let options = [4u32, 3, 5, 6];
    let mut values: [*mut c_void; 4] =
        [16 as *mut c_void, info.as_mut_ptr().cast(), error.as_mut_ptr().cast(), 256 as *mut c_void];
    let mut module = 0;
    let code =
        unsafe { cuModuleLoadDataEx(Some(&mut module), image, 4, options.as_ptr(), values.as_mut_ptr()) };
    assert_eq!((info[0], values[0] as usize), (0, 0), "nothing to inform of");
    let log = unsafe { CStr::from_ptr(error.as_ptr()) }.to_str().unwrap().to_owned();
    (code, log, values[3] as usize)
}

#[test]
fn refused_images_say_why() {
    let _device = device();
    let (code, log, length) = load_logged(c"this is no module".as_ptr().cast());
    assert_eq!(code, CUDA_ERROR_INVALID_PTX);
    assert!(log.contains("line 1") && log.len() == length, "{log}");
    for magic in [b"\x7fELF", &[0x50, 0xed, 0x55, 0xba]] {
        let mut image = [0u8; 64];
        image[..4].copy_from_slice(magic);
        let (code, log, _) = load_logged(image.as_ptr().cast());
        assert_eq!(code, CUDA_ERROR_NO_BINARY_FOR_GPU);
        assert!(log.contains("takes PTX"), "{log}");
    }
    assert_eq!(load_logged(std::ptr::null()).0, CUDA_ERROR_INVALID_VALUE);
    assert_eq!(load_logged(c"".as_ptr().cast()).0, CUDA_ERROR_INVALID_PTX);
    let newer = CString::new(PTX.replace("sm_80", "sm_90")).unwrap();
    ok(load_logged(newer.as_ptr().cast()).0);
    ok(set_option("ARCH", "80"));
    let (code, log, _) = load_logged(newer.as_ptr().cast());
    assert_eq!(code, CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert!(log.contains("sm_90") && log.contains("sm_80"), "{log}");
    let mut module = 0;
    unsafe {
        assert_eq!(cuModuleLoad(Some(&mut module), c"/nowhere.ptx".as_ptr()), CUDA_ERROR_FILE_NOT_FOUND);
        let path = std::env::temp_dir().join(format!("driver-test-{}.ptx", std::process::id()));
        std::fs::write(&path, PTX).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        ok(cuModuleLoad(Some(&mut module), name.as_ptr()));
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn parameters_come_as_pointers_or_as_a_buffer() {
    let _device = device();
    let (add, numbers) = (kernel("add"), upload(&[1]));
    let mut buffer = [0u8; 16];
    buffer[..8].copy_from_slice(&numbers.to_le_bytes());
    buffer[8..12].copy_from_slice(&1u32.to_le_bytes());
    buffer[12..].copy_from_slice(&41u32.to_le_bytes());
    let size = std::cell::Cell::new(16usize);
    let go = |extra: &mut [*mut c_void], parameters: *mut *mut c_void| unsafe {
        cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, 0, parameters, extra.as_mut_ptr())
    };
    let tags = [1usize, 2].map(|tag| tag as *mut c_void);
    let mut extra =
        [tags[0], buffer.as_mut_ptr().cast(), tags[1], size.as_ptr().cast::<c_void>(), null_mut()];
    ok(go(&mut extra, null_mut()));
    buffer[12..].copy_from_slice(&100u32.to_le_bytes());
    synchronize(0);
    assert_eq!(peek(numbers, 1), [42], "the parameters are those of the call");
    let mut null = [null_mut::<c_void>(); 3];
    assert_eq!(go(&mut extra, null.as_mut_ptr()), CUDA_ERROR_INVALID_VALUE, "both");
    size.set(12);
    assert_eq!(go(&mut extra, null_mut()), CUDA_ERROR_INVALID_VALUE, "too short");
    assert_eq!(go(&mut [9 as *mut c_void, null_mut()], null_mut()), CUDA_ERROR_INVALID_VALUE, "no such tag");
    unsafe {
        let none = cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, 0, null_mut(), null_mut());
        assert_eq!(none, CUDA_ERROR_INVALID_VALUE);
        let nulls = cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, 0, null.as_mut_ptr(), null_mut());
        assert_eq!(nulls, CUDA_ERROR_INVALID_VALUE);
    }
}

fn bare(function: Handle, grid: [u32; 3], block: [u32; 3], shared: u32) -> u32 {
    unsafe {
        cuLaunchKernel(
            function,
            grid[0],
            grid[1],
            grid[2],
            block[0],
            block[1],
            block[2],
            shared,
            0,
            null_mut(),
            null_mut(),
        )
    }
}

#[test]
fn launches_that_no_device_takes_are_refused() {
    let _device = device();
    let module = load(PTX);
    let (nothing, bounded) = (function(module, "nothing"), function(module, "bounded"));
    ok(bare(nothing, [1, 1, 1], [1024, 1, 1], 0));
    ok(bare(nothing, [1, 1, 1], [1, 16, 64], 48 << 10));
    ok(bare(bounded, [1, 1, 1], [128, 1, 1], 0));
    for (function, grid, block, shared) in [
        (nothing, [0, 1, 1], [1, 1, 1], 0),
        (nothing, [1, 0, 1], [1, 1, 1], 0),
        (nothing, [1, 1, 1], [1, 0, 1], 0),
        (nothing, [1, 65536, 1], [1, 1, 1], 0),
        (nothing, [1 << 31, 1, 1], [1, 1, 1], 0),
        (nothing, [1, 1, 1], [1025, 1, 1], 0),
        (nothing, [1, 1, 1], [32, 33, 1], 0),
        (nothing, [1, 1, 1], [1, 1, 65], 0),
        (nothing, [1, 1, 1], [65536, 65536, 65536], 0),
        (nothing, [1, 1, 1], [1, 1, 1], (48 << 10) + 1),
        (bounded, [1, 1, 1], [129, 1, 1], 0),
    ] {
        assert_eq!(
            bare(function, grid, block, shared),
            CUDA_ERROR_INVALID_VALUE,
            "{grid:?} {block:?} {shared}"
        );
    }
    for bad in [0, module, usize::MAX] {
        assert_eq!(bare(bad, [1, 1, 1], [1, 1, 1], 0), CUDA_ERROR_INVALID_HANDLE);
    }
    synchronize(0);
}

#[test]
fn more_shared_memory_has_to_be_asked_for() {
    let _device = device();
    let shared = kernel("shared");
    let mut value = 0;
    unsafe {
        ok(cuFuncGetAttribute(Some(&mut value), 1, shared));
        assert_eq!(value, 1024);
        ok(cuFuncGetAttribute(Some(&mut value), 8, shared));
        assert_eq!(value, 47 << 10);
        assert_eq!(bare(shared, [1, 1, 1], [1, 1, 1], (47 << 10) + 1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuFuncSetAttribute(shared, 8, (226 << 10) + 1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuFuncSetAttribute(shared, 8, -1), CUDA_ERROR_INVALID_VALUE);
        ok(cuFuncSetAttribute(shared, 8, 226 << 10));
        ok(cuFuncGetAttribute(Some(&mut value), 8, shared));
        assert_eq!(value, 226 << 10);
        ok(bare(shared, [1, 1, 1], [1, 1, 1], 226 << 10));
        synchronize(0);
        ok(cuFuncGetAttribute(Some(&mut value), 0, kernel("bounded")));
        assert_eq!(value, 128);
        ok(cuFuncGetAttribute(Some(&mut value), 5, shared));
        assert_eq!(value, 80);
        ok(cuFuncGetAttribute(Some(&mut value), 6, shared));
        assert_eq!(value, 90);
        assert_eq!(cuFuncGetAttribute(Some(&mut value), 99, shared), CUDA_ERROR_INVALID_VALUE);
        ok(cuFuncSetCacheConfig(shared, 1));
        assert_eq!(cuFuncSetCacheConfig(shared, 4), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn attributes_of_launches_are_cooperation_and_clusters_of_one() {
    let _device = device();
    let nothing = kernel("nothing");
    let go = |id, value: [u64; 8], blocks| {
        let attribute = LaunchAttribute { id, pad: 0, value };
        let config = LaunchConfig {
            grid: [blocks, 1, 1],
            block: [1024, 1, 1],
            shared: 0,
            stream: 0,
            attributes: &raw const attribute,
            attribute_count: 1,
        };
        unsafe { cuLaunchKernelEx(Some(&config), nothing, null_mut(), null_mut()) }
    };
    let cluster = |x: u64| [x | 1 << 32, 1, 0, 0, 0, 0, 0, 0];
    let word = |word: u64| [word, 0, 0, 0, 0, 0, 0, 0];
    ok(go(0, word(5), 1));
    ok(go(4, cluster(1), 1));
    assert_eq!(go(4, cluster(2), 2), CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(go(6, word(1), 1), CUDA_ERROR_NOT_SUPPORTED);
    ok(go(2, word(1), 264));
    assert_eq!(go(2, word(1), 265), CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    ok(go(2, word(0), 265));
    unsafe {
        ok(cuLaunchCooperativeKernel(nothing, 264, 1, 1, 1024, 1, 1, 0, 0, null_mut()));
        let large = cuLaunchCooperativeKernel(nothing, 133, 2, 1, 1024, 1, 1, 0, 0, null_mut());
        assert_eq!(large, CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        assert_eq!(cuLaunchKernelEx(None, nothing, null_mut(), null_mut()), CUDA_ERROR_INVALID_VALUE);
    }
    synchronize(0);
}

#[test]
fn occupancy_is_asked_for() {
    let _device = device();
    let (nothing, bounded) = (kernel("nothing"), kernel("bounded"));
    let (mut blocks, mut grid, mut block, mut bytes) = (0, 0, 0, 0);
    unsafe extern "C" fn shared_of(threads: i32) -> usize {
        threads as usize * 1024
    }
    unsafe {
        ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(Some(&mut blocks), nothing, 256, 0));
        assert_eq!(blocks, 8);
        ok(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            Some(&mut blocks),
            nothing,
            32,
            100 << 10,
            1,
        ));
        assert_eq!(blocks, 2);
        ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(Some(&mut blocks), bounded, 256, 0));
        assert_eq!(blocks, 0);
        let zero = cuOccupancyMaxActiveBlocksPerMultiprocessor(Some(&mut blocks), nothing, 0, 0);
        assert_eq!(zero, CUDA_ERROR_INVALID_VALUE);
        ok(cuOccupancyMaxPotentialBlockSize(Some(&mut grid), Some(&mut block), nothing, None, 0, 0));
        assert_eq!((grid, block), (264, 1024));
        ok(cuOccupancyMaxPotentialBlockSize(Some(&mut grid), Some(&mut block), bounded, None, 0, 0));
        assert_eq!((grid, block), (16 * 132, 128));
        ok(cuOccupancyMaxPotentialBlockSize(
            Some(&mut grid),
            Some(&mut block),
            nothing,
            Some(shared_of),
            0,
            0,
        ));
        assert_eq!((grid, block), (132, 224), "one KiB a thread: 224 threads on each");
        ok(cuOccupancyAvailableDynamicSMemPerBlock(Some(&mut bytes), nothing, 2, 128));
        assert_eq!(bytes, 113 << 10);
    }
}
