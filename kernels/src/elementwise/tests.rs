//! Against the references; the same bits on any number of threads; nothing written outside.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::{check, check_equal};
use engine::memory;
use proptest::prelude::*;

/// Runs `f` on pools of 1, 2 and 3 threads and twice on the last: all results must be the same bits.
pub(crate) fn same_on_any_number_of_threads(what: &str, f: impl Fn() -> Vec<Tensor> + Sync) {
    let run =
        |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&f);
    let bits = |t: &Tensor| match t.dtype() {
        DType::I32 => t.to_vec::<i32>().unwrap(),
        _ => t.to_vec::<f32>().unwrap().into_iter().map(|v| v.to_bits() as i32).collect(),
    };
    let first: Vec<_> = run(1).iter().map(bits).collect();
    for threads in [2, 3, 3] {
        let other: Vec<_> = run(threads).iter().map(bits).collect();
        assert!(first == other, "{what}: results differ on {threads} threads");
    }
}

fn check_case(case: &Case) -> Result<()> {
    let (a, b) = (case.operand(1), case.operand(2));
    let (a32, b32) = (a.cast::<f32>(), b.cast::<f32>());
    let (ta, tb) = (a.to_tensor()?, b.to_tensor()?);
    check_equal("add", &add(&ta, &tb)?, &a32.zip(&b32, |a, b| a + b).to_tensor()?)?;
    check_equal("sub", &sub(&ta, &tb)?, &a32.zip(&b32, |a, b| a - b).to_tensor()?)?;
    check_equal("mul", &mul(&ta, &tb)?, &a32.zip(&b32, |a, b| a * b).to_tensor()?)?;
    check_equal("scale", &scale(&ta, 0.3)?, &a32.map(|a| a * 0.3).to_tensor()?)?;
    let scaled = a32.zip(&b32, |a, b| a + -1.7 * b).to_tensor()?;
    check_equal("add_scaled", &add_scaled(&ta, &tb, -1.7)?, &scaled)?;
    check_equal("relu", &relu(&ta)?, &reference::relu(&a32).to_tensor()?)?;
    let expected = reference::relu_backward(&a32, &b32).to_tensor()?;
    check_equal("relu_backward", &relu_backward(&ta, &tb)?, &expected)?;
    let mut sum = ta.clone();
    add_assign(&mut sum, &tb)?;
    check_equal("add_assign", &sum, &add(&ta, &tb)?)?;
    let mut blend = ta.clone();
    blend_assign(&mut blend, 0.9, &tb, 0.3)?;
    check_equal("blend_assign", &blend, &a32.zip(&b32, |a, b| 0.9 * a + 0.3 * b).to_tensor()?)?;
    check_equal("add_assign left its source alone", &ta, &a32.to_tensor()?)?;
    check("tanh", &tanh(&ta)?, &reference::tanh(&a32), &reference::tanh(&a), 2.0)?;
    let naive = reference::tanh_backward(&b32, &a32);
    check("tanh_backward", &tanh_backward(&tb, &ta)?, &naive, &reference::tanh_backward(&b, &a), 2.0)?;
    let positive32 = a32.map(|v| v.abs() + 0.25);
    let positive = positive32.cast::<f64>();
    let logarithm = ln(&positive32.to_tensor()?)?;
    check("ln", &logarithm, &reference::ln(&positive32), &reference::ln(&positive), 2.0)?;
    check("gelu", &gelu(&ta)?, &reference::gelu(&a32), &reference::gelu(&a), 2.0)?;
    let naive = reference::gelu_backward(&b32, &a32);
    check("gelu_backward", &gelu_backward(&tb, &ta)?, &naive, &reference::gelu_backward(&b, &a), 2.0)?;
    if let Some(&n) = case.shape.last() {
        let bias = Array::<f32>::random(&[n], case.seed, 1.0);
        let expected = reference::add_bias(&a32, &bias).to_tensor()?;
        check_equal("add_bias", &add_bias(&ta, &bias.to_tensor()?)?, &expected)?;
    }
    Ok(())
}

