//! `folder:DIR` as a user meets it: classes, splits, sizes, formats, corrupt files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use data::{Dataset, Splits};
use engine::ErrorKind;
use png::{BitDepth, ColorType};
use std::fs;
use std::path::Path;

/// Writes a PNG of a colour type and bit depth.
fn png(path: &Path, size: [usize; 2], colour: ColorType, depth: BitDepth, values: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let out = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(out, size[1] as u32, size[0] as u32);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(values).unwrap();
}

/// A grey image of one value.
fn grey(path: &Path, height: usize, width: usize, value: u8) {
    png(path, [height, width], ColorType::Grayscale, BitDepth::Eight, &vec![value; height * width]);
}

fn open(folder: &Path, options: &str) -> engine::Result<Splits> {
    data::open(&format!("folder:{}{options}", folder.display()), None)
}

fn refused(folder: &Path, options: &str, parts: &[&str]) -> engine::Error {
    let error = open(folder, options).err().unwrap();
    for part in parts {
        assert!(error.message().contains(part), "'{part}' is not in: {error}");
    }
    error
}

/// First pixels' values and classes' names of all images.
fn seen(set: &dyn Dataset) -> Vec<(u8, Option<String>)> {
    let class = |i| set.label(i).map(|l| set.classes()[l].clone());
    (0..set.len()).map(|i| (set.image(i).unwrap().pixels[0], class(i))).collect()
}

const PHOTO: &[u8] = include_bytes!("../sample/photos/seeding_by_Clements_Engelhardt.jpg");

#[test]
fn folders_are_classes_in_sorted_order_and_the_split_is_the_users() {
    let stage = tempfile::tempdir().unwrap();
    let at = |name: &str| stage.path().join(name);
    // Written in an order that is not the names'; folders in a class's folder belong to it; other files are passed over.
    for (name, value) in
        [("train/b/2.png", 4), ("train/b/1.PNG", 3), ("train/a/x/y.png", 2), ("train/a/0.png", 1)]
    {
        grey(&at(name), 3, 4, value);
    }
    for (name, value) in [("val/a/0.png", 5), ("val/b/0.png", 6)] {
        grey(&at(name), 3, 4, value);
    }
    fs::write(at("train/a/notes.txt"), "none").unwrap();
    grey(&at("train/.hidden/0.png"), 9, 9, 0);
    let named = |v: u8, class: &str| (v, Some(class.to_string()));
    let splits = open(stage.path(), "").unwrap();
    assert_eq!(seen(&*splits.train), [named(1, "a"), named(2, "a"), named(3, "b"), named(4, "b")]);
    assert_eq!(seen(&*splits.test), [named(5, "a"), named(6, "b")]);
    assert_eq!((splits.train.size(), splits.train.channels()), (Some([3, 4]), 1));
    assert!(splits.notes.is_empty());
    // `test` comes before `val`.
    grey(&at("test/b/0.png"), 3, 4, 7);
    let error = refused(stage.path(), "", &["same classes", "in the second [\"a\"]"]);
    assert_eq!(error.kind(), ErrorKind::Usage);
    grey(&at("test/a/0.png"), 3, 4, 8);
    assert_eq!(seen(&*open(stage.path(), "").unwrap().test), [named(8, "a"), named(7, "b")]);
}

#[test]
fn without_a_split_a_fifth_of_each_class_is_held_out_always_the_same() {
    let stage = tempfile::tempdir().unwrap();
    for i in 0..20u8 {
        grey(&stage.path().join(format!("{}/{i:02}.png", ["x", "y"][usize::from(i % 2)])), 2, 2, i);
    }
    let splits = open(stage.path(), "").unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (16, 4));
    let test = seen(&*splits.test);
    assert_eq!(test.iter().filter(|t| t.1.as_deref() == Some("x")).count(), 2, "of each class");
    let mut all: Vec<u8> = seen(&*splits.train).iter().chain(&test).map(|t| t.0).collect();
    all.sort();
    assert_eq!(all, (0..20).collect::<Vec<_>>(), "every image is in one split");
    assert_eq!(test, seen(&*open(stage.path(), "").unwrap().test));
    // The same names with other dates and in another order on the disk.
    let other = tempfile::tempdir().unwrap();
    for i in (0..20u8).rev() {
        grey(&other.path().join(format!("{}/{i:02}.png", ["x", "y"][usize::from(i % 2)])), 2, 2, i);
    }
    assert_eq!(test, seen(&*open(other.path(), "").unwrap().test));
}

