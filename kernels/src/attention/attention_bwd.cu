// Gradients of attention with respect to query, key and value. With p_ts = exp(scale q_t . k_s - lse_t):
//
//     dv_s = sum_t p_ts dout_t        delta_t = dout_t . out_t        e_ts = p_ts (dout_t . v_s - delta_t)
//     dq_t = scale sum_s e_ts k_s     dk_s = scale sum_t e_ts q_t
//
// attention_bwd_q makes one tile of dq, streaming keys and values, and delta on the way. attention_bwd_kv, launched
// after it, makes one tile of dk and dv, streaming queries and upstream gradients. Both compute the scores again (7
// products of T x T x D where one pass with atomic additions would need 5): every sum has one owner and one order, so
// the same bits come out each time, and nothing of size T x T is in global memory.
//
// Which thread does what: tile.cuh. Warps wait for each other only where a streamed tile is replaced.

#include "attention/tile.cuh"

__device__ __forceinline__ void scale_all(float (&x)[4][CHUNKS][WIDTH], float scale) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int n = 0; n < WIDTH; n++) x[i][c][n] *= scale;
}

// upstream . out of own row x % 4 (so of each row four times over). In the order of inner_products: where one key has
// all the weight, out is its value and dout . value - delta cancels to 0.
__device__ __forceinline__ float own_delta(const float *upstream, const float *out) {
    const int row = (own_row() + own_column() % 4) * STRIDE;
    float sum = 0.0f;
#pragma unroll 4
    for (int d = 0; d < HEAD; d += 4) {
        float a[4], b[4];
        get(upstream + row + d, a);
        get(out + row + d, b);
#pragma unroll
        for (int e = 0; e < 4; e++) sum = fmaf(a[e], b[e], sum);
    }
    return sum;
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out, dout: [B, T, H, D], lse: [B, H, T]
// masks: [1 or B, 1 or H, T, T] or null
// dqkv: [B, T, 3, H, D], of which the queries' third is written; delta: [B, H, T], written
KERNEL __launch_bounds__(THREADS, BLOCKS)
    HEAD_ENTRY(attention_bwd_q)(const element *qkv, const i32 *valid, const element *out, const element *dout,
                                const float *lse, element *dqkv, float *delta, const float *masks, Problem p,
                                MaskStrides strides) {
    extern __shared__ float4 shared[];
    float *query = reinterpret_cast<float *>(shared); // (TILE, STRIDE)
    float *upstream = query + TILE_FLOATS;            // (TILE, STRIDE)
    float *key = upstream + TILE_FLOATS;              // (TILE, STRIDE)
    float *value = key + TILE_FLOATS;                 // (TILE, STRIDE)
    float *weights = value + TILE_FLOATS;             // (TILE, WEIGHT_STRIDE)

    const Place at = place(TILE, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const bool has_rows = at.first + warp_id() * 8 < p.tokens;

    load_tile(query, part_of(qkv, 0, at, p), token_stride(p), at.first, p.tokens, p);
    load_tile(upstream, rows_of(dout, at, p), row_stride(p), at.first, p.tokens, p);
    load_tile(key, rows_of(out, at, p), row_stride(p), at.first, p.tokens, p);
    __syncthreads(); // out, where the keys will be, and upstream are there

    float row_lse[4], row_delta[4], sum[4][CHUNKS][WIDTH] = {};
    const float mine = own_delta(upstream, key);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 row = at.first + own_row() + i;
        row_lse[i] = row < p.tokens ? lse_or_infinity(lse[at.pair * p.tokens + row]) : INFINITE;
        row_delta[i] = __shfl_sync(ALL_LANES, mine, i, 16);
    }
    store_scalars(row_delta, delta + at.pair * p.tokens, at.first, p.tokens);

    for (u32 start = 0; start < keys.count; start += TILE) {
        __syncthreads(); // all warps have read out, or the keys and values before these
        load_tile(key, part_of(qkv, 1, at, p), token_stride(p), start, keys.count, p);
        load_tile(value, part_of(qkv, 2, at, p), token_stride(p), start, keys.count, p);
        __syncthreads(); // keys and values are there
        if (!has_rows) continue;
        const u32 columns = min(keys.count - start, u32(TILE));

        float s[4][GROUPS], dp[4][GROUPS];
        inner_products(query, key, columns, s);
        const float scale = add_mask<false>(score, at.first, start, s);
        inner_products(upstream, value, columns, dp);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                const float e = weight_of(s[i][j], scale, row_lse[i]) * (dp[i][j] - row_delta[i]);
                s[i][j] = own_column() + 16 * j < columns ? e : 0.0f;
            }
        share_weights(weights, columns, s);
        weighted_sum(weights, key, columns, sum);
    }
    if (!has_rows) return;
    scale_all(sum, keys.wrong ? NOT_A_NUMBER : p.scale);
    stage(query, sum);
    store_rows(query, part_of(dqkv, 0, at, p), token_stride(p), at.first, p.tokens, p);
}

