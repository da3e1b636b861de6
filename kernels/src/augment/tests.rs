//! Every operation against the reference, and the whole of a view.

use super::cases::{Case, cases, strategy};
use super::*;
use crate::array::Array;
use crate::compare::check;
use engine::random::Purpose;
use engine::{DType, Device, Philox, Tensor};
use proptest::prelude::*;

mod draws;

fn resize(case: &Case) {
    let [height, width, channels] = case.image;
    let bytes = case.bytes(7);
    let floats: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
    let exact = Array::<f64>::new(&case.image, bytes.iter().map(|&b| f64::from(b) / 255.0).collect());
    let naive = reference::resized_crop(&exact.cast::<f32>(), case.crop, case.size, case.interpolation);
    let oracle = reference::resized_crop(&exact, case.crop, case.size, case.interpolation);
    let shape = [case.size[0], case.size[1], channels];
    let images = [
        ImageRef::new(&bytes, height, width, channels).unwrap(),
        ImageRef::from_f32(&floats, height, width, channels).unwrap(),
    ];
    for image in images {
        let out = resized_crop(image, case.crop, case.size[0], case.size[1], case.interpolation).unwrap();
        let out = Tensor::from_slice(&out, &shape).unwrap();
        check(&format!("{case:?}"), &out, &naive, &oracle, 2.0).unwrap();
    }
}

#[test]
fn resized_crops_are_within_tolerance() {
    cases().iter().for_each(resize);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_resized_crop_is_within_tolerance(case in strategy()) {
        resize(&case);
    }
}

/// Random pixels, then black, white, grey, equal channels, and ties for the largest channel.
fn picture(height: usize, width: usize, channels: usize) -> Array<f32> {
    let mut g = Philox::new(5, Purpose::Test, 3);
    let mut x = Array::zeros(&[height, width, channels]);
    x.data.iter_mut().for_each(|v| *v = g.uniform());
    let special =
        [[0.0; 3], [1.0; 3], [0.5; 3], [0.7, 0.7, 0.2], [0.1, 0.9, 0.9], [0.8, 0.3, 0.8], [1.0, 0.0, 0.0]];
    for (pixel, value) in x.data.chunks_exact_mut(channels).step_by(3).zip(special) {
        pixel.copy_from_slice(&value[..channels]);
    }
    x
}

/// Compares an in-place operation with its reference in both precisions.
macro_rules! compare {
    ($x:expr, $name:ident($($reference:expr),*), $y:ident => $apply:expr) => {{
        let x: &Array<f32> = $x;
        let mut out = x.data.clone();
        {
            let $y = &mut out[..];
            $apply;
        }
        let out = Tensor::from_slice(&out, &x.shape).unwrap();
        let naive = reference::$name(x, $($reference),*);
        let oracle = reference::$name(&x.cast::<f64>(), $($reference),*);
        check(concat!(stringify!($name), stringify!($($reference),*)), &out, &naive, &oracle, 2.0).unwrap();
    }};
}

#[test]
fn colour_operations_are_within_tolerance() {
    for (height, width, c) in
        [(1, 1, 1), (1, 1, 3), (5, 7, 1), (5, 7, 3), (16, 16, 3), (31, 33, 3), (28, 28, 1)]
    {
        let x = &picture(height, width, c);
        for factor in [0.0f32, 0.2, 0.6, 1.0, 1.8] {
            compare!(x, brightness(factor), y => brightness(y, factor));
            compare!(x, contrast(factor), y => contrast(y, c, factor).unwrap());
            compare!(x, saturation(factor), y => saturation(y, c, factor).unwrap());
        }
        for shift in [-0.5f32, -0.17, -1e-4, 0.0, 0.1, 0.4, 0.5] {
            compare!(x, hue(shift), y => hue(y, c, shift).unwrap());
        }
        compare!(x, grayscale(), y => grayscale(y, c).unwrap());
        compare!(x, solarize(0.5), y => solarize(y, 0.5));
        compare!(x, horizontal_flip(), y => horizontal_flip(y, height, width, c).unwrap());
        let (mean, std) = ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]);
        compare!(x, normalize(&mean[..c], &std[..c]), y => normalize(y, &mean[..c], &std[..c]).unwrap());
    }
}

#[test]
fn blurs_are_within_tolerance() {
    for (height, width, c) in [(1, 1, 1), (1, 9, 3), (2, 3, 1), (7, 5, 3), (17, 33, 1), (12, 20, 2)] {
        let x = &picture(height, width, c.min(3));
        for (kernel, sigma) in [(1, 0.5f32), (3, 0.1), (3, 2.0), (5, 1.1), (9, 2.0)] {
            compare!(x, gaussian_blur(kernel, sigma), y => gaussian_blur(y, height, width, c, kernel, sigma).unwrap());
        }
    }
}

