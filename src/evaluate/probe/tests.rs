use super::*;
use crate::evaluate::inputs::Input;

/// Two classes on both sides of a line, in features of very different scales.
fn separable(n: usize, seed: u64) -> Labelled {
    let mut g = Philox::new(seed, Purpose::Test, 0);
    let mut set = Labelled { features: Vec::new(), dim: 3, labels: Vec::new() };
    for i in 0..n {
        let class = (i % 2) as i32;
        let offset = if class == 0 { -1.0 } else { 1.0 };
        set.features.extend([1e3 * (offset + 0.2 * g.normal()), 1e-3 * g.normal(), 5.0]);
        set.labels.push(class);
    }
    set
}

/// Five classes that overlap, in features of scale 1; the first half of the columns says more than the second.
fn overlapping(n: usize, seed: u64) -> Labelled {
    let mut g = Philox::new(seed, Purpose::Test, 1);
    let mut set = Labelled { features: Vec::new(), dim: 8, labels: Vec::new() };
    for _ in 0..n {
        let class = g.below(5);
        let near = |j: usize| if j % 4 == class % 4 { 1.2 } else { 0.1 * class as f32 };
        set.features.extend((0..8).map(|j| near(j) * if j < 4 { 1.0 } else { 0.3 } + 0.6 * g.normal()));
        set.labels.push(class as i32);
    }
    set
}

fn whole(set: &Labelled) -> Vec<Input> {
    vec![Input { name: String::new(), columns: vec![0..set.dim] }]
}

fn with(protocol: Protocol) -> Settings {
    Settings { protocol, ..Settings::default() }
}

#[test]
fn separable_classes_are_separated_whatever_the_scale() {
    let (train, test) = (separable(400, 1), separable(200, 2));
    let found = linear(&train, &test, &whole(&train), &Settings::default()).unwrap();
    assert!(found.top1 > 99.0, "{found:?}");
    assert!(found.choice.held_out.unwrap() > 99.0);
}

/// Every protocol comes near the best that a linear layer can do, which logistic regression on the test samples bounds.
#[test]
fn every_protocol_learns() {
    let (train, test) = (overlapping(1500, 1), overlapping(1000, 2));
    let inputs = whole(&train);
    let best = fit(&test, &inputs, &with(Protocol::Logreg)).unwrap().accuracy(&test).unwrap();
    for (name, protocol) in PROTOCOLS {
        let found = linear(&train, &test, &inputs, &with(protocol)).unwrap();
        assert!(found.top1 > best - 4.0, "{name}: {found:?}, at most {best}");
    }
}

#[test]
fn shuffled_labels_stay_at_chance() {
    let (mut train, mut test) = (separable(400, 1), separable(1000, 2));
    let mut g = Philox::new(9, Purpose::Test, 0);
    train.labels.iter_mut().chain(&mut test.labels).for_each(|l| *l = g.below(2) as i32);
    for (name, protocol) in PROTOCOLS {
        let found = linear(&train, &test, &whole(&train), &with(protocol)).unwrap();
        // Five standard errors of 1000 coin flips.
        assert!((found.top1 - 50.0).abs() < 100.0 * 5.0 * (0.25f32 / 1000.0).sqrt(), "{name}: {found:?}");
    }
}

/// Nothing is chosen by looking at test samples: whatever they are and whatever their labels, the choice and the head stay.
#[test]
fn the_choice_does_not_depend_on_the_test_set() {
    let train = overlapping(150, 1);
    let short = |protocol| {
        let epochs = (protocol != Protocol::Logreg).then_some(4);
        Settings { epochs, ..with(protocol) }
    };
    let mut inputs = whole(&train);
    inputs.push(Input { name: "first half".into(), columns: vec![0..4] });
    for (name, protocol) in PROTOCOLS {
        let inputs = if protocol == Protocol::Dinov2Sweep { &inputs[..] } else { &inputs[..1] };
        let test = overlapping(300, 2);
        let mut wrong = test.clone();
        wrong.labels.iter_mut().for_each(|l| *l = (*l + 1) % 5);
        let other = overlapping(77, 3);
        let choice = |test: &Labelled| linear(&train, test, inputs, &short(protocol)).unwrap().choice;
        let first = choice(&test);
        assert!(first == choice(&wrong) && first == choice(&other), "{name}");
        let (a, b) =
            (fit(&train, inputs, &short(protocol)).unwrap(), fit(&train, inputs, &short(protocol)).unwrap());
        assert_eq!(a.predict(&test).unwrap(), b.predict(&wrong).unwrap());
        // The held-out tenth is a part of the training set: another one leads to another accuracy there.
        let reseeded = Settings { seed: 2, ..short(protocol) };
        let again = fit(&train, inputs, &reseeded).unwrap().choice;
        assert!(first.held_out != again.held_out || first.strength != again.strength, "{name}");
    }
}

/// Layers that are trained together become what each becomes alone.
#[test]
fn layers_do_not_know_of_each_other() {
    let train = overlapping(300, 1);
    for protocol in [Protocol::Sgd, Protocol::Mae, Protocol::Dinov2Sweep] {
        let inputs = [&whole(&train)[..], &[Input { name: "half".into(), columns: vec![4..8] }]].concat();
        let candidates = Candidates::new(&train, &inputs, &with(protocol)).unwrap();
        let strengths = candidates.strengths();
        let together = candidates.train(&train, &strengths, 1).unwrap();
        for (i, strength) in strengths.iter().enumerate().step_by(2) {
            let Linear::Single { weight: a, .. } = &together[0][i].linear else { unreachable!() };
            let alone = Candidates {
                inputs: &inputs[..1],
                ..Candidates::new(&train, &inputs, &with(protocol)).unwrap()
            };
            let alone = alone.train(&train, &[*strength], 1).unwrap();
            let Linear::Single { weight: b, .. } = &alone[0][0].linear else { unreachable!() };
            let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
            let scale = a.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * scale), "{protocol} {strength:?}");
        }
    }
}

/// MAE's protocol normalises features away whose scale would stop any rate; without it they do.
#[test]
fn batch_norm_before_the_layer_matters() {
    let scaled = |n, seed| {
        let mut set = overlapping(n, seed);
        set.features.chunks_exact_mut(8).for_each(|row| {
            row.iter_mut().enumerate().for_each(|(j, v)| *v = 50.0 + *v * 10f32.powi(j as i32 % 4 - 3));
        });
        set
    };
    let (train, test) = (scaled(1000, 1), scaled(500, 2));
    let top1 = |protocol| linear(&train, &test, &whole(&train), &with(protocol)).unwrap().top1;
    let (mae, dino) = (top1(Protocol::Mae), top1(Protocol::Dino));
    assert!(mae > dino + 10.0, "{mae} {dino}");
}

#[test]
fn settings_that_a_protocol_does_not_have_are_errors() {
    let train = overlapping(50, 1);
    let fit = |settings: Settings| fit(&train, &whole(&train), &settings).map(|_| ()).unwrap_err();
    let rates = fit(Settings { rates: Some(vec![0.1]), ..with(Protocol::Logreg) });
    assert!(rates.message().contains("--rates"), "{rates}");
    for wrong in [vec![], vec![-1.0], vec![f32::NAN]] {
        fit(Settings { rates: Some(wrong), ..Settings::default() });
    }
    fit(Settings { epochs: Some(0), ..Settings::default() });
}
