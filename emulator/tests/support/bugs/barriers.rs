//! Missing barriers and fences, missing atomics, divergence, deadlock.

use super::Bug;
use crate::support::case::Contents;
use emulator::report::Kind;

const SOFTMAX: [&str; 3] = ["softmax.cu", "softmax_fwd", "rows 7 columns 1025"];
const REDUCE: [&str; 3] = ["reduce.cu", "column_sum", "rows 100 columns 129 splits 3"];
const TRANSPOSE: [&str; 3] = ["transpose.cu", "transpose", "rows 31 columns 33"];
const SCAN: [&str; 3] = ["scan.cu", "scan_rows", "rows 1 columns 2500"];
const COMPACT: [&str; 3] = ["scan.cu", "compact_rows", "rows 17 columns 33"];
const HISTOGRAM: [&str; 3] = ["histogram.cu", "histogram", "count 5003 bins 10 blocks 4"];
const NTXENT: [&str; 3] = ["ntxent.cu", "ntxent_fwd", "images 33 features 64"];
const XENT: [&str; 3] = ["softmax_xent.cu", "softmax_xent_fwd", "batch 3 classes 257"];
const MATMUL: [&str; 3] = ["matmul_mma.cu", "matmul_nn", "m 100 n 72 k 96"];
const ATTENTION: [&str; 3] = ["attention.cu", "attention_fwd", "heads 2 tokens 50"];

/// Without a barrier a read may come too early, or beside the write.
const EARLY_OR_BESIDE: &[Kind] = &[Kind::SharedRace, Kind::UninitialisedShared];

pub fn bugs() -> Vec<Bug> {
    missing_barriers().into_iter().chain(missing_order()).chain(divergence()).chain(endless()).collect()
}

fn missing_barriers() -> Vec<Bug> {
    vec![
        Bug::new(
            "no barrier before the partials are read",
            SOFTMAX,
            EARLY_OR_BESIDE,
            &[("        __syncthreads();  // Writing the warps' partials | reading all of them.\n", "")],
            &["partials[warp] = mine;", "Partial all = partials[0];", "all = merge(all, partials[w]);"],
        ),
        Bug::new(
            "no barrier before the next row's partials",
            SOFTMAX,
            &[Kind::SharedRace],
            &[("        __syncthreads();  // Reading this row's partials | writing the next row's.\n", "")],
            &["partials[warp] = mine;", "Partial all = partials[0];", "all = merge(all, partials[w]);"],
        ),
        Bug::new(
            "no barrier between writing the tile and reading it",
            TRANSPOSE,
            EARLY_OR_BESIDE,
            &[("    __syncthreads();  // Writing the tile by rows | reading it by columns.\n", "")],
            &["tile[i][threadIdx.x] = x[", "= tile[threadIdx.x][i];"],
        ),
        Bug::new(
            "no barrier before the warps' sums are read",
            SCAN,
            EARLY_OR_BESIDE,
            &[(
                "        __syncthreads();  // Writing the warps' sums | reading those of the warps before.\n",
                "",
            )],
            &["warp_sum[warp] = through;", "const u32 other = warp_sum[w];"],
        ),
        Bug::new(
            "no barrier before the next tile's sums",
            SCAN,
            &[Kind::SharedRace],
            &[("        __syncthreads();  // Reading this tile's sums | writing the next tile's.\n", "")],
            &["warp_sum[warp] = through;", "const u32 other = warp_sum[w];"],
        ),
        Bug::new(
            "no barrier before the slices are overwritten",
            NTXENT,
            &[Kind::SharedRace],
            &[(
                "            __syncthreads();  // Reading the slices | overwriting them with the next.\n",
                "",
            )],
            &[
                "*(float4*)&slice[threadIdx.x / SHARERS][threadIdx.x % SHARERS * 4] = four;",
                "(const float4*)&row_slice[local_row][k];",
                "[sharer + SHARERS * j][k];",
            ],
        ),
        Bug::new(
            "no barrier before the counts are added up",
            HISTOGRAM,
            &[Kind::SharedRace],
            &[("    __syncthreads();  // Counting | adding up.\n", "")],
            &[
                "atomicAdd(&local[min(max(bin, 0), bins - 1)], 1u);",
                "if (local[bin] > 0) {",
                "atomicAdd(&counts[bin], local[bin]);",
            ],
        ),
        Bug::new(
            "no warp barrier between clearing and counting",
            COMPACT,
            &[Kind::SharedRace],
            &[("    __syncwarp();  // Clearing the counts | counting.\n", "")],
            &["group_count[warp][lane] = 0;", "group_count[warp][group] += __popc(peers);"],
        ),
        Bug::new(
            "no warp barrier between the steps' leaders",
            COMPACT,
            &[Kind::SharedRace],
            &[(
                "        __syncwarp();  // This step's leaders counting | the next step's, other lanes.\n",
                "",
            )],
            &["group_count[warp][group] += __popc(peers);", "= group_count[warp][lane];"],
        ),
        Bug::new(
            "no warp barrier in the product's epilogue",
            MATMUL,
            &[Kind::SharedRace],
            &[("    __syncwarp();  // Writing the corner by fragments | reading it by rows.\n", "")],
            &["asm volatile(\"stmatrix.sync", "const uint4 chunk = *(const uint4*)(corner"],
        ),
        Bug::new(
            "no barrier before the stages become corners",
            // The corners lie in the stage of the fourth slice.
            ["matmul_mma.cu", "matmul_nn", "m 37 n 130 k 97 bias"],
            &[Kind::SharedRace],
            &[("    __syncthreads();  // Reading the last slices | overwriting them with the result.\n", "")],
            &[
                "asm volatile(\"stmatrix.sync",
                "asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared",
                "asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans",
            ],
        ),
        Bug::new(
            "no warp barrier in attention's epilogue",
            ATTENTION,
            &[Kind::SharedRace],
            &[("    __syncwarp();  // Writing this warp's rows by fragments | reading them by rows.\n", "")],
            &[
                "*(u32*)(place(query_tile, row, j) + lane % 4 * 2) = pair;",
                "= *(const uint4*)place(query_tile, row, lane % 8);",
                "*(uint4*)(output + head",
            ],
        ),
    ]
}