/// The fused chains, where a case has rows: equal to their steps, bit for bit where the CPU takes the same ones.
fn check_fused(case: &Case) -> Result<()> {
    let (a, b) = (case.operand(1), case.operand(2));
    let (ta, tb) = (a.to_tensor()?, b.to_tensor()?);
    let (Some(&samples), Some(&n)) = (case.shape.first(), case.shape.last()) else { return Ok(()) };
    let bias = Array::<f64>::random(&[n], case.seed, 1.0).to_tensor()?;
    let (y, pre) = bias_gelu(&ta, &bias)?;
    check_equal("bias_gelu's pre-activation", &pre, &add_bias(&ta, &bias)?)?;
    check_equal("bias_gelu", &y, &gelu(&pre)?)?;
    check_equal("bias_relu", &bias_relu(&ta, &bias)?, &relu(&pre)?)?;
    let mut wide = case.clone();
    wide.shape[case.shape.len() - 1] *= 2;
    let x = wide.operand(3);
    let tx = x.to_tensor()?;
    let (x32, a32) = (x.cast::<f32>(), a.cast::<f32>());
    check("swiglu", &swiglu(&tx)?, &reference::swiglu(&x32), &reference::swiglu(&x), 2.0)?;
    let (naive, oracle) = (reference::swiglu_backward(&a32, &x32), reference::swiglu_backward(&a, &x));
    check("swiglu_backward", &swiglu_backward(&ta, &tx)?, &naive, &oracle, 2.0)?;
    if case.shape.len() < 2 {
        return Ok(());
    }
    let scale = Array::<f64>::random(&[n], case.seed + 1, 1.0);
    let keep = Array::<f64>::random(&[samples], case.seed + 2, 1.0).map(|v| if v < 0.0 { 0.0 } else { 1.25 });
    for (scale, keep) in
        [(None, None), (Some(&scale), None), (None, Some(&keep)), (Some(&scale), Some(&keep))]
    {
        let tensors = [scale, keep].map(|f| f.map(|f| f.to_tensor().unwrap()));
        let [s, k] = [tensors[0].as_ref(), tensors[1].as_ref()];
        let cast = [scale, keep].map(|f| f.map(Array::cast::<f32>));
        let [s32, k32] = [cast[0].as_ref(), cast[1].as_ref()];
        let (a32, b32) = (a.cast::<f32>(), b.cast::<f32>());
        let naive = reference::residual_scale(&a32, &b32, s32, k32);
        let oracle = reference::residual_scale(&a, &b, scale, keep);
        check("residual_scale", &residual_scale(&ta, &tb, s, k)?, &naive, &oracle, 2.0)?;
        let (dbranch, dscale) = residual_scale_backward(&ta, &tb, s, k)?;
        let naive = reference::residual_scale_backward(&a32, &b32, s32, k32);
        let oracle = reference::residual_scale_backward(&a, &b, scale, keep);
        check("dbranch", &dbranch, &naive.0, &oracle.0, 2.0)?;
        assert_eq!(dscale.is_some(), scale.is_some());
        if let Some(dscale) = dscale {
            check("dscale", &dscale, &naive.1, &oracle.1, 3.0)?;
        }
    }
    Ok(())
}

