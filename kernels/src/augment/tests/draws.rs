//! The distribution of what is drawn: 10,000 draws an operation against the recipe.

use super::super::*;
use super::{draw, everything, view};
use crate::augment::cases::{Case, cases};
use engine::Philox;
use engine::random::Purpose;
use std::collections::{HashMap, HashSet};

const DRAWS: usize = 10_000;
/// Standard errors that a correct count or mean stays within.
const ERRORS: f64 = 5.0;

fn draws(recipe: &Recipe, height: usize, width: usize, view: usize) -> Vec<Parameters> {
    let stream = |i| Philox::new(11, Purpose::Augment, stream_index(3, i, view).unwrap());
    (0..DRAWS).map(|i| Parameters::draw(recipe, height, width, &mut stream(i))).collect()
}

/// `hits` of `n` trials happen with probability `p`.
fn assert_rate(what: &str, hits: usize, n: usize, p: f64) {
    let (n, hits) = (n as f64, hits as f64);
    assert!((hits - n * p).abs() <= ERRORS * (n * p * (1.0 - p)).sqrt(), "{what}: {hits} of {n}, not {p}");
}

/// The values are uniform between the bounds: none outside, ten equal bins equally full.
fn assert_uniform(what: &str, values: &[f64], low: f64, high: f64) {
    let slack = 1e-6 * (high - low);
    let mut bins = [0; 10];
    for &v in values {
        assert!((low - slack..=high + slack).contains(&v), "{what}: {v} is not in {low} ..= {high}");
        bins[(((v - low) / (high - low) * 10.0) as usize).min(9)] += 1;
    }
    for bin in bins {
        assert_rate(what, bin, values.len(), 0.1);
    }
}

#[test]
fn probabilities_and_ranges_are_the_recipes() {
    let mut recipe = everything(28, 28, 1);
    recipe.jitter =
        Some(ColorJitter { probability: 0.8, brightness: 0.4, contrast: 0.3, saturation: 1.5, hue: 0.1 });
    let all = draws(&recipe, 28, 28, 0);
    let count = |f: &dyn Fn(&Parameters) -> bool| all.iter().filter(|p| f(p)).count();
    assert_rate("flip", count(&|p| p.flip), DRAWS, 0.5);
    assert_rate("jitter", count(&|p| p.jitter.is_some()), DRAWS, 0.8);
    assert_rate("grayscale", count(&|p| p.grayscale), DRAWS, 0.2);
    assert_rate("blur", count(&|p| p.blur.is_some()), DRAWS, 0.5);
    assert_rate("solarize", count(&|p| p.solarize), DRAWS, 0.3);
    // Independent: both happen as often as the product says.
    assert_rate("flip and blur", count(&|p| p.flip && p.blur.is_some()), DRAWS, 0.25);
    assert_rate("solarize and grey", count(&|p| p.solarize && p.grayscale), DRAWS, 0.06);
    let sigmas: Vec<f64> = all.iter().filter_map(|p| p.blur.map(f64::from)).collect();
    assert_uniform("sigma", &sigmas, f64::from(0.1f32), 2.0);
    let jitters: Vec<Jitter> = all.iter().filter_map(|p| p.jitter).collect();
    let of = |f: &dyn Fn(&Jitter) -> f32| jitters.iter().map(|j| f64::from(f(j))).collect::<Vec<_>>();
    assert_uniform("brightness", &of(&|j| j.brightness), 0.6, 1.4);
    assert_uniform("contrast", &of(&|j| j.contrast), 0.7, 1.3);
    assert_uniform("saturation", &of(&|j| j.saturation), 0.0, 2.5);
    assert_uniform("hue", &of(&|j| j.hue), -0.1, 0.1);
    let mut orders: HashMap<_, usize> = HashMap::new();
    jitters.iter().for_each(|j| *orders.entry(j.order).or_default() += 1);
    assert_eq!(orders.len(), 24);
    for (order, n) in orders {
        assert_eq!(HashSet::from(order).len(), 4);
        assert_rate("order", n, jitters.len(), 1.0 / 24.0);
    }
}

