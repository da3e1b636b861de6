//! Threads that wait for one another in ways that end on a device with independent thread scheduling.

use super::device::{Device, HEAD, numbered, plain};
use emulator::exec::Options;
use emulator::report::Report;

/// A kernel with one parameter: an array of words, from which every thread finds its own at `%l1` and the start at `%l0`;
/// `%r0` is the thread's number in its block, `%r1` the block's, `%r2` the lane, `%r3` the number in the grid.
pub fn kernel(shared: &str, body: &str) -> String {
    format!(
        "{HEAD}.visible .entry main(.param .u64 out)\n{{\n.reg .pred %p<10>;\n.reg .b32 %r<30>;\n.reg .b64 %l<10>;\n\
         {shared}\nld.param.u64 %l0, [out];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %laneid;\n\
         mov.u32 %r3, %ntid.x;\nmad.lo.u32 %r3, %r1, %r3, %r0;\nmul.wide.u32 %l1, %r3, 4;\nadd.u64 %l1, %l1, %l0;\n\
         {body}\nret;\n}}\n"
    )
}

/// Runs a kernel on zeros, in order and under random schedules; yields how, the words after it, and the report.
pub fn outcomes(ptx: &str, grid: u32, block: u32, words: usize) -> Vec<(String, Vec<u32>, Option<Report>)> {
    let device = Device::new();
    let image = device.load(ptx);
    let mut outcomes = Vec::new();
    for (seed, workers) in [(None, 1), (Some(1), 1), (Some(2), 1), (Some(3), 2)] {
        let out = device.upload_words(&vec![0; words]);
        let options = Options { seed, workers, ..plain() };
        let report = device.run(&image, "main", grid, block, &[out], &options);
        let about = format!("schedule {seed:?}, {workers} workers");
        outcomes.push((about, device.download_words(out, words), report));
    }
    outcomes
}

/// As `outcomes`; no fault may be reported, and all words must be what the oracle says.
fn check(shared: &str, body: &str, grid: u32, block: u32, words: usize, want: impl Fn(usize) -> u32) {
    let ptx = kernel(shared, body);
    for (about, got, report) in outcomes(&ptx, grid, block, words) {
        if let Some(report) = report {
            panic!("{about}: {report}\n{}", numbered(&ptx));
        }
        let want: Vec<u32> = (0..words).map(&want).collect();
        assert_eq!(got, want, "{about}\n{}", numbered(&ptx));
    }
}

#[test]
fn lanes_take_a_lock_in_turn() {
    // Word 0 is the lock, word 1 what it guards.
    let body = "
        AGAIN: atom.global.cas.b32 %r4, [%l0], 0, 1;
        setp.ne.u32 %p1, %r4, 0;
        @%p1 bra AGAIN;
        membar.gl;
        ld.volatile.global.u32 %r5, [%l0+4];
        add.u32 %r5, %r5, 1;
        st.volatile.global.u32 [%l0+4], %r5;
        membar.gl;
        atom.global.exch.b32 %r4, [%l0], 0;";
    check("", body, 3, 64, 2, |word| [0, 192][word]);
}

#[test]
fn lanes_wait_in_a_loop_for_the_lock_of_another() {
    // The owner leaves the loop through its middle.
    let body = "
        mov.u32 %r6, 0;
        AGAIN: atom.global.cas.b32 %r4, [%l0], 0, 1;
        setp.ne.u32 %p1, %r4, 0;
        @%p1 bra NEXT;
        ld.volatile.global.u32 %r5, [%l0+4];
        add.u32 %r5, %r5, 1;
        st.volatile.global.u32 [%l0+4], %r5;
        mov.u32 %r6, 1;
        membar.gl;
        atom.global.exch.b32 %r4, [%l0], 0;
        NEXT: setp.eq.u32 %p2, %r6, 0;
        @%p2 bra AGAIN;";
    check("", body, 2, 40, 2, |word| [0, 80][word]);
}

#[test]
fn a_warp_waits_for_a_flag_of_another() {
    let body = "
        setp.eq.u32 %p1, %r0, 0;
        mov.u32 %r4, 0;
        @%p1 st.volatile.shared.u32 [flag], %r4;
        bar.sync 0;
        setp.lt.u32 %p2, %r0, 32;
        @%p2 bra CONSUMER;
        setp.eq.u32 %p3, %r0, 63;
        mov.u32 %r5, 1234;
        @%p3 st.volatile.shared.u32 [data], %r5;
        membar.cta;
        mov.u32 %r5, 1;
        @%p3 st.volatile.shared.u32 [flag], %r5;
        bra DONE;
        CONSUMER: ld.volatile.shared.u32 %r6, [flag];
        setp.eq.u32 %p4, %r6, 0;
        @%p4 bra CONSUMER;
        membar.cta;
        ld.volatile.shared.u32 %r7, [data];
        st.global.u32 [%l1], %r7;
        DONE:";
    check(".shared .u32 flag;\n.shared .u32 data;", body, 1, 64, 32, |_| 1234);
}

