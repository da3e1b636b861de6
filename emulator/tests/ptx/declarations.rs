//! Module directives, variables, registers, parameters, performance directives.

use crate::text::{function, module, refused, refused_body};
use emulator::ptx::ast::{Registers, Space, Type, Variable};
use emulator::ptx::parse;

fn variable(text: &str) -> Variable {
    module(text).variables.swap_remove(0)
}

#[test]
fn header() {
    let module = parse(
        "// c\n/* a\n// b */ .version 8.10 .target sm_90a, debug\n.address_size 64\n.file 1 \"a b.cu\"\n.file\t2 \"c\\\"d\", 123, 0x10",
    );
    let module = module.unwrap();
    assert_eq!(module.version, (8, 10));
    assert_eq!(module.target, ["sm_90a", "debug"]);
    assert_eq!(module.address_size, 64);
    assert_eq!(module.files, [(1, "a b.cu".to_string()), (2, "c\\\"d".to_string())]);
    assert!(parse("").unwrap_err().detail.contains("expected `.version`"));
    assert!(parse(".version 8.8").unwrap_err().detail.contains(".target"));
    assert!(parse(".version 8.8 .target sm_80 .address_size 32").unwrap_err().detail.contains("only 64"));
}

#[test]
fn sections_aliases_and_pragmas_are_read_over() {
    let module = module(
        ".section .debug_str\n{\n$L__i0:\n.b8 95,-1\n{ .b64 x+4 } .b32 y-x\n}\n.pragma \"a\", \"b\";\n.func f() {}\n.func g();\n.alias g, f;\n.global .u8 last;",
    );
    assert_eq!(module.aliases, [("g".to_string(), "f".to_string())]);
    assert_eq!(module.functions.len(), 2);
    assert_eq!(module.variables[0].name, "last");
    let open = refused(".section .debug_str {\n{ }\n");
    assert_eq!((open.line, open.detail.as_str()), (4, "the section's `{` has no `}`"));
}

#[test]
fn variables_of_a_module() {
    let plain = variable("\n.visible .global .u32 counter = 7;");
    let expected = Variable {
        space: Space::Global,
        align: 4,
        element: Type::U32,
        name: "counter".into(),
        size: 4,
        external: false,
        initial: vec![7, 0, 0, 0],
        addresses: vec![],
        line: 5,
    };
    assert_eq!(plain, expected);

    let shared = variable(".extern .shared .align 1024 .b8 tile[];");
    assert_eq!((shared.space, shared.align, shared.size, shared.external), (Space::Shared, 1024, 0, true));
    let matrix = variable(".const .f64 m[2][3][4];");
    assert_eq!((matrix.space, matrix.align, matrix.size, matrix.initial.len()), (Space::Constant, 8, 192, 0));
    let vector = variable(".weak .global .v4 .f32 v[3];");
    assert_eq!((vector.align, vector.size), (16, 48));
    let managed = variable(".global .attribute(.managed) .align 16 .u32 x;");
    assert_eq!((managed.align, managed.size), (16, 4));
    variable(".global .align 8 .attribute(.managed, .unified(19, 95)) .u32 x;");
    variable(".common .global .u32 x;");

    let list = module(".global .u16 a, b = 3, c[4];").variables;
    let names: Vec<_> = list.iter().map(|v| (v.name.as_str(), v.size, v.initial.as_slice())).collect();
    assert_eq!(names, [("a", 2, &[][..]), ("b", 2, &[3, 0][..]), ("c", 8, &[][..])]);
}

