// Step 4: 64 x 64 results a warp, 16 bytes an access, ldmatrix from swizzled tiles; A: [M, K], B: [N, K], out: [M, N],
// K a multiple of 8 and rows aligned to 16 bytes
//
// A block of four warps computes 128 x 128 results in steps of 64. Eight threads bring a row of a tile, 16 bytes each, and
// ldmatrix loads 16 x 16 elements at a time; packs are exchanged within rows so that neither has bank conflicts. What
// is copied waits for what is multiplied and the other way round.

#include "common/mma.cuh"

constexpr int TILE = 128, STEP = 64, PACKS = STEP / 8;

// Rows `first` to `first` + 128, steps from `k0` on, by packs; zeros outside.
__device__ __forceinline__ void bring(const bf16 *from, u32 first, u32 rows, u32 k0, u32 k, uint4 *tile) {
    const u32 pack = threadIdx.x % PACKS;
#pragma unroll
    for (int j = 0; j < TILE * PACKS / 128; j++) {
        const u32 row = threadIdx.x / PACKS + 128 / PACKS * j;
        uint4 bits = make_uint4(0, 0, 0, 0);
        if (first + row < rows && k0 + 8 * pack < k)
            bits = *reinterpret_cast<const uint4 *>(from + u64(first + row) * k + k0 + 8 * pack);
        tile[swizzled<PACKS>(row, pack)] = bits;
    }
}

KERNEL __launch_bounds__(128)
matmul_ladder_v4_ldmatrix_bf16(const bf16 *a, const bf16 *b, bf16 *out, u32 m, u32 n, u32 k) {
    __shared__ __align__(128) uint4 left[TILE * PACKS], right[TILE * PACKS];
    const u32 first_m = blockIdx.y * TILE, first_n = blockIdx.x * TILE;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 row = warp / 2 * 64, column = warp % 2 * 64;
    float sums[4][8][4] = {};
    for (u32 k0 = 0; k0 < k; k0 += STEP) {
        bring(a, first_m, m, k0, k, left);
        bring(b, first_n, n, k0, k, right);
        __syncthreads(); // the tiles are written
#pragma unroll
        for (int pack = 0; pack < PACKS; pack += 2) {
            u32 x[4][4], y[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 at_a = row + 16 * i + lane % 16, at_b = column + 16 * i + lane / 16 * 8 + lane % 8;
                load_matrices<false>(shared_address(&left[swizzled<PACKS>(at_a, pack + lane / 16)]), x[i]);
                load_matrices<false>(shared_address(&right[swizzled<PACKS>(at_b, pack + lane / 8 % 2)]), y[i]);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) mma_bf16(sums[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
        }
        __syncthreads(); // nobody reads them any more
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const u32 at_m = first_m + row + 16 * i + lane / 4 + 8 * (c / 2);
                const u32 at_n = first_n + column + 8 * j + 2 * (lane % 4) + c % 2;
                if (at_m < m && at_n < n) from_float(sums[i][j][c], out[u64(at_m) * n + at_n]);
            }
}