#[test]
fn a_lane_waits_for_a_lane_of_its_warp() {
    let body = "
        setp.eq.u32 %p1, %r2, 5;
        @%p1 bra PRODUCER;
        WAIT: ld.volatile.global.u32 %r4, [%l0+128];
        setp.eq.u32 %p2, %r4, 0;
        @%p2 bra WAIT;
        st.global.u32 [%l1], %r4;
        bra DONE;
        PRODUCER: mov.u32 %r5, 77;
        st.volatile.global.u32 [%l0+128], %r5;
        DONE:";
    check("", body, 1, 32, 33, |word| if word == 5 { 0 } else { 77 });
}

#[test]
fn a_block_waits_for_a_later_block() {
    let body = "
        setp.eq.u32 %p1, %r1, 3;
        @%p1 bra PRODUCER;
        WAIT: ld.volatile.global.u32 %r4, [%l0+512];
        setp.eq.u32 %p2, %r4, 0;
        @%p2 bra WAIT;
        st.global.u32 [%l1], %r4;
        bra DONE;
        PRODUCER: mov.u32 %r5, 9;
        st.volatile.global.u32 [%l0+512], %r5;
        DONE:";
    check("", body, 4, 32, 129, |word| if (96..128).contains(&word) { 0 } else { 9 });
}

#[test]
fn blocks_meet_at_a_barrier_of_the_grid() {
    // Each thread reads what the next block wrote; word 1024 counts the blocks.
    let body = "
        add.u32 %r4, %r3, 1;
        st.global.u32 [%l1], %r4;
        membar.gl;
        bar.sync 0;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra MEET;
        atom.global.add.u32 %r5, [%l0+4096], 1;
        mov.u32 %r6, %nctaid.x;
        WAIT: ld.volatile.global.u32 %r5, [%l0+4096];
        setp.lt.u32 %p2, %r5, %r6;
        @%p2 bra WAIT;
        membar.gl;
        MEET: bar.sync 0;
        mov.u32 %r7, %ntid.x;
        add.u32 %r8, %r3, %r7;
        rem.u32 %r8, %r8, 512;
        mul.wide.u32 %l2, %r8, 4;
        add.u64 %l2, %l2, %l0;
        ld.global.u32 %r9, [%l2];
        st.global.u32 [%l1+2048], %r9;";
    check("", body, 8, 64, 1025, |word| match word {
        0..512 => word as u32 + 1,
        512..1024 => (word as u32 - 512 + 64) % 512 + 1,
        _ => 8,
    });
}

#[test]
fn barriers_do_not_wait_for_threads_that_exited() {
    // Warp 1 and half of warp 2 leave; the others exchange values through shared memory.
    let body = "
        setp.ge.u32 %p1, %r0, 32;
        setp.lt.and.u32 %p1, %r0, 80, %p1;
        @%p1 exit;
        shl.b32 %r4, %r0, 2;
        mov.u32 %r5, box;
        add.u32 %r4, %r4, %r5;
        st.shared.u32 [%r4], %r0;
        bar.sync 0;
        sub.u32 %r6, 127, %r0;
        setp.ge.u32 %p2, %r6, 32;
        setp.lt.and.u32 %p2, %r6, 80, %p2;
        mov.u32 %r7, 500;
        shl.b32 %r6, %r6, 2;
        add.u32 %r6, %r6, %r5;
        @!%p2 ld.shared.u32 %r7, [%r6];
        bar.sync 0;
        st.global.u32 [%l1], %r7;";
    let gone = |thread: usize| (32..80).contains(&thread);
    check(".shared .u32 box[128];", body, 2, 128, 256, |word| match word % 128 {
        thread if gone(thread) => 0,
        thread if gone(127 - thread) => 500,
        thread => 127 - thread as u32,
    });
}

#[test]
fn producers_arrive_and_consumers_wait() {
    // Warp 0 fills, warp 1 reads, four rounds over one buffer: barrier 1 says full, barrier 2 empty.
    let body = "
        mov.u32 %r5, box;
        shl.b32 %r4, %r2, 2;
        add.u32 %r5, %r5, %r4;
        mov.u32 %r6, 0;
        mov.u32 %r9, 0;
        setp.lt.u32 %p1, %r0, 32;
        @!%p1 bra CONSUMER;
        PRODUCE: mad.lo.u32 %r7, %r6, 100, %r2;
        st.shared.u32 [%r5], %r7;
        bar.arrive 1, 64;
        bar.sync 2, 64;
        add.u32 %r6, %r6, 1;
        setp.lt.u32 %p2, %r6, 4;
        @%p2 bra PRODUCE;
        bra DONE;
        CONSUMER: bar.sync 1, 64;
        xor.b32 %r8, %r4, 4;
        mov.u32 %r7, box;
        add.u32 %r7, %r7, %r8;
        ld.shared.u32 %r8, [%r7];
        add.u32 %r9, %r9, %r8;
        bar.arrive 2, 64;
        add.u32 %r6, %r6, 1;
        setp.lt.u32 %p2, %r6, 4;
        @%p2 bra CONSUMER;
        st.global.u32 [%l1], %r9;
        DONE:";
    check(".shared .u32 box[32];", body, 1, 64, 64, |word| match word {
        0..32 => 0,
        thread => 600 + 4 * ((thread as u32 - 32) ^ 1),
    });
}

