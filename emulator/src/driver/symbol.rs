//! All functions by name, and `cuGetProcAddress`, by which the runtime library and others find them.

use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_NOT_SUPPORTED};
use super::module::text;
use super::session::guard;
use super::{
    CUresult, context, copy, device, error, event, fill, function, graph, graph_edge, graph_exec, graph_node,
    launch, memory, module, occupancy, pool, primary, stream, tensor_map, unsupported,
};
use std::ffi::{c_char, c_void};

/// The address of a function.
pub type Address = *const ();

macro_rules! table {
    ($($module:ident: $($name:ident)*;)*) => {
        /// Names and addresses of the functions that do something.
        const IMPLEMENTED: &[(&str, Address)] =
            &[$($((stringify!($name), $module::$name as Address)),*),*];
    };
}

table! {
    error:
        cuGetErrorName cuGetErrorString;
    device:
        cuInit cuDriverGetVersion cuDeviceGetCount cuDeviceGet cuDeviceGetAttribute cuDeviceGetName
        cuDeviceGetUuid cuDeviceGetUuid_v2 cuDeviceTotalMem_v2 cuDeviceComputeCapability
        cuDeviceGetProperties cuDeviceGetPCIBusId cuDeviceGetByPCIBusId cuDeviceCanAccessPeer;
    primary:
        cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset_v2
        cuDevicePrimaryCtxGetState cuDevicePrimaryCtxSetFlags_v2;
    context:
        cuCtxCreate_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxPushCurrent_v2 cuCtxPopCurrent_v2
        cuCtxSetCurrent cuCtxGetCurrent cuCtxGetDevice cuCtxGetFlags cuCtxSetFlags cuCtxGetId
        cuCtxGetApiVersion cuCtxSynchronize cuCtxGetLimit cuCtxSetLimit cuCtxGetCacheConfig
        cuCtxSetCacheConfig cuCtxGetSharedMemConfig cuCtxSetSharedMemConfig cuCtxGetStreamPriorityRange
        cuCtxResetPersistingL2Cache cuProfilerStart cuProfilerStop;
    module:
        cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleLoadFatBinary cuModuleUnload
        cuModuleGetFunction cuModuleGetFunctionCount cuModuleEnumerateFunctions cuModuleGetGlobal_v2
        cuModuleGetLoadingMode;
    function:
        cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig cuFuncSetSharedMemConfig cuFuncGetName
        cuFuncGetModule cuFuncGetParamInfo cuFuncIsLoaded cuFuncLoad;
    launch:
        cuLaunchKernel cuLaunchCooperativeKernel cuLaunchKernelEx cuLaunchHostFunc cuStreamAddCallback;
    occupancy:
        cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
        cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxPotentialBlockSize
        cuOccupancyMaxPotentialBlockSizeWithFlags;
    memory:
        cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemFree_v2 cuMemGetInfo_v2 cuMemGetAddressRange_v2
        cuMemAllocHost_v2 cuMemHostAlloc cuMemFreeHost cuMemHostGetDevicePointer_v2 cuMemHostGetFlags
        cuPointerGetAttribute cuPointerGetAttributes cuPointerSetAttribute;
    pool:
        cuMemAllocAsync cuMemAllocFromPoolAsync cuMemFreeAsync cuMemPoolCreate cuMemPoolDestroy
        cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo cuDeviceGetDefaultMemPool
        cuDeviceGetMemPool cuDeviceSetMemPool;
    copy:
        cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoD_v2
        cuMemcpyDtoDAsync_v2 cuMemcpy cuMemcpyAsync cuMemcpyPeer cuMemcpyPeerAsync cuMemcpy2D_v2
        cuMemcpy2DUnaligned_v2 cuMemcpy2DAsync_v2 cuMemcpy3D_v2 cuMemcpy3DAsync_v2;
    fill:
        cuMemsetD8_v2 cuMemsetD8Async cuMemsetD2D8_v2 cuMemsetD2D8Async cuMemsetD16_v2 cuMemsetD16Async
        cuMemsetD2D16_v2 cuMemsetD2D16Async cuMemsetD32_v2 cuMemsetD32Async cuMemsetD2D32_v2
        cuMemsetD2D32Async;
    stream:
        cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamSynchronize cuStreamQuery
        cuStreamWaitEvent cuStreamGetFlags cuStreamGetPriority cuStreamGetId cuStreamGetCtx
        cuStreamGetCtx_v2 cuStreamGetDevice cuStreamBeginCapture_v2 cuStreamEndCapture cuStreamIsCapturing
        cuStreamGetCaptureInfo_v2 cuStreamGetCaptureInfo_v3 cuStreamUpdateCaptureDependencies
        cuThreadExchangeStreamCaptureMode;
    event:
        cuEventCreate cuEventDestroy_v2 cuEventRecord cuEventRecordWithFlags cuEventQuery cuEventSynchronize
        cuEventElapsedTime cuEventElapsedTime_v2;
    graph:
        cuGraphCreate cuGraphDestroy cuGraphClone cuGraphNodeFindInClone cuGraphGetNodes cuGraphGetRootNodes
        cuGraphDestroyNode cuGraphDebugDotPrint;
    graph_edge:
        cuGraphGetEdges cuGraphGetEdges_v2 cuGraphNodeGetDependencies cuGraphNodeGetDependencies_v2
        cuGraphNodeGetDependentNodes cuGraphNodeGetDependentNodes_v2 cuGraphAddDependencies
        cuGraphAddDependencies_v2 cuGraphRemoveDependencies cuGraphRemoveDependencies_v2;
    graph_node:
        cuGraphAddKernelNode_v2 cuGraphAddMemcpyNode cuGraphAddMemsetNode cuGraphAddHostNode
        cuGraphAddEmptyNode cuGraphNodeGetType cuGraphKernelNodeGetParams_v2 cuGraphKernelNodeSetParams_v2
        cuGraphMemcpyNodeSetParams cuGraphMemsetNodeSetParams cuGraphMemsetNodeGetParams
        cuGraphHostNodeGetParams cuGraphHostNodeSetParams;
    graph_exec:
        cuGraphInstantiateWithFlags cuGraphInstantiateWithParams cuGraphExecDestroy cuGraphExecGetFlags
        cuGraphLaunch cuGraphUpload cuGraphExecKernelNodeSetParams_v2 cuGraphExecMemcpyNodeSetParams
        cuGraphExecMemsetNodeSetParams cuGraphExecHostNodeSetParams cuGraphNodeSetEnabled
        cuGraphNodeGetEnabled cuGraphExecUpdate_v2;
    tensor_map:
        cuTensorMapEncodeTiled;
}

