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

// The weight exp(score - lse) as a power of two, with one rounding of its exponent: log_sum is lse log2 e, or infinity
// for a row that sees nothing. `mask` is where the pair's element is, if there is a mask.
__device__ __forceinline__ float weight_of(float product, const Score &score, const float *mask, float log_sum) {
    if (IS_MASKED) return exp2_fast(fmaf(masked(product, score, *mask), LOG2_E, -log_sum));
    return exp2_fast(fmaf(product, score.scale * LOG2_E, -log_sum));
}

// A tile from `rows` further on, a multiple of 16.
__device__ __forceinline__ Tile further(Tile tile, u32 rows) {
    tile.rows += rows * ROW_BYTES, tile.others += rows * ROW_BYTES;
    return tile;
}

// What belongs to a row, beside its vectors.
struct RowScalars {
    float log_sum; // lse log2 e; infinity, with which all weights are 0, for a row that sees nothing or does not exist
    float delta;   // negative, as products start with it
};

__device__ __forceinline__ RowScalars row_scalars(float lse, float delta) {
    return {lse_or_infinity(lse) * LOG2_E, -delta};
}

// 16 queries of a warp, and the sum that is their gradient.
struct OwnQueries {
    Own<true> query, upstream;
    float log_sum[2];
    float delta[4]; // negative, as products start with it: twice row g's, twice row g + 8's
    u32 first;      // token
    Sums dquery = {};

    // Rows from `row` on of tiles, which begin with token `start`, and of what belongs to them.
    __device__ __forceinline__ OwnQueries(u32 queries, u32 upstreams, u32 row, u32 start,
                                          const RowScalars *scalars) {
        first = start + row;
        query.load(queries, row), upstream.load(upstreams, row);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const volatile RowScalars &own = scalars[row + own_group() + 8 * half];
            log_sum[half] = own.log_sum;
            // Read twice: of one value the compiler would make the four that a product starts with each time again.
            delta[2 * half] = own.delta, delta[2 * half + 1] = own.delta;
        }
    }
    // Takes in the first COUNT times 16 keys and values of tiles, or with TAIL the first `columns` of them. The first is
    // token `start`.
    template <int COUNT, bool TAIL>
    __device__ __forceinline__ void take(const Tile &keys, const Tile &values, u32 start, u32 columns,
                                         const Score &score) {
        float s[COUNT][2][4], dp[COUNT][2][4];
#pragma unroll
        for (int j = 0; j < COUNT; j++) over_tile([&](int h, int e) { s[j][h][e] = 0.0f, dp[j][h][e] = delta[e]; });
        add_inner(query, keys, 0, s);
        add_inner(upstream, values, 0, dp);
        const int limit = int(columns) - own_pair(); // of a lane's columns
        const float *mask[2];
#pragma unroll
        for (int half = 0; half < 2; half++)
            mask[half] = IS_MASKED ? mask_row(score, first + own_group() + 8 * half) + start + own_pair() : nullptr;
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            over_tile([&](int h, int e) {
                const int column = 16 * j + 8 * h + e % 2;
                if (TAIL && column >= limit)
                    s[j][h][e] = 0.0f;
                else
                    s[j][h][e] = weight_of(s[j][h][e], score, mask[e / 2] + column, log_sum[e / 2]) * dp[j][h][e];
            });
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, keys, 16 * j, dquery);
        }
    }
    // Takes in the first `count` keys and values of tiles; rows up to a multiple of 16 are there.
    __device__ __forceinline__ void take_all(Tile keys, Tile values, u32 start, u32 count, const Score &score) {
        u32 row = 0;
        for (; row + 32 <= count; row += 32) {
            take<2, false>(keys, values, start + row, 32, score);
            keys = further(keys, 32), values = further(values, 32);
        }
        for (; row < count; row += 16) {
            take<1, true>(keys, values, start + row, count - row, score);
            keys = further(keys, 16), values = further(values, 16);
        }
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

    // Takes in the first COUNT times 16 queries of tiles, and what belongs to them; vectors behind the last are zeros. The
    // first is token `start`.
    template <int COUNT>
    __device__ __forceinline__ void take(const Tile &queries, const Tile &upstreams, u32 start,
                                         const RowScalars *scalars, const Score &score) {
        float s[COUNT][2][4], dp[COUNT][2][4], log_sum[COUNT][2][2];
#pragma unroll
        for (int j = 0; j < COUNT; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float4 two = *reinterpret_cast<const float4 *>(scalars + 16 * j + 8 * h + own_pair());
                log_sum[j][h][0] = two.x, log_sum[j][h][1] = two.z;
#pragma unroll
                for (int e = 0; e < 4; e++) s[j][h][e] = 0.0f, dp[j][h][e] = e % 2 ? two.w : two.y;
            }
        add_inner(key, queries, 0, s);
        add_inner(value, upstreams, 0, dp);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int odd = 0; odd < 2; odd++) {
                    const float *mask =
                        IS_MASKED ? mask_row(score, start + 16 * j + 8 * h + own_pair() + odd) : nullptr;
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const u32 own = min(first + own_group() + 8 * half, score.tokens - 1);
                        float &x = s[j][h][2 * half + odd];
                        x = weight_of(x, score, mask + own, log_sum[j][h][odd]);
                    }
                }
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, upstreams, 16 * j, dvalue);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            over_tile([&](int h, int e) { s[j][h][e] *= dp[j][h][e]; });
            u32 weights[4];
            to_operand(s[j], weights);
            weighted_sum(weights, queries, 16 * j, dkey);
        }
    }
    // Takes in the first `count` queries of tiles, a multiple of 16.
    __device__ __forceinline__ void take_all(Tile queries, Tile upstreams, u32 start, u32 count,
                                             const RowScalars *scalars, const Score &score) {
        // What registers leave room for.
        constexpr u32 ROWS = HEAD > 64 || (HEAD > 32 && __CUDA_ARCH__ < 900) ? 16 : 32;
        u32 row = 0;
        for (; row + ROWS <= count; row += ROWS) {
            take<ROWS / 16>(queries, upstreams, start + row, scalars + row, score);
            queries = further(queries, ROWS), upstreams = further(upstreams, ROWS);
        }
        if (ROWS > 16 && row < count) take<1>(queries, upstreams, start + row, scalars + row, score);
    }
    // Keys that are not seen have gradient 0, or NaN where the number of those that are is wrong.
    __device__ __forceinline__ void store(const Keys &keys, element *dkeys, element *dvalues, u32 first,
                                          const Problem &p) {
        if (__builtin_expect(first + 16 > keys.count, 0)) {
            const float none = keys.wrong ? NOT_A_NUMBER : 0.0f;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (first + own_group() + 8 * (e / 2) < keys.count) continue;
#pragma unroll
                for (int n = 0; n < 2 * STEPS; n++) dkey[n][e] = dvalue[n][e] = none;
            }
        }
        const float scales[2] = {p.scale, p.scale}, ones[2] = {1.0f, 1.0f};
        store_sums(dkey, scales, dkeys, token_stride(p), first, p.tokens, p.size);
        store_sums(dvalue, ones, dvalues, token_stride(p), first, p.tokens, p.size);
    }
};