#[test]
fn all_cases_agree_with_the_reference() {
    for case in cases() {
        let guard = memory::guard();
        check_case(&case).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        check_fused(&case).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        guard.finish().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_cases_agree_with_the_reference(case in strategy()) {
        check_case(&case).unwrap();
        check_fused(&case).unwrap();
    }
}

/// Beyond f32's scale-relative tolerance: near zero GELU is x / 2 to the last bits.
#[test]
fn tanh_and_ln_at_the_ends() {
    let x = Tensor::from_slice(&[-1e9f32, -20.0, -0.0, 0.0, 1e-6, 20.0, f32::INFINITY], &[7]).unwrap();
    let y = tanh(&x).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(y[..4], [-1.0, -1.0, 0.0, 0.0]);
    assert!((y[4] - 1e-6).abs() < 1e-7 && y[5..] == [1.0, 1.0], "{y:?}");
    let z = ln(&Tensor::from_slice(&[0.0f32, 1.0, -1.0], &[3]).unwrap()).unwrap().to_vec::<f32>().unwrap();
    assert!(z[0] == f32::NEG_INFINITY && z[1] == 0.0 && z[2].is_nan(), "{z:?}");
}

#[test]
fn gelu_is_accurate_near_zero_and_far_out() {
    let x = [1e-30f32, -1e-30, 1e-6, -1e-6, 0.0, 10.0, 1e30, -10.0, -1e30];
    let y = gelu(&Tensor::from_slice(&x, &[9]).unwrap()).unwrap().to_vec::<f32>().unwrap();
    for (x, y) in x.iter().zip(&y).take(4) {
        assert!((y / x - 0.5).abs() < 1e-6, "gelu({x}) = {y}");
    }
    assert_eq!(y[4..], [0.0, 10.0, 1e30, 0.0, 0.0]);
}

#[test]
fn nan_stays_where_it_is() {
    let x = Tensor::from_slice(&[1.0, f32::NAN, -1.0], &[3]).unwrap();
    for y in [relu(&x).unwrap(), gelu(&x).unwrap(), gelu_backward(&x, &x).unwrap()] {
        let y = y.to_vec::<f32>().unwrap();
        assert!(!y[0].is_nan() && y[1].is_nan() && !y[2].is_nan(), "{y:?}");
    }
}

#[test]
fn threads_do_not_matter() {
    let case = Case { shape: vec![3, 20_011], seed: 5 };
    let (a, b) = (case.operand(1).to_tensor().unwrap(), case.operand(2).to_tensor().unwrap());
    let wide = Case { shape: vec![300, 202], seed: 6 }.operand(1).to_tensor().unwrap();
    same_on_any_number_of_threads("elementwise", || {
        vec![
            swiglu(&wide).unwrap(),
            gelu(&a).unwrap(),
            gelu_backward(&a, &b).unwrap(),
            add_scaled(&a, &b, 0.7).unwrap(),
        ]
    });
}

#[test]
fn wrong_arguments_are_errors() {
    let x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap();
    let y = Tensor::from_slice(&[1f32, 2.0], &[2, 1]).unwrap();
    let i = Tensor::from_slice(&[1i32, 2], &[2]).unwrap();
    assert!(add(&x, &y).unwrap_err().message().contains("b must have shape [2]"));
    assert_eq!(relu(&i).unwrap_err().kind(), engine::ErrorKind::DType);
    assert_eq!(gelu_backward(&i, &x).unwrap_err().kind(), engine::ErrorKind::DType);
    assert!(add_bias(&Tensor::scalar(1.0).unwrap(), &x).is_err());
    assert!(add_bias(&y, &x).is_err());
    assert!(bias_gelu(&y, &x).is_err() && bias_relu(&y, &x).is_err());
    assert!(swiglu(&y).unwrap_err().message().contains("[.., 2 H]"));
    assert!(swiglu_backward(&x, &x).unwrap_err().message().contains("dy must have shape [1]"));
    let one = Tensor::from_slice(&[1f32], &[1]).unwrap();
    assert!(residual_scale(&y, &y, Some(&one), Some(&x)).is_ok());
    assert!(
        residual_scale(&y, &y, Some(&x), None).unwrap_err().message().contains("scale must have shape [1]")
    );
    assert!(
        residual_scale(&y, &y, None, Some(&one)).unwrap_err().message().contains("keep must have shape [2]")
    );
    assert!(residual_scale(&x, &x, None, None).unwrap_err().message().contains("samples and channels"));
    assert!(residual_scale_backward(&y, &x, None, None).is_err());
    let wide = Tensor::from_slice(&[0f32; 6], &[2, 3]).unwrap().transpose(0, 1).unwrap();
    assert!(relu(&wide).unwrap_err().message().contains("contiguous"));
}
