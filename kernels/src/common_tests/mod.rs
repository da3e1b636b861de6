//! Tests of `common/mma.cuh` and `common/cp_async.cuh`: every wrapper on its own, before a family builds on it.

use crate::array::Array;
use crate::check::on_device;
use crate::matmul::reference;
use crate::testing::device;
use engine::cuda::{Kernel, Launch, Module};
use engine::{DType, Tensor};

static MODULE: Module = Module::new(
    "common_tests",
    "kernels/src/common_tests/tensor_core.cu",
    include_str!("tensor_core.cu"),
    crate::cuda::HEADERS,
    &[],
    &[],
);
static MMA_BF16: Kernel = Kernel::new(&MODULE, "common_mma_bf16");
static MMA_TF32: Kernel = Kernel::new(&MODULE, "common_mma_tf32");
static COPY_PART: Kernel = Kernel::new(&MODULE, "common_copy_part");
static SWIZZLED: Kernel = Kernel::new(&MODULE, "common_swizzled");

/// Small integers: products and sums are exact, so that a wrong place shows and nothing else.
#[test]
fn fragments_lie_where_the_loads_put_them() {
    let (a, b) = (Array::integers(&[16, 16], 1, 9), Array::integers(&[16, 16], 2, 9));
    let inputs = [&a, &b].map(|x| on_device(x, DType::BF16, device()).unwrap());
    for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut d = Tensor::empty(&[16, 16], DType::F32, device()).unwrap();
        let launch = Launch::new(&MMA_BF16, device()).unwrap().grid(1).block(32);
        let launch = launch.read(&inputs[0]).unwrap().read(&inputs[1]).unwrap().write(&mut d).unwrap();
        launch.value(u32::from(a_transposed)).value(u32::from(b_transposed)).run().unwrap();
        let expected = reference::matmul(&a, &b, a_transposed, b_transposed);
        assert_eq!(Array::<f64>::from_tensor(&d).unwrap(), expected, "{a_transposed} {b_transposed}");
    }
}

/// Eleven bits: integers up to 1023 and a tie, which goes away from zero.
#[test]
fn tf32_keeps_ten_fraction_bits() {
    let mut a = Array::integers(&[16, 8], 3, 1023);
    let b = Array::integers(&[8, 8], 4, 9);
    a.data[0] = 2049.0;
    let inputs = [&a, &b].map(|x| on_device(x, DType::F32, device()).unwrap());
    let mut d = Tensor::empty(&[16, 8], DType::F32, device()).unwrap();
    let launch = Launch::new(&MMA_TF32, device()).unwrap().grid(1).block(32);
    launch.read(&inputs[0]).unwrap().read(&inputs[1]).unwrap().write(&mut d).unwrap().run().unwrap();
    a.data[0] = 2050.0;
    assert_eq!(Array::<f64>::from_tensor(&d).unwrap(), reference::matmul(&a, &b, false, false));
}

#[test]
fn partial_copies_end_in_zeros() {
    let words = [0x0403_0201i32, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
    let from = Tensor::from_slice(&words, &[4]).unwrap().to_device(device()).unwrap();
    let mut out = Tensor::empty(&[17, 4], DType::I32, device()).unwrap();
    let launch = Launch::new(&COPY_PART, device()).unwrap().grid(1).block(32);
    launch.read(&from).unwrap().write(&mut out).unwrap().run().unwrap();
    let out = out.to_device(engine::Device::Cpu).unwrap().to_vec::<i32>().unwrap();
    let bytes: Vec<u8> = out.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (i, &byte) in bytes.iter().enumerate() {
        let (row, place) = (i / 16, i % 16);
        assert_eq!(usize::from(byte), if place < row { place + 1 } else { 0 }, "{row} {place}");
    }
}

/// Every pack has a place of its own; eight rows of one pack, and the packs of a row, lie in different banks.
#[test]
fn swizzled_tiles_have_no_conflict() {
    let mut out = Tensor::empty(&[32 * (2 + 4 + 8 + 16)], DType::I32, device()).unwrap();
    Launch::new(&SWIZZLED, device()).unwrap().grid(1).block(32).write(&mut out).unwrap().run().unwrap();
    let out = out.to_device(engine::Device::Cpu).unwrap().to_vec::<i32>().unwrap();
    let mut rest = out.as_slice();
    let distinct = |places: Vec<i32>| {
        let mut sorted = places.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), places.len(), "{places:?}");
    };
    for packs in [2, 4, 8, 16] {
        let (places, behind) = rest.split_at(32 * packs);
        rest = behind;
        distinct(places.to_vec());
        assert!(places.iter().all(|&place| (0..32 * packs as i32).contains(&place)));
        for rows in 0..4 {
            for pack in 0..packs {
                distinct((0..8).map(|row| places[(8 * rows + row) * packs + pack] % 8).collect());
            }
        }
        for eight in places.chunks_exact(8) {
            distinct(eight.iter().map(|place| place % 8).collect());
        }
    }
}
