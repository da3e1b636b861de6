//! Any text: the parser returns in bounded time, never panics, its errors point into the text, and what it accepts
//! keeps the invariants.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::fixtures::FIXTURES;
use crate::invariants;
use crate::text::HEADER;
use emulator::ptx::parse;

/// Words of PTX, those that go together more than once.
const VOCABULARY: &[&str] = &[
    "{",
    "}",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ";",
    ";",
    ":",
    "@",
    "!",
    "|",
    "&",
    "+",
    "-",
    "*",
    "/",
    "%",
    "<",
    ">",
    "<<",
    ">>",
    "=",
    "==",
    "?",
    "~",
    "^",
    "&&",
    "||",
    "_",
    "add.s32",
    "mov.b32",
    "bra",
    "call",
    "ret",
    "ld.global.u32",
    "st.shared.v2.b32",
    "setp.eq.s32",
    "brx.idx",
    "%r1",
    "%r2",
    "%p1",
    "%rd1",
    "%tid.x",
    "%tid",
    "WARP_SZ",
    "x",
    "x1",
    "x2",
    "L",
    "L",
    "g",
    "k",
    "f",
    "generic",
    "0",
    "1",
    "8",
    "0x1F",
    "12U",
    "0f3F800000",
    "0d3FF0000000000000",
    "1.5",
    "1e-3",
    ".5",
    "99999999999",
    "18446744073709551615",
    "18446744073709551616",
    "017",
    "0b11",
    "\"s\"",
    ".reg",
    ".reg",
    ".param",
    ".shared",
    ".local",
    ".global",
    ".const",
    ".b8",
    ".b32",
    ".u64",
    ".pred",
    ".f32",
    ".v2",
    ".v4",
    ".align",
    ".ptr",
    ".x",
    ".entry",
    ".func",
    ".visible",
    ".extern",
    ".weak",
    ".version",
    "8.8",
    ".target",
    "sm_80",
    ".file",
    ".loc",
    ".section",
    ".debug",
    ".pragma",
    ".maxntid",
    ".noreturn",
    ".alias",
    ".branchtargets",
    ".callprototype",
    ".calltargets",
    ".attribute",
    ".managed",
    "function_name",
    "inlined_at",
    "\n",
    "\n",
    "//",
    "/*",
    "*/",
    ".reg .b32 x<3>;",
    ".reg .pred x;",
    "L:",
    "{ L:",
    ".global .u32 g[2] = {",
    ".entry k() {",
    ".func f() {",
    "mov.b32 %r1, x1;",
    "@%p1 bra L;",
    "bra.uni L;",
];

/// Parses; what must hold of the result of any text.
fn check(text: &str) -> bool {
    let start = Instant::now();
    let result = parse(text);
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    match result {
        Ok(module) => {
            invariants::check(&module);
            true
        }
        Err(error) => {
            assert!(error.line as usize <= text.lines().count().max(1) + 1, "{error}");
            assert!(!error.detail.is_empty() && error.detail.len() < 1000, "{error}");
            false
        }
    }
}

/// The text in pieces that mutations move: words, runs of blanks, single marks.
fn pieces(text: &str) -> Vec<&str> {
    let class = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | b'%' | b'.' => 1,
        b' ' | b'\t' => 2,
        _ => 0,
    };
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut start = 0;
    for end in 1..=bytes.len() {
        if end == bytes.len() || class(bytes[end]) != class(bytes[start]) || class(bytes[start]) == 0 {
            found.push(&text[start..end]);
            start = end;
        }
    }
    found
}

/// One change of a list of pieces: the kind, and two places as fractions.
#[derive(Clone, Debug)]
struct Mutation {
    kind: u8,
    first: f64,
    second: f64,
    word: usize,
}

impl Mutation {
    fn apply(&self, pieces: &mut Vec<&str>) {
        if pieces.is_empty() {
            return;
        }
        let place = |fraction: f64| ((pieces.len() as f64 * fraction) as usize).min(pieces.len() - 1);
        let (first, second) = (place(self.first), place(self.second));
        let near = (first + self.word % 40 + 1).min(pieces.len());
        match self.kind {
            0 => drop(pieces.drain(first..near)),
            1 => drop(pieces.remove(first)),
            2 => {
                let copy = pieces[first..near].to_vec();
                pieces.splice(second..second, copy);
            }
            3 => pieces.swap(first, second),
            4 => pieces[first] = VOCABULARY[self.word % VOCABULARY.len()],
            5 => pieces.insert(first, VOCABULARY[self.word % VOCABULARY.len()]),
            6 => pieces[first] = pieces[second],
            _ => pieces.truncate(first),
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Truncation is rare: it hides the others.
    let kind = prop_oneof![20 => 0u8..7, 1 => Just(7u8)];
    (kind, 0.0..1.0, 0.0..1.0, 0usize..10_000).prop_map(|(kind, first, second, word)| Mutation {
        kind,
        first,
        second,
        word,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&String::from_utf8_lossy(&bytes));
        check(&format!("{HEADER}.entry k() {{ {}", String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn random_characters(text in "[ -~\n]{0,200}") {
        check(&text);
        check(&format!("{HEADER}{text}"));
        check(&format!("{HEADER}.entry k() {{ {text}"));
    }

    #[test]
    fn random_words(words in prop::collection::vec(0..VOCABULARY.len(), 0..80)) {
        let text = words.iter().map(|&word| VOCABULARY[word]).collect::<Vec<_>>().join(" ");
        check(&text);
        check(&format!("{HEADER}{text}"));
        check(&format!("{HEADER}.entry k() {{ .reg .b32 %r<9>; .reg .b64 %rd<4>; .reg .pred %p<2>; {text} }}"));
    }

    #[test]
    fn mutated_fixtures(which in 0..FIXTURES.len(), mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut text = pieces(FIXTURES[which].1);
        for mutation in &mutations {
            mutation.apply(&mut text);
        }
        check(&text.concat());
    }
}

/// Well-formed blocks that declare, shadow and use a few names, so that most texts are accepted.
fn block() -> impl Strategy<Value = String> {
    let names = ["x", "x1", "x2", "x11", "y", "g"];
    let name = prop::sample::select(names.to_vec());
    let statement = prop_oneof![
        name.clone().prop_map(|name| format!("mov.b32 {name}, {name};")),
        name.clone().prop_map(|name| format!("bra {name};")),
        Just("mov.b32 %r1, %r2;".to_string()),
        name.clone().prop_map(|name| format!("{{ .reg .b32 {name}; mov.b32 {name}, 1; @{name} ret; }}")),
        (name.clone(), 0..13)
            .prop_map(|(name, count)| format!("{{ .reg .b32 {name}<{count}>; mov.b32 {name}0, x1; }}")),
        name.clone().prop_map(|name| format!("{{ .shared .b32 {name}; mov.b32 %r1, {name}; }}")),
        name.prop_map(|name| format!("{{ bra {name}; {name}: {{ bra {name}; }} }}")),
    ];
    let leaf = prop::collection::vec(statement, 1..4).prop_map(|list| list.concat());
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop::collection::vec(inner.prop_map(|text| format!("{{ {text} }}")), 1..4)
            .prop_map(|list| list.concat())
    })
}

#[test]
fn nested_scopes_keep_the_invariants() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = 0;
    for _ in 0..3000 {
        let text = block().new_tree(&mut runner).unwrap().current();
        let head = ".global .u32 g;\n.entry k() { .reg .b32 %r<9>;";
        accepted += usize::from(check(&format!("{HEADER}{head} {text} }}")));
    }
    assert!(accepted > 1000, "only {accepted} of 3000 texts are accepted: the test checks little");
}
