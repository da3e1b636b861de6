//! The orders of nine tiles among which a jigsaw puzzle is solved: far from each other in Hamming distance.
//!
//! Noroozi and Favaro 2016, algorithm 1, in its max-min form: each next permutation is one whose distance to the nearest of
//! those already chosen is largest. The reference ports maximise the mean distance instead, which leaves permutations that
//! differ in two places alone.

use crate::tiles::TILES;
use engine::random::Purpose;
use engine::{Error, ErrorKind, Philox, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Orders of nine tiles.
pub const ALL: usize = 362_880;

/// Some permutations of 0 .. 9, all different. Entry p of one is the tile that comes to place p.
///
/// The identity may be among them: it is an order like any other.
#[derive(Debug, Clone, PartialEq)]
pub struct Permutations {
    /// The permutations, in the order in which they were chosen: the class of a puzzle is the number of its row.
    pub rows: Vec<[u8; TILES]>,
    /// Places in which the two most similar differ.
    pub minimum: usize,
    /// Places in which two differ, on average.
    pub mean: f64,
}

/// Four bits a place: the permutation as a number.
fn packed(row: &[u8; TILES]) -> u64 {
    row.iter().rev().fold(0, |word, &tile| word << 4 | u64::from(tile))
}

/// Places in which two packed permutations differ.
fn distance(a: u64, b: u64) -> u8 {
    let x = a ^ b;
    let x = x | x >> 2;
    let x = (x | x >> 1) & 0x1_1111_1111;
    x.count_ones() as u8
}

/// All permutations in lexicographic order.
fn all() -> Vec<[u8; TILES]> {
    let mut rows = Vec::with_capacity(ALL);
    let mut row = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    loop {
        rows.push(row);
        // The last place that can grow, and the smallest greater tile behind it.
        let Some(at) = (0..TILES - 1).rev().find(|&i| row[i] < row[i + 1]) else { return rows };
        let with = (at + 1..TILES).rev().find(|&i| row[i] > row[at]).unwrap_or(at + 1);
        row.swap(at, with);
        row[at + 1..].reverse();
    }
}

impl Permutations {
    /// `count` permutations, a pure function of `count` and `seed`; kept for who asks again. An error unless there are 2 to 9!.
    #[track_caller]
    pub fn of(count: usize, seed: u64) -> Result<Arc<Permutations>> {
        static KNOWN: Mutex<BTreeMap<(usize, u64), Arc<Permutations>>> = Mutex::new(BTreeMap::new());
        if !(2..=ALL).contains(&count) {
            let text = format!("permutations must be 2 to {ALL}, not {count}");
            return Err(Error::new(ErrorKind::Usage, "jigsaw settings", text));
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry((count, seed)).or_insert_with(|| Arc::new(Permutations::choose(count, seed))).clone())
    }

    /// The first is drawn; so is each next among those whose nearest is farthest.
    fn choose(count: usize, seed: u64) -> Permutations {
        let rows = all();
        let words: Vec<u64> = rows.iter().map(packed).collect();
        let mut random = Philox::new(seed, Purpose::Permutations, count as u64);
        let mut next = random.below(ALL);
        let mut nearest = vec![u8::MAX; ALL];
        let (mut chosen, mut minimum, mut sum) = (Vec::with_capacity(count), TILES, 0u64);
        loop {
            let word = words[next];
            sum += chosen.iter().map(|&i: &usize| u64::from(distance(word, words[i]))).sum::<u64>();
            chosen.push(next);
            if chosen.len() == count {
                break;
            }
            // Where each is nearest to the new one, that is its distance now; a chosen one has 0 and is not chosen again.
            let mut counts = [0usize; TILES + 1];
            for (near, &other) in nearest.iter_mut().zip(&words) {
                *near = (*near).min(distance(word, other));
                counts[usize::from(*near)] += 1;
            }
            let farthest = counts.iter().rposition(|&n| n > 0).unwrap_or(0);
            minimum = minimum.min(farthest);
            let which = random.below(counts[farthest]);
            let candidates = (0..ALL).filter(|&i| usize::from(nearest[i]) == farthest);
            next = candidates.into_iter().nth(which).unwrap_or(0);
        }
        let pairs = (count * (count - 1) / 2) as f64;
        let rows = chosen.into_iter().map(|i| rows[i]).collect();
        Permutations { rows, minimum, mean: sum as f64 / pairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn differences(a: &[u8; TILES], b: &[u8; TILES]) -> usize {
        a.iter().zip(b).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn distances_are_numbers_of_different_places() {
        let rows = all();
        assert_eq!(rows.len(), ALL);
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), ALL);
        for i in 0..2000 {
            let (a, b) = (&rows[i * 181 % ALL], &rows[i * i * 97 % ALL]);
            assert_eq!(usize::from(distance(packed(a), packed(b))), differences(a, b));
        }
    }

    /// The minima of the greedy choice: 7 of 9 places among 30, 6 among 100, 5 among 1000; random sets have 2.
    #[test]
    fn the_most_similar_permutations_differ_in_many_places() {
        for (count, minimum) in [(30, 7), (100, 6), (1000, 5)] {
            let set = Permutations::of(count, 1).unwrap();
            assert_eq!(set.rows.iter().collect::<BTreeSet<_>>().len(), count, "none is there twice");
            let mut least = TILES;
            let mut sum = 0;
            for (i, a) in set.rows.iter().enumerate() {
                let mut sorted = *a;
                sorted.sort();
                assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
                for b in &set.rows[..i] {
                    least = least.min(differences(a, b));
                    sum += differences(a, b);
                }
            }
            assert_eq!((set.minimum, least), (minimum, minimum), "{count}");
            let mean = sum as f64 / (count * (count - 1) / 2) as f64;
            assert!((set.mean - mean).abs() < 1e-9 && (7.8..8.2).contains(&mean), "{count}: {mean}");
            assert!(Arc::ptr_eq(&set, &Permutations::of(count, 1).unwrap()), "kept");
            assert_ne!(set.rows, Permutations::of(count, 2).unwrap().rows, "another seed, another set");
            assert_eq!(set.rows, Permutations::choose(count, 1).rows, "the same from scratch");
        }
        assert!(Permutations::of(1, 1).is_err() && Permutations::of(ALL + 1, 1).is_err());
    }
}
