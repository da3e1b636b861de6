//! Convolutions of few channels on tensor cores, on the device that tests have, exactly on integers.

use super::cases::Case;
use super::mma::Pass;
use super::*;
use crate::array::Array;
use crate::check::{guarded, misaligned, on_device};
use crate::testing::device;
use proptest::prelude::*;

/// Both passes in fenced and poisoned memory, x and the weight at odd addresses and x at one that packs are read from, against
/// the reference rounded once.
fn check(z: &Sizes, g: Geometry) {
    let make = |shape: [usize; 4], seed| Array::<f64>::integers(&shape, seed, 3);
    let [x, w, dy] = [make(z.input(), 1), make(z.weight(), 2), make(z.output(), 3)];
    let expected = [reference::forward(z, &x, &w), reference::weight_gradient(z, &x, &dy)];
    for aligned in [false, true] {
        let found = guarded(device(), || {
            let odd = |x: &Array<f64>| misaligned(x, DType::BF16, device());
            let on_x = if aligned { on_device(&x, DType::BF16, device())? } else { odd(&x)? };
            let (on_w, on_dy) = (odd(&w)?, on_device(&dy, DType::BF16, device())?);
            assert_eq!((on_x.is_aligned(16), on_dy.is_aligned(16)), (aligned, true));
            assert!(fold::applies(z, Pass::Forward, [&on_x, &on_w]), "{z:?}");
            let y = forward(&on_x, &on_w, g)?.to_device(Device::Cpu)?;
            if !z.o.is_multiple_of(8) {
                return Ok(vec![y]);
            }
            assert!(fold::applies(z, Pass::WeightGradient, [&on_x, &on_dy]), "{z:?}");
            Ok(vec![y, weight_gradient(&on_x, &on_dy, &z.weight(), g)?.to_device(Device::Cpu)?])
        })
        .unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            let (found, expected) =
                (Array::<f64>::from_tensor(found).unwrap(), expected.rounded_to(DType::BF16));
            let wrong = found.data.iter().zip(&expected.data).position(|(x, y)| x != y);
            if let Some(i) = wrong {
                panic!(
                    "{z:?}, aligned {aligned}: element {i} is {} and not {}",
                    found.data[i], expected.data[i]
                );
            }
        }
    }
}

/// Stems, patches, channels that fill packs and do not, kernels smaller than the stride, padding beyond the kernel, rows in
/// several segments, pixels of many elements; rows of whole packs and others.
#[test]
fn few_channels_are_exact_on_integers() {
    for [n, h, w, c, o, r, s, stride, padding] in [
        [1, 21, 18, 3, 64, 7, 7, 2, 3],
        [2, 12, 14, 1, 16, 3, 3, 1, 1],
        [2, 9, 8, 3, 13, 3, 3, 1, 1],
        [2, 16, 12, 3, 24, 4, 4, 4, 0],
        [1, 32, 32, 3, 40, 16, 16, 16, 0],
        [2, 8, 8, 2, 8, 2, 2, 2, 0],
        [1, 7, 9, 5, 8, 1, 1, 2, 0],
        [1, 5, 6, 12, 16, 3, 2, 2, 3],
        [1, 9, 7, 3, 8, 5, 4, 3, 2],
        [1, 3, 300, 1, 8, 1, 3, 1, 1],
        [1, 40, 80, 6, 8, 20, 20, 20, 0],
        [1, 5, 328, 5, 8, 2, 3, 1, 1],
    ] {
        let g = Geometry::new(stride, padding);
        check(&Case { n, h, w, c, o, r, s, g }.sizes().unwrap(), g);
    }
}

/// What is not folded: whole packs, dilation, groups, kernels that stay too large, pixels of too many elements.
#[test]
fn what_is_not_folded() {
    let zeros = |shape: [usize; 4]| Tensor::zeros(&shape, DType::BF16, device()).unwrap();
    for (input, weight, geometry, taken) in [
        ([1, 9, 9, 3], [8, 3, 3, 3], Geometry::new(1, 1), true),
        ([1, 9, 9, 8], [8, 3, 3, 8], Geometry::new(1, 1), false),
        ([1, 9, 9, 3], [8, 3, 3, 3], Geometry { dilation: 2, ..Geometry::new(1, 2) }, false),
        ([1, 9, 9, 9], [9, 3, 3, 3], Geometry::new(1, 1).in_groups(3), false),
        ([1, 9, 9, 3], [8, 7, 7, 3], Geometry::new(1, 1), false),
        ([1, 64, 64, 3], [8, 64, 64, 3], Geometry::new(64, 0), false),
    ] {
        let z = Sizes::new("test", &input, &weight, geometry).unwrap();
        assert_eq!(fold::applies(&z, Pass::Forward, [&zeros(input), &zeros(weight)]), taken, "{z:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any geometry.
    #[test]
    fn any_geometry_is_exact(
        (n, h, w) in (1..3usize, 1..14usize, 1..14usize),
        (c, o) in (1..8usize, 1..20usize),
        (r, s) in (1..6usize, 1..6usize),
        (stride, padding) in (1..5usize, 0..4usize),
    ) {
        let g = Geometry::new(stride, padding);
        let case = Case { n, h, w, c, o, r, s, g };
        if let Ok(z) = case.sizes() {
            check(&z, g);
        }
    }
}