// qkv: [B, T, 3, H, D], valid: [B] or null, dout: [B, T, H, D], lse, delta: [B, H, T]
// masks: [1 or B, 1 or H, T, T] or null
// dqkv: [B, T, 3, H, D], of which the keys' and values' thirds are written
KERNEL __launch_bounds__(THREADS, BLOCKS)
    HEAD_ENTRY(attention_bwd_kv)(const element *qkv, const i32 *valid, const element *dout, const float *lse,
                                 const float *delta, element *dqkv, const float *masks, Problem p, MaskStrides strides) {
    extern __shared__ float4 shared[];
    float *key = reinterpret_cast<float *>(shared); // (TILE, STRIDE)
    float *value = key + TILE_FLOATS;               // (TILE, STRIDE)
    float *query = value + TILE_FLOATS;             // (TILE, STRIDE)
    float *upstream = query + TILE_FLOATS;          // (TILE, STRIDE)
    float *weights = upstream + TILE_FLOATS;        // (TILE, WEIGHT_STRIDE)
    float *row_lse = weights + TILE * WEIGHT_STRIDE; // (TILE)
    float *row_delta = row_lse + TILE;               // (TILE)

    const Place at = place(TILE, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const bool has_keys = at.first + warp_id() * 8 < keys.count;
    float dkey[4][CHUNKS][WIDTH] = {}, dvalue[4][CHUNKS][WIDTH] = {};

    if (at.first < keys.count) {
        load_tile(key, part_of(qkv, 1, at, p), token_stride(p), at.first, keys.count, p);
        load_tile(value, part_of(qkv, 2, at, p), token_stride(p), at.first, keys.count, p);
        for (u32 start = 0; start < p.tokens; start += TILE) {
            __syncthreads(); // all warps have read the queries before these
            load_tile(query, part_of(qkv, 0, at, p), token_stride(p), start, p.tokens, p);
            load_tile(upstream, rows_of(dout, at, p), row_stride(p), start, p.tokens, p);
            if (threadIdx.x < TILE) {
                const u32 row = start + threadIdx.x;
                const u64 place = at.pair * p.tokens + row;
                row_lse[threadIdx.x] = row < p.tokens ? lse_or_infinity(lse[place]) : INFINITE;
                row_delta[threadIdx.x] = row < p.tokens ? delta[place] : 0.0f;
            }
            __syncthreads(); // keys, values and what belongs to the queries are there
            if (!has_keys) continue;
            const u32 columns = min(p.tokens - start, u32(TILE));

            float s[4][GROUPS], dp[4][GROUPS];
            inner_products(key, query, columns, s);
            const float scale = add_mask<true>(score, at.first, start, s);
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                const int column = own_column() + 16 * j;
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[i][j] = column < columns ? weight_of(s[i][j], scale, row_lse[column]) : 0.0f;
            }
            share_weights(weights, columns, s);
            weighted_sum(weights, upstream, columns, dvalue);
            inner_products(value, upstream, columns, dp);
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                const int column = own_column() + 16 * j;
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[i][j] = column < columns ? s[i][j] * (dp[i][j] - row_delta[column]) : 0.0f;
            }
            share_weights(weights, columns, s);
            weighted_sum(weights, query, columns, dkey);
        }
    }
    if (at.first + warp_id() * 8 >= p.tokens) return;
    scale_all(dkey, p.scale);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        // Keys that are not seen have gradient 0.
        if (at.first + own_row() + i < keys.count) continue;
        const float none = keys.wrong ? NOT_A_NUMBER : 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int n = 0; n < WIDTH; n++) dkey[i][c][n] = dvalue[i][c][n] = none;
    }
    stage(key, dkey);
    stage(value, dvalue);
    store_rows(key, part_of(dqkv, 1, at, p), token_stride(p), at.first, p.tokens, p);
    store_rows(value, part_of(dqkv, 2, at, p), token_stride(p), at.first, p.tokens, p);
}