#[test]
fn crops_are_uniform_in_area_logarithm_of_aspect_and_place() {
    let aspect = [3.0f32 / 4.0, 4.0 / 3.0];
    // Up to half of a square every try fits, so that no distribution is bent by what does not.
    let crop = CropRule::Random { area: [0.1, 0.5], aspect };
    let all = draws(&Recipe { crop, ..Recipe::evaluation(8, 8) }, 2000, 2000, 0);
    let of = |f: &dyn Fn(&Crop) -> f64| all.iter().map(|p| f(&p.crop)).collect::<Vec<_>>();
    // Rounding to pixels moves an area by at most 0.3 % of the range here.
    let (area, ratio) =
        (of(&|c| (c.height * c.width) as f64 / 4e6), of(&|c| (c.width as f64 / c.height as f64).ln()));
    assert_uniform("area", &area.iter().map(|a| a.clamp(0.1, 0.5)).collect::<Vec<_>>(), 0.1, 0.5);
    assert!(area.iter().all(|a| (0.0985..0.5015).contains(a)));
    let ends = aspect.map(|a| f64::from(a).ln());
    assert_uniform(
        "aspect",
        &ratio.iter().map(|r| r.clamp(ends[0], ends[1])).collect::<Vec<_>>(),
        ends[0],
        ends[1],
    );
    assert!(ratio.iter().all(|r| r.abs() < 0.292));
    assert_uniform("top", &of(&|c| (c.top as f64 + 0.5) / (2001 - c.height) as f64), 0.0, 1.0);
    assert_uniform("left", &of(&|c| (c.left as f64 + 0.5) / (2001 - c.width) as f64), 0.0, 1.0);
}

#[test]
fn crops_stay_inside_and_fall_back_to_the_centre() {
    let recipe = Recipe::simclr(28, 28, 0.5);
    for (height, width) in [(1, 1), (1, 50), (50, 1), (28, 28), (5, 7)] {
        for p in draws(&recipe, height, width, 0) {
            let c = p.crop;
            assert!(c.height > 0 && c.width > 0 && c.top + c.height <= height && c.left + c.width <= width);
        }
    }
    let crop = CropRule::Random { area: [1.0, 1.0], aspect: [0.75, 4.0 / 3.0] };
    let fallback = Recipe { crop, ..Recipe::evaluation(8, 8) };
    for (height, width, expected) in [
        (10, 100, Crop { top: 0, left: 43, height: 10, width: 13 }),
        (100, 10, Crop { top: 43, left: 0, height: 13, width: 10 }),
    ] {
        assert!(draws(&fallback, height, width, 0).iter().all(|p| p.crop == expected));
    }
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let product =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(&x, &y)| f(x - ma, y - mb)).sum::<f64>();
    product(&|x, y| x * y) / (product(&|x, _| x * x) * product(&|_, y| y * y)).sqrt()
}

#[test]
fn two_views_are_independent() {
    let recipe = Recipe::simclr(28, 28, 0.5);
    let (a, b) = (draws(&recipe, 28, 28, 0), draws(&recipe, 28, 28, 1));
    let parts: [fn(&Crop) -> usize; 4] = [|c| c.top, |c| c.left, |c| c.height, |c| c.width];
    for (i, part) in parts.into_iter().enumerate() {
        let of = |v: &[Parameters]| v.iter().map(|p| part(&p.crop) as f64).collect::<Vec<_>>();
        let r = correlation(&of(&a), &of(&b));
        assert!(r.abs() < ERRORS / (DRAWS as f64).sqrt(), "part {i} of the boxes: correlation {r}");
        assert!(correlation(&of(&a), &of(&a)) > 0.999, "a box is correlated with itself");
    }
    let bytes = Case { image: [28, 28, 1], ..cases()[0] }.bytes(4);
    let image = ImageRef::new(&bytes, 28, 28, 1).unwrap();
    let both = |i, v| view(image, &draw(&recipe, &image, i, v), &recipe);
    let different = (0..1000).filter(|&i| both(i, 0) != both(i, 1)).count();
    assert!(different >= 990, "{different} of 1000 pairs differ");
    let samples: HashSet<String> =
        (0..1000).map(|i| format!("{:?}", draw(&recipe, &image, i, 0).crop)).collect();
    assert!(samples.len() > 700, "samples draw their own crops: {} of 1000", samples.len());
}

