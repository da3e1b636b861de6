//! The matrix product of `matmul.cu`: loads by tensor map three slices ahead, products from shared memory or with A in
//! registers, either operand transposed, edges out of bounds, the result stored by tensor map.

use super::map::{BFLOAT16, FLOAT32, Tensor};
use super::nvrtc;
use super::run::{Device, orders, plain};
use emulator::exec::{Options, Outcome};
use std::sync::Arc;

/// How A and B lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    pub a_transposed: bool,
    pub b_transposed: bool,
    pub a_in_registers: bool,
}

/// A product to run: sizes, layout, the source.
#[derive(Clone)]
pub struct Matmul {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub layout: Layout,
    pub source: String,
}

/// Small integers, whose sums are exact.
fn values(count: usize, seed: usize) -> Vec<i32> {
    (0..count).map(|i| ((i * 7 + seed) * (i + 13) % 9) as i32 - 4).collect()
}

/// Rows of bf16, each a multiple of 16 bytes long; the rest of a row holds NaN, which nothing may read.
fn rows(values: &[i32], columns: usize) -> (Vec<u8>, usize) {
    let pitch = columns.next_multiple_of(8);
    let row = |row: &[i32]| -> Vec<u8> {
        let mut halves: Vec<u16> = row.iter().map(|&x| ((x as f32).to_bits() >> 16) as u16).collect();
        halves.resize(pitch, 0x7FFF);
        halves.iter().flat_map(|half| half.to_le_bytes()).collect()
    };
    (values.chunks(columns).flat_map(row).collect(), 2 * pitch)
}

fn transpose(values: &[i32], columns: usize) -> Vec<i32> {
    let rows = values.len() / columns;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

impl Matmul {
    pub fn new(m: usize, n: usize, k: usize, layout: Layout) -> Matmul {
        Matmul { m, n, k, layout, source: include_str!("matmul.cu").to_owned() }
    }

    /// A [m, k] and B [n, k].
    fn operands(&self) -> (Vec<i32>, Vec<i32>) {
        (values(self.m * self.k, 1), values(self.n * self.k, 5))
    }

    /// The kernel's PTX.
    pub fn ptx(&self) -> Arc<str> {
        let Layout { a_transposed, b_transposed, a_in_registers } = self.layout;
        let flag = |name: &str, transposed: bool| {
            let order = if transposed { "m,k" } else { "k,m" };
            let (step, digit) = if transposed { (2048, 1) } else { (32, 0) };
            [
                format!("-D{name}_TRANSPOSED=\"{digit}\""),
                format!("-D{name}_STEP={step}"),
                format!("-D{name}_AT(k,m)={order}"),
            ]
        };
        let mut defines = [flag("A", a_transposed), flag("B", b_transposed)].concat();
        if a_in_registers {
            defines.push("-DA_IN_REGISTERS".to_owned());
        }
        let defines: Vec<&str> = defines.iter().map(String::as_str).collect();
        nvrtc::ptx_for("compute_90a", &self.source, "matmul.cu", &defines)
    }

    /// Launches it; C's words follow.
    pub fn run(&self, options: &Options) -> (Outcome, Vec<u32>) {
        self.run_on(&Device::of(&self.ptx()).unwrap(), options)
    }

    /// As [`Matmul::run`], where the module is loaded.
    pub fn run_on(&self, device: &Device, options: &Options) -> (Outcome, Vec<u32>) {
        let Layout { a_transposed, b_transposed, .. } = self.layout;
        let (a, b) = self.operands();
        let tensor = |values: Vec<i32>, outer: usize, transposed: bool| {
            let (columns, count) = if transposed { (outer, self.k) } else { (self.k, outer) };
            let values = if transposed { transpose(&values, self.k) } else { values };
            let (bytes, pitch) = rows(&values, columns);
            let address = device.upload(&bytes);
            let size = [columns as u64, count as u64];
            Tensor { swizzle: 3, ..Tensor::matrix(BFLOAT16, address, size, pitch as u64, [64, 64]) }
        };
        let (a, b) = (tensor(a, self.m, a_transposed), tensor(b, self.n, b_transposed));
        let pitch = self.n.next_multiple_of(4);
        let c_address = device.upload(&vec![0xAB; 4 * pitch * self.m]);
        let size = [self.n as u64, self.m as u64];
        let c = Tensor::matrix(FLOAT32, c_address, size, 4 * pitch as u64, [64, 64]);
        let mut parameters = [a.words(), b.words(), c.words()].concat();
        parameters.push(self.k as u64);
        let (grid_x, grid_y) = (self.n.div_ceil(64) as u32, self.m.div_ceil(64) as u32);
        let outcome = device.launch("matmul", [grid_x, grid_y, 160, 6 * 8192 + 16384], &parameters, options);
        (outcome, device.download_words(c_address, pitch * self.m))
    }

    /// C as it must be, what lies between its rows included.
    pub fn expected(&self) -> Vec<u32> {
        let (a, b) = self.operands();
        let pitch = self.n.next_multiple_of(4);
        let mut c = vec![0xABAB_ABAB; pitch * self.m];
        for (i, a) in a.chunks(self.k).enumerate() {
            for (j, b) in b.chunks(self.k).enumerate() {
                let sum: i32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                c[i * pitch + j] = (sum as f32).to_bits();
            }
        }
        c
    }
}

#[test]
fn products_are_exact_in_every_order() {
    let (plain_layout, yes) = (Layout::default(), true);
    let cases = [
        Matmul::new(64, 64, 64, plain_layout),
        Matmul::new(100, 72, 328, plain_layout),
        Matmul::new(70, 130, 200, Layout { b_transposed: yes, ..plain_layout }),
        Matmul::new(72, 64, 264, Layout { a_transposed: yes, ..plain_layout }),
        Matmul::new(72, 40, 72, Layout { a_transposed: yes, b_transposed: yes, ..plain_layout }),
        Matmul::new(65, 64, 264, Layout { a_in_registers: yes, ..plain_layout }),
    ];
    for case in cases {
        for options in orders() {
            let what = format!(
                "{} x {} x {}, {:?}, seed {:?}, late {}, workers {}",
                case.m, case.n, case.k, case.layout, options.seed, options.late_copies, options.workers
            );
            let (outcome, c) = case.run(&options);
            assert!(outcome.report.is_none(), "{what}: {}", outcome.report.unwrap());
            assert!(c == case.expected(), "{what}: wrong numbers");
        }
    }
}

/// What it costs: each byte of A and B is read, each of C written, and a product is counted a warp.
#[test]
fn costs_are_counted() {
    let case = Matmul::new(100, 72, 328, Layout::default());
    let (outcome, c) = case.run(&plain());
    assert!(outcome.report.is_none() && c == case.expected());
    let counters = outcome.counters;
    assert_eq!(counters.unique_bytes_read, 2 * 328 * (100 + 72) as u64);
    assert_eq!(counters.unique_bytes_written, 4 * 100 * 72);
    // 2 x 2 tiles, 6 slices of 4 steps, 4 warps; 64 columns are eight mma m16n8k16.
    assert_eq!(counters.instructions.tensor, 4 * 6 * 4 * 4 * 8);
    let unchecked = case.run(&Options { checks: false, counters: false, ..plain() });
    assert!(unchecked.0.report.is_none() && unchecked.1 == case.expected());
    let all = case.run(&Options { every_schedule: true, ..plain() });
    assert!(all.0.report.is_none(), "{}", all.0.report.unwrap());
}
