//! The CUDA kernels on the device that tests have.

use super::*;
use crate::testing::device;

#[test]
fn kernels_agree_with_the_reference() {
    check::check(device()).unwrap();
}
