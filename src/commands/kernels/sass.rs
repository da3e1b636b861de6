//! Machine code: NVIDIA's disassembler where there is one, and what its text says of a kernel's hottest loop.

use engine::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `nvdisasm`, found.
#[derive(Debug, Clone)]
pub struct Disassembler {
    program: PathBuf,
    /// As it says itself: `13.5.37`.
    pub version: String,
}

impl Disassembler {
    /// The first in PATH, in the toolkit's folders, among the wheels of Python environments.
    ///
    /// # Errors
    ///
    /// There is none; the message says how to get it.
    pub fn find() -> Result<Disassembler> {
        folders().into_iter().map(|folder| folder.join("nvdisasm")).find_map(|path| open(&path)).ok_or_else(|| {
            Error::new(
                ErrorKind::Device,
                "find nvdisasm",
                "the disassembler of machine code is not here. To get it: pip install nvidia-cuda-nvdisasm, or \
                 install the CUDA toolkit; its folder may be named in PATH or be bin in CUDA_HOME",
            )
        })
    }

    /// The functions of a CUBIN: name and text.
    pub fn disassemble(&self, cubin: &[u8]) -> Result<BTreeMap<String, String>> {
        let file = env::temp_dir().join(format!("pretext-{}-{:p}.cubin", std::process::id(), cubin.as_ptr()));
        std::fs::write(&file, cubin).map_err(|e| Error::io("disassemble", &file, e))?;
        let answer = Command::new(&self.program).arg("--print-code").arg(&file).output();
        let _ = std::fs::remove_file(&file);
        let answer = answer.map_err(|e| Error::io("disassemble", &self.program, e))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            return Err(Error::new(ErrorKind::Device, "disassemble", format!("nvdisasm: {}", said.trim())));
        }
        Ok(functions(&String::from_utf8_lossy(&answer.stdout)))
    }
}

/// Where programs of the toolkit may lie.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let mut folders: Vec<PathBuf> =
        variable("PATH").map(|list| env::split_paths(&list).collect()).unwrap_or_default();
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).map(PathBuf::from);
    folders.extend(homes.chain([PathBuf::from("/usr/local/cuda")]).map(|home| home.join("bin")));
    // The libraries' folders of wheels are site-packages/nvidia/PACKAGE/lib; programs lie in bin beside lib.
    let libraries = engine::cuda::nvrtc::library_folders();
    folders.extend(libraries.iter().filter_map(|folder| folder.parent()).map(|package| package.join("bin")));
    folders
}

fn open(program: &Path) -> Option<Disassembler> {
    let said = Command::new(program).arg("--version").output().ok().filter(|said| said.status.success())?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = text.lines().find_map(|line| line.rsplit_once(", V")).map(|(_, version)| version.trim());
    Some(Disassembler { program: program.to_path_buf(), version: version.unwrap_or("unknown").to_string() })
}

/// The text of each function in nvdisasm's.
fn functions(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(section) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            name = Some(section.to_string());
        } else if line.starts_with("//----") {
            name = None;
        } else if let Some(name) = &name {
            let text: &mut String = all.entry(name.clone()).or_default();
            let _ = writeln!(text, "{line}");
        }
    }
    all
}

/// The classes that instructions are counted in, in the order in which they are written. A product of warpgroups counts as
/// many `mma` as [`weight`] says, in all and among them.
pub const CLASSES: [&str; 12] = [
    "all",
    "mma",
    "ldmatrix",
    "global",
    "global128",
    "shared",
    "local",
    "special",
    "float",
    "integer",
    "barrier",
    "call",
];