#[test]
fn one_probability_changes_nothing_else() {
    let recipe = everything(28, 28, 1);
    let never = Recipe { grayscale: 0.0, blur: None, jitter: None, ..recipe.clone() };
    for (a, b) in draws(&recipe, 28, 28, 0).iter().zip(draws(&never, 28, 28, 0)) {
        assert_eq!((a.crop, a.flip, a.solarize), (b.crop, b.flip, b.solarize));
        assert!(!b.grayscale && b.blur.is_none() && b.jitter.is_none());
    }
}

#[test]
fn streams_are_packed_without_collision() {
    assert_eq!(stream_index(0, 0, 1).unwrap(), 1);
    assert_eq!(stream_index(0, 1, 0).unwrap(), 1 << 8);
    assert_eq!(stream_index(1, 0, 0).unwrap(), 1 << 40);
    let largest = stream_index((1 << 24) - 1, (1 << 32) - 1, 255).unwrap();
    assert_eq!(largest, u64::MAX);
    for bad in [(1 << 24, 0, 0), (0, 1 << 32, 0), (0, 0, 256)] {
        assert!(stream_index(bad.0, bad.1, bad.2).is_err());
    }
}

#[test]
fn recipes_are_checked_and_know_whether_they_are_random() {
    assert!(Recipe::evaluation(8, 8).is_deterministic() && !Recipe::simclr(8, 8, 1.0).is_deterministic());
    let blurred = |p| Recipe { blur: Some(Blur::with_probability(p)), ..Recipe::evaluation(8, 8) };
    assert!(blurred(0.0).is_deterministic() && !blurred(1.0).is_deterministic());
    let good = everything(8, 8, 3);
    good.check(3).unwrap();
    assert!(good.check(1).is_err() && good.check(2).is_err());
    let jitter = |f: &dyn Fn(&mut ColorJitter)| {
        let mut recipe = good.clone();
        recipe.jitter.iter_mut().for_each(f);
        recipe
    };
    let crop = |area, aspect| Recipe { crop: CropRule::Random { area, aspect }, ..good.clone() };
    let bad = [
        ("no pixel", Recipe { height: 0, ..good.clone() }),
        ("flip", Recipe { flip: 1.5, ..good.clone() }),
        ("grayscale", Recipe { grayscale: f32::NAN, ..good.clone() }),
        ("solarize", Recipe { solarize: -0.1, ..good.clone() }),
        ("jitter.hue", jitter(&|j| j.hue = 18.0)),
        ("jitter.contrast", jitter(&|j| j.contrast = -1.0)),
        ("jitter.probability", jitter(&|j| j.probability = 2.0)),
        ("area", crop([0.0, 1.0], [1.0, 1.0])),
        ("aspect", crop([0.1, 1.0], [2.0, 1.0])),
        (
            "blur.sigma",
            Recipe { blur: Some(Blur { sigma: [0.0, 1.0], ..Blur::with_probability(0.5) }), ..good.clone() },
        ),
        ("std", good.clone().normalized(&[0.0; 3], &[0.0; 3])),
    ];
    for (name, recipe) in bad {
        let error = recipe.check(3).unwrap_err();
        assert!(error.message().contains(name), "{name}: {error}");
    }
}

#[test]
fn blur_kernels_are_a_tenth_of_the_side_and_odd() {
    let blur = Blur::with_probability(1.0);
    let kernels = [8, 28, 32, 64, 96, 100, 224].map(|side| blur.kernel(side));
    assert_eq!(kernels, [3, 3, 3, 7, 9, 11, 23]);
}
