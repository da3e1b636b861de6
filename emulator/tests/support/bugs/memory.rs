//! Bounds, alignment, initialisation, memory that may not be written.

use super::Bug;
use emulator::report::Kind;

const SOFTMAX: [&str; 3] = ["softmax.cu", "softmax_fwd", "rows 7 columns 1025"];

pub fn bugs() -> Vec<Bug> {
    global().into_iter().chain(aligned()).chain(shared_and_local()).collect()
}

fn global() -> Vec<Bug> {
    vec![
        Bug::new(
            "a load one past the row",
            SOFTMAX,
            &[Kind::OutOfBounds],
            &[(
                "i < columns; i += blockDim.x) {\n                const float one = in[i];",
                "i <= columns; i += blockDim.x) {\n                const float one = in[i];  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "a block too many for the rows",
            ["layer_norm.cu", "layer_norm_fwd", "rows 9 width 192"],
            &[Kind::OutOfBounds],
            &[("    if (row >= rows) {", "    if (row > rows) {")],
            &["packed = *(const uint4*)(in + first);"],
        ),
        Bug::new(
            "rows of the output one element too long",
            ["transpose.cu", "transpose", "rows 31 columns 33"],
            &[Kind::OutOfBounds],
            &[(
                "y[(long long)(column + i) * rows + row",
                "/* BUG */ y[(long long)(column + i) * (rows + 1) + row",
            )],
            &[],
        ),
        Bug::new(
            "a store of four where fewer are left",
            ["philox.cu", "philox_f32", "count 511"],
            &[Kind::OutOfBounds],
            &[(
                "    if (first + 4 <= count) {\n        *(float4*)(out + first) = {",
                "    if (first < count) {\n        *(float4*)(out + first) = {  // BUG",
            )],
            &["uniform(words.word[2]), uniform(words.word[3])};"],
        ),
        Bug::new(
            "a load of eight where fewer are left",
            ["gelu.cu", "bias_gelu_erf_fwd", "rows 13 width 61"],
            &[Kind::OutOfBounds],
            &[("if (first + 8 <= count) {", "if (first < count) {")],
            &["const uint4 in = *(const uint4*)(x + first);"],
        ),
        Bug::new(
            "a row below the image",
            ["conv2d.cu", "conv2d_fwd", "2x4x4x12 to 7, window 5 stride 1 padding 2"],
            &[Kind::OutOfBounds],
            &[("r >= shape.height || c < 0", "r > shape.height || c < 0")],
            &["const float4 four = *(const float4*)(in + channel);"],
        ),
        Bug::new(
            "more threads than outputs",
            ["conv2d.cu", "conv2d_fwd", "2x5x7x3 to 5, window 3 stride 1 padding 1"],
            &[Kind::OutOfBounds],
            &[("    if (image >= shape.images) {", "    if (image > shape.images) {")],
            &["sum = fmaf(in[channel], weight[channel * shape.outputs], sum);"],
        ),
        Bug::new(
            "a result's row too many",
            ["matmul_mma.cu", "matmul_nt", "m 63 n 65 k 31"],
            &[Kind::OutOfBounds],
            &[("        if (first_row + row < m) {", "        if (first_row + row <= m) {")],
            &["                *(uint4*)to = chunk;", "to[e] = (u16)(word[e / 2] >> e % 2 * 16);"],
        ),
        Bug::new(
            "a class too many",
            ["softmax_xent.cu", "softmax_xent_fwd", "batch 3 classes 257"],
            &[Kind::OutOfBounds],
            &[("    if (after + threadIdx.x < classes) {", "    if (after + threadIdx.x <= classes) {")],
            &["include(mine, low(in[after + threadIdx.x])"],
        ),
        Bug::new(
            "a write to constant memory",
            ["conv2d.cu", "conv2d_fwd", "3x6x5x8 to 3, window 1 stride 1 padding 0"],
            &[Kind::ReadOnly],
            &[(
                "    y[index] = sum;",
                "    asm volatile(\"st.u32 [%0], %1;\" ::\"l\"(&taps[0]), \"r\"(index) : \"memory\");  // BUG\n    y[index] = sum;",
            )],
            &[],
        ),
    ]
}

fn aligned() -> Vec<Bug> {
    vec![
        Bug::new(
            "vectors in rows of odd length",
            SOFTMAX,
            &[Kind::Misaligned],
            &[
                ("const bool vectors = columns % 4 == 0;", "const bool vectors = columns > 4;"),
                (
                    "const float4 four = ((const float4*)in)[i];\n                mine",
                    "const float4 four = ((const float4*)in)[i];  // BUG\n                mine",
                ),
            ],
            &[],
        ),
        Bug::new(
            "rows half a vector longer than they are",
            ["layer_norm.cu", "layer_norm_fwd", "rows 6 width 384"],
            &[Kind::Misaligned],
            &[("in = x + (long long)row * width;", "in = x + (long long)row * (width + 4);")],
            &["packed = *(const uint4*)(in + first);"],
        ),
        Bug::new(
            "vectors from the row's start, aligned or not",
            ["softmax_xent.cu", "softmax_xent_fwd", "batch 3 classes 257"],
            &[Kind::Misaligned],
            &[("min((int)((16 - ((unsigned long long)in & 15)) & 15) / 2, classes)", "0")],
            &["const uint4 eight = *(const uint4*)(in + first);"],
        ),
        Bug::new(
            "four words stored one word late",
            ["philox.cu", "philox_u32", "count 128"],
            &[Kind::Misaligned],
            &[("*(uint4*)(out + first) = {", "/* BUG */ *(uint4*)(out + first + 1) = {")],
            &[],
        ),
        Bug::new(
            "rows of a slice with a pitch that is no multiple of a vector",
            ["ntxent.cu", "ntxent_fwd", "images 2 features 8"],
            &[Kind::Misaligned],
            &[("#define PITCH (SLICE + 4)", "#define PITCH (SLICE + 1)")],
            &["*(float4*)&slice[threadIdx.x / SHARERS][threadIdx.x % SHARERS * 4] = four;"],
        ),
    ]
}

fn shared_and_local() -> Vec<Bug> {
    vec![
        Bug::new(
            "a stride beyond the shared sums",
            ["reduce.cu", "column_sum", "rows 100 columns 129 splits 3"],
            &[Kind::OutOfBounds],
            &[(
                "block_sum += sums[w][threadIdx.x];",
                "block_sum += (&sums[0][0])[w * (STRIPE + 32) + threadIdx.x];  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "a bin too many",
            ["histogram.cu", "histogram", "count 1000 bins 256 blocks 3"],
            &[Kind::OutOfBounds],
            &[(
                "atomicAdd(&local[min(max(bin, 0), bins - 1)], 1u);",
                "atomicAdd(&local[min(max(bin, 0), bins)], 1u);  // BUG",
            )],
            &[],
        ),
        Bug::new(
            "the tile's last column never loaded",
            ["transpose.cu", "transpose", "rows 32 columns 32"],
            &[Kind::UninitialisedShared],
            &[(
                "column + threadIdx.x < columns) {\n            tile",
                "column + threadIdx.x + 1 < columns) {\n            tile",
            )],
            &["= tile[threadIdx.x][i];"],
        ),
        Bug::new(
            "counts never cleared",
            ["histogram.cu", "histogram", "count 257 bins 64 blocks 2"],
            &[Kind::UninitialisedShared],
            &[("        local[bin] = 0;\n", "")],
            &["atomicAdd(&local[min(max(bin, 0), bins - 1)], 1u);"],
        ),
        Bug::new(
            "a word past the generator's four",
            ["philox.cu", "philox_u32", "count 127"],
            &[Kind::OutOfBounds],
            &[("out[first + i] = words.word[i];", "out[first + i] = words.word[i + 2];  // BUG")],
            &[],
        ),
        Bug::new(
            "a word that the generator leaves out",
            ["philox.cu", "philox_u32", "count 127"],
            &[Kind::UninitialisedLocal],
            &[(
                "    return {{c0, c1, c2, c3}};",
                "    Words w;\n    w.word[0] = c0;\n    w.word[1] = c1;\n    w.word[3] = c3;\n    return w;",
            )],
            &["out[first + i] = words.word[i];"],
        ),
    ]
}
