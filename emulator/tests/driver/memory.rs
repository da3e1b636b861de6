//! Allocations, pools and pointers.

use crate::setup::*;
use emulator::driver::Handle;
use emulator::driver::abi::PoolProperties;
use emulator::driver::copy::cuMemcpyDtoDAsync_v2;
use emulator::driver::error::*;
use emulator::driver::extension::*;
use emulator::driver::fill::cuMemsetD32Async;
use emulator::driver::memory::*;
use emulator::driver::pool::*;
use std::ffi::c_void;

fn free_bytes() -> usize {
    let (mut free, mut total) = (0, 0);
    ok(unsafe { cuMemGetInfo_v2(Some(&mut free), Some(&mut total)) });
    assert!(free <= total);
    free
}

#[test]
fn memory_is_allocated_and_freed() {
    let _device = device();
    let before = free_bytes();
    let (mut address, mut base, mut size) = (0, 0, 0);
    unsafe {
        ok(cuMemAlloc_v2(Some(&mut address), 1000));
        assert_eq!(address % 256, 0);
        assert!(free_bytes() <= before - 1000);
        ok(cuMemGetAddressRange_v2(Some(&mut base), Some(&mut size), address + 999));
        assert_eq!((base, size), (address, 1000));
        assert_eq!(cuMemGetAddressRange_v2(None, None, address + 1000), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemFree_v2(address + 4), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemFreeHost(address as *mut c_void), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemFree_v2(address));
        assert_eq!(cuMemFree_v2(address), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemFree_v2(0));
        assert_eq!(free_bytes(), before);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), 0), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), before + 1), CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(cuMemAlloc_v2(Some(&mut address), usize::MAX), CUDA_ERROR_OUT_OF_MEMORY);
        let mut pitch = 0;
        ok(cuMemAllocPitch_v2(Some(&mut address), Some(&mut pitch), 1000, 3, 4));
        assert_eq!(pitch, 1024);
        let bad = cuMemAllocPitch_v2(Some(&mut address), Some(&mut pitch), 1000, 3, 5);
        assert_eq!(bad, CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn freeing_waits_for_the_work_that_may_use_it() {
    let _device = device();
    let (add, stream, numbers, other) = (kernel("add"), stream(NON_BLOCKING), upload(&[1]), upload(&[0]));
    ok(launch(add, stream, numbers, 1, 1));
    unsafe {
        ok(cuMemcpyDtoDAsync_v2(other, numbers, 4, stream));
        ok(cuMemFree_v2(numbers));
    }
    assert_eq!(peek(other, 1), [2]);
}

#[test]
fn pinned_memory_is_the_hosts_and_the_devices() {
    let _device = device();
    let pointer = pinned(16);
    let (mut address, mut flags) = (0, 9);
    unsafe {
        ok(cuMemHostGetDevicePointer_v2(Some(&mut address), pointer.add(3).cast(), 0));
        assert_eq!(address, pointer.add(3) as u64);
        ok(cuMemHostGetFlags(Some(&mut flags), pointer.cast()));
        assert_eq!(flags, 0);
        ok(launch(kernel("add"), 0, address, 1, 5));
        synchronize(0);
        assert_eq!(pointer.add(3).read(), 5);
        assert_eq!(cuMemFree_v2(pointer as u64), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemFreeHost(pointer.cast()));
        assert_eq!(cuMemFreeHost(pointer.cast()), CUDA_ERROR_INVALID_VALUE);
        let mut pointer = std::ptr::null_mut();
        assert_eq!(cuMemHostAlloc(Some(&mut pointer), 4, 8), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn pointers_are_known() {
    let device = device();
    let (numbers, pointer) = (upload(&[1, 2]), pinned(1));
    let mut local = 5u32;
    let word = |which, address| {
        let mut value = 0xffff_ffffu32;
        (unsafe { cuPointerGetAttribute((&raw mut value).cast(), which, address) }, value)
    };
    let long = |which, address| {
        let mut value = 1u64;
        (unsafe { cuPointerGetAttribute((&raw mut value).cast(), which, address) }, value)
    };
    assert_eq!(word(2, numbers + 4), (0, 2));
    assert_eq!(word(2, pointer as u64), (0, 1));
    assert_eq!(word(9, numbers), (0, 0));
    assert_eq!(long(1, numbers), (0, device.context as u64));
    assert_eq!(long(3, numbers + 4), (0, numbers + 4));
    assert_eq!(long(11, numbers + 4), (0, numbers));
    assert_eq!(long(12, numbers + 4), (0, 8));
    assert_eq!(long(4, pointer as u64), (0, pointer as u64));
    assert_eq!(long(4, numbers).0, CUDA_ERROR_INVALID_VALUE, "no host pointer");
    assert_ne!(long(7, numbers).1, long(7, pointer as u64).1);
    assert_eq!(word(2, (&raw mut local) as u64).0, CUDA_ERROR_INVALID_VALUE);
    let (mut kind, mut start) = (9u32, 9u64);
    let mut places: [*mut c_void; 2] = [(&raw mut kind).cast(), (&raw mut start).cast()];
    unsafe {
        ok(cuPointerGetAttributes(2, [2u32, 11].as_ptr(), places.as_mut_ptr(), (&raw mut local) as u64));
        assert_eq!((kind, start), (0, 0));
        ok(cuPointerGetAttributes(2, [2u32, 11].as_ptr(), places.as_mut_ptr(), numbers + 4));
        assert_eq!((kind, start), (2, numbers));
    }
}

fn statistics(pool: Handle) -> [u64; 4] {
    [5, 6, 7, 8].map(|attribute| {
        let mut value = 0u64;
        ok(unsafe { cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()) });
        value
    })
}

#[test]
fn stream_ordered_frees_happen_in_order() {
    let _device = device();
    let (stream, mut address, out) = (stream(NON_BLOCKING), 0, pinned(1));
    let before = free_bytes();
    unsafe {
        ok(cuMemAllocAsync(Some(&mut address), 4096, stream));
        ok(cuMemsetD32Async(address, 7, 1024, stream));
        ok(cuMemcpyDtoDAsync_v2(out as u64, address, 4, stream));
        ok(cuMemFreeAsync(address, stream));
        assert_eq!(cuMemFreeAsync(address, stream), CUDA_ERROR_INVALID_VALUE, "twice");
        assert_eq!(cuMemFree_v2(address), CUDA_ERROR_INVALID_VALUE);
        assert!(free_bytes() < before, "not yet");
        synchronize(stream);
        assert_eq!((out.read(), free_bytes()), (7, before));
        assert_eq!(cuMemFreeAsync(address, stream), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemAllocAsync(Some(&mut address), 0, stream));
        assert_eq!(address, 0, "an empty allocation is null");
        ok(cuMemFreeAsync(address, stream));
        // Each kind of free takes either kind of memory.
        ok(cuMemAllocAsync(Some(&mut address), 4096, stream));
        ok(cuMemFree_v2(address));
        ok(cuMemFreeAsync(upload(&[1]), stream));
    }
}

#[test]
fn pools_count_what_they_hold() {
    let _device = device();
    let properties = PoolProperties {
        allocation: 1,
        handles: 0,
        location: 1,
        device: 0,
        security: 0,
        limit: 10_000,
        usage: 0,
        reserved: [0; 54],
    };
    let (stream, mut pool, mut first, mut second) = (stream(0), 0, 0, 0);
    let (mut refused, mut current_pool) = (0, 0);
    unsafe {
        ok(cuMemPoolCreate(Some(&mut pool), Some(&properties)));
        ok(cuMemAllocFromPoolAsync(Some(&mut first), 4000, pool, stream));
        ok(cuMemAllocFromPoolAsync(Some(&mut second), 2000, pool, stream));
        assert_eq!(statistics(pool), [6000; 4]);
        let full = cuMemAllocFromPoolAsync(Some(&mut refused), 5000, pool, stream);
        assert_eq!(full, CUDA_ERROR_OUT_OF_MEMORY);
        ok(cuMemFreeAsync(first, stream));
        assert_eq!(statistics(pool), [6000; 4], "not before the stream gets there");
        synchronize(stream);
        assert_eq!(statistics(pool), [2000, 6000, 2000, 6000]);
        let mut zero = 0u64;
        ok(cuMemPoolSetAttribute(pool, 8, (&raw mut zero).cast()));
        assert_eq!(statistics(pool), [2000, 6000, 2000, 2000]);
        let mut threshold = u64::MAX;
        ok(cuMemPoolSetAttribute(pool, 4, (&raw mut threshold).cast()));
        assert_eq!(cuMemPoolSetAttribute(pool, 8, (&raw mut threshold).cast()), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemPoolSetAttribute(pool, 5, (&raw mut zero).cast()), CUDA_ERROR_INVALID_VALUE);
        threshold = 0;
        ok(cuMemPoolGetAttribute(pool, 4, (&raw mut threshold).cast()));
        assert_eq!(threshold, u64::MAX);
        let (mut default, mut handle) = (0, 0u64);
        ok(cuDeviceGetDefaultMemPool(Some(&mut default), 0));
        ok(cuDeviceSetMemPool(0, pool));
        ok(cuDeviceGetMemPool(Some(&mut current_pool), 0));
        assert_eq!(current_pool, pool);
        ok(cuMemAllocAsync(Some(&mut first), 8, stream));
        ok(cuPointerGetAttribute((&raw mut handle).cast(), 17, first));
        assert_eq!(handle, pool as u64, "the current pool");
        ok(cuMemPoolTrimTo(pool, 0));
        ok(cuMemPoolDestroy(pool));
        ok(cuDeviceGetMemPool(Some(&mut pool), 0));
        assert_eq!(pool, default, "the default pool is current again");
        ok(cuMemFreeAsync(second, stream));
        ok(cuMemFreeAsync(first, stream));
        synchronize(stream);
        assert_eq!(cuMemPoolDestroy(default), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemPoolTrimTo(12345, 0), CUDA_ERROR_INVALID_VALUE);
        let shared = PoolProperties { handles: 1, ..properties };
        assert_eq!(cuMemPoolCreate(Some(&mut pool), Some(&shared)), CUDA_ERROR_NOT_SUPPORTED);
    }
}

#[test]
fn a_full_device_waits_for_queued_frees() {
    let _device = device();
    let (stream, most, mut first, mut second) = (stream(0), free_bytes() / 4 * 3, 0, 0);
    unsafe {
        ok(cuMemAllocAsync(Some(&mut first), most, stream));
        assert_eq!(cuMemAllocAsync(Some(&mut second), most, stream), CUDA_ERROR_OUT_OF_MEMORY);
        ok(cuMemFreeAsync(first, stream));
        ok(cuMemAllocAsync(Some(&mut second), most, stream));
    }
}

#[test]
fn memory_is_named_and_marked() {
    let _device = device();
    let numbers = upload(&[1, 2]);
    unsafe {
        ok(pretextEmulatedSetTag(numbers, c"weights".as_ptr()));
        assert_eq!(pretextEmulatedSetTag(numbers + 4, c"x".as_ptr()), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(pretextEmulatedSetTag(numbers, std::ptr::null()), CUDA_ERROR_INVALID_VALUE);
        ok(pretextEmulatedMarkUninitialised(numbers, 8));
        assert_eq!(pretextEmulatedMarkUninitialised(numbers, 12), CUDA_ERROR_INVALID_VALUE);
    }
    assert_eq!(pretextEmulatedVersion(), 1);
}