#[test]
fn images_without_classes_are_unlabelled() {
    let stage = tempfile::tempdir().unwrap();
    (0..10u8).for_each(|i| grey(&stage.path().join(format!("{i}.png")), 2, 2, i));
    let splits = open(stage.path(), "").unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (8, 2));
    assert!(splits.train.classes().is_empty() && splits.train.label(0).is_none());
    grey(&stage.path().join("c/0.png"), 2, 2, 0);
    refused(stage.path(), "", &["0.png", "beside folders"]);
}

#[test]
fn every_format_gives_its_pixels() {
    let stage = tempfile::tempdir().unwrap();
    let at = |name: &str| stage.path().join(name);
    png(&at("0.png"), [1, 2], ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
    // On white: 255 - 128 * (255 - v) / 255.
    png(&at("1.png"), [1, 2], ColorType::Rgba, BitDepth::Eight, &[10, 20, 30, 255, 0, 100, 200, 128]);
    png(&at("2.png"), [1, 2], ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 255, 7, 0]);
    let sixteen: Vec<u8> = [0u16, 257, 65535, 383, 384, 40000].iter().flat_map(|v| v.to_be_bytes()).collect();
    png(&at("3.png"), [1, 2], ColorType::Rgb, BitDepth::Sixteen, &sixteen);
    png(&at("4.png"), [1, 2], ColorType::Grayscale, BitDepth::One, &[0b0100_0000]);
    let out = fs::File::create(at("5.webp")).unwrap();
    let encoder = image_webp::WebPEncoder::new(out);
    encoder.encode(&[9, 8, 7, 6, 5, 4], 2, 1, image_webp::ColorType::Rgb8).unwrap();
    let set = open(stage.path(), "").unwrap();
    let mut images: Vec<Vec<u8>> = [&set.train, &set.test]
        .iter()
        .flat_map(|s| (0..s.len()).map(|i| s.image(i).unwrap().pixels.to_vec()))
        .collect();
    images.sort();
    let mut wanted = vec![
        vec![1, 2, 3, 4, 5, 6],
        vec![10, 20, 30, 127, 177, 227],
        vec![7, 7, 7, 255, 255, 255],
        vec![0, 1, 255, 1, 1, 156],
        vec![0, 0, 0, 255, 255, 255],
        vec![9, 8, 7, 6, 5, 4],
    ];
    wanted.sort();
    assert_eq!(images, wanted);
}

#[test]
fn images_end_at_one_size() {
    let stage = tempfile::tempdir().unwrap();
    // Left black, middle white, right black: the centre crop sees white alone.
    let row: Vec<u8> = [[0u8; 10], [255; 10], [0; 10]].concat();
    png(&stage.path().join("0.png"), [10, 30], ColorType::Grayscale, BitDepth::Eight, &row.repeat(10));
    grey(&stage.path().join("1.png"), 7, 5, 200);
    let error =
        refused(stage.path(), "", &["differ in size", "0.png has 10 x 30", "1.png has 7 x 5", "--size"]);
    assert_eq!(error.kind(), ErrorKind::Usage);
    let splits = open(stage.path(), " --size 4").unwrap();
    let mut values = Vec::new();
    for set in [&splits.train, &splits.test] {
        assert_eq!((set.len(), set.size()), (1, Some([4, 4])));
        let pixels = set.image(0).unwrap().pixels.to_vec();
        assert!(pixels.iter().all(|v| *v == pixels[0]), "{pixels:?}");
        values.push(pixels[0]);
    }
    values.sort();
    assert_eq!(values, [200, 255]);
}

#[test]
fn windows_are_split_by_photo() {
    let stage = tempfile::tempdir().unwrap();
    for i in 0..10u8 {
        // Rows count up, so that a window's first pixel tells where it is.
        let pixels: Vec<u8> = (0..30 * 40).map(|p| i * 20 + (p / 40 % 20) as u8).collect();
        png(&stage.path().join(format!("{i}.png")), [30, 40], ColorType::Grayscale, BitDepth::Eight, &pixels);
    }
    let splits = open(stage.path(), " --windows 6 --size 8").unwrap();
    assert_eq!((splits.train.len(), splits.test.len(), splits.train.size()), (48, 12, Some([8, 8])));
    let photos = |set: &dyn Dataset| {
        let mut photos: Vec<u8> = seen(set).iter().map(|s| s.0 / 20).collect();
        let differ = photos.chunks(6).all(|six| six.iter().all(|p| *p == six[0]));
        assert!(differ, "windows of a photo lie together");
        photos.dedup();
        photos
    };
    let (train, test) = (photos(&*splits.train), photos(&*splits.test));
    assert_eq!((train.len(), test.len()), (8, 2));
    assert!(test.iter().all(|photo| !train.contains(photo)));
    let first: Vec<_> = (0..6).map(|i| splits.train.image(i).unwrap()).collect();
    assert!((1..6).any(|i| first[i] != first[0]), "windows differ");
    let again = open(stage.path(), " --windows 6 --size 8").unwrap();
    assert!((0..48).all(|i| splits.train.image(i).unwrap() == again.train.image(i).unwrap()));
}