#[test]
fn one_channel_has_no_colour_to_change() {
    let x = picture(6, 6, 1).data;
    for change in [
        |y: &mut [f32]| saturation(y, 1, 1.7),
        |y: &mut [f32]| hue(y, 1, 0.3),
        |y: &mut [f32]| grayscale(y, 1),
    ] {
        let mut y = x.clone();
        change(&mut y).unwrap();
        assert_eq!(x, y);
    }
}

/// A recipe in which everything happens.
fn everything(height: usize, width: usize, channels: usize) -> Recipe {
    Recipe {
        flip: 0.5,
        grayscale: 0.2,
        blur: Some(Blur::with_probability(0.5)),
        solarize: 0.3,
        ..Recipe::simclr(height, width, 1.0)
    }
    .normalized(&[0.4, 0.5, 0.6][..channels], &[0.2, 0.3, 0.1][..channels])
}

fn draw(recipe: &Recipe, image: &ImageRef<'_>, sample: usize, view: usize) -> Parameters {
    let index = stream_index(0, sample, view).unwrap();
    Parameters::draw(recipe, image.height(), image.width(), &mut Philox::new(1, Purpose::Augment, index))
}

fn view(image: ImageRef<'_>, parameters: &Parameters, recipe: &Recipe) -> Vec<f32> {
    let mut out = vec![f32::NAN; recipe.height * recipe.width * image.channels()];
    apply(image, parameters, recipe, &mut Workspace::default(), &mut out).unwrap();
    out
}

/// The documented order, step by step through the public operations.
fn step_by_step(image: ImageRef<'_>, p: &Parameters, recipe: &Recipe) -> Vec<f32> {
    let (h, w, c) = (recipe.height, recipe.width, image.channels());
    let mut x = resized_crop(image, p.crop, h, w, recipe.interpolation).unwrap();
    if p.flip {
        horizontal_flip(&mut x, h, w, c).unwrap();
    }
    x.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    for operation in p.jitter.iter().flat_map(|j| j.order) {
        let j = p.jitter.unwrap();
        match operation {
            JitterOperation::Brightness => brightness(&mut x, j.brightness),
            JitterOperation::Contrast => contrast(&mut x, c, j.contrast).unwrap(),
            JitterOperation::Saturation => saturation(&mut x, c, j.saturation).unwrap(),
            JitterOperation::Hue => hue(&mut x, c, j.hue).unwrap(),
        }
    }
    if p.grayscale {
        grayscale(&mut x, c).unwrap();
    }
    if let Some(sigma) = p.blur {
        gaussian_blur(&mut x, h, w, c, recipe.blur.unwrap().kernel(h.min(w)), sigma).unwrap();
        x.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    }
    if p.solarize {
        solarize(&mut x, 0.5);
    }
    assert!(x.iter().all(|v| (0.0..=1.0).contains(v)), "before normalisation all is in [0, 1]");
    if let Some(n) = &recipe.normalize {
        normalize(&mut x, &n.mean, &n.std).unwrap();
    }
    x
}

#[test]
fn a_view_is_its_steps_in_the_documented_order() {
    for channels in [1, 3] {
        let case = Case { image: [37, 29, channels], ..cases()[0] };
        let bytes = case.bytes(3);
        let image = ImageRef::new(&bytes, 37, 29, channels).unwrap();
        let recipe = everything(20, 24, channels);
        let mut seen = [0; 6];
        for sample in 0..200 {
            let p = draw(&recipe, &image, sample, 0);
            let hits = [p.flip, p.jitter.is_some(), p.grayscale, p.blur.is_some(), p.solarize, true];
            seen.iter_mut().zip(hits).for_each(|(s, h)| *s += usize::from(h));
            assert_eq!(view(image, &p, &recipe), step_by_step(image, &p, &recipe), "sample {sample}: {p:?}");
        }
        assert!(seen.iter().all(|&n| n > 20), "every step was exercised: {seen:?}");
    }
}

