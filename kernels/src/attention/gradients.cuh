// Gradients of attention in bf16 on tensor cores, 16 rows against 16 rows at a time. With p_ts = exp(scale q_t . k_s -
// lse_t):
//
//     dv_s = sum_t p_ts dout_t        delta_t = dout_t . out_t        e_ts = p_ts (dout_t . v_s - delta_t)
//     dq_t = scale sum_s e_ts k_s     dk_s = scale sum_t e_ts q_t
//
// A warp owns 16 queries, and sums over keys, or 16 keys, and sums over queries. Both make the scores again: 7 products
// where one pass would need 5, but every sum has one owner, stays in registers and has one order, so the same bits come
// out each time, in whatever tiles the others come.
//
// Defines: MASKED where there is a mask.
#pragma once

#include "attention/fragments.cuh"

#if defined(MASKED)
constexpr bool IS_MASKED = true;
#else
constexpr bool IS_MASKED = false;
#endif

// exp(score - lse), where lse of a row that sees nothing is given as infinity. The score is rounded as it was when lse was
// made: where one key dominates, both are equal and its weight is exactly 1, however large they are.
__device__ __forceinline__ float weight_of(float product, const Score &score, u32 query, u32 key, float lse) {
    const float x = IS_MASKED ? score.masked(product, query, key) : __fmul_rn(product, score.scale);
    return exp2_fast(__fadd_rn(x, -lse) * LOG2_E);
}

// 16 queries of a warp, and the sum that is their gradient.
struct OwnQueries {
    Own<true> query, upstream;
    float lse[2], delta[2];
    u32 first; // token
    Sums dquery = {};

    // Rows from `row` on of tiles, which begin with token `start`, and from row_lse and row_delta on of what belongs to them.
    __device__ __forceinline__ OwnQueries(u32 queries, u32 upstreams, u32 row, u32 start, const float *row_lse,
                                          const float *row_delta) {
        first = start + row;
        query.load(queries, row), upstream.load(upstreams, row);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            lse[half] = row_lse[own_group() + 8 * half];
            delta[half] = row_delta[own_group() + 8 * half];
        }
    }
    // Takes in the keys and values in a tile's rows from `row` on: COUNT times 16, or `columns`. The tile begins with token
    // `start`.
    template <int COUNT>
    __device__ __forceinline__ void take(const Tile &keys, const Tile &values, u32 row, u32 start, u32 columns,
                                         const Score &score) {
        float s[COUNT][2][4], dp[COUNT][2][4];
        query.inner(keys, row, s, COUNT);
        upstream.inner(values, row, dp, COUNT);
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            over_tile([&](int h, int e) {
                const u32 own = first + own_group() + 8 * (e / 2);
                const u32 other = start + row + 16 * j + 8 * h + own_pair() + e % 2;
                s[j][h][e] = weight_of(s[j][h][e], score, own, other, lse[e / 2]) * (dp[j][h][e] - delta[e / 2]);
            });
        if (columns < 16 * COUNT) {
#pragma unroll
            for (int j = 0; j < COUNT; j++)
                over_tile([&](int h, int e) {
                    if (16 * j + 8 * h + own_pair() + e % 2 >= columns) s[j][h][e] = 0.0f;
                });
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, keys, row + 16 * j, dquery);
        }
    }
    // Takes in the first `count` keys and values of tiles; rows up to a multiple of 16 are there.
    __device__ __forceinline__ void take_all(const Tile &keys, const Tile &values, u32 start, u32 count,
                                             const Score &score) {
        u32 row = 0;
        for (; row + 16 < count; row += 32) take<2>(keys, values, row, start, count - row, score);
        if (row < count) take<1>(keys, values, row, start, count - row, score);
    }
    __device__ __forceinline__ void store(float factor, element *rows, u32 first, const Problem &p) const {
        const float factors[2] = {factor, factor};
        store_sums(dquery, factors, rows, token_stride(p), first, p.tokens, p.size);
    }
};

// 16 keys of a warp with their values, and the sums that are their gradients.
struct OwnKeys {
    Own<(HEAD <= 64)> key, value;
    u32 first; // token
    Sums dkey = {}, dvalue = {};

    __device__ __forceinline__ OwnKeys(u32 keys, u32 values, u32 row, u32 start) {
        first = start + row;
        key.load(keys, row), value.load(values, row);
    }

