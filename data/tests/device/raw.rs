//! Raw batches and the device's kernels give the views of the CPU's loader, bit for bit.

use crate::turn;
use data::{Dataset, Image, InMemory, Loader, LoaderOptions, RawBatch};
use engine::cuda::{Staging, context, graph::Graph};
use engine::random::Purpose;
use engine::{DType, Device, Philox, Result, Tensor};
use kernels::augment::{self, Blur, ColorJitter, CropRule, Interpolation, Recipe, record_bytes};
use kernels::testing::device;
use std::borrow::Cow;
use std::sync::Arc;

fn noise(count: usize) -> Vec<u8> {
    let mut random = Philox::new(2, Purpose::Test, 0);
    (0..count).map(|_| random.next_u32() as u8).collect()
}

/// `count` images of 9 x 8, labelled by their index modulo 3.
fn equal(count: usize, channels: usize) -> Arc<dyn Dataset> {
    let labels = (0..count).map(|i| (i % 3) as u8).collect();
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    let pixels = noise(count * 72 * channels);
    Arc::new(InMemory::new("noise", pixels, [9, 8, channels], labels, classes).unwrap())
}

/// Images whose size depends on their index.
struct Mixed {
    count: usize,
    channels: usize,
}

impl Dataset for Mixed {
    fn name(&self) -> &str {
        "mixed"
    }
    fn len(&self) -> usize {
        self.count
    }
    fn channels(&self) -> usize {
        self.channels
    }
    fn size(&self) -> Option<[usize; 2]> {
        None
    }
    fn image(&self, index: usize) -> Result<Image<'_>> {
        let (height, width) = (1 + index * 5 % 23, 1 + index * 7 % 19);
        let bytes = noise(index + height * width * self.channels).split_off(index);
        Ok(Image { pixels: Cow::Owned(bytes), height, width, channels: self.channels })
    }
    fn label(&self, _: usize) -> Option<usize> {
        None
    }
    fn classes(&self) -> &[String] {
        &[]
    }
}

fn recipe(channels: usize, height: usize, width: usize) -> Recipe {
    let jitter = ColorJitter { probability: 0.8, brightness: 0.4, contrast: 0.8, saturation: 0.8, hue: 0.2 };
    let recipe = Recipe {
        crop: CropRule::Random { area: [0.08, 1.0], aspect: [0.75, 1.25] },
        interpolation: Interpolation::Bicubic,
        flip: 0.5,
        jitter: Some(jitter),
        grayscale: 0.2,
        blur: Some(Blur { probability: 0.5, sigma: [0.1, 2.0], kernel_fraction: 0.5 }),
        solarize: 0.2,
        ..Recipe::evaluation(height, width)
    };
    recipe.normalized(&[0.4, 0.5, 0.6][..channels], &[0.2, 0.3, 0.25][..channels])
}

fn recipes(channels: usize) -> Vec<Recipe> {
    vec![recipe(channels, 8, 8), recipe(channels, 8, 8), recipe(channels, 6, 5)]
}

fn loader(data: Arc<dyn Dataset>, channels: usize, workers: usize) -> Loader {
    let options = LoaderOptions { batch: 7, workers, seed: 5, drop_last: false, prefetch: 3 };
    Loader::new(data, recipes(channels), options).unwrap()
}

fn views(raw: &RawBatch, channels: usize) -> Vec<Tensor> {
    let (images, draws) = (raw.images.to_device(device()).unwrap(), raw.draws.to_device(device()).unwrap());
    augment::on_device(&images, &draws, &recipes(channels), channels, DType::F32).unwrap()
}