#[test]
fn a_corrupt_file_is_named_or_left_out_and_counted() {
    let stage = tempfile::tempdir().unwrap();
    let at = |name: &str| stage.path().join(name);
    for i in 0..6 {
        fs::write(at(&format!("{i}.jpg")), PHOTO).unwrap();
    }
    assert_eq!(open(stage.path(), " --size 16").unwrap().train.len(), 5);
    let whole = open(stage.path(), "").unwrap();
    assert_eq!((whole.train.size(), whole.train.channels()), (Some([270, 480]), 3));
    for (content, says) in [
        (&PHOTO[..PHOTO.len() / 2], "corrupt JPEG"),
        (&PHOTO[..3], "corrupt JPEG"),
        (&[][..], "is empty"),
        (&b"GIF89a..."[..], "neither JPEG nor PNG nor WebP"),
        (&b"\x89PNG\r\n\x1a\n...."[..], "corrupt PNG"),
        (&b"RIFF\x10\0\0\0WEBPVP8 .."[..], "corrupt WebP"),
    ] {
        fs::write(at("3.jpg"), content).unwrap();
        let error = refused(stage.path(), " --size 16", &["3.jpg", says, "--skip-corrupt"]);
        assert_eq!(error.kind(), ErrorKind::Format);
        let splits = open(stage.path(), " --size 16 --skip-corrupt").unwrap();
        assert_eq!(splits.train.len() + splits.test.len(), 5);
        assert!(splits.notes[0].contains("1 image files left out"), "{:?}", splits.notes);
    }
    (0..6).for_each(|i| fs::write(at(&format!("{i}.jpg")), "x").unwrap());
    refused(stage.path(), " --skip-corrupt", &["none of the"]);
}

/// Files with wrong bytes give an image or an error, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let stage = tempfile::tempdir().unwrap();
    let path = stage.path().join("0.png");
    let values: Vec<u8> = (0..40 * 40 * 4).map(|i| (i * 7 % 251) as u8).collect();
    png(&path, [40, 40], ColorType::Rgba, BitDepth::Eight, &values);
    let mut webp = Vec::new();
    image_webp::WebPEncoder::new(&mut webp).encode(&values, 40, 40, image_webp::ColorType::Rgba8).unwrap();
    let mut random = engine::Philox::new(1, engine::random::Purpose::Test, 0);
    for (content, tries) in [(fs::read(&path).unwrap(), 300), (webp, 300), (PHOTO.to_vec(), 60)] {
        for _ in 0..tries {
            let mut damaged = content.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(damaged.len());
                damaged[at] = random.next_u32() as u8;
            }
            damaged.truncate(damaged.len() - random.below(2) * random.below(damaged.len()));
            let _ = data::decode::decode(&path, &damaged);
        }
    }
}

#[test]
fn wrong_specifications_say_what_to_write() {
    let stage = tempfile::tempdir().unwrap();
    grey(&stage.path().join("0.png"), 2, 2, 1);
    for (options, says) in [
        (" --size 0", "--size wants a number"),
        (" --size", "--size wants a number"),
        (" --windows x", "--windows wants a number"),
        (" --size 4 5", "too many words"),
        (" --colour", "may be followed by --size N"),
        (" --skip-corrupt 3", "may be followed by"),
        (" --size 99999 --windows 99999", "do not fit"),
    ] {
        assert_eq!(refused(stage.path(), options, &[says]).kind(), ErrorKind::Usage);
    }
    assert_eq!(data::open("folder", None).err().unwrap().kind(), ErrorKind::Usage);
    assert_eq!(data::open("folder:nowhere", None).err().unwrap().kind(), ErrorKind::Io);
    assert_eq!(data::open("folder --size 2", Some(stage.path())).unwrap().train.len(), 1);
    fs::create_dir(stage.path().join("empty")).unwrap();
    fs::remove_file(stage.path().join("0.png")).unwrap();
    refused(stage.path(), "", &["empty holds no image"]);
    fs::remove_dir(stage.path().join("empty")).unwrap();
    refused(stage.path(), "", &["holds no image", ".webp"]);
}
