//! Makes random programs: nested statements as a compiler emits them, and jumps from anywhere to anywhere.

use super::program::{COMPARISONS, Guard, OPERATIONS, PREDICATES, Program, REGISTERS, Source, Step, VALUES};
use super::random::Random;

/// The last operation of the table is `rem`, which the generator uses for switches only.
const REM: usize = OPERATIONS.len() - 1;

struct Writer {
    random: Random,
    steps: Vec<Step>,
    labels: usize,
    counters: usize,
    /// Functions that may be called.
    callable: usize,
    entry: bool,
}

/// Labels of the innermost loop: next round, end.
type Loop = Option<(usize, usize)>;

/// Nested statements, with calls of two functions.
pub fn structured(seed: u64) -> Program {
    let mut program = Program::default();
    for callable in 0..3 {
        let mut writer = Writer::new(seed.wrapping_mul(3) + callable as u64, callable, callable == 2);
        writer.mix_arguments();
        writer.block(if callable == 2 { 3 } else { 2 }, None);
        writer.finish();
        program.functions.push(writer.steps);
    }
    program
}

/// Basic blocks that jump to any other, until a thread has run its number of blocks.
pub fn unstructured(seed: u64) -> Program {
    let mut writer = Writer::new(seed, 0, true);
    writer.mix_arguments();
    let fuel = REGISTERS - 2;
    let start = 8 + writer.random.below(40) as u32;
    writer.compute(0, fuel, Source::Constant(start), Source::Constant(0), None);
    let blocks: Vec<usize> = (0..3 + writer.random.below(10)).map(|_| writer.label()).collect();
    let end = writer.label();
    for &block in &blocks {
        writer.steps.push(Step::Label(block));
        for _ in 0..1 + writer.random.below(4) {
            writer.operation();
        }
        writer.compute(1, fuel, Source::Register(fuel), Source::Constant(1), None);
        writer.steps.push(Step::Compare {
            comparison: 1,
            to: 0,
            a: Source::Register(fuel),
            b: Source::Constant(0),
        });
        writer.steps.push(Step::Jump { to: end, guard: Some((0, false)) });
        let any = |writer: &mut Writer| blocks[writer.random.below(blocks.len() as u64) as usize];
        match writer.random.below(5) {
            0 => {
                let to = any(&mut writer);
                writer.steps.push(Step::Jump { to, guard: None });
            }
            1 => {
                let targets: Vec<usize> = (0..2 + writer.random.below(4)).map(|_| any(&mut writer)).collect();
                let guard = writer.maybe_guard();
                writer.switch(&targets, guard);
            }
            2 => {
                let guard = writer.guard();
                if writer.random.below(6) == 0 {
                    writer.steps.push(Step::Exit { guard });
                }
            }
            _ => {
                let (to, guard) = (any(&mut writer), writer.guard());
                writer.steps.push(Step::Jump { to, guard });
            }
        }
    }
    writer.steps.push(Step::Label(end));
    writer.finish();
    Program { functions: vec![writer.steps] }
}

impl Writer {
    fn new(seed: u64, callable: usize, entry: bool) -> Writer {
        Writer { random: Random(seed), steps: Vec::new(), labels: 0, counters: VALUES, callable, entry }
    }

    fn label(&mut self) -> usize {
        self.labels += 1;
        self.labels - 1
    }

    fn value(&mut self) -> usize {
        self.random.below(VALUES as u64) as usize
    }

    fn compute(&mut self, operation: usize, to: usize, a: Source, b: Source, guard: Guard) {
        self.steps.push(Step::Compute { operation, to, a, b, guard });
    }

    /// Registers that differ from thread to thread.
    fn mix_arguments(&mut self) {
        for register in 2..VALUES {
            let factor = Source::Constant(self.random.next() as u32 | 1);
            self.compute(2, register, Source::Register(register % 2), factor, None);
            self.compute(
                9,
                register,
                Source::Register(register),
                Source::Constant(3 * register as u32),
                None,
            );
        }
    }

    /// Folds all registers into one, which the thread returns.
    fn finish(&mut self) {
        for register in 1..VALUES {
            self.compute(2, 0, Source::Register(0), Source::Constant(31), None);
            self.compute(3, 0, Source::Register(0), Source::Register(register), None);
        }
        self.steps.push(Step::Return { value: 0, guard: None });
    }

    fn source(&mut self) -> Source {
        match self.random.below(3) {
            0 => Source::Constant(self.random.below(33) as u32),
            1 => Source::Constant(self.random.next() as u32),
            _ => Source::Register(self.value()),
        }
    }

