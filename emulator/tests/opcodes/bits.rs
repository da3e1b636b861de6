//! Logic, shifts and bit fields, bit by bit as the manual writes them: PTX ISA 9.7.1.14 on, 9.7.8.

use super::form::{T, Table, Want};
use super::integer::bit_types;

fn bit(value: u64, at: i64) -> u64 {
    if (0..64).contains(&at) { value >> at & 1 } else { 0 }
}

/// A value of so many bits, each given by its number.
fn bits(count: u32, f: impl Fn(i64) -> u64) -> u64 {
    (0..count).fold(0, |value, at| value | (f(i64::from(at)) & 1) << at)
}

pub fn forms(table: &mut Table) {
    logic(table);
    shifts(table);
    fields(table);
    permutations(table);
    for a in [T::U32, T::S32] {
        for b in [T::U32, T::S32] {
            let opcode = format!("dp4a.{}.{}", a.name(), b.name());
            table.add(opcode, T::B32, &[T::B32; 3], move |v| {
                let byte = |t: T, word: u64, at: u32| {
                    let byte = (word >> (8 * at)) as u8;
                    if t.signed() { i128::from(byte as i8) } else { i128::from(byte) }
                };
                let sum: i128 = (0..4).map(|at| byte(a, v[0], at) * byte(b, v[1], at)).sum();
                Want::Bits(T::B32.wrap(sum + i128::from(v[2])))
            });
        }
    }
}

fn logic(table: &mut Table) {
    for t in bit_types() {
        let n = t.name();
        table.add(format!("and.{n}"), t, &[t; 2], |v| Want::Bits(v[0] & v[1]));
        table.add(format!("or.{n}"), t, &[t; 2], |v| Want::Bits(v[0] | v[1]));
        table.add(format!("xor.{n}"), t, &[t; 2], |v| Want::Bits(v[0] ^ v[1]));
        table.add(format!("not.{n}"), t, &[t], move |v| Want::Bits(!v[0] & t.mask()));
        table.add(format!("cnot.{n}"), t, &[t], |v| Want::Bits(u64::from(v[0] == 0)));
    }
    for which in [0x00u32, 0x01, 0x1A, 0x96, 0xE8, 0x80, 0xCA, 0xFE, 0x3C, 0xFF] {
        let text = format!("lop3.b32 $d, $a, $b, $c, {which:#x}");
        table.text(format!("lop3.b32 {which:#x}"), &text, T::B32, &[T::B32; 3], move |v| {
            // The table's index has a in bit 2, b in bit 1, c in bit 0.
            Want::Bits(bits(32, |at| {
                u64::from(which) >> (bit(v[0], at) << 2 | bit(v[1], at) << 1 | bit(v[2], at))
            }))
        });
    }
}

fn shifts(table: &mut Table) {
    for t in bit_types() {
        let size = i64::from(t.bits());
        // "Shift amounts greater than the register width N are clamped to N."
        table.add(format!("shl.{}", t.name()), t, &[t, T::Amount], move |v| {
            let by = (v[1] as i64).min(size);
            Want::Bits(bits(t.bits(), |at| bit(v[0], at - by)))
        });
        let names: &[T] = match t {
            T::B16 => &[T::B16, T::U16, T::S16],
            T::B32 => &[T::B32, T::U32, T::S32],
            _ => &[T::B64, T::U64, T::S64],
        };
        for &t in names {
            table.add(format!("shr.{}", t.name()), t, &[t, T::Amount], move |v| {
                let by = (v[1] as i64).min(size);
                let fill = if t.signed() { bit(v[0], size - 1) } else { 0 };
                Want::Bits(bits(t.bits(), |at| if at + by < size { bit(v[0], at + by) } else { fill }))
            });
        }
    }
    for left in [true, false] {
        for clamp in [true, false] {
            let opcode =
                format!("shf.{}.{}.b32", if left { 'l' } else { 'r' }, if clamp { "clamp" } else { "wrap" });
            table.add(opcode, T::B32, &[T::B32, T::B32, T::Amount], move |v| {
                let by = if clamp { v[2].min(32) } else { v[2] & 31 };
                let both = v[1] << 32 | v[0];
                // Left gives the upper word of the shifted pair, right the lower one.
                let start = if left { 32 - by as i64 } else { by as i64 };
                Want::Bits(bits(32, |at| bit(both, start + at)))
            });
        }
    }
}

