//! Values worth trying, and random ones.

use super::form::T;
use super::random::Random;

/// Cases that differ in one value from those of all others.
fn specials(t: T) -> Vec<u64> {
    let floats = |t: T| {
        let f = t.format();
        let (inf, one, unit) = (f.infinity(false), f.one(), 1u64 << f.mantissa);
        let mut list = vec![
            0,
            1,
            unit - 1,
            unit,
            unit + 1,
            one,
            one - 1,
            one + 1,
            one + unit / 2,
            one - unit,
            one - unit + 1,
            one + unit,
            one + unit + unit / 2,
            inf - 1,
            inf,
            inf + 1,
            inf | (unit / 2),
            f.nan(),
        ];
        // Around the ends of integer ranges, and where the distance of floats is 1/2, 1, 2.
        for power in [6, 7, 8, 14, 15, 16, 30, 31, 32, 62, 63, 64, u64::from(f.mantissa), 24, 25] {
            if power < (1 << (f.exponent - 1)) {
                let bits = one + power * unit;
                list.extend([bits - 1, bits, bits + 1]);
            }
        }
        let negative: Vec<u64> = list.iter().map(|bits| bits | f.sign()).collect();
        list.extend(negative);
        list
    };
    match t {
        T::P => vec![0, 1],
        T::Amount => {
            vec![0, 1, 2, 7, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 255, 256, 1 << 31, 0xFFFF_FFFF]
        }
        T::F16 | T::Bf16 | T::F32 | T::F64 => floats(t),
        T::F16x2 | T::Bf16x2 => floats(t).iter().map(|bits| bits | bits.rotate_left(17) << 16).collect(),
        _ => {
            let top = 1u64 << (t.bits() - 1);
            let mut list = vec![0, 1, 2, 3, 7, 10, 0x80, 0xFF, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1_0000];
            list.extend([0x00FF_FFFF, 0x0080_0000, 0xFFFF_FFFF, 0x1_0000_0000, 0x5555_5555_5555_5555]);
            list.extend([top - 1, top, top + 1, u64::MAX, u64::MAX - 1, top >> 1, (top >> 1) + 1]);
            list
        }
    }
}

fn random(t: T, random: &mut Random) -> u64 {
    let raw = random.next();
    match t {
        T::Amount => match raw >> 60 {
            0..8 => raw & 31,
            8..12 => raw & 63,
            12..14 => raw & 255,
            _ => raw & 0xFFFF_FFFF,
        },
        // Half of the floats near one, so that sums cancel and exponents meet.
        T::F16 | T::Bf16 | T::F32 | T::F64 if raw >> 63 == 0 => {
            let f = t.format();
            let near = f.one().wrapping_add(random.below(9) << f.mantissa).wrapping_sub(4 << f.mantissa);
            let low = (1u64 << f.mantissa) - 1;
            near | random.next() & low | (raw & 1) << (f.bits() - 1)
        }
        T::F16x2 | T::Bf16x2 if raw >> 63 == 0 => {
            let single = if t == T::F16x2 { T::F16 } else { T::Bf16 };
            let low = self::random(single, random) & 0xFFFF;
            low | (self::random(single, random) & 0xFFFF) << 16
        }
        // Short integers too.
        _ if raw >> 62 == 1 => random.next() >> (64 - t.bits().min(8)),
        _ => random.next(),
    }
}

/// Cases for sources of these types: specials crossed (a sample of the crossings where there are many), then random
/// values, then a special value beside random ones. Each case has a value for every source.
pub fn cases(from: &[T], count: usize, seed: u64) -> Vec<Vec<u64>> {
    let mut rng = Random(seed);
    let lists: Vec<Vec<u64>> = from.iter().map(|t| specials(*t)).collect();
    let all: usize = lists.iter().map(Vec::len).product();
    let crossed = all.min(count * 2);
    let mut cases = Vec::new();
    for index in 0..crossed {
        // All of them in order, or picked at random.
        let mut rest = if crossed == all { index as u64 } else { rng.next() };
        let mut case = Vec::new();
        for list in &lists {
            case.push(list[(rest % list.len() as u64) as usize]);
            rest = if crossed == all { rest / list.len() as u64 } else { rng.next() };
        }
        cases.push(case);
    }
    for index in 0..count {
        let mut case: Vec<u64> = from.iter().map(|t| random(*t, &mut rng)).collect();
        if index % 4 == 0 && !case.is_empty() {
            let at = rng.below(case.len() as u64) as usize;
            case[at] = lists[at][rng.below(lists[at].len() as u64) as usize];
        }
        // Equal operands are rare by chance.
        if index % 16 == 1 && case.len() > 1 {
            case[1] = case[0];
        }
        cases.push(case);
    }
    for case in &mut cases {
        for (value, t) in case.iter_mut().zip(from) {
            *value &= t.mask();
        }
    }
    cases
}
