//! The steps from attention as it is written down to the kernels that are used: README.md. Each step passes the same
//! cases.

use super::cases::{Case, Values};
use super::cuda::Problem;
use super::tensor_core::{Choice, Plan};
use super::{Scores, Sizes, checked, scale_of};
use crate::array::Array;
use crate::check::{guarded, on_device};
use crate::compare;
use crate::cuda::HEADERS;
use crate::testing::device;
use engine::cuda::profile;
use engine::cuda::{Kernel, Launch, Module};
use engine::{DType, Device, Result, Tensor};

macro_rules! step {
    ($file:literal, $module:ident: $($name:ident = $entry:literal),*) => {
        static $module: Module = Module::new(
            "attention",
            concat!("kernels/src/attention/ladder/", $file),
            include_str!($file),
            HEADERS,
            &["ELEMENT_BF16", "HEAD=64"],
            &[],
        );
        $(static $name: Kernel = Kernel::new(&$module, $entry);)*
    };
}

step!("v1_naive.cu", NAIVE: V1_SCORES = "ladder_v1_scores", V1_SOFTMAX = "ladder_v1_softmax", V1_SUM = "ladder_v1_sum");
step!("v2_tiled.cu", TILED: V2_SCORES = "ladder_v2_scores", V2_SOFTMAX = "ladder_v2_softmax", V2_SUM = "ladder_v2_sum");
step!("v3_online.cu", ONLINE: V3 = "ladder_v3");
step!("v4_mma.cu", MMA: V4 = "ladder_v4");

/// What a step is given.
struct Call<'a> {
    qkv: &'a Tensor,
    valid: Option<&'a Tensor>,
    sizes: Sizes,
    scale: f32,
    out: &'a mut Tensor,
    lse: &'a mut Tensor,
}

impl Call<'_> {
    fn problem(&self, rows: usize) -> Problem {
        let Sizes { tokens, heads, size, .. } = self.sizes;
        let tiles = tokens.div_ceil(rows) as u32;
        Problem {
            tokens: tokens as u32,
            heads: heads as u32,
            size: size as u32,
            tiles,
            aligned: 1,
            scale: self.scale,
        }
    }

    /// The scores' memory, which grows with the square of the tokens.
    fn scores(&self) -> Result<Tensor> {
        Tensor::empty(&[self.sizes.pairs(), self.sizes.tokens, self.sizes.tokens], DType::F32, device())
    }
}

fn naive(call: Call) -> Result<()> {
    const THREADS: usize = 256;
    let (problem, mut scores) = (call.problem(1), call.scores()?);
    let rows = call.sizes.pairs() * call.sizes.tokens;
    let (products, elements) = (rows * call.sizes.tokens, rows * call.sizes.size);
    let launch =
        Launch::new(&V1_SCORES, device())?.read(call.qkv)?.read_optional(call.valid)?.write(&mut scores)?;
    launch.value(problem).value(products as u64).grid(products.div_ceil(THREADS)).block(THREADS).run()?;
    let launch = Launch::new(&V1_SOFTMAX, device())?.write(&mut scores)?.write(call.lse)?;
    launch.value(problem).value(rows as u64).grid(rows.div_ceil(THREADS)).block(THREADS).run()?;
    let launch = Launch::new(&V1_SUM, device())?.read(call.qkv)?.read_optional(call.valid)?.read(&scores)?;
    let launch = launch.write(call.out)?.value(problem).value(elements as u64);
    launch.grid(elements.div_ceil(THREADS)).block(THREADS).run()
}

fn tiled(call: Call) -> Result<()> {
    const TILE: usize = 16;
    let (problem, mut scores) = (call.problem(TILE), call.scores()?);
    let (tiles, pairs) = (call.sizes.tokens.div_ceil(TILE), call.sizes.pairs());
    let rows = pairs * call.sizes.tokens;
    let launch =
        Launch::new(&V2_SCORES, device())?.read(call.qkv)?.read_optional(call.valid)?.write(&mut scores)?;
    launch.value(problem).grid3([tiles, tiles, pairs]).block(TILE * TILE).run()?;
    let launch = Launch::new(&V2_SOFTMAX, device())?.write(&mut scores)?.write(call.lse)?;
    launch.value(problem).value(rows as u64).grid(rows.div_ceil(8)).block(256).run()?;
    let launch = Launch::new(&V2_SUM, device())?.read(call.qkv)?.read_optional(call.valid)?.read(&scores)?;
    let launch = launch.write(call.out)?.value(problem);
    launch.grid3([call.sizes.size.div_ceil(TILE), tiles, pairs]).block(TILE * TILE).run()
}

/// A kernel whose blocks have 64 queries of a head.
fn by_tiles(kernel: &'static Kernel, threads: usize, call: Call) -> Result<()> {
    let problem = call.problem(64);
    let blocks = call.sizes.pairs() * problem.tiles as usize;
    let launch = Launch::new(kernel, device())?.read(call.qkv)?.read_optional(call.valid)?;
    launch.write(call.out)?.write(call.lse)?.value(problem).grid(blocks).block(threads).run()
}