/// The class of an opcode such as `LDG.E.128`; the rest (moves, branches, predicates) is in `all` alone.
fn class(opcode: &str) -> Option<&'static str> {
    let name = opcode.split('.').next().unwrap_or_default();
    Some(match name {
        "HMMA" | "IMMA" | "HGMMA" | "IGMMA" | "BMMA" | "DMMA" | "QGMMA" => "mma",
        "LDSM" | "STSM" => "ldmatrix",
        "LDG" | "STG" | "LDGSTS" | "ATOMG" | "RED" | "LD" | "ST" | "ATOM" | "UTMALDG" | "UTMASTG" => "global",
        "LDS" | "STS" | "ATOMS" => "shared",
        "LDL" | "STL" => "local",
        "MUFU" => "special",
        "CALL" => "call",
        "BAR" | "MEMBAR" | "WARPSYNC" | "DEPBAR" | "LDGDEPBAR" | "SYNCS" => "barrier",
        "FFMA" | "FADD" | "FMUL" | "FMNMX" | "FSETP" | "FSEL" | "FSET" | "FCHK" | "FRND" => "float",
        "DFMA" | "DADD" | "DMUL" | "DSETP" | "HFMA2" | "HADD2" | "HMUL2" | "HMNMX2" | "HSETP2" => "float",
        _ if ["I2F", "F2I", "F2F", "I2I"].iter().any(|start| name.starts_with(start)) => "special",
        "IMAD" | "IADD3" | "IADD" | "IMNMX" | "VIMNMX" | "LOP3" | "SHF" | "LEA" | "ISETP" | "SEL"
        | "PRMT" | "IABS" | "POPC" | "FLO" | "BREV" | "IDP" | "VIADD" | "SGXT" | "BMSK" => "integer",
        "UIMAD" | "UIADD3" | "ULOP3" | "USHF" | "ULEA" | "UISETP" | "USEL" | "UPRMT" => "integer",
        _ => return None,
    })
}

/// What an instruction counts: 1, and `HGMMA.64x256x16` the 32 products of m16n8k16 that each of its four warps would take.
fn weight(opcode: &str) -> u32 {
    let columns = |shape: &str| shape.split('x').nth(1)?.parse::<u32>().ok();
    let shape = opcode.strip_prefix("HGMMA.").and_then(|rest| rest.split('.').next());
    shape.and_then(columns).map_or(1, |columns| (columns / 8).max(1))
}

/// The instructions of a kernel's hottest loop, or of all of it where it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Whether there is a loop.
    pub is_loop: bool,
    /// A number for each of [`CLASSES`].
    pub counts: [u32; CLASSES.len()],
}

/// The loop that has most tensor core instructions outside of the loops that it holds, without those; where there are none, of
/// the loops that hold no other the one with most instructions. Of two with the same products, the shorter one.
///
/// A loop is what lies between a label and a branch back to it. The branch to itself that ends a function is none.
pub fn hottest_loop(function: &str) -> Loop {
    let mut labels: HashMap<&str, usize> = HashMap::new();
    let mut opcodes: Vec<&str> = Vec::new();
    let mut loops: Vec<(usize, usize)> = Vec::new();
    for line in function.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, opcodes.len());
            continue;
        }
        // `/*0110*/ @P0 BRA `(.L_x_1) ;`
        let Some((_, code)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else {
            continue;
        };
        let mut words = code.split_whitespace().skip_while(|word| word.starts_with(['@', '{']));
        let Some(opcode) = words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
        else {
            continue;
        };
        let target = code.split("`(").nth(1).and_then(|rest| rest.split(')').next());
        let start = target.filter(|_| opcode.starts_with("BRA")).and_then(|label| labels.get(label));
        loops.extend(start.filter(|&&start| start < opcodes.len()).map(|&start| (start, opcodes.len())));
        opcodes.push(opcode.trim_end_matches(';'));
    }
    let holds = |&(start, end): &(usize, usize), &(s, e): &(usize, usize)| {
        (s, e) != (start, end) && start <= s && e <= end && e - s < end - start
    };
    let own = |of: &(usize, usize)| {
        let held: Vec<_> = loops.iter().filter(|inner| holds(of, inner)).collect();
        let is_own = |i: &usize| !held.iter().any(|&&(start, end)| (start..=end).contains(i));
        let opcodes: Vec<&str> = (of.0..=of.1).filter(is_own).map(|i| opcodes[i]).collect();
        count(&opcodes)
    };
    let mma = |counts: &[u32; CLASSES.len()]| counts[1];
    let products = loops.iter().map(own).filter(|counts| mma(counts) > 0);
    let inner = loops.iter().filter(|of| !loops.iter().any(|other| holds(of, other))).map(own);
    // A branch back from code that lies apart, such as a wait, makes a loop of all between too: of two with the same
    // products the shorter one is meant.
    let hottest = products.max_by_key(|counts| (mma(counts), std::cmp::Reverse(counts[0])));
    match hottest.or_else(|| inner.max_by_key(|counts| counts[0])) {
        Some(counts) => Loop { is_loop: true, counts },
        None => Loop { is_loop: false, counts: count(&opcodes) },
    }
}

