//! `mma`, `ldmatrix`, `stmatrix`, `cp.async`: PTX ISA 9.7.14, 9.7.9.25. Matrices of small integers, whose products are
//! exact in every type; layouts as the manual's figures give them.

use super::device::{Device, HEAD, plain};
use super::exact::{self, Exact, Format, Mode};
use super::random::Random;
use emulator::exec::Options;

/// An element type: bytes, and the bits of a small integer.
#[derive(Clone, Copy)]
enum Element {
    Float(Format),
    Tf32,
    Byte,
    Word,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::Float(f) => f.bits() as usize / 8,
            Element::Tf32 | Element::Word => 4,
            Element::Byte => 1,
        }
    }

    fn bits(self, value: i64) -> u32 {
        let round = |f: Format| f.round(Exact::integer(i128::from(value)), Mode::Nearest) as u32;
        match self {
            Element::Float(f) => round(f),
            Element::Tf32 => round(exact::F32),
            Element::Byte => value as u8 as u32,
            Element::Word => value as u32,
        }
    }
}

const F16: Element = Element::Float(exact::F16);
const BF16: Element = Element::Float(exact::BF16);
const F32: Element = Element::Float(exact::F32);

/// Opcode after `mma.sync.aligned.`, k, type of A and B, of C and D, least value of A, of B.
type Shape = (&'static str, usize, Element, Element, i64, i64);

const SHAPES: [Shape; 18] = [
    ("m16n8k16.row.col.f32.bf16.bf16.f32", 16, BF16, F32, -4, -4),
    ("m16n8k8.row.col.f32.bf16.bf16.f32", 8, BF16, F32, -4, -4),
    ("m16n8k16.row.col.f32.f16.f16.f32", 16, F16, F32, -4, -4),
    ("m16n8k8.row.col.f32.f16.f16.f32", 8, F16, F32, -4, -4),
    ("m16n8k16.row.col.f16.f16.f16.f16", 16, F16, F16, -4, -4),
    ("m16n8k8.row.col.f16.f16.f16.f16", 8, F16, F16, -4, -4),
    ("m16n8k8.row.col.f32.tf32.tf32.f32", 8, Element::Tf32, F32, -4, -4),
    ("m16n8k4.row.col.f32.tf32.tf32.f32", 4, Element::Tf32, F32, -4, -4),
    ("m16n8k16.row.col.s32.s8.s8.s32", 16, Element::Byte, Element::Word, -128, -128),
    ("m16n8k16.row.col.s32.u8.u8.s32", 16, Element::Byte, Element::Word, 0, 0),
    ("m16n8k16.row.col.s32.s8.u8.s32", 16, Element::Byte, Element::Word, -128, 0),
    ("m16n8k16.row.col.s32.u8.s8.s32", 16, Element::Byte, Element::Word, 0, -128),
    ("m16n8k32.row.col.s32.s8.s8.s32", 32, Element::Byte, Element::Word, -128, -128),
    ("m16n8k32.row.col.s32.u8.u8.s32", 32, Element::Byte, Element::Word, 0, 0),
    ("m16n8k32.row.col.s32.s8.u8.s32", 32, Element::Byte, Element::Word, -128, 0),
    ("m16n8k32.row.col.s32.u8.s8.s32", 32, Element::Byte, Element::Word, 0, -128),
    ("m16n8k16.row.col.satfinite.s32.s8.s8.s32", 16, Element::Byte, Element::Word, -128, -128),
    ("m16n8k32.row.col.satfinite.s32.u8.u8.s32", 32, Element::Byte, Element::Word, 0, 0),
];

/// Registers of a lane, from a function of row and column: A (16 x k), B (k x 8), C (16 x 8).
fn fragment(
    kind: char,
    k: usize,
    element: Element,
    lane: usize,
    at: impl Fn(usize, usize) -> i64,
) -> Vec<u32> {
    let (group, within, n) = (lane / 4, lane % 4, 4 / element.bytes());
    let count = match kind {
        'a' => 16 * k / 32 / n,
        'b' => 8 * k / 32 / n,
        _ => 4 / n,
    };
    let word = |register: usize| {
        (0..n).fold(0, |word, i| {
            let value = match kind {
                'a' => at(group + 8 * (register % 2), within * n + i + register / 2 * 4 * n),
                'b' => at(within * n + i + register * 4 * n, group),
                // Two columns a lane, in one register or two.
                _ => at(group + 8 * (register * n / 2), 2 * within + (register * n + i) % 2),
            };
            word | element.bits(value) << (8 * element.bytes() * i)
        })
    };
    (0..count).map(word).collect()
}

#[test]
fn products_of_matrices() {
    let mut random = Random(5);
    for (name, k, element, sum, least_a, least_b) in SHAPES {
        let range = if matches!(element, Element::Byte) { 256 } else { 9 };
        for _ in 0..20 {
            let mut matrix = |rows: usize, columns: usize, least: i64| -> Vec<Vec<i64>> {
                let mut value = || least + random.below(range) as i64;
                (0..rows).map(|_| (0..columns).map(|_| value()).collect()).collect()
            };
            let (a, b, c) = (matrix(16, k, least_a), matrix(k, 8, least_b), matrix(16, 8, -4));
            let d = |row: usize, column: usize| {
                c[row][column] + (0..k).map(|i| a[row][i] * b[i][column]).sum::<i64>()
            };
            let mut input = Vec::new();
            let mut want = Vec::new();
            let mut counts = (0, 0, 0);
            for lane in 0..32 {
                let pa = fragment('a', k, element, lane, |row, column| a[row][column]);
                let pb = fragment('b', k, element, lane, |row, column| b[row][column]);
                let pc = fragment('c', k, sum, lane, |row, column| c[row][column]);
                counts = (pa.len(), pb.len(), pc.len());
                input.extend([pa, pb, pc].concat());
                want.extend(fragment('c', k, sum, lane, d));
            }
            assert_eq!(product(name, counts, &input), want, "{name}: {a:?} {b:?} {c:?}");
        }
    }
}

/// Runs one `mma`: each lane's registers lie one behind the other.
fn product(name: &str, (na, nb, nc): (usize, usize, usize), input: &[u32]) -> Vec<u32> {
    let total = na + nb + nc;
    let list = |from: usize, count: usize| {
        (from..from + count).map(|register| format!("%r{register}")).collect::<Vec<_>>().join(", ")
    };
    let mut ptx = format!(
        "{HEAD}.visible .entry main(.param .u64 in, .param .u64 out)\n{{\n.reg .b32 %r<40>;\n.reg .b64 %l<4>;\n\
         ld.param.u64 %l0, [in];\nld.param.u64 %l1, [out];\nmov.u32 %r30, %tid.x;\n\
         mad.wide.u32 %l0, %r30, {}, %l0;\nmad.wide.u32 %l1, %r30, {}, %l1;\n",
        4 * total,
        4 * nc
    );
    for register in 0..total {
        ptx += &format!("ld.global.b32 %r{register}, [%l0+{}];\n", 4 * register);
    }
    let (a, b, c, d) = (list(0, na), list(na, nb), list(na + nb, nc), list(31, nc));
    ptx += &format!("mma.sync.aligned.{name} {{{d}}}, {{{a}}}, {{{b}}}, {{{c}}};\n");
    for register in 0..nc {
        ptx += &format!("st.global.b32 [%l1+{}], %r{};\n", 4 * register, 31 + register);
    }
    ptx += "ret;\n}\n";
    let device = Device::new();
    let image = device.load(&ptx);
    let (from, to) = (device.upload_words(input), device.upload_words(&vec![0; 32 * nc]));
    let report = device.run(&image, "main", 1, 32, &[from, to], &plain());
    assert!(report.is_none(), "{name}: {}", report.unwrap());
    device.download_words(to, 32 * nc)
}

/// 64 rows of 8 halves: element (row, column) of matrix m is 256 m + 8 row + column; rows lie in a mixed order.
#[test]
fn loads_and_stores_of_matrices() {
    for count in [1usize, 2, 4] {
        for trans in ["", ".trans"] {
            let list = (0..count).map(|m| format!("%r{}", 10 + m)).collect::<Vec<_>>().join(", ");
            let stores: String =
                (0..count).map(|m| format!("st.global.b32 [%l1+{}], %r{};\n", 4 * m, 10 + m)).collect();
            let values: String = (0..count)
                .map(|m| {
                    format!(
                        "mad.lo.u32 %r{}, %r1, 2, {};\nmad.lo.u32 %r{0}, %r{0}, 65537, 65536;\n",
                        10 + m,
                        256 * m
                    )
                })
                .collect();
            // Lane l gives the address of row 8 m + r of matrix m = l / 8, r = l % 8, at place 5 l mod 32.
            let head = format!(
                "{HEAD}.visible .entry main(.param .u64 out)\n{{\n.reg .b32 %r<20>;\n.reg .b16 %h<4>;\n.reg .b64 %l<4>;\n\
                 .shared .align 16 .b8 box[512];\nld.param.u64 %l0, [out];\nmov.u32 %r1, %tid.x;\n\
                 mul.lo.u32 %r2, %r1, 5;\nand.b32 %r2, %r2, 31;\nmov.u32 %r3, box;\nmad.lo.u32 %r3, %r2, 16, %r3;\n\
                 shr.u32 %r4, %r1, 3;\nand.b32 %r5, %r1, 7;\nmul.lo.u32 %r6, %r4, 256;\nmad.lo.u32 %r6, %r5, 8, %r6;\n"
            );
            let fill: String = (0..8)
                .map(|column| {
                    format!(
                        "cvt.u16.u32 %h1, %r6;\nst.shared.u16 [%r3+{}], %h1;\nadd.u32 %r6, %r6, 1;\n",
                        2 * column
                    )
                })
                .collect();
            let load = format!(
                "{head}{fill}bar.sync 0;\nldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{list}}}, [%r3];\n\
                 mad.wide.u32 %l1, %r1, {}, %l0;\n{stores}ret;\n}}\n",
                4 * count
            );
            let words = run(&load, 32 * count);
            for (index, word) in words.iter().enumerate() {
                let (lane, m) = (index / count, index % count);
                for (i, half) in [word & 0xFFFF, word >> 16].into_iter().enumerate() {
                    let (row, column) = (lane / 4, 2 * (lane % 4) + i);
                    let (row, column) = if trans.is_empty() { (row, column) } else { (column, row) };
                    assert_eq!(
                        half as usize,
                        256 * m + 8 * row + column,
                        "ldmatrix x{count}{trans} lane {lane}"
                    );
                }
            }
            // Lane l holds 2 l and 2 l + 1 (plus 256 m): stored as rows, matrix m is the numbers in order.
            let zero: String = (0..4).map(|i| format!("st.shared.u32 [%r3+{}], 0;\n", 4 * i)).collect();
            let reads: String = (0..4)
                .map(|i| format!("ld.shared.u32 %r7, [%r3+{0}];\nst.global.u32 [%l1+{0}], %r7;\n", 4 * i))
                .collect();
            let store = format!(
                "{head}{zero}{values}bar.sync 0;\n\
                 stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r3], {{{list}}};\nbar.sync 0;\n\
                 mad.wide.u32 %l1, %r1, 16, %l0;\n{reads}ret;\n}}\n"
            );
            let words = run(&store, 128);
            for (index, word) in words.iter().enumerate() {
                let (lane, m) = (index / 4, index / 32);
                for (i, half) in [word & 0xFFFF, word >> 16].into_iter().enumerate() {
                    let (row, column) = (lane % 8, 2 * (index % 4) + i);
                    let (row, column) = if trans.is_empty() { (row, column) } else { (column, row) };
                    let want = if m < count { 256 * m + 8 * row + column } else { 0 };
                    assert_eq!(half as usize, want, "stmatrix x{count}{trans} row {lane}");
                }
            }
        }
    }
}

fn run(ptx: &str, words: usize) -> Vec<u32> {
    let device = Device::new();
    let image = device.load(ptx);
    let out = device.upload_words(&vec![0xFFFF_FFFF; words]);
    let report = device.run(&image, "main", 1, 32, &[out], &plain());
    assert!(report.is_none(), "{}\n{ptx}", report.unwrap());
    device.download_words(out, words)
}

/// Copies of 4, 8 and 16 bytes, whole, cut short by a size (the rest is zero), or left out by a predicate.
#[test]
fn asynchronous_copies() {
    for (kind, bytes) in [("ca", 4u32), ("ca", 8), ("ca", 16), ("cg", 16)] {
        for (extra, given) in [("", "whole"), (", %r6", "size"), (", %p1", "predicate")] {
            for (wait, late) in [("cp.async.wait_all", false), ("cp.async.wait_group 0", true)] {
                let ptx = format!(
                    "{HEAD}.visible .entry main(.param .u64 in, .param .u64 out)\n{{\n.reg .b32 %r<20>;\n.reg .pred %p<4>;\n\
                     .reg .b64 %l<6>;\n.shared .align 16 .b8 box[512];\nld.param.u64 %l0, [in];\nld.param.u64 %l1, [out];\n\
                     mov.u32 %r1, %tid.x;\nmad.wide.u32 %l0, %r1, 16, %l0;\nmad.wide.u32 %l1, %r1, 16, %l1;\n\
                     mov.u32 %r3, box;\nmad.lo.u32 %r3, %r1, 16, %r3;\nrem.u32 %r6, %r1, {};\n\
                     setp.lt.u32 %p1, %r1, 9;\nst.shared.v4.u32 [%r3], {{-1, -1, -1, -1}};\n\
                     cp.async.{kind}.shared.global [%r3], [%l0], {bytes}{extra};\ncp.async.commit_group;\n{wait};\n\
                     ld.shared.v4.u32 {{%r10, %r11, %r12, %r13}}, [%r3];\n\
                     st.global.v4.u32 [%l1], {{%r10, %r11, %r12, %r13}};\nret;\n}}\n",
                    bytes + 1
                );
                let device = Device::new();
                let image = device.load(&ptx);
                let input: Vec<u8> = (0..512u32).map(|i| (i * 7 + 1) as u8).collect();
                let (from, to) = (device.upload(&input), device.upload(&[0; 512]));
                let options = Options { late_copies: late, ..plain() };
                let report = device.run(&image, "main", 1, 32, &[from, to], &options);
                assert!(report.is_none(), "{}\n{ptx}", report.unwrap());
                let got = device.download(to, 512);
                for place in 0..512 {
                    let (lane, byte) = (place as u32 / 16, place as u32 % 16);
                    let limit = match given {
                        "size" => lane % (bytes + 1),
                        "predicate" if lane < 9 => 0,
                        _ => bytes,
                    };
                    let want = match byte {
                        byte if byte < limit => input[place],
                        byte if byte < bytes => 0,
                        _ => 0xFF,
                    };
                    assert_eq!(
                        got[place], want,
                        "cp.async.{kind} {bytes}{extra}, byte {byte} of lane {lane}"
                    );
                }
            }
        }
    }
}
