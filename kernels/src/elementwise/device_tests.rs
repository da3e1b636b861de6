//! The CUDA kernels on the device that tests have.

use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device, synchronize};
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}

/// A write in place leaves a tensor that shares the storage alone.
#[test]
fn adding_in_place_copies_a_shared_storage() {
    let x = on_device(&Array::new(&[3], vec![1.0, 2.0, 3.0]), DType::F32, device()).unwrap();
    let mut sum = x.clone();
    add_assign(&mut sum, &x).unwrap();
    assert_eq!(sum.to_vec::<f32>().unwrap(), [2.0, 4.0, 6.0]);
    assert_eq!(x.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert!(x.is_stale());
}

#[test]
fn nan_stays_where_it_is() {
    let x = on_device(&Array::new(&[3], vec![1.0, f64::NAN, -1.0]), DType::F32, device()).unwrap();
    for y in [relu(&x).unwrap(), gelu(&x).unwrap(), gelu_backward(&x, &x).unwrap()] {
        let y = y.to_vec::<f32>().unwrap();
        assert!(!y[0].is_nan() && y[1].is_nan() && !y[2].is_nan(), "{y:?}");
    }
}

/// A kept branch of a dropped sample adds nothing, and NaN goes through one row of the bias's activations.
#[test]
fn fused_chains_have_their_edges() {
    let x = on_device(&Array::new(&[2, 2], vec![1.0, f64::NAN, -1.0, 3.0]), DType::F32, device()).unwrap();
    let bias = on_device(&Array::new(&[2], vec![0.5, 0.5]), DType::F32, device()).unwrap();
    let (y, pre) = bias_gelu(&x, &bias).unwrap();
    for y in [y, pre, bias_relu(&x, &bias).unwrap()] {
        let y = y.to_vec::<f32>().unwrap();
        assert!(!y[0].is_nan() && y[1].is_nan() && !y[2].is_nan() && !y[3].is_nan(), "{y:?}");
    }
    let keep = on_device(&Array::new(&[2], vec![2.0, 0.0]), DType::F32, device()).unwrap();
    let ones = on_device(&Array::new(&[2, 2], vec![1.0; 4]), DType::F32, device()).unwrap();
    let y = residual_scale(&ones, &ones, None, Some(&keep)).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [3.0, 3.0, 1.0, 1.0]);
}

#[test]
fn gradients_of_a_scale_have_the_same_bits_every_time() {
    for dtype in crate::check::FLOATS {
        let dy = on_device(&Array::random(&[3, 60, 24], 1, 1.0), dtype, device()).unwrap();
        let branch = on_device(&Array::random(&[3, 60, 24], 2, 1.0), dtype, device()).unwrap();
        let scale = on_device(&Array::random(&[24], 3, 1.0), DType::F32, device()).unwrap();
        let run = || residual_scale_backward(&dy, &branch, Some(&scale), None).unwrap().1.unwrap();
        let first = run().to_vec::<f32>().unwrap();
        (1..20).for_each(|_| assert_eq!(first, run().to_vec::<f32>().unwrap(), "{dtype}"));
    }
}

/// The device that tests use is what it says, and what is wrong is an error there too.
#[test]
fn devices_do_not_mix() {
    let on_cpu = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap();
    let moved = on_cpu.to_device(device()).unwrap();
    let error = add(&on_cpu, &moved).unwrap_err();
    assert_eq!(error.kind(), engine::ErrorKind::Device);
    assert!(moved.as_slice::<f32>().unwrap_err().message().contains("copy them to the CPU"));
    let wide = moved.to_device(Device::Cpu).unwrap().reshape(&[1, 2]).unwrap();
    assert_eq!(
        wide.to_device(device()).unwrap().transpose(0, 1).unwrap().to_vec::<f32>().unwrap(),
        [1.0, 2.0]
    );
}

/// Guards see a kernel that writes outside: this one is told of more elements than there are.
#[test]
fn a_write_outside_is_seen() {
    use engine::cuda::Launch;
    let result = guarded(device(), || {
        let x = Tensor::zeros(&[64], DType::F32, device())?;
        let mut y = Tensor::empty(&[60], DType::F32, device())?;
        Launch::new(cuda::SCALE.of("test", DType::F32)?, device())?
            .read(&x)?
            .write(&mut y)?
            .value(64u64)
            .value(1f32)
            .value(1u32)
            .grid(1)
            .block(256)
            .run()?;
        synchronize(device())
    });
    assert!(result.unwrap_err().message().contains("wrote at byte 240 of a device block of 240"));
}