#[test]
fn the_order_of_jitter_and_of_solarize_matters_and_is_kept() {
    let bytes = Case { image: [8, 8, 3], ..cases()[0] }.bytes(1);
    let image = ImageRef::new(&bytes, 8, 8, 3).unwrap();
    use JitterOperation::{Brightness, Contrast, Hue, Saturation};
    let jitter = |order| Jitter { order, brightness: 1.6, contrast: 0.5, saturation: 1.4, hue: 0.2 };
    let with = |order| Parameters { jitter: Some(jitter(order)), ..Parameters::identity(&image) };
    let recipe = Recipe::evaluation(8, 8);
    let a = view(image, &with([Brightness, Contrast, Saturation, Hue]), &recipe);
    let b = view(image, &with([Contrast, Brightness, Saturation, Hue]), &recipe);
    assert_ne!(a, b);
    // Inverting happens on the scale 0 ..= 1, before the mean is taken away.
    let recipe = Recipe::evaluation(8, 8).normalized(&[0.5; 3], &[0.25; 3]);
    let out = view(image, &Parameters { solarize: true, ..Parameters::identity(&image) }, &recipe);
    for (out, &byte) in out.iter().zip(&bytes) {
        let x = f32::from(byte) / 255.0;
        assert_eq!(*out, (x.min(1.0 - x) - 0.5) / 0.25, "{byte}");
    }
}

#[test]
fn identities_are_exact() {
    for (height, width, channels) in [(28, 28, 1), (1, 1, 1), (33, 17, 3)] {
        let bytes = Case { image: [height, width, channels], ..cases()[0] }.bytes(9);
        let image = ImageRef::new(&bytes, height, width, channels).unwrap();
        let expected: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let recipe = Recipe { interpolation, ..Recipe::evaluation(height, width) };
            assert_eq!(view(image, &Parameters::identity(&image), &recipe), expected);
            let flipped = view(image, &Parameters { flip: true, ..Parameters::identity(&image) }, &recipe);
            assert_eq!(flipped != expected, width > 1);
            let again = ImageRef::from_f32(&flipped, height, width, channels).unwrap();
            assert_eq!(
                view(again, &Parameters { flip: true, ..Parameters::identity(&again) }, &recipe),
                expected
            );
        }
    }
}

#[test]
fn a_used_workspace_changes_nothing_and_nothing_is_written_outside() {
    let scope = engine::memory::guard();
    let mut workspace = Workspace::default();
    for case in cases().iter().filter(|c| c.image[2] != 2) {
        let [height, width, channels] = case.image;
        let bytes = case.bytes(2);
        let image = ImageRef::new(&bytes, height, width, channels).unwrap();
        let recipe = everything(case.size[0], case.size[1], channels);
        for sample in 0..6 {
            let p = draw(&recipe, &image, sample, 1);
            let mut out =
                Tensor::empty(&[case.size[0], case.size[1], channels], DType::F32, Device::Cpu).unwrap();
            apply(image, &p, &recipe, &mut workspace, out.as_mut_slice().unwrap()).unwrap();
            assert_eq!(out.to_vec::<f32>().unwrap(), view(image, &p, &recipe));
            assert!(out.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "poison is left");
        }
    }
    scope.finish().unwrap();
}

#[test]
fn wrong_input_is_an_error() {
    let bytes = [0u8; 12];
    assert!(ImageRef::new(&bytes, 2, 2, 2).is_err());
    assert!(ImageRef::new(&bytes, usize::MAX, 2, 2).is_err());
    assert!(ImageRef::new(&[], 0, 2, 3).is_err());
    let image = ImageRef::new(&bytes, 2, 2, 3).unwrap();
    let crop = |top, left, height, width| Crop { top, left, height, width };
    for bad in
        [crop(0, 0, 3, 2), crop(1, 0, 2, 1), crop(0, 0, 0, 1), crop(usize::MAX, 0, 2, 1), crop(0, 1, 1, 2)]
    {
        assert!(resized_crop(image, bad, 2, 2, Interpolation::Bilinear).is_err(), "{bad:?}");
    }
    assert!(resized_crop(image, image.whole(), 0, 2, Interpolation::Bilinear).is_err());
    let mut out = [0f32; 11];
    let identity = Parameters::identity(&image);
    assert!(apply(image, &identity, &Recipe::evaluation(2, 2), &mut Workspace::default(), &mut out).is_err());
    let mut x = [0f32; 12];
    assert!(
        hue(&mut x, 2, 0.1).is_err() && hue(&mut x, 3, 0.6).is_err() && hue(&mut x, 3, f32::NAN).is_err()
    );
    assert!(contrast(&mut x[..11], 3, 1.0).is_err());
    assert!(
        gaussian_blur(&mut x, 2, 2, 3, 4, 1.0).is_err() && gaussian_blur(&mut x, 2, 2, 3, 3, 0.0).is_err()
    );
    assert!(normalize(&mut x, &[0.0], &[0.0]).is_err());
}
