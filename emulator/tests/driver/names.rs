//! The functions' names and the structures' layouts, against what cudarc binds to.

use crate::setup::*;
use cudarc::driver::sys;
use emulator::driver::abi;
use emulator::driver::error::*;
use emulator::driver::symbol::{cuGetProcAddress_v2, functions, is_supported};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::mem::offset_of;
use std::path::Path;

/// The functions of CUDA 12.8 in cudarc 0.19.10's bindings.
const NAMES: &str = include_str!("names.txt");

#[test]
fn every_function_that_cudarc_can_ask_for_is_there() {
    let mut ours = BTreeSet::new();
    for (name, address) in functions() {
        assert!(ours.insert(name), "{name} is there twice");
        assert!(!address.is_null());
    }
    let missing: Vec<&str> = NAMES.lines().filter(|name| !ours.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(NAMES.lines().count() > 400);
    assert!(is_supported("cuMemAlloc_v2") && !is_supported("cuTexRefCreate") && !is_supported("cuNothing"));
}

#[test]
fn every_function_in_the_table_is_exported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver");
    let mut exported = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (before, line) in lines.iter().zip(lines.iter().skip(1)) {
            if let Some((_, rest)) = line.split_once("extern \"C\" fn ") {
                let export = *before == "#[cfg_attr(driver_library, unsafe(no_mangle))]";
                assert!(export, "no export before: {line}");
                exported.insert(rest.split('(').next().unwrap().to_owned());
            }
        }
    }
    for (name, _) in functions().filter(|(name, _)| is_supported(name) && !name.starts_with("cuMemsetD")) {
        assert!(exported.contains(name), "{name}");
    }
    for name in ["Version", "SetTag", "MarkUninitialised", "LastReport", "Counters", "SetOption"] {
        assert!(exported.contains(&format!("pretextEmulated{name}")), "{name}");
    }
}

#[test]
fn structures_are_laid_out_as_in_the_header() {
    macro_rules! same {
        ($own:ty, $sys:ty, $($field:ident $other:ident),*) => {
            assert_eq!(size_of::<$own>(), size_of::<$sys>(), stringify!($own));
            $(assert_eq!(offset_of!($own, $field), offset_of!($sys, $other), stringify!($own, $field));)*
        };
    }
    same!(
        abi::LaunchConfig,
        sys::CUlaunchConfig,
        block blockDimX,
        shared sharedMemBytes,
        stream hStream,
        attributes attrs,
        attribute_count numAttrs
    );
    same!(abi::LaunchAttribute, sys::CUlaunchAttribute, id id, value value);
    same!(
        abi::KernelNodeParams,
        sys::CUDA_KERNEL_NODE_PARAMS,
        function func,
        grid gridDimX,
        block blockDimX,
        shared sharedMemBytes,
        parameters kernelParams,
        extra extra,
        kernel kern,
        context ctx
    );
    same!(
        abi::MemsetNodeParams,
        sys::CUDA_MEMSET_NODE_PARAMS,
        destination dst,
        pitch pitch,
        value value,
        element elementSize,
        width width,
        height height
    );
    same!(abi::Memcpy2D, sys::CUDA_MEMCPY2D, destination dstXInBytes, width WidthInBytes, height Height);
    assert_eq!(offset_of!(abi::Side2D, kind), offset_of!(sys::CUDA_MEMCPY2D, srcMemoryType));
    assert_eq!(offset_of!(abi::Side2D, host), offset_of!(sys::CUDA_MEMCPY2D, srcHost));
    assert_eq!(offset_of!(abi::Side2D, device), offset_of!(sys::CUDA_MEMCPY2D, srcDevice));
    assert_eq!(offset_of!(abi::Side2D, pitch), offset_of!(sys::CUDA_MEMCPY2D, srcPitch));
    same!(
        abi::Memcpy3D,
        sys::CUDA_MEMCPY3D,
        destination dstXInBytes,
        width WidthInBytes,
        height Height,
        depth Depth
    );
    assert_eq!(offset_of!(abi::Side3D, level), offset_of!(sys::CUDA_MEMCPY3D, srcLOD));
    assert_eq!(offset_of!(abi::Side3D, kind), offset_of!(sys::CUDA_MEMCPY3D, srcMemoryType));
    assert_eq!(offset_of!(abi::Side3D, device), offset_of!(sys::CUDA_MEMCPY3D, srcDevice));
    assert_eq!(offset_of!(abi::Side3D, pitch), offset_of!(sys::CUDA_MEMCPY3D, srcPitch));
    assert_eq!(offset_of!(abi::Side3D, height), offset_of!(sys::CUDA_MEMCPY3D, srcHeight));
    same!(abi::HostNodeParams, sys::CUDA_HOST_NODE_PARAMS, function fn_, data userData);
    same!(
        abi::PoolProperties,
        sys::CUmemPoolProps,
        allocation allocType,
        handles handleTypes,
        location location,
        limit maxSize,
        usage usage
    );
    same!(abi::UpdateResult, sys::CUgraphExecUpdateResultInfo, result result, node errorNode, from errorFromNode);
    same!(
        abi::InstantiateParams,
        sys::CUDA_GRAPH_INSTANTIATE_PARAMS,
        flags flags,
        stream hUploadStream,
        node hErrNode_out,
        result result_out
    );
    same!(abi::EdgeData, sys::CUgraphEdgeData, from_port from_port, to_port to_port, kind type_);
    same!(abi::DeviceProperties, sys::CUdevprop, max_grid maxGridSize, warp SIMDWidth, texture textureAlign);
}

