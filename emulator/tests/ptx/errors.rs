//! Texts that are no PTX, texts that nest deeply, and large ones: a clear error, or a result in bounded time.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::text::{HEADER, function, module, refused, refused_body};
use emulator::ptx::{ParseError, parse};

#[test]
fn an_error_reads_well() {
    let error = refused_body("add.s32 %r1, %r2, %r3;\nadd.s32 %r1, %r2 %r3;");
    assert_eq!(error, ParseError { line: 7, detail: "found `%r3`, expected `,` or `;`".into() });
    assert_eq!(error.to_string(), "PTX line 7: found `%r3`, expected `,` or `;`");
}

#[test]
fn characters_comments_and_strings() {
    for (text, line, reason) in [
        ("\n#", 5, "character `#`"),
        ("\u{e9}", 4, "character `\\u{e9}`"),
        ("\0", 4, "character `\\u{0}`"),
        ("$", 4, "character `$`"),
        ("/* \n\n", 4, "the comment `/*` has no end"),
        ("/*/", 4, "the comment `/*` has no end"),
        (".file 1 \"a\nb\"", 4, "the string has no end"),
        (".file 1 \"a\\", 4, "the string has no end"),
        (".file 1 \"a\\\"", 4, "the string has no end"),
        ("/* \n\n */ \r\n\t?", 7, "found `?`, expected a directive"),
        ("\"\u{1f980}\"", 4, "found the string"),
    ] {
        let error = refused(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.detail.contains(reason), "{text:?}: {error}");
    }
    module("// \u{e9} /* \n/* \u{e9} // */ .file 1 \"\u{1f980}\\\u{e9}\"//");
    let long = refused(&"x".repeat(1000));
    assert!(long.detail.len() < 150, "{long}");
}

#[test]
fn deep_nesting_is_an_error_or_works() {
    let many = 10_000;
    for open in [
        "{", "(", "[", "-", "- -", "!", "~", "1+(", "1?", "1?1:", "{{", "(.s64)", "_|", "@", "@!", "{1,",
        "[g,", "[g,[",
    ] {
        for body in [open.repeat(many), format!("mov.b32 %r1, {};", open.repeat(many))] {
            let error = refused_body(&body);
            assert!((6..=7).contains(&error.line), "{open}: {error}");
        }
    }
    let nested = format!("{}ret;{}", "{".repeat(many), "}".repeat(many));
    assert!(refused_body(&nested).detail.contains("blocks nest deeper"));
    let parenthesised = format!("mov.b32 %r1, {}1{};", "(".repeat(many), ")".repeat(many));
    assert!(refused_body(&parenthesised).detail.contains("nests deeper"));
    refused(&format!(".global .u32 g = {}", "{".repeat(many)));
    refused(&format!(".global .u32 g[1][1] = {}", "{".repeat(many)));
    refused(&format!(".section .x {}", "{".repeat(many)));

    function(&format!("{}ret;{}", "{".repeat(1000), "}".repeat(1000)));
    function(&format!("mov.b32 %r1, {}1{};", "(".repeat(100), ")".repeat(100)));
    function(&format!("mov.b32 %r1, 1{};", "+1".repeat(many)));
    module(&format!(".section .x {}{}", "{".repeat(many), "}".repeat(many)));
}

/// Parses within a time that is far above what is needed, and far below what quadratic work would take.
fn in_time(text: &str) -> Result<emulator::ptx::ast::Module, ParseError> {
    let start = Instant::now();
    let result = parse(text);
    assert!(start.elapsed() < Duration::from_secs(20), "{} bytes took {:?}", text.len(), start.elapsed());
    result
}

#[test]
fn five_megabytes_in_bounded_time() {
    let fixture = include_str!("gemm.ptx");
    let (header, rest) = fixture.split_once(".visible").unwrap();
    let (kernel, _) = rest.split_once("\t.file").unwrap();
    let mut text = header.to_string();
    let mut count = 0;
    while text.len() < 5 << 20 {
        write!(text, ".visible{}", kernel.replace("gemm", &format!("g{count}"))).unwrap();
        count += 1;
    }
    assert_eq!(in_time(&text).unwrap().functions.len(), count);
}

#[test]
fn hostile_megabytes_in_bounded_time() {
    let body = |text: String| format!("{HEADER}.entry k() {{ .reg .b32 %r<9>; {text}");
    let million = 1 << 20;
    // 1,000 scopes that shadow a family with a smaller one, and many uses of the outermost.
    let shadow = "{ .reg .b32 %r<1>;".repeat(1000) + &"mov.b32 %r8, 1;".repeat(100_000);
    in_time(&body(shadow + &"}".repeat(1000) + "}")).unwrap();
    // One name, declared again and again.
    in_time(&body("{ .reg .b32 x; .reg .b32 x<2>; L: bra L; mov.b32 x1, x; }".repeat(50_000) + "}")).unwrap();
    in_time(&body("mov.b32 %r1, %r1".to_string() + &"1".repeat(million) + ";")).unwrap_err();
    in_time(&body("mov.b32 %r1, ".to_string() + &"1".repeat(million) + ";")).unwrap_err();
    in_time(&body("add".to_string() + &".x".repeat(million) + ";}")).unwrap();
    in_time(&body("call (".to_string() + &"%r1,".repeat(million) + "%r1);}")).unwrap();
    in_time(&body("L: {".repeat(million))).unwrap_err();
    in_time(&body("x: ".repeat(million))).unwrap_err();
    in_time(&(HEADER.to_string() + &".func f() {".repeat(million / 4))).unwrap_err();
    in_time(&(HEADER.to_string() + &"/*".repeat(million))).unwrap_err();
    in_time(&(HEADER.to_string() + ".global .u8 a[] = {" + &"1,".repeat(million) + "1};")).unwrap();
    let large = ".global .u8 a[67000000] = {1};";
    in_time(&(HEADER.to_string() + &large.repeat(10_000))).unwrap_err();
    let families: String =
        (0..100_000).map(|i| format!(".func f{i}() {{ .reg .b32 %r<1000000>; }}")).collect();
    in_time(&(HEADER.to_string() + &families)).unwrap();
}