// Puts `count` rows of dout from `first` on into a tile, zeros behind the last, and what belongs to them into `scalars`,
// with delta = dout . out; if `delta` is not null, there too. On the way through registers, since out is needed for that
// alone. By all threads of the block; the lanes that have a row's packs add up in a fixed order. A thread has AT_ONCE
// packs of dout and of out on the way at once, and what belongs to their rows: memory is waited for once for all of them.
template <int AT_ONCE>
__device__ __forceinline__ void load_upstream(u32 tile, const element *dout, const element *out, const float *lse,
                                              u32 first, u32 count, RowScalars *scalars, float *delta,
                                              const Problem &p) {
    // A lane has the same pack of all its rows. count is a multiple of 16: a warp's rows are all inside or all behind.
    const u32 pack = threadIdx.x % PACKS, apart = blockDim.x / PACKS;
    for (u32 start = threadIdx.x / PACKS; start < count; start += AT_ONCE * apart) {
        uint4 upstream[AT_ONCE], result[AT_ONCE];
        float log_sum[AT_ONCE];
        u64 at = (first + start) * row_stride(p) + pack * 8;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++, at += apart * row_stride(p)) {
            const u32 row = start + k * apart;
            const bool exists = row < count && first + row < p.tokens, inside = exists && pack * 8 < p.size;
            upstream[k] = load_bits(dout + at, inside, true), result[k] = load_bits(out + at, inside, true);
            log_sum[k] = exists && pack == 0 ? lse[first + row] : -INFINITE;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const u32 row = start + k * apart;
            if (row >= count) break;
            float a[PACK], b[PACK], sum = 0.0f;
            unpack(upstream[k], a), unpack(result[k], b);
#pragma unroll
            for (int e = 0; e < PACK; e++) sum = fmaf(a[e], b[e], sum);
#pragma unroll
            for (int step = 1; step < PACKS; step *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
            store_shared(tile + 16 * swizzled<PACKS>(row, pack), upstream[k]);
            if (pack != 0) continue;
            scalars[row] = row_scalars(log_sum[k], sum);
            if (delta && first + row < p.tokens) delta[first + row] = sum;
        }
    }
}
