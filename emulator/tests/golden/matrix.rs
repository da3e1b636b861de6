//! `ldmatrix` and `stmatrix`: rows in a mixed order, 4 KiB of shared memory as they lay before or after.

use super::device::{Device, HEAD, plain};
use super::recording::Recording;

/// The registers of a case such as `ldmatrix.x4.trans`, and the instruction's name.
fn registers(case: &str) -> (usize, String) {
    let (instruction, rest) = case.split_once('.').unwrap();
    let count: usize = rest[1..2].parse().unwrap();
    (count, format!("{instruction}.sync.aligned.m8n8.{rest}.shared.b16"))
}

/// Lane l copies words l, l + 32, ... of 1024 between the two; `%l0` and `%r0` are the lane's first places.
fn copies(line: &str) -> String {
    (0..32).map(|i| line.replace("$", &(128 * i).to_string())).collect()
}

fn entry(case: &str) -> String {
    let (count, instruction) = registers(case);
    let list = (0..count).map(|i| format!("%r{}", 10 + i)).collect::<Vec<_>>().join(", ");
    let head = format!(
        "{HEAD}.visible .entry main(.param .u64 source, .param .u64 offset, .param .u64 out)\n{{\n\
         .reg .b32 %r<20>;\n.reg .b64 %l<4>;\n.shared .align 1024 .b8 box[4096];\n\
         ld.param.u64 %l0, [source];\nld.param.u64 %l1, [offset];\nld.param.u64 %l2, [out];\nmov.u32 %r1, %tid.x;\n\
         mad.wide.u32 %l0, %r1, 4, %l0;\nmad.wide.u32 %l1, %r1, 4, %l1;\nmad.wide.u32 %l2, %r1, 4, %l2;\n\
         mov.u32 %r2, box;\nmad.lo.u32 %r0, %r1, 4, %r2;\nld.global.u32 %r3, [%l1];\nadd.u32 %r2, %r2, %r3;\n"
    );
    let each = |line: &str| -> String {
        (0..count)
            .map(|i| line.replace('$', &(128 * i).to_string()).replace('#', &(10 + i).to_string()))
            .collect()
    };
    let body = if case.starts_with("ld") {
        copies("ld.global.u32 %r4, [%l0+$];\nst.shared.u32 [%r0+$], %r4;\n")
            + &format!("bar.warp.sync -1;\n{instruction} {{{list}}}, [%r2];\n")
            + &each("st.global.u32 [%l2+$], %r#;\n")
    } else {
        copies("st.shared.u32 [%r0+$], 0xdeadbeef;\n")
            + &each("ld.global.u32 %r#, [%l0+$];\n")
            + &format!("bar.warp.sync -1;\n{instruction} [%r2], {{{list}}};\nbar.warp.sync -1;\n")
            + &copies("ld.shared.u32 %r4, [%r0+$];\nst.global.u32 [%l2+$], %r4;\n")
    };
    head + &body + "ret;\n}\n"
}

#[test]
fn matrices_move_as_on_hardware() {
    for file in ["ldmatrix", "stmatrix"] {
        let recording = Recording::open(file);
        let cases = recording.cases();
        assert_eq!(cases.len(), 6, "x1, x2, x4, each as it is and transposed");
        for case in cases {
            let device = Device::new();
            let image = device.load(&entry(&case));
            let operand = |name: &str| device.upload_words(&recording.words(&format!("{case}/{name}")));
            let want = recording.words(&format!("{case}/out"));
            let out = device.upload_words(&vec![0; want.len()]);
            let parameters = [operand("source"), operand("offset"), out];
            let report = device.run(&image, "main", 1, 32, &parameters, &plain());
            assert!(report.is_none(), "{case}: {}", report.unwrap());
            assert_eq!(device.download_words(out, want.len()), want, "{case}");
        }
    }
}
