//! The structures that cross the driver's ABI, as `cuda.h` 12.8 lays them out on 64-bit Linux.

use super::Handle;
use std::ffi::c_void;

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// The stream.
    pub stream: Handle,
    /// Launch attributes.
    pub attributes: *const LaunchAttribute,
    /// How many.
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchAttribute {
    /// `CUlaunchAttributeID`.
    pub id: u32,
    /// Unused.
    pub pad: u32,
    /// The value's 64 bytes: a union that depends on the id.
    pub value: [u64; 8],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelNodeParams {
    /// The function.
    pub function: Handle,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// Pointers to the parameters.
    pub parameters: *mut *mut c_void,
    /// The parameters in one buffer instead.
    pub extra: *mut *mut c_void,
    /// A `CUkernel` in place of the function: not supported.
    pub kernel: Handle,
    /// The context, or null for the current one.
    pub context: Handle,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemsetNodeParams {
    /// First byte.
    pub destination: u64,
    /// Bytes from row to row.
    pub pitch: usize,
    /// The value.
    pub value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub element: u32,
    /// Elements in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side2D {
    /// Bytes to skip in each row.
    pub x: usize,
    /// Rows to skip.
    pub y: usize,
    /// `CUmemorytype`: 1 host, 2 device, 3 array, 4 unified.
    pub kind: u32,
    /// The host pointer, where it is host memory.
    pub host: *mut c_void,
    /// The device pointer, where it is device or unified memory.
    pub device: u64,
    /// The array: not supported.
    pub array: Handle,
    /// Bytes from row to row.
    pub pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memcpy2D {
    /// Where from.
    pub source: Side2D,
    /// Where to.
    pub destination: Side2D,
    /// Bytes in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// One side of `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side3D {
    /// Bytes to skip in each row.
    pub x: usize,
    /// Rows to skip.
    pub y: usize,
    /// Slices to skip.
    pub z: usize,
    /// Level of detail: 0.
    pub level: usize,
    /// `CUmemorytype`: 1 host, 2 device, 3 array, 4 unified.
    pub kind: u32,
    /// The host pointer, where it is host memory.
    pub host: *mut c_void,
    /// The device pointer, where it is device or unified memory.
    pub device: u64,
    /// The array: not supported.
    pub array: Handle,
    /// Unused.
    pub reserved: usize,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Rows from slice to slice.
    pub height: usize,
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memcpy3D {
    /// Where from.
    pub source: Side3D,
    /// Where to.
    pub destination: Side3D,
    /// Bytes in a row.
    pub width: usize,
    /// Rows in a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}

/// A host function, as `cuLaunchHostFunc` takes it.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// A stream callback, as `cuStreamAddCallback` takes it: stream, status, data.
pub type StreamCallback = unsafe extern "C" fn(Handle, u32, *mut c_void);

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostNodeParams {
    /// The function.
    pub function: Option<HostFunction>,
    /// Its argument.
    pub data: *mut c_void,
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolProperties {
    /// `CUmemAllocationType`: 1, pinned.
    pub allocation: u32,
    /// `CUmemAllocationHandleType`: 0, none.
    pub handles: u32,
    /// `CUmemLocationType`: 1, device.
    pub location: u32,
    /// The device's ordinal.
    pub device: i32,
    /// Unused on Linux.
    pub security: usize,
    /// Bytes that the pool may hold; 0: no limit.
    pub limit: usize,
    /// Unused.
    pub usage: u16,
    /// Unused.
    pub reserved: [u8; 54],
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UpdateResult {
    /// `CUgraphExecUpdateResult`.
    pub result: u32,
    /// The node at fault.
    pub node: Handle,
    /// The node at the other end of the edge at fault.
    pub from: Handle,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InstantiateParams {
    /// Instantiation flags.
    pub flags: u64,
    /// The stream to upload on.
    pub stream: Handle,
    /// The node at fault.
    pub node: Handle,
    /// `CUgraphInstantiateResult`.
    pub result: u32,
}

/// `CUgraphEdgeData`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeData {
    /// Output port: 0.
    pub from_port: u8,
    /// Input port: 0.
    pub to_port: u8,
    /// Kind of dependency: 0, full.
    pub kind: u8,
    /// Unused.
    pub reserved: [u8; 5],
}

/// `CUdevprop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceProperties {
    /// Threads of a block.
    pub max_threads: i32,
    /// Threads of a block in x, y and z.
    pub max_block: [i32; 3],
    /// Blocks in x, y and z.
    pub max_grid: [i32; 3],
    /// Shared memory of a block without opting in.
    pub shared: i32,
    /// Constant memory in bytes.
    pub constant: i32,
    /// Threads of a warp.
    pub warp: i32,
    /// Largest pitch of a copy.
    pub pitch: i32,
    /// Registers of a block.
    pub registers: i32,
    /// Clock in kHz.
    pub clock: i32,
    /// Alignment of textures.
    pub texture: i32,
}
