//! Views, writes that leave sharers alone, and constants.

use super::*;

#[test]
fn views_share_and_copies_follow_strides() {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    let t = x.transpose(0, 1).unwrap();
    assert!(t.shares_storage(&x) && !t.is_contiguous());
    assert_eq!(t.to_vec::<f32>().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert!(t.as_slice::<f32>().unwrap_err().message().contains("contiguous"));
    assert_eq!(x.narrow(0, 1, 1).unwrap().as_slice::<f32>().unwrap(), [4.0, 5.0, 6.0]);
    assert!(x.as_slice::<i32>().is_err());
}

#[test]
fn writing_leaves_views_alone_and_marks_them_stale() {
    let mut x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap();
    let saved = x.clone();
    x.as_mut_slice::<f32>().unwrap()[0] = 9.0;
    assert_eq!(saved.as_slice::<f32>().unwrap(), [1.0, 2.0]);
    assert!(saved.is_stale() && !x.is_stale());
    assert_eq!(x.as_slice::<f32>().unwrap(), [9.0, 2.0]);
    let address = x.as_slice::<f32>().unwrap().as_ptr();
    x.as_mut_slice::<f32>().unwrap()[1] = 8.0;
    assert_eq!(x.as_slice::<f32>().unwrap().as_ptr(), address, "an unshared write is in place");
    assert!(!x.is_stale());
}

#[test]
fn wrong_count_is_an_error() {
    assert!(Tensor::from_slice(&[1f32], &[2]).is_err());
    let mut empty = Tensor::zeros(&[2, 0], DType::F32, Device::Cpu).unwrap();
    assert!(empty.is_empty());
    let offset = Tensor::zeros(&[5, 0], DType::F32, Device::Cpu).unwrap().narrow(0, 3, 2).unwrap();
    assert_eq!(offset.as_slice::<f32>().unwrap(), [0f32; 0]);
    assert!(empty.as_mut_slice::<f32>().unwrap().is_empty());
    let none = Tensor::zeros(&[2, 4], DType::F32, Device::Cpu).unwrap().narrow(1, 4, 0).unwrap();
    assert!(none.narrow(0, 1, 1).unwrap().as_slice::<f32>().unwrap().is_empty());
    assert_eq!(Tensor::scalar(3.0).unwrap().item().unwrap(), 3.0);
}
