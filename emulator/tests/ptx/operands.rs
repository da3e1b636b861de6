//! Instructions and every form of operand.

use crate::text::{function, instructions, module, operands, refused_body};
use emulator::ptx::ast::{Base, Operand, Statement};

fn register(name: &str) -> Operand {
    Operand::Register(name.into())
}

fn address(base: Base, offset: i64) -> Operand {
    Operand::Address { base, offset, tensor: vec![] }
}

#[test]
fn opcodes_guards_and_lines() {
    let function = function(
        "@%p1 add.s32 %r1, %r2, %r3;\n@!%p2\nadd\n.s32 /*c*/ .x %r1, %r1, 1;\nfence.proxy.async.shared::cta;\nld.global.L1::no_allocate.L2::128B.b32 %r1, [%rd1];\ntex.1d.5d %r1;\n@ ! %p0 ret;",
    );
    let found: Vec<_> = instructions(&function)
        .into_iter()
        .map(|i| (i.guard.as_ref().map(|(name, not)| (name.as_str(), *not)), i.opcode.as_str(), i.line))
        .collect();
    let expected = [
        (Some(("%p1", false)), "add.s32", 6),
        (Some(("%p2", true)), "add.s32.x", 8),
        (None, "fence.proxy.async.shared::cta", 10),
        (None, "ld.global.L1::no_allocate.L2::128B.b32", 11),
        (None, "tex.1d.5d", 12),
        (Some(("%p0", true)), "ret", 13),
    ];
    assert_eq!(found, expected);
}

#[test]
fn addresses() {
    let second = |text: &str| operands(&format!("ld.b32 %r1, {text};")).swap_remove(1);
    let rd1 = || Base::Register("%rd1".into());
    assert_eq!(second("[%rd1]"), address(rd1(), 0));
    assert_eq!(second("[%rd1+8]"), address(rd1(), 8));
    assert_eq!(second("[%rd1+-8]"), address(rd1(), -8));
    assert_eq!(second("[ %rd1 + (1<<3) + 1 ]"), address(rd1(), 9));
    assert_eq!(second("[g]"), address(Base::Symbol("g".into()), 0));
    assert_eq!(second("[g+4]"), address(Base::Symbol("g".into()), 4));
    assert_eq!(second("[k0+0]"), address(Base::Symbol("k0".into()), 0));
    assert_eq!(second("[16]"), address(Base::None, 16));
    assert_eq!(second("[-16]"), address(Base::None, -16));
    let tensor = vec![register("%r1"), register("%r2"), Operand::Integer(0)];
    assert_eq!(
        second("[%rd1, {%r1, %r2, 0}]"),
        Operand::Address { base: rd1(), offset: 0, tensor: tensor.clone() }
    );
    assert_eq!(second("[%rd1, {}]"), address(rd1(), 0));
    assert_eq!(
        second("[g+64, {%r1, %r2, 0}]"),
        Operand::Address { base: Base::Symbol("g".into()), offset: 64, tensor }
    );
}

#[test]
fn registers_vectors_and_marks() {
    let two =
        operands("shfl.sync.idx.b32 %r1|%p1, {%f1, _, 0f00000000}, !%p2, -%r2, _, _|%p3, %q.y, %q, {};");
    let boxed = |name: &str| Box::new(register(name));
    let expected = [
        Operand::Pair(boxed("%r1"), boxed("%p1")),
        Operand::Vector(vec![register("%f1"), Operand::Sink, Operand::Float32(0)]),
        Operand::Not(boxed("%p2")),
        Operand::Negated(boxed("%r2")),
        Operand::Sink,
        Operand::Pair(Box::new(Operand::Sink), boxed("%p3")),
        Operand::Element(boxed("%q"), 1),
        register("%q"),
        Operand::Vector(vec![]),
    ];
    assert_eq!(two, expected);
    assert_eq!(operands("mov.u32 %r1, %q.a;")[1], Operand::Element(boxed("%q"), 3));
    assert_eq!(operands("bar.sync 0;"), [Operand::Integer(0)]);
    assert_eq!(operands("membar.gl;"), []);
}

#[test]
fn symbols_and_special_registers() {
    let symbol = |name: &str, offset| Operand::Symbol(name.into(), offset);
    let special = |name: &str| Operand::Special(name.into());
    let second = |text: &str| operands(&format!("mov.b64 %rd1, {text};")).swap_remove(1);
    assert_eq!(second("g"), symbol("g", 0));
    assert_eq!(second("g+8"), symbol("g", 8));
    assert_eq!(second("g+8+4"), symbol("g", 12));
    assert_eq!(second("k0"), symbol("k0", 0));
    assert_eq!(second("elsewhere"), symbol("elsewhere", 0));
    for name in
        "%tid.x %ctaid.y %nctaid.z %ntid.w %tid %laneid %warpid %clock64 %lanemask_lt %dynamic_smem_size
        %envreg3 %envreg31 %pm7 %pm0_64 %cluster_ctarank %cluster_nctaid.x %clusterid.y %globaltimer_lo
        %total_smem_size %is_explicit_cluster %current_graph_exec %reserved_smem_offset_1 %smid %gridid"
            .split_whitespace()
    {
        assert_eq!(second(name), special(name));
    }
    assert_eq!(second("%tid .r"), special("%tid.x"));
}

