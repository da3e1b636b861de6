// out[b] = A[b] B[b] (+ bias), either side transposed; A: [M, K] or [K, M], B: [K, N] or [N, K], out: [M, N]
//
// Each block computes one tile of one product, over all steps k or over one of several parts of them; see
// common/tile.cuh for the loop. Parts give their sums to `partial` in float32, and matmul_sum_parts adds them in
// order: no atomics, the same bits every time. No operand is copied or transposed in global memory.

#include "common/tile.cuh"

struct Product {
    u32 m, n, k;
    u32 part; // steps k that a block sums
    Matrix a, b;
    u64 a_batch, b_batch; // elements from a product's operand to the next product's
    u64 results;          // of all products
    Divisor tiles_n, tiles_m, parts;
    u32 together;          // whether PER_N neighbouring results (and the bias) are accessed at once
};
static_assert(sizeof(Product) == 112, "as in kernels/src/matmul/cuda.rs");

// a: [batch, M, K], b: [batch, N, K] or either transposed; bias: [N] or null; out: [batch, M, N];
// partial: [parts, batch, M, N] or null. Blocks: tiles of N, then tiles of M, then parts, then products.
KERNEL __launch_bounds__(THREADS) TILED(matmul)(
    const element *a, const element *b, const element *bias, element *out, float *partial, Product z
) {
    u32 batch = blockIdx.x;
    const u32 first_n = take_remainder(batch, z.tiles_n) * TILE_N;
    const u32 first_m = take_remainder(batch, z.tiles_m) * TILE_M;
    const u32 part = take_remainder(batch, z.parts);
    const u32 first_k = part * z.part;
    const u32 end_k = min(first_k + z.part, z.k);

    MatrixOperand<TILE_M> left(a + batch * z.a_batch, z.a, first_m, z.m, first_k, end_k);
    MatrixOperand<TILE_N> right(b + batch * z.b_batch, z.b, first_n, z.n, first_k, end_k);
    float sums[PER_M][PER_N] = {};
    multiply(left, right, end_k - first_k, sums);

    const u32 column = first_n + sums_column();
    if (bias) {
        float terms[PER_N] = {};
        if (z.together) {
            if (column < z.n) load_few(bias + column, terms);
        } else {
#pragma unroll
            for (int j = 0; j < PER_N; j++)
                if (column + j < z.n) terms[j] = to_float(bias[column + j]);
        }
#pragma unroll
        for (int i = 0; i < PER_M; i++)
#pragma unroll
            for (int j = 0; j < PER_N; j++) sums[i][j] += terms[j];
    }
#pragma unroll
    for (int i = 0; i < PER_M; i++) {
        const u32 row = first_m + sums_row() + i;
        if (row >= z.m) break;
        const u64 at = (u64(batch) * z.m + row) * z.n;
        if (partial)
            store_row(partial + part * z.results + at, column, z.n, z.together, sums[i]);
        else
            store_row(out + at, column, z.n, z.together, sums[i]);
    }
}
