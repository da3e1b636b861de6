//! Where the manual puts the elements of each shape, and the instruction run on plain matrices.

use emulator::numeric::tensor_core::Lanes;
use emulator::numeric::{Mma, TensorCore, mma};
use half::{bf16, f16};

/// How elements are stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Element {
    Bf16,
    F16,
    Tf32,
    F32,
    Byte,
}

impl Element {
    /// Elements a register.
    pub fn packed(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::Tf32 | Element::F32 => 1,
            Element::Byte => 4,
        }
    }
}

/// K, and the elements of A and B, and of C and D.
pub fn shape(kind: Mma) -> (usize, Element, Element) {
    match kind {
        Mma::Bf16K16 => (16, Element::Bf16, Element::F32),
        Mma::Bf16K8 => (8, Element::Bf16, Element::F32),
        Mma::F16K16 => (16, Element::F16, Element::F32),
        Mma::F16K8 => (8, Element::F16, Element::F32),
        Mma::F16K16Half => (16, Element::F16, Element::F16),
        Mma::F16K8Half => (8, Element::F16, Element::F16),
        Mma::Tf32K8 => (8, Element::Tf32, Element::F32),
        Mma::Tf32K4 => (4, Element::Tf32, Element::F32),
        Mma::Int8K16(_) => (16, Element::Byte, Element::F32),
        Mma::Int8K32(_) => (32, Element::Byte, Element::F32),
    }
}

/// Where element `i` of a lane's A fragment lies, as the manual says it for the shape: (row, column).
pub fn place_a(kind: Mma, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match kind {
        Mma::Bf16K16 | Mma::F16K16 | Mma::F16K16Half => {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            (row, thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        Mma::Bf16K8 | Mma::F16K8 | Mma::F16K8Half => {
            (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
        }
        Mma::Tf32K4 => (if i == 0 { group } else { group + 8 }, thread),
        Mma::Tf32K8 => {
            (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
        }
        Mma::Int8K16(_) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        Mma::Int8K32(_) => {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            (row, if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 })
        }
    }
}

/// Where element `i` of a lane's B fragment lies: (row, column).
pub fn place_b(kind: Mma, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match kind {
        Mma::Bf16K16 | Mma::F16K16 | Mma::F16K16Half => {
            (thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, group)
        }
        Mma::Bf16K8 | Mma::F16K8 | Mma::F16K8Half => (thread * 2 + i, group),
        Mma::Tf32K4 => (thread, group),
        Mma::Tf32K8 => (if i == 0 { thread } else { thread + 4 }, group),
        Mma::Int8K16(_) => (thread * 4 + i, group),
        Mma::Int8K32(_) => (if i < 4 { thread * 4 + i } else { thread * 4 + (i & 3) + 16 }, group),
    }
}

/// Where element `i` of a lane's C or D fragment lies: (row, column).
pub fn place_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

pub type Matrix = Vec<Vec<u32>>;

/// Matrices of element bits into fragments, and back.
pub fn fragment(
    matrix: &Matrix,
    element: Element,
    elements: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<Lanes> {
    let packed = element.packed();
    let mut registers = vec![[0; 32]; elements / packed];
    for lane in 0..32 {
        for i in 0..elements {
            let (row, column) = place(lane, i);
            registers[i / packed][lane] |= matrix[row][column] << (32 / packed * (i % packed));
        }
    }
    registers
}

pub fn unfragment(registers: &[Lanes], element: Element) -> Matrix {
    let (packed, mut matrix) = (element.packed(), vec![vec![0; 8]; 16]);
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = place_c(lane, i);
            let word = registers[i / packed][lane] >> (32 / packed * (i % packed));
            matrix[row][column] = if packed == 2 { word & 0xFFFF } else { word };
        }
    }
    matrix
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
    pub fn avx512(
        kind: Mma,
        mode: TensorCore,
        a: &[Lanes],
        b: &[Lanes],
        c: &[Lanes],
        d: &mut [Lanes],
    ) -> bool {
        mma(kind, mode, a, b, c, d)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(kind: Mma, mode: TensorCore, a: &[Lanes], b: &[Lanes], c: &[Lanes], d: &mut [Lanes]) -> bool {
        mma(kind, mode, a, b, c, d)
    }
}

/// The instruction on matrices, compiled for every vector unit that this machine has: the same bits from all.
pub fn run(kind: Mma, mode: TensorCore, a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let (k, element, accumulator) = shape(kind);
    let a = fragment(a, element, k / 2, |lane, i| place_a(kind, lane, i));
    let b = fragment(b, element, k / 4, |lane, i| place_b(kind, lane, i));
    let c = fragment(c, accumulator, 4, place_c);
    assert_eq!((a.len(), b.len(), c.len()), kind.registers());
    let mut d = vec![[0; 32]; c.len()];
    assert!(mma(kind, mode, &a, &b, &c, &mut d));
    #[cfg(target_arch = "x86_64")]
    {
        let mut again = vec![[0; 32]; c.len()];
        if is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the features have just been found.
            assert!(unsafe { wide::avx512(kind, mode, &a, &b, &c, &mut again) });
            assert_eq!(d, again, "{kind:?} {mode:?}");
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features have just been found.
            assert!(unsafe { wide::avx2(kind, mode, &a, &b, &c, &mut again) });
            assert_eq!(d, again, "{kind:?} {mode:?}");
        }
    }
    unfragment(&d, accumulator)
}

/// A small generator of test bits (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn matrix(&mut self, rows: usize, columns: usize, element: impl Fn(u64) -> u32) -> Matrix {
        (0..rows).map(|_| (0..columns).map(|_| element(self.next())).collect()).collect()
    }
}

pub fn encode(element: Element, value: f32) -> u32 {
    match element {
        Element::Bf16 => bf16::from_f32(value).to_bits() as u32,
        Element::F16 => f16::from_f32(value).to_bits() as u32,
        _ => value.to_bits(),
    }
}

pub fn decode(element: Element, bits: u32) -> f32 {
    match element {
        Element::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Element::F16 => f16::from_bits(bits as u16).to_f32(),
        Element::Tf32 => f32::from_bits(bits >> 13 << 13),
        _ => f32::from_bits(bits),
    }
}