    fn operation(&mut self) {
        let operation = self.random.below(REM as u64) as usize;
        let (to, a, b) = (self.value(), Source::Register(self.value()), self.source());
        let guard = self.maybe_guard();
        self.compute(operation, to, a, b, guard);
    }

    /// A comparison of the low bits of a register, so that lanes disagree.
    fn guard(&mut self) -> Guard {
        let scratch = REGISTERS - 1;
        let a = Source::Register(self.value());
        self.compute(4, scratch, a, Source::Constant(7), None);
        let to = self.random.below(PREDICATES as u64) as usize;
        let comparison = self.random.below(COMPARISONS.len() as u64) as usize;
        let b = Source::Constant(self.random.below(8) as u32);
        self.steps.push(Step::Compare { comparison, to, a: Source::Register(scratch), b });
        Some((to, self.random.below(2) == 1))
    }

    fn maybe_guard(&mut self) -> Guard {
        if self.random.below(4) == 0 { self.guard() } else { None }
    }

    fn switch(&mut self, labels: &[usize], guard: Guard) {
        let by = REGISTERS - 3;
        let a = Source::Register(self.value());
        self.compute(REM, by, a, Source::Constant(labels.len() as u32), None);
        self.steps.push(Step::Switch { by, labels: labels.to_vec(), guard });
    }

    fn block(&mut self, depth: u32, inside: Loop) {
        for _ in 0..2 + self.random.below(4) {
            self.statement(depth, inside);
        }
    }

    fn statement(&mut self, depth: u32, inside: Loop) {
        let kind = if depth == 0 { 8 + self.random.below(8) } else { self.random.below(16) };
        match kind {
            0..3 => {
                let (otherwise, end) = (self.label(), self.label());
                let guard = self.guard();
                self.steps.push(Step::Jump { to: otherwise, guard });
                self.block(depth - 1, inside);
                self.steps.push(Step::Jump { to: end, guard: None });
                self.steps.push(Step::Label(otherwise));
                if self.random.below(2) == 0 {
                    self.block(depth - 1, inside);
                }
                self.steps.push(Step::Label(end));
            }
            3..6 if self.counters < REGISTERS - 3 => {
                let counter = self.counters;
                self.counters += 1;
                let (head, end) = (self.label(), self.label());
                let trips = Source::Register(self.value());
                self.compute(4, counter, trips, Source::Constant(3), None);
                self.compute(0, counter, Source::Register(counter), Source::Constant(1), None);
                self.steps.push(Step::Label(head));
                let done = Step::Compare {
                    comparison: 1,
                    to: 0,
                    a: Source::Register(counter),
                    b: Source::Constant(0),
                };
                self.steps.push(done);
                self.steps.push(Step::Jump { to: end, guard: Some((0, false)) });
                self.compute(1, counter, Source::Register(counter), Source::Constant(1), None);
                self.block(depth - 1, Some((head, end)));
                self.steps.push(Step::Jump { to: head, guard: None });
                self.steps.push(Step::Label(end));
            }
            6 | 7 => {
                let cases: Vec<usize> = (0..2 + self.random.below(3)).map(|_| self.label()).collect();
                let end = self.label();
                self.switch(&cases, None);
                for case in cases {
                    self.steps.push(Step::Label(case));
                    self.block(depth - 1, inside);
                    // Some cases fall through.
                    if self.random.below(3) != 0 {
                        self.steps.push(Step::Jump { to: end, guard: None });
                    }
                }
                self.steps.push(Step::Label(end));
            }
            8 if inside.is_some() => {
                let (head, end) = inside.unwrap();
                let (to, guard) = (if self.random.below(2) == 0 { head } else { end }, self.guard());
                self.steps.push(Step::Jump { to, guard });
            }
            9 if self.callable > 0 => {
                let function = self.random.below(self.callable as u64) as usize;
                let (to, arguments, guard) = (self.value(), [self.value(), self.value()], self.maybe_guard());
                self.steps.push(Step::Call { function, to, arguments, guard });
            }
            10 if !self.entry => {
                let (value, guard) = (self.value(), self.guard());
                self.steps.push(Step::Return { value, guard });
            }
            10 if self.random.below(4) == 0 => {
                // Threads leave for good: two comparisons, so that not too many do.
                let guard = self.guard();
                let skip = self.label();
                self.steps.push(Step::Jump { to: skip, guard });
                let guard = self.guard();
                self.steps.push(Step::Exit { guard });
                self.steps.push(Step::Label(skip));
            }
            11 if self.entry && depth == 3 => self.steps.push(Step::Barrier),
            _ => self.operation(),
        }
    }
}