fn missing_order() -> Vec<Bug> {
    vec![
        Bug::new(
            "no barrier before a block announces its partials",
            REDUCE,
            &[Kind::GlobalRace],
            &[("    __syncthreads();  // Writing this block's partials | announcing them.\n", "")],
            &["* columns + mine] = block_sum;", "column_total += partial["],
        ),
        Bug::new(
            "no fence before a block announces its partials",
            REDUCE,
            &[Kind::GlobalRace],
            &[(
                "        __threadfence();  // This block's partials are visible before its arrival is.\n",
                "",
            )],
            &["* columns + mine] = block_sum;", "column_total += partial["],
        ),
        Bug::new(
            "arrivals counted without an atomic",
            REDUCE,
            &[Kind::GlobalRace],
            &[(
                "last = atomicAdd(&arrived[blockIdx.x], 1u) == gridDim.y - 1;",
                "last = arrived[blockIdx.x]++ == gridDim.y - 1;  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "counts added without an atomic",
            HISTOGRAM,
            &[Kind::GlobalRace],
            &[("atomicAdd(&counts[bin], local[bin]);", "counts[bin] += local[bin];  // BUG")],
            &[],
        ),
        Bug::new(
            "shared counts written beside atomics",
            HISTOGRAM,
            &[Kind::SharedRace],
            &[(
                "atomicAdd(&local[min(max(bin, 0), bins - 1)], 1u);",
                "if (bin < 0) local[0]++;  // BUG\n        else atomicAdd(&local[min(bin, bins - 1)], 1u);  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "the least value kept without a compare-and-swap",
            HISTOGRAM,
            &[Kind::GlobalRace],
            &[(
                "        keep_least(least, smallest);\n",
                "        *least = fminf(*least, smallest);  // BUG\n",
            )],
            &[],
        ),
        Bug::new(
            "the rows of a block share an output",
            COMPACT,
            &[Kind::GlobalRace],
            &[("kept[row] = count;", "kept[row / WARPS] = count;  // BUG")],
            &[],
        ),
        Bug::new(
            "blocks overwrite each other's losses",
            NTXENT,
            &[Kind::GlobalRace],
            &[("loss[row] = result - positive;", "loss[local_row] = result - positive;  // BUG")],
            &[],
        ),
        Bug::new(
            "sums in the order of arrival",
            HISTOGRAM,
            &[Kind::ScheduleDependent],
            &[("keep_least(least, smallest);", "atomicAdd(least, smallest);")],
            &[],
        )
        .alter(|case| case.named("least").contents = Contents::Bytes(vec![0; 4])),
    ]
}

fn divergence() -> Vec<Bug> {
    vec![
        Bug::new(
            "a barrier that only some threads reach",
            ["scan.cu", "scan_rows", "rows 2 columns 5"],
            &[Kind::DivergentBarrier],
            &[(
                "        __syncthreads();  // Writing the warps' sums | reading those of the warps before.\n",
                "        if (first < columns) __syncthreads();  // BUG\n        __syncthreads();  // BUG\n",
            )],
            &[],
        ),
        Bug::new(
            "a barrier inside the branch of a ragged stripe",
            REDUCE,
            &[Kind::DivergentBarrier],
            &[
                (
                    "mine] = block_sum;\n    }\n    __syncthreads();  // Writing this block's partials | announcing them.\n",
                    "mine] = block_sum;\n        __syncthreads();  // BUG\n    }\n",
                ),
                (
                    "__syncthreads();  // Deciding which block is last | acting on it.",
                    "__syncthreads();  // BUG",
                ),
            ],
            &[],
        ),
        Bug::new(
            "a full-warp shuffle that short rows leave",
            ["softmax.cu", "softmax_fwd", "rows 3 columns 7"],
            &[Kind::DivergentWarp],
            &[(
                "for (int distance = 16; distance > 0; distance /= 2) {",
                "for (int distance = 16; distance > 0 && threadIdx.x < columns; distance /= 2) {",
            )],
            &["__shfl_xor_sync(FULL, mine.maximum, distance);", "__shfl_xor_sync(FULL, mine.sum, distance);"],
        ),
        Bug::new(
            "a full-warp ballot in a ragged step",
            COMPACT,
            &[Kind::DivergentWarp],
            &[(
                "const u32 keepers = __ballot_sync(FULL, keep);",
                "u32 keepers = 0;\n        if (first + lane < columns) keepers = __ballot_sync(FULL, keep);  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "ldmatrix by the rows that exist",
            ["matmul_mma.cu", "matmul_nn", "m 7 n 5 k 3 bias"],
            &[Kind::DivergentWarp],
            &[(
                "            load_matrices(a[i], stage.a",
                "            if (lane != 31) load_matrices(a[i], stage.a",
            )],
            &["asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared"],
        ),
        Bug::new(
            "mma by part of the warp",
            ["attention.cu", "attention_fwd", "heads 1 tokens 1"],
            &[Kind::DivergentWarp],
            &[(
                "            mma(score[2 * pair], query",
                "            if (lane < valid) mma(score[2 * pair], query",
            )],
            &["\"mma.sync.aligned.m16n8k16"],
        ),
    ]
}

fn endless() -> Vec<Bug> {
    vec![
        Bug::new(
            "waits for a counter that nobody raises",
            REDUCE,
            &[Kind::Deadlock],
            &[(
                "last = atomicAdd(&arrived[blockIdx.x], 1u) == gridDim.y - 1;",
                "while (atomicAdd(&arrived[blockIdx.x], 0u) != gridDim.y) {}  // BUG\n        last = true;",
            )],
            &[],
        )
        .endless(),
        Bug::new(
            "waits for a thread that waits at the barrier",
            XENT,
            &[Kind::Deadlock],
            &[(
                "    __syncthreads();  // Writing the warps' partials | warp 0 reading them.\n",
                concat!(
                    "    __shared__ u32 ready;\n    if (threadIdx.x == 0) ready = 0;\n    __syncthreads();\n",
                    "    if (threadIdx.x == 0) while (atomicAdd(&ready, 0u) == 0) {}  // BUG\n",
                    "    __syncthreads();  // BUG\n",
                    "    if (threadIdx.x == 64) atomicAdd(&ready, 1u);\n    __syncthreads();\n",
                ),
            )],
            &[],
        )
        .endless(),
    ]
}
