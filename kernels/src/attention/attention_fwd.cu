// out[b, t, h] = sum_s softmax_s(scale q_t . k_s) v_s and lse[b, h, t] = log sum_s exp(scale q_t . k_s), over the keys
// s that the sample has: those before valid[b], or all.
//
// A block makes one tile of queries of one head: it streams keys and values through shared memory and keeps, for each
// query, the largest score so far, the sum of exponentials relative to it, and the sum of values with these weights
// (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022). The
// scores are never in global memory. Query, key and value are read in place from qkv [B, T, 3, H, D].
//
// Which thread does what: tile.cuh. Warps wait for each other only where a tile of keys and values is replaced.

#include "attention/tile.cuh"

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T], masks: [1 or B, 1 or H, T, T] or null
KERNEL __launch_bounds__(THREADS, BLOCKS)
    HEAD_ENTRY(attention_fwd)(const element *qkv, const i32 *valid, element *out, float *lse, const float *masks,
                              Problem p, MaskStrides strides) {
    extern __shared__ float4 shared[];
    float *query = reinterpret_cast<float *>(shared); // (TILE, STRIDE)
    float *key = query + TILE_FLOATS;                 // (TILE, STRIDE)
    float *value = key + TILE_FLOATS;                 // (TILE, STRIDE)
    float *weights = value + TILE_FLOATS;             // (TILE, WEIGHT_STRIDE)

    const Place at = place(TILE, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const bool has_rows = at.first + warp_id() * 8 < p.tokens;

    float largest[4], total[4], sum[4][CHUNKS][WIDTH] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) largest[i] = -INFINITE, total[i] = 0.0f;

    load_tile(query, part_of(qkv, 0, at, p), token_stride(p), at.first, p.tokens, p);
    for (u32 start = 0; start < keys.count; start += TILE) {
        __syncthreads(); // all warps have read the keys and values before these
        load_tile(key, part_of(qkv, 1, at, p), token_stride(p), start, keys.count, p);
        load_tile(value, part_of(qkv, 2, at, p), token_stride(p), start, keys.count, p);
        __syncthreads(); // queries, keys and values are there
        if (!has_rows) continue;
        const u32 columns = min(keys.count - start, u32(TILE));

        float s[4][GROUPS];
        inner_products(query, key, columns, s);
        const float scale = add_mask<false>(score, at.first, start, s);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float tile_max = -INFINITE;
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                s[i][j] = own_column() + 16 * j < columns ? __fmul_rn(s[i][j], scale) : -INFINITE;
                tile_max = fmaxf(tile_max, s[i][j]);
            }
            const float before = largest[i];
            largest[i] = fmaxf(before, row_max(tile_max));
            // Scores of nothing but minus infinity have weight 0, not NaN.
            const float shift = largest[i] == -INFINITE ? 0.0f : largest[i];
            const float factor = expf(before - shift);
            total[i] *= factor;
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                s[i][j] = expf(s[i][j] - shift);
                total[i] += s[i][j];
            }
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                for (int n = 0; n < WIDTH; n++) sum[i][c][n] *= factor;
        }
        share_weights(weights, columns, s);
        weighted_sum(weights, value, columns, sum);
    }
    __syncthreads(); // without keys: the queries are written before they are written over
    if (!has_rows) return;

    float log_sum[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float all = row_sum(total[i]);
        const float none = keys.wrong ? NOT_A_NUMBER : 0.0f;
        log_sum[i] = all == 0.0f ? none - INFINITE : largest[i] + logf(all);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int n = 0; n < WIDTH; n++) sum[i][c][n] = all == 0.0f ? none : sum[i][c][n] / all;
    }
    store_scalars(log_sum, lse + at.pair * p.tokens, at.first, p.tokens);
    stage(query, sum);
    store_rows(query, rows_of(out, at, p), row_stride(p), at.first, p.tokens, p);
}
