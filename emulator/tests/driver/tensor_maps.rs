//! A tensor map goes from the driver's function through a launch's parameters into a kernel, whose box comes back.

use crate::setup::*;
use emulator::driver::launch::cuLaunchKernel;
use emulator::driver::tensor_map::{Encoded, cuTensorMapEncodeTiled};
use std::ffi::c_void;

/// Lane i writes word i of a box of 4 x 8 words, whose corner is (2, 6).
const TILE: &str = "
.version 8.8
.target sm_90a
.address_size 64
.visible .entry tile(.param .align 64 .b8 map[128], .param .u64 out)
{
    .reg .b32 %r<8>;
    .reg .b64 %l<4>;
    .reg .pred %p<3>;
    .shared .align 128 .b8 box[128];
    .shared .align 8 .b64 barrier;
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, box;
    mov.u32 %r2, barrier;
    mov.b64 %l0, map;
    cvta.param.u64 %l0, %l0;
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra WAIT;
    mbarrier.init.shared::cta.b64 [%r2], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 128;
    mov.u32 %r3, 2;
    mov.u32 %r4, 6;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%l0, {%r3, %r4}], [%r2];
WAIT:
    bar.sync 0;
AGAIN:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r2], 0;
    @!%p1 bra AGAIN;
    mad.lo.u32 %r5, %r0, 4, %r1;
    ld.shared.u32 %r6, [%r5];
    ld.param.u64 %l1, [out];
    mad.wide.u32 %l1, %r0, 4, %l1;
    st.global.u32 [%l1], %r6;
    ret;
}
";

#[test]
fn a_map_goes_from_the_host_into_a_kernel() {
    let _device = device();
    // A 10 x 16 matrix whose element (row, column) is 100 row + column.
    let matrix: Vec<u32> = (0..160).map(|i| 100 * (i / 16) + i % 16).collect();
    let (from, mut to) = (upload(&matrix), upload(&[0; 32]));
    let mut map = Encoded([0; 128]);
    const UINT32: u32 = 2;
    let code = unsafe {
        cuTensorMapEncodeTiled(
            Some(&mut map),
            UINT32,
            2,
            from,
            [16, 10].as_ptr(),
            [64].as_ptr(),
            [4, 8].as_ptr(),
            [1, 1].as_ptr(),
            0,
            0,
            0,
            0,
        )
    };
    ok(code);
    let kernel = function(load(TILE), "tile");
    let mut parameters: [*mut c_void; 2] = [(&raw mut map).cast(), (&raw mut to).cast()];
    let (parameters, none) = (parameters.as_mut_ptr(), std::ptr::null_mut());
    ok(unsafe { cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, 0, parameters, none) });
    synchronize(0);
    // Rows 10 to 13 are not there.
    let want: Vec<u32> = (0..32).map(|i| if i < 16 { 100 * (6 + i / 4) + 2 + i % 4 } else { 0 }).collect();
    assert_eq!(peek(to, 32), want);
}
