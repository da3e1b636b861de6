//! Synchronisation that is wrong: what the report says, and that it names the instruction.

use super::device::numbered;
use super::synchronisation::{kernel, outcomes};
use emulator::report::Kind;

/// The kernel must fail this way, at the line that ends in `// here` (where there is one), under every schedule.
fn fails(shared: &str, body: &str, grid: u32, block: u32, kind: Kind) {
    let ptx = kernel(shared, body);
    let line = ptx.lines().position(|line| line.ends_with("// here")).map(|line| line + 1);
    for (about, _, report) in outcomes(&ptx, grid, block, 256) {
        let Some(report) = report else { panic!("{about}: no report\n{}", numbered(&ptx)) };
        assert_eq!(report.kind, kind, "{about}: {report}\n{}", numbered(&ptx));
        if let Some(line) = line {
            let found = report.instruction.starts_with(&format!("PTX line {line}:"));
            assert!(found, "{about}: {report}\nis not about line {line}\n{}", numbered(&ptx));
        }
    }
}

#[test]
fn a_shuffle_names_lanes_that_go_another_way() {
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        @%p1 bra OUT;
        shfl.sync.bfly.b32 %r4, %r2, 1, 31, 0xFFFFFFFF; // here
        OUT:";
    fails("", body, 1, 32, Kind::DivergentWarp);
    // Not fatal where the lanes come later by another way to the same instruction; two instructions never meet.
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        @%p1 bra OTHER;
        shfl.sync.bfly.b32 %r4, %r2, 1, 31, 0xFFFFFFFF;
        bra OUT;
        OTHER: shfl.sync.bfly.b32 %r4, %r2, 2, 31, 0xFFFFFFFF;
        OUT:";
    fails("", body, 1, 64, Kind::DivergentWarp);
}

#[test]
fn a_shuffle_does_not_name_its_own_lane() {
    let body = "shfl.sync.bfly.b32 %r4, %r2, 1, 31, 0xFFFF; // here";
    fails("", body, 1, 32, Kind::DivergentWarp);
}

#[test]
fn a_vote_names_lanes_that_exited() {
    let body = "
        setp.ge.u32 %p1, %r2, 30;
        @%p1 exit;
        vote.sync.all.pred %p2, %p1, 0xFFFFFFFF; // here";
    fails("", body, 1, 32, Kind::DivergentWarp);
}

#[test]
fn a_warp_barrier_that_some_lanes_never_reach() {
    let body = "
        setp.eq.u32 %p1, %r2, 3;
        @%p1 bra OUT;
        bar.warp.sync 0xFFFFFFFF; // here
        OUT:";
    fails("", body, 1, 32, Kind::DivergentWarp);
}

#[test]
fn matrices_need_whole_warps() {
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        mov.u32 %r4, box;
        @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r4]; // here";
    fails(".shared .align 16 .b8 box[512];", body, 1, 32, Kind::DivergentWarp);
}

#[test]
fn a_barrier_in_one_branch() {
    // Half of the warp waits at a barrier, the other half at the next one.
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        @%p1 bra OTHER;
        bar.sync 0;
        bra OUT;
        OTHER: bar.sync 0;
        OUT:";
    fails("", body, 1, 32, Kind::DivergentBarrier);
    // A guard that differs within a warp.
    let body = "
        setp.lt.u32 %p1, %r2, 16;
        @%p1 bar.sync 0; // here";
    fails("", body, 1, 32, Kind::DivergentBarrier);
    // Two warps at two different barriers.
    let body = "
        setp.lt.u32 %p1, %r0, 32;
        @%p1 bra OTHER;
        bar.sync 0;
        bra OUT;
        OTHER: bar.sync 0;
        OUT:";
    fails("", body, 1, 64, Kind::DivergentBarrier);
}

#[test]
fn a_barrier_that_counts_too_many() {
    let body = "
        setp.lt.u32 %p1, %r0, 32;
        @!%p1 bra OUT;
        bar.sync 1, 64; // here
        OUT:";
    fails("", body, 1, 64, Kind::DivergentBarrier);
}

#[test]
fn a_flag_that_nobody_sets() {
    let body = "
        WAIT: ld.volatile.global.u32 %r4, [%l0];
        setp.eq.u32 %p1, %r4, 0;
        @%p1 bra WAIT;";
    fails("", body, 3, 64, Kind::Deadlock);
    // A lock that is never given back.
    let body = "
        AGAIN: atom.global.cas.b32 %r4, [%l0], 0, 1;
        setp.ne.u32 %p1, %r4, 0;
        @%p1 bra AGAIN;";
    fails("", body, 1, 32, Kind::Deadlock);
}

#[test]
fn loops_without_end() {
    let start = std::time::Instant::now();
    fails("", "HERE: bra HERE; // here", 2, 32, Kind::Deadlock);
    // Registers that take the same values again.
    let body = "
        HERE: add.u32 %r0, %r0, 1;
        and.b32 %r0, %r0, 255;
        bra HERE;";
    fails("", body, 1, 64, Kind::Deadlock);
    // One warp goes round, the other waits for it.
    let body = "
        setp.lt.u32 %p1, %r0, 32;
        HERE: @%p1 bra HERE; // here
        bar.sync 0;";
    fails("", body, 1, 64, Kind::Deadlock);
    assert!(start.elapsed().as_secs() < 20, "{:?} to see that a loop has no end", start.elapsed());
}

#[test]
fn traps() {
    let body = "
        setp.eq.u32 %p1, %r0, 37;
        @%p1 trap; // here";
    fails("", body, 1, 64, Kind::Trap);
}
