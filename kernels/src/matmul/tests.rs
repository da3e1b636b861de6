//! Products against the reference: exactly on integers, within twice the naive error on random values.

use super::cases::{Case, cases, strategy};
use super::cpu::{Job, Mat, gemm, gemm_serial};
use super::*;
use crate::array::Array;
use crate::compare::{check, check_equal};
use crate::simd::{Level, level};
use engine::memory::guard;
use proptest::prelude::*;

fn levels() -> impl Iterator<Item = Level> {
    [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level())
}

fn view(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Mat<'_> {
    if transposed { Mat::rows(data, rows).transposed() } else { Mat::rows(data, columns) }
}

/// Both drivers at every level, into an output with gaps between rows and with sums already there.
fn exact(case: &Case) -> Result<()> {
    let &Case { batch, m, n, k, transpose_a, transpose_b } = case;
    let a = Array::<f32>::integers(&case.a(), 1, 3);
    let b = Array::<f32>::integers(&case.b(), 2, 3);
    let expected = reference::matmul(&a, &b, transpose_a, transpose_b);
    let product = matmul(&a.to_tensor()?, &b.to_tensor()?, transpose_a, transpose_b)?;
    check_equal(&format!("{case:?}"), &product, &expected.to_tensor()?)?;
    let gap = 3;
    for (i, expected) in expected.data.chunks_exact(m * n).enumerate().take(batch) {
        let a = view(&a.data[i * m * k..(i + 1) * m * k], m, k, transpose_a);
        let b = view(&b.data[i * k * n..(i + 1) * k * n], k, n, transpose_b);
        for level in levels() {
            for (accumulate, parallel) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut out = vec![5.0; m * (n + gap)];
                let job = Job::new(level, m, n, k, a, b, accumulate, &out, n + gap)?;
                if parallel {
                    job.parallel(&mut out)?
                } else {
                    job.serial(&mut out)?
                }
                for (row, expected) in out.chunks_exact(n + gap).zip(expected.chunks_exact(n)) {
                    let before = if accumulate { 5.0 } else { 0.0 };
                    assert!(
                        row[..n].iter().zip(expected).all(|(x, y)| *x == y + before),
                        "{level:?} {case:?}"
                    );
                    assert!(row[n..].iter().all(|&x| x == 5.0), "wrote between rows: {level:?} {case:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn integers_are_exact_at_every_level() {
    for case in cases() {
        exact(&case).unwrap();
    }
}

#[test]
fn errors_are_at_most_twice_the_naive_ones() {
    for case in cases() {
        let a = Array::<f32>::random(&case.a(), 1, 1.0).map(|v| if v > 2.0 { 40.0 * v } else { v });
        let b = Array::<f32>::random(&case.b(), 2, 1.0);
        let (ta, tb) = (case.transpose_a, case.transpose_b);
        let actual = matmul(&a.to_tensor().unwrap(), &b.to_tensor().unwrap(), ta, tb).unwrap();
        let naive = reference::matmul(&a, &b, ta, tb);
        let oracle = reference::matmul(&a.cast::<f64>(), &b.cast::<f64>(), ta, tb);
        check(&format!("{case:?}"), &actual, &naive, &oracle, 2.0).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_size_is_exact(case in strategy()) {
        exact(&case).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
    }
}

#[test]
fn linear_adds_the_bias_to_every_row() {
    let x = Array::<f32>::integers(&[2, 5, 37], 1, 3);
    let w = Array::<f32>::integers(&[19, 37], 2, 3);
    let b = Array::<f32>::integers(&[19], 3, 9);
    let (xt, wt, bt) = (x.to_tensor().unwrap(), w.to_tensor().unwrap(), b.to_tensor().unwrap());
    let expected = reference::linear(&x, &w, Some(&b)).to_tensor().unwrap();
    check_equal("linear", &linear(&xt, &wt, Some(&bt)).unwrap(), &expected).unwrap();
    let expected = reference::linear(&x, &w, None).to_tensor().unwrap();
    check_equal("linear", &linear(&xt, &wt, None).unwrap(), &expected).unwrap();
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (m, n, k) in [(300, 100, 900), (10, 500, 700), (2000, 10, 50)] {
        let a = Array::<f32>::random(&[m, k], 1, 1.0).to_tensor().unwrap();
        let b = Array::<f32>::random(&[k, n], 2, 1.0).to_tensor().unwrap();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| matmul(&a, &b, false, false)).unwrap()
        };
        let mut serial = vec![0.0; m * n];
        let (x, y) = (Mat::rows(a.as_slice().unwrap(), k), Mat::rows(b.as_slice().unwrap(), n));
        gemm_serial(m, n, k, x, y, false, &mut serial, n).unwrap();
        let serial = Tensor::from_slice(&serial, &[m, n]).unwrap();
        for threads in [1, 2, 3] {
            check_equal(&format!("{threads} threads"), &run(threads), &serial).unwrap();
        }
    }
}

#[test]
fn nothing_is_written_outside_and_nothing_left_out() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for case in cases() {
            let scope = guard();
            exact(&case).unwrap();
            scope.finish().unwrap();
        }
    });
}

#[test]
fn empty_sizes_and_wrong_arguments() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let product = matmul(&zeros(&[2, 0]), &zeros(&[0, 3]), false, false).unwrap();
    assert_eq!(product.as_slice::<f32>().unwrap(), [0.0; 6]);
    assert!(matmul(&zeros(&[0, 4]), &zeros(&[4, 3]), false, false).unwrap().is_empty());
    assert!(matmul(&zeros(&[5, 4]), &zeros(&[4, 0]), false, false).unwrap().is_empty());
    let inner = matmul(&zeros(&[2, 3]), &zeros(&[4, 3]), false, false).unwrap_err();
    assert!(inner.message().contains("inner sizes"), "{inner}");
    let batch = matmul(&zeros(&[2, 2, 3]), &zeros(&[3, 3, 3]), false, false).unwrap_err();
    assert!(batch.message().contains("leading"), "{batch}");
    let bias = linear(&zeros(&[2, 3]), &zeros(&[4, 3]), Some(&zeros(&[3]))).unwrap_err();
    assert!(bias.message().contains("bias must have shape [4]"), "{bias}");
    let (a, mut out) = ([0f32; 6], [0f32; 4]);
    let short = gemm(3, 2, 3, Mat::rows(&a, 3), Mat::rows(&a, 2), false, &mut out, 2).unwrap_err();
    assert!(short.message().contains("a is too short"), "{short}");
    let short = gemm(2, 2, 3, Mat::rows(&a, 3), Mat::rows(&a, 2), false, &mut out[..3], 2).unwrap_err();
    assert!(short.message().contains("output"), "{short}");
}
