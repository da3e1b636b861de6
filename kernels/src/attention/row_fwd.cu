// out[b, t, h] = sum_s softmax_s(scale q_t . k_s) v_s and lse[b, h, t] = log sum_s exp(scale q_t . k_s) in bf16 on
// tensor cores, for up to KEYS tokens: a row of scores is whole in registers, so that its softmax needs neither a
// second look nor a running maximum.
//
// A block has `together` heads: all their keys and values come to shared memory at once, at 16-row granularity, and lie
// there to the end. After that one barrier its warps never meet: each takes 16 queries of a head after the other. It
// has 16 x KEYS scores in registers, makes weights of them in place, rounds these to bf16 and has with that the left
// operand of the product with the values. The next queries are on the way meanwhile.
//
// A multiprocessor has few of these warps, so what hides latencies is within them: 64 keys at a time are multiplied without a
// branch between (rows up to there are zeros), and maxima and sums are two numbers a row until the end.

#include "attention/fragments.cuh"

constexpr int WARPS = 4;
// Of a multiprocessor that registers leave room for.
constexpr int BLOCKS = KEYS > 208 || HEAD > 64 ? 2 : (KEYS > 64 ? 3 : 4);
constexpr int GROUPS = KEYS / 16;
constexpr int CHUNK = 4; // groups that are skipped or taken together

// 16 queries of one of the block's heads.
struct Task {
    u32 head, tile;
    __device__ __forceinline__ Task next(u32 by, u32 tiles) const {
        Task to = {head, tile + by};
        for (; to.tile >= tiles; to.tile -= tiles) to.head++;
        return to;
    }
};

#define PASTE_KEYS(name, keys) HEAD_ENTRY(name##_k##keys)
#define WITH_KEYS(name, keys) PASTE_KEYS(name, keys)

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T]
// p.tiles: of 16 rows in T; pairs: B H
KERNEL __launch_bounds__(32 * WARPS, BLOCKS)
    WITH_KEYS(attention_fwd_row, KEYS)(const element *qkv, const i32 *valid, element *out, float *lse, Problem p,
                                       u32 pairs, u32 together) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 first_pair = blockIdx.x * together, heads = min(together, pairs - first_pair);
    const u32 rows = min((p.tokens + 63) / 64 * 64, u32(KEYS)), warps = blockDim.x / 32;
    const u32 key_tiles = shared_address(shared);                        // (together, rows, HEAD)
    const u32 value_tiles = key_tiles + together * rows * ROW_BYTES;     // (together, rows, HEAD)
    const u32 query_tiles = value_tiles + together * rows * ROW_BYTES    // (2, 16, HEAD) a warp
                            + warp_id() * 32 * ROW_BYTES;
    const Place block = place_of(first_pair, p);
    const Softmax softmax(p.scale);

    const auto copy_queries = [&](Task task, u32 tile) {
        if (task.head >= heads) return;
        const element *queries = part_of(qkv, 0, further(block, task.head, p), p);
        copy_rows(tile, queries, token_stride(p), task.tile * 16, 16, p.tokens, p.size, lane_id(), 32);
    };

    for (u32 i = 0; i < heads; i++) {
        const Place at = further(block, i, p);
        const u32 count = keys_of(valid, at.sample, p).count, filled = min(max(count + 63, 64) / 64 * 64, rows);
        for (int part = 1; part <= 2; part++)
            copy_rows((part == 1 ? key_tiles : value_tiles) + i * rows * ROW_BYTES, part_of(qkv, part, at, p),
                      token_stride(p), 0, filled, count, p.size, threadIdx.x, blockDim.x);
    }
    Task task = Task{0, 0}.next(warp_id(), p.tiles);
    copy_queries(task, query_tiles);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // keys and values are there, and the warp's queries

    for (u32 turn = 0; task.head < heads; turn ^= 1) {
        Own<true> query;
        query.load(query_tiles + turn * 16 * ROW_BYTES, 0);
        softmax.orient(query.kept);
        Tile key(key_tiles + task.head * rows * ROW_BYTES), value(value_tiles + task.head * rows * ROW_BYTES);
        key.keep(), value.keep();
        // The other tile was read in the turn before; what ended that kept the lanes together.
        copy_queries(task.next(warps, p.tiles), query_tiles + (turn ^ 1) * 16 * ROW_BYTES);
        copy_commit();

        const Keys keys = keys_of(valid, further(block, task.head, p).sample, p);
        float s[GROUPS][2][4], most[4] = {-INFINITE, -INFINITE, -INFINITE, -INFINITE}, part[4] = {};
#pragma unroll
        for (int c = 0; c < GROUPS; c += CHUNK) {
            const int end = c + CHUNK < GROUPS ? c + CHUNK : GROUPS;
            if (c == 0 || 16 * c < keys.count) {
                query.inner(key, 16 * c, s + c, end - c);
                if (16 * end > keys.count) {
#pragma unroll
                    for (int j = c; j < end; j++)
                        over_tile([&](int h, int e) {
                            if (16 * j + 8 * h + own_pair() + e % 2 >= keys.count) s[j][h][e] = -INFINITE;
                        });
                }
#pragma unroll
                for (int j = c; j < end; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) most[e] = fmaxf(most[e], fmaxf(s[j][0][e], s[j][1][e]));
            }
        }
        float largest[2], total[2], shift[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[half] = row_max(fmaxf(most[2 * half], most[2 * half + 1]));
            shift[half] = softmax.shift(largest[half]);
        }
        Sums sum = {};
#pragma unroll
        for (int c = 0; c < GROUPS; c += CHUNK) {
            const int end = c + CHUNK < GROUPS ? c + CHUNK : GROUPS;
            if (c == 0 || 16 * c < keys.count) {
u32 weights[CHUNK][4]; // made before their products, which takes fewer registers than group by group
#pragma unroll
                for (int j = c; j < end; j++) {
                    over_tile([&](int h, int e) { s[j][h][e] = softmax.weight(s[j][h][e], shift[e / 2]); });
#pragma unroll
                    for (int e = 0; e < 4; e++) part[e] += s[j][0][e] + s[j][1][e];
                    to_operand(s[j], weights[j - c]);
                }
#pragma unroll
                for (int j = c; j < end; j++) weighted_sum(weights[j - c], value, 16 * j, sum);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) total[half] = part[2 * half] + part[2 * half + 1];

        // Made again rather than kept: registers are short above.
        const Place at = further(block, task.head, p);
        const u32 first = task.tile * 16;
        float inverse[2];
        finish_rows(largest, total, softmax, keys.wrong, lse + at.pair * p.tokens, first, p.tokens, inverse);
        store_sums(sum, inverse, rows_of(out, at, p), row_stride(p), first, p.tokens, p.size);
        task = task.next(warps, p.tiles);
        copy_wait<0>();
        __syncwarp(); // the next queries are there for all lanes, and these are read
    }
}