fn count(opcodes: &[&str]) -> [u32; CLASSES.len()] {
    let mut counts = [0; CLASSES.len()];
    for opcode in opcodes.iter().filter(|opcode| !opcode.starts_with("NOP")) {
        let mut add = |name: &str| {
            if let Some(at) = CLASSES.iter().position(|class| *class == name) {
                counts[at] += weight(opcode);
            }
        };
        add("all");
        let class = class(opcode);
        class.iter().for_each(|class| add(class));
        if class == Some("global") && opcode.split('.').any(|part| part == "128") {
            add("global128");
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait that lies behind the end goes back into the loop: what it spans has the same product, and more.
    #[test]
    fn a_wait_apart_makes_no_hotter_loop() {
        let text =
            [".A:", "HMMA", ".B:", "IADD3", "BRA `(.A)", "IMAD", "IMAD", "EXIT", ".C:", "SYNCS", "BRA `(.A)"];
        let line = |code: &&str| match code.ends_with(':') {
            true => format!("{code}\n"),
            false => format!("/*0010*/ {code} ;\n"),
        };
        let found = hottest_loop(&text.iter().map(line).collect::<String>());
        assert_eq!(found.counts[..2], [3, 1]);
    }

    #[test]
    fn products_of_warpgroups_count_as_what_they_stand_for() {
        for (opcode, expected) in
            [("HGMMA.64x256x16.F32.BF16", 32), ("HGMMA.64x8x16.F32.BF16", 1), ("HMMA.16816.F32.BF16", 1)]
        {
            assert_eq!(weight(opcode), expected, "{opcode}");
        }
        let counts = count(&["HGMMA.64x64x16.F32.BF16", "IMAD", "LDSM.16.M88.4"]);
        assert_eq!(counts[..3], [10, 8, 1]);
    }

    const TEXT: &str = "\
//--------------------- .text.k_f32 --------------------------
\t.section\t.text.k_f32,\"ax\",@progbits
k_f32:
.text.k_f32:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R10.64] ;
.L_x_2:
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R10, R4 ;
        /*0030*/              @!P0 FFMA R1, R2, R3, R4 ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/                   STG.E R4, desc[UR4][R10.64] ;
        /*0060*/               @P1 BRA `(.L_x_1) ;
        /*0070*/                   BRA `(.L_x_9) ;
.L_x_3:
        /*0080*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0090*/                   IADD3 R1, R1, 0x1, RZ ;
        /*00a0*/                   IADD3 R1, R1, 0x1, RZ ;
        /*00b0*/               @P0 BRA `(.L_x_3) ;
.L_x_9:
        /*00c0*/                   BRA `(.L_x_9);
        /*00d0*/                   NOP;
//--------------------- .text.other --------------------------
.text.other:
        /*0000*/                   EXIT ;
";

    fn of(counts: &Loop, class: &str) -> u32 {
        counts.counts[CLASSES.iter().position(|c| *c == class).unwrap()]
    }

    /// The inner loop with the tensor core instruction, though another is longer.
    #[test]
    fn the_hottest_loop_is_found() {
        let all = functions(TEXT);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["k_f32", "other"]);
        let hot = hottest_loop(&all["k_f32"]);
        assert!(hot.is_loop);
        assert_eq!(["all", "mma", "float", "global", "integer"].map(|c| of(&hot, c)), [3, 1, 1, 0, 0]);
        let without = hottest_loop(&all["k_f32"].replace("HMMA.16816.F32.BF16", "MOV"));
        assert_eq!(["all", "integer"].map(|c| of(&without, c)), [4, 3], "then the longest");
    }

    /// A loop with tensor core instructions that holds a short one without.
    #[test]
    fn what_a_loop_holds_is_not_counted_with_it() {
        let text = TEXT.replace("HMMA.16816.F32.BF16", "MOV").replace("LDG.E.128", "HMMA.16816.F32.BF16");
        let hot = hottest_loop(&functions(&text)["k_f32"]);
        assert_eq!(["all", "mma", "float", "global"].map(|c| of(&hot, c)), [3, 1, 0, 1]);
    }

    #[test]
    fn without_a_loop_all_of_the_kernel_counts() {
        let text = "/*0000*/ LDG.E.128 R4, [R2] ;\n/*0010*/ LDG.E R4, [R2] ;\n/*0020*/ EXIT ;\n.L_x_1:\n\
                    /*0030*/ BRA `(.L_x_1);\n/*0040*/ NOP;\n";
        let all = hottest_loop(text);
        assert!(!all.is_loop);
        assert_eq!(["all", "global", "global128"].map(|c| of(&all, c)), [4, 2, 1]);
    }
}