fn fields(table: &mut Table) {
    for t in [T::B32, T::B64] {
        let (n, size) = (t.name(), i64::from(t.bits()));
        table.add(format!("popc.{n}"), T::U32, &[t], move |v| {
            Want::Bits((0..size).map(|at| bit(v[0], at)).sum())
        });
        table.add(format!("clz.{n}"), T::U32, &[t], move |v| {
            Want::Bits((0..size).rev().take_while(|at| bit(v[0], *at) == 0).count() as u64)
        });
        table.add(format!("brev.{n}"), t, &[t], move |v| {
            Want::Bits(bits(t.bits(), |at| bit(v[0], size - 1 - at)))
        });
        table.add(format!("bfi.{n}"), t, &[t, t, T::Amount, T::Amount], move |v| {
            // pos = c & 0xff; len = d & 0xff; f = b; for i in 0..len, pos + i <= msb: f[pos + i] = a[i]
            let (pos, len) = ((v[2] & 255) as i64, (v[3] & 255) as i64);
            Want::Bits(bits(t.bits(), |at| {
                if at >= pos && at - pos < len { bit(v[0], at - pos) } else { bit(v[1], at) }
            }))
        });
    }
    for t in [T::U32, T::S32, T::U64, T::S64] {
        let (n, size) = (t.name(), i64::from(t.bits()));
        table.add(format!("bfe.{n}"), t, &[t, T::Amount, T::Amount], move |v| {
            let (pos, len) = ((v[1] & 255) as i64, (v[2] & 255) as i64);
            let sign = if !t.signed() || len == 0 { 0 } else { bit(v[0], (pos + len - 1).min(size - 1)) };
            Want::Bits(bits(
                t.bits(),
                |at| if at < len && pos + at < size { bit(v[0], pos + at) } else { sign },
            ))
        });
        for shift in [false, true] {
            let opcode = format!("bfind.{}{n}", if shift { "shiftamt." } else { "" });
            table.add(opcode, T::U32, &[t], move |v| {
                // The highest bit that differs from the sign.
                let sign = if t.signed() { bit(v[0], size - 1) } else { 0 };
                Want::Bits(match (0..size).rev().find(|at| bit(v[0], *at) != sign) {
                    None => 0xFFFF_FFFF,
                    Some(at) if shift => (size - 1 - at) as u64,
                    Some(at) => at as u64,
                })
            });
        }
    }
    for clamp in [true, false] {
        let opcode = format!("bmsk.{}.b32", if clamp { "clamp" } else { "wrap" });
        table.add(opcode, T::B32, &[T::Amount; 2], move |v| {
            let part = |x: u64| if clamp { x.min(32) } else { x & 31 } as i64;
            let (start, len) = (part(v[0]), part(v[1]));
            Want::Bits(bits(32, |at| u64::from(at >= start && at < start + len)))
        });
    }
}

fn permutations(table: &mut Table) {
    let byte = |v: &[u64], index: u64| (v[1] << 32 | v[0]) >> (8 * index) & 0xFF;
    let word = |b: [u64; 4]| Want::Bits(b[0] | b[1] << 8 | b[2] << 16 | b[3] << 24);
    table.add("prmt.b32", T::B32, &[T::B32; 3], move |v| {
        word([0, 1, 2, 3].map(|at| {
            let pick = v[2] >> (4 * at) & 15;
            let picked = byte(v, pick & 7);
            match pick & 8 {
                0 => picked,
                // The sign of the byte, eight times.
                _ => 0xFF * (picked >> 7),
            }
        }))
    });
    // The manual's table of modes: bytes from the lowest, for c & 3 of 0, 1, 2, 3.
    let modes: [(&str, [[u64; 4]; 4]); 6] = [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ];
    for (mode, picks) in modes {
        table.add(format!("prmt.b32.{mode}"), T::B32, &[T::B32; 3], move |v| {
            word(picks[(v[2] & 3) as usize].map(|pick| byte(v, pick)))
        });
    }
}
