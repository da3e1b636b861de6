//! Batches reach their tensors in order and whole, whatever the host and the device do in between.

use crate::turn;
use engine::cuda::{PARTS, Staging, context, memory};
use engine::{DType, Device, ErrorKind, Tensor};
use kernels::elementwise;
use kernels::testing::device;

fn ordinal() -> usize {
    match device() {
        Device::Cuda(ordinal) => ordinal,
        Device::Cpu => unreachable!(),
    }
}

fn synchronize() {
    context(ordinal()).unwrap().synchronize().unwrap();
}

fn target(bytes: usize) -> Tensor {
    Tensor::zeros(&[bytes], DType::U8, device()).unwrap()
}

/// A batch that no other number gives.
fn batch(i: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|k| (i * 31 + k * 7 + k / 251) as u8).collect()
}

#[test]
fn batches_come_out_in_order_whatever_the_number_of_slots() {
    let _turn = turn();
    for slots in 1..5 {
        let mut staging = Staging::new(device(), 1000, slots).unwrap();
        let (mut put, mut taken) = (0, 0);
        // Ahead by one to all slots, in turn.
        for ahead in (1..=slots).cycle().take(12) {
            while put < taken + ahead {
                staging.put(&[&batch(put, 1000)]).unwrap();
                put += 1;
            }
            assert_eq!(staging.waiting(), put - taken);
            let mut x = target(1000);
            staging.take_into(&mut [&mut x]).unwrap();
            assert_eq!(x.to_vec::<u8>().unwrap(), batch(taken, 1000), "{slots} slots");
            taken += 1;
        }
    }
}

/// The host goes on without waiting, and every step still sees its own batch: the compute stream has done nothing of all
/// this when the first result is read.
#[test]
fn a_slow_device_sees_every_batch() {
    let _turn = turn();
    let mut staging = Staging::new(device(), 4 * 64, 2).unwrap();
    let mut x = Tensor::zeros(&[64], DType::F32, device()).unwrap();
    let numbers = |i: usize| -> Vec<f32> { (0..64).map(|k| (i * 100 + k) as f32).collect() };
    let results: Vec<Tensor> = (0..7)
        .map(|i| {
            let values = numbers(i);
            staging.put(&[bytemuck::cast_slice(&values)]).unwrap();
            staging.take_into(&mut [&mut x]).unwrap();
            // A long queue of work that reads the input.
            let mut y = elementwise::scale(&x, 1.0).unwrap();
            for _ in 0..5 {
                y = elementwise::add(&y, &x).unwrap();
            }
            y
        })
        .collect();
    for (i, y) in results.iter().enumerate() {
        let expected: Vec<f32> = numbers(i).iter().map(|v| 6.0 * v).collect();
        assert_eq!(y.to_vec::<f32>().unwrap(), expected, "step {i}");
    }
}

#[test]
fn the_host_waits_only_when_the_device_is_a_round_behind() {
    let _turn = turn();
    let mut staging = Staging::new(device(), 64, 3).unwrap();
    let mut x = target(64);
    let mut step = |staging: &mut Staging, i: usize| {
        staging.put(&[&batch(i, 64)]).unwrap();
        staging.take_into(&mut [&mut x]).unwrap();
    };
    for i in 0..3 {
        step(&mut staging, i);
    }
    assert_eq!(staging.waits(), 0, "free slots need no waiting");
    for i in 3..20 {
        synchronize();
        step(&mut staging, i);
    }
    assert_eq!(staging.waits(), 0, "a device that keeps up is not waited for");
    assert_eq!(x.to_vec::<u8>().unwrap(), batch(19, 64));
}

#[test]
fn nothing_is_allocated_and_nothing_moves_from_step_to_step() {
    let _turn = turn();
    let sizes = [[300, 4], [17, 0], [1, 40], [299, 1]];
    let mut staging = Staging::new(device(), 400, 2).unwrap();
    let (mut images, mut labels) = (target(300), Tensor::zeros(&[10], DType::I32, device()).unwrap());
    let before = memory::stats(ordinal()).unwrap();
    let mut expected = (vec![0u8; 300], vec![0u8; 40]);
    for (i, [a, b]) in sizes.into_iter().cycle().take(16).enumerate() {
        let (first, second) = (batch(i, a), batch(i + 100, b));
        staging.put(&[&first, &second]).unwrap();
        staging.take_into(&mut [&mut images, &mut labels]).unwrap();
        expected.0[..a].copy_from_slice(&first);
        expected.1[..b].copy_from_slice(&second);
    }
    let after = memory::stats(ordinal()).unwrap();
    assert_eq!((after.live, after.peak), (before.live, before.peak));
    assert_eq!((after.from_driver, after.reused), (before.from_driver, before.reused));
    assert_eq!((after.uploads - before.uploads, after.read_backs), (28, before.read_backs));
    assert_eq!(images.to_vec::<u8>().unwrap(), expected.0);
    assert_eq!(bytemuck::cast_slice::<i32, u8>(&labels.to_vec::<i32>().unwrap()), expected.1);
}

