//! Start-up and the device: its name, its attributes, its limits as kernels meet them.
//!
//! Attributes are those of an H100 SXM (compute capability 9.0) or an A100 SXM (8.0); what the emulator does not do
//! (clusters, tensor maps, managed memory, textures, virtual memory, peers) is reported as not supported.

use super::CUresult;
use super::abi::DeviceProperties;
use super::error::{CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY, Cuda};
use super::session::{Session, guard, put, with_driver};
use super::state::Pool;
use crate::memory::DeviceMemory;
use std::ffi::{CStr, c_char};
use std::sync::Arc;

/// The driver API's version: 12.8.
pub const VERSION: i32 = 12080;

/// The device's identity; no real device has it.
const UUID: [u8; 16] = *b"pretext-emulated";

/// Numbers by which the architectures differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// Compute capability, 80 or 90.
    pub arch: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory of a block that opts in, in bytes.
    pub shared_of_block: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_of_multiprocessor: u32,
    l2: i32,
    clock: i32,
    memory_clock: i32,
    bus: i32,
    persisting_l2: i32,
    access_window: i32,
    double_ratio: i32,
    engines: i32,
}

impl Model {
    /// The model of a compute capability.
    pub fn of(arch: u32) -> Model {
        if arch == 80 {
            Model {
                arch,
                multiprocessors: 108,
                shared_of_block: 163 << 10,
                shared_of_multiprocessor: 164 << 10,
                l2: 40 << 20,
                clock: 1_410_000,
                memory_clock: 1_215_000,
                bus: 5120,
                persisting_l2: 26_214_400,
                access_window: 134_213_632,
                double_ratio: 2,
                engines: 3,
            }
        } else {
            Model {
                arch,
                multiprocessors: 132,
                shared_of_block: 227 << 10,
                shared_of_multiprocessor: 228 << 10,
                l2: 50 << 20,
                clock: 1_980_000,
                memory_clock: 2_619_000,
                bus: 5120,
                persisting_l2: 32_768_000,
                access_window: 134_213_632,
                double_ratio: 2,
                engines: 3,
            }
        }
    }

    /// The value of a `CUdevice_attribute` of CUDA 12.8, by number.
    pub fn attribute(&self, attribute: u32) -> Option<i32> {
        Some(match attribute {
            1..=3 => [MAX_THREADS as i32, 1024, 1024][attribute as usize - 1],
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65535,
            8 => SHARED_DEFAULT as i32,
            9 => 65536,
            10 => WARP as i32,
            11 => i32::MAX,
            12 | 82 => REGISTERS as i32,
            13 => self.clock,
            14 => 512,
            15 => 1,
            16 => self.multiprocessors as i32,
            // Kernel timeout, integrated.
            17 | 18 => 0,
            // Page-locked memory can be mapped.
            19 => 1,
            // Compute mode: default.
            20 => 0,
            // Textures, layers and surfaces: none.
            21..=29 | 42..=49 | 52..=74 | 77 => 0,
            30 => 512,
            // Concurrent kernels.
            31 => 1,
            // ECC; PCI bus, device; TCC.
            32..=35 => 0,
            36 => self.memory_clock,
            37 => self.bus,
            38 => self.l2,
            39 => THREADS_OF_MULTIPROCESSOR as i32,
            40 => self.engines,
            // Unified addressing.
            41 => 1,
            // PCI domain.
            50 => 0,
            51 => 32,
            75 => (self.arch / 10) as i32,
            76 => (self.arch % 10) as i32,
            // Stream priorities, caching of global and local memory in L1.
            78..=80 => 1,
            81 => self.shared_of_multiprocessor as i32,
            // Managed memory, multi-GPU board and its group, native host atomics.
            83..=86 => 0,
            87 => self.double_ratio,
            // Pageable access, concurrent managed access, preemption, registered memory, stream memory operations.
            88..=94 => 0,
            95 => 1,
            // Cooperative launches over several devices.
            96 => 0,
            97 => self.shared_of_block as i32,
            // Flush of remote writes, host registration, host page tables, virtual memory, handles.
            98..=105 => 0,
            106 => BLOCKS_OF_MULTIPROCESSOR as i32,
            107 => 0,
            108 => self.persisting_l2,
            109 => self.access_window,
            110 => 0,
            111 => SHARED_RESERVED as i32,
            112..=114 => 0,
            // Memory pools.
            115 => 1,
            // GPUDirect, pool handles, clusters, sparse arrays, stream memory operations, DMA buffers, IPC events.
            116..=125 => 0,
            // Memory synchronisation domains.
            126 => 1,
            // Tensor maps, fabric handles, unified function pointers, NUMA.
            127..=130 => 0,
            // NUMA node: none.
            131 => -1,
            132 | 133 => 0,
            134 => -1,
            135..=143 => 0,
            _ => return None,
        })
    }
}

/// Threads of a warp.
pub const WARP: u32 = 32;
/// Threads of a block, at most.
pub const MAX_THREADS: u32 = 1024;
/// Threads of a multiprocessor, at most.
pub const THREADS_OF_MULTIPROCESSOR: u32 = 2048;
/// Blocks of a multiprocessor, at most.
pub const BLOCKS_OF_MULTIPROCESSOR: u32 = 32;
/// Registers of a multiprocessor, and of a block at most.
pub const REGISTERS: u32 = 65536;
/// Shared memory of a block that does not opt in.
pub const SHARED_DEFAULT: u32 = 48 << 10;
/// Shared memory that the system takes of each block.
pub const SHARED_RESERVED: u32 = 1 << 10;