#[test]
fn calls() {
    let text = ".func (.param .b32 r) f (.param .b32 a) ;
        .entry k() { .reg .b64 %rd1; .param .b32 r0; .param .b32 p0;
        proto : .callprototype (.param .b32 _) _ (.param .b32 _, .param .align 8 .b8 _[16]) .noreturn;
        table: .calltargets f, f;
        call.uni (r0), f, (p0);
        call f;
        call (r0), %rd1, (p0, p0), proto;
        call f, ();
        }";
    let module = module(text);
    let found: Vec<_> = instructions(&module.functions[1]).into_iter().map(|i| i.operands.clone()).collect();
    let symbol = |name: &str| Operand::Symbol(name.into(), 0);
    let list = |names: &[&str]| Operand::List(names.iter().map(|name| symbol(name)).collect());
    let expected = [
        vec![list(&["r0"]), symbol("f"), list(&["p0"])],
        vec![symbol("f")],
        vec![list(&["r0"]), register("%rd1"), list(&["p0", "p0"]), symbol("proto")],
        vec![symbol("f"), list(&[])],
    ];
    assert_eq!(found, expected);
}

#[test]
fn branch_targets_and_locations() {
    let function = function(
        "ts: .branchtargets A, B;\nbrx.idx %r1, ts;\n.loc 1 20 5\nA:\n.pragma \"nounroll\";\n.loc 2 7 1, function_name $L__info_string0+4, inlined_at 1 23 4\nB: C: ret;",
    );
    let body = function.body.unwrap();
    let label = |name: &str| Statement::Label(name.into());
    assert_eq!(body[0], Statement::BranchTargets("ts".into(), vec!["A".into(), "B".into()]));
    assert_eq!(body[2], Statement::Location { file: 1, line: 20 });
    assert_eq!(body[3], label("A"));
    assert_eq!(body[4], Statement::Location { file: 2, line: 7 });
    assert_eq!(body[5..7], [label("B"), label("C")]);
    assert_eq!(body.len(), 8);
}

#[test]
fn refused_statements() {
    for (body, reason) in [
        ("mov.b32 %r1, %nothing;", "`%nothing` is neither declared nor a special register"),
        ("mov.b32 %r10, 1;", "`%r10` is neither declared"),
        ("mov.b32 %r01, 1;", "`%r01` is neither declared"),
        ("mov.b32 %envreg32, 1;", "`%envreg32` is neither declared"),
        ("mov.b32 %envreg01, 1;", "`%envreg01` is neither declared"),
        ("mov.b32 %r1, %laneid.x;", "`%laneid` has no element `.x`"),
        ("mov.b32 %r1, %tid.q;", "`%tid` has no element `.q`"),
        ("mov.b32 %r1, %r2.x;", "`%r2` has no element `.x`"),
        ("vadd.s32 %r1, %r2.b0, %r3;", "parts of registers"),
        ("@%tid mov.b32 %r1, 1;", "not a declared register"),
        ("@g mov.b32 %r1, 1;", "not a declared register"),
        ("@%p1 { ret; }", "expected an instruction"),
        ("@%p1 L: ret;", "found `:`, expected an operand"),
        ("%r1 %r2;", "expected an instruction"),
        (";", "expected a statement"),
        ("mov.b32 %r1, %r2", "expected `,` or `;`"),
        ("mov.b32 %r1 %r2;", "found `%r2`, expected `,` or `;`"),
        ("mov.b32 %r1,;", "expected an operand"),
        ("mov.b32 %r1, {%r1, {%r2}};", "expected an operand"),
        ("mov.b32 %r1, {%r1;", "expected `,` or `}`"),
        ("mov.b32 %r1, (%r2);", "expected a constant"),
        ("mov.b32 %r1, %r2+4;", "expected `,` or `;`"),
        ("mov.b64 %rd1, g-8;", "expected `,` or `;`"),
        ("mov.b64 %rd1, g[2];", "subscripts"),
        ("ld.b32 %r1, [%rd1-8];", "negative offset as `+-8`"),
        ("ld.b32 %r1, [%rd1+%r2];", "expected a constant"),
        ("ld.b32 %r1, [%rd1;", "expected `+`, `,` or `]`"),
        ("ld.b32 %r1, [%clock64];", "cannot be the base"),
        ("ld.b32 %r1, [%q.x];", "cannot be the base"),
        ("ld.b32 %r1, [];", "expected a constant"),
        ("ld.b32 %r1, [%rd1+1.5];", "floating-point"),
        ("ld.b32 %r1, [%rd1, [%rd1]];", "expected an operand"),
        (".loc 1 2", "expected a column"),
        (".pragma nounroll;", "expected a string"),
        (".extern .shared .b8 x[];", "expected a statement"),
        ("ts: .branchtargets nowhere;", "`nowhere` is not a label"),
        ("p: .callprototype _ () }", "expected `;`"),
    ] {
        let error = refused_body(body);
        assert!(error.detail.contains(reason), "{body}: {error}");
        assert!((6..=7).contains(&error.line), "{body}: {error}");
    }
}
