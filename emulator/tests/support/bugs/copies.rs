//! Asynchronous copies: not waited for, too weakly, without a commit or a barrier, into a stage in use,
//! misaligned.

use super::Bug;
use emulator::report::Kind;

const MATMUL: [&str; 3] = ["matmul_mma.cu", "matmul_nn", "m 37 n 130 k 97 bias"];
const MATMUL_NT: [&str; 3] = ["matmul_mma.cu", "matmul_nt", "m 37 n 130 k 97 bias"];
const RAGGED: [&str; 3] = ["matmul_mma.cu", "matmul_nn", "m 63 n 65 k 31"];
const ATTENTION: [&str; 3] = ["attention.cu", "attention_fwd", "heads 2 tokens 197"];

/// A copy by another thread may not have begun, be in flight, or have landed with nothing that says so.
const TOO_EARLY: &[Kind] = &[Kind::AsyncCopyNotAwaited, Kind::SharedRace, Kind::UninitialisedShared];
/// A copy into memory that is read: in flight when read, or beside the read.
const TOO_SOON: &[Kind] = &[Kind::AsyncCopyNotAwaited, Kind::SharedRace];

const COPY: &str = "asm volatile(\"cp.async.cg.shared.global";
const LOAD: &str = "asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared";
const LOAD_TRANSPOSED: &str = "asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans";

pub fn bugs() -> Vec<Bug> {
    vec![
        Bug::new(
            "a slice is read without waiting for its copy",
            MATMUL,
            &[Kind::AsyncCopyNotAwaited],
            &[("        wait<STAGES - 2>();\n", "")],
            &[LOAD_TRANSPOSED, LOAD],
        ),
        Bug::new(
            "one group too many may be in flight",
            MATMUL_NT,
            &[Kind::AsyncCopyNotAwaited],
            &[("        wait<STAGES - 2>();\n", "        wait<STAGES - 1>();\n")],
            &[LOAD],
        ),
        Bug::new(
            "the loop's copies are in no group",
            MATMUL,
            &[Kind::AsyncCopyNotAwaited],
            &[("        commit();\n        multiply", "        multiply")],
            &[LOAD_TRANSPOSED, LOAD],
        ),
        Bug::new(
            "no barrier after the wait",
            MATMUL,
            TOO_EARLY,
            &[("        __syncthreads();\n        const int next", "        const int next")],
            &[LOAD_TRANSPOSED, LOAD, COPY],
        ),
        Bug::new(
            "the copy overwrites the stage in use",
            MATMUL_NT,
            TOO_SOON,
            &[(
                "load_stage<TRANSPOSED>(stages[next % STAGES]",
                "load_stage<TRANSPOSED>(stages[(next + 1) % STAGES]",
            )],
            &[LOAD, COPY],
        ),
        Bug::new(
            "two stages where the loop needs three",
            MATMUL_NT,
            TOO_SOON,
            &[
                ("load_stage<TRANSPOSED>(stages[next % STAGES]", "load_stage<TRANSPOSED>(stages[next % 2]"),
                (
                    "multiply<TRANSPOSED>(sum, stages[slice % STAGES]",
                    "multiply<TRANSPOSED>(sum, stages[slice % 2]",
                ),
            ],
            &[LOAD, COPY],
        ),
        Bug::new(
            "no group where there is nothing to copy",
            ATTENTION,
            &[Kind::AsyncCopyNotAwaited],
            &[(
                "TILE, tokens);\n        }\n        commit();",
                "TILE, tokens);\n            commit();\n        }",
            )],
            &[LOAD_TRANSPOSED, LOAD],
        ),
        Bug::new(
            "no barrier before the tile after next",
            ATTENTION,
            TOO_SOON,
            &[(
                "        __syncthreads();  // Reading this stage | overwriting it with the tile after next.\n",
                "",
            )],
            &["*(u32*)(place(query_tile, row, j) + lane % 4 * 2) = pair;", LOAD_TRANSPOSED, LOAD, COPY],
        ),
        Bug::new(
            "a copy from rows that are not 16-byte aligned",
            MATMUL,
            &[Kind::Misaligned],
            &[("(long long)row * pitch + column : 0", "(long long)row * columns + column : 0")],
            &[COPY],
        ),
        Bug::new(
            "a copy reads past the row's end",
            RAGGED,
            &[Kind::UninitialisedGlobal],
            &[("min(max(columns - column, 0), 8) : 0;", "(column < columns ? 8 : 0) : 0;")],
            &[COPY],
        ),
        Bug::new(
            "a copy reads past the last row",
            RAGGED,
            &[Kind::OutOfBounds],
            &[("row < rows ? min(max(columns - column, 0), 8) : 0;", "min(max(columns - column, 0), 8);")],
            &[COPY],
        ),
        Bug::new(
            "a matrix row between two chunks",
            RAGGED,
            &[Kind::Misaligned],
            &[("load_matrices(a[i], stage.a + place", "load_matrices(a[i], stage.a + 4 + place")],
            &[LOAD],
        ),
    ]
}
