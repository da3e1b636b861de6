// Step 3: tensor cores; A: [M, K], B: [N, K], out: [M, N], K even
//
// A block of four warps computes 64 x 64 results, a warp 32 x 32 of them by mma.sync, in steps of 32. Tiles lie in shared
// memory as in global memory, in bf16, and a lane reads its fragments word by word. Rows of 64 bytes put the words of
// every second row into the same banks.

#include "common/mma.cuh"

constexpr int TILE = 64, STEP = 32, WORDS = STEP / 2;

// Rows `first` to `first` + 64, steps from `k0` on, two a word; zeros outside.
__device__ __forceinline__ void bring(const bf16 *from, u32 first, u32 rows, u32 k0, u32 k, u32 (*tile)[WORDS]) {
#pragma unroll
    for (int j = 0; j < TILE * WORDS / 128; j++) {
        const u32 row = threadIdx.x / WORDS + 8 * j, word = threadIdx.x % WORDS;
        const bool inside = first + row < rows && k0 + 2 * word < k;
        const bf16 *at = from + u64(first + row) * k + k0 + 2 * word;
        tile[row][word] = inside ? *reinterpret_cast<const u32 *>(at) : 0;
    }
}

KERNEL __launch_bounds__(128)
matmul_ladder_v3_mma_bf16(const bf16 *a, const bf16 *b, bf16 *out, u32 m, u32 n, u32 k) {
    __shared__ u32 left[TILE][WORDS], right[TILE][WORDS];
    const u32 first_m = blockIdx.y * TILE, first_n = blockIdx.x * TILE;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 row = warp / 2 * 32, column = warp % 2 * 32;
    float sums[2][4][4] = {};
    for (u32 k0 = 0; k0 < k; k0 += STEP) {
        bring(a, first_m, m, k0, k, left);
        bring(b, first_n, n, k0, k, right);
        __syncthreads(); // the tiles are written
#pragma unroll
        for (int word = 0; word < WORDS; word += 8) {
            u32 x[2][4], y[4][2];
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) x[i][j] = left[row + 16 * i + g + 8 * (j % 2)][word + t + 4 * (j / 2)];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) y[i][j] = right[column + 8 * i + g][word + t + 4 * j];
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma_bf16(sums[i][j], x[i], y[j][0], y[j][1]);
        }
        __syncthreads(); // nobody reads them any more
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const u32 at_m = first_m + row + 16 * i + g + 8 * (c / 2), at_n = first_n + column + 8 * j + 2 * t + c % 2;
                if (at_m < m && at_n < n) from_float(sums[i][j][c], out[u64(at_m) * n + at_n]);
            }
}
