//! The CUDA kernels on the device that tests have.

use super::cases::PURPOSE;
use super::*;
use crate::testing::device;

#[test]
fn kernels_agree_with_the_cpu() {
    check::check(device()).unwrap();
}

/// A stream's tensors begin alike whatever their sizes, and other streams differ.
#[test]
fn elements_depend_on_the_stream_alone() {
    let draw = |n: usize, seed, index| {
        normal(&[n], 0.0, 1.0, seed, PURPOSE, index, device()).unwrap().to_vec::<f32>().unwrap()
    };
    let long = draw(1030, 3, 1 << 40);
    assert_eq!(long[..513], draw(513, 3, 1 << 40));
    assert_ne!(long[..64], draw(64, 4, 1 << 40));
    assert_ne!(long[..64], draw(64, 3, 1));
}

#[test]
fn truncation_holds() {
    for bound in [0.01f32, 0.99, 1.0, 2.0] {
        let x = truncated_normal(&[3000], 2.0, bound, 3, PURPOSE, 0, device()).unwrap();
        let x = x.to_vec::<f32>().unwrap();
        assert!(x.iter().all(|v| v.abs() <= 2.0 * bound));
        let mean = x.iter().sum::<f32>() / 3000.0;
        assert!(mean.abs() < 5.0 * 2.0 * bound.min(1.0) / 3000f32.sqrt(), "{mean}");
    }
}

#[test]
fn wrong_arguments_are_errors() {
    assert!(uniform(&[2], f32::NAN, 1.0, 0, PURPOSE, 0, device()).is_err());
    assert!(truncated_normal(&[2], 1.0, 0.0, 0, PURPOSE, 0, device()).is_err());
    assert!(
        uniform(&[1 << 34, 2], 0.0, 1.0, 0, PURPOSE, 0, device()).unwrap_err().message().contains("at most")
    );
}