#[test]
fn initialisers_with_lists() {
    let open = variable(".global .u8 a[] = {1, 2, 3};");
    assert_eq!((open.size, open.initial), (3, vec![1, 2, 3]));
    let nested = variable(".global .u8 a[3][2] = {{1, 2}, {3}};");
    assert_eq!(nested.initial, [1, 2, 3, 0, 0, 0]);
    let rows = variable(".global .u8 a[][2] = {{1, 2}, {3, 4}, {5}};");
    assert_eq!(rows.initial, [1, 2, 3, 4, 5, 0]);
    let vectors = variable(".global .v2 .u8 a[3] = {{1, 2}, {3, 4}};");
    assert_eq!(vectors.initial, [1, 2, 3, 4, 0, 0]);
    assert_eq!(variable(".global .u8 a[4] = {};").initial, [0; 4]);
    for (text, reason) in [
        (".global .u8 a[2] = {1, 2, 3};", "more than 2"),
        (".global .u8 a[2][2] = {1, 2, 3, 4};", "expected `{`"),
        (".global .u8 a[2][3] = {{1, 2}, {3}};", "shorter than its dimension"),
        (".global .v4 .u8 a = {1, 2, 3};", "a vector of 4"),
        (".global .u8 a = {1};", "expected a constant"),
        (".global .u8 a[2] = 1;", "expected `{`"),
        (".global .u8 a[] = {};", "no size"),
        (".global .u8 a[2] = {1,};", "expected a constant"),
        (".global .u8 a[2] = {1;", "expected `,` or `}`"),
        (".global .u8 a[4] = \"abc\";", "strings"),
        (".global .u8 a[99000000] = {1};", "more than the"),
        (".global .u8 a[][99000000] = {{1}};", "more than the"),
        (".shared .u8 a = 1;", "only .global and .const"),
        (".extern .global .u8 a = 1;", "only .global and .const"),
    ] {
        let error = refused(text);
        assert!(error.detail.contains(reason), "{text}: {error}");
    }
    let half = ".global .u8 a[40000000] = {1};\n.global .u8 b[40000000] = {1};";
    assert_eq!(refused(half).line, 5, "two that fit alone do not fit together");
}

#[test]
fn addresses_as_initial_values() {
    let module = module(
        ".func f();\n.global .u32 h;\n.global .u64 a[5] = {h, h+4, 3, generic(h)+4, generic(h+1)+-8};\n.global .u64 p = f;",
    );
    let addresses = [
        (0, "h".to_string(), 0, false),
        (8, "h".to_string(), 4, false),
        (24, "h".to_string(), 4, true),
        (32, "h".to_string(), -7, true),
    ];
    assert_eq!(module.variables[1].addresses, addresses);
    assert_eq!(module.variables[1].initial[16], 3);
    assert_eq!(module.variables[1].size, 40);
    assert_eq!(module.variables[2].addresses, [(0, "f".to_string(), 0, false)]);
    assert!(refused(".global .u64 a = h;").detail.contains("names nothing declared before"));
    assert!(refused(".global .u32 h;\n.global .u32 a = h;").detail.contains("64 bits"));
    assert!(refused(".global .u32 h;\n.global .u8 a[2] = {0xFF(h), 0};").detail.contains("masks"));
}

#[test]
fn headers_of_functions() {
    let module = module(
        ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
        .visible .entry k(.param .align 64 .b8 map[128], .param .u64 .ptr .global .align 16 p, .param .u64 .ptr q)
        .maxntid 128, 2 .minnctapersm 3 .maxnreg 64 .explicitcluster .reqnctapercluster 2 .maxclusterrank 8 .pragma \"x\";
        { ret; }
        .weak .entry none .reqntid 1,2,3 { }
        .func (.reg .f32 %o) add(.reg .f32 %a, .param .b8 rest[]) .noreturn { mov.f32 %o, %a; ret; }",
    );
    let [vprintf, k, none, add] = &module.functions[..] else { panic!("{module:#?}") };
    assert!(vprintf.external && !vprintf.entry && vprintf.body.is_none());
    assert_eq!((vprintf.returns.len(), vprintf.parameters.len(), vprintf.line), (1, 2, 4));
    assert!(k.entry && !k.external && k.line == 5);
    let sizes: Vec<_> = k.parameters.iter().map(|p| (p.name.as_str(), p.size, p.align)).collect();
    assert_eq!(sizes, [("map", 128, 64), ("p", 8, 8), ("q", 8, 8)]);
    assert_eq!((k.max_threads, k.required_threads), (Some([128, 2, 1]), None));
    assert_eq!((k.min_blocks, k.max_registers, k.cluster), (Some(3), Some(64), Some([2, 1, 1])));
    assert_eq!((none.required_threads, none.body.as_deref()), (Some([1, 2, 3]), Some(&[][..])));
    assert_eq!((add.returns[0].space, add.parameters[1].size), (Space::Register, 0));
    let declared: Vec<_> = add.registers.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(declared, ["%o", "%a"]);
}

