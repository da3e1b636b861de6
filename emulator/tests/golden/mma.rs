//! `mma.sync`, fragments register by register.

use super::device::{Device, HEAD, plain};
use super::recording::Recording;
use emulator::exec::{Options, TensorCore};

/// The instruction, registers of A and of B.
const SHAPES: [(&str, usize, usize); 6] = [
    ("m16n8k16.bf16", 4, 2),
    ("m16n8k8.bf16", 2, 1),
    ("m16n8k16.f16", 4, 2),
    ("m16n8k8.f16", 2, 1),
    ("m16n8k8.tf32", 4, 2),
    ("m16n8k4.tf32", 2, 1),
];

/// One warp a tile: register `i` of tile `t` and lane `l` is word `(t * registers + i) * 32 + l`.
fn entry(case: &str, na: usize, nb: usize) -> String {
    let (shape, element) = case.split_once('.').unwrap();
    let list = |from: usize, count: usize| {
        (from..from + count).map(|register| format!("%r{register}")).collect::<Vec<_>>().join(", ")
    };
    let mut ptx = format!(
        "{HEAD}.visible .entry main(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d)\n{{\n\
         .reg .b32 %r<24>;\n.reg .b64 %l<8>;\nmov.u32 %r20, %ctaid.x;\nmov.u32 %r21, %tid.x;\n"
    );
    for (place, (name, count)) in [("a", na), ("b", nb), ("c", 4), ("d", 4)].into_iter().enumerate() {
        ptx += &format!(
            "mul.lo.u32 %r22, %r20, {};\nadd.u32 %r22, %r22, %r21;\nld.param.u64 %l{place}, [{name}];\n\
             mad.wide.u32 %l{place}, %r22, 4, %l{place};\n",
            32 * count
        );
    }
    for (place, (first, count)) in [(0, na), (na, nb), (na + nb, 4)].into_iter().enumerate() {
        for i in 0..count {
            ptx += &format!("ld.global.b32 %r{}, [%l{place}+{}];\n", first + i, 128 * i);
        }
    }
    let (a, b, c, d) = (list(0, na), list(na, nb), list(na + nb, 4), list(12, 4));
    ptx += &format!(
        "mma.sync.aligned.{shape}.row.col.f32.{element}.{element}.f32 {{{d}}}, {{{a}}}, {{{b}}}, {{{c}}};\n"
    );
    for i in 0..4 {
        ptx += &format!("st.global.b32 [%l3+{}], %r{};\n", 128 * i, 12 + i);
    }
    ptx + "ret;\n}\n"
}

/// For each shape how many words differ from the recorded ones, and the first of them in words.
fn differences(tensor_core: TensorCore) -> Vec<(usize, String)> {
    let recording = Recording::open("mma");
    let mut all = Vec::new();
    for (case, na, nb) in SHAPES {
        let device = Device::new();
        let image = device.load(&entry(case, na, nb));
        let want = recording.words(&format!("{case}/d"));
        let operand = |name: &str| device.upload_words(&recording.words(&format!("{case}/{name}")));
        let d = device.upload_words(&vec![0; want.len()]);
        let parameters = [operand("a"), operand("b"), operand("c"), d];
        let options = Options { tensor_core, ..plain() };
        let report = device.run(&image, "main", want.len() as u32 / 128, 32, &parameters, &options);
        assert!(report.is_none(), "{case}: {}", report.unwrap());
        let got = device.download_words(d, want.len());
        let differ: Vec<usize> = (0..want.len()).filter(|&i| got[i] != want[i]).collect();
        let first = differ.first().map_or(String::new(), |&first| {
            format!("{case}: word {first} of {}: {:#010x}, not {:#010x}", want.len(), got[first], want[first])
        });
        all.push((differ.len(), first));
    }
    all
}

#[test]
fn products_are_the_hardwares_bits() {
    for (count, first) in differences(TensorCore::Hopper) {
        assert_eq!(count, 0, "{first}");
    }
}

/// The recordings tell the models apart: what another one gives is seen in every shape.
#[test]
fn other_models_have_other_bits() {
    for model in [TensorCore::Ampere, TensorCore::Float32] {
        for ((count, _), shape) in differences(model).iter().zip(SHAPES) {
            assert!(*count > 0, "{model:?} gives what hardware gave for {}", shape.0);
        }
    }
}
