//! The kernels on tensor cores, which take vectors in bf16 of up to 256 elements, a multiple of 8.

use super::cases::{Case, Data, Values, positive};
use super::check::{Expected, rounded, run};
use super::cuda::{Problem, forward_maker, workspace};
use super::*;
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::testing::device;
use engine::cuda::profile::{self, Record};

const BF16: DType = DType::BF16;

/// The results of [`run`]; memory is fenced and poisoned.
fn results(case: &Case, data: &Data) -> Vec<Tensor> {
    guarded(device(), || {
        let results = run(case, data, |x| on_device(x, BF16, device()))?;
        results.iter().map(|x| x.to_device(Device::Cpu)).collect()
    })
    .unwrap_or_else(|e| panic!("{case:?}: {e}"))
}

fn agree(case: &Case) {
    let data = rounded(&case.data(), BF16);
    let results = results(case, &data);
    Expected::new(case, &data, true).require(&results).unwrap_or_else(|e| panic!("{case:?}: {e}"));
}

/// Tiles of 16, 64 and 128 rows and of 64 and 128 columns with their neighbours, both paddings of the vectors, columns in
/// several parts.
#[test]
fn every_size_agrees_with_the_reference() {
    for (n, d) in [(1, 8), (2, 128), (8, 64), (31, 16), (32, 136), (33, 256), (64, 32), (65, 128), (70, 200)]
    {
        agree(&Case::simclr(n, d, 0.1, Values::Unit));
    }
    let spec = |self_column| Spec { temperature: 0.2, self_column };
    for (r, c, d, vector, self_column) in [
        (1, 1, 8, false, None),
        (15, 63, 128, true, Some(0)),
        (16, 64, 256, false, Some(3)),
        (17, 129, 24, true, Some(5)),
        (63, 65, 128, false, None),
        (65, 17, 72, true, None),
        (129, 5, 128, false, Some(1)),
        // More rows than a chunk of their numbers has.
        (1100, 20, 8, false, Some(1)),
        (270, 20, 256, false, Some(1)),
        (3, 700, 128, true, None),
    ] {
        agree(&Case { r, c, d, vector, spec: spec(self_column), values: Values::Unit });
    }
}

/// Rows that do not see their own copies, where nothing else makes a tile special: copies in the corners of tiles, of 32
/// rows and 32 or 64 columns, and of 16 rows of more than 128 elements. A copy that was seen would outweigh all others.
#[test]
fn copies_in_the_corners_of_tiles_are_not_seen() {
    for (d, offsets) in [(16, [1, 33, 63, 95]), (136, [17, 47, 49, 111])] {
        for offset in offsets {
            let spec = Spec { temperature: 0.1, self_column: Some(offset) };
            let case = Case { r: 64, c: 128, d, vector: true, spec, values: Values::Unit };
            let mut data = case.data();
            let copies = (128 - offset).min(64) * d;
            data.columns.data[offset * d..][..copies].copy_from_slice(&data.rows.data[..copies]);
            let data = rounded(&data, BF16);
            let expected = Expected::new(&case, &data, true);
            expected.require(&results(&case, &data)).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        }
    }
}

/// Vectors of one length with temperatures of all sizes; of many lengths; all the same; zeros. With some of them the
/// guess of a row's largest product holds, with others it does not.
#[test]
fn every_kind_of_values_agrees_with_the_reference() {
    for temperature in [0.01, 0.05, 0.5, 1.0] {
        for values in [Values::Unit, Values::Identical] {
            agree(&Case::simclr(18, 40, temperature, values));
        }
    }
    for values in [Values::Normal(30.0), Values::Normal(1.0), Values::Normal(1e-3), Values::Zero] {
        agree(&Case::simclr(18, 128, 0.1, values));
    }
}

/// Columns of three times the rows' length, one of them in each row's direction: e^(s - guess) is infinite, and the
/// second pass starts with nothing of the first.
#[test]
fn a_guess_that_overflows_leaves_nothing() {
    let spec = Spec { temperature: 0.1, self_column: None };
    let case = Case { r: 20, c: 90, d: 64, vector: false, spec, values: Values::Normal(1.0) };
    let mut data = case.data();
    for (column, row) in data.columns.data.iter_mut().zip(&data.rows.data) {
        *column = 3.0 * row;
    }
    let data = rounded(&data, BF16);
    Expected::new(&case, &data, true).require(&results(&case, &data)).unwrap();
}

fn recorded(f: impl FnOnce()) -> Vec<Record> {
    device(); // from here on no other test launches anything
    profile::start().unwrap();
    f();
    profile::stop().unwrap()
}

/// Where the guess does not hold, the block makes its products a second time.
#[test]
fn a_bad_guess_costs_a_second_pass() {
    let products = |temperature, values| {
        let case = Case::simclr(40, 128, temperature, values);
        let data = rounded(&case.data(), BF16);
        let records = recorded(|| drop(results(&case, &data)));
        let tiles = records.iter().find(|r| r.launch.kernel == "ntxent_fwd_mma_d128_bf16").unwrap();
        tiles.counters.map(|c| c.tensor)
    };
    // Hardware counts nothing.
    let Some(good) = products(0.1, Values::Unit) else { return };
    // 128 rows with two tiles of 64 columns. (Their lengths are products too, but made once.)
    let again = good + 128 * 128 * 128 / (16 * 8 * 16);
    assert_eq!(products(0.01, Values::Unit), Some(again), "all products are near e^-100 of the guess");
    assert_eq!(products(0.1, Values::Normal(30.0)), Some(again), "e^(1000 and more)");
    assert_eq!(products(0.1, Values::Identical), Some(good));
}

