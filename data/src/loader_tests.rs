//! The loader: the same batches whatever the threads, in order, errors in their place, no hang.

use super::*;
use crate::{Image, InMemory, Subset};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `count` noisy images of 9 x 8, labelled by their index modulo 3.
fn images(count: usize) -> Arc<dyn Dataset> {
    let mut g = Philox::new(2, Purpose::Test, 0);
    let pixels = (0..count * 72).map(|_| g.next_u32() as u8).collect();
    let labels = (0..count).map(|i| (i % 3) as u8).collect();
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Arc::new(InMemory::new("noise", pixels, [9, 8, 1], labels, classes).unwrap())
}

fn options(batch: usize, workers: usize) -> LoaderOptions {
    LoaderOptions { batch, workers, seed: 5, drop_last: true, prefetch: 3 }
}

fn two_views() -> Vec<Recipe> {
    vec![Recipe::simclr(8, 8, 0.5), Recipe::crop_and_flip(6, 5, [0.2, 1.0])]
}

/// All that a batch holds, comparable bit for bit.
type Plain = (Vec<Vec<u32>>, Vec<usize>, Option<Vec<i32>>, usize, usize);

fn plain(batch: Batch) -> Plain {
    let bits = |t: &engine::Tensor| t.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect();
    (batch.views.iter().map(bits).collect(), batch.indices, batch.labels, batch.epoch, batch.step_in_epoch)
}

fn all(loader: &Loader, epoch: usize, start: usize) -> Vec<Plain> {
    loader.epoch(epoch, start).unwrap().map(|b| plain(b.unwrap())).collect()
}

#[test]
fn batches_do_not_depend_on_threads_or_on_where_the_epoch_begins() {
    let data = images(53);
    let make = |workers, prefetch| {
        let options = LoaderOptions { prefetch, ..options(8, workers) };
        Loader::new(data.clone(), two_views(), options).unwrap()
    };
    let expected = all(&make(0, 1), 2, 0);
    assert_eq!(expected.len(), 6);
    for (workers, prefetch) in [(1, 0), (1, 1), (2, 1), (2, 4), (3, 2), (5, 20)] {
        assert_eq!(all(&make(workers, prefetch), 2, 0), expected, "{workers} workers, {prefetch} ahead");
        for start in [1, 4, 6] {
            assert_eq!(all(&make(workers, prefetch), 2, start), expected[start..], "from step {start}");
        }
    }
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| all(&make(0, 1), 2, 0)), expected, "{threads} threads");
    }
    for (i, (views, indices, labels, epoch, step)) in expected.iter().enumerate() {
        assert_eq!((views[0].len(), views[1].len()), (8 * 64, 8 * 30));
        assert_eq!((*epoch, *step), (2, i));
        let of = |&i: &usize| i as i32 % 3;
        assert_eq!(*labels, Some(indices.iter().map(of).collect::<Vec<_>>()));
    }
}

#[test]
fn every_epoch_shows_every_image_once_in_its_own_order() {
    let loader =
        Loader::new(images(40), two_views(), LoaderOptions { drop_last: false, ..options(7, 2) }).unwrap();
    let order = |epoch| -> Vec<usize> { all(&loader, epoch, 0).into_iter().flat_map(|b| b.1).collect() };
    let (first, second) = (order(0), order(1));
    assert_ne!(first, second);
    for mut order in [first, second] {
        order.sort_unstable();
        assert_eq!(order, (0..40).collect::<Vec<_>>());
    }
}

#[test]
fn views_of_a_sample_differ_between_views_epochs_and_seeds_but_not_with_the_batch() {
    let same_twice = vec![Recipe::simclr(8, 8, 0.5); 2];
    let view = |seed, epoch, batch: usize, v: usize| {
        let options = LoaderOptions { seed, ..options(batch, 1) };
        let loader = Loader::new(images(300), same_twice.clone(), options).unwrap();
        let mut by_sample = vec![Vec::new(); 300];
        for (views, indices, ..) in all(&loader, epoch, 0) {
            for (row, i) in views[v].chunks(64).zip(indices) {
                by_sample[i] = row.to_vec();
            }
        }
        by_sample
    };
    let base = view(5, 0, 100, 0);
    assert_eq!(view(5, 0, 60, 0), base, "the size of the batch decides nothing");
    for other in [view(5, 0, 100, 1), view(5, 1, 100, 0), view(6, 0, 100, 0)] {
        let differ = base.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert!(differ >= 297, "{differ} of 300 samples differ");
    }
}

/// What is drawn is each sample's own, not the batch's: copies of one image look different.
#[test]
fn views_of_equal_images_differ_within_a_batch() {
    let pixels = (0..20 * 72).map(|i| (i % 72 * 37 % 251) as u8).collect();
    let data = InMemory::new("copies", pixels, [9, 8, 1], vec![0; 20], vec!["a".into()]).unwrap();
    let loader = Loader::new(Arc::new(data), vec![Recipe::simclr(8, 8, 0.5)], options(20, 1)).unwrap();
    let batch = all(&loader, 0, 0).remove(0);
    let views: std::collections::BTreeSet<&[u32]> = batch.0[0].chunks(64).collect();
    assert_eq!(views.len(), 20);
}

