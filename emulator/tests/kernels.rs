//! Realistic kernels give the right numbers on every case, with all checks on and nothing reported, the
//! same bits in every order of execution, and cost what they must.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use emulator::counters::Counters;
use emulator::exec::Options;
use support::case::Banks;
use support::{Case, cases_of, every_order};

/// Runs every case of a file in every order.
fn hold(file: &str) {
    for case in cases_of(file) {
        let name = case.name();
        let mut first: Option<(Vec<Vec<u8>>, Counters)> = None;
        for options in every_order() {
            let order = format!(
                "{name}, seed {:?}, late {}, workers {}",
                options.seed, options.late_copies, options.workers
            );
            let run = case.run(&options);
            case.check(&run).unwrap_or_else(|wrong| panic!("{order}: {wrong}"));
            let (buffers, counters) = first.get_or_insert_with(|| {
                cost(&case, &run.outcome.counters);
                (run.buffers.clone(), run.outcome.counters)
            });
            assert!(*buffers == run.buffers, "{order}: other bits than in order");
            same_traffic(counters, &run.outcome.counters, &order);
            if !orders_matter(file) {
                assert_eq!(*counters, run.outcome.counters, "{order}: counters");
            }
        }
        let all = case.run(&Options { every_schedule: true, ..Options::default() });
        case.check(&all).unwrap_or_else(|wrong| panic!("{name}, all schedules: {wrong}"));
        let unchecked = case.run(&Options { checks: false, counters: false, ..Options::default() });
        case.check(&unchecked).unwrap_or_else(|wrong| panic!("{name}, unchecked: {wrong}"));
    }
}

/// How often a compare-and-swap loop goes round depends on which thread comes first.
fn orders_matter(file: &str) -> bool {
    file == "histogram.cu"
}

/// Traffic and barriers are the same in every order.
fn same_traffic(first: &Counters, other: &Counters, order: &str) {
    assert_eq!(first.unique_bytes_read, other.unique_bytes_read, "{order}: bytes read");
    assert_eq!(first.unique_bytes_written, other.unique_bytes_written, "{order}: bytes written");
    assert_eq!(first.unique_half_lines_read, other.unique_half_lines_read, "{order}: half-lines read");
    assert_eq!(
        first.unique_half_lines_written, other.unique_half_lines_written,
        "{order}: half-lines written"
    );
    assert_eq!(first.barriers, other.barriers, "{order}: barriers");
}

/// The launch cost what it must.
fn cost(case: &Case, counters: &Counters) {
    let name = case.name();
    let warps = u64::from(case.grid.iter().product::<u32>())
        * u64::from(case.block.iter().product::<u32>()).div_ceil(32);
    assert!(counters.warp_instructions >= warps, "{name}: fewer instructions than warps: {counters:?}");
    assert!(counters.thread_instructions >= counters.warp_instructions, "{name}: {counters:?}");
    assert!(counters.thread_instructions <= 32 * counters.warp_instructions, "{name}: {counters:?}");
    assert_eq!(classes(counters), counters.warp_instructions, "{name}: classes do not add up: {counters:?}");
    let cost = &case.cost;
    let equal = |what: &str, want: Option<u64>, got: u64| {
        assert!(want.is_none_or(|want| want == got), "{name}: {what}: {got} instead of {want:?}");
    };
    equal("bytes read", cost.read, counters.unique_bytes_read);
    equal("bytes written", cost.written, counters.unique_bytes_written);
    equal("barriers", cost.barriers, counters.barriers);
    equal("tensor core instructions", cost.tensor.or(Some(0)), counters.instructions.tensor);
    // A sector holds 32 bytes, so that no launch touches more different bytes than its sectors hold. Atomics count as
    // stores and read too.
    let sectors = counters.global_load_sectors + counters.global_store_sectors;
    assert!(sectors * 32 >= counters.unique_bytes_read, "{name}: {counters:?}");
    assert!(counters.global_store_sectors * 32 >= counters.unique_bytes_written, "{name}: {counters:?}");
    assert!(counters.global_load_half_lines <= counters.global_load_sectors, "{name}: {counters:?}");
    // Requests use at most all bytes of their sectors, and all together at least what the launch does.
    let (loaded, stored) = (counters.global_load_bytes, counters.global_store_bytes);
    assert!(loaded <= 32 * counters.global_load_sectors, "{name}: {counters:?}");
    assert!(stored <= 32 * counters.global_store_sectors, "{name}: {counters:?}");
    assert!(loaded + stored >= counters.unique_bytes_read, "{name}: {counters:?}");
    assert!(stored >= counters.unique_bytes_written, "{name}: {counters:?}");
    for (bytes, half_lines, requested) in [
        (counters.unique_bytes_read, counters.unique_half_lines_read, counters.global_load_half_lines),
        (counters.unique_bytes_written, counters.unique_half_lines_written, counters.global_store_half_lines),
    ] {
        // Every half-line holds at least one of the bytes and at most 64. What atomics touch is read and written.
        assert!(bytes <= 64 * half_lines && half_lines <= bytes, "{name}: {counters:?}");
        assert!(half_lines <= requested + counters.global_store_half_lines, "{name}: {counters:?}");
    }
    let (waves, minimum) = (counters.shared_waves, counters.shared_waves_minimum);
    assert!(waves >= minimum && minimum >= counters.shared_requests, "{name}: {counters:?}");
    match cost.banks {
        Banks::Unknown => {}
        Banks::Free => assert_eq!(waves, minimum, "{name}: bank conflicts"),
        Banks::Conflicts => assert!(waves > minimum, "{name}: {waves} waves, no bank conflict"),
    }
}