/// Rows that are swapped with their positives have each other's losses and gradients, to the bit.
#[test]
fn views_may_be_swapped() {
    let case = Case::simclr(64, 128, 0.1, Values::Unit);
    let data = rounded(&case.data(), BF16);
    let swapped = |x: &Array<f64>| {
        let mut data = x.data.clone();
        data.rotate_left(x.data.len() / 2);
        Array::new(&x.shape, data)
    };
    let other = Data {
        rows: swapped(&data.rows),
        columns: swapped(&data.columns),
        positive: data.positive.clone(),
        dloss: swapped(&data.dloss),
    };
    let expected = Expected::new(&case, &data, true);
    let back = |x: &Tensor| swapped(&Array::<f64>::from_tensor(x).unwrap()).to_tensor().unwrap();
    let swapped: Vec<Tensor> = results(&case, &other).iter().take(4).map(back).collect();
    expected.require(&swapped).unwrap();
}

#[test]
fn the_same_bits_every_time() {
    let case = Case { r: 20, c: 150, d: 136, vector: true, ..Case::simclr(1, 1, 0.1, Values::Unit) };
    let data = rounded(&case.data(), BF16);
    let bits = || {
        let all = results(&case, &data);
        all.iter().map(|x| Array::<f32>::from_tensor(x).unwrap().data).collect::<Vec<_>>()
    };
    let first = bits();
    for _ in 0..20 {
        assert_eq!(bits(), first);
    }
}

/// Each vector is read from memory once and each gradient written once, and no launch asks for parts of sectors.
#[test]
fn whole_sectors_and_the_least_bytes() {
    let case = Case::simclr(96, 128, 0.1, Values::Unit);
    let data = rounded(&case.data(), BF16);
    for record in recorded(|| drop(results(&case, &data))) {
        let (kernel, Some(c)) = (record.launch.kernel, record.counters) else { return };
        let sectors = c.requested_bytes() as f64 / c.sector_bytes() as f64;
        println!(
            "{kernel}: {} of {} bytes, {sectors:.3} of sectors, {} of {} passes, {} warp instructions, {} of them mma",
            c.unique_bytes(),
            record.launch.bytes,
            c.shared_waves,
            c.shared_waves_minimum,
            c.warp_instructions,
            c.tensor
        );
        assert!(100 * c.unique_bytes() <= 101 * record.launch.bytes, "{kernel}");
        assert!(sectors > 0.9, "{kernel} {sectors}");
        assert_eq!(c.bank_conflicts(), 0, "{kernel}");
    }
}

/// 4096 pairs of 128 elements: their 8192 x 8192 similarities would be 256 MiB; forward and backward have less than 16
/// MB beside their inputs, results included. (What is allocated is compared with the formula at 512 rows, in a process
/// of its own: the figures are the device's.)
#[test]
fn memory_of_4096_pairs() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "ntxent::tensor_core_tests::peak_memory"])
        .env("PRETEXT_TEST_SCHEDULES", "one")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
    let (forward, backward) = peaks(8192, 128);
    assert!(forward < 1_000_000 && backward < 16_000_000, "{forward} {backward}");
}

/// The most bytes that forward, and with its results backward, have beside the inputs, for `r` rows that are their own
/// columns.
fn peaks(r: usize, d: usize) -> (usize, usize) {
    let rows = Tensor::zeros(&[r, d], BF16, device()).unwrap();
    let of = Tensor::zeros(&[r], DType::I32, device()).unwrap();
    let spec = Spec { temperature: 0.1, self_column: Some(0) };
    let problem = Problem::new("ntxent", &rows, &rows, Positive::Column(&of), spec).unwrap();
    let maker = forward_maker(BF16, &problem).unwrap();
    (8 * r + 4 * workspace(maker, r, r), 8 * r + 2 * 2 * r * d)
}

#[test]
#[ignore = "memory_of_4096_pairs runs it in a process of its own"]
fn peak_memory() {
    use engine::cuda::memory::{reset_peak, stats};
    let (n, d) = (256, 128);
    let case = Case::simclr(n, d, 0.1, Values::Unit);
    let data = case.data();
    let rows = on_device(&data.rows, BF16, device()).unwrap();
    let (of, is_column) = data.positive_tensor().unwrap();
    let of = (of.to_device(device()).unwrap(), is_column);
    let dloss = on_device(&data.dloss, DType::F32, device()).unwrap();
    let expected = peaks(2 * n, d);
    reset_peak(0).unwrap();
    let before = stats(0).unwrap().live;
    let (loss, lse) = forward(&rows, &rows, positive(&of), case.spec).unwrap();
    assert_eq!(stats(0).unwrap().peak - before, expected.0);
    reset_peak(0).unwrap();
    let g = backward(&dloss, &rows, &rows, positive(&of), case.spec, &lse, true).unwrap();
    assert_eq!(stats(0).unwrap().peak - before, expected.1);
    drop((loss, g));
}

/// The least that a device from sm_80 on has, 99 KiB a block on sm_86, has room for every kernel and its fixed arrays.
#[test]
fn every_device_has_the_shared_memory() {
    for kernel in super::tensor_core::d128::KERNELS.iter().chain(super::tensor_core::d256::KERNELS) {
        assert!(kernel.dynamic_shared + 1024 <= 99 << 10, "{}: {}", kernel.entry, kernel.dynamic_shared);
    }
}
