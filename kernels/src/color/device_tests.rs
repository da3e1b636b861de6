//! The CUDA kernels on the device that tests have.

use super::*;
use crate::check::guarded;
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// A grey image between coloured ones, more points than a block has threads, and a bin that does not exist.
#[test]
fn grey_images_have_no_weight() {
    let (images, pixels) = (3, 300);
    let mut points = vec![1.0f32; images * pixels * 2];
    points[2 * pixels - 1] = -6.0;
    points[4 * pixels] = f32::INFINITY;
    let mut bins: Vec<i32> = (0..images * pixels).map(|i| (i % 4) as i32).collect();
    bins[7] = 4;
    bins[8] = -1;
    let found = guarded(device(), || {
        let points = Tensor::from_slice(&points, &[images, pixels, 2])?.to_device(device())?;
        let nearest = Tensor::from_slice(&bins, &[bins.len()])?.to_device(device())?;
        let weights = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4])?.to_device(device())?;
        pixel_weights(&points, &nearest, &weights, 5.0)?.to_vec::<f32>()
    })
    .unwrap();
    for (i, v) in found.iter().enumerate() {
        match (i / pixels, i) {
            (_, 7 | 8) => assert!(v.is_nan()),
            (1, _) => assert_eq!(*v, 0.0),
            _ => assert_eq!(*v, (i % 4 + 1) as f32),
        }
    }
}

#[test]
fn empty_sizes() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device()).unwrap();
    assert!(rgb_to_lab(&zeros(&[0, 3])).unwrap().is_empty());
    let (targets, nearest) =
        soft_encode(&zeros(&[0, 2]), &zeros(&[5, 2]), Spread { neighbours: 2, sigma: 5.0 }).unwrap();
    assert!(targets.is_empty());
    assert!(pixel_weights(&zeros(&[0, 4, 2]), &nearest, &zeros(&[3]), 5.0).unwrap().is_empty());
}
