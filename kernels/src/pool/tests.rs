//! Pooling against the reference. Maxima are exact; averages are within twice the naive error.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::{check, check_equal};
use engine::memory::guard;
use proptest::prelude::*;

/// Small integers, so that ties abound and sums are exact.
fn exact(case: &Case) -> Result<()> {
    let z = case.sizes()?;
    let x = Array::<f32>::integers(&case.input, 1, 4);
    let (y, index) = max_forward(&x.to_tensor()?, case.kernel, case.stride, case.padding)?;
    let (expected, at) = reference::max_forward(&z, &x);
    check_equal(&format!("{case:?}"), &y, &expected.to_tensor()?)?;
    assert_eq!(index.as_slice::<i32>()?, at, "{case:?}");
    let dy = Array::<f32>::integers(&expected.shape, 2, 4);
    let dx = max_backward(&dy.to_tensor()?, &index, &case.input, case.kernel, case.stride, case.padding)?;
    check_equal(&format!("{case:?}"), &dx, &reference::max_backward(&dy, &at, &case.input).to_tensor()?)
}

#[test]
fn maxima_and_their_gradients_are_exact() {
    for case in cases() {
        let scope = guard();
        exact(&case).unwrap();
        scope.finish().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_window_is_exact(case in strategy()) {
        exact(&case).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
    }
}

#[test]
fn nan_and_infinities() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let x = Tensor::from_slice(&[1.0, nan, 3.0, -inf, -inf, -inf, -inf, -inf], &[1, 2, 4, 1]).unwrap();
    let (y, index) = max_forward(&x, 2, 2, 0).unwrap();
    assert!(y.as_slice::<f32>().unwrap()[0].is_nan());
    assert_eq!(y.as_slice::<f32>().unwrap()[1], 3.0);
    assert_eq!(index.as_slice::<i32>().unwrap(), [1, 2]);
    let x = Tensor::full(&[1, 2, 2, 1], -inf, Device::Cpu).unwrap();
    let (y, index) = max_forward(&x, 3, 2, 1).unwrap();
    assert_eq!((y.item().unwrap(), index.as_slice::<i32>().unwrap()), (-inf, &[0][..]));
}

#[test]
fn averages() {
    for shape in [[3, 7, 7, 64], [2, 1, 1, 5], [1, 33, 35, 3], [300, 4, 4, 16]] {
        let x = Array::<f32>::random(&shape, 1, 1.0).map(|v| v + 10.0);
        let scope = guard();
        let y = global_average_forward(&x.to_tensor().unwrap()).unwrap();
        let (naive, oracle) =
            (reference::global_average_forward(&x), reference::global_average_forward(&x.cast::<f64>()));
        check("average", &y, &naive, &oracle, 2.0).unwrap();
        let dy = Array::<f32>::random(&[shape[0], shape[3]], 2, 1.0);
        let dx = global_average_backward(&dy.to_tensor().unwrap(), &shape).unwrap();
        let expected = reference::global_average_backward(&dy, &shape).to_tensor().unwrap();
        check_equal("average backward", &dx, &expected).unwrap();
        drop((y, dx));
        scope.finish().unwrap();
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let x = Array::<f32>::random(&[6, 40, 40, 20], 1, 1.0).to_tensor().unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (y, index) = max_forward(&x, 3, 1, 1).unwrap();
            let dx = max_backward(&y, &index, x.shape(), 3, 1, 1).unwrap();
            [global_average_forward(&x).unwrap(), y, dx]
        })
    };
    let one = run(1);
    for threads in [2, 3] {
        run(threads).iter().zip(&one).for_each(|(a, b)| check_equal("threads", a, b).unwrap());
    }
}

#[test]
fn empty_sizes_and_wrong_arguments() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    assert!(max_forward(&zeros(&[0, 4, 4, 3]), 2, 2, 0).unwrap().0.is_empty());
    assert!(max_forward(&zeros(&[2, 4, 4, 0]), 2, 2, 0).unwrap().0.is_empty());
    assert!(global_average_forward(&zeros(&[0, 4, 4, 3])).unwrap().is_empty());
    assert!(global_average_forward(&zeros(&[2, 0, 4, 3])).is_err());
    let padding = max_forward(&zeros(&[1, 4, 4, 1]), 3, 2, 2).unwrap_err();
    assert!(padding.message().contains("half the kernel"), "{padding}");
    let index = Tensor::from_slice(&[16i32], &[1, 1, 1, 1]).unwrap();
    let outside = max_backward(&zeros(&[1, 1, 1, 1]), &index, &[1, 4, 4, 1], 4, 4, 0).unwrap_err();
    assert!(outside.message().contains("index 16 at element 0"), "{outside}");
    let other = max_backward(&zeros(&[1, 1, 1, 1]), &index, &[1, 4, 4, 1], 2, 2, 0).unwrap_err();
    assert!(other.message().contains("dy must have shape [1, 2, 2, 1]"), "{other}");
}
