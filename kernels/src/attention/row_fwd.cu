// out[b, t, h] = sum_s softmax_s(scale q_t . k_s) v_s and lse[b, h, t] = log sum_s exp(scale q_t . k_s) in bf16 on
// tensor cores, for up to KEYS tokens: a row of scores is whole in registers, so that its softmax needs neither a
// second look nor a running maximum.
//
// A block has `together` heads: all their keys and values come to shared memory at once, at 16-row granularity, and lie
// there to the end. After that one barrier its warps never meet: each takes 16 queries of a head after the other. It
// has 16 x KEYS scores in registers, makes weights of them in place, rounds these to bf16 and has with that the left
// operand of the product with the values. The next queries are on the way meanwhile.

#include "attention/fragments.cuh"

constexpr int WARPS = 4;
constexpr int BLOCKS = KEYS > 208 || HEAD > 64 ? 2 : 3; // of a multiprocessor that registers leave room for
constexpr int GROUPS = KEYS / 16;

#define PASTE_KEYS(name, keys) HEAD_ENTRY(name##_k##keys)
#define WITH_KEYS(name, keys) PASTE_KEYS(name, keys)

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T]
// p.tiles: of 16 rows in T; pairs: B H
KERNEL __launch_bounds__(32 * WARPS, BLOCKS)
    WITH_KEYS(attention_fwd_row, KEYS)(const element *qkv, const i32 *valid, element *out, float *lse, Problem p,
                                       u32 pairs, u32 together) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 first_pair = blockIdx.x * together, heads = min(together, pairs - first_pair);
    const u32 rows = 16 * p.tiles, warps = blockDim.x / 32, tasks = heads * p.tiles;
    const u32 key_tiles = shared_address(shared);                        // (together, rows, HEAD)
    const u32 value_tiles = key_tiles + together * rows * ROW_BYTES;     // (together, rows, HEAD)
    const u32 query_tiles = value_tiles + together * rows * ROW_BYTES    // (2, 16, HEAD) a warp
                            + warp_id() * 32 * ROW_BYTES;
    const Softmax softmax(p.scale);

    const auto copy_queries = [&](u32 task, u32 tile) {
        if (task >= tasks) return;
        const Place at = place_of(first_pair + task / p.tiles, p);
        copy_rows(tile, part_of(qkv, 0, at, p), token_stride(p), task % p.tiles * 16, 16, p.tokens, p.size, lane_id(),
                  32);
    };

    for (u32 i = 0; i < heads; i++) {
        const Place at = place_of(first_pair + i, p);
        const u32 count = keys_of(valid, at.sample, p).count;
        for (int part = 1; part <= 2; part++)
            copy_rows((part == 1 ? key_tiles : value_tiles) + i * rows * ROW_BYTES, part_of(qkv, part, at, p),
                      token_stride(p), 0, (count + 15) / 16 * 16, count, p.size, threadIdx.x, blockDim.x);
    }
    copy_queries(warp_id(), query_tiles);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // keys and values are there, and the warp's queries

    u32 turn = 0;
    for (u32 task = warp_id(); task < tasks; task += warps, turn ^= 1) {
        Operand query;
        load_operand(Tile(query_tiles + turn * 16 * ROW_BYTES), 0, query);
        softmax.orient(query);
        // The other tile was read in the turn before; what ended that kept the lanes together.
        copy_queries(task + warps, query_tiles + (turn ^ 1) * 16 * ROW_BYTES);
        copy_commit();

        const u32 i = task / p.tiles;
        Tile key(key_tiles + i * rows * ROW_BYTES), value(value_tiles + i * rows * ROW_BYTES);
        key.keep(), value.keep();
        const Keys keys = keys_of(valid, (first_pair + i) / p.heads, p);
        float s[GROUPS][2][4], largest[2] = {-INFINITE, -INFINITE}, total[2] = {};
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            if (16 * j < keys.count) inner_products(query, key, 16 * j, s[j]);
            if (16 * j + 16 > keys.count) {
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (16 * j + 8 * h + own_pair() + e % 2 >= keys.count) s[j][h][e] = -INFINITE;
            }
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int e = 0; e < 4; e++) largest[e / 2] = fmaxf(largest[e / 2], s[j][h][e]);
        }
        float shift[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[half] = row_max(largest[half]);
            shift[half] = softmax.shift(largest[half]);
        }
        u32 weights[GROUPS][4];
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[j][h][e] = softmax.weight(s[j][h][e], shift[e / 2]);
                    total[e / 2] += s[j][h][e];
                }
            to_operand(s[j], weights[j]);
        }
        Sums sum = {};
#pragma unroll
        for (int j = 0; j < GROUPS; j++)
            if (16 * j < keys.count) weighted_sum(weights[j], value, 16 * j, sum);

        float inverse[2];
        const Place at = place_of(first_pair + i, p);
        const u32 first = task % p.tiles * 16;
        finish_rows(largest, total, softmax, keys.wrong, lse + at.pair * p.tokens, first, p.tokens, inverse);
        store_sums(sum, inverse, rows_of(out, at, p), row_stride(p), first, p.tokens, p.size);
        copy_wait<0>();
        __syncwarp(); // the next queries are there for all lanes, and these are read
    }
}
