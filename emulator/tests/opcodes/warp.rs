//! Instructions of the lanes of a warp: PTX ISA 9.7.9 (shfl), 9.7.13 (vote, match, redux, activemask, elect). Every lane
//! has its operands and a member mask; the oracle sees all of them.

use super::device::{Device, HEAD, plain};
use super::random::Random;

/// Operands of a lane: three words, a predicate, the member mask.
type Lanes = [[u32; 5]; 32];

/// What a lane gets: a word and a predicate; None: not said.
type Result = (Option<u32>, Option<bool>);

/// Text with `%r0`, `%r1`, `%r2`, `%p0`, `%r4` (mask) as operands and `%r5`, `%p1` as results.
type Form = (&'static str, fn(&Lanes, usize) -> Result);

fn members(lanes: &Lanes, lane: usize) -> impl Iterator<Item = &[u32; 5]> {
    let mask = lanes[lane][4];
    (0..32).filter(move |other| mask >> other & 1 == 1).map(|other| &lanes[other])
}

/// The manual's code of `shfl`.
fn shuffle(lanes: &Lanes, lane: usize, mode: &str) -> Result {
    let [_, b, c, _, mask] = lanes[lane];
    let (bval, cval, segment, me) = ((b & 31) as i64, (c & 31) as i64, (c >> 8 & 31) as i64, lane as i64);
    let max_lane = (me & segment) | (cval & !segment & 31);
    let min_lane = me & segment;
    let (j, inside) = match mode {
        "up" => (me - bval, me - bval >= max_lane),
        "down" => (me + bval, me + bval <= max_lane),
        "bfly" => (me ^ bval, me ^ bval <= max_lane),
        _ => (min_lane | (bval & !segment & 31), min_lane | (bval & !segment & 31) <= max_lane),
    };
    let inside = if mode == "idx" { j <= max_lane } else { inside };
    let j = if inside { j } else { me } as usize;
    ((mask >> j & 1 == 1).then(|| lanes[j][0]), Some(inside))
}

fn same_value(lanes: &Lanes, lane: usize, wide: bool) -> u32 {
    let mask = lanes[lane][4];
    let value = |lane: usize| (lanes[lane][0], if wide { lanes[lane][1] } else { 0 });
    (0..32).filter(|&o| mask >> o & 1 == 1 && value(o) == value(lane)).fold(0, |set, o| set | 1 << o)
}

fn all_same(lanes: &Lanes, lane: usize, wide: bool) -> Result {
    let mask = lanes[lane][4];
    let all = same_value(lanes, lane, wide) == mask;
    (Some(if all { mask } else { 0 }), Some(all))
}

fn fold(lanes: &Lanes, lane: usize, step: fn(u32, u32) -> u32) -> Result {
    (members(lanes, lane).map(|lane| lane[0]).reduce(step), None)
}

const FORMS: [Form; 25] = [
    ("shfl.sync.up.b32 %r5|%p1, %r0, %r1, %r2, %r4", |l, i| shuffle(l, i, "up")),
    ("shfl.sync.down.b32 %r5|%p1, %r0, %r1, %r2, %r4", |l, i| shuffle(l, i, "down")),
    ("shfl.sync.bfly.b32 %r5|%p1, %r0, %r1, %r2, %r4", |l, i| shuffle(l, i, "bfly")),
    ("shfl.sync.idx.b32 %r5|%p1, %r0, %r1, %r2, %r4", |l, i| shuffle(l, i, "idx")),
    ("shfl.sync.idx.b32 %r5, %r0, %r1, %r2, %r4", |l, i| (shuffle(l, i, "idx").0, None)),
    ("vote.sync.all.pred %p1, %p0, %r4", |l, i| (None, Some(members(l, i).all(|m| m[3] == 1)))),
    ("vote.sync.any.pred %p1, %p0, %r4", |l, i| (None, Some(members(l, i).any(|m| m[3] == 1)))),
    ("vote.sync.uni.pred %p1, %p0, %r4", |l, i| (None, Some(members(l, i).all(|m| m[3] == l[i][3])))),
    ("vote.sync.all.pred %p1, !%p0, %r4", |l, i| (None, Some(members(l, i).all(|m| m[3] == 0)))),
    ("vote.sync.ballot.b32 %r5, %p0, %r4", |l, i| (Some(ballot(l, i)), None)),
    ("vote.sync.ballot.b32 %r5, !%p0, %r4", |l, i| (Some(!ballot(l, i) & l[i][4]), None)),
    ("match.any.sync.b32 %r5, %r0, %r4", |l, i| (Some(same_value(l, i, false)), None)),
    ("mov.b64 %l3, {%r0, %r1}; match.any.sync.b64 %r5, %l3, %r4", |l, i| {
        (Some(same_value(l, i, true)), None)
    }),
    ("match.all.sync.b32 %r5|%p1, %r0, %r4", |l, i| all_same(l, i, false)),
    ("mov.b64 %l3, {%r0, %r1}; match.all.sync.b64 %r5|%p1, %l3, %r4", |l, i| all_same(l, i, true)),
    ("redux.sync.add.u32 %r5, %r0, %r4", |l, i| fold(l, i, u32::wrapping_add)),
    ("redux.sync.add.s32 %r5, %r0, %r4", |l, i| fold(l, i, u32::wrapping_add)),
    ("redux.sync.min.u32 %r5, %r0, %r4", |l, i| fold(l, i, u32::min)),
    ("redux.sync.max.u32 %r5, %r0, %r4", |l, i| fold(l, i, u32::max)),
    ("redux.sync.min.s32 %r5, %r0, %r4", |l, i| fold(l, i, |a, b| (a as i32).min(b as i32) as u32)),
    ("redux.sync.max.s32 %r5, %r0, %r4", |l, i| fold(l, i, |a, b| (a as i32).max(b as i32) as u32)),
    ("redux.sync.and.b32 %r5, %r0, %r4", |l, i| fold(l, i, |a, b| a & b)),
    ("redux.sync.or.b32 %r5, %r0, %r4", |l, i| fold(l, i, |a, b| a | b)),
    ("redux.sync.xor.b32 %r5, %r0, %r4", |l, i| fold(l, i, |a, b| a ^ b)),
    // Which lane is elected is not said; that it is one of the members, and the same for all, is tested below.
    ("activemask.b32 %r5", |_, _| (Some(u32::MAX), None)),
];

fn ballot(lanes: &Lanes, lane: usize) -> u32 {
    let mask = lanes[lane][4];
    (0..32)
        .filter(|&other| mask >> other & 1 == 1 && lanes[other][3] == 1)
        .fold(0, |set, lane| set | 1 << lane)
}

/// Operands of a warp: few different values, so that some are equal; masks that part the warp in two, or none.
fn operands(random: &mut Random) -> Lanes {
    let parting = if random.below(3) == 0 { u32::MAX } else { random.next() as u32 };
    let few = random.below(3) == 0;
    let kind = random.below(4);
    std::array::from_fn(|lane| {
        let width = 32 >> random.below(6);
        let value = if kind == 0 {
            7
        } else if few {
            random.below(4) as u32
        } else {
            random.next() as u32
        };
        // Clamps of 0 (as for up) and 31, with segments; sometimes any.
        let clamp = match random.below(5) {
            0 => random.next() as u32,
            1 | 2 => (32 - width) << 8,
            _ => (32 - width) << 8 | 31,
        };
        let second = if kind == 0 { 1 } else { random.below(34) as u32 };
        let mask = if parting >> lane & 1 == 1 { parting } else { !parting };
        [value, second, clamp, u32::from(random.below(if few { 20 } else { 2 }) == 0), mask]
    })
}

fn kernel(text: &str) -> String {
    format!(
        "{HEAD}.visible .entry main(.param .u64 in, .param .u64 out)\n{{\n.reg .pred %p<4>;\n.reg .b32 %r<10>;\n\
         .reg .b64 %l<4>;\nld.param.u64 %l0, [in];\nld.param.u64 %l1, [out];\nmov.u32 %r6, %ctaid.x;\n\
         mov.u32 %r7, %tid.x;\nmad.lo.u32 %r7, %r6, 32, %r7;\nmad.wide.u32 %l0, %r7, 20, %l0;\n\
         mad.wide.u32 %l1, %r7, 8, %l1;\nld.global.u32 %r0, [%l0];\nld.global.u32 %r1, [%l0+4];\n\
         ld.global.u32 %r2, [%l0+8];\nld.global.u32 %r3, [%l0+12];\nld.global.u32 %r4, [%l0+16];\n\
         setp.ne.u32 %p0, %r3, 0;\nsetp.ne.u32 %p1, 0, 0;\nmov.u32 %r5, 0;\n{text};\nst.global.u32 [%l1], %r5;\n\
         selp.u32 %r6, 1, 0, %p1;\nst.global.u32 [%l1+4], %r6;\nret;\n}}\n"
    )
}

/// Runs a text on many warps; yields operands and results.
fn run(text: &str, warps: usize, seed: u64) -> Vec<(Lanes, Vec<u32>)> {
    let mut random = Random(seed);
    let device = Device::new();
    let image = device.load(&kernel(text));
    let all: Vec<Lanes> = (0..warps).map(|_| operands(&mut random)).collect();
    let input = device.upload_words(&all.iter().flatten().flatten().copied().collect::<Vec<u32>>());
    let output = device.upload_words(&vec![0; warps * 64]);
    let report = device.run(&image, "main", warps as u32, 32, &[input, output], &plain());
    assert!(report.is_none(), "{text}: {}", report.unwrap());
    let words = device.download_words(output, warps * 64);
    all.into_iter().zip(words.chunks(64).map(<[u32]>::to_vec)).collect()
}

#[test]
fn lanes_of_a_warp() {
    for (number, (text, oracle)) in FORMS.iter().enumerate() {
        for (lanes, got) in run(text, 150, number as u64) {
            for lane in 0..32 {
                let (word, predicate) = oracle(&lanes, lane);
                let about = || format!("{text}: lane {lane} of {lanes:x?}");
                if let Some(word) = word {
                    assert_eq!(got[2 * lane], word, "{}", about());
                }
                if let Some(predicate) = predicate {
                    assert_eq!(got[2 * lane + 1], u32::from(predicate), "{}", about());
                }
            }
        }
    }
}

#[test]
fn one_lane_is_elected() {
    for (lanes, got) in run("elect.sync %r5|%p1, %r4", 100, 1) {
        for lane in 0..32 {
            let mask = lanes[lane][4];
            let leader = got[2 * lane];
            assert!(mask >> leader & 1 == 1, "leader {leader} of {mask:#x}");
            assert_eq!(got[2 * lane + 1] == 1, leader as usize == lane, "lane {lane}, leader {leader}");
        }
        let leaders: Vec<usize> = (0..32).filter(|lane| got[2 * lane + 1] == 1).collect();
        let parts = if lanes[0][4] == u32::MAX { 1 } else { 2 };
        assert_eq!(leaders.len(), parts, "{leaders:?}");
    }
}
