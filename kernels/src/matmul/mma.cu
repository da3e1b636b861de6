// out[b] = A[b] B[b] (+ bias) of bf16, or of float32 rounded to tf32 (ELEMENT_F32), on tensor cores, either side
// transposed; A: [M, K] or [K, M], B: [K, N] or [N, K], out: [M, N]
//
// Each block computes one tile of one product, over all steps k or over one of several parts of them; see
// common/mma_tile.cuh for the loop and common/mma_result.cuh for the way out. Parts give their sums to `partial` in
// float32, and matmul_sum_parts adds them in order: no atomics, the same bits every time. No operand is copied or
// transposed in global memory. Sums are in float32 and rounded to the element type once.
//
// Defines: those of common/mma_tile.cuh, A_BY_STEPS and B_BY_STEPS (1 where an operand's steps k are contiguous), and at
// most one of what is done besides:
//     GELU        out = gelu(A B + bias), and A B + bias itself, which backward needs, to `other` if that is not null
//     GELU_BWD    out = (A B) gelu'(other)
//     RELU        out = max(A B + bias, 0)
//     RELU_BWD    out = A B where other > 0, else 0
//     RESIDUAL    out = residual + scale keep (A B + bias), and A B + bias itself to `other` if that is not null
//     ROW_SUMS    the sums of A's rows over k, to `other`: a bias's gradient beside its weight's
//     ACCUMULATE  out += A B, in float32
//     STATISTICS  sums of the columns of each tile's rows, to `partial_other`: see common/mma_statistics.cuh
// The first five compute on the rounded product: the same bits as a product and an elementwise pass behind it.

#include "matmul/product_result.cuh"

#if defined(GELU)
#define NAME(m, n) gelu_##m##x##n
#elif defined(GELU_BWD)
#define NAME(m, n) gelu_bwd_##m##x##n
#elif defined(RELU)
#define NAME(m, n) relu_##m##x##n
#elif defined(RELU_BWD)
#define NAME(m, n) relu_bwd_##m##x##n
#elif defined(RESIDUAL)
#define NAME(m, n) residual_##m##x##n
#elif defined(ROW_SUMS)
#define NAME(m, n) row_sums_##m##x##n
#elif defined(ACCUMULATE)
#define NAME(m, n) accumulate_##m##x##n
#elif defined(STATISTICS)
#define NAME(m, n) statistics_##m##x##n
#else
#define NAME(m, n) m##x##n
#endif
#define NAMED(m, n, letters) NAMED_AS(NAME(m, n), letters)
#define NAMED_AS(name, letters) NAMED_AS_IS(name, letters)
#if defined(ELEMENT_F32)
#define NAMED_AS_IS(name, letters) matmul_mma_##name##_##letters##_tf32
#elif defined(WGMMA)
#define NAMED_AS_IS(name, letters) matmul_wgmma_##name##_##letters##_bf16
#else
#define NAMED_AS_IS(name, letters) matmul_mma_##name##_##letters##_bf16
#endif

#if A_BY_STEPS && B_BY_STEPS
#define LETTERS nt
#elif A_BY_STEPS
#define LETTERS nn
#elif B_BY_STEPS
#define LETTERS tt
#else
#define LETTERS tn
#endif

// Operands are given by address, or to warpgroups as what makes boxes of them.
#if defined(WGMMA)
#define OPERAND const __grid_constant__ TensorMap
#else
#define OPERAND const element *
#endif

// a: [batch, M, K], b: [batch, N, K] or either transposed; bias: [N] or null; out: [batch, M, N];
// partial: [parts, batch, M, N] or null; other: [M, N], with ROW_SUMS [M] (in parts: partial_other, [parts, M]);
// partial_other: with STATISTICS, of one product without parts, [tiles of rows, 2, N].
// With RESIDUAL residual: [M, N], scale: [N] or null (1), keep: [samples] or null (1), of `rows` rows each.
// Blocks: tiles, then parts, then products.
KERNEL __launch_bounds__(THREADS, BLOCKS) NAMED(TILE_M, TILE_N, LETTERS)(
    OPERAND a, OPERAND b, const element *bias, result *out, float *partial, element *other, float *partial_other,
    Product z
#if defined(RESIDUAL)
    , const element *residual, const float *scale, const float *keep, Divisor rows
#endif
) {
    extern __shared__ __align__(ALIGNMENT) char shared[];
    const u32 memory = shared_address(shared);
    Block block(blockIdx.x, z);
#if defined(WGMMA)
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    Places places(barriers);
    auto operands = block.operands(a, b, places);
#else
    auto operands = block.operands(a, b, z);
#endif
    operands.start(memory);
#if defined(RESIDUAL)
    const Destination to = {out, partial, other, partial_other, residual, scale, keep, rows};
#else
    const Destination to = {out, partial, other, partial_other};
#endif
    for (u32 next = blockIdx.x + gridDim.x;; next += gridDim.x) {
        // The bias goes to shared memory while the operands are on the way; the loop's barriers lie between.
        float *terms = bias ? reinterpret_cast<float *>(shared + ROOM_BYTES) : nullptr; // [TILE_N]
        if (bias) {
            for (u32 i = threadIdx.x; i < TILE_N; i += THREADS)
                terms[i] = block.first_n + i < z.n ? to_float(bias[block.first_n + i]) : 0.0f;
        }

        Sums sums = {};
        NoRowSums nothing;
#if defined(ROW_SUMS)
        if (block.first_n == 0) { // A loop of its own: a condition in the loop would cost every block more than these blocks' sums.
#if defined(WGMMA)
            __shared__ __align__(16) u32 ones[64];
            RowSums sums_of_rows(ones);
#else
            RowSums sums_of_rows;
#endif
            operands.multiply(block.steps(), memory, sums, sums_of_rows);
            if (warp_column() == 0 && threadIdx.x % 4 == 0) {
#pragma unroll
                for (int i = 0; i < 2 * OWN_M; i++) {
                    const u32 row = block.first_m + warp_row() + 8 * i + threadIdx.x % 32 / 4;
                    const float sum = sums_of_rows.sums[i / 2][2 * (i % 2)];
                    if (row >= z.m) continue;
                    if (partial)
                        partial_other[block.part * z.m + row] = sum;
                    else
                        from_float(sum, other[row]);
                }
            }
        } else
#endif
#if defined(ELEMENT_F32)
        if (!operands.multiply(block.steps(), memory, sums, nothing)) { // there may have been NaN
            u32 number = blockIdx.x;
            // The compiler is not to know that this is the same block: it would keep in registers what is needed here alone.
            asm volatile("" : "+r"(number));
            const Block again(number, z);
            auto left = again.left(a, z);
            auto right = again.right(b, z);
            multiply_again<A_BY_STEPS, B_BY_STEPS>(left, right, again.steps(), memory, sums);
        }
#else
            operands.multiply(block.steps(), memory, sums, nothing);
#endif

        const Block done = block;
        const bool more = PERSISTENT && next < z.blocks;
        if (more) {
            block = Block(next, z);
#if defined(WGMMA)
            operands = block.operands(a, b, places);
            operands.start(memory);
#endif
        }
        store_sums(done, sums, terms, shared, to, z);
        if (!more) return;
    }
}
