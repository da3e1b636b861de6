//! Augmentations with given parameters, and resizing, against torchvision and PyTorch.

use super::case::{Case, golden};
use engine::Tensor;
use kernels::augment::{self, Crop, ImageRef, Interpolation};
use kernels::color;

golden! {
    colour_blur_flip: "aug_adjust" => adjust,
    crop_and_resize: "aug_resized_crop" => resized_crop,
    rotations: "aug_rotate" => rotate,
    resize_bilinear: "resize_bilinear_antialias" => resize,
    resize_bicubic: "resize_bicubic_antialias" => resize,
    lab_and_back: "color_lab" => lab,
}

/// Lab from sRGB and back. A cube root and a power are off by a unit in the last place each, and a and b are 500 and 200 times a
/// difference of roots near 1.
fn lab(case: &Case) {
    let lab = color::rgb_to_lab(&case.tensor("rgb")).unwrap();
    case.check_within("lab", &lab, 16.0 * f64::from(f32::EPSILON));
    let rgb = color::lab_to_rgb(lab.as_slice().unwrap());
    case.check_within(
        "back",
        &Tensor::from_slice(&rgb, lab.shape()).unwrap(),
        16.0 * f64::from(f32::EPSILON),
    );
}

/// An image [C, H, W] or [1, C, H, W] as [1, H, W, C], and H, W, C.
fn image(case: &Case, name: &str) -> (Tensor, [usize; 3]) {
    let x = case.tensor(name);
    let shape = x.shape();
    let [c, h, w] = [shape[shape.len() - 3], shape[shape.len() - 2], shape[shape.len() - 1]];
    (super::case::channels_last(&x.reshape(&[1, c, h, w]).unwrap()), [h, w, c])
}

/// Compares pixels [H, W, C] with the image `name` of the file.
///
/// torchvision computes in f32 here: both results are rounded, in another order, 16 units apart at most (pixels
/// pass through sums of up to 25 weights, or through HSV).
#[track_caller]
fn check(case: &Case, name: &str, pixels: &[f32]) {
    let (expected, _) = image(case, name);
    let expected: Vec<f64> = expected.as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect();
    let actual: Vec<f64> = pixels.iter().map(|&v| f64::from(v)).collect();
    assert_eq!(actual.len(), expected.len(), "{name}");
    let (error, at) = kernels::compare::error(&actual, &expected);
    let allowed = 16.0 * f64::from(f32::EPSILON);
    assert!(error <= allowed, "{name}: {error:.2e}, pixel value {at}: {} for {}", actual[at], expected[at]);
}

fn adjust(case: &Case) {
    let (x, [h, w, c]) = image(case, "x");
    let with = |name: &str, change: &dyn Fn(&mut [f32])| {
        let mut pixels = x.to_vec::<f32>().unwrap();
        change(&mut pixels);
        check(case, name, &pixels);
    };
    let number = |key: &str| case.number(key) as f32;
    with("brightness", &|p| augment::brightness(p, number("brightness")));
    with("contrast", &|p| augment::contrast(p, c, number("contrast")).unwrap());
    with("saturation", &|p| augment::saturation(p, c, number("saturation")).unwrap());
    with("hue", &|p| augment::hue(p, c, number("hue")).unwrap());
    with("grayscale", &|p| augment::grayscale(p, c).unwrap());
    with("solarize", &|p| augment::solarize(p, 0.5));
    with("blur", &|p| augment::gaussian_blur(p, h, w, c, 5, 1.1).unwrap());
    with("hflip", &|p| augment::horizontal_flip(p, h, w, c).unwrap());
}

fn resized(case: &Case, crop: Option<Crop>, result: &str, interpolation: Interpolation) {
    let (x, [h, w, c]) = image(case, "x");
    let source = ImageRef::from_f32(x.as_slice().unwrap(), h, w, c).unwrap();
    let (_, [height, width, _]) = image(case, result);
    let crop = crop.unwrap_or(source.whole());
    let pixels = augment::resized_crop(source, crop, height, width, interpolation).unwrap();
    check(case, result, &pixels);
}

fn resized_crop(case: &Case) {
    let crop = Crop {
        top: case.count("top"),
        left: case.count("left"),
        height: case.count("height"),
        width: case.count("width"),
    };
    resized(case, Some(crop), "bilinear", Interpolation::Bilinear);
    resized(case, Some(crop), "bicubic", Interpolation::Bicubic);
    resized(case, None, "down", Interpolation::Bilinear);
}

fn resize(case: &Case) {
    let interpolation = match case.text("mode") {
        "bilinear" => Interpolation::Bilinear,
        _ => Interpolation::Bicubic,
    };
    resized(case, None, "out", interpolation);
    resized(case, None, "up", interpolation);
}

/// Bit for bit: pixels are moved and nothing else.
fn rotate(case: &Case) {
    let (x, _) = image(case, "x");
    let all = objectives::rotation::rotations(&x).unwrap();
    for (turn, name) in ["x", "r90", "r180", "r270"].iter().enumerate() {
        let found = all.narrow(0, turn, 1).unwrap();
        let (expected, _) = image(case, name);
        assert_eq!(found.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap(), "{name}");
    }
}
