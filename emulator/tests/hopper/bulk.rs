//! Bulk copies by themselves, against plain loops over coordinates. The direction out of shared memory was not recorded on
//! hardware: it is taken to be the reverse of the other one.

use super::map::Tensor;
use super::run::{Device, orders};

/// Data type, bytes of an element, size, box, corner, swizzle.
type Case = (u32, usize, &'static [u64], &'static [u32], &'static [i32], u32);

const CASES: [Case; 12] = [
    (0, 1, &[100], &[48], &[0], 0),
    (2, 4, &[37], &[16], &[30], 0),
    (9, 2, &[96, 40], &[64, 16], &[-8, -3], 3),
    (9, 2, &[93, 40], &[64, 16], &[80, 33], 3),
    (6, 2, &[51, 9], &[16, 8], &[43, 3], 1),
    (7, 4, &[33, 20], &[16, 10], &[5, -2], 2),
    (7, 4, &[20, 7], &[20, 4], &[-3, 5], 0),
    (4, 8, &[5, 6, 7], &[2, 3, 4], &[4, 4, -1], 0),
    (9, 2, &[16, 5, 4], &[8, 4, 4], &[9, 2, 1], 0),
    (1, 2, &[16, 3, 3, 3], &[8, 2, 3, 2], &[4, 2, -1, 1], 0),
    (9, 2, &[8, 3, 2, 3, 2], &[8, 2, 2, 3, 2], &[0, -1, 0, 1, 0], 0),
    (8, 8, &[9, 2, 2, 2, 3], &[4, 1, 2, 1, 3], &[-2, 1, 0, 1, 1], 0),
];

/// The tensor's strides in bytes: rows are padded to multiples of 16.
fn strides(element: usize, size: &[u64]) -> Vec<u64> {
    let mut strides = vec![element as u64];
    for dimension in 1..size.len() {
        let last: u64 = strides[dimension - 1] * size[dimension - 1];
        strides.push(last.next_multiple_of(16) + 16);
    }
    strides
}

/// Where an element of the box lies in the tensor, if it is there, for all elements in the box's order.
fn places(size: &[u64], strides: &[u64], box_size: &[u32], corner: &[i32]) -> Vec<Option<u64>> {
    let count: u32 = box_size.iter().product();
    let place = |mut index: u32| {
        let mut place = 0;
        for dimension in 0..size.len() {
            let at = i64::from(corner[dimension]) + i64::from(index % box_size[dimension]);
            index /= box_size[dimension];
            if at < 0 || at >= size[dimension] as i64 {
                return None;
            }
            place += at as u64 * strides[dimension];
        }
        Some(place)
    };
    (0..count).map(place).collect()
}

#[test]
fn boxes_of_all_ranks_go_through_shared_memory() {
    for (data_type, element, size, box_size, corner, swizzle) in CASES {
        let rank = size.len();
        let define = format!("-DRANK={rank}");
        let strides = strides(element, size);
        let bytes = (strides[rank - 1] * size[rank - 1]) as usize;
        let data: Vec<u8> = (0..bytes).map(|i| (i * 37 + i / 251) as u8).collect();
        let places = places(size, &strides, box_size, corner);
        let box_bytes = element * places.len();
        for options in orders() {
            let what = format!("{size:?} {box_size:?} {corner:?} seed {:?}", options.seed);
            let device = Device::new(include_str!("bulk.cu"), "bulk.cu", &[&define]);
            let (from, to) = (device.upload(&data), device.upload(&vec![0xEE; bytes]));
            let at: Vec<u8> = corner.iter().flat_map(|at| at.to_le_bytes()).collect();
            let (at, image) = (device.upload(&at), device.upload(&vec![0; box_bytes]));
            let tensor = |address: u64| {
                let tensor = Tensor {
                    data_type,
                    address,
                    size: size.to_vec(),
                    strides: strides[1..].to_vec(),
                    box_size: box_size.to_vec(),
                    steps: vec![1; rank],
                    swizzle,
                    interleave: 0,
                    fill: 0,
                };
                tensor.words()
            };
            let mut parameters = [tensor(from), tensor(to)].concat();
            parameters.extend([at, box_bytes as u64, image]);
            let outcome = device.launch("box", [1, 1, 64, 0], &parameters, &options);
            assert!(outcome.report.is_none(), "{what}: {}", outcome.report.unwrap());
            let mut stored = vec![0xEE; bytes];
            let mut tile = vec![0; box_bytes];
            for (index, place) in places.iter().enumerate() {
                let Some(place) = place else { continue };
                let here = *place as usize..*place as usize + element;
                stored[here.clone()].copy_from_slice(&data[here.clone()]);
                // Of a stretch of 128 bytes, row r, the 16-byte chunks change places by r.
                let flat = index * element;
                let rows = [0, 1, 3, 7][swizzle as usize];
                let flat = flat ^ (((flat / 128) & rows) * 16);
                tile[flat..flat + element].copy_from_slice(&data[here]);
            }
            assert!(device.download(image, box_bytes) == tile, "{what}: shared memory");
            assert!(device.download(to, bytes) == stored, "{what}: the other tensor");
        }
    }
}

#[test]
fn bytes_one_after_another() {
    for options in orders() {
        let device = Device::new(include_str!("bulk.cu"), "bulk.cu", &["-DRANK=1"]);
        let data: Vec<u8> = (0..1024).map(|i| (i * 31 + 7) as u8).collect();
        let (from, to) = (device.upload(&data), device.upload(&[0xEE; 1024]));
        let outcome = device.launch("invert", [1, 1, 32, 0], &[from, to, 1008], &options);
        assert!(outcome.report.is_none(), "{}", outcome.report.unwrap());
        let want: Vec<u8> = data.iter().enumerate().map(|(i, &x)| if i < 1008 { !x } else { 0xEE }).collect();
        assert_eq!(device.download(to, 1024), want);
        let read = outcome.counters.unique_bytes_read;
        assert_eq!((read, outcome.counters.unique_bytes_written), (1008, 1008));
    }
}
