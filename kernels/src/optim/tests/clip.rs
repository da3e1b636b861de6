//! Norms and clipping against closed forms.

use super::*;

#[test]
fn norm_of_all_gradients() {
    assert_eq!(global_norm(&[]).unwrap().item().unwrap(), 0.0);
    let case =
        Case { sizes: vec![0, 3, 50_000, 17], scale: 2.0, decay: 0.0, zeros: false, steps: 1, holds: false };
    let tensors: Vec<Tensor> =
        case.gradients::<f32>(0).iter().map(|g| Tensor::from_slice(g, &[g.len()]).unwrap()).collect();
    let right = reference::global_norm(&case.gradients::<f64>(0));
    let found = global_norm(&tensors.iter().collect::<Vec<_>>()).unwrap().item().unwrap();
    assert!((f64::from(found) - right).abs() <= f64::from(f32::EPSILON) * right, "{found} {right}");
    let huge = Tensor::full(&[4], 1e30, Device::Cpu).unwrap();
    assert_eq!(global_norm(&[&huge]).unwrap().item().unwrap(), 2e30);
    let integers = Tensor::from_slice(&[1i32, 2], &[2]).unwrap();
    assert!(global_norm(&[&integers]).is_err());
}

/// Gradients of norms 5, 0, 1, 12 and 2 in groups 9, 0, 9, 0 and 3.
fn five() -> (Vec<Tensor>, [u32; 5]) {
    let all: [&[f32]; 5] = [&[3.0, -4.0], &[0.0; 3], &[1.0], &[0.0, 12.0, 0.0], &[1.0, 1.0, -1.0, -1.0]];
    (all.iter().map(|x| Tensor::from_slice(x, &[x.len()]).unwrap()).collect(), [9, 0, 9, 0, 3])
}

fn scales(clip: Clip) -> Vec<f32> {
    let (gradients, groups) = five();
    let found = clip_scales(&gradients.iter().collect::<Vec<_>>(), &groups, clip).unwrap();
    // Whatever is clipped, the norm is that of all: 25 + 0 + 1 + 144 + 4 squared.
    near(&[found.norm.item().unwrap()], &[174f64.sqrt()]);
    found.scales.to_vec().unwrap()
}

#[test]
fn each_scope_clips_by_its_own_norm() {
    let scale = |norm: f64| (3.0 / (norm + 1e-6)).min(1.0);
    near(&scales(Clip::global(3.0)), &[scale(174f64.sqrt()); 5]);
    near(&scales(Clip::parameter(3.0)), &[0.6, 1.0, 1.0, 0.25, 1.0]);
    let nine = scale(26f64.sqrt());
    near(&scales(Clip::group(3.0)), &[nine, 0.25, nine, 0.25, 1.0]);
}

/// A limit that no norm reaches changes nothing at all, and a norm that is not a number clips nothing.
#[test]
fn clipping_never_scales_up() {
    for clip in [Clip::global(20.0), Clip::group(20.0), Clip::parameter(20.0)] {
        assert_eq!(scales(clip), [1.0; 5]);
    }
    let x = |x: f32| Tensor::scalar(x).unwrap();
    let of = |gradients: &[&Tensor]| clip_scales(gradients, &[], Clip::parameter(2.0)).unwrap().scales;
    assert_eq!(of(&[&x(f32::NAN), &x(1.0)]).to_vec::<f32>().unwrap(), [1.0, 1.0]);
    assert_eq!(of(&[&x(f32::INFINITY)]).to_vec::<f32>().unwrap(), [0.0]);
    let none = clip_scales(&[], &[], Clip::group(1.0)).unwrap();
    assert_eq!((none.norm.item().unwrap(), none.scales.len()), (0.0, 0));
}

#[test]
fn wrong_clips_are_refused() {
    let (gradients, groups) = five();
    let gradients: Vec<&Tensor> = gradients.iter().collect();
    for limit in [0.0, -1.0, f32::NAN] {
        let error = clip_scales(&gradients, &groups, Clip::global(limit)).unwrap_err();
        assert!(error.message().contains("above 0"), "{error}");
    }
    let error = clip_scales(&gradients, &groups[1..], Clip::group(1.0)).unwrap_err();
    assert!(error.message().contains("5 gradients need a group each, not 4"), "{error}");
    clip_scales(&gradients, &[], Clip::parameter(1.0)).unwrap();
}

/// Scales that are not one for each slot are refused by the step.
#[test]
fn scales_belong_to_slots() {
    let x = Tensor::full(&[2], 1.0, Device::Cpu).unwrap();
    let (mut value, mut first) = (x.clone(), x.clone());
    let mut slots = [Slot {
        value: &mut value,
        gradient: &x,
        first: &mut first,
        second: None,
        low: None,
        average: None,
        weight_decay: 0.0,
        rate_scale: 1.0,
        adapt: false,
        hold: Hold::None,
    }];
    let step = Step { gradient_scales: Some(&x), ..Step::at(1.0) };
    let error = sgd(&mut slots, &step, 0.9, false, StepCount::Value(0)).unwrap_err().to_string();
    assert!(error.contains("gradient_scales"), "{error}");
    let half = Tensor::full(&[1], 0.5, Device::Cpu).unwrap();
    let step = Step { gradient_scales: Some(&half), gradient_scale: 0.5.into(), ..Step::at(1.0) };
    sgd(&mut slots, &step, 0.9, false, StepCount::Value(0)).unwrap();
    near(&value.to_vec::<f32>().unwrap(), &[0.75; 2]);
}
