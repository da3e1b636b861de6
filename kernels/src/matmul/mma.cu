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

#include "common/divisor.cuh"
#include "common/math.cuh"
#include "common/mma_result.cuh"
#if defined(STATISTICS)
#include "common/mma_statistics.cuh"
#endif

struct Product {
    u32 m, n, k;
    u32 part; // steps k that a block sums
    u32 a_stride, b_stride;
    u64 a_batch, b_batch;   // elements from a product's operand to the next product's
    u64 results;            // of all products
    Divisor tiles, parts;   // of a product, of a sum
    Divisor group;          // tiles of GROUP rows of tiles
    u32 tiles_m;
    u32 together;           // whether results are accessed by packs
    u32 unused;
};
static_assert(sizeof(Product) == 96, "as in kernels/src/matmul/mma.rs");

// Blocks that run at the same time are to share operands in the second-level cache: tiles go down GROUP rows, then on
// by a column.
constexpr u32 GROUP = 8;

// Where the tile with this number is.
__device__ __forceinline__ uint2 place_of(u32 tile, const Product &z) {
    const u32 top = take_quotient(tile, z.group) * GROUP;
    const u32 height = min(z.tiles_m - top, GROUP);
    const u32 column = height == GROUP ? tile / GROUP : tile / height;
    return make_uint2(top + tile - column * height, column);
}

// What a block computes: which product, which part of its sums, from which row and column on, and steps.
struct Block {
    u32 batch, part, first_m, first_n, first_k, end_k;
    __device__ __forceinline__ Block(u32 number, const Product &z) {
        batch = number;
        const uint2 place = place_of(take_remainder(batch, z.tiles), z);
        part = take_remainder(batch, z.parts);
        first_m = place.x * TILE_M, first_n = place.y * TILE_N;
        first_k = part * z.part, end_k = min(first_k + z.part, z.k);
    }
    __device__ __forceinline__ u32 steps() const { return (end_k - first_k + TILE_K - 1) / TILE_K; }
    __device__ __forceinline__ DenseOperand<TILE_M, A_BY_STEPS> left(const element *a, const Product &z) const {
        return {a + batch * z.a_batch, z.a_stride, first_m, z.m, first_k, end_k};
    }
    __device__ __forceinline__ DenseOperand<TILE_N, B_BY_STEPS> right(const element *b, const Product &z) const {
        return {b + batch * z.b_batch, z.b_stride, first_n, z.n, first_k, end_k};
    }
};

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

#if defined(ACCUMULATE)
typedef float result;
#else
typedef element result;
#endif

