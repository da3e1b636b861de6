//! The CUDA kernels on the device that tests have.

use super::cases::{Batch, everything};
use super::packed::Record;
use super::*;
use crate::check::{guarded, synchronize};
use crate::testing::device;

#[test]
fn views_have_the_bits_of_the_cpu() {
    check::check(device()).unwrap();
}

/// Draws of many samples: all features, alone and together, as chance has it.
#[test]
fn many_draws_agree() {
    for (channels, seed) in [(1, 31), (3, 32)] {
        let recipe = everything(channels, [11, 13], Interpolation::Bicubic);
        let batch = Batch::new(channels, &[[17, 15]; 96], vec![recipe], seed);
        let draws = batch.draws().unwrap();
        let drawn = &batch.parameters[0];
        let seen = |f: fn(&Parameters) -> bool| drawn.iter().filter(|p| f(p)).count();
        let jitter = seen(|p| p.jitter.is_some());
        for count in [seen(|p| p.flip), jitter, seen(|p| p.grayscale), seen(|p| p.solarize)] {
            assert!((8..88).contains(&count), "{count} of 96");
        }
        let made = guarded(device(), || device_views(&batch, &draws, device())).unwrap();
        let expected = batch.views().unwrap();
        let wrong = made[0].iter().zip(&expected[0]).position(|(a, e)| a.to_bits() != e.to_bits());
        assert_eq!(wrong, None, "of {channels} channels");
    }
}

fn device_views(batch: &Batch, draws: &[u8], device: Device) -> Result<Vec<Vec<f32>>> {
    check::device_views(batch, draws, DType::F32, false, device)
}

#[test]
fn bytes_of_the_same_size_come_through_exactly() {
    let batch = Batch::new(3, &[[5, 7]; 2], vec![Recipe::evaluation(5, 7)], 1);
    let made = device_views(&batch, &batch.draws().unwrap(), device()).unwrap();
    let expected: Vec<f32> = batch.pixels.iter().map(|&b| f32::from(b) / 255.0).collect();
    assert_eq!(made[0], expected);
}

#[test]
fn every_run_gives_the_same_bits() {
    let batch = Batch::new(3, &[[12, 14]; 3], vec![everything(3, [9, 10], Interpolation::Bicubic)], 2);
    let draws = batch.draws().unwrap();
    let first = device_views(&batch, &draws, device()).unwrap();
    for _ in 1..20 {
        assert_eq!(device_views(&batch, &draws, device()).unwrap(), first);
    }
}

/// A record that asks for bytes outside the buffer, or for nothing, makes its own view NaN and no other.
#[test]
fn records_that_are_no_view_are_nan() {
    let batch = Batch::new(1, &[[4, 5]; 2], vec![everything(1, [3, 4], Interpolation::Bilinear)], 3);
    let draws = batch.draws().unwrap();
    let good = batch.views().unwrap().remove(0);
    let one = draws.len() / 2;
    let damages: [fn(&mut Record); 9] = [
        |r| r.offset = 21,
        |r| r.offset = u64::MAX - 3,
        |r| r.image = [u32::MAX, u32::MAX],
        |r| r.image = [0, 5],
        |r| r.crop = [0, 0, 0, 5],
        |r| r.crop = [3, 0, 2, 5],
        |r| r.crop = [0, 5, 1, 1],
        |r| r.crop = [u32::MAX, 0, 2, 1],
        |r| r.taps = 1 << 20,
    ];
    for (i, damage) in damages.into_iter().enumerate() {
        let mut damaged = draws.clone();
        let mut record: Record = bytemuck::pod_read_unaligned(&damaged[one..one + 80]);
        damage(&mut record);
        damaged[one..one + 80].copy_from_slice(bytemuck::bytes_of(&record));
        let made = guarded(device(), || device_views(&batch, &damaged, device())).unwrap().remove(0);
        assert_eq!(made[..12], good[..12], "damage {i}");
        assert!(made[12..].iter().all(|v| v.is_nan()), "damage {i}: {:?}", &made[12..]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let batch = Batch::new(3, &[[4, 4]; 2], vec![Recipe::evaluation(4, 4)], 6);
    let draws = batch.draws().unwrap();
    let images = check::bytes_on(&batch.pixels, &[2, 4, 4, 3], false, device()).unwrap();
    let shaped = |shape: &[usize]| check::bytes_on(&draws, shape, false, device()).unwrap();
    let good = shaped(&[1, 2, 80]);
    let recipes = &batch.recipes;
    on_device(&images, &good, recipes, 3, DType::F32).unwrap();
    let refused = |images: &Tensor, draws: &Tensor, recipes: &[Recipe], channels, dtype, says: &str| {
        let error = on_device(images, draws, recipes, channels, dtype).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&images, &shaped(&[2, 1, 80]), recipes, 3, DType::F32, "shape");
    refused(&images, &good, &vec![Recipe::evaluation(4, 4); 2], 3, DType::F32, "shape");
    refused(&images, &good, recipes, 2, DType::F32, "channels");
    refused(&images, &good, recipes, 3, DType::I32, "f32 or bf16");
    refused(&images, &good, &[Recipe::evaluation(4, 1025)], 3, DType::F32, "at most 1024");
    let on_cpu = images.to_device(Device::Cpu).unwrap();
    refused(&on_cpu, &good, recipes, 3, DType::F32, "CUDA device");
    // No sample is no launch.
    let none = Tensor::empty(&[1, 0, 80], DType::U8, device()).unwrap();
    assert_eq!(on_device(&images, &none, recipes, 3, DType::F32).unwrap()[0].shape(), [0, 4, 4, 3]);
    synchronize(device()).unwrap();
}
