use super::*;

const BOTH: Mixing = Mixing { mixup: 0.8, cutmix: 1.0, probability: 1.0, erase: 0.25 };

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

/// Mean 1/2 and variance 1 / (4 (2a + 1)), within five standard errors; a uniform distribution for a = 1.
#[test]
fn beta_has_its_moments() {
    for a in [0.2f32, 0.8, 1.0, 3.0] {
        let mut random = Philox::new(3, Purpose::Test, 0);
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|_| f64::from(beta(a, &mut random))).collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        let wanted = 1.0 / (4.0 * (2.0 * f64::from(a) + 1.0));
        // The square of a deviation within 1/2 has at most the variance 1/64.
        assert!((mean - 0.5).abs() < 5.0 * (wanted / f64::from(n)).sqrt(), "{a}: {mean}");
        assert!((variance - wanted).abs() < 5.0 * (1.0 / 64.0 / f64::from(n)).sqrt(), "{a}: {variance}");
    }
}

/// The part in the labels is the mean weight of the pixels, in both kinds and where a box is cut off at the border.
#[test]
fn labels_are_mixed_as_pixels_are() {
    let (mut cut, mut even, mut parts) = (0, 0, 0.0);
    for step in 0..400 {
        let mix = BOTH.mix(1, step, [7, 5]);
        let total: f32 = mix.rows.iter().flat_map(|r| mix.columns.iter().map(move |c| r * c)).sum();
        assert!((total / 35.0 - mix.part).abs() < 1e-6, "{mix:?}");
        assert_eq!(mix, BOTH.mix(1, step, [7, 5]), "a function of seed and step");
        match mix.rows.iter().all(|r| *r == mix.part) && mix.columns == [1.0; 5] {
            true => even += 1,
            false => cut += 1,
        }
        parts += mix.part / 400.0;
    }
    assert!((150..250).contains(&cut) && (150..250).contains(&even), "{cut} boxes, {even} mixtures");
    assert!((0.3..0.6).contains(&parts), "{parts}");
    assert_ne!(BOTH.mix(1, 0, [7, 5]), BOTH.mix(2, 0, [7, 5]));
    let never = Mixing { probability: 0.0, ..BOTH }.mix(1, 0, [7, 5]);
    assert!(never.part == 0.0 && never.rows == [0.0; 7]);
    let one = Mixing { cutmix: 0.0, ..BOTH };
    assert!((0..50).all(|step| one.mix(1, step, [7, 5]).columns == [1.0; 5]));
    let other = Mixing { mixup: 0.0, ..BOTH };
    assert!((0..50).all(|step| other.mix(1, step, [7, 5]).rows.iter().all(|r| [0.0, 1.0].contains(r))));
}

/// How often an image is erased, how much of it, and that boxes are whole and differ.
#[test]
fn boxes_are_erased_as_often_and_as_large_as_asked() {
    let (batch, size) = (200, [20, 30]);
    let (mut hit, mut area, mut places) = (0, 0.0, std::collections::BTreeSet::new());
    for step in 0..10 {
        let boxes = BOTH.erasures(1, step, batch, size);
        for b in 0..batch {
            let (r, c) = boxes[b * 50..][..50].split_at(20);
            let (h, w) = (r.iter().sum::<f32>(), c.iter().sum::<f32>());
            assert_eq!(h > 0.0, w > 0.0);
            let first = r.iter().position(|v| *v == 1.0).unwrap_or(0);
            assert!(r[first..].iter().take(h as usize).all(|v| *v == 1.0), "one run of rows");
            if h > 0.0 {
                hit += 1;
                area += h * w / 600.0;
                places.insert(first);
            }
        }
    }
    // Five standard errors of 2000 draws with probability 1/4.
    assert!((hit as f32 - 500.0).abs() < 5.0 * (2000.0f32 * 0.25 * 0.75).sqrt(), "{hit}");
    let mean = area / hit as f32;
    assert!((0.1..0.25).contains(&mean) && places.len() > 10, "{mean} {places:?}");
}

/// Mixing, erasing and soft labels of two images against numbers worked out by hand.
#[test]
fn images_and_labels_are_mixed_by_the_weights() {
    let images = tensor(&[1.0, 2.0, 3.0, 4.0, 11.0, 22.0, 33.0, 44.0], &[2, 2, 2, 1]);
    let partners = reversed(2, Device::Cpu).unwrap();
    let mix = Mix { rows: vec![0.0, 1.0], columns: vec![1.0, 0.5], part: 0.25 }.packed().unwrap();
    let out = mixed(&images, &partners, &mix).unwrap();
    assert_eq!(out.to_vec::<f32>().unwrap(), [1.0, 2.0, 33.0, 24.0, 11.0, 22.0, 3.0, 24.0]);
    let labels = Tensor::from_slice(&[2i32, 0], &[2]).unwrap();
    let identity = tensor(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], &[3, 3]);
    let targets = soft(&labels, &partners, &mix, &identity).unwrap();
    assert_eq!(targets.to_vec::<f32>().unwrap(), [0.25, 0.0, 0.75, 0.75, 0.0, 0.25]);
    let boxes = tensor(&[0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], &[2, 4]);
    let out = erased(&images, &boxes).unwrap();
    assert_eq!(out.to_vec::<f32>().unwrap(), [1.0, 2.0, 0.0, 0.0, 11.0, 22.0, 33.0, 44.0]);
}