/// Refuses all devices but the one there is.
pub(super) fn check(device: i32) -> Cuda<()> {
    if device == 0 { Ok(()) } else { Err(CUDA_ERROR_INVALID_DEVICE) }
}

impl Session {
    /// The device's model.
    pub(super) fn model(&self) -> Model {
        Model::of(self.settings.arch)
    }
}

/// Starts the driver: reads the options and reserves device memory. Later calls do nothing.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuInit(flags: u32) -> CUresult {
    guard(|| {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let mut session = Session::open();
        if session.memory.is_some() {
            return Ok(());
        }
        if let Some(error) = &session.settings_error {
            eprintln!("pretext emulated device: {error}");
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let bytes = session.settings.memory_bytes();
        match DeviceMemory::new(bytes) {
            Ok(memory) => session.memory = Some(Arc::new(memory)),
            Err(error) => {
                eprintln!("pretext emulated device: cannot reserve {bytes} bytes of device memory: {error}");
                return Err(CUDA_ERROR_OUT_OF_MEMORY);
            }
        }
        let pool = session.pools.add(Pool { is_default: true, reuse: [1; 3], ..Pool::default() });
        (session.default_pool, session.current_pool) = (pool, pool);
        Ok(())
    })
}

/// The driver API's version; works before `cuInit`.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDriverGetVersion(version: Option<&mut i32>) -> CUresult {
    guard(|| put(version, VERSION))
}

/// How many devices there are: one.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetCount(count: Option<&mut i32>) -> CUresult {
    with_driver(|_| put(count, 1))
}

/// The device with an ordinal.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGet(device: Option<&mut i32>, ordinal: i32) -> CUresult {
    with_driver(|_| {
        check(ordinal)?;
        put(device, 0)
    })
}

/// A number about the device.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: Option<&mut i32>,
    attribute: u32,
    device: i32,
) -> CUresult {
    with_driver(|session| {
        check(device)?;
        put(value, session.model().attribute(attribute).ok_or(CUDA_ERROR_INVALID_VALUE)?)
    })
}

/// Copies text with its NUL into a buffer of the caller's, cut to fit.
pub(super) fn put_text(text: &str, buffer: *mut c_char, length: usize) -> Cuda<()> {
    if buffer.is_null() || length == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let kept = text.len().min(length - 1);
    // SAFETY: the caller gave a buffer of `length` bytes; `kept` and the NUL fit.
    unsafe {
        text.as_ptr().copy_to(buffer.cast(), kept);
        buffer.add(kept).write(0);
    }
    Ok(())
}

/// The device's name, which says that it is no hardware.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: i32, device: i32) -> CUresult {
    with_driver(|session| {
        check(device)?;
        let text = format!("pretext emulated sm_{} (no hardware)", session.settings.arch);
        put_text(&text, name, usize::try_from(length).unwrap_or(0))
    })
}

/// The device's identity.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: Option<&mut [u8; 16]>, device: i32) -> CUresult {
    with_driver(|_| {
        check(device)?;
        put(uuid, UUID)
    })
}

/// The device's identity.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: Option<&mut [u8; 16]>, device: i32) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuDeviceGetUuid(uuid, device) }
}

/// Device memory in bytes.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: Option<&mut usize>, device: i32) -> CUresult {
    with_driver(|session| {
        check(device)?;
        put(bytes, session.device()?.capacity().1 as usize)
    })
}

/// Compute capability, the old way.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceComputeCapability(
    major: Option<&mut i32>,
    minor: Option<&mut i32>,
    device: i32,
) -> CUresult {
    with_driver(|session| {
        check(device)?;
        put(major, (session.settings.arch / 10) as i32)?;
        put(minor, (session.settings.arch % 10) as i32)
    })
}

/// Some attributes in a structure, the old way.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetProperties(
    properties: Option<&mut DeviceProperties>,
    device: i32,
) -> CUresult {
    with_driver(|session| {
        check(device)?;
        let model = session.model();
        let of = |attribute| model.attribute(attribute).unwrap_or(0);
        let values = DeviceProperties {
            max_threads: of(1),
            max_block: [of(2), of(3), of(4)],
            max_grid: [of(5), of(6), of(7)],
            shared: of(8),
            constant: of(9),
            warp: of(10),
            pitch: of(11),
            registers: of(12),
            clock: of(13),
            texture: of(14),
        };
        put(properties, values)
    })
}

/// The device's place on the PCI bus, which is nowhere: all zero.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, length: i32, device: i32) -> CUresult {
    with_driver(|_| {
        check(device)?;
        put_text("0000:00:00.0", text, usize::try_from(length).unwrap_or(0))
    })
}

/// The device at a place on the PCI bus.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceGetByPCIBusId(device: Option<&mut i32>, text: *const c_char) -> CUresult {
    with_driver(|_| {
        if text.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: not null, and NUL-terminated by the contract.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if ![&b"0000:00:00.0"[..], b"0000:00:00", b"00:00.0"].contains(&text) {
            return Err(CUDA_ERROR_INVALID_DEVICE);
        }
        put(device, 0)
    })
}

/// Whether a device can reach another's memory: there is no other.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuDeviceCanAccessPeer(answer: Option<&mut i32>, device: i32, peer: i32) -> CUresult {
    with_driver(|_| {
        check(device)?;
        check(peer)?;
        put(answer, 0)
    })
}
