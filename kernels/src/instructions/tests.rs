//! Every instruction on the device that tests have, and comparisons that must fail.

use super::check::check_vector;
use super::*;
use crate::testing::device;

#[test]
fn instructions_are_as_their_definitions_say() {
    assert_eq!(check::check(device()).unwrap(), cuda::KERNELS.len());
}

/// One wrong result of each vector is found, by the definition and by comparison with a recording.
#[test]
fn a_wrong_result_is_found() {
    for vector in vectors() {
        let right = run(&vector, device()).unwrap();
        vector.compare(&right, &right).unwrap();
        // The largest ordinary result, or the first where results are not numbers.
        let ordinary = |word: u32| {
            let x = f32::from_bits(word);
            (0.5..2.0).contains(&x.abs())
        };
        let at = right.iter().position(|&word| ordinary(word)).unwrap_or(0);
        let mut wrong = right.clone();
        wrong[at] ^= 1 << 14;
        let error = vector.compare(&wrong, &right).unwrap_err();
        assert!(error.message().contains("1 of") && error.message().contains(vector.name), "{error}");
        if vector.name != "erff" {
            assert!(check_vector(&vector, &wrong).is_err(), "{} at {at}", vector.name);
        }
        assert!(vector.compare(&right[1..], &right).is_err());
    }
}
