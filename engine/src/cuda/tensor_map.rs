//! Tensor maps: what Hopper's copy engine is told of a tensor and of the boxes of it that it copies to shared memory.

use super::context::explain;
use super::driver;
use crate::{DType, Device, Error, Result, Tensor};
use cudarc::driver::sys;
use std::sync::OnceLock;

/// A map, for [`super::Launch::read_map`]. It stays valid as long as the tensor's memory.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub struct TensorMap([u64; 16]);

/// Matrices of bf16, and boxes of them.
#[derive(Debug, Clone, Copy)]
pub struct Boxes {
    /// Elements of a row, rows of a matrix, and matrices.
    pub sizes: [usize; 3],
    /// Elements from a row to the next, and from a matrix to the next: multiples of 8.
    pub strides: [usize; 2],
    /// Elements of a box's row, 64 at most, and its rows, 256 at most. Rows of 128 bytes are swizzled: their eight packs of
    /// 16 bytes are exchanged by the number of the row.
    pub boxed: [usize; 2],
}

/// Whether the driver in use makes maps: from CUDA 12 on. A device must be in use.
pub fn is_supported() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| driver::has(b"cuTensorMapEncodeTiled\0"))
}

impl TensorMap {
    /// A map of a contiguous tensor.
    ///
    /// # Errors
    ///
    /// The tensor is not of bf16 on a CUDA device, at a multiple of 16 bytes, or has less than the sizes say; the driver
    /// refuses them, or makes no maps.
    #[track_caller]
    pub fn new(operation: &str, tensor: &Tensor, boxes: Boxes) -> Result<TensorMap> {
        let Boxes { sizes, strides, boxed } = boxes;
        let fail = |text: &str| Err(Error::value(operation, text).argument("tensor", tensor));
        if tensor.dtype() != DType::BF16 || tensor.device() == Device::Cpu || !tensor.is_aligned(16) {
            return fail("a tensor map is of bf16 on a CUDA device, at a multiple of 16 bytes");
        }
        let ends = sizes.map(|n| n.wrapping_sub(1));
        let last = ends[1].checked_mul(strides[0]).zip(ends[2].checked_mul(strides[1]));
        let last = last.and_then(|(row, matrix)| row.checked_add(matrix)?.checked_add(ends[0]));
        if sizes.contains(&0) || last.is_none_or(|last| last >= tensor.len()) {
            return fail("the tensor has fewer elements than the map");
        }
        if !is_supported() {
            return fail("the CUDA driver makes no tensor maps: it is older than 12.0");
        }
        let sizes = sizes.map(|n| n as u64);
        let strides = strides.map(|n| (n as u64).saturating_mul(2));
        let boxed = [boxed[0] as u32, boxed[1] as u32, 1];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have as many numbers as the rank says; the driver reads no memory of the tensor.
        let answer = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3,
                tensor.device_address(operation)? as *mut _,
                sizes.as_ptr(),
                strides.as_ptr(),
                boxed.as_ptr(),
                [1; 3].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        answer.result().map_err(|e| explain(operation, e).argument("tensor", tensor))?;
        Ok(TensorMap(map.opaque))
    }
}
