//! `wgmma` of bf16: raw images of shared memory, descriptors with five pairs of offsets in four swizzles, A and B transposed or
//! not. Offsets that make no sensible matrix say the more about which bytes an instruction reads.

use super::device::{Device, HEAD, plain};
use super::recording::Recording;
use emulator::exec::{Options, TensorCore};

/// Bytes of the image; B's matrix begins at 16384.
const IMAGE: usize = 49152;

/// An entry that puts the image into shared memory, multiplies and writes the accumulators: register i of thread t is word
/// 128 i + t. The parameter `bits` is what both descriptors have above the address.
fn entry(n: usize, transposed: [bool; 2]) -> String {
    let [a, b] = transposed.map(u32::from);
    let list = (0..n / 2).map(|i| format!("%f{i}")).collect::<Vec<_>>().join(", ");
    let clear: String = (0..n / 2).map(|i| format!("mov.f32 %f{i}, 0f00000000;\n")).collect();
    let stores: String = (0..n / 2).map(|i| format!("st.global.f32 [%l1+{}], %f{i};\n", 512 * i)).collect();
    format!(
        "{HEAD}.visible .entry main(.param .u64 image, .param .u64 out, .param .u64 bits)\n{{\n\
         .reg .b32 %r<8>;\n.reg .b64 %l<8>;\n.reg .f32 %f<{}>;\n.reg .pred %p<2>;\n\
         .shared .align 1024 .b8 box[{IMAGE}];\nld.param.u64 %l0, [image];\nld.param.u64 %l1, [out];\n\
         ld.param.u64 %l2, [bits];\nmov.u32 %r0, %tid.x;\nmad.wide.u32 %l0, %r0, 4, %l0;\n\
         mad.wide.u32 %l1, %r0, 4, %l1;\nmov.u32 %r1, box;\nmad.lo.u32 %r2, %r0, 4, %r1;\nmov.u32 %r3, 0;\n\
         COPY:\nld.global.b32 %r4, [%l0];\nst.shared.b32 [%r2], %r4;\nadd.u64 %l0, %l0, 512;\nadd.u32 %r2, %r2, 512;\n\
         add.u32 %r3, %r3, 512;\nsetp.lt.u32 %p0, %r3, {IMAGE};\n@%p0 bra COPY;\n\
         fence.proxy.async.shared::cta;\nbar.sync 0;\n{clear}\
         shr.u32 %r5, %r1, 4;\ncvt.u64.u32 %l3, %r5;\nor.b64 %l4, %l2, %l3;\nadd.u64 %l5, %l4, 1024;\n\
         wgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{list}}}, %l4, %l5, 0, 1, 1, {a}, {b};\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n{stores}ret;\n}}\n",
        n / 2
    )
}

/// A case's numbers: N, transpositions, swizzle, leading and stride byte offsets.
fn numbers(case: &str) -> Option<(usize, [bool; 2], u64, u64, u64)> {
    let value = |part: Option<&str>, name: &str| part?.strip_prefix(name)?.parse::<u64>().ok();
    let mut parts = case.split('.');
    let n = value(parts.next(), "n")?;
    let (a, b) = (value(parts.next(), "ta")?, value(parts.next(), "tb")?);
    let swizzle = value(parts.next(), "swizzle")?;
    Some((n as usize, [a == 1, b == 1], swizzle, value(parts.next(), "lbo")?, value(parts.next(), "sbo")?))
}

/// Cases whose bits differ, of how many.
fn differences(tensor_core: TensorCore, largest: usize) -> (Vec<String>, usize) {
    let recording = Recording::open("wgmma");
    let (mut differ, mut count) = (Vec::new(), 0);
    for case in recording.cases() {
        let Some((n, transposed, swizzle, leading, stride)) = numbers(&case) else { continue };
        if n > largest {
            continue;
        }
        let family = case.split(".swizzle").next().unwrap();
        let device = Device::new();
        let image = device.load(&entry(n, transposed));
        let (a, out) =
            (device.upload(recording.bytes(&format!("{family}/image"))), device.upload(&vec![0; 256 * n]));
        let bits = leading >> 4 << 16 | stride >> 4 << 32 | swizzle << 62;
        let options = Options { tensor_core, ..plain() };
        let report = device.run(&image, "main", 1, 128, &[a, out, bits], &options);
        assert!(report.is_none(), "{case}: {}", report.unwrap());
        if device.download(out, 256 * n) != recording.bytes(&format!("{case}/d")) {
            differ.push(case);
        }
        count += 1;
    }
    (differ, count)
}

#[test]
fn products_from_shared_memory_are_the_hardwares_bits() {
    let (differ, count) = differences(TensorCore::Hopper, 256);
    assert!(differ.is_empty(), "{} of {count} differ: {differ:?}", differ.len());
    assert_eq!(count, 2 * 80 + 2 * 16);
}

/// The recordings tell the models apart.
#[test]
fn other_models_have_other_bits_here_too() {
    for model in [TensorCore::Ampere, TensorCore::Float32] {
        let (differ, count) = differences(model, 8);
        assert_eq!(differ.len(), count, "{model:?}");
    }
}