#[test]
fn names_stand_for_the_function_of_their_version() {
    let ask = |name: &str, version| {
        let (name, mut address, mut status) = (CString::new(name).unwrap(), std::ptr::null_mut(), 9);
        let code =
            unsafe { cuGetProcAddress_v2(name.as_ptr(), Some(&mut address), version, 0, Some(&mut status)) };
        let found = functions().find(|(_, other)| *other == address.cast_const().cast::<()>());
        (code, found.map(|(name, _)| name), status)
    };
    // Functions without a body of their own may share an address, so only these names are told apart by it.
    assert_eq!(ask("cuMemAlloc", 12080), (0, Some("cuMemAlloc_v2"), 0));
    assert_eq!(ask("cuMemAlloc_v2", 12080), (0, Some("cuMemAlloc_v2"), 0));
    assert_eq!(ask("cuInit", 12080), (0, Some("cuInit"), 0));
    assert_eq!(ask("cuStreamGetCaptureInfo", 12080).1, Some("cuStreamGetCaptureInfo_v3"));
    assert_eq!(ask("cuStreamGetCaptureInfo", 12020).1, Some("cuStreamGetCaptureInfo_v2"));
    assert_eq!(ask("cuStreamGetCaptureInfo", 10000), (0, None, 2));
    assert_eq!(ask("cuCtxCreate", 12080).1, Some("cuCtxCreate_v4"));
    assert_eq!(ask("cuCtxCreate", 11000).1, Some("cuCtxCreate_v2"));
    assert_eq!(ask("cuNothing", 12080), (CUDA_ERROR_NOT_FOUND, None, 1));
    let mut address = std::ptr::null_mut();
    unsafe {
        assert_eq!(
            cuGetProcAddress_v2(std::ptr::null(), Some(&mut address), 12080, 0, None),
            CUDA_ERROR_INVALID_VALUE
        );
        ok(cuGetProcAddress_v2(c"cuGetProcAddress".as_ptr(), Some(&mut address), 12080, 0, None));
    }
    assert_eq!(address.cast_const().cast::<()>(), cuGetProcAddress_v2 as *const ());
}

#[test]
fn what_is_not_supported_says_so() {
    assert_eq!(unsafe { emulator::driver::unsupported::cuTensorMapEncodeIm2col() }, CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(unsafe { emulator::driver::unsupported::cuMemAllocManaged() }, CUDA_ERROR_NOT_SUPPORTED);
}
