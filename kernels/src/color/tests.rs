//! The CPU against the references, and what must hold whatever the numbers.

use super::*;
use crate::array::Array;

#[test]
fn the_cpu_agrees_with_the_references() {
    check::check(Device::Cpu).unwrap();
}

fn lab(rgb: [f32; 3]) -> Vec<f32> {
    rgb_to_lab(&Tensor::from_slice(&rgb, &[1, 3]).unwrap()).unwrap().to_vec::<f32>().unwrap()
}

/// Values of scikit-image's rgb2lab.
#[test]
fn known_colours() {
    for (rgb, expected) in [
        ([1.0, 1.0, 1.0], [100.0, -0.002, 0.005]),
        ([1.0, 0.0, 0.0], [53.241, 80.092, 67.203]),
        ([0.0, 1.0, 0.0], [87.735, -86.183, 83.180]),
        ([0.0, 0.0, 1.0], [32.296, 79.186, -107.857]),
        ([128.0 / 255.0; 3], [53.585, 0.0, 0.0]),
    ] {
        for (found, right) in lab(rgb).iter().zip(expected) {
            assert!((found - right).abs() < 4e-3, "{rgb:?}: {found} should be {right}");
        }
    }
}

#[test]
fn lab_and_back_is_the_identity() {
    let colours = cases::colours(500);
    let there = rgb_to_lab(&colours.to_tensor_of(DType::F32).unwrap()).unwrap().to_vec::<f32>().unwrap();
    for (found, right) in lab_to_rgb(&there).iter().zip(&colours.data) {
        assert!((f64::from(*found) - right).abs() < 2e-4, "{found} should be {right}");
    }
}

/// Rows add up to 1 and have just as many values as neighbours, for points far outside too.
#[test]
fn targets_add_up_to_one() {
    let case = cases::Case { n: 300, q: 313, neighbours: 10, ties: false };
    let mut points = case.points();
    points.data[0] = 1e4;
    let put = |x: &Array<f64>| x.to_tensor_of(DType::F32).unwrap();
    let (targets, nearest) = soft_encode(&put(&points), &put(&case.centres()), case.spread()).unwrap();
    let (targets, nearest) = (targets.to_vec::<f32>().unwrap(), nearest.to_vec::<i32>().unwrap());
    for (i, (row, bin)) in targets.chunks(313).zip(nearest).enumerate() {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(row.iter().all(|v| *v <= row[bin as usize]));
        let count = row.iter().filter(|v| **v > 0.0).count();
        assert!(if i == 0 { (1..=10).contains(&count) } else { count == 10 }, "{count} at {i}");
    }
}

/// An image whose coordinates all lie within the limit has no weight at all, others keep theirs.
#[test]
fn grey_images_have_no_weight() {
    let points = Tensor::from_slice(&[5.0f32, -5.0, 0.0, 1.0, 0.0, 0.0, 0.0, -5.1], &[2, 2, 2]).unwrap();
    let nearest = Tensor::from_slice(&[0i32, 1, 2, 1], &[4]).unwrap();
    let weights = Tensor::from_slice(&[3.0f32, 4.0, 5.0], &[3]).unwrap();
    let found = pixel_weights(&points, &nearest, &weights, 5.0).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(found, [0.0, 0.0, 5.0, 4.0]);
}

#[test]
fn wrong_arguments_and_empty_ones() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let spread = Spread { neighbours: 2, sigma: 5.0 };
    let said = |e: Result<(Tensor, Tensor)>, part: &str| {
        let error = e.err().unwrap();
        assert!(error.message().contains(part), "{error}");
    };
    assert!(rgb_to_lab(&zeros(&[4, 4])).unwrap_err().message().contains("[.., 3]"));
    said(soft_encode(&zeros(&[4, 3]), &zeros(&[5, 2]), spread), "[N, 2]");
    said(soft_encode(&zeros(&[4, 2]), &zeros(&[1, 2]), spread), "neighbours");
    said(soft_encode(&zeros(&[4, 2]), &zeros(&[MOST_BINS + 1, 2]), spread), "512");
    said(soft_encode(&zeros(&[4, 2]), &zeros(&[5, 2]), Spread { sigma: 0.0, ..spread }), "sigma");
    let bins = Tensor::from_slice(&[0i32, 3], &[2]).unwrap();
    let error = pixel_weights(&zeros(&[1, 2, 2]), &bins, &zeros(&[3]), 5.0).unwrap_err();
    assert!(error.message().contains("bin 3 of point 1"), "{error}");
    assert!(rgb_to_lab(&zeros(&[0, 3])).unwrap().is_empty());
    assert!(soft_encode(&zeros(&[0, 2]), &zeros(&[5, 2]), spread).unwrap().0.is_empty());
}
