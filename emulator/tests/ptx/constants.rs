//! Numbers and constant expressions. The values of the expressions are those that `ptxas` 12.9 puts into the image
//! of `.global .u64 v = ...;`; a few thousand random ones were compared the same way once.

use crate::text::{function, instructions, module, operands, refused, refused_body};
use emulator::ptx::ast::Operand;

fn value(expression: &str) -> i64 {
    let module = module(&format!(".global .u64 v = {expression};"));
    i64::from_le_bytes(module.variables[0].initial[..].try_into().unwrap())
}

#[test]
fn expressions_have_the_values_of_ptxas() {
    let cases: &[(&str, i64)] = &[
        ("12", 12),
        ("0x1F", 31),
        ("0X1f", 31),
        ("0b101", 5),
        ("017", 15),
        ("0", 0),
        ("12U", 12),
        ("0U", 0),
        ("-3", -3),
        ("--3", 3),
        ("+3", 3),
        ("18446744073709551615", -1),
        ("(1<<4)|3", 19),
        ("1+2*3", 7),
        ("7-2-1", 4),
        ("100/7/2", 7),
        ("64>>1>>1", 16),
        ("1<<2+1", 8),
        ("3&2==2", 1),
        ("1||0&&0", 1),
        ("1?2:0?3:4", 2),
        ("0?2:0?3:4", 4),
        ("WARP_SZ*2", 64),
        ("!0", 1),
        ("!5", 0),
        ("-7/2", -3),
        ("-7/2U", 9223372036854775804),
        ("(-8)>>1", -4),
        ("(-8U)>>1", 9223372036854775804),
        ("~1>>1", i64::MAX),
        ("~7/-2", 0),
        ("-7 % 3", 0),
        ("-7 % 4", 1),
        ("8 % -3", 8),
        ("3<<65", 6),
        ("31>>65", 15),
        ("(-1)<1U", 0),
        ("(-1)<1", 1),
        ("(-1|0)<0", 1),
        ("5-7U<0", 0),
        ("0xFFFFFFFFFFFFFFFF<0", 0),
        ("-1>>0U<0", 1),
        ("(.u64)-1<0", 0),
        ("(.s64)(1U-2)<0", 1),
        ("-9223372036854775808 % -1", i64::MIN),
        ("(-9223372036854775808)/(-1)", 0),
        ("1.5<2.0", 1),
        ("2.5!=2.5", 0),
    ];
    for &(expression, expected) in cases {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

#[test]
fn constants_as_operands() {
    let second = |text: &str| operands(&format!("mov.b64 %rd1, {text};")).swap_remove(1);
    assert_eq!(second("-3"), Operand::Integer(-3));
    assert_eq!(second("0xFFFFFFFFFFFFFFFF"), Operand::Integer(-1));
    assert_eq!(second("(1<<4)|3"), Operand::Integer(19));
    assert_eq!(second("((3))"), Operand::Integer(3));
    assert_eq!(second("1 ? 2 : 3"), Operand::Integer(2));
    assert_eq!(second("0f3F800000"), Operand::Float32(1.0f32.to_bits()));
    assert_eq!(second("0F7f800000"), Operand::Float32(f32::INFINITY.to_bits()));
    assert_eq!(second("(0f3F800000)"), Operand::Float32(1.0f32.to_bits()));
    assert_eq!(second("0d3FF8000000000000"), Operand::Float64(1.5f64.to_bits()));
    for (text, value) in [
        ("1.5", 1.5f64),
        ("-1.5", -1.5),
        ("1e-3", 1e-3),
        ("1E+3", 1e3),
        ("2e3", 2e3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.5+2.0", 3.5),
        ("-0.0", -0.0),
        ("1.0/3.0", 1.0 / 3.0),
    ] {
        assert_eq!(second(text), Operand::Float64(value.to_bits()), "{text}");
    }
    assert_eq!(second("WARP_SZ"), Operand::Special("WARP_SZ".into()));
    assert_eq!(second("WARP_SZ-1"), Operand::Integer(31));
}

#[test]
fn a_constant_before_a_colon_is_no_label() {
    let line = "mov.b64 %rd1, 1 ? WARP_SZ : 3;";
    let function = function(&line.repeat(2));
    let values: Vec<_> = instructions(&function).into_iter().map(|i| i.operands[1].clone()).collect();
    assert_eq!(values, [Operand::Integer(32), Operand::Integer(32)]);
}

#[test]
fn malformed_constants_are_refused() {
    for text in [
        "0f3F8",
        "0f3F8000000",
        "0d3FF0",
        "-0f3F800000",
        "0f3F800000*2.0",
        "09",
        "0x",
        "0b",
        "0b2",
        "0xG",
        "12u",
        "12UL",
        "12UU",
        "1.5f",
        "1e",
        "1e+",
        "1_000",
        "18446744073709551616",
        "3/0",
        "3U/0",
        "1.5+2",
        "!1.5",
        "~1.5",
        "0.5?1:2",
        "(.u64)1.5",
        "(1",
        "1+",
        "1?2",
        "()",
    ] {
        let error = refused_body(&format!("mov.b64 %rd1, {text};"));
        assert_eq!(error.line, 6, "{text}: {error}");
    }
}

#[test]
fn initial_values_of_every_type() {
    let bytes = |text: &str| module(text).variables[0].initial.clone();
    assert_eq!(bytes(".global .s8 a[5] = {-1, 200, 0x1F, 017, 0b101};"), [255, 200, 31, 15, 5]);
    assert_eq!(bytes(".global .b16 a[3] = {-1, 65537};"), [255, 255, 1, 0, 0, 0]);
    assert_eq!(bytes(".const .f32 a = 0.1;"), 0.1f32.to_le_bytes());
    assert_eq!(bytes(".global .f32 a = 0d3FF8000000000000;"), 1.5f32.to_le_bytes());
    assert_eq!(bytes(".global .f32 a = 0f80000000;"), (-0.0f32).to_le_bytes());
    assert_eq!(bytes(".global .f64 a = 0dBFB999999999999A;"), (-0.1f64).to_le_bytes());
    assert_eq!(bytes(".global .b64 a = 1.5;"), 1.5f64.to_le_bytes());
    assert_eq!(bytes(".global .b32 a = 1.0;"), 1.0f32.to_le_bytes());
    assert_eq!(bytes(".global .b32 a = 0f3F800000;"), 1.0f32.to_le_bytes());
    for text in [
        ".global .f32 a = 3;",
        ".global .u32 a = 1.5;",
        ".global .u32 a = 0f3F800000;",
        ".global .f64 a = 0f3F800000;",
        ".global .f16 a = 1.0;",
        ".global .b128 a = 1;",
    ] {
        let error = refused(text);
        assert!(error.detail.contains("initial value of type"), "{text}: {error}");
    }
}
