//! Special registers (PTX ISA 10), constant variables, parameters of every width.

use super::device::{Device, HEAD, plain};
use emulator::exec::{Launch, launch};

/// A special register's value: of a thread's index in x, y, z, and the block's.
type Register = (&'static str, fn([u32; 3], [u32; 3]) -> u32);

const GRID: [u32; 3] = [3, 2, 2];
const BLOCK: [u32; 3] = [5, 4, 3];

fn linear(thread: [u32; 3]) -> u32 {
    thread[0] + BLOCK[0] * (thread[1] + BLOCK[1] * thread[2])
}

const REGISTERS: [Register; 20] = [
    ("%tid.x", |t, _| t[0]),
    ("%tid.y", |t, _| t[1]),
    ("%tid.z", |t, _| t[2]),
    ("%ctaid.x", |_, b| b[0]),
    ("%ctaid.y", |_, b| b[1]),
    ("%ctaid.z", |_, b| b[2]),
    ("%ntid.x", |_, _| BLOCK[0]),
    ("%ntid.y", |_, _| BLOCK[1]),
    ("%ntid.z", |_, _| BLOCK[2]),
    ("%nctaid.x", |_, _| GRID[0]),
    ("%nctaid.y", |_, _| GRID[1]),
    ("%nctaid.z", |_, _| GRID[2]),
    ("%laneid", |t, _| linear(t) % 32),
    ("%warpid", |t, _| linear(t) / 32),
    ("%nwarpid", |_, _| 2),
    ("%lanemask_eq", |t, _| 1 << (linear(t) % 32)),
    ("%lanemask_lt", |t, _| (1 << (linear(t) % 32)) - 1),
    ("%lanemask_le", |t, _| u32::MAX >> (31 - linear(t) % 32)),
    ("%lanemask_gt", |t, _| !(u32::MAX >> (31 - linear(t) % 32))),
    ("%lanemask_ge", |t, _| u32::MAX << (linear(t) % 32)),
];

#[test]
fn special_registers() {
    for (name, value) in REGISTERS {
        let ptx = format!(
            "{HEAD}.visible .entry main(.param .u64 out)\n{{\n.reg .b32 %r<9>;\n.reg .b64 %l<3>;\nld.param.u64 %l0, [out];\n\
             mov.u32 %r0, %ctaid.z;\nmov.u32 %r1, %ctaid.y;\nmad.lo.u32 %r0, %r0, {}, %r1;\nmov.u32 %r1, %ctaid.x;\n\
             mad.lo.u32 %r0, %r0, {}, %r1;\nmov.u32 %r1, %tid.z;\nmad.lo.u32 %r0, %r0, {}, %r1;\nmov.u32 %r1, %tid.y;\n\
             mad.lo.u32 %r0, %r0, {}, %r1;\nmov.u32 %r1, %tid.x;\nmad.lo.u32 %r0, %r0, {}, %r1;\n\
             mad.wide.u32 %l1, %r0, 4, %l0;\nmov.u32 %r2, {name};\nst.global.u32 [%l1], %r2;\nret;\n}}\n",
            GRID[1], GRID[0], BLOCK[2], BLOCK[1], BLOCK[0]
        );
        let device = Device::new();
        let image = device.load(&ptx);
        let out = device.upload_words(&[0; 720]);
        let what = Launch {
            kernel: image.kernel("main").unwrap(),
            grid: GRID,
            block: BLOCK,
            dynamic_shared: 0,
            parameters: &out.to_le_bytes(),
        };
        assert_eq!(launch(&device.memory, &what, &plain()).report, None);
        for (index, got) in device.download_words(out, 720).into_iter().enumerate() {
            let index = index as u32;
            let (thread, block) = (index % 60, index / 60);
            let thread = [thread % 5, thread / 5 % 4, thread / 20];
            let block = [block % 3, block / 3 % 2, block / 6];
            assert_eq!(got, value(thread, block), "{name} of {thread:?} in {block:?}");
        }
    }
}

/// Constant variables and parameters, read in every width at every place.
#[test]
fn constants_and_parameters() {
    let bytes: Vec<u8> = (0..16).map(|i: u8| i.wrapping_mul(29).wrapping_add(0x71)).collect();
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let device = Device::new();
    for (cell, width, signed) in [
        ("u8", 1usize, false),
        ("s8", 1, true),
        ("u16", 2, false),
        ("s16", 2, true),
        ("u32", 4, false),
        ("s32", 4, true),
        ("b64", 8, false),
    ] {
        for place in (0..16).step_by(width) {
            for (space, name) in [("const", "table"), ("param", "block")] {
                let ptx = format!(
                    "{HEAD}.const .align 16 .b8 table[16] = {{{list}}};\n\
                     .visible .entry main(.param .align 16 .b8 block[16], .param .u64 out)\n{{\n.reg .b64 %l<3>;\n\
                     ld.param.u64 %l0, [out];\nld.{space}.{cell} %l1, [{name}+{place}];\nst.global.u64 [%l0], %l1;\nret;\n}}\n"
                );
                let image = device.load(&ptx);
                let out = device.upload(&[0; 8]);
                let low = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let high = u64::from_le_bytes(bytes[8..].try_into().unwrap());
                // The launcher's parameters are words of 64 bits.
                let report = device.run(&image, "main", 1, 1, &[low, high, out], &plain());
                assert_eq!(report, None, "{ptx}");
                let mut want = [0; 8];
                want[..width].copy_from_slice(&bytes[place..place + width]);
                if signed && bytes[place + width - 1] >= 0x80 {
                    want[width..].fill(0xFF);
                }
                assert_eq!(device.download(out, 8), want, "ld.{space}.{cell} at {place}");
                device.memory.free(out).unwrap();
            }
        }
    }
}