fn bits(view: &Tensor) -> Vec<u32> {
    view.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_device_makes_the_views_of_the_loader() {
    let _turn = turn();
    for channels in [1, 3] {
        let sets: [Arc<dyn Dataset>; 2] = [equal(17, channels), Arc::new(Mixed { count: 17, channels })];
        for (data, fixed) in sets.into_iter().zip([true, false]) {
            for epoch in [0, 3] {
                let expected = loader(data.clone(), channels, 0).epoch(epoch, 0).unwrap();
                let raw = loader(data.clone(), channels, 0).raw_epoch(epoch, 0).unwrap();
                let (mut steps, both) = (0, expected.zip(raw));
                for (expected, raw) in both {
                    let (expected, raw) = (expected.unwrap(), raw.unwrap());
                    let samples = expected.indices.len();
                    assert_eq!(raw.images.rank() == 4, fixed);
                    assert_eq!(raw.draws.shape(), [3, samples, record_bytes(&recipes(channels))]);
                    assert_eq!((&raw.indices, &raw.labels), (&expected.indices, &expected.labels));
                    assert_eq!((raw.epoch, raw.step_in_epoch), (expected.epoch, expected.step_in_epoch));
                    for (v, (made, view)) in views(&raw, channels).iter().zip(&expected.views).enumerate() {
                        assert_eq!(made.shape(), view.shape());
                        assert!(bits(made) == bits(view), "view {v}, epoch {epoch}, {channels} channels");
                    }
                    steps += 1;
                }
                assert_eq!(steps, 3);
            }
        }
    }
}

#[test]
fn raw_batches_do_not_depend_on_threads_or_on_where_the_epoch_begins() {
    let all = |workers: usize, start: usize| -> Vec<(Vec<u8>, Vec<u8>, Vec<usize>)> {
        let loader = loader(Arc::new(Mixed { count: 40, channels: 3 }), 3, workers);
        let plain = |raw: Result<RawBatch>| {
            let raw = raw.unwrap();
            (raw.images.to_vec().unwrap(), raw.draws.to_vec().unwrap(), raw.indices)
        };
        loader.raw_epoch(2, start).unwrap().map(plain).collect()
    };
    let expected = all(0, 0);
    assert_eq!(expected.len(), 6);
    for workers in 1..4 {
        assert!(all(workers, 0) == expected, "{workers} workers");
        assert!(all(workers, 4) == expected[4..], "{workers} workers from step 4");
    }
}

#[test]
fn an_error_of_the_dataset_arrives_in_its_place() {
    struct Broken(Mixed, bool);
    impl Dataset for Broken {
        fn name(&self) -> &str {
            "broken"
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn channels(&self) -> usize {
            3
        }
        fn size(&self) -> Option<[usize; 2]> {
            None
        }
        fn image(&self, index: usize) -> Result<Image<'_>> {
            assert!(index != 1 || !self.1, "image 1 makes the decoder panic");
            let mut image = self.0.image(index)?;
            image.height += usize::from(index == 1);
            Ok(image)
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn classes(&self) -> &[String] {
            &[]
        }
    }
    for (panics, says) in [(true, "makes the decoder panic"), (false, "do not make")] {
        for workers in [0, 2] {
            let data = Arc::new(Broken(Mixed { count: 5, channels: 3 }, panics));
            let options = LoaderOptions { batch: 1, workers, seed: 1, drop_last: true, prefetch: 2 };
            let results: Vec<_> =
                Loader::new(data, recipes(3), options).unwrap().raw_epoch(0, 0).unwrap().collect();
            let (last, before) = results.split_last().unwrap();
            assert!(before.iter().all(|batch| batch.is_ok()));
            let error = last.as_ref().unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }
}

/// What a trainer does: one captured graph, and each batch brought to its inputs.
#[test]
fn a_captured_graph_makes_the_views_of_each_staged_batch() {
    let _turn = turn();
    let data = equal(28, 1);
    let raw: Vec<RawBatch> =
        loader(data.clone(), 1, 2).raw_epoch(1, 0).unwrap().map(|b| b.unwrap()).collect();
    let expected = loader(data, 1, 2).epoch(1, 0).unwrap().map(|b| b.unwrap());
    let mut images = Tensor::zeros(raw[0].images.shape(), DType::U8, device()).unwrap();
    let mut draws = Tensor::zeros(raw[0].draws.shape(), DType::U8, device()).unwrap();
    let mut staging = Staging::new(device(), images.len() + draws.len(), 2).unwrap();
    let put = |staging: &mut Staging, raw: &RawBatch| {
        staging.put(&[raw.images.as_slice().unwrap(), raw.draws.as_slice().unwrap()]).unwrap();
    };
    put(&mut staging, &raw[0]);
    let make =
        |images: &Tensor, draws: &Tensor| augment::on_device(images, draws, &recipes(1), 1, DType::F32);
    make(&images, &draws).unwrap();
    let (mut graph, views) = Graph::capture(device(), || make(&images, &draws)).unwrap();
    for (i, expected) in expected.enumerate() {
        if let Some(next) = raw.get(i + 1) {
            put(&mut staging, next);
        }
        staging.take_into(&mut [&mut images, &mut draws]).unwrap();
        graph.launch().unwrap();
        for (made, view) in views.iter().zip(&expected.views) {
            assert!(bits(made) == bits(view), "step {i}");
        }
    }
    let Device::Cuda(ordinal) = device() else { unreachable!() };
    context(ordinal).unwrap().synchronize().unwrap();
}