// a: [batch, M, K], b: [batch, N, K] or either transposed; bias: [N] or null; out: [batch, M, N];
// partial: [parts, batch, M, N] or null; other: [M, N], with ROW_SUMS [M] (in parts: partial_other, [parts, M]);
// partial_other: with STATISTICS, of one product without parts, [tiles of rows, 2, N].
// With RESIDUAL residual: [M, N], scale: [N] or null (1), keep: [samples] or null (1), of `rows` rows each.
// Blocks: tiles, then parts, then products.
KERNEL __launch_bounds__(THREADS, BLOCKS) NAMED(TILE_M, TILE_N, LETTERS)(
    const element *a, const element *b, const element *bias, result *out, float *partial, element *other, float *partial_other,
    Product z
#if defined(RESIDUAL)
    , const element *residual, const float *scale, const float *keep, Divisor rows
#endif
) {
    extern __shared__ __align__(ALIGNMENT) char shared[];
    const Block block(blockIdx.x, z);
    const u32 batch = block.batch, part = block.part, first_m = block.first_m, first_n = block.first_n;

    // The bias goes to shared memory while the operands are on the way; the loop's barriers lie between.
    float *terms = bias ? reinterpret_cast<float *>(shared + LOOP_BYTES) : nullptr; // [TILE_N]
    if (bias) {
        for (u32 i = threadIdx.x; i < TILE_N; i += THREADS)
            terms[i] = first_n + i < z.n ? to_float(bias[first_n + i]) : 0.0f;
    }

    auto left = block.left(a, z);
    auto right = block.right(b, z);
    Sums sums = {};
    const u32 steps = block.steps(), memory = shared_address(shared);
    NoRowSums nothing;
#if defined(ROW_SUMS)
    if (first_n == 0) { // A loop of its own: a condition in the loop would cost every block more than these blocks' sums.
#if defined(WGMMA)
        __shared__ __align__(16) u32 ones[64];
        RowSums rows(ones);
#else
        RowSums rows;
#endif
        multiply<A_BY_STEPS, B_BY_STEPS>(left, right, steps, memory, sums, rows);
        if (warp_column() == 0 && threadIdx.x % 4 == 0) {
#pragma unroll
            for (int i = 0; i < 2 * OWN_M; i++) {
                const u32 row = first_m + warp_row() + 8 * i + threadIdx.x % 32 / 4;
                const float sum = rows.sums[i / 2][2 * (i % 2)];
                if (row >= z.m) continue;
                if (partial)
                    partial_other[part * z.m + row] = sum;
                else
                    from_float(sum, other[row]);
            }
        }
    } else
#endif
#if defined(ELEMENT_F32)
    if (!multiply<A_BY_STEPS, B_BY_STEPS>(left, right, steps, memory, sums, nothing)) { // there may have been NaN
        u32 number = blockIdx.x;
        // The compiler is not to know that this is the same block: it would keep in registers what is needed here alone.
        asm volatile("" : "+r"(number));
        const Block again(number, z);
        auto left = again.left(a, z);
        auto right = again.right(b, z);
        multiply_again<A_BY_STEPS, B_BY_STEPS>(left, right, again.steps(), memory, sums);
    }
#else
        multiply<A_BY_STEPS, B_BY_STEPS>(left, right, steps, memory, sums, nothing);
#endif

#if defined(ACCUMULATE)
    const bool in_float = true;
#else
    const bool in_float = partial;
#endif
    if (in_float) {
        float *tile = reinterpret_cast<float *>(shared);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        float *to = partial + part * z.results;
#if defined(ACCUMULATE)
        if (!partial) to = out;
#endif
        to += u64(batch) * z.m * z.n;
        over_tile(tile, [&](u32 row, u32 column, uint4 bits) {
            row = first_m + result_row(row), column += first_n;
            if (row >= z.m || column >= z.n) return;
            float *at = to + u64(row) * z.n + column;
            const i32 count = z.n - column;
#if defined(ACCUMULATE)
            if (!partial) {
                float v[4], before[4];
                unpack(bits, v);
                unpack(load_bits(at, count, z.together), before);
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] += before[i];
                bits = pack(v);
            }
#endif
            store_pack_of(at, count, z.together, bits);
        });
        return;
    }
#if !defined(ACCUMULATE)
    element *tile = reinterpret_cast<element *>(shared);
    stage(sums, terms, tile);
#if defined(RESIDUAL)
    // All packs of a thread are in the same columns.
    constexpr u32 WIDTH = TILE_N / PACK;
    static_assert(THREADS % WIDTH == 0, "a thread goes down whole rows of packs");
    const u32 own = first_n + threadIdx.x % WIDTH * PACK;
    float scales[PACK];
#pragma unroll
    for (int i = 0; i < PACK; i++) scales[i] = 1.0f;
    if (scale) load_floats(scale + own, i32(z.n - own), z.together, scales);
#endif
    __syncthreads(); // the tile is written
    out += u64(batch) * z.m * z.n;
    over_tile(tile, [&](u32 row, u32 column, uint4 bits) {
        row = first_m + result_row(row), column += first_n;
        if (row >= z.m || column >= z.n) return;
        const u64 at = u64(row) * z.n + column;
        const i32 count = z.n - column;
#if defined(GELU) || defined(RESIDUAL)
        if (other) store_pack_of(other + at, count, z.together, bits);
#endif
#if defined(GELU) || defined(GELU_BWD) || defined(RELU) || defined(RELU_BWD) || defined(RESIDUAL)
        float v[PACK];
        unpack(bits, v);
#if defined(GELU_BWD) || defined(RELU_BWD)
        float x[PACK];
        load_part(other + at, count, z.together, x);
#elif defined(RESIDUAL)
        float x[PACK];
        load_part(residual + at, count, z.together, x);
        const float kept = keep ? keep[quotient(row, rows)] : 1.0f;
#endif
#pragma unroll
        for (int i = 0; i < PACK; i++) {
#if defined(GELU)
            v[i] *= normal_cdf(v[i]);
#elif defined(GELU_BWD)
            v[i] *= normal_cdf(x[i]) + x[i] * normal_density(x[i]);
#elif defined(RELU)
            v[i] = v[i] < 0.0f ? 0.0f : v[i];
#elif defined(RELU_BWD)
            v[i] = x[i] > 0.0f ? v[i] : 0.0f;
#else
            v[i] = x[i] + scales[i] * kept * v[i];
#endif
        }
        bits = pack(v);
#endif
        store_pack_of(out + at, count, z.together, bits);
    });
#if defined(STATISTICS)
    store_statistics(tile, min(z.m - first_m, TILE_M), first_n, z.n, partial_other + u64(first_m / TILE_M) * 2 * z.n);
#endif
#endif
}
