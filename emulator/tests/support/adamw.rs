//! AdamW over all tensors of a model, equal to the bit.

use super::case::{Banks, Case, Contents};
use super::compare::{Bytes, Expected};
use super::random::Stream;
use half::bf16;

const LEARNING_RATE: f32 = 1e-3;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.95;
const EPSILON: f32 = 1e-8;
const TEACHER_MOMENTUM: f32 = 0.996;

/// Elements of a tensor that one block takes.
const CHUNK: usize = 1024;

/// Bytes of an entry of the table: six pointers, a count, a weight decay.
pub const ENTRY: usize = 56;

pub fn cases() -> Vec<Case> {
    let models: [(&[usize], i32); 4] =
        [(&[1], 1), (&[4, 3], 1), (&[1000, 5, 1023, 1024], 10), (&[1025, 2500, 7, 64], 100_000)];
    models.map(|(sizes, step)| case(sizes, step)).to_vec()
}

fn case(sizes: &[usize], step: i32) -> Case {
    let bias1 = (1.0 / (1.0 - f64::from(BETA1).powi(step))) as f32;
    let bias2 = (1.0 / (1.0 - f64::from(BETA2).powi(step))) as f32;
    let mut case = Case::new(
        "adamw.cu",
        include_str!("../kernels/adamw.cu"),
        "adamw_step",
        format!("sizes {sizes:?} step {step}"),
    );
    case.options.push("--fmad=false");
    let mut random = Stream::new(step as u64);
    let mut table = Vec::new();
    let mut pointers = Vec::new();
    let (mut read, mut written) = (0, 0);
    for (t, &size) in sizes.iter().enumerate() {
        let decay = if t % 2 == 0 { 0.05f32 } else { 0.0 };
        let has_teacher = t % 3 != 1;
        let mut parameter = random.floats(size, 1.0);
        let mut first = random.floats(size, 0.01);
        let mut second: Vec<f32> = random.floats(size, 0.01).iter().map(|x| x * x).collect();
        let mut teacher = random.floats(size, 1.0);
        let mut gradient = random.floats(size, 0.1);
        gradient[0] = 0.0;
        if let Some(huge) = gradient.get_mut(3) {
            *huge = 1e18;
        }
        let before = [&parameter, &first, &second, &teacher].map(|values| values.bytes());
        for i in 0..size {
            first[i] = BETA1.mul_add(first[i], (1.0 - BETA1) * gradient[i]);
            second[i] = BETA2.mul_add(second[i], (1.0 - BETA2) * gradient[i] * gradient[i]);
            let direction = first[i] * bias1 / ((second[i] * bias2).sqrt() + EPSILON);
            parameter[i] -= LEARNING_RATE * (direction + decay * parameter[i]);
            if has_teacher {
                teacher[i] = TEACHER_MOMENTUM.mul_add(teacher[i] - parameter[i], parameter[i]);
            }
        }
        let copy: Vec<bf16> = parameter.iter().map(|&x| bf16::from_f32(x)).collect();
        let after = [&parameter, &first, &second, &teacher].map(|values| values.bytes());
        let names = ["parameter", "first", "second", "teacher"];
        let mut buffers: Vec<usize> = names
            .into_iter()
            .zip(before.into_iter().zip(after))
            .map(|(name, (before, after))| case.add(name, Contents::Bytes(before), Expected::Exact(after)))
            .collect();
        buffers.push(case.add("copy", Contents::Pieces(size * 2, Vec::new()), Expected::Exact(copy.bytes())));
        let bytes = gradient.bytes();
        buffers.push(case.add("gradient", Contents::Bytes(bytes.clone()), Expected::Exact(bytes)));
        for start in (0..size).step_by(CHUNK) {
            for (slot, &buffer) in buffers.iter().enumerate() {
                let element = if slot == 4 { 2 } else { 4 };
                if slot != 3 || has_teacher {
                    pointers.push((table.len() + slot * 8, buffer, (start * element) as u64));
                }
            }
            table.extend([0; 48]);
            table.extend(((size - start).min(CHUNK) as i32).bytes());
            table.extend(decay.bytes());
        }
        read += size * if has_teacher { 20 } else { 16 };
        written += size * if has_teacher { 18 } else { 14 };
    }
    let chunks = table.len() / ENTRY;
    read += table.len();
    let settings = [LEARNING_RATE, BETA1, BETA2, EPSILON, bias1, bias2, TEACHER_MOMENTUM];
    let mut case = case
        .launch([chunks as u32, 1, 1], [256, 1, 1])
        .buffer("table", Contents::Bytes(table), Expected::Any)
        .value(&settings[..])
        .traffic(read, written)
        .barriers(0)
        .banks(Banks::Free);
    case.named("table").pointers = pointers;
    case
}