/// Memory that a dropped staging had goes to others while its last copies are still queued.
#[test]
fn dropping_while_copies_are_in_flight_harms_no_one() {
    let _turn = turn();
    let live = memory::stats(ordinal()).unwrap().live;
    for taken in 0..3 {
        let mut staging = Staging::new(device(), 1 << 16, 2).unwrap();
        let mut x = target(1 << 16);
        for i in 0..2 {
            staging.put(&[&batch(i, 1 << 16)]).unwrap();
        }
        for _ in 0..taken {
            staging.take_into(&mut [&mut x]).unwrap();
        }
        drop(staging);
        // Blocks of the same size as the slots': the free list hands out theirs.
        let size = (1 << 16) + PARTS * 256;
        let others: Vec<Tensor> = (0..3).map(|_| target(size)).collect();
        for other in &others {
            assert!(other.to_vec::<u8>().unwrap().iter().all(|&v| v == 0), "{taken} taken");
        }
        let expected = if taken == 0 { vec![0; 1 << 16] } else { batch(taken - 1, 1 << 16) };
        assert_eq!(x.to_vec::<u8>().unwrap(), expected);
    }
    assert_eq!(memory::stats(ordinal()).unwrap().live, live);
}

/// A slot's device memory may be a block whose last owner is still being written on the compute stream.
#[test]
fn what_a_block_was_used_for_before_comes_first() {
    let _turn = turn();
    let bytes = 3 << 10;
    drop(target(bytes + PARTS * 256));
    let mut x = target(bytes);
    let mut staging = Staging::new(device(), bytes, 1).unwrap();
    staging.put(&[&batch(0, bytes)]).unwrap();
    staging.take_into(&mut [&mut x]).unwrap();
    // Waits for the copy of the first batch, and for nothing on the compute stream that need not be before it.
    staging.put(&[&batch(1, bytes)]).unwrap();
    assert_eq!(x.to_vec::<u8>().unwrap(), batch(0, bytes));
}

#[test]
fn what_cannot_be_staged_is_refused_and_changes_nothing() {
    let _turn = turn();
    assert_eq!(Staging::new(Device::Cpu, 8, 2).err().unwrap().kind(), ErrorKind::Device);
    assert!(Staging::new(device(), 8, 0).is_err());
    let mut staging = Staging::new(device(), 64, 2).unwrap();
    let mut x = target(64);
    assert!(staging.take_into(&mut [&mut x]).unwrap_err().message().contains("put one first"));
    assert!(staging.put(&[&[0; 65]]).unwrap_err().message().contains("64 bytes"));
    assert!(staging.put(&[&[0u8][..]; PARTS + 1]).is_err());
    staging.put(&[&batch(1, 60)]).unwrap();
    staging.put(&[&batch(2, 64)]).unwrap();
    assert!(staging.put(&[&batch(3, 64)]).unwrap_err().message().contains("take one first"));
    assert!(staging.take_into(&mut []).unwrap_err().message().contains("1 parts"));
    let mut small = target(59);
    assert!(staging.take_into(&mut [&mut small]).unwrap_err().message().contains("60 bytes"));
    let mut on_cpu = Tensor::zeros(&[64], DType::U8, Device::Cpu).unwrap();
    assert_eq!(staging.take_into(&mut [&mut on_cpu]).unwrap_err().kind(), ErrorKind::Device);
    let other = x.clone();
    assert!(staging.take_into(&mut [&mut x]).unwrap_err().message().contains("shares its storage"));
    drop(other);
    staging.take_into(&mut [&mut x]).unwrap();
    assert_eq!(x.to_vec::<u8>().unwrap()[..60], batch(1, 60));
    staging.take_into(&mut [&mut x]).unwrap();
    assert_eq!(x.to_vec::<u8>().unwrap(), batch(2, 64));
}
