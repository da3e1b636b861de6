//! Planted misuse of `matmul.cu`, one place each: every order of execution must report it as what it is, in that kernel, at a
//! line of the source.

use super::map::{FLOAT32, Tensor};
use super::matmul::{Layout, Matmul};
use super::run::{Device, orders, plain};
use emulator::exec::Options;
use emulator::report::{Kind, Report};

/// What is wrong, what may be reported, and how the source changes: texts that occur once.
type Bug = (&'static str, &'static [Kind], &'static [(&'static str, &'static str)]);

/// Something is used before it is there: in flight, not written at all, or written with nothing that says so.
const TOO_EARLY: &[Kind] = &[Kind::AsyncCopyNotAwaited, Kind::SharedRace, Kind::UninitialisedShared];

/// The phase before is complete at first; once the slice has landed, the next one never comes.
const TOO_EARLY_OR_NEVER: &[Kind] =
    &[Kind::AsyncCopyNotAwaited, Kind::SharedRace, Kind::UninitialisedShared, Kind::Deadlock];

const FENCE: &str =
    "    asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\");\n    asm volatile(\"bar.sync";
const COMMIT: &str = "asm volatile(\"cp.async.bulk.commit_group;\" ::: \"memory\");";
const READ: &str = "asm volatile(\"cp.async.bulk.wait_group.read 0;\" ::: \"memory\");";
const WAIT_PRODUCT: &str = "asm volatile(\"wgmma.wait_group.sync.aligned 0;\" ::: \"memory\");";

const BUGS: &[Bug] = &[
    (
        "the consumers do not wait for a slice",
        TOO_EARLY,
        &[("        wait(full + 8 * stage, slice / STAGES & 1);\n", "")],
    ),
    (
        "the consumers wait for the phase before",
        TOO_EARLY_OR_NEVER,
        &[("slice / STAGES & 1);", "(slice / STAGES & 1) ^ 1);")],
    ),
    (
        "the producer does not wait for a free place",
        &[Kind::AsyncCopyNotAwaited, Kind::SharedRace, Kind::AsyncMisuse],
        &[("if (round > 0) wait(empty + 8 * stage, (round - 1) & 1);", "")],
    ),
    (
        "nobody says that a place is free",
        &[Kind::Deadlock],
        &[("if (lane == 0) arrive(empty + 8 * stage);", "")],
    ),
    (
        "a place is free before it was read",
        TOO_EARLY,
        &[
            (
                "        asm volatile(\"wgmma.fence.sync.aligned;\"",
                "        if (lane == 0) arrive(empty + 8 * stage);\n        asm volatile(\"wgmma.fence.sync.aligned;\"",
            ),
            (
                "        __syncwarp();  // all lanes have read their part of the slice\n        if (lane == 0) arrive(empty + 8 * stage);\n",
                "",
            ),
        ],
    ),
    (
        "too few bytes are expected",
        &[Kind::Deadlock, Kind::AsyncCopyNotAwaited],
        &[("expect(full + 8 * stage, 2 * BYTES);", "expect(full + 8 * stage, BYTES);")],
    ),
    (
        "too many bytes are expected",
        &[Kind::Deadlock],
        &[("expect(full + 8 * stage, 2 * BYTES);", "expect(full + 8 * stage, 3 * BYTES);")],
    ),
    (
        "no bytes are expected",
        &[Kind::Deadlock, Kind::AsyncCopyNotAwaited],
        &[("expect(full + 8 * stage, 2 * BYTES);", "arrive(full + 8 * stage);")],
    ),
    (
        "an arrival too many is asked for",
        &[Kind::Deadlock],
        &[("init(empty + 8 * stage, 4);", "init(empty + 8 * stage, 5);")],
    ),
    (
        "an arrival too few is asked for",
        &[Kind::Deadlock, Kind::AsyncMisuse, Kind::AsyncCopyNotAwaited, Kind::SharedRace],
        &[("init(empty + 8 * stage, 4);", "init(empty + 8 * stage, 3);")],
    ),
    (
        "a barrier is not initialised",
        &[Kind::AsyncMisuse],
        &[("            init(full + 8 * stage, 1);\n", "")],
    ),
    (
        "a barrier is initialised twice",
        &[Kind::AsyncMisuse],
        &[("            init(full + 8 * stage, 1);\n", "            init(full, 1);\n")],
    ),
    (
        "a barrier of no arrivals",
        &[Kind::AsyncMisuse],
        &[("init(full + 8 * stage, 1);", "init(full + 8 * stage, 0);")],
    ),
    (
        "nobody waits for the barriers to be there",
        &[Kind::AsyncMisuse, Kind::SharedRace, Kind::MissingProxyFence],
        &[("    __syncthreads();  // the barriers are there\n", "")],
    ),
    (
        "the barriers are not fenced",
        &[Kind::MissingProxyFence],
        &[("        asm volatile(\"fence.mbarrier_init.release.cluster;\" ::: \"memory\");\n", "")],
    ),
    (
        "a store hits a barrier",
        &[Kind::AsyncMisuse],
        &[(
            "__syncthreads();  // the barriers are there",
            "__syncthreads(); if (threadIdx.x == 0) ((u32*)barriers)[2] = 7; __syncthreads();",
        )],
    ),
    ("the tile is not fenced", &[Kind::MissingProxyFence], &[(FENCE, "    asm volatile(\"bar.sync")]),
    (
        "the tile is stored before all have written it",
        &[Kind::SharedRace, Kind::UninitialisedShared],
        &[("    asm volatile(\"bar.sync 1, 128;\" ::: \"memory\");  // the tile is whole\n", "")],
    ),
    ("the block ends before its tile was read", &[Kind::AsyncCopyNotAwaited], &[(READ, "")]),
    ("the store is in no group", &[Kind::AsyncCopyNotAwaited], &[(COMMIT, "")]),
    (
        "the tile is changed while it is stored",
        &[Kind::AsyncCopyNotAwaited],
        &[(READ, "c_tile[5] = 0.f; asm volatile(\"cp.async.bulk.wait_group.read 0;\" ::: \"memory\");")],
    ),
    ("a product is not waited for", &[Kind::AsyncCopyNotAwaited], &[(WAIT_PRODUCT, "")]),
    (
        "the products are in no group",
        &[Kind::AsyncCopyNotAwaited],
        &[("asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\");", "")],
    ),
    (
        "no fence comes before the products",
        &[Kind::AsyncMisuse],
        &[("asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\");", "")],
    ),
    (
        "a descriptor with an address of bytes",
        &[Kind::AsyncMisuse],
        &[("(u64)((address & 0x3FFFF) >> 4)", "(u64)(address & 0x3FFFF)")],
    ),
    (
        "warps with different descriptors",
        &[Kind::AsyncMisuse],
        &[(
            "multiply(d, descriptor(a_tile + A_STEP * step), b",
            "multiply(d, descriptor(a_tile + A_STEP * (step ^ warp / 3)), b",
        )],
    ),
    (
        "a warp leaves a product out",
        &[Kind::AsyncMisuse, Kind::AsyncCopyNotAwaited],
        &[(
            "for (int step = 0; step < 4; step++) {\n            const u64 b",
            "for (int step = warp / 3; step < 4; step++) {\n            const u64 b",
        )],
    ),
    (
        "some lanes come to a product",
        &[Kind::DivergentWarp],
        &[("            multiply(d, descriptor(", "            if (lane < 31) multiply(d, descriptor(")],
    ),
    ("a warpgroup of one warp", &[Kind::AsyncMisuse], &[("if (warp == 4) {\n", "if (warp == 0) {\n")]),
    (
        "a tile beside its place",
        &[Kind::Misaligned],
        &[("load_tile(a_tiles + stage * BYTES,", "load_tile(a_tiles + stage * BYTES + 64,")],
    ),
    (
        "a tile beyond shared memory",
        &[Kind::OutOfBounds],
        &[("load_tile(a_tiles + stage * BYTES,", "load_tile(a_tiles + 0x20000 + stage * BYTES,")],
    ),
    (
        "no map where there should be one",
        &[Kind::AsyncMisuse],
        &[(
            "load_tile(a_tiles + stage * BYTES, &a_map,",
            "load_tile(a_tiles + stage * BYTES, (const TensorMap*)((const char*)&a_map + 64),",
        )],
    ),
    (
        "two copies to one place",
        &[Kind::AsyncCopyNotAwaited],
        &[("load_tile(b_tiles + stage * BYTES,", "load_tile(a_tiles + stage * BYTES,")],
    ),
];

/// The report of a product with these changes.
fn reported(edits: &[(&str, &str)], options: &Options) -> Option<(Report, usize)> {
    let mut case = Matmul::new(64, 72, 264, Layout::default());
    for (find, replace) in edits {
        assert_eq!(case.source.matches(find).count(), 1, "must occur once: {find}");
        case.source = case.source.replacen(find, replace, 1);
    }
    let lines = case.source.lines().count();
    case.run(options).0.report.map(|report| (report, lines))
}

#[test]
fn every_misuse_is_reported_in_every_order() {
    let mut wrong = Vec::new();
    for (name, kinds, edits) in BUGS {
        for options in orders() {
            let order = format!("{name} (seed {:?}, late {})", options.seed, options.late_copies);
            match reported(edits, &options) {
                None => wrong.push(format!("{order}: nothing reported, {kinds:?} expected")),
                Some((report, lines)) => {
                    let line = report.source.as_ref().map_or(0, |source| source.line as usize);
                    if !kinds.contains(&report.kind)
                        || !(1..=lines).contains(&line)
                        || report.kernel != "matmul"
                    {
                        wrong.push(format!("{order}: {kinds:?} expected, reported: {report}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are not reported as they should be:\n{}", wrong.len(), wrong.join("\n"));
}

/// A deadlock says what the barrier lacks.
#[test]
fn a_deadlock_names_the_barrier_and_what_it_misses() {
    let edit = [("expect(full + 8 * stage, 2 * BYTES);", "expect(full + 8 * stage, 3 * BYTES);")];
    let (report, _) = reported(&edit, &plain()).unwrap();
    assert!(report.detail.contains("phase 0 misses 0 arrivals and 8192 bytes"), "{report}");
}

/// A map that says more than was allocated reads beside the allocation.
#[test]
fn a_tensor_larger_than_its_memory_is_out_of_bounds() {
    let device = Device::new(include_str!("bulk.cu"), "bulk.cu", &["-DRANK=2"]);
    let (from, to) = (device.upload(&[1; 64 * 8 * 4]), device.upload(&[1; 64 * 16 * 4]));
    let at = device.upload(&[0; 8]);
    let image = device.upload(&[0; 64 * 16 * 4 / 2]);
    let tensor = |address: u64| Tensor::matrix(FLOAT32, address, [64, 16], 256, [32, 16]).words();
    let mut parameters = [tensor(from), tensor(to)].concat();
    parameters.extend([at, 2048, image]);
    let report = device.launch("box", [1, 1, 32, 0], &parameters, &plain()).report.unwrap();
    assert_eq!(report.kind, Kind::OutOfBounds, "{report}");
    assert!(report.detail.contains("2048 bytes"), "{report}");
}

/// `setmaxnreg` changes nothing here, but what a device refuses is refused.
#[test]
fn registers_of_a_warp() {
    let ptx = |text: &str| {
        format!(
            ".version 8.8\n.target sm_90a\n.address_size 64\n.visible .entry main()\n{{\n.reg .b32 %r<2>;\n.reg .pred %p<2>;\n\
             mov.u32 %r0, %tid.x;\nsetp.lt.u32 %p0, %r0, 7;\n{text};\nret;\n}}\n"
        )
    };
    let memory = std::sync::Arc::new(emulator::memory::DeviceMemory::new(1 << 20).unwrap());
    let run = |text: &str| {
        let image = emulator::exec::Image::load(&ptx(text), &memory).map_err(|error| error.detail)?;
        let kernel = image.kernel("main").unwrap();
        let (grid, block) = ([1; 3], [128, 1, 1]);
        let what = emulator::exec::Launch { kernel, grid, block, dynamic_shared: 0, parameters: &[] };
        Ok::<_, String>(emulator::exec::launch(&memory, &what, &plain()).report.map(|report| report.kind))
    };
    assert_eq!(run("setmaxnreg.inc.sync.aligned.u32 240"), Ok(None));
    assert_eq!(run("@%p0 setmaxnreg.dec.sync.aligned.u32 24"), Ok(Some(Kind::DivergentWarp)));
    for count in [0, 16, 100, 264] {
        let error = run(&format!("setmaxnreg.dec.sync.aligned.u32 {count}")).unwrap_err();
        assert!(error.contains("a multiple of 8 from 24 to 256"), "{error}");
    }
}

/// What a target without the `a` does not have is refused when the module is loaded.
#[test]
fn wgmma_needs_its_target() {
    let ptx = ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry main()\n{\nwgmma.fence.sync.aligned;\nret;\n}\n";
    let memory = std::sync::Arc::new(emulator::memory::DeviceMemory::new(1 << 20).unwrap());
    let error = emulator::exec::Image::load(ptx, &memory).unwrap_err();
    assert!(error.detail.contains("compute_90a") && error.line == 6, "{error}");
}