#[test]
fn a_last_batch_of_one_is_dropped_or_delivered() {
    for workers in [0, 2] {
        let sizes = |n, drop_last| {
            let loader =
                Loader::new(images(n), two_views(), LoaderOptions { drop_last, ..options(8, workers) });
            let loader = loader.unwrap();
            let sizes: Vec<usize> = all(&loader, 0, 0).iter().map(|b| b.1.len()).collect();
            assert_eq!(loader.steps_per_epoch(), sizes.len());
            sizes
        };
        assert_eq!(sizes(25, true), [8, 8, 8]);
        assert_eq!(sizes(25, false), [8, 8, 8, 1]);
        assert_eq!(sizes(24, true), sizes(24, false));
        assert_eq!(sizes(8, true), [8]);
    }
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    let new = |n, views: Vec<Recipe>, batch| Loader::new(images(n), views, options(batch, 1)).map(|_| ());
    let error = new(10, two_views(), 11).unwrap_err();
    assert!(error.message().contains("a batch of 11 is larger than the 10 images"), "{error}");
    assert!(new(10, two_views(), 0).is_err());
    assert!(new(0, two_views(), 1).is_err());
    assert!(new(10, vec![], 2).unwrap_err().message().contains("at least one view"));
    assert!(new(10, vec![Recipe { flip: 2.0, ..Recipe::evaluation(4, 4) }], 2).is_err());
    assert!(new(10, vec![Recipe::evaluation(4, 4); 257], 2).is_err());
    let loader = Loader::new(images(10), two_views(), options(3, 1)).unwrap();
    assert_eq!(loader.epoch(0, 3).unwrap().count(), 0);
    assert!(loader.epoch(0, 4).is_err() && loader.epoch(1 << 24, 0).is_err());
}

/// Fails or panics on one image; counts how many were read; can be slow.
struct Faulty {
    of: Arc<dyn Dataset>,
    bad: usize,
    panics: bool,
    delay: Duration,
    read: AtomicUsize,
}

impl Faulty {
    fn new(bad: usize, panics: bool, delay: Duration) -> Arc<Faulty> {
        Arc::new(Faulty { of: images(40), bad, panics, delay, read: AtomicUsize::new(0) })
    }
}

impl Dataset for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }
    fn len(&self) -> usize {
        self.of.len()
    }
    fn channels(&self) -> usize {
        self.of.channels()
    }
    fn size(&self) -> Option<[usize; 2]> {
        self.of.size()
    }
    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay);
        if index == self.bad {
            assert!(!self.panics, "image {index} makes the decoder panic");
            return Err(Error::value("decode", format!("image {index} is broken")));
        }
        self.of.image(index)
    }
    fn label(&self, _: usize) -> Option<usize> {
        None
    }
    fn classes(&self) -> &[String] {
        &[]
    }
}

#[test]
fn an_error_or_a_panic_arrives_at_its_batch_and_ends_the_epoch() {
    let order = Philox::new(5, Purpose::Shuffle, 0).permutation(40);
    let bad = order[4 * 3 + 1];
    for workers in [0, 1, 3] {
        for panics in [false, true] {
            let data = Faulty::new(bad, panics, Duration::ZERO);
            let loader = Loader::new(data, two_views(), options(4, workers)).unwrap();
            let results: Vec<_> = loader.epoch(0, 0).unwrap().collect();
            assert_eq!(results.len(), 4, "three batches, then the error");
            for (i, batch) in results[..3].iter().enumerate() {
                let batch = batch.as_ref().unwrap();
                assert_eq!((batch.step_in_epoch, batch.labels.is_none()), (i, true));
            }
            let text = results[3].as_ref().unwrap_err().message().to_string();
            let expected = if panics { "makes the decoder panic" } else { "is broken" };
            assert!(text.contains(&format!("image {bad} {expected}")), "{text}");
        }
    }
}

#[test]
fn dropping_an_epoch_joins_its_workers_at_once_and_work_ahead_is_bounded() {
    for workers in [1, 3] {
        let data = Faulty::new(usize::MAX, false, Duration::from_millis(2));
        let loader = Loader::new(data.clone(), vec![Recipe::evaluation(4, 4)], options(4, workers)).unwrap();
        let mut epoch = loader.epoch(0, 0).unwrap();
        epoch.next().unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(60));
        // One delivered and three ahead, of four samples each.
        assert!(data.read.load(Ordering::Relaxed) <= 16, "{:?} images were read", data.read);
        let start = Instant::now();
        drop(epoch);
        assert!(start.elapsed() < Duration::from_secs(2));
        let read = data.read.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(data.read.load(Ordering::Relaxed), read, "no worker lives on");
        assert_eq!(Arc::strong_count(&loader.plan), 1);
        drop(loader.epoch(0, 0).unwrap());
        assert_eq!(Arc::strong_count(&loader.plan), 1);
    }
}

#[test]
fn a_subset_trains_like_any_dataset() {
    let part: Arc<dyn Dataset> = Arc::new(Subset::new(images(50), (10..30).collect()).unwrap());
    let loader = Loader::new(part, two_views(), options(10, 1)).unwrap();
    let batches = all(&loader, 0, 0);
    assert_eq!(batches.len(), 2);
    for (_, indices, labels, ..) in batches {
        assert_eq!(labels, Some(indices.iter().map(|i| (i + 10) as i32 % 3).collect()));
    }
}
