// The same as row_fwd.cu for any number of tokens: a block has 64 or 128 queries of a head and streams its keys and
// values past them, 64 at a time and the next ones on the way, with a running maximum (Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018; Dao, "FlashAttention-2", 2023). A warp has 16 or 32 of the queries in
// registers, and each fragment of a key or value that it loads serves all of them.

//
// Defines: MASKED where there is a mask.

#include "attention/fragments.cuh"

#if defined(MASKED)
#define NAME attention_fwd_stream_masked
constexpr bool IS_MASKED = true;
#else
#define NAME attention_fwd_stream
constexpr bool IS_MASKED = false;
#endif

constexpr int WARPS = 4;
constexpr int PARTS = HEAD > 64 || IS_MASKED ? 1 : 2; // of 16 queries that a warp has
constexpr int ROWS = 16 * PARTS * WARPS; // own rows of a block
constexpr int TILE = 64;                 // keys of a tile
constexpr u32 TILE_BYTES = TILE * ROW_BYTES;

struct Rows {
    Operand query[PARTS];
    Sums sum[PARTS];
    float largest[PARTS][2], total[PARTS][2];
};

// Takes `columns` keys and values in: all 64, or with TAIL perhaps less. The warp's first query and the first key are tokens
// `query` and `start`.
template <bool TAIL>
__device__ __forceinline__ void attend(Rows &own, const Tile &keys, const Tile &values, u32 columns,
                                       const Softmax &softmax, const Score &score, u32 query, u32 start) {
    constexpr int GROUPS = TILE / 16;
    float s[PARTS][GROUPS][2][4];
#pragma unroll
    for (int j = 0; j < GROUPS; j++) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[part][j][0][e] = s[part][j][1][e] = 0.0f;
        if (!TAIL || 16 * j < columns) {
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 b[4];
                load_others(keys, 16 * j, step, b);
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    mma_bf16(s[part][j][0], own.query[part][step], b[0], b[1]);
                    mma_bf16(s[part][j][1], own.query[part][step], b[2], b[3]);
                }
            }
        }
        if (IS_MASKED) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                over_tile([&](int h, int e) {
                    s[part][j][h][e] = score.masked(s[part][j][h][e], query + 16 * part + own_group() + 8 * (e / 2),
                                                    start + 16 * j + 8 * h + own_pair() + e % 2);
                });
        }
        if (TAIL) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (16 * j + 8 * h + own_pair() + e % 2 >= columns) s[part][j][h][e] = -INFINITE;
        }
    }
    u32 weights[PARTS][GROUPS][4];
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        float shift[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = own.largest[part][half];
#pragma unroll
            for (int j = 0; j < GROUPS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    largest = fmaxf(largest, fmaxf(s[part][j][h][2 * half], s[part][j][h][2 * half + 1]));
            largest = row_max(largest);
            shift[half] = softmax.shift(largest);
            const float factor = softmax.weight(own.largest[part][half], shift[half]);
            own.largest[part][half] = largest;
            own.total[part][half] *= factor;
#pragma unroll
            for (int n = 0; n < 2 * STEPS; n++)
                own.sum[part][n][2 * half] *= factor, own.sum[part][n][2 * half + 1] *= factor;
        }
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[part][j][h][e] = softmax.weight(s[part][j][h][e], shift[e / 2]);
                    own.total[part][e / 2] += s[part][j][h][e];
                }
            to_operand(s[part][j], weights[part][j]);
        }
    }
#pragma unroll
    for (int j = 0; j < GROUPS; j++) {
        if (TAIL && 16 * j >= columns) continue;
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            u32 b[4];
            load_others_transposed(values, 16 * j, step, b);
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                mma_bf16(own.sum[part][2 * step], weights[part][j], b[0], b[1]);
                mma_bf16(own.sum[part][2 * step + 1], weights[part][j], b[2], b[3]);
            }
        }
    }
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T], masks: [1 or B, 1 or H, T, T], or null if not
// MASKED
// p.tiles: of ROWS rows in T
KERNEL __launch_bounds__(32 * WARPS)
    HEAD_ENTRY(NAME)(const element *qkv, const i32 *valid, element *out, float *lse, const float *masks, Problem p,
                     MaskStrides strides) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 query_tile = shared_address(shared);              // (ROWS, HEAD)
    const u32 key_tiles = query_tile + ROWS * ROW_BYTES;        // (2, TILE, HEAD)
    const u32 value_tiles = key_tiles + 2 * TILE_BYTES;         // (2, TILE, HEAD)
    const Place at = place(ROWS, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const Softmax softmax(IS_MASKED ? 1.0f : p.scale); // a masked score is scaled already
    const u32 own_row = 16 * PARTS * warp_id();
    const bool has_rows = at.first + own_row < p.tokens;

    const auto copy_tile = [&](u32 start, u32 stage) {
        if (start >= keys.count) return;
        copy_rows(key_tiles + stage * TILE_BYTES, part_of(qkv, 1, at, p), token_stride(p), start, TILE, keys.count,
                  p.size, threadIdx.x, 32 * WARPS);
        copy_rows(value_tiles + stage * TILE_BYTES, part_of(qkv, 2, at, p), token_stride(p), start, TILE, keys.count,
                  p.size, threadIdx.x, 32 * WARPS);
    };

    copy_rows(query_tile, part_of(qkv, 0, at, p), token_stride(p), at.first, ROWS, p.tokens, p.size, threadIdx.x,
              32 * WARPS);
    copy_tile(0, 0);
    copy_commit();

    Rows own = {};
#pragma unroll
    for (int part = 0; part < PARTS; part++) own.largest[part][0] = own.largest[part][1] = -INFINITE;
    u32 stage = 0;
    for (u32 start = 0; start < keys.count; start += TILE, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_tile(start + TILE, stage ^ 1);
        copy_commit();
        if (!has_rows) continue;
        if (start == 0) {
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                load_operand(Tile(query_tile), own_row + 16 * part, own.query[part]);
                softmax.orient(own.query[part]);
            }
        }
        const u32 columns = keys.count - start;
        Tile key(key_tiles + stage * TILE_BYTES), value(value_tiles + stage * TILE_BYTES);
        key.keep(), value.keep();
        if (columns >= TILE)
            attend<false>(own, key, value, TILE, softmax, score, at.first + own_row, start);
        else
            attend<true>(own, key, value, columns, softmax, score, at.first + own_row, start);
    }
    copy_wait<0>(); // what is on its way to shared memory without keys
    if (!has_rows) return;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        float inverse[2];
        const u32 first = at.first + own_row + 16 * part;
        finish_rows(own.largest[part], own.total[part], softmax, keys.wrong, lse + at.pair * p.tokens, first, p.tokens,
                    inverse);
        store_sums(own.sum[part], inverse, rows_of(out, at, p), row_stride(p), first, p.tokens, p.size);
    }
}
