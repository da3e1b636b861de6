//! Jigsaw: where tiles come from and go to, what is normalised, chance on noise and on tiles of other images.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Drive, accuracy_after, augmented_noise, noise, resnet, round, signal};
use engine::random::Purpose;
use engine::{DType, Device, ErrorKind, Philox, Tensor};
use kernels::array::Array;
use models::Arch;
use objectives::jigsaw::order;
use objectives::permutations::Permutations;
use objectives::tiles::{Grid, TILES, TileSettings, normalized};
use objectives::{DataProfile, Run};

const GREY: DataProfile = DataProfile { height: 18, width: 18, channels: 1, len: 1000 };
const COLOUR: DataProfile = DataProfile { channels: 3, ..GREY };

/// Views of 18 pixels in cells of 6, tiles of 4 that move by up to 2.
const SMALL: &str = "permutations = 10\norders = 2\ntile_features = 16\nhidden = 32\nview.size = 18\ntiles.size = 4\ntiles.jitter = 2";

fn drive(profile: &DataProfile, batch: usize, changes: &str) -> Drive {
    let changes = format!("{SMALL}\n{changes}");
    Drive::new(common::build("jigsaw", profile, &resnet(), &changes), batch, 4000)
}

fn grid(tiles: TileSettings, channels: usize) -> Grid {
    let profile = DataProfile { channels, ..GREY };
    let objective = common::build("jigsaw", &profile, &resnet(), SMALL);
    Grid::new("jigsaw", tiles, &objective.views()[0], channels).unwrap()
}

const TILE: TileSettings = TileSettings { cell: 0, size: 4, jitter: 2, channel_shift: 0, normalize: false };

/// Images whose pixels say where they are: 1000 the image, 324 the channel, then row by row.
fn numbered(batch: usize, channels: usize) -> Tensor {
    let value = |i: usize| {
        let (channel, pixel, image) = (i % channels, i / channels % 324, i / channels / 324);
        (1000 * image + 324 * channel + pixel) as f32
    };
    let values: Vec<f32> = (0..batch * 324 * channels).map(value).collect();
    Tensor::from_slice(&values, &[batch, 18, 18, channels]).unwrap()
}

/// Every tile lies in its cell, in row-major order, everywhere that it may; its pixels are the image's.
#[test]
fn tiles_are_cut_from_their_cells() {
    let grid = grid(TILE, 3);
    let mut random = Philox::new(1, Purpose::Tile, 0);
    let at = grid.draw(&mut random, 40).unwrap();
    let images = numbered(40, 3);
    let tiles = grid.images(&grid.cut(&images, &at).unwrap(), DType::F32).unwrap();
    assert_eq!(tiles.shape(), [40 * TILES, 4, 4, 3]);
    let (tiles, at) = (tiles.to_vec::<f32>().unwrap(), at.to_vec::<i32>().unwrap());
    let mut seen = std::collections::BTreeSet::new();
    for (tile, pixels) in tiles.chunks_exact(48).enumerate() {
        let (image, place) = (tile / TILES, tile % TILES);
        let [_, top, left] = at[9 * tile..9 * tile + 3] else { panic!("places") };
        let (down, across) = (top - 6 * (place / 3) as i32, left - 6 * (place % 3) as i32);
        assert!((0..=2).contains(&down) && (0..=2).contains(&across), "{place}: {top}, {left}");
        seen.insert((down, across));
        for (i, value) in pixels.iter().enumerate() {
            let (row, column, channel) = (i / 12, i / 3 % 4, i % 3);
            let pixel = 18 * (top as usize + row) + left as usize + column;
            assert_eq!(*value, (1000 * image + 324 * channel + pixel) as f32);
        }
    }
    assert_eq!(seen.len(), 9, "every place in a cell is drawn");
}

/// Neighbours are never nearer than the settings say, and the grid itself moves where there is room.
#[test]
fn gaps_are_kept_and_the_grid_moves() {
    let close = TileSettings { cell: 5, size: 3, jitter: 1, ..TILE };
    let grid = grid(close, 1);
    let mut origins = std::collections::BTreeSet::new();
    for step in 0..50 {
        let at = grid.draw(&mut Philox::new(1, Purpose::Tile, step), 4).unwrap().to_vec::<i32>().unwrap();
        for image in at.chunks_exact(27) {
            let place = |tile: usize| [image[3 * tile + 1], image[3 * tile + 2]];
            origins.insert(place(0));
            for tile in [0, 1, 3, 4, 6, 7] {
                let gap = place(tile + 1)[1] - place(tile)[1] - 3;
                assert!((1..=3).contains(&gap), "{gap}");
            }
            for tile in 0..6 {
                let gap = place(tile + 3)[0] - place(tile)[0] - 3;
                assert!((1..=3).contains(&gap), "{gap}");
            }
            assert!(image.chunks_exact(3).all(|at| at[1..].iter().all(|&p| (0..=15).contains(&p))));
        }
    }
    assert!(origins.len() > 12, "{origins:?}");
}

