// Step 2: a block reads each element once for 64 results; A: [M, K], B: [N, K], out: [M, N]
//
// 256 threads compute 64 x 64 results, 4 x 4 each, in steps of 16 elements of the sum that all of them bring to shared
// memory. Step k is the outer index there, and a row has an unused float, so that writing down a column meets
// different banks.

#include "common/element.cuh"

constexpr int TILE = 64, STEP = 16, ROW = TILE + 1;

// Rows `first` to `first` + 64, steps from `k0` on; zeros outside.
__device__ __forceinline__ void bring(const bf16 *from, u32 first, u32 rows, u32 k0, u32 k, float (*tile)[ROW]) {
#pragma unroll
    for (int j = 0; j < TILE * STEP / 256; j++) {
        const u32 row = threadIdx.x / STEP + 16 * j, step = threadIdx.x % STEP;
        const bool inside = first + row < rows && k0 + step < k;
        tile[step][row] = inside ? to_float(from[u64(first + row) * k + k0 + step]) : 0.0f;
    }
}

KERNEL __launch_bounds__(256)
matmul_ladder_v2_tiled_bf16(const bf16 *a, const bf16 *b, bf16 *out, u32 m, u32 n, u32 k) {
    __shared__ float left[STEP][ROW], right[STEP][ROW];
    const u32 first_m = blockIdx.y * TILE, first_n = blockIdx.x * TILE;
    const u32 row = threadIdx.x / 16 * 4, column = threadIdx.x % 16;
    float sums[4][4] = {};
    for (u32 k0 = 0; k0 < k; k0 += STEP) {
        bring(a, first_m, m, k0, k, left);
        bring(b, first_n, n, k0, k, right);
        __syncthreads(); // the tiles are written
#pragma unroll
        for (int step = 0; step < STEP; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] = fmaf(left[step][row + i], right[step][column + 16 * j], sums[i][j]);
        __syncthreads(); // nobody reads them any more
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 at_m = first_m + row + i, at_n = first_n + column + 16 * j;
            if (at_m < m && at_n < n) from_float(sums[i][j], out[u64(at_m) * n + at_n]);
        }
}
