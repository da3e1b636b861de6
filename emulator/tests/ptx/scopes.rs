//! Names of inner blocks: shadowing, repetition, labels, and what is visible where.

use crate::invariants;
use crate::text::{function, instructions, module, refused_body};
use emulator::ptx::ast::{Function, Operand};

/// Which names the operands of each instruction have, in order.
fn names(function: &Function) -> Vec<Vec<String>> {
    let name = |operand: &Operand| match operand {
        Operand::Register(name) | Operand::Symbol(name, _) => name.clone(),
        Operand::Address { base: emulator::ptx::ast::Base::Symbol(name), .. } => name.clone(),
        other => format!("{other:?}"),
    };
    instructions(function).into_iter().map(|i| i.operands.iter().map(name).collect()).collect()
}

#[test]
fn repeated_blocks_of_inline_assembly_do_not_mix() {
    let block = "{ .reg .pred p; W: mov.pred p, %p1; @p bra W; }\n";
    let function = function(&block.repeat(3));
    let found = names(&function);
    for first in 0..3 {
        for second in 0..first {
            assert_ne!(found[2 * first][0], found[2 * second][0], "p");
            assert_ne!(found[2 * first + 1][0], found[2 * second + 1][0], "W");
        }
        let guard = instructions(&function)[2 * first + 1].guard.clone();
        assert_eq!(guard.unwrap().0, found[2 * first][0]);
    }
    assert_eq!(found[0][0], "p", "the first keeps its name");
    invariants::check_function(&function);
}

#[test]
fn an_inner_declaration_shadows_until_its_block_ends() {
    let function = function(
        "{ mov.b32 %r5, %r6; .reg .b64 %r5; mov.b64 %r5, %r6; { .reg .b16 %r<6>; mov.b16 %r5, %r6; } mov.b64 %r5, %r6; }
        mov.b32 %r5, %r6;",
    );
    let found = names(&function);
    assert_eq!(found[0], ["%r5", "%r6"]);
    assert_eq!(found[1], ["%r5#1", "%r6"]);
    assert_eq!(found[2][1], "%r6", "the inner family ends before %r6");
    assert!(!["%r5", "%r5#1"].contains(&found[2][0].as_str()));
    assert_eq!(found[3], found[1]);
    assert_eq!(found[4], found[0]);
    invariants::check_function(&function);
}

#[test]
fn families_and_single_names_of_different_blocks_stay_apart() {
    let function = function(
        "{ .reg .b32 t<3>; mov.b32 t1, 1; } { .reg .b64 t1; mov.b64 t1, 1; } { .reg .b16 t<12>; mov.b16 t11, 1; }
        { .reg .b32 u1; mov.b32 u1, 1; } { .reg .b64 u<3>; mov.b64 u1, 1; }
        { .reg .b32 v1<3>; mov.b32 v11, 1; } { .reg .b64 v<12>; mov.b64 v11, 1; } { .reg .b16 v1<4>; mov.b16 v11, 1; }",
    );
    let mut found: Vec<_> = names(&function).into_iter().map(|operands| operands[0].clone()).collect();
    assert_eq!(found.len(), 8);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 8, "{found:?}");
    invariants::check_function(&function);
}

#[test]
fn labels_are_visible_in_their_block_and_inner_ones() {
    let function = function(
        "bra OUT; { bra OUT; bra IN; { bra IN; } IN: { IN: bra IN; } } OUT: ret; { bra IN; IN: ret; }",
    );
    let found: Vec<_> = names(&function).into_iter().flatten().collect();
    assert_eq!(found, ["OUT", "OUT", "IN", "IN", "IN#2", "IN#3"]);
    invariants::check_function(&function);
    assert!(refused_body("bra L; { L: ret; }").detail.contains("`L` is not visible here"));
    assert!(refused_body("{ L: ret; } bra L;").detail.contains("`L` is not visible here"));
    assert!(refused_body("L: ret; L: ret;").detail.contains("`L` is declared twice"));
    assert!(refused_body(".reg .b32 x; x: bra x;").detail.contains("`x` is declared twice"));
}

#[test]
fn variables_of_blocks() {
    let function = function(
        "{ .param .b32 param0; st.param.b32 [param0+0], %r1; } { .param .b64 param0; st.param.b64 [param0+0], %rd1; }
        .shared .align 16 .b8 s[64]; mov.u64 %rd1, s; ld.u32 %r1, [g]; { .local .u64 g; ld.u32 %r1, [g]; } ld.u32 %r1, [g];",
    );
    let found = names(&function);
    assert_eq!((found[0][0].as_str(), found[1][0].as_str()), ("param0", "param0#2"));
    assert_eq!(found[2][1], "s");
    assert_eq!((found[3][1].as_str(), found[4][1].as_str(), found[5][1].as_str()), ("g", "g#1", "g"));
    let variables: Vec<_> = function.variables.iter().map(|v| (v.name.as_str(), v.size)).collect();
    assert_eq!(variables, [("param0", 4), ("param0#2", 8), ("s", 64), ("g#1", 8)]);
}

#[test]
fn a_later_declaration_does_not_capture_an_earlier_outer_use() {
    let function =
        function("mov.u64 %rd1, later; mov.u64 %rd1, later; { .shared .u32 later; mov.u64 %rd1, later; }");
    let found = names(&function);
    assert_eq!(found[0][1], "later");
    assert_eq!(found[1][1], "later");
    assert_ne!(found[2][1], "later");
}

#[test]
fn global_variables_of_a_function_live_in_the_module() {
    let module = module(
        ".global .u32 g = 1;
        .func f() { .global .u32 g = 2; ld.u32 _, [g]; { .const .u32 g = 3; ld.u32 _, [g]; } }
        .func h() { .global .u32 g; ld.u32 _, [g]; }",
    );
    let mut found: Vec<_> = module.variables.iter().map(|v| v.name.clone()).collect();
    assert_eq!(module.variables.iter().map(|v| v.initial.len()).collect::<Vec<_>>(), [4, 4, 4, 0]);
    let used: Vec<_> =
        module.functions.iter().flat_map(names).map(|mut operands| operands.remove(1)).collect();
    assert_eq!(used, found[1..]);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 4);
}