/// Channels of a tile are moved each by itself, by as much as is set and inside the view; on grey images nothing is.
#[test]
fn colour_channels_are_moved_each_by_itself() {
    let shifted = TileSettings { channel_shift: 2, jitter: 0, ..TILE };
    let at = |channels| {
        let grid = grid(shifted, channels);
        grid.draw(&mut Philox::new(1, Purpose::Tile, 0), 30).unwrap().to_vec::<i32>().unwrap()
    };
    let mut differ = 0;
    for (tile, planes) in at(3).chunks_exact(9).enumerate() {
        let place = tile % TILES;
        for plane in planes.chunks_exact(3) {
            for (d, cell) in [place / 3, place % 3].into_iter().enumerate() {
                let middle = 6 * cell as i32 + 1;
                assert!((plane[1 + d] - middle).abs() <= 2 && (0..=14).contains(&plane[1 + d]));
            }
        }
        differ += usize::from(planes[1..3] != planes[4..6]);
    }
    assert!(differ > 200, "{differ} of 270");
    for (tile, place) in at(1).chunks_exact(3).enumerate() {
        assert_eq!(place[1..], [6 * (tile % 9 / 3) as i32 + 1, 6 * (tile % 3) as i32 + 1]);
    }
}

/// Each channel of each tile has mean 0 and deviation 1 by itself; a flat one becomes 0. What brightness and contrast did to a
/// tile cannot be seen afterwards: normalising the whole image instead, or all tiles together, leaves it.
#[test]
fn tiles_are_normalised_each_by_itself() {
    let x = Array::<f32>::random(&[6, 4, 4], 1, 1.0).to_tensor().unwrap();
    let mut changed = x.to_vec::<f32>().unwrap();
    for (tile, values) in changed.chunks_exact_mut(16).enumerate() {
        values.iter_mut().for_each(|v| *v = *v * (2.0 + tile as f32) + 3.0 * tile as f32);
    }
    let changed = Tensor::from_slice(&changed, &[6, 4, 4]).unwrap();
    let (a, b) = (normalized(&x).unwrap(), normalized(&changed).unwrap());
    for (a, b) in a.to_vec::<f32>().unwrap().iter().zip(&b.to_vec::<f32>().unwrap()) {
        assert!((a - b).abs() < 1e-3, "{a} and {b}");
    }
    for tile in a.to_vec::<f32>().unwrap().chunks_exact(16) {
        let mean = tile.iter().sum::<f32>() / 16.0;
        let variance = tile.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 16.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean}, {variance}");
    }
    let flat = normalized(&Tensor::full(&[1, 4, 4], 0.7, Device::Cpu).unwrap()).unwrap();
    assert!(flat.to_vec::<f32>().unwrap().iter().all(|v| v.abs() < 1e-3));
    // As the method does it: settings decide, and channels are apart.
    let grid = grid(TileSettings { normalize: true, ..TILE }, 3);
    let at = grid.draw(&mut Philox::new(1, Purpose::Tile, 0), 2).unwrap();
    let planes = grid.cut(&numbered(2, 3), &at).unwrap();
    for plane in planes.to_vec::<f32>().unwrap().chunks_exact(16) {
        assert!(plane.iter().sum::<f32>().abs() < 1e-3);
    }
}

/// A labelled grid: entry p of an order is the tile that comes to place p, not the place that tile p goes to.
#[test]
fn an_order_names_the_tile_of_each_place() {
    let rotate = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0];
    let table =
        Tensor::from_slice(&[rotate, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]].concat(), &[2, 9])
            .unwrap();
    // Two images, two orders each.
    let labels = Tensor::from_slice(&[0i32, 1, 1, 0], &[4]).unwrap();
    let rows = order(&table, &labels, 2).unwrap();
    let tiles: Vec<String> = (0..18).map(|i| format!("{}{}", ["A", "B"][i / 9], i % 9)).collect();
    let seen: Vec<&str> =
        rows.to_vec::<i32>().unwrap().iter().map(|&row| tiles[row as usize].as_str()).collect();
    let expected = "A1 A2 A3 A4 A5 A6 A7 A8 A0 A0 A1 A2 A3 A4 A5 A6 A7 A8 B0 B1 B2 B3 B4 B5 B6 B7 B8 B1 B2 B3 B4 B5 B6 B7 B8 B0";
    assert_eq!(seen.join(" "), expected);
    // The other convention differs for any order that is not its own inverse, and a turn by one is none.
    let mut inverse = [0; 9];
    rotate.iter().enumerate().for_each(|(place, &tile)| inverse[tile as usize] = place);
    assert_ne!(inverse.map(|i| i as f32), rotate);
}

