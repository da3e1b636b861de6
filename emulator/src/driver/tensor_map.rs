//! Tensor maps: `cuTensorMapEncodeTiled` checks a tensor and a box as the driver's manual says and writes them down in this
//! emulator's own 128 bytes. What the real driver takes and this one cannot copy is not supported, and not ignored.

use super::CUresult;
use super::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, Cuda};
use super::session::guard;
use crate::tensor_map::{BYTES, TensorMap};

/// `CUtensorMap`: 128 bytes, aligned to 64.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Encoded(pub [u8; BYTES]);

/// Bytes of an element by `CUtensorMapDataType`, UINT8 to BFLOAT16. The types after these convert or pack as they are copied.
const ELEMENTS: [u64; 10] = [1, 2, 4, 4, 8, 8, 2, 4, 8, 2];

/// Describes a tensor of 1 to 5 dimensions in global memory and the box of it that a copy moves.
///
/// `size`, `box_size` and `element_strides` have `rank` numbers, `strides` (bytes, from the second dimension on) `rank - 1`.
///
/// # Errors
/// `INVALID_VALUE` for what the manual forbids; `NOT_SUPPORTED` for interleaved tensors, element strides other than 1, types
/// that convert or pack (TFLOAT32, `_FTZ`, 4- and 6-bit types), NaN out of bounds, other swizzles than 32, 64 and 128 bytes, and
/// boxes whose rows are shorter than their swizzle.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuTensorMapEncodeTiled(
    map: Option<&mut Encoded>,
    data_type: u32,
    rank: u32,
    address: u64,
    size: *const u64,
    strides: *const u64,
    box_size: *const u32,
    element_strides: *const u32,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> CUresult {
    guard(|| {
        let map = map.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let number = rank as usize;
        let missing = size.is_null() || box_size.is_null() || element_strides.is_null();
        if !(1..=5).contains(&number) || missing || (strides.is_null() && number > 1) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let mut found = TensorMap {
            address,
            rank: number,
            element: 0,
            size: [1; 5],
            stride: [0; 5],
            box_size: [1; 5],
            swizzle: 0,
        };
        for dimension in 0..number {
            // SAFETY: the function's contract: as many numbers as the rank says.
            unsafe {
                found.size[dimension] = size.add(dimension).read();
                found.box_size[dimension] = u64::from(box_size.add(dimension).read());
                if dimension > 0 {
                    found.stride[dimension] = strides.add(dimension - 1).read();
                }
                match element_strides.add(dimension).read() {
                    1 => {}
                    2..=8 => return Err(CUDA_ERROR_NOT_SUPPORTED),
                    _ => return Err(CUDA_ERROR_INVALID_VALUE),
                }
            }
        }
        if promotion > 3 || fill > 1 || interleave > 2 || data_type > 15 || swizzle > 6 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if fill != 0 || interleave != 0 || data_type as usize >= ELEMENTS.len() || swizzle > 3 {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        found.element = ELEMENTS[data_type as usize];
        found.stride[0] = found.element;
        found.swizzle = [0, 32, 64, 128][swizzle as usize];
        *map = Encoded(checked(found)?.encode());
        Ok(())
    })
}

/// The manual's limits.
fn checked(map: TensorMap) -> Cuda<TensorMap> {
    let row = map.box_size[0] * map.element;
    let used = 0..map.rank;
    let good = map.address.is_multiple_of(16)
        && row.is_multiple_of(16)
        && (map.swizzle == 0 || row <= map.swizzle)
        && used.clone().all(|d| (1..=1 << 32).contains(&map.size[d]) && (1..=256).contains(&map.box_size[d]))
        && used.skip(1).all(|d| map.stride[d].is_multiple_of(16) && map.stride[d] < 1 << 40);
    match good {
        false => Err(CUDA_ERROR_INVALID_VALUE),
        true if map.swizzle > row => Err(CUDA_ERROR_NOT_SUPPORTED),
        true => Ok(map),
    }
}
