// What becomes of a block's sums: the result, and what mma.cu says is done besides.
//
// Defines: those of mma.cu.
#pragma once

#include "common/math.cuh"
#include "common/mma_result.cuh"
#include "matmul/product.cuh"
#if defined(STATISTICS)
#include "common/mma_statistics.cuh"
#endif

#if defined(ACCUMULATE)
typedef float result;
#else
typedef element result;
#endif

// As the kernel's arguments are.
struct Destination {
    result *out;
    float *partial;
    element *other;
    float *partial_other;
#if defined(RESIDUAL)
    const element *residual;
    const float *scale, *keep;
    Divisor rows;
#endif
};

// Whether a block computes one tile after the other. Not where its result, in float32, takes all of the shared memory.
#if defined(WGMMA) && !defined(ACCUMULATE)
constexpr bool PERSISTENT = true;
#else
constexpr bool PERSISTENT = false;
#endif

// Where the tile of the result lies in shared memory: behind what start_copies() writes meanwhile, unless it is of float32.
constexpr u32 TILE_AT = PERSISTENT ? STARTED_BYTES : 0;

// Stores a block's sums (+ terms of the columns: [TILE_N] in shared memory or null). All threads call it, and the shared memory
// from TILE_AT on is not used any more.
__device__ __forceinline__ void store_sums(
    const Block &block, const Sums &sums, const float *terms, char *shared, const Destination &to, const Product &z
) {
    // Where a row of the tile begins in the result, none where it is outside.
    const auto place = [&](u32 row) {
        row = block.first_m + result_row(row);
        return row < z.m ? i64(row) * z.n : i64(-1);
    };
#if defined(ACCUMULATE)
    const bool in_float = true;
#else
    const bool in_float = to.partial;
#endif
    if (in_float) {
        float *tile = reinterpret_cast<float *>(shared);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        float *at_batch = to.partial + block.part * z.results;
#if defined(ACCUMULATE)
        if (!to.partial) at_batch = to.out;
#endif
        at_batch += u64(block.batch) * z.m * z.n;
#if defined(ACCUMULATE)
        if (!to.partial) {
            over_tile(tile, [&](u32 row, u32 column, uint4 bits) {
                row = block.first_m + result_row(row), column += block.first_n;
                if (row >= z.m || column >= z.n) return;
                float *at = at_batch + u64(row) * z.n + column;
                const i32 count = z.n - column;
                float v[4], before[4];
                unpack(bits, v);
                unpack(load_bits(at, count, z.together), before);
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] += before[i];
                store_pack_of(at, count, z.together, pack(v));
            });
            return;
        }
#endif
        store_rows(tile, at_batch, block.first_n, z.n, z.together, place);
        return;
    }
#if !defined(ACCUMULATE)
    element *tile = reinterpret_cast<element *>(shared + TILE_AT);
    stage(sums, terms, tile);
#if defined(RESIDUAL)
    // All packs of a thread are in the same columns.
    constexpr u32 WIDTH = TILE_N / PACK;
    static_assert(THREADS % WIDTH == 0, "a thread goes down whole rows of packs");
    const u32 own = block.first_n + threadIdx.x % WIDTH * PACK;
    float scales[PACK];
#pragma unroll
    for (int i = 0; i < PACK; i++) scales[i] = 1.0f;
    if (to.scale) load_floats(to.scale + own, i32(z.n - own), z.together, scales);
#endif
    __syncthreads(); // the tile is written
    element *out = to.out + u64(block.batch) * z.m * z.n;
#if defined(GELU) || defined(GELU_BWD) || defined(RELU) || defined(RELU_BWD) || defined(RESIDUAL)
    over_tile(tile, [&](u32 row, u32 column, uint4 bits) {
        row = block.first_m + result_row(row), column += block.first_n;
        if (row >= z.m || column >= z.n) return;
        const u64 at = u64(row) * z.n + column;
        const i32 count = z.n - column;
#if defined(GELU) || defined(RESIDUAL)
        if (to.other) store_pack_of(to.other + at, count, z.together, bits);
#endif
        float v[PACK];
        unpack(bits, v);
#if defined(GELU_BWD) || defined(RELU_BWD)
        float x[PACK];
        load_part(to.other + at, count, z.together, x);
#elif defined(RESIDUAL)
        float x[PACK];
        load_part(to.residual + at, count, z.together, x);
        const float kept = to.keep ? to.keep[quotient(row, to.rows)] : 1.0f;
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
        store_pack_of(out + at, count, z.together, pack(v));
    });
#else
    store_rows(tile, out, block.first_n, z.n, z.together, place);
#endif
#if defined(STATISTICS)
    store_statistics(tile, min(z.m - block.first_m, TILE_M), block.first_n, z.n, to.partial_other + u64(block.first_m / TILE_M) * 2 * z.n);
#endif
#endif
}