/// The set of orders is in what is checkpointed, and it is what labels are looked up in.
#[test]
fn the_set_of_orders_is_a_buffer_and_is_used() {
    let mut drive = drive(&GREY, 8, "");
    let set = Permutations::of(10, 1).unwrap();
    let flat: Vec<f32> = set.rows.iter().flatten().map(|&t| f32::from(t)).collect();
    assert_eq!(drive.value("permutations"), flat);
    let batch = noise(drive.objective.as_ref(), 8, 1, 1);
    let loss = drive.loss(&batch);
    assert_eq!(signal(&loss, "hamming_minimum"), set.minimum as f32);
    assert!((f64::from(signal(&loss, "hamming_mean")) - set.mean).abs() < 1e-5);
    let before = loss.value.value().item().unwrap();
    assert!((before - 10f32.ln()).abs() < 0.6, "{before} at the start");
    drop(loss);
    for (name, buffer) in autograd::module::parts(drive.objective.networks()).buffers {
        if name == "permutations" {
            let other: Vec<f32> = flat.iter().map(|t| 8.0 - t).collect();
            buffer.value_mut().as_mut_slice::<f32>().unwrap().copy_from_slice(&other);
        }
    }
    assert_ne!(drive.loss(&batch).value.value().item().unwrap(), before, "other orders, other puzzles");
}

/// Every step has orders of its own, all are drawn, and a step is a pure function of its number.
#[test]
fn every_step_draws_its_own_orders_and_places() {
    let objective = common::build("jigsaw", &GREY, &resnet(), SMALL);
    let run = Run { steps: 10, steps_per_epoch: 10, batch: 16, device: Device::Cpu };
    let draws = objective.draws(&run).unwrap().unwrap();
    let numbers = |step: u64, i: usize| draws(step).unwrap()[i].to_vec::<i32>().unwrap();
    assert_eq!((numbers(3, 0), numbers(3, 1)), (numbers(3, 0), numbers(3, 1)));
    assert!(numbers(3, 0) != numbers(4, 0) && numbers(3, 1) != numbers(4, 1));
    assert_eq!(numbers(0, 1).len(), 32, "two orders an image");
    let all: std::collections::BTreeSet<i32> = (0..10).flat_map(|step| numbers(step, 1)).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

/// Nothing but chance on noise: no cue of a tile's place comes from padding, from resizing or from where it was cut.
#[test]
fn noise_stays_at_chance() {
    let mut drive = drive(&GREY, 16, "");
    let objective = common::build("jigsaw", &GREY, &resnet(), SMALL);
    let views = |step| augmented_noise(objective.as_ref(), &GREY, 16, 1000 + step);
    let (right, error) = accuracy_after(&mut drive, 300, 60, 32, 10, views);
    assert!((right - 0.1).abs() < 4.0 * error, "{right} where chance is 0.1 +- {error}");
}

/// The positive control and its counterpart: orders of tiles of one image are learnt, of tiles of nine images they are guessed.
#[test]
fn tiles_of_different_images_have_no_order() {
    let train = |mixed: bool| {
        let batch = 16;
        let mut drive = drive(&GREY, batch, "view.flip = 0.0");
        let mut right = 0.0;
        for step in 0..350 {
            let views = [round(batch, step)];
            let mut draws = drive.drawn();
            if mixed {
                // Tile i of an image is taken from the i-th image after it.
                let places = draws[0].as_mut_slice::<i32>().unwrap();
                for (tile, place) in places.chunks_exact_mut(3).enumerate() {
                    place[0] = ((tile / TILES + tile % TILES) % batch) as i32;
                }
            }
            let loss = drive.loss_of(&views, &draws).unwrap();
            if step >= 300 {
                right += f64::from(signal(&loss, "accuracy")) / 50.0;
            }
            loss.value.backward().unwrap();
            drop(loss);
            drive.update();
        }
        right
    };
    let (one, many) = (train(false), train(true));
    let error = (0.1f64 * 0.9 / (50.0 * 32.0)).sqrt();
    assert!(one > 0.6, "{one}");
    assert!((many - 0.1).abs() < 4.0 * error, "{many} where chance is 0.1 +- {error}");
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    for (wrong, named) in [
        ("permutations = 1", "permutations"),
        ("permutations = 400000", "permutations"),
        ("orders = 0", "orders"),
        ("tile_features = 0", "tile_features"),
        ("tiles.cell = 7", "tiles.cell"),
        ("tiles.size = 7", "tiles.size"),
        ("tiles.size = 0", "tiles.size"),
        ("tiles.jitter = 3", "tiles.jitter"),
        ("view.size = 2", "tiles"),
    ] {
        // A key that is there twice is wrong TOML: changes go on top of each other.
        let mut table: toml::Table = SMALL.parse().unwrap();
        common::merge(&mut table, wrong.parse().unwrap());
        let error = common::try_build("jigsaw", &GREY, &resnet(), &table.to_string()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}: {error}");
        assert!(error.message().contains(named), "{wrong}: {error}");
    }
    let vit = Arch { patch: Some(3), ..common::vit() };
    let error = common::try_build("jigsaw", &GREY, &vit, SMALL).err().unwrap();
    assert!(error.message().contains("patches of 3"), "{error}");
    let vit = Arch { patch: Some(2), ..common::vit() };
    let mut colour = Drive::new(common::build("jigsaw", &COLOUR, &vit, SMALL), 4, 10);
    let views = noise(colour.objective.as_ref(), 4, 3, 1);
    assert!(colour.step(&views).is_finite(), "a ViT on tiles of two by two patches");
}