    // Takes in COUNT times 16 queries in a tile's rows from `row` on, and from row_lse and row_delta on; of rows behind the
    // last, lse is infinity and the others are 0. The tile begins with token `start`.
    template <int COUNT>
    __device__ __forceinline__ void take(const Tile &queries, const Tile &upstreams, u32 row, u32 start,
                                         const float *row_lse, const float *row_delta, const Score &score) {
        float s[COUNT][2][4], dp[COUNT][2][4];
        key.inner(queries, row, s, COUNT);
        value.inner(upstreams, row, dp, COUNT);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float2 lse = *reinterpret_cast<const float2 *>(row_lse + 16 * j + 8 * h + own_pair());
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const u32 own = first + own_group() + 8 * (e / 2);
                    const u32 other = start + row + 16 * j + 8 * h + own_pair() + e % 2;
                    s[j][h][e] = weight_of(s[j][h][e], score, other, own, e % 2 ? lse.y : lse.x);
                }
            }
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, upstreams, row + 16 * j, dvalue);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float2 delta = *reinterpret_cast<const float2 *>(row_delta + 16 * j + 8 * h + own_pair());
#pragma unroll
                for (int e = 0; e < 4; e++) s[j][h][e] *= dp[j][h][e] - (e % 2 ? delta.y : delta.x);
            }
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, queries, row + 16 * j, dkey);
        }
    }
    // Takes in the first `count` queries of tiles, a multiple of 16.
    __device__ __forceinline__ void take_all(const Tile &queries, const Tile &upstreams, u32 start, u32 count,
                                             const float *row_lse, const float *row_delta, const Score &score) {
        constexpr int TOGETHER = HEAD > 64 || __CUDA_ARCH__ < 900 ? 1 : 2; // what registers leave room for
        u32 row = 0;
        for (; row + 16 * (TOGETHER - 1) < count; row += 16 * TOGETHER)
            take<TOGETHER>(queries, upstreams, row, start, row_lse + row, row_delta + row, score);
        if (row < count) take<1>(queries, upstreams, row, start, row_lse + row, row_delta + row, score);
    }
    // Keys that are not seen have gradient 0, or NaN where the number of those that are is wrong.
    __device__ __forceinline__ void store(const Keys &keys, element *dkeys, element *dvalues, u32 first,
                                          const Problem &p) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (first + own_group() + 8 * half < keys.count) continue;
            const float none = keys.wrong ? NOT_A_NUMBER : 0.0f;
#pragma unroll
            for (int n = 0; n < 2 * STEPS; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) dkey[n][e] = dvalue[n][e] = none;
        }
        const float scales[2] = {p.scale, p.scale}, ones[2] = {1.0f, 1.0f};
        store_sums(dkey, scales, dkeys, token_stride(p), first, p.tokens, p.size);
        store_sums(dvalue, ones, dvalues, token_stride(p), first, p.tokens, p.size);
    }
};

// Puts `count` rows of dout from `first` on into a tile, zeros behind the last, and delta = dout . out of each into
// row_delta; if `delta` is not null, there too. On the way through registers, since out is needed for that alone. By
// all threads of the block; the lanes that have a row's packs add up in a fixed order.
__device__ __forceinline__ void load_upstream(u32 tile, const element *dout, const element *out, u32 first, u32 count,
                                              float *row_delta, float *delta, const Problem &p) {
    for (u32 i = threadIdx.x; i < count * PACKS; i += blockDim.x) {
        const u32 row = i / PACKS, pack = i % PACKS;
        const bool inside = first + row < p.tokens && pack * 8 < p.size;
        const u64 at = (first + row) * row_stride(p) + pack * 8;
        const uint4 upstream = load_bits(dout + at, inside, true), result = load_bits(out + at, inside, true);
        float a[PACK], b[PACK], sum = 0.0f;
        unpack(upstream, a), unpack(result, b);
#pragma unroll
        for (int e = 0; e < PACK; e++) sum = fmaf(a[e], b[e], sum);
#pragma unroll
        for (int step = 1; step < PACKS; step *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
        store_shared(tile + 16 * swizzled<PACKS>(row, pack), upstream);
        if (pack != 0) continue;
        row_delta[row] = sum;
        if (delta && first + row < p.tokens) delta[first + row] = sum;
    }
}

// lse of `count` rows from `first` on; of rows behind the last infinity, so that their weights are 0.
__device__ __forceinline__ void load_lse(float *row_lse, const float *lse, u32 first, u32 count, const Problem &p) {
    for (u32 i = threadIdx.x; i < count; i += blockDim.x)
        row_lse[i] = first + i < p.tokens ? lse_or_infinity(lse[first + i]) : INFINITE;
}
