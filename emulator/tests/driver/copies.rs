//! Copies and fills of rows, and what copies refuse.

use crate::setup::*;
use emulator::driver::abi::{Memcpy2D, Memcpy3D, Side2D, Side3D};
use emulator::driver::copy::*;
use emulator::driver::error::*;
use emulator::driver::fill::*;
use std::ffi::c_void;

const HOST: u32 = 1;
const DEVICE: u32 = 2;
const UNIFIED: u32 = 4;

fn side(kind: u32, address: u64, x: usize, y: usize, pitch: usize) -> Side2D {
    Side2D { x, y, kind, host: address as *mut c_void, device: address, array: 0, pitch }
}

#[test]
fn rows_are_copied_between_hosts_and_devices() {
    let _device = device();
    // A window of 2 x 3 numbers at (1, 2) of a 4 x 6 picture, out and back into another place.
    let picture: Vec<u32> = (0..24).collect();
    let window = |y: usize, x: usize| picture[(2 + y) * 4 + 1 + x];
    let source = picture.as_ptr() as u64;
    for kind in [HOST, DEVICE, UNIFIED] {
        let device = upload(&picture);
        let from = if kind == DEVICE { device } else { source };
        let small = upload(&[99; 8]);
        let copy = Memcpy2D {
            source: side(kind, from, 4, 2, 16),
            destination: side(DEVICE, small, 0, 0, 12),
            width: 8,
            height: 3,
        };
        ok(unsafe { cuMemcpy2D_v2(&raw const copy) });
        synchronize(0);
        let expected =
            [window(0, 0), window(0, 1), 99, window(1, 0), window(1, 1), 99, window(2, 0), window(2, 1)];
        assert_eq!(peek(small, 8), expected, "kind {kind}");
        let mut back = [7u32; 12];
        let copy = Memcpy2D {
            source: side(DEVICE, small, 0, 0, 12),
            destination: side(HOST, back.as_mut_ptr() as u64, 4, 1, 12),
            width: 8,
            height: 2,
        };
        ok(unsafe { cuMemcpy2DUnaligned_v2(&raw const copy) });
        assert_eq!(back, [7, 7, 7, 7, window(0, 0), window(0, 1), 7, window(1, 0), window(1, 1), 7, 7, 7]);
    }
}

#[test]
fn queued_rows_are_staged_or_queued() {
    let _device = device();
    let (stream, target) = (stream(NON_BLOCKING), upload(&[0; 4]));
    let mut rows = [1u32, 2, 3, 4, 5, 6];
    let copy = Memcpy2D {
        source: side(HOST, rows.as_ptr() as u64, 0, 0, 12),
        destination: side(DEVICE, target, 0, 0, 8),
        width: 8,
        height: 2,
    };
    ok(unsafe { cuMemcpy2DAsync_v2(&raw const copy, stream) });
    rows.fill(0);
    assert_eq!(peek(target, 4), [0; 4]);
    synchronize(stream);
    assert_eq!(peek(target, 4), [1, 2, 4, 5]);
    assert_eq!(rows, [0; 6]);
}

#[test]
fn slices_are_copied() {
    let _device = device();
    let volume: Vec<u32> = (0..24).collect();
    let target = upload(&[0; 8]);
    let side = |kind, address: u64, pitch, height| Side3D {
        x: 4,
        y: 1,
        z: 0,
        level: 0,
        kind,
        host: address as *mut c_void,
        device: address,
        array: 0,
        reserved: 0,
        pitch,
        height,
    };
    let copy = Memcpy3D {
        source: side(HOST, volume.as_ptr() as u64, 16, 3),
        destination: Side3D { x: 0, y: 0, ..side(DEVICE, target, 8, 2) },
        width: 8,
        height: 2,
        depth: 2,
    };
    ok(unsafe { cuMemcpy3D_v2(&raw const copy) });
    assert_eq!(peek(target, 8), [5, 6, 9, 10, 17, 18, 21, 22]);
}