fn classes(counters: &Counters) -> u64 {
    let i = &counters.instructions;
    [
        i.integer, i.float, i.half, i.special, i.tensor, i.global, i.shared, i.local, i.constant, i.warp,
        i.barrier, i.control,
    ]
    .iter()
    .sum()
}

macro_rules! kernels {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            hold(concat!(stringify!($name), ".cu"));
        }
    )*};
}

kernels! {
    adamw attention conv2d gelu histogram layer_norm matmul_mma
    ntxent philox reduce scan softmax softmax_xent transpose
}

#[test]
fn every_kernel_is_tested() {
    let mut tested: Vec<&str> = support::cases().iter().map(|case| case.file).collect();
    tested.sort_unstable();
    tested.dedup();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    assert_eq!(tested, files);
}

/// Changes that leave every access in order and only make numbers wrong: a file, a text that occurs once, what it becomes.
const WRONG_NUMBERS: [(&str, &str, &str); 14] = [
    ("adamw.cu", "decay * parameter", "decay * first"),
    ("attention.cu", "sum[j][2 * half] *= rescale;", ""),
    ("attention.cu", "key < valid ?", "true ?"),
    ("conv2d.cu", "const int row = pixel / shape.out_width", "const int row = 1 + pixel / shape.out_width"),
    ("gelu.cu", "0.044715f", "0.04715f"),
    ("histogram.cu", "ordered(largest)", "__float_as_uint(largest)"),
    ("layer_norm.cu", "if ((c * 32 + lane) * 8 + j < width) {", "{"),
    (
        "matmul_mma.cu",
        "b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]",
        "b[j / 2][j % 2 * 2 + 1], b[j / 2][j % 2 * 2]",
    ),
    ("ntxent.cu", "column < rows && column != row", "column < rows"),
    ("philox.cu", "round < 10", "round < 9"),
    ("reduce.cu", "split < gridDim.y", "split + 1 < gridDim.y"),
    ("scan.cu", "w < warp ?", "w <= warp ?"),
    ("softmax.cu", "a.sum * expf(a.maximum - shift) + fresh", "a.sum + fresh"),
    ("softmax_xent.cu", "index == label ?", "index == label + 1 ?"),
];

fn changed(case: &Case, find: &str, replace: &str) -> Case {
    assert_eq!(case.source.matches(find).count(), 1, "{}: must occur once: {find}", case.file);
    let mut case = case.clone();
    case.source = case.source.replacen(find, replace, 1);
    case
}

#[test]
fn wrong_numbers_are_seen() {
    for (file, find, replace) in WRONG_NUMBERS {
        let seen = cases_of(file).iter().map(|case| changed(case, find, replace)).any(|case| {
            let run = case.run(&Options::default());
            let quiet = run.outcome.report.is_none();
            quiet && case.check(&run).is_err()
        });
        assert!(seen, "{file}: {find} became {replace}, and the results hold");
    }
}

#[test]
fn a_missing_swizzle_is_right_but_meets_in_banks() {
    for case in cases_of("matmul_mma.cu") {
        let case = changed(&case, "COLUMNS == 64 ? row & 7 : row >> 1 & 3", "0");
        let run = case.run(&Options::default());
        case.check(&run).unwrap_or_else(|wrong| panic!("{}: {wrong}", case.name()));
        let counters = run.outcome.counters;
        assert!(counters.shared_waves > counters.shared_waves_minimum, "{}: {counters:?}", case.name());
    }
}
