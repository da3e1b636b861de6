//! Tensor maps, through the driver's own function; and what it refuses.

use emulator::driver::CUresult;
use emulator::driver::error::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, CUDA_SUCCESS};
use emulator::driver::tensor_map::{Encoded, cuTensorMapEncodeTiled};

/// The arguments of `cuTensorMapEncodeTiled`; strides in bytes, from the second dimension on.
#[derive(Clone)]
pub struct Tensor {
    pub data_type: u32,
    pub address: u64,
    pub size: Vec<u64>,
    pub strides: Vec<u64>,
    pub box_size: Vec<u32>,
    pub steps: Vec<u32>,
    pub swizzle: u32,
    pub interleave: u32,
    pub fill: u32,
}

pub const FLOAT32: u32 = 7;
pub const BFLOAT16: u32 = 9;

impl Tensor {
    /// A row-major matrix of rows of `columns` elements, `pitch` bytes apart.
    pub fn matrix(
        data_type: u32,
        address: u64,
        [columns, rows]: [u64; 2],
        pitch: u64,
        box_size: [u32; 2],
    ) -> Tensor {
        Tensor {
            data_type,
            address,
            size: vec![columns, rows],
            strides: vec![pitch],
            box_size: box_size.to_vec(),
            steps: vec![1; 2],
            swizzle: 0,
            interleave: 0,
            fill: 0,
        }
    }

    fn encode(&self) -> (CUresult, Encoded) {
        let mut map = Encoded([0; 128]);
        // SAFETY: the arrays are as long as the rank says.
        let code = unsafe {
            cuTensorMapEncodeTiled(
                Some(&mut map),
                self.data_type,
                self.size.len() as u32,
                self.address,
                self.size.as_ptr(),
                self.strides.as_ptr(),
                self.box_size.as_ptr(),
                self.steps.as_ptr(),
                self.interleave,
                self.swizzle,
                0,
                self.fill,
            )
        };
        (code, map)
    }

    /// The map as 16 words.
    pub fn words(&self) -> Vec<u64> {
        let (code, map) = self.encode();
        assert_eq!(code, CUDA_SUCCESS);
        map.0.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

/// What is wrong, the error, and how it comes about.
type Change = (&'static str, CUresult, fn(&mut Tensor));

#[test]
fn the_driver_refuses_what_the_manual_forbids_and_what_it_cannot_copy() {
    let good = Tensor { swizzle: 3, ..Tensor::matrix(BFLOAT16, 0x1000, [100, 40], 208, [64, 16]) };
    assert_eq!(good.encode().0, CUDA_SUCCESS);
    let changes: [Change; 16] = [
        ("an address that is no multiple of 16", CUDA_ERROR_INVALID_VALUE, |t| t.address += 8),
        ("a stride that is no multiple of 16", CUDA_ERROR_INVALID_VALUE, |t| t.strides[0] = 200),
        ("a stride of 2^40", CUDA_ERROR_INVALID_VALUE, |t| t.strides[0] = 1 << 40),
        ("an empty dimension", CUDA_ERROR_INVALID_VALUE, |t| t.size[1] = 0),
        ("an empty box", CUDA_ERROR_INVALID_VALUE, |t| t.box_size[1] = 0),
        ("a box of 257 rows", CUDA_ERROR_INVALID_VALUE, |t| t.box_size[1] = 257),
        ("rows of 30 bytes", CUDA_ERROR_INVALID_VALUE, |t| t.box_size[0] = 15),
        ("rows longer than the swizzle", CUDA_ERROR_INVALID_VALUE, |t| t.box_size[0] = 128),
        ("rows shorter than the swizzle", CUDA_ERROR_NOT_SUPPORTED, |t| t.box_size[0] = 32),
        ("element strides of 0", CUDA_ERROR_INVALID_VALUE, |t| t.steps[0] = 0),
        ("element strides of 2", CUDA_ERROR_NOT_SUPPORTED, |t| t.steps[0] = 2),
        ("interleaved tensors", CUDA_ERROR_NOT_SUPPORTED, |t| t.interleave = 1),
        ("NaN out of bounds", CUDA_ERROR_NOT_SUPPORTED, |t| t.fill = 1),
        ("tfloat32", CUDA_ERROR_NOT_SUPPORTED, |t| t.data_type = 11),
        ("another swizzle", CUDA_ERROR_NOT_SUPPORTED, |t| t.swizzle = 4),
        ("no swizzle at all", CUDA_ERROR_INVALID_VALUE, |t| t.swizzle = 9),
    ];
    for (what, code, change) in changes {
        let mut tensor = good.clone();
        change(&mut tensor);
        assert_eq!(tensor.encode().0, code, "{what}");
    }
}
