//! Products that are added to what is there, in every way that operands lie: exact on integers, on the CPU and on the device
//! that tests have.

use super::cuda::Sizes;
use super::mma::{Beside, product_by};
use super::mma_tile::MmaTile;
use super::*;
use crate::array::Array;
use crate::check::{guarded, misaligned, on_device};
use crate::testing::device;

const BOTH: [bool; 2] = [false, true];

/// a, b and what they are added to, and the sum.
fn case([m, n, k]: [usize; 3], [ta, tb]: [bool; 2]) -> ([Array<f64>; 3], Array<f64>) {
    let a = Array::integers(&if ta { [k, m] } else { [m, k] }, 1, 4);
    let b = Array::integers(&if tb { [n, k] } else { [k, n] }, 2, 4);
    let before = Array::integers(&[m, n], 3, 1000).map(|v| v + 0.5);
    let product = reference::matmul(&a, &b, ta, tb);
    let data = product.data.iter().zip(&before.data).map(|(x, y)| x + y).collect();
    ([a, b, before], Array::new(&[m, n], data))
}

fn values(x: &Tensor) -> Array<f64> {
    Array::from_tensor(x).unwrap()
}

/// M, N, K: one block, ragged ends, results that are not whole packs, a long sum in parts.
const SIZES: [[usize; 3]; 5] = [[16, 8, 8], [72, 136, 72], [9, 13, 24], [24, 16, 1000], [1, 1, 0]];

#[test]
fn products_are_added_exactly() {
    for shape in SIZES {
        for transposes in BOTH.into_iter().flat_map(|ta| BOTH.map(|tb| [ta, tb])) {
            let ([a, b, before], expected) = case(shape, transposes);
            for (place, dtype) in [(Device::Cpu, DType::F32), (device(), DType::F32), (device(), DType::BF16)]
            {
                for put in [on_device, misaligned] {
                    let found = guarded(device(), || {
                        let (a, b) = (put(&a, dtype, place)?, put(&b, dtype, place)?);
                        let mut out = put(&before, DType::F32, place)?;
                        let kept = out.clone();
                        matmul_accumulate(&a, &b, transposes, &mut out)?;
                        assert_eq!(values(&kept), before, "what shares the storage keeps its values");
                        Ok(values(&out))
                    })
                    .unwrap();
                    assert_eq!(found, expected, "{shape:?} {transposes:?} {place} {dtype}");
                }
            }
        }
    }
}

/// Every tile, with sums in one part and in several, and results that are not whole packs.
#[test]
fn every_tile_adds_exactly() {
    for [m, n, k] in [[136, 72, 71], [72, 264, 40], [16, 24, 1100usize]] {
        for transposes in [[true, false], [false, true]] {
            let k = if transposes[1] { k.next_multiple_of(8) } else { k };
            let ([a, b, before], expected) = case([m, n, k], transposes);
            for tile in MmaTile::of(device()).iter().copied() {
                let [transpose_a, transpose_b] = transposes;
                let sizes = Sizes { batch: 1, m, n, k, transpose_a, transpose_b };
                let found = guarded(device(), || {
                    let (a, b) =
                        (on_device(&a, DType::BF16, device())?, on_device(&b, DType::BF16, device())?);
                    let mut out = on_device(&before, DType::F32, device())?;
                    product_by("matmul", tile, sizes, &a, &b, None, &mut out, Beside::Accumulate)?;
                    Ok(values(&out))
                })
                .unwrap();
                assert_eq!(found, expected, "{tile:?} {m} {n} {k} {transposes:?}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, Device::Cpu).unwrap();
    let (a, b) = (zeros(&[2, 3], DType::F32), zeros(&[3, 4], DType::F32));
    let message = |a: &Tensor, b: &Tensor, out: &mut Tensor| {
        matmul_accumulate(a, b, [false, false], out).unwrap_err().message().to_string()
    };
    assert!(message(&a, &a, &mut zeros(&[2, 3], DType::F32)).contains("inner sizes"));
    assert!(message(&a, &b, &mut zeros(&[4, 2], DType::F32)).contains("out"));
    assert!(message(&a, &b, &mut zeros(&[2, 4], DType::BF16)).contains("out"));
    assert!(message(&a, &zeros(&[3], DType::F32), &mut zeros(&[2, 4], DType::F32)).contains("rank 2"));
}