fn of_the_family(choice: Choice, call: Call) -> Result<()> {
    let plan = Plan::new(call.sizes, call.scale, &[call.qkv, &*call.out], choice).expect("they take it");
    let scores = Scores { valid: call.valid, ..Scores::default() };
    plan.forward(call.qkv, scores, call.out, call.lse)
}

/// A step's name and what launches it.
type Step = (&'static str, fn(Call) -> Result<()>);

const STEPS: [Step; 6] = [
    ("1 naive", naive),
    ("2 tiled", tiled),
    ("3 online", |call| by_tiles(&V3, 64, call)),
    ("4 mma", |call| by_tiles(&V4, 128, call)),
    ("5 streaming", |call| of_the_family(Choice::Stream, call)),
    ("6 whole heads", |call| of_the_family(Choice::Best, call)),
];

/// out and lse of a step on the CPU; memory is fenced and poisoned.
fn run(step: fn(Call) -> Result<()>, case: &Case, qkv: &Array<f64>) -> Result<[Tensor; 2]> {
    guarded(device(), || {
        let qkv = on_device(qkv, DType::BF16, device())?;
        let scores = case.scores_on(device())?;
        let (sizes, scale) = checked("ladder", &qkv, scores.scores())?;
        assert_eq!(scale, scale_of(case.scale, case.size));
        let mut out = Tensor::empty(&sizes.out(), DType::BF16, device())?;
        let mut lse = Tensor::empty(&sizes.lse(), DType::F32, device())?;
        let (out_of, lse_of) = (&mut out, &mut lse);
        step(Call { qkv: &qkv, valid: scores.valid.as_ref(), sizes, scale, out: out_of, lse: lse_of })?;
        Ok([out.to_device(Device::Cpu)?, lse.to_device(Device::Cpu)?])
    })
}

/// Every step agrees with the reference, with twice the naive error: lengths at which tiles end, padding, a head size
/// that is padded, scores of hundreds.
#[test]
fn every_step_passes_the_same_cases() {
    let padded = Case { padded: true, ..Case::new(3, 40, 1, 64) };
    let large = Case { values: Values::Normal(5.0), ..Case::new(1, 33, 1, 64) };
    let cases = [
        Case::new(1, 1, 1, 64),
        Case::new(2, 17, 3, 64),
        Case::new(1, 65, 2, 48),
        Case::new(1, 130, 1, 64),
        padded,
        large,
    ];
    for case in cases {
        let qkv = case.qkv().rounded_to(DType::BF16);
        let (naive, oracle) = (expected::<f32>(&case, &qkv), expected::<f64>(&case, &qkv));
        for (name, step) in STEPS {
            let results = run(step, &case, &qkv).unwrap_or_else(|e| panic!("{name} {case:?}: {e}"));
            for i in 0..2 {
                let what = format!("{name}, result {i}, {case:?}");
                compare::check(&what, &results[i], &naive[i], &oracle[i], 2.0)
                    .unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

fn expected<T: crate::array::Real>(case: &Case, qkv: &Array<f64>) -> [Array<T>; 2] {
    let (qkv, valid) = (qkv.cast(), case.valid());
    let problem =
        super::reference::Problem { qkv: &qkv, valid: valid.as_deref(), mask: None, scale: case.scale() };
    super::reference::forward(problem).into()
}

/// The table of README.md, and that each step costs less of what it is there for: `--nocapture` prints it.
#[test]
fn every_step_costs_less() {
    let case = Case::new(1, 197, 2, 64);
    let qkv = case.qkv().rounded_to(DType::BF16);
    let mut table = Vec::new();
    for (name, step) in STEPS {
        device(); // from here on no other test launches anything
        profile::start().unwrap();
        run(step, &case, &qkv).unwrap();
        let counters: Vec<_> = profile::stop().unwrap().iter().filter_map(|r| r.counters).collect();
        if counters.is_empty() {
            return; // hardware counts nothing
        }
        let sum = |f: fn(&profile::Counters) -> u64| counters.iter().map(f).sum::<u64>();
        let row = [
            sum(|c| c.unique_half_line_bytes()) / 1024,
            sum(|c| c.sector_bytes()) / 1024,
            sum(|c| c.warp_instructions) / 1000,
            sum(|c| c.tensor),
            sum(|c| c.shared_waves),
            sum(|c| c.bank_conflicts()),
        ];
        println!("| {name} | {} |", row.map(|n| n.to_string()).join(" | "));
        table.push(row);
    }
    let column = |i: usize| table.iter().map(|row| row[i]).collect::<Vec<_>>();
    let (bytes, sectors, instructions, conflicts) = (column(0), column(1), column(2), column(5));
    assert!(sectors[1] * 4 < sectors[0], "tiles are read once for many uses: {sectors:?}");
    assert!(bytes[2] * 2 < bytes[1], "the scores stay out of memory: {bytes:?}");
    assert!(instructions[3] * 5 < instructions[2], "an mma is 2048 multiply-adds: {instructions:?}");
    assert!(conflicts[3] > 0 && conflicts[4] == 0, "rows are swizzled: {conflicts:?}");
    assert!(sectors[5] < sectors[4], "keys and values are read once: {sectors:?}");
}
