//! Instructions that the emulator does not have: each is reported by name when it is reached, never skipped.

use super::check::entry;
use super::device::{Device, HEAD, plain};
use super::form::Table;
use emulator::report::Kind;

const UNKNOWN: &[&str] = &[
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r0, %r1, %r2, %r3}, %l1, %l1, 1, 1, 1, 0, 0",
    "wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {%r0, %r1, %r2, %r3}, %l1, %l1, 1, 1, 1, 0, 0",
    "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%r0, %r1, %r2, %r3}, %l1, %l1, 1, 1, 1",
    "cp.async.bulk.tensor.4d.im2col.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%l1, {%r1, %r2, %r3, %r3}], [%r3], {%h1, %h2}",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r0], [%l1, {%r1, %r2}], [%r3], %h1",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%l1], [%r0], 16",
    "cp.async.mbarrier.arrive.shared.b64 [%r0]",
    "mbarrier.pending_count.b64 %r0, %l1",
    "fence.proxy.tensormap::generic.release.gpu",
    "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r0], 32",
    "tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%l1]",
    "tex.2d.v4.f32.f32 {%r0, %r1, %r2, %r3}, [%l1, {%r0, %r1}]",
    "suld.b.1d.b32.trap %r0, [%l1, {%r0}]",
    "sust.b.1d.b32.trap [%l1, {%r0}], %r1",
    "vadd.s32.s32.s32 %r0, %r1, %r2",
    "vset.s32.s32.eq %r0, %r1, %r2",
    "dp2a.lo.s32.s32 %r0, %r1, %r2, %r3",
    "mad.hi.sat.s32 %r0, %r1, %r2, %r3",
    "mad.hi.cc.s32 %r0, %r1, %r2, %r3",
    "mad24.hi.s32 %r0, %r1, %r2, %r3",
    "slct.ftz.u32.f32 %r0, %r1, %r2, %r3",
    "fns.b32 %r0, %r1, %r2, %r3",
    "szext.wrap.s32 %r0, %r1, %r2",
    "cvt.rn.satfinite.e4m3x2.f32 %h0, %r1, %r2",
    "cvt.rn.f16x2.e4m3x2 %r0, %h1",
    "max.f32x2 %l1, %l1, %l1",
    "multimem.red.relaxed.sys.global.add.u32 [%l1], %r0",
    "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7}, [%l1], %r0",
    "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%l1, %l2}, {%l1}, {%l1}, {%l1, %l2}",
    "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r0, %r1, %r2, %r3}, {%r0, %r1, %r2, %r3}, {%r0, %r1}, {%r0, %r1, %r2, %r3}",
    "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0, %r1}, [%r2]",
    "barrier.cluster.arrive.aligned",
    "mapa.shared::cluster.u32 %r0, %r1, 0",
    "stackrestore.u64 %l1",
    "frobnicate.b32 %r0, %r1",
];

#[test]
fn unknown_instructions_are_named() {
    for text in UNKNOWN {
        let ptx = format!(
            "{HEAD}.visible .entry main(.param .u64 out)\n{{\n.reg .pred %p<4>;\n.reg .b16 %h<4>;\n.reg .b32 %r<9>;\n\
             .reg .b64 %l<4>;\n\nmov.u32 %r0, 0;\n{text};\nret;\n}}\n"
        );
        let line = ptx.lines().position(|line| line.starts_with(text)).unwrap() + 1;
        let device = Device::new();
        let image = device.load(&ptx);
        let report = device.run(&image, "main", 1, 32, &[0], &plain());
        let report = report.unwrap_or_else(|| panic!("{text} runs"));
        assert_eq!(report.kind, Kind::UnknownInstruction, "{text}: {report}");
        let opcode = text.split(' ').next().unwrap();
        assert!(report.instruction.starts_with(&format!("PTX line {line}: {opcode}")), "{text}: {report}");
    }
}

/// Unknown instructions that are not reached do no harm.
#[test]
fn unknown_instructions_may_stand_where_nobody_comes() {
    let ptx = format!(
        "{HEAD}.visible .entry main(.param .u64 out)\n{{\n.reg .pred %p<2>;\n.reg .b32 %r<2>;\nmov.u32 %r0, 5;\n\
         setp.eq.u32 %p0, %r0, 6;\n@%p0 frobnicate.b32 %r0, %r1;\nbra OUT;\nfrobnicate.b32 %r0, %r1;\nOUT: ret;\n}}\n"
    );
    let device = Device::new();
    let image = device.load(&ptx);
    assert_eq!(device.run(&image, "main", 1, 32, &[0], &plain()), None);
}

/// No form of the tables is unknown: their entries load, and the tables are as long as the manual is.
pub fn known(tables: &[Table]) {
    let device = Device::new();
    let mut count = 0;
    for table in tables {
        let mut ptx = HEAD.to_owned();
        for (number, form) in table.forms.iter().enumerate() {
            ptx += &entry(number, form);
        }
        let image = device.load(&ptx);
        let (input, output) = (device.upload(&[1; 1024]), device.upload(&[0; 512]));
        for (number, form) in table.forms.iter().enumerate() {
            let report = device.run(&image, &format!("k{number}"), 1, 32, &[input, output, 32], &plain());
            assert_eq!(report, None, "{}", form.opcode);
            count += 1;
        }
    }
    assert!(count > 3500, "{count} forms");
}
