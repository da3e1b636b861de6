//! Slots that wait: nothing of them moves, or the value alone does not, and they go on as from a first step.

use super::*;

/// Values, moments, copies and averages as bits.
fn bits(held: &Held) -> Vec<u32> {
    let all = [&held.value, &held.first, &held.second, &held.average];
    let floats = all.into_iter().flat_map(|x| x.to_vec::<f32>().unwrap());
    floats.chain(widened(&held.low).unwrap().to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
}

/// Parameters 0 and 3 of the case are untouched for one and two steps, 1 and 4 still.
fn case(steps: usize) -> Case {
    Case { sizes: vec![40, 30, 20, 10, 5], scale: 1.0, decay: 0.1, zeros: false, steps, holds: true }
}

#[test]
fn untouched_slots_keep_every_bit_and_then_move() {
    for rule in rules() {
        let all: Vec<Vec<Held>> = (0..4).map(|steps| run(&case(steps), rule, 1.0).unwrap()).collect();
        for (i, start) in [(0, 1), (3, 2)] {
            assert_eq!(bits(&all[start][i]), bits(&all[0][i]), "parameter {i}, {rule:?}");
            let (before, after) = (&all[start][i], &all[start + 1][i]);
            for (b, a) in [(&before.value, &after.value), (&before.average, &after.average)] {
                assert_ne!(b.to_vec::<f32>().unwrap(), a.to_vec::<f32>().unwrap(), "parameter {i}, {rule:?}");
            }
        }
    }
}

#[test]
fn still_slots_keep_their_value_while_moments_go_on() {
    for rule in rules() {
        let all: Vec<Vec<Held>> = (0..4).map(|steps| run(&case(steps), rule, 1.0).unwrap()).collect();
        let value = |steps: usize, i: usize| all[steps][i].value.to_vec::<f32>().unwrap();
        for (i, start) in [(1, 1), (4, 2)] {
            assert_eq!(value(start, i), value(0, i), "parameter {i}, {rule:?}");
            assert_ne!(value(start + 1, i), value(0, i), "parameter {i}, {rule:?}");
            let first = all[1][i].first.to_vec::<f32>().unwrap();
            // SimCLR's LARS has the rate, which is 0, inside the momentum.
            let moves = !matches!(rule, Rule::Lars(LarsVariant::Simclr));
            assert_eq!(first.iter().any(|&x| x != 0.0), moves, "parameter {i}, {rule:?}");
        }
    }
}

/// What a slot untouched for two steps is after five is what a slot is after three with the later gradients: under AdamW
/// too, whose bias corrections would tell.
#[test]
fn waiting_is_starting_late() {
    let late = Case { decay: 0.0, ..case(5) };
    let fresh = Case { steps: 3, holds: false, ..late.clone() };
    for rule in rules() {
        let waited = run(&late, rule, 1.0).unwrap();
        let place = Place::cpu(DType::F32);
        let started = check::run_with(&fresh, rule, 1.0, place, |step| fresh.gradients(step + 2)).unwrap();
        assert_eq!(bits(&waited[3]), bits(&started[3]), "{rule:?}");
    }
}

/// No number of the gradient reaches a slot that waits: not even one that is none.
#[test]
fn gradients_without_a_number_do_not_reach_slots_that_wait() {
    let case = case(1);
    let nan =
        || vec![vec![f64::NAN; 40], vec![f64::NAN; 30], vec![1.0; 20], vec![f64::NAN; 10], vec![f64::NAN; 5]];
    for rule in rules() {
        let place = Place::cpu(DType::F32);
        let found = check::run_with(&case, rule, 1.0, place, |_| nan()).unwrap();
        for (i, held) in found.iter().enumerate() {
            assert!(
                held.value.to_vec::<f32>().unwrap().iter().all(|x| x.is_finite()),
                "parameter {i}, {rule:?}"
            );
        }
    }
}