#[test]
fn wrong_copies_are_refused() {
    let _device = device();
    let (numbers, host) = (upload(&[0; 4]), [0u32; 64]);
    let at = host.as_ptr() as u64;
    let copy = |source: Side2D, destination: Side2D, width, height| {
        let copy = Memcpy2D { source, destination, width, height };
        unsafe { cuMemcpy2D_v2(&raw const copy) }
    };
    let good = side(HOST, at, 0, 0, 8);
    ok(copy(good, side(DEVICE, numbers, 0, 0, 8), 8, 2));
    ok(copy(good, side(DEVICE, numbers, 0, 0, 8), 8, 0));
    for (source, destination, width, height) in [
        (good, side(DEVICE, numbers, 0, 0, 8), 8, 3),
        (good, side(DEVICE, numbers, 0, 1, 8), 8, 2),
        (good, side(DEVICE, numbers, 0, 0, 4), 8, 2),
        (good, side(9, numbers, 0, 0, 8), 8, 2),
        (good, side(DEVICE, at, 0, 0, 8), 8, 2),
        (side(HOST, 0, 0, 0, 8), side(DEVICE, numbers, 0, 0, 8), 8, 2),
        (good, side(DEVICE, numbers, usize::MAX, usize::MAX, usize::MAX), 8, 2),
        (good, side(DEVICE, numbers, 0, 0, 1 << 62), 8, usize::MAX),
    ] {
        assert_eq!(copy(source, destination, width, height), CUDA_ERROR_INVALID_VALUE, "{destination:?}");
    }
    assert_eq!(copy(good, side(3, numbers, 0, 0, 8), 8, 2), CUDA_ERROR_NOT_SUPPORTED);
    unsafe {
        assert_eq!(cuMemcpy2D_v2(std::ptr::null()), CUDA_ERROR_INVALID_VALUE);
        let source = host.as_ptr().cast();
        assert_eq!(cuMemcpyHtoD_v2(numbers, source, 17), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemcpyHtoD_v2(numbers + 16, source, 1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemcpyHtoD_v2(0, source, 4), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemcpyHtoD_v2(numbers, std::ptr::null(), 4), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemcpyDtoD_v2(numbers, at, 4), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemcpyHtoDAsync_v2(numbers, source, 4, 99), CUDA_ERROR_INVALID_HANDLE);
        ok(cuMemcpyHtoD_v2(numbers, std::ptr::null(), 0));
    }
}

#[test]
fn any_two_places_are_told_apart() {
    let device = device();
    let (numbers, other) = (upload(&[1, 2]), upload(&[0, 0]));
    let (mut host, pinned) = ([0u32; 2], pinned(2));
    unsafe {
        ok(cuMemcpy(host.as_mut_ptr() as u64, numbers, 8));
        assert_eq!(host, [1, 2]);
        ok(cuMemcpy(pinned as u64, host.as_ptr() as u64, 8));
        assert_eq!(pinned.add(1).read(), 2);
        ok(cuMemcpyAsync(other, pinned as u64, 8, 0));
        synchronize(0);
        assert_eq!(peek(other, 2), [1, 2]);
        ok(cuMemcpyPeer(other, device.context, numbers + 4, device.context, 4));
        synchronize(0);
        assert_eq!(peek(other, 1), [2]);
        let wrong = cuMemcpyPeer(other, 5, numbers, device.context, 4);
        assert_eq!(wrong, CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn fills_are_of_one_two_or_four_bytes() {
    let _device = device();
    let numbers = upload(&[0; 4]);
    unsafe {
        ok(cuMemsetD8_v2(numbers, 0x11, 4));
        ok(cuMemsetD16_v2(numbers + 4, 0x2233, 2));
        ok(cuMemsetD32_v2(numbers + 8, 0x4455_6677, 1));
        synchronize(0);
        assert_eq!(peek(numbers, 4), [0x1111_1111, 0x2233_2233, 0x4455_6677, 0]);
        ok(cuMemsetD2D8_v2(numbers + 1, 4, 0xff, 2, 3));
        synchronize(0);
        assert_eq!(peek(numbers, 4), [0x11ff_ff11, 0x22ff_ff33, 0x44ff_ff77, 0]);
        assert_eq!(cuMemsetD16_v2(numbers + 1, 0, 1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemsetD32_v2(numbers + 2, 0, 1), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemsetD32_v2(numbers, 0, 5), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemsetD32_v2(numbers, 0, usize::MAX), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemsetD2D32_v2(numbers, 2, 0, 1, 2), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(cuMemsetD8_v2(12345, 0, 1), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemsetD8_v2(numbers, 0, 0));
    }
}