#[test]
fn barriers_reduce() {
    // Threads with a multiple of 3 say yes; exited threads say nothing.
    let body = "
        setp.eq.u32 %p9, %r0, 95;
        @%p9 exit;
        rem.u32 %r4, %r0, 3;
        setp.eq.u32 %p1, %r4, 0;
        bar.red.popc.u32 %r5, 0, %p1;
        bar.red.and.pred %p2, 0, %p1;
        bar.red.or.pred %p3, 0, %p1;
        setp.lt.u32 %p4, %r0, 1000;
        bar.red.and.pred %p5, 0, %p4;
        bar.red.or.pred %p6, 0, !%p4;
        bar.red.popc.u32 %r6, 1, 96, !%p1;
        selp.u32 %r7, 1000, 0, %p2;
        add.u32 %r5, %r5, %r7;
        selp.u32 %r7, 2000, 0, %p3;
        add.u32 %r5, %r5, %r7;
        selp.u32 %r7, 4000, 0, %p5;
        add.u32 %r5, %r5, %r7;
        selp.u32 %r7, 8000, 0, %p6;
        add.u32 %r5, %r5, %r7;
        mad.lo.u32 %r5, %r6, 100000, %r5;
        st.global.u32 [%l1], %r5;";
    check("", body, 1, 96, 96, |word| if word == 95 { 0 } else { 6_300_000 + 32 + 2000 + 4000 });
}

#[test]
fn parts_of_a_warp_meet_apart() {
    // Even and odd lanes go different ways; in each way lanes read what the next lane of their way wrote.
    let body = "
        mov.u32 %r5, box;
        shl.b32 %r4, %r2, 2;
        add.u32 %r5, %r5, %r4;
        and.b32 %r6, %r2, 1;
        setp.eq.u32 %p1, %r6, 1;
        add.u32 %r7, %r2, 2;
        and.b32 %r7, %r7, 31;
        shl.b32 %r7, %r7, 2;
        mov.u32 %r8, box;
        add.u32 %r7, %r7, %r8;
        @%p1 bra ODD;
        mul.lo.u32 %r9, %r2, 10;
        st.shared.u32 [%r5], %r9;
        bar.warp.sync 0x55555555;
        ld.shared.u32 %r10, [%r7];
        bra JOIN;
        ODD: mul.lo.u32 %r9, %r2, 1000;
        st.shared.u32 [%r5], %r9;
        bar.warp.sync 0xAAAAAAAA;
        ld.shared.u32 %r10, [%r7];
        JOIN: bar.warp.sync -1;
        st.global.u32 [%l1], %r10;";
    check(".shared .u32 box[32];", body, 1, 32, 32, |lane| {
        (lane as u32 + 2) % 32 * if lane % 2 == 1 { 1000 } else { 10 }
    });
}

#[test]
fn shuffles_of_half_warps() {
    // One instruction, two masks.
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        selp.b32 %r4, 0xFFFF, 0xFFFF0000, %p1;
        mul.lo.u32 %r5, %r2, 3;
        shfl.sync.bfly.b32 %r6, %r5, 1, 31, %r4;
        st.global.u32 [%l1], %r6;";
    check("", body, 1, 32, 32, |lane| 3 * (lane as u32 ^ 1));
    // Two ways, each with the mask of its lanes.
    let body = "
        setp.lt.u32 %p1, %r2, 8;
        @%p1 bra FEW;
        shfl.sync.down.b32 %r6, %r2, 1, 31, 0xFFFFFF00;
        bra JOIN;
        FEW: shfl.sync.up.b32 %r6, %r2, 1, 0, 0xFF;
        add.u32 %r6, %r6, 100;
        JOIN: st.global.u32 [%l1], %r6;";
    check("", body, 1, 32, 32, |lane| match lane as u32 {
        0 => 100,
        lane @ 1..8 => 100 + lane - 1,
        31 => 31,
        lane => lane + 1,
    });
    // Lanes that come to the same shuffle in different rounds of a loop do not wait for those that never come.
    let body = "
        mov.u32 %r4, 0;
        setp.ge.u32 %p1, %r2, 4;
        @%p1 bra DONE;
        mov.u32 %r5, %r2;
        ROUND: shfl.sync.idx.b32 %r6, %r2, 3, 31, 0xF;
        add.u32 %r4, %r4, %r6;
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p2, %r4, 9;
        @%p2 bra ROUND;
        DONE: st.global.u32 [%l1], %r4;";
    check("", body, 1, 32, 32, |lane| if lane < 4 { 9 } else { 0 });
}