/// `CUdriverProcAddressQueryResult`.
const FOUND: u32 = 0;
const NOT_FOUND: u32 = 1;
const VERSION_TOO_OLD: u32 = 2;

/// The CUDA versions from which a plain name stands for the numbered function, where that is not from the beginning.
const SINCE: &[(&str, i32)] = &[
    ("cuCtxCreate_v3", 11040),
    ("cuCtxCreate_v4", 12050),
    ("cuDeviceGetUuid_v2", 11040),
    ("cuEventElapsedTime_v2", 12080),
    ("cuGetProcAddress_v2", 12000),
    ("cuGraphAddDependencies_v2", 12030),
    ("cuGraphAddKernelNode_v2", 12000),
    ("cuGraphAddNode_v2", 12030),
    ("cuGraphExecKernelNodeSetParams_v2", 12000),
    ("cuGraphExecUpdate_v2", 12000),
    ("cuGraphGetEdges_v2", 12030),
    ("cuGraphKernelNodeGetParams_v2", 12000),
    ("cuGraphKernelNodeSetParams_v2", 12000),
    ("cuGraphNodeGetDependencies_v2", 12030),
    ("cuGraphNodeGetDependentNodes_v2", 12030),
    ("cuGraphRemoveDependencies_v2", 12030),
    ("cuMemAdvise_v2", 12020),
    ("cuMemPrefetchAsync_v2", 12020),
    ("cuStreamBatchMemOp_v2", 12000),
    ("cuStreamGetCaptureInfo_v2", 11030),
    ("cuStreamGetCaptureInfo_v3", 12030),
    ("cuStreamGetCtx_v2", 12050),
    ("cuStreamUpdateCaptureDependencies_v2", 12030),
    ("cuStreamWaitValue32_v2", 12000),
    ("cuStreamWaitValue64_v2", 12000),
    ("cuStreamWriteValue32_v2", 12000),
    ("cuStreamWriteValue64_v2", 12000),
];

/// All functions of the driver API that are exported, with their addresses.
pub fn functions() -> impl Iterator<Item = (&'static str, Address)> {
    let own = ("cuGetProcAddress_v2", cuGetProcAddress_v2 as Address);
    IMPLEMENTED.iter().chain(unsupported::TABLE).copied().chain([own])
}

/// Whether a function does anything but say that it is not supported.
pub fn is_supported(name: &str) -> bool {
    functions().any(|(other, _)| other == name) && !unsupported::TABLE.iter().any(|(other, _)| *other == name)
}

/// The number in a function's name: 2 for `cuMemAlloc_v2`, 1 where there is none.
fn split(name: &str) -> (&str, u32) {
    match name.rsplit_once("_v") {
        Some((base, number)) => number.parse().map_or((name, 1), |number| (base, number)),
        None => (name, 1),
    }
}

/// What a name stands for in a CUDA version: the function's own name, or the newest numbered one of that version.
fn resolve(name: &str, version: i32) -> Result<(&'static str, Address), u32> {
    let since = |name: &str| SINCE.iter().find(|(other, _)| *other == name).map_or(0, |(_, since)| *since);
    let (base, number) = split(name);
    let variants =
        functions().filter(|(other, _)| if number > 1 { *other == name } else { split(other).0 == base });
    let mut too_old = false;
    let best = variants
        .filter(|(other, _)| {
            too_old |= since(other) > version;
            since(other) <= version
        })
        .max_by_key(|(other, _)| split(other).1);
    best.ok_or(if too_old { VERSION_TOO_OLD } else { NOT_FOUND })
}

/// The address of a function by its name without a number, as of a CUDA version. Null and an error where there is none.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    address: Option<&mut *mut c_void>,
    version: i32,
    flags: u64,
    status: Option<&mut u32>,
) -> CUresult {
    guard(|| {
        // SAFETY: the function's contract.
        let name = unsafe { text(symbol) }.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let address = address.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        *address = std::ptr::null_mut();
        match flags {
            0 | 1 => {}
            // `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`
            2 => return Err(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        let (found, result) = match resolve(name, version) {
            Ok((_, found)) => (found, FOUND),
            Err(result) => (std::ptr::null(), result),
        };
        *address = found.cast_mut().cast();
        match status {
            // With a place for the status, a function that is not there is no error.
            Some(status) => *status = result,
            None if result != FOUND => return Err(CUDA_ERROR_NOT_FOUND),
            None => {}
        }
        if result == NOT_FOUND { Err(CUDA_ERROR_NOT_FOUND) } else { Ok(()) }
    })
}