#[test]
fn registers() {
    let function = function(".reg .b16 %rs<3>, a, b<2>; .reg .v2 .f32 w<2>; .reg .b128 big;");
    let registers =
        |name: &str, element, count, vector| Registers { name: name.into(), element, count, vector };
    let expected = [
        registers("%q", Type::U32, None, 4),
        registers("%rs", Type::B16, Some(3), 1),
        registers("a", Type::B16, None, 1),
        registers("b", Type::B16, Some(2), 1),
        registers("w", Type::F32, Some(2), 2),
        registers("big", Type::B128, None, 1),
    ];
    assert_eq!(function.registers[4..], expected);
}

#[test]
fn refused_declarations() {
    for (text, reason) in [
        (".global .u32 g; .global .u32 g;", "`g` is defined twice"),
        (".func f() {} .func f() {}", "`f` is defined twice"),
        (".entry k(.param .u64 a, .param .u32 a) {}", "`a` is declared twice"),
        (".global .u32 g[];", "has no size"),
        (".global .u32 g[0];", "is 0"),
        (".global .b8 g[99999999999][99999999];", "is larger than"),
        (".global .b8 g[99999999999][99999999999];", "is larger than"),
        (".global .u64 g[2305843009213693952];", "is larger than"),
        (".global .b8 g[1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1];", "dimensions"),
        (".global .align 3 .u32 g;", "no power of two"),
        (".global .align 0 .u32 g;", "no power of two"),
        (".global .align 8589934592 .u32 g;", "more than 32 bits"),
        (".global .v3 .u32 g;", "expected a type"),
        (".global .pred g;", "predicate"),
        (".global .texref g;", "not supported"),
        (".tex .u32 g;", "not supported"),
        (".const[2] .u32 g;", "banks"),
        (".global .u32 _;", "no name"),
        (".reg .u32 r;", "expected a directive of a module"),
        (".func f() .maxmtid 3 {}", "`.maxmtid`"),
        (".func f() {", "expected `}` for the `{` in line 4"),
        (".entry k(.param .u32 a", "found the end of the text, expected `)`"),
        ("add.s32 a, b, c;", "found `add`, expected a directive"),
    ] {
        let error = refused(text);
        assert!(error.detail.contains(reason), "{text}: {error}");
        assert_eq!(error.line, 4, "{text}: {error}");
    }
    for (body, reason) in [
        (".reg .b32 %z<4000000000>;", "more than 1048576 registers"),
        (".reg .b32 %z<99999999999999999999>;", "no number"),
        (".reg .b32 %z<1000000>; .reg .b32 %y<1000000>;", "more than 1048576 registers"),
        (".reg .v4 .b32 %z<300000>;", "more than 1048576 registers"),
        (".reg .b32 z; .reg .b64 z;", "`z` is declared twice"),
        (".reg .b32 %r3;", "`%r3` is declared twice"),
        (".reg .b32 %r<3>;", "`%r<3>` is declared twice"),
        (".reg .b32 a<30>; .reg .b32 a1<3>; mov.b32 a11, 1;", "`a11` is declared twice"),
        (".local .u32 g = 5;", "only .global and .const"),
    ] {
        let error = refused_body(body);
        assert!(error.detail.contains(reason), "{body}: {error}");
        assert_eq!(error.line, 6, "{body}: {error}");
    }
}
