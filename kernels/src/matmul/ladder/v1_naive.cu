// Step 1: out = A Bᵀ as the definition says; A: [M, K], B: [N, K], out: [M, N]
//
// A thread computes one result and reads a row of A and a row of B for it, element by element. Threads do not wait for
// each other. Blocks: 256 threads are 16 x 16 results.

#include "common/element.cuh"

KERNEL matmul_ladder_v1_naive_bf16(const bf16 *a, const bf16 *b, bf16 *out, u32 m, u32 n, u32 k) {
    const u32 row = blockIdx.y * 16 + threadIdx.x / 16, column = blockIdx.x * 16 + threadIdx.x % 16;
    if (row >= m || column >= n) return;
    float sum = 0.0f;
    for (u32 i = 0; i < k; i++) sum = fmaf(to_float(a[u64(row) * k + i]), to_float(b[u64(column) * k + i]), sum);
    from_float(sum, out[u64(row) * n + column]);
}
